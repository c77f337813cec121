//! Restarts: how long, what is written, what is lost; and memory over many cycles.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};

use crate::attaching::Floor;
use crate::bare::{Events, Wire};
use crate::daemon::{Daemon, Fleet, Nic, device_index, quiet, quiet_after_closing};
use crate::figures::{Aim, Sample, Table};
use crate::nft::Changes;

/// Rows: from exec to the first answer with intact state, over a dump and reading the store; and writes on that way.
pub fn restart(table: &mut Table, dir: &Path, daemon: &mut Daemon, fleets: &mut [Fleet]) {
    let ours: BTreeSet<u32> = indexes(fleets).into_iter().collect();
    let ports = ours.len();
    let (mut events, mut changes) = (Events::open(), Changes::open());
    let (mut served, mut floor) = (Sample::default(), Sample::default());
    let (mut written, mut transactions) = (0_u32, 0);
    let mut wire = Wire::open();
    quiet_after_closing(&mut events);
    for _ in 0..5 {
        quiet(&mut events);
        daemon.stop(Signal::SIGTERM);
        floor.time(|| {
            let links = wire.dump();
            let records = read_store(dir);
            assert!(links >= ports && records >= ports, "{links} links, {records} records");
        });
        quiet(&mut events);
        changes.count();
        *daemon = served.time(|| Daemon::start(dir));
        thread::sleep(Duration::from_millis(300));
        let touched = events.drain().iter().filter(|told| ours.contains(&told.index)).count();
        written += u32::try_from(touched).expect("few");
        transactions += changes.count();
    }
    fleets.iter_mut().for_each(|fleet| fleet.reconnect(daemon));
    let what = format!("restart at {ports} ports, exec → first answer, over dump + store read");
    table.row(&what, "ms", Some(floor.p50() / 1000.0), served.p50() / 1000.0, Aim::AtMost(2.5, 5.0));
    table.row("events on our links over 5 restarts", "", None, f64::from(written), Aim::Own(0.0, 0.0));
    table.row("transactions of nf_tables over 5 restarts", "", None, f64::from(transactions), Aim::Own(0.0, 0.0));
}

/// Rows: after a reboot, with all devices gone and the store kept: from exec to the first answer, and until the last port is
/// up, over making as many bare taps, each bridge's by themselves.
pub fn rebuild(table: &mut Table, dir: &Path, daemon: &mut Daemon, fleets: &mut [Fleet], floor: &mut Floor) {
    let ours = indexes(fleets);
    let ports = ours.len();
    daemon.stop(Signal::SIGKILL);
    let mut wire = Wire::open();
    wire.gather(&ours, 78);
    wire.delete_group(78);
    let mut bare = Duration::ZERO;
    for fleet in fleets.iter() {
        floor.shrink(Nic::Tap, 0);
        bare += floor.grow_taps(fleet.ports.len());
    }
    let mut events = Events::open();
    quiet(&mut events);
    let start = Instant::now();
    *daemon = Daemon::start(dir);
    let served = start.elapsed();
    let mut up = BTreeSet::new();
    while up.len() < ports {
        let told = events.next(Duration::from_secs(30)).expect("every port is built again");
        if told.up && !told.gone {
            up.insert(told.index);
        }
    }
    let built = start.elapsed();
    fleets.iter_mut().for_each(|fleet| fleet.reconnect(daemon));
    let milliseconds = |took: Duration| took.as_secs_f64() * 1000.0;
    let what = format!("rebuild of {ports} ports after a reboot, exec → first answer");
    table.row(&what, "ms", None, milliseconds(served), Aim::Nothing);
    let what = format!("rebuild of {ports} ports after a reboot, exec → the last is up, over as many bare taps");
    table.row(&what, "ms", Some(milliseconds(bare)), milliseconds(built), Aim::AtMost(1.15, 1.5));
}

fn indexes(fleets: &[Fleet]) -> Vec<u32> {
    fleets.iter().flat_map(|fleet| &fleet.ports).map(|(_, port)| device_index(*port)).collect()
}

