//! What security groups allow, as the kernel gets it: rules compiled to keys of sets.
//!
//! Each distinct set of groups that a port is in is a [`Profile`]. Its rules are compiled once, whatever the number of its ports; a
//! port's device has its profile's number. A packet that begins a connection is looked up by the profile, the protocol, the port and
//! the other side: its address, or, for rules that name a group, the other side's profile.
//!
//! The kernel refuses ranges that overlap (`nft_pipapo_insert`, net/netfilter/nft_set_pipapo.c), so what a wider rule allows is left
//! out of a narrower one. [`Profile::allows`] says the same without keys, of connections that there are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::model::{Allows, Direction, Family, GroupId, LinkName, Mac, Remote};

/// So many keys a profile's rules may have that name no group.
pub const KEYS: usize = 16_384;

/// So many keys all profiles may have together.
pub const KEYS_OF_ALL: usize = 262_144;

/// A port's part in security groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InGroups {
    /// The number of its profile.
    pub profile: u32,
    /// The zone of conntrack that its network has alone.
    pub zone: u16,
    /// Its bridge, whose frames are in that zone.
    pub bridge: LinkName,
    /// The bridge's MAC where the host itself is on it: what is for the host is in the host's own zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Mac>,
}

/// A set of groups, and all that their rules allow.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// The groups.
    pub groups: BTreeSet<GroupId>,
    /// What any of them allows.
    pub allows: BTreeSet<Allows>,
}

/// The other side of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// An address of this network.
    Net(IpNetwork),
    /// An address of a port with this profile.
    Profile(u32),
}

/// One key: what it matches is allowed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Seen from the guest.
    pub direction: Direction,
    /// The protocol of the addresses.
    pub family: Family,
    /// What IP carries, and the first and the last port (for ICMP type and code, see [`What::words`](crate::model::group::What::words)); none for anything.
    pub carried: Option<(u8, u16, u16)>,
    /// The other side.
    pub side: Side,
}

/// The number that a set of groups is given if no other set has it: the same on every start (FNV-1a, 32 bits).
pub fn number(groups: &BTreeSet<GroupId>) -> u32 {
    let octets = groups.iter().flat_map(|group| group.0.into_bytes());
    octets.fold(0x811c_9dc5, |hash: u32, octet| (hash ^ u32::from(octet)).wrapping_mul(0x0100_0193)).max(1)
}

/// Numbers of sets that only other hosts' ports are in have this bit, and those of this host's ports have it not.
const REMOTE: u32 = 1 << 31;

/// The number of a set of this host's ports, if it is not taken.
pub fn own_number(groups: &BTreeSet<GroupId>) -> u32 {
    next_number(number(groups).wrapping_sub(1))
}

/// The next one of these.
pub fn next_number(before: u32) -> u32 {
    (before.wrapping_add(1) & !REMOTE).max(1)
}

/// The number of a set of other hosts' ports, if it is not taken.
pub fn remote_number(groups: &BTreeSet<GroupId>) -> u32 {
    number(groups) | REMOTE
}

/// The next one of these.
pub fn next_remote_number(before: u32) -> u32 {
    before.wrapping_add(1) | REMOTE
}

/// More than [`KEYS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

impl Profile {
    /// The keys of what it allows with addresses that are named by a network.
    ///
    /// # Errors
    /// They are more than [`KEYS`].
    pub fn nets(&self) -> Result<BTreeSet<Key>, TooMany> {
        let mut keys = BTreeSet::new();
        for (direction, family) in WAYS {
            let rules = || self.rules(direction, family).filter_map(|rule| Some((rule, net(rule)?)));
            let key = |carried, net| Key { direction, family, carried, side: Side::Net(net) };
            let anything = widest(rules().filter(|(rule, _)| rule.protocol.is_none()).map(|(_, net)| net));
            let mut carried: BTreeMap<u8, BTreeMap<Width, Ranges>> = BTreeMap::new();
            for (rule, net) in rules().filter(|(_, net)| !anything.iter().any(|wide| covers(wide, net))) {
                if let Some(protocol) = rule.protocol {
                    carried.entry(protocol).or_default().entry(Width::of(net)).or_default().add(rule.what.words());
                }
            }
            keys.extend(anything.into_iter().map(|net| key(None, net)));
            for (protocol, nets) in carried {
                for (width, ranges) in &nets {
                    let mut left = ranges.clone();
                    // Wider networks come first.
                    for (wider, taken) in nets.range(..width) {
                        if covers(&wider.net, &width.net) {
                            left.remove(taken);
                        }
                    }
                    keys.extend(left.0.iter().map(|(first, last)| key(Some((protocol, *first, *last)), width.net)));
                    if keys.len() > KEYS {
                        return Err(TooMany);
                    }
                }
            }
        }
        Ok(keys)
    }

