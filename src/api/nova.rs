//! Nova's and OTC's dialect: servers, and `os-interface` on them (nova/api/openstack/compute/attach_interfaces.py).

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::str::FromStr;
use std::time::{Duration, Instant};

use axum::Extension;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{RawPathParams, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha224};

use crate::model::action::{Action, AfterDetach, Attach, NewNic, WantedNic};
use crate::model::{NetworkId, PortId, ServerId};
use crate::service::{Context, PortFilter, PortView, Receipt, Reply, ServerView, StepTime, WantedElsewhere};

use super::answer::answer;
use super::dialect::COMPUTE;
use super::error::{ApiError, ObjectKind};
use super::fields::{BodyError, Fields, Ip, not_of_type, shown, wrong};
use super::links::Site;
use super::listener::Caller;
use super::listing::{Listing, forced, form};
use super::microversion::Microversion;
use super::openapi::schema::{
    self, Record, Shape, count, like, mac, map, one_of_numbers, one_of_words, only, or_null, status, time, uuid, words,
};
use super::ports::Address;
use super::versions::{links, links_shape};
use super::{AppState, context, flavors, id, json_body, respond, slip};

pub(super) async fn servers(State(state): State<AppState>, site: Site, RawQuery(query): RawQuery) -> Response {
    let collection = site.here();
    let listed = async {
        let all = all(&state).await?;
        page(&all, query.as_deref(), &collection, |server| Brief::of(server, &collection))
    };
    respond(listed.await, COMPUTE)
}

/// `servers/detail`, by which clients find a server whose name they have.
pub(super) async fn details(
    State(state): State<AppState>,
    site: Site,
    RawQuery(query): RawQuery,
    Extension(version): Extension<Microversion>,
) -> Response {
    let collection = site.above();
    let listed = async {
        let all = all(&state).await?;
        // With the servers of other hosts their ports.
        let mut elsewhere: HashMap<ServerId, Vec<PortView>> = HashMap::new();
        for port in state.ports_elsewhere(WantedElsewhere::All).await? {
            port.binding.iter().for_each(|binding| elsewhere.entry(binding.server).or_default().push(port.clone()));
        }
        let shown = |server: &ServerView| Detail::of(server, &nics_of(&state, server, &elsewhere), &collection, version);
        page(&all, query.as_deref(), &site.here(), shown)
    };
    respond(listed.await, COMPUTE)
}

/// The servers of all hosts.
async fn all(state: &AppState) -> Result<Vec<ServerView>, ApiError> {
    let mut all: Vec<ServerView> = state.servers().into_iter().chain(state.servers_elsewhere().await?).collect();
    all.sort_by_key(|view| view.server.id);
    Ok(all)
}

/// A page of the servers of a name; other filters are ignored, as Nova does before 2.75.
fn page(
    servers: &[ServerView],
    query: Option<&str>,
    list: &str,
    shown: impl Fn(&ServerView) -> Value,
) -> Result<Json<Value>, ApiError> {
    let paging = Listing::page(query)?;
    let name = form(query.unwrap_or_default()).into_iter().filter(|(key, _)| key == "name").map(|(_, name)| name).next_back();
    let named = servers.iter().filter(|server| name.as_ref().is_none_or(|name| is_called(&server.server.name, name)));
    paging.answer("servers", list, named.map(shown).collect()).map(Json)
}

/// Whether a server is found under a name: the filter is a part of the name, which `^` and `$` tie to its ends. Of Nova's
/// regular expressions clients use no more.
fn is_called(own: &str, asked: &str) -> bool {
    let start = asked.strip_prefix('^');
    let rest = start.unwrap_or(asked);
    let end = rest.strip_suffix('$');
    let text = end.unwrap_or(rest);
    match (start, end) {
        (Some(_), Some(_)) => own == text,
        (Some(_), None) => own.starts_with(text),
        (None, Some(_)) => own.ends_with(text),
        (None, None) => own.contains(text),
    }
}

