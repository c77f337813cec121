//! The manager against a small reference, on a host in memory and a real store: any sequence of operations, failures at
//! every step, deaths at every op, crowds, and hosts that changed while nobody looked.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test
#![cfg(debug_assertions)] // a release build has no failpoints

#[path = "../common/in_process.rs"]
mod in_process;
#[path = "../common/pairs.rs"]
mod pairs;

mod bridges;
mod check;
mod concurrency;
mod faults;
mod leaving;
mod matrix;
mod notices;
mod restarts;
mod scene;
mod sequences;
mod soak;
mod stalls;
