//! The reconciler against a small reference model, on the in-memory host and a real store: random sequences of operations, failures and
//! kills at every step, concurrent requests, and changes of the host while no daemon runs.

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
mod groups;
mod jobs;
mod leaving;
mod matrix;
mod notices;
mod restarts;
mod scene;
mod segments;
mod sequences;
mod soak;
mod stalls;
mod trunks;
mod tunnels;
