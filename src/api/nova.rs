//! Nova's and OTC's dialect: servers, and `os-interface` on them (nova/api/openstack/compute/attach_interfaces.py).

use axum::Extension;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{RawPathParams, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use serde_json::{Value, json};
use std::net::IpAddr;

use crate::manager::{PortFilter, PortView, Reply, ServerView};
use crate::model::action::{Action, Attach, SecondOnNetwork, WantedNic};
use crate::model::{NetworkId, PortId, ServerId};

use super::faults::{Dialect, Refusal, What};
use super::fields::{BodyError, Fields};
use super::listener::Caller;
use super::{Desk, context, id, json_body, slip, tell};

pub(super) async fn servers(State(desk): State<Desk>, uri: Uri) -> Json<Value> {
    let servers: Vec<Value> = desk.servers().iter().map(|server| brief(server, uri.path())).collect();
    Json(json!({"servers": servers}))
}

pub(super) async fn server(State(desk): State<Desk>, params: RawPathParams, uri: Uri) -> Response {
    let found = server_id(&params).and_then(|id| Ok(desk.server(id)?));
    let shown = found.map(|server| {
        let mut shown = brief(&server, uri.path().rsplit_once('/').map_or("", |(servers, _)| servers));
        shown["status"] = "ACTIVE".into();
        shown["tenant_id"] = server.server.project_id.clone().into();
        shown["created"] = server.server.created_at.to_string().into();
        shown["updated"] = server.server.updated_at.to_string().into();
        Json(json!({"server": shown}))
    });
    tell(shown, Dialect::Compute)
}

pub(super) async fn list(State(desk): State<Desk>, params: RawPathParams) -> Response {
    let listed = server_id(&params).and_then(|id| {
        desk.server(id)?;
        let ports = desk.ports(PortFilter { server: Some(id), ..PortFilter::default() });
        Ok(Json(json!({"interfaceAttachments": ports.iter().map(attachment).collect::<Vec<_>>()})))
    });
    tell(listed, Dialect::Compute)
}

pub(super) async fn show(State(desk): State<Desk>, params: RawPathParams) -> Response {
    let shown = ids(&desk, &params).and_then(|(server, port)| Ok(desk.port_of(server, port)?));
    tell(shown.map(|port| Json(json!({"interfaceAttachment": attachment(&port)}))), Dialect::Compute)
}

pub(super) async fn attach(
    State(desk): State<Desk>,
    params: RawPathParams,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let attached = async {
        let asked = read(json_body(&headers, &body)?)?;
        let server_id = server_id(&params)?;
        desk.server(server_id)?;
        let nic = asked.nic()?;
        let attach = Attach { server_id, nic, second_on_network: SecondOnNetwork::Allowed };
        match desk.perform(Action::Attach(attach), context(&caller)).await? {
            Reply::Port(port) => Ok(Json(json!({"interfaceAttachment": attachment(&port)}))),
            _ => Err(slip()),
        }
    };
    tell(attached.await, Dialect::Compute)
}

pub(super) async fn detach(State(desk): State<Desk>, params: RawPathParams, Extension(caller): Extension<Caller>) -> Response {
    let detached = async {
        let (server, port) = ids(&desk, &params)?;
        desk.perform(Action::Detach(server, port), context(&caller)).await?;
        Ok(StatusCode::ACCEPTED)
    };
    tell(detached.await, Dialect::Compute)
}

/// The body of an attach; both levels may be left out.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    network: Option<NetworkId>,
    port: Option<PortId>,
    address: Option<IpAddr>,
}

fn read(body: &[u8]) -> Result<Asked, BodyError> {
    let mut top = Fields::top(body)?;
    let inner = top.value("interfaceAttachment");
    top.end()?;
    let Some(inner) = inner else { return Ok(Asked::default()) };
    let mut fields = Fields::object("interfaceAttachment", inner)?;
    let mut asked = Asked { network: fields.parsed("net_id")?, port: fields.parsed("port_id")?, address: None };
    if let Some(given) = fields.value("fixed_ips") {
        asked.address = Some(one_address(&given)?);
    }
    fields.end()?;
    Ok(asked)
}

