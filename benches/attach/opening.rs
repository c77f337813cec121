//! From what the kernel sees to what nicd tells.

use std::fs::File;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::Effort;
use crate::bare::{Events, Wire, index_of, open_tap};
use crate::daemon::{Daemon, Fleet, device, quiet};
use crate::figures::{Aim, Sample, Table};
use crate::http::Client;

/// What was seen of one opening: the kernel's event, and nicd's.
struct Opened {
    tap: File,
    kernel: Duration,
    told: Duration,
}

/// Rows: from a VMM's open to `port.status ACTIVE` on an open stream, first and 20 ms after a close.
pub fn status(table: &mut Table, effort: Effort, daemon: &Daemon, fleet: &mut Fleet) {
    let ports = effort.samples.min(100);
    fleet.grow(ports);
    let mut stream = daemon.client();
    stream.send(b"GET /nicd/v1/events HTTP/1.1\r\nHost: nicd\r\nAccept: application/x-ndjson\r\n\r\n");
    let mut events = Events::open();
    let (mut kernel, mut told) = (Sample::default(), Sample::default());
    let (mut kernel_again, mut told_again) = (Sample::default(), Sample::default());
    for (_, port) in &fleet.ports {
        let name = device(*port);
        quiet(&mut events);
        let first = open(&name, &port.to_string(), &mut events, &mut stream);
        kernel.add(first.kernel);
        told.add(first.told);
        drop(first.tap);
        std::thread::sleep(Duration::from_millis(20));
        let again = open(&name, &port.to_string(), &mut events, &mut stream);
        kernel_again.add(again.kernel);
        told_again.add(again.told);
    }
    let ms = |value: f64| value / 1000.0;
    let mut rows = |word: &str, kernel: &Sample, told: &Sample| {
        let what = format!("tap {word} → port.status ACTIVE on the stream, p50");
        table.row(&what, "ms", Some(ms(kernel.p50())), ms(told.p50()), Aim::Own(0.7, 2.0));
        let what = format!("tap {word} → port.status ACTIVE on the stream, p99");
        table.row(&what, "ms", Some(ms(kernel.p99())), ms(told.p99()), Aim::Own(5.0, 20.0));
    };
    rows("opened", &kernel, &told);
    rows("re-opened after 20 ms", &kernel_again, &told_again);
    fleet.shrink(10);
}

fn open(name: &str, port: &str, events: &mut Events, stream: &mut Client) -> Opened {
    let index = index_of(name);
    events.drain();
    stream.lines();
    let start = Instant::now();
    let tap = open_tap(name, false);
    let (mut kernel, mut told) = (None, None);
    while kernel.is_none() || told.is_none() {
        let (from_kernel, from_nicd) = wait_for(events, stream);
        if from_kernel && events.drain().iter().any(|told| told.index == index && told.carrier) {
            kernel = kernel.or(Some(start.elapsed()));
        }
        if from_nicd {
            stream.read();
            if stream.lines().iter().any(|line| line["port_id"] == port && line["new"] == "ACTIVE") {
                told = Some(start.elapsed());
            }
        }
    }
    Opened { tap, kernel: kernel.expect("told"), told: told.expect("told") }
}

fn wait_for(events: &Events, stream: &Client) -> (bool, bool) {
    let mut fds = [PollFd::new(events.as_fd(), PollFlags::POLLIN), PollFd::new(stream.stream.as_fd(), PollFlags::POLLIN)];
    let ready = poll(&mut fds, PollTimeout::from(20_000_u16)).expect("poll");
    assert!(ready > 0, "neither the kernel nor nicd told of an opened tap");
    (fds[0].any() == Some(true), fds[1].any() == Some(true))
}

/// Row: a port set down by someone else is up again.
pub fn drift(table: &mut Table, fleet: &mut Fleet) {
    let mut events = Events::open();
    let mut wire = Wire::open();
    let mut sample = Sample::default();
    for (_, port) in fleet.ports.iter().take(5) {
        let index = index_of(&device(*port));
        quiet(&mut events);
        let start = Instant::now();
        wire.set(index, false);
        events.wait("down", |told| told.index == index && !told.up);
        sample.add(events.wait("up again", |told| told.index == index && told.up) - start);
    }
    table.row("a port set down by someone else → up again, p50", "ms", None, sample.p50() / 1000.0, Aim::Own(50.0, 1000.0));
}
