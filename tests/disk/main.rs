//! Failures below nicd: failing file operations, deleted files, other programs that block the store, and a changed wall clock.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

mod clock;
#[path = "../common/daemon.rs"]
mod daemon;
#[path = "../common/fixture.rs"]
mod fixture;
mod held;
#[path = "../common/kernel_view.rs"]
mod kernel_view;
mod matrix;
#[path = "../common/netns.rs"]
mod netns;
mod replaced;

use fixture::{Fixture, interfaces, text};
use serde_json::{Value, json};

/// What health calls wrong, by reason.
fn problems(fixture: &mut Fixture) -> Vec<String> {
    let health = fixture.api.get("/nicd/v1/health").expect(200);
    let problems = health["problems"].as_array().unwrap();
    assert!(problems.iter().all(|problem| problem["detail"] != "" && problem["remedy"] != ""), "{health}");
    problems.iter().map(|problem| text(&problem["reason"])).collect()
}

fn attach(api: &mut daemon::Client, server: &str, network: &str) -> daemon::Answer {
    api.post(&interfaces(server), &json!({"interfaceAttachment": {"net_id": network}}))
}

fn is(event: &Value, kind: &str, reason: &str) -> bool {
    event["event"] == kind && event["reason"] == reason
}
