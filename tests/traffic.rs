//! A restart does not disturb traffic: 10,000 packets per second through 64 ports, none lost, no link changed.
//!
//! Twenty restarts, half of them kills; `NICD_RESTARTS=1000` for more.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

#[path = "common/daemon.rs"]
mod daemon;
#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/kernel_view.rs"]
mod kernel_view;
#[path = "common/netns.rs"]
mod netns;

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fixture::{Fixture, text};
use kernel_view::{Monitor, name_of};
use netns::{Guest, in_netns};
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::json;

/// Ports; half of them send to the other half.
const PORTS: usize = 64;

/// Packets a millisecond, over all senders.
const RATE: usize = 10;

/// A guest's end of the traffic.
fn socket(guest: &Guest, address: Ipv4Addr) -> UdpSocket {
    guest.inside(move || UdpSocket::bind((address, 9)).unwrap())
}

/// Sends in turn by each socket until it is told to stop; `count` is how many so far.
fn send(senders: &[UdpSocket], stop: &AtomicBool, count: &AtomicUsize) -> usize {
    let (start, mut sent) = (Instant::now(), 0);
    while !stop.load(Ordering::Relaxed) {
        let due = usize::try_from(start.elapsed().as_millis()).unwrap() * RATE;
        while sent < due {
            senders[sent % senders.len()].send(b"0123456789").unwrap();
            sent += 1;
        }
        count.store(sent, Ordering::Relaxed);
        // The rate is what is tested with.
        thread::sleep(Duration::from_micros(500));
    }
    sent
}

#[test]
fn no_packet_is_lost_and_no_link_touched_over_restarts() {
    in_netns(|| {
        let restarts = std::env::var("NICD_RESTARTS").ok().and_then(|number| number.parse().ok()).unwrap_or(20);
        let mut fixture = Fixture::start();
        let network = fixture.network(json!({}));
        fixture.subnet(&network, "192.0.2.0/24");
        let mut guests = Vec::new();
        for n in 0..PORTS {
            let (guest, server) = fixture.guest(&format!("g{n}"));
            let port = fixture.attach_to(&server, &network);
            let ip = text(&fixture.port(&port)["fixed_ips"][0]["ip_address"]).parse::<Ipv4Addr>().unwrap();
            fixture.wait_status(&port, "ACTIVE");
            guests.push((guest, ip));
        }
        let (from, to) = guests.split_at(PORTS / 2);
        let receivers: Vec<UdpSocket> = to.iter().map(|(guest, ip)| socket(guest, *ip)).collect();
        let senders: Vec<UdpSocket> = from.iter().map(|(guest, ip)| socket(guest, *ip)).collect();
        for (sender, (receiver, (_, ip))) in senders.iter().zip(receivers.iter().zip(to)) {
            setsockopt(receiver, sockopt::RcvBufForce, &(64 << 20)).unwrap();
            receiver.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            sender.connect((*ip, 9)).unwrap();
            // The neighbour is found before it counts.
            sender.send(b"first").unwrap();
            receiver.recv(&mut [0; 64]).unwrap();
        }
        let ours: Vec<String> = kernel_view::marked();
        let mut told = Monitor::links();
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let sending = thread::spawn({
            let (stop, count) = (Arc::clone(&stop), Arc::clone(&count));
            move || send(&senders, &stop, &count)
        });
        let receiving: Vec<_> = receivers
            .into_iter()
            .map(|receiver| thread::spawn(move || (0_usize..).take_while(|_| receiver.recv(&mut [0; 64]).is_ok()).count()))
            .collect();
        for round in 0..restarts {
            match round % 2 {
                0 => fixture.daemon.term(),
                _ => fixture.daemon.kill(),
            }
            fixture.daemon.launch();
            let mut api = fixture.daemon.client();
            assert_eq!(api.get("/nicd/v1/health").expect(200)["status"], "ok");
            // Some of the traffic goes by while nothing is started.
            let until = count.load(Ordering::Relaxed) + 500;
            while count.load(Ordering::Relaxed) < until {
                thread::sleep(Duration::from_millis(5));
            }
        }
        stop.store(true, Ordering::Relaxed);
        let sent = sending.join().unwrap();
        let got: usize = receiving.into_iter().map(|receiver| receiver.join().unwrap()).sum();
        let touched: Vec<String> = told.take_links().iter().map(name_of).filter(|name| ours.contains(name)).collect();
        eprintln!("{sent} packets over {restarts} restarts, {} lost; links told of: {}", sent - got, touched.len());
        assert!(sent >= restarts * 500, "{sent} packets in {restarts} restarts");
        assert_eq!((sent - got, touched), (0, Vec::new()));
    });
}
