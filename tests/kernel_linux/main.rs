//! The kernel's room on a real kernel, each op witnessed by `ip` and `bridge`. What every host promises is in `tests/kernel_contract`.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

#[path = "../common/netns.rs"]
mod netns;

mod bridges;
mod host;
mod links;
mod reading;
mod taps;
mod veths;
mod watching;
