//! Veth pairs, and what the guest is given.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use nicd::kernel::{Applied, Host, NetnsError, OpErrorKind};
use nicd::model::{NetnsPin, PortId, names};
use nicd::plan::{Address, GuestSettings, Kind, Op, Route, Switch};

use crate::host::*;

on_both!(
    an_attach_gives_the_guest_its_nic,
    the_guests_end_is_found_by_the_hosts,
    what_is_no_longer_listed_goes_and_what_is_the_guests_stays,
    a_route_that_does_not_fit_costs_itself_alone,
    the_lowest_free_name_is_taken,
    only_a_guests_namespace_is_one,
    another_namespace_than_the_pinned_is_refused,
    a_namespace_takes_its_nics_along,
    a_veth_that_clashes_leaves_nothing,
);

fn create(path: &Path, pin: NetnsPin, port: PortId, index: u32, name: Option<&str>) -> Op {
    Op::CreateVeth {
        port,
        index,
        name: names::port_device(port, 0),
        netns: path.to_owned(),
        pin,
        guest_name: name.map(|name| name.parse().unwrap()),
        guest_mac: mac(port),
        guest_mtu: 1450,
        mac: mac(port).host_side(),
        mtu: 1500,
    }
}

/// What follows on it.
fn finish(port: PortId, master: u32) -> Op {
    configure(port, joined(port, master).into_iter().chain([tag(Switch::Up)]))
}

fn give(path: &Path, pin: NetnsPin, port: PortId, settings: GuestSettings) -> Op {
    Op::ConfigureGuest { port, netns: path.to_owned(), pin, settings }
}

pub fn address(text: &str) -> Address {
    let (ip, prefix) = text.split_once('/').unwrap();
    Address { ip: ip.parse().unwrap(), prefix: prefix.parse().unwrap() }
}

fn route(destination: &str, via: &str, onlink: bool) -> Route {
    Route { destination: destination.parse().unwrap(), via: via.parse().unwrap(), onlink, metric: 100 }
}