pub(super) async fn server(
    State(state): State<AppState>,
    params: RawPathParams,
    site: Site,
    Extension(version): Extension<Microversion>,
) -> Response {
    let found = server_id(&params).and_then(|id| Ok(state.server(id)?));
    let collection = site.above();
    let shown = |server: ServerView| Detail::of(&server, &nics_of(&state, &server, &HashMap::new()), &collection, version);
    respond(found.map(|server| Json(json!({"server": shown(server)}))), COMPUTE)
}

pub(super) async fn list(
    State(state): State<AppState>,
    params: RawPathParams,
    Extension(version): Extension<Microversion>,
) -> Response {
    let listed = server_id(&params).and_then(|id| {
        state.server(id)?;
        let ports = state.ports(PortFilter { server: Some(id), ..PortFilter::default() });
        let shown: Vec<Value> = ports.iter().map(|port| attachment(port, version)).collect();
        Ok(Json(json!({"interfaceAttachments": shown})))
    });
    respond(listed, COMPUTE)
}

pub(super) async fn show(
    State(state): State<AppState>,
    params: RawPathParams,
    Extension(version): Extension<Microversion>,
) -> Response {
    let shown = ids(&state, &params).and_then(|(server, port)| Ok(state.port_of(server, port)?));
    respond(shown.map(|port| Json(json!({"interfaceAttachment": attachment(&port, version)}))), COMPUTE)
}

pub(super) async fn attach(
    State(state): State<AppState>,
    params: RawPathParams,
    RawQuery(query): RawQuery,
    Extension(caller): Extension<Caller>,
    Extension(version): Extension<Microversion>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let attached = async {
        let mut asked = read(json_body(&headers, &body)?, version)?;
        let server_id = server_id(&params)?;
        state.server(server_id)?;
        let tag = asked.tag.take();
        let nic = asked.nic()?;
        let attach = Attach { server_id, nic, second_on_network: COMPUTE.second_on_network, tag };
        let receipt = wants_receipt(query.as_deref())?.then(Receipt::default);
        let context = Context { receipt: receipt.clone(), ..context(&caller) };
        let Reply::Port(port) = state.perform(Action::Attach(attach), context).await? else { return Err(slip()) };
        let mut answer = json!({"interfaceAttachment": attachment(&port, version)});
        if let Some(steps) = receipt.as_ref().and_then(|receipt| receipt.get()) {
            let began = steps.first().map(|step| step.began);
            answer["nicd:receipt"] = began.map_or(Value::Null, |began| steps.iter().map(|step| Timed::of(step, began)).collect());
        }
        Ok(Json(answer))
    };
    respond(attached.await, COMPUTE)
}

pub(super) async fn detach(
    State(state): State<AppState>,
    params: RawPathParams,
    RawQuery(query): RawQuery,
    Extension(caller): Extension<Caller>,
) -> Response {
    let detached = async {
        let (server, port) = ids(&state, &params)?;
        let after = after(query.as_deref())?;
        let context = Context { force: forced(query.as_deref())?, ..context(&caller) };
        state.perform(Action::Detach(server, port, after), context).await?;
        Ok(StatusCode::ACCEPTED)
    };
    respond(detached.await, COMPUTE)
}

/// The body of an attach; both levels may be left out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    network: Option<NetworkId>,
    port: Option<PortId>,
    address: Option<IpAddr>,
    pub(super) tag: Option<String>,
}

/// nicd's `?receipt=`; other parameters are ignored, as Nova does.
fn wants_receipt(query: Option<&str>) -> Result<bool, ApiError> {
    let given =
        form(query.unwrap_or_default()).into_iter().filter(|(key, _)| key == "receipt").map(|(_, value)| value).next_back();
    match given.map(|value| value.to_ascii_lowercase()).as_deref() {
        None | Some("false" | "0" | "") => Ok(false),
        Some("true" | "1") => Ok(true),
        Some(other) => {
            let other: String = other.escape_debug().take(64).collect();
            Err(ApiError::Query(format!("receipt={other}: True or False is expected")))
        }
    }
}

