//! What differs between a record and the kernel, in words: everything that one dump can show, also what no plan can mend.

use std::collections::BTreeMap;
use std::fmt::Display;

use serde::Serialize;

use crate::model::{Mac, names};

use super::desired::{BridgeMade, DesiredBridge, DesiredOverlay, DesiredPort};
use super::diff::{Bridge, Device, Segment};
use super::observed::{Kind, LinkState, Observed};
use super::overlay::Entry;

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Deviation {
    /// The stable word for what differs.
    pub kind: &'static str,
    /// Whose it is: a device or a bridge with its record, or a record.
    pub object: String,
    /// What is recorded, or would be right.
    pub want: String,
    /// What was found.
    pub have: String,
}

impl Deviation {
    /// One, of words.
    pub fn new(kind: &'static str, object: impl Into<String>, want: impl Display, have: impl Display) -> Self {
        Self { kind, object: object.into(), want: want.to_string(), have: have.to_string() }
    }
}

/// What differs about the device of a port that is to be there.
pub fn of_port(port: &DesiredPort, bridge: &DesiredBridge, have: &Observed) -> Vec<Deviation> {
    let Some(device) = Device::find(port, bridge, have).filter(|device| device.marked) else {
        let want = format!("a {} with altname {}", port.nic.kind().as_str(), names::port_altname(port.id));
        let seen = instead(have.in_place_of_device(port.id));
        return vec![Deviation::new("device_missing", format!("port {}", port.id), want, seen)];
    };
    let object = format!("{} of port {}", device.link.name, port.id);
    let told = device.differences().map(|rule| {
        let (want, have) = rule.words(&device);
        Deviation::new(rule.word, object.clone(), want, have)
    });
    told.collect()
}

/// What differs about a network's bridge that is to be there; an operator's is only to be one.
pub fn of_bridge(bridge: &DesiredBridge, have: &Observed) -> Vec<Deviation> {
    let object = format!("network {}", bridge.network);
    let found = match (Bridge::find(bridge, have).filter(|bridge| bridge.marked), &bridge.made) {
        (Some(found), _) => found,
        (None, BridgeMade::Existing { name }) => return vec![Deviation::new("bridge_missing", object, name, "no such link")],
        (None, BridgeMade::ByAgent { .. }) => {
            let want = format!("a bridge with altname {}", names::network_altname(bridge.network));
            return vec![Deviation::new("bridge_missing", object, want, instead(have.in_place_of_bridge(bridge.network)))];
        }
    };
    let object = format!("{} of {object}", found.link.name);
    let told = found.differences().map(|rule| {
        let (want, have) = rule.words(&found);
        Deviation::new(rule.word, object.clone(), want, have)
    });
    told.chain(of_segment(bridge, have)).collect()
}

/// What differs about the entries of a network that lead to other hosts.
pub fn of_overlay(want: &DesiredOverlay, have: &Observed) -> Vec<Deviation> {
    let Some(found) = have.entries(want.network) else { return Vec::new() };
    let object = format!("network {}", want.network);
    let missing: Vec<&Entry> = want.entries.difference(&found.entries).filter(|entry| found.can_have(entry)).collect();
    let others: Vec<&Entry> = found.entries.difference(&want.entries).collect();
    // There may be as many as ports on other hosts.
    let some = |entries: &[&Entry]| {
        let first: Vec<String> = entries.iter().take(3).map(|entry| entry.to_string()).collect();
        let more = entries.len().saturating_sub(first.len());
        let rest = if more == 0 { String::new() } else { format!(" and {more} more") };
        format!("{}{rest}", first.join(", "))
    };
    let mut told = Vec::new();
    if !missing.is_empty() {
        told.push(Deviation::new("entries_missing", object.clone(), some(&missing), "no such entries"));
    }
    if !others.is_empty() {
        told.push(Deviation::new("entries_foreign", object, "no such entries", some(&others)));
    }
    told
}

/// What is in the way of a network to other hosts.
fn of_segment(bridge: &DesiredBridge, have: &Observed) -> Option<Deviation> {
    let segment = Segment::find(bridge, have)?;
    let want = "the network's bridge reaches other hosts";
    segment
        .trouble()
        .map(|trouble| Deviation::new(trouble.reason(), format!("network {}", bridge.network), want, segment.words()))
}

/// What is wrong among all links: two ports of a bridge with one MAC.
pub fn of_links(have: &Observed) -> Vec<Deviation> {
    let ours = |link: &&LinkState| link.kind != Kind::Bridge && link.marks().next().is_some() && have.ours(link);
    let mut found = Vec::new();
    let mut first: BTreeMap<(u32, Mac), &LinkState> = BTreeMap::new();
    for link in have.iter() {
        let Some(place) = link.master.zip(link.mac) else { continue };
        let other = *first.entry(place).or_insert(link);
        if other.index != link.index && (ours(&link) || ours(&other)) {
            let have = format!("{} has {} too", other.name, place.1);
            found.push(Deviation::new("duplicate_mac", link.name.clone(), "a MAC of its own in its bridge", have));
        }
    }
    found
}

