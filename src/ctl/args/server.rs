//! `nicctl server …`.

use clap::{ArgGroup, Args, Subcommand, ValueHint};

use crate::ctl::completion;
use crate::ctl::values::Owner;

/// What to do with servers.
#[derive(Debug, Subcommand)]
pub enum ServerCommand {
    /// Register a guest, so that it can get NICs; an existing UUID is registered again, and omitted values are removed
    Add(NewServer),

    /// List the servers
    #[command(visible_alias = "ls")]
    List,

    /// Show everything about a server
    Show {
        /// The server
        #[arg(add = completion::servers())]
        server: String,
    },

    /// Change a server's registration; what is not named stays. Only with --netns a namespace is looked up again by its path
    Set(ChangedServer),

    /// Delete a server's registration; refused while it has NICs
    #[command(visible_alias = "rm")]
    Delete {
        /// The server
        #[arg(add = completion::servers())]
        server: String,

        /// Detach its NICs first
        #[arg(long)]
        detach: bool,

        /// Delete their devices even while a process holds the taps open
        #[arg(long, requires = "detach")]
        force: bool,
    },
}

/// The arguments of `server add`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("guest").args(["vm", "netns"]).required(true))]
pub struct NewServer {
    /// UUID; any other text is a name, and a UUID is generated and printed
    pub id: String,

    /// The server is a virtual machine: its NICs are taps that the VMM opens
    #[arg(long)]
    pub vm: bool,

    /// The server is this network namespace, as /run/netns/web: its NICs are veths with one end inside
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub netns: Option<String>,

    /// Queues per tap, for multiqueue guests [default: 1]
    #[arg(long, value_name = "N", conflicts_with = "netns")]
    pub queues: Option<u16>,

    /// Numeric uid and gid that may open its taps; with both, the opener must match both [default: uid 0]
    #[arg(long, value_name = "UID:GID", conflicts_with = "netns")]
    pub owner: Option<Owner>,

    /// QMP socket of the machine, by which NICs are plugged into it while it runs
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath, conflicts_with = "netns")]
    pub qmp: Option<String>,

    /// Name, if a UUID was given [default: none]
    #[arg(long)]
    pub name: Option<String>,

    /// Maximum number of NICs [default: the daemon's limit, usually 12]
    #[arg(long, value_name = "N")]
    pub nic_limit: Option<u32>,
}

/// What to change in a server.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("change").args(["name", "nic_limit", "netns", "queues", "owner", "qmp"]).required(true).multiple(true))]
pub struct ChangedServer {
    /// The server
    #[arg(add = completion::servers())]
    pub server: String,

    /// New name
    #[arg(long)]
    pub name: Option<String>,

    /// Maximum number of NICs
    #[arg(long, value_name = "N")]
    pub nic_limit: Option<u32>,

    /// Path of its network namespace
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath, conflicts_with_all = ["queues", "owner", "qmp"])]
    pub netns: Option<String>,

    /// Queues per tap
    #[arg(long, value_name = "N")]
    pub queues: Option<u16>,

    /// Numeric uid and gid that may open its taps
    #[arg(long, value_name = "UID:GID")]
    pub owner: Option<Owner>,

    /// QMP socket of the machine
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub qmp: Option<String>,
}
