//! The contract of [`nicd::kernel::Kernel`]: one suite, run on the in-memory host and on the running Linux. A test changes and reads
//! a host through the trait. [`host::TestHost`] makes changes by other programs and reads the guest's state; each host
//! implements it.
//!
//! What only Linux can be asked for, by `ip`, `bridge` and `nft`, is in `tests/kernel_linux`.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

#[path = "../common/netns.rs"]
mod netns;
#[path = "../common/ops.rs"]
mod ops;

/// Each test on each host.
macro_rules! on_both {
    ($($test:ident),* $(,)?) => {
        mod fake {
            $(#[test]
            fn $test() {
                super::$test(&mut $crate::host::Fixture::of($crate::hosts::Memory::default()));
            })*
        }
        mod linux {
            $(#[test]
            fn $test() {
                $crate::netns::in_netns(|| super::$test(&mut $crate::host::Fixture::of($crate::hosts::Running::default())));
            })*
        }
    };
}

mod bridges;
mod devices;
mod guests;
mod host;
mod hosts;
mod refusals;
mod tunnels;
mod watching;
