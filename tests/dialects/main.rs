//! The API dialects against the real daemon: every error with its status, key, word and message; the precedence of errors;
//! versions, tags, bulk creates, lists, idempotency keys; and changes of attached ports.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

#[path = "../common/daemon.rs"]
mod daemon;
#[path = "../common/fixture.rs"]
mod fixture;
#[path = "../common/kernel_view.rs"]
mod kernel_view;
#[path = "../common/netns.rs"]
mod netns;

mod discovery;
mod groups;
mod idempotency;
mod links;
mod live;
mod neutron;
mod nova;
mod otc;
mod precedence;
mod rackspace;
mod trunks;
mod unbind;

use daemon::{Answer, Client};
use serde_json::Value;

/// The id of nothing.
const NOBODY: &str = "9c1f5d6e-0000-4000-8000-000000000000";

/// One POST of JSON with more headers.
fn post_with(api: &mut Client, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
    let mut all = vec![("Content-Type", "application/json")];
    all.extend_from_slice(headers);
    api.call("POST", path, &all, body.to_string().as_bytes())
}

/// Asserts one of Nova's refusals whole: its envelope has this key and nothing else, its message these words.
fn told(answer: &Answer, status: u16, key: &str, reason: &str, words: &str) {
    let what = format!("{}: {}", answer.call, answer.text);
    let error = answer.refused(status, reason);
    assert_eq!(answer.json().as_object().unwrap().keys().collect::<Vec<_>>(), [key], "{what}");
    assert_eq!(error.as_object().unwrap().keys().collect::<Vec<_>>(), ["code", "message", "reason"], "{what}");
    assert_eq!(error["code"], status, "{what}");
    assert!(error["message"].as_str().unwrap().contains(words), "'{words}' is not said: {what}");
}
