//! The flows that tempest's test_attach_interfaces.py asserts, and many clients at once, against the socket.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

#[path = "common/daemon.rs"]
mod daemon;
#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/kernel_view.rs"]
mod kernel_view;
#[path = "common/netns.rs"]
mod netns;

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Instant;

use daemon::{Answer, Client, PATIENCE};
use fixture::{Fixture, interfaces, text};
use kernel_view::{marked, marked_ports};
use netns::{Guest, in_netns, run};
use serde_json::{Value, json};

/// An attach's answer: exactly what clients' schemas allow (tempest's interfaces.py, before 2.70).
fn attachment(answer: &Answer) -> Value {
    let attachment = answer.expect(200)["interfaceAttachment"].clone();
    let keys: Vec<&String> = attachment.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["fixed_ips", "mac_addr", "net_id", "port_id", "port_state"], "{attachment}");
    for ip in attachment["fixed_ips"].as_array().unwrap() {
        assert_eq!(ip.as_object().unwrap().keys().collect::<Vec<_>>(), ["ip_address", "subnet_id"]);
    }
    attachment
}

/// Attaches as `how` says, and waits until showing it says ACTIVE.
fn attach_until_active(fixture: &mut Fixture, server: &str, how: Value) -> Value {
    let made = attachment(&fixture.api.post(&interfaces(server), &json!({ "interfaceAttachment": how })));
    let port = text(&made["port_id"]);
    fixture.wait_status(&port, "ACTIVE");
    let shown = attachment(&fixture.api.get(&format!("{}/{port}", interfaces(server))));
    assert_eq!(shown["port_state"], "ACTIVE");
    for same in ["fixed_ips", "mac_addr", "net_id", "port_id"] {
        assert_eq!(shown[same], made[same]);
    }
    shown
}

fn listed(fixture: &mut Fixture, server: &str) -> BTreeSet<String> {
    let listed = fixture.api.get(&interfaces(server)).expect(200);
    listed["interfaceAttachments"].as_array().unwrap().iter().map(|nic| text(&nic["port_id"])).collect()
}

#[test]
fn interfaces_are_created_in_each_way_listed_and_one_in_the_middle_deleted() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (_guest, server) = fixture.guest("a");
        assert!(listed(&mut fixture, &server).is_empty());
        let of_client = fixture.create_port(json!({"network_id": network}));
        let mut made = Vec::new();
        for how in [
            json!({}),
            json!({"net_id": network}),
            json!({"port_id": of_client}),
            json!({"net_id": network, "fixed_ips": [{"ip_address": "192.0.2.77"}]}),
        ] {
            let shown = attach_until_active(&mut fixture, &server, how.clone());
            assert_eq!(shown["net_id"], network.as_str());
            if how["fixed_ips"].is_array() {
                assert_eq!(shown["fixed_ips"][0]["ip_address"], "192.0.2.77");
            }
            if how["port_id"].is_string() {
                assert_eq!(shown["port_id"], of_client.as_str());
            }
            made.push(text(&shown["port_id"]));
        }
        assert_eq!(listed(&mut fixture, &server), made.iter().cloned().collect());
        let middle = made.remove(1);
        fixture.detach(&server, &middle);
        assert_eq!(listed(&mut fixture, &server), made.iter().cloned().collect());
        fixture.api.get(&format!("{}/{middle}", interfaces(&server))).refused(404, "no_such_port");
        fixture.api.get(&format!("/v2.0/ports/{middle}")).refused(404, "no_such_port");
    });
}

#[test]
fn an_attach_without_a_body_goes_to_the_only_network() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let (_guest, server) = fixture.guest("a");
        fixture.api.call("POST", &interfaces(&server), &[], b"").refused(400, "no_network");
        let network = fixture.usual_network();
        let answer = attachment(&fixture.api.call("POST", &interfaces(&server), &[], b""));
        assert_eq!(answer["net_id"], network.as_str());
        fixture.usual_network();
        fixture.api.post(&interfaces(&server), &json!({})).refused(400, "several_networks");
        assert_eq!(fixture.ports().len(), 1);
    });
}

