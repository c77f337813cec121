//! `nicctl trunk …`.

use clap::{ArgGroup, Args, Subcommand};

use crate::ctl::completion;
use crate::ctl::values::SubPort;

/// What to do with trunks.
#[derive(Debug, Subcommand)]
pub enum TrunkCommand {
    /// Create a trunk: a port whose NIC carries further ports' frames, each with the tag of a VLAN
    Create(NewTrunk),

    /// List the trunks
    #[command(visible_alias = "ls")]
    List,

    /// Show everything about a trunk
    Show {
        /// The trunk
        #[arg(add = completion::trunks())]
        trunk: String,
    },

    /// Change a trunk
    Set(ChangedTrunk),

    /// Delete a trunk; its ports stay
    #[command(visible_alias = "rm")]
    Delete {
        /// The trunk
        #[arg(add = completion::trunks())]
        trunk: String,
    },

    /// Add subports to a trunk, all or none
    Add {
        /// The trunk
        #[arg(add = completion::trunks())]
        trunk: String,

        /// A port without a server, and the VLAN of its frames on the parent's NIC
        #[arg(value_name = "PORT:VLAN", required = true)]
        subports: Vec<SubPort>,
    },

    /// Take subports from a trunk, all or none; the ports stay
    Remove {
        /// The trunk
        #[arg(add = completion::trunks())]
        trunk: String,

        /// A subport
        #[arg(value_name = "PORT", required = true, add = completion::ports())]
        ports: Vec<String>,
    },
}

/// The arguments of `trunk create`.
#[derive(Debug, Args)]
pub struct NewTrunk {
    /// The parent: the port whose NIC carries the others' frames, and its own without a tag
    #[arg(add = completion::ports())]
    pub parent: String,

    /// Name [default: none]
    #[arg(long)]
    pub name: Option<String>,

    /// A port without a server, and the VLAN of its frames on the parent's NIC; may be repeated [default: none]
    #[arg(long = "subport", value_name = "PORT:VLAN")]
    pub subports: Vec<SubPort>,

    /// Create it administratively down: its subports carry no traffic until `trunk set --admin-up`
    #[arg(long)]
    pub admin_down: bool,
}

/// What to change in a trunk.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("change").args(["name", "admin_up", "admin_down"]).required(true).multiple(true))]
pub struct ChangedTrunk {
    /// The trunk
    #[arg(add = completion::trunks())]
    pub trunk: String,

    /// New name
    #[arg(long)]
    pub name: Option<String>,

    /// Let its subports carry traffic
    #[arg(long, conflicts_with = "admin_down")]
    pub admin_up: bool,

    /// Stop its subports' traffic
    #[arg(long)]
    pub admin_down: bool,
}
