//! Whose addresses are: no address is two machines' on one segment, also when one of them is the host or on another network.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::daemon::PATIENCE;
use crate::fixture::{Fixture, foreign_bridge, interfaces, text};
use crate::netns::{in_netns, run};

fn first_ip(fixture: &mut Fixture, port: &str) -> String {
    text(&fixture.port(port)["fixed_ips"][0]["ip_address"])
}

/// A network on a bridge with one subnet; answers its id.
fn network_on(fixture: &mut Fixture, bridge: &str, subnet: Value) -> String {
    let network = fixture.network(json!({"nicd:bridge": bridge}));
    let mut subnet = subnet;
    subnet["network_id"] = json!(network);
    fixture.subnet_with(subnet);
    network
}

fn ask(fixture: &mut Fixture, network: &str, ip: &str) -> crate::daemon::Answer {
    fixture.api.post("/v2.0/ports", &json!({"port": {"network_id": network, "fixed_ips": [{"ip_address": ip}]}}))
}

fn kinds(fixture: &mut Fixture) -> Vec<(String, String)> {
    let verified = fixture.verified();
    let deviations = verified["deviations"].as_array().unwrap();
    deviations.iter().map(|one| (text(&one["kind"]), text(&one["object"]))).collect()
}

fn problems(fixture: &mut Fixture) -> Vec<Value> {
    fixture.api.get("/nicd/v1/health").expect(200)["problems"].as_array().unwrap().clone()
}

#[test]
fn the_hosts_addresses_on_its_bridge_are_never_given() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        foreign_bridge("br0", 1500);
        run("ip addr add 10.9.0.2/24 dev br0");
        run("ip addr add 10.9.0.3/24 dev br0");
        run("ip addr add 10.9.0.4/32 dev br0");
        run("ip addr add 192.0.2.1 peer 10.9.0.5/32 dev br0");
        run("ip addr add fd09::2/64 dev br0 nodad");
        run("ip route add 198.51.100.0/24 via 10.9.0.6 dev br0");
        run("ip route add 198.51.101.0/24 via 10.9.0.7 dev br0 table 100");
        run("ip -6 route add fd0a::/64 via fd09::3 dev br0");
        // A VLAN above the bridge is another segment; what else stands on it is on the same one.
        run("ip link add above link br0 type macvlan mode bridge");
        run("ip addr add 10.9.0.8/24 dev above");
        run("ip link add leg type veth peer name foot");
        run("ip link set leg master br0");
        run("ip addr add 10.9.0.9/24 dev foot");
        let network = network_on(&mut fixture, "br0", json!({"cidr": "10.9.0.0/24"}));
        fixture.subnet(&network, "fd09::/64");
        let (_guest, server) = fixture.guest("a");
        let port = fixture.attach_to(&server, &network);
        let ips: Vec<String> =
            fixture.port(&port)["fixed_ips"].as_array().unwrap().iter().map(|ip| text(&ip["ip_address"])).collect();
        assert_eq!(ips, ["10.9.0.10", "fd09::4"]);
        for (ip, device) in [
            ("10.9.0.2", "br0"),
            ("10.9.0.3", "br0"),
            ("10.9.0.4", "br0"),
            ("10.9.0.5", "br0"),
            ("10.9.0.6", "br0"),
            ("10.9.0.7", "br0"),
            ("10.9.0.8", "above"),
            ("10.9.0.9", "foot"),
            ("fd09::2", "br0"),
            ("fd09::3", "br0"),
        ] {
            let error = ask(&mut fixture, &network, ip).refused(409, "address_in_use");
            let message = text(&error["message"]);
            assert!(message.contains(ip) && message.contains("host") && message.contains(device), "{message}");
            let body = json!({"interfaceAttachment": {"net_id": network, "fixed_ips": [{"ip_address": ip}]}});
            fixture.api.post(&interfaces(&server), &body).refused(409, "address_in_use");
            let fixed = json!({"port": {"fixed_ips": [{"ip_address": ip}]}});
            fixture.api.put(&format!("/v2.0/ports/{port}"), &fixed).refused(409, "address_in_use");
        }
        // Each is free once the host has it no longer.
        run("ip addr del 10.9.0.2/24 dev br0");
        run("ip link del above");
        run("ip route del 198.51.100.0/24 via 10.9.0.6 dev br0");
        for ip in ["10.9.0.2", "10.9.0.6", "10.9.0.8"] {
            let deadline = Instant::now() + PATIENCE;
            while ask(&mut fixture, &network, ip).status != 201 {
                assert!(Instant::now() < deadline, "{ip} is still the host's");
                fixture.events.next(Duration::from_millis(20));
            }
        }
    });
}

