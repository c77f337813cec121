//! `nicctl attach` and `nicctl detach`.

use std::net::IpAddr;

use clap::Args;

use crate::ctl::values::WaitTime;

/// The arguments of `attach`.
#[derive(Debug, Args)]
pub struct Attach {
    /// The server that gets it
    pub server: String,

    /// Create a port in this network [default, without --port: the only network]
    #[arg(long, conflicts_with = "port")]
    pub network: Option<String>,

    /// With this address [default: the lowest free of the network's subnets]
    #[arg(long, requires = "network")]
    pub ip: Option<IpAddr>,

    /// Use this existing port
    #[arg(long)]
    pub port: Option<String>,

    /// Wait until it is ACTIVE, for at most this many seconds (default 30); exit 3 on a timeout, 1 on ERROR
    /// [default: do not wait]
    #[arg(long, value_name = "SECS", num_args = 0..=1, require_equals = true, default_missing_value = "30")]
    pub wait: Option<WaitTime>,
}

/// The arguments of `detach`.
#[derive(Debug, Args)]
pub struct Detach {
    /// The server that has it
    pub server: String,

    /// The port, of this server
    pub port: String,

    /// Delete its device even while a process holds its tap open: some VMMs then use a whole processor. Unplug the NIC first
    #[arg(long)]
    pub force: bool,

    /// Wait until its device is deleted, for at most this many seconds (default 30); exit 3 on a timeout
    /// [default: do not wait]
    #[arg(long, value_name = "SECS", num_args = 0..=1, require_equals = true, default_missing_value = "30")]
    pub wait: Option<WaitTime>,
}
