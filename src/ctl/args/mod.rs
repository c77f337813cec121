//! The command line as typed: every command, flag and help text. Nothing is looked up or decided here.

mod examples;
mod group;
mod host;
mod network;
mod nic;
mod port;
mod server;
mod trunk;

pub use group::{ChangedGroup, Ethertype, GroupCommand, NewGroup, NewRule, RuleCommand};
pub use host::{FleetCommand, HostCommand};
pub use network::{ChangedNetwork, ChangedSubnet, NetworkCommand, NewNetwork, NewSubnet, SubnetCommand, SubnetSettings};
pub use nic::{Attach, Detach, Nic, Planned};
pub use port::{ChangedPort, Filters, NewPort, PortCommand};
pub use server::{ChangedServer, NewServer, ServerCommand};
pub use trunk::{ChangedTrunk, NewTrunk, TrunkCommand};

use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use super::completion;
use super::values::Interval;

const AFTER_HELP: &str = "\
NETWORK, SUBNET, GROUP, SERVER, PORT and TRUNK are a UUID, the first digits of one (4 or more, if no other begins so) or a name;
SUBNET also its range.

Exit codes: 0 done; 1 refused or failed, with one sentence on stderr; 2 usage; 3 --wait ran out; 4 nicd cannot be reached.
Colours appear on a terminal only, and not when NO_COLOR is set.";

/// The heading of the flags that every command has, so that they do not stand between a command's own.
const GLOBAL: &str = "Options of every command";

/// Where the daemon's socket is by default.
pub const SOCKET: &str = "/run/nicd/nicd.sock";

/// Attach, detach and inspect NICs of virtual machines and network namespaces on this host
#[derive(Debug, Parser)]
#[command(name = "nicctl", version, after_help = AFTER_HELP)]
pub struct Cli {
    /// How to print the answer
    #[arg(
        short,
        long,
        global = true,
        help_heading = GLOBAL,
        value_enum,
        value_name = "FORMAT",
        default_value_t = Format::Table
    )]
    pub output: Format,

    /// The daemon's socket; where it may not be used, nicd-view.sock in the same directory is read from
    #[arg(
        long,
        global = true,
        help_heading = GLOBAL,
        env = "NICD_SOCKET",
        value_name = "PATH",
        default_value = SOCKET
    )]
    pub socket: PathBuf,

    #[command(flatten)]
    pub remote: RemoteArgs,

    #[command(flatten)]
    pub listing: Listing,

    #[command(subcommand)]
    pub command: Command,
}

/// A daemon on another host.
#[derive(Debug, Default, Clone, PartialEq, Eq, Args)]
pub struct RemoteArgs {
    /// The daemon of another host (its [listen] tls), in place of a socket; with --cert, --key and --cacert
    #[arg(long, global = true, help_heading = GLOBAL, env = "NICD_HOST", value_name = "https://HOST:PORT")]
    pub host: Option<String>,

    /// The file (PEM) with the certificate that --host is shown
    #[arg(long, global = true, help_heading = GLOBAL, env = "NICD_CERT", value_name = "FILE")]
    pub cert: Option<PathBuf>,

    /// The file (PEM) with the private key of --cert
    #[arg(long, global = true, help_heading = GLOBAL, env = "NICD_KEY", value_name = "FILE")]
    pub key: Option<PathBuf>,

    /// The file (PEM) with the authority that the certificate of --host is verified against
    #[arg(long, global = true, help_heading = GLOBAL, env = "NICD_CACERT", value_name = "FILE")]
    pub cacert: Option<PathBuf>,
}

/// The definition of the command line, with its examples.
pub fn command() -> clap::Command {
    examples::add(Cli::command())
}

/// Reads the command line.
///
/// # Errors
/// It is wrong, or asks for help or the version.
pub fn parse() -> Result<Cli, clap::Error> {
    let mut command = command();
    let matches = command.try_get_matches_from_mut(std::env::args_os())?;
    let mut cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    let typed = |name| matches.value_source(name) == Some(ValueSource::CommandLine);
    // What was typed wins over the environment, in which NICD_HOST wins over NICD_SOCKET.
    match (typed("socket"), typed("host")) {
        (true, true) => return Err(usage(&mut command, "--socket and --host are two daemons: give one of them")),
        (true, false) => cli.remote.host = None,
        (false, _) => {}
    }
    let RemoteArgs { host, cert, key, cacert } = &cli.remote;
    if host.is_some() && (cert.is_none() || key.is_none() || cacert.is_none()) {
        return Err(usage(
            &mut command,
            "a daemon on another host needs --cert, --key and --cacert (NICD_CERT, NICD_KEY, NICD_CACERT)",
        ));
    }
    Ok(cli)
}

fn usage(command: &mut clap::Command, said: &str) -> clap::Error {
    command.error(clap::error::ErrorKind::ArgumentConflict, said)
}

