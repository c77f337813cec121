//! Bridges: ours as asked, others' never moved.

use nicd::kernel::Host;
use nicd::model::{Mac, names};
use nicd::plan::{BridgeExtras, Kind, LinkSettings, Op, Switch};

use crate::host::*;

on_both!(
    an_agent_made_bridge_is_made_down_and_closed_before_it_is_up,
    a_changed_bridge_is_set_back,
    making_a_bridge_again_sets_it_back,
    a_bridges_end_sets_its_ports_free,
    a_bridge_keeps_the_mtu_it_was_given,
    somebodys_bridge_follows_its_ports,
);

fn an_agent_made_bridge_is_made_down_and_closed_before_it_is_up(bench: &mut Bench<impl World>) {
    for mtu in [1450, 1500, 9000] {
        bench.twice(&create_bridge(mtu));
        let made = bench.named(&bridge_name());
        assert_eq!((made.index, &made.kind, made.mac, made.mtu), (BRIDGE, &Kind::Bridge, Some(BRIDGE_MAC), mtu));
        assert_eq!(made.altnames, [names::network_altname(network())]);
        assert_eq!(made.alias, Some(names::bridge_tag(STORE, network())));
        assert!(!made.up && !made.host_closed && !made.v6_autoconf && !made.v4_open && made.extras.is_none(), "{made:?}");
        bench.twice(&Op::CloseBridge { network: network() });
        bench.twice(&up());
        let up = bench.named(&bridge_name());
        assert!(up.up && up.host_closed, "{up:?}");
        bench.twice(&Op::DeleteBridge { network: network(), store: STORE });
        assert_eq!(bench.links(), []);
    }
}

fn a_changed_bridge_is_set_back(bench: &mut Bench<impl World>) {
    bench.bridge(1500);
    let before = bench.links();
    let name = bridge_name();
    for change in [
        Change::Down,
        Change::Mac(Mac([2, 0, 0, 0, 0, 9])),
        Change::Mtu(1400),
        Change::AddressGeneration,
        Change::Extras,
        Change::Alias("theirs"),
    ] {
        bench.world.change(&name, change);
    }
    bench.twice(&Op::SetBridge {
        network: network(),
        mac: Some(BRIDGE_MAC),
        mtu: Some(1500),
        switch: Some(Switch::Up),
        ip_off: true,
        stray: vec![],
        off: BridgeExtras { stp: true, multicast_snooping: true, vlan_filtering: false },
        alias: Some(names::bridge_tag(STORE, network())),
    });
    assert_eq!(bench.links(), before);
}

fn making_a_bridge_again_sets_it_back(bench: &mut Bench<impl World>) {
    bench.apply(&create_bridge(1500));
    let before = bench.links();
    for change in [Change::Mac(Mac([2, 0, 0, 0, 0, 9])), Change::Mtu(1400), Change::AddressGeneration, Change::Alias("theirs")] {
        bench.world.change(&bridge_name(), change);
    }
    bench.twice(&create_bridge(1500));
    assert_eq!(bench.links(), before);
}

fn a_bridges_end_sets_its_ports_free(bench: &mut Bench<impl World>) {
    bench.bridge(1500);
    let port = port(1);
    bench.attach_tap(port, DEVICE, BRIDGE);
    bench.twice(&Op::DeleteBridge { network: network(), store: STORE });
    let seen = bench.device(port);
    assert_eq!((seen.master, seen.bridge_port, seen.fdb.as_deref(), seen.up), (None, None, Some(&[][..]), true));
    // What closed it went with it.
    bench.apply(&create_bridge(1500));
    assert!(!bench.named(&bridge_name()).host_closed);
}

fn a_bridge_keeps_the_mtu_it_was_given(bench: &mut Bench<impl World>) {
    bench.bridge(1500);
    bench.world.add("small", Kind::Other, 1280);
    bench.world.change("small", Change::In(&bridge_name()));
    let seen = bench.named(&bridge_name());
    assert_eq!((seen.mtu, seen.mac), (1500, Some(BRIDGE_MAC)));
    bench.world.delete("small");
    assert_eq!(bench.named(&bridge_name()).mtu, 1500);
}

fn somebodys_bridge_follows_its_ports(bench: &mut Bench<impl World>) {
    let bridge = bench.world.add("br0", Kind::Bridge, 1500);
    bench.world.add("p0", Kind::Other, 1400);
    bench.world.change("p0", Change::In("br0"));
    assert_eq!(bench.named("br0").mtu, 1400);
    // A port of ours has the bridge's MTU by the time it is in it.
    let port = port(1);
    bench.apply(&create_tap(port, DEVICE));
    let settings = LinkSettings { mtu: Some(1400), ..settings(port, bridge) };
    bench.apply(&Op::Configure { port, at: nicd::plan::At::Index(DEVICE), settings });
    assert_eq!(bench.named("br0").mtu, 1400);
    bench.world.change("p0", Change::Mtu(1300));
    assert_eq!(bench.named("br0").mtu, 1300);
    bench.world.change("p0", Change::OutOfBridge);
    assert_eq!(bench.named("br0").mtu, 1400);
    // Until somebody gives it one.
    bench.world.change("br0", Change::Mtu(1350));
    bench.world.change("p0", Change::In("br0"));
    assert_eq!(bench.named("br0").mtu, 1350);
    assert!(bench.host.observe().unwrap().iter().any(|link| link.name == "br0" && link.mtu == 1350));
}
