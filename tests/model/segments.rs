//! Networks on physical networks, on a host in memory: the kernel of these tests need have no 802.1Q.

use std::time::{Duration, Instant};

use nicd::config::{AllowedBridges, ConflictProbe};
use nicd::model::action::{Action, NewNetwork};
use nicd::model::names::SegmentKind;
use nicd::model::segment::{IdRange, VLANS, VNIS};
use nicd::model::{IdRanges, LinkName, Mac, MacPrefix, NetworkKind, Phase, PhysicalNetwork, PhysicalNetworks, PortId, names};
use nicd::plan::facts::FactName;
use nicd::plan::{HostAddress, HostUse, Kind, LinkState, VlanProtocol, VlanTag};
use nicd::service::{Error, NetworkView, Policy, Reply};

use crate::in_process::PATIENCE;
use crate::scene::{BR0, NETNS, Scene, VM, create_subnet, network_id, on};

/// The uplink of the physical network with this name.
const UPLINK: &str = "eth0";

fn device(name: &str, adopt: bool, qinq: bool) -> PhysicalNetwork {
    PhysicalNetwork::Device { device: name.parse().unwrap(), adopt, qinq }
}

/// Has the daemon go by these physical networks.
fn configure(scene: &Scene, physical: &[(&str, PhysicalNetwork)]) {
    configure_with(scene, physical, None);
}

/// The same, with a tunnel address.
pub fn configure_with(scene: &Scene, physical: &[(&str, PhysicalNetwork)], tunnel: Option<std::net::IpAddr>) {
    let physical_networks: PhysicalNetworks =
        physical.iter().map(|(name, network)| ((*name).to_owned(), network.clone())).collect();
    let policy = Policy {
        mac_prefix: MacPrefix::default(),
        allowed_bridges: AllowedBridges::default(),
        guest: nicd::config::GuestDefaults::default(),
        mtu: 1500,
        physical_networks,
        default_group: false,
        connections: 65_536,
        vlans: IdRanges::from_iter([IdRange::parse("100-101", &VLANS).unwrap()]),
        vnis: IdRanges::from_iter([IdRange::parse("5000-5001", &VNIS).unwrap()]),
        in_fleet: false,
        tunnel,
        require_host_closed: true,
        conflict_probe: ConflictProbe::Off,
        sweep: Duration::from_secs(60),
        nics_per_server: 4,
        host: "house".to_owned(),
    };
    scene.daemon.as_ref().unwrap().run(async { scene.service().reconciler().set_policy(policy) });
}

fn create(scene: &Scene, n: usize, kind: NetworkKind, physical: &str, vlan: Option<u32>) -> Result<NetworkView, Error> {
    let made = scene.perform(Action::CreateNetworks(vec![NewNetwork {
        id: Some(network_id(n)),
        name: format!("net{n}"),
        description: String::new(),
        project_id: String::new(),
        mtu: None,
        bridge: None,
        kind,
        physical_network: Some(physical.to_owned()),
        segmentation_id: vlan,
        port_security: true,
        isolated: false,
        scope: None,
    }]))?;
    match made {
        Reply::Networks(mut networks) => Ok(networks.remove(0)),
        other => panic!("{other:?}"),
    }
}

fn vlan(scene: &Scene, n: usize) -> Option<LinkState> {
    let altname = names::segment_altname(SegmentKind::Vlan, network_id(n));
    scene.fake.links().into_iter().find(|link| link.altnames.contains(&altname))
}

fn link(scene: &Scene, name: &str) -> LinkState {
    scene.fake.links().into_iter().find(|link| link.name == name).unwrap()
}

/// Waits until something is so and stays so. What it was before the daemon looked does not count.
pub fn comes_to(scene: &mut Scene, check: impl Fn() -> Result<(), String>) {
    let until = Instant::now() + PATIENCE;
    while let Err(wrong) = scene.daemon().try_settle(&check) {
        assert!(Instant::now() < until, "{wrong}");
    }
}

