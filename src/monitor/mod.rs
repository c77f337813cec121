//! The monitors of virtual machines: a small client of QMP, QEMU's machine protocol, by which a NIC is plugged into a machine that
//! runs and unplugged from it.
//!
//! ```text
//!   reconcile/machines ── a turn ──► Session (session): what is plugged, a free slot, plug, unplug ──► Wire (wire): lines, descriptors
//! ```
//!
//! A monitor serves one client at a time, so a connection lasts for one operation: other programs get their turn. nicd's own operations
//! on a machine take turns ([`Turns`]). Every wait has a limit, and all of an operation has one; so has a line's
//! length, and what is read for a command.

mod error;
mod session;
mod turns;
mod wire;

pub use error::MonitorError;
pub use session::{Nic, PluggedNics, Session, Slot};
pub use turns::{Turn, Turns};
