//! nicd
pub mod exec;
pub mod inbox;
pub mod kernel;
pub mod model;
pub mod plan;
pub mod store;