answer! {
    /// When a step of an attach was carried out, in microseconds.
    pub(super) Timed(time: &StepTime, began: Instant) {
        /// The step: an op of the plan, or what comes before and behind them.
        "step": time.step => like("^[a-z_]+$"),
        /// When it began, since the attach began.
        "at_us": microseconds(time.began.saturating_duration_since(began)) => count(),
        /// How long it took.
        "took_us": microseconds(time.took) => count(),
    }
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// OTC's `?reserve_port=`; other parameters are ignored, as Nova does before 2.102.
fn after(query: Option<&str>) -> Result<AfterDetach, ApiError> {
    let given =
        form(query.unwrap_or_default()).into_iter().filter(|(key, _)| key == "reserve_port").map(|(_, value)| value).next_back();
    match given.map(|value| value.to_ascii_lowercase()).as_deref() {
        None | Some("false" | "0" | "") => Ok(AfterDetach::AsMade),
        Some("true" | "1") => Ok(AfterDetach::Keep),
        Some(other) => {
            let other: String = other.escape_debug().take(64).collect();
            Err(ApiError::Query(format!("reserve_port={other}: True or False is expected")))
        }
    }
}

fn read(body: &[u8], version: Microversion) -> Result<Asked, BodyError> {
    let mut top = Fields::top(body)?;
    let inner = top.value("interfaceAttachment");
    top.end()?;
    inner.map_or_else(|| Ok(Asked::default()), |inner| asked(inner, version))
}

/// What is inside the envelope.
pub(super) fn asked(inner: Value, version: Microversion) -> Result<Asked, BodyError> {
    let mut fields = Fields::object("interfaceAttachment", inner)?;
    let mut asked = Asked { network: fields.parsed("net_id")?, port: fields.parsed("port_id")?, address: None, tag: None };
    if let Some(given) = fields.value("fixed_ips") {
        asked.address = Some(one_address(&given)?);
    }
    if version >= Microversion::TAG {
        asked.tag = fields.parsed("tag")?.map(|Tag(tag)| tag);
    }
    fields.end()?;
    Ok(asked)
}

/// Exactly one `{"ip_address": …}`.
fn one_address(given: &Value) -> Result<IpAddr, BodyError> {
    let too = |how: &str| wrong("fixed_ips", given, &format!("{} is too {how}: exactly one entry is expected", shown(given)));
    let one = match given.as_array().map(Vec::as_slice) {
        Some([one]) => one.clone(),
        Some([]) => return Err(too("short")),
        Some(_) => return Err(too("long")),
        None => return Err(not_of_type("fixed_ips", given, "array")),
    };
    let mut fields = Fields::object("0", one)?;
    let address = fields.parsed("ip_address")?;
    let Ip(address) = fields.required("ip_address", address)?;
    fields.end()?;
    Ok(address)
}

/// A device's tag: 1 to 60 characters without comma and slash (nova/api/validation/parameter_types.py), and, which Nova
/// does not say, without control characters.
struct Tag(String);

impl FromStr for Tag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let count = text.chars().count();
        match count {
            0 => Err("'' is too short: 1 to 60 characters are expected".to_owned()),
            61.. => Err("it is too long: 1 to 60 characters are expected".to_owned()),
            _ if text.contains(|c: char| c.is_control()) => Err("it contains control characters".to_owned()),
            _ if text.contains([',', '/']) => {
                Err(format!("'{}' does not match '^[^,/]*$': no comma and no slash", text.escape_debug()))
            }
            _ => Ok(Self(text.to_owned())),
        }
    }
}

