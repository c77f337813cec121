//! Security groups and rules as clients ask for them, and which rules there can be: as Neutron has it
//! (neutron/db/securitygroups_db.py).

use ipnetwork::IpNetwork;
use jiff::Timestamp;
use uuid::Uuid;

use super::group::{Allows, Direction, Family, Group, Remote, Rule, What};
use super::ids::{GroupId, RuleId};
use super::network::Scope;

/// The name of a project's own group, which no other group may have.
pub const DEFAULT_NAME: &str = "default";

/// The name of a project's own group of a host that finds another one in its fleet.
pub fn default_name_of(host: &str) -> String {
    format!("{DEFAULT_NAME}-{host}")
}

/// A rule's revision number: it is never changed.
pub const RULE_REVISION: u64 = 1;

/// The names of protocols that a rule may have, with their numbers: Neutron's (`IP_PROTOCOL_MAP`, neutron_lib/constants.py).
pub const PROTOCOLS: [(&str, u8); 25] = [
    ("ah", 51),
    ("dccp", 33),
    ("egp", 8),
    ("esp", 50),
    ("gre", 47),
    ("hopopt", 0),
    ("icmp", ICMP),
    ("icmpv6", ICMPV6),
    ("igmp", 2),
    ("ip", 0),
    ("ipip", 4),
    ("ipv6-encap", 41),
    ("ipv6-frag", 44),
    (ICMPV6_NAME, ICMPV6),
    ("ipv6-nonxt", 59),
    ("ipv6-opts", 60),
    ("ipv6-route", 43),
    ("ospf", 89),
    ("pgm", 113),
    ("rsvp", 46),
    ("sctp", 132),
    ("tcp", 6),
    ("udp", 17),
    ("udplite", 136),
    ("vrrp", 112),
];

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const ICMPV6_NAME: &str = "ipv6-icmp";

/// The protocols with ports: TCP, UDP, DCCP, SCTP, UDP-Lite.
const WITH_PORTS: [u8; 5] = [6, 17, 33, 132, 136];

/// A security group to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewGroup {
    /// Its id.
    pub id: GroupId,
    /// Its name, possibly empty.
    pub name: String,
    /// A remark.
    pub description: String,
    /// Its project.
    pub project_id: String,
}

/// A change of a security group; `None` keeps the value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupChange {
    /// Its name.
    pub name: Option<String>,
    /// A remark.
    pub description: Option<String>,
}

/// A rule to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRule {
    /// Its id.
    pub id: RuleId,
    /// The group that it is of.
    pub group_id: GroupId,
    /// A remark.
    pub description: String,
    /// Its project; none for its group's, which is the only right one.
    pub project_id: Option<String>,
    /// Seen from the guest.
    pub direction: Direction,
    /// The protocol of the packets' addresses.
    pub family: Family,
    /// A protocol's name or number; none, and `any`, for anything.
    pub protocol: Option<String>,
    /// The first port, or ICMP's type.
    pub min: Option<u32>,
    /// The last port, or ICMP's code.
    pub max: Option<u32>,
    /// The remote addresses, possibly with host bits.
    pub prefix: Option<IpNetwork>,
    /// The group whose ports are the remote addresses.
    pub remote_group: Option<GroupId>,
}

/// Why there can be no such rule. Displays what is wrong, with the value, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// No protocol has the name or the number.
    #[error("protocol '{0}' is not supported; a number from 0 to 255 is expected, or one of any, {names}", names = names())]
    Protocol(String),
    /// The protocol exists with one family alone.
    #[error("protocol {protocol} does not go with ethertype {}; it is one of IPv6", ethertype(*family))]
    ProtocolOfOtherFamily {
        /// The protocol.
        protocol: String,
        /// The rule's family.
        family: Family,
    },
    /// A port range without a protocol.
    #[error("port_range_min and port_range_max need a protocol: tcp, udp, udplite, sctp or dccp")]
    PortsWithoutProtocol,
    /// A port range of a protocol that has none.
    #[error("protocol {0} has no ports: leave port_range_min and port_range_max out, or give tcp, udp, udplite, sctp or dccp")]
    ProtocolWithoutPorts(String),
    /// The range is empty, has one end alone, or begins with 0.
    #[error(
        "port_range_min {} and port_range_max {} are no range: both are expected, from 1 to 65535, the first not above the last",
        or_none(*min),
        or_none(*max)
    )]
    PortRange {
        /// The first port.
        min: Option<u32>,
        /// The last port.
        max: Option<u32>,
    },
    /// An ICMP type or code above 255.
    #[error("{attribute} {value} is no {what} of ICMP: 0 to 255 is expected")]
    IcmpValue {
        /// The attribute.
        attribute: &'static str,
        /// What it is for ICMP.
        what: &'static str,
        /// As given.
        value: u32,
    },
    /// An ICMP code without a type.
    #[error("port_range_max {0} is a code of ICMP without a type: give port_range_min too")]
    IcmpCodeAlone(u32),
    /// The prefix is of the other family.
    #[error("remote_ip_prefix {prefix} does not go with ethertype {}; give the other one", ethertype(*family))]
    PrefixOfOtherFamily {
        /// The prefix.
        prefix: IpNetwork,
        /// The rule's family.
        family: Family,
    },
    /// Both a prefix and a group.
    #[error("remote_ip_prefix and remote_group_id exclude each other; give one of them")]
    TwoRemotes,
}

