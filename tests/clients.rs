//! Real clients against the real daemon: each test is one file of Python in `tests/clients/`, run by the pytest of a
//! virtual environment with the pinned clients, in namespaces of its own.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

#[path = "common/clients.rs"]
mod clients;
#[path = "common/daemon.rs"]
mod daemon;
#[path = "common/netns.rs"]
mod netns;
#[path = "common/pki.rs"]
mod pki;

use daemon::Daemon;
use netns::in_netns;
use pki::{ADDRESS, Pki};

/// Runs one file of tests against a daemon of its own.
fn passes(file: &'static str) {
    runs(vec!["-m", "pytest", "-q", file]);
}

/// Runs Python against a daemon of its own, which also serves TLS. A test that is skipped counts as failed.
fn runs(arguments: Vec<&'static str>) {
    clients::install();
    in_netns(move || {
        let pki = Pki::new();
        let mut daemon = Daemon::prepared("/run/nicd");
        std::fs::write(daemon.config(), pki.listen(&["cloud-1"])).unwrap();
        daemon.launch();
        let mut python = clients::python();
        python.args(&arguments).current_dir(clients::sources()).env("NICD_TEST_SOCKET", daemon.socket());
        python.env("NICD_TEST_HOST", format!("https://{ADDRESS}")).env("NICD_TEST_PKI", pki.file(""));
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
fn openstacksdk_does_the_same_from_another_host_over_tls() {
    passes("test_tls.py");
}

#[test]
fn the_openstack_command_makes_security_groups_and_puts_ports_into_them() {
    passes("test_openstack.py");
}

#[test]
fn novaclient_attaches_lists_and_detaches_at_every_microversion() {
    passes("test_novaclient.py");
}

#[test]
fn huaweis_sdk_adds_lists_and_deletes_nics_by_jobs() {
    passes("test_huaweicloudsdk.py");
}

#[test]
fn neutronclient_makes_the_calls_of_nova_and_kuryr() {
    passes("test_neutronclient.py");
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
fn a_linter_and_a_generator_of_typescript_take_the_document_whole() {
    passes("test_typescript.py");
}

#[test]
fn prometheus_own_parser_reads_every_number() {
    passes("test_metrics.py");
}

#[test]
fn schemathesis_finds_nothing_beside_the_document() {
    runs(vec!["fuzz.py"]);
}
