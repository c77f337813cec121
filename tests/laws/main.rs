//! Property tests of plans on random hosts, and the allowed dependencies between modules.

mod apply;
mod circles;
mod rooms;
mod scenario;
mod tunnels;
