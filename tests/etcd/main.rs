//! The client of etcd against etcd itself, and against what only looks like it.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

mod cluster;
#[path = "../common/daemon.rs"]
mod daemon;
mod keys;
mod lost;
#[path = "../common/netns.rs"]
mod netns;
#[path = "../common/etcd.rs"]
mod node;
#[path = "../common/pki.rs"]
mod pki;
#[path = "../common/programs.rs"]
mod programs;
mod secure;
mod server;
mod watches;
