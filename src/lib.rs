//! nicd
pub mod api;
pub mod args;
pub mod config;
pub mod daemon;
pub mod exit;
pub mod kernel {
    //! Placeholder on this branch: the room itself is built elsewhere.
    pub mod tap {
        //! Placeholder on this branch.
        pub mod sys;
    }
}
pub mod model;
pub mod telemetry;