#[test]
fn a_clients_port_moves_from_server_to_server_and_back() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let ((_one, a), (_other, b)) = (fixture.guest("a"), fixture.guest("b"));
        let port = fixture.create_port(json!({"network_id": network, "name": "mine"}));
        let before = fixture.port(&port);
        for server in [&a, &b, &a] {
            attach_until_active(&mut fixture, server, json!({"port_id": port}));
            assert_eq!(fixture.port(&port)["device_id"], server.as_str());
            let again = json!({"interfaceAttachment": {"port_id": port}});
            for anybody in [&a, &b] {
                fixture.api.post(&interfaces(anybody), &again).refused(409, "port_in_use");
            }
            fixture.detach(server, &port);
            let after = fixture.port(&port);
            assert_eq!((&after["device_id"], &after["status"]), (&json!(""), &json!("DOWN")));
            for same in ["mac_address", "fixed_ips", "name"] {
                assert_eq!(after[same], before[same]);
            }
        }
    });
}

#[test]
fn a_second_delete_succeeds_and_a_reattach_conflicts_until_the_port_has_gone() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let server = fixture.vm();
        let port = fixture.create_port(json!({"network_id": network}));
        fixture.attach(&server, json!({"port_id": port}));
        let path = format!("{}/{port}", interfaces(&server));
        fixture.api.delete(&path).expect(202);
        // Either it is still leaving, or it has left.
        let again = fixture.api.delete(&path);
        assert!([202, 404].contains(&again.status), "{again:?}");
        let attach = fixture.api.post(&interfaces(&server), &json!({"interfaceAttachment": {"port_id": port}}));
        if attach.status != 200 {
            attach.refused(409, "port_in_use");
        }
    });
}

/// Makes the same call from many connections at once.
fn at_once(fixture: &Fixture, number: usize, call: impl Fn(usize) -> (String, Value) + Send + Sync + 'static) -> Vec<Answer> {
    let (call, start) = (Arc::new(call), Arc::new(Barrier::new(number)));
    let clients = (0..number).map(|n| {
        let (mut client, call, start) = (fixture.daemon.client(), Arc::clone(&call), Arc::clone(&start));
        thread::spawn(move || {
            let (path, body) = call(n);
            start.wait();
            client.post(&path, &body)
        })
    });
    let clients: Vec<_> = clients.collect();
    clients.into_iter().map(|client| client.join().unwrap()).collect()
}

#[test]
fn sixty_four_attaches_at_once_make_sixty_four_nics() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.network(json!({}));
        fixture.subnet(&network, "192.0.2.0/24");
        let servers: Vec<String> = (0..64).map(|_| fixture.vm()).collect();
        let attach = move |n: usize| (interfaces(&servers[n]), json!({"interfaceAttachment": {"net_id": network}}));
        let made: Vec<Value> = at_once(&fixture, 64, attach).iter().map(attachment).collect();
        let distinct = |pick: &dyn Fn(&Value) -> String| made.iter().map(pick).collect::<BTreeSet<_>>().len();
        assert_eq!(distinct(&|nic| text(&nic["port_id"])), 64);
        assert_eq!(distinct(&|nic| text(&nic["mac_addr"])), 64);
        assert_eq!(distinct(&|nic| text(&nic["fixed_ips"][0]["ip_address"])), 64);
        assert_eq!(marked_ports(), fixture.port_ids());
        assert_eq!(marked().len(), 65, "64 devices and one bridge");
    });
}

#[test]
fn sixty_four_attaches_of_one_port_make_one_nic() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let server = fixture.vm();
        let port = fixture.create_port(json!({"network_id": network}));
        let (path, body) = (interfaces(&server), json!({"interfaceAttachment": {"port_id": port}}));
        let answers = at_once(&fixture, 64, move |_| (path.clone(), body.clone()));
        let (done, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
        assert_eq!(done.len(), 1, "{answers:?}");
        refused.iter().for_each(|answer| {
            answer.refused(409, "port_in_use");
        });
        assert_eq!(marked_ports(), [port.as_str()]);
    });
}

#[test]
fn one_address_asked_for_by_many_at_once_is_given_once() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let servers: Vec<String> = (0..16).map(|_| fixture.vm()).collect();
        let wanted = json!({"net_id": network, "fixed_ips": [{"ip_address": "192.0.2.9"}]});
        let attach = move |n: usize| (interfaces(&servers[n]), json!({ "interfaceAttachment": wanted }));
        let answers = at_once(&fixture, 16, attach);
        let (done, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
        assert_eq!(done.len(), 1, "{answers:?}");
        refused.iter().for_each(|answer| {
            answer.refused(409, "address_in_use");
        });
        assert_eq!(marked_ports().len(), 1);
    });
}

