//! Attaches and detaches, what is seen of them on other hosts, and what they cost etcd.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use nicd::telemetry::meters::meters;
use tokio::sync::mpsc;

use crate::etcd::{self, Node};
use crate::figures::{Aim, Sample, Table};
use crate::host::{Host, Made};
use crate::{TOGETHER, network_of};

/// How much is done.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub hosts: usize,
    /// Of a host.
    pub ports: usize,
    /// Attaches a second, over all hosts.
    pub rate: usize,
    pub seconds: u64,
}

/// Of so many attaches one is looked for on another host.
const LOOKED_FOR: usize = 20;

/// How many attaches are under way at a time while the fleet is filled.
const AT_ONCE: usize = 64;

/// How long one is looked for at most.
const LATE: Duration = Duration::from_secs(60);

/// The members of etcd.
pub struct Members {
    nodes: Vec<Node>,
    dead: Option<usize>,
    began: Instant,
    before: f64,
    transactions: f64,
}

/// Seconds of a processor that a process has used.
fn used(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |place: usize| fields.get(place).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
    (ticks(11) + ticks(12)) / 100.0
}

/// A counter or its parts, summed up, as `/metrics` has it.
fn counted(name: &str) -> f64 {
    let text = meters().text(&Default::default());
    let lines = text.lines().filter(|line| line.starts_with(name));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

impl Members {
    pub fn new(nodes: Vec<Node>) -> Self {
        Self { nodes, dead: None, began: Instant::now(), before: 0.0, transactions: 0.0 }
    }

    pub fn urls(&self) -> Vec<&str> {
        self.nodes.iter().map(|node| node.url.as_str()).collect()
    }

    fn used(&self) -> f64 {
        self.nodes.iter().map(|node| used(node.pid())).sum()
    }

    /// Counts from now on.
    pub fn begin(&mut self) {
        (self.began, self.before, self.transactions) = (Instant::now(), self.used(), counted("nicd_fleet_transactions_total"));
    }

    /// What they have used since.
    pub fn rows(&mut self, table: &mut Table, what: &str) {
        let took = self.began.elapsed().as_secs_f64();
        table.row(&format!("{what}: processors used by its members"), "", None, (self.used() - self.before) / took, Aim::Nothing);
        let done = counted("nicd_fleet_transactions_total") - self.transactions;
        table.row(&format!("{what}: transactions"), "/s", None, done / took, Aim::Nothing);
    }

    pub async fn kill_leader(&mut self) {
        for (n, node) in self.nodes.iter_mut().enumerate() {
            let (_, status) = etcd::client(&[&node.url], "").status().await.remove(0);
            if status.is_ok_and(|status| status.leader == status.header.member_id) {
                node.kill();
                self.dead = Some(n);
                return;
            }
        }
        panic!("no member leads");
    }

    pub async fn heal(&mut self) {
        if let Some(dead) = self.dead.take() {
            self.nodes[dead].restart();
            self.nodes[dead].answers("").await;
        }
    }
}

/// What is measured of attaches.
#[derive(Default)]
struct Seen {
    attached: Sample,
    known: Sample,
    failed: usize,
}

enum Told {
    Attached(Duration),
    Known(Duration),
    Failed(String),
}

/// Looks for a port on another host of its network.
fn look_for(made: Made, at: Arc<Host>, on: Arc<Host>, asked: Instant, tell: mpsc::UnboundedSender<Told>) {
    tokio::spawn(async move {
        while !on.leads_to(&made, &at) {
            if asked.elapsed() > LATE {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let _ = tell.send(Told::Known(asked.elapsed()));
    });
}

/// Another host with the same networks.
fn neighbour(hosts: &[Arc<Host>], host: usize, salt: usize) -> Option<Arc<Host>> {
    let first = host / TOGETHER * TOGETHER;
    let count = TOGETHER.min(hosts.len() - first);
    let other = first + (host - first + 1 + salt % (count - 1).max(1)) % count;
    (other != host).then(|| Arc::clone(&hosts[other]))
}

async fn attach(
    hosts: &[Arc<Host>],
    (host, nth): (usize, usize),
    looks: bool,
    tell: &mpsc::UnboundedSender<Told>,
) -> Option<Made> {
    let asked = Instant::now();
    match hosts[host].attach(nth, network_of(host, nth)).await {
        Ok(made) => {
            let _ = tell.send(Told::Attached(asked.elapsed()));
            if looks && let Some(on) = neighbour(hosts, host, nth) {
                look_for(made.clone(), Arc::clone(&hosts[host]), on, asked, tell.clone());
            }
            Some(made)
        }
        Err(error) => {
            let _ = tell.send(Told::Failed(error.to_string()));
            None
        }
    }
}

async fn collect(mut told: mpsc::UnboundedReceiver<Told>) -> Seen {
    let mut seen = Seen::default();
    while let Some(told) = told.recv().await {
        match told {
            Told::Attached(took) => seen.attached.add(took),
            Told::Known(took) => seen.known.add(took),
            Told::Failed(why) => {
                if seen.failed < 3 {
                    eprintln!("  an attach failed: {why}");
                }
                seen.failed += 1;
            }
        }
    }
    seen
}

fn rows(table: &mut Table, seen: &Seen, what: &str) {
    table.row(&format!("attach {what}, p50"), "ms", None, seen.attached.p50() / 1e3, Aim::Nothing);
    table.row("the same, p99", "ms", None, seen.attached.p99() / 1e3, Aim::Nothing);
    table.row(
        &format!("attach sent → the port's entry on another host {what}, p50"),
        "ms",
        None,
        seen.known.p50() / 1e3,
        Aim::Own(10.0, 50.0),
    );
    table.row("the same, p99", "ms", None, seen.known.p99() / 1e3, Aim::Own(20.0, 50.0));
    table.row(&format!("attaches that failed {what}"), "", None, seen.failed as f64, Aim::Own(0.0, 0.0));
}

/// Attaches all ports of all hosts, as fast as it goes. First each host has a few of each network: what it reserves is there then.
pub async fn fill(table: &mut Table, settings: &Settings, hosts: &[Arc<Host>]) -> Vec<Vec<Option<Made>>> {
    let (tell, told) = mpsc::unbounded_channel();
    let collected = tokio::spawn(collect(told));
    let began = Instant::now();
    let next = Arc::new(AtomicUsize::new(0));
    let all = settings.hosts * settings.ports;
    let shared: Arc<Vec<Arc<Host>>> = Arc::new(hosts.to_vec());
    let workers = (0..AT_ONCE).map(|_| {
        let (next, hosts, tell, count) = (Arc::clone(&next), Arc::clone(&shared), tell.clone(), settings.hosts);
        tokio::spawn(async move {
            let mut made = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= all {
                    return made;
                }
                if n % 10_000 == 0 {
                    eprintln!("  {n} of {all} after {:?}", began.elapsed());
                }
                let at = (n % count, n / count);
                let mut tries = 0;
                loop {
                    if let Some(one) = attach(&hosts, at, n % LOOKED_FOR == 0, &tell).await {
                        made.push((at, one));
                        break;
                    }
                    tries += 1;
                    assert!(tries < 100, "host {} cannot attach", at.0);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        })
    });
    let mut of_hosts = vec![vec![None; settings.ports]; settings.hosts];
    for ((host, nth), one) in join_all(workers).await.into_iter().flat_map(Result::unwrap) {
        of_hosts[host][nth] = Some(one);
    }
    let took = began.elapsed().as_secs_f64();
    drop((tell, shared));
    let seen = collected.await.unwrap();
    table.row(&format!("attaches, {AT_ONCE} at a time"), "/s", None, all as f64 / took, Aim::Nothing);
    rows(table, &seen, "while the fleet is filled");
    of_hosts
}

/// Attaches so many a second, each in the place of one that is detached before.
pub async fn steady(table: &mut Table, settings: &Settings, hosts: &[Arc<Host>], made: &mut [Vec<Option<Made>>], when: &str) {
    let (tell, told) = mpsc::unbounded_channel();
    let collected = tokio::spawn(collect(told));
    let began = Instant::now();
    let all = settings.rate * usize::try_from(settings.seconds).unwrap();
    let mut under_way = Vec::new();
    let (back, mut came) = mpsc::unbounded_channel();
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    let mut n = 0;
    while n < all {
        ticks.tick().await;
        let due = usize::try_from(began.elapsed().as_millis()).unwrap() * settings.rate / 1000;
        while n < due.min(all) {
            let at = (n * 7919 % settings.hosts, n / settings.hosts % settings.ports);
            if let Some(before) = made[at.0][at.1].take() {
                let (hosts, tell, back) = (hosts.to_vec(), tell.clone(), back.clone());
                under_way.push(tokio::spawn(async move {
                    if let Err(error) = hosts[at.0].detach(&before).await {
                        let _ = tell.send(Told::Failed(format!("detach: {error}")));
                        let _ = back.send((at, Some(before)));
                        return;
                    }
                    let _ = back.send((at, attach(&hosts, at, n % LOOKED_FOR == 0, &tell).await));
                }));
            }
            n += 1;
        }
        while let Ok(((host, nth), one)) = came.try_recv() {
            made[host][nth] = one;
        }
    }
    let asked = began.elapsed();
    join_all(under_way).await;
    let took = began.elapsed();
    drop((tell, back));
    while let Some(((host, nth), one)) = came.recv().await {
        made[host][nth] = one;
    }
    let seen = collected.await.unwrap();
    table.row(
        &format!("detach and attach, {} asked a second for {} s{when}: done", settings.rate, settings.seconds),
        "/s",
        None,
        all as f64 / took.as_secs_f64(),
        Aim::Nothing,
    );
    table.row("the last asked → the last done", "s", None, (took - asked).as_secs_f64(), Aim::Nothing);
    rows(table, &seen, &format!("at {} a second{when}", settings.rate));
}
