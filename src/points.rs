//! Points: the places where the process may die, a call may fail or an answer may be lost, each under a name.
//!
//! Every write to the kernel and to the store, every look, every answer and every event passes one. In a debug build each
//! pass is counted and can be made to go wrong (`board`), so that a test can try them all without knowing them beforehand.
//! In a release build nothing of that exists: each function here is the work it is given.
//!
//! A real process is steered by its environment:
//!
//! | variable | what |
//! |---|---|
//! | `NICD_POINT` | `NAME:NTH:FAULT`, several with commas. `NTH` counts the passes of that name from 1; `NTH+` means that one and all behind it |
//! | `NICD_POINTS_LOG` | a file to which each pass is appended as a line `KIND NAME`, and `wrong here` behind one that goes wrong |
//!
//! `FAULT` is `kill-before`, `kill-after`, `fail=ERRNO`, `applied-but-fail=ERRNO`, `lose-reply` or `panic`.

#[cfg(debug_assertions)]
mod board;
#[cfg(debug_assertions)]
mod fault;

#[cfg(debug_assertions)]
pub use board::{Board, Entered, carry};
#[cfg(debug_assertions)]
pub use fault::{Fault, Kind, Order, Pass, Which};

use nix::errno::Errno;

/// A point's name: the room or the thing, and what is done there. Written with a dot between them.
pub type Name = (&'static str, &'static str);

/// A message of a send that is answered otherwise than by the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Injected {
    /// Its place in the send.
    pub position: usize,
    /// What its answer says.
    pub errno: Errno,
    /// Whether the kernel gets it all the same.
    pub applied: bool,
}

/// A call that can fail: a write to the kernel or to the store, or a look.
///
/// # Errors
/// The work's, or what `fail` makes of an injected errno.
#[inline(always)]
pub fn call<T, E>(name: Name, work: impl FnOnce() -> Result<T, E>, fail: impl FnOnce(Errno) -> E) -> Result<T, E> {
    #[cfg(debug_assertions)]
    return board::here().call(name, work, fail);
    #[cfg(not(debug_assertions))]
    {
        let _ = (name, fail);
        work()
    }
}

/// An answer about to be given; none when it is lost on its way.
#[inline(always)]
pub fn reply<T>(name: Name, give: impl FnOnce() -> T) -> Option<T> {
    #[cfg(debug_assertions)]
    return board::here().reply(name, give);
    #[cfg(not(debug_assertions))]
    {
        let _ = name;
        Some(give())
    }
}

/// Something that cannot fail, on either side of which the process may die.
#[inline(always)]
pub fn moment<T>(name: Name, work: impl FnOnce() -> T) -> T {
    #[cfg(debug_assertions)]
    return board::here().moment(name, work);
    #[cfg(not(debug_assertions))]
    {
        let _ = name;
        work()
    }
}

/// The messages of a send, each of which can be refused by itself.
#[inline(always)]
pub fn messages(names: impl Iterator<Item = Name>) -> Vec<Injected> {
    #[cfg(debug_assertions)]
    return board::here().messages(names);
    #[cfg(not(debug_assertions))]
    {
        let _ = names;
        Vec::new()
    }
}

/// A thread's work, with the points of the thread that starts it.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn carry<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    work
}
