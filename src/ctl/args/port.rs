//! `nicctl port …`.

use std::net::IpAddr;

use clap::{ArgGroup, Args, Subcommand};

/// What to do with ports.
#[derive(Debug, Subcommand)]
pub enum PortCommand {
    /// Make a port, to be attached later with `attach --port`; a detach then leaves it in being
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

        /// Let its device go also while a process holds its tap open
        #[arg(long)]
        force: bool,
    },
}

/// A port to be made.
#[derive(Debug, Args)]
pub struct NewPort {
    /// The network it is in
    pub network: String,

    /// What to call it [default: nothing]
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

    /// Leave it switched off: it is built but passes nothing until `port set --admin-up`
    #[arg(long)]
    pub admin_down: bool,

    /// Let frames for MACs that nobody has reach it, for a guest with more MACs than one
    #[arg(long)]
    pub unknown_unicast: bool,

    /// Make the tap without virtio-net headers, for a VMM that does not know them [default: with them]
    #[arg(long)]
    pub no_vnet_hdr: bool,
}

/// What to change in a port.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("change").args(["name", "admin_up", "admin_down", "unknown_unicast"]).required(true).multiple(true))]
pub struct ChangedPort {
    /// The port
    pub port: String,

    /// Call it so
    #[arg(long)]
    pub name: Option<String>,

    /// Switch it on
    #[arg(long, conflicts_with = "admin_down")]
    pub admin_up: bool,

    /// Switch it off: it keeps its device and addresses but passes nothing
    #[arg(long)]
    pub admin_down: bool,

    /// Whether frames for MACs that nobody has reach it: true for a guest with more MACs than one
    #[arg(long)]
    pub unknown_unicast: Option<bool>,
}