/// Waits until a port has a phase and a reason, and its fact about the uplink holds or not.
pub fn expect(scene: &mut Scene, port: PortId, reason: Option<&str>) {
    let service = scene.service();
    comes_to(scene, || {
        let (view, facts) = service.explain(port).unwrap();
        let fact = facts.iter().find(|fact| fact.fact == FactName::Uplink);
        let phase = if reason.is_none() { Phase::Active } else { Phase::Wired };
        let told = service.health().problems.iter().map(|problem| problem.reason).find(|told| Some(*told) == reason);
        let right = fact.is_some_and(|fact| fact.ok == reason.is_none())
            && view.phase == phase
            && view.reason.as_deref() == reason
            && told.is_some() == reason.is_some();
        right.then_some(()).ok_or_else(|| format!("{view:?} {facts:?} {told:?}"))
    });
}

fn with_uplink(adopt: bool, qinq: bool) -> Scene {
    let mut scene = Scene::new();
    scene.fake.meddle(UPLINK, |link| link.mac = Some(Mac([2, 0, 0, 0, 0, 1])));
    scene.daemon().drain();
    configure(
        &scene,
        &[("physnet1", device(UPLINK, adopt, qinq)), ("ops", PhysicalNetwork::Bridge { bridge: BR0.parse().unwrap() })],
    );
    scene
}

#[test]
fn a_vlan_network_leads_to_its_uplink_and_heals() {
    let mut scene = with_uplink(false, false);
    create(&scene, 0, NetworkKind::Vlan, "physnet1", Some(7)).unwrap();
    scene.perform(create_subnet(0, false)).unwrap();
    let port = scene.attach(NETNS, on(0)).unwrap().port.id;
    expect(&mut scene, port, None);
    let made = vlan(&scene, 0).unwrap();
    let bridge = scene.fake.device(port).unwrap().master;
    assert_eq!((made.lower, made.master, made.up), (Some(link(&scene, UPLINK).index), bridge, true));
    assert_eq!((made.kind.clone(), made.tag), (Kind::Vlan, Some(VlanTag { id: 7, protocol: VlanProtocol::Dot1q })));
    assert!(made.index < names::FIRST_INDEX && made.name.starts_with("nvl") && !made.v6_autoconf, "{made:?}");
    // By others' hands.
    scene.fake.delete_link(&made.name);
    expect_in(&mut scene, bridge);
    expect(&mut scene, port, None);
    let name = vlan(&scene, 0).unwrap().name;
    scene.fake.meddle(&name, |link| link.master = None);
    expect_in(&mut scene, bridge);
    scene.fake.meddle(&name, |link| link.up = false);
    expect(&mut scene, port, None);
    scene.fake.meddle(&name, |link| link.altnames.clear());
    expect(&mut scene, port, None);
    // The uplink goes and comes.
    scene.fake.meddle(UPLINK, |link| (link.up, link.lower_up) = (false, false));
    expect(&mut scene, port, Some("uplink_down"));
    scene.fake.meddle(UPLINK, |link| (link.up, link.lower_up) = (true, true));
    expect(&mut scene, port, None);
    scene.fake.meddle(UPLINK, |link| link.lower_up = false);
    expect(&mut scene, port, Some("uplink_down"));
    scene.fake.meddle(UPLINK, |link| link.lower_up = true);
    expect(&mut scene, port, None);
    scene.fake.delete_link(UPLINK);
    expect(&mut scene, port, Some("uplink_gone"));
    let index = scene.fake.add_link(UPLINK, Kind::Other, 1500);
    expect(&mut scene, port, None);
    assert_eq!(vlan(&scene, 0).unwrap().lower, Some(index));
    let other = link(&scene, BR0).index;
    scene.fake.meddle(UPLINK, |link| link.master = Some(other));
    expect(&mut scene, port, Some("uplink_unusable"));
    scene.fake.meddle(UPLINK, |link| link.master = None);
    expect(&mut scene, port, None);
    // The configuration loses it, and has it again with tags of another kind.
    configure(&scene, &[]);
    expect(&mut scene, port, Some("uplink_gone"));
    configure(&scene, &[("physnet1", device(UPLINK, false, true))]);
    expect(&mut scene, port, None);
    assert_eq!(vlan(&scene, 0).unwrap().tag, Some(VlanTag { id: 7, protocol: VlanProtocol::Dot1ad }));
    scene.stop();
}

