//! What the host's side looks like, and that nothing of others is moved.

use serde_json::{Value, json};

use crate::fixture::{Fixture, foreign_bridge, interfaces, text};
use crate::kernel_view::{
    Monitor, bridge_attributes, bridge_port, fdb, has_flag, link, links, mac_of, marked, name_of, sysctls, try_link, v6_addresses,
};
use crate::netns::{in_netns, json as shown, run};

#[test]
fn the_first_port_makes_the_bridge_and_the_networks_end_removes_it() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        assert!(marked().is_empty(), "no port, no bridge");
        let server = fixture.vm();
        let port = fixture.attach_to(&server, &network);
        let name = format!("nbr{}", &network.replace('-', "")[..12]);
        let bridge = link(&name);
        assert_eq!(fixture.port(&port)["binding:vif_details"]["bridge"], name.as_str());
        assert_eq!(bridge["altnames"], json!([format!("nicd-{network}")]));
        assert!(has_flag(&bridge, "UP"));
        assert_eq!(bridge["mtu"], 1500);
        let data = &bridge["linkinfo"]["info_data"];
        assert_eq!((&data["stp_state"], &data["mcast_snooping"]), (&json!(0), &json!(0)), "{data}");
        fixture.detach(&server, &port);
        assert!(try_link(&name).is_some(), "it stays while the network does");
        fixture.api.delete(&format!("/v2.0/networks/{network}")).expect(204);
        assert!(marked().is_empty());
    });
}

#[test]
fn a_device_carries_its_identity_and_learns_nothing() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (_guest, server) = fixture.guest("a");
        let vm = fixture.vm();
        for server in [server, vm] {
            let port = fixture.attach_to(&server, &network);
            let shown = fixture.port(&port);
            let mac = text(&shown["mac_address"]);
            let device = link(&fixture.device(&port));
            assert_eq!(device["altnames"], json!([format!("nicd-{port}")]));
            assert!(device["ifalias"].as_str().is_some_and(|alias| !alias.is_empty()), "{device}");
            assert_eq!(device["address"], format!("fe{}", &mac[2..]));
            let name = text(&device["ifname"]);
            let bridge_port = bridge_port(&name);
            assert_eq!(bridge_port["learning"], false);
            assert_eq!(bridge_port["state"] == "forwarding", shown["status"] == "ACTIVE", "{bridge_port}");
            let entries = fdb(&name);
            let ours: Vec<_> = entries.iter().filter(|entry| entry["mac"] == mac.as_str()).collect();
            assert!(!ours.is_empty() && ours.iter().all(|entry| entry["state"] == "static"), "{entries:?}");
        }
    });
}

#[test]
fn an_existing_bridge_is_never_reconfigured() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        for (name, mtu) in [("wide", 9000), ("narrow", 1400), ("usual", 1500)] {
            foreign_bridge(name, mtu);
            let before = bridge_attributes(name);
            let network = fixture.network_on(name);
            assert_eq!(fixture.api.get(&format!("/v2.0/networks/{network}")).expect(200)["network"]["mtu"], mtu);
            let (guest, server) = fixture.guest(name);
            let vm = fixture.vm();
            let ports = [(&server, fixture.attach_to(&server, &network)), (&vm, fixture.attach_to(&vm, &network))];
            assert_eq!(bridge_attributes(name), before);
            assert_eq!(guest.ip_json("link show dev eth0")[0]["mtu"], mtu);
            for (server, port) in &ports {
                assert_eq!(link(&fixture.device(port))["mtu"], mtu, "a device carries its bridge's MTU");
                fixture.detach(server, port);
            }
            fixture.api.delete(&format!("/v2.0/networks/{network}")).expect(204);
            assert_eq!(bridge_attributes(name), before);
        }
    });
}

#[test]
fn a_bridge_whose_mtu_nobody_set_keeps_it() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        run("ip link add loose type bridge");
        run("ip link set loose up");
        let before = bridge_attributes("loose")["mtu"].clone();
        let network = fixture.network(json!({"nicd:bridge": "loose", "mtu": 1300}));
        fixture.subnet(&network, "192.0.2.0/24");
        let (guest, server) = fixture.guest("a");
        let port = fixture.attach_to(&server, &network);
        assert_eq!(link("loose")["mtu"], before);
        assert_eq!(link(&fixture.device(&port))["mtu"], before);
        assert_eq!(guest.ip_json("link show dev eth0")[0]["mtu"], 1300, "a smaller MTU is the guest's end's");
        fixture.detach(&server, &port);
        assert_eq!(link("loose")["mtu"], before);
    });
}

