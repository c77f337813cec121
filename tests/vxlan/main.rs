//! VXLAN networks on a real kernel: hosts as namespaces with an underlay between them, each with a daemon of its own in this process. What of
//! the network is on other hosts is told to each as a fleet tells it. `ip` and `bridge` say what is there, and packet sockets what is sent.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

#[path = "../common/in_process.rs"]
mod in_process;
#[path = "../common/netns.rs"]
mod netns;
#[path = "../common/wire.rs"]
mod wire;

/// What `wire` waits for at most.
mod daemon {
    pub use crate::in_process::PATIENCE;
}

mod entries;
mod hosts;
mod traffic;
