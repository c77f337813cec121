//! Real hosts, each in a namespace with an underlay to the others, and a real etcd.

use std::fs::{self, File};

use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};

use crate::daemon::{Client, Daemon, PATIENCE};
use crate::etcd::{self, Node};
use crate::netns::{Guest, comes_true, in_netns, run};
use crate::programs;

/// A host: its namespace, on the bridge that all of them share, and its nicd.
pub struct Host {
    pub place: Guest,
    pub daemon: Daemon,
    pub client: Client,
}

/// The port of etcd, which is where all hosts reach it.
const PORT: u16 = 2379;

/// The underlay; this namespace, where etcd is, has its first address.
pub fn underlay() {
    run("ip link set lo up");
    run("ip link add under type bridge");
    run("ip address add 10.9.0.1/24 dev under");
    run("ip link set under up");
}

/// Runs a test in a namespace of its own, with an etcd there, if there is the program.
pub fn with_etcd(test: impl FnOnce(&mut Node) + Send + 'static) {
    if programs::has("etcd") {
        in_netns(|| {
            underlay();
            test(&mut etcd::block_on(Node::at("10.9.0.1", PORT)));
        });
    }
}

impl Host {
    /// One with this name and number, which is not started yet.
    pub fn new(name: &str, number: u8) -> Self {
        Self::with(name, number, &[format!("http://10.9.0.1:{PORT}")])
    }

    /// The same, with these endpoints of etcd.
    pub fn with(name: &str, number: u8, endpoints: &[String]) -> Self {
        let place = Guest::new(&format!("host-{number}"));
        run(&format!("ip link add u{number} type veth peer name under netns host-{number}"));
        run(&format!("ip link set u{number} master under up"));
        place.ip(&format!("address add 10.9.0.{}/24 dev under", 10 + number));
        place.ip("link set under up");
        place.ip("link set lo up");
        let daemon = Daemon::prepared(format!("/run/{number}"));
        let settings = format!(
            "[fleet]\nendpoints = {endpoints:?}\nhost = \"{name}\"\n[tunnel]\naddress = \"10.9.0.{}\"\n\
             [segments]\nvxlan = \"4096-8191\"\n",
            10 + number
        );
        fs::write(daemon.config(), settings).unwrap();
        let client = daemon.client();
        Self { place, daemon, client }
    }

    /// One that is one of the fleet.
    pub fn started(name: &str, number: u8) -> Self {
        let mut host = Self::new(name, number);
        host.launch();
        host.joins();
        host
    }

    pub fn launch(&mut self) {
        self.inside(|daemon| daemon.launch());
        self.client = self.daemon.client();
    }

