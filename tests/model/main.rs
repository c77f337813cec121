//! The manager against a small reference, on a host in memory and a real store: any sequence of operations, failures at
//! every step, deaths at every op, crowds, and hosts that changed while nobody looked.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test
#![cfg(debug_assertions)] // a release has no points

#[path = "../common/house.rs"]
mod house;
#[path = "../common/pairs.rs"]
mod pairs;

mod bridges;
mod check;
mod crowds;
mod faults;
mod leaving;
mod matrix;
mod notices;
mod restarts;
mod scene;
mod sequences;
mod soak;
mod stalls;
