//! The laws of the code: what any plan does on any host, and which room may lean on which.

mod apply;
mod rooms;
mod scenario;
