//! The host's packet filter, which may drop what guests send each other on a bridge: a port is ACTIVE while frames pass.

use std::net::UdpSocket;
use std::time::Duration;

use serde_json::Value;

use crate::fixture::{Fixture, foreign_bridge, text};
use crate::kernel_view::link;
use crate::netns::{Guest, in_netns, run};

/// Two guests of one network.
struct Pair {
    fixture: Fixture,
    guests: [Guest; 2],
    ports: [String; 2],
    addresses: Vec<String>,
    bridge: String,
}

impl Pair {
    fn on(network: impl FnOnce(&mut Fixture) -> String) -> Self {
        let mut fixture = Fixture::start();
        let network = network(&mut fixture);
        let (a, first) = fixture.guest("a");
        let (b, second) = fixture.guest("b");
        let ports = [fixture.attach_to(&first, &network), fixture.attach_to(&second, &network)];
        ports.iter().for_each(|port| _ = fixture.wait_status(port, "ACTIVE"));
        let shown = fixture.port(&ports[1]);
        let addresses = shown["fixed_ips"].as_array().unwrap().iter().map(|ip| text(&ip["ip_address"])).collect();
        let bridge = text(&link(&fixture.device(&ports[0]))["master"]);
        Self { fixture, guests: [a, b], ports, addresses, bridge }
    }

    /// Whether a frame of the first guest comes to the second.
    fn reaches(&self, v6: bool) -> bool {
        let address = self.addresses.iter().find(|address| address.contains(':') == v6).unwrap();
        let (at, any) = if v6 { (format!("[{address}]:7777"), "[::]:0") } else { (format!("{address}:7777"), "0.0.0.0:0") };
        let bound = at.clone();
        let listening = self.guests[1].inside(move || UdpSocket::bind(bound).unwrap());
        listening.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
        self.guests[0].inside(move || UdpSocket::bind(any).unwrap().send_to(b"hello", at).unwrap());
        listening.recv_from(&mut [0; 16]).is_ok()
    }

    fn fact(&mut self) -> (bool, String) {
        let explained = self.fixture.api.get(&format!("/nicd/v1/ports/{}/explain", self.ports[0])).expect(200);
        let fact = explained["facts"].as_array().unwrap().iter().find(|fact| fact["fact"] == "forward_filtered").unwrap();
        (fact["ok"] == true, text(&fact["detail"]))
    }

    fn problem(&mut self) -> Option<Value> {
        let health = self.fixture.api.get("/nicd/v1/health").expect(200);
        health["problems"].as_array().unwrap().iter().find(|problem| problem["reason"] == "forward_filtered").cloned()
    }

    /// Both are DOWN for it, and explain, health and verify say so; the chain is named.
    fn is_filtered(&mut self, chain: &str) {
        for port in self.ports.clone() {
            let seen =
                self.fixture.wait_until(&port, "filtered", |port| port.is_some_and(|port| port["status"] == "DOWN")).unwrap();
            assert_eq!(seen["nicd:reason"], "forward_filtered");
        }
        let (ok, detail) = self.fact();
        assert!(!ok && detail.contains(chain), "{detail}");
        let problem = self.problem().unwrap();
        assert!(text(&problem["detail"]).contains(chain) && text(&problem["detail"]).contains(&self.bridge), "{problem}");
        let verified = self.fixture.verified();
        assert!(verified["deviations"].as_array().unwrap().iter().all(|one| one["kind"] == "forward_filtered"), "{verified}");
    }

    fn is_open(&mut self) {
        for port in self.ports.clone() {
            self.fixture.wait_status(&port, "ACTIVE");
        }
        assert!(self.fact().0);
        assert_eq!(self.problem(), None);
    }
}

fn settings(value: &str) {
    for name in ["iptables", "ip6tables"] {
        std::fs::write(format!("/proc/sys/net/bridge/bridge-nf-call-{name}"), value).unwrap();
    }
}

fn nft(line: &str) {
    run(&format!("nft {line}"));
}