impl Asked {
    pub(super) fn nic(self) -> Result<WantedNic, ApiError> {
        match (self.network, self.port, self.address) {
            (Some(_), Some(_), _) => Err(ApiError::NetworkAndPort),
            (None, _, Some(_)) => Err(ApiError::AddressWithoutNetwork),
            (None, Some(port), None) => Ok(WantedNic::Port(port)),
            (Some(network), None, address) => Ok(WantedNic::OnNetwork(network, NewNic { address, groups: None })),
            (None, None, None) => Ok(WantedNic::OnTheOnlyNetwork),
        }
    }
}

answer! {
    /// An interface as Nova shows it, before the tag.
    pub(super) Attachment(view: &PortView) {
        /// The port's status at that moment.
        "port_state": view.phase.status().as_str() => status(),
        /// Its addresses.
        "fixed_ips": view.port.fixed_ips.iter().map(Address::of).collect::<Vec<_>>() => schema::list(Address::shape()),
        /// The port's id.
        "port_id": view.port.id.to_string() => uuid(),
        /// Its network.
        "net_id": view.port.network_id.to_string() => uuid(),
        /// The guest's MAC.
        "mac_addr": view.port.mac.to_string() => mac(),
    }
}

/// An interface as Nova shows it: five attributes, and from 2.70 the tag.
pub(super) fn attachment(view: &PortView, version: Microversion) -> Value {
    let mut shown = Attachment::of(view);
    if version >= Microversion::TAG_SHOWN {
        shown["tag"] = view.port.binding.as_ref().and_then(|binding| binding.tag.clone()).into();
    }
    shown
}

/// The same in the document.
pub(super) fn attachment_shape() -> Record {
    Attachment::shape().may("tag", "Its tag; null: none. From 2.70.", or_null(words()))
}

answer! {
    /// A server in Nova's list.
    pub(super) Brief(view: &ServerView, collection: &str) {
        /// The server's id.
        "id": view.server.id.to_string() => uuid(),
        /// Its name.
        "name": view.server.name => words(),
        /// Where it is.
        "links": links("self", collection, &view.server.id.to_string()) => links_shape(),
    }
}

/// A NIC of a server, and its network's name.
pub(super) type Nic = (String, PortView);

fn nics_of(state: &AppState, view: &ServerView, elsewhere: &HashMap<ServerId, Vec<PortView>>) -> Vec<Nic> {
    let label = |port: &PortView| state.network(port.port.network_id).map_or_else(|_| String::new(), |view| view.network.name);
    let ports = state.ports(PortFilter { server: Some(view.server.id), ..PortFilter::default() });
    let elsewhere = elsewhere.get(&view.server.id).into_iter().flatten().cloned();
    ports.into_iter().chain(elsewhere).map(|port| (label(&port), port)).collect()
}

