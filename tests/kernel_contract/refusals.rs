//! What is refused, and what is left of it.

use nicd::kernel::{Host, OpErrorKind};
use nicd::model::{Mac, names};
use nicd::plan::{At, BRIDGE_PORTS, Kind, LinkChange, Op, Switch};

use crate::host::*;

on_both!(
    what_is_gone_is_told,
    a_taps_taken_name_or_index_is_told_and_its_holder_untouched,
    a_bridges_taken_name_index_or_altname_is_told_and_nothing_is_half_made,
    the_altname_is_not_given_to_another_link,
    the_group_of_all_links_is_no_group,
    a_master_that_is_no_bridge_is_told,
    a_full_bridge_is_told,
    a_port_of_no_bridge_has_no_flags_and_no_entries,
    what_is_refused_keeps_a_device_from_being_tagged,
    a_change_goes_on_behind_what_is_refused,
    a_device_being_made_goes_on_behind_what_is_refused,
    a_mac_that_is_no_nics_is_refused,
    an_alias_that_no_link_can_have_is_refused,
);

/// A MAC with the group bit.
const MULTICAST: Mac = Mac([1, 0, 0x5e, 0, 0, 1]);

fn what_is_gone_is_told(fixture: &mut Fixture<impl TestHost>) {
    let port = port(1);
    let alias = names::device_tag(STORE, 7);
    for op in [
        Op::Persist { port },
        configure(port, [tag(Switch::Up)]),
        configure(port, changes(port, 1)),
        Op::SetLink { port, switch: Switch::Up },
        Op::Unbind { port },
        Op::SetGroup { port, group: 7 },
        Op::RestoreAltname { port, index: DEVICE, alias: alias.clone() },
        Op::RestoreBridgeAltname { network: network(), index: BRIDGE, alias },
        Op::CloseBridge { network: network() },
        up(),
    ] {
        fixture.refused(&op, OpErrorKind::Gone);
    }
    fixture.twice(&Op::DeleteLink { port, store: STORE });
    fixture.twice(&Op::DeleteBridge { network: network(), store: STORE });
    fixture.twice(&delete_group(77, &[port]));
    fixture.twice(&Op::CloseTap { port });
}

fn a_taps_taken_name_or_index_is_told_and_its_holder_untouched(fixture: &mut Fixture<impl TestHost>) {
    let port = port(1);
    let name = names::port_device(port, 0);
    let index = fixture.host_under_test.add(name.as_str(), Kind::Other, 1500);
    fixture.refused(&create_tap(port, DEVICE), OpErrorKind::Taken);
    fixture.host_under_test.change(name.as_str(), Change::Name("elsewhere"));
    fixture.refused(&create_tap(port, index), OpErrorKind::Taken);
    // Names and altnames are one space.
    fixture.host_under_test.change("elsewhere", Change::Altname(name.as_str()));
    fixture.refused(&create_tap(port, DEVICE), OpErrorKind::Taken);
    fixture.host_under_test.change("elsewhere", Change::NoAltname(name.as_str()));
    fixture.host_under_test.change("elsewhere", Change::Altname(&names::port_altname(port)));
    let holder = fixture.named("elsewhere");
    fixture.apply(&create_tap(port, DEVICE));
    fixture.fails(&Op::Configure { port, at: At::Index(DEVICE), changes: changes(port, 0) }, OpErrorKind::Taken);
    assert_eq!(fixture.named("elsewhere"), holder);
}

fn a_bridges_taken_name_index_or_altname_is_told_and_nothing_is_half_made(fixture: &mut Fixture<impl TestHost>) {
    fixture.host_under_test.add(&bridge_name(), Kind::Bridge, 1500);
    fixture.refused(&create_bridge(1500), OpErrorKind::Taken);
    fixture.host_under_test.delete(&bridge_name());
    let index = fixture.host_under_test.add("foreign", Kind::Bridge, 1500);
    let Op::CreateBridge { network, name, mac, mtu, alias, .. } = create_bridge(1500) else { unreachable!() };
    fixture.refused(&Op::CreateBridge { network, index, name, mac, mtu, alias }, OpErrorKind::Taken);
    fixture.host_under_test.change("foreign", Change::Altname(&names::network_altname(network)));
    fixture.refused(&create_bridge(1500), OpErrorKind::Taken);
}

