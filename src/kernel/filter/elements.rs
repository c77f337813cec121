//! A port's filter as elements of the table's sets, and back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use netlink_packet_core::{DefaultNla, Emitable, NLA_F_NESTED};
use netlink_packet_netfilter::nftables::{DataAttribute, ExpressionAttribute, ListAttribute, SetElementAttribute};

use super::super::message::{find, text};
use super::expression::{NFTA_COUNTER_BYTES, NFTA_COUNTER_PACKETS, NFTA_LIMIT_BURST, NFTA_LIMIT_RATE, Unit, counter, limit};
use crate::model::{Direction, Family, LinkName, Mac, PortId};
use crate::plan::filter::{Dropped, Filter, Guard, Limit, Reason, Served, Source};
use crate::plan::groups::InGroups;

/// A set, and what its keys are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Set {
    /// Devices with port security on.
    Guarded,
    /// Devices with port security off.
    Open,
    /// Devices that are sent nothing.
    Closed,
    /// Devices that are sent only what they need.
    Isolated,
    /// Devices of trunks.
    Trunks,
    /// The MACs of ports on VXLAN networks.
    Tunnelled,
    /// Devices whose guests may send so fast.
    Limits,
    /// Devices, of whose guests' DHCP requests so many are heard.
    Requests,
    /// Devices of whose dropped frames some are logged.
    Logged,
    /// A device, the MAC from which its guest's DHCPv4 requests come that nicd answers.
    Served,
    /// The same of DHCPv6.
    Served6,
    /// The same of router solicitations.
    Solicited,
    /// A device, a MAC that it may send from.
    Macs,
    /// The same, an IPv4 address.
    Hosts4,
    /// The same, from the first to the last address of a network.
    Nets4,
    /// The same of IPv6.
    Hosts6,
    /// The same of IPv6.
    Nets6,
    /// What was dropped, by device.
    Dropped(Reason),
    /// Devices of ports that are in groups.
    Members,
    /// The same devices; their profile.
    Grouped,
    /// The same devices; the connections of each.
    Connections,
    /// Bridges, by their name; the zone of their frames.
    Zones,
    /// A bridge, its MAC, where the host is on it.
    Hosts,
    /// A bridge's name, an IPv4 address; the profile of the port that has it.
    Holders4,
    /// The same of IPv6.
    Holders6,
    /// A bridge's name, an IPv4 address of another host's port in groups.
    Remote4,
    /// The same of IPv6.
    Remote6,
    /// What a profile allows.
    Allowed(Direction, Family, Sides),
}

/// What the keys are of that say what a profile allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sides {
    /// The profile, from the first to the last address of a network.
    Nets,
    /// The profile, a protocol, from the first to the last port, from the first to the last address.
    CarriedNets,
    /// The profile, the other side's profile.
    Profiles,
    /// The profile, the other side's profile, a protocol, from the first to the last port.
    CarriedProfiles,
}

impl Sides {
    /// All of them.
    const ALL: [Self; 4] = [Self::Nets, Self::CarriedNets, Self::Profiles, Self::CarriedProfiles];
}

/// The sets whose elements the kernel makes itself, when it drops the first frame of a device.
pub(super) fn made_by_frames() -> impl Iterator<Item = Set> {
    Set::all().filter(|set| set.is_made_by_frames())
}

impl Set {
    /// Those of the rules of groups.
    pub(super) fn of_groups() -> impl Iterator<Item = Self> {
        let fixed = [Self::Members, Self::Grouped, Self::Connections, Self::Zones, Self::Hosts, Self::Holders4, Self::Holders6];
        let fixed = fixed.into_iter().chain([Self::Remote4, Self::Remote6]);
        let ways = [Direction::Ingress, Direction::Egress].into_iter().flat_map(|way| [(way, Family::V4), (way, Family::V6)]);
        let allowed = ways.flat_map(|(way, family)| Sides::ALL.map(|sides| Self::Allowed(way, family, sides)));
        fixed.chain(allowed)
    }