#[test]
fn next_hops_of_several_ways_and_next_hop_objects_are_kept_too() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        foreign_bridge("br0", 1500);
        // A next-hop object wants carrier.
        run("ip link add port type veth peer name end");
        run("ip link set port master br0 up");
        run("ip link set end up");
        // Routes by objects do not show their next hops themselves.
        std::fs::write("/proc/sys/net/ipv4/nexthop_compat_mode", "0").unwrap();
        run("ip addr add 10.9.0.1/24 dev br0");
        run("ip route add 198.51.100.0/24 nexthop via 10.9.0.2 dev br0 nexthop via 10.9.0.3 dev br0");
        run("ip nexthop add id 7 via 10.9.0.4 dev br0");
        run("ip route add 198.51.101.0/24 nhid 7");
        let network = network_on(&mut fixture, "br0", json!({"cidr": "10.9.0.0/24"}));
        let port = fixture.create_port(json!({ "network_id": network }));
        assert_eq!(first_ip(&mut fixture, &port), "10.9.0.5");
        // The host is the guests' router: that is how such a bridge is mostly used.
        let shown = fixture.api.get("/v2.0/subnets").expect(200);
        assert_eq!(shown["subnets"][0]["gateway_ip"], "10.9.0.1");
        let error = ask(&mut fixture, &network, "10.9.0.1").refused(409, "address_in_use");
        assert!(text(&error["message"]).contains("host"), "{error}");
    });
}

#[test]
fn an_address_that_comes_to_the_bridge_is_not_given_from_then_on() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        foreign_bridge("br0", 1500);
        let network = network_on(&mut fixture, "br0", json!({"cidr": "10.9.0.0/24"}));
        let (_guest, server) = fixture.guest("a");
        for n in [2, 4, 6] {
            run(&format!("ip addr add 10.9.0.{n}/24 dev br0"));
            let port = fixture.attach_to(&server, &network);
            assert_eq!(first_ip(&mut fixture, &port), format!("10.9.0.{}", n + 1));
        }
    });
}

