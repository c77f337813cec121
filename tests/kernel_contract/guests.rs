//! Veth pairs, and what the guest is given.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use nicd::kernel::{Applied, Host, NetnsError, Trouble};
use nicd::model::{NetnsPin, PortId, names};
use nicd::plan::{Address, GuestSettings, Kind, LinkSettings, Op, Route, Switch};

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
    let seal = Some(seal(Switch::Up));
    configure(port, LinkSettings { mark: false, ip_off: false, mac: None, mtu: None, seal, ..settings(port, master) })
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

fn an_attach_gives_the_guest_its_nic(bench: &mut Bench<impl World>) {
    bench.bridge(1500);
    let (path, pin) = bench.netns("g");
    let port = port(1);
    bench.twice(&create(&path, pin, port, DEVICE, None));
    let made = bench.device(port);
    assert_eq!((made.mac, made.mtu, made.up, made.alias.as_ref()), (Some(mac(port).host_side()), 1500, false, None));
    assert!(!made.v6_autoconf && !made.v4_open, "from its first moment, whoever sets it up: {made:?}");
    assert_eq!(bench.twice(&give(&path, pin, port, given(port))), device("eth0"));
    bench.twice(&finish(port, BRIDGE));

    let seen = bench.device(port);
    assert_eq!((seen.index, &seen.kind, seen.up, seen.lower_up), (DEVICE, &Kind::Veth, true, true));
    assert_eq!((seen.master, seen.alias.as_ref()), (Some(BRIDGE), Some(&seal(Switch::Up).alias)));
    assert!(seen.bridge_port.is_some_and(|port| port.forwarding && !port.learning) && seen.entry(mac(port), 0).is_some());
    let link_local = format!("{}/64", mac(port).link_local());
    let addresses = set(&["10.0.0.5/24", "fd00::5/64", &link_local]);
    let routes = set(&["0.0.0.0/0", "::/0", "169.254.169.254/32"]);
    assert_eq!(bench.world.nic(port, &path, "eth0"), Nic { up: true, addresses, routes });
    assert_eq!(bench.host.guest_device(port, &path, pin).unwrap().as_str(), "eth0");
}

fn the_guests_end_is_found_by_the_hosts(bench: &mut Bench<impl World>) {
    let (path, pin) = bench.netns("g");
    let port = port(1);
    bench.apply(&create(&path, pin, port, DEVICE, Some("nic0")));
    bench.let_go();
    bench.world.change_nic(port, &path, "nic0", NicChange::Name("mine"));
    assert_eq!(bench.twice(&give(&path, pin, port, given(port))), device("mine"));
    assert_eq!(bench.host.guest_device(port, &path, pin).unwrap().as_str(), "mine");
    bench.world.delete(names::port_device(port, 0).as_str());
    bench.fails(&give(&path, pin, port, given(port)), Trouble::Gone);
    assert_eq!(bench.host.guest_device(port, &path, pin).unwrap_err().trouble, Trouble::Gone);
}

fn what_is_no_longer_listed_goes_and_what_is_the_guests_stays(bench: &mut Bench<impl World>) {
    let (path, pin) = bench.netns("g");
    let port = port(1);
    bench.apply(&create(&path, pin, port, DEVICE, None));
    bench.apply(&give(&path, pin, port, given(port)));
    bench.let_go();
    // One of the guest's own, in none of the network's ranges.
    bench.world.change_nic(port, &path, "eth0", NicChange::Address("172.16.0.9/24"));
    let less = GuestSettings {
        addresses: vec![address("10.0.0.6/24")],
        routes: vec![route("0.0.0.0/0", "10.0.0.1", false)],
        ..given(port)
    };
    assert_eq!(bench.twice(&give(&path, pin, port, less)), device("eth0"));
    let nic = bench.world.nic(port, &path, "eth0");
    let link_local = format!("{}/64", mac(port).link_local());
    assert_eq!(nic.addresses, set(&["10.0.0.6/24", "172.16.0.9/24", &link_local]));
    assert_eq!(nic.routes, set(&["0.0.0.0/0"]));
    // What was added by an earlier run of the same attach is not looked for.
    let more = GuestSettings { addresses: vec![address("10.0.0.7/24")], ranges: Vec::new(), ..GuestSettings::default() };
    bench.apply(&give(&path, pin, port, GuestSettings { metric: 200, ..more }));
    let nic = bench.world.nic(port, &path, "eth0");
    assert_eq!(nic.addresses, set(&["10.0.0.6/24", "10.0.0.7/24", "172.16.0.9/24", &link_local]));
    assert_eq!(nic.routes, set(&["0.0.0.0/0"]), "of another metric");
}