    /// All others.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let fixed = [
            Self::Guarded,
            Self::Open,
            Self::Closed,
            Self::Isolated,
            Self::Trunks,
            Self::Tunnelled,
            Self::Limits,
            Self::Requests,
            Self::Logged,
            Self::Served,
            Self::Served6,
            Self::Solicited,
            Self::Macs,
            Self::Hosts4,
            Self::Nets4,
            Self::Hosts6,
            Self::Nets6,
        ];
        fixed.into_iter().chain(Reason::ALL.into_iter().map(Self::Dropped))
    }

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Guarded => "guarded",
            Self::Open => "open",
            Self::Closed => "closed",
            Self::Isolated => "isolated",
            Self::Trunks => "trunks",
            Self::Tunnelled => "tunnelled",
            Self::Limits => "rates",
            Self::Requests => "requests",
            Self::Logged => "logged",
            Self::Served => "served",
            Self::Served6 => "served6",
            Self::Solicited => "solicited",
            Self::Macs => "macs",
            Self::Hosts4 => "hosts4",
            Self::Nets4 => "nets4",
            Self::Hosts6 => "hosts6",
            Self::Nets6 => "nets6",
            Self::Dropped(reason) => reason.set(),
            Self::Grouped => "grouped",
            Self::Members => "members",
            Self::Connections => "connections",
            Self::Zones => "zones",
            Self::Hosts => "hosts",
            Self::Holders4 => "holders4",
            Self::Holders6 => "holders6",
            Self::Remote4 => "remote4",
            Self::Remote6 => "remote6",
            Self::Allowed(direction, family, sides) => match (direction, family, sides) {
                (Direction::Ingress, Family::V4, Sides::Nets) => "to4_nets",
                (Direction::Ingress, Family::V4, Sides::CarriedNets) => "to4_ports",
                (Direction::Ingress, Family::V4, Sides::Profiles) => "to4_profiles",
                (Direction::Ingress, Family::V4, Sides::CarriedProfiles) => "to4_profile_ports",
                (Direction::Ingress, Family::V6, Sides::Nets) => "to6_nets",
                (Direction::Ingress, Family::V6, Sides::CarriedNets) => "to6_ports",
                (Direction::Ingress, Family::V6, Sides::Profiles) => "to6_profiles",
                (Direction::Ingress, Family::V6, Sides::CarriedProfiles) => "to6_profile_ports",
                (Direction::Egress, Family::V4, Sides::Nets) => "from4_nets",
                (Direction::Egress, Family::V4, Sides::CarriedNets) => "from4_ports",
                (Direction::Egress, Family::V4, Sides::Profiles) => "from4_profiles",
                (Direction::Egress, Family::V4, Sides::CarriedProfiles) => "from4_profile_ports",
                (Direction::Egress, Family::V6, Sides::Nets) => "from6_nets",
                (Direction::Egress, Family::V6, Sides::CarriedNets) => "from6_ports",
                (Direction::Egress, Family::V6, Sides::Profiles) => "from6_profiles",
                (Direction::Egress, Family::V6, Sides::CarriedProfiles) => "from6_profile_ports",
            },
        }
    }

    /// Whether its elements are of one device, which their key begins with, or their comment names.
    pub(super) fn is_by_device(self) -> bool {
        let is_shared = matches!(self, Self::Zones | Self::Hosts | Self::Holders4 | Self::Holders6 | Self::Allowed(..));
        !is_shared && !matches!(self, Self::Remote4 | Self::Remote6)
    }

    /// The length of what it has for a key, in octets, if it is a map.
    pub(super) fn value(self) -> Option<u32> {
        match self {
            Self::Grouped | Self::Holders4 | Self::Holders6 => Some(4),
            Self::Zones => Some(2),
            _ => None,
        }
    }

    /// Whether the kernel makes its elements itself, when it drops the first frame of a device.
    pub(super) fn is_made_by_frames(self) -> bool {
        matches!(self, Self::Logged | Self::Connections | Self::Dropped(_))
    }

    /// Whether its keys are from one to another.
    pub(super) fn has_intervals(self) -> bool {
        let carried = matches!(self, Self::Allowed(_, _, Sides::Nets | Sides::CarriedNets | Sides::CarriedProfiles));
        carried || matches!(self, Self::Nets4 | Self::Nets6)
    }

    /// The lengths of its keys' parts in octets.
    pub(super) fn parts(self) -> &'static [u32] {
        match self {
            Self::Tunnelled => &[6],
            Self::Served | Self::Served6 | Self::Solicited | Self::Macs => &[4, 6],
            Self::Hosts4 | Self::Nets4 => &[4, 6, 4],
            Self::Hosts6 | Self::Nets6 => &[4, 6, 16],
            Self::Zones => &[16],
            Self::Hosts => &[16, 6],
            Self::Holders4 | Self::Remote4 => &[16, 4],
            Self::Holders6 | Self::Remote6 => &[16, 16],
            Self::Allowed(_, Family::V4, Sides::Nets) | Self::Allowed(_, _, Sides::Profiles) => &[4, 4],
            Self::Allowed(_, Family::V6, Sides::Nets) => &[4, 16],
            Self::Allowed(_, Family::V4, Sides::CarriedNets) => &[4, 1, 2, 4],
            Self::Allowed(_, Family::V6, Sides::CarriedNets) => &[4, 1, 2, 16],
            Self::Allowed(_, _, Sides::CarriedProfiles) => &[4, 4, 1, 2],
            _ => &[4],
        }
    }
}

