//! IPv6: addresses that guests make themselves, and router advertisements, to the kernel's own client and octet by octet.

use std::net::Ipv6Addr;
use std::time::Instant;

use serde_json::{Value, json};

use crate::bytes::{IP6, Ip6, Mac, ethernet, group_mac, link_layer, link_local};
use crate::client::{Machine, octets};
use crate::daemon::PATIENCE;
use crate::fixture::{Fixture, text};
use crate::hostile::Ears;
use crate::netns::{Guest, comes_true, in_netns, run};
use crate::wire;

const NONE: Ipv6Addr = Ipv6Addr::UNSPECIFIED;
const ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// A network with an IPv4 subnet and one of IPv6 whose guests make their addresses; their ids.
fn network(fixture: &mut Fixture) -> (String, String) {
    let network = fixture.network(json!({"name": "blue", "mtu": 1400}));
    fixture.subnet(&network, "192.0.2.0/24");
    let subnet = json!({"network_id": network, "cidr": "fd00:a::/64", "ipv6_address_mode": "slaac", "ipv6_ra_mode": "slaac",
        "gateway_ip": "fe80::1", "dns_nameservers": ["fd00:a::53"],
        "host_routes": [{"destination": "fd09::/48", "nexthop": "fe80::1"}, {"destination": "fd0a::/48", "nexthop": "fe80::9"}]});
    let subnet = fixture.subnet_with(subnet);
    (network, subnet)
}

/// A router advertisement as it came: to which MAC, from and to which address, and what is behind ICMPv6's checksum.
#[derive(Debug, PartialEq, Eq)]
pub struct Advert {
    to: [u8; 6],
    source: Ipv6Addr,
    target: Ipv6Addr,
    said: Vec<u8>,
}

/// The next one that a machine is sent, whose checksum must be whole.
fn advert(vm: &Machine) -> Advert {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let frame = vm.next_frame(deadline).expect("an advertisement");
        let Ok(packet) = etherparse::SlicedPacket::from_ethernet(&frame) else { continue };
        let (Some(etherparse::NetSlice::Ipv6(ip)), Some(etherparse::TransportSlice::Icmpv6(icmp))) =
            (&packet.net, &packet.transport)
        else {
            continue;
        };
        if icmp.type_u8() != 134 {
            continue;
        }
        let header = ip.header();
        assert!(icmp.is_checksum_valid(header.source(), header.destination()));
        assert_eq!((header.hop_limit(), icmp.code_u8()), (255, 0));
        let said = [&icmp.bytes5to8()[..], icmp.payload()].concat();
        return Advert {
            to: frame[..6].try_into().unwrap(),
            source: header.source_addr(),
            target: header.destination_addr(),
            said,
        };
    }
}

/// The address of fd00:a::/64 that a guest with this MAC makes.
pub fn made(mac: Mac) -> String {
    let octets = [&[0xfd, 0, 0, 10, 0, 0, 0, 0], &link_local(mac).octets()[8..]].concat();
    Ipv6Addr::from(<[u8; 16]>::try_from(octets).unwrap()).to_string()
}

fn solicit(vm: &Machine, from: Ipv6Addr, options: &[u8]) {
    let packet = Ip6 { id: 1, from, to: ROUTERS };
    vm.send_frame(&ethernet(group_mac(ROUTERS), vm.mac, IP6, &packet.of_icmp(133, &[&[0; 4], options].concat())));
}

/// A guest that asks sooner is not answered again.
fn pause() {
    std::thread::sleep(std::time::Duration::from_millis(100));
}

