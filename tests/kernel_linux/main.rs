//! The Linux host on a real kernel; `ip` and `bridge` verify each op. `tests/kernel_contract` has the contract of every host.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

#[path = "../common/netns.rs"]
mod netns;
#[path = "../common/ops.rs"]
mod ops;

mod bridges;
mod filters;
mod groups;
mod host;
mod links;
mod reading;
mod taps;
mod veths;
mod watching;
