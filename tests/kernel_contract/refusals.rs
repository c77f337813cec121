//! What is refused, and what is left of it.

use nicd::kernel::{Host, OpErrorKind};
use nicd::model::{Mac, names};
use nicd::plan::{At, BRIDGE_PORTS, Kind, LinkSettings, Op, Seal, Switch};

use crate::host::*;

on_both!(
    what_is_gone_is_told,
    a_taps_taken_name_or_index_is_told_and_its_holder_untouched,
    a_bridges_taken_name_index_or_altname_is_told_and_nothing_is_half_made,
    another_link_is_not_marked_again,
    the_group_of_all_links_is_no_group,
    a_master_that_is_no_bridge_is_told,
    a_full_bridge_is_told,
    a_port_of_no_bridge_has_no_flags_and_no_entries,
    what_is_refused_keeps_a_device_from_being_sealed,
    a_change_goes_on_behind_what_is_refused,
    a_device_being_made_goes_on_behind_what_is_refused,
    a_mac_that_is_no_nics_is_refused,
    an_alias_that_no_link_can_have_is_refused,
);

/// A MAC with the group bit.
const MULTICAST: Mac = Mac([1, 0, 0x5e, 0, 0, 1]);

fn what_is_gone_is_told(fixture: &mut Fixture<impl TestHost>) {
    let port = port(1);
    let alias = names::seal(STORE, 7);
    for op in [
        Op::Persist { port },
        configure(port, LinkSettings { seal: Some(seal(Switch::Up)), ..LinkSettings::default() }),
        configure(port, settings(port, 1)),
        Op::SetLink { port, switch: Switch::Up },
        Op::Unbind { port },
        Op::SetGroup { port, group: 7 },
        Op::MarkAgain { port, index: DEVICE, alias: alias.clone() },
        Op::MarkBridgeAgain { network: network(), index: BRIDGE, alias },
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
    fixture.fails(&Op::Configure { port, at: At::Index(DEVICE), settings: settings(port, 0) }, OpErrorKind::Taken);
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

fn another_link_is_not_marked_again(fixture: &mut Fixture<impl TestHost>) {
    let (port, other) = (port(1), port(2));
    fixture.attach_tap(port, DEVICE, 0);
    let name = fixture.attach_tap(other, DEVICE + 1, 0);
    let again = |index, alias| Op::MarkAgain { port, index, alias };
    // It has a mark.
    fixture.refused(&again(DEVICE + 1, names::seal(STORE, 9)), OpErrorKind::Gone);
    // It has none, but somebody's alias.
    fixture.host_under_test.change(&name, Change::NoAltname(&names::port_altname(other)));
    fixture.refused(&again(DEVICE + 1, names::seal(STORE, 9)), OpErrorKind::Gone);
    let foreign = fixture.host_under_test.add("foreign", Kind::Veth, 1500);
    fixture.refused(&again(foreign, names::seal(STORE, 9)), OpErrorKind::Gone);
    // Another link has the mark.
    fixture.refused(&again(DEVICE + 1, seal(Switch::Up).alias), OpErrorKind::Taken);
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
        fixture.fails(&Op::Configure { port, at: At::Index(DEVICE), settings: settings(port, master) }, OpErrorKind::NoBridge);
    }
}

fn a_full_bridge_is_told(fixture: &mut Fixture<impl TestHost>) {
    fixture.bridge(1500);
    fixture.host_under_test.fill(&bridge_name(), BRIDGE_PORTS);
    let port = port(1);
    fixture.apply(&create_tap(port, DEVICE));
    fixture.fails(&Op::Configure { port, at: At::Index(DEVICE), settings: settings(port, BRIDGE) }, OpErrorKind::BridgeFull);
}

fn a_port_of_no_bridge_has_no_flags_and_no_entries(fixture: &mut Fixture<impl TestHost>) {
    let port = port(1);
    fixture.attach_tap(port, DEVICE, 0);
    let none = LinkSettings::default;
    let seal = Some(Seal { alias: names::seal(STORE, 8), switch: Switch::Down });
    for settings in [
        LinkSettings { learning: Some(false), ..none() },
        LinkSettings { unicast_flood: Some(false), ..none() },
        LinkSettings { reset_port_flags: true, ..none() },
        LinkSettings { pass_link_local: true, ..none() },
        LinkSettings { set_forwarding: true, ..none() },
        // What did not get into its bridge is not sealed.
        LinkSettings { learning: Some(false), seal: seal.clone(), ..none() },
    ] {
        fixture.refused(&configure(port, settings), OpErrorKind::Other);
    }
    fixture.refused(&configure(port, LinkSettings { fdb: vec![mac(port)], seal, ..none() }), OpErrorKind::Gone);
}

fn what_is_refused_keeps_a_device_from_being_sealed(fixture: &mut Fixture<impl TestHost>) {
    let port = port(1);
    let name = fixture.attach_tap(port, DEVICE, 0);
    fixture.host_under_test.change(&name, Change::Down);
    fixture.host_under_test.change(&name, Change::Alias("unfinished"));
    let finish = |master| {
        let seal = Some(seal(Switch::Up));
        configure(port, LinkSettings { master, mtu: Some(1400), seal, ..LinkSettings::default() })
    };
    fixture.fails(&finish(Some(ABSENT)), OpErrorKind::NoBridge);
    let seen = fixture.device(port);
    assert_eq!((seen.alias.as_deref(), seen.up), (Some("unfinished"), false));
    fixture.twice(&finish(None));
    let seen = fixture.device(port);
    assert_eq!((seen.alias, seen.up), (Some(seal(Switch::Up).alias), true));
}

/// One message carries MAC, MTU and bridge, in this order; the others follow, each for itself.
fn a_change_goes_on_behind_what_is_refused(fixture: &mut Fixture<impl TestHost>) {
    fixture.bridge(1500);
    let port = port(1);
    let name = fixture.attach_tap(port, DEVICE, BRIDGE);
    for change in [Change::Learning, Change::AddressGeneration, Change::NoEntry(mac(port))] {
        fixture.host_under_test.change(&name, change);
    }
    let settings = LinkSettings {
        mac: Some(MULTICAST),
        mtu: Some(1400),
        ip_off: true,
        learning: Some(false),
        fdb: vec![mac(port)],
        ..LinkSettings::default()
    };
    fixture.fails(&configure(port, settings), OpErrorKind::Other);
    let seen = fixture.device(port);
    assert_eq!((seen.mac, seen.mtu), (Some(mac(port).host_side()), 1500), "what comes behind it in its own message is not done");
    assert!(!seen.v6_autoconf && !seen.bridge_port.unwrap().learning && seen.entry(mac(port), 0).is_some(), "{seen:?}");

    let moved =
        LinkSettings { mac: Some(Mac([2, 0, 0, 0, 0, 7])), mtu: Some(1400), master: Some(ABSENT), ..LinkSettings::default() };
    fixture.fails(&configure(port, moved), OpErrorKind::NoBridge);
    let seen = fixture.device(port);
    assert_eq!((seen.mac, seen.mtu), (Some(Mac([2, 0, 0, 0, 0, 7])), 1400), "what comes before it is done");
    assert_eq!(seen.master, None, "it has left the bridge that it was in");
}

fn a_device_being_made_goes_on_behind_what_is_refused(fixture: &mut Fixture<impl TestHost>) {
    let port = port(1);
    fixture.apply(&create_tap(port, DEVICE));
    let settings = LinkSettings { seal: Some(seal(Switch::Up)), ..settings(port, ABSENT) };
    let op = |learning| Op::Configure {
        port,
        at: At::Index(DEVICE),
        settings: LinkSettings { learning, fdb: vec![], ..settings.clone() },
    };
    fixture.fails(&op(Some(false)), OpErrorKind::NoBridge);
    let seen = fixture.device(port);
    assert_eq!((seen.mac, seen.alias.as_ref(), seen.up), (Some(mac(port).host_side()), None, false));
    // Its seal goes with it.
    fixture.fails(&op(None), OpErrorKind::NoBridge);
    let seen = fixture.device(port);
    assert_eq!((seen.alias, seen.up), (Some(seal(Switch::Up).alias), true));
    fixture.let_go();
    assert_eq!(fixture.try_device(port), None);
}

fn a_mac_that_is_no_nics_is_refused(fixture: &mut Fixture<impl TestHost>) {
    let port = port(1);
    fixture.attach_tap(port, DEVICE, 0);
    fixture.refused(&configure(port, LinkSettings { mac: Some(MULTICAST), ..LinkSettings::default() }), OpErrorKind::Other);
}

fn an_alias_that_no_link_can_have_is_refused(fixture: &mut Fixture<impl TestHost>) {
    let port = port(1);
    fixture.attach_tap(port, DEVICE, 0);
    let sealed =
        |alias| configure(port, LinkSettings { seal: Some(Seal { alias, switch: Switch::Down }), ..LinkSettings::default() });
    for alias in ["x".repeat(256), "x\0y".into(), "x".repeat(100_000)] {
        fixture.refused(&sealed(alias), OpErrorKind::Other);
    }
    fixture.twice(&sealed("y".repeat(255)));
    assert_eq!(fixture.device(port).alias, Some("y".repeat(255)));
    assert_eq!(fixture.host.dump_links().unwrap().iter().filter(|link| link.up && link.index == DEVICE).count(), 0);
}