#[test]
fn an_address_that_the_host_takes_from_a_port_is_told() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        foreign_bridge("br0", 1500);
        let network = network_on(&mut fixture, "br0", json!({"cidr": "10.9.0.0/24"}));
        let (_guest, server) = fixture.guest("a");
        let port = fixture.attach_to(&server, &network);
        let made = fixture.create_port(json!({ "network_id": network }));
        assert_eq!(first_ip(&mut fixture, &port), "10.9.0.2");
        assert!(kinds(&mut fixture).is_empty() && problems(&mut fixture).is_empty());
        run("ip addr add 10.9.0.2/24 dev br0");
        run("ip addr add 10.9.0.3/24 dev br0");
        fixture.events.wait_for("told", |event| event["event"] == "agent.degraded" && event["reason"] == "address_of_host");
        let told = kinds(&mut fixture);
        assert!(told.contains(&("address_of_host".into(), format!("port {port}"))), "{told:?}");
        let problem = problems(&mut fixture).into_iter().find(|problem| text(&problem["detail"]).contains(&port)).unwrap();
        assert_eq!(problem["reason"], "address_of_host");
        let detail = text(&problem["detail"]);
        assert!(detail.contains("10.9.0.2") && detail.contains("br0"), "{detail}");
        // The guest has it, and keeps it through what has nothing to do with it; a port that is not built yet is not.
        assert_eq!(fixture.port(&port)["status"], "ACTIVE");
        fixture.api.put(&format!("/v2.0/ports/{port}"), &json!({"port": {"name": "x"}})).expect(200);
        let body = json!({"interfaceAttachment": {"port_id": made}});
        let error = fixture.api.post(&interfaces(&server), &body).refused(409, "address_in_use");
        assert!(text(&error["message"]).contains("host"), "{error}");
        run("ip addr del 10.9.0.3/24 dev br0");
        fixture.events.wait_for("half of it", |event| event["event"] == "agent.recovered" && event["port_id"] == made.as_str());
        fixture.attach(&server, json!({ "port_id": made }));
        fixture
            .api
            .put(&format!("/v2.0/ports/{port}"), &json!({"port": {"fixed_ips": [{"ip_address": "10.9.0.9"}]}}))
            .expect(200);
        assert!(kinds(&mut fixture).is_empty() && problems(&mut fixture).is_empty());
    });
}

#[test]
fn two_networks_on_one_bridge_never_give_one_address_twice() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        foreign_bridge("br0", 1500);
        run("ip link property add dev br0 altname the-same-bridge");
        let one = network_on(&mut fixture, "br0", json!({"cidr": "10.9.0.0/24"}));
        let pools = json!([{"start": "10.9.0.1", "end": "10.9.0.100"}]);
        let apart = json!({"cidr": "10.9.0.0/23", "gateway_ip": "10.9.1.9", "allocation_pools": pools});
        let other = network_on(&mut fixture, "the-same-bridge", apart);
        let ((_a, first), (_b, second)) = (fixture.guest("a"), fixture.guest("b"));
        let mut given = Vec::new();
        for (server, network) in [(&first, &one), (&second, &other), (&first, &one), (&second, &other)] {
            let port = fixture.attach_to(server, network);
            given.push((first_ip(&mut fixture, &port), port));
        }
        let ips: Vec<&str> = given.iter().map(|(ip, _)| ip.as_str()).collect();
        // Neither takes what the other's subnet keeps for its gateway.
        assert_eq!(ips, ["10.9.0.2", "10.9.0.3", "10.9.0.4", "10.9.0.5"]);
        for (ip, asked, has, port) in [("10.9.0.2", &other, &one, &given[0].1), ("10.9.0.3", &one, &other, &given[1].1)] {
            let error = ask(&mut fixture, asked, ip).refused(409, "address_in_use");
            let message = text(&error["message"]);
            assert!([ip, has.as_str(), port.as_str()].iter().all(|part| message.contains(part)), "{message}");
            let fixed = json!({"port": {"fixed_ips": [{"ip_address": ip}]}});
            let mine = if asked == &one { &given[2].1 } else { &given[3].1 };
            fixture.api.put(&format!("/v2.0/ports/{mine}"), &fixed).refused(409, "address_in_use");
        }
        assert!(kinds(&mut fixture).is_empty());
        // Free again when its device has gone, whoever asks.
        fixture.detach(&first, &given[0].1);
        let port = fixture.attach_to(&second, &other);
        assert_eq!(first_ip(&mut fixture, &port), "10.9.0.2");
        // The same after a restart.
        fixture.daemon.kill();
        fixture.launch();
        ask(&mut fixture, &one, "10.9.0.2").refused(409, "address_in_use");
        let port = fixture.create_port(json!({ "network_id": one }));
        assert_eq!(first_ip(&mut fixture, &port), "10.9.0.6");
        // Another bridge is another segment.
        foreign_bridge("br1", 1500);
        let elsewhere = network_on(&mut fixture, "br1", json!({"cidr": "10.9.0.0/24"}));
        let port = fixture.create_port(json!({ "network_id": elsewhere }));
        assert_eq!(first_ip(&mut fixture, &port), "10.9.0.2");
    });
}

