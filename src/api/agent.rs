//! The agent's own routes: servers, health, the explanation of a port's status, and a port's counters and leases.

use std::path::{self, PathBuf};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::{Extension, Json};
use serde_json::{Value, json};

use crate::kernel::{DroppedFrame, Traffic};
use crate::model::action::{Action, NewGuest, NewServer, WithNics};
use crate::model::server::MAX_QUEUES;
use crate::model::{DropReason, Guest, Monitor, Owner, PortId, ServerId};
use crate::plan::Fact;
use crate::service::{Context, Exchange, LeaseState, PortCounters, PortView, Reply, ServerView};

use super::answer::answer;
use super::dialect::COMPUTE;
use super::error::{ApiError, ObjectKind};
use super::fields::{BodyError, Fields, wrong};
use super::listener::Caller;
use super::listing::{forced, form};
use super::openapi::schema::{
    Record, count, either, ip, like, list, mac, number, one_of_words, only, or_null, phase, status, time, truth, uuid, words,
};
use super::stream::{self, Reach};
use super::{AppState, context, id, json_body, respond, respond_and_log, slip};

/// The most NICs a server may be allowed.
pub(super) const NIC_LIMIT: u32 = 1024;

/// The longest name, in characters, as Nova and Neutron have it.
pub(super) const NAME: usize = 255;

/// The longest path of a socket, in octets (unix(7), less the final NUL).
pub(super) const SOCKET_PATH: usize = 107;

/// The longest path of a namespace, in characters (`PATH_MAX` less the final NUL).
pub(super) const PATH: usize = 4095;

pub(super) async fn servers(State(state): State<AppState>, RawQuery(query): RawQuery) -> Response {
    let listed = async {
        let elsewhere = match stream::reach(query.as_deref(), Reach::Fleet)? {
            Reach::Fleet => state.servers_elsewhere().await?,
            Reach::Host => Vec::new(),
        };
        Ok(Json(json!({"servers": state.servers().iter().chain(&elsewhere).map(Shown::of).collect::<Vec<_>>()})))
    };
    respond(listed.await, COMPUTE)
}

pub(super) async fn server(State(state): State<AppState>, Path(text): Path<String>) -> Response {
    let found = id(ObjectKind::Server, &text).and_then(|id| Ok(state.server(id)?));
    respond(found.map(|server| Json(json!({"server": Shown::of(&server)}))), COMPUTE)
}

pub(super) async fn put_server(
    State(state): State<AppState>,
    Path(text): Path<String>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let put = async {
        let id: ServerId = text.parse().map_err(|error: crate::model::ids::BadId| ApiError::BadId(error.to_string()))?;
        let new = read_server(id, json_body(&headers, &body)?)?;
        match state.perform(Action::PutServer(new), context(&caller)).await? {
            Reply::NewServer(server) => Ok((StatusCode::CREATED, Json(json!({"server": Shown::of(&server)})))),
            Reply::Server(server) => Ok((StatusCode::OK, Json(json!({"server": Shown::of(&server)})))),
            _ => Err(slip()),
        }
    };
    respond(put.await, COMPUTE)
}

pub(super) async fn delete_server(
    State(state): State<AppState>,
    Path(text): Path<String>,
    RawQuery(query): RawQuery,
    Extension(caller): Extension<Caller>,
) -> Response {
    let deleted = async {
        let id = id(ObjectKind::Server, &text)?;
        let nics = with_nics(query.as_deref())?;
        let context = Context { force: forced(query.as_deref())?, ..context(&caller) };
        state.perform(Action::DeleteServer(id, nics), context).await?;
        Ok(StatusCode::NO_CONTENT)
    };
    respond(deleted.await, COMPUTE)
}

/// How long health waits for the check of requirements; other holders of RTNL may delay the kernel's thread.
const REQUIREMENTS_LIMIT: Duration = Duration::from_secs(1);

pub(super) async fn health(State(state): State<AppState>) -> Response {
    // If the kernel does not answer in time, the last result is used.
    let _ = tokio::time::timeout(REQUIREMENTS_LIMIT, state.reconciler().check_requirements()).await;
    let told = match state.reconciler().starting() {
        true => Err(ApiError::Starting(state.reconciler().summary())),
        false => Ok(Json(state.health())),
    };
    respond(told, COMPUTE)
}