fn the_altname_is_not_given_to_another_link(fixture: &mut Fixture<impl TestHost>) {
    let (port, other) = (port(1), port(2));
    fixture.attach_tap(port, DEVICE, 0);
    let name = fixture.attach_tap(other, DEVICE + 1, 0);
    let restore = |index, alias| Op::RestoreAltname { port, index, alias };
    // It has a mark.
    fixture.refused(&restore(DEVICE + 1, names::device_tag(STORE, 9)), OpErrorKind::Gone);
    // It has none, but somebody's alias.
    fixture.host_under_test.change(&name, Change::NoAltname(&names::port_altname(other)));
    fixture.refused(&restore(DEVICE + 1, names::device_tag(STORE, 9)), OpErrorKind::Gone);
    let foreign = fixture.host_under_test.add("foreign", Kind::Veth, 1500);
    fixture.refused(&restore(foreign, names::device_tag(STORE, 9)), OpErrorKind::Gone);
    // Another link has the mark.
    fixture.refused(&restore(DEVICE + 1, alias()), OpErrorKind::Taken);
}

fn the_group_of_all_links_is_no_group(fixture: &mut Fixture<impl TestHost>) {
    let port = port(1);
    fixture.attach_tap(port, DEVICE, 0);
    fixture.refused(&delete_group(0, &[port]), OpErrorKind::Other);
    fixture.refused(&Op::SetGroup { port, group: 0 }, OpErrorKind::Other);
}

fn a_master_that_is_no_bridge_is_told(fixture: &mut Fixture<impl TestHost>) {
    let port = port(1);
    fixture.apply(&create_tap(port, DEVICE));
    for master in [ABSENT, fixture.host_under_test.add("v0", Kind::Veth, 1500)] {
        fixture.fails(&Op::Configure { port, at: At::Index(DEVICE), changes: changes(port, master) }, OpErrorKind::NoBridge);
    }
}

fn a_full_bridge_is_told(fixture: &mut Fixture<impl TestHost>) {
    fixture.bridge(1500);
    fixture.host_under_test.fill(&bridge_name(), BRIDGE_PORTS);
    let port = port(1);
    fixture.apply(&create_tap(port, DEVICE));
    fixture.fails(&Op::Configure { port, at: At::Index(DEVICE), changes: changes(port, BRIDGE) }, OpErrorKind::BridgeFull);
}

fn a_port_of_no_bridge_has_no_flags_and_no_entries(fixture: &mut Fixture<impl TestHost>) {
    let port = port(1);
    fixture.attach_tap(port, DEVICE, 0);
    let tag = LinkChange::Tag { alias: names::device_tag(STORE, 8), switch: Switch::Down };
    for changes in [
        vec![LinkChange::Learning(false)],
        vec![LinkChange::UnicastFlood(false)],
        vec![LinkChange::ResetPortFlags],
        vec![LinkChange::PassLinkLocal],
        vec![LinkChange::Forwarding],
        // A device that did not get into its bridge is not tagged.
        vec![LinkChange::Learning(false), tag.clone()],
    ] {
        fixture.refused(&configure(port, changes), OpErrorKind::Other);
    }
    fixture.refused(&configure(port, [LinkChange::FdbEntry(mac(port)), tag]), OpErrorKind::Gone);
}

fn what_is_refused_keeps_a_device_from_being_tagged(fixture: &mut Fixture<impl TestHost>) {
    let port = port(1);
    let name = fixture.attach_tap(port, DEVICE, 0);
    fixture.host_under_test.change(&name, Change::Down);
    fixture.host_under_test.change(&name, Change::Alias("unfinished"));
    let finish = |master: Option<u32>| {
        configure(port, [LinkChange::Mtu(1400), tag(Switch::Up)].into_iter().chain(master.map(LinkChange::Master)))
    };
    fixture.fails(&finish(Some(ABSENT)), OpErrorKind::NoBridge);
    let seen = fixture.device(port);
    assert_eq!((seen.alias.as_deref(), seen.up), (Some("unfinished"), false));
    fixture.twice(&finish(None));
    let seen = fixture.device(port);
    assert_eq!((seen.alias, seen.up), (Some(alias()), true));
}

