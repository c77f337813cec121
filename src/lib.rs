//! nicd
pub mod events;
pub mod exec;
pub mod inbox;
pub mod kernel;
pub mod manager;
pub mod model;
pub mod plan;
pub mod store;
