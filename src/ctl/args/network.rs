//! `nicctl network …` and `nicctl subnet …`.

use std::net::IpAddr;

use clap::{Args, Subcommand};

use crate::ctl::values::{Cidr, Gateway, Pool, Route};

/// What to do with networks.
#[derive(Debug, Subcommand)]
pub enum NetworkCommand {
    /// Make a network, with its subnets if any are given: all of it or nothing
    Create(NewNetwork),

    /// List the networks
    List,

    /// Show everything about a network
    Show {
        /// The network
        network: String,
    },

    /// Delete a network without ports, and its bridge if nicd made it
    Delete {
        /// The network
        network: String,
    },
}

/// A network to be made.
#[derive(Debug, Args)]
pub struct NewNetwork {
    /// What to call it
    pub name: String,

    /// Use this existing bridge, which nicd then never creates, deletes or reconfigures [default: nicd makes its own]
    #[arg(long, value_name = "BRIDGE")]
    pub bridge: Option<String>,

    /// The largest packet, in bytes, 1280 to 65521 [default: the bridge's]
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<u32>,

    /// Give it a subnet with this range, its gateway being the first host; may be repeated [default: none]
    #[arg(long = "subnet", value_name = "CIDR")]
    pub subnets: Vec<Cidr>,
}

/// What to do with subnets.
#[derive(Debug, Subcommand)]
pub enum SubnetCommand {
    /// Give a network a range of addresses
    Create(NewSubnet),

    /// List the subnets
    List {
        /// Only this network's
        #[arg(long)]
        network: Option<String>,
    },

    /// Show everything about a subnet
    Show {
        /// The subnet
        subnet: String,
    },

    /// Delete a subnet of which no port has an address
    Delete {
        /// The subnet
        subnet: String,
    },
}

/// A subnet to be made.
#[derive(Debug, Args)]
pub struct NewSubnet {
    /// The network it belongs to
    pub network: String,

    /// Its range, as 192.0.2.0/24 or 2001:db8::/64
    pub cidr: Cidr,

    /// What to call it [default: nothing]
    #[arg(long)]
    pub name: Option<String>,

    /// The gateway's address, which no port gets, or `none` [default: the first host]
    #[arg(long, value_name = "IP|none")]
    pub gateway: Option<Gateway>,

    /// Choose addresses from this range, ends included; may be repeated [default: all hosts but the gateway]
    #[arg(long = "pool", value_name = "START-END")]
    pub pools: Vec<Pool>,

    /// A name server to tell guests; may be repeated [default: none]
    #[arg(long, value_name = "IP")]
    pub dns: Vec<IpAddr>,

    /// A route to tell guests; may be repeated [default: none]
    #[arg(long = "route", value_name = "CIDR,NEXTHOP")]
    pub routes: Vec<Route>,
}
