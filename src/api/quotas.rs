//! Neutron's quotas: how many things a project may have, which clients ask before they make some. nicd sets no such limits.

use axum::Json;
use serde_json::{Map, Value, json};

use super::extensions::has_route;
use super::openapi::schema::{Record, only};

/// Kinds of things, and the routes by which they are there.
const KINDS: [(&str, &str); 7] = [
    ("network", "/networks"),
    ("subnet", "/subnets"),
    ("port", "/ports"),
    ("subnetpool", "/subnetpools"),
    ("security_group", "/security-groups"),
    ("security_group_rule", "/security-group-rules"),
    ("trunk", "/trunks"),
];

/// What Neutron says where there is no limit.
const UNLIMITED: i32 = -1;

fn kinds() -> impl Iterator<Item = &'static str> {
    KINDS.into_iter().filter(|(_, route)| has_route(route)).map(|(kind, _)| kind)
}

/// The quotas of any project.
pub(super) fn of_project() -> Value {
    kinds().map(|kind| (kind.to_owned(), Value::from(UNLIMITED))).collect::<Map<_, _>>().into()
}

/// The same in the document.
pub(super) fn shape() -> Record {
    kinds().fold(Record::new(), |record, kind| record.must(kind, "Always -1: any number.", only(UNLIMITED)))
}

/// Projects whose quotas were changed: none.
pub(super) async fn list() -> Json<Value> {
    Json(json!({"quotas": []}))
}

pub(super) async fn show() -> Json<Value> {
    Json(json!({"quota": of_project()}))
}
