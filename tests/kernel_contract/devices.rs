//! Devices: made, finished, put back, given back.

use nicd::kernel::{Host, LinkSelector, OpErrorKind};
use nicd::model::{Owner, PortId, names};
use nicd::plan::{At, FdbEntry, Kind, LinkChange, Op, Switch, TokenBucket};

use crate::host::*;

on_both!(
    an_attach_shows_what_was_asked,
    each_step_may_run_twice,
    a_tap_not_yet_persistent_goes_with_what_is_held,
    a_tap_has_the_queues_and_the_owner_it_was_made_with,
    a_tap_has_carrier_while_a_vmm_holds_it,
    a_tagged_device_is_up_or_down_as_asked,
    what_others_changed_is_put_back,
    the_same_bridge_again_leaves_the_ports_settings,
    leaving_a_bridge_takes_the_entries_along,
    a_rate_is_set_changed_and_lifted,
    an_exact_rate_from_the_guest_is_set_changed_and_lifted,
    a_mac_has_one_entry_in_a_bridge,
    ports_forward_while_their_bridge_is_up,
    a_mark_is_put_back,
    a_group_is_deleted_whole_and_nothing_else,
    a_group_that_holds_more_than_is_named_is_not_deleted,
    a_link_is_deleted_for_its_own_store_alone,
    a_dump_and_a_look_agree,
    what_is_not_there_is_no_error,
);

fn an_attach_shows_what_was_asked(fixture: &mut Fixture<impl TestHost>) {
    fixture.bridge(1500);
    let port = port(1);
    let name = fixture.attach_tap(port, DEVICE, BRIDGE);
    let seen = fixture.device(port);
    assert_eq!((seen.index, &seen.kind, seen.name.as_str()), (DEVICE, &Kind::Tap, name.as_str()));
    assert_eq!((&seen.altnames, seen.alias.as_ref()), (&vec![names::port_altname(port)], Some(&alias())));
    assert_eq!((seen.mac, seen.mtu, seen.master), (Some(mac(port).host_side()), 1500, Some(BRIDGE)));
    assert!(seen.up && !seen.lower_up && !seen.v6_autoconf && !seen.v4_open, "{seen:?}");
    assert_eq!(seen.fdb, Some(vec![FdbEntry { mac: mac(port), vlan: 0, sticky: true }]));
    let bridge_port = seen.bridge_port.unwrap();
    assert!(!bridge_port.learning && bridge_port.unicast_flood && !bridge_port.altered, "{bridge_port:?}");
    assert!(!bridge_port.forwarding && !bridge_port.held && !bridge_port.passes_link_local, "{bridge_port:?}");
    let tap = seen.tap.unwrap();
    assert_eq!((tap.persist, tap.multi_queue, tap.held, tap.uid, tap.gid), (true, false, false, Some(0), None));
}

fn each_step_may_run_twice(fixture: &mut Fixture<impl TestHost>) {
    fixture.bridge(1500);
    let port = port(1);
    let set = |at| Op::Configure { port, at, changes: changes(port, BRIDGE) };
    for op in [
        create_tap(port, DEVICE),
        set(At::Index(DEVICE)),
        Op::Persist { port },
        set(At::Altname),
        create_tap(port, DEVICE),
        configure(port, [tag(Switch::Up)]),
        configure(port, [LinkChange::PassLinkLocal, LinkChange::ResetPortFlags]),
        Op::SetLink { port, switch: Switch::Down },
        Op::Unbind { port },
        Op::SetGroup { port, group: 77 },
        delete_group(77, &[port]),
        Op::DeleteLink { port, store: STORE },
    ] {
        fixture.twice(&op);
    }
    assert_eq!(fixture.try_device(port), None);
}

