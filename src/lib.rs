//! nicd
pub mod model;
