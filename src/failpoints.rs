//! Failpoints: named places in the code where a test can kill the process, fail a call or lose an answer.
//!
//! Every write to the kernel and to the store, every read of the kernel, every answer and every event goes through a
//! failpoint. A debug build counts the hits of each failpoint and can inject a fault at any of them (`registry`), so that a
//! test finds all failpoints by running the daemon once. In a release build each function here only calls its closure.
//!
//! Two environment variables configure the failpoints of a process:
//!
//! | variable | meaning |
//! |---|---|
//! | `NICD_FAILPOINTS` | comma-separated rules `NAME:NTH:FAULT`. `NTH` selects one hit of the failpoint, counted from 1; `NTH+` selects that hit and all later ones |
//! | `NICD_FAILPOINTS_LOG` | a file. Each hit appends a line `KIND NAME`; each injected fault appends a line `fault injected` |
//!
//! `FAULT` is `kill-before`, `kill-after`, `fail=ERRNO`, `applied-but-fail=ERRNO`, `lose-reply` or `panic`.

#[cfg(debug_assertions)]
mod fault;
#[cfg(debug_assertions)]
mod registry;

#[cfg(debug_assertions)]
pub use fault::{FailpointKind, Fault, FaultRule, Hit, Hits};
#[cfg(debug_assertions)]
pub use registry::{Entered, INJECTED, Registry, inherit};

use nix::errno::Errno;

/// A failpoint's name: the component or object, and the action. Written with a dot between the two.
pub type Name = (&'static str, &'static str);

/// A fault injected into one message of a netlink send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Injected {
    /// The index of the message in the send.
    pub position: usize,
    /// The errno that the caller sees as the kernel's answer.
    pub errno: Errno,
    /// Whether the message is sent to the kernel all the same.
    pub applied: bool,
}

/// Runs a call that can fail: a write to the kernel or to the store, or a read of the kernel.
///
/// # Errors
/// The error of `work`, or what `fail` makes of an injected errno.
#[inline(always)]
pub fn call<T, E>(name: Name, work: impl FnOnce() -> Result<T, E>, fail: impl FnOnce(Errno) -> E) -> Result<T, E> {
    #[cfg(debug_assertions)]
    return registry::current().call(name, work, fail);
    #[cfg(not(debug_assertions))]
    {
        let _ = (name, fail);
        work()
    }
}

/// Gives an answer to a client. `None` when a fault lost the answer.
#[inline(always)]
pub fn reply<T>(name: Name, give: impl FnOnce() -> T) -> Option<T> {
    #[cfg(debug_assertions)]
    return registry::current().reply(name, give);
    #[cfg(not(debug_assertions))]
    {
        let _ = name;
        Some(give())
    }
}

/// Runs a step that cannot fail. A test can kill the process before or after the step.
#[inline(always)]
pub fn step<T>(name: Name, work: impl FnOnce() -> T) -> T {
    #[cfg(debug_assertions)]
    return registry::current().step(name, work);
    #[cfg(not(debug_assertions))]
    {
        let _ = name;
        work()
    }
}

/// The faults for the messages of a netlink send. Each message can fail on its own.
#[inline(always)]
pub fn messages(names: impl Iterator<Item = Name>) -> Vec<Injected> {
    #[cfg(debug_assertions)]
    return registry::current().messages(names);
    #[cfg(not(debug_assertions))]
    {
        let _ = names;
        Vec::new()
    }
}

/// Wraps the work of a new thread, so that the thread uses the registry of the thread that starts it.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn inherit<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    work
}
