//! Bridges: ours as asked, others' never moved.

use std::collections::BTreeSet;

use nicd::kernel::Host;
use nicd::model::{Mac, names};
use nicd::plan::{BridgeChange, Kind, LinkChange, Op, Switch};

use crate::host::*;

on_both!(
    an_agent_made_bridge_is_made_down_and_closed_before_it_is_up,
    a_changed_bridge_is_set_back,
    making_a_bridge_again_sets_it_back,
    a_bridges_end_sets_its_ports_free,
    a_bridge_keeps_the_mtu_it_was_given,
    somebodys_bridge_follows_its_ports,
);

fn an_agent_made_bridge_is_made_down_and_closed_before_it_is_up(fixture: &mut Fixture<impl TestHost>) {
    for mtu in [1450, 1500, 9000] {
        fixture.twice(&create_bridge(mtu));
        let made = fixture.named(&bridge_name());
        assert_eq!((made.index, &made.kind, made.mac, made.mtu), (BRIDGE, &Kind::Bridge, Some(BRIDGE_MAC), mtu));
        assert_eq!(made.altnames, [names::network_altname(network())]);
        assert_eq!(made.alias, Some(names::bridge_tag(STORE, network())));
        assert!(!made.up && !made.host_closed && !made.v6_autoconf && !made.v4_open && made.extras.is_none(), "{made:?}");
        fixture.twice(&Op::CloseBridge { network: network() });
        fixture.twice(&up());
        let up = fixture.named(&bridge_name());
        assert!(up.up && up.host_closed, "{up:?}");
        fixture.twice(&Op::DeleteBridge { network: network(), store: STORE });
        assert_eq!(fixture.links(), []);
    }
}

fn a_changed_bridge_is_set_back(fixture: &mut Fixture<impl TestHost>) {
    fixture.bridge(1500);
    let before = fixture.links();
    let name = bridge_name();
    for change in [
        Change::Down,
        Change::Mac(Mac([2, 0, 0, 0, 0, 9])),
        Change::Mtu(1400),
        Change::AddressGeneration,
        Change::Extras,
        Change::Alias("theirs"),
    ] {
        fixture.host_under_test.change(&name, change);
    }
    fixture.twice(&Op::SetBridge {
        network: network(),
        changes: BTreeSet::from([
            BridgeChange::Mac(BRIDGE_MAC),
            BridgeChange::Mtu(1500),
            BridgeChange::Alias(names::bridge_tag(STORE, network())),
            BridgeChange::HostIpOff,
            BridgeChange::StpOff,
            BridgeChange::MulticastSnoopingOff,
            BridgeChange::Switch(Switch::Up),
        ]),
    });
    assert_eq!(fixture.links(), before);
}

fn making_a_bridge_again_sets_it_back(fixture: &mut Fixture<impl TestHost>) {
    fixture.apply(&create_bridge(1500));
    let before = fixture.links();
    for change in [Change::Mac(Mac([2, 0, 0, 0, 0, 9])), Change::Mtu(1400), Change::AddressGeneration, Change::Alias("theirs")] {
        fixture.host_under_test.change(&bridge_name(), change);
    }
    fixture.twice(&create_bridge(1500));
    assert_eq!(fixture.links(), before);
}

fn a_bridges_end_sets_its_ports_free(fixture: &mut Fixture<impl TestHost>) {
    fixture.bridge(1500);
    let port = port(1);
    fixture.attach_tap(port, DEVICE, BRIDGE);
    fixture.twice(&Op::DeleteBridge { network: network(), store: STORE });
    let seen = fixture.device(port);
    assert_eq!((seen.master, seen.bridge_port, seen.fdb.as_deref(), seen.up), (None, None, Some(&[][..]), true));
    // What closed it went with it.
    fixture.apply(&create_bridge(1500));
    assert!(!fixture.named(&bridge_name()).host_closed);
}

fn a_bridge_keeps_the_mtu_it_was_given(fixture: &mut Fixture<impl TestHost>) {
    fixture.bridge(1500);
    fixture.host_under_test.add("small", Kind::Other, 1280);
    fixture.host_under_test.change("small", Change::In(&bridge_name()));
    let seen = fixture.named(&bridge_name());
    assert_eq!((seen.mtu, seen.mac), (1500, Some(BRIDGE_MAC)));
    fixture.host_under_test.delete("small");
    assert_eq!(fixture.named(&bridge_name()).mtu, 1500);
}

fn somebodys_bridge_follows_its_ports(fixture: &mut Fixture<impl TestHost>) {
    let bridge = fixture.host_under_test.add("br0", Kind::Bridge, 1500);
    fixture.host_under_test.add("p0", Kind::Other, 1400);
    fixture.host_under_test.change("p0", Change::In("br0"));
    assert_eq!(fixture.named("br0").mtu, 1400);
    // A port of ours has the bridge's MTU by the time it is in it.
    let port = port(1);
    fixture.apply(&create_tap(port, DEVICE));
    let link = [LinkChange::Altname, LinkChange::Mtu(1400), LinkChange::HostIpOff];
    let changes = link.into_iter().chain(joined(port, bridge)).collect();
    fixture.apply(&Op::Configure { port, at: nicd::plan::At::Index(DEVICE), changes });
    assert_eq!(fixture.named("br0").mtu, 1400);
    fixture.host_under_test.change("p0", Change::Mtu(1300));
    assert_eq!(fixture.named("br0").mtu, 1300);
    fixture.host_under_test.change("p0", Change::OutOfBridge);
    assert_eq!(fixture.named("br0").mtu, 1400);
    // Until somebody gives it one.
    fixture.host_under_test.change("br0", Change::Mtu(1350));
    fixture.host_under_test.change("p0", Change::In("br0"));
    assert_eq!(fixture.named("br0").mtu, 1350);
    assert!(fixture.host.dump_links().unwrap().iter().any(|link| link.name == "br0" && link.mtu == 1350));
}
