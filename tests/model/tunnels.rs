//! VXLAN networks, on a host in memory: what of them is on other hosts is told as a fleet tells it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use nicd::kernel::OpErrorKind;
use nicd::kernel::fake::{Fake, Fault};
use nicd::model::action::{Action, NetworkChange, NewNetwork, PortChange};
use nicd::model::names::{self, SegmentKind};
use nicd::model::{AddressPair, Mac, NetworkKind};
use nicd::plan::{Entry, HostAddress, HostUse, Kind, LinkState, Op, Overlay, Remote, Strange, VXLAN_PORT, VxlanSeen};
use nicd::service::{Error, NetworkView, Reply};

use crate::scene::{NETNS, Scene, create_subnet, network_id, on};
use crate::segments::{comes_to, configure_with, expect};

/// The link with the tunnel address.
const UNDERLAY: &str = "eth0";

const TUNNEL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

fn host(last: u8) -> IpAddr {
    [192, 0, 2, last].into()
}

fn mac(last: u8) -> Mac {
    Mac([0xfa, 0x16, 0x3e, 9, 9, last])
}

/// A port on another host.
fn remote(at: u8, last: u8) -> (Mac, Remote) {
    let addresses = BTreeSet::from([[10, 0, 0, last].into(), IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(last)])]);
    (mac(last), Remote { host: host(at), addresses })
}

fn overlay(peers: &[u8], remotes: &[(u8, u8)]) -> Overlay {
    Overlay::new(peers.iter().copied().map(host).collect(), remotes.iter().map(|(at, last)| remote(*at, *last)))
}

fn new(n: usize, vni: Option<u32>, mtu: Option<u32>) -> Action {
    Action::CreateNetworks(vec![NewNetwork {
        id: Some(network_id(n)),
        name: format!("net{n}"),
        description: String::new(),
        project_id: String::new(),
        mtu,
        bridge: None,
        kind: NetworkKind::Vxlan,
        physical_network: None,
        segmentation_id: vni,
        port_security: true,
        isolated: false,
        scope: None,
    }])
}

fn create(scene: &Scene, n: usize, vni: Option<u32>, mtu: Option<u32>) -> Result<NetworkView, Error> {
    match scene.perform(new(n, vni, mtu))? {
        Reply::Networks(mut networks) => Ok(networks.remove(0)),
        other => panic!("{other:?}"),
    }
}

fn device(scene: &Scene) -> Option<LinkState> {
    device_of(&scene.fake)
}

fn device_of(fake: &Fake) -> Option<LinkState> {
    let altname = names::segment_altname(SegmentKind::Vxlan, network_id(0));
    fake.links().into_iter().find(|link| link.altnames.contains(&altname))
}

fn address_underlay(scene: &Scene, tunnel: IpAddr) {
    scene.fake.meddle(UNDERLAY, |link| link.hosts = vec![HostAddress { ip: tunnel, of: HostUse::Own }]);
}

/// A host with a tunnel address.
fn with_tunnel() -> Scene {
    let mut scene = Scene::new();
    address_underlay(&scene, TUNNEL);
    scene.daemon().drain();
    configure_with(&scene, &[], Some(TUNNEL));
    scene
}

/// Tells what is on other hosts.
fn set_overlay(scene: &Scene, overlay: &Overlay) {
    let service = scene.service();
    scene.daemon.as_ref().unwrap().run(async { service.reconciler().set_overlay(network_id(0), overlay.clone()) });
}

/// Waits until the kernel has the entries of an overlay, and no others.
fn expect_entries(scene: &mut Scene, overlay: &Overlay) {
    let (fake, want) = (scene.fake.clone(), overlay.entries());
    comes_to(scene, || {
        let have = fake.entries(network_id(0));
        (have == want).then_some(()).ok_or_else(|| format!("{have:#?} instead of {want:#?}"))
    });
}

/// Waits until something shows about the VXLAN device.
fn expect_device(scene: &mut Scene, right: impl Fn(&LinkState) -> bool) {
    let fake = scene.fake.clone();
    comes_to(scene, || {
        let device = device_of(&fake);
        device.as_ref().is_some_and(&right).then_some(()).ok_or_else(|| format!("{device:#?}"))
    });
}