#[test]
fn a_solicitation_is_answered_with_what_the_subnet_says_to_its_sender_alone() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let (network, subnet) = network(&mut fixture);
        let vm = Machine::start(&mut fixture, &network);
        let other = Machine::start(&mut fixture, &network);
        let own = link_local(vm.mac);
        let made = text(&fixture.port(&vm.port)["fixed_ips"][1]["ip_address"]).parse::<Ipv6Addr>().unwrap();
        assert_eq!(made.octets(), [&[0xfd, 0, 0, 10, 0, 0, 0, 0], &own.octets()[8..]].concat()[..]);
        for (from, options, target) in [(own, link_layer(1, vm.mac), own), (NONE, Vec::new(), NODES)] {
            pause();
            solicit(&vm, from, &options);
            let first = advert(&vm);
            assert_eq!((first.to, first.source, first.target), (vm.mac, "fe80::1".parse().unwrap(), target));
            assert_eq!(first.said[..4], [64, 0, 0xff, 0xff]);
            for option in [
                &[5, 1, 0, 0, 0, 0, 5, 0x78][..],
                &[3, 4, 64, 0xc0, 0, 1, 0x51, 0x80, 0, 1, 0x51, 0x80, 0, 0, 0, 0, 0xfd, 0, 0, 10],
                &[25, 3, 0, 0, 0, 1, 0x51, 0x80, 0xfd, 0, 0, 10],
                &[24, 2, 48, 0, 0, 1, 0x51, 0x80, 0xfd, 9],
            ] {
                assert!(first.said.windows(option.len()).any(|part| part == option), "{option:?}: {first:?}");
            }
            // The route by another router is that one's to tell.
            let second = advert(&vm);
            assert_eq!((second.source, &second.said[..4]), ("fe80::9".parse().unwrap(), &[64, 0, 0, 0][..]));
            assert!(second.said.ends_with(&[24, 2, 48, 0, 0, 1, 0x51, 0x80, 0xfd, 10, 0, 0, 0, 0, 0, 0]), "{second:?}");
        }
        // A change is told at once, and what no longer holds with it.
        let change = json!({"subnet": {"gateway_ip": null, "host_routes": [], "dns_nameservers": []}});
        fixture.api.put(&format!("/v2.0/subnets/{subnet}"), &change).expect(200);
        let told = [advert(&vm), advert(&vm), advert(&vm)];
        let own_router = link_local([&[0xfe], &vm.mac[1..]].concat().try_into().unwrap());
        assert_eq!(told.each_ref().map(|one| one.source), [own_router, "fe80::1".parse().unwrap(), "fe80::9".parse().unwrap()]);
        assert!(told.iter().all(|one| one.said[2..4] == [0, 0] && one.target == NODES && one.to == vm.mac), "{told:?}");
        let gone = [25, 3, 0, 0, 0, 0, 0, 0, 0xfd];
        assert!(told[0].said.windows(gone.len()).any(|part| part == gone), "{told:?}");
        // Who is told nothing any more is told that.
        fixture.api.put(&format!("/v2.0/ports/{}", vm.port), &json!({"port": {"nicd:dhcp": false}})).expect(200);
        assert_ended(&advert(&vm), own_router);
        // The neighbour heard neither the questions nor the answers, and is told of the change too.
        let first = advert(&other);
        assert_eq!((first.to, first.target), (other.mac, NODES));
        let metrics = fixture.api.get("/metrics").text;
        assert!(metrics.contains("nicd_dhcp_received_total{type=\"router_solicitation\"} 2"), "{metrics}");
    });
}

#[test]
fn the_kernels_client_makes_its_address_and_goes_by_the_router() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let (network, subnet) = network(&mut fixture);
        let (guest, _, port) = fixture.active_guest("a", &network);
        let made = text(&fixture.port(&port)["fixed_ips"][1]["ip_address"]);
        // What nicd has set is not there for a time only because an advertisement came.
        wait_route(&guest, "fe80::1");
        let shown = guest.ip_json("-6 address show dev eth0 scope global");
        let kept = |one: &Value| one["local"] == made.as_str() && one["valid_life_time"] == u32::MAX;
        assert!(shown[0]["addr_info"].as_array().unwrap().iter().any(kept), "{shown}");
        guest.ip("link set eth0 down");
        guest.ip("-6 address flush dev eth0");
        guest.ip("link set eth0 addrgenmode eui64");
        guest.ip("link set eth0 up");
        wait_route(&guest, "fe80::1");
        let is_there = |shown: &Value| {
            shown[0]["addr_info"].as_array().is_some_and(|all| all.iter().any(|one| one["local"] == made.as_str()))
        };
        wait(|| is_there(&guest.ip_json("-6 address show dev eth0 scope global")), "the address");
        assert_eq!(run("ip netns exec a cat /proc/sys/net/ipv6/conf/eth0/mtu").trim(), "1400");
        // A router with a global address is told by its link-local one, as soon as it is known: when it is a guest.
        fixture.api.put(&format!("/v2.0/subnets/{subnet}"), &json!({"subnet": {"gateway_ip": "fd00:a::1"}})).expect(200);
        wait(|| !guest.ip("-6 route show default").contains("proto ra"), "the route's end");
        let router =
            json!({"network_id": network, "mac_address": "fa:16:3e:00:00:07", "fixed_ips": [{"ip_address": "fd00:a::1"}]});
        let router = fixture.create_port(router);
        let server = fixture.vm();
        fixture.attach(&server, json!({ "port_id": router }));
        wait_route(&guest, "fe80::f816:3eff:fe00:7");
        fixture.daemon.kill();
        assert!(guest.ip("-6 route show default").contains("fe80::f816:3eff:fe00:7"), "a stop tells nothing");
        fixture.launch();
        fixture.detach(&server, &router);
    });
}

