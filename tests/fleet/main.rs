//! The fleet: its protocol without sockets, with many hosts and one store with etcd's semantics in one thread with a clock of its own, by
//! seeds that can be run again; and real hosts with a real etcd.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

mod clock;
#[path = "../common/daemon.rs"]
mod daemon;
#[allow(dead_code)]
#[path = "../hostile/dice.rs"]
mod dice;
#[path = "../common/etcd.rs"]
mod etcd;
mod groups;
mod hosts;
mod kv;
#[path = "../common/netns.rs"]
mod netns;
#[path = "../common/programs.rs"]
mod programs;
mod schedule;
mod shared;
mod storm;

use std::panic::catch_unwind;
use std::thread;

/// Run at a time.
const THREADS: usize = 2;

/// Schedules of a run, unless `NICD_SCHEDULES` says how many.
const SCHEDULES: u64 = 5_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Whatever is cut off, killed, slowed down, put back or forgotten: no address and no MAC is ever two ports', and in the end each host that is
/// still one of the fleet can claim more. `NICD_SEED=n` runs one schedule and prints what happens.
#[test]
fn no_address_and_no_mac_is_ever_two_ports() {
    if let Some(seed) = number("NICD_SEED") {
        return schedule::run(seed, true);
    }
    let all = number("NICD_SCHEDULES").unwrap_or(SCHEDULES);
    let parts: Vec<_> = (0..THREADS as u64)
        .map(|part| {
            thread::spawn(move || {
                for seed in (part..all).step_by(THREADS) {
                    let ran = catch_unwind(|| schedule::run(seed, false));
                    assert!(ran.is_ok(), "NICD_SEED={seed} runs this schedule again");
                }
            })
        })
        .collect();
    parts.into_iter().for_each(|part| part.join().unwrap());
}
