//! Guests that send packets to each other, and whether they arrive.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use etherparse::{EtherType, PacketBuilder, TcpHeader};
use serde_json::{Value, json};

use crate::daemon::PATIENCE;
use crate::fixture::{Fixture, text};
use crate::netns::Guest;
use crate::wire::Nic;

/// A guest with one NIC.
#[derive(Debug)]
pub struct Host {
    pub nic: Nic,
    pub port: String,
    pub mac: [u8; 6],
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
    _guest: Guest,
}

/// What a packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carried {
    /// From and to these ports, with SYN or in the midst of a connection.
    Tcp {
        from: u16,
        to: u16,
        syn: bool,
    },
    Udp {
        from: u16,
        to: u16,
    },
    /// A request for an echo, or the answer.
    Echo {
        id: u16,
        answer: bool,
    },
    /// GRE (47).
    Gre,
}

/// Guests of one daemon, with what tells packets apart.
#[derive(Debug)]
pub struct Scene {
    pub fixture: Fixture,
    number: u64,
}

impl Scene {
    pub fn start() -> Self {
        Self::of(Fixture::start())
    }

    pub fn of(fixture: Fixture) -> Self {
        Self { fixture, number: 0 }
    }

    /// A guest on a network, whose port is in these groups.
    pub fn host(&mut self, name: &str, network: &str, groups: &[&str]) -> Host {
        let (guest, server) = self.fixture.guest(name);
        let port = self.fixture.create_port(json!({"network_id": network, "security_groups": groups}));
        self.fixture.attach(&server, json!({ "port_id": port }));
        self.host_with(guest, port)
    }

    /// The same, whose port is made by a job of OTC's.
    pub fn host_by_job(&mut self, name: &str, network: &str, groups: &[&str]) -> Host {
        let (guest, server) = self.fixture.guest(name);
        let groups: Vec<Value> = groups.iter().map(|id| json!({ "id": id })).collect();
        let nics = json!({"nics": [{"subnet_id": network, "security_groups": groups}]});
        let job = self.fixture.api.post(&format!("/v1/demo/cloudservers/{server}/nics"), &nics).expect(200);
        let job = format!("/v1/demo/jobs/{}", text(&job["job_id"]));
        self.soon("the job is done", |scene| scene.fixture.api.get(&job).expect(200)["status"] == "SUCCESS");
        let port = text(&self.fixture.api.get(&job).expect(200)["entities"]["nic_id"]);
        self.host_with(guest, port)
    }

    fn host_with(&mut self, guest: Guest, port: String) -> Host {
        let shown = self.fixture.wait_status(&port, "ACTIVE");
        let address = |of: fn(&IpAddr) -> bool| {
            let all = shown["fixed_ips"].as_array().unwrap().iter();
            all.map(|ip| text(&ip["ip_address"]).parse::<IpAddr>().unwrap()).find(of)
        };
        let Some(IpAddr::V4(v4)) = address(IpAddr::is_ipv4) else { panic!("{shown}") };
        let Some(IpAddr::V6(v6)) = address(IpAddr::is_ipv6) else { panic!("{shown}") };
        let mut mac = [0; 6];
        let octets = text(&shown["mac_address"]);
        octets.split(':').enumerate().for_each(|(at, octet)| mac[at] = u8::from_str_radix(octet, 16).unwrap());
        Host { nic: Nic::of_guest(&guest), port, mac, v4, v6, _guest: guest }
    }

    /// A group without rules.
    pub fn group(&mut self, name: &str) -> String {
        let group = self.fixture.api.post("/v2.0/security-groups", &json!({"security_group": {"name": name}})).expect(201);
        for rule in group["security_group"]["security_group_rules"].as_array().unwrap() {
            self.unrule(&text(&rule["id"]));
        }
        text(&group["security_group"]["id"])
    }

    pub fn rule(&mut self, group: &str, mut rule: Value) -> String {
        rule["security_group_id"] = json!(group);
        let made = self.fixture.api.post("/v2.0/security-group-rules", &json!({ "security_group_rule": rule })).expect(201);
        text(&made["security_group_rule"]["id"])
    }

