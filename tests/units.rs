//! Checks the systemd units without running them: syntax (systemd-analyze verify) and exposure (systemd-analyze security).
//!
//! `tests/service` shows that the units work and need all their permissions.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

use std::path::{Path, PathBuf};
use std::process::Command;

/// The units, with the program where this build has it.
fn units(folder: &Path) -> Vec<PathBuf> {
    let program = env!("CARGO_BIN_EXE_nicd");
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    let files = std::fs::read_dir(shipped).unwrap().map(|entry| entry.unwrap().path());
    let units = files.filter(|path| path.extension().is_some_and(|end| end == "service" || end == "socket"));
    let placed = units.map(|path| {
        let text = std::fs::read_to_string(&path).unwrap();
        let unit = folder.join(path.file_name().unwrap());
        std::fs::write(&unit, text.replace("/usr/bin/nicd", program)).unwrap();
        unit
    });
    placed.collect()
}

/// Whether systemd's own judge is there; in the full test command it must be.
fn has_judge() -> bool {
    let there = Command::new("systemd-analyze").arg("--version").output().is_ok_and(|output| output.status.success());
    assert!(there || std::env::var_os("NICD_TEST_FULL").is_none(), "systemd-analyze is not there");
    if !there {
        eprintln!("not run: needs systemd-analyze, and is left to the full test command");
    }
    there
}

#[test]
fn systemd_knows_every_word_of_the_units() {
    if !has_judge() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let units = units(folder.path());
    assert_eq!(units.len(), 5, "{units:?}");
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).args(&units).output().unwrap();
    // A word it does not know is a warning, and no failure.
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.status.success());
}

#[test]
fn the_units_are_no_more_exposed_than_they_must_be() {
    if !has_judge() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    units(folder.path());
    // In tenths.
    for (unit, most) in [("nicd.service", 22), ("nicd-netns.service", 29)] {
        let mut command = Command::new("systemd-analyze");
        command.args(["security", "--offline=yes", "--no-pager", &format!("--threshold={most}")]);
        let output = command.arg(folder.path().join(unit)).output().unwrap();
        assert!(output.status.success(), "{unit}: {}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn the_helper_has_the_hosts_mounts() {
    // Each of these would give it a copy (`exec_needs_mount_namespace`, src/core/execute.c).
    let unit = include_str!("../systemd/nicd-netns.service");
    let private = ["Private", "Protect", "ReadOnly", "ReadWrite", "Inaccessible", "Exec", "NoExec", "Bind", "Temporary", "Root"];
    let harmless = ["PrivateNetwork", "ProtectClock", "ProtectHostname", "ExecStart"];
    for line in unit.lines().filter(|line| !harmless.iter().any(|word| line.starts_with(&format!("{word}=")))) {
        assert!(!private.iter().any(|word| line.starts_with(word)), "{line}");
    }
}