#[test]
fn a_network_wider_than_its_bridge_is_refused() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        foreign_bridge("narrow", 1400);
        let body = json!({"network": {"nicd:bridge": "narrow", "mtu": 1500}});
        let error = fixture.api.post("/v2.0/networks", &body).refused(409, "mtu_above_bridge");
        let message = text(&error["message"]);
        assert!(message.contains("1500") && message.contains("1400") && message.contains("narrow"), "{message}");
        // The bridge's MTU falls below the network's later: the attach says so, and leaves nothing.
        foreign_bridge("falling", 1500);
        let network = fixture.network_on("falling");
        run("ip link set falling mtu 1400");
        let server = fixture.vm();
        let body = json!({"interfaceAttachment": {"net_id": network}});
        fixture.api.post(&interfaces(&server), &body).refused(409, "mtu_above_bridge");
        assert!(fixture.ports().is_empty() && marked().is_empty());
    });
}

#[test]
fn the_host_has_no_ipv6_address_at_any_moment() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let mut told = Monitor::v6_addresses();
        foreign_bridge("plain", 1500);
        run("ip link set plain addrgenmode none");
        run("ip -6 addr flush dev plain");
        told.take();
        let networks = [fixture.usual_network(), fixture.network_on("plain")];
        let (_guest, server) = fixture.guest("a");
        let vm = fixture.vm();
        for network in &networks {
            for server in [&server, &vm] {
                let port = fixture.attach_to(server, network);
                if *server == vm {
                    let device = fixture.device(&port).parse().unwrap();
                    let held = nicd::kernel::tap::attach(&device, 1, true).unwrap();
                    fixture.wait_status(&port, "ACTIVE");
                    drop(held);
                }
                assert_eq!(v6_addresses(), [""; 0]);
                fixture.detach(server, &port);
            }
        }
        assert!(told.take().is_empty(), "an address came and went");
    });
}

#[test]
fn a_bridges_mac_never_moves() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        // One whose MAC nobody set follows its lowest member, which must not become one of ours.
        run("ip link add follows type bridge");
        run("ip link add uplink address 02:00:00:00:00:09 type veth peer name far");
        run("ip link set uplink master follows up");
        run("ip link set follows up");
        let own = fixture.usual_network();
        let networks = [fixture.network_on("follows"), own.clone()];
        let server = fixture.vm();
        let low = |n: usize| format!("00:16:3e:00:00:{n:02x}");
        let mut told = Monitor::links();
        let mut macs: Vec<(String, Vec<u8>)> = Vec::new();
        for n in 0..30 {
            let network = &networks[n % 2];
            let port = fixture.create_port(json!({"network_id": network, "mac_address": low(n)}));
            fixture.attach(&server, json!({"port_id": port}));
            fixture.detach(&server, &port);
            let bridges = told.take_links().into_iter().map(|link| (name_of(&link), mac_of(&link)));
            macs.extend(
                bridges.filter(|(name, _)| name == "follows" || name.starts_with("nbr")).map(|(name, mac)| (name, mac.unwrap())),
            );
        }
        let of = |name: &str| macs.iter().filter(|(of, _)| of.starts_with(name)).map(|(_, mac)| mac.clone()).collect::<Vec<_>>();
        assert!(of("follows").iter().all(|mac| mac == &[2, 0, 0, 0, 0, 9]), "{macs:02x?}");
        let own = of("nbr");
        assert!(!own.is_empty() && own.iter().all(|mac| mac == own.last().unwrap()), "{own:02x?}");
    });
}

#[test]
fn a_foreign_link_of_a_devices_name_is_never_touched() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let id = "0123456789ab-cdef0123-456789abcdef".replace('-', "");
        let id = uuid::Uuid::parse_str(&id).unwrap().to_string();
        run("ip link add nicd0123456789a type bridge");
        run(&format!("ip link add nbr{} type bridge", &network.replace('-', "")[..12]));
        let before: Vec<Value> = links();
        let server = fixture.vm();
        let port = fixture.create_port(json!({"id": id, "network_id": network}));
        fixture.attach(&server, json!({"port_id": port}));
        assert_eq!(fixture.device(&port), "nicdbcdef012345", "the next 11 digits");
        assert_eq!(link(&format!("nicd-{port}"))["ifname"], "nicdbcdef012345");
        fixture.detach(&server, &port);
        fixture.api.delete(&format!("/v2.0/ports/{port}")).expect(204);
        fixture.api.delete(&format!("/v2.0/networks/{network}")).expect(204);
        assert_eq!(links(), before);
    });
}