/// An advertisement takes back the router and the prefix.
fn assert_ended(told: &Advert, router: Ipv6Addr) {
    assert_eq!((told.source, told.target, &told.said[..4]), (router, NODES, &[64, 0, 0, 0][..]));
    let prefixes: Vec<&[u8]> = told.said.windows(12).filter(|part| part[..3] == [3, 4, 64]).collect();
    assert!(prefixes.len() == 1 && prefixes[0][4..] == [0; 8], "{told:?}");
}

#[test]
fn a_router_on_the_wire_is_asked_for_as_long_as_nicd_knows_none() {
    in_netns(|| {
        let wire = wire();
        let mut fixture = Fixture::start();
        let network = fixture.network_on("br-op");
        let subnet = fixture.subnet_with(json!({"network_id": network, "cidr": "fd00:a::/64"}));
        let vm = Machine::start(&mut fixture, &network);
        let private: Ipv6Addr = "fe80::1234:5678:9abc:def0".parse().unwrap();
        let is_asked = |frame: &[u8]| frame[6..12] == vm.mac && frame[12..14] == IP6.to_be_bytes() && frame[54] == 133;
        let ears = wire.inside(|| Ears::on("eth0"));
        solicit(&vm, private, &link_layer(1, vm.mac));
        let heard = ears.until(is_asked).pop().unwrap();
        // The guest's own address, which is not to be had with its MAC, is not told.
        assert_eq!((&heard[..6], &heard[22..38]), (&group_mac(ROUTERS)[..], &[0; 16][..]));
        let first = advert(&vm);
        assert_eq!((first.target, &first.said[..4]), (private, &[64, 0xc0, 0, 0][..]));
        // This host becomes the router: guests are told, and ask no other machine.
        run("ip -6 address add fe80::1/64 dev br-op nodad");
        run("ip -6 address add fd00:a::1/64 dev br-op nodad");
        let host: Ipv6Addr = "fe80::1".parse().unwrap();
        let led = std::iter::repeat_with(|| advert(&vm)).find(|told| told.source == host).unwrap();
        assert_eq!(led.said[..4], [64, 0xc0, 0xff, 0xff]);
        pause();
        solicit(&vm, private, &[]);
        while advert(&vm).target != private {}
        let packet = Ip6 { id: 1, from: link_local(vm.mac), to: NODES };
        vm.send_frame(&ethernet(group_mac(NODES), vm.mac, IP6, &packet.of_icmp(128, &[0; 4])));
        let heard = ears.until(|frame| frame[6..12] == vm.mac && frame[12..14] == IP6.to_be_bytes() && frame[54] == 128);
        assert!(!heard.iter().any(|frame| is_asked(frame)), "{heard:?}");
        fixture.api.put(&format!("/v2.0/subnets/{subnet}"), &json!({"subnet": {"enable_dhcp": false}})).expect(200);
        assert_ended(&advert(&vm), host);
    });
}

pub fn wait_route(guest: &Guest, via: &str) {
    let told = || guest.ip("-6 route show default");
    wait(
        || told().lines().filter(|line| line.contains("proto ra")).all(|line| line.contains(via)) && told().contains("proto ra"),
        via,
    );
}

fn wait(until: impl FnMut() -> bool, what: &str) {
    comes_true(PATIENCE, until, || what.to_owned());
}

