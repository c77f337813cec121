//! The system calls that no crate wraps, each behind a safe function: the only room with `unsafe` in it.
//!
//! | file | calls |
//! |---|---|
//! | [`tun`] | the ioctls of taps |
//! | [`socket`] | a socket's network namespace, and its peer's groups |
//! | [`packet`] | packet sockets |
//! | [`pass`] | a descriptor handed over a Unix socket |

#![allow(unsafe_code)]

pub mod packet;
pub mod pass;
pub mod socket;
pub mod tun;
