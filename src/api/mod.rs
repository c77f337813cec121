//! The socket's edge.
pub mod listener;
pub mod peer;
pub mod socket;
