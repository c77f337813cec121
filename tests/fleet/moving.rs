//! A port moves from host to host: its guest's frames are at one place at any time, and whatever dies it is at one of the two.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::daemon::PATIENCE;
use crate::hosts::{Host, with_etcd};
use crate::netns::{Guest, comes_true, json as json_of};
use crate::shared::{address, guest, has, network, reaches};

const SERVER: &str = "00000000-0000-4000-8000-000000000001";

/// Three hosts with a guest each on one network. The first one's is known to the second host as well, in another namespace.
struct Fleet {
    hosts: [Host; 3],
    guests: Vec<Guest>,
    /// Where the first guest goes.
    target: Guest,
    port: Value,
    other: Value,
}

impl Fleet {
    fn new() -> Self {
        let mut hosts = [Host::started("node-1", 1), Host::started("node-2", 2), Host::started("node-3", 3)];
        let id = network(&mut hosts[0], "192.0.2.0/24");
        for host in &mut hosts {
            has(host, &id, 1);
        }
        let (first, port) = guest(&mut hosts[0], &id, 1);
        let (second, _) = guest(&mut hosts[1], &id, 2);
        let (third, other) = guest(&mut hosts[2], &id, 3);
        let target = Guest::new("guest-4");
        let body = json!({"server": {"guest": {"kind": "netns", "path": target.path}}});
        assert_eq!(hosts[1].client.put(&format!("/nicd/v1/servers/{SERVER}"), &body).status, 201);
        let fleet = Self { hosts, guests: vec![first, second, third], target, port, other };
        reaches(&fleet.guests[2], &fleet.port);
        fleet
    }

    fn id(&self) -> String {
        self.port["port_id"].as_str().unwrap().to_owned()
    }

    fn path(&self) -> String {
        format!("/v2.0/ports/{}/bindings", self.id())
    }

    /// The bindings as a host shows them.
    fn bindings(&mut self, at: usize) -> Vec<(String, String)> {
        let path = self.path();
        let all = self.hosts[at].client.get(&path).expect(200)["bindings"].clone();
        let text = |one: &Value, key: &str| one[key].as_str().unwrap().to_owned();
        let mut all: Vec<_> = all.as_array().unwrap().iter().map(|one| (text(one, "host"), text(one, "status"))).collect();
        all.sort();
        all
    }

    fn shows(&mut self, at: usize, wanted: &[(&str, &str)]) {
        let wanted: Vec<(String, String)> = wanted.iter().map(|(host, is)| ((*host).to_owned(), (*is).to_owned())).collect();
        let mut seen = Vec::new();
        let is_so = || {
            seen = self.bindings(at);
            seen == wanted
        };
        comes_true(PATIENCE, is_so, || format!("{wanted:?} is not what host {at} shows"));
    }

    /// The port's device on a host, from the kernel: whether it is up, and the bridge that it is in.
    fn device(&self, host: u8) -> Option<(bool, Option<String>)> {
        let altname = format!("nicd-{}", self.id());
        let links = json_of(&format!("ip -n host-{host} -j link"));
        let has = |link: &&Value| link["altnames"].as_array().is_some_and(|all| all.iter().any(|name| *name == altname));
        let link = links.as_array().unwrap().iter().find(has)?;
        let is_up = link["flags"].as_array().unwrap().iter().any(|flag| flag == "UP");
        Some((is_up, link["master"].as_str().map(str::to_owned)))
    }

    /// The devices of a host's bridges that its FDB has the port's MAC at.
    fn entries(&self, host: u8) -> Vec<String> {
        let mac = self.port["mac_addr"].as_str().unwrap();
        let all = json_of(&format!("bridge -n host-{host} -j fdb"));
        let of_bridge = |entry: &&Value| entry["mac"] == mac && entry["master"].is_string();
        all.as_array().unwrap().iter().filter(of_bridge).map(|entry| entry["ifname"].as_str().unwrap().to_owned()).collect()
    }

    fn prepare(&mut self, at: usize) -> Value {
        let path = self.path();
        self.hosts[at].client.post(&path, &json!({"binding": {"host": "node-2"}})).expect(201)["binding"].clone()
    }

