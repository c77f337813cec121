//! Real clients against the real daemon: each test is one file of Python in `tests/clients/`, run by the pytest of a
//! virtual environment with the pinned clients, in namespaces of its own. The environment lies under the target directory,
//! is made once (from PyPI) and used again.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

#[path = "common/daemon.rs"]
mod daemon;
#[path = "common/netns.rs"]
mod netns;

use std::path::Path;
use std::process::{Command, Stdio};

use daemon::Daemon;
use netns::in_netns;

/// Where the clients are installed.
const CLIENTS: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/clients");

/// Runs one file of tests against a daemon of its own.
fn passes(file: &'static str) {
    runs(vec!["-m", "pytest", "-q", file]);
}

/// Runs Python against a daemon of its own. A test that is skipped counts as failed.
fn runs(arguments: Vec<&'static str>) {
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    if nix::unistd::geteuid().is_root() {
        // Outside: the test's own network has no way to PyPI.
        let made = Command::new(clients.join("setup")).arg(CLIENTS).stdin(Stdio::null()).status().unwrap();
        assert!(made.success(), "the clients cannot be installed: {made}");
    }
    in_netns(move || {
        let daemon = Daemon::start();
        let mut python = Command::new(Path::new(CLIENTS).join("bin/python"));
        python.args(&arguments).current_dir(clients).stdin(Stdio::null());
        python.env("NICD_TEST_SOCKET", daemon.socket()).env("PYTHONDONTWRITEBYTECODE", "1");
        let output = python.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        println!("{said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && !said.contains("SKIPPED"), "{arguments:?}: {}", output.status);
    });
}

#[test]
fn openstacksdk_makes_lists_attaches_and_detaches_and_raises_the_right_exceptions() {
    passes("test_openstacksdk.py");
}

#[test]
fn novaclient_attaches_lists_and_detaches_at_every_microversion() {
    passes("test_novaclient.py");
}

#[test]
fn every_example_of_the_seed_documents_works_with_curl() {
    passes("test_seeds.py");
}

#[test]
fn what_other_clients_send_is_understood() {
    passes("test_others.py");
}

#[test]
fn a_validator_and_a_generator_of_clients_take_the_document_whole() {
    passes("test_document.py");
}

#[test]
fn prometheus_own_parser_reads_every_number() {
    passes("test_metrics.py");
}

#[test]
fn schemathesis_finds_nothing_beside_the_document() {
    runs(vec!["fuzz.py"]);
}
