//! Kinds of things that clients of Neutron look for and nicd has none of: their lists are empty.

use axum::Json;
use axum::extract::{Path, RawQuery};
use axum::response::Response;
use serde_json::Value;

use super::dialect::NETWORK;
use super::error::{ApiError, ObjectKind};
use super::listing::Listing;
use super::respond;

/// What one can filter subnet pools by.
pub(super) const OF_POOLS: &[&str] =
    &["id", "name", "description", "ip_version", "is_default", "shared", "tenant_id", "project_id", "address_scope_id"];

/// What one can filter availability zones by.
pub(super) const OF_ZONES: &[&str] = &["name", "resource", "state"];

pub(super) async fn pools(RawQuery(query): RawQuery) -> Response {
    none("subnetpools", query.as_deref(), OF_POOLS)
}

pub(super) async fn zones(RawQuery(query): RawQuery) -> Response {
    none("availability_zones", query.as_deref(), OF_ZONES)
}

pub(super) async fn pool(Path(id): Path<String>) -> Response {
    let id = id.chars().take(64).collect();
    respond::<Json<Value>>(Err(ApiError::Unknown { what: ObjectKind::SubnetPool, id }), NETWORK)
}

fn none(collection: &str, query: Option<&str>, known: &[&str]) -> Response {
    let listed = Listing::read(query, known).and_then(|listing| listing.answer(collection, "", Vec::new()));
    respond(listed.map(Json), NETWORK)
}