fn a_tap_not_yet_persistent_goes_with_what_is_held(fixture: &mut Fixture<impl TestHost>) {
    let port = port(1);
    fixture.apply(&create_tap(port, DEVICE));
    let seen = fixture.host.get_link(LinkSelector::Index(DEVICE)).unwrap().unwrap();
    let tap = seen.tap.unwrap();
    assert!(!seen.up && !seen.lower_up && !tap.persist, "{seen:?}");
    fixture.twice(&Op::CloseTap { port });
    assert_eq!(fixture.links(), []);
    fixture.apply(&create_tap(port, DEVICE));
    fixture.let_go();
    assert_eq!(fixture.links(), []);
}

fn a_tap_has_the_queues_and_the_owner_it_was_made_with(fixture: &mut Fixture<impl TestHost>) {
    let owners = [
        (Owner::default(), (Some(0), None)),
        (Owner { uid: Some(65_534), gid: None }, (Some(65_534), None)),
        (Owner { uid: None, gid: Some(36) }, (None, Some(36))),
        (Owner { uid: Some(65_534), gid: Some(36) }, (Some(65_534), Some(36))),
    ];
    for (index, (queues, (owner, shown))) in (DEVICE..).zip([1, 4].into_iter().flat_map(|n| owners.map(|owner| (n, owner)))) {
        let port = port(u128::from(index - DEVICE));
        fixture.apply(&Op::CreateTap { port, index, name: names::port_device(port, 0), queues, vnet_hdr: false, owner });
        fixture.apply(&Op::Configure { port, at: At::Index(index), changes: changes(port, 0) });
        fixture.apply(&Op::Persist { port });
        let tap = fixture.device(port).tap.unwrap();
        assert_eq!((tap.multi_queue, (tap.uid, tap.gid)), (queues > 1, shown), "{owner:?}");
    }
}

fn a_tap_has_carrier_while_a_vmm_holds_it(fixture: &mut Fixture<impl TestHost>) {
    fixture.bridge(1500);
    let port = port(1);
    fixture.attach_tap(port, DEVICE, BRIDGE);
    fn state<W: TestHost>(fixture: &mut Fixture<W>) -> (bool, bool, bool) {
        let seen = fixture.device(self::port(1));
        (seen.lower_up, seen.tap.unwrap().held, seen.bridge_port.unwrap().forwarding)
    }
    for _ in 0..2 {
        fixture.until("free", |fixture| state(fixture) == (false, false, false));
        fixture.host_under_test.open_tap(port);
        assert_eq!(state(fixture), (true, true, true));
        fixture.host_under_test.close_tap(port);
        fixture.until("closed", |fixture| state(fixture) == (false, false, false));
    }
    fixture.apply(&Op::SetLink { port, switch: Switch::Down });
    fixture.host_under_test.open_tap(port);
    assert_eq!(state(fixture), (false, true, false), "what is down has no carrier, and is held all the same");
    fixture.apply(&Op::SetLink { port, switch: Switch::Up });
    assert_eq!(state(fixture), (true, true, true));
}

fn a_tagged_device_is_up_or_down_as_asked(fixture: &mut Fixture<impl TestHost>) {
    let ports = [(port(1), Switch::Up), (port(2), Switch::Down)];
    for (index, (port, switch)) in (DEVICE..).zip(ports) {
        fixture.attach_tap(port, index, 0);
        fixture.twice(&configure(port, [tag(switch)]));
        assert_eq!(fixture.device(port).up, switch == Switch::Up);
    }
}

fn what_others_changed_is_put_back(fixture: &mut Fixture<impl TestHost>) {
    fixture.bridge(1500);
    let port = port(1);
    let name = fixture.attach_tap(port, DEVICE, BRIDGE);
    let before = fixture.links();
    for change in [
        Change::NoEntry(mac(port)),
        Change::Learning,
        Change::OutOfBridge,
        Change::Mtu(1400),
        Change::Mac(nicd::model::Mac([2, 0, 0, 0, 0, 5])),
        Change::AddressGeneration,
        Change::Down,
        Change::Name("elsewhere"),
    ] {
        let name = if fixture.names().contains(&name) { name.as_str() } else { "elsewhere" };
        fixture.host_under_test.change(name, change);
    }
    fixture.twice(&configure(port, changes(port, BRIDGE)));
    fixture.twice(&Op::SetLink { port, switch: Switch::Up });
    fixture.host_under_test.change("elsewhere", Change::Name(&name));
    assert_eq!(fixture.links(), before);
    fixture.twice(&configure(port, [LinkChange::Master(0)]));
    assert_eq!(fixture.device(port).master, None);
}

