//! RFC 2131, state by state, from a virtual machine's tap.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::json;

use crate::bytes::BROADCAST;
use crate::client::{ACK, DECLINE, DISCOVER, INFORM, Machine, Message, NAK, NOWHERE, OFFER, RELEASE, REQUEST};
use crate::daemon::Daemon;
use crate::fixture::Fixture;
use crate::netns::{in_netns, run};
use crate::wire;

const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const OTHER: [u8; 4] = [192, 0, 2, 77];

fn machine(fixture: &mut Fixture) -> Machine {
    let network = fixture.usual_network();
    Machine::start(fixture, &network)
}

#[test]
fn answers_that_wait_for_one_guests_rate_do_not_keep_others_waiting() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let [mut other, mut slow] = [(); 2].map(|()| Machine::start(&mut fixture, &network));
        let limits = json!({"port": {"nicd:limits": {"to_guest": {"rate_kbps": 64, "burst_kb": 100}}}});
        fixture.api.put(&format!("/v2.0/ports/{}", slow.port), &limits).expect(200);
        for _ in 0..550 {
            slow.send(&Message::of(DISCOVER), None);
        }
        let xid = other.send(&Message::of(DISCOVER), None);
        let answer = other.answer(xid, Duration::from_secs(3)).expect("an answer to another guest");
        assert_eq!((answer.kind, answer.yiaddr), (OFFER, other.address));
        let metrics = fixture.api.get("/metrics").text;
        assert!(metrics.contains("nicd_dhcp_ignored_total{reason=\"too_many\"}"), "{metrics}");
        assert!(!metrics.contains("nicd_dhcp_ignored_total{reason=\"not_sent\"}"), "{metrics}");
    });
}

