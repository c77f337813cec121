//! Version documents, as client libraries look for them.

use axum::Json;
use serde_json::{Value, json};

use super::links::Site;

/// The last compute microversion answered.
const MAX: &str = "2.70";

/// What the documents give as the time of their last change.
const UPDATED: &str = "2026-01-01T00:00:00Z";

pub(super) async fn all(site: Site) -> Json<Value> {
    Json(json!({"versions": [v2_of(site.base()), v21_of(site.base())]}))
}

pub(super) async fn v2(site: Site) -> Json<Value> {
    Json(json!({"version": whole(v2_of(site.base()))}))
}

pub(super) async fn v21(site: Site) -> Json<Value> {
    Json(json!({"version": whole(v21_of(site.base()))}))
}

/// Neutron's list of resources. It is no version document, as Neutron has those at its root alone; our root is Nova's, so
/// that what client libraries look for (keystoneauth's discover.py) stands beside the list.
pub(super) async fn network(site: Site) -> Json<Value> {
    Json(resources_of(site.base()))
}

/// There are none: clients then use what is always there.
pub(super) async fn extensions() -> Json<Value> {
    Json(json!({"extensions": []}))
}

/// Neutron's resources at an address.
pub(super) fn resources_of(base: &str) -> Value {
    let resource = |name: &str, collection: &str| {
        let href = format!("{base}/v2.0/{collection}");
        json!({"name": name, "collection": collection, "links": [{"rel": "self", "href": href}]})
    };
    let links = json!([{"rel": "self", "href": format!("{base}/v2.0/")}]);
    json!({
        "resources": [resource("network", "networks"), resource("subnet", "subnets"), resource("port", "ports")],
        "version": {"id": "v2.0", "status": "CURRENT", "updated": UPDATED, "links": links},
    })
}

/// Nova's first version at an address; without microversions.
pub(super) fn v2_of(base: &str) -> Value {
    compute(base, "v2.0", "v2")
}

/// Nova's current version at an address.
pub(super) fn v21_of(base: &str) -> Value {
    compute(base, "v2.1", "v2.1")
}

/// What a version's own document has beside its entry in the list (nova/api/openstack/compute/views/versions.py).
pub(super) fn whole(mut version: Value) -> Value {
    let number = if version["id"] == "v2.1" { "2.1" } else { "2" };
    let kind = format!("application/vnd.openstack.compute+json;version={number}");
    version["media-types"] = json!([{"base": "application/json", "type": kind}]);
    let links =
        [version["links"][0].take(), json!({"rel": "describedby", "type": "text/html", "href": "http://docs.openstack.org/"})];
    version["links"] = links.into();
    version
}

fn compute(base: &str, id: &str, path: &str) -> Value {
    let (version, min) = if id == "v2.1" { (MAX, "2.1") } else { ("", "") };
    json!({
        "id": id,
        "status": if id == "v2.1" { "CURRENT" } else { "SUPPORTED" },
        "version": version,
        "min_version": min,
        "updated": UPDATED,
        "links": [{"rel": "self", "href": format!("{base}/{path}/")}],
    })
}