    fn activate(&mut self, at: usize, host: &str) -> crate::daemon::Answer {
        let path = format!("{}/{host}/activate", self.path());
        self.hosts[at].client.put(&path, &json!({}))
    }

    /// Waits until it is active at one host, and silent at the other.
    fn is_at(&mut self, active: u8, silent: u8) {
        let is_so = || {
            let up = self.device(active).is_some_and(|(is_up, master)| is_up && master.is_some());
            up && self.device(silent).is_none_or(|device| device == (false, None))
        };
        comes_true(PATIENCE, is_so, || {
            let logs: String = self.hosts.iter().map(|host| host.daemon.log()).collect();
            format!("not at host {active}: {:?}, {:?}\n{logs}", self.device(active), self.device(silent))
        });
    }
}

#[test]
fn a_guest_is_moved_while_another_one_pings_it() {
    with_etcd(|_| {
        let mut fleet = Fleet::new();
        // Asked at a host that has nothing to do with it.
        let prepared = fleet.prepare(2);
        assert_eq!((&prepared["host"], &prepared["status"]), (&json!("node-2"), &json!("INACTIVE")));
        assert_eq!(prepared["vif_type"], "veth");
        for at in 0..3 {
            fleet.shows(at, &[("node-1", "ACTIVE"), ("node-2", "INACTIVE")]);
        }
        // Built, and silent.
        assert_eq!(fleet.device(2), Some((false, None)));
        let way = fleet.entries(2);
        assert!(way.len() == 1 && way[0].starts_with("nv"), "{way:?}");
        let built = fleet.target.ip("address show");
        assert!(built.contains(&address(&fleet.port)), "{built}");
        let (path, id) = (fleet.path(), fleet.id());
        let again = json!({"binding": {"host": "node-2"}});
        fleet.hosts[0].client.post(&path, &again).refused(409, "binding_exists");
        fleet.hosts[1].client.post(&path, &json!({"binding": {"host": "node-1"}})).refused(409, "binding_exists");
        fleet.hosts[0].client.post(&path, &json!({"binding": {"host": "node-9"}})).refused(404, "no_such_host");
        fleet.hosts[0].client.post(&path, &json!({"binding": {}})).refused(400, "invalid_value");
        fleet.activate(1, "node-1").refused(409, "binding_active");
        fleet.activate(0, "node-3").refused(404, "no_such_binding");
        // One port, active at the first host, wherever it is asked for.
        for host in &mut fleet.hosts {
            let shown = host.client.get(&format!("/v2.0/ports/{id}")).expect(200)["port"].clone();
            assert_eq!((&shown["binding:host_id"], &shown["status"]), (&json!("node-1"), &json!("ACTIVE")));
            let all = host.client.get("/v2.0/ports").expect(200)["ports"].clone();
            assert_eq!(all.as_array().unwrap().iter().filter(|port| port["id"] == id).count(), 1);
        }
        let pings = Command::new("ip")
            .args(["netns", "exec", "guest-3", "ping", "-n", "-i", "0.002", "-c", "1000", "-W", "1", &address(&fleet.port)])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let moved = fleet.activate(2, "node-2").expect(200)["binding"].clone();
        assert_eq!((&moved["host"], &moved["status"]), (&json!("node-2"), &json!("ACTIVE")));
        fleet.is_at(2, 1);
        let said = String::from_utf8(pings.wait_with_output().unwrap().stdout).unwrap();
        let summary = said.lines().find(|line| line.contains("packets transmitted")).unwrap_or(&said).to_owned();
        eprintln!("{summary}");
        assert!(!said.contains("DUP!"), "{said}");
        let received: u32 = summary.split(", ").find_map(|part| part.strip_suffix(" received")?.parse().ok()).unwrap();
        assert!(received > 700, "{summary}");
        for at in 0..3 {
            fleet.shows(at, &[("node-1", "INACTIVE"), ("node-2", "ACTIVE")]);
        }
        let shown = fleet.hosts[0].client.get(&format!("/v2.0/ports/{id}")).expect(200)["port"].clone();
        assert_eq!((&shown["binding:host_id"], &shown["status"]), (&json!("node-2"), &json!("ACTIVE")));
        // The way back is there.
        fleet.activate(0, "node-1").expect(200);
        fleet.is_at(1, 2);
        reaches(&fleet.guests[2], &fleet.port.clone());
        fleet.activate(0, "node-2").expect(200);
        fleet.is_at(2, 1);
        // And its end: the device goes, and the server that has no other NIC there.
        fleet.hosts[0].client.delete(&format!("{path}/node-2")).refused(409, "binding_active");
        assert_eq!(fleet.hosts[2].client.delete(&format!("{path}/node-1")).status, 204);
        comes_true(PATIENCE, || fleet.device(1).is_none(), || "the device stays".to_owned());
        fleet.shows(2, &[("node-2", "ACTIVE")]);
        fleet.hosts[2].client.delete(&format!("{path}/node-1")).refused(404, "no_such_binding");
        let servers = fleet.hosts[0].client.get("/nicd/v1/servers?scope=host").expect(200)["servers"].clone();
        assert!(servers.as_array().unwrap().iter().all(|server| server["id"] != SERVER), "{servers}");
        reaches(&fleet.guests[2], &fleet.port.clone());
        reaches(&fleet.target, &fleet.other.clone());
        // What the first host has of it is not given to another port there, until it is given back.
        let taken = json!({"port": {"network_id": fleet.port["net_id"], "fixed_ips": [{"ip_address": address(&fleet.port)}]}});
        fleet.hosts[0].client.post("/v2.0/ports", &taken).refused(409, "reserved_elsewhere");
        assert_eq!(fleet.hosts[0].client.delete(&format!("/v2.0/ports/{id}")).status, 204);
        comes_true(PATIENCE, || fleet.device(2).is_none(), || "the device stays".to_owned());
        fleet.hosts[2].client.get(&format!("/v2.0/ports/{id}")).refused(404, "no_such_port");
    });
}

