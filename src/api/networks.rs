//! Neutron's networks.

use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::{Extension, Json};
use serde_json::{Value, json};

use crate::manager::{NetworkView, Reply};
use crate::model::action::{Action, NetworkChange, NewNetwork};
use crate::model::network::{MAX_MTU, MIN_MTU};

use super::agent::NAME;
use super::dialect::NETWORK;
use super::faults::{Refusal, What};
use super::fields::{BodyError, Fields, wrong};
use super::listener::Caller;
use super::listing::Listing;
use super::versions::here;
use super::{Desk, context, id, json_body, slip, tell};

/// What one can filter and sort by.
pub(super) const KNOWN: &[&str] = &[
    "id",
    "name",
    "description",
    "status",
    "admin_state_up",
    "mtu",
    "shared",
    "router:external",
    "subnets",
    "tenant_id",
    "project_id",
    "provider:network_type",
    "provider:physical_network",
    "provider:segmentation_id",
    "nicd:bridge",
    "port_security_enabled",
    "revision_number",
    "created_at",
    "updated_at",
];

pub(super) async fn list(State(desk): State<Desk>, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    let listed = Listing::read(query.as_deref(), KNOWN).and_then(|listing| {
        listing.answer("networks", &here(&headers, "/v2.0/networks"), desk.networks().iter().map(shown).collect())
    });
    tell(listed.map(Json), NETWORK)
}

pub(super) async fn show(State(desk): State<Desk>, Path(text): Path<String>, RawQuery(query): RawQuery) -> Response {
    let found = Listing::read(query.as_deref(), KNOWN).and_then(|listing| {
        let network = desk.network(id(What::Network, &text)?)?;
        Ok(Json(json!({"network": listing.cut(shown(&network))})))
    });
    tell(found, NETWORK)
}

pub(super) async fn create(
    State(desk): State<Desk>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let made = async {
        let (bodies, shape) = Fields::one_or_many(json_body(&headers, &body)?, "network", "networks")?;
        let new = bodies.into_iter().map(read_new).collect::<Result<_, _>>()?;
        match desk.perform(Action::CreateNetworks(new), context(&caller)).await? {
            Reply::Networks(made) => Ok((StatusCode::CREATED, Json(shape.wrap("network", "networks", made.iter().map(shown))))),
            _ => Err(slip()),
        }
    };
    tell(made.await, NETWORK)
}

pub(super) async fn update(
    State(desk): State<Desk>,
    Path(text): Path<String>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let changed = async {
        let id = id(What::Network, &text)?;
        let change = read_change(json_body(&headers, &body)?)?;
        match desk.perform(Action::UpdateNetwork(id, change), context(&caller)).await? {
            Reply::Network(network) => Ok(Json(json!({"network": shown(&network)}))),
            _ => Err(slip()),
        }
    };
    tell(changed.await, NETWORK)
}

pub(super) async fn delete(State(desk): State<Desk>, Path(text): Path<String>, Extension(caller): Extension<Caller>) -> Response {
    let deleted = async {
        let id = id(What::Network, &text)?;
        desk.perform(Action::DeleteNetwork(id), context(&caller)).await?;
        Ok::<_, Refusal>(StatusCode::NO_CONTENT)
    };
    tell(deleted.await, NETWORK)
}

fn read_new(mut fields: Fields) -> Result<NewNetwork, BodyError> {
    let id = fields.parsed("id")?;
    let name = fields.text("name", NAME)?.unwrap_or_default();
    let description = fields.text("description", NAME)?.unwrap_or_default();
    let project_id = project(&mut fields)?;
    let mtu = fields.number("mtu", MIN_MTU..=MAX_MTU)?;
    let bridge = fields.parsed_or_null("nicd:bridge")?.flatten();
    let kind = fields.value("provider:network_type");
    match kind.as_ref().map(|kind| kind.as_str().unwrap_or_default()) {
        None | Some("local" | "flat") => {}
        Some("vlan" | "vxlan") => {
            let kind = kind.unwrap_or_default();
            return Err(BodyError::NotBuilt(format!("provider:network_type = {kind}")));
        }
        Some(_) => {
            let why = "local, flat, vlan or vxlan is expected";
            return Err(wrong("provider:network_type", &kind.unwrap_or_default(), why));
        }
    }
    let physical_network = fields.text_or_null("provider:physical_network", NAME)?;
    fields.only("provider:segmentation_id", &[Value::Null])?;
    unchanging(&mut fields)?;
    fields.end()?;
    Ok(NewNetwork { id, name, description, project_id, mtu, bridge, physical_network })
}

fn read_change(body: &[u8]) -> Result<NetworkChange, BodyError> {
    let mut fields = Fields::envelope(body, "network")?;
    let change = NetworkChange {
        name: fields.text("name", NAME)?,
        description: fields.text("description", NAME)?,
        mtu: fields.number("mtu", MIN_MTU..=MAX_MTU)?,
    };
    unchanging(&mut fields)?;
    fields.end()?;
    Ok(change)
}

/// Attributes that have one possible value so far.
fn unchanging(fields: &mut Fields) -> Result<(), BodyError> {
    fields.only("admin_state_up", &[true.into()])?;
    fields.only("shared", &[false.into()])?;
    fields.only("router:external", &[false.into()])?;
    fields.only("port_security_enabled", &[false.into()])
}

/// The project, by either of its names.
pub(super) fn project(fields: &mut Fields) -> Result<String, BodyError> {
    let old = fields.text("tenant_id", NAME)?;
    Ok(fields.text("project_id", NAME)?.or(old).unwrap_or_default())
}

pub(super) fn shown(view: &NetworkView) -> Value {
    let network = &view.network;
    let kind = if network.physical_network.is_some() || network.bridge.is_some() { "flat" } else { "local" };
    json!({
        "id": network.id.to_string(),
        "name": network.name,
        "description": network.description,
        "status": "ACTIVE",
        "admin_state_up": true,
        "mtu": network.mtu,
        "shared": false,
        "router:external": false,
        "subnets": view.subnets.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "tenant_id": network.project_id,
        "project_id": network.project_id,
        "provider:network_type": kind,
        "provider:physical_network": network.physical_network,
        "provider:segmentation_id": null,
        "nicd:bridge": network.bridge,
        "port_security_enabled": false,
        "tags": [],
        "revision_number": network.revision_number,
        "created_at": network.created_at,
        "updated_at": network.updated_at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(network: Value) -> Result<NewNetwork, BodyError> {
        read_new(Fields::object("network", network)?)
    }

    #[test]
    fn what_is_not_built_is_refused_as_such() {
        for body in [
            json!({"provider:network_type": "vlan"}),
            json!({"provider:network_type": "vxlan"}),
            json!({"port_security_enabled": true}),
            json!({"admin_state_up": false}),
            json!({"provider:segmentation_id": 5}),
        ] {
            assert!(matches!(read(body.clone()), Err(BodyError::NotBuilt(_))), "{body}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for body in [
            json!({"mtu": 1279}),
            json!({"mtu": 65522}),
            json!({"mtu": "1500"}),
            json!({"nicd:bridge": "a/b"}),
            json!({"provider:network_type": "gre"}),
            json!({"id": "x"}),
            json!({"name": "x".repeat(256)}),
            json!({"colour": 1}),
        ] {
            assert!(read(body.clone()).is_err(), "{body}");
        }
        assert!(read(json!({"name": "blue", "admin_state_up": true, "nicd:bridge": null})).is_ok());
    }
}