fn a_route_that_does_not_fit_costs_itself_alone(bench: &mut Bench<impl World>) {
    let (path, pin) = bench.netns("g");
    let port = port(1);
    bench.apply(&create(&path, pin, port, DEVICE, None));
    let beyond = route("198.51.100.0/24", "10.7.0.1", false);
    let by_the_route = route("203.0.113.0/24", "192.0.2.1", false);
    let to_the_hop = route("192.0.2.1/32", "0.0.0.0", false);
    let settings = GuestSettings { routes: [given(port).routes, vec![beyond, by_the_route, to_the_hop]].concat(), ..given(port) };
    match bench.apply(&give(&path, pin, port, settings)) {
        Applied::GuestWithout(name, refused) => {
            assert_eq!((name.as_str(), refused.len()), ("eth0", 1), "{refused:?}");
            assert!(refused[0].contains("198.51.100.0/24 via 10.7.0.1"), "{refused:?}");
        }
        other => panic!("{other:?}"),
    }
    let nic = bench.world.nic(port, &path, "eth0");
    assert!(nic.up && nic.routes.contains("203.0.113.0/24") && nic.routes.contains("192.0.2.1/32"), "{nic:?}");
    let multicast = GuestSettings { addresses: vec![address("ff02::1/64")], ..GuestSettings::default() };
    let error = bench.fails(&give(&path, pin, port, multicast), Trouble::GuestRefused);
    assert!(error.to_string().contains("ff02::1/64"), "{error}");
}

fn the_lowest_free_name_is_taken(bench: &mut Bench<impl World>) {
    let (path, pin) = bench.netns("g");
    for (number, (asked, given_name)) in (0..).zip([(None, "eth0"), (Some("eth2"), "eth2"), (None, "eth1"), (None, "eth3")]) {
        let port = port(number);
        bench.apply(&create(&path, pin, port, DEVICE + u32::try_from(number).unwrap(), asked));
        assert_eq!(bench.apply(&give(&path, pin, port, GuestSettings::default())), device(given_name));
    }
    let taken = create(&path, pin, port(9), DEVICE + 9, Some("eth2"));
    bench.refused(&taken, Trouble::GuestNameTaken);
}

fn only_a_guests_namespace_is_one(bench: &mut Bench<impl World>) {
    let (path, pin) = bench.netns("g");
    assert_eq!(bench.host.inspect(&path).unwrap().pin, pin);
    assert!(!bench.host.inspect(&path).unwrap().by_process);
    let (other, of_other) = bench.netns("h");
    assert_ne!(of_other, pin);
    assert!(matches!(bench.host.inspect(Path::new("/run/netns/none")), Err(NetnsError::Missing(_))));
    bench.world.end_netns(&other);
    assert!(matches!(bench.host.inspect(&other), Err(NetnsError::Missing(_))));
}

fn another_namespace_than_the_pinned_is_refused(bench: &mut Bench<impl World>) {
    let (path, pin) = bench.netns("g");
    fn refused<W: World>(bench: &mut Bench<W>, path: &Path, pin: NetnsPin) {
        let port = port(1);
        bench.let_go();
        bench.refused(&create(path, pin, port, DEVICE, None), Trouble::Namespace);
        bench.refused(&give(path, pin, port, GuestSettings::default()), Trouble::Namespace);
        assert_eq!(bench.host.guest_device(port, path, pin).unwrap_err().trouble, Trouble::Namespace);
    }
    refused(bench, &path, NetnsPin { cookie: pin.cookie + 1, ..pin });
    refused(bench, &path, NetnsPin { boot_id: uuid::Uuid::nil(), ..pin });
    bench.world.end_netns(&path);
    refused(bench, &path, pin);
    bench.world.add_netns("g");
    refused(bench, &path, pin);
}

fn a_namespace_takes_its_nics_along(bench: &mut Bench<impl World>) {
    let (path, pin) = bench.netns("g");
    let port = port(1);
    bench.apply(&create(&path, pin, port, DEVICE, None));
    bench.let_go();
    bench.world.end_netns(&path);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while bench.try_device(port).is_some() {
        assert!(std::time::Instant::now() < deadline, "the namespace is still there");
        std::thread::yield_now();
    }
}

fn a_veth_that_clashes_leaves_nothing(bench: &mut Bench<impl World>) {
    let (path, pin) = bench.netns("g");
    let port = port(1);
    let name = names::port_device(port, 0);
    bench.world.add(name.as_str(), Kind::Bridge, 1500);
    bench.refused(&create(&path, pin, port, DEVICE, None), Trouble::Taken);
    bench.world.delete(name.as_str());
    let index = bench.world.add("foreign", Kind::Bridge, 1500);
    bench.refused(&create(&path, pin, port, index, None), Trouble::Taken);
    bench.world.change("foreign", Change::Altname(&names::port_altname(port)));
    bench.refused(&create(&path, pin, port, DEVICE, None), Trouble::Taken);
    // Nothing is left inside either.
    bench.world.delete("foreign");
    bench.apply(&create(&path, pin, port, DEVICE, None));
    assert_eq!(bench.host.guest_device(port, &path, pin).unwrap().as_str(), "eth0");
    for master in [ABSENT, bench.world.add("other", Kind::Other, 1500)] {
        bench.fails(&finish(port, master), Trouble::NoBridge);
        let seen = bench.device(port);
        assert_eq!((seen.alias, seen.up, seen.master), (None, false, None), "what is in no bridge is not sealed");
    }
}