    /// The keys of what it allows with ports that have another profile, which has this number and is of these groups.
    pub fn with(&self, number: u32, groups: &BTreeSet<GroupId>) -> BTreeSet<Key> {
        let mut keys = BTreeSet::new();
        for (direction, family) in WAYS {
            let rules =
                || self.rules(direction, family).filter(|rule| matches!(rule.remote, Remote::Group(of) if groups.contains(&of)));
            let key = |carried| Key { direction, family, carried, side: Side::Profile(number) };
            if rules().any(|rule| rule.protocol.is_none()) {
                keys.insert(key(None));
                continue;
            }
            let mut carried: BTreeMap<u8, Ranges> = BTreeMap::new();
            for rule in rules() {
                rule.protocol.into_iter().for_each(|protocol| carried.entry(protocol).or_default().add(rule.what.words()));
            }
            let all = carried
                .into_iter()
                .flat_map(|(protocol, ranges)| ranges.0.into_iter().map(move |(first, last)| (protocol, first, last)));
            keys.extend(all.map(|carried| key(Some(carried))));
        }
        keys
    }

    /// Whether its rules name one of these groups.
    pub fn names(&self, groups: &BTreeSet<GroupId>) -> bool {
        self.allows.iter().any(|rule| matches!(rule.remote, Remote::Group(of) if groups.contains(&of)))
    }

    /// Whether a packet that begins a connection is allowed: of a protocol, with its destination port or its type and code of ICMP, to
    /// or from an address, of a port in these groups.
    pub fn allows(&self, direction: Direction, protocol: u8, word: u16, remote: IpAddr, groups: &BTreeSet<GroupId>) -> bool {
        let family = if remote.is_ipv4() { Family::V4 } else { Family::V6 };
        self.rules(direction, family).any(|rule| {
            let is_carried = rule.protocol.is_none_or(|one| one == protocol) && rule.what.words().contains(&word);
            is_carried
                && match rule.remote {
                    Remote::Any => true,
                    Remote::Prefix(net) => net.contains(remote),
                    Remote::Group(of) => groups.contains(&of),
                }
        })
    }

    fn rules(&self, direction: Direction, family: Family) -> impl Iterator<Item = &Allows> {
        self.allows.iter().filter(move |rule| (rule.direction, rule.family) == (direction, family))
    }
}

/// Every direction of every family.
const WAYS: [(Direction, Family); 4] = [
    (Direction::Ingress, Family::V4),
    (Direction::Ingress, Family::V6),
    (Direction::Egress, Family::V4),
    (Direction::Egress, Family::V6),
];

/// The network that a rule names, which is all of its family if it names none; none where it names a group.
fn net(rule: &Allows) -> Option<IpNetwork> {
    match (rule.remote, rule.family) {
        (Remote::Prefix(net), _) => Some(net),
        (Remote::Any, Family::V4) => IpNetwork::new(Ipv4Addr::UNSPECIFIED.into(), 0).ok(),
        (Remote::Any, Family::V6) => IpNetwork::new(Ipv6Addr::UNSPECIFIED.into(), 0).ok(),
        (Remote::Group(_), _) => None,
    }
}

/// Whether a network of the same family has all addresses of another.
fn covers(wide: &IpNetwork, net: &IpNetwork) -> bool {
    wide.prefix() <= net.prefix() && wide.contains(net.ip())
}

/// Those networks that no other one has all addresses of.
fn widest(nets: impl Iterator<Item = IpNetwork>) -> BTreeSet<IpNetwork> {
    let by_width: BTreeSet<Width> = nets.map(Width::of).collect();
    let mut kept = BTreeSet::new();
    for Width { net, .. } in by_width {
        if !kept.iter().any(|wide| covers(wide, &net)) {
            kept.insert(net);
        }
    }
    kept
}

/// A network, before those that are narrower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Width {
    prefix: u8,
    net: IpNetwork,
}

impl Width {
    fn of(net: IpNetwork) -> Self {
        Self { prefix: net.prefix(), net }
    }
}

/// Numbers, as ranges that neither overlap nor touch, by their first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Ranges(BTreeMap<u16, u16>);

impl Ranges {
    fn add(&mut self, range: RangeInclusive<u16>) {
        let (mut first, mut last) = (*range.start(), *range.end());
        let joins = |(from, to): (&u16, &u16)| *from <= last.saturating_add(1) && *to >= first.saturating_sub(1);
        let joined: Vec<(u16, u16)> = self.0.iter().filter(|one| joins(*one)).map(|(from, to)| (*from, *to)).collect();
        for (from, to) in joined {
            self.0.remove(&from);
            (first, last) = (first.min(from), last.max(to));
        }
        self.0.insert(first, last);
    }