/// What ops the host has seen since, of those that set entries.
fn entry_ops(scene: &Scene, since: usize) -> Vec<(usize, usize)> {
    let sizes = |op: &Op| match op {
        Op::SetEntries { put, remove, .. } => Some((put.len(), remove.len())),
        _ => None,
    };
    scene.fake.log()[since..].iter().filter_map(sizes).collect()
}

#[test]
fn a_vxlan_network_leads_to_other_hosts_and_heals() {
    let mut scene = with_tunnel();
    let made = create(&scene, 0, Some(70_000), None).unwrap().network;
    assert_eq!((made.segmentation_id, made.mtu), (Some(70_000), 1450), "what a tunnel leaves of the underlay");
    scene.perform(create_subnet(0, false)).unwrap();
    let told = overlay(&[2, 3], &[(2, 20), (2, 21), (3, 30)]);
    set_overlay(&scene, &told);
    let port = scene.attach(NETNS, on(0)).unwrap().port.id;
    expect(&mut scene, port, None);
    expect_entries(&mut scene, &told);
    let seen = device(&scene).unwrap();
    let settings = VxlanSeen { vni: 70_000, port: VXLAN_PORT, local: Some(TUNNEL), learning: false, altered: false };
    assert_eq!(
        (seen.vxlan, seen.mtu, seen.up, seen.master),
        (Some(settings), 1450, true, scene.fake.device(port).unwrap().master)
    );
    assert!(
        seen.name.starts_with("nvx")
            && (names::FIRST_TUNNEL_INDEX..names::FIRST_SEGMENT_INDEX).contains(&seen.index)
            && !seen.v6_autoconf,
        "{seen:?}"
    );
    assert!(seen.bridge_port.is_some_and(|port| port.leads_to_tunnels(true)), "{seen:?}");

    // By others' hands: the entries, and the device.
    let (foreign, strange) = (
        Entry::Flood(host(9)),
        Entry::Strange(Strange::Tunnel { mac: mac(20), to: Some(host(9)), port: Some(1), vni: None, via: None }),
    );
    let gone = [Entry::Flood(host(2)), Entry::Bridge(mac(30)), Entry::Forward { mac: mac(20), to: host(2) }];
    scene.fake.meddle_entries(network_id(0), &[foreign, strange], &gone);
    expect_entries(&mut scene, &told);
    let name = seen.name.clone();
    scene.fake.meddle(&name, |link| link.vxlan.as_mut().unwrap().learning = true);
    expect_device(&mut scene, |device| device.vxlan == Some(settings) && device.index == seen.index);
    for other in [
        VxlanSeen { vni: 70_001, ..settings },
        VxlanSeen { local: Some(host(8)), ..settings },
        VxlanSeen { port: 8472, ..settings },
        VxlanSeen { altered: true, ..settings },
    ] {
        scene.fake.meddle(&name, |link| link.vxlan = Some(other));
        expect_device(&mut scene, |device| device.vxlan == Some(settings));
        expect(&mut scene, port, None);
        expect_entries(&mut scene, &told);
    }
    scene.fake.meddle(&name, |link| link.bridge_port.as_mut().unwrap().suppresses = false);
    expect_device(&mut scene, |device| device.bridge_port.is_some_and(|port| port.leads_to_tunnels(true)));
    scene.fake.meddle(&name, |link| link.master = None);
    expect_device(&mut scene, |device| device.master.is_some());
    expect_entries(&mut scene, &told);
    scene.fake.meddle(&name, |link| link.up = false);
    expect(&mut scene, port, None);
    scene.fake.meddle(&name, |link| link.altnames.clear());
    expect(&mut scene, port, None);
    let bridge = names::network_altname(network_id(0));
    scene.fake.meddle(&bridge, |link| link.up = false);
    expect(&mut scene, port, None);
    expect_entries(&mut scene, &told);
    scene.fake.delete_link(&name);
    expect(&mut scene, port, None);
    expect_entries(&mut scene, &told);
    scene.stop();
}

