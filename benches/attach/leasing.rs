//! DHCP: how long a guest waits for its address, beside others and beside a flood, and what that costs.

use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nicd::model::PortId;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::read;

use crate::Effort;
use crate::bare::open_tap;
use crate::bytes::{BROADCAST, IP4, Ip4, Mac, UDP, ethernet, udp};
use crate::daemon::{Daemon, Fleet, Nic, device};
use crate::figures::{Aim, Sample, Table};
use crate::filtering::in_turns;

/// What a VMM and the kernel put before each frame of a tap.
const TAP_HEADER: usize = 10;

const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;

/// So fast a neighbour asks.
const FLOOD: u32 = 50_000;

/// A guest with its tap open.
struct Guest {
    tap: File,
    mac: Mac,
    xid: u32,
}

impl Guest {
    /// The guest of a port, once nicd hears it.
    fn of(fleet: &mut Fleet, place: usize) -> Self {
        let port: PortId = fleet.ports[place].1;
        let tap = open_tap(&device(port), false);
        let shown = fleet.show(place);
        let mac = shown["port"]["mac_address"].as_str().expect("a MAC").split(':');
        let mac: Vec<u8> = mac.map(|octet| u8::from_str_radix(octet, 16).expect("an octet")).collect();
        let mut guest = Self { tap, mac: mac.try_into().expect("six octets"), xid: 0 };
        let until = Instant::now() + Duration::from_secs(30);
        while guest.try_ask(DISCOVER, &[], Duration::from_millis(100)).is_none() {
            assert!(Instant::now() < until, "no answer");
        }
        guest
    }

    fn frame(&self, kind: u8, options: &[u8]) -> Vec<u8> {
        let mut message = vec![1, 1, 6, 0];
        message.extend(self.xid.to_be_bytes());
        message.resize(28, 0);
        message.extend(self.mac);
        message.resize(236, 0);
        message.extend([99, 130, 83, 99, 53, 1, kind]);
        message.extend(options);
        message.push(255);
        let (from, to) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
        let packet = Ip4 { id: 1, from, to, protocol: UDP, options: Vec::new(), fragment: 0 };
        [&[0; TAP_HEADER][..], &ethernet(BROADCAST, self.mac, IP4, &packet.packet(&udp(68, 67, &message)))].concat()
    }

    /// The message that answers one, if it comes in time.
    fn try_ask(&mut self, kind: u8, options: &[u8], limit: Duration) -> Option<Vec<u8>> {
        self.xid += 1;
        self.tap.write_all(&self.frame(kind, options)).expect("a tap takes a frame");
        let (until, mut buffer) = (Instant::now() + limit, [0; 2048]);
        loop {
            let left = until.checked_duration_since(Instant::now())?;
            let wait = PollTimeout::try_from(left + Duration::from_millis(1)).expect("a short time");
            if poll(&mut [PollFd::new(self.tap.as_fd(), PollFlags::POLLIN)], wait).expect("poll") == 0 {
                return None;
            }
            let length = read(&self.tap, &mut buffer).expect("a frame");
            let message = buffer[..length].get(TAP_HEADER + 42..).unwrap_or_default();
            if message.get(4..8) == Some(&self.xid.to_be_bytes()) {
                return Some(message.to_vec());
            }
        }
    }

    /// From DISCOVER to ACK; whether both came.
    fn gets_its_address(&mut self) -> bool {
        let patience = Duration::from_secs(1);
        let Some(offer) = self.try_ask(DISCOVER, &[], patience).filter(|said| said[242] == OFFER) else { return false };
        let options = [&[50, 4][..], &offer[16..20], &[54, 4], &offer[245..249]].concat();
        self.try_ask(REQUEST, &options, patience).is_some_and(|said| said[242] == ACK)
    }
}