#[test]
fn each_state_of_a_client_is_answered_as_the_rfc_says() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let mut vm = machine(&mut fixture);
        let (mac, own) = (vm.mac, vm.address);
        let host_side = [&[0xfe], &mac[1..]].concat();
        let offer = vm.ask(&Message::of(DISCOVER));
        assert_eq!((offer.kind, offer.yiaddr, offer.source, offer.target, offer.to), (OFFER, own, SERVER, own, mac));
        assert_eq!(offer.from[..], host_side);
        assert_eq!(offer.options[&54], SERVER.octets());
        assert_eq!(offer.options[&1], [255, 255, 255, 0]);
        assert_eq!(offer.options[&51], 86_400_u32.to_be_bytes());
        assert_eq!(offer.options[&121], [0, 192, 0, 2, 1]);
        // A client that takes what is sent to all only.
        let offer = vm.ask(&Message { flags: 0x8000, ..Message::of(DISCOVER) });
        assert_eq!((offer.target, offer.to), (Ipv4Addr::BROADCAST, BROADCAST));
        // SELECTING.
        let select = Message::of(REQUEST).with(54, &SERVER.octets());
        let ack = vm.ask(&select.clone().with(50, &own.octets()));
        assert_eq!((ack.kind, ack.yiaddr), (ACK, own));
        let nak = vm.ask(&select.with(50, &OTHER));
        assert_eq!((nak.kind, nak.yiaddr, nak.target, nak.to), (NAK, NOWHERE, Ipv4Addr::BROADCAST, BROADCAST));
        vm.is_ignored(&Message::of(REQUEST).with(54, &[192, 0, 2, 9]).with(50, &own.octets()), None);
        vm.is_ignored(&Message::of(REQUEST), None);
        // INIT-REBOOT.
        assert_eq!(vm.ask(&Message::of(REQUEST).with(50, &own.octets())).kind, ACK);
        assert_eq!(vm.ask(&Message::of(REQUEST).with(50, &OTHER)).kind, NAK);
        // RENEWING: to the server's address, whichever MAC has it; REBINDING: to all, from the own address.
        let renew = Message::of(REQUEST).from(own);
        for to in [[0x02, 0, 0, 0, 0, 9], BROADCAST] {
            let target = if to == BROADCAST { Ipv4Addr::BROADCAST } else { SERVER };
            let ack = vm.ask_one(&renew, (to, target));
            assert_eq!((ack.kind, ack.yiaddr, ack.ciaddr, ack.target, ack.to), (ACK, own, own, own, mac));
        }
        // An address that it no longer has.
        assert_eq!(vm.ask(&Message::of(REQUEST).from(OTHER.into())).kind, NAK);
        let ack = vm.ask_one(&Message::of(INFORM).from(own), (BROADCAST, Ipv4Addr::BROADCAST));
        assert_eq!((ack.kind, ack.yiaddr, ack.target), (ACK, NOWHERE, own));
        assert!(!ack.options.contains_key(&51) && !ack.options.contains_key(&58));
        // A guest that relays for itself, and other relays; servers' words are no client's.
        let relayed = |kind| Message { giaddr: own, ..Message::of(kind) };
        let offer = vm.ask_relayed(&relayed(DISCOVER));
        assert_eq!((offer.kind, offer.yiaddr, offer.giaddr, offer.source), (OFFER, own, own, SERVER));
        assert_eq!((offer.target, offer.to, offer.from.as_slice(), offer.port), (own, mac, &host_side[..], 67));
        let ack = vm.ask_relayed(&relayed(REQUEST).with(54, &offer.options[&54]).with(50, &own.octets()));
        assert_eq!((ack.kind, ack.yiaddr, ack.target, ack.port), (ACK, own, own, 67));
        assert_eq!((vm.ask(&relayed(DISCOVER)).port, vm.ask(&Message::of(DISCOVER)).port), (67, 68));
        vm.is_ignored(&Message { giaddr: [192, 0, 2, 5].into(), ..Message::of(DISCOVER) }, None);
        vm.is_ignored(&Message::of(OFFER), None);
        vm.is_ignored(&Message::of(RELEASE).from(own), Some((BROADCAST, SERVER)));
        let explained = fixture.api.get(&format!("/nicd/v1/ports/{}/explain", vm.port)).expect(200);
        let responder = explained["facts"].as_array().unwrap().iter().find(|fact| fact["fact"] == "responder").unwrap();
        assert!(responder["detail"].as_str().unwrap().ends_with(", 4 ignored"), "{explained}");
        let metrics = fixture.api.get("/metrics").text;
        for counted in [
            "nicd_dhcp_received_total{type=\"inform\"} 1",
            "nicd_dhcp_sent_total{type=\"nak\"} 3",
            "nicd_dhcp_ignored_total{reason=\"relayed\"} 1",
        ] {
            assert!(metrics.contains(counted), "{counted}: {metrics}");
        }
    });
}