pub(super) async fn explain(State(state): State<AppState>, Path(text): Path<String>) -> Response {
    let told = async {
        let (port, facts) = state.explain_with_drops(id(ObjectKind::Port, &text)?).await?;
        Ok(Json(Explanation::of(&port, &facts)))
    };
    respond_and_log(told.await)
}

pub(super) async fn counters(State(state): State<AppState>, Path(text): Path<String>) -> Response {
    let told = async {
        let id = id(ObjectKind::Port, &text)?;
        Ok(Json(Counted::of(id, &state.counters(id).await?)))
    };
    respond_and_log(told.await)
}

pub(super) async fn leases(State(state): State<AppState>, Path(text): Path<String>) -> Response {
    let told = id(ObjectKind::Port, &text).and_then(|id| Ok(state.leases(id)?));
    respond_and_log(told.map(|leases| Json(json!({"leases": leases.iter().map(Lease::of).collect::<Vec<_>>()}))))
}

fn with_nics(query: Option<&str>) -> Result<WithNics, ApiError> {
    let mut nics = WithNics::Refuse;
    for (key, value) in form(query.unwrap_or_default()) {
        nics = match (key.as_str(), value.to_ascii_lowercase().as_str()) {
            ("detach", "true" | "1" | "") => WithNics::Detach,
            ("detach", "false" | "0") => WithNics::Refuse,
            ("force", _) => nics,
            _ => {
                let given: String = format!("{key}={value}").escape_debug().take(64).collect();
                return Err(ApiError::Query(format!("'{given}' is not possible here; ?detach=true and ?force=true are")));
            }
        };
    }
    Ok(nics)
}

fn read_server(id: ServerId, body: &[u8]) -> Result<NewServer, BodyError> {
    let mut fields = Fields::envelope(body, "server")?;
    let name = fields.text("name", NAME)?.unwrap_or_default();
    let project_id = fields.text("project_id", NAME)?.unwrap_or_default();
    let nic_limit = match fields.value("nic_limit") {
        None | Some(Value::Null) => None,
        Some(value) => Some(number_in("nic_limit", &value, NIC_LIMIT)?),
    };
    let guest = fields.value("guest");
    let guest = match fields.required("guest", guest)? {
        Value::Null => NewGuest::AsIs,
        given => read_guest(Fields::object("guest", given)?)?,
    };
    fields.end()?;
    Ok(NewServer { id, name, project_id, guest, nic_limit })
}

fn number_in(name: &str, value: &Value, most: u32) -> Result<u32, BodyError> {
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok()).filter(|number| *number <= most);
    number.ok_or_else(|| wrong(name, value, &format!("a whole number from 0 to {most} is expected")))
}

fn read_guest(mut fields: Fields) -> Result<NewGuest, BodyError> {
    let kind = fields.text("kind", NAME)?;
    let guest = match fields.required("kind", kind)?.as_str() {
        "vm" => {
            let queues = fields.number("queues", 1..=u32::from(MAX_QUEUES))?.unwrap_or(1);
            let owner = match fields.value("owner") {
                None | Some(Value::Null) => Owner::default(),
                Some(owner) => read_owner(Fields::object("owner", owner)?)?,
            };
            let monitor = match fields.value("monitor") {
                None | Some(Value::Null) => None,
                Some(monitor) => Some(read_monitor(Fields::object("monitor", monitor)?)?),
            };
            NewGuest::Vm { queues: u16::try_from(queues).unwrap_or(MAX_QUEUES), owner, monitor }
        }
        "netns" => {
            let path = fields.text("path", PATH)?;
            let path = fields.required("path", path)?;
            if !path.starts_with('/') {
                return Err(wrong("path", &path.into(), "an absolute path such as /run/netns/NAME is expected"));
            }
            NewGuest::Netns(PathBuf::from(path))
        }
        other => return Err(wrong("kind", &other.into(), "vm or netns is expected")),
    };
    fields.end()?;
    Ok(guest)
}

fn read_monitor(mut fields: Fields) -> Result<Monitor, BodyError> {
    let qmp = fields.text("qmp", SOCKET_PATH)?;
    let qmp = fields.required("qmp", qmp)?;
    fields.end()?;
    if !qmp.starts_with('/') || qmp.len() > SOCKET_PATH {
        let right = format!("an absolute path of at most {SOCKET_PATH} octets is expected, such as /run/vm/web.qmp");
        return Err(wrong("qmp", &qmp.into(), &right));
    }
    Ok(Monitor { qmp: PathBuf::from(qmp) })
}

