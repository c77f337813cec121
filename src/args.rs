//! The command line of `nicd`. It says what was typed and decides nothing: [`crate::config`] makes settings of it.
//!
//! A flag wins over its environment variable, and both over the file.

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::config::Overrides;
use crate::exit::Exit;
use crate::telemetry::stderr;

const AFTER_HELP: &str = "\
Without a command nicd runs in the foreground until SIGTERM or SIGINT, and logs to standard error.
A flag wins over its environment variable, and both win over the configuration file.

Exit codes:
   0  ended as asked
   1  internal error
  64  wrong usage
  69  another nicd, or another program, holds the state, the socket or this network namespace; demo: a program is not installed
  74  the store cannot be opened, read or written
  77  a permission or capability is missing
  78  the configuration cannot be used

Files:
  /etc/nicd/nicd.toml     configuration; every key has a default (nicd check-config --reference explains them)
  /run/nicd/nicd.sock     the API; curl --unix-socket /run/nicd/nicd.sock http://nicd/nicd/v1/health
  /var/lib/nicd/nicd.db   the state";

/// Builds guests' network interfaces (tap, veth) on this host and answers the clouds' attach APIs on a Unix socket.
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(name = "nicd", version, after_help = AFTER_HELP)]
pub struct Args {
    /// What to do; run the daemon when absent.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Configuration file; must exist, unlike the default file
    #[arg(long, env = "NICD_CONFIG", value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,

    /// Path of the socket; the read-only socket is in the same directory
    #[arg(long, env = "NICD_SOCKET", value_name = "PATH", global = true)]
    pub socket: Option<PathBuf>,

    /// State directory
    #[arg(long, env = "NICD_STATE_DIR", value_name = "DIR", global = true)]
    pub state_dir: Option<PathBuf>,

    /// Log level: off, error, warn, info, debug, trace, or a filter such as info,nicd::api=debug
    #[arg(long, env = "NICD_LOG", value_name = "LEVEL", global = true)]
    pub log: Option<String>,
}

/// What `nicd` can do besides running.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Show the main job end to end in a private network namespace; changes nothing on the host
    ///
    /// Needs root, or a user namespace, and uses none of the daemon's options. Without --fleet it needs access to /dev/net/tun as well,
    /// and nothing installed. Takes some seconds and exits with 0 only if everything it claims held; with 77 where it cannot be had;
    /// with 69 where a program that it runs is not installed.
    Demo {
        /// Show a fleet: three hosts on one etcd, and guests that reach each other on one network
        ///
        /// The hosts are network namespaces. Runs etcd (Debian's etcd-server), which it kills and starts again, and ip and bridge
        /// (iproute2). Takes some 20 seconds, and 300 MB of memory, in which all its files are.
        #[arg(long)]
        fleet: bool,
        /// Which of the demo's processes this one is
        #[arg(long, hide = true)]
        role: Option<Role>,
    },
    /// Open sockets in network namespaces for an unprivileged nicd; run by nicd-netns.service with the socket that systemd passes
    #[command(hide = true)]
    Netns,
    /// Write the manual pages and completions that a package has into a directory
    #[command(hide = true)]
    Manual {
        /// The directory
        into: PathBuf,
    },
    /// Check the configuration and print the resulting settings as a configuration file, or the error
    CheckConfig {
        /// Print nothing when the configuration is right
        #[arg(long, conflicts_with = "reference")]
        quiet: bool,
        /// Print a file that explains every key, each at its default; reads no configuration
        #[arg(long)]
        reference: bool,
    },
}

/// The process that the demo starts besides the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// The one inside the private namespaces.
    Inside,
}

impl Args {
    /// Reads the process's own command line. When there is nothing to run (`--help`, `--version`, wrong usage) the text
    /// has been printed and the exit code is returned.
    ///
    /// # Errors
    /// [`Exit::Ok`] after help or version, [`Exit::Usage`] after a complaint, [`Exit::Internal`] when it cannot be printed.
    pub fn from_command_line() -> Result<Self, Exit> {
        Self::try_parse().map_err(|error| {
            if error.use_stderr() {
                let text = error.render();
                stderr::write_line(&if io::stderr().is_terminal() { text.ansi().to_string() } else { text.to_string() });
                return Exit::Usage;
            }
            match error.print() {
                // A reader that is gone has read what it wanted.
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Exit::Internal,
                _ => Exit::Ok,
            }
        })
    }

    /// What the command line and the environment say about settings.
    pub fn overrides(&self) -> Overrides {
        Overrides { socket: self.socket.clone(), state_dir: self.state_dir.clone(), log: self.log.clone() }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn flags_may_stand_before_and_after_the_command() {
        let before = Args::try_parse_from(["nicd", "--config", "/c", "check-config"]).unwrap();
        let after = Args::try_parse_from(["nicd", "check-config", "--config", "/c"]).unwrap();
        assert_eq!(before, after);
        assert_eq!(before.command, Some(Command::CheckConfig { quiet: false, reference: false }));
    }

    #[test]
    fn what_is_unknown_is_wrong_usage() {
        for bad in [&["nicd", "--nope"][..], &["nicd", "serve"], &["nicd", "--socket"]] {
            assert!(Args::try_parse_from(bad).unwrap_err().use_stderr(), "{bad:?}");
        }
        assert!(!Args::try_parse_from(["nicd", "--help"]).unwrap_err().use_stderr());
    }

    #[test]
    fn help_names_every_exit_code() {
        let help = Args::command().render_help().to_string();
        for exit in [Exit::Ok, Exit::Internal, Exit::Usage, Exit::Unavailable, Exit::Store, Exit::Permission, Exit::Config] {
            assert!(help.contains(&format!("{:4}  ", exit.code())), "{exit:?}");
        }
    }
}
