//! nicd
pub mod kernel;
pub mod model;
pub mod plan;
