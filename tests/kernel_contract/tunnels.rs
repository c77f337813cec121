//! VXLAN devices and the entries that lead to other hosts.

use std::collections::BTreeSet;
use std::net::IpAddr;

use nicd::kernel::{Host, OpErrorKind};
use nicd::model::Mac;
use nicd::model::names::{self, FIRST_TUNNEL_INDEX, SegmentKind};
use nicd::plan::{Entry, Kind, LinkState, Op, SegmentChange, Switch, VXLAN_PORT, VxlanSeen};

use crate::host::*;

on_both!(
    a_vxlan_device_is_made_down_and_leads_to_tunnels_in_its_bridge,
    a_changed_vxlan_device_is_set_back,
    a_number_is_one_devices,
    entries_are_set_replaced_and_removed,
    entries_of_the_bridge_go_when_the_device_leaves_it,
);

const INDEX: u32 = FIRST_TUNNEL_INDEX + 9;
const KIND: SegmentKind = SegmentKind::Vxlan;

fn local() -> IpAddr {
    [127, 0, 0, 1].into()
}

fn create(index: u32, vni: u32) -> Op {
    let name = names::segment_device(KIND, network(), 0);
    let alias = names::segment_tag(KIND, STORE, network());
    Op::CreateVxlan { network: network(), index, name, vni, local: local(), mtu: 1450, alias }
}

fn set(changes: impl IntoIterator<Item = SegmentChange>) -> Op {
    Op::SetSegment { network: network(), kind: KIND, changes: changes.into_iter().collect() }
}

fn into_bridge() -> Op {
    set([SegmentChange::Master(BRIDGE), SegmentChange::TunnelPortFlags { suppress: true }, SegmentChange::Switch(Switch::Up)])
}

fn entries(put: &[Entry], remove: &[Entry]) -> Op {
    Op::SetEntries { network: network(), put: put.iter().cloned().collect(), remove: remove.iter().cloned().collect() }
}

fn seen(fixture: &mut Fixture<impl TestHost>) -> LinkState {
    fixture.named(names::segment_device(KIND, network(), 0).as_str())
}

fn found(fixture: &mut Fixture<impl TestHost>) -> BTreeSet<Entry> {
    let seen = fixture.host.entries(network()).unwrap().expect("the device");
    assert_eq!(seen.device, INDEX);
    seen.entries
}

fn a_vxlan_device_is_made_down_and_leads_to_tunnels_in_its_bridge(fixture: &mut Fixture<impl TestHost>) {
    assert_eq!(fixture.host.entries(network()).unwrap(), None);
    fixture.bridge(1450);
    fixture.twice(&create(INDEX, 70_000));
    let made = seen(fixture);
    let settings = VxlanSeen { vni: 70_000, port: VXLAN_PORT, local: Some(local()), learning: false, altered: false };
    assert_eq!((&made.kind, made.index, made.mtu, made.vxlan), (&Kind::Vxlan, INDEX, 1450, Some(settings)));
    assert_eq!(made.segment(), Some((KIND, network())));
    assert!(!made.up && made.master.is_none() && !made.v6_autoconf && !made.v4_open && made.is_of(STORE), "{made:?}");
    fixture.twice(&into_bridge());
    let up = seen(fixture);
    assert!(up.up && up.lower_up && up.master == Some(BRIDGE) && up.foreign_addresses.is_empty(), "{up:?}");
    assert!(up.bridge_port.is_some_and(|port| port.leads_to_tunnels(true) && port.forwarding), "{up:?}");
    fixture.twice(&set([SegmentChange::TunnelPortFlags { suppress: false }]));
    assert!(seen(fixture).bridge_port.is_some_and(|port| port.leads_to_tunnels(false)));
    fixture.twice(&Op::DeleteSegment { network: network(), kind: KIND, store: STORE });
    assert_eq!(fixture.names(), BTreeSet::from([bridge_name()]));
}

fn a_changed_vxlan_device_is_set_back(fixture: &mut Fixture<impl TestHost>) {
    fixture.bridge(1450);
    fixture.apply(&create(INDEX, 7));
    fixture.apply(&into_bridge());
    let before = seen(fixture);
    let name = before.name.clone();
    let altname = names::segment_altname(KIND, network());
    let alias = names::segment_tag(KIND, STORE, network());
    fixture.host_under_test.change(&name, Change::NoAltname(&altname));
    let restore = Op::RestoreSegmentAltname { network: network(), kind: KIND, index: INDEX, alias: alias.clone() };
    fixture.twice(&restore);
    for change in [
        Change::Learning,
        Change::OutOfBridge,
        Change::Down,
        Change::Mtu(1400),
        Change::AddressGeneration,
        Change::Alias("theirs"),
    ] {
        fixture.host_under_test.change(&name, change);
    }
    fixture.twice(&set([
        SegmentChange::Mtu(1450),
        SegmentChange::Alias(alias),
        SegmentChange::LearningOff,
        SegmentChange::Master(BRIDGE),
        SegmentChange::HostIpOff,
        SegmentChange::TunnelPortFlags { suppress: true },
        SegmentChange::Switch(Switch::Up),
    ]));
    assert_eq!(seen(fixture), before);
}

