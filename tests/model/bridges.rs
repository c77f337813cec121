//! The operator's bridge, which others change.

use std::collections::BTreeSet;

use nicd::model::action::{Action, WantedNic};
use nicd::model::{Mac, Phase};
use nicd::plan::facts::FactName;
use nicd::plan::forward::{Forward, Way};
use nicd::plan::{BRIDGE_PORTS, Kind, NEARLY_FULL, PlanError, PortVlan, ROOM_AGAIN};
use nicd::service::{Error, PortFilter};

use crate::scene::{
    AGENTS, BR0, NETNS, OPERATORS, Scene, VM, attach, create_group, create_port, detach, group_id, network_id, on, port_of,
};

#[test]
fn an_attach_is_decided_on_what_the_bridge_is_now() {
    let mut scene = Scene::with_networks();
    // Each time the attach is handed in before the daemon can have taken in what the watch saw.
    scene.fake.meddle(BR0, |bridge| bridge.mtu = 1400);
    let error = scene.attach(VM, on(OPERATORS)).unwrap_err();
    assert!(matches!(error, Error::Plan(PlanError::MtuAboveBridge { mtu: 1500, bridge_mtu: 1400, .. })), "{error}");
    scene.fake.meddle(BR0, |bridge| bridge.mtu = 9000);
    let wide = scene.attach(VM, on(OPERATORS)).unwrap();
    assert_eq!(scene.fake.device(wide.port.id).unwrap().mtu, 9000);
    scene.fake.delete_link(BR0);
    let error = scene.attach(VM, on(OPERATORS)).unwrap_err();
    assert!(matches!(error, Error::Plan(PlanError::NoSuchBridge(_))), "{error}");
    scene.fake.add_link(BR0, Kind::Other, 1500);
    let error = scene.attach(VM, on(OPERATORS)).unwrap_err();
    assert!(matches!(error, Error::Plan(PlanError::NotABridge(_))), "{error}");
    scene.fake.delete_link(BR0);
    let index = scene.fake.add_link(BR0, Kind::Bridge, 1500);
    let anew = scene.attach(VM, on(OPERATORS)).unwrap();
    let device = scene.fake.device(anew.port.id).unwrap();
    assert_eq!((device.master, device.mtu), (Some(index), 1500));
    assert_eq!(scene.service().ports(PortFilter::default()).len(), 2, "what was refused left nothing");
    scene.stop();
}

#[test]
fn a_full_bridge_takes_no_more_and_the_kernel_is_not_asked() {
    let mut scene = Scene::with_networks();
    let bridge = scene.fake.links().into_iter().find(|link| link.name == BR0).unwrap().index;
    let join = |scene: &Scene, numbers: std::ops::Range<usize>| {
        for n in numbers {
            let name = format!("other{n}");
            scene.fake.add_link(&name, Kind::Other, 1500);
            scene.fake.meddle(&name, |link| link.master = Some(bridge));
        }
    };
    let warned = |scene: &mut Scene| {
        scene.daemon().drain();
        let problems = scene.service().health().problems;
        problems.into_iter().find(|problem| problem.reason == "bridge_nearly_full").map(|problem| problem.finding.detail)
    };
    join(&scene, 0..NEARLY_FULL - 1);
    assert_eq!(warned(&mut scene), None);
    join(&scene, NEARLY_FULL - 1..NEARLY_FULL);
    assert_eq!(warned(&mut scene).as_deref(), Some("bridge br0 has 921 of 1023 ports"));
    join(&scene, NEARLY_FULL..BRIDGE_PORTS - 1);
    let last = scene.attach(VM, on(OPERATORS)).unwrap();
    assert_eq!(warned(&mut scene).as_deref(), Some("bridge br0 has 1023 of 1023 ports"));
    let before = scene.fake.log().len();
    let error = scene.attach(VM, on(OPERATORS)).unwrap_err();
    assert_eq!((error.reason(), scene.fake.log().len()), ("bridge_full", before), "{error}");
    // Another network's bridge is another matter.
    scene.attach(VM, on(AGENTS)).unwrap();
    scene.perform(detach(VM, last.port.id)).unwrap();
    let service = scene.service();
    scene.daemon().settle(|| service.port(last.port.id).map_or(Ok(()), |port| Err(format!("{port:?}"))));
    // Of those that come at once one is the first; what it leaves to the others is the same refusal.
    let answers = scene.daemon().perform_at_once(vec![attach(VM, on(OPERATORS)); 3]);
    let refused: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err().map(Error::reason)).collect();
    assert_eq!(refused, ["bridge_full"; 2]);
    assert_eq!(service.ports(PortFilter { network: Some(network_id(OPERATORS)), ..PortFilter::default() }).len(), 1);
    let leave = |scene: &Scene, numbers: std::ops::Range<usize>| {
        numbers.for_each(|n| scene.fake.delete_link(&format!("other{n}")));
    };
    // The last port stays in it. At the edge it is no news that one comes or goes.
    leave(&scene, NEARLY_FULL - 2..BRIDGE_PORTS - 1);
    assert_eq!(warned(&mut scene).as_deref(), Some("bridge br0 has 920 of 1023 ports"));
    leave(&scene, ROOM_AGAIN..NEARLY_FULL - 2);
    assert_eq!(warned(&mut scene).as_deref(), Some("bridge br0 has 870 of 1023 ports"));
    leave(&scene, ROOM_AGAIN - 1..ROOM_AGAIN);
    assert_eq!(warned(&mut scene), None);
    join(&scene, ROOM_AGAIN - 1..NEARLY_FULL - 2);
    assert_eq!(warned(&mut scene), None);
    scene.stop();
}