#[test]
fn foreign_links_addresses_routes_and_sysctls_are_as_before() {
    in_netns(|| {
        foreign_bridge("br0", 1500);
        run("ip link add uplink type veth peer name far");
        run("ip link set uplink master br0 up");
        run("ip link set far up");
        run("ip addr add 198.51.100.1/24 dev far");
        let mut fixture = Fixture::start();
        let state =
            || (bridge_attributes("br0"), link("far")["address"].clone(), run("ip -o -4 addr"), run("ip route"), sysctls());
        // What the bridge learns of the wire by itself comes and goes.
        let fdb = || {
            let all = shown("bridge -j fdb show brport uplink");
            all.as_array().unwrap().iter().filter(|entry| entry["state"] != "").cloned().collect::<Vec<_>>()
        };
        let fdb_before = fdb();
        let before = state();
        let networks = [fixture.network_on("br0"), fixture.usual_network()];
        let (_guest, server) = fixture.guest("a");
        let vm = fixture.vm();
        for network in &networks {
            for server in [&server, &vm] {
                let port = fixture.attach_to(server, network);
                fixture.detach(server, &port);
            }
        }
        for network in &networks {
            fixture.api.delete(&format!("/v2.0/networks/{network}")).expect(204);
        }
        let after = state();
        assert_eq!((&after.0, &after.1, &after.2, &after.3), (&before.0, &before.1, &before.2, &before.3));
        let changed: Vec<_> = after.4.iter().filter(|line| !before.4.contains(line) && !counts(line)).collect();
        assert!(changed.is_empty(), "{changed:#?}");
        assert_eq!(fdb(), fdb_before);
    });
}

/// Whether a sysctl changes by itself.
fn counts(line: &str) -> bool {
    ["nf_conntrack_count", "nr_", "random", "tcp_mem", "udp_mem"].iter().any(|word| line.contains(word))
}

#[test]
fn a_detached_port_leaves_nothing_and_an_id_in_use_is_kept_until_then() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let server = fixture.vm();
        let before = links().len();
        let port = fixture.attach_to(&server, &network);
        let first = fixture.port(&port);
        fixture.detach(&server, &port);
        assert_eq!(links().len(), before + 1, "the bridge alone is left");
        assert_eq!(run("bridge fdb show").matches(first["mac_address"].as_str().unwrap()).count(), 0);
        let again = fixture.attach_to(&server, &network);
        assert_eq!(fixture.port(&again)["fixed_ips"], first["fixed_ips"], "the lowest free address is free again");
    });
}

/// Puts `count` links that are none of nicd's into a bridge.
fn fill(bridge: &str, count: usize) {
    let pairs = (0..count.div_ceil(2)).map(|n| format!("link add a{n} type veth peer name b{n}\n"));
    let ends = (0..count).map(|n| format!("link set {}{} master {bridge}\n", if n % 2 == 0 { 'a' } else { 'b' }, n / 2));
    let path = "/run/filling";
    std::fs::write(path, pairs.chain(ends).collect::<String>()).unwrap();
    run(&format!("ip -batch {path}"));
}

#[test]
fn a_bridge_filled_to_its_last_port_takes_no_more_and_after_one_detach_exactly_one() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let server = fixture.vm();
        let first = fixture.attach_to(&server, &network);
        let bridge = text(&fixture.port(&first)["binding:vif_details"]["bridge"]);
        fill(&bridge, 1021);
        let last = fixture.attach_to(&server, &network);
        // A network on a bridge looks at the whole host first, so that from here on every port is counted.
        fixture.api.post("/v2.0/networks", &json!({"network": {"nicd:bridge": "nowhere"}})).refused(400, "no_such_bridge");
        let filled = format!("bridge {bridge} has 1023 of 1023 ports");
        fixture.events.wait_for("a warning", |event| event["event"] == "agent.degraded");
        let health = fixture.api.get("/nicd/v1/health").expect(200);
        let problems = health["problems"].as_array().unwrap();
        let warning = problems.iter().find(|problem| problem["reason"] == "bridge_nearly_full");
        assert_eq!(health["status"], "degraded");
        assert_eq!(warning.unwrap()["detail"], filled.as_str(), "{health}");
        let mut told = Monitor::links();
        let body = json!({"interfaceAttachment": {"net_id": network}});
        let error = fixture.api.post(&interfaces(&server), &body).refused(409, "bridge_full");
        assert!(text(&error["message"]).contains("1023"), "{error}");
        assert!(told.take_links().is_empty(), "the kernel was not touched");
        fixture.detach(&server, &last);
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (mut api, path, body) = (fixture.daemon.client(), interfaces(&server), body.clone());
                std::thread::spawn(move || api.post(&path, &body))
            })
            .collect();
        let answers: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1, "{answers:#?}");
        for refused in answers.iter().filter(|answer| answer.status != 200) {
            refused.refused(409, "bridge_full");
        }
        assert_eq!((fixture.ports().len(), marked().len()), (2, 3), "two devices and the bridge");
    });
}