#[test]
fn a_bridge_made_anew_or_renamed_is_the_segment_of_all_who_are_on_it() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        fixture.leaves_deviations();
        foreign_bridge("br0", 1500);
        let one = network_on(&mut fixture, "br0", json!({"cidr": "10.9.0.0/24"}));
        let other = network_on(&mut fixture, "br0", json!({"cidr": "10.9.0.0/24"}));
        let taken = fixture.create_port(json!({ "network_id": one }));
        run("ip link del br0");
        foreign_bridge("br0", 1500);
        let port = fixture.create_port(json!({ "network_id": other }));
        assert_eq!(first_ip(&mut fixture, &port), "10.9.0.3");
        run("ip link set br0 down");
        run("ip link set br0 name br9");
        run("ip link set br9 up");
        let third = network_on(&mut fixture, "br9", json!({"cidr": "10.9.0.0/24"}));
        let port = fixture.create_port(json!({ "network_id": third }));
        assert_eq!((first_ip(&mut fixture, &taken), first_ip(&mut fixture, &port)), ("10.9.0.2".into(), "10.9.0.4".into()));
    });
}

#[test]
fn two_records_of_an_older_version_with_one_address_are_told_and_stay() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        foreign_bridge("br0", 1500);
        let one = network_on(&mut fixture, "br0", json!({"cidr": "10.9.0.0/24"}));
        let other = network_on(&mut fixture, "br0", json!({"cidr": "10.9.0.0/24"}));
        let first = fixture.create_port(json!({ "network_id": one }));
        let second = fixture.create_port(json!({ "network_id": other }));
        fixture.daemon.kill();
        let sql = rusqlite::Connection::open(fixture.daemon.state().join("nicd.db")).unwrap();
        let write = |statement: &str| assert!(sql.execute(statement, []).unwrap() > 0, "{statement}");
        write("UPDATE ports SET body = replace(body, '10.9.0.3', '10.9.0.2')");
        write("UPDATE addresses SET address = '10.9.0.2' WHERE address = '10.9.0.3'");
        drop(sql);
        fixture.launch();
        assert_eq!(first_ip(&mut fixture, &second), "10.9.0.2");
        let told = kinds(&mut fixture);
        assert!(told.len() == 1 && told[0].0 == "duplicate_address", "{told:?}");
        // As long as one of them has it nobody else gets it.
        fixture.api.delete(&format!("/v2.0/ports/{first}")).expect(204);
        assert!(kinds(&mut fixture).is_empty());
        let port = fixture.create_port(json!({ "network_id": one }));
        assert_eq!(first_ip(&mut fixture, &port), "10.9.0.3");
    });
}

