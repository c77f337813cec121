//! Version documents, as client libraries look for them.

use axum::Json;
use serde_json::{Value, json};
use utoipa::openapi::schema::ArrayBuilder;

use super::answer::answer;
use super::links::Site;
use super::openapi::schema::{Record, list, one_of_words, time, words};

/// The last compute microversion answered.
const MAX: &str = "2.70";

/// What the documents give as the time of their last change.
pub(super) const UPDATED: &str = "2026-01-01T00:00:00Z";

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

/// Neutron's resources at an address.
pub(super) fn resources_of(base: &str) -> Value {
    let api = format!("{base}/v2.0");
    let resource = |name, collection| Resource::of(name, collection, &api);
    let resources = [resource("network", "networks"), resource("subnet", "subnets"), resource("port", "ports")];
    json!({"resources": resources, "version": NetworkVersion::of(&api)})
}

answer! {
    /// A kind of thing that the network API has.
    pub(super) Resource(name: &str, collection: &str, api: &str) {
        /// Its name.
        "name": name => words(),
        /// The name of all of them.
        "collection": collection => words(),
        /// Where they are.
        "links": links("self", api, collection) => links_shape(),
    }
}

answer! {
    /// The network API's version.
    pub(super) NetworkVersion(api: &str) {
        /// The version.
        "id": "v2.0" => words(),
        /// Always CURRENT.
        "status": "CURRENT" => one_of_words(["CURRENT"]),
        /// When it was last changed.
        "updated": UPDATED => time(),
        /// Where it is.
        "links": links("self", api, "") => links_shape(),
    }
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
    Version::of(base, id, path, if id == "v2.1" { ("CURRENT", MAX, "2.1") } else { ("SUPPORTED", "", "") })
}

answer! {
    /// A version of the compute API: its status, the last microversion and the first.
    pub(super) Version(base: &str, id: &str, path: &str, of: (&str, &str, &str)) {
        /// The version.
        "id": id => words(),
        /// Whether it is the current one.
        "status": of.0 => one_of_words(["CURRENT", "SUPPORTED"]),
        /// The last microversion; empty where there are none.
        "version": of.1 => words(),
        /// The first microversion; empty where there are none.
        "min_version": of.2 => words(),
        /// When it was last changed.
        "updated": UPDATED => time(),
        /// Where it is.
        "links": links("self", base, &format!("{path}/")) => links_shape(),
    }
}

/// One link, to something in a collection.
pub(super) fn links(rel: &str, collection: &str, id: &str) -> Value {
    json!([{"rel": rel, "href": format!("{collection}/{id}")}])
}

/// Links as OpenStack gives them.
pub(super) fn links_shape() -> ArrayBuilder {
    list(Record::new().must("rel", "What the link leads to.", words()).must("href", "The address.", words()).may(
        "type",
        "The media type.",
        words(),
    ))
}