/// Waits until the first network's VLAN device is in a bridge.
fn expect_in(scene: &mut Scene, bridge: Option<u32>) {
    let fake = scene.fake.clone();
    let altname = names::segment_altname(SegmentKind::Vlan, network_id(0));
    comes_to(scene, || {
        let master = fake.links().into_iter().find(|link| link.altnames.contains(&altname)).and_then(|link| link.master);
        (master == bridge).then_some(()).ok_or_else(|| format!("it is in {master:?}"))
    });
}

#[test]
fn a_restart_changes_nothing_and_a_deleted_network_leaves_nothing() {
    let mut scene = with_uplink(true, false);
    create(&scene, 0, NetworkKind::Vlan, "physnet1", None).unwrap();
    create(&scene, 1, NetworkKind::Flat, "physnet1", None).unwrap();
    for network in [0, 1] {
        scene.perform(create_subnet(network, false)).unwrap();
    }
    let before = link(&scene, UPLINK);
    let ports = [0, 1].map(|network| scene.attach(VM, on(network)).unwrap().port.id);
    assert_eq!(vlan(&scene, 0).unwrap().tag.map(|tag| tag.id), Some(100), "the lowest free one");
    let adopted = link(&scene, UPLINK);
    assert!(adopted.master.is_some() && adopted.master != vlan(&scene, 0).unwrap().master);
    let links = scene.fake.links();
    scene.kill();
    scene.open();
    configure(&scene, &[("physnet1", device(UPLINK, true, false))]);
    scene.daemon().drain();
    assert_eq!(scene.fake.links(), links);
    for port in ports {
        scene.perform(Action::DeletePort(port)).unwrap();
    }
    let service = scene.service();
    scene
        .daemon()
        .settle(|| ports.iter().find_map(|port| service.port(*port).ok()).map_or(Ok(()), |port| Err(format!("{port:?}"))));
    for network in [0, 1] {
        scene.perform(Action::DeleteNetwork(network_id(network))).unwrap();
    }
    assert_eq!(vlan(&scene, 0), None);
    assert_eq!(link(&scene, UPLINK), before, "it is as it was");
    scene.stop();
}

#[test]
fn a_vlan_is_one_networks_and_the_ranges_end() {
    let mut scene = with_uplink(false, false);
    let given =
        |scene: &Scene, n, vlan| create(scene, n, NetworkKind::Vlan, "physnet1", vlan).map(|view| view.network.segmentation_id);
    assert_eq!(given(&scene, 0, Some(100)).unwrap(), Some(100));
    assert_eq!(given(&scene, 1, Some(100)).unwrap_err().reason(), "segment_in_use");
    // One of the host's own.
    scene.fake.add_link("eth0.5", Kind::Vlan, 1500);
    let below = link(&scene, UPLINK).index;
    scene.fake.meddle("eth0.5", |link| {
        (link.lower, link.tag) = (Some(below), Some(VlanTag { id: 5, protocol: VlanProtocol::Dot1q }));
    });
    scene.daemon().drain();
    assert_eq!(given(&scene, 1, Some(5)).unwrap_err().reason(), "segment_in_use");
    assert_eq!(given(&scene, 1, None).unwrap(), Some(101));
    assert_eq!(given(&scene, 2, None).unwrap_err().reason(), "no_free_segment");
    scene.perform(Action::DeleteNetwork(network_id(0))).unwrap();
    assert_eq!(given(&scene, 2, None).unwrap(), Some(100));
    assert_eq!(given(&scene, 3, Some(200)).unwrap(), Some(200));
    scene.stop();
}

