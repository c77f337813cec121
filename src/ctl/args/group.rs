//! `nicctl group …` and `nicctl rule …`.

use clap::{ArgGroup, Args, Subcommand, ValueEnum};

use crate::ctl::completion;
use crate::ctl::values::{Cidr, PortRange};

/// What to do with security groups.
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// Create a security group, which allows all connections that its ports begin
    Create(NewGroup),

    /// List the security groups
    #[command(visible_alias = "ls")]
    List,

    /// Show everything about a security group, with its rules
    Show {
        /// The group
        #[arg(add = completion::groups())]
        group: String,
    },

    /// Change a security group
    Set(ChangedGroup),

    /// Delete a security group without ports, and the rules of others that refer to it
    #[command(visible_alias = "rm")]
    Delete {
        /// The group
        #[arg(add = completion::groups())]
        group: String,
    },
}

/// The arguments of `group create`.
#[derive(Debug, Args)]
pub struct NewGroup {
    /// Name
    pub name: String,

    /// What it is for
    #[arg(long)]
    pub description: Option<String>,
}

/// What to change in a security group.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("change").args(["name", "description"]).required(true).multiple(true))]
pub struct ChangedGroup {
    /// The group
    #[arg(add = completion::groups())]
    pub group: String,

    /// New name
    #[arg(long)]
    pub name: Option<String>,

    /// What it is for
    #[arg(long)]
    pub description: Option<String>,
}

/// What to do with the rules of security groups.
#[derive(Debug, Subcommand)]
pub enum RuleCommand {
    /// Allow the ports of a security group something more
    Create(NewRule),

    /// List the rules, all or a group's
    #[command(visible_alias = "ls")]
    List {
        /// Only this group's
        #[arg(add = completion::groups())]
        group: Option<String>,
    },

    /// Delete a rule: connections that it alone allowed end at once
    #[command(visible_alias = "rm")]
    Delete {
        /// The rule's UUID, or the first digits of it
        #[arg(add = completion::rules())]
        rule: String,
    },
}

/// The arguments of `rule create`.
#[derive(Debug, Args)]
pub struct NewRule {
    /// The group
    #[arg(add = completion::groups())]
    pub group: String,

    /// Allow what its ports begin [default: what others begin with them]
    #[arg(long)]
    pub egress: bool,

    /// The family of the addresses [default: that of --remote, else IPv4]
    #[arg(long, value_enum)]
    pub ethertype: Option<Ethertype>,

    /// Only this protocol: its name, as tcp, udp or icmp, or its number [default: any]
    #[arg(long)]
    pub protocol: Option<String>,

    /// Only these ports at the receiver, of tcp, udp, udplite, sctp or dccp [default: all]
    #[arg(long = "port", value_name = "PORT[-PORT]", requires = "protocol", conflicts_with_all = ["icmp_type", "icmp_code"])]
    pub ports: Option<PortRange>,

    /// Only this type of ICMP [default: all]
    #[arg(long, value_name = "NUMBER", requires = "protocol")]
    pub icmp_type: Option<u8>,

    /// Only this code of the ICMP type [default: all]
    #[arg(long, value_name = "NUMBER", requires = "icmp_type")]
    pub icmp_code: Option<u8>,

    /// Only with these addresses [default: any]
    #[arg(long, value_name = "CIDR", conflicts_with = "remote_group")]
    pub remote: Option<Cidr>,

    /// Only with the ports of this group
    #[arg(long, value_name = "GROUP", add = completion::groups())]
    pub remote_group: Option<String>,

    /// What it is for
    #[arg(long)]
    pub description: Option<String>,
}

/// The family of a rule's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Ethertype {
    /// IPv4
    #[value(name = "ipv4")]
    V4,
    /// IPv6
    #[value(name = "ipv6")]
    V6,
}
