//! Attaches: one client, many clients, the kernel's part alone.

use std::path::Path;
use std::time::{Duration, Instant};

use nicd::kernel::exec::Execution;
use nicd::kernel::linux::{Linux, LinuxHost};
use nicd::kernel::{Host, Kernel, LinkSelector};
use nicd::model::{Mac, NetworkId, Owner, PortId, names};
use nicd::plan::{BridgeMade, Desired, DesiredBridge, DesiredNic, DesiredPort, Observed, Reason, plan};
use uuid::Uuid;

use crate::Effort;
use crate::bare::{Commits, Guest, Wire, index_of, persist};
use crate::daemon::{Daemon, Fleet, Nic};
use crate::figures::{Aim, Sample, Table};
use crate::place::Place;

/// NICs a bare guest has.
const NICS: usize = 8;

/// The bare calls, in a namespace that nicd does not watch, with as many ports as nicd has.
pub struct Floor {
    /// The namespace.
    pub place: Place,
    /// A socket in it.
    pub wire: Wire,
    commits: Commits,
    taps: Side,
    veths: Side,
    guests: Vec<Guest>,
    made: u32,
}

struct Side {
    bridge: u32,
    links: Vec<u32>,
}

impl Floor {
    /// Two empty bridges, and a database in `dir`.
    pub fn new(dir: &Path) -> Self {
        let place = Place::new("floor");
        let mut wire = place.inside(Wire::open);
        let bridge = |wire: &mut Wire, name| Side { bridge: place.inside(|| wire.bridge(name)), links: Vec::new() };
        let (taps, veths) = (bridge(&mut wire, "taps"), bridge(&mut wire, "veths"));
        Self { wire, commits: Commits::open(dir), taps, veths, guests: Vec::new(), made: 0, place }
    }

    fn side(&mut self, kind: Nic) -> &mut Side {
        match kind {
            Nic::Tap => &mut self.taps,
            Nic::Veth => &mut self.veths,
        }
    }

    /// The links of a kind.
    pub fn links(&mut self, kind: Nic) -> &[u32] {
        &self.side(kind).links
    }

    /// Attaches one.
    pub fn grow_by_one(&mut self, kind: Nic, sample: &mut Sample) {
        self.grow_timing(kind, sample, &mut Sample::default());
    }

    /// The same; of a tap also with what makes it outlive its descriptor, and closing that.
    fn grow_timing(&mut self, kind: Nic, sample: &mut Sample, lasting: &mut Sample) {
        self.made += 1;
        let name = format!("b{}", self.made);
        let bridge = self.side(kind).bridge;
        let Self { place, wire, guests, veths, .. } = self;
        match kind {
            Nic::Tap => place.inside(|| {
                let [a, b, c, d] = self.made.to_be_bytes();
                lasting.time(|| {
                    let tap = sample.time(|| wire.tap(&name, [0xfe, 0x16, a, b, c, d], bridge));
                    persist(&tap);
                });
            }),
            Nic::Veth => {
                let number = veths.links.len();
                if guests.len() <= number / NICS {
                    guests.push(Guest::new(u32::try_from(guests.len()).expect("few")));
                }
                let [_, _, high, low] = self.made.to_be_bytes();
                let guest = &mut guests[number / NICS];
                place.inside(|| sample.time(|| wire.veth(&name, bridge, guest, [10, 3, high, low])));
            }
        }
        let index = self.place.inside(|| index_of(&name));
        // What the kernel has put off of this port (an RCU grace period under RTNL) must not fall into nicd's turn.
        self.wire.look(index);
        self.side(kind).links.push(index);
    }

    /// Attaches until there are so many.
    pub fn grow(&mut self, kind: Nic, ports: usize) {
        let mut unused = Sample::default();
        while self.links(kind).len() < ports {
            self.grow_by_one(kind, &mut unused);
        }
    }

    /// Makes so many lasting taps; how long they took by themselves.
    pub fn grow_taps(&mut self, ports: usize) -> Duration {
        let mut lasting = Sample::default();
        (0..ports).for_each(|_| self.grow_timing(Nic::Tap, &mut Sample::default(), &mut lasting));
        lasting.sum()
    }

