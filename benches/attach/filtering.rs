//! What the filters cost: packets, attaches and detaches; and how soon they are back.

use std::net::UdpSocket;
use std::path::Path;
use std::time::Duration;

use nicd::kernel::linux::{ExecContext, Linux};
use nicd::kernel::{Host, Kernel};
use nicd::model::{Mac, PortId, names};
use nicd::plan::filter::{Filter, Guard, PortFilter, PortFilters};
use nicd::plan::{IndexFilter, Op};
use nix::sys::signal::Signal;
use uuid::Uuid;

use crate::Effort;
use crate::daemon::{Daemon, Fleet, Nic};
use crate::figures::{Aim, Sample, Table};
use crate::nft::{Changes, Rules};
use crate::place::Place;
use crate::restarting;

/// Rows: an attach and a detach with port security, over those of a nicd that finds no nf_tables, in turns.
pub fn attach(table: &mut Table, effort: Effort, dir: &Path, daemon: &Daemon) {
    let place = Place::new("bare-kernel");
    let dir = dir.join("without");
    std::fs::create_dir(&dir).expect("a state directory");
    let other = Daemon::without_filters(&dir, &place);
    let mut fleets = [Fleet::unfiltered(&other, 5), Fleet::new(daemon, Nic::Tap, 5)];
    let [attached, detached] = in_turns(effort, &mut fleets);
    for (what, samples) in [("attach tap", attached), ("detach tap", detached)] {
        let [without, with] = samples.map(|sample| sample.p50());
        table.row(&format!("{what}, p50, with filters over without"), "µs", Some(without), with, Aim::AtMost(1.05, 1.15));
    }
    fleets[1].shrink(0);
}

/// Attaches and detaches of two fleets in turns: what each side's attaches took, and what its detaches.
pub fn in_turns(effort: Effort, fleets: &mut [Fleet; 2]) -> [[Sample; 2]; 2] {
    let (mut attached, mut detached) = ([Sample::default(), Sample::default()], [Sample::default(), Sample::default()]);
    for fleet in fleets.iter_mut() {
        fleet.grow(10);
        fleet.prepare(10 + effort.block);
    }
    for _ in 0..(2 * effort.samples).div_ceil(effort.block) {
        for number in 0..effort.block {
            for side in [number % 2, 1 - number % 2] {
                attached[side].add(fleets[side].grow_by_one());
            }
        }
        for number in 0..effort.block {
            for side in [number % 2, 1 - number % 2] {
                detached[side].add(fleets[side].shrink_by_one());
            }
        }
        fleets.iter_mut().for_each(Fleet::settle);
    }
    [attached, detached]
}

/// Rows: a port's filter is set, beside those of more and more ports.
pub fn elements(table: &mut Table, effort: Effort) {
    let mut first = None;
    for ports in [10, 1000, 4000] {
        let mut sample = Sample::default();
        Place::new(&format!("elements-{ports}")).inside(|| {
            let (mut host, mut context) = (Linux::default().open().expect("a kernel"), ExecContext::default());
            host.keep_filters(PortFilters { ports: (0..ports).map(port_filter).collect(), ..PortFilters::default() })
                .expect("the table");
            let PortFilter { port, index, filter } = port_filter(ports);
            let set = |filter| Op::SetFilter { port, filter, before_device: true };
            let there = set(Some(IndexFilter { index, filter }));
            for _ in 0..effort.samples * 2 {
                sample.time(|| host.apply(&there, &mut context)).expect("set");
                host.apply(&set(None), &mut context).expect("removed");
            }
        });
        let what = format!("a port's filter is set, p50, at {ports} ports");
        match first {
            None => table.row(&what, "µs", None, sample.p50(), Aim::Nothing),
            Some(first) => table.row(&format!("{what}, over 10"), "µs", Some(first), sample.p50(), Aim::AtMost(1.2, 1.5)),
        }
        first = first.or(Some(sample.p50()));
    }
}

/// A filter as the ports here have it: a MAC, an IPv4 address and the link-local one.
fn port_filter(number: u32) -> PortFilter {
    let [_, _, high, low] = number.to_be_bytes();
    let mac = Mac([0xfa, 0x16, 0x3e, 1, high, low]);
    let mut guard = Guard::default();
    guard.allow_mac(mac);
    for address in [format!("10.0.{high}.{low}"), format!("fe80::{number:x}")] {
        guard.allow(mac, address.parse::<std::net::IpAddr>().expect("an address").into());
    }
    let filter = Filter { guard: Some(guard), ..Filter::default() };
    PortFilter { port: PortId(Uuid::from_u128(u128::from(number) + 1)), index: names::FIRST_INDEX + number, filter }
}

/// Row: packets from guest to guest with the filters of so many ports, over none: the same table, which the kernel is told not to
/// ask. Without nicd, which would not leave it at that.
pub fn packets(table: &mut Table, effort: Effort, dir: &Path, daemon: &mut Daemon, fleet: &mut Fleet) {
    let (sender, receiver) = restarting::pair(fleet);
    daemon.stop(Signal::SIGTERM);
    let mut rules = Rules::open();
    let (mut with, mut without) = (Sample::default(), Sample::default());
    for number in 0..effort.samples / 5 {
        for asked in [number % 2 == 0, number % 2 == 1] {
            rules.ask(asked);
            send(if asked { &mut with } else { &mut without }, &sender, &receiver);
        }
    }
    rules.ask(true);
    *daemon = Daemon::start(dir);
    fleet.reconnect(daemon);
    let what = format!("packets a second from guest to guest, with the filters of {} ports over none", effort.many);
    table.row(&what, "/s", Some(rate(&without)), rate(&with), Aim::AtLeast(0.9, 0.8));
}

/// Packets sent in a row; all of them have room in the receiver's buffer.
const BLOCK: u32 = 20_000;

/// Packets a second.
pub fn rate(sample: &Sample) -> f64 {
    f64::from(BLOCK) / sample.p50() * 1e6
}

/// Times the sending of a block, which arrives.
pub fn send(sample: &mut Sample, sender: &UdpSocket, receiver: &UdpSocket) {
    sample.time(|| {
        for _ in 0..BLOCK {
            sender.send(b"0123456789").expect("a packet");
        }
    });
    for _ in 0..BLOCK {
        receiver.recv(&mut [0; 64]).expect("every packet");
    }
}

/// Row: from the flush of all rules until nicd's are back, by the kernel's events.
pub fn restore(table: &mut Table, effort: Effort) {
    let (mut rules, mut changes) = (Rules::open(), Changes::open());
    let mut sample = Sample::default();
    for _ in 0..10 {
        // What nicd does beside, and its pause after a restore.
        std::thread::sleep(Duration::from_millis(500));
        changes.count();
        let start = std::time::Instant::now();
        rules.flush();
        sample.add(changes.wait_for_table(&rules) - start);
    }
    let what = format!("all rules flushed → nicd's are back, {} ports, p50", effort.many);
    table.row(&what, "ms", None, sample.p50() / 1000.0, Aim::Own(100.0, 1000.0));
    let what = format!("all rules flushed → nicd's are back, {} ports, the longest", effort.many);
    table.row(&what, "ms", None, sample.quantile(1.0) / 1000.0, Aim::Own(100.0, 1000.0));
}