#[test]
fn a_declined_address_is_told_of_and_the_port_stays_active() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let mut vm = machine(&mut fixture);
        let decline = Message::of(DECLINE).with(54, &SERVER.octets()).with(50, &vm.address.octets());
        vm.is_ignored(&decline, None);
        fixture.events.wait_for("agent.degraded", |event| {
            event["event"] == "agent.degraded" && event["reason"] == "address_declined" && event["port_id"] == vm.port.as_str()
        });
        fixture.wait_active(&vm.port, Some("address_declined"));
        let health = fixture.api.get("/nicd/v1/health").expect(200);
        assert!(health["problems"].as_array().unwrap().iter().any(|one| one["reason"] == "address_declined"), "{health}");
        // Whom nicd tells nothing has nothing to decline.
        let path = format!("/v2.0/ports/{}", vm.port);
        fixture.api.put(&path, &json!({"port": {"nicd:dhcp": false}})).expect(200);
        fixture.events.wait_for("agent.recovered", |event| event["event"] == "agent.recovered");
        fixture.wait_active(&vm.port, None);
        fixture.api.put(&path, &json!({"port": {"nicd:dhcp": true}})).expect(200);
        vm.is_ignored(&decline, None);
        fixture.events.wait_for("agent.degraded", |event| event["event"] == "agent.degraded");
        // Another address ends it.
        fixture.api.put(&path, &json!({"port": {"fixed_ips": [{"ip_address": "192.0.2.99"}]}})).expect(200);
        fixture.events.wait_for("agent.recovered", |event| event["event"] == "agent.recovered");
        fixture.wait_active(&vm.port, None);
        assert_eq!(vm.ask(&Message::of(DISCOVER)).yiaddr, Ipv4Addr::new(192, 0, 2, 99));
        // Who still asks for the old one begins anew, be it that it renews it from the old one.
        assert_eq!(vm.ask(&Message::of(REQUEST).with(50, &vm.address.octets())).kind, NAK);
        let renew = Message::of(REQUEST).from(vm.address);
        for to in [([0x02, 0, 0, 0, 0, 9], SERVER), (BROADCAST, Ipv4Addr::BROADCAST)] {
            let nak = vm.ask_one(&renew, to);
            assert_eq!((nak.kind, nak.target), (NAK, Ipv4Addr::BROADCAST));
        }
    });
}

#[test]
fn active_means_that_the_responder_is_bound_and_it_is_bound_while_there_is_a_port() {
    in_netns(|| {
        let mut daemon = Daemon::prepared("/run/nicd");
        // What asks on the bridge who has an address would be counted too.
        std::fs::write(daemon.config(), "[links]\nconflict_probe = \"off\"\n").unwrap();
        daemon.launch();
        let mut fixture = Fixture::of(daemon);
        let bound = || {
            std::fs::read_to_string("/proc/thread-self/net/packet")
                .unwrap()
                .lines()
                .filter(|line| line.contains(" 0003 "))
                .count()
        };
        assert_eq!(bound(), 0);
        let vm = machine(&mut fixture);
        let explained = fixture.api.get(&format!("/nicd/v1/ports/{}/explain", vm.port)).expect(200);
        let facts = explained["facts"].as_array().unwrap();
        let responder = facts.iter().find(|fact| fact["fact"] == "responder").unwrap();
        assert_eq!(responder["ok"], true, "{explained}");
        assert_eq!(bound(), 1);
        // Without DHCP nothing is heard, and the port is ACTIVE all the same.
        let path = format!("/v2.0/ports/{}", vm.port);
        fixture.api.put(&path, &json!({"port": {"nicd:dhcp": false}})).expect(200);
        let explained = fixture.api.get(&format!("/nicd/v1/ports/{}/explain", vm.port)).expect(200);
        assert!(explained["facts"].as_array().unwrap().iter().all(|fact| fact["fact"] != "responder"), "{explained}");
        assert_eq!(explained["status"], "ACTIVE");
        let deadline = std::time::Instant::now() + crate::daemon::PATIENCE;
        while bound() > 0 {
            assert!(std::time::Instant::now() < deadline, "the socket stays");
        }
        fixture.api.put(&path, &json!({"port": {"nicd:dhcp": true}})).expect(200);
        assert_eq!(bound(), 1);
        let mut vm = vm;
        assert_eq!(vm.ask(&Message::of(DISCOVER)).kind, OFFER);
    });
}