#[test]
fn the_gateways_address_is_given_to_one_port_that_asks_for_it() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (router, server) = fixture.guest("router");
        let asked = json!({"network_id": network, "fixed_ips": [{"ip_address": "192.0.2.1"}, {"ip_address": "2001:db8::1"}]});
        let port = fixture.create_port(asked);
        fixture.attach(&server, json!({ "port_id": port }));
        assert_eq!(fixture.port(&port)["status"], "ACTIVE");
        let routes = [router.ip("route"), router.ip("-6 route")].concat();
        assert!(!routes.contains("default"), "no route through itself: {routes}");
        assert!(router.ip("addr").contains("192.0.2.1/24"));
        for ip in ["192.0.2.1", "2001:db8::1"] {
            ask(&mut fixture, &network, ip).refused(409, "address_in_use");
        }
        let (guest, other) = fixture.guest("a");
        let second = fixture.attach_to(&other, &network);
        assert_eq!(first_ip(&mut fixture, &second), "192.0.2.2");
        assert!(guest.ip("route").contains("default via 192.0.2.1"));
        // The gateway that it is already is no news; another port's address is none to become one.
        let subnets = fixture.api.get("/v2.0/subnets?ip_version=4").expect(200);
        let path = format!("/v2.0/subnets/{}", text(&subnets["subnets"][0]["id"]));
        fixture.api.put(&path, &json!({"subnet": {"gateway_ip": "192.0.2.1", "name": "x"}})).expect(200);
        fixture.api.put(&path, &json!({"subnet": {"gateway_ip": "192.0.2.2"}})).refused(409, "address_in_use");
        // By name with the attach, and by a change, as well; never by itself.
        fixture.api.delete(&format!("/v2.0/ports/{port}")).expect(204);
        fixture.wait_until(&port, "gone", |port| port.is_none());
        let body = json!({"net_id": network, "fixed_ips": [{"ip_address": "192.0.2.1"}]});
        let again = fixture.attach(&server, body);
        assert_eq!(first_ip(&mut fixture, &again), "192.0.2.1");
        fixture.detach(&server, &again);
        let moved = json!({"port": {"fixed_ips": [{"ip_address": "192.0.2.1"}]}});
        fixture.api.put(&format!("/v2.0/ports/{second}"), &moved).expect(200);
        let next = fixture.create_port(json!({ "network_id": network }));
        assert_eq!(first_ip(&mut fixture, &next), "192.0.2.2");
        assert!(!guest.ip("route").contains("default"), "{}", guest.ip("route"));
        for edge in ["192.0.2.0", "192.0.2.255"] {
            ask(&mut fixture, &network, edge).refused(400, "address_not_usable");
        }
    });
}

#[test]
fn a_subnet_of_two_addresses_or_one_is_used_wholly() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.network(json!({}));
        let (guest, server) = fixture.guest("a");
        fixture.subnet_with(json!({"network_id": network, "cidr": "192.0.2.0/31"}));
        fixture.subnet_with(json!({"network_id": network, "cidr": "198.51.100.7/32", "gateway_ip": null}));
        fixture.subnet_with(json!({"network_id": network, "cidr": "2001:db8::/127"}));
        fixture.subnet_with(json!({"network_id": network, "cidr": "2001:db8:1::7/128", "gateway_ip": "fe80::1"}));
        let ips = json!([{"ip_address": "192.0.2.0"}, {"ip_address": "198.51.100.7"}, {"ip_address": "2001:db8::"},
            {"ip_address": "2001:db8:1::7"}]);
        let port = fixture.create_port(json!({"network_id": network, "fixed_ips": ips}));
        fixture.attach(&server, json!({ "port_id": port }));
        let shown = fixture.port(&port);
        assert_eq!((&shown["status"], &shown["nicd:reason"]), (&json!("ACTIVE"), &Value::Null));
        let said = guest.ip("addr");
        for address in ["192.0.2.0/31", "198.51.100.7/32", "2001:db8::/127", "2001:db8:1::7/128"] {
            assert!(said.contains(address), "{said}");
        }
        assert!(guest.ip("route").contains("default via 192.0.2.1"), "{}", guest.ip("route"));
        ask(&mut fixture, &network, "192.0.2.1").expect(201);
    });
}