    fn remove(&mut self, others: &Self) {
        for (first, last) in &others.0 {
            let cut: Vec<(u16, u16)> =
                self.0.iter().filter(|(from, to)| *from <= last && *to >= first).map(|(from, to)| (*from, *to)).collect();
            for (from, to) in cut {
                self.0.remove(&from);
                if from < *first {
                    self.0.insert(from, first - 1);
                }
                if to > *last {
                    self.0.insert(last + 1, to);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::group::What;

    fn nets() -> impl Strategy<Value = IpNetwork> {
        (0u32..8, prop_oneof![Just(0u8), 29u8..=32]).prop_map(|(host, prefix)| {
            let net = IpNetwork::new(Ipv4Addr::from_bits(0x0a00_0000 | host).into(), prefix).unwrap();
            IpNetwork::new(net.network(), prefix).unwrap()
        })
    }

    fn rules() -> impl Strategy<Value = Allows> {
        let remote = prop_oneof![
            Just(Remote::Any),
            nets().prop_map(Remote::Prefix),
            (0u128..3).prop_map(|id| Remote::Group(GroupId(uuid::Uuid::from_u128(id))))
        ];
        let what = prop_oneof![
            Just((None, What::All)),
            Just((Some(6), What::All)),
            (0u16..12, 0u16..12).prop_map(|(a, b)| (Some(6), What::Ports { first: a.min(b), last: a.max(b) })),
            (0u16..12, 0u16..12).prop_map(|(a, b)| (Some(17), What::Ports { first: a.min(b), last: a.max(b) })),
            Just((Some(1), What::Icmp { kind: 0, code: None })),
            Just((Some(1), What::Icmp { kind: 0, code: Some(8) })),
        ];
        let direction = prop_oneof![Just(Direction::Ingress), Just(Direction::Egress)];
        (direction, what, remote).prop_map(|(direction, (protocol, what), remote)| Allows {
            direction,
            family: Family::V4,
            protocol,
            what,
            remote,
        })
    }

    fn matches(key: &Key, direction: Direction, protocol: u8, word: u16, remote: IpAddr, profile: u32) -> bool {
        let is_carried = key.carried.is_none_or(|(one, first, last)| one == protocol && (first..=last).contains(&word));
        let is_side = match key.side {
            Side::Net(net) => net.contains(remote),
            Side::Profile(number) => number == profile,
        };
        (key.direction, key.family) == (direction, Family::V4) && is_carried && is_side
    }

    proptest! {
        /// Keys allow what the rules do, and no two of one kind overlap, which the kernel would refuse.
        #[test]
        fn keys_say_what_the_rules_say(allows in proptest::collection::btree_set(rules(), 0..12), of in proptest::collection::btree_set(0u128..3, 0..3)) {
            let groups: BTreeSet<GroupId> = of.into_iter().map(|id| GroupId(uuid::Uuid::from_u128(id))).collect();
            let profile = Profile { groups: BTreeSet::new(), allows };
            let mut keys = profile.nets().unwrap();
            keys.extend(profile.with(7, &groups));
            for direction in [Direction::Ingress, Direction::Egress] {
                for protocol in [1, 6, 17, 47] {
                    for word in (0..13).chain([0x0100, u16::MAX]) {
                        for host in (0..9).chain([0x00ff_0000]) {
                            let remote: IpAddr = Ipv4Addr::from_bits(0x0a00_0000 | host).into();
                            let found: Vec<&Key> = keys.iter().filter(|key| matches(key, direction, protocol, word, remote, 7)).collect();
                            prop_assert_eq!(!found.is_empty(), profile.allows(direction, protocol, word, remote, &groups), "{:?}", found);
                            let of_nets = found.iter().filter(|key| matches!(key.side, Side::Net(_)));
                            let kinds: Vec<bool> = of_nets.map(|key| key.carried.is_some()).collect();
                            prop_assert!(kinds.iter().filter(|carried| **carried).count() <= 1, "{:?}", found);
                            prop_assert!(kinds.iter().filter(|carried| !**carried).count() <= 1, "{:?}", found);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn more_keys_than_the_kernel_is_to_hold_are_refused() {
        let rule = |protocol, what, remote| Allows { direction: Direction::Ingress, family: Family::V4, protocol, what, remote };
        let ports = (0..400).map(|port| rule(Some(6), What::Ports { first: port * 2, last: port * 2 }, Remote::Any));
        let hosts = (0..400).map(|host| {
            let net = IpNetwork::from(IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 | host)));
            rule(Some(6), What::All, Remote::Prefix(net))
        });
        let profile = Profile { groups: BTreeSet::new(), allows: ports.chain(hosts).collect() };
        assert_eq!(profile.nets(), Err(TooMany));
    }
}
