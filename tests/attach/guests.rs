//! What a guest in a namespace finds, and that it works at once.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use serde_json::{Value, json};

use crate::daemon::PATIENCE;
use crate::fixture::{Fixture, interfaces, text};
use crate::kernel_view::{Capture, has_flag, link};
use crate::netns::{Guest, in_netns};

/// A guest's addresses as `ip` shows them.
fn addresses(guest: &Guest, name: &str) -> Vec<Value> {
    guest.ip_json(&format!("addr show dev {name}"))[0]["addr_info"].as_array().unwrap().clone()
}

/// The address of a family that the port was given.
fn fixed_ip(port: &Value, v6: bool) -> IpAddr {
    let mut ips = port["fixed_ips"].as_array().unwrap().iter().map(|ip| text(&ip["ip_address"]).parse::<IpAddr>().unwrap());
    ips.find(|ip| ip.is_ipv6() == v6).unwrap()
}

#[test]
fn a_namespace_finds_all_it_was_asked_for_when_the_attach_is_answered() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.network(json!({"name": "blue", "mtu": 1400}));
        let route = json!([{"destination": "198.51.100.0/24", "nexthop": "192.0.2.254"}]);
        fixture.subnet_with(json!({"network_id": network, "cidr": "192.0.2.0/24", "host_routes": route}));
        fixture.subnet(&network, "2001:db8::/64");
        let (guest, server) = fixture.guest("a");
        let asked = json!({"network_id": network, "mac_address": "fa:16:3e:00:00:07",
            "binding:profile": {"interface_name": "wan0"}});
        let port = fixture.create_port(asked);
        let answer = fixture.api.post(&interfaces(&server), &json!({"interfaceAttachment": {"port_id": port}})).expect(200);
        let attached = &answer["interfaceAttachment"];
        assert_eq!(attached["port_state"], "ACTIVE");
        assert_eq!(attached["mac_addr"], "fa:16:3e:00:00:07");
        let link = &guest.ip_json("link show dev wan0")[0];
        assert!(link["ifindex"].as_u64().unwrap() < 65536, "an index of the kernel's choice: {link}");
        assert_eq!((&link["address"], &link["mtu"]), (&json!("fa:16:3e:00:00:07"), &json!(1400)));
        assert!(has_flag(link, "UP") && has_flag(link, "LOWER_UP"), "{link}");
        let found = addresses(&guest, "wan0");
        let has = |ip: &str, prefix: u8| found.iter().find(|a| a["local"] == ip && a["prefixlen"] == prefix).cloned();
        assert!(has("192.0.2.2", 24).is_some(), "{found:?}");
        let v6 = has("2001:db8::2", 64).unwrap_or_else(|| panic!("{found:?}"));
        assert!(v6["nodad"] == true && v6["tentative"].is_null(), "{v6}");
        assert!(found.iter().all(|address| address["tentative"].is_null()), "{found:?}");
        let v4_routes = guest.ip("route");
        assert!(v4_routes.contains("default via 192.0.2.1 dev wan0"), "{v4_routes}");
        assert!(v4_routes.contains("198.51.100.0/24 via 192.0.2.254 dev wan0"), "{v4_routes}");
        let v6_routes = guest.ip("-6 route");
        assert!(v6_routes.contains("default via 2001:db8::1 dev wan0"), "{v6_routes}");
    });
}

#[test]
fn without_a_name_each_nic_gets_the_lowest_free_eth_and_says_which() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (guest, server) = fixture.guest("a");
        guest.ip("link add eth0 type bridge");
        for expected in ["eth1", "eth2"] {
            let port = fixture.attach_to(&server, &network);
            let shown = fixture.port(&port);
            assert_eq!(shown["binding:vif_details"]["guest_device"], expected);
            assert_eq!(guest.ip_json(&format!("link show dev {expected}"))[0]["address"], shown["mac_address"]);
        }
    });
}

#[test]
fn a_nic_has_an_index_of_the_kernels_choice_in_each_guest_and_keeps_it() {
    /// The indexes of a guest's NICs; the host's end of each has it as its peer.
    fn indexes(fixture: &mut Fixture, guest: &Guest, ports: &[String]) -> Vec<u64> {
        let mut found = Vec::new();
        for port in ports {
            let shown = fixture.port(port);
            let nic = guest.ip_json(&format!("link show dev {}", text(&shown["binding:vif_details"]["guest_device"])))[0].clone();
            let host = link(&fixture.device(port));
            assert_eq!((&nic["link_index"], &host["link_index"]), (&host["ifindex"], &nic["ifindex"]));
            assert_eq!(nic["address"], shown["mac_address"]);
            found.push(nic["ifindex"].as_u64().unwrap());
        }
        assert!(found.iter().all(|index| *index < 65536), "{found:?}");
        found
    }

    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (first, server) = fixture.guest("a");
        let ports: Vec<String> = (0..3).map(|_| fixture.attach_to(&server, &network)).collect();
        let (second, other) = fixture.guest("b");
        for number in 0..40 {
            second.ip(&format!("link add br{number} type bridge"));
        }
        let others: Vec<String> = (0..2).map(|_| fixture.attach_to(&other, &network)).collect();
        let before = (indexes(&mut fixture, &first, &ports), indexes(&mut fixture, &second, &others));
        fixture.daemon.kill();
        fixture.launch();
        assert_eq!((indexes(&mut fixture, &first, &ports), indexes(&mut fixture, &second, &others)), before);
        first.end();
        for port in &ports {
            fixture.wait_status(port, "DOWN");
        }
        let again = Guest::new("a");
        for port in &ports {
            fixture.wait_status(port, "ACTIVE");
        }
        indexes(&mut fixture, &again, &ports);
    });
}