#[test]
fn an_address_that_a_guest_makes_is_the_one_of_its_mac() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let (network, subnet) = network(&mut fixture);
        let mac = "fa:16:3e:00:00:07";
        let port = fixture.create_port(json!({"network_id": network, "mac_address": mac}));
        let addresses = |shown: &Value| -> Vec<String> {
            shown["fixed_ips"].as_array().unwrap().iter().map(|ip| text(&ip["ip_address"])).collect()
        };
        assert_eq!(addresses(&fixture.port(&port)), ["192.0.2.2", "fd00:a::f816:3eff:fe00:7"]);
        let path = format!("/v2.0/ports/{port}");
        let changed = fixture.api.put(&path, &json!({"port": {"mac_address": "fa:16:3e:00:00:08"}})).expect(200);
        assert_eq!(addresses(&changed["port"]), ["192.0.2.2", "fd00:a::f816:3eff:fe00:8"]);
        let refused = fixture.api.put(&path, &json!({"port": {"fixed_ips": [{"ip_address": "fd00:a::9"}]}})).expect(400);
        assert_eq!(refused["NeutronError"]["reason"], "address_not_usable");
        assert!(text(&refused["NeutronError"]["message"]).contains("fd00:a::f816:3eff:fe00:8"), "{refused}");
        let given = json!([{"subnet_id": subnet}, {"ip_address": "192.0.2.9"}]);
        let changed = fixture.api.put(&path, &json!({"port": {"fixed_ips": given}})).expect(200);
        assert_eq!(addresses(&changed["port"]), ["fd00:a::f816:3eff:fe00:8", "192.0.2.9"]);
        // What it makes anyhow it has beside what is asked for, and keeps.
        let made = "fd00:a::f816:3eff:fe00:9";
        let given =
            json!({"network_id": network, "mac_address": "fa:16:3e:00:00:09", "fixed_ips": [{"ip_address": "192.0.2.50"}]});
        let beside = fixture.create_port(given);
        assert_eq!(addresses(&fixture.port(&beside)), ["192.0.2.50", made]);
        let path = format!("/v2.0/ports/{beside}");
        for (asked, has) in [
            (json!([{"ip_address": "192.0.2.51"}]), vec!["192.0.2.51", made]),
            (json!([]), vec![]),
            (json!([{"ip_address": "192.0.2.52"}]), vec!["192.0.2.52"]),
        ] {
            let changed = fixture.api.put(&path, &json!({"port": {"fixed_ips": asked}})).expect(200);
            assert_eq!(addresses(&changed["port"]), has);
        }
        // The modes stay as they were made, and DHCP with them.
        let subnet = format!("/v2.0/subnets/{subnet}");
        for (change, status) in [
            (json!({"ipv6_ra_mode": null}), 400),
            (json!({"ipv6_ra_mode": "slaac", "name": "x"}), 200),
            (json!({"enable_dhcp": false}), 400),
        ] {
            fixture.api.put(&subnet, &json!({ "subnet": change })).expect(status);
        }
        for wrong in [
            json!({"cidr": "fd00:b::/80", "ipv6_ra_mode": "slaac"}),
            json!({"cidr": "fd00:b::/64", "ipv6_ra_mode": "slaac", "enable_dhcp": false}),
            json!({"cidr": "198.51.100.0/24", "ipv6_address_mode": "slaac"}),
            json!({"cidr": "fd00:b::/64", "ipv6_ra_mode": "stateful"}),
        ] {
            let mut wrong = wrong;
            wrong["network_id"] = network.clone().into();
            fixture.api.post("/v2.0/subnets", &json!({ "subnet": wrong })).expect(400);
        }
    });
}