fn read_owner(mut fields: Fields) -> Result<Owner, BodyError> {
    // The last number is the kernel's "nobody in particular".
    let most = 0..=u32::MAX - 1;
    let owner = Owner { uid: fields.number("uid", most.clone())?, gid: fields.number("gid", most)? };
    fields.end()?;
    Ok(owner)
}

answer! {
    /// A server.
    pub(super) Shown(view: &ServerView) {
        /// The server's id.
        "id": view.server.id.to_string() => uuid(),
        /// Its name, which need not be unique.
        "name": view.server.name => words(),
        /// The project; nicd only stores it.
        "project_id": view.server.project_id => words(),
        /// What it is.
        "guest": guest(&view.server.guest) => either([VmShown::shape().into(), NetnsShown::shape().into()]),
        /// How many NICs it may have; null: as many as the configuration says.
        "nic_limit": view.server.nic_limit => or_null(number(0..=NIC_LIMIT)),
        /// When it became known.
        "created_at": view.server.created_at => time(),
        /// When it was last changed.
        "updated_at": view.server.updated_at => time(),
    }
}

answer! {
    /// A virtual machine.
    VmShown(queues: u16, owner: Option<&Owner>, monitor: Option<&Monitor>) {
        /// A virtual machine: its NICs are taps.
        "kind": "vm" => only("vm"),
        /// The queues of its taps.
        "queues": queues => number(1..=u32::from(MAX_QUEUES)),
        /// Who may open its taps; null: root.
        "owner": owner => or_null(Record::new().may("uid", "The user.", count()).may("gid", "The group.", count())),
        /// How NICs are plugged into it while it runs; null: they are not.
        "monitor": monitor.map(|monitor| json!({ "qmp": monitor.qmp }))
            => or_null(Record::new().must("qmp", "The socket on which QEMU serves QMP.", words())),
    }
}

answer! {
    /// A network namespace.
    NetnsShown(path: &path::Path) {
        /// A network namespace: its NICs are veths.
        "kind": "netns" => only("netns"),
        /// The namespace's file.
        "path": path => words(),
    }
}

fn guest(guest: &Guest) -> Value {
    match guest {
        Guest::Vm { queues, owner, monitor } => {
            VmShown::of(*queues, (*owner != Owner::default()).then_some(owner), monitor.as_ref())
        }
        Guest::Netns { path } => NetnsShown::of(path),
    }
}

answer! {
    /// The explanation of a port's status.
    pub(super) Explanation(port: &PortView, facts: &[Fact]) {
        /// The port's id.
        "port_id": port.port.id.to_string() => uuid(),
        /// Its status.
        "status": port.phase.status().as_str() => status(),
        /// Its phase.
        "phase": port.phase.as_str() => phase(),
        /// In the order in which they decide; the first that is not ok is the cause.
        "facts": facts => list(
            Record::new()
                .must("fact", "A stable word for it.", like("^[a-z_]+$"))
                .must("ok", "Whether it holds.", truth())
                .must("detail", "What was seen.", words())
        ),
    }
}

answer! {
    /// The counters of a port.
    pub(super) Counted(id: PortId, counters: &PortCounters) {
        /// The port's id.
        "port_id": id.to_string() => uuid(),
        /// What the guest sent.
        "from_guest": Counter::of(counters.from_guest) => Counter::shape(),
        /// What the guest received.
        "to_guest": Counter::of(counters.to_guest) => Counter::shape(),
        /// How many frames of the guest were dropped, by reason.
        "dropped": counters.dropped
            => DropReason::ALL.into_iter().fold(Record::new(), |record, reason| {
                record.must(reason.as_str(), "Frames that were dropped for this reason.", count())
            }),
        /// The last frames of the guest that were dropped.
        "last_dropped": counters.last_dropped.iter().map(Dropped::of).collect::<Vec<_>>() => list(Dropped::shape()),
    }
}

/// What guests say by DHCPv4 and DHCPv6.
const MESSAGES: [&str; 13] = [
    "discover",
    "request",
    "decline",
    "release",
    "inform",
    "solicit",
    "request6",
    "confirm",
    "renew",
    "rebind",
    "release6",
    "decline6",
    "information_request",
];

