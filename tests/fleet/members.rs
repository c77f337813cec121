//! Rules that name a group let in its ports of other hosts, as long as they are in it. In a kernel that tracks the connections of bridges:
//! Debian's does, and these run there (`tests/service/kernel.rs`); where `NICD_TRACKS` does not say that this one does, they pass without a
//! look.

use std::fs::File;
use std::net::{IpAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};

use crate::daemon::PATIENCE;
use crate::hosts::{Host, with_etcd};
use crate::netns::{Guest, comes_true, try_run};

const GROUPS: &str = "/v2.0/security-groups";
const RULES: &str = "/v2.0/security-group-rules";

/// Where a guest answers.
const ECHO: u16 = 7;

/// How long a datagram may take.
const LIMIT: Duration = Duration::from_millis(500);

/// A guest of a host's, with its port.
struct Member {
    guest: Guest,
    port: String,
    address: IpAddr,
    echo: UdpSocket,
}

/// A socket of a guest's.
fn socket(guest: &Guest, address: IpAddr, port: u16) -> UdpSocket {
    let open = || {
        setns(File::open(&guest.path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
        UdpSocket::bind((address, port)).unwrap()
    };
    let socket = thread::scope(|scope| scope.spawn(open).join().unwrap());
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket
}

impl Member {
    fn new(host: &mut Host, network: &str, number: u8, groups: &[&str]) -> Self {
        let guest = Guest::new(&format!("guest-{number}"));
        let server = format!("00000000-0000-4000-8000-0000000000{number:02}");
        let body = json!({"server": {"guest": {"kind": "netns", "path": guest.path}}});
        assert!(host.client.put(&format!("/nicd/v1/servers/{server}"), &body).status < 300);
        let new = json!({"port": {"network_id": network, "security_groups": groups}});
        let port = host.client.post("/v2.0/ports", &new).expect(201)["port"].clone();
        let port_id = port["id"].as_str().unwrap().to_owned();
        let path = format!("/v2.1/servers/{server}/os-interface");
        host.client.post(&path, &json!({"interfaceAttachment": {"port_id": port_id}})).expect(200);
        let address: IpAddr = port["fixed_ips"][0]["ip_address"].as_str().unwrap().parse().unwrap();
        let echo = socket(&guest, address, ECHO);
        Self { guest, port: port_id, address, echo }
    }

    /// Whether it asks another one and is answered.
    fn asks(&self, other: &Self) -> bool {
        ask(&socket(&self.guest, self.address, 0), other)
    }

    fn enters(&self, host: &mut Host, groups: &[&str]) {
        let change = json!({"port": {"security_groups": groups}});
        host.client.put(&format!("/v2.0/ports/{}", self.port), &change).expect(200);
    }
}

/// Whether what a socket sends to a guest arrives, and the answer too.
fn ask(from: &UdpSocket, to: &Member) -> bool {
    let question: [u8; 16] = rand::random();
    from.send_to(&question, (to.address, ECHO)).unwrap();
    let mut heard = [0; 16];
    // What came late before is no answer.
    while let Ok((_, asked_by)) = to.echo.recv_from(&mut heard) {
        if heard == question {
            to.echo.send_to(&question, asked_by).unwrap();
            return from.recv(&mut heard).is_ok();
        }
    }
    false
}

/// Waits until one guest reaches another, or does not any more.
fn reaches(from: &Member, to: &Member, does: bool) {
    let table = |number: u8| try_run(&format!("ip netns exec host-{number} nft list table bridge nicd")).unwrap_or_default();
    let said = || format!("{} to {}: never {does}\n{}\n{}", from.guest.name, to.address, table(1), table(2));
    comes_true(PATIENCE, || from.asks(to) == does, said);
}

fn group(host: &mut Host, name: &str) -> String {
    let made = host.client.post(GROUPS, &json!({"security_group": {"name": name}})).expect(201);
    made["security_group"]["id"].as_str().unwrap().to_owned()
}

fn rule(host: &mut Host, group: &str, remote: &str) -> String {
    let rule = json!({"security_group_id": group, "direction": "ingress", "protocol": "udp", "remote_group_id": remote});
    let made = host.client.post(RULES, &json!({ "security_group_rule": rule })).expect(201);
    made["security_group_rule"]["id"].as_str().unwrap().to_owned()
}

/// A network, a group that lets another one's ports in, and that one, which two hosts know.
fn made(one: &mut Host, two: &mut Host) -> (String, String, String, String) {
    let made = one.client.post("/v2.0/networks", &json!({"network": {"provider:network_type": "vxlan"}})).expect(201);
    let network = made["network"]["id"].as_str().unwrap().to_owned();
    one.client.post("/v2.0/subnets", &json!({"subnet": {"network_id": network, "cidr": "192.0.2.0/24"}})).expect(201);
    let (web, db) = (group(one, "web"), group(one, "db"));
    let lets_in = rule(one, &db, &web);
    let path = format!("{RULES}/{lets_in}");
    comes_true(PATIENCE, || two.client.get(&path).status == 200, || "the rule is not seen".to_owned());
    (network, web, db, lets_in)
}

fn tracks() -> bool {
    std::env::var_os("NICD_TRACKS").is_some()
}

#[test]
fn a_guest_reaches_another_hosts_because_its_group_says_so() {
    if !tracks() {
        return;
    }
    with_etcd(|node| {
        let (mut one, mut two) = (Host::started("node-1", 1), Host::started("node-2", 2));
        let (network, web, db, lets_in) = made(&mut one, &mut two);
        let back = Member::new(&mut two, &network, 2, &[&db]);
        let front = Member::new(&mut one, &network, 1, &[&web]);
        let other = Member::new(&mut one, &network, 3, &[]);
        reaches(&front, &back, true);
        assert!(!other.asks(&back));
        // Back's own group lets out what it begins, and front's lets nothing in.
        assert!(!back.asks(&front));
        // It leaves the group, and comes back: at its host, and so at the other one.
        front.enters(&mut one, &[&db]);
        reaches(&front, &back, false);
        front.enters(&mut one, &[&web, &db]);
        reaches(&front, &back, true);
        other.enters(&mut one, &[&web]);
        reaches(&other, &back, true);
        // The rule goes at one host, and so at the other.
        assert_eq!(one.client.delete(&format!("{RULES}/{lets_in}")).status, 204);
        reaches(&front, &back, false);
        rule(&mut two, &db, &web);
        reaches(&front, &back, true);
        // What another guest says in its name is not let in: on the member's own host, and on this one.
        for (host, number) in [(&mut one, 4), (&mut two, 5)] {
            let liar = Member::new(host, &network, number, &[]);
            liar.guest.ip(&format!("address add {}/32 dev eth0", front.address));
            assert!(!ask(&socket(&liar.guest, front.address, 0), &back));
        }
        // What the kernel has is put back where another program takes it.
        for set in ["remote4", "holders4"] {
            try_run(&format!("ip netns exec host-2 nft flush set bridge nicd {set}")).unwrap_or_default();
            try_run(&format!("ip netns exec host-2 nft flush map bridge nicd {set}")).unwrap_or_default();
        }
        reaches(&front, &back, true);
        // A restart without etcd keeps it, and what is not told stays as it was.
        node.kill();
        two.daemon.kill();
        two.launch();
        assert!(front.asks(&back) && other.asks(&back));
        two.daemon.kill();
        try_run("ip netns exec host-2 nft delete table bridge nicd").unwrap();
        two.launch();
        reaches(&front, &back, true);
        other.enters(&mut one, &[]);
        node.restart();
        two.joins();
        reaches(&other, &back, false);
        assert!(front.asks(&back));
        // Its port is deleted, and another one gets its address.
        assert_eq!(one.client.delete(&format!("/v2.0/ports/{}", front.port)).status, 204);
        let listed = |two: &mut Host| two.client.get(&format!("/v2.0/ports/{}", front.port)).status;
        comes_true(PATIENCE, || listed(&mut two) == 404, || "the port stays".to_owned());
        let elements = || try_run("ip netns exec host-2 nft list table bridge nicd").unwrap_or_default();
        comes_true(PATIENCE, || !elements().contains(&front.address.to_string()), elements);
        let verified: Value = two.client.get("/nicd/v1/verify").expect(200);
        assert_eq!(verified["deviations"], json!([]));
    });
}
