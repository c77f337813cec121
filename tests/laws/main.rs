//! The laws of the house: what any plan does on any host, and which room may lean on which.

mod apply;
mod rooms;
mod worlds;
