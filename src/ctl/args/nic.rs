//! `nicctl attach`, `nicctl detach` and `nicctl plan`.

use std::net::IpAddr;

use clap::{Args, Subcommand};

use crate::ctl::completion;
use crate::ctl::values::WaitTime;

/// Which NIC a server gets.
#[derive(Debug, Args)]
pub struct Nic {
    /// The server that gets it
    #[arg(add = completion::servers())]
    pub server: String,

    /// Create a port in this network [default, without --port: the only network]
    #[arg(long, conflicts_with = "port", add = completion::networks())]
    pub network: Option<String>,

    /// With this address [default: the lowest free of the network's subnets]
    #[arg(long, requires = "network")]
    pub ip: Option<IpAddr>,

    /// Use this existing port
    #[arg(long, add = completion::ports())]
    pub port: Option<String>,
}

/// The arguments of `attach`.
#[derive(Debug, Args)]
pub struct Attach {
    #[command(flatten)]
    pub nic: Nic,

    /// With this MAC address. With any of --mac, --ifname, --name and --group the port is created first: a detach keeps it
    #[arg(long, requires = "network")]
    pub mac: Option<String>,

    /// With this name of the interface inside a network namespace, at most 15 bytes
    #[arg(long, requires = "network", value_name = "NAME")]
    pub ifname: Option<String>,

    /// With this name of the port
    #[arg(long, requires = "network")]
    pub name: Option<String>,

    /// In this security group; may be repeated
    #[arg(long = "group", requires = "network", value_name = "GROUP", add = completion::groups())]
    pub groups: Vec<String>,

    /// Print each step of the attach with its time in microseconds: when it began, and how long it took
    #[arg(long)]
    pub receipt: bool,

    /// Wait until it is ACTIVE, for at most this many seconds (default 30); exit 3 on a timeout, 1 on ERROR
    /// [default: do not wait]
    #[arg(long, value_name = "SECS", num_args = 0..=1, require_equals = true, default_missing_value = "30")]
    pub wait: Option<WaitTime>,
}

/// The arguments of `detach`.
#[derive(Debug, Args)]
pub struct Detach {
    /// The server that has it, if the port is named among that server's, and the port
    #[arg(required = true, num_args = 1..=2, value_names = ["[SERVER] PORT"], add = completion::ports())]
    pub names: Vec<String>,

    /// Delete its device even while a process holds its tap open: some VMMs then use a whole processor. Unplug the NIC first
    #[arg(long)]
    pub force: bool,

    /// Wait until its device is deleted, for at most this many seconds (default 30); exit 3 on a timeout
    /// [default: do not wait]
    #[arg(long, value_name = "SECS", num_args = 0..=1, require_equals = true, default_missing_value = "30")]
    pub wait: Option<WaitTime>,
}

/// What is planned and not done.
#[derive(Debug, Subcommand)]
pub enum Planned {
    /// What `attach` with these arguments would do
    Attach(Nic),

    /// What `detach` of this port would do
    Detach {
        /// The port
        #[arg(add = completion::ports())]
        port: String,
    },
}