#[test]
fn two_guests_reach_each_other_with_the_first_packet() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let ((one, one_server), (other, other_server)) = (fixture.guest("a"), fixture.guest("b"));
        let mut ports = Vec::new();
        for server in [one_server, other_server] {
            let port = fixture.attach_to(&server, &network);
            ports.push(fixture.port(&port));
            assert_eq!(ports.last().unwrap()["status"], "ACTIVE");
        }
        for v6 in [false, true] {
            let (from, to) = (fixed_ip(&ports[0], v6), fixed_ip(&ports[1], v6));
            let receiver = other.inside(move || UdpSocket::bind((to, 4000)).unwrap());
            receiver.set_read_timeout(Some(PATIENCE)).unwrap();
            one.inside(move || UdpSocket::bind((from, 0)).unwrap().send_to(b"first", (to, 4000)).unwrap());
            let mut said = [0; 16];
            let (length, sender) = receiver.recv_from(&mut said).expect("the first packet");
            assert_eq!((&said[..length], sender.ip()), (&b"first"[..], from));
        }
    });
}

#[test]
fn the_host_says_nothing_on_a_guests_wire() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (guest, server) = fixture.guest("a");
        let mut wire = guest.inside(Capture::start);
        let port = fixture.attach_to(&server, &network);
        let shown = fixture.port(&port);
        let from = fixed_ip(&shown, true);
        // All nodes are asked to answer; the host's end and the bridge are none.
        guest.inside(move || {
            let socket = UdpSocket::bind((from, 0)).unwrap();
            let eth0 =
                std::net::SocketAddrV6::new("ff02::1".parse().unwrap(), 4000, 0, nix::net::if_::if_nametoindex("eth0").unwrap());
            socket.send_to(b"anybody?", eth0).unwrap();
        });
        fixture.detach(&server, &port);
        let guest_mac = mac(&text(&shown["mac_address"]));
        let mut heard = 0;
        while let Some((_, frame)) = wire.next(Duration::from_millis(100)) {
            assert_eq!(frame[6..12], guest_mac, "a frame from somebody else: {frame:02x?}");
            heard += 1;
        }
        assert!(heard > 0, "the capture heard nothing at all");
    });
}

fn mac(text: &str) -> Vec<u8> {
    text.split(':').map(|octet| u8::from_str_radix(octet, 16).unwrap()).collect()
}

#[test]
fn a_guests_own_changes_are_not_fought() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (guest, server) = fixture.guest("a");
        let port = fixture.attach_to(&server, &network);
        let device = fixture.device(&port);
        guest.ip("addr flush dev eth0");
        guest.ip("link set eth0 mtu 1300");
        guest.ip("link set eth0 down");
        let told = fixture.events.wait_status(&port, "DOWN");
        assert_eq!(told["reason"], "no_carrier");
        assert_eq!(link(&device)["mtu"], 1500, "the host's end stays");
        guest.ip("link set eth0 up");
        fixture.events.wait_status(&port, "ACTIVE");
        assert_eq!(guest.ip_json("link show dev eth0")[0]["mtu"], 1300);
        assert!(addresses(&guest, "eth0").iter().all(|address| address["family"] != "inet"));
    });
}

#[test]
fn a_port_that_is_admin_down_is_built_and_passes_nothing() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (_guest, server) = fixture.guest("a");
        let port = fixture.create_port(json!({"network_id": network, "admin_state_up": false}));
        fixture.attach(&server, json!({"port_id": port}));
        let shown = fixture.port(&port);
        assert_eq!((&shown["status"], &shown["nicd:reason"]), (&json!("DOWN"), &json!("admin_down")));
        let device = fixture.device(&port);
        assert!(!has_flag(&link(&device), "UP"));
        let path = format!("/v2.0/ports/{port}");
        fixture.api.put(&path, &json!({"port": {"admin_state_up": true}})).expect(200);
        fixture.wait_status(&port, "ACTIVE");
        fixture.api.put(&path, &json!({"port": {"admin_state_up": false}})).expect(200);
        fixture.wait_status(&port, "DOWN");
        assert!(!has_flag(&link(&device), "UP"));
    });
}
