//! Other machines on a port's bridge: they are asked whether they have its addresses, and told where it is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

use crate::bytes::{ARP, IP6, Mac, RARP};
use crate::client::{Machine, octets};
use crate::daemon::Daemon;
use crate::fixture::{Fixture, text};
use crate::hostile::Ears;
use crate::netns::{Guest, in_netns, run};
use crate::slaac::made;
use crate::wire;

const HELD: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 50);
const HELD6: &str = "2001:db8::50";

/// A daemon that does this about conflicts, and a network on the bridge with the wire.
fn scene(probe: &str) -> (Fixture, Guest, String) {
    let wire = wire();
    let mut daemon = Daemon::prepared("/run/nicd");
    std::fs::write(daemon.config(), format!("[links]\nconflict_probe = \"{probe}\"\n")).unwrap();
    daemon.launch();
    let mut fixture = Fixture::of(daemon);
    let network = fixture.network_on("br-op");
    fixture.subnet(&network, "2001:db8::/64");
    (fixture, wire, network)
}

fn mac_of(guest: &Guest) -> String {
    text(&guest.ip_json("link show eth0")[0]["address"])
}

fn port_with(fixture: &mut Fixture, network: &str, addresses: &[&str], more: Value) -> String {
    let fixed: Vec<Value> = addresses.iter().map(|address| json!({"ip_address": address})).collect();
    let mut port = json!({"network_id": network, "fixed_ips": fixed});
    port.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    fixture.create_port(port)
}

fn conflict(fixture: &mut Fixture, event: &str, port: &str) {
    fixture
        .events
        .wait_for(event, |told| told["event"] == event && told["reason"] == "address_in_use" && told["port_id"] == port);
}

fn addresses_fact(fixture: &mut Fixture, port: &str) -> Value {
    let explained = fixture.api.get(&format!("/nicd/v1/ports/{port}/explain")).expect(200);
    explained["facts"].as_array().unwrap().iter().find(|fact| fact["fact"] == "addresses").cloned().unwrap()
}

fn counted(fixture: &mut Fixture, what: &str) -> u64 {
    let text = fixture.api.get("/metrics").text;
    let line = text.lines().find_map(|line| line.strip_prefix(what)).unwrap_or_else(|| panic!("{what}: {text}"));
    line.trim().parse().unwrap()
}

/// What a frame says about which address: a question, or a claim.
fn said(frame: &[u8]) -> Option<(&'static str, IpAddr)> {
    let v6 = |at: usize| Ipv6Addr::from(*frame[at..].first_chunk::<16>().unwrap());
    let v4 = |at: usize| Ipv4Addr::from(*frame[at..].first_chunk::<4>().unwrap());
    match u16::from_be_bytes([frame[12], frame[13]]) {
        ARP if v4(28).is_unspecified() => Some(("question", v4(38).into())),
        ARP => Some(("claim", v4(28).into())),
        RARP => Some(("reverse", v4(28).into())),
        IP6 if frame[20] == 58 && frame[54] == 135 && v6(22).is_unspecified() => Some(("question", v6(62).into())),
        IP6 if frame[20] == 58 && frame[54] == 136 => Some(("claim", v6(62).into())),
        _ => None,
    }
}

#[test]
fn an_address_that_another_machine_has_is_told_of_with_its_mac() {
    in_netns(|| {
        let (mut fixture, wire, network) = scene("warn");
        let holder = mac_of(&wire);
        for (addresses, free) in [(vec!["192.0.2.50"], "192.0.2.60"), (vec!["192.0.2.70", HELD6], "2001:db8::60")] {
            let address = addresses[addresses.len() - 1];
            wire.ip(&format!("address add {address} dev eth0 nodad"));
            let port = port_with(&mut fixture, &network, &addresses, json!({}));
            let mut vm = Machine::of(&mut fixture, &port);
            conflict(&mut fixture, "agent.degraded", &port);
            fixture.wait_active(&port, Some("address_in_use"));
            let health = fixture.api.get("/nicd/v1/health").expect(200);
            let problem = health["problems"].as_array().unwrap().iter().find(|one| one["reason"] == "address_in_use").unwrap();
            let detail = text(&problem["detail"]);
            assert!(detail.contains(&format!("{address} is in use")) && detail.contains(&holder), "{detail}");
            let fact = addresses_fact(&mut fixture, &port);
            assert!(fact["ok"] == true && text(&fact["detail"]).contains(&holder), "{fact}");
            // The question has no sender's address: no machine learns one from it.
            assert_eq!(wire.ip("neighbour show dev eth0 nud all").lines().filter(|line| line.contains(address)).count(), 0);
            // Another address ends it.
            fixture.api.put(&format!("/v2.0/ports/{port}"), &json!({"port": {"fixed_ips": [{"ip_address": free}]}})).expect(200);
            conflict(&mut fixture, "agent.recovered", &port);
            fixture.wait_active(&port, None);
            // Its own guest has heard none of it: it would take it for another's claim.
            let its = [address, free].map(|address| address.parse::<IpAddr>().unwrap());
            let heard: Vec<_> = vm.frames().iter().filter_map(|frame| said(frame)).filter(|said| its.contains(&said.1)).collect();
            assert_eq!(heard, []);
        }
        assert_eq!(fixture.daemon.log().matches("another machine on the network has the address of a port").count(), 2);
        assert_eq!(counted(&mut fixture, "nicd_address_probes_total{result=\"in_use\"}"), 2);
    });
}

