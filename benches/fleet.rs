//! A fleet of many hosts on three real members of etcd, on this machine: the hosts are in this process, each with its own service, store and
//! part in the fleet, on a kernel in memory.
//!
//! `cargo bench --bench fleet -- [--hosts N] [--ports N] [--rate N] [--seconds N]` as root. What is measured how is in `benches/README.md`.

#![allow(clippy::unwrap_used, clippy::cast_precision_loss)] // what fails ends it

#[path = "../tests/common/etcd.rs"]
mod etcd;
#[allow(dead_code)]
#[path = "attach/figures.rs"]
mod figures;
#[path = "fleet/host.rs"]
mod host;
#[path = "fleet/load.rs"]
mod load;
#[path = "../tests/common/netns.rs"]
mod netns;
#[path = "../tests/common/programs.rs"]
mod programs;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use nicd::model::NetworkId;
use nicd::model::action::{Action, NewNetwork};
use nicd::model::subnet::{Gateway, NewSubnet};
use nicd::model::{Guidance, NetworkKind};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use uuid::Uuid;

use etcd::Node;
use figures::{Aim, Table};
use host::{Host, Machine, subnet};
use load::{Members, Settings, fill, steady};

/// Hosts that have the same networks.
const TOGETHER: usize = 4;

/// Networks of a host.
const NETWORKS: usize = 2;

/// Descriptors of a host: its store, its connections, and those that hear a bridge's guests.
const DESCRIPTORS: u64 = 20;

/// How long a phase may take.
const PATIENCE: Duration = Duration::from_secs(600);

fn arguments() -> Option<Settings> {
    let mut settings = Settings { hosts: 1000, ports: 100, rate: 1000, seconds: 60 };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--hosts" => settings.hosts = arguments.next()?.parse().ok()?,
            "--ports" => settings.ports = arguments.next()?.parse().ok()?,
            "--rate" => settings.rate = arguments.next()?.parse().ok()?,
            "--seconds" => settings.seconds = arguments.next()?.parse().ok()?,
            "--bench" => {}
            _ => return None,
        }
    }
    Some(settings)
}

fn main() {
    let Some(settings) = arguments() else {
        eprintln!("usage: cargo bench --bench fleet -- [--hosts N] [--ports N] [--rate N] [--seconds N]");
        std::process::exit(64);
    };
    if !programs::has("etcd") {
        std::process::exit(1);
    }
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let needed = u64::try_from(settings.hosts).unwrap() * DESCRIPTORS;
    assert!(most >= needed, "{needed} descriptors are needed, and {most} may be open: ulimit -Hn");
    netns::in_netns(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let table = runtime.block_on(async move { tokio::spawn(measure(settings)).await.unwrap() });
        table.print();
    });
}

/// A network of some hosts.
fn network(of: usize, nth: usize) -> NetworkId {
    NetworkId(Uuid::from_u128((1 << 100) + (of * NETWORKS + nth) as u128))
}

/// The network of a host's n-th port.
fn network_of(host: usize, port: usize) -> NetworkId {
    network(host / TOGETHER, port % NETWORKS)
}

async fn until(what: &str, holds: impl Fn() -> bool) -> Duration {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "not after {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    began.elapsed()
}

async fn start(machines: Vec<Machine>, members: &Members) -> Vec<Arc<Host>> {
    let fleet = Arc::new(etcd::settings(&members.urls(), ""));
    let starting = machines.into_iter().map(|machine| {
        let fleet = Arc::clone(&fleet);
        tokio::spawn(async move { Arc::new(machine.start(&fleet).await) })
    });
    join_all(starting).await.into_iter().map(Result::unwrap).collect()
}

/// How many kB of memory the process has.
fn memory() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Defines all networks, some at a time: each host notes each definition, and here all of them share two processors.
async fn define(hosts: &[Arc<Host>], groups: usize) {
    let host = &hosts[0];
    let networks: Vec<NetworkId> = (0..groups).flat_map(|of| (0..NETWORKS).map(move |nth| network(of, nth))).collect();
    for some in networks.chunks(16) {
        let new = some.iter().map(|id| NewNetwork {
            id: Some(*id),
            name: String::new(),
            description: String::new(),
            project_id: String::new(),
            mtu: None,
            bridge: None,
            kind: NetworkKind::Vxlan,
            physical_network: None,
            segmentation_id: None,
            port_security: true,
            isolated: false,
            scope: None,
        });
        host.perform(Action::CreateNetworks(new.collect())).await.unwrap();
        let subnets = some.iter().map(|id| NewSubnet {
            id: subnet(*id),
            network_id: *id,
            name: String::new(),
            description: String::new(),
            project_id: String::new(),
            cidr: "10.0.0.0/20".parse().unwrap(),
            gateway: Gateway::FirstHost,
            allocation_pools: None,
            dns_nameservers: Vec::new(),
            host_routes: Vec::new(),
            enable_dhcp: true,
            guidance: Guidance::default(),
        });
        host.perform(Action::CreateSubnets(subnets.collect())).await.unwrap();
        let last = some[some.len() - 1];
        until("all know the networks", || hosts.iter().all(|host| host.knows(last))).await;
    }
}