fn the_same_bridge_again_leaves_the_ports_settings(fixture: &mut Fixture<impl TestHost>) {
    fixture.bridge(1500);
    let port = port(1);
    fixture.attach_tap(port, DEVICE, BRIDGE);
    let before = fixture.device(port);
    fixture.apply(&configure(port, [LinkChange::Master(BRIDGE)]));
    assert_eq!(fixture.device(port), before);
    let other = fixture.host_under_test.add("br0", Kind::Bridge, 1500);
    fixture.apply(&configure(port, [LinkChange::Master(other)]));
    let seen = fixture.device(port);
    assert_eq!((seen.master, seen.fdb.as_deref(), seen.bridge_port.unwrap().learning), (Some(other), Some(&[][..]), true));
}

fn leaving_a_bridge_takes_the_entries_along(fixture: &mut Fixture<impl TestHost>) {
    fixture.bridge(1500);
    let port = port(1);
    fixture.attach_tap(port, DEVICE, BRIDGE);
    fixture.twice(&Op::Unbind { port });
    let seen = fixture.device(port);
    assert_eq!((seen.master, seen.bridge_port, seen.fdb), (None, None, Some(vec![])));
}

fn a_rate_is_set_changed_and_lifted(fixture: &mut Fixture<impl TestHost>) {
    fixture.bridge(1500);
    let port = port(1);
    let buckets = [(8_000, 1_518), (1_250_000, 156_250), (12_500_000_000, 1_562_500_000), (8_000, TokenBucket::MAX_BURST)];
    let [first, ..] = buckets.map(|(rate, burst)| Some(TokenBucket { rate, burst }));
    fixture.apply(&create_tap(port, DEVICE));
    let made = changes(port, BRIDGE).into_iter().chain([LinkChange::ToGuest(first), tag(Switch::Up)]).collect();
    fixture.apply(&Op::Configure { port, at: At::Index(DEVICE), changes: made });
    fixture.apply(&Op::Persist { port });
    assert_eq!(fixture.device(port).to_guest, first);
    let name = fixture.device(port).name;
    for bucket in buckets.map(|(rate, burst)| Some(TokenBucket { rate, burst })).into_iter().chain([None, first]) {
        fixture.twice(&configure(port, [LinkChange::ToGuest(bucket)]));
        assert_eq!(fixture.device(port).to_guest, bucket);
        assert!(fixture.links().iter().any(|link| link.index == DEVICE && link.to_guest == bucket));
    }
    fixture.host_under_test.change(&name, Change::NoQdisc);
    assert_eq!(fixture.device(port).to_guest, None);
}

fn an_exact_rate_from_the_guest_is_set_changed_and_lifted(fixture: &mut Fixture<impl TestHost>) {
    fixture.bridge(1500);
    let port = port(1);
    fixture.attach_tap(port, DEVICE, BRIDGE);
    for bucket in [Some((8_000, 1_518)), Some((1_250_000, 156_250)), None, Some((8_000, 1_518))] {
        let bucket = bucket.map(|(rate, burst)| TokenBucket { rate, burst });
        fixture.twice(&configure(port, [LinkChange::FromGuest(bucket)]));
        assert_eq!(fixture.device(port).from_guest, bucket);
        assert!(fixture.links().iter().any(|link| link.index == DEVICE && link.from_guest == bucket));
    }
}

