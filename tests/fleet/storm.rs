//! Five real hosts with three real members of etcd, and what clients ask of them while hosts and members are cut off, killed, stopped, put
//! back or emptied. Each time that all is well again each host has what it is to have.
//!
//! `NICD_STORM_SEED=n` chooses what is done, `NICD_STORM=n` how many requests are sent, `NICD_STORM_EMPTY=1` has etcd lose all it has now and then.

mod check;
mod model;
mod world;

use std::time::{Duration, Instant};

use self::world::World;
use crate::netns::{in_netns, try_run};
use crate::{number, programs};

/// Requests of a run, unless `NICD_STORM` says how many.
const OPERATIONS: u64 = 1_000;

/// Steps between two times at which all is well.
const PHASE: u64 = 10;

/// The seed of a run, unless `NICD_STORM_SEED` says it.
const SEED: u64 = 1;

/// Within this each host has what it is to have: it tries again after at most 12 s, each of three members may have 5 s for an answer, and
/// after etcd was emptied nothing is claimed for 30 s.
const SOON: Duration = Duration::from_secs(60);

#[test]
fn whatever_is_killed_cut_off_or_stopped_each_host_has_what_it_is_to_have() {
    if !programs::has("etcd") {
        return;
    }
    let (operations, seed) = (number("NICD_STORM").unwrap_or(OPERATIONS), number("NICD_STORM_SEED").unwrap_or(SEED));
    in_netns(move || {
        let longest = Duration::from_secs(if operations > OPERATIONS { 8 } else { 2 });
        let mut world = World::new(seed, longest);
        world.may_empty = number("NICD_STORM_EMPTY").is_some();
        let began = Instant::now();
        for step in 1.. {
            eprintln!("step {step} of seed {seed}, {:?}, after {} requests", began.elapsed(), world.operations);
            world.step();
            let is_last = world.operations >= operations;
            if step % PHASE == 0 || is_last {
                is_well(&mut world);
            }
            if is_last {
                return;
            }
        }
    });
}

/// Ends all troubles, and waits until all is as it is to be.
fn is_well(world: &mut World) {
    world.calm();
    let began = Instant::now();
    let seen = loop {
        match check::look(world) {
            Ok(seen) => break seen,
            Err(why) => {
                assert!(began.elapsed() < SOON, "not after {SOON:?}: {why}\n{}", world.logs());
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    };
    eprintln!("all is well after {:?}", began.elapsed());
    let pings = check::pings(&seen);
    std::thread::scope(|all| {
        for (from, to) in &pings {
            all.spawn(move || {
                let ping = format!("ip netns exec {from} ping -n -q -c 1 -W 1 {to}");
                let began = Instant::now();
                while let Err(said) = try_run(&ping) {
                    assert!(began.elapsed() < SOON / 4, "{ping}: {said}{}", scene(from, to));
                }
            });
        }
    });
    eprintln!("{} guests reached another after {:?}", pings.len(), began.elapsed());
    check::settle(world, &seen);
}

/// What guests and hosts have, for the message of a failed test.
fn scene(from: &str, to: &str) -> String {
    let mut said = String::new();
    for place in std::fs::read_dir("/run/netns").unwrap() {
        let name = place.unwrap().file_name().into_string().unwrap();
        let shown = try_run(&format!("ip -n {name} address")).unwrap_or_default();
        if name == from || name.starts_with("guest") && shown.contains(&format!("{to}/")) {
            let neighbours = try_run(&format!("ip -n {name} neigh")).unwrap_or_default();
            said.push_str(&format!("\n{name}: {shown}{neighbours}"));
        } else if name.starts_with("host") {
            let entries = try_run(&format!("bridge -n {name} fdb")).unwrap_or_default();
            said.push_str(&format!("\n{name}: {entries}"));
        }
    }
    said
}
