//! Detaches: how soon traffic is cut, many at once, and what they cost attaches.

use std::collections::BTreeSet;
use std::fs::File;
use std::thread;
use std::time::{Duration, Instant};

use crate::Effort;
use crate::attaching::Floor;
use crate::bare::{Events, open_tap};
use crate::daemon::{Daemon, Fleet, Nic, device, device_index, quiet};
use crate::figures::{Aim, Sample, Table};
use crate::http::crowd;

/// Row: from the DELETE to the device's down event, among so many running ports. The floor is setting one down by hand.
pub fn cut(table: &mut Table, fleet: &mut Fleet, floor: &mut Floor, running: usize) {
    const SAMPLES: usize = 20;
    fleet.grow(running + SAMPLES);
    floor.grow(Nic::Tap, running + SAMPLES);
    let mut vmms: Vec<File> = fleet.ports.iter().map(|(_, port)| open_tap(&device(*port), false)).collect();
    let mut events = Events::open();
    quiet(&mut events);
    let (mut ours, mut bare) = (Sample::default(), Sample::default());
    for _ in 0..SAMPLES {
        let leaving = fleet.ports.pop().expect("a port");
        let index = device_index(leaving.1);
        let start = Instant::now();
        fleet.client.send(&Fleet::detach(leaving));
        let down = events.wait("down", |told| told.index == index && !told.up);
        ours.add(down - start);
        assert!(fleet.client.receive().status < 300);
        // The device goes when its VMM closes it.
        drop(vmms.pop());
        fleet.settle();
        quiet(&mut events);
    }
    let mut events = floor.place.inside(Events::open);
    let links = floor.links(Nic::Tap)[running..].to_vec();
    for index in links {
        let start = Instant::now();
        floor.wire.set(index, false);
        bare.add(events.wait("down", |told| told.index == index && !told.up) - start);
    }
    floor.shrink(Nic::Tap, running);
    let what = format!("traffic cut after a detach, {running} running ports, p50");
    table.row(&what, "ms", Some(bare.p50() / 1000.0), ours.p50() / 1000.0, Aim::Own(1.0, 5.0));
}

/// Rows: 64 detaches at once until the last device is gone, and until nicd has let go of the last port.
pub fn together(table: &mut Table, daemon: &Daemon, fleet: &mut Fleet, floor: &mut Floor) {
    const MANY: usize = 64;
    let (mut ours, mut done, mut bare, mut acked) = (Sample::default(), Sample::default(), Sample::default(), Sample::default());
    for _ in 0..5 {
        let left = fleet.ports.len();
        fleet.grow(left + MANY);
        floor.grow(Nic::Tap, left + MANY);
        let mut clients = daemon.clients(MANY);
        let mut stream = daemon.client();
        stream.send(b"GET /nicd/v1/events HTTP/1.1\r\nHost: nicd\r\nAccept: application/x-ndjson\r\n\r\n");
        let mut events = Events::open();
        quiet(&mut events);
        let leaving: Vec<_> = fleet.ports.drain(left..).collect();
        let mut indexes: BTreeSet<u32> = leaving.iter().map(|(_, port)| device_index(*port)).collect();
        let start = Instant::now();
        let queues = leaving.into_iter().map(|port| vec![Fleet::detach(port)]).collect();
        let answers = thread::spawn(move || crowd(&mut clients, queues, |_, answer, _| assert!(answer.status < 300)));
        while !indexes.is_empty() {
            let told = events.next(Duration::from_secs(20)).expect("the links' end");
            if told.gone {
                indexes.remove(&told.index);
            }
        }
        ours.add(start.elapsed());
        let mut deleted = 0;
        while deleted < MANY {
            stream.read();
            deleted += stream.lines().iter().filter(|line| line["event"] == "port.deleted").count();
        }
        done.add(start.elapsed());
        answers.join().expect("answers");
        fleet.settle();
        let (last, answered) = bare_group(floor, left);
        bare.add(last);
        acked.add(answered);
    }
    let ms = |sample: &Sample| sample.p50() / 1000.0;
    table.row("64 detaches at once until the last DELLINK", "ms", Some(ms(&bare)), ms(&ours), Aim::AtMost(1.5, 3.0));
    table.row("64 detaches at once until the last port.deleted", "ms", Some(ms(&acked)), ms(&done), Aim::AtMost(1.5, 3.0));
}

/// One group of all links but the first `left`: until the last is gone, and until the kernel's answer.
fn bare_group(floor: &mut Floor, left: usize) -> (Duration, Duration) {
    let links: Vec<u32> = floor.links(Nic::Tap)[left..].to_vec();
    let mut events = floor.place.inside(Events::open);
    let number = links.len();
    let gone = thread::spawn(move || (0..number).map(|_| events.wait("a link's end", |told| told.gone)).last().expect("some"));
    let start = Instant::now();
    floor.shrink(Nic::Tap, left);
    let answered = start.elapsed();
    (gone.join().expect("events") - start, answered)
}

/// Row: p99 of an attach while 500 ports are deleted.
pub fn among(table: &mut Table, effort: Effort, daemon: &Daemon, fleet: &mut Fleet) {
    let doomed = effort.many.min(500);
    let stay = fleet.ports.len();
    fleet.grow(stay + doomed);
    let leaving: Vec<_> = fleet.ports.drain(stay..).collect();
    fleet.prepare(stay + doomed + 1000);
    let mut events = Events::open();
    quiet(&mut events);
    let mut clients = daemon.clients(16);
    let mut queues = vec![Vec::new(); clients.len()];
    for (place, port) in leaving.into_iter().enumerate() {
        queues[place % 16].push(Fleet::detach(port));
    }
    let start = Instant::now();
    let answers = thread::spawn(move || crowd(&mut clients, queues, |_, answer, _| assert!(answer.status < 300)));
    let mut sample = Sample::default();
    let mut gone = 0;
    let mut next = stay + doomed;
    while gone < doomed && next < stay + doomed + 1000 {
        let (server, ask) = fleet.attach(next);
        next += 1;
        let answer = sample.time(|| fleet.client.ask(&ask));
        fleet.attached(server, &answer.json());
        gone += events.drain().iter().filter(|told| told.gone).count();
        if fleet.ports.len() > stay + 400 {
            break;
        }
    }
    answers.join().expect("answers");
    let took = start.elapsed().as_secs_f64();
    eprintln!("  ({} attaches while {gone} links went, in {took:.2} s)", fleet.ports.len() - stay);
    let what = format!("attach p99 while {doomed} ports are being deleted");
    table.row(&what, "ms", None, sample.p99() / 1000.0, Aim::Own(10.0, 25.0));
    fleet.shrink(stay);
}