impl RuleError {
    /// The stable word that tests and scripts match on (`reason`).
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Protocol(_) => "bad_protocol",
            Self::ProtocolOfOtherFamily { .. } | Self::PrefixOfOtherFamily { .. } => "family_mismatch",
            Self::PortsWithoutProtocol | Self::ProtocolWithoutPorts(_) | Self::PortRange { .. } => "bad_port_range",
            Self::IcmpValue { .. } | Self::IcmpCodeAlone(_) => "bad_icmp",
            Self::TwoRemotes => "two_remotes",
        }
    }
}

fn names() -> String {
    PROTOCOLS.map(|(name, _)| name).join(", ")
}

fn or_none(given: Option<u32>) -> String {
    given.map_or_else(|| "null".to_owned(), |number| number.to_string())
}

fn ethertype(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

impl NewGroup {
    /// The record of the group, with Neutron's two rules: all that its ports begin is allowed. A default group's ports may also be spoken
    /// to by each other. `fresh` draws the rules' ids.
    pub fn made(self, now: Timestamp, fresh: impl Fn() -> Uuid) -> Group {
        let id = self.id;
        let rule = |direction, family, remote| {
            let allows = Allows { direction, family, protocol: None, what: What::All, remote };
            Rule { id: RuleId(fresh()), description: String::new(), allows, protocol_name: None, prefix: None, created_at: now }
        };
        let mut rules = [Family::V4, Family::V6].map(|family| rule(Direction::Egress, family, Remote::Any)).to_vec();
        if self.name == DEFAULT_NAME {
            rules.extend([Family::V4, Family::V6].map(|family| rule(Direction::Ingress, family, Remote::Group(id))));
        }
        Group {
            id,
            name: self.name,
            description: self.description,
            project_id: self.project_id,
            rules,
            scope: Scope::Host,
            created_at: now,
            updated_at: now,
            revision_number: 1,
        }
    }
}

impl NewRule {
    /// The record of the rule.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn checked(self, now: Timestamp) -> Result<Rule, RuleError> {
        let (protocol, protocol_name) = read_protocol(self.protocol.as_deref(), self.family)?.unzip();
        let what = self.what(protocol, protocol_name.as_ref())?;
        let remote = match (self.prefix, self.remote_group) {
            (Some(_), Some(_)) => return Err(RuleError::TwoRemotes),
            (None, Some(group)) => Remote::Group(group),
            (None, None) => Remote::Any,
            (Some(prefix), None) if prefix.is_ipv6() != (self.family == Family::V6) => {
                return Err(RuleError::PrefixOfOtherFamily { prefix, family: self.family });
            }
            (Some(prefix), None) => match IpNetwork::new(prefix.network(), prefix.prefix()) {
                Ok(network) if network.prefix() > 0 => Remote::Prefix(network),
                _ => Remote::Any,
            },
        };
        Ok(Rule {
            id: self.id,
            description: self.description,
            allows: Allows { direction: self.direction, family: self.family, protocol, what, remote },
            protocol_name: protocol_name.flatten(),
            prefix: self.prefix,
            created_at: now,
        })
    }

    fn what(&self, protocol: Option<u8>, name: Option<&Option<String>>) -> Result<What, RuleError> {
        let (min, max) = (self.min, self.max);
        if (min, max) == (None, None) {
            return Ok(What::All);
        }
        let Some(protocol) = protocol else { return Err(RuleError::PortsWithoutProtocol) };
        if WITH_PORTS.contains(&protocol) {
            let port = |number: Option<u32>| number.and_then(|number| u16::try_from(number).ok()).filter(|port| *port > 0);
            return match (port(min), port(max)) {
                (Some(first), Some(last)) if first <= last => Ok(What::Ports { first, last }),
                _ => Err(RuleError::PortRange { min, max }),
            };
        }
        if [ICMP, ICMPV6].contains(&protocol) {
            let octet = |attribute, what, number: Option<u32>| {
                let read = |value| u8::try_from(value).map_err(|_| RuleError::IcmpValue { attribute, what, value });
                number.map(read).transpose()
            };
            let (kind, code) = (octet("port_range_min", "type", min)?, octet("port_range_max", "code", max)?);
            return match (kind, code) {
                (Some(kind), code) => Ok(What::Icmp { kind, code }),
                (None, Some(code)) => Err(RuleError::IcmpCodeAlone(code.into())),
                (None, None) => Ok(What::All),
            };
        }
        let name = name.cloned().flatten().unwrap_or_else(|| protocol.to_string());
        Err(RuleError::ProtocolWithoutPorts(name))
    }
}