#[test]
fn one_change_costs_one_plan_with_its_own_entries() {
    let mut scene = with_tunnel();
    create(&scene, 0, Some(7), None).unwrap();
    scene.perform(create_subnet(0, false)).unwrap();
    let many: Vec<(u8, u8)> = (10..200).map(|last| (2, last)).collect();
    let mut told = overlay(&[2, 3], &many);
    let (service, network) = (scene.service(), network_id(0));
    let fleet = service.reconciler();
    set_overlay(&scene, &told);
    let port = scene.attach(NETNS, on(0)).unwrap().port.id;
    expect(&mut scene, port, None);
    expect_entries(&mut scene, &told);
    type Told<'a> = (&'a dyn Fn(&mut Overlay), &'a dyn Fn());
    let mut change = |scene: &mut Scene, (change, tell): Told<'_>, ops: &[(usize, usize)]| {
        let since = scene.fake.log().len();
        change(&mut told);
        scene.daemon().run(async { tell() });
        expect_entries(scene, &told);
        assert_eq!(entry_ops(scene, since), ops);
    };
    let (mac, first) = remote(3, 250);
    let (_, moved) = remote(2, 250);
    let put = |at: &Remote| {
        let at = at.clone();
        move |told: &mut Overlay| drop(told.put_remote(mac, at.clone()))
    };
    change(&mut scene, (&put(&first), &|| fleet.put_remote(network, mac, first.clone())), &[(4, 0)]);
    // It moves: one entry takes the place of another.
    change(&mut scene, (&put(&moved), &|| fleet.put_remote(network, mac, moved.clone())), &[(1, 1)]);
    change(&mut scene, (&|told| drop(told.remove_remote(mac)), &|| fleet.remove_remote(network, mac)), &[(0, 4)]);
    change(&mut scene, (&|told| drop(told.put_peer(host(4))), &|| fleet.put_peer(network, host(4))), &[(1, 0)]);
    change(
        &mut scene,
        (&|told| drop(told.remove_peer(host(2))), &|| fleet.remove_peer(network, host(2))),
        &[(0, 512), (0, 1 + 4 * 190 - 512)],
    );
    scene.stop();
}

#[test]
fn a_restart_without_the_fleet_leaves_all_entries_and_with_it_changes_nothing() {
    let mut scene = with_tunnel();
    create(&scene, 0, None, None).unwrap();
    scene.perform(create_subnet(0, false)).unwrap();
    let told = overlay(&[2], &[(2, 20)]);
    set_overlay(&scene, &told);
    let port = scene.attach(NETNS, on(0)).unwrap().port.id;
    expect(&mut scene, port, None);
    expect_entries(&mut scene, &told);
    assert_eq!(device(&scene).unwrap().vxlan.map(|seen| seen.vni), Some(5000), "the lowest free one");
    let (links, ops) = (scene.fake.links(), scene.fake.log().len());
    scene.kill();
    scene.open();
    configure_with(&scene, &[], Some(TUNNEL));
    expect(&mut scene, port, None);
    expect_entries(&mut scene, &told);
    set_overlay(&scene, &told);
    scene.daemon().drain();
    expect_entries(&mut scene, &told);
    assert_eq!((scene.fake.links(), scene.fake.log().len()), (links, ops), "nothing was written");
    // What changed meanwhile is brought in, and that alone.
    let later = overlay(&[2, 3], &[(3, 20)]);
    set_overlay(&scene, &later);
    expect_entries(&mut scene, &later);
    assert_eq!(entry_ops(&scene, ops), [(2, 1)]);
    let verified = scene.daemon.as_ref().unwrap().run(scene.service().verify()).unwrap();
    assert_eq!(verified.deviations, []);
    scene.perform(Action::DeletePort(port)).unwrap();
    let service = scene.service();
    scene.daemon().settle(|| service.port(port).map_or(Ok(()), |port| Err(format!("{port:?}"))));
    scene.perform(Action::DeleteNetwork(network_id(0))).unwrap();
    assert_eq!(device(&scene), None);
    assert_eq!(create(&scene, 0, None, None).unwrap().network.segmentation_id, Some(5000), "its number is free again");
    scene.stop();
}

