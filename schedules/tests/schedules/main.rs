//! The fleet's protocol without sockets, with many hosts and one store with etcd's semantics in one thread with a clock of its own, by seeds
//! that can be run again.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

mod clock;
mod kv;
mod schedule;

use std::panic::catch_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// Schedules of a run, unless `NICD_SCHEDULES` says how many.
const SCHEDULES: u64 = 50_000;

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
    let next = AtomicU64::new(0);
    thread::scope(|threads| {
        for _ in 0..thread::available_parallelism().map_or(2, Into::into) {
            threads.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= all {
                        return;
                    }
                    let ran = catch_unwind(|| schedule::run(seed, false));
                    assert!(ran.is_ok(), "NICD_SEED={seed} runs this schedule again");
                }
            });
        }
    });
}
