//! `nicd demo`: the main job end to end, for a person to read, and proof that it works on this host.
//!
//! ```text
//!  nicd demo ─► the inner process (pid 1 of a pid namespace, own network and mounts) ─► nicd as always, restarted twice
//!   stays on the     │  client, events, pings, checks
//!   host             ├► threads in the guest's namespace
//!                    └► thread of the VM stand-in: opens the tap, speaks IP
//! ```
//!
//! Every process is this program, and nothing else is run. What the demo makes lives in namespaces that end with the inner
//! process, and that ends with the first process, however it ends: there is nothing to clean up. The private tmpfs lies over a
//! directory that exists, so that not even a mount point is made on the host.
//!
//! `nicd demo --fleet` shows three hosts on one etcd in the same way: each host is a network namespace with a daemon of its own.
//! It runs three more programs: etcd, and iproute2's `ip` and `bridge`, which make the underlay and say what is in the kernel.
//!
//! What is claimed is measured from outside the daemon: by a client of its socket, by pings, by the kernel's list of links
//! and its notices, and by SQLite.

mod api;
mod daemon;
mod fleet;
mod inside;
mod left;
mod namespace;
mod nic;
mod notices;
mod outside;
mod page;
mod ping;
mod process;
mod programs;
mod steps;
mod vm;

use crate::args::Role;
use crate::exit::Exit;

/// Runs the demo of one host, or that of a fleet, or one of its processes.
///
/// # Errors
/// [`Exit::Permission`] when this user or kernel cannot run it, [`Exit::Unavailable`] when a program is not installed,
/// [`Exit::Internal`] when a claim did not hold. Why has been said.
pub fn run(fleet: bool, role: Option<Role>) -> Result<(), Exit> {
    let result = match role {
        None => outside::run(fleet),
        Some(Role::Inside) => inside::run(fleet),
    };
    result.map_err(|failure| failure.report())
}
