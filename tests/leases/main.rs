//! Guests get what their port says by DHCP: real clients, a virtual machine's frames octet by octet, hostile neighbours, restarts.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

#[allow(dead_code)]
#[path = "../frames/bytes.rs"]
mod bytes;
mod client;
#[path = "../common/daemon.rs"]
mod daemon;
mod exchange;
#[path = "../common/fixture.rs"]
mod fixture;
mod hostile;
#[path = "../common/netns.rs"]
mod netns;
mod real;
