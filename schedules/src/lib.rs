//! The protocol of nicd's fleets, run by schedules: see `tests/schedules`.
//!
//! What is generic in nicd is compiled with the package that uses it, and this one is optimized in tests too: they run some ten times as many
//! schedules in the same time.