#[test]
fn what_guests_tell_of_addresses_passes_where_they_may_take_them_over() {
    let mut scene = with_tunnel();
    create(&scene, 0, Some(7), None).unwrap();
    scene.perform(create_subnet(0, false)).unwrap();
    let port = scene.attach(NETNS, on(0)).unwrap().port.id;
    expect(&mut scene, port, None);
    for pairs in [vec![AddressPair { ip: "10.0.0.5/32".parse().unwrap(), mac: None }], Vec::new()] {
        let suppresses = pairs.is_empty();
        let change = PortChange { address_pairs: Some(pairs), ..PortChange::default() };
        scene.perform(Action::UpdatePort(port, change)).unwrap();
        expect_device(&mut scene, |device| device.bridge_port.is_some_and(|port| port.leads_to_tunnels(suppresses)));
        expect(&mut scene, port, None);
    }
    scene.stop();
}

#[test]
fn what_is_in_the_way_is_told_and_left() {
    let mut scene = with_tunnel();
    create(&scene, 0, Some(7), None).unwrap();
    scene.perform(create_subnet(0, false)).unwrap();
    let port = scene.attach(NETNS, on(0)).unwrap().port.id;
    expect(&mut scene, port, None);
    // The underlay goes down, loses the address, and goes.
    scene.fake.meddle(UNDERLAY, |link| (link.up, link.lower_up) = (false, false));
    expect(&mut scene, port, Some("uplink_down"));
    scene.fake.meddle(UNDERLAY, |link| (link.up, link.lower_up) = (true, true));
    expect(&mut scene, port, None);
    scene.fake.meddle(UNDERLAY, |link| link.hosts.clear());
    expect(&mut scene, port, Some("uplink_gone"));
    address_underlay(&scene, TUNNEL);
    expect(&mut scene, port, None);
    configure_with(&scene, &[], None);
    expect(&mut scene, port, Some("uplink_gone"));
    configure_with(&scene, &[], Some(TUNNEL));
    expect(&mut scene, port, None);
    // The tunnel address is another: the device begins there.
    address_underlay(&scene, host(5));
    configure_with(&scene, &[], Some(host(5)));
    expect_device(&mut scene, |device| device.vxlan.is_some_and(|seen| seen.local == Some(host(5))));
    expect(&mut scene, port, None);
    // Another program's device has the number.
    let name = device(&scene).unwrap().name;
    let settings = device(&scene).unwrap().vxlan;
    scene.fake.add_link("vx7", Kind::Vxlan, 1450);
    scene.fake.meddle("vx7", |link| link.vxlan = settings);
    let stranger = scene.fake.links().into_iter().find(|link| link.name == "vx7");
    scene.fake.delete_link(&name);
    expect(&mut scene, port, Some("uplink_unusable"));
    let told = scene.service().explain(port).unwrap().1;
    assert!(told.iter().any(|fact| fact.detail.contains("the number 7 on UDP port 4789 is vx7's")), "{told:?}");
    assert_eq!(scene.fake.links().into_iter().find(|link| link.name == "vx7"), stranger);
    assert_eq!(device(&scene), None);
    scene.fake.delete_link("vx7");
    expect(&mut scene, port, None);
    scene.stop();
}

