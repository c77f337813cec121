//! What is refused, and what is left of it.

use nicd::kernel::{Host, Trouble};
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

fn what_is_gone_is_told(bench: &mut Bench<impl World>) {
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
        bench.refused(&op, Trouble::Gone);
    }
    bench.twice(&Op::DeleteLink { port, store: STORE });
    bench.twice(&Op::DeleteBridge { network: network(), store: STORE });
    bench.twice(&Op::DeleteGroup { group: 77 });
    bench.twice(&Op::CloseTap { port });
}

fn a_taps_taken_name_or_index_is_told_and_its_holder_untouched(bench: &mut Bench<impl World>) {
    let port = port(1);
    let name = names::port_device(port, 0);
    let index = bench.world.add(name.as_str(), Kind::Other, 1500);
    bench.refused(&create_tap(port, DEVICE), Trouble::Taken);
    bench.world.change(name.as_str(), Change::Name("elsewhere"));
    bench.refused(&create_tap(port, index), Trouble::Taken);
    // Names and altnames are one space.
    bench.world.change("elsewhere", Change::Altname(name.as_str()));
    bench.refused(&create_tap(port, DEVICE), Trouble::Taken);
    bench.world.change("elsewhere", Change::NoAltname(name.as_str()));
    bench.world.change("elsewhere", Change::Altname(&names::port_altname(port)));
    let holder = bench.named("elsewhere");
    bench.apply(&create_tap(port, DEVICE));
    bench.fails(&Op::Configure { port, at: At::Index(DEVICE), settings: settings(port, 0) }, Trouble::Taken);
    assert_eq!(bench.named("elsewhere"), holder);
}

fn a_bridges_taken_name_index_or_altname_is_told_and_nothing_is_half_made(bench: &mut Bench<impl World>) {
    bench.world.add(&bridge_name(), Kind::Bridge, 1500);
    bench.refused(&create_bridge(1500), Trouble::Taken);
    bench.world.delete(&bridge_name());
    let index = bench.world.add("foreign", Kind::Bridge, 1500);
    let Op::CreateBridge { network, name, mac, mtu, alias, .. } = create_bridge(1500) else { unreachable!() };
    bench.refused(&Op::CreateBridge { network, index, name, mac, mtu, alias }, Trouble::Taken);
    bench.world.change("foreign", Change::Altname(&names::network_altname(network)));
    bench.refused(&create_bridge(1500), Trouble::Taken);
}

fn another_link_is_not_marked_again(bench: &mut Bench<impl World>) {
    let (port, other) = (port(1), port(2));
    bench.attach_tap(port, DEVICE, 0);
    let name = bench.attach_tap(other, DEVICE + 1, 0);
    let again = |index, alias| Op::MarkAgain { port, index, alias };
    // It has a mark.
    bench.refused(&again(DEVICE + 1, names::seal(STORE, 9)), Trouble::Gone);
    // It has none, but somebody's alias.
    bench.world.change(&name, Change::NoAltname(&names::port_altname(other)));
    bench.refused(&again(DEVICE + 1, names::seal(STORE, 9)), Trouble::Gone);
    let foreign = bench.world.add("foreign", Kind::Veth, 1500);
    bench.refused(&again(foreign, names::seal(STORE, 9)), Trouble::Gone);
    // Another link has the mark.
    bench.refused(&again(DEVICE + 1, seal(Switch::Up).alias), Trouble::Taken);
}

fn the_group_of_all_links_is_no_group(bench: &mut Bench<impl World>) {
    let port = port(1);
    bench.attach_tap(port, DEVICE, 0);
    bench.refused(&Op::DeleteGroup { group: 0 }, Trouble::Other);
    bench.refused(&Op::SetGroup { port, group: 0 }, Trouble::Other);
}

fn a_master_that_is_no_bridge_is_told(bench: &mut Bench<impl World>) {
    let port = port(1);
    bench.apply(&create_tap(port, DEVICE));
    for master in [ABSENT, bench.world.add("v0", Kind::Veth, 1500)] {
        bench.fails(&Op::Configure { port, at: At::Index(DEVICE), settings: settings(port, master) }, Trouble::NoBridge);
    }
}

fn a_full_bridge_is_told(bench: &mut Bench<impl World>) {
    bench.bridge(1500);
    bench.world.fill(&bridge_name(), BRIDGE_PORTS);
    let port = port(1);
    bench.apply(&create_tap(port, DEVICE));
    bench.fails(&Op::Configure { port, at: At::Index(DEVICE), settings: settings(port, BRIDGE) }, Trouble::BridgeFull);
}