fn a_number_is_one_devices(fixture: &mut Fixture<impl TestHost>) {
    fixture.bridge(1450);
    fixture.apply(&create(INDEX, 7));
    let before = fixture.links();
    let other = nicd::model::NetworkId(uuid::Uuid::from_u128(77));
    let op = Op::CreateVxlan {
        network: other,
        index: INDEX + 1,
        name: names::segment_device(KIND, other, 0),
        vni: 7,
        local: local(),
        mtu: 1450,
        alias: names::segment_tag(KIND, STORE, other),
    };
    fixture.fails(&op, OpErrorKind::Taken);
    assert_eq!(fixture.links(), before);
}

fn entries_are_set_replaced_and_removed(fixture: &mut Fixture<impl TestHost>) {
    fixture.bridge(1450);
    fixture.apply(&create(INDEX, 7));
    fixture.apply(&into_bridge());
    assert_eq!(found(fixture), BTreeSet::new());
    let [mac, other] = [1, 2].map(|last| Mac([0xfa, 0x16, 0x3e, 7, 7, last]));
    let [first, second] = [1, 2].map(|last| IpAddr::from([192, 0, 2, last]));
    let forward = |to| Entry::Forward { mac, to };
    let addresses = [IpAddr::from([10, 0, 0, 1]), "2001:db8::1".parse().unwrap()];
    let [v4, v6] = addresses.map(|ip| Entry::Neighbour { ip, mac });
    let all = [Entry::Flood(first), Entry::Flood(second), forward(first), Entry::Bridge(mac), v4.clone(), v6.clone()];
    fixture.twice(&entries(&all, &[]));
    assert_eq!(found(fixture), all.iter().cloned().collect());
    // What takes another's place is not removed with it.
    let moved = Entry::Neighbour { ip: addresses[0], mac: other };
    fixture.twice(&entries(&[forward(second), moved.clone()], &[forward(first), v4.clone(), Entry::Flood(first)]));
    let now = BTreeSet::from([Entry::Flood(second), forward(second), Entry::Bridge(mac), moved.clone(), v6.clone()]);
    assert_eq!(found(fixture), now);
    let left: Vec<Entry> = now.into_iter().collect();
    fixture.twice(&entries(&[], &left));
    assert_eq!(found(fixture), BTreeSet::new());
    // More than one send has room for.
    let many: Vec<Entry> =
        (0..500_u16).map(|n| Entry::Bridge(Mac([0xfa, 0x16, 0x3e, 8, n.to_be_bytes()[0], n.to_be_bytes()[1]]))).collect();
    fixture.apply(&entries(&many, &[]));
    assert_eq!(found(fixture).len(), 500);
    fixture.apply(&entries(&[], &many));
    assert_eq!(found(fixture), BTreeSet::new());
}

fn entries_of_the_bridge_go_when_the_device_leaves_it(fixture: &mut Fixture<impl TestHost>) {
    fixture.bridge(1450);
    fixture.apply(&create(INDEX, 7));
    fixture.apply(&into_bridge());
    let mac = Mac([0xfa, 0x16, 0x3e, 7, 7, 1]);
    let to = IpAddr::from([192, 0, 2, 1]);
    let neighbour = Entry::Neighbour { ip: [10, 0, 0, 1].into(), mac };
    let (flood, forward) = (Entry::Flood(to), Entry::Forward { mac, to });
    fixture.apply(&entries(&[flood.clone(), forward.clone(), Entry::Bridge(mac), neighbour.clone()], &[]));
    let name = seen(fixture).name;
    fixture.host_under_test.change(&name, Change::Down);
    assert_eq!(found(fixture).len(), 4, "they stay while it is down");
    fixture.host_under_test.change(&name, Change::OutOfBridge);
    assert_eq!(found(fixture), BTreeSet::from([flood.clone(), forward.clone(), neighbour]));
    fixture.fails(&entries(&[Entry::Bridge(mac)], &[]), OpErrorKind::Gone);
    fixture.host_under_test.change(&bridge_name(), Change::Down);
    assert_eq!(found(fixture), BTreeSet::from([flood, forward]), "a bridge that is down has no neighbours");
    fixture.host_under_test.delete(&name);
    fixture.fails(&entries(&[], &[]), OpErrorKind::Gone);
    assert_eq!(fixture.host.entries(network()).unwrap(), None);
}
