//! What differs between a record and the kernel, in words: everything that one dump can show, also what no plan can mend.

use std::collections::BTreeMap;
use std::fmt::Display;

use serde::Serialize;

use crate::model::{Mac, names};

use super::facts::{bridge_seen, entered, filtering, passing, tagging, ways};
use super::have::{Have, Kind, LinkSeen};
use super::want::{BridgeMade, BridgeWant, NicWant, PortWant};

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

/// Differences of one object, as they are found.
struct Found {
    object: String,
    all: Vec<Deviation>,
}

impl Found {
    fn differ<T: PartialEq + Display>(&mut self, kind: &'static str, want: T, have: T) {
        if want != have {
            self.all.push(Deviation::new(kind, self.object.clone(), want, have));
        }
    }
}

/// What differs about the device of a port that is to be there.
pub fn of_port(port: &PortWant, bridge: &BridgeWant, have: &Have) -> Vec<Deviation> {
    let wanted = kind_of(&port.nic);
    let Some(link) = have.device(port.id) else {
        let want = format!("a {} with altname {}", wanted.as_str(), names::port_altname(port.id));
        let seen = instead(have.in_place_of_device(port.id));
        return vec![Deviation::new("device_missing", format!("port {}", port.id), want, seen)];
    };
    let mut found = Found { object: format!("{} of port {}", link.name, port.id), all: Vec::new() };
    found.differ("kind", wanted.as_str(), link.kind.as_str());
    let home = bridge_seen(bridge, have);
    found.differ("bridge", called(home, bridge), in_bridge(link, have));
    found.differ("mac", port.mac.host_side().to_string(), shown(link.mac));
    if let Some(home) = home {
        found.differ("mtu", home.mtu, link.mtu);
        if let Some(other) = have.with_mac_on(port.mac, home.index) {
            let have = format!("{} has {} too", other.name, port.mac);
            found.all.push(Deviation::new("duplicate_mac", found.object.clone(), "a MAC of its own on its bridge", have));
        }
    }
    found.differ("alias", port.alias.as_str(), link.alias.as_deref().unwrap_or("none"));
    found.differ("up", up(port.admin_up), up(link.up));
    found.differ("address_generation", "off", off(link.v6_autoconf));
    found.differ("host_ipv4", "off", off(link.v4_open));
    if let Some(seen) = link.bridge_port {
        found.differ("learning", "off", off(seen.learning));
        found.differ("unicast_flood", off(port.unknown_unicast), off(seen.unicast_flood));
        found.differ("port_state", "forwarding", if seen.held { "not forwarding" } else { "forwarding" });
        if bridge.made.closes() {
            found.differ("host_closed", "closed", closed(seen.passes_link_local));
        }
        found.differ("port_flags", "as made", if seen.altered { "altered" } else { "as made" });
    }
    if passing(link, bridge, have).is_some_and(|vlan| !vlan.passes()) {
        let seen = tagging(link, bridge, have);
        found.all.push(Deviation::new("vlan", found.object.clone(), "untagged frames pass", seen));
    }
    if ways(port, bridge, have).any(|(_, way)| way.closed().is_some()) {
        let seen = filtering(port, bridge, have);
        found.all.push(Deviation::new("forward_filtered", found.object.clone(), "frames between guests pass", seen));
    }
    if link.fdb.is_some() && !link.entry(port.mac, link.entry_vlan()).is_some_and(|entry| entry.sticky) {
        let want = format!("{} is at {}, static and sticky", port.mac, link.name);
        found.all.push(Deviation::new("fdb", found.object.clone(), want, entered(link, port)));
    }
    if let (NicWant::Tap { queues, owner, .. }, Some(tap)) = (&port.nic, link.tap) {
        found.differ("persistent", true, tap.persist);
        found.differ("queues", many(*queues > 1), many(tap.multi_queue));
        let owner = owner.of_tap();
        found.differ("owner", owned(owner.uid, owner.gid), owned(tap.uid, tap.gid));
    }
    found.all
}