fn a_port_of_no_bridge_has_no_flags_and_no_entries(bench: &mut Bench<impl World>) {
    let port = port(1);
    bench.attach_tap(port, DEVICE, 0);
    let none = LinkSettings::default;
    let seal = Some(Seal { alias: names::seal(STORE, 8), switch: Switch::Down });
    for settings in [
        LinkSettings { learning: Some(false), ..none() },
        LinkSettings { unicast_flood: Some(false), ..none() },
        LinkSettings { plain: true, ..none() },
        LinkSettings { pass_link_local: true, ..none() },
        LinkSettings { forward: true, ..none() },
        // What did not get into its bridge is not sealed.
        LinkSettings { learning: Some(false), seal: seal.clone(), ..none() },
    ] {
        bench.refused(&configure(port, settings), Trouble::Other);
    }
    bench.refused(&configure(port, LinkSettings { fdb: vec![mac(port)], seal, ..none() }), Trouble::Gone);
}

fn what_is_refused_keeps_a_device_from_being_sealed(bench: &mut Bench<impl World>) {
    let port = port(1);
    let name = bench.attach_tap(port, DEVICE, 0);
    bench.world.change(&name, Change::Down);
    bench.world.change(&name, Change::Alias("unfinished"));
    let finish = |master| {
        let seal = Some(seal(Switch::Up));
        configure(port, LinkSettings { master, mtu: Some(1400), seal, ..LinkSettings::default() })
    };
    bench.fails(&finish(Some(ABSENT)), Trouble::NoBridge);
    let seen = bench.device(port);
    assert_eq!((seen.alias.as_deref(), seen.up), (Some("unfinished"), false));
    bench.twice(&finish(None));
    let seen = bench.device(port);
    assert_eq!((seen.alias, seen.up), (Some(seal(Switch::Up).alias), true));
}

/// One message carries MAC, MTU and bridge, in this order; the others follow, each for itself.
fn a_change_goes_on_behind_what_is_refused(bench: &mut Bench<impl World>) {
    bench.bridge(1500);
    let port = port(1);
    let name = bench.attach_tap(port, DEVICE, BRIDGE);
    for change in [Change::Learning, Change::AddressGeneration, Change::NoEntry(mac(port))] {
        bench.world.change(&name, change);
    }
    let settings = LinkSettings {
        mac: Some(MULTICAST),
        mtu: Some(1400),
        ip_off: true,
        learning: Some(false),
        fdb: vec![mac(port)],
        ..LinkSettings::default()
    };
    bench.fails(&configure(port, settings), Trouble::Other);
    let seen = bench.device(port);
    assert_eq!((seen.mac, seen.mtu), (Some(mac(port).host_side()), 1500), "what comes behind it in its own message is not done");
    assert!(!seen.v6_autoconf && !seen.bridge_port.unwrap().learning && seen.entry(mac(port), 0).is_some(), "{seen:?}");

    let moved =
        LinkSettings { mac: Some(Mac([2, 0, 0, 0, 0, 7])), mtu: Some(1400), master: Some(ABSENT), ..LinkSettings::default() };
    bench.fails(&configure(port, moved), Trouble::NoBridge);
    let seen = bench.device(port);
    assert_eq!((seen.mac, seen.mtu), (Some(Mac([2, 0, 0, 0, 0, 7])), 1400), "what comes before it is done");
    assert_eq!(seen.master, None, "it has left the bridge that it was in");
}

fn a_device_being_made_goes_on_behind_what_is_refused(bench: &mut Bench<impl World>) {
    let port = port(1);
    bench.apply(&create_tap(port, DEVICE));
    let settings = LinkSettings { seal: Some(seal(Switch::Up)), ..settings(port, ABSENT) };
    let op = |learning| Op::Configure {
        port,
        at: At::Index(DEVICE),
        settings: LinkSettings { learning, fdb: vec![], ..settings.clone() },
    };
    bench.fails(&op(Some(false)), Trouble::NoBridge);
    let seen = bench.device(port);
    assert_eq!((seen.mac, seen.alias.as_ref(), seen.up), (Some(mac(port).host_side()), None, false));
    // Its seal goes with it.
    bench.fails(&op(None), Trouble::NoBridge);
    let seen = bench.device(port);
    assert_eq!((seen.alias, seen.up), (Some(seal(Switch::Up).alias), true));
    bench.let_go();
    assert_eq!(bench.try_device(port), None);
}

fn a_mac_that_is_no_nics_is_refused(bench: &mut Bench<impl World>) {
    let port = port(1);
    bench.attach_tap(port, DEVICE, 0);
    bench.refused(&configure(port, LinkSettings { mac: Some(MULTICAST), ..LinkSettings::default() }), Trouble::Other);
}

fn an_alias_that_no_link_can_have_is_refused(bench: &mut Bench<impl World>) {
    let port = port(1);
    bench.attach_tap(port, DEVICE, 0);
    let sealed =
        |alias| configure(port, LinkSettings { seal: Some(Seal { alias, switch: Switch::Down }), ..LinkSettings::default() });
    for alias in ["x".repeat(256), "x\0y".into(), "x".repeat(100_000)] {
        bench.refused(&sealed(alias), Trouble::Other);
    }
    bench.twice(&sealed("y".repeat(255)));
    assert_eq!(bench.device(port).alias, Some("y".repeat(255)));
    assert_eq!(bench.host.observe().unwrap().iter().filter(|link| link.up && link.index == DEVICE).count(), 0);
}
