//! Cargo, run by a test.

use std::process::Command;

/// Without what cargo tells a test of its package. Build scripts (`ring`'s) look at it: with it they, and all that needs them, would be built
/// again by this cargo, and once more by the next one that no test runs.
pub fn cargo() -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            cargo.env_remove(name);
        }
    }
    cargo
}
