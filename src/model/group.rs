//! A security group: rules that say which connections its ports may have (Neutron's `security_groups`). What no rule of a port's groups
//! allows is refused; what answers an allowed packet is allowed.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use ipnetwork::IpNetwork;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ids::{GroupId, RuleId};
use super::network::Scope;

/// So many rules a group may have.
pub const RULES: usize = 500;

/// So many groups a port may be in.
pub const GROUPS_OF_A_PORT: usize = 16;

/// A security group's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Its id.
    pub id: GroupId,
    /// The display name; need not be unique. `default` is a project's own group.
    pub name: String,
    /// A description for operators.
    #[serde(default)]
    pub description: String,
    /// Its project. Rules and ports refer to groups of any project, as the daemon knows no tenants.
    #[serde(default)]
    pub project_id: String,
    /// Its rules, in the order in which they were made.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// For which hosts it is.
    #[serde(default, skip_serializing_if = "Scope::is_host")]
    pub scope: Scope,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// The revision number; grows with each change, also of its rules.
    pub revision_number: u64,
}

/// A rule: packets that it matches are allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its id.
    pub id: RuleId,
    /// A description for operators.
    #[serde(default)]
    pub description: String,
    /// What it allows.
    pub allows: Allows,
    /// The name by which its client called the protocol; none where it gave the number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol_name: Option<String>,
    /// The remote addresses as its client gave them, possibly with host bits; none where it gave none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<IpNetwork>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What a rule allows. Two rules of a group never allow the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allows {
    /// Seen from the guest.
    pub direction: Direction,
    /// The protocol of the packets' addresses.
    pub family: Family,
    /// What IP carries, by its number (IANA's protocol numbers); none for anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u8>,
    /// What of it.
    #[serde(default)]
    pub what: What,
    /// Whom the guest may speak with.
    #[serde(default)]
    pub remote: Remote,
}

/// The direction of a connection's first packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// To the guest.
    Ingress,
    /// From the guest.
    Egress,
}

/// The protocol of addresses (`ethertype`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    #[serde(rename = "IPv4")]
    V4,
    /// IPv6.
    #[serde(rename = "IPv6")]
    V6,
}

/// Which packets of a protocol a rule allows.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// All.
    #[default]
    All,
    /// Those to a port from the first to the last, of TCP, UDP, UDP-Lite, SCTP or DCCP.
    Ports {
        /// The first.
        first: u16,
        /// The last.
        last: u16,
    },
    /// Those of a type, of ICMP or ICMPv6.
    Icmp {
        /// The type.
        kind: u8,
        /// The code; none for all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<u8>,
    },
}

/// With whom a rule lets the guest speak.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Remote {
    /// Anybody.
    #[default]
    Any,
    /// Addresses of a network, without host bits.
    Prefix(IpNetwork),
    /// The addresses of the ports that are in a group, as far as they may use them one by one.
    Group(GroupId),
}

impl Group {
    /// Whether it is defined for all hosts of the fleet.
    pub fn is_shared(&self) -> bool {
        self.scope == Scope::Fleet
    }

    /// The groups that its rules name, without itself.
    pub fn names(&self) -> BTreeSet<GroupId> {
        let named = self.rules.iter().filter_map(|rule| match rule.allows.remote {
            Remote::Group(group) if group != self.id => Some(group),
            _ => None,
        });
        named.collect()
    }
}

impl What {
    /// The 16 bits that it allows where a packet has its destination port, or ICMP's type and code.
    pub fn words(&self) -> RangeInclusive<u16> {
        match *self {
            Self::All => 0..=u16::MAX,
            Self::Ports { first, last } => first..=last,
            Self::Icmp { kind, code: Some(code) } => u16::from_be_bytes([kind, code])..=u16::from_be_bytes([kind, code]),
            Self::Icmp { kind, code: None } => u16::from_be_bytes([kind, 0])..=u16::from_be_bytes([kind, u8::MAX]),
        }
    }
}