/// An element.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Element {
    pub(super) set: Set,
    pub(super) key: Vec<u8>,
    /// The last key of an interval.
    pub(super) end: Option<Vec<u8>>,
    /// What it does beside being there.
    pub(super) does: Does,
}

impl Element {
    /// The device that it is of; none where it is of several, or of none.
    pub(super) fn device(&self) -> Option<u32> {
        match self.does {
            Does::IsOf(device) => Some(device),
            _ => device(&self.key).filter(|_| self.set.is_by_device() && self.set != Set::Tunnelled),
        }
    }

    /// An element whose key is one and no interval.
    pub(super) fn new(set: Set, key: Vec<u8>, does: Does) -> Self {
        Self { set, key, end: None, does }
    }

    /// The element without what it has counted.
    fn identity(&self) -> Self {
        let does = match self.does {
            Does::Counts { .. } => Does::Counts { packets: 0, octets: 0 },
            does => does,
        };
        Self { does, ..self.clone() }
    }
}

/// What an element does beside being there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Does {
    Nothing,
    /// It names the port in its comment.
    Names(PortId),
    /// It matches what exceeds a limit.
    Limits {
        rate: u64,
        burst: u32,
    },
    /// It counts, from here on.
    Counts {
        packets: u64,
        octets: u64,
    },
    /// It has its set's own limit.
    AsItsSet,
    /// It has a zone for its key.
    InZone(u16),
    /// It names its device in its comment.
    IsOf(u32),
    /// It names the zone of the device's network in its comment.
    IsIn(u16),
    /// It has a profile for its key.
    HasProfile(u32),
}

impl Does {
    /// What its map has for its key.
    fn value(self) -> Option<Vec<u8>> {
        match self {
            Self::InZone(zone) => Some(zone.to_ne_bytes().to_vec()),
            Self::HasProfile(profile) => Some(profile.to_ne_bytes().to_vec()),
            _ => None,
        }
    }

    /// The same, read back.
    fn read(set: Set, value: &[u8]) -> Option<Self> {
        let word = || value.first_chunk().map(|octets| u32::from_ne_bytes(*octets));
        match set {
            Set::Zones => value.first_chunk().map(|octets| Self::InZone(u16::from_ne_bytes(*octets))),
            Set::Grouped | Set::Holders4 | Set::Holders6 => word().map(Self::HasProfile),
            _ => None,
        }
    }
}

/// A device's elements: those of its port's filter.
pub(super) fn of(index: u32, port: PortId, filter: &Filter) -> Vec<Element> {
    let device = |set, does| of_device(index, set, does);
    let mut all = Vec::new();
    if let Some(Limit { rate, burst }) = filter.limit {
        all.push(device(Set::Limits, Does::Limits { rate, burst }));
    }
    if filter.isolated {
        all.push(device(Set::Isolated, Does::Nothing));
    }
    if filter.trunk {
        all.push(device(Set::Trunks, Does::Nothing));
    }
    all.extend(filter.tunnelled.map(|mac| Element::new(Set::Tunnelled, mac.0.to_vec(), Does::IsOf(index))));
    if let Some(InGroups { profile, zone, .. }) = filter.groups {
        all.push(device(Set::Members, Does::IsIn(zone)));
        all.push(device(Set::Grouped, Does::HasProfile(profile)));
    }
    if let Some(Served { mac, dhcp4, dhcp6, solicitations }) = filter.served {
        let served = [(dhcp4, Set::Served), (dhcp6, Set::Served6), (solicitations, Set::Solicited)];
        all.extend(served.into_iter().filter(|(is_served, _)| *is_served).map(|(_, set)| with_mac(index, set, mac)));
        all.push(device(Set::Requests, Does::AsItsSet));
    }
    match &filter.guard {
        None => all.push(device(Set::Open, Does::Names(port))),
        Some(guard) => {
            all.push(device(Set::Guarded, Does::Names(port)));
            all.extend(guard.macs.iter().map(|mac| with_mac(index, Set::Macs, *mac)));
            all.extend(guard.addresses.iter().map(|source| address(index, source)));
        }
    }
    all
}