#[test]
fn what_cannot_be_an_uplink_is_refused_with_its_reason_and_nothing_is_made() {
    let mut scene = Scene::new();
    let own = "nicd0123456789a";
    scene.fake.add_link("wlan0", Kind::Other, 1500);
    scene.fake.add_link("l3", Kind::Other, 1500);
    scene.fake.add_link("port", Kind::Other, 1500);
    scene.fake.add_link("addressed", Kind::Other, 1500);
    for name in ["lo", "wlan0", "port", "addressed", UPLINK, own] {
        scene.fake.meddle(name, |link| link.mac = Some(Mac([2, 0, 0, 0, 0, 1])));
    }
    let bridge = link(&scene, BR0).index;
    scene.fake.meddle("port", |link| link.master = Some(bridge));
    let host = HostAddress { ip: [192, 0, 2, 1].into(), of: HostUse::Own };
    scene.fake.meddle("addressed", |link| link.hosts = vec![host]);
    scene.fake.meddle(own, |link| link.alias = Some(names::device_tag(uuid::Uuid::from_u128(5), 1)));
    scene.daemon().drain();
    let before = (scene.fake.links(), scene.service().networks().len());
    for (name, kind, adopt, reason) in [
        ("nowhere", NetworkKind::Vlan, false, "uplink_missing"),
        ("lo", NetworkKind::Vlan, false, "uplink_is_loopback"),
        ("wlan0", NetworkKind::Vlan, false, "uplink_is_wireless"),
        ("l3", NetworkKind::Vlan, false, "uplink_not_ethernet"),
        (BR0, NetworkKind::Vlan, false, "uplink_is_bridge"),
        (own, NetworkKind::Vlan, false, "uplink_is_nicds"),
        ("port", NetworkKind::Vlan, false, "uplink_is_port"),
        (UPLINK, NetworkKind::Flat, false, "uplink_not_adopted"),
        ("addressed", NetworkKind::Flat, true, "uplink_in_use"),
    ] {
        configure(&scene, &[("p", device(name, adopt, false))]);
        let error = create(&scene, 0, kind, "p", (kind == NetworkKind::Vlan).then_some(9)).unwrap_err();
        assert_eq!(error.reason(), reason, "{error}");
        assert!(error.to_string().starts_with(name), "{error}");
    }
    configure(&scene, &[("p", PhysicalNetwork::Bridge { bridge: BR0.parse::<LinkName>().unwrap() })]);
    assert_eq!(create(&scene, 0, NetworkKind::Vlan, "p", Some(9)).unwrap_err().reason(), "uplink_filters_no_vlans");
    let unknown = create(&scene, 0, NetworkKind::Vlan, "q", Some(9)).unwrap_err();
    assert!(unknown.reason() == "unknown_physical_network" && unknown.to_string().ends_with("has p"), "{unknown}");
    assert_eq!((scene.fake.links(), scene.service().networks().len()), before);
    // The addresses of a vlan network's uplink stay where they are.
    configure(&scene, &[("p", device("addressed", false, false))]);
    create(&scene, 0, NetworkKind::Vlan, "p", Some(9)).unwrap();
    scene.perform(create_subnet(0, false)).unwrap();
    scene.attach(VM, on(0)).unwrap();
    assert_eq!(link(&scene, "addressed").hosts, [host]);
    scene.stop();
}

#[test]
fn networks_of_one_bridge_with_different_vlans_are_different_segments() {
    let mut scene = with_uplink(false, false);
    scene.fake.set_vlan_filtering(BR0, true);
    scene.daemon().drain();
    for (network, vlan) in [(0, 41), (1, 42)] {
        let made = create(&scene, network, NetworkKind::Vlan, "ops", Some(vlan)).unwrap();
        assert_eq!(made.network.bridge.as_ref().map(LinkName::as_str), Some(BR0));
        scene.perform(create_subnet(network, false)).unwrap();
    }
    let ports = [0, 1].map(|network| scene.attach(VM, on(network)).unwrap().port.id);
    for (port, vlan) in ports.into_iter().zip([41, 42]) {
        let device = scene.fake.device(port).unwrap();
        assert_eq!(device.vlan.map(|seen| (seen.pvid, seen.untagged, seen.others)), Some((vlan, true, false)));
        let entries = device.fdb.unwrap();
        assert!(entries.iter().any(|entry| entry.vlan == vlan && entry.sticky), "{entries:?}");
        scene.fake.set_vlan(&device.name, nicd::plan::PortVlan { pvid: 1, untagged: true, others: true, ..Default::default() });
        let fake = scene.fake.clone();
        scene.daemon().settle(|| {
            let seen = fake.device(port).and_then(|link| link.vlan);
            let right = seen.is_some_and(|seen| (seen.pvid, seen.others) == (vlan, false));
            right.then_some(()).ok_or_else(|| format!("{seen:?}"))
        });
    }
    scene.stop();
}