fn read_store(dir: &Path) -> usize {
    let connection = rusqlite::Connection::open(dir.join("nicd.db")).expect("the store");
    let mut ports = connection.prepare("SELECT body FROM ports").expect("prepare");
    let bodies = ports.query_map([], |row| row.get::<_, String>(0)).expect("records");
    bodies.map(|body| body.expect("a record")).filter(|body| !body.is_empty()).count()
}

/// Sockets of two guests, from one to the other.
pub fn pair(fleet: &mut Fleet) -> (UdpSocket, UdpSocket) {
    let address = |fleet: &mut Fleet, place: usize| {
        let (server, port) = fleet.ports[place];
        let path = format!("/v2.1/servers/{server}/os-interface/{port}");
        let shown = fleet.client.ask(&crate::http::request("GET", &path, None)).json();
        let text = shown["interfaceAttachment"]["fixed_ips"][0]["ip_address"].as_str().expect("an address").to_owned();
        text.parse::<Ipv4Addr>().expect("an address")
    };
    // The last is in another guest than the first.
    let (from, to) = (0, fleet.ports.len() - 1);
    let (source, target) = (address(fleet, from), address(fleet, to));
    let receiver = fleet.guest(to / 8).inside(|| UdpSocket::bind((target, 9)).expect("a receiver"));
    let sender = fleet.guest(from / 8).inside(|| UdpSocket::bind((source, 0)).expect("a sender"));
    setsockopt(&receiver, sockopt::RcvBufForce, &(64 << 20)).expect("a large buffer");
    receiver.set_read_timeout(Some(Duration::from_millis(200))).expect("a limit");
    sender.connect((target, 9)).expect("connect");
    // The neighbour is found before it counts.
    sender.send(b"first").expect("a packet");
    receiver.recv(&mut [0; 64]).expect("the way from guest to guest");
    (sender, receiver)
}

/// Rows: packets lost between two guests, 10,000 a second, over a restart after TERM and after KILL.
pub fn packets(table: &mut Table, dir: &Path, daemon: &mut Daemon, fleet: &mut Fleet) {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let (sender, receiver) = pair(fleet);
        let stop = Arc::new(AtomicBool::new(false));
        let sending = thread::spawn({
            let stop = Arc::clone(&stop);
            move || send(&sender, &stop)
        });
        let receiving = thread::spawn(move || (0_usize..).take_while(|_| receiver.recv(&mut [0; 64]).is_ok()).count());
        thread::sleep(Duration::from_millis(300));
        daemon.stop(signal);
        thread::sleep(Duration::from_millis(100));
        *daemon = Daemon::start(dir);
        thread::sleep(Duration::from_millis(500));
        stop.store(true, Ordering::Relaxed);
        let (sent, got) = (sending.join().expect("sent"), receiving.join().expect("received"));
        let lost = u32::try_from(sent - got).expect("few");
        let what = format!("packets lost of {sent}, 10,000 a second, over a restart after {signal}");
        table.row(&what, "", None, f64::from(lost), Aim::Own(0.0, 0.0));
        fleet.reconnect(daemon);
    }
}

/// Ten a millisecond.
fn send(socket: &UdpSocket, stop: &AtomicBool) -> usize {
    let (start, mut sent) = (Instant::now(), 0);
    while !stop.load(Ordering::Relaxed) {
        let due = usize::try_from(start.elapsed().as_millis()).expect("short") * 10;
        while sent < due {
            socket.send(b"0123456789").expect("a packet");
            sent += 1;
        }
        thread::sleep(Duration::from_micros(500));
    }
    sent
}

/// Row: how memory grows over cycles of attach and detach, after what nicd keeps up to a bound is there: the ring of
/// 10,000 events, four a cycle, and the indexes of the last 4096 links that went.
pub fn growth(table: &mut Table, cycles: usize, daemon: &Daemon, fleet: &mut Fleet) {
    fleet.reconnect(daemon);
    fleet.shrink(0);
    let mut run = |cycles: usize| {
        for _ in 0..cycles.div_ceil(50) {
            fleet.grow(50);
            fleet.shrink(0);
        }
        daemon.memory()
    };
    let before = run(5000);
    let after = run(cycles);
    eprintln!("  ({before:.2} MiB before, {after:.2} MiB after)");
    table.row(&format!("memory growth over {cycles} cycles"), "MiB", None, (after - before).max(0.0), Aim::Own(0.1, 0.5));
}