/// Rows: what a lease takes at more and more ports, and beside a flood; memory and attaches with DHCP.
pub fn leases(table: &mut Table, effort: Effort, daemon: &Daemon) {
    let empty = daemon.memory();
    let mut fleet = Fleet::new(daemon, Nic::Tap, 7);
    for ports in [1, 100, 1000].into_iter().filter(|ports| *ports <= effort.many) {
        fleet.grow(ports);
        let mut guest = Guest::of(&mut fleet, ports - 1);
        let took = exchanges(&mut guest, 10 * effort.samples);
        rows(table, &format!("DISCOVER → ACK, {ports} ports"), &took, Aim::Nothing);
    }
    let kib = (daemon.memory() - empty) * 1024.0 / fleet.ports.len() as f64;
    table.row(&format!("memory a port with DHCP, of {}", fleet.ports.len()), "KiB", None, kib, Aim::Nothing);
    let (mut guest, neighbour) = (Guest::of(&mut fleet, 0), Guest::of(&mut fleet, 1));
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let thread = flood(neighbour, &stop, &sent);
    let began = Instant::now();
    let took = exchanges(&mut guest, 5 * effort.samples);
    let rate = sent.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    thread.join().expect("it ends");
    rows(table, &format!("DISCOVER → ACK beside a neighbour's {rate:.0} requests/s"), &took, Aim::Own(10.0, 50.0));
    rate_of(table, &mut guest);
    drop(guest);
    fleet.shrink(0);
    attaches(table, effort, daemon);
}

/// Row: exchanges one after the other, as fast as they go for two seconds, and how many were lost.
fn rate_of(table: &mut Table, guest: &mut Guest) {
    // Its own requests are heard up to 3,000 a second, and 600 at once.
    let (began, mut done, mut lost) = (Instant::now(), 0_u32, 0_u32);
    while began.elapsed() < Duration::from_secs(2) {
        match guest.gets_its_address() {
            true => done += 1,
            false => lost += 1,
        }
        let due = began + Duration::from_secs_f64(f64::from(done) / 1200.0);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    let rate = f64::from(done) / began.elapsed().as_secs_f64();
    table.row(&format!("exchanges a second of one guest, {lost} lost"), "/s", None, rate, Aim::Nothing);
}

fn rows(table: &mut Table, what: &str, took: &Sample, aim: Aim) {
    table.row(&format!("{what}, p50"), "ms", None, took.p50() / 1000.0, Aim::Nothing);
    table.row(&format!("{what}, p99"), "ms", None, took.p99() / 1000.0, aim);
}

fn exchanges(guest: &mut Guest, number: usize) -> Sample {
    let mut took = Sample::default();
    for _ in 0..number {
        assert!(took.time(|| guest.gets_its_address()), "a lost exchange");
        // As a guest's own requests are heard up to 3,000 a second.
        std::thread::sleep(Duration::from_micros(500));
    }
    took
}

/// Asks so many times a second, on a thread of its own.
fn flood(guest: Guest, stop: &Arc<AtomicBool>, sent: &Arc<AtomicU64>) -> std::thread::JoinHandle<()> {
    let (stop, sent) = (Arc::clone(stop), Arc::clone(sent));
    std::thread::spawn(move || {
        let (frame, began, mut tap) = (guest.frame(DISCOVER, &[]), Instant::now(), &guest.tap);
        for n in 1_u32.. {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            tap.write_all(&frame).expect("a tap takes a frame");
            sent.store(u64::from(n), Ordering::Relaxed);
            if n % 50 == 0 {
                let due = began + Duration::from_secs(1) / FLOOD * n;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
        }
    })
}

/// Rows: an attach with DHCP over one without, in turns.
fn attaches(table: &mut Table, effort: Effort, daemon: &Daemon) {
    let mut fleets = [Fleet::without_dhcp(daemon, 8), Fleet::new(daemon, Nic::Tap, 9)];
    let [attached, _] = in_turns(effort, &mut fleets);
    let [without, with] = attached.map(|sample| sample.p50());
    table.row("attach tap, p50, with DHCP over without", "µs", Some(without), with, Aim::AtMost(1.0, 1.05));
    fleets.iter_mut().for_each(|fleet| fleet.shrink(0));
}