fn given(port: PortId) -> GuestSettings {
    let link_local = Address { ip: IpAddr::V6(mac(port).link_local()), prefix: 64 };
    GuestSettings {
        addresses: vec![address("10.0.0.5/24"), address("fd00::5/64"), link_local],
        routes: vec![
            route("0.0.0.0/0", "10.0.0.1", false),
            route("::/0", "fd00::1", false),
            route("169.254.169.254/32", "192.0.2.1", true),
        ],
        metric: 100,
        ranges: vec!["10.0.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()],
        ..GuestSettings::default()
    }
}

fn set(texts: &[&str]) -> BTreeSet<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn device(name: &str) -> Applied {
    Applied::GuestDevice(name.parse().unwrap())
}

fn an_attach_gives_the_guest_its_nic(fixture: &mut Fixture<impl TestHost>) {
    fixture.bridge(1500);
    let (path, pin) = fixture.netns("g");
    let port = port(1);
    fixture.twice(&create(&path, pin, port, DEVICE, None));
    let made = fixture.device(port);
    assert_eq!((made.mac, made.mtu, made.up, made.alias.as_ref()), (Some(mac(port).host_side()), 1500, false, None));
    assert!(!made.v6_autoconf && !made.v4_open, "from its first moment, whoever sets it up: {made:?}");
    assert_eq!(fixture.twice(&give(&path, pin, port, given(port))), device("eth0"));
    fixture.twice(&finish(port, BRIDGE));

    let seen = fixture.device(port);
    assert_eq!((seen.index, &seen.kind, seen.up, seen.lower_up), (DEVICE, &Kind::Veth, true, true));
    assert_eq!((seen.master, seen.alias.as_ref()), (Some(BRIDGE), Some(&alias())));
    assert!(seen.bridge_port.is_some_and(|port| port.forwarding && !port.learning) && seen.entry(mac(port), 0).is_some());
    let link_local = format!("{}/64", mac(port).link_local());
    let addresses = set(&["10.0.0.5/24", "fd00::5/64", &link_local]);
    let routes = set(&["0.0.0.0/0", "::/0", "169.254.169.254/32"]);
    assert_eq!(fixture.host_under_test.nic(port, &path, "eth0"), Nic { up: true, addresses, routes });
    assert_eq!(fixture.host.guest_device(port, &path, pin).unwrap().as_str(), "eth0");
}

fn the_guests_end_is_found_by_the_hosts(fixture: &mut Fixture<impl TestHost>) {
    let (path, pin) = fixture.netns("g");
    let port = port(1);
    fixture.apply(&create(&path, pin, port, DEVICE, Some("nic0")));
    fixture.let_go();
    fixture.host_under_test.change_nic(port, &path, "nic0", NicChange::Name("mine"));
    assert_eq!(fixture.twice(&give(&path, pin, port, given(port))), device("mine"));
    assert_eq!(fixture.host.guest_device(port, &path, pin).unwrap().as_str(), "mine");
    fixture.host_under_test.delete(names::port_device(port, 0).as_str());
    fixture.fails(&give(&path, pin, port, given(port)), OpErrorKind::Gone);
    assert_eq!(fixture.host.guest_device(port, &path, pin).unwrap_err().kind, OpErrorKind::Gone);
}

fn what_is_no_longer_listed_goes_and_what_is_the_guests_stays(fixture: &mut Fixture<impl TestHost>) {
    let (path, pin) = fixture.netns("g");
    let port = port(1);
    fixture.apply(&create(&path, pin, port, DEVICE, None));
    fixture.apply(&give(&path, pin, port, given(port)));
    fixture.let_go();
    // One of the guest's own, in none of the network's ranges.
    fixture.host_under_test.change_nic(port, &path, "eth0", NicChange::Address("172.16.0.9/24"));
    let less = GuestSettings {
        addresses: vec![address("10.0.0.6/24")],
        routes: vec![route("0.0.0.0/0", "10.0.0.1", false)],
        ..given(port)
    };
    assert_eq!(fixture.twice(&give(&path, pin, port, less)), device("eth0"));
    let nic = fixture.host_under_test.nic(port, &path, "eth0");
    let link_local = format!("{}/64", mac(port).link_local());
    assert_eq!(nic.addresses, set(&["10.0.0.6/24", "172.16.0.9/24", &link_local]));
    assert_eq!(nic.routes, set(&["0.0.0.0/0"]));
    // What was added by an earlier run of the same attach is not looked for.
    let more = GuestSettings { addresses: vec![address("10.0.0.7/24")], ranges: Vec::new(), ..GuestSettings::default() };
    fixture.apply(&give(&path, pin, port, GuestSettings { metric: 200, ..more }));
    let nic = fixture.host_under_test.nic(port, &path, "eth0");
    assert_eq!(nic.addresses, set(&["10.0.0.6/24", "10.0.0.7/24", "172.16.0.9/24", &link_local]));
    assert_eq!(nic.routes, set(&["0.0.0.0/0"]), "of another metric");
}

fn a_route_that_does_not_fit_costs_itself_alone(fixture: &mut Fixture<impl TestHost>) {
    let (path, pin) = fixture.netns("g");
    let port = port(1);
    fixture.apply(&create(&path, pin, port, DEVICE, None));
    let beyond = route("198.51.100.0/24", "10.7.0.1", false);
    let by_the_route = route("203.0.113.0/24", "192.0.2.1", false);
    let to_the_hop = route("192.0.2.1/32", "0.0.0.0", false);
    let settings = GuestSettings { routes: [given(port).routes, vec![beyond, by_the_route, to_the_hop]].concat(), ..given(port) };
    match fixture.apply(&give(&path, pin, port, settings)) {
        Applied::GuestWithout(name, refused) => {
            assert_eq!((name.as_str(), refused.len()), ("eth0", 1), "{refused:?}");
            assert!(refused[0].contains("198.51.100.0/24 via 10.7.0.1"), "{refused:?}");
        }
        other => panic!("{other:?}"),
    }
    let nic = fixture.host_under_test.nic(port, &path, "eth0");
    assert!(nic.up && nic.routes.contains("203.0.113.0/24") && nic.routes.contains("192.0.2.1/32"), "{nic:?}");
    let multicast = GuestSettings { addresses: vec![address("ff02::1/64")], ..GuestSettings::default() };
    let error = fixture.fails(&give(&path, pin, port, multicast), OpErrorKind::GuestRefused);
    assert!(error.to_string().contains("ff02::1/64"), "{error}");
}

fn the_lowest_free_name_is_taken(fixture: &mut Fixture<impl TestHost>) {
    let (path, pin) = fixture.netns("g");
    for (number, (asked, given_name)) in (0..).zip([(None, "eth0"), (Some("eth2"), "eth2"), (None, "eth1"), (None, "eth3")]) {
        let port = port(number);
        fixture.apply(&create(&path, pin, port, DEVICE + u32::try_from(number).unwrap(), asked));
        assert_eq!(fixture.apply(&give(&path, pin, port, GuestSettings::default())), device(given_name));
    }
    let taken = create(&path, pin, port(9), DEVICE + 9, Some("eth2"));
    fixture.refused(&taken, OpErrorKind::GuestNameTaken);
}

fn only_a_guests_namespace_is_one(fixture: &mut Fixture<impl TestHost>) {
    let (path, pin) = fixture.netns("g");
    assert_eq!(fixture.host.inspect(&path).unwrap().pin, pin);
    assert!(!fixture.host.inspect(&path).unwrap().by_process);
    let (other, of_other) = fixture.netns("h");
    assert_ne!(of_other, pin);
    assert!(matches!(fixture.host.inspect(Path::new("/run/netns/none")), Err(NetnsError::Missing(_))));
    fixture.host_under_test.end_netns(&other);
    assert!(matches!(fixture.host.inspect(&other), Err(NetnsError::Missing(_))));
}

fn another_namespace_than_the_pinned_is_refused(fixture: &mut Fixture<impl TestHost>) {
    let (path, pin) = fixture.netns("g");
    fn refused<W: TestHost>(fixture: &mut Fixture<W>, path: &Path, pin: NetnsPin) {
        let port = port(1);
        fixture.let_go();
        fixture.refused(&create(path, pin, port, DEVICE, None), OpErrorKind::Namespace);
        fixture.refused(&give(path, pin, port, GuestSettings::default()), OpErrorKind::Namespace);
        assert_eq!(fixture.host.guest_device(port, path, pin).unwrap_err().kind, OpErrorKind::Namespace);
    }
    refused(fixture, &path, NetnsPin { cookie: pin.cookie + 1, ..pin });
    refused(fixture, &path, NetnsPin { boot_id: uuid::Uuid::nil(), ..pin });
    fixture.host_under_test.end_netns(&path);
    refused(fixture, &path, pin);
    fixture.host_under_test.add_netns("g");
    refused(fixture, &path, pin);
}

fn a_namespace_takes_its_nics_along(fixture: &mut Fixture<impl TestHost>) {
    let (path, pin) = fixture.netns("g");
    let port = port(1);
    fixture.apply(&create(&path, pin, port, DEVICE, None));
    fixture.let_go();
    fixture.host_under_test.end_netns(&path);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while fixture.try_device(port).is_some() {
        assert!(std::time::Instant::now() < deadline, "the namespace is still there");
        std::thread::yield_now();
    }
}

fn a_veth_that_clashes_leaves_nothing(fixture: &mut Fixture<impl TestHost>) {
    let (path, pin) = fixture.netns("g");
    let port = port(1);
    let name = names::port_device(port, 0);
    fixture.host_under_test.add(name.as_str(), Kind::Bridge, 1500);
    fixture.refused(&create(&path, pin, port, DEVICE, None), OpErrorKind::Taken);
    fixture.host_under_test.delete(name.as_str());
    let index = fixture.host_under_test.add("foreign", Kind::Bridge, 1500);
    fixture.refused(&create(&path, pin, port, index, None), OpErrorKind::Taken);
    fixture.host_under_test.change("foreign", Change::Altname(&names::port_altname(port)));
    fixture.refused(&create(&path, pin, port, DEVICE, None), OpErrorKind::Taken);
    // Nothing is left inside either.
    fixture.host_under_test.delete("foreign");
    fixture.apply(&create(&path, pin, port, DEVICE, None));
    assert_eq!(fixture.host.guest_device(port, &path, pin).unwrap().as_str(), "eth0");
    for master in [ABSENT, fixture.host_under_test.add("other", Kind::Other, 1500)] {
        fixture.fails(&finish(port, master), OpErrorKind::NoBridge);
        let seen = fixture.device(port);
        assert_eq!((seen.alias, seen.up, seen.master), (None, false, None), "what is in no bridge is not tagged");
    }
}