/// A bridge without a MAC of its own takes that of one of its ports.
#[test]
fn the_filters_of_ports_in_groups_follow_the_mac_of_their_bridge() {
    let mut scene = Scene::with_networks();
    scene.perform(create_group(0)).unwrap();
    let mut create = create_port(OPERATORS);
    if let Action::CreatePorts(ports) = &mut create {
        ports[0].groups = Some([group_id(0)].into());
    }
    let port = port_of(scene.perform(create).unwrap()).port.id;
    scene.attach(NETNS, WantedNic::Port(port)).unwrap();
    for last in [1, 2] {
        let mac = Mac([2, 0, 0, 0, 0, last]);
        scene.fake.meddle(BR0, |link| link.mac = Some(mac));
        let fake = scene.fake.clone();
        scene.daemon().settle(|| {
            let device = fake.device(port).unwrap();
            let host = device.filter.of(port).and_then(|filter| filter.groups.as_ref()?.host);
            if host == Some(mac) { Ok(()) } else { Err(format!("{:?}", device.filter)) }
        });
    }
    scene.stop();
}

#[test]
fn a_port_is_active_while_untagged_frames_pass_it() {
    let mut scene = Scene::with_networks();
    let bridge = scene.fake.links().into_iter().find(|link| link.name == BR0).unwrap().index;
    scene.fake.set_default_pvid(bridge, 0);
    scene.fake.set_vlan_filtering(BR0, true);
    let port = scene.attach(NETNS, on(OPERATORS)).unwrap().port.id;
    let device = scene.fake.device(port).unwrap().name;
    let service = scene.service();
    let expect = |scene: &mut Scene, passes: bool| {
        scene.daemon().settle(|| {
            let (view, facts) = service.explain(port).unwrap();
            let fact = facts.iter().find(|fact| fact.fact == FactName::Vlan).unwrap();
            let told: Vec<_> = service.health().problems.into_iter().map(|problem| problem.reason).collect();
            let right = match passes {
                true => fact.ok && view.phase == Phase::Active && view.reason.is_none() && told.is_empty(),
                false => !fact.ok && view.phase == Phase::Wired && view.reason.as_deref() == Some("vlan") && told == ["vlan"],
            };
            right.then_some(()).ok_or_else(|| format!("{view:?} {facts:?} {told:?}"))
        });
    };
    let untagged = |pvid| PortVlan { pvid, untagged: true, ..PortVlan::default() };
    expect(&mut scene, false);
    scene.fake.set_vlan(&device, untagged(100));
    expect(&mut scene, true);
    let entries = scene.fake.device(port).unwrap().fdb.unwrap();
    assert!(entries.iter().any(|entry| entry.vlan == 100 && entry.sticky), "{entries:?}");
    for deaf in [PortVlan { untagged: false, ..untagged(100) }, PortVlan { blocked: true, ..untagged(100) }, PortVlan::default()]
    {
        scene.fake.set_vlan(&device, deaf);
        expect(&mut scene, false);
        scene.fake.set_vlan(&device, untagged(7));
        expect(&mut scene, true);
    }
    scene.fake.set_vlan(&device, PortVlan::default());
    expect(&mut scene, false);
    scene.fake.set_vlan_filtering(BR0, false);
    expect(&mut scene, true);
    scene.fake.set_vlan_filtering(BR0, true);
    expect(&mut scene, false);
    scene.stop();
}

#[test]
fn a_port_is_active_while_the_hosts_packet_filter_lets_its_protocols_pass() {
    let mut scene = Scene::with_networks();
    let port = scene.attach(NETNS, on(OPERATORS)).unwrap().port.id;
    let service = scene.service();
    let closed = || Way::Closed("chain FORWARD of table ip filter".to_owned());
    let unsure = || Way::Unsure("chain FORWARD of table ip filter".to_owned());
    for (v4, v6, passes) in [
        (closed(), Way::Open, false),
        (Way::Open, Way::Open, true),
        (unsure(), unsure(), true),
        (closed(), closed(), false),
        (unsure(), Way::Open, true),
    ] {
        scene.fake.meddle(BR0, |bridge| bridge.forward = Forward { v4: v4.clone(), v6: v6.clone() });
        scene.daemon().settle(|| {
            let (view, facts) = service.explain(port).unwrap();
            let fact = facts.iter().find(|fact| fact.fact == FactName::ForwardFiltered).unwrap();
            let told: BTreeSet<_> = service.health().problems.into_iter().map(|problem| problem.reason).collect();
            let right = match passes {
                true => fact.ok && view.phase == Phase::Active && told.is_empty(),
                false => !fact.ok && view.reason.as_deref() == Some("forward_filtered") && told == ["forward_filtered"].into(),
            };
            right.then_some(()).ok_or_else(|| format!("{view:?} {facts:?} {told:?}"))
        });
    }
    scene.stop();
}
