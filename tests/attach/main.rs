//! Attaches by the real daemon on a real kernel. Each test has its own network namespace and daemon.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

#[path = "../common/daemon.rs"]
mod daemon;
#[path = "../common/fixture.rs"]
mod fixture;
#[path = "../common/helper.rs"]
mod helper;
#[path = "../common/kernel_view.rs"]
mod kernel_view;
#[path = "../common/netns.rs"]
mod netns;

mod addresses;
mod bridges;
mod descriptors;
mod document;
mod drift;
mod fdb;
mod filters;
mod flaps;
mod forward;
mod guests;
mod hosts;
mod limits;
mod modules;
mod namespaces;
mod strangers;
mod taps;
mod upkeep;
mod vmm;
