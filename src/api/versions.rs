//! Version documents, as client libraries look for them.

use axum::Json;
use axum::http::HeaderMap;
use axum::http::header::HOST;
use serde_json::{Value, json};

/// The last compute microversion answered.
const MAX: &str = "2.70";

/// What the documents give as the time of their last change.
const UPDATED: &str = "2026-01-01T00:00:00Z";

pub(super) async fn all(headers: HeaderMap) -> Json<Value> {
    Json(json!({"versions": [v2_of(&headers), v21_of(&headers)]}))
}

pub(super) async fn v2(headers: HeaderMap) -> Json<Value> {
    Json(json!({"version": v2_of(&headers)}))
}

pub(super) async fn v21(headers: HeaderMap) -> Json<Value> {
    Json(json!({"version": v21_of(&headers)}))
}

pub(super) async fn network(headers: HeaderMap) -> Json<Value> {
    Json(resources_of(&headers))
}

/// There are none: clients then use what is always there.
pub(super) async fn extensions() -> Json<Value> {
    Json(json!({"extensions": []}))
}

/// Neutron's list of resources. It is no version document, as Neutron has those at its root alone; our root is Nova's, so
/// that what client libraries look for (keystoneauth's discover.py) stands beside the list.
pub(super) fn resources_of(headers: &HeaderMap) -> Value {
    let resource = |name: &str, collection: &str| {
        let href = here(headers, &format!("/v2.0/{collection}"));
        json!({"name": name, "collection": collection, "links": [{"rel": "self", "href": href}]})
    };
    let links = json!([{"rel": "self", "href": here(headers, "/v2.0/")}]);
    json!({
        "resources": [resource("network", "networks"), resource("subnet", "subnets"), resource("port", "ports")],
        "version": {"id": "v2.0", "status": "CURRENT", "updated": UPDATED, "links": links},
    })
}

/// Nova's first version, without microversions.
pub(super) fn v2_of(headers: &HeaderMap) -> Value {
    compute(headers, "v2.0", "v2")
}

/// Nova's current version.
pub(super) fn v21_of(headers: &HeaderMap) -> Value {
    compute(headers, "v2.1", "v2.1")
}

fn compute(headers: &HeaderMap, id: &str, path: &str) -> Value {
    let (version, min) = if id == "v2.1" { (MAX, "2.1") } else { ("", "") };
    json!({
        "id": id,
        "status": if id == "v2.1" { "CURRENT" } else { "SUPPORTED" },
        "version": version,
        "min_version": min,
        "updated": UPDATED,
        "links": [{"rel": "self", "href": here(headers, &format!("/{path}/"))}],
    })
}

/// A path's address as the client calls us; it is only ever given back to that client.
pub(super) fn here(headers: &HeaderMap, path: &str) -> String {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).filter(|host| !host.is_empty());
    format!("http://{}{path}", host.unwrap_or("localhost"))
}