/// What differs about a network's bridge that is to be there; an operator's is only to be one.
pub fn of_bridge(bridge: &BridgeWant, have: &Have) -> Vec<Deviation> {
    let object = format!("network {}", bridge.network);
    let seen = match (bridge_seen(bridge, have), &bridge.made) {
        (Some(seen), _) => seen,
        (None, BridgeMade::Existing { name }) => return vec![Deviation::new("bridge_missing", object, name, "no such link")],
        (None, BridgeMade::ByAgent { .. }) => {
            let want = format!("a bridge with altname {}", names::network_altname(bridge.network));
            return vec![Deviation::new("bridge_missing", object, want, instead(have.in_place_of_bridge(bridge.network)))];
        }
    };
    let mut found = Found { object: format!("{} of {object}", seen.name), all: Vec::new() };
    found.differ("kind", Kind::Bridge.as_str(), seen.kind.as_str());
    if bridge.made.closes() {
        found.differ("host_closed", "closed", closed(seen.host_closed));
    }
    if let BridgeMade::ByAgent { mac, mtu, alias, .. } = &bridge.made {
        found.differ("mac", mac.to_string(), shown(seen.mac));
        found.differ("mtu", *mtu, seen.mtu);
        found.differ("alias", alias.as_str(), seen.alias.as_deref().unwrap_or("none"));
        found.differ("up", up(true), up(seen.up));
        found.differ("address_generation", "off", off(seen.v6_autoconf));
        found.differ("host_ipv4", "off", off(seen.v4_open));
        found.differ("stp", "off", off(seen.extras.stp));
        found.differ("multicast_snooping", "off", off(seen.extras.multicast_snooping));
        found.differ("vlan_filtering", "off", off(seen.extras.vlan_filtering));
    }
    found.all
}

/// What is wrong among all links: addresses on devices of ours, and two ports of a bridge with one MAC.
pub fn of_links(have: &Have) -> Vec<Deviation> {
    let ours = |link: &&LinkSeen| link.kind != Kind::Bridge && link.marks().next().is_some() && have.ours(link);
    let strays =
        have.iter().filter(|link| have.ours(link)).flat_map(|link| link.stray.iter().map(move |address| (link, address.ip)));
    let mut found: Vec<Deviation> =
        strays.map(|(link, ip)| Deviation::new("host_address", link.name.clone(), "none", ip)).collect();
    let mut first: BTreeMap<(u32, Mac), &LinkSeen> = BTreeMap::new();
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
fn instead(link: Option<&LinkSeen>) -> String {
    link.map_or_else(|| "no such link".to_owned(), |link| format!("{}, which this nicd did not make", link.name))
}

fn kind_of(nic: &NicWant) -> Kind {
    match nic {
        NicWant::Tap { .. } => Kind::Tap,
        NicWant::Veth { .. } => Kind::Veth,
    }
}

fn called(home: Option<&LinkSeen>, bridge: &BridgeWant) -> String {
    match (home, &bridge.made) {
        (Some(home), _) => home.name.clone(),
        (None, BridgeMade::Existing { name }) => name.to_string(),
        (None, BridgeMade::ByAgent { .. }) => names::network_altname(bridge.network),
    }
}

fn in_bridge(link: &LinkSeen, have: &Have) -> String {
    match link.master {
        None => "none".to_owned(),
        Some(index) => have.link(index).map_or_else(|| format!("index {index}"), |bridge| bridge.name.clone()),
    }
}

fn shown(mac: Option<Mac>) -> String {
    mac.map_or_else(|| "none".to_owned(), |mac| mac.to_string())
}

fn up(up: bool) -> &'static str {
    if up { "up" } else { "down" }
}

fn closed(closed: bool) -> &'static str {
    if closed { "closed" } else { "open" }
}

fn off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

fn many(many: bool) -> &'static str {
    if many { "several" } else { "one" }
}

