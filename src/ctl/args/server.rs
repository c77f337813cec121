//! `nicctl server …`.

use clap::{ArgGroup, Args, Subcommand, ValueHint};

use crate::ctl::values::Owner;

/// What to do with servers.
#[derive(Debug, Subcommand)]
pub enum ServerCommand {
    /// Make a guest known, so that it can be given NICs; with a known UUID, in place of what is known: what is not given goes
    Add(NewServer),

    /// List the servers
    List,

    /// Show everything about a server
    Show {
        /// The server
        server: String,
    },

    /// Forget a server; refused while it has NICs
    Delete {
        /// The server
        server: String,

        /// Take its NICs from it first
        #[arg(long)]
        detach: bool,

        /// Let their devices go also while a process holds the taps open
        #[arg(long, requires = "detach")]
        force: bool,
    },
}

/// A guest to be made known.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("guest").args(["vm", "netns"]).required(true))]
pub struct NewServer {
    /// Its UUID; anything else is taken as its name, and a UUID is made and printed
    pub id: String,

    /// It is a virtual machine: its NICs are taps for its monitor process to open
    #[arg(long)]
    pub vm: bool,

    /// It is this network namespace, as /run/netns/web: its NICs are veths with one end inside
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub netns: Option<String>,

    /// Queues per tap, for multiqueue guests [default: 1]
    #[arg(long, value_name = "N", conflicts_with = "netns")]
    pub queues: Option<u16>,

    /// Who may open its taps, in numbers; with both, the opener must match both [default: uid 0]
    #[arg(long, value_name = "UID:GID", conflicts_with = "netns")]
    pub owner: Option<Owner>,

    /// Its QMP socket: not built yet, so nicd refuses it (not_built)
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath, conflicts_with = "netns")]
    pub qmp: Option<String>,

    /// What to call it, when a UUID was given [default: nothing]
    #[arg(long)]
    pub name: Option<String>,

    /// How many NICs it may have [default: the daemon's, usually 12]
    #[arg(long, value_name = "N")]
    pub nic_limit: Option<u32>,
}
