//! NICs that are plugged into QEMU while it runs, by its monitor. Each test has its own network namespace and daemon.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

#[path = "../common/daemon.rs"]
mod daemon;
#[path = "../common/debian.rs"]
mod debian;
#[path = "../common/fixture.rs"]
mod fixture;
#[path = "../common/guest.rs"]
mod guest;
#[path = "../common/kernel_view.rs"]
mod kernel_view;
#[path = "../common/netns.rs"]
mod netns;

mod hostile;
mod machine;
mod running;
mod stopped;