async fn measure(settings: Settings) -> Table {
    let mut table = Table::default();
    let dir = Path::new("/run/hosts");
    std::fs::create_dir(dir).unwrap();
    let flags = [
        "--heartbeat-interval=100",
        "--election-timeout=1000",
        "--quota-backend-bytes=8589934592",
        "--auto-compaction-mode=revision",
        "--auto-compaction-retention=20000",
        "--log-level=warn",
    ];
    let mut members = Members::new(Node::three_with("127.0.0.1", &flags).await);
    let groups = settings.hosts.div_ceil(TOGETHER);
    let empty = memory();
    eprintln!("start");
    members.begin();
    let began = Instant::now();
    let machines = (0..settings.hosts).map(|number| Machine::new(number, dir)).collect();
    let mut hosts = start(machines, &members).await;
    until("all are connected", || hosts.iter().all(|host| host.is_connected())).await;
    table.row(
        &format!("{} new hosts started at once → all in the fleet", settings.hosts),
        "s",
        None,
        began.elapsed().as_secs_f64(),
        Aim::Nothing,
    );
    members.rows(&mut table, "of it etcd");
    let began = Instant::now();
    members.begin();
    define(&hosts, groups).await;
    let count = groups * NETWORKS;
    table.row(&format!("{count} networks defined → known at all"), "s", None, began.elapsed().as_secs_f64(), Aim::Nothing);
    members.rows(&mut table, "of it etcd");
    for host in &hosts {
        host.register(settings.ports).await;
    }
    eprintln!("fill");
    members.begin();
    let mut made = fill(&mut table, &settings, &hosts).await;
    let total = settings.hosts * settings.ports;
    let peers = |host: usize| settings.hosts.min(TOGETHER * (host / TOGETHER + 1)) - TOGETHER * (host / TOGETHER) - 1;
    let known = |hosts: &[Arc<Host>]| {
        hosts.iter().enumerate().all(|(n, host)| host.entries(network_of(n, 0)) == peers(n) * settings.ports / NETWORKS)
    };
    let took = until("all entries are there", || known(&hosts)).await;
    table.row("the last attached → all hosts have all entries", "s", None, took.as_secs_f64(), Aim::Nothing);
    members.rows(&mut table, &format!("of {total} ports etcd"));
    table.row("memory of a host", "kB", None, (memory() - empty) / settings.hosts as f64, Aim::Nothing);
    eprintln!("steady");
    members.begin();
    steady(&mut table, &settings, &hosts, &mut made, "").await;
    members.rows(&mut table, "of it etcd");
    eprintln!("leader");
    members.kill_leader().await;
    let short = Settings { seconds: settings.seconds.min(20), ..settings };
    steady(&mut table, &short, &hosts, &mut made, ", the leader killed before").await;
    members.heal().await;
    until("all are connected", || hosts.iter().all(|host| host.is_connected())).await;
    eprintln!("restart");
    let machines = join_all(hosts.drain(..).map(|host| async { Arc::into_inner(host).unwrap().stop().await })).await;
    members.begin();
    let began = Instant::now();
    let hosts = start(machines, &members).await;
    until("all are connected", || hosts.iter().all(|host| host.is_connected())).await;
    table.row("all hosts restarted at once → all in the fleet", "s", None, began.elapsed().as_secs_f64(), Aim::Nothing);
    until("all entries are there", || known(&hosts)).await;
    table.row("the same → all entries are known", "s", None, began.elapsed().as_secs_f64(), Aim::Nothing);
    members.rows(&mut table, "of it etcd");
    join_all(hosts.into_iter().map(|host| async { Arc::into_inner(host).unwrap().stop().await })).await;
    table
}
