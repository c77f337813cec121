//! What a fleet costs: attaches on a network of all hosts, with etcd and without; how soon another host knows a port; attaches that another
//! host carries out; what a port takes in etcd.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::Effort;
use crate::daemon::{Daemon, Fleet, Nic};
use crate::figures::{Aim, Sample, Table};
use crate::http::{Client, request};
use crate::place::Place;

/// Where etcd is, on the underlay.
const ETCD: &str = "http://10.9.0.1:2379";

/// The group of changes of FDBs and neighbours (`RTNLGRP_NEIGH`).
const NEIGHBOURS: u32 = 3;

/// A running etcd. It is killed when this is dropped.
struct Etcd(Child);

impl Etcd {
    fn start(dir: &Path) -> Self {
        let data = dir.join("etcd");
        let log = std::fs::File::create(dir.join("etcd.log")).expect("a log");
        let peer = "http://127.0.0.1:2380";
        let child = Command::new("etcd")
            .arg("--data-dir")
            .arg(&data)
            .args(["--listen-client-urls", ETCD, "--advertise-client-urls", ETCD])
            .args([
                "--listen-peer-urls",
                peer,
                "--initial-advertise-peer-urls",
                peer,
                "--initial-cluster",
                &format!("default={peer}"),
            ])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("etcd: Debian's etcd-server has it");
        Self(child)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(line: &str) {
    let mut words = line.split_whitespace();
    let ended = Command::new(words.next().expect("a program")).args(words).status().expect("a program");
    assert!(ended.success(), "{line}");
}

fn settings(host: &str, tunnel: &str) -> String {
    format!(
        "[fleet]\nendpoints = [\"{ETCD}\"]\nhost = \"{host}\"\n[tunnel]\naddress = \"{tunnel}\"\n[segments]\nvxlan = \"4096-8191\"\n"
    )
}

/// Waits until something holds.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < end, "not after 30 s: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn is_connected(client: &mut Client) -> bool {
    client.ask(&request("GET", "/nicd/v1/fleet", None)).json()["fleet"]["connected"] == true
}

/// The rows of a fleet.
pub fn rows(table: &mut Table, effort: Effort, dir: &Path) {
    eprintln!("fleet");
    for line in
        ["ip link set lo up", "ip link add under type bridge", "ip address add 10.9.0.1/24 dev under", "ip link set under up"]
    {
        run(line);
    }
    let (alone, far) = (Place::new("alone"), Place::new("far"));
    for line in [
        "ip link add u2 type veth peer name under netns far",
        "ip link set u2 master under up",
        "ip -n far address add 10.9.0.2/24 dev under",
        "ip -n far link set under up",
        "ip -n far link set lo up",
    ] {
        run(line);
    }
    let etcd = Etcd::start(dir);
    let at = |name: &str| {
        let dir = dir.join(name);
        std::fs::create_dir(&dir).expect("a state directory");
        dir
    };
    let mut plain = alone.inside(|| Daemon::with_settings(&at("plain"), "/run/plain.sock".into(), ""));
    let mut near = Daemon::with_settings(&at("near"), "/run/near.sock".into(), &settings("near", "10.9.0.1"));
    let mut other = far.inside(|| Daemon::with_settings(&at("other"), "/run/other.sock".into(), &settings("other", "10.9.0.2")));
    for daemon in [&near, &other] {
        let mut client = daemon.client();
        until("both hosts are one fleet", || is_connected(&mut client));
    }
    let mut fleets = [Fleet::new(&plain, Nic::Tap, 1), Fleet::new(&near, Nic::Tap, 1)];
    fleets.iter_mut().for_each(|fleet| fleet.prepare(effort.samples + 64));
    let mut took = [Sample::default(), Sample::default()];
    for _ in 0..effort.samples {
        for (fleet, took) in fleets.iter_mut().zip(&mut took) {
            took.add(fleet.grow_by_one());
        }
    }
    let aim = Aim::AtMost(1.0, 1.1);
    table.row("attach tap in a fleet over without one, p50", "µs", Some(took[0].p50()), took[1].p50(), aim);
    table.row("the same, p99", "µs", Some(took[0].p99()), took[1].p99(), Aim::Nothing);
    elsewhere(table, effort, (&near, &other, &far));
    moving(table, &near, &other);
    let bytes = bytes_of_ports();
    table.row("what a port takes in etcd", "bytes", None, bytes, Aim::Nothing);
    // From what is reserved, each attach in the place of one that was detached.
    drop(etcd);
    let mut client = near.client();
    until("etcd is missed", || !is_connected(&mut client));
    let mut took = [Sample::default(), Sample::default()];
    for _ in 0..effort.samples {
        for (fleet, took) in fleets.iter_mut().zip(&mut took) {
            took.add(fleet.grow_by_one());
            fleet.shrink_by_one();
        }
    }
    table.row("attach tap in a fleet, etcd stopped, over without one, p50", "µs", Some(took[0].p50()), took[1].p50(), aim);
    [&mut plain, &mut near, &mut other].into_iter().for_each(|daemon| daemon.stop(Signal::SIGTERM));
}

/// How soon another host has the entry of a new port, and attaches for its servers.
fn elsewhere(table: &mut Table, effort: Effort, (near, other, far): (&Daemon, &Daemon, &Place)) {
    let (mut here, mut there) = (near.client(), other.client());
    let vxlan = json!({"network": {"provider:network_type": "vxlan"}});
    let network = here.ask(&request("POST", "/v2.0/networks", Some(&vxlan))).json()["network"]["id"].clone();
    let subnet = json!({"subnet": {"network_id": network, "cidr": "10.200.0.0/16", "ip_version": 4}});
    here.ask(&request("POST", "/v2.0/subnets", Some(&subnet))).json();
    let path = format!("/v2.0/networks/{}", network.as_str().expect("an id"));
    let has = |there: &mut Client| {
        let answer = there.ask(&request("GET", &path, None));
        answer.status == 200 && answer.json()["network"]["subnets"].as_array().is_some_and(|subnets| subnets.len() == 1)
    };
    until("the network is at the other host", || has(&mut there));
    let server = |client: &mut Client| {
        let id = uuid::Uuid::new_v4();
        client
            .ask(&request("PUT", &format!("/nicd/v1/servers/{id}"), Some(&json!({"server": {"guest": {"kind": "vm"}}}))))
            .json();
        format!("/v2.1/servers/{id}/os-interface")
    };
    let attach = |client: &mut Client, path: &str| -> Value {
        let body = json!({"interfaceAttachment": {"net_id": network}});
        client.ask(&request("POST", path, Some(&body))).json()["interfaceAttachment"].clone()
    };
    let first = server(&mut there);
    attach(&mut there, &first);
    let told = far.inside(changes);
    let mut seen = Sample::default();
    let mut own = String::new();
    for n in 0..effort.samples {
        if n % 8 == 0 {
            own = server(&mut here);
        }
        let asked = Instant::now();
        let port = attach(&mut here, &own);
        let mac = octets(port["mac_addr"].as_str().expect("a MAC"));
        loop {
            let (at, message) = told.recv_timeout(Duration::from_secs(20)).expect("the entry");
            if message.windows(6).any(|six| six == mac) {
                seen.add(at.saturating_duration_since(asked));
                break;
            }
        }
    }
    table.row("attach sent → the port's entry on another host, p50", "ms", None, seen.p50() / 1e3, Aim::Own(10.0, 50.0));
    table.row("the same, p99", "ms", None, seen.p99() / 1e3, Aim::Own(20.0, 50.0));
    let mut passed = Sample::default();
    let mut theirs = String::new();
    for n in 0..effort.samples {
        if n % 8 == 0 {
            theirs = server(&mut there);
            let path = theirs.clone();
            until("the server is seen here", || here.ask(&request("GET", &path, None)).status == 200);
        }
        passed.time(|| attach(&mut here, &theirs));
    }
    table.row("attach for a server of another host, p50", "ms", None, passed.p50() / 1e3, Aim::Nothing);
}

/// How long a guest is not reached while it is moved, there and back, by pings a thousand times a second from a guest of the host to which it
/// goes, and which it comes from.
fn moving(table: &mut Table, near: &Daemon, other: &Daemon) {
    let (mut here, mut there) = (near.client(), other.client());
    let vxlan = json!({"network": {"provider:network_type": "vxlan"}});
    let network = here.ask(&request("POST", "/v2.0/networks", Some(&vxlan))).json()["network"]["id"].clone();
    let subnet = json!({"subnet": {"network_id": network, "cidr": "10.201.0.0/16", "ip_version": 4}});
    here.ask(&request("POST", "/v2.0/subnets", Some(&subnet))).json();
    let path = format!("/v2.0/networks/{}", network.as_str().expect("an id"));
    until("the network is at the other host", || {
        let answer = there.ask(&request("GET", &path, None));
        answer.status == 200 && answer.json()["network"]["subnets"].as_array().is_some_and(|subnets| subnets.len() == 1)
    });
    let places = ["moved-from", "moved-to", "pinging"].map(Place::new);
    let register = |client: &mut Client, id: &uuid::Uuid, place: &Place| {
        let body = json!({"server": {"guest": {"kind": "netns", "path": place.path}}});
        client.ask(&request("PUT", &format!("/nicd/v1/servers/{id}"), Some(&body))).json();
    };
    let attach = |client: &mut Client, id: &uuid::Uuid| -> Value {
        let body = json!({"interfaceAttachment": {"net_id": network}});
        let path = format!("/v2.1/servers/{id}/os-interface");
        client.ask(&request("POST", &path, Some(&body))).json()["interfaceAttachment"].clone()
    };
    let [moved, pinging] = [(); 2].map(|()| uuid::Uuid::new_v4());
    register(&mut here, &moved, &places[0]);
    let port = attach(&mut here, &moved);
    register(&mut there, &moved, &places[1]);
    register(&mut there, &pinging, &places[2]);
    attach(&mut there, &pinging);
    let to = port["fixed_ips"][0]["ip_address"].as_str().expect("an address").to_owned();
    let ping = |arguments: &[&str]| {
        let mut ping = Command::new("ping");
        ping.args(arguments).arg(&to).stdout(Stdio::piped());
        places[2].inside(|| ping.spawn().expect("ping"))
    };
    until("the guest is reached", || ping(&["-n", "-q", "-c", "1", "-W", "1"]).wait().is_ok_and(|ended| ended.success()));
    let bindings = format!("/v2.0/ports/{}/bindings", port["port_id"].as_str().expect("an id"));
    let prepared = here.ask(&request("POST", &bindings, Some(&json!({"binding": {"host": "other"}}))));
    assert_eq!(prepared.status, 201, "{}", prepared.json());
    let (mut lost, mut took) = (Vec::new(), Sample::default());
    for host in ["other", "near"].into_iter().cycle().take(20) {
        let pings = ping(&["-n", "-q", "-i", "0.001", "-c", "600", "-W", "1"]);
        thread::sleep(Duration::from_millis(250));
        let activate = request("PUT", &format!("{bindings}/{host}/activate"), Some(&json!({})));
        took.time(|| assert_eq!(here.ask(&activate).status, 200));
        let said = String::from_utf8(pings.wait_with_output().expect("ping").stdout).unwrap_or_default();
        let count = |what: &str| {
            said.split([',', '\n'])
                .find_map(|part| part.trim().strip_suffix(what)?.trim().parse::<u32>().ok())
                .expect("a summary")
        };
        lost.push(count("packets transmitted") - count("received"));
    }
    lost.sort_unstable();
    table.row(
        "pings lost of 1,000/s while a guest is moved, in the middle of 20",
        "pings",
        None,
        f64::from(lost[10]),
        Aim::Own(0.0, 3.0),
    );
    table.row("the same, at most", "pings", None, f64::from(lost[19]), Aim::Nothing);
    table.row("a guest is moved, p50", "ms", None, took.p50() / 1e3, Aim::Nothing);
}

/// What the kernel tells of entries in this namespace, with when it was read.
fn changes() -> Receiver<(Instant, Vec<u8>)> {
    let mut socket = Socket::new(NETLINK_ROUTE).expect("netlink");
    socket.bind(&SocketAddr::new(0, 0)).expect("bind");
    socket.add_membership(NEIGHBOURS).expect("RTNLGRP_NEIGH");
    let (sender, told) = channel();
    thread::spawn(move || {
        while let Ok((message, _)) = socket.recv_from_full() {
            if sender.send((Instant::now(), message)).is_err() {
                return;
            }
        }
    });
    told
}

fn octets(mac: &str) -> Vec<u8> {
    mac.split(':').map(|octet| u8::from_str_radix(octet, 16).expect("an octet")).collect()
}

/// The bytes of keys and values that a port has in etcd, in the middle.
#[allow(clippy::cast_precision_loss)]
fn bytes_of_ports() -> f64 {
    // All keys: `nicd/` up to `nicd0`, in base 64.
    let asked = Command::new("curl")
        .args(["-s", "-d", r#"{"key": "bmljZC8=", "range_end": "bmljZDA="}"#, &format!("{ETCD}/v3/kv/range")])
        .output()
        .expect("curl");
    let answer: Value = serde_json::from_slice(&asked.stdout).expect("JSON");
    let length = |text: &Value| text.as_str().map_or(0, |text| text.trim_end_matches('=').len() * 3 / 4);
    let (mut bytes, mut ports) = (0, 0);
    for pair in answer["kvs"].as_array().expect("keys") {
        // In base 64 of the keys of one fleet: those of ports begin alike.
        let key = decoded(pair["key"].as_str().unwrap_or_default());
        let of_port =
            ["nicd/default/port/", "nicd/default/where/", "nicd/default/own/near/port/", "nicd/default/own/other/port/"];
        if of_port.iter().any(|prefix| key.starts_with(prefix)) {
            bytes += length(&pair["key"]) + length(&pair["value"]);
            ports += usize::from(key.starts_with(of_port[0]));
        }
    }
    bytes as f64 / ports.max(1) as f64
}

fn decoded(text: &str) -> String {
    use base64::Engine;
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
