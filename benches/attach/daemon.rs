//! nicd as its own process, and the ports it is asked for.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nicd::model::{PortId, names};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::bare::{Events, index_of};
use crate::http::{Client, crowd, request};
use crate::nft::without_nf_tables;
use crate::place::Place;

/// NICs a server gets here, as many as one has in the field at most.
const NICS: usize = 8;

/// A running nicd. It is killed when this is dropped.
pub struct Daemon {
    child: Child,
    dir: PathBuf,
    socket: PathBuf,
}

impl Daemon {
    /// Starts one on the state in `dir`, and returns when it has answered a first request.
    pub fn start(dir: &Path) -> Self {
        Self::spawn(dir, "/run/nicd.sock".into(), "", |_| {})
    }

    /// The same in a namespace of its own, where it finds no nf_tables.
    pub fn without_filters(dir: &Path, place: &Place) -> Self {
        let settings = "[links]\nrequire_host_closed = false\n";
        place.inside(|| Self::spawn(dir, "/run/nicd-without.sock".into(), settings, without_nf_tables))
    }

    /// One with more settings, on another socket.
    pub fn with_settings(dir: &Path, socket: PathBuf, settings: &str) -> Self {
        Self::spawn(dir, socket, settings, |_| {})
    }

    fn spawn(dir: &Path, socket: PathBuf, settings: &str, prepare: impl FnOnce(&mut Command)) -> Self {
        let log = File::options().create(true).append(true).open(dir.join("log")).expect("a log");
        let config = dir.join("nicd.toml");
        let settings = format!("[socket]\ngroup = \"root\"\nview_group = \"root\"\n{settings}");
        std::fs::write(&config, settings).expect("a config");
        let mut command = Command::new(env!("CARGO_BIN_EXE_nicd"));
        command
            .args(["--config".as_ref(), config.as_os_str(), "--state-dir".as_ref(), dir.as_os_str()])
            .args(["--socket".as_ref(), socket.as_os_str()])
            .stderr(Stdio::from(log));
        prepare(&mut command);
        let daemon = Self { child: command.spawn().expect("nicd"), dir: dir.to_owned(), socket };
        let until = Instant::now() + Duration::from_secs(30);
        let mut client = loop {
            match Client::connect(&daemon.socket) {
                Ok(client) => break client,
                Err(error) => assert!(Instant::now() < until, "nicd does not listen: {error}"),
            }
            std::thread::sleep(Duration::from_micros(100));
        };
        // Health is 503 while ports are being brought back.
        client.ask(&request("GET", "/v2.0/networks?fields=id", None)).json();
        daemon
    }

    /// A new connection to it.
    pub fn client(&self) -> Client {
        Client::connect(&self.socket).expect("nicd listens")
    }

    /// So many.
    pub fn clients(&self, number: usize) -> Vec<Client> {
        (0..number).map(|_| self.client()).collect()
    }

    /// Ends it and waits for that.
    pub fn stop(&mut self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        kill(pid, signal).expect("a signal");
        self.child.wait().expect("its end");
    }

    /// Resident memory in MiB.
    pub fn memory(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("status");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
        line.split_whitespace().nth(1).expect("a figure").parse::<f64>().expect("kB") / 1024.0
    }

