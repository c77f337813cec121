//! Hostile clients on the socket, all at once. An operator's requests as root must not become slower.
//!
//! The attackers are separate processes in the daemon's group, not root: many idle and half-sent connections, and several workers
//! that send valid and invalid HTTP and JSON. The daemon has few descriptors.
//!
//! `NICD_HOSTILE_REQUESTS` says how many requests (100,000 unless it does), `NICD_HOSTILE_SEED` repeats a run's choices.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

mod answer;
mod attack;
mod attacker;
mod content;
#[path = "../common/daemon.rs"]
mod daemon;
mod dice;
mod framing;
mod gauges;
mod hand;
mod herd;
#[path = "../common/kernel_view.rs"]
mod kernel_view;
#[path = "../common/netns.rs"]
mod netns;
mod operator;
mod values;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use attacker::Orders;
use daemon::Daemon;
use gauges::{Gauge, most};
use netns::in_netns;
use operator::Operator;
use serde_json::{Value, json};

/// This test's name, by which the attackers' process finds its part.
const NAME: &str = "hostile_clients_cost_the_operator_nothing";

/// The daemon's descriptors, soft and hard.
const DESCRIPTORS: usize = 256;

/// What the daemon may have grown by from the fifth to the end.
const GROWTH_KIB: u64 = 8 << 10;

/// The operator's GETs on its connection in milliseconds, the slowest hundredth left out.
const P99: f64 = 100.0;

/// The same with a connection for each, which waits in the kernel's queue behind the attackers'.
const P99_FRESH: f64 = 250.0;

#[test]
fn hostile_clients_cost_the_operator_nothing() {
    match Orders::received() {
        Some(orders) => attacker::run(&orders),
        None => in_netns(attack),
    }
}

fn attack() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let requests = number("NICD_HOSTILE_REQUESTS").unwrap_or(100_000);
    let seed = number("NICD_HOSTILE_SEED").unwrap_or_else(|| u64::from(uuid::Uuid::new_v4().as_fields().0));
    println!("NICD_HOSTILE_SEED={seed}");
    let mut daemon = Daemon::prepared("/run/nicd");
    std::fs::write(daemon.config(), "[socket]\ngroup = \"daemon\"\nview_group = \"daemon\"\n").unwrap();
    daemon.limits(DESCRIPTORS);
    daemon.launch();
    let mut operator = Operator::new(&daemon);
    let began = Instant::now();
    let idle = Gauge::read(daemon.pid(), 0);
    let attackers = Attackers::start(&daemon, seed, requests);
    let mut gauges = Vec::new();
    while attackers.said().is_none() {
        operator.round();
        gauges.push(Gauge::read(daemon.pid(), attackers.sent()));
    }
    let took = began.elapsed();
    let said = attackers.said().unwrap();
    drop(attackers);
    report(&said, requests, took, &gauges, &mut operator);
    answers_were_right(&said, requests);
    stayed_flat(&gauges, requests, &mut operator);
    clean_up(&daemon, &mut operator, idle);
    let port = operator.port();
    drop(operator);
    ends_and_starts_again(&mut daemon, &port);
}

/// The attackers' processes; they are killed when this is dropped.
struct Attackers {
    hands: Child,
    herd: Child,
    sent: Arc<AtomicU64>,
    said: Arc<Mutex<Option<Value>>>,
}

impl Attackers {
    fn start(daemon: &Daemon, seed: u64, requests: u64) -> Self {
        let herd = Self::spawn(daemon, seed, requests, true);
        let mut hands = Self::spawn(daemon, seed, requests, false);
        let (sent, said) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(None)));
        let lines = BufReader::new(hands.stdout.take().unwrap()).lines().map_while(Result::ok);
        let (sending, saying) = (Arc::clone(&sent), Arc::clone(&said));
        std::thread::spawn(move || {
            for line in lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok()) {
                match line["sent"].as_u64() {
                    Some(number) => drop(sending.fetch_max(number, Ordering::Relaxed)),
                    None => *saying.lock().unwrap() = Some(line),
                }
            }
            saying.lock().unwrap().get_or_insert(json!({"wrong": 1, "first": ["the attackers died"]}));
        });
        Self { hands, herd, sent, said }
    }

    /// One of the two: this test again, with orders.
    fn spawn(daemon: &Daemon, seed: u64, requests: u64, herd: bool) -> Child {
        let view = daemon.socket().with_file_name("nicd-view.sock");
        let orders = json!({"socket": daemon.socket(), "view": view, "seed": seed, "requests": requests, "herd": herd});
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", NAME, "--nocapture"]).env(attacker::ORDERS, orders.to_string());
        let output = if herd { Stdio::null() } else { Stdio::piped() };
        command.stdin(Stdio::null()).stdout(output).spawn().unwrap()
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    fn said(&self) -> Option<Value> {
        self.said.lock().unwrap().clone()
    }
}

