//! `nicctl top`: the attached ports as a table that renews itself, those in trouble first.
//!
//! ```text
//!   nicd ── list, health, counters, events ──▶ reading ──▶ table (pure) ──▶ draw (pure) ──▶ terminal
//!                                                 ▲                            ▲
//!                                                 └── which rows are seen ◀── keys
//! ```
//!
//! Ports are listed once, and again after an event of theirs, at most once a round. Counters are read port by port, as the daemon
//! gives them: those on the screen in every round, of all others as many as fit in a fixed number, in turn.

mod draw;
mod reading;
mod screen;
mod table;
#[cfg(test)]
mod tests;

pub use screen::{once, run, text};
pub use table::{KEYS, Order};