/// A device's counters, where it has some: they begin where they had been.
pub(super) fn counters(index: u32, dropped: &Dropped) -> impl Iterator<Item = Element> {
    let counter = move |(reason, packets): (&Reason, &u64)| {
        of_device(index, Set::Dropped(*reason), Does::Counts { packets: *packets, octets: 0 })
    };
    dropped.0.iter().map(counter)
}

/// A device's element of a set whose keys are devices.
pub(super) fn of_device(index: u32, set: Set, does: Does) -> Element {
    Element { set, key: index.to_ne_bytes().to_vec(), end: None, does }
}

/// Which elements are to be removed and which added, to come from the first to the second. What has been counted is no difference.
pub(super) fn difference(before: Vec<Element>, after: Vec<Element>) -> (Vec<Element>, Vec<Element>) {
    let by_identity = |elements: Vec<Element>| elements.into_iter().map(|one| (one.identity(), one)).collect::<BTreeMap<_, _>>();
    let (mut before, mut after) = (by_identity(before), by_identity(after));
    let same: BTreeSet<Element> = after.keys().filter(|identity| before.contains_key(*identity)).cloned().collect();
    before.retain(|identity, _| !same.contains(identity));
    after.retain(|identity, _| !same.contains(identity));
    (before.into_values().collect(), after.into_values().collect())
}

fn with_mac(index: u32, set: Set, mac: Mac) -> Element {
    Element { set, key: key(index, mac, &[]), end: None, does: Does::Nothing }
}

fn address(index: u32, source: &Source) -> Element {
    let Source { mac, address } = *source;
    let (set, first, last) = match (address, source.is_host()) {
        (IpNetwork::V4(net), true) => (Set::Hosts4, octets(net.ip().into()), None),
        (IpNetwork::V6(net), true) => (Set::Hosts6, octets(net.ip().into()), None),
        (IpNetwork::V4(net), false) => (Set::Nets4, octets(net.network().into()), Some(octets(net.broadcast().into()))),
        (IpNetwork::V6(net), false) => (Set::Nets6, octets(net.network().into()), Some(octets(net.broadcast().into()))),
    };
    let end = last.map(|last| key(index, mac, &last));
    Element { set, key: key(index, mac, &first), end, does: Does::Nothing }
}

pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Each part begins at a multiple of 4 octets.
fn key(index: u32, mac: Mac, address: &[u8]) -> Vec<u8> {
    [&index.to_ne_bytes()[..], &mac.0, &[0, 0], address].concat()
}

/// The device that a key is of.
pub(super) fn device(key: &[u8]) -> Option<u32> {
    key.first_chunk().map(|index| u32::from_ne_bytes(*index))
}

fn mac(key: &[u8]) -> Option<Mac> {
    key.get(4..10)?.first_chunk().map(|octets: &[u8; 6]| Mac(*octets))
}

fn host(key: &[u8]) -> Option<IpAddr> {
    match key.get(12..)? {
        four if four.len() == 4 => four.first_chunk().map(|octets: &[u8; 4]| Ipv4Addr::from(*octets).into()),
        sixteen => sixteen.first_chunk().map(|octets: &[u8; 16]| Ipv6Addr::from(*octets).into()),
    }
}

/// What a device's elements say.
pub(super) struct Tagged {
    pub(super) port: PortId,
    pub(super) filter: Filter,
}

/// The bridges of zones, with the MAC of each where the host is on it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Bridges(BTreeMap<u16, (LinkName, Option<Mac>)>);

impl Bridges {
    /// Those that elements name.
    pub(super) fn of(elements: &[Element]) -> Self {
        let named = |key: &[u8]| text(key.get(..16)?).parse::<LinkName>().ok();
        let host = |bridge: &LinkName| {
            let its = |element: &&Element| element.set == Set::Hosts && named(&element.key).as_ref() == Some(bridge);
            elements.iter().find(its)?.key.get(16..22)?.first_chunk().map(|octets| Mac(*octets))
        };
        let zone = |element: &Element| match element.does {
            Does::InZone(zone) => named(&element.key).map(|bridge| (zone, (bridge.clone(), host(&bridge)))),
            _ => None,
        };
        Self(elements.iter().filter_map(zone).collect())
    }
}