#[test]
fn ports_that_are_there_get_and_lose_the_addresses_that_their_guests_make_with_the_subnet() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let blue = fixture.network(json!({"name": "blue"}));
        fixture.subnet(&blue, "192.0.2.0/24");
        let (guest, _, port) = fixture.active_guest("a", &blue);
        let vm = Machine::start(&mut fixture, &blue);
        let router = fixture.create_port(json!({"network_id": blue, "mac_address": "fa:16:3e:00:00:07"}));
        let all: Vec<Value> = (10..26).map(|host| json!({"ip_address": format!("192.0.2.{host}")})).collect();
        let full = fixture.create_port(json!({"network_id": blue, "fixed_ips": all}));
        let v6 = |fixture: &mut Fixture, port: &str| -> Vec<String> {
            let shown = fixture.port(port)["fixed_ips"].clone();
            let addresses = shown.as_array().unwrap().iter().map(|ip| text(&ip["ip_address"]));
            addresses.filter(|address| address.contains(':')).collect()
        };
        let asked = json!({"network_id": blue, "cidr": "fd00:a::/64", "ipv6_address_mode": "slaac", "ipv6_ra_mode": "slaac"});
        let subnet = fixture.subnet_with(asked.clone());
        let mac = octets(&text(&fixture.port(&port)["mac_address"]));
        let given = [made(mac), made(vm.mac), "fd00:a::f816:3eff:fe00:7".to_owned()];
        for (port, address) in [&port, &vm.port, &router].into_iter().zip(&given) {
            assert_eq!(v6(&mut fixture, port), [address.as_str()], "{port}");
        }
        assert!(v6(&mut fixture, &full).is_empty(), "a port has at most 16 addresses");
        // Answered means built: the guest in its namespace has it, what the other one sends from it is heard, and it is told the prefix.
        let shown = || guest.ip("-6 address show dev eth0 scope global");
        assert!(shown().contains(&given[0]), "{}", shown());
        let prefix = [3, 4, 64, 0xc0, 0, 1, 0x51, 0x80, 0, 1, 0x51, 0x80, 0, 0, 0, 0, 0xfd, 0, 0, 10];
        let told = advert(&vm);
        assert!(told.said.windows(prefix.len()).any(|part| part == prefix), "{told:?}");
        let ears = guest.inside(|| Ears::on("eth0"));
        let ping = Ip6 { id: 1, from: given[1].parse().unwrap(), to: given[0].parse().unwrap() };
        vm.send_frame(&ethernet(mac, vm.mac, IP6, &ping.of_icmp(128, &[0; 4])));
        ears.until(|frame| frame[6..12] == vm.mac && frame[12..14] == IP6.to_be_bytes() && frame[54] == 128);
        // A restart finds them, and nothing to do.
        fixture.daemon.kill();
        fixture.launch();
        assert_eq!(fixture.verified()["deviations"], json!([]));
        assert_eq!(v6(&mut fixture, &router), [given[2].as_str()]);
        // Its gateway's address a port was given; the others go with the subnet.
        let path = format!("/v2.0/subnets/{subnet}");
        let gateway = |fixture: &mut Fixture, ips: Value| {
            fixture.api.put(&format!("/v2.0/ports/{router}"), &json!({"port": {"fixed_ips": ips}})).expect(200);
        };
        gateway(&mut fixture, json!([{"ip_address": "fd00:a::1"}]));
        let refused = fixture.api.delete(&path).expect(409);
        assert_eq!(refused["NeutronError"]["reason"], "subnet_in_use");
        assert_eq!(v6(&mut fixture, &port), [given[0].as_str()]);
        gateway(&mut fixture, json!([{"subnet_id": subnet}]));
        fixture.api.delete(&path).expect(204);
        for port in [&port, &vm.port, &router] {
            assert!(v6(&mut fixture, port).is_empty(), "{port}");
        }
        assert!(!shown().contains("fd00:a:"), "{}", shown());
        let ends = |told: &Advert| told.said.windows(12).any(|part| part[..3] == [3, 4, 64] && part[4..] == [0; 8]);
        while !ends(&advert(&vm)) {}
        let subnet = fixture.subnet_with(asked);
        assert_eq!(v6(&mut fixture, &router), [given[2].as_str()]);
        // A guest that could not be told loses its address later, also when nicd has died since.
        fixture.daemon.kill();
        fixture.daemon.set_failpoints(Some("op.configure_guest:1+:fail=EIO"));
        fixture.launch();
        assert!(shown().contains(&given[0]), "{}", shown());
        fixture.api.delete(&format!("/v2.0/subnets/{subnet}")).expect(204);
        fixture.daemon.kill();
        assert!(shown().contains(&given[0]), "{}", shown());
        fixture.daemon.set_failpoints(None);
        fixture.launch();
        wait(|| !shown().contains("fd00:a:"), "the address is gone");
        assert_eq!(fixture.verified()["deviations"], json!([]));
    });
}