#[test]
fn what_no_vxlan_network_can_have_is_refused() {
    let mut scene = Scene::new();
    let before = scene.fake.links();
    let refused = create(&scene, 0, Some(7), None).unwrap_err();
    assert_eq!((refused.reason(), refused.to_string().contains("fleet")), ("fleet_only", true), "{refused}");
    configure_with(&scene, &[], Some(TUNNEL));
    let refused = create(&scene, 0, Some(7), None).unwrap_err();
    assert_eq!((refused.reason(), refused.to_string().contains("192.0.2.1")), ("uplink_missing", true), "{refused}");
    address_underlay(&scene, TUNNEL);
    scene.daemon().drain();
    let refused = create(&scene, 0, Some(7), Some(1451)).unwrap_err();
    assert_eq!((refused.reason(), refused.to_string().contains("1450")), ("mtu_above_uplink", true), "{refused}");
    create(&scene, 0, Some(7), Some(1400)).unwrap();
    let change = |mtu| {
        let change = NetworkChange { mtu: Some(mtu), ..NetworkChange::default() };
        scene.perform(Action::UpdateNetwork(network_id(0), change))
    };
    assert_eq!(change(1451).unwrap_err().reason(), "mtu_above_uplink");
    change(1450).unwrap();
    let refused = create(&scene, 1, Some(7), None).unwrap_err();
    assert_eq!((refused.reason(), refused.to_string().contains("identifier 7")), ("segment_in_use", true), "{refused}");
    let numbers = [1, 2].map(|n| create(&scene, n, None, None).unwrap().network.segmentation_id);
    assert_eq!(numbers, [Some(5000), Some(5001)]);
    assert_eq!(create(&scene, 3, None, None).unwrap_err().reason(), "no_free_segment");
    let links = scene.fake.links().into_iter().map(|link| link.name);
    assert_eq!(links.collect::<Vec<_>>(), before.into_iter().map(|link| link.name).collect::<Vec<_>>());
    // Over IPv6 a tunnel takes more.
    let v6: IpAddr = "2001:db8:f::1".parse().unwrap();
    address_underlay(&scene, v6);
    scene.daemon().drain();
    configure_with(&scene, &[], Some(v6));
    assert_eq!(create(&scene, 3, Some(9), None).unwrap().network.mtu, 1430);
    scene.stop();
}

#[test]
fn what_tunnels_cannot_lead_to_is_left_out() {
    let mut scene = with_tunnel();
    create(&scene, 0, Some(7), None).unwrap();
    scene.perform(create_subnet(0, false)).unwrap();
    let v6: IpAddr = "2001:db8:f::2".parse().unwrap();
    let (mut told, right) = (overlay(&[1, 2], &[(1, 10), (2, 20)]), overlay(&[2], &[(2, 20)]));
    told.put_peer(v6);
    told.put_remote(mac(30), Remote { host: v6, addresses: BTreeSet::new() });
    told.put_remote(Mac([1, 0, 0x5e, 0, 0, 1]), Remote { host: host(2), addresses: BTreeSet::new() });
    set_overlay(&scene, &told);
    let port = scene.attach(NETNS, on(0)).unwrap().port.id;
    expect(&mut scene, port, None);
    expect_entries(&mut scene, &right);
    // A port that comes here is on no other host any more.
    let service = scene.service();
    let (mac, mut remote) = remote(2, 20);
    remote.host = TUNNEL;
    scene.daemon().run(async { service.reconciler().put_remote(network_id(0), mac, remote) });
    expect_entries(&mut scene, &overlay(&[2], &[]));
    scene.stop();
}

#[test]
fn entries_that_the_kernel_refuses_are_told_and_tried_again() {
    let mut scene = with_tunnel();
    create(&scene, 0, Some(7), None).unwrap();
    scene.perform(create_subnet(0, false)).unwrap();
    set_overlay(&scene, &overlay(&[], &[]));
    let port = scene.attach(NETNS, on(0)).unwrap().port.id;
    expect(&mut scene, port, None);
    scene.fake.set_faults(|op| match op {
        Op::SetEntries { .. } => Fault::Refuse(OpErrorKind::Other),
        _ => Fault::None,
    });
    let told = overlay(&[2], &[(2, 20)]);
    set_overlay(&scene, &told);
    let service = scene.service();
    let is_told = || service.health().problems.iter().any(|problem| problem.reason == "entries_refused");
    comes_to(&mut scene, || is_told().then_some(()).ok_or_else(|| format!("{:?}", service.health())));
    scene.fake.clear_faults();
    expect_entries(&mut scene, &told);
    comes_to(&mut scene, || (!is_told()).then_some(()).ok_or_else(|| format!("{:?}", service.health())));
    scene.stop();
}