#[test]
fn a_change_of_addresses_keeps_the_guests_own_routes() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        for (name, promote) in [("plain", "0"), ("promoting", "1")] {
            let (guest, server) = fixture.guest(name);
            guest.inside(move || std::fs::write("/proc/sys/net/ipv4/conf/all/promote_secondaries", promote).unwrap());
            let port = fixture.attach_to(&server, &network);
            guest.ip("route add 198.51.100.0/24 via 192.0.2.200");
            guest.ip("-6 route add fd99::/64 via 2001:db8::200");
            for (v4, v6) in [
                (&["192.0.2.50"][..], "2001:db8::50"),
                (&["192.0.2.51", "192.0.2.50"], "2001:db8::50"),
                (&["192.0.2.51"], "2001:db8::51"),
                (&["192.0.2.52"], "2001:db8::52"),
            ] {
                let all: Vec<Value> = v4.iter().copied().chain([v6]).map(|ip| json!({ "ip_address": ip })).collect();
                fixture.api.put(&format!("/v2.0/ports/{port}"), &json!({"port": {"fixed_ips": all}})).expect(200);
                assert_eq!(fixture.port(&port)["status"], "ACTIVE");
                let routes = [guest.ip("route"), guest.ip("-6 route")].concat();
                for kept in [
                    "198.51.100.0/24 via 192.0.2.200",
                    "fd99::/64 via 2001:db8::200",
                    "default via 192.0.2.1",
                    "default via 2001:db8::1",
                ] {
                    assert!(routes.contains(kept), "{name}, {v4:?}, {kept}: {routes}");
                }
                let shown = guest.ip_json("-4 addr show dev eth0");
                let mut has: Vec<String> = shown[0]["addr_info"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|one| format!("{}/{}", text(&one["local"]), one["prefixlen"]))
                    .collect();
                let mut wanted: Vec<String> = v4.iter().map(|ip| format!("{ip}/24")).collect();
                has.sort();
                wanted.sort();
                assert_eq!(has, wanted, "{name}");
            }
            fixture.detach(&server, &port);
        }
    });
}

#[test]
fn routes_that_an_older_version_took_cost_no_guest_its_nic() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.network(json!({}));
        let route = json!([{"destination": "198.51.100.0/24", "nexthop": "192.0.2.77"}]);
        fixture.subnet_with(json!({"network_id": network, "cidr": "192.0.2.0/24", "host_routes": route}));
        let mut ports = Vec::new();
        for name in ["a", "b", "c"] {
            let (guest, server) = fixture.guest(name);
            ports.push((name, guest, fixture.attach_to(&server, &network)));
        }
        fixture.daemon.kill();
        let sql = rusqlite::Connection::open(fixture.daemon.state().join("nicd.db")).unwrap();
        let changed = sql.execute("UPDATE subnets SET body = replace(body, '192.0.2.77', '192.0.2.255')", []).unwrap();
        assert_eq!(changed, 1);
        drop(sql);
        fixture.launch();
        for (name, guest, port) in ports {
            guest.end();
            fixture
                .wait_until(&port, "without namespace", |port| port.is_some_and(|port| port["nicd:reason"] == "namespace_gone"));
            let again = crate::netns::Guest::new(name);
            let shown = fixture.wait_status(&port, "ACTIVE");
            assert_eq!(shown["nicd:reason"], "route_refused");
            assert!(again.ip("route").contains("default via 192.0.2.1"));
            let told = fixture.api.get(&format!("/nicd/v1/ports/{port}/explain")).expect(200);
            assert!(told.to_string().contains("198.51.100.0/24 via 192.0.2.255"), "{told}");
        }
    });
}

#[test]
fn a_guest_without_ipv6_is_told_what_switches_it_on() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (guest, server) = fixture.guest("a");
        let switch = |value: &'static str| {
            guest.inside(move || {
                for place in ["all", "default"] {
                    std::fs::write(format!("/proc/sys/net/ipv6/conf/{place}/disable_ipv6"), value).unwrap();
                }
            });
        };
        switch("1");
        let body = json!({"interfaceAttachment": {"net_id": network}});
        let error = fixture.api.post(&interfaces(&server), &body).refused(409, "ipv6_disabled");
        assert!(text(&error["message"]).contains("net.ipv6.conf.all.disable_ipv6"), "{error}");
        assert!(fixture.ports().is_empty(), "nothing is left");
        // Without an IPv6 address it is built, and with IPv6 as well.
        fixture.attach(&server, json!({"net_id": network, "fixed_ips": [{"ip_address": "192.0.2.9"}]}));
        switch("0");
        fixture.attach(&server, json!({ "net_id": network }));
    });
}
