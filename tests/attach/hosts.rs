//! Hosts as they are: which bridges carry the host's own traffic, which MACs it has, and what others do to a bridge's MTU.

use serde_json::json;

use crate::fixture::{Fixture, foreign_bridge, interfaces, text};
use crate::kernel_view::link;
use crate::netns::{in_netns, run};

#[test]
fn a_bridge_that_carries_the_hosts_default_route_is_refused_by_whichever_way() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        foreign_bridge("brx", 1500);
        run("ip addr add 10.99.0.1/24 dev brx");
        run("ip link add up0 type veth peer name wire");
        run("ip link set wire up");
        run("ip link set up0 master brx up");
        let new = json!({"network": {"name": "x", "nicd:bridge": "brx"}});
        let ways: [(&[&str], &[&str], &str); 7] = [
            (&["ip route add default via 10.99.0.254 dev brx"], &["ip route del default"], "table main, by brx"),
            (
                &["ip route add default via 10.99.0.254 dev brx table 100", "ip rule add from 10.99.0.1 table 100"],
                &["ip route del default table 100", "ip rule del table 100"],
                "table 100, by brx",
            ),
            (
                &["ip route add 0.0.0.0/1 via 10.99.0.254", "ip route add 128.0.0.0/1 via 10.99.0.254"],
                &["ip route del 0.0.0.0/1", "ip route del 128.0.0.0/1"],
                "table main",
            ),
            (&["ip -6 route add 2000::/3 dev brx table 7"], &["ip -6 route del 2000::/3 table 7"], "table 7"),
            (
                &["ip nexthop add id 5 via 10.99.0.254 dev brx", "ip route add default nhid 5 table 9"],
                &["ip route del default table 9", "ip nexthop del id 5"],
                "table 9",
            ),
            (&["ip route add default nexthop via 10.99.0.254 nexthop via 10.99.0.253"], &["ip route del default"], "table main"),
            (
                &[
                    "ip link add host0 type veth peer name host0-br",
                    "ip link set host0-br master brx up",
                    "ip link set host0 up",
                    "ip addr add 10.98.0.1/24 dev host0",
                    "ip route add default via 10.98.0.254 table 12",
                ],
                &["ip link del host0"],
                "table 12, by host0",
            ),
        ];
        for (make, undo, named) in ways {
            make.iter().for_each(|line| _ = run(line));
            let error = fixture.api.post("/v2.0/networks", &new).refused(403, "bridge_not_allowed");
            assert!(text(&error["message"]).contains(named), "{make:?}: {error}");
            undo.iter().for_each(|line| _ = run(line));
        }
        run("ip route add 10.0.0.0/8 via 10.99.0.254");
        fixture.api.post("/v2.0/networks", &new).expect(201);
    });
}

#[test]
fn a_mac_of_the_hosts_on_the_segment_is_no_guests() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        foreign_bridge("brx", 1500);
        run("ip link add up0 address 02:00:00:00:00:10 type veth peer name wire");
        run("ip link set up0 master brx up");
        run("ip link add host0 address 02:00:00:00:00:11 type veth peer name host0-br address 02:00:00:00:00:12");
        run("ip link set host0-br master brx up");
        run("ip link add apart address 02:00:00:00:00:13 type veth peer name apart-peer");
        let network = fixture.network_on("brx");
        let (_guest, server) = fixture.guest("a");
        let port = |mac: &str| json!({"port": {"network_id": network, "mac_address": mac}});
        for (mac, name) in [
            ("02:00:00:00:00:01", "brx"),
            ("02:00:00:00:00:10", "up0"),
            ("02:00:00:00:00:11", "host0"),
            ("02:00:00:00:00:12", "host0-br"),
        ] {
            let error = fixture.api.post("/v2.0/ports", &port(mac)).refused(409, "mac_in_use");
            assert!(error.to_string().contains(name), "{error}");
        }
        let other = text(&fixture.api.post("/v2.0/ports", &port("02:00:00:00:00:13")).expect(201)["port"]["id"]);
        let attach = json!({"interfaceAttachment": {"port_id": other}});
        fixture.api.post(&interfaces(&server), &attach).expect(200);
        let waits = text(&fixture.api.post("/v2.0/ports", &port("02:00:00:00:00:14")).expect(201)["port"]["id"]);
        // Later they come onto the segment.
        run("ip link set apart master brx");
        run("ip link add late address 02:00:00:00:00:14 type veth peer name late-peer");
        run("ip link set late master brx");
        let verified = fixture.verified();
        let kinds: Vec<_> = verified["deviations"].as_array().unwrap().iter().map(|one| text(&one["kind"])).collect();
        assert_eq!(kinds, ["duplicate_mac"], "{verified}");
        assert!(text(&verified["deviations"][0]["have"]).contains("apart"), "{verified}");
        // What a complete dump has shown is known to the next attach.
        let attach = json!({"interfaceAttachment": {"port_id": waits}});
        fixture.api.post(&interfaces(&server), &attach).refused(409, "mac_in_use");
        run("ip link set apart nomaster");
    });
}

#[test]
fn one_device_whose_mtu_others_change_does_not_cost_the_others_their_nics() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        // Nobody has set its MTU, so it follows its smallest port.
        run("ip link add brx address 02:00:00:00:00:01 type bridge");
        run("ip link set brx up");
        let network = fixture.network_on("brx");
        let server = fixture.vm();
        let first = fixture.attach_to(&server, &network);
        let device = fixture.device(&first);
        let fight = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
        let going = fight.clone();
        let fighter = std::thread::spawn(move || {
            while going.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = crate::netns::try_run(&format!("ip link set dev {device} mtu 1300"));
            }
        });
        for _ in 0..8 {
            let at = fixture.vm();
            let port = fixture.attach_to(&at, &network);
            assert_eq!(link(&fixture.device(&port))["mtu"], 1500, "it has what its network has");
        }
        fight.store(false, std::sync::atomic::Ordering::Relaxed);
        fighter.join().unwrap();
        fixture.leaves_deviations();
    });
}
