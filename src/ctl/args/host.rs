//! `nicctl host …` and `nicctl fleet …`.

use clap::Subcommand;

/// What to do with the hosts of the fleet.
#[derive(Debug, Subcommand)]
pub enum HostCommand {
    /// List the hosts of the fleet
    #[command(visible_alias = "ls")]
    List,

    /// Show everything about a host
    Show {
        /// The host's name in the fleet
        #[arg(value_parser = host_name)]
        name: String,
    },

    /// Take a host out of the fleet that does not come back, with all that it claims; its nicd has to be off for good
    Forget {
        /// The host's name in the fleet
        #[arg(value_parser = host_name)]
        name: String,
    },
}

/// What to do with the fleet.
#[derive(Debug, Subcommand)]
pub enum FleetCommand {
    /// Show how this host stands in its fleet; exit 1 when etcd is not reached
    Status,
}

/// A name that a host can have; it is a part of a path.
fn host_name(text: &str) -> Result<String, String> {
    match !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c)) {
        true => Ok(text.to_owned()),
        false => Err("a host's name has letters, digits, dots and hyphens".to_owned()),
    }
}
