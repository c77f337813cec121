//! nicd on a private D-Bus: a real dbus-daemon, with busctl, dbus-monitor and QEMU as clients.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

#[path = "../common/daemon.rs"]
mod daemon;
#[path = "../common/fixture.rs"]
mod fixture;
#[path = "../common/in_process.rs"]
mod in_process;
#[path = "../common/netns.rs"]
mod netns;

mod bus;
mod many;
mod opening;
mod seeing;
mod troubles;
mod who;
