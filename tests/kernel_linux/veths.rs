//! Veth pairs and what the guest is given.

use std::net::IpAddr;

use nicd::kernel::{Applied, Host, OpErrorKind};
use nicd::model::{Mac, NetnsPin, PortId, names};
use nicd::plan::{Address, At, GuestSettings, Kind, Op, Route, Switch};

use crate::host::{BRIDGE, DEVICE, LinuxFixture, ip_link, joined, mac, port, tag, v6_addresses};
use crate::netns::{Guest, in_netns, run};

fn create(guest: &Guest, pin: NetnsPin, port: PortId, index: u32, name: Option<&str>) -> Op {
    Op::CreateVeth {
        port,
        index,
        name: names::port_device(port, 0),
        netns: guest.path.clone(),
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
    let changes = joined(port, master).into_iter().chain([tag("store 1", Switch::Up)]).collect();
    Op::Configure { port, at: At::Altname, changes }
}

fn guest_op(guest: &Guest, pin: NetnsPin, port: PortId, settings: GuestSettings) -> Op {
    Op::ConfigureGuest { port, netns: guest.path.clone(), pin, settings }
}

fn address(text: &str) -> Address {
    let (ip, prefix) = text.split_once('/').unwrap();
    Address { ip: ip.parse().unwrap(), prefix: prefix.parse().unwrap() }
}

fn route(destination: &str, via: &str, onlink: bool) -> Route {
    Route { destination: destination.parse().unwrap(), via: via.parse().unwrap(), onlink, metric: 100 }
}

fn given(mac: Mac) -> GuestSettings {
    GuestSettings {
        name: None,
        addresses: vec![address("10.0.0.5/24"), address("fd00::5/64"), Address { ip: IpAddr::V6(mac.link_local()), prefix: 64 }],
        routes: vec![
            route("0.0.0.0/0", "10.0.0.1", false),
            route("::/0", "fd00::1", false),
            route("169.254.169.254/32", "192.0.2.1", true),
        ],
        ..GuestSettings::default()
    }
}

#[test]
fn an_attach_gives_the_guest_its_nic() {
    in_netns(|| {
        let mut host = LinuxFixture::open();
        host.bridge(1500);
        let guest = Guest::new("g");
        let pin = host.kernel.inspect(&guest.path).unwrap().pin;
        let port = port(1);
        host.twice(&create(&guest, pin, port, DEVICE, None));
        let shown = ip_link(names::port_device(port, 0).as_str());
        assert_eq!(shown["inet6_addr_gen_mode"], "none", "from its first moment, whoever sets it up");
        let configure = guest_op(&guest, pin, port, given(mac(port)));
        assert_eq!(host.apply(&configure), Applied::GuestDevice("eth0".parse().unwrap()));
        let before = guest.ip("-d addr");
        assert_eq!(host.apply(&configure), Applied::GuestDevice("eth0".parse().unwrap()));
        assert_eq!(guest.ip("-d addr"), before);
        host.twice(&finish(port, BRIDGE));

        let seen = host.get_link(port).unwrap();
        assert_eq!((seen.index, seen.kind.clone(), seen.up, seen.lower_up), (DEVICE, Kind::Veth, true, true));
        assert_eq!((seen.mac, seen.mtu, seen.master), (Some(mac(port).host_side()), 1500, Some(BRIDGE)));
        let bridge_port = seen.bridge_port.unwrap();
        assert!(bridge_port.forwarding && !bridge_port.learning && !seen.v6_autoconf);
        assert!(run(&format!("bridge fdb show dev {}", names::port_device(port, 0))).contains(&mac(port).to_string()));
        assert_eq!(v6_addresses(), 0);
        let nic = &guest.ip_json("-d addr show eth0")[0];
        assert_eq!((nic["mtu"].as_u64(), nic["link_index"].as_u64()), (Some(1450), Some(DEVICE.into())));
        assert!(nic["ifindex"].as_u64().unwrap() < 65536, "{nic}");
        assert_eq!(nic["address"], mac(port).to_string());
        let addresses: Vec<_> = nic["addr_info"].as_array().unwrap().iter().map(|a| (a["local"].as_str().unwrap(), a)).collect();
        assert_eq!(addresses.len(), 3, "{addresses:?}");
        assert!(addresses.iter().any(|(ip, a)| *ip == "10.0.0.5" && a["broadcast"] == "10.0.0.255"));
        for (ip, shown) in addresses.iter().filter(|(ip, _)| ip.contains(':')) {
            assert!(shown["nodad"] == true && shown["tentative"].is_null(), "{ip}");
        }
        assert!(addresses.iter().any(|(ip, a)| ip.starts_with("fe80") && a["scope"] == "link"));
        let routes = guest.ip("route") + &guest.ip("-6 route");
        for expected in
            ["default via 10.0.0.1 dev eth0", "169.254.169.254 via 192.0.2.1 dev eth0", "default via fd00::1 dev eth0"]
        {
            assert!(routes.contains(expected), "{routes}");
        }
    });
}

#[test]
fn the_guests_end_of_an_earlier_run_is_found() {
    in_netns(|| {
        let mut host = LinuxFixture::open();
        let guest = Guest::new("g");
        let pin = host.kernel.inspect(&guest.path).unwrap().pin;
        let port = port(1);
        host.apply(&create(&guest, pin, port, DEVICE, Some("nic0")));
        host.context = nicd::kernel::linux::ExecContext::default();
        guest.ip("link set nic0 name mine");
        let configure = guest_op(&guest, pin, port, given(mac(port)));
        assert_eq!(host.apply(&configure), Applied::GuestDevice("mine".parse().unwrap()));
        // Moved on by the guest: no longer where it was given.
        let other = Guest::new("h");
        guest.ip("link set mine netns h");
        assert_eq!(host.try_apply(&configure).unwrap_err().kind, OpErrorKind::Gone);
        drop(other);
        run(&format!("ip link del {}", names::port_device(port, 0)));
        assert_eq!(host.try_apply(&configure).unwrap_err().kind, OpErrorKind::Gone);
    });
}

#[test]
fn clashes_are_told_apart_and_leave_nothing() {
    in_netns(|| {
        let mut host = LinuxFixture::open();
        let guest = Guest::new("g");
        let pin = host.kernel.inspect(&guest.path).unwrap().pin;
        let port = port(1);
        let op = |name| create(&guest, pin, port, DEVICE, name);
        guest.ip("link add nic0 index 900 type bridge");
        host.refused(&op(Some("nic0")), OpErrorKind::GuestNameTaken);
        let name = names::port_device(port, 0);
        run(&format!("ip link add {name} type bridge"));
        host.refused(&op(Some("nic0")), OpErrorKind::Taken);
        run(&format!("ip link del {name}"));
        run(&format!("ip link add foreign index {DEVICE} type bridge"));
        host.refused(&op(None), OpErrorKind::Taken);
        assert_eq!(ip_link("foreign")["inet6_addr_gen_mode"], "eui64");
        run("ip link del foreign");
        run("ip link add foreign type bridge");
        run(&format!("ip link property add dev foreign altname {}", names::port_altname(port)));
        host.refused(&op(None), OpErrorKind::Taken);
        assert_eq!(guest.ip_json("link").as_array().unwrap().len(), 2, "lo and nic0 alone");
        host.refused(&create(&guest, pin, port, u32::MAX, None), OpErrorKind::Other);
        // Without the one that has the mark, which is refused first.
        run("ip link del foreign");
        host.apply(&create(&guest, pin, port, DEVICE, None));
        let unfinished = |host: &mut LinuxFixture| {
            assert_eq!(host.try_apply(&finish(port, 4711)).unwrap_err().kind, OpErrorKind::NoBridge);
            let seen = host.get_link(port).unwrap();
            assert_eq!((seen.alias, seen.up, seen.master), (None, false, None), "what is in no bridge is not tagged");
        };
        unfinished(&mut host);
        run("ip link add other index 4711 type veth");
        unfinished(&mut host);
    });
}

#[test]
fn what_the_guest_cannot_take_is_told_with_the_value() {
    in_netns(|| {
        let mut host = LinuxFixture::open();
        let guest = Guest::new("g");
        let pin = host.kernel.inspect(&guest.path).unwrap().pin;
        let port = port(1);
        host.apply(&create(&guest, pin, port, DEVICE, None));
        let refused = |host: &mut LinuxFixture, settings| {
            let op = guest_op(&guest, pin, port, settings);
            let error = host.try_apply(&op).unwrap_err();
            assert_eq!(error.kind, OpErrorKind::GuestRefused, "{error}");
            error.to_string()
        };
        let unreachable = GuestSettings { routes: vec![route("0.0.0.0/0", "10.7.0.1", false)], ..GuestSettings::default() };
        // A route costs itself alone.
        match host.apply(&guest_op(&guest, pin, port, unreachable)) {
            Applied::GuestWithout(_, routes) => assert!(routes[0].contains("0.0.0.0/0 via 10.7.0.1"), "{routes:?}"),
            other => panic!("{other:?}"),
        }
        let multicast = GuestSettings { addresses: vec![address("ff02::1/64")], ..GuestSettings::default() };
        assert!(refused(&mut host, multicast).contains("ff02::1/64"));
        let absent = guest_op(&guest, pin, crate::host::port(2), given(mac(port)));
        assert_eq!(host.try_apply(&absent).unwrap_err().kind, OpErrorKind::Gone);
    });
}

#[test]
fn an_ipv6_address_of_another_prefix_length_is_replaced() {
    in_netns(|| {
        let mut host = LinuxFixture::open();
        let guest = Guest::new("g");
        let pin = host.kernel.inspect(&guest.path).unwrap().pin;
        let port = port(1);
        host.apply(&create(&guest, pin, port, DEVICE, None));
        let settings = GuestSettings { ranges: vec!["fd00::/64".parse().unwrap()], ..given(mac(port)) };
        host.apply(&guest_op(&guest, pin, port, settings.clone()));
        // The kernel takes both for the same address, so the first one that is added is refused with EEXIST.
        guest.ip("addr del fd00::5/64 dev eth0");
        guest.ip("addr add fd00::5/96 dev eth0 nodad");
        host.context = nicd::kernel::linux::ExecContext::default();
        host.apply(&guest_op(&guest, pin, port, settings));
        let shown = guest.ip("-o -6 addr show dev eth0");
        assert!(shown.contains("fd00::5/64") && !shown.contains("fd00::5/96"), "{shown}");
    });
}

#[test]
fn two_nics_may_have_the_same_default() {
    in_netns(|| {
        let mut host = LinuxFixture::open();
        let guest = Guest::new("g");
        let pin = host.kernel.inspect(&guest.path).unwrap().pin;
        for (number, net) in [(1, 1), (2, 2)] {
            let (port, index) = (port(number), DEVICE + 2 * net);
            host.apply(&create(&guest, pin, port, index, None));
            let settings = GuestSettings {
                addresses: vec![address(&format!("10.0.{net}.5/24")), address(&format!("fd0{net}::5/64"))],
                routes: vec![route("0.0.0.0/0", &format!("10.0.{net}.1"), false), route("::/0", &format!("fd0{net}::1"), false)],
                ..GuestSettings::default()
            };
            for _ in 0..2 {
                host.apply(&guest_op(&guest, pin, port, settings.clone()));
            }
        }
        let routes = guest.ip("route");
        assert_eq!(routes.lines().filter(|line| line.starts_with("default")).count(), 2, "{routes}");
        assert!(routes.starts_with("default via 10.0.1.1"), "{routes}");
    });
}

#[test]
fn a_guests_nics_have_indexes_of_the_kernels_choice() {
    in_netns(|| {
        let mut host = LinuxFixture::open();
        let mut number: u32 = 0;
        let mut attach = |host: &mut LinuxFixture, guest: &Guest| {
            let pin = host.kernel.inspect(&guest.path).unwrap().pin;
            number += 1;
            let (port, index) = (port(number.into()), DEVICE + number);
            let name = format!("nic{number}");
            host.apply(&create(guest, pin, port, index, Some(&name)));
            let settings = GuestSettings { addresses: vec![address(&format!("10.0.{number}.5/24"))], ..GuestSettings::default() };
            let configure = guest_op(guest, pin, port, settings);
            assert_eq!(host.apply(&configure), Applied::GuestDevice(name.parse().unwrap()));
            let nic = guest.ip_json(&format!("addr show dev {name}"))[0].clone();
            assert_eq!(nic["link_index"].as_u64(), Some(index.into()), "{nic}");
            assert_eq!(nic["addr_info"][0]["local"], format!("10.0.{number}.5"), "{nic}");
            let (inside, outside) =
                (nic["ifindex"].as_u64().unwrap(), &ip_link(names::port_device(port, 0).as_str())["link_index"]);
            assert_eq!(outside.as_u64(), Some(inside));
            inside
        };
        let (first, second) = (Guest::new("g"), Guest::new("h"));
        for guest in [&first, &second] {
            let indexes: Vec<u64> = (0..3).map(|_| attach(&mut host, guest)).collect();
            assert!(indexes.is_sorted() && indexes[2] < 64, "{indexes:?}");
        }
        for number in 0..50 {
            second.ip(&format!("link add br{number} type bridge"));
        }
        // One far above does not draw those after it up.
        second.ip(&format!("link add far index {} type bridge", DEVICE + 1000));
        assert!(attach(&mut host, &second) < 128);
        first.end();
        assert!(attach(&mut host, &Guest::new("g")) < 64, "the namespace was made anew");
    });
}

#[test]
fn a_namespace_that_is_gone_is_told_with_its_path() {
    in_netns(|| {
        let mut host = LinuxFixture::open();
        let guest = Guest::new("g");
        let pin = host.kernel.inspect(&guest.path).unwrap().pin;
        guest.end();
        let gone = Guest { name: "g".into(), path: "/run/netns/g".into() };
        let error = host.refused(&create(&gone, pin, port(1), DEVICE, None), OpErrorKind::Namespace);
        assert!(error.said.contains("/run/netns/g does not exist"), "{error}");
    });
}