/// How lists are printed.
#[derive(Debug, Default, Clone, PartialEq, Eq, Args)]
pub struct Listing {
    /// Only these columns of a list, in this order, named as in its head; also those that only `show` prints
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "COLUMN,…", value_delimiter = ',')]
    pub columns: Vec<String>,

    /// Sort a list by this column; with a - before it from the last to the first [default: by name, then by creation]
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "[-]COLUMN", allow_hyphen_values = true)]
    pub sort: Option<String>,

    /// Leave out the head of tables
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub no_header: bool,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people: short ids, names where there are any
    Table,
    /// For scripts: the daemon's own objects; a list is one array
    Json,
    /// As table, with full ids, device, bridge, MTU, phase and reason
    Wide,
    /// The daemon's own objects as YAML
    Yaml,
    /// The wide table as comma-separated values (RFC 4180)
    Csv,
    /// The wide table's values with a space between, without a head
    Value,
}

/// How a graph is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GraphFormat {
    /// For Graphviz: dot -Tpng
    Dot,
    /// A drawing for browsers, complete in itself
    Svg,
    /// For trackers and wikis
    Mermaid,
}

impl Format {
    /// Whether the daemon's own objects are printed.
    pub fn is_objects(self) -> bool {
        matches!(self, Self::Json | Self::Yaml)
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Networks: each is one bridge on this host
    #[command(subcommand)]
    Network(NetworkCommand),

    /// Subnets: the address ranges of a network
    #[command(subcommand)]
    Subnet(SubnetCommand),

    /// Security groups: which connections the ports have that are in them
    #[command(subcommand)]
    Group(GroupCommand),

    /// The rules of security groups: each allows something
    #[command(subcommand)]
    Rule(RuleCommand),

    /// Servers: the guests of this host, virtual machines and network namespaces
    #[command(subcommand)]
    Server(ServerCommand),

    /// Ports: NICs that are created before a server needs them
    #[command(subcommand)]
    Port(PortCommand),

    /// Trunks: ports whose NIC carries further ports' frames
    #[command(subcommand)]
    Trunk(TrunkCommand),

    /// The hosts of the fleet
    #[command(subcommand)]
    Host(HostCommand),

    /// The fleet that this host is one of
    #[command(subcommand)]
    Fleet(FleetCommand),

    /// Attach a NIC to a server
    Attach(Attach),

    /// Detach a NIC from a server
    Detach(Detach),

    /// Show what an attach or a detach would do, step by step with each step's undo; changes nothing
    #[command(subcommand)]
    Plan(Planned),

    /// List the ports, all or a server's
    #[command(visible_alias = "ls")]
    List {
        /// Only this server's
        #[arg(add = completion::servers())]
        server: Option<String>,
    },

    /// Show everything about a port
    Show {
        /// The port
        #[arg(add = completion::ports())]
        port: String,
    },

    /// Print events as they occur, one line each, until interrupted
    Watch {
        /// Print each event as a JSON object, as with -o json
        #[arg(long)]
        json: bool,
    },

    /// Explain a port's status: its conditions, in the order of evaluation
    Explain {
        /// The port
        #[arg(add = completion::ports())]
        port: String,
    },

    /// Count what a port's guest sent and got, and what was dropped, by reason
    Counters {
        /// The port
        #[arg(add = completion::ports())]
        port: String,
    },

    /// Show what guests asked last by DHCP, and what became of it
    Leases {
        /// The port [default: all]
        #[arg(add = completion::ports())]
        port: Option<String>,
    },

    /// Compare nicd's records with the kernel and exit with 1 on any deviation; changes nothing
    Verify,

    /// List devices that nicd made and no record needs; never lists links of other programs
    Gc {
        /// Delete the leftovers
        #[arg(long)]
        apply: bool,
        /// Devices of a nicd with this other store; the store's id is the first one in its links' aliases
        #[arg(long, value_name = "UUID")]
        store: Option<String>,
    },

    /// Draw networks, bridges, uplinks, ports and guests
    Graph {
        /// The drawing's language
        #[arg(long, value_enum, default_value_t = GraphFormat::Dot)]
        format: GraphFormat,
        /// Only this network
        #[arg(long, add = completion::networks())]
        network: Option<String>,
    },

    /// Find what could stop an attach on this host, each with its remedy; exit 1 when something does
    ///
    /// Looks at the kernel's modules, /dev/net/tun, the bridges that could carry a network, this host's addresses and routes, and asks nicd.
    /// It works without nicd too, needs no rights and changes nothing.
    Doctor,

    /// Show the attached ports live: status, rates, drops and limits, those in trouble first
    ///
    /// In trouble are ports that are ERROR, then those that another program keeps changing, then those that are DOWN for another reason than
    /// no_carrier and admin_down, then those whose frames are dropped; the others follow by rate.
    ///
    /// Keys: q quits, s sorts by the next of trouble, rate, drops, name and server (--sort gives the first), r reverses, space pauses, and
    /// the arrows, Page Up, Page Down, Home and End scroll. Rates are bits and packets in a second, as the guest sees them: FROM it and TO it.
    /// It goes on when nicd is restarted, and says while nicd is not there.
    Top {
        /// Print one frame, of what happens within an interval; with -o json as objects
        #[arg(long)]
        once: bool,
        /// Seconds between two looks
        #[arg(long, value_name = "SECS", default_value = "1")]
        interval: Interval,
    },

    /// Show the daemon's version, health and problems; exit 1 when there are any
    Status,

    /// Print the versions of this program and of the daemon
    Version,

    /// Write the manual pages and completions that a package has into a directory
    #[command(hide = true)]
    Manual {
        /// The directory
        into: PathBuf,
    },

    /// Print a completion script for a shell
    Completion {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn command_lines_of_the_manual_are_accepted() {
        for line in [
            "nicctl network create blue --bridge br0 --mtu 1500 --subnet 192.0.2.0/24 --subnet 2001:db8::/64",
            "nicctl subnet create blue 192.0.2.0/24 --gateway none --pool 192.0.2.10-192.0.2.20 --dns 192.0.2.2 \
             --route 198.51.100.0/24,192.0.2.254",
            "nicctl server add web --vm --queues 4 --owner 107:64055 --qmp /run/web.qmp",
            "nicctl server add web --netns /run/netns/web --nic-limit 3",
            "nicctl server delete web --detach",
            "nicctl attach web",
            "nicctl attach web --network blue --ip 192.0.2.7 --wait",
            "nicctl attach web --port eth0 --wait=5",
            "nicctl detach web eth0 --wait",
            "nicctl detach eth0",
            "nicctl attach web --network blue --mac fa:16:3e:00:00:01 --ifname eth7 --name web-7",
            "nicctl plan attach web --network blue",
            "nicctl plan detach eth0",
            "nicctl network ls --columns id,MTU --sort -mtu --no-header -o csv",
            "nicctl server set web --nic-limit 4",
            "nicctl subnet set blue --dns 192.0.2.2",
            "nicctl port rm eth0",
            "nicctl port create blue --mac fa:16:3e:00:00:01 --ip 192.0.2.7 --ip 192.0.2.8 --ifname eth0 --no-vnet-hdr",
            "nicctl port set eth0 --name eth1 --admin-down",
            "nicctl port set eth0 --no-allowed-address --limit-to-guest none --isolated network",
            "nicctl network set blue --disable-port-security --isolated true",
            "nicctl group create web --description HTTP",
            "nicctl rule create web --protocol tcp --port 80-81 --remote 192.0.2.0/24",
            "nicctl rule create web --egress --ethertype ipv6 --protocol icmp --icmp-type 128 --icmp-code 0 --remote-group db",
            "nicctl port set eth0 --no-group --group web",
            "nicctl trunk create front --name router --subport dmz:101 --subport lan:4094 --admin-down",
            "nicctl trunk add router dmz:101 lan:102",
            "nicctl trunk remove router dmz lan",
            "nicctl trunk set router --admin-up --name r",
            "nicctl list -o wide",
            "nicctl graph --format svg --network blue",
            "nicctl doctor -o json",
            "nicctl --socket /tmp/s -o json gc --apply",
            "nicctl list --host https://host-1.example:8443 --cert c.pem --key k.pem --cacert ca.pem",
        ] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line).err());
        }
    }

    #[test]
    fn contradictions_are_usage_errors() {
        for line in [
            "nicctl server add web",
            "nicctl server add web --vm --netns /run/netns/web",
            "nicctl server add web --netns /run/netns/web --queues 2",
            "nicctl attach web --ip 192.0.2.7",
            "nicctl attach web --network blue --port eth0",
            "nicctl attach web --wait=0",
            "nicctl port set eth0",
            "nicctl port set eth0 --admin-up --admin-down",
            "nicctl port set eth0 --enable-port-security --disable-port-security",
            "nicctl port set eth0 --limit-to-guest fast",
            "nicctl trunk create front --subport dmz",
            "nicctl trunk create front --subport dmz:0",
            "nicctl trunk create front --subport dmz:4095",
            "nicctl trunk create front --subport :7",
            "nicctl trunk add router",
            "nicctl trunk remove router",
            "nicctl trunk set router",
            "nicctl trunk set router --admin-up --admin-down",
            "nicctl network set blue",
            "nicctl group set web",
            "nicctl rule create web --port 80",
            "nicctl rule create web --protocol icmp --icmp-type 256",
            "nicctl rule create web --protocol tcp --port 80-",
            "nicctl rule create web --remote 192.0.2.0/24 --remote-group db",
            "nicctl subnet create blue 192.0.2.0",
        ] {
            assert_eq!(parse(line).map(|_| ()).map_err(|e| e.exit_code()), Err(2), "{line}");
        }
    }

    #[test]
    fn the_word_after_wait_is_not_its_value() {
        let Ok(Cli { command: Command::Detach(detach), .. }) = parse("nicctl detach --wait web eth0") else {
            panic!("not a detach")
        };
        assert_eq!((detach.names, detach.wait), (vec!["web".to_owned(), "eth0".to_owned()], "30".parse().ok()));
    }
}
