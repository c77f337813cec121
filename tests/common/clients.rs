//! The pinned clients of other makers: Python's in a virtual environment, npm's packages beside it. They lie under the target
//! directory, are installed once (from PyPI and npm's registry) and used again.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where the clients are installed.
const CLIENTS: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/clients");

/// Where their tests and lists are.
pub fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// Installs them, outside of a test's own network, which has no way to a registry.
pub fn install() {
    if nix::unistd::geteuid().is_root() {
        let made = Command::new(sources().join("setup")).arg(CLIENTS).stdin(Stdio::null()).status().unwrap();
        assert!(made.success(), "the clients cannot be installed: {made}");
    }
}

/// The Python that has them.
pub fn python() -> Command {
    let mut python = Command::new(Path::new(CLIENTS).join("bin/python"));
    python.stdin(Stdio::null()).env("PYTHONDONTWRITEBYTECODE", "1");
    python
}
