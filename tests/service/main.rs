//! nicd as a service: the real units under a real systemd, installed by the Debian package.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

#[path = "../common/cargo.rs"]
mod cargo;
#[path = "../common/daemon.rs"]
mod daemon;
#[path = "../common/debian.rs"]
mod debian;
#[path = "../common/fixture.rs"]
mod fixture;
#[path = "../common/guest.rs"]
mod guest;
#[path = "../common/netns.rs"]
mod netns;
#[path = "../common/programs.rs"]
mod programs;

mod bus;
mod guests;
mod kernel;
mod life;
mod machine;
mod neighbours;
mod package;
mod power;
mod sockets;
mod vms;