/// Whatever dies, and wherever: the port is at one host, and its guest is reached there.
#[test]
fn a_host_that_dies_while_it_moves_a_port_leaves_it_at_one_of_the_two() {
    with_etcd(|node| {
        let mut fleet = Fleet::new();
        fleet.prepare(0);
        // Without etcd nothing is begun, and the guest is reached as before.
        node.kill();
        fleet.hosts[0].is_connected(false);
        fleet.activate(0, "node-2").refused(503, "fleet_unreachable");
        assert!(fleet.device(1).is_some_and(|(is_up, _)| is_up));
        reaches(&fleet.guests[2], &fleet.port.clone());
        node.restart();
        fleet.hosts.iter_mut().for_each(Host::joins);
        // Which host dies, where, and where the port is then.
        for (dies, at, then) in [
            (0, "fleet.hand:1:kill-before", 1),
            (0, "fleet.handed:1:kill-before", 2),
            (1, "store.remember:1:kill-before", 2),
            (1, "store.remember:1:kill-after", 2),
        ] {
            eprintln!("host {dies} dies at {at}");
            let (from, to) = (0, 1);
            fleet.hosts[dies].daemon.kill();
            fleet.hosts[dies].daemon.set_failpoints(Some(at));
            fleet.hosts[dies].launch();
            fleet.hosts.iter_mut().for_each(Host::joins);
            let path = format!("{}/node-2/activate", fleet.path());
            // What it answers is lost with a host that dies.
            let answer = fleet.hosts[from].client.try_call("PUT", &path, &[], b"{}");
            eprintln!("answered: {:?}", answer.map(|answer| answer.status));
            comes_true(PATIENCE, || fleet.hosts[dies].daemon.has_ended(), || format!("it does not die at {at}"));
            fleet.hosts[dies].daemon.bury();
            fleet.hosts[dies].daemon.set_failpoints(None);
            fleet.hosts[dies].launch();
            fleet.hosts[dies].joins();
            fleet.is_at(then, 3 - then);
            reaches(&fleet.guests[2], &fleet.port.clone());
            let [active, silent] = if then == 1 { ["node-1", "node-2"] } else { ["node-2", "node-1"] };
            let shown =
                if then == 1 { [(active, "ACTIVE"), (silent, "INACTIVE")] } else { [(silent, "INACTIVE"), (active, "ACTIVE")] };
            fleet.shows(2, &shown);
            if then == 2 {
                fleet.activate(to, "node-1").expect(200);
                fleet.is_at(1, 2);
            }
        }
    });
}
