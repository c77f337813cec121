//! nicd
pub mod api;
pub mod args;
pub mod config;
pub mod daemon;
pub mod events;
pub mod exec;
pub mod exit;
pub mod inbox;
pub mod kernel;
pub mod manager;
pub mod model;
pub mod plan;
pub mod store;
pub mod telemetry;
