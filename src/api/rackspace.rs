//! Rackspace's dialect: `os-virtual-interfacesv2`, and `os-networksv2`, by which its clients find networks. One NIC per server and network, MACs in capitals, IPv6 spelt out, and
//! the one made in a list of one.

use axum::Extension;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{RawPathParams, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};

use crate::model::action::{Action, AfterDetach, Attach, NewNic, WantedNic};
use crate::model::{FixedIp, NetworkId, Subnet};
use crate::service::{Context, NetworkView, PortFilter, PortView, Reply};

use super::answer::answer;
use super::dialect::RACKSPACE;
use super::error::{ApiError, ObjectKind};
use super::fields::{BodyError, Fields};
use super::listener::Caller;
use super::listing::forced;
use super::nova::{ids, param, server_id};
use super::openapi::schema::{Record, any, like, list as list_of, uuid, words};
use super::{AppState, context, id, json_body, respond, slip};

pub(super) async fn list(State(state): State<AppState>, params: RawPathParams) -> Response {
    let listed = server_id(&params).and_then(|id| {
        state.server(id)?;
        let ports = state.ports(PortFilter { server: Some(id), ..PortFilter::default() });
        Ok(Json(json!({"virtual_interfaces": ports.iter().map(|port| interface(&state, port)).collect::<Vec<_>>()})))
    });
    respond(listed, RACKSPACE)
}

pub(super) async fn create(
    State(state): State<AppState>,
    params: RawPathParams,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let created = async {
        let network = read(json_body(&headers, &body)?)?;
        let server_id = server_id(&params)?;
        state.server(server_id)?;
        let attach = Attach {
            server_id,
            nic: WantedNic::OnNetwork(network, NewNic::default()),
            second_on_network: RACKSPACE.second_on_network,
            tag: None,
        };
        match state.perform(Action::Attach(attach), context(&caller)).await? {
            Reply::Port(port) => Ok(Json(json!({"virtual_interfaces": [interface(&state, &port)]}))),
            _ => Err(slip()),
        }
    };
    respond(created.await, RACKSPACE)
}

pub(super) async fn delete(
    State(state): State<AppState>,
    params: RawPathParams,
    RawQuery(query): RawQuery,
    Extension(caller): Extension<Caller>,
) -> Response {
    let deleted = async {
        let (server, port) = ids(&state, &params)?;
        let context = Context { force: forced(query.as_deref())?, ..context(&caller) };
        state.perform(Action::Detach(server, port, AfterDetach::AsMade), context).await?;
        Ok::<_, ApiError>(StatusCode::OK)
    };
    respond(deleted.await, RACKSPACE)
}

/// All networks, by which clients name them (`nova network-list` of rackspace-novaclient).
pub(super) async fn networks(State(state): State<AppState>) -> Response {
    let shown: Vec<Value> = state.networks().iter().map(|network| segment(&state, network)).collect();
    respond(Ok(Json(json!({ "networks": shown }))), RACKSPACE)
}

pub(super) async fn network(State(state): State<AppState>, params: RawPathParams) -> Response {
    let found = id(ObjectKind::Network, param(&params, "network")).and_then(|id| Ok(state.network(id)?));
    respond(found.map(|network| Json(json!({"network": segment(&state, &network)}))), RACKSPACE)
}

fn segment(state: &AppState, view: &NetworkView) -> Value {
    let subnets: Vec<Subnet> = view.subnets.iter().filter_map(|id| state.subnet(*id).ok()).collect();
    ranged(view, &subnets)
}

answer! {
    /// A network, before its range.
    Named(view: &NetworkView) {
        /// The network's id.
        "id": view.network.id.to_string() => uuid(),
        /// Its name.
        "label": view.network.name => words(),
    }
}

/// A network as Rackspace shows it: of several ranges the first of IPv4, and none where it has none.
pub(super) fn ranged(view: &NetworkView, subnets: &[Subnet]) -> Value {
    let mut shown = Named::of(view);
    let first = subnets.iter().find(|subnet| subnet.cidr.is_ipv4()).or(subnets.first());
    if let Some(cidr) = first.map(|subnet| subnet.cidr) {
        shown["cidr"] = format!("{}/{}", RACKSPACE.ip(cidr.network()), cidr.prefix()).into();
    }
    shown
}

/// The same in the document.
pub(super) fn ranged_shape() -> Record {
    Named::shape().may("cidr", "Its first IPv4 range, or else its first; a network without a subnet has none.", words())
}

fn read(body: &[u8]) -> Result<NetworkId, BodyError> {
    let mut fields = Fields::envelope(body, "virtual_interface")?;
    let network = fields.parsed("network_id")?;
    let network = fields.required("network_id", network)?;
    fields.end()?;
    Ok(network)
}

/// An interface as Rackspace shows it: the label is the network's name.
pub(super) fn interface(state: &AppState, view: &PortView) -> Value {
    let label = state.network(view.port.network_id).map_or_else(|_| String::new(), |network| network.network.name);
    Labelled::of(view, &label)
}

answer! {
    /// An interface with its network's name.
    pub(super) Labelled(view: &PortView, label: &str) {
        /// The interface's id, which is its port's.
        "id": view.port.id.to_string() => uuid(),
        /// The guest's MAC.
        "mac_address": RACKSPACE.mac(view.port.mac) => like("^([0-9A-F]{2}:){5}[0-9A-F]{2}$"),
        /// Its addresses.
        "ip_addresses": view.port.fixed_ips.iter().map(|ip| Address::of(ip, view, label)).collect::<Vec<_>>()
            => list_of(Address::shape()),
    }
}

answer! {
    /// An address with its network's name.
    Address(ip: &FixedIp, view: &PortView, label: &str) {
        /// The address.
        "address": RACKSPACE.ip(ip.ip_address) => any([
            like("^([0-9]{1,3}\\.){3}[0-9]{1,3}$").into(),
            like("^([0-9a-f]{4}:){7}[0-9a-f]{4}$").into(),
        ]),
        /// Its network.
        "network_id": view.port.network_id.to_string() => uuid(),
        /// The network's name.
        "network_label": label => words(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_one_network() {
        let good = br#"{"virtual_interface": {"network_id": "3cb9bc59-5699-4588-a4b1-b87f96708bc6"}}"#;
        assert!(read(good).is_ok());
        for bad in [
            &b""[..],
            b"{}",
            br#"{"virtual_interface": {}}"#,
            br#"{"virtual_interface": {"network_id": "x"}}"#,
            br#"{"virtual_interface": {"network_id": null}}"#,
            br#"{"virtual_interface": {"network_id": "3cb9bc59-5699-4588-a4b1-b87f96708bc6", "x": 1}}"#,
            br#"{"virtual_interface": {"network_id": "3cb9bc59-5699-4588-a4b1-b87f96708bc6"}, "x": 1}"#,
            br#"{"virtual_interfaces": []}"#,
        ] {
            assert!(read(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }
}