    pub fn unrule(&mut self, rule: &str) {
        self.fixture.api.delete(&format!("/v2.0/security-group-rules/{rule}")).expect(204);
    }

    pub fn set_groups(&mut self, host: &Host, groups: &[&str]) {
        let change = json!({"port": {"security_groups": groups}});
        self.fixture.api.put(&format!("/v2.0/ports/{}", host.port), &change).expect(200);
    }

    /// How many packets of a host's port its groups have not allowed.
    pub fn refused(&mut self, host: &Host) -> u64 {
        let counters = self.fixture.api.get(&format!("/nicd/v1/ports/{}/counters", host.port)).expect(200);
        counters["dropped"]["group"].as_u64().unwrap()
    }

    /// Whether a packet arrives.
    pub fn passes(&mut self, from: &Host, to: &Host, v6: bool, carried: Carried) -> bool {
        self.number += 1;
        let tag = [&[0xd1, 0x5e, 0xa5, 0xe1][..], &self.number.to_be_bytes()].concat();
        let frame = frame(from, to, v6, carried, &tag);
        self.arrives(from, to, &[frame], &tag)
    }

    /// Whether one of frames that has this in it arrives. What is sent behind them, which every group lets pass, ends the wait.
    pub fn arrives(&mut self, from: &Host, to: &Host, frames: &[Vec<u8>], tag: &[u8]) -> bool {
        self.number += 1;
        frames.iter().for_each(|frame| from.nic.send(frame).unwrap());
        let question = self.number.to_be_bytes();
        let asked = [192, 0, 2, 250];
        let arp = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &from.mac, &from.v4.octets(), &question[2..], &asked].concat();
        from.nic.send(&[&[0xff; 6][..], &from.mac, &[8, 6], &arp].concat()).unwrap();
        let has = |frame: &[u8], wanted: &[u8]| frame.windows(wanted.len()).any(|octets| octets == wanted);
        let mut found = false;
        let end = [&question[2..], &asked].concat();
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "what ends the wait does not come");
            let frame = to.nic.wait();
            // What the guest's own kernel answers quotes what it got.
            found |= frame[6..12] == from.mac && has(&frame, tag);
            if has(&frame, &end) {
                return found;
            }
        }
    }

    /// Waits until something is so.
    pub fn soon(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < deadline, "{what}");
            self.fixture.events.next(Duration::from_millis(20));
        }
    }
}

/// A whole frame with right checksums.
pub fn frame(from: &Host, to: &Host, v6: bool, carried: Carried, data: &[u8]) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2(from.mac, to.mac);
    let ip = match v6 {
        false => ethernet.ipv4(from.v4.octets(), to.v4.octets(), 64),
        true => ethernet.ipv6(from.v6.octets(), to.v6.octets(), 64),
    };
    let mut frame = Vec::new();
    match carried {
        Carried::Tcp { from, to, syn } => {
            let mut header = TcpHeader::new(from, to, 1000, 1024);
            (header.syn, header.ack) = (syn, !syn);
            ip.tcp_header(header).write(&mut frame, data).unwrap();
        }
        Carried::Udp { from, to } => ip.udp(from, to).write(&mut frame, data).unwrap(),
        Carried::Echo { id, answer } => match (v6, answer) {
            (false, false) => ip.icmpv4_echo_request(id, 1).write(&mut frame, data).unwrap(),
            (false, true) => ip.icmpv4_echo_reply(id, 1).write(&mut frame, data).unwrap(),
            (true, false) => ip.icmpv6_echo_request(id, 1).write(&mut frame, data).unwrap(),
            (true, true) => ip.icmpv6_echo_reply(id, 1).write(&mut frame, data).unwrap(),
        },
        Carried::Gre => {
            let gre = [&[0, 0, 0x08, 0x00][..], data].concat();
            ip.write(&mut frame, 47.into(), &gre).unwrap();
        }
    }
    assert_eq!(frame[12..14], if v6 { EtherType::IPV6 } else { EtherType::IPV4 }.0.to_be_bytes());
    frame
}
