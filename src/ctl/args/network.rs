//! `nicctl network …` and `nicctl subnet …`.

use std::net::IpAddr;

use clap::{ArgGroup, Args, Subcommand};

use crate::ctl::completion;
use crate::ctl::values::{Cidr, Gateway, Pool, Route, SegmentId};

/// What to do with networks.
#[derive(Debug, Subcommand)]
pub enum NetworkCommand {
    /// Create a network, with its subnets if any are given: all or nothing
    Create(NewNetwork),

    /// List the networks
    #[command(visible_alias = "ls")]
    List,

    /// Show everything about a network
    Show {
        /// The network
        #[arg(add = completion::networks())]
        network: String,
    },

    /// Change a network
    Set(ChangedNetwork),

    /// Delete a network without ports, and its bridge if nicd made it
    #[command(visible_alias = "rm")]
    Delete {
        /// The network
        #[arg(add = completion::networks())]
        network: String,
    },
}

/// The arguments of `network create`.
#[derive(Debug, Args)]
pub struct NewNetwork {
    /// Name
    pub name: String,

    /// Use this existing bridge, which nicd then never creates, deletes or reconfigures [default: nicd makes its own]
    #[arg(long, value_name = "BRIDGE")]
    pub bridge: Option<String>,

    /// Make it this VLAN of the physical network, 1 to 4094, or a free one of the configuration
    #[arg(long, value_name = "ID|free", requires = "physical", conflicts_with_all = ["bridge", "flat"])]
    pub vlan: Option<SegmentId>,

    /// Make it a network of tunnels between the hosts of the fleet, with this number, 1 to 16777215, or a free one of the configuration
    #[arg(long, value_name = "ID|free", conflicts_with_all = ["bridge", "flat", "vlan", "physical"])]
    pub vxlan: Option<SegmentId>,

    /// Make it the untagged side of the physical network
    #[arg(long, requires = "physical", conflicts_with = "bridge")]
    pub flat: bool,

    /// The physical network that its bridge leads to, by its name in the configuration
    #[arg(long, value_name = "NAME")]
    pub physical: Option<String>,

    /// The largest packet, in bytes, 1280 to 65521 [default: the bridge's or the uplink's]
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<u32>,

    /// Create a subnet with this range, with the first host as gateway; may be repeated [default: none]
    #[arg(long = "subnet", value_name = "CIDR")]
    pub subnets: Vec<Cidr>,

    #[command(flatten)]
    pub security: PortSecurity,

    /// Isolate its ports: their guests get only the frames that L2 needs
    #[arg(long)]
    pub isolated: bool,

    /// For which hosts it is: this one, or all of the fleet [default: fleet, in a fleet]
    #[arg(long, value_name = "host|fleet", value_parser = ["host", "fleet"])]
    pub scope: Option<String>,
}

/// Whether new ports of a network have port security.
#[derive(Debug, Args)]
pub struct PortSecurity {
    /// Its new ports hold their guests to their MACs and addresses, unless a port says otherwise; so it is by default
    #[arg(long, conflicts_with = "disable_port_security")]
    pub enable_port_security: bool,

    /// Its new ports let their guests send from any MAC and address, unless a port says otherwise
    #[arg(long)]
    pub disable_port_security: bool,
}

/// What to change in a network.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("change")
    .args(["name", "mtu", "enable_port_security", "disable_port_security", "isolated"])
    .required(true)
    .multiple(true))]
pub struct ChangedNetwork {
    /// The network
    #[arg(add = completion::networks())]
    pub network: String,

    /// New name
    #[arg(long)]
    pub name: Option<String>,

    /// The largest packet, in bytes, 1280 to 65521
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<u32>,

    #[command(flatten)]
    pub security: PortSecurity,

    /// Whether its ports are isolated that do not say otherwise
    #[arg(long)]
    pub isolated: Option<bool>,
}

/// What to do with subnets.
#[derive(Debug, Subcommand)]
pub enum SubnetCommand {
    /// Add a subnet to a network
    Create(NewSubnet),

    /// List the subnets
    #[command(visible_alias = "ls")]
    List {
        /// Only this network's
        #[arg(long, add = completion::networks())]
        network: Option<String>,
    },

    /// Show everything about a subnet
    Show {
        /// The subnet
        #[arg(add = completion::subnets())]
        subnet: String,
    },

    /// Change a subnet
    Set(ChangedSubnet),

    /// Delete a subnet of which no port has an address but one that its guest makes (SLAAC), which goes with it
    #[command(visible_alias = "rm")]
    Delete {
        /// The subnet
        #[arg(add = completion::subnets())]
        subnet: String,
    },
}

/// The arguments of `subnet create`.
#[derive(Debug, Args)]
pub struct NewSubnet {
    /// The network it belongs to
    #[arg(add = completion::networks())]
    pub network: String,

    /// Address range, as 192.0.2.0/24 or 2001:db8::/64
    pub cidr: Cidr,

    #[command(flatten)]
    pub settings: SubnetSettings,

    /// Do not answer its guests' DHCP requests
    #[arg(long)]
    pub no_dhcp: bool,

    /// How guests get their IPv6 addresses: slaac, dhcpv6-stateless or dhcpv6-stateful [default: none]
    #[arg(long, value_name = "MODE")]
    pub ipv6_address_mode: Option<String>,

    /// How router advertisements tell them: slaac, dhcpv6-stateless or dhcpv6-stateful [default: none]
    #[arg(long, value_name = "MODE")]
    pub ipv6_ra_mode: Option<String>,
}

/// What a subnet is created with, and what can be changed of it.
#[derive(Debug, Args)]
pub struct SubnetSettings {
    /// Name
    #[arg(long)]
    pub name: Option<String>,

    /// Gateway address, which no port gets, or `none` [default of a new subnet: the first host]
    #[arg(long, value_name = "IP|none")]
    pub gateway: Option<Gateway>,

    /// Allocate addresses from this range, both ends included, and from no other that is not given; may be repeated [default of a new
    /// subnet: all hosts but the gateway]
    #[arg(long = "pool", value_name = "START-END")]
    pub pools: Vec<Pool>,

    /// DNS server for guests; may be repeated; `set` replaces those there are
    #[arg(long, value_name = "IP")]
    pub dns: Vec<IpAddr>,

    /// Route for guests; may be repeated; `set` replaces those there are
    #[arg(long = "route", value_name = "CIDR,NEXTHOP")]
    pub routes: Vec<Route>,
}

/// What to change in a subnet.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("change").args(["name", "gateway", "pools", "dns", "routes", "dhcp"]).required(true).multiple(true))]
pub struct ChangedSubnet {
    /// The subnet
    #[arg(add = completion::subnets())]
    pub subnet: String,

    #[command(flatten)]
    pub settings: SubnetSettings,

    /// Whether its guests' DHCP requests are answered
    #[arg(long)]
    pub dhcp: Option<bool>,
}