/// What is there under the altname of what is missing.
fn instead(link: Option<&LinkState>) -> String {
    link.map_or_else(|| "no such link".to_owned(), |link| format!("{}, which this nicd did not make", link.name))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::model::{NetworkId, Owner, PortId};
    use crate::plan::diff::Device;
    use crate::plan::facts::FactName;
    use crate::plan::filter::{DeviceFilter, Filter, Guard};
    use crate::plan::{Address, DesiredNic, FdbEntry, TapSeen};

    const MAC: Mac = Mac([0xfa, 0x16, 0x3e, 1, 2, 3]);

    fn id() -> uuid::Uuid {
        uuid::Uuid::from_u128(7)
    }

    fn want() -> (DesiredPort, DesiredBridge) {
        let nic = DesiredNic::Tap { queues: 1, vnet_hdr: true, owner: Owner::default() };
        let (id, network) = (PortId(id()), NetworkId(uuid::Uuid::from_u128(8)));
        let port = DesiredPort {
            id,
            network,
            index: 0,
            mac: MAC,
            mtu: 1500,
            admin_up: true,
            unknown_unicast: false,
            to_guest: None,
            from_guest: None,
            silent: false,
            cut_off: false,
            speaks: crate::plan::Speaks::default(),
            filter: None,
            alias: names::device_tag(Uuid::nil(), 1),
            seen: None,
            monitor: None,
            nic,
        };
        (port, DesiredBridge { network, made: BridgeMade::Existing { name: "br0".parse().unwrap() }, segment: None })
    }

    fn link(index: u32, name: &str, kind: Kind) -> LinkState {
        LinkState { up: true, lower_up: true, ..LinkState::bare(index, name, kind) }
    }

    fn right() -> LinkState {
        LinkState {
            altnames: vec![names::port_altname(PortId(id()))],
            alias: Some(names::device_tag(Uuid::nil(), 1)),
            mac: Some(MAC.host_side()),
            master: Some(3),
            tap: Some(TapSeen { persist: true, multi_queue: false, held: true, uid: Some(0), gid: None }),
            ..link(names::FIRST_INDEX, names::port_device(PortId(id()), 0).as_str(), Kind::Tap)
        }
    }

    fn found(device: Option<LinkState>) -> Vec<&'static str> {
        let (port, bridge) = want();
        let have = Observed::from([Some(link(3, "br0", Kind::Bridge)), device].into_iter().flatten().collect::<Vec<_>>());
        of_port(&port, &bridge, &have).into_iter().map(|deviation| deviation.kind).collect()
    }

    #[test]
    fn what_is_right_does_not_deviate() {
        assert!(found(Some(right())).is_empty());
    }

    #[test]
    fn everything_that_can_differ_is_told() {
        assert_eq!(found(None), ["device_missing"]);
        let wrong = LinkState {
            mac: None,
            mtu: 1400,
            master: None,
            up: false,
            alias: None,
            v6_autoconf: true,
            v4_open: true,
            foreign_addresses: vec![Address { ip: [192, 0, 2, 1].into(), prefix: 24 }],
            tap: Some(TapSeen { persist: false, multi_queue: true, held: true, uid: None, gid: Some(5) }),
            ..right()
        };
        let as_link = ["bridge", "mac", "mtu", "alias", "up", "address_generation", "host_ipv4", "host_address"];
        assert_eq!(found(Some(wrong)), [as_link.as_slice(), &["persistent", "queues", "owner"]].concat());
        assert_eq!(found(Some(LinkState { kind: Kind::Veth, ..right() })), ["kind"]);
    }

    #[test]
    fn an_entry_that_is_missing_or_can_be_moved_is_told_where_it_was_looked_for() {
        let entry = FdbEntry { mac: MAC, vlan: 0, sticky: true };
        let with = |fdb| found(Some(LinkState { fdb, ..right() }));
        assert!(with(Some(vec![entry])).is_empty() && with(None).is_empty());
        for wrong in [vec![], vec![FdbEntry { sticky: false, ..entry }], vec![FdbEntry { vlan: 7, ..entry }]] {
            assert_eq!(with(Some(wrong.clone())), ["fdb"], "{wrong:?}");
        }
    }

    #[test]
    fn a_kernel_that_does_not_filter_is_told_of_ports_with_port_security_alone() {
        let (port, bridge) = want();
        for (guard, told) in [(Some(Guard::default()), true), (None, false)] {
            let filter = Filter { guard, ..Filter::default() };
            let port = DesiredPort { filter: Some(filter.clone()), ..port.clone() };
            let set = DeviceFilter::Set { port: port.id, filter };
            for unproven in [true, false] {
                let device = LinkState { filter: set.clone(), unproven, ..right() };
                let have = Observed::from(vec![device, link(3, "br0", Kind::Bridge)]);
                let broken = Device::find(&port, &bridge, &have).unwrap().breaks(FactName::Filters);
                assert_eq!(broken, told && unproven);
            }
        }
    }

    #[test]
    fn a_shared_mac_is_told_of_ours_alone() {
        let shared = Mac([2, 0, 0, 0, 0, 1]);
        let strangers = [4, 5].map(|index| LinkState { master: Some(3), mac: Some(shared), ..link(index, "x", Kind::Other) });
        let kinds = |have: &Observed| of_links(have).into_iter().map(|deviation| deviation.kind).collect::<Vec<_>>();
        assert!(kinds(&Observed::from(strangers.into_iter().chain([right()]).collect::<Vec<_>>())).is_empty());
        let twin = LinkState { master: Some(3), mac: Some(MAC.host_side()), ..link(6, "y", Kind::Other) };
        assert_eq!(kinds(&Observed::from(vec![twin, right()])), ["duplicate_mac"]);
        let elsewhere = LinkState { master: Some(4), mac: Some(MAC), ..link(6, "y", Kind::Other) };
        assert!(kinds(&Observed::from(vec![elsewhere, right()])).is_empty());
    }
}