    /// Deletes until so many are left.
    pub fn shrink(&mut self, kind: Nic, ports: usize) {
        let leaving: Vec<u32> = self.side(kind).links.drain(ports..).collect();
        if !leaving.is_empty() {
            self.wire.gather(&leaving, 77);
            self.wire.delete_group(77);
        }
    }
}

/// Rows: p50 of one client's attach at 10, 200 and many ports over the serial sum of its parts. Leaves both at many.
pub fn serial(table: &mut Table, effort: Effort, fleet: &mut Fleet, floor: &mut Floor, kind: Nic) {
    let (word, aim) = match kind {
        Nic::Tap => ("tap", Aim::AtMost(0.85, 1.25)),
        Nic::Veth => ("veth", Aim::AtMost(1.15, 1.5)),
    };
    let mut ends = Vec::new();
    for ports in [10, 200, effort.many] {
        fleet.grow(ports);
        floor.grow(kind, ports);
        fleet.prepare(ports + effort.block);
        let Parts { whole, kernel, http, commit } = parts(effort, fleet, floor, kind, ports);
        let sum = kernel.p50() + http.p50() + commit.p50();
        let what = format!(
            "attach {word}, {ports} ports, p50 (kernel {:.0} + commit {:.0} + HTTP {:.0})",
            kernel.p50(),
            commit.p50(),
            http.p50()
        );
        table.row(&what, "µs", Some(sum), whole.p50(), if ports <= 200 { aim } else { Aim::Nothing });
        table.row(&format!("attach {word}, {ports} ports, p99"), "µs", Some(kernel.p99()), whole.p99(), Aim::Nothing);
        ends.push((kernel.p50(), whole.p50()));
    }
    let (first, last) = (ends[0], ends[ends.len() - 1]);
    let what = format!("attach {word}, p50 at {} ports over p50 at 10", effort.many);
    table.row(&what, "×", Some(last.0 / first.0), last.1 / first.1, Aim::AtMost(1.05, 1.2));
}

struct Parts {
    whole: Sample,
    kernel: Sample,
    http: Sample,
    commit: Sample,
}

fn parts(effort: Effort, fleet: &mut Fleet, floor: &mut Floor, kind: Nic, ports: usize) -> Parts {
    let mut parts =
        Parts { whole: Sample::default(), kernel: Sample::default(), http: Sample::default(), commit: Sample::default() };
    let cheapest = fleet.cheapest();
    for _ in 0..effort.samples / effort.block {
        // One each: who does an attach's parts in a row does each of them once, on a processor that has just done another. And
        // a shared machine changes its mind often.
        for _ in 0..effort.block {
            drop(parts.http.time(|| fleet.client.ask(&cheapest)));
            parts.whole.add(fleet.grow_by_one());
            parts.commit.time(|| floor.commits.commit());
            floor.grow_by_one(kind, &mut parts.kernel);
        }
        fleet.shrink(ports);
        floor.shrink(kind, ports);
    }
    parts
}

/// Row: the daemon's own kernel phase, its plan carried out in this process as its worker does, over the bare calls.
pub fn kernel_phase(table: &mut Table, effort: Effort, floor: &mut Floor) {
    let place = Place::new("phase");
    let (mut ours, mut bare, mut lasting) = (Sample::default(), Sample::default(), Sample::default());
    place.inside(|| {
        let mut host = Linux::default().open().expect("a kernel");
        let network = NetworkId(Uuid::new_v4());
        let mut next = names::FIRST_INDEX;
        let mut made = Vec::new();
        // The first makes the bridge.
        made.push(build(&mut host, network, &mut next, &mut Sample::default()));
        for _ in 0..effort.samples / effort.block {
            for _ in 0..effort.block {
                made.push(build(&mut host, network, &mut next, &mut ours));
                floor.grow_timing(Nic::Tap, &mut bare, &mut lasting);
            }
            floor.shrink(Nic::Tap, 10);
            let indexes: Vec<u32> = made.drain(10.min(made.len())..).map(|port| index_of(&crate::daemon::device(port))).collect();
            let mut wire = Wire::open();
            wire.gather(&indexes, 78);
            wire.delete_group(78);
        }
    });
    let aim = Aim::AtMost(1.1, 1.3);
    table.row("kernel phase of a tap, p50, over TUNSETIFF + one NEWLINK", "µs", Some(bare.p50()), ours.p50(), aim);
    let what = "the same over TUNSETIFF + one NEWLINK + TUNSETPERSIST + close";
    table.row(what, "µs", Some(lasting.p50()), ours.p50(), Aim::Nothing);
}

