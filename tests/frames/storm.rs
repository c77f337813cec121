//! A guest that sends as fast as it can what others would have to remember.

use std::net::{Ipv6Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use crate::bytes::{ARP, Arp, BROADCAST, ICMP6, IP6, Ip6, Mac, ethernet, group_mac, link_layer, solicited};
use crate::classes::Host;
use crate::netns::{in_netns, json, run};
use crate::scene::{BRIDGE, Scene};
use crate::traffic::Nic;

/// Frames a millisecond.
const RATE: u64 = 100;

const LENGTH: Duration = Duration::from_secs(5);

/// A frame of a storm: by turns from another MAC, ARP for another address, and neighbour discovery for another one.
fn frame(number: u64, own: Host) -> Vec<u8> {
    let [.., a, b, c, d] = number.to_be_bytes();
    let another: Mac = [2, 0x5e, a, b, c, d];
    match number % 3 {
        0 => ethernet(BROADCAST, another, 0x88b5, &[0; 46]),
        1 => {
            let asks = Arp {
                header: [0, 1, 8, 0, 6, 4],
                operation: 1,
                sender: (own.mac, own.ip4),
                target: ([0; 6], [10, b, c, d].into()),
            };
            ethernet(BROADCAST, own.mac, ARP, &asks.message())
        }
        _ => {
            let target = Ipv6Addr::from([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]);
            let packet = Ip6 { id: 0, from: own.ip6, to: solicited(target) };
            let message = packet.icmp(135, &[&[0; 4], &target.octets()[..], &link_layer(1, own.mac)].concat());
            ethernet(group_mac(packet.to), own.mac, IP6, &packet.packet(ICMP6, &message))
        }
    }
}

/// Sends frames until it is told to stop; how many.
fn storm(nic: &Nic, own: Host, stop: &AtomicBool) -> u64 {
    // Some to begin with, over and over: building them would take longer than sending them.
    let frames: Vec<Vec<u8>> = (0..30_000).map(|number| frame(number, own)).collect();
    let (start, mut sent) = (Instant::now(), 0);
    while !stop.load(Ordering::Relaxed) {
        let due = u64::try_from(start.elapsed().as_millis()).unwrap() * RATE;
        while sent < due && !stop.load(Ordering::Relaxed) {
            let next = usize::try_from(sent).unwrap() % frames.len();
            nic.send(&frames[next]).unwrap();
            sent += 1;
        }
        // The rate is what is tested with.
        thread::sleep(Duration::from_micros(200));
    }
    sent
}

/// What a process has used of a core so far.
fn used(pid: nix::unistd::Pid) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let behind_name = stat.rsplit(')').next().unwrap();
    let ticks: u64 = behind_name.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
    // `USER_HZ` is 100 wherever Linux runs.
    Duration::from_millis(ticks * 10)
}

fn entries() -> usize {
    json(&format!("bridge -j fdb show br {BRIDGE}")).as_array().unwrap().len()
}

#[test]
fn a_storm_from_one_guest_leaves_bridge_and_nicd_and_others_alone() {
    in_netns(|| {
        let scene = Scene::start();
        let (sender, own) = (Nic::of_guest(&scene.guests[0].0), scene.guests[0].1.host);
        // Another guest sends to the host, a datagram a millisecond.
        run(&format!("ip addr add 192.0.2.250/24 dev {BRIDGE}"));
        let receiver = UdpSocket::bind("192.0.2.250:9").unwrap();
        setsockopt(&receiver, sockopt::RcvBufForce, &(16 << 20)).unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let other = scene.guests[1].0.inside(|| UdpSocket::bind("0.0.0.0:9").unwrap());
        other.connect("192.0.2.250:9").unwrap();
        // The neighbour is found before it counts.
        other.send(b"first").unwrap();
        receiver.recv(&mut [0; 64]).unwrap();
        let (before, pid) = (entries(), scene.fixture.daemon.pid());
        let stop = Arc::new(AtomicBool::new(false));
        let sending = thread::spawn({
            let stop = Arc::clone(&stop);
            move || storm(&sender, own, &stop)
        });
        let (start, cpu) = (Instant::now(), used(pid));
        let mut told = 0;
        while start.elapsed() < LENGTH {
            other.send(b"a datagram").unwrap();
            told += 1;
            thread::sleep(Duration::from_millis(1));
        }
        let (took, cpu) = (start.elapsed(), used(pid) - cpu);
        stop.store(true, Ordering::Relaxed);
        let sent = sending.join().unwrap();
        let got = (0..told).take_while(|_| receiver.recv(&mut [0; 64]).is_ok()).count();
        let rate = sent * 1000 / u64::try_from(took.as_millis()).unwrap();
        eprintln!("{rate} frames/s; nicd used {cpu:?} of {took:?}; another port's datagrams: {got} of {told}");
        assert_eq!((entries(), got), (before, told), "the entries of the bridge, and another port's datagrams");
        assert!(cpu < took / 10, "nicd used {cpu:?} of {took:?}");
        assert!(rate > RATE * 1000 / 3, "a storm of {rate} frames/s");
    });
}
