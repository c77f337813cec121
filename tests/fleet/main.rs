//! The fleet: real hosts with a real etcd. Its protocol without sockets is run by `schedules`.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

#[path = "../common/clients.rs"]
mod clients;
#[path = "../common/daemon.rs"]
mod daemon;
#[allow(dead_code)]
#[path = "../hostile/dice.rs"]
mod dice;
#[path = "../common/etcd.rs"]
mod etcd;
mod groups;
mod hosts;
mod members;
mod moving;
#[path = "../common/netns.rs"]
mod netns;
#[path = "../common/pki.rs"]
mod pki;
#[path = "../common/programs.rs"]
mod programs;
mod sdk;
mod shared;
mod storm;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}
