//! Trouble below nicd: file calls that fail one by one, files that are taken away, programs that hold the store, a clock that
//! somebody sets.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

#[path = "../common/bench.rs"]
mod bench;
mod clock;
#[path = "../common/daemon.rs"]
mod daemon;
mod held;
mod matrix;
#[path = "../common/netns.rs"]
mod netns;
mod replaced;
#[path = "../common/witness.rs"]
mod witness;

use bench::{Bench, interfaces, text};
use serde_json::{Value, json};

/// What health calls wrong, by reason.
fn problems(bench: &mut Bench) -> Vec<String> {
    let health = bench.api.get("/nicd/v1/health").expect(200);
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
