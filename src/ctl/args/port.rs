//! `nicctl port …`.

use std::net::IpAddr;

use clap::{ArgGroup, Args, Subcommand};

use crate::ctl::completion;
use crate::ctl::values::{AllowedAddress, DhcpOption, Isolation, Rate};

/// The flags of `port set` of which it needs one.
const CHANGES: [&str; 18] = [
    "name",
    "mac",
    "ips",
    "admin_up",
    "admin_down",
    "unknown_unicast",
    "enable_port_security",
    "disable_port_security",
    "allowed_addresses",
    "no_allowed_address",
    "groups",
    "no_group",
    "limit_to_guest",
    "limit_from_guest",
    "isolated",
    "dhcp",
    "dns_name",
    "dhcp_options",
];

/// What to do with ports.
#[derive(Debug, Subcommand)]
pub enum PortCommand {
    /// Create a port, to be attached later with `attach --port`; a detach keeps it
    Create(NewPort),

    /// List the ports
    #[command(visible_alias = "ls")]
    List {
        /// Only this network's
        #[arg(long, add = completion::networks())]
        network: Option<String>,

        /// Only this server's
        #[arg(long, add = completion::servers())]
        server: Option<String>,
    },

    /// Show everything about a port
    Show {
        /// The port
        #[arg(add = completion::ports())]
        port: String,
    },

    /// Change a port
    Set(ChangedPort),

    /// List the hosts that have a device for a port: the one where it is active, and those it can move to
    Bindings {
        /// The port
        #[arg(add = completion::ports())]
        port: String,
    },

    /// Move a port to another host of the fleet: build its device there, make it active, and remove the device here
    Move {
        /// The port
        #[arg(add = completion::ports())]
        port: String,

        /// The host
        host: String,

        /// Only build the device there, which is silent: the port stays active where it is
        #[arg(long)]
        prepare: bool,
    },

    /// Delete a port, which detaches it if it is attached
    #[command(visible_alias = "rm")]
    Delete {
        /// The port
        #[arg(add = completion::ports())]
        port: String,

        /// Delete its device even while a process holds its tap open
        #[arg(long)]
        force: bool,
    },
}

/// The arguments of `port create`.
#[derive(Debug, Default, Args)]
pub struct NewPort {
    /// The network it is in
    #[arg(add = completion::networks())]
    pub network: String,

    /// Name [default: none]
    #[arg(long)]
    pub name: Option<String>,

    /// The guest's MAC address [default: a free one]
    #[arg(long)]
    pub mac: Option<String>,

    /// A fixed address; may be repeated [default: the lowest free of the network's subnets]
    #[arg(long = "ip", value_name = "IP")]
    pub ips: Vec<IpAddr>,

    /// The interface's name inside a network namespace, at most 15 bytes [default: the lowest free eth0, eth1, …]
    #[arg(long, value_name = "NAME")]
    pub ifname: Option<String>,

    /// Create it administratively down: it is built but carries no traffic until `port set --admin-up`
    #[arg(long)]
    pub admin_down: bool,

    /// Flood frames with an unknown destination MAC to it, for a guest with several MACs
    #[arg(long)]
    pub unknown_unicast: bool,

    #[command(flatten)]
    pub filters: Filters,

    #[command(flatten)]
    pub told: Told,

    /// Create the tap without virtio-net headers, for a VMM that does not support them [default: with headers]
    #[arg(long)]
    pub no_vnet_hdr: bool,
}

/// What the filters let its guest send, and how fast.
#[derive(Debug, Default, Args)]
pub struct Filters {
    /// Hold its guest to its MAC and addresses [default: as its network]
    #[arg(long, conflicts_with = "disable_port_security")]
    pub enable_port_security: bool,

    /// Let its guest send from any MAC and address
    #[arg(long)]
    pub disable_port_security: bool,

    /// Let its guest send from these addresses too; may be repeated; `set` adds them to those there are
    #[arg(long = "allowed-address", value_name = "ip-address=IP|CIDR[,mac-address=MAC]")]
    pub allowed_addresses: Vec<AllowedAddress>,

    /// Put it into this security group; may be repeated; `set` adds it to those there are
    #[arg(long = "group", value_name = "GROUP", add = completion::groups())]
    pub groups: Vec<String>,

    /// Take it out of all security groups; those given with --group are then the only ones
    #[arg(long)]
    pub no_group: bool,

    /// Limit what it gets: RATE in kbit/s, BURST in kbit [default burst: 125 ms of the rate]
    #[arg(long, value_name = "RATE[:BURST]|none")]
    pub limit_to_guest: Option<Rate>,

    /// Limit what it sends; its burst may be up to a second of the rate more, unless it is exact, which takes a further device
    #[arg(long, value_name = "RATE[:BURST][:exact]|none")]
    pub limit_from_guest: Option<Rate>,

    /// Whether its guest gets only the frames that L2 needs
    #[arg(long, value_enum)]
    pub isolated: Option<Isolation>,
}

/// What its guest is told.
#[derive(Debug, Default, Args)]
pub struct Told {
    /// Whether its guest's DHCP requests are answered [default: as its subnets]
    #[arg(long)]
    pub dhcp: Option<bool>,

    /// The name its guest is given
    #[arg(long, value_name = "NAME")]
    pub dns_name: Option<String>,

    /// A DHCP option for its guest, by dnsmasq's name or number, behind option6: for DHCPv6; may be repeated; without a value `set` takes it back
    #[arg(long = "dhcp-option", value_name = "OPTION=VALUE")]
    pub dhcp_options: Vec<DhcpOption>,
}

/// What to change in a port.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("change").args(CHANGES).required(true).multiple(true))]
pub struct ChangedPort {
    /// The port
    #[arg(add = completion::ports())]
    pub port: String,

    /// New name
    #[arg(long)]
    pub name: Option<String>,

    /// New MAC address; refused while it is attached
    #[arg(long)]
    pub mac: Option<String>,

    /// A fixed address, in place of those it has; may be repeated
    #[arg(long = "ip", value_name = "IP")]
    pub ips: Vec<IpAddr>,

    /// Set it administratively up
    #[arg(long, conflicts_with = "admin_down")]
    pub admin_up: bool,

    /// Set it administratively down: it keeps its device and addresses but carries no traffic
    #[arg(long)]
    pub admin_down: bool,

    /// Flood frames with an unknown destination MAC to it: true for a guest with several MACs
    #[arg(long)]
    pub unknown_unicast: Option<bool>,

    #[command(flatten)]
    pub filters: Filters,

    #[command(flatten)]
    pub told: Told,

    /// Take all allowed addresses away that it has; those given with --allowed-address are then the only ones
    #[arg(long)]
    pub no_allowed_address: bool,
}
