//! `nicctl attach` and `nicctl detach`.

use std::net::IpAddr;

use clap::Args;

use crate::ctl::values::WaitTime;

/// A NIC to be given.
#[derive(Debug, Args)]
pub struct Attach {
    /// The server that gets it
    pub server: String,

    /// Make a port in this network [default, without --port: the only network there is]
    #[arg(long, conflicts_with = "port")]
    pub network: Option<String>,

    /// With this address [default: the lowest free of the network's subnets]
    #[arg(long, requires = "network")]
    pub ip: Option<IpAddr>,

    /// Use this port, made before by `port create`
    #[arg(long)]
    pub port: Option<String>,

    /// Wait until it is ACTIVE, at most this many seconds, 30 if none are given; exit 3 when they run out, 1 on ERROR
    /// [default: do not wait]
    #[arg(long, value_name = "SECS", num_args = 0..=1, require_equals = true, default_missing_value = "30")]
    pub wait: Option<WaitTime>,
}

/// A NIC to be taken.
#[derive(Debug, Args)]
pub struct Detach {
    /// The server that has it
    pub server: String,

    /// The port; among this server's
    pub port: String,

    /// Let its device go also while a process holds its tap open: some VMMs then read from it without end. Unplug the NIC first
    #[arg(long)]
    pub force: bool,

    /// Wait until its device is gone, at most this many seconds, 30 if none are given; exit 3 when they run out
    /// [default: do not wait]
    #[arg(long, value_name = "SECS", num_args = 0..=1, require_equals = true, default_missing_value = "30")]
    pub wait: Option<WaitTime>,
}