impl Drop for Attackers {
    fn drop(&mut self) {
        for child in [&mut self.hands, &mut self.herd] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn report(said: &Value, requests: u64, took: Duration, gauges: &[Gauge], operator: &mut Operator) {
    println!("{requests} requests in {:.1} s: {:.0}/s", took.as_secs_f64(), requests as f64 / took.as_secs_f64());
    for (kind, statuses) in said["kinds"].as_object().into_iter().flatten() {
        println!("  {kind}: {statuses}");
    }
    for (what, [p50, p99, worst], count) in operator.figures() {
        println!("operator, {what}: p50 {p50:.1} ms, p99 {p99:.1} ms, worst {worst:.1} ms, {count} times");
    }
    for hundredth in [0, 20, 40, 60, 80, 99] {
        if let Some(gauge) = gauges.iter().find(|gauge| gauge.sent * 100 / requests >= hundredth) {
            println!("  {hundredth} %: {gauge:?}");
        }
    }
    println!("  most descriptors: {:?}", gauges.iter().map(|gauge| gauge.descriptors).max());
}

fn answers_were_right(said: &Value, requests: u64) {
    let first: Vec<&str> = said["first"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    assert_eq!(said["wrong"], 0, "answers that may not be:\n{}", first.join("\n"));
    let kinds = said["kinds"].as_object().unwrap().values().filter_map(Value::as_object);
    let answers: Vec<(&str, u64)> = kinds.flatten().map(|(status, count)| (status.as_str(), count.as_u64().unwrap())).collect();
    let answered: u64 = answers.iter().filter(|(status, _)| !matches!(*status, "0" | "503")).map(|(_, count)| count).sum();
    assert!(answered > requests / 2, "an attack that nobody heard proves nothing: {answered} answers");
}

fn stayed_flat(gauges: &[Gauge], requests: u64, operator: &mut Operator) {
    for ((what, [_, p99, _], count), most) in operator.figures().iter().zip([P99, P99_FRESH]) {
        assert!(*p99 < most && *count > 100, "{what}: p99 {p99} ms of {count}");
    }
    let rss = |part| most(gauges, requests, part, |gauge| gauge.rss_kib).expect("a gauge");
    let (fifth, end) = (rss(15..25), rss(90..101));
    assert!(end <= fifth + GROWTH_KIB, "it grows: from {fifth} KiB at a fifth to {end} KiB at the end");
    let threads = |part| most(gauges, requests, part, |gauge| gauge.threads).expect("a gauge");
    assert!(threads(90..101) <= threads(0..25), "threads grow");
    assert!(gauges.iter().all(|gauge| gauge.descriptors < DESCRIPTORS), "it ran out of descriptors");
}

/// The operator deletes what the attackers made; then all is as before.
fn clean_up(daemon: &Daemon, operator: &mut Operator, idle: Gauge) {
    operator.finds_its_own();
    let mut api = daemon.client();
    let mine = operator.port();
    let mut all = |list: &str, key: &str| api.get(list).expect(200)[key].as_array().unwrap().clone();
    let bad = |thing: &Value| thing["id"].as_str().is_some_and(|id| id.starts_with("0bad")) || thing["name"] == "comes and goes";
    let servers: Vec<Value> = all("/nicd/v1/servers", "servers").into_iter().filter(bad).collect();
    let ports: Vec<Value> = all("/v2.0/ports", "ports").into_iter().filter(|port| port["id"] != mine.as_str()).collect();
    let networks: Vec<Value> =
        all("/v2.0/networks", "networks").into_iter().filter(|network| network["name"] != "the operator's").collect();
    let subnets: Vec<Value> =
        all("/v2.0/subnets", "subnets").into_iter().filter(|subnet| subnet["cidr"] != "198.51.100.0/24").collect();
    let mut events = daemon.follow(None);
    let mut delete = |path: String| api.delete(&path).status;
    servers.iter().for_each(|it| assert_eq!(delete(format!("/nicd/v1/servers/{}?detach=true", id(it))), 204));
    for port in &ports {
        assert!(matches!(delete(format!("/v2.0/ports/{}", id(port))), 204 | 404));
    }
    let devices = || kernel_view::marked_ports().into_iter().filter(|port| *port != mine).count();
    while devices() > 0 {
        assert!(events.next(daemon::PATIENCE).is_some(), "devices are left: {:?}", kernel_view::marked_ports());
    }
    subnets.iter().for_each(|it| assert_eq!(delete(format!("/v2.0/subnets/{}", id(it))), 204));
    networks.iter().for_each(|it| assert_eq!(delete(format!("/v2.0/networks/{}", id(it))), 204));
    assert_eq!(kernel_view::marked_ports(), [mine]);
    let health = api.get("/nicd/v1/health").expect(200);
    assert_eq!(health["status"], "ok", "{health}");
    let now = Gauge::read(daemon.pid(), 0);
    println!("idle before {idle:?}\nidle after  {now:?}");
    // The clients of this test, and what a first attach opens for good.
    assert!(now.descriptors <= idle.descriptors + 8, "descriptors are left open: {idle:?}, {now:?}");
}

fn id(thing: &Value) -> &str {
    thing["id"].as_str().unwrap()
}

/// SIGTERM ends it with success; its store opens and has the operator's port.
fn ends_and_starts_again(daemon: &mut Daemon, port: &str) {
    daemon.term();
    let log = daemon.log();
    let errors: Vec<&str> = log.lines().filter(|line| line.contains("panicked") || line.contains("ERROR")).take(20).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    let warnings = log.lines().filter(|line| line.contains(" WARN ")).count();
    assert!(warnings < 100, "the log was flooded with {warnings} warnings: {}", &log[log.len().saturating_sub(2000)..]);
    daemon.launch();
    let ports = daemon.client().get("/v2.0/ports").expect(200);
    assert_eq!(ports["ports"].as_array().map(Vec::len), Some(1), "{ports}");
    assert_eq!(ports["ports"][0]["id"], port);
}