#[test]
fn where_that_is_refused_a_port_is_down_until_no_other_machine_has_its_address() {
    in_netns(|| {
        let (mut fixture, wire, network) = scene("refuse");
        wire.ip(&format!("address add {HELD}/24 dev eth0"));
        let port = port_with(&mut fixture, &network, &["192.0.2.50"], json!({}));
        let (guest, server) = fixture.guest("a");
        fixture.attach(&server, json!({ "port_id": port }));
        let shown = fixture.wait_status(&port, "ERROR");
        assert_eq!(shown["nicd:reason"], "address_in_use");
        conflict(&mut fixture, "agent.degraded", &port);
        let explained = fixture.api.get(&format!("/nicd/v1/ports/{port}/explain")).expect(200);
        assert!(text(&explained["facts"][0]["detail"]).contains(&mac_of(&wire)), "{explained}");
        assert_eq!(addresses_fact(&mut fixture, &port)["ok"], false);
        let is_up = |guest: &Guest| guest.ip("link show eth0").contains("LOWER_UP");
        assert!(!is_up(&guest));
        // No restart gives it what it was refused, nor does one of the host, which takes the device.
        let device = fixture.device(&port);
        fixture.daemon.kill();
        run(&format!("ip link delete {device}"));
        fixture.launch();
        fixture.wait_status(&port, "ERROR");
        assert!(!is_up(&guest));
        wire.ip("address flush dev eth0");
        fixture.wait_status(&port, "ACTIVE");
        assert!(is_up(&guest));
        let fact = addresses_fact(&mut fixture, &port);
        assert!(fact["ok"] == true && text(&fact["detail"]).starts_with("192.0.2.50: no other machine answered"), "{fact}");
        // A change to such an address is refused, and one to another is made.
        wire.ip(&format!("address add {HELD6}/64 dev eth0 nodad"));
        let (path, change) = (format!("/v2.0/ports/{port}"), |ip: &str| json!({"port": {"fixed_ips": [{"ip_address": ip}]}}));
        let refused = fixture.api.put(&path, &change(HELD6)).refused(409, "address_in_use");
        assert!(refused.to_string().contains(&mac_of(&wire)), "{refused}");
        fixture.api.put(&path, &change("2001:db8::51")).expect(200);
        assert_eq!(fixture.port(&port)["status"], "ACTIVE");
        // What its guest would make of a new subnet is left out.
        let mac = octets(&text(&fixture.port(&port)["mac_address"]));
        wire.ip(&format!("address add {}/64 dev eth0 nodad", made(mac)));
        fixture.subnet_with(json!({"network_id": network, "cidr": "fd00:a::/64", "ipv6_ra_mode": "slaac"}));
        let shown = fixture.port(&port);
        assert_eq!((&shown["status"], shown["fixed_ips"].as_array().unwrap().len()), (&json!("ACTIVE"), 1), "{shown}");
    });
}

