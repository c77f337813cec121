//! Nova's flavors. Clients look up the flavor of a server, but nicd has no server sizes: there is one flavor with all sizes 0.

use axum::extract::{RawPathParams, RawQuery, State};
use axum::response::Response;
use axum::{Extension, Json};
use serde_json::{Map, Value, json};

use super::answer::answer;
use super::dialect::COMPUTE;
use super::error::{ApiError, ObjectKind};
use super::links::Site;
use super::listing::Listing;
use super::microversion::Microversion;
use super::nova::param;
use super::openapi::schema::{Shape, any, empty_map, only};
use super::versions::{links, links_shape};
use super::{AppState, respond};

/// Its id, and its name.
pub(super) const ID: &str = "nicd";

pub(super) async fn list(
    State(_): State<AppState>,
    site: Site,
    RawQuery(query): RawQuery,
    Extension(version): Extension<Microversion>,
) -> Response {
    let here = site.here();
    respond(page(query.as_deref(), &here, brief(&here, version)), COMPUTE)
}

pub(super) async fn details(
    State(_): State<AppState>,
    site: Site,
    RawQuery(query): RawQuery,
    Extension(version): Extension<Microversion>,
) -> Response {
    respond(page(query.as_deref(), &site.here(), detail(&site.above(), version)), COMPUTE)
}

pub(super) async fn show(
    State(_): State<AppState>,
    params: RawPathParams,
    site: Site,
    Extension(version): Extension<Microversion>,
) -> Response {
    respond(known(&params).map(|()| Json(json!({"flavor": detail(&site.above(), version)}))), COMPUTE)
}

/// What clients ask for beside it before 2.61, where it is in the flavor itself.
pub(super) async fn extra_specs(State(_): State<AppState>, params: RawPathParams) -> Response {
    respond(known(&params).map(|()| Json(json!({"extra_specs": {}}))), COMPUTE)
}

fn page(query: Option<&str>, here: &str, flavor: Value) -> Result<Json<Value>, ApiError> {
    Listing::page(query)?.answer("flavors", here, vec![flavor]).map(Json)
}

fn known(params: &RawPathParams) -> Result<(), ApiError> {
    let given = param(params, "flavor");
    match given == ID {
        true => Ok(()),
        false => Err(ApiError::Unknown { what: ObjectKind::Flavor, id: given.chars().take(64).collect() }),
    }
}

/// The flavor in Nova's list.
pub(super) fn brief(collection: &str, version: Microversion) -> Value {
    let mut shown = json!({"id": ID, "name": ID, "links": links("self", collection, ID)});
    if version >= Microversion::FLAVOR_DESCRIPTION {
        shown["description"] = Value::Null;
    }
    shown
}

/// The flavor as Nova shows it (nova/api/openstack/compute/views/flavors.py).
pub(super) fn detail(collection: &str, version: Microversion) -> Value {
    let mut shown = brief(collection, version);
    for (name, value) in [
        ("vcpus", json!(0)),
        ("ram", json!(0)),
        ("disk", json!(0)),
        ("swap", json!("")),
        ("rxtx_factor", json!(1.0)),
        ("OS-FLV-EXT-DATA:ephemeral", json!(0)),
        ("OS-FLV-DISABLED:disabled", json!(false)),
        ("os-flavor-access:is_public", json!(true)),
    ] {
        shown[name] = value;
    }
    if version >= Microversion::FLAVOR_EXTRA_SPECS {
        shown["extra_specs"] = json!({});
    }
    shown
}

answer! {
    /// The flavor inside a server until 2.46: where it is.
    Place(flavors: &str) {
        /// The flavor's id.
        "id": ID => only(ID),
        /// Where it is.
        "links": links("bookmark", flavors, ID) => links_shape(),
    }
}

answer! {
    /// The flavor inside a server from 2.47 on: what it was.
    Embedded() {
        /// Its name.
        "original_name": ID => only(ID),
        /// Always 0.
        "vcpus": 0 => only(0),
        /// Always 0.
        "ram": 0 => only(0),
        /// Always 0.
        "disk": 0 => only(0),
        /// Always 0.
        "ephemeral": 0 => only(0),
        /// Always 0.
        "swap": 0 => only(0),
        /// Always empty.
        "extra_specs": Value::Object(Map::new()) => empty_map(),
    }
}

/// The flavor inside a server.
pub(super) fn of_server(flavors: &str, version: Microversion) -> Value {
    if version >= Microversion::FLAVOR_EMBEDDED { Embedded::of() } else { Place::of(flavors) }
}

/// The same in the document.
pub(super) fn of_server_shape() -> Shape {
    any([Place::shape().into(), Embedded::shape().into()])
}