fn a_mac_has_one_entry_in_a_bridge(fixture: &mut Fixture<impl TestHost>) {
    fixture.bridge(1500);
    let [first, second] = [port(1), port(2)];
    fixture.attach_tap(first, DEVICE, BRIDGE);
    fixture.attach_tap(second, DEVICE + 1, BRIDGE);
    // An entry of another port's is replaced.
    fixture.twice(&configure(second, [LinkChange::FdbEntry(mac(first))]));
    assert_eq!(fixture.device(first).entry(mac(first), 0), None);
    fixture.twice(&configure(first, [LinkChange::FdbEntry(mac(first))]));
    assert!(fixture.device(first).entry(mac(first), 0).is_some_and(|entry| entry.sticky));
    // A port that has the MAC for its own deletes it.
    fixture.host_under_test.add("greedy", Kind::Veth, 1500);
    fixture.host_under_test.change("greedy", Change::In(&bridge_name()));
    fixture.host_under_test.change("greedy", Change::Down);
    fixture.host_under_test.change("greedy", Change::Mac(mac(first)));
    assert_eq!(fixture.device(first).entry(mac(first), 0), None);
}

fn ports_forward_while_their_bridge_is_up(fixture: &mut Fixture<impl TestHost>) {
    fixture.bridge(1500);
    let port = port(1);
    fixture.attach_tap(port, DEVICE, BRIDGE);
    fixture.host_under_test.open_tap(port);
    fn forwards<W: TestHost>(fixture: &mut Fixture<W>) -> bool {
        fixture.device(self::port(1)).bridge_port.unwrap().forwarding
    }
    assert!(forwards(fixture) && fixture.named(&bridge_name()).lower_up);
    fixture.host_under_test.change(&bridge_name(), Change::Down);
    assert!(!forwards(fixture));
    fixture.apply(&up());
    assert!(forwards(fixture));
    fixture.host_under_test.close_tap(port);
    fixture
        .until("a bridge has the carrier of its ports", |fixture| !forwards(fixture) && !fixture.named(&bridge_name()).lower_up);
}

fn a_mark_is_put_back(fixture: &mut Fixture<impl TestHost>) {
    let port = port(1);
    let name = fixture.attach_tap(port, DEVICE, 0);
    let (before, altname, alias) = (fixture.device(port), names::port_altname(port), alias());
    let again = Op::RestoreAltname { port, index: DEVICE, alias: alias.clone() };
    fixture.twice(&again);
    fixture.host_under_test.change(&name, Change::NoAltname(&altname));
    fixture.twice(&again);
    assert_eq!(fixture.device(port), before);
    fixture.host_under_test.change(&name, Change::NoAltname(&altname));
    fixture.host_under_test.change(&name, Change::Alias(""));
    fixture.twice(&again);
    assert_eq!(fixture.device(port), before);

    fixture.apply(&create_bridge(1500));
    let altname = names::network_altname(network());
    fixture.host_under_test.change(&bridge_name(), Change::NoAltname(&altname));
    fixture.twice(&Op::RestoreBridgeAltname { network: network(), index: BRIDGE, alias: names::bridge_tag(STORE, network()) });
    assert_eq!(fixture.named(&bridge_name()).altnames, [altname]);
}

fn a_group_is_deleted_whole_and_nothing_else(fixture: &mut Fixture<impl TestHost>) {
    fixture.bridge(1500);
    for (index, number) in (DEVICE..).zip(0..20) {
        let port = port(number);
        fixture.attach_tap(port, index, BRIDGE);
        fixture.apply(&Op::Unbind { port });
        fixture.apply(&Op::SetGroup { port, group: 0xffff_fff0 });
    }
    fixture.attach_tap(port(30), DEVICE + 30, BRIDGE);
    assert_eq!(fixture.device(port(3)).group, 0xffff_fff0);
    let members = fixture.host.links_in_group(0xffff_fff0).unwrap();
    assert_eq!(members.iter().map(|link| link.index).collect::<Vec<_>>(), (DEVICE..DEVICE + 20).collect::<Vec<_>>());
    let all: Vec<PortId> = (0..20).map(port).collect();
    fixture.twice(&delete_group(0xffff_fff0, &all));
    let left: Vec<u32> = fixture.links().into_iter().map(|link| link.index).collect();
    assert_eq!(left, [BRIDGE, DEVICE + 30]);
}