/// Exactly one `{"ip_address": …}`.
fn one_address(given: &Value) -> Result<IpAddr, BodyError> {
    const AT: &str = "interfaceAttachment.fixed_ips";
    let one = match given.as_array().map(Vec::as_slice) {
        Some([one]) => one.clone(),
        Some([]) => return Err(super::fields::wrong(AT, given, "[] is too short: exactly one entry is expected")),
        Some(_) => return Err(super::fields::wrong(AT, given, "is too long: exactly one entry is expected")),
        None => return Err(super::fields::wrong(AT, given, "is not of type 'array'")),
    };
    let mut fields = Fields::object("interfaceAttachment.fixed_ips[0]", one)?;
    let address = fields.parsed("ip_address")?;
    let address = fields.required("ip_address", address)?;
    fields.end()?;
    Ok(address)
}

impl Asked {
    fn nic(self) -> Result<WantedNic, Refusal> {
        match (self.network, self.port, self.address) {
            (Some(_), Some(_), _) => Err(Refusal::NetworkAndPort),
            (None, _, Some(_)) => Err(Refusal::AddressWithoutNetwork),
            (None, Some(port), None) => Ok(WantedNic::Port(port)),
            (Some(network), None, address) => Ok(WantedNic::OnNetwork(network, address)),
            (None, None, None) => Ok(WantedNic::OnTheOnlyNetwork),
        }
    }
}

/// An interface as Nova shows it before microversion 2.70.
fn attachment(view: &PortView) -> Value {
    let port = &view.port;
    let ips: Vec<Value> = port
        .fixed_ips
        .iter()
        .map(|ip| json!({"subnet_id": ip.subnet_id.to_string(), "ip_address": ip.ip_address.to_string()}))
        .collect();
    json!({
        "port_state": view.phase.status().as_str(),
        "fixed_ips": ips,
        "port_id": port.id.to_string(),
        "net_id": port.network_id.to_string(),
        "mac_addr": port.mac.to_string(),
    })
}

fn brief(view: &ServerView, servers: &str) -> Value {
    let id = view.server.id.to_string();
    let href = format!("http://localhost{servers}/{id}");
    json!({"id": id, "name": view.server.name, "links": [{"rel": "self", "href": href}]})
}

fn param<'a>(params: &'a RawPathParams, name: &str) -> &'a str {
    params.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
}

fn server_id(params: &RawPathParams) -> Result<ServerId, Refusal> {
    id(What::Server, param(params, "server"))
}

/// A known server's id, and a well-formed port's.
fn ids(desk: &Desk, params: &RawPathParams) -> Result<(ServerId, PortId), Refusal> {
    let server = server_id(params)?;
    desk.server(server)?;
    Ok((server, id(What::Port, param(params, "port"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_levels_may_be_left_out() {
        for body in ["", "{}", r#"{"interfaceAttachment": {}}"#] {
            assert_eq!(read(body.as_bytes()).unwrap(), Asked::default(), "{body}");
        }
    }

    #[test]
    fn the_schema_is_strict() {
        for bad in [
            r#"{"x": 1}"#,
            r#"{"interfaceAttachment": {"x": 1}}"#,
            r#"{"interfaceAttachment": {"net_id": "x"}}"#,
            r#"{"interfaceAttachment": {"port_id": 1}}"#,
            r#"{"interfaceAttachment": {"fixed_ips": []}}"#,
            r#"{"interfaceAttachment": {"fixed_ips": "10.0.0.1"}}"#,
            r#"{"interfaceAttachment": {"fixed_ips": [{"ip_address": "10.0.0.1"}, {"ip_address": "10.0.0.2"}]}}"#,
            r#"{"interfaceAttachment": {"fixed_ips": [{}]}}"#,
            r#"{"interfaceAttachment": {"fixed_ips": [{"ip_address": "10.0.0"}]}}"#,
            r#"{"interfaceAttachment": {"fixed_ips": [{"ip_address": "10.0.0.1", "subnet_id": "x"}]}}"#,
            r#"{"interfaceAttachment": []}"#,
        ] {
            assert!(read(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_excludes_each_other_is_refused_in_novas_order() {
        let network = Some(NetworkId(uuid::Uuid::from_u128(1)));
        let port = Some(PortId(uuid::Uuid::from_u128(2)));
        let address = Some("10.0.0.1".parse().unwrap());
        assert_eq!(Asked { network, port, address }.nic(), Err(Refusal::NetworkAndPort));
        assert_eq!(Asked { network: None, port, address }.nic(), Err(Refusal::AddressWithoutNetwork));
        assert_eq!(Asked { network: None, port: None, address }.nic(), Err(Refusal::AddressWithoutNetwork));
    }
}
