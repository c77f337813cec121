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
//! What is claimed is measured from outside the daemon: by a client of its socket, by pings, by the kernel's list of links
//! and its notices, and by SQLite.

mod api;
mod daemon;
mod guest;
mod inside;
mod outside;
mod page;
mod ping;
mod steps;
mod vm;

use crate::args::Role;
use crate::exit::Exit;

/// Runs the demo, or one of its processes.
///
/// # Errors
/// [`Exit::Permission`] when something is missing for it, [`Exit::Internal`] when a claim did not hold. Why has been said.
pub fn run(role: Option<Role>) -> Result<(), Exit> {
    let result = match role {
        None => outside::run(),
        Some(Role::Inside) => inside::run(),
    };
    result.map_err(|failure| failure.report())
}