/// What a device's elements say; none where some are missing, or one is not what nicd would have made.
pub(super) fn read_back(index: u32, elements: &[Element], bridges: &Bridges) -> Option<Tagged> {
    let (mut filter, mut guard, mut port, mut is_guarded) = (Filter::default(), Guard::default(), None, false);
    let (mut profile, mut zone) = (None, None);
    let elements = || elements.iter().filter(|element| !element.set.is_made_by_frames());
    for element in elements() {
        match (element.set, element.does) {
            (Set::Guarded, Does::Names(named)) => (is_guarded, port) = (true, Some(named)),
            (Set::Open, Does::Names(named)) => port = Some(named),
            (Set::Isolated, _) => filter.isolated = true,
            (Set::Trunks, _) => filter.trunk = true,
            (Set::Tunnelled, _) => filter.tunnelled = Some(Mac(*element.key.first_chunk()?)),
            (Set::Served | Set::Served6 | Set::Solicited, _) => {
                let served = filter.served.get_or_insert(Served::nothing(mac(&element.key)?));
                served.dhcp4 |= element.set == Set::Served;
                served.dhcp6 |= element.set == Set::Served6;
                served.solicitations |= element.set == Set::Solicited;
            }
            (Set::Grouped, Does::HasProfile(number)) => profile = Some(number),
            (Set::Members, Does::IsIn(number)) => zone = Some(number),
            (Set::Limits, Does::Limits { rate, burst }) => filter.limit = Some(Limit { rate, burst }),
            (Set::Macs, _) => _ = guard.macs.insert(mac(&element.key)?),
            (Set::Hosts4 | Set::Hosts6 | Set::Nets4 | Set::Nets6, _) => {
                _ = guard.addresses.insert(Source { mac: mac(&element.key)?, address: network(element)? });
            }
            _ => {}
        }
    }
    filter.guard = is_guarded.then_some(guard);
    if let (Some(profile), Some(zone)) = (profile, zone) {
        let (bridge, host) = bridges.0.get(&zone)?.clone();
        filter.groups = Some(InGroups { profile, zone, bridge, host });
    }
    let port = port?;
    let expected: BTreeSet<Element> = of(index, port, &filter).into_iter().collect();
    let found: BTreeSet<Element> = elements().cloned().collect();
    (found == expected).then_some(Tagged { port, filter })
}

/// What a device's elements have counted.
pub(super) fn counted<'a>(elements: impl IntoIterator<Item = &'a Element>) -> Dropped {
    let count = |element: &Element| match (element.set, element.does) {
        (Set::Dropped(reason), Does::Counts { packets, .. }) => Some((reason, packets)),
        _ => None,
    };
    Dropped(elements.into_iter().filter_map(count).collect())
}

fn network(element: &Element) -> Option<IpNetwork> {
    let first = host(&element.key)?;
    let Some(end) = &element.end else { return Some(first.into()) };
    let last = host(end)?;
    let same = match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => (first.to_bits() ^ last.to_bits()).leading_zeros(),
        (IpAddr::V6(first), IpAddr::V6(last)) => (first.to_bits() ^ last.to_bits()).leading_zeros(),
        _ => return None,
    };
    let network = IpNetwork::new(first, u8::try_from(same).ok()?).ok()?;
    (network.network() == first && network.broadcast() == last).then_some(network)
}

/// An element as it is sent. Where it is to be deleted, its key is enough.
pub(super) fn attributes(element: &Element, delete: bool) -> ListAttribute<SetElementAttribute> {
    let mut attributes = vec![SetElementAttribute::Key(DataAttribute::Value(element.key.clone()))];
    if let Some(end) = &element.end {
        attributes.push(SetElementAttribute::KeyEnd(vec![DefaultNla::new(NFTA_DATA_VALUE, end.clone())]));
    }
    let expression = match element.does {
        Does::Limits { rate, burst } => Some(limit(rate, burst, Unit::Bytes, true)),
        Does::Counts { packets, octets } => Some(counter(packets, octets)),
        _ => None,
    };
    if let Some(value) = element.does.value().filter(|_| !delete) {
        attributes.push(SetElementAttribute::Data(DataAttribute::Value(value)));
    }
    let comment = match element.does {
        Does::Names(port) => Some(format!("port {port}")),
        Does::IsOf(device) => Some(format!("device {device}")),
        Does::IsIn(zone) => Some(format!("zone {zone}")),
        _ => None,
    };
    if let Some(comment) = comment.filter(|_| !delete) {
        attributes.push(SetElementAttribute::UserData(user_data(&comment)));
    }
    if let Some(ListAttribute::Element(expression)) = expression.filter(|_| !delete) {
        // The crate has one attribute of an expression here, and the kernel expects all of them.
        attributes.push(SetElementAttribute::Other(of_kind(NFTA_SET_ELEM_EXPR, &expression)));
    }
    ListAttribute::Element(attributes)
}