fn a_group_that_holds_more_than_is_named_is_not_deleted(fixture: &mut Fixture<impl TestHost>) {
    for (index, number) in (DEVICE..).zip(0..3) {
        fixture.attach_tap(port(number), index, 0);
        fixture.apply(&Op::SetGroup { port: port(number), group: 77 });
    }
    let all = [port(0), port(1), port(2)];
    fixture.refused(&delete_group(77, &all[..2]), OpErrorKind::Other);
    let theirs = Op::DeleteGroup { group: 77, ports: all.to_vec(), forced: all.to_vec(), store: uuid::Uuid::from_u128(2) };
    fixture.refused(&theirs, OpErrorKind::Other);
    // One that a process holds open goes only by force.
    fixture.apply(&Op::SetLink { port: port(1), switch: Switch::Up });
    fixture.host_under_test.open_tap(port(1));
    fixture.refused(&delete_group(77, &all), OpErrorKind::Other);
    fixture.apply(&Op::DeleteGroup { group: 77, ports: all.to_vec(), forced: vec![port(1)], store: STORE });
    assert_eq!(fixture.links(), []);
}

fn a_link_is_deleted_for_its_own_store_alone(fixture: &mut Fixture<impl TestHost>) {
    let theirs = uuid::Uuid::from_u128(2);
    let (port, network) = (port(1), network());
    for (name, kind, altname) in
        [("theirs", Kind::Veth, names::port_altname(port)), ("their-bridge", Kind::Bridge, names::network_altname(network))]
    {
        fixture.host_under_test.add(name, kind, 1500);
        fixture.host_under_test.change(name, Change::Altname(&altname));
        fixture.host_under_test.change(name, Change::Alias(&names::device_tag(theirs, 7)));
    }
    let delete = |store| [Op::DeleteLink { port, store }, Op::DeleteBridge { network, store }];
    let before = fixture.links();
    delete(STORE).iter().for_each(|op| _ = fixture.twice(op));
    assert_eq!(fixture.links(), before, "a link of another nicd's was touched");
    delete(theirs).iter().for_each(|op| _ = fixture.twice(op));
    assert_eq!(fixture.links(), []);
}

fn a_dump_and_a_look_agree(fixture: &mut Fixture<impl TestHost>) {
    fixture.bridge(1500);
    for (index, number) in (DEVICE..).zip(0..8) {
        fixture.attach_tap(port(number), index, BRIDGE);
    }
    fixture.host_under_test.add("w0", Kind::Veth, 1400);
    fixture.host_under_test.add("other", Kind::Other, 1500);
    let looked = fixture.links();
    let mut dumped = fixture.host.dump_links().unwrap();
    dumped.retain(|link| link.name != "lo");
    dumped.sort_by_key(|link| link.index);
    assert_eq!(dumped, looked);
    for link in &looked {
        for who in [LinkSelector::Name(&link.name), LinkSelector::Altname(link.altnames.first().unwrap_or(&link.name))] {
            assert_eq!(fixture.host.get_link(who).unwrap().as_ref(), Some(link), "{who:?}");
        }
    }
}

fn what_is_not_there_is_no_error(fixture: &mut Fixture<impl TestHost>) {
    let long = "x".repeat(1000);
    for who in [
        LinkSelector::Index(0),
        LinkSelector::Index(4_000_000_000),
        LinkSelector::Index(ABSENT),
        LinkSelector::Name("none"),
        LinkSelector::Altname("nicd-ce531f90-199f-48c0-816c-13e38010b442"),
        LinkSelector::Altname(""),
        LinkSelector::Altname("a\0b"),
        LinkSelector::Name(&long),
    ] {
        assert_eq!(fixture.host.get_link(who).unwrap(), None, "{who:?}");
    }
    assert_eq!(fixture.host.links_in_group(4712).unwrap(), []);
}
