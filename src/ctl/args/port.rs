//! `nicctl port …`.

use std::net::IpAddr;

use clap::{ArgGroup, Args, Subcommand};

/// What to do with ports.
#[derive(Debug, Subcommand)]
pub enum PortCommand {
    /// Create a port, to be attached later with `attach --port`; a detach keeps it
    Create(NewPort),

    /// List the ports
    List {
        /// Only this network's
        #[arg(long)]
        network: Option<String>,

        /// Only this server's
        #[arg(long)]
        server: Option<String>,
    },

    /// Show everything about a port
    Show {
        /// The port
        port: String,
    },

    /// Change a port
    Set(ChangedPort),

    /// Delete a port, which detaches it if it is attached
    Delete {
        /// The port
        port: String,

        /// Delete its device even while a process holds its tap open
        #[arg(long)]
        force: bool,
    },
}

/// The arguments of `port create`.
#[derive(Debug, Args)]
pub struct NewPort {
    /// The network it is in
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

    /// Create the tap without virtio-net headers, for a VMM that does not support them [default: with headers]
    #[arg(long)]
    pub no_vnet_hdr: bool,
}

/// What to change in a port.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("change").args(["name", "admin_up", "admin_down", "unknown_unicast"]).required(true).multiple(true))]
pub struct ChangedPort {
    /// The port
    pub port: String,

    /// New name
    #[arg(long)]
    pub name: Option<String>,

    /// Set it administratively up
    #[arg(long, conflicts_with = "admin_down")]
    pub admin_up: bool,

    /// Set it administratively down: it keeps its device and addresses but carries no traffic
    #[arg(long)]
    pub admin_down: bool,

    /// Flood frames with an unknown destination MAC to it: true for a guest with several MACs
    #[arg(long)]
    pub unknown_unicast: Option<bool>,
}