/// An element as it is received; none where it has no key.
pub(super) fn read(set: Set, element: &[u8]) -> Option<Element> {
    let key = |kind| find(find(element, 0, kind)?, 0, NFTA_DATA_VALUE).map(<[u8]>::to_vec);
    let does = match set {
        Set::Logged | Set::Requests => Does::AsItsSet,
        Set::Members => {
            find(element, 0, NFTA_SET_ELEM_USERDATA).and_then(|data| commented(data, "zone ")).map_or(Does::Nothing, Does::IsIn)
        }
        Set::Tunnelled => {
            find(element, 0, NFTA_SET_ELEM_USERDATA).and_then(|data| commented(data, "device ")).map_or(Does::Nothing, Does::IsOf)
        }
        Set::Grouped | Set::Zones | Set::Holders4 | Set::Holders6 => {
            Does::read(set, find(find(element, 0, NFTA_SET_ELEM_DATA)?, 0, NFTA_DATA_VALUE)?)?
        }
        Set::Guarded | Set::Open => {
            find(element, 0, NFTA_SET_ELEM_USERDATA).and_then(|data| commented(data, "port ")).map_or(Does::Nothing, Does::Names)
        }
        _ => find(element, 0, NFTA_SET_ELEM_EXPR).map_or(Some(Does::Nothing), |expression| read_expression(set, expression))?,
    };
    Some(Element { set, key: key(NFTA_SET_ELEM_KEY)?, end: key(NFTA_SET_ELEM_KEY_END), does })
}

fn read_expression(set: Set, expression: &[u8]) -> Option<Does> {
    let data = find(expression, 0, NFTA_EXPR_DATA)?;
    let number = |kind| find(data, 0, kind)?.first_chunk().map(|octets| u64::from_be_bytes(*octets));
    match set {
        Set::Limits => {
            let burst = find(data, 0, NFTA_LIMIT_BURST)?.first_chunk().map(|octets| u32::from_be_bytes(*octets))?;
            Some(Does::Limits { rate: number(NFTA_LIMIT_RATE)?, burst })
        }
        Set::Dropped(_) => Some(Does::Counts { packets: number(NFTA_COUNTER_PACKETS)?, octets: number(NFTA_COUNTER_BYTES)? }),
        _ => None,
    }
}

/// `linux/netfilter/nf_tables.h`.
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_SET_ELEM_USERDATA: u16 = 6;
const NFTA_SET_ELEM_EXPR: u16 = 7;
const NFTA_SET_ELEM_KEY_END: u16 = 10;
const NFTA_SET_EXPR: u16 = 17;

/// The type of a comment among the user data of an element or a table (`enum nftnl_udata_set_elem_types` and `nftnl_udata_table_types`
/// of libnftnl).
const COMMENT: u8 = 0;

/// A comment as `nft` writes it: type, length, and a text with a terminating NUL.
pub(super) fn user_data(comment: &str) -> Vec<u8> {
    let length = u8::try_from(comment.len() + 1).unwrap_or(u8::MAX);
    [&[COMMENT, length], comment.as_bytes(), &[0]].concat()
}

/// What a comment in an element's user data says behind this.
fn commented<T: std::str::FromStr>(data: &[u8], behind: &str) -> Option<T> {
    let text = data.strip_prefix(&[COMMENT])?.get(1..)?.strip_suffix(&[0])?;
    std::str::from_utf8(text).ok()?.strip_prefix(behind)?.parse().ok()
}

/// What every element of a set does that does not say what it does.
pub(super) fn expression_of_set(expression: &[ExpressionAttribute]) -> DefaultNla {
    of_kind(NFTA_SET_EXPR, expression)
}

fn of_kind(kind: u16, expression: &[ExpressionAttribute]) -> DefaultNla {
    let mut value = vec![0; expression.buffer_len()];
    expression.emit(&mut value);
    DefaultNla::new(kind | NLA_F_NESTED, value)
}
