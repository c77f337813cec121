//! `nicd demo`: the main job end to end, for a person to read, and proof that it works on this host.
//!
//! ```text
//!  nicd demo ─► stage (pid 1 of a pid namespace, own network and mounts) ─► nicd, the daemon as always, restarted twice
//!   stays on the     │  client, events, pings, proof
//!   host, judges     ├► thread in the guest's namespace
//!                    └► thread of the VM stand-in: opens the tap, speaks IP
//! ```
//!
//! Every process is this program, and nothing else is run. Whatever the demo makes lives in namespaces that end with the
//! stage, and the stage ends with the first process, however that ends: there is nothing to clean up. The private
//! tmpfs lies over a directory that exists, so that not even a mount point is made on the host.
//!
//! What is claimed is measured from outside the daemon: by a client of its socket, by pings, by /proc, and by SQLite.

mod acts;
mod client;
mod clock;
mod daemon;
mod echo;
mod failure;
mod follower;
mod guest;
mod host;
mod machine;
mod page;
mod proof;
mod stage;
mod traffic;
mod vmm;

use crate::args::Role;
use crate::exit::Exit;

/// Plays a role in the demo; without one, puts the whole of it on.
///
/// # Errors
/// [`Exit::Permission`] when something is missing for it, [`Exit::Internal`] when a claim did not hold. Why has been said.
pub fn run(role: Option<Role>) -> Result<(), Exit> {
    let result = match role {
        None => host::run(),
        Some(Role::Stage) => stage::run(),
    };
    result.map_err(|failure| failure.tell())
}