#[test]
fn an_address_that_several_ports_may_use_is_no_conflict() {
    in_netns(|| {
        let (mut fixture, wire, network) = scene("warn");
        wire.ip(&format!("address add {HELD}/24 dev eth0"));
        let pair = json!({"allowed_address_pairs": [{"ip_address": "192.0.2.48/29"}]});
        port_with(&mut fixture, &network, &["192.0.2.9"], pair);
        let port = port_with(&mut fixture, &network, &["192.0.2.50", "192.0.2.60", "2001:db8::60"], json!({}));
        let ears = wire.inside(|| Ears::on("eth0"));
        let _vm = Machine::of(&mut fixture, &port);
        // It is announced once it is known that no other machine has the other one.
        let whole = ears.until(|frame| said(frame).is_some_and(|(kind, _)| kind == "reverse"));
        let heard: Vec<_> = whole.iter().filter_map(|frame| said(frame)).collect();
        let mac = octets(&text(&fixture.port(&port)["mac_address"]));
        // Switches do not learn from a question where the port is.
        let questions = whole.iter().filter(|frame| said(frame).is_some_and(|(kind, _)| kind == "question"));
        let from: Vec<_> = questions.map(|frame| frame[6..12] == mac).collect();
        assert!(!from.contains(&true) && heard.contains(&("question", "2001:db8::60".parse().unwrap())), "{heard:?}");
        assert!(heard.contains(&("question", Ipv4Addr::new(192, 0, 2, 60).into())), "{heard:?}");
        assert!(heard.iter().all(|(_, address)| *address != HELD), "{heard:?}");
        assert_eq!(fixture.port(&port)["nicd:reason"], json!(null));
        // A server answers for its addresses by each of its NICs.
        let (_guest, server) = fixture.guest("two");
        for address in ["192.0.2.61", "192.0.2.62"] {
            let port = port_with(&mut fixture, &network, &[address], json!({"port_security_enabled": false}));
            fixture.attach(&server, json!({ "port_id": port }));
            let mac = octets(&text(&fixture.port(&port)["mac_address"]));
            ears.until(|frame| frame[6..12] == mac && said(frame).is_some_and(|(kind, _)| kind == "reverse"));
            assert_eq!(fixture.port(&port)["nicd:reason"], json!(null), "{address}");
        }
        assert_eq!(counted(&mut fixture, "nicd_address_probes_total{result=\"in_use\"}"), 0);
    });
}

#[test]
fn a_port_that_was_made_anew_is_announced_where_its_guest_cannot() {
    in_netns(|| {
        let (mut fixture, wire, network) = scene("off");
        let addresses = ["192.0.2.60", "2001:db8::60"];
        let port = port_with(&mut fixture, &network, &addresses, json!({}));
        let ears = wire.inside(|| Ears::on("eth0"));
        let mut vm = Machine::of(&mut fixture, &port);
        let fact = addresses_fact(&mut fixture, &port);
        assert!(text(&fact["detail"]).contains("192.0.2.60, 2001:db8::60: other machines are not asked"), "{fact}");
        let device = fixture.device(&port);
        for made in 0..2 {
            let mac: Mac = vm.mac;
            let mut rounds = 0;
            let whole = ears.until(|frame| {
                rounds += usize::from(said(frame).is_some_and(|(kind, _)| kind == "reverse"));
                rounds == 3
            });
            let heard: Vec<_> = whole.iter().filter(|frame| frame[6..12] == mac).filter_map(|frame| said(frame)).collect();
            let [v4, v6] = addresses.map(|address| ("claim", address.parse().unwrap()));
            let round = [v4, v6, ("reverse", Ipv4Addr::UNSPECIFIED.into())];
            assert_eq!(heard, [round; 3].concat(), "made {made} times before");
            // The bridge knows the guest where it is, and the wire knows it now.
            let known = run("bridge fdb show br br-op");
            let octets = fixture.port(&port)["mac_address"].clone();
            let places: Vec<&str> = known.lines().filter(|line| line.starts_with(&text(&octets))).collect();
            assert!(!places.is_empty() && places.iter().all(|line| line.contains(&device)), "{known}");
            let own = vm.frames().iter().filter(|frame| frame[6..12] == mac).count();
            assert_eq!(own, 0, "its own guest hears none");
            if made == 0 {
                vm = vm.anew(&mut fixture);
            }
        }
        assert_eq!(counted(&mut fixture, "nicd_announcements_total"), 18);
        // A restart makes nothing, and says nothing.
        fixture.daemon.kill();
        fixture.launch();
        fixture.wait_status(&port, "ACTIVE");
        assert_eq!(counted(&mut fixture, "nicd_announcements_total"), 0);
    });
}