/// As Neutron and dnsmasq have them.
#[test]
fn an_option_has_one_value_whatever_it_is_called() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let set = |options: &[(&str, Option<&str>)]| {
            let options = options.iter().map(|(name, value)| json!({"opt_name": name, "opt_value": value}));
            json!({ "extra_dhcp_opts": options.collect::<Vec<_>>() })
        };
        let mut wanted = set(&[("6", Some("192.0.2.53")), ("mtu", Some("1300")), ("option:dns-server", Some("192.0.2.54"))]);
        wanted["network_id"] = json!(network);
        let port = fixture.create_port(wanted);
        let mut vm = Machine::of(&mut fixture, &port);
        let offer = vm.ask(&Message::of(DISCOVER));
        assert_eq!((&offer.options[&6][..], &offer.options[&26][..]), (&[192, 0, 2, 54][..], &[5, 20][..]));
        let path = format!("/v2.0/ports/{port}");
        let mut put = |change: &serde_json::Value| fixture.api.put(&path, &json!({ "port": change })).expect(200);
        let shown = put(&set(&[("dns-server", None), ("26", Some("1200")), ("router", Some(""))]));
        let names: Vec<&str> =
            shown["port"]["extra_dhcp_opts"].as_array().unwrap().iter().map(|one| one["opt_name"].as_str().unwrap()).collect();
        assert_eq!(names, ["26", "router"]);
        let offer = vm.ask(&Message::of(DISCOVER));
        assert_eq!([6, 3, 121].map(|code| offer.options.contains_key(&code)), [false; 3]);
        assert_eq!(offer.options[&26], [4, 176]);
        put(&json!({"extra_dhcp_opts": [{"opt_name": "dns-server", "opt_value": null, "ip_version": 6}]}));
        fixture.api.put(&path, &json!({ "port": set(&[("lease-time", Some("-5"))]) })).expect(400);
    });
}

#[test]
fn the_subnet_switches_it_off_for_all() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.network(json!({"name": "blue"}));
        let subnet = fixture.subnet(&network, "192.0.2.0/24");
        let mut vm = Machine::start(&mut fixture, &network);
        let path = format!("/v2.0/subnets/{subnet}");
        let shown = fixture.api.put(&path, &json!({"subnet": {"enable_dhcp": false}})).expect(200);
        assert_eq!(shown["subnet"]["enable_dhcp"], false);
        let unheard = vm.send(&Message::of(DISCOVER), None);
        fixture.api.put(&path, &json!({"subnet": {"enable_dhcp": true}})).expect(200);
        let xid = vm.send(&Message::of(DISCOVER), None);
        assert_eq!(vm.answer(xid, crate::daemon::PATIENCE).unwrap().kind, OFFER);
        assert_eq!(vm.answer(unheard, std::time::Duration::ZERO), None);
    });
}

/// The wire, the host and other guests hear neither what is asked nor what is answered; an operator's bridge has all of them.
#[test]
fn no_other_machine_hears_of_it() {
    in_netns(|| {
        let wire = wire();
        run("ip address add 192.0.2.250/24 dev br-op");
        let mut fixture = Fixture::start();
        let network = fixture.network_on("br-op");
        let mut vm = Machine::start(&mut fixture, &network);
        let other = Machine::start(&mut fixture, &network);
        // A server of the host's own.
        let host = std::net::UdpSocket::bind("0.0.0.0:67").unwrap();
        host.set_nonblocking(true).unwrap();
        let listener = wire.inside(|| crate::hostile::Ears::on("eth0"));
        let own = vm.address;
        for _ in 0..20 {
            assert_eq!(vm.ask(&Message::of(DISCOVER)).kind, OFFER);
            assert_eq!(vm.ask_one(&Message::of(REQUEST).from(own), ([0x02, 0, 0, 0, 0, 9], SERVER)).kind, ACK);
            assert_eq!(vm.ask_one(&Message::of(REQUEST).from(own), (BROADCAST, Ipv4Addr::BROADCAST)).kind, ACK);
        }
        // What everybody hears comes behind all of that.
        vm.send_frame(&crate::hostile::arp(vm.mac, own));
        let heard = listener.until_arp();
        assert!(heard.iter().all(|frame| !crate::hostile::is_dhcp(frame)), "the wire heard {heard:x?}");
        assert!(other.answer(0, std::time::Duration::ZERO).is_none());
        assert_eq!(host.recv_from(&mut [0; 2000]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "the host heard it");
    });
}
