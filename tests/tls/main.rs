//! `[listen] tls`: the API for remote control planes. The real daemon, and clients: nicctl, and those that are not ours, curl and openssl's.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

mod client;
mod config;
#[path = "../common/daemon.rs"]
mod daemon;
#[path = "../common/fixture.rs"]
mod fixture;
mod herd;
#[path = "../common/netns.rs"]
mod netns;
#[path = "../common/pki.rs"]
mod pki;
mod refused;
mod reload;
mod served;

use std::fs;

use daemon::Daemon;
use fixture::Fixture;
use pki::Pki;

/// A daemon that serves these clients.
fn serving(pki: &Pki, allow: &[&str]) -> Fixture {
    start(Daemon::prepared("/run/nicd"), pki, allow)
}

/// The same as its unit confines it.
fn confined(pki: &Pki, allow: &[&str]) -> Fixture {
    let mut daemon = Daemon::prepared("/run/nicd");
    daemon.confine();
    start(daemon, pki, allow)
}

fn start(mut daemon: Daemon, pki: &Pki, allow: &[&str]) -> Fixture {
    fs::write(daemon.config(), pki.listen(allow)).unwrap();
    daemon.launch();
    Fixture::of(daemon)
}