/// A protocol's number, with its name where that was given. ICMP of IPv6 is ICMPv6, however it is called.
fn read_protocol(given: Option<&str>, family: Family) -> Result<Option<(u8, Option<String>)>, RuleError> {
    let Some(given) = given else { return Ok(None) };
    let given = given.to_ascii_lowercase();
    if given == "any" {
        return Ok(None);
    }
    let digits = !given.is_empty() && given.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(number) = digits.then(|| given.parse().ok()).flatten() {
        let of_six = family == Family::V6 && number == ICMP;
        return Ok(Some((if of_six { ICMPV6 } else { number }, None)));
    }
    let Some((name, number)) = PROTOCOLS.into_iter().find(|(name, _)| *name == given) else {
        return Err(RuleError::Protocol(given.escape_debug().take(64).collect()));
    };
    match (family, number) {
        (Family::V6, ICMP | ICMPV6) => Ok(Some((ICMPV6, Some(ICMPV6_NAME.to_owned())))),
        (Family::V4, _) if name == "icmpv6" || name.starts_with("ipv6-") => {
            Err(RuleError::ProtocolOfOtherFamily { protocol: given, family })
        }
        _ => Ok(Some((number, Some(given)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(family: Family, protocol: Option<&str>, range: (Option<u32>, Option<u32>), prefix: Option<&str>) -> NewRule {
        NewRule {
            id: RuleId(Uuid::from_u128(9)),
            group_id: GroupId(Uuid::from_u128(1)),
            description: String::new(),
            project_id: None,
            direction: Direction::Ingress,
            family,
            protocol: protocol.map(str::to_owned),
            min: range.0,
            max: range.1,
            prefix: prefix.map(|prefix| prefix.parse().unwrap()),
            remote_group: None,
        }
    }

    fn allows(new: NewRule) -> (Option<u8>, Option<String>, What, Remote) {
        let rule = new.checked(Timestamp::UNIX_EPOCH).unwrap();
        (rule.allows.protocol, rule.protocol_name, rule.allows.what, rule.allows.remote)
    }

    #[test]
    fn protocols_are_names_and_numbers_and_icmp_of_ipv6_is_icmpv6() {
        let protocol = |family, given| {
            let (number, name, ..) = allows(rule(family, given, (None, None), None));
            (number, name)
        };
        let named = |number, name: &str| (Some(number), Some(name.to_owned()));
        assert_eq!(protocol(Family::V4, None), (None, None));
        assert_eq!(protocol(Family::V4, Some("any")), (None, None));
        assert_eq!(protocol(Family::V4, Some("TCP")), named(6, "tcp"));
        assert_eq!(protocol(Family::V4, Some("6")), (Some(6), None));
        assert_eq!(protocol(Family::V4, Some("0")), (Some(0), None));
        assert_eq!(protocol(Family::V4, Some("icmp")), named(1, "icmp"));
        for icmp in ["icmp", "icmpv6", "ipv6-icmp"] {
            assert_eq!(protocol(Family::V6, Some(icmp)), named(58, "ipv6-icmp"));
        }
        assert_eq!(protocol(Family::V6, Some("1")), (Some(58), None));
        assert_eq!(protocol(Family::V4, Some("112")), (Some(112), None));
    }

    #[test]
    fn ports_types_and_codes_are_read_by_the_protocol() {
        let what = |protocol, min, max| allows(rule(Family::V4, Some(protocol), (min, max), None)).2;
        assert_eq!(what("tcp", None, None), What::All);
        assert_eq!(what("tcp", Some(80), Some(80)), What::Ports { first: 80, last: 80 });
        assert_eq!(what("132", Some(1), Some(65_535)), What::Ports { first: 1, last: 65_535 });
        assert_eq!(what("icmp", Some(8), None), What::Icmp { kind: 8, code: None });
        assert_eq!(what("icmp", Some(3), Some(4)), What::Icmp { kind: 3, code: Some(4) });
    }

    #[test]
    fn a_prefix_loses_its_host_bits_and_one_of_length_0_is_anybody() {
        let remote = |family, prefix| allows(rule(family, None, (None, None), Some(prefix))).3;
        assert_eq!(remote(Family::V4, "10.0.0.7/24"), Remote::Prefix("10.0.0.0/24".parse().unwrap()));
        assert_eq!(remote(Family::V4, "10.0.0.7"), Remote::Prefix("10.0.0.7/32".parse().unwrap()));
        assert_eq!(remote(Family::V4, "0.0.0.0/0"), Remote::Any);
        assert_eq!(remote(Family::V6, "::/0"), Remote::Any);
    }

    #[test]
    fn what_cannot_be_a_rule_is_refused_with_its_reason() {
        let (v4, v6, none) = (Family::V4, Family::V6, (None, None));
        let both = NewRule { remote_group: Some(GroupId(Uuid::from_u128(2))), ..rule(v4, None, none, Some("10.0.0.0/8")) };
        for (bad, reason) in [
            (rule(v4, Some("tpc"), none, None), "bad_protocol"),
            (rule(v4, Some("256"), none, None), "bad_protocol"),
            (rule(v4, Some("-1"), none, None), "bad_protocol"),
            (rule(v4, Some(""), none, None), "bad_protocol"),
            (rule(v4, Some("ipv6-icmp"), none, None), "family_mismatch"),
            (rule(v4, Some("icmpv6"), none, None), "family_mismatch"),
            (rule(v4, None, (Some(1), Some(2)), None), "bad_port_range"),
            (rule(v4, Some("gre"), (Some(1), Some(2)), None), "bad_port_range"),
            (rule(v4, Some("tcp"), (Some(2), Some(1)), None), "bad_port_range"),
            (rule(v4, Some("tcp"), (Some(1), None), None), "bad_port_range"),
            (rule(v4, Some("udp"), (None, Some(1)), None), "bad_port_range"),
            (rule(v4, Some("udp"), (Some(0), Some(1)), None), "bad_port_range"),
            (rule(v4, Some("icmp"), (Some(256), None), None), "bad_icmp"),
            (rule(v6, Some("icmp"), (Some(1), Some(256)), None), "bad_icmp"),
            (rule(v4, Some("icmp"), (None, Some(0)), None), "bad_icmp"),
            (rule(v6, None, none, Some("10.0.0.0/8")), "family_mismatch"),
            (rule(v4, None, none, Some("fd00::/8")), "family_mismatch"),
            (both, "two_remotes"),
        ] {
            let error = bad.clone().checked(Timestamp::UNIX_EPOCH).unwrap_err();
            assert_eq!(error.reason(), reason, "{bad:?}");
        }
    }

    #[test]
    fn a_new_group_lets_everything_out_and_a_default_one_itself_in() {
        let new = |name: &str| {
            let id = GroupId(Uuid::from_u128(1));
            let group = NewGroup { id, name: name.to_owned(), description: String::new(), project_id: String::new() };
            group.made(Timestamp::UNIX_EPOCH, || Uuid::from_u128(2))
        };
        let web = new("web");
        assert_eq!(web.rules.iter().map(|rule| rule.allows.direction).collect::<Vec<_>>(), [Direction::Egress; 2]);
        let own = new(DEFAULT_NAME);
        let ingress = own.rules.iter().filter(|rule| rule.allows.direction == Direction::Ingress);
        assert_eq!(ingress.map(|rule| rule.allows.remote).collect::<Vec<_>>(), [Remote::Group(own.id); 2]);
    }
}
