//! Programs of others that a test needs.

use std::process::Command;

/// Whether a program is there; in the full test command it must be.
pub fn has(program: &str) -> bool {
    let there = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap().status.success();
    assert!(there || std::env::var_os("NICD_TEST_FULL").is_none(), "{program} is not there: ./check installs it");
    if !there {
        eprintln!("not run: needs {program}, and is left to the full test command");
    }
    there
}