    /// Transactions committed since the database was opened, which with `synchronous=FULL` are its flushes: `iChange` of
    /// the index header of its write-ahead log (wal.c, `WalIndexHdr`).
    pub fn commits(&self) -> u32 {
        let index = std::fs::read(self.dir.join("nicd.db-shm")).expect("the write-ahead log's index");
        u32::from_ne_bytes(index[8..12].try_into().expect("four octets"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a fleet's ports are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nic {
    /// Taps for VMs.
    Tap,
    /// Veths into namespaces.
    Veth,
}

/// A network of nicd's with its ports, the last one first to go.
pub struct Fleet {
    kind: Nic,
    network: String,
    servers: Vec<Uuid>,
    guests: Vec<Place>,
    /// The ports there are: server and id.
    pub ports: Vec<(Uuid, PortId)>,
    /// The fleet's own connection.
    pub client: Client,
}

impl Fleet {
    /// An empty network with a /16 of its own.
    pub fn new(daemon: &Daemon, kind: Nic, second_octet: u8) -> Self {
        Self::of(daemon, kind, second_octet, &json!({"network": {"mtu": 1500}}), true)
    }

    /// One of taps whose guests nicd tells nothing.
    pub fn without_dhcp(daemon: &Daemon, second_octet: u8) -> Self {
        Self::of(daemon, Nic::Tap, second_octet, &json!({"network": {"mtu": 1500}}), false)
    }

    /// One of taps without port security.
    pub fn unfiltered(daemon: &Daemon, second_octet: u8) -> Self {
        Self::of(daemon, Nic::Tap, second_octet, &json!({"network": {"mtu": 1500, "port_security_enabled": false}}), true)
    }

    fn of(daemon: &Daemon, kind: Nic, second_octet: u8, network: &Value, dhcp: bool) -> Self {
        let mut client = daemon.client();
        let network = client.ask(&request("POST", "/v2.0/networks", Some(network))).json();
        let network = network["network"]["id"].as_str().expect("an id").to_owned();
        let cidr = format!("10.{second_octet}.0.0/16");
        let subnet = json!({"subnet": {"network_id": network, "cidr": cidr, "ip_version": 4, "enable_dhcp": dhcp}});
        client.ask(&request("POST", "/v2.0/subnets", Some(&subnet))).json();
        Self { kind, network, servers: Vec::new(), guests: Vec::new(), ports: Vec::new(), client }
    }

    /// Reconnects to a nicd that was started anew.
    pub fn reconnect(&mut self, daemon: &Daemon) {
        self.client = daemon.client();
    }

    /// Makes servers known for so many ports.
    pub fn prepare(&mut self, ports: usize) {
        while self.servers.len() * NICS < ports {
            let id = Uuid::new_v4();
            let guest = match self.kind {
                Nic::Tap => json!({"kind": "vm"}),
                Nic::Veth => {
                    let place = Place::new(&format!("g{}", id.simple()));
                    let guest = json!({"kind": "netns", "path": place.path});
                    self.guests.push(place);
                    guest
                }
            };
            let put = request("PUT", &format!("/nicd/v1/servers/{id}"), Some(&json!({"server": {"guest": guest}})));
            self.client.ask(&put).json();
            self.servers.push(id);
        }
    }

    /// A port as nicd shows it.
    pub fn show(&mut self, place: usize) -> Value {
        self.client.ask(&request("GET", &format!("/v2.0/ports/{}", self.ports[place].1), None)).json()
    }

    /// The n-th guest's namespace.
    pub fn guest(&self, place: usize) -> &Place {
        &self.guests[place]
    }

    /// A GET that costs nicd next to nothing.
    pub fn cheapest(&self) -> Vec<u8> {
        request("GET", &format!("/nicd/v1/servers/{}", self.servers[0]), None)
    }

    /// The request that attaches the n-th port.
    pub fn attach(&self, place: usize) -> (Uuid, Vec<u8>) {
        let server = self.servers[place / NICS];
        let body = json!({"interfaceAttachment": {"net_id": self.network}});
        (server, request("POST", &format!("/v2.1/servers/{server}/os-interface"), Some(&body)))
    }

    /// Notes the answer to an attach.
    pub fn attached(&mut self, server: Uuid, answer: &Value) {
        let id = answer["interfaceAttachment"]["port_id"].as_str().expect("an id").parse().expect("a port's id");
        self.ports.push((server, id));
    }

    /// The request that detaches a port.
    pub fn detach((server, port): (Uuid, PortId)) -> Vec<u8> {
        request("DELETE", &format!("/v2.1/servers/{server}/os-interface/{port}"), None)
    }

    /// Attaches one; how long it took.
    pub fn grow_by_one(&mut self) -> Duration {
        let (server, ask) = self.attach(self.ports.len());
        let start = Instant::now();
        let answer = self.client.ask(&ask);
        let took = start.elapsed();
        self.attached(server, &answer.json());
        took
    }

    /// Makes a port in these groups, and attaches it; how long the attach took.
    pub fn grow_by_made(&mut self, groups: &Value) -> Duration {
        self.prepare(self.ports.len() + 1);
        let server = self.servers[self.ports.len() / NICS];
        let port = json!({"port": {"network_id": self.network, "security_groups": groups}});
        let made = self.client.ask(&request("POST", "/v2.0/ports", Some(&port))).json();
        let body = json!({"interfaceAttachment": {"port_id": made["port"]["id"]}});
        let ask = request("POST", &format!("/v2.1/servers/{server}/os-interface"), Some(&body));
        let start = Instant::now();
        let answer = self.client.ask(&ask);
        let took = start.elapsed();
        self.attached(server, &answer.json());
        took
    }

    /// Puts each port into the groups that its place says, over a new connection: one that nothing was asked by is closed meanwhile.
    pub fn put_groups(&mut self, daemon: &Daemon, groups: impl Fn(usize) -> Value) {
        self.reconnect(daemon);
        for (place, (_, port)) in self.ports.iter().enumerate() {
            let port_groups = json!({"port": {"security_groups": groups(place)}});
            self.client.ask(&request("PUT", &format!("/v2.0/ports/{port}"), Some(&port_groups))).json();
        }
    }

    /// Detaches the last one; how long its answer took.
    pub fn shrink_by_one(&mut self) -> Duration {
        let ask = Self::detach(self.ports.pop().expect("a port"));
        let start = Instant::now();
        let answer = self.client.ask(&ask);
        let took = start.elapsed();
        assert!(answer.status < 300);
        took
    }

    /// Attaches until there are so many.
    pub fn grow(&mut self, ports: usize) {
        self.prepare(ports);
        while self.ports.len() < ports {
            self.grow_by_one();
        }
    }

    /// Detaches until so many are left, and waits until the others are gone.
    pub fn shrink(&mut self, ports: usize) {
        let leaving: Vec<_> = self.ports.drain(ports..).collect();
        for port in leaving {
            assert!(self.client.ask(&Self::detach(port)).status < 300);
        }
        self.settle();
    }

    /// Attaches with several connections at once; how long all of it took.
    pub fn grow_with(&mut self, clients: &mut [Client], more: usize) -> Duration {
        let from = self.ports.len();
        self.prepare(from + more);
        let mut queues = vec![Vec::new(); clients.len()];
        let mut servers = vec![std::collections::VecDeque::new(); clients.len()];
        for place in 0..more {
            let (server, ask) = self.attach(from + place);
            queues[place % clients.len()].push(ask);
            servers[place % clients.len()].push_back(server);
        }
        let mut answers = Vec::new();
        let start = Instant::now();
        crowd(clients, queues, |queue, answer, _| answers.push((queue, answer)));
        let took = start.elapsed();
        for (queue, answer) in answers {
            let server = servers[queue].pop_front().expect("as many answers as requests");
            self.attached(server, &answer.json());
        }
        took
    }

    /// Waits until nicd has no port of this network but those it is to have.
    pub fn settle(&mut self) {
        let list = request("GET", &format!("/v2.0/ports?network_id={}&fields=id", self.network), None);
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let left = self.client.ask(&list).json()["ports"].as_array().expect("a list").len();
            if left == self.ports.len() {
                return;
            }
            assert!(Instant::now() < until, "{left} ports are left instead of {}", self.ports.len());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The name of a port's device.
pub fn device(port: PortId) -> String {
    names::port_device(port, 0).to_string()
}

/// The index of a port's device, in nicd's namespace.
pub fn device_index(port: PortId) -> u32 {
    index_of(&device(port))
}

/// Lets nicd and the kernel finish what is under way, and forgets the events of it.
pub fn quiet(events: &mut Events) {
    while events.next(Duration::from_millis(20)).is_some() {}
}

/// The same after taps were closed: the kernel tells of what lost its carrier once more, a hundred links a second, where no process
/// has looked at them by then (net/core/link_watch.c), and nicd does after 1.1 s.
pub fn quiet_after_closing(events: &mut Events) {
    while events.next(Duration::from_millis(1500)).is_some() {}
}
