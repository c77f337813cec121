//! The manager against a small reference, on a host in memory and a real store: any sequence of operations, failures at
//! every step, deaths at every op, crowds, and hosts that changed while nobody looked.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

#[path = "../common/house.rs"]
mod house;

mod check;
mod crashes;
mod crowds;
mod faults;
mod notices;
mod restarts;
mod scene;
mod sequences;
mod stalls;