    /// Does something with its daemon in its namespace, on this thread: the daemon ends with the thread that started it.
    pub fn inside<T>(&mut self, act: impl FnOnce(&mut Daemon) -> T) -> T {
        let own = File::open("/proc/thread-self/ns/net").unwrap();
        setns(File::open(&self.place.path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
        let done = act(&mut self.daemon);
        setns(own, CloneFlags::CLONE_NEWNET).unwrap();
        done
    }

    pub fn fleet(&mut self) -> Value {
        self.client.get("/nicd/v1/fleet").expect(200)["fleet"].clone()
    }

    pub fn joins(&mut self) {
        self.is_connected(true);
    }

    pub fn is_connected(&mut self, connected: bool) {
        let log = self.daemon.config().with_file_name("log");
        comes_true(
            PATIENCE,
            || self.client.get("/nicd/v1/fleet").expect(200)["fleet"]["connected"] == connected,
            || format!("never connected: {connected}; {}", fs::read_to_string(log).unwrap_or_default()),
        );
    }

    pub fn hosts(&mut self) -> Vec<Value> {
        self.client.get("/nicd/v1/hosts").expect(200)["hosts"].as_array().unwrap().clone()
    }

    /// Waits until it sees these hosts, each with whether it is alive.
    pub fn sees(&mut self, wanted: &[(&str, bool)]) {
        let wanted: Vec<Value> = wanted.iter().map(|(host, alive)| json!([host, alive])).collect();
        let seen = |host: &mut Self| host.hosts().iter().map(|one| json!([one["id"], one["alive"]])).collect::<Vec<_>>();
        comes_true(PATIENCE, || seen(self) == wanted, || format!("{wanted:?} is not what is seen"));
    }

    /// Cuts it off, or puts it back.
    pub fn cut(&self, number: u8, is_cut: bool) {
        run(&format!("ip link set u{number} {}", if is_cut { "down" } else { "up" }));
    }
}

#[test]
fn each_host_is_seen_by_all_and_one_that_is_gone_can_be_forgotten() {
    with_etcd(|_| {
        let (mut one, mut two) = (Host::started("node-1", 1), Host::started("node-2", 2));
        one.sees(&[("node-1", true), ("node-2", true)]);
        two.sees(&[("node-1", true), ("node-2", true)]);
        let shown = one.client.get("/nicd/v1/hosts/node-2").expect(200)["host"].clone();
        assert_eq!((&shown["tunnel"], &shown["version"]), (&json!("10.9.0.12"), &json!(env!("CARGO_PKG_VERSION"))));
        // Itself and others that are alive are not forgotten; nor is one that nobody knows.
        for host in ["node-1", "node-2"] {
            one.client.delete(&format!("/nicd/v1/hosts/{host}")).refused(409, "host_alive");
        }
        one.client.delete("/nicd/v1/hosts/node-3").refused(404, "no_such_host");
        one.client.get("/nicd/v1/hosts/node-3").refused(404, "no_such_host");
        // One that stops says so; one that is killed is missed.
        two.daemon.term();
        one.sees(&[("node-1", true), ("node-2", false)]);
        two.launch();
        one.sees(&[("node-1", true), ("node-2", true)]);
        two.daemon.kill();
        one.client.delete("/nicd/v1/hosts/node-2").refused(409, "host_alive");
        one.sees(&[("node-1", true), ("node-2", false)]);
        assert_eq!(one.client.delete("/nicd/v1/hosts/node-2").status, 204);
        one.sees(&[("node-1", true)]);
        // It comes back as a new one.
        two.launch();
        two.joins();
        one.sees(&[("node-1", true), ("node-2", true)]);
    });
}

#[test]
fn a_second_host_of_one_name_is_refused_and_touches_nothing() {
    with_etcd(|_| {
        let mut one = Host::started("node-1", 1);
        let before = one.hosts();
        let mut other = Host::new("node-1", 2);
        let (status, said) = other.inside(|daemon| daemon.second(&daemon.socket(), &daemon.state()));
        assert_eq!(status, 78, "{said}");
        assert!(said.contains("'node-1' is another host's name in the fleet"), "{said}");
        assert_eq!(one.hosts()[0]["since"], before[0]["since"]);
        // Its own store put back, or a restart, makes no other host of one.
        one.daemon.kill();
        one.launch();
        one.joins();
        assert_eq!(one.hosts()[0]["since"], before[0]["since"]);
    });
}

#[test]
fn without_etcd_all_goes_on_and_with_it_again_the_host_is_back() {
    with_etcd(|node| {
        let mut one = Host::started("node-1", 1);
        let mut events = one.daemon.follow(None);
        node.kill();
        events.wait_for("degraded", |event| event["event"] == "agent.degraded" && event["reason"] == "fleet_unreachable");
        one.client.get("/nicd/v1/hosts").refused(503, "fleet_unreachable");
        let fleet = one.fleet();
        assert!(fleet["trouble"].as_str().unwrap().contains("10.9.0.1:2379"), "{fleet}");
        let metrics = one.client.get("/metrics").text;
        assert!(metrics.contains("nicd_fleet_connected 0"), "{metrics}");
        let network = one.client.post("/v2.0/networks", &json!({"network": {"name": "blue", "nicd:scope": "host"}})).expect(201);
        let id = network["network"]["id"].as_str().unwrap();
        one.client.post("/v2.0/subnets", &json!({"subnet": {"network_id": id, "cidr": "192.0.2.0/24"}})).expect(201);
        let port = one.client.post("/v2.0/ports", &json!({"port": {"network_id": id}})).expect(201);
        assert_eq!(port["port"]["fixed_ips"][0]["ip_address"], "192.0.2.2");
        // It starts without etcd too.
        one.daemon.kill();
        one.launch();
        one.is_connected(false);
        let mut events = one.daemon.follow(None);
        events.wait_for("degraded", |event| event["event"] == "agent.degraded" && event["reason"] == "fleet_unreachable");
        node.restart();
        events.wait_for("recovered", |event| event["event"] == "agent.recovered" && event["reason"] == "fleet_unreachable");
        assert_eq!((&one.hosts()[0]["alive"], &one.hosts()[0]["ports"]), (&json!(true), &json!(1)));
        // Cut off without a word, it is missed, and comes back by itself.
        one.cut(1, true);
        one.is_connected(false);
        one.cut(1, false);
        one.joins();
    });
}

#[test]
fn an_etcd_that_was_emptied_gets_its_hosts_again() {
    with_etcd(|node| {
        let mut one = Host::started("node-1", 1);
        let mut events = one.daemon.follow(None);
        node.empty();
        events.wait_for("degraded", |event| event["event"] == "agent.degraded" && event["reason"] == "fleet_unreachable");
        node.restart();
        events.wait_for("recovered", |event| event["event"] == "agent.recovered" && event["reason"] == "fleet_unreachable");
        one.sees(&[("node-1", true)]);
    });
}