/// The store that the benchmark's own links are tagged with.
const STORE: Uuid = Uuid::from_u128(1);

fn build(host: &mut LinuxHost, network: NetworkId, next: &mut u32, sample: &mut Sample) -> PortId {
    let have = Observed::from(host.dump_links().expect("a dump")).seen_by(STORE);
    let port = PortId(Uuid::new_v4());
    *next += 4;
    let alias = names::bridge_tag(STORE, network);
    let bridge = BridgeMade::ByAgent { index: *next, mac: Mac([0xfa, 0x16, 0x3e, 0, 0, 1]), mtu: 1500, alias, close: true };
    let want = DesiredPort {
        monitor: None,
        id: port,
        network,
        index: *next + 2,
        mac: Mac([0xfa, 0x16, 0x3e, port.0.as_bytes()[0], port.0.as_bytes()[1], port.0.as_bytes()[2]]),
        mtu: 1500,
        admin_up: true,
        unknown_unicast: false,
        to_guest: None,
        from_guest: None,
        silent: false,
        cut_off: false,
        speaks: nicd::plan::Speaks::default(),
        filter: None,
        alias: names::device_tag(STORE, 1),
        seen: None,
        nic: DesiredNic::Tap { queues: 1, vnet_hdr: true, owner: Owner::default() },
    };
    let want = Desired {
        bridges: vec![DesiredBridge { network, made: bridge, segment: None }],
        ports: vec![want],
        ..Desired::default()
    };
    let plan = plan(Reason::Attach, &want, &have).expect("a plan");
    sample.time(|| {
        let mut execution = Execution::new(plan);
        execution.run_volatile(host).expect("made");
        execution.run(host).expect("finished");
    });
    // As behind each bare one.
    host.get_link(LinkSelector::Altname(&names::port_altname(port))).expect("a look");
    port
}

/// Row: attaches a second with 16 clients over one bare thread.
pub fn throughput(table: &mut Table, effort: Effort, daemon: &Daemon, fleet: &mut Fleet, floor: &mut Floor) {
    const MORE: usize = 160;
    let mut clients = daemon.clients(16);
    let (mut ours, mut bare) = (Sample::default(), Sample::default());
    let mut unused = Sample::default();
    for _ in 0..(effort.samples / 40).max(2) {
        ours.add(fleet.grow_with(&mut clients, MORE));
        fleet.shrink(10);
        let start = Instant::now();
        for _ in 0..MORE {
            floor.grow_by_one(Nic::Tap, &mut unused);
        }
        bare.add(start.elapsed());
        floor.shrink(Nic::Tap, 10);
    }
    #[allow(clippy::cast_precision_loss)]
    let rate = |sample: &Sample| MORE as f64 / sample.p50() * 1e6;
    table.row(
        "attaches a second, 16 clients, over one bare thread",
        "/s",
        Some(rate(&bare)),
        rate(&ours),
        Aim::AtLeast(0.85, 0.65),
    );
}

/// Rows: flushes of the store per attach.
pub fn flushes(table: &mut Table, effort: Effort, daemon: &Daemon, fleet: &mut Fleet) {
    for (number, aim) in [(1, Aim::Own(1.0, 2.0)), (16, Aim::Own(0.1, 0.5)), (64, Aim::Own(0.05, 0.5))] {
        let mut clients = daemon.clients(number);
        let more = effort.samples.max(number * 2);
        fleet.prepare(fleet.ports.len() + more);
        let before = daemon.commits();
        fleet.grow_with(&mut clients, more);
        let flushed = daemon.commits() - before;
        fleet.shrink(10);
        #[allow(clippy::cast_precision_loss)]
        let each = f64::from(flushed) / more as f64;
        table.row(&format!("flushes per attach, {number} clients"), "", None, each, aim);
    }
}