/// One message carries MAC, MTU and bridge, in this order; the others follow, each for itself.
fn a_change_goes_on_behind_what_is_refused(fixture: &mut Fixture<impl TestHost>) {
    fixture.bridge(1500);
    let port = port(1);
    let name = fixture.attach_tap(port, DEVICE, BRIDGE);
    for change in [Change::Learning, Change::AddressGeneration, Change::NoEntry(mac(port))] {
        fixture.host_under_test.change(&name, change);
    }
    let changes = [
        LinkChange::Mac(MULTICAST),
        LinkChange::Mtu(1400),
        LinkChange::HostIpOff,
        LinkChange::Learning(false),
        LinkChange::FdbEntry(mac(port)),
    ];
    fixture.fails(&configure(port, changes), OpErrorKind::Other);
    let seen = fixture.device(port);
    assert_eq!((seen.mac, seen.mtu), (Some(mac(port).host_side()), 1500), "what comes behind it in its own message is not done");
    assert!(!seen.v6_autoconf && !seen.bridge_port.unwrap().learning && seen.entry(mac(port), 0).is_some(), "{seen:?}");

    let moved = [LinkChange::Mac(Mac([2, 0, 0, 0, 0, 7])), LinkChange::Mtu(1400), LinkChange::Master(ABSENT)];
    fixture.fails(&configure(port, moved), OpErrorKind::NoBridge);
    let seen = fixture.device(port);
    assert_eq!((seen.mac, seen.mtu), (Some(Mac([2, 0, 0, 0, 0, 7])), 1400), "what comes before it is done");
    assert_eq!(seen.master, None, "it has left the bridge that it was in");
}

fn a_device_being_made_goes_on_behind_what_is_refused(fixture: &mut Fixture<impl TestHost>) {
    let port = port(1);
    fixture.apply(&create_tap(port, DEVICE));
    let op = |flag: Option<LinkChange>| {
        let others = [LinkChange::Master(ABSENT), tag(Switch::Up)].into_iter().chain(flag);
        Op::Configure { port, at: At::Index(DEVICE), changes: changes(port, 0).into_iter().chain(others).collect() }
    };
    fixture.fails(&op(Some(LinkChange::Learning(false))), OpErrorKind::NoBridge);
    let seen = fixture.device(port);
    assert_eq!((seen.mac, seen.alias.as_ref(), seen.up), (Some(mac(port).host_side()), None, false));
    // Its tag goes with it.
    fixture.fails(&op(None), OpErrorKind::NoBridge);
    let seen = fixture.device(port);
    assert_eq!((seen.alias, seen.up), (Some(alias()), true));
    fixture.let_go();
    assert_eq!(fixture.try_device(port), None);
}

fn a_mac_that_is_no_nics_is_refused(fixture: &mut Fixture<impl TestHost>) {
    let port = port(1);
    fixture.attach_tap(port, DEVICE, 0);
    fixture.refused(&configure(port, [LinkChange::Mac(MULTICAST)]), OpErrorKind::Other);
}

fn an_alias_that_no_link_can_have_is_refused(fixture: &mut Fixture<impl TestHost>) {
    let port = port(1);
    fixture.attach_tap(port, DEVICE, 0);
    let tagged = |alias| configure(port, [LinkChange::Tag { alias, switch: Switch::Down }]);
    for alias in ["x".repeat(256), "x\0y".into(), "x".repeat(100_000)] {
        fixture.refused(&tagged(alias), OpErrorKind::Other);
    }
    fixture.twice(&tagged("y".repeat(255)));
    assert_eq!(fixture.device(port).alias, Some("y".repeat(255)));
    assert_eq!(fixture.host.dump_links().unwrap().iter().filter(|link| link.up && link.index == DEVICE).count(), 0);
}
