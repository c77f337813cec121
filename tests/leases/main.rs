//! Guests get what their port says by DHCP: real clients, a virtual machine's frames octet by octet, hostile neighbours, restarts.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

#[allow(dead_code)]
#[path = "../frames/bytes.rs"]
mod bytes;
mod client;
#[path = "../common/daemon.rs"]
mod daemon;
#[allow(dead_code)]
#[path = "../hostile/dice.rs"]
mod dice;
mod exchange;
mod first;
#[path = "../common/fixture.rs"]
mod fixture;
mod fuzz;
mod hostile;
mod neighbours;
#[path = "../common/netns.rs"]
mod netns;
mod real;
mod six;
mod slaac;

use fixture::foreign_bridge;
use netns::{Guest, run};

/// An operator's bridge `br-op`, and a machine behind its uplink.
fn wire() -> Guest {
    foreign_bridge("br-op", 1500);
    let wire = Guest::new("wire");
    run("ip link add up0 type veth peer eth0 netns wire");
    run("ip link set up0 master br-op addrgenmode none up");
    wire.ip("link set eth0 addrgenmode none up");
    wire
}