#[test]
fn a_small_pool_lasts_for_ever() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.network(json!({}));
        fixture.subnet(&network, "192.0.2.0/30");
        let server = fixture.vm();
        for _ in 0..20 {
            let port = fixture.attach_to(&server, &network);
            let body = json!({"interfaceAttachment": {"net_id": network}});
            fixture.api.post(&interfaces(&server), &body).refused(400, "pool_empty");
            fixture.detach(&server, &port);
        }
        assert!(fixture.ports().is_empty() && marked_ports().is_empty());
    });
}

#[test]
fn the_event_stream_tells_the_whole_life_of_a_port() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (_guest, server) = fixture.guest("a");
        let answer = fixture.api.post(&interfaces(&server), &json!({"interfaceAttachment": {"net_id": network}}));
        let (port, request) = (text(&attachment(&answer)["port_id"]), answer.header("x-compute-request-id").unwrap().to_owned());
        fixture.events.wait_status(&port, "ACTIVE");
        fixture.detach(&server, &port);
        if fixture.events.seen.last().unwrap()["event"] != "port.deleted" {
            fixture.events.wait_deleted(&port);
        }
        let told = fixture.events.seen.clone();
        let life: Vec<_> = told.iter().map(|event| (text(&event["event"]), event["new"].clone())).collect();
        let expected = [
            ("port.created", json!("BUILD")),
            ("port.status", json!("ACTIVE")),
            ("port.status", json!("DOWN")),
            ("port.deleted", Value::Null),
        ];
        assert_eq!(life, expected.map(|(event, new)| (event.to_owned(), new)), "{told:#?}");
        assert!(told.windows(2).all(|pair| pair[0]["seq"].as_u64() < pair[1]["seq"].as_u64()));
        for event in &told {
            assert_eq!((&event["port_id"], &event["network_id"]), (&json!(port), &json!(network)));
            assert_eq!(event["server_id"], server.as_str());
        }
        assert_eq!(told[0]["request_id"], request.as_str());
        assert_eq!(told[1]["request_id"], request.as_str());
    });
}

#[test]
fn what_a_guest_may_send_and_how_fast_it_gets_it_changes_while_its_port_is_attached() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.network(json!({}));
        fixture.subnet(&network, "192.0.2.0/24");
        let ((a, one), (b, other)) = (fixture.guest("a"), fixture.guest("b"));
        let [port, _] = [&one, &other].map(|server| text(&attach_until_active(&mut fixture, server, json!({}))["port_id"]));
        let put = |fixture: &mut Fixture, path: String, change: Value| fixture.api.put(&path, &change).expect(200);
        let path = format!("/v2.0/ports/{port}");
        a.ip("addr add 192.0.2.99/24 dev eth0");
        let at = |guest: &Guest, address: &'static str| guest.inside(move || UdpSocket::bind(address)).unwrap();
        let (sender, receiver) = (at(&a, "192.0.2.99:0"), at(&b, "192.0.2.3:9"));
        let pair = json!([{"ip_address": "192.0.2.99"}]);
        let changed = put(&mut fixture, path.clone(), json!({"port": {"allowed_address_pairs": pair}}));
        assert_eq!(changed["port"]["status"], "ACTIVE");
        receiver.set_read_timeout(Some(PATIENCE)).unwrap();
        sender.send_to(b"allowed", "192.0.2.3:9").unwrap();
        receiver.recv(&mut [0; 16]).unwrap();
        let device = fixture.device(&port);
        let qdisc = || run(&format!("tc qdisc show dev {device} root"));
        for (limits, limited) in [(json!({"to_guest": {"rate_kbps": 8000, "burst_kb": 800}}), true), (Value::Null, false)] {
            put(&mut fixture, path.clone(), json!({"port": {"nicd:limits": limits}}));
            assert_eq!(qdisc().contains("rate 8Mbit burst 100"), limited, "{}", qdisc());
        }
        put(&mut fixture, format!("/v2.0/networks/{network}"), json!({"network": {"nicd:isolated": true}}));
        put(&mut fixture, path, json!({"port": {"allowed_address_pairs": null, "port_security_enabled": false}}));
    });
}