fn owned(uid: Option<u32>, gid: Option<u32>) -> String {
    let id = |id: Option<u32>| id.map_or_else(|| "any".to_owned(), |id| id.to_string());
    format!("uid {}, gid {}", id(uid), id(gid))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::model::{NetworkId, Owner, PortId};
    use crate::plan::{Address, FdbEntry, TapSeen};

    const MAC: Mac = Mac([0xfa, 0x16, 0x3e, 1, 2, 3]);

    fn id() -> uuid::Uuid {
        uuid::Uuid::from_u128(7)
    }

    fn want() -> (PortWant, BridgeWant) {
        let nic = NicWant::Tap { queues: 1, vnet_hdr: true, owner: Owner::default() };
        let (id, network) = (PortId(id()), NetworkId(uuid::Uuid::from_u128(8)));
        let port = PortWant {
            id,
            network,
            index: 0,
            mac: MAC,
            mtu: 1500,
            admin_up: true,
            unknown_unicast: false,
            cut_off: false,
            speaks: crate::plan::Speaks::default(),
            alias: names::seal(Uuid::nil(), 1),
            seen: None,
            nic,
        };
        (port, BridgeWant { network, made: BridgeMade::Existing { name: "br0".parse().unwrap() } })
    }

    fn link(index: u32, name: &str, kind: Kind) -> LinkSeen {
        LinkSeen { up: true, lower_up: true, ..LinkSeen::bare(index, name, kind) }
    }

    fn right() -> LinkSeen {
        LinkSeen {
            altnames: vec![names::port_altname(PortId(id()))],
            alias: Some(names::seal(Uuid::nil(), 1)),
            mac: Some(MAC.host_side()),
            master: Some(3),
            tap: Some(TapSeen { persist: true, multi_queue: false, held: true, uid: Some(0), gid: None }),
            ..link(names::FIRST_INDEX, names::port_device(PortId(id()), 0).as_str(), Kind::Tap)
        }
    }

    fn found(device: Option<LinkSeen>) -> Vec<&'static str> {
        let (port, bridge) = want();
        let have = Have::from([Some(link(3, "br0", Kind::Bridge)), device].into_iter().flatten().collect::<Vec<_>>());
        of_port(&port, &bridge, &have).into_iter().map(|deviation| deviation.kind).collect()
    }

    #[test]
    fn what_is_right_does_not_deviate() {
        assert!(found(Some(right())).is_empty());
    }

    #[test]
    fn everything_that_can_differ_is_told() {
        assert_eq!(found(None), ["device_missing"]);
        let wrong = LinkSeen {
            mac: None,
            mtu: 1400,
            master: None,
            up: false,
            alias: None,
            v6_autoconf: true,
            v4_open: true,
            tap: Some(TapSeen { persist: false, multi_queue: true, held: true, uid: None, gid: Some(5) }),
            ..right()
        };
        let all = ["bridge", "mac", "mtu", "alias", "up", "address_generation", "host_ipv4", "persistent", "queues", "owner"];
        assert_eq!(found(Some(wrong)), all);
        assert_eq!(found(Some(LinkSeen { kind: Kind::Veth, ..right() })), ["kind"]);
    }

    #[test]
    fn an_entry_that_is_missing_or_can_be_moved_is_told_where_it_was_looked_for() {
        let entry = FdbEntry { mac: MAC, vlan: 0, sticky: true };
        let with = |fdb| found(Some(LinkSeen { fdb, ..right() }));
        assert!(with(Some(vec![entry])).is_empty() && with(None).is_empty());
        for wrong in [vec![], vec![FdbEntry { sticky: false, ..entry }], vec![FdbEntry { vlan: 7, ..entry }]] {
            assert_eq!(with(Some(wrong.clone())), ["fdb"], "{wrong:?}");
        }
    }

    #[test]
    fn an_address_and_a_shared_mac_are_told_of_ours_alone() {
        let shared = Mac([2, 0, 0, 0, 0, 1]);
        let strangers = [4, 5].map(|index| LinkSeen { master: Some(3), mac: Some(shared), ..link(index, "x", Kind::Other) });
        let address = Address { ip: [192, 0, 2, 1].into(), prefix: 24 };
        let addressed = LinkSeen { stray: vec![address], ..right() };
        let have = Have::from(strangers.into_iter().chain([addressed]).collect::<Vec<_>>());
        let kinds = |have: &Have| of_links(have).into_iter().map(|deviation| deviation.kind).collect::<Vec<_>>();
        assert_eq!(kinds(&have), ["host_address"]);
        let twin = LinkSeen { master: Some(3), mac: Some(MAC.host_side()), ..link(6, "y", Kind::Other) };
        assert_eq!(kinds(&Have::from(vec![twin, right()])), ["duplicate_mac"]);
        let elsewhere = LinkSeen { master: Some(4), mac: Some(MAC), ..link(6, "y", Kind::Other) };
        assert!(kinds(&Have::from(vec![elsewhere, right()])).is_empty());
    }
}