/// As Docker leaves it, which accepts what goes through its own bridge.
fn docker(family: &str) {
    for line in [
        "add table F filter",
        "add chain F filter FORWARD { type filter hook forward priority 0 ; policy drop ; }",
        "add chain F filter DOCKER-USER",
        "add chain F filter DOCKER",
        "add rule F filter DOCKER-USER return",
        "add rule F filter FORWARD counter jump DOCKER-USER",
        "add rule F filter FORWARD oifname docker0 ct state related,established counter accept",
        "add rule F filter FORWARD oifname docker0 counter jump DOCKER",
        "add rule F filter FORWARD iifname docker0 oifname != docker0 counter accept",
        "add rule F filter FORWARD iifname docker0 oifname docker0 counter accept",
    ] {
        nft(&line.replace(" F ", &format!(" {family} ")));
    }
}

#[test]
fn behind_a_forward_drop_of_ip_a_port_is_not_active_until_frames_pass() {
    in_netns(|| {
        settings("1");
        let mut pair = Pair::on(Fixture::usual_network);
        assert!(pair.reaches(false) && pair.reaches(true));
        docker("ip");
        pair.is_filtered("chain FORWARD of table ip filter drops IPv4");
        assert!(!pair.reaches(false));
        let bridge = pair.bridge.clone();
        nft(&format!("insert rule ip filter DOCKER-USER iifname {bridge} oifname {bridge} counter accept"));
        pair.is_open();
        assert!(pair.reaches(false) && pair.reaches(true));
        nft("flush chain ip filter DOCKER-USER");
        pair.is_filtered("chain FORWARD of table ip filter");
        settings("0");
        pair.is_open();
        assert!(pair.reaches(false));
        run(&format!("ip link set {bridge} type bridge nf_call_iptables 1"));
        pair.is_filtered("chain FORWARD of table ip filter");
        assert!(!pair.reaches(false));
        // A start finds it so as well, and an attach is told at once.
        pair.fixture.daemon.term();
        pair.fixture.launch();
        pair.is_filtered("chain FORWARD of table ip filter");
        nft("add chain ip filter FORWARD { policy accept ; }");
        pair.is_open();
        assert!(pair.reaches(false));
        run(&format!("ip link set {bridge} type bridge nf_call_iptables 0"));
        settings("1");
        docker("ip6");
        pair.is_filtered("chain FORWARD of table ip6 filter drops IPv6");
        assert!(pair.reaches(false) && !pair.reaches(true));
        nft("flush ruleset");
        pair.is_open();
        assert!(pair.reaches(true));
    });
}

#[test]
fn so_it_is_with_a_last_rule_that_rejects_and_with_a_chain_for_bridges() {
    in_netns(|| {
        settings("1");
        foreign_bridge("br0", 1500);
        let mut pair = Pair::on(|fixture| fixture.network_on("br0"));
        nft("add table inet firewall");
        nft("add chain inet firewall forward { type filter hook forward priority 10 ; policy accept ; }");
        nft("add rule inet firewall forward ct state established,related accept");
        nft("add rule inet firewall forward iifname eth0 accept");
        nft("add rule inet firewall forward meta nfproto ipv6 accept");
        nft("add rule inet firewall forward reject");
        pair.is_filtered("chain forward of table inet firewall drops IPv4");
        assert!(!pair.reaches(false));
        nft("insert rule inet firewall forward ip saddr 10.0.0.0/8 accept");
        pair.is_open();
        assert!(pair.fact().1.contains("not known to nicd"), "what cannot be decided is said, and holds nothing down");
        nft("add table inet firewall { flags dormant ; }");
        pair.is_open();
        assert!(pair.reaches(false));
        // Frames come by these without br_netfilter.
        settings("0");
        nft("add table bridge filter");
        nft("add chain bridge filter forward { type filter hook forward priority 0 ; policy drop ; }");
        pair.is_filtered("chain forward of table bridge filter drops IPv4");
        assert!(!pair.reaches(false));
        nft("add rule bridge filter forward ether type { arp , ip } accept");
        pair.is_open();
        nft("delete table bridge filter");
        pair.is_open();
    });
}

#[test]
fn a_ruleset_that_keeps_changing_is_read_at_its_own_pace_and_its_last_state_counts() {
    in_netns(|| {
        settings("1");
        let mut pair = Pair::on(Fixture::usual_network);
        docker("ip");
        for n in 0..60 {
            nft(&format!("add rule ip filter DOCKER ip daddr 172.17.0.{n} accept"));
        }
        pair.is_filtered("chain FORWARD of table ip filter");
        nft("delete table ip filter");
        pair.is_open();
    });
}