answer! {
    /// What a port's guest last asked by DHCP, and what became of it.
    pub(super) Lease(exchange: &Exchange) {
        /// The family of DHCP.
        "family": if exchange.address.is_ipv4() { "ipv4" } else { "ipv6" } => one_of_words(["ipv4", "ipv6"]),
        /// What became of it.
        "state": exchange.state.as_str() => one_of_words(LeaseState::ALL.map(LeaseState::as_str)),
        /// The address.
        "address": exchange.address.to_string() => ip(),
        /// The guest's last message.
        "message": exchange.message => one_of_words(MESSAGES),
        /// When it came.
        "at": exchange.at => time(),
        /// What the guest calls itself; null: nothing.
        "client_id": exchange.client_id => or_null(words()),
        /// The name that the guest asked for; null: none.
        "hostname": exchange.hostname => or_null(words()),
    }
}

answer! {
    /// What passed in one direction.
    Counter(traffic: Traffic) {
        /// Frames.
        "packets": traffic.packets => count(),
        /// Bytes.
        "bytes": traffic.bytes => count(),
    }
}

answer! {
    /// A frame that was dropped.
    Dropped(frame: &DroppedFrame) {
        /// When it was dropped.
        "at": frame.at => time(),
        /// Why.
        "reason": frame.reason => one_of_words(DropReason::ALL.map(DropReason::as_str)),
        /// The MAC that it came from.
        "src_mac": frame.src_mac => mac(),
        /// The address that it came from; null where it has none.
        "src_ip": frame.src_ip => or_null(ip()),
        /// Its ethertype.
        "ethertype": format!("{:#06x}", frame.ethertype) => like("^0x[0-9a-f]{4}$"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: Value) -> Result<NewServer, BodyError> {
        read_server(ServerId(uuid::Uuid::from_u128(1)), body.to_string().as_bytes())
    }

    #[test]
    fn both_kinds_are_read() {
        let vm = read(json!({"server": {"guest": {"kind": "vm", "queues": 4, "owner": {"uid": 107}}}})).unwrap();
        assert_eq!(vm.guest, NewGuest::Vm { queues: 4, owner: Owner { uid: Some(107), gid: None }, monitor: None });
        let vm = read(json!({"server": {"guest": {"kind": "vm", "monitor": {"qmp": "/run/a.qmp"}}}})).unwrap();
        let monitor = Some(Monitor { qmp: "/run/a.qmp".into() });
        assert_eq!(vm.guest, NewGuest::Vm { queues: 1, owner: Owner::default(), monitor });
        let netns = read(json!({"server": {"name": "a", "guest": {"kind": "netns", "path": "/run/netns/a"}}})).unwrap();
        assert_eq!(netns.guest, NewGuest::Netns("/run/netns/a".into()));
        assert_eq!(read(json!({"server": {"guest": null}})).unwrap().guest, NewGuest::AsIs);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for bad in [
            json!({}),
            json!({"server": {}}),
            json!({"server": {"guest": {}}}),
            json!({"server": {"guest": {"kind": "pod"}}}),
            json!({"server": {"guest": {"kind": "vm", "queues": 0}}}),
            json!({"server": {"guest": {"kind": "vm", "queues": 257}}}),
            json!({"server": {"guest": {"kind": "vm", "owner": {"uid": -1}}}}),
            json!({"server": {"guest": {"kind": "vm", "path": "/x"}}}),
            json!({"server": {"guest": {"kind": "vm", "monitor": {"qmp": "x"}}}}),
            json!({"server": {"guest": {"kind": "vm", "monitor": {"qmp": "/".repeat(108)}}}}),
            json!({"server": {"guest": {"kind": "vm", "monitor": {}}}}),
            json!({"server": {"guest": {"kind": "vm", "monitor": "/x"}}}),
            json!({"server": {"guest": {"kind": "netns", "path": "/x", "monitor": {"qmp": "/x"}}}}),
            json!({"server": {"guest": {"kind": "netns"}}}),
            json!({"server": {"guest": {"kind": "netns", "path": "x"}}}),
            json!({"server": {"guest": {"kind": "netns", "path": "/a\u{0}b"}}}),
            json!({"server": {"guest": {"kind": "vm"}, "nic_limit": "many"}}),
            json!({"server": {"guest": {"kind": "vm"}, "colour": "red"}}),
        ] {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
    }
}