#[test]
fn a_ports_counters_tell_what_passed_and_what_was_dropped_and_do_not_fall() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.network(json!({}));
        fixture.subnet(&network, "192.0.2.0/24");
        let ((a, one), (b, other)) = (fixture.guest("a"), fixture.guest("b"));
        let [port, peer] = [&one, &other].map(|server| text(&attach_until_active(&mut fixture, server, json!({}))["port_id"]));
        let free = fixture.create_port(json!({ "network_id": network }));
        let counters =
            |fixture: &mut Fixture, port: &str| fixture.api.get(&format!("/nicd/v1/ports/{port}/counters")).expect(200);
        let none = json!({"packets": 0, "bytes": 0});
        let counted = counters(&mut fixture, &free);
        assert_eq!((&counted["port_id"], &counted["from_guest"], &counted["to_guest"]), (&json!(free), &none, &none));
        let reasons = ["arp", "dhcp_server", "ethertype", "group", "ip4", "ip6", "limit", "mac", "nd", "ra"];
        assert_eq!(counted["dropped"], reasons.map(|reason| (reason.to_owned(), json!(0))).into_iter().collect::<Value>());
        let at = |guest: &Guest, address: &'static str| guest.inside(move || UdpSocket::bind(address)).unwrap();
        let (sender, receiver) = (at(&a, "192.0.2.2:0"), at(&b, "192.0.2.3:9"));
        receiver.set_read_timeout(Some(PATIENCE)).unwrap();
        sender.send_to(b"honest", "192.0.2.3:9").unwrap();
        receiver.recv(&mut [0; 16]).unwrap();
        a.ip("addr add 192.0.2.99/24 dev eth0");
        at(&a, "192.0.2.99:0").send_to(b"forged", "192.0.2.3:9").unwrap();
        let counted = counters(&mut fixture, &port);
        assert!(counted["from_guest"]["packets"].as_u64() >= Some(2), "a request for the MAC, and a datagram: {counted}");
        assert!(counted["to_guest"]["bytes"].as_u64() > Some(0), "the answer with the MAC: {counted}");
        assert!(counted["dropped"]["ip4"].as_u64() >= Some(1), "{counted}");
        assert_eq!(counters(&mut fixture, &peer)["dropped"]["ip4"], 0, "its neighbour is not blamed");
        fixture.daemon.kill();
        fixture.launch();
        let again = counters(&mut fixture, &port);
        for (direction, unit) in [("from_guest", "packets"), ("from_guest", "bytes"), ("to_guest", "packets"), ("dropped", "ip4")]
        {
            assert!(again[direction][unit].as_u64() >= counted[direction][unit].as_u64(), "{counted} {again}");
        }
    });
}

#[test]
fn a_socket_whose_file_is_removed_is_made_anew_and_told_of_when_it_cannot_be() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let socket = fixture.daemon.socket();
        let comes_back = |what: &str| {
            let deadline = Instant::now() + PATIENCE;
            while !Client::new(socket.clone()).try_call("GET", "/nicd/v1/health", &[], b"").is_ok_and(|said| said.status == 200) {
                assert!(Instant::now() < deadline, "{what}");
                thread::yield_now();
            }
        };
        fixture.api.get("/nicd/v1/health").expect(200);
        std::fs::remove_file(&socket).unwrap();
        comes_back("removed");
        // A connection from before goes on; what is in the way is left, and is in health until it is gone.
        let mine = socket.with_extension("mine");
        std::fs::write(&mine, "mine").unwrap();
        std::fs::rename(&mine, &socket).unwrap();
        let told = fixture.events.wait_for("it is told", |event| event["reason"] == "socket_unreachable");
        assert_eq!(told["event"], "agent.degraded");
        let health = fixture.api.get("/nicd/v1/health").expect(200);
        assert_eq!((&health["status"], &health["problems"][0]["reason"]), (&json!("degraded"), &json!("socket_unreachable")));
        assert!(text(&health["problems"][0]["detail"]).contains("is in the way"), "{health}");
        std::fs::remove_file(&socket).unwrap();
        comes_back("free again");
        fixture
            .events
            .wait_for("its end is told", |event| event["event"] == "agent.recovered" && event["reason"] == "socket_unreachable");
    });
}