/// A host's name as a project is told it: a digest of both, as Nova's (`generate_hostid`, nova/utils.py).
fn host_id(view: &ServerView) -> String {
    let digest = Sha224::new().chain_update(&view.server.project_id).chain_update(&view.host).finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

answer! {
    /// A server as Nova shows it: what clients need that look it up before they attach, some of which stop where an attribute
    /// is missing. nicd knows of no image, cell and user, and says so by empty ones; all servers have one flavor.
    pub(super) Detail(view: &ServerView, nics: &[Nic], collection: &str, version: Microversion) {
        /// The server's id.
        "id": view.server.id.to_string() => uuid(),
        /// Its name.
        "name": view.server.name => words(),
        /// Where it is.
        "links": links("self", collection, &view.server.id.to_string()) => links_shape(),
        /// Always ACTIVE.
        "status": "ACTIVE" => one_of_words(["ACTIVE"]),
        /// The project; nicd only stores it.
        "tenant_id": view.server.project_id => words(),
        /// When it became known.
        "created": seconds(view.server.created_at) => time(),
        /// When it was last changed.
        "updated": seconds(view.server.updated_at) => time(),
        /// Its addresses, by the network's name.
        "addresses": addresses(nics) => map(Shape::from(schema::list(NicAddress::shape()))),
        /// Always empty.
        "metadata": Value::Object(Map::new()) => Record::new(),
        /// Stands for its host, as its project may know it.
        "hostId": host_id(view) => like("^[0-9a-f]{56}$"),
        /// Always empty.
        "user_id": "" => only(""),
        /// Always empty.
        "image": "" => only(""),
        /// The flavor that every server has.
        "flavor": flavors::of_server(&beside(collection, "flavors"), version) => flavors::of_server_shape(),
    }
}

answer! {
    /// An address of a server, as `nova/api/openstack/compute/views/addresses.py` has it.
    NicAddress(ip: IpAddr, mac: &str) {
        /// The address.
        "addr": COMPUTE.ip(ip) => schema::ip(),
        /// Its family.
        "version": if ip.is_ipv6() { 6 } else { 4 } => one_of_numbers([4, 6]),
        /// Always fixed.
        "OS-EXT-IPS:type": "fixed" => only("fixed"),
        /// The MAC of its NIC.
        "OS-EXT-IPS-MAC:mac_addr": mac => schema::mac(),
    }
}

/// The address of another collection of the same API.
fn beside(collection: &str, other: &str) -> String {
    collection.rsplit_once('/').map_or_else(String::new, |(api, _)| format!("{api}/{other}"))
}

/// By network.
fn addresses(nics: &[Nic]) -> Value {
    let mut by_label: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for (label, view) in nics {
        let mac = COMPUTE.mac(view.port.mac);
        let ips = view.port.fixed_ips.iter().map(|ip| NicAddress::of(ip.ip_address, &mac));
        by_label.entry(label).or_default().extend(ips);
    }
    json!(by_label)
}

/// A time as Nova writes it, which some clients read by its exact form.
fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

pub(super) fn param<'a>(params: &'a RawPathParams, name: &str) -> &'a str {
    params.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
}

pub(super) fn server_id(params: &RawPathParams) -> Result<ServerId, ApiError> {
    id(ObjectKind::Server, param(params, "server"))
}

/// A known server's id, and a well-formed port's.
pub(super) fn ids(state: &AppState, params: &RawPathParams) -> Result<(ServerId, PortId), ApiError> {
    let server = server_id(params)?;
    state.server(server)?;
    Ok((server, id(ObjectKind::Port, param(params, "port"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_levels_may_be_left_out() {
        for body in ["", "{}", r#"{"interfaceAttachment": {}}"#] {
            assert_eq!(read(body.as_bytes(), Microversion::MAX).unwrap(), Asked::default(), "{body}");
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
            assert!(read(bad.as_bytes(), Microversion::MAX).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_tag_is_known_from_2_49_on() {
        let body = |tag: &str| format!(r#"{{"interfaceAttachment": {{"tag": "{tag}"}}}}"#);
        assert!(read(body("nic-1").as_bytes(), Microversion::MIN).is_err());
        assert_eq!(read(body("nic-1").as_bytes(), Microversion::TAG).unwrap().tag.as_deref(), Some("nic-1"));
        for bad in ["", "a,b", "a/b", "x".repeat(61).as_str()] {
            assert!(read(body(bad).as_bytes(), Microversion::TAG).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_excludes_each_other_is_refused_in_novas_order() {
        let network = Some(NetworkId(uuid::Uuid::from_u128(1)));
        let port = Some(PortId(uuid::Uuid::from_u128(2)));
        let address = Some("10.0.0.1".parse().unwrap());
        assert_eq!(Asked { network, port, address, tag: None }.nic(), Err(ApiError::NetworkAndPort));
        assert_eq!(Asked { network: None, port, address, tag: None }.nic(), Err(ApiError::AddressWithoutNetwork));
        assert_eq!(Asked { network: None, port: None, address, tag: None }.nic(), Err(ApiError::AddressWithoutNetwork));
    }
}
