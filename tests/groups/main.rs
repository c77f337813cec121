//! Security groups between real guests, in a kernel that tracks the connections of bridges: which flows each rule allows, as
//! Neutron's reference says, before, while and after it changes. Debian's kernel does, and these run there
//! (`tests/service/kernel.rs`); where `NICD_TRACKS` does not say that this one does, they pass without a look.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

#[path = "../common/daemon.rs"]
mod daemon;
#[path = "../common/fixture.rs"]
mod fixture;
mod flows;
#[path = "../common/netns.rs"]
mod netns;
mod states;
mod table;
#[path = "../common/wire.rs"]
mod wire;

/// Whether this kernel is to track the connections of bridges.
fn tracks() -> bool {
    netns::is_root() && std::env::var_os("NICD_TRACKS").is_some()
}
