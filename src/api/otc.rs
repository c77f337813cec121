//! OTC's own calls under `/v1`: NICs added and deleted by jobs, the jobs, and a server's NICs with what it may have more.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::str::FromStr;

use axum::Extension;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{RawPathParams, State};
use axum::http::HeaderMap;
use axum::response::Response;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::model::action::{Action, NewJob, NewNic, WantedNic};
use crate::model::{GroupId, Job, JobId, JobKind, JobStatus, NetworkId, NicChange, Origin, Part, PartState, PortId, ServerId};
use crate::service::{PortFilter, PortView, Reply};

use super::answer::answer;
use super::dialect::OTC;
use super::error::{ApiError, ObjectKind};
use super::fields::{BodyError, Fields, Ip, wrong};
use super::listener::Caller;
use super::nova::{Attachment, param, server_id};
use super::openapi::schema::{Record, like, list as list_of, null, number, one_of_words, or_null, time, truth, uuid, words};
use super::ports::ENTRIES;
use super::status::ecs_of;
use super::{AppState, context, id, json_body, respond, slip};

/// A request that a job is the answer to.
type Request = (State<AppState>, RawPathParams, Extension<Caller>, HeaderMap, Bytes);

pub(super) async fn add(request: Request) -> Response {
    start(request, JobKind::AddNics, asked_nic, Asked::change).await
}

pub(super) async fn delete(request: Request) -> Response {
    start(request, JobKind::DeleteNics, named_port, |port, _| Ok(NicChange::Delete(port))).await
}

/// Has a job accepted: `one` reads each of its NICs, and `change` makes the job's change of it.
async fn start<T>(
    (State(state), params, Extension(caller), headers, body): Request,
    kind: JobKind,
    one: fn(Fields) -> Result<Entry<T>, BodyError>,
    change: fn(T, &AppState) -> Result<NicChange, ApiError>,
) -> Response {
    let accepted = async {
        let nics = read(json_body(&headers, &body)?, one)?;
        let server_id = server_id(&params)?;
        state.server(server_id)?;
        let changes = nics.into_iter().map(|nic| change(nic, &state)).collect::<Result<_, _>>()?;
        match state.perform(Action::StartJob(NewJob { server_id, kind, changes }), context(&caller)).await? {
            Reply::Job(job) => Ok(Json(accepted(job.id))),
            _ => Err(slip()),
        }
    };
    respond(accepted.await, OTC)
}

/// The answer to a request for a job.
pub(super) fn accepted(job: JobId) -> Value {
    json!({"job_id": job_id(job)})
}

pub(super) async fn job(State(state): State<AppState>, params: RawPathParams) -> Response {
    let found = id(ObjectKind::Job, param(&params, "job")).and_then(|id| Ok(state.job(id)?));
    respond(found.map(|job| Json(Shown::of(&job))), OTC)
}

pub(super) async fn list(State(state): State<AppState>, params: RawPathParams) -> Response {
    let listed = server_id(&params).and_then(|server| {
        let free = state.free_nics(server)?;
        let ports = state.ports(PortFilter { server: Some(server), ..PortFilter::default() });
        Ok(Json(listing(&ports, free)))
    });
    respond(listed, OTC)
}

/// A server's NICs, and how many it may have more.
pub(super) fn listing(ports: &[PortView], free: u32) -> Value {
    json!({
        "attachableQuantity": Quantity::of(free),
        "interfaceAttachments": ports.iter().map(interface).collect::<Vec<_>>(),
    })
}

/// What one entry asks for, and what no other entry may ask for.
type Entry<T> = (T, Option<String>);

/// The `nics` of a body: at least one, and none that names what another one names.
fn read<T>(body: &[u8], one: fn(Fields) -> Result<Entry<T>, BodyError>) -> Result<Vec<T>, BodyError> {
    let mut top = Fields::top(body)?;
    let nics = top.list("nics", ENTRIES)?;
    let nics = top.required("nics", nics)?;
    top.end()?;
    if nics.is_empty() {
        return Err(wrong("nics", &Value::Array(Vec::new()), "[] is too short: at least one entry is expected"));
    }
    let (mut all, mut named) = (Vec::with_capacity(nics.len()), BTreeSet::new());
    for (name, value) in nics {
        let (asked, names) = one(Fields::object(&name, value.clone())?)?;
        if names.is_some_and(|it| !named.insert(it)) {
            return Err(wrong(&name, &value, "another entry asks for the same; ask for it once"));
        }
        all.push(asked);
    }
    Ok(all)
}

/// A NIC to add, as asked.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    nic: WantedNic,
    /// Whether the NIC is to have an IPv6 address; none where nothing is said.
    ipv6: Option<bool>,
}

/// Reads a NIC to add: no other entry may name its port or its address.
fn asked_nic(mut fields: Fields) -> Result<Entry<Asked>, BodyError> {
    let (network, port) = (fields.parsed::<NetworkId>("subnet_id")?, fields.parsed::<PortId>("port_id")?);
    let address = fields.parsed::<Ip>("ip_address")?.map(|Ip(address)| address);
    let ipv6 = fields.truth("ipv6_enable")?;
    let groups = fields.list_or_null("security_groups", ENTRIES)?;
    let groups: Option<BTreeSet<GroupId>> =
        groups.map(|all| all.into_iter().map(|(at, one)| only_id(Fields::object(&at, one)?)).collect()).transpose()?;
    fields.only("ipv6_bandwidth", &[Value::Null])?;
    fields.only_truth("efi_enable", false)?;
    let (nic, names) = match (network, port) {
        (Some(_), Some(_)) => return Err(fields.refused("it has both subnet_id and port_id; give one of them")),
        (None, None) => return Err(fields.refused("it has neither subnet_id nor port_id; give one of them")),
        (None, Some(_)) if address.is_some() || ipv6.is_some() || groups.is_some() => {
            return Err(fields.refused(
                "a port has its addresses and groups already; leave ip_address, ipv6_enable and security_groups out beside port_id",
            ));
        }
        (None, Some(port)) => (WantedNic::Port(port), Some(port.to_string())),
        (Some(network), None) => {
            let names = address.map(|address| format!("{network} {address}"));
            (WantedNic::OnNetwork(network, NewNic { address, groups }), names)
        }
    };
    fields.end()?;
    Ok((Asked { nic, ipv6 }, names))
}

/// Reads a NIC to delete.
fn named_port(fields: Fields) -> Result<Entry<PortId>, BodyError> {
    let port = only_id::<PortId>(fields)?;
    Ok((port, Some(port.to_string())))
}

/// Reads an object that has an id and nothing else.
fn only_id<T: FromStr<Err: Display>>(mut fields: Fields) -> Result<T, BodyError> {
    let id = fields.parsed("id")?;
    let id = fields.required("id", id)?;
    fields.end()?;
    Ok(id)
}

impl Asked {
    /// What it changes. A NIC gets an address of each family that its network has, unless it asks for one: `ipv6_enable` may say that, and
    /// nothing else.
    fn change(self, state: &AppState) -> Result<NicChange, ApiError> {
        if let (Some(ipv6), WantedNic::OnNetwork(network, NewNic { address, .. })) = (self.ipv6, &self.nic) {
            let view = state.network(*network)?;
            let of_network = || view.subnets.iter().any(|id| state.subnet(*id).is_ok_and(|subnet| subnet.cidr.is_ipv6()));
            if ipv6 != address.map_or_else(of_network, |address| address.is_ipv6()) {
                let why = match (ipv6, address) {
                    (true, Some(address)) => {
                        format!("the NIC gets {address} alone, as asked; leave ip_address out for both families")
                    }
                    (true, None) => format!("network {network} has no IPv6 subnet; add one first, or leave it out"),
                    (false, _) => {
                        format!("network {network} has an IPv6 subnet, from which the NIC gets an address; leave it out")
                    }
                };
                return Err(wrong("ipv6_enable", &Value::Bool(ipv6), &why).into());
            }
        }
        Ok(NicChange::Add(self.nic))
    }
}

/// A job's id as OTC writes it.
fn job_id(job: JobId) -> String {
    job.0.simple().to_string()
}

/// A time as OTC writes it.
fn moment(at: Option<Timestamp>) -> Option<String> {
    at.map(|at| at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string())
}

fn statuses() -> impl Iterator<Item = &'static str> {
    JobStatus::ALL.into_iter().map(JobStatus::as_str)
}

/// What a part is called, as its job is called by `addNics` and `deleteNics`.
fn part_type(kind: JobKind) -> &'static str {
    match kind {
        JobKind::AddNics => "addNic",
        JobKind::DeleteNics => "deleteNic",
    }
}

/// The code and the sentence of a part that failed.
fn failure(part: &Part) -> (Option<&'static str>, Option<&str>) {
    match &part.state {
        PartState::Failed { reason, message } => (Some(ecs_of(reason)), Some(message)),
        PartState::Waiting | PartState::Done(_) => (None, None),
    }
}

/// The first failure of a job that has ended.
fn first_failure(job: &Job) -> (Option<&'static str>, Option<&str>) {
    let failed = job.parts.iter().map(failure).find(|(code, _)| code.is_some());
    failed.filter(|_| job.status() == JobStatus::Fail).unwrap_or_default()
}

answer! {
    /// A job.
    pub(super) Shown(job: &Job) {
        /// How far it is. A job has failed when all of its parts have ended and one has failed.
        "status": job.status().as_str() => one_of_words(statuses()),
        /// Its server and its parts.
        "entities": Entities::of(job) => Entities::shape(),
        /// Its id.
        "job_id": job_id(job.id) => like("^[0-9a-f]{32}$"),
        /// What it does.
        "job_type": match job.kind { JobKind::AddNics => "addNics", JobKind::DeleteNics => "deleteNics" }
            => one_of_words(["addNics", "deleteNics"]),
        /// When it was accepted.
        "begin_time": moment(Some(job.begun_at)) => time(),
        /// When its last part ended; null before.
        "end_time": moment(job.ended_at) => or_null(time()),
        /// The code of the first part that failed; null where none has.
        "error_code": first_failure(job).0 => or_null(words()),
        /// Why that part failed; null where none has.
        "fail_reason": first_failure(job).1 => or_null(words()),
    }
}

answer! {
    /// What a job is about.
    Entities(job: &Job) {
        /// The server.
        "server_id": job.server_id.to_string() => uuid(),
        /// The NIC of a job with one part, as far as it is known.
        "nic_id": match job.parts.as_slice() { [part] => part.port().map(|port| port.to_string()), _ => None } => or_null(uuid()),
        /// How many parts it has.
        "sub_jobs_total": job.parts.len() => number(1..=64),
        /// Its parts: one for each NIC.
        "sub_jobs": job.parts.iter().map(|part| SubJob::of(part, job)).collect::<Vec<_>>() => list_of(SubJob::shape()),
    }
}

answer! {
    /// A part of a job.
    SubJob(part: &Part, job: &Job) {
        /// How far it is.
        "status": part.status().as_str() => one_of_words(statuses()),
        /// Its server and its NIC.
        "entities": PartEntities::of(part, job.server_id) => PartEntities::shape(),
        /// Its id.
        "job_id": job_id(part.id) => like("^[0-9a-f]{32}$"),
        /// What it does.
        "job_type": part_type(job.kind) => one_of_words(["addNic", "deleteNic"]),
        /// When it was begun; null before.
        "begin_time": moment(part.begun_at) => or_null(time()),
        /// When it ended; null before.
        "end_time": moment(part.ended_at) => or_null(time()),
        /// The code with which it failed; null where it has not.
        "error_code": failure(part).0 => or_null(words()),
        /// Why it failed; null where it has not.
        "fail_reason": failure(part).1 => or_null(words()),
    }
}

answer! {
    /// What a part of a job is about.
    PartEntities(part: &Part, server: ServerId) {
        /// The server.
        "server_id": server.to_string() => uuid(),
        /// The port that was attached or detached; null while it is not known.
        "nic_id": part.port().map(|port| port.to_string()) => or_null(uuid()),
        /// Why it failed; null where it has not.
        "errorcode_message": failure(part).1 => or_null(words()),
    }
}

answer! {
    /// What a server may have more.
    pub(super) Quantity(free: u32) {
        /// So many NICs.
        "free_nic": free => number(0..=u32::MAX),
        /// Always 0.
        "free_efi_nic": 0 => number(0..=0),
    }
}

answer! {
    /// What OTC shows of a NIC beside what Nova shows.
    Beside(view: &PortView) {
        /// Whether a detach deletes the port.
        "delete_on_termination": view.port.origin == Origin::Attach => truth(),
        /// Always null.
        "driver_mode": Value::Null => null(),
        /// Always null.
        "min_rate": Value::Null => null(),
        /// The queues of its tap; null for a namespace's NIC.
        "multiqueue_num": view.binding.as_ref().and_then(|binding| binding.tap).map(|tap| tap.queues) => or_null(number(1..=256)),
        /// Its PCI address in a machine that nicd has plugged it into; else null.
        "pci_address": view.binding.as_ref().and_then(|binding| binding.nic.as_ref()).and_then(|nic| nic.pci_address.clone())
            => or_null(words()),
    }
}

/// A NIC as OTC shows it.
fn interface(view: &PortView) -> Value {
    let (mut shown, beside) = (Attachment::of(view), Beside::of(view));
    if let (Some(shown), Value::Object(beside)) = (shown.as_object_mut(), beside) {
        shown.extend(beside);
    }
    shown
}

/// The same in the document.
pub(super) fn interface_shape() -> Record {
    Attachment::shape().and(Beside::shape())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORK: &str = "3cb9bc59-5699-4588-a4b1-b87f96708bc6";

    fn asked(nics: &Value) -> Result<Vec<Asked>, BodyError> {
        read(json!({"nics": nics}).to_string().as_bytes(), asked_nic)
    }

    #[test]
    fn nics_are_on_networks_or_are_ports() {
        let on = |new| WantedNic::OnNetwork(NETWORK.parse().unwrap(), new);
        let given = json!([{"subnet_id": NETWORK}, {"subnet_id": NETWORK, "ip_address": "10.0.0.5", "ipv6_enable": "false",
            "efi_enable": false}, {"port_id": NETWORK}, {"subnet_id": NETWORK},
            {"subnet_id": NETWORK, "security_groups": [{"id": NETWORK}, {"id": NETWORK}]}, {"subnet_id": NETWORK, "security_groups": []},
            {"subnet_id": NETWORK, "security_groups": null}]);
        let read = asked(&given).unwrap();
        assert_eq!(read[0], Asked { nic: on(NewNic::default()), ipv6: None });
        let address = "10.0.0.5".parse().ok();
        assert_eq!(read[1], Asked { nic: on(NewNic { address, groups: None }), ipv6: Some(false) });
        assert_eq!(read[2].nic, WantedNic::Port(NETWORK.parse().unwrap()));
        let group: GroupId = NETWORK.parse().unwrap();
        for (at, groups) in [(4, BTreeSet::from([group])), (5, BTreeSet::new()), (6, BTreeSet::new())] {
            assert_eq!(read[at].nic, on(NewNic { address: None, groups: Some(groups) }));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for bad in [
            json!([]),
            json!({}),
            json!([{}]),
            json!([1]),
            json!([{"subnet_id": "x"}]),
            json!([{"subnet_id": NETWORK, "port_id": NETWORK}]),
            json!([{"port_id": NETWORK, "ip_address": "10.0.0.5"}]),
            json!([{"port_id": NETWORK, "security_groups": []}]),
            json!([{"subnet_id": NETWORK, "security_groups": [NETWORK]}]),
            json!([{"subnet_id": NETWORK, "security_groups": [{"id": "web"}]}]),
            json!([{"subnet_id": NETWORK, "security_groups": [{"id": NETWORK, "name": "web"}]}]),
            json!([{"subnet_id": NETWORK, "security_groups": NETWORK}]),
            json!([{"port_id": NETWORK}, {"port_id": NETWORK}]),
            json!([{"subnet_id": NETWORK, "ip_address": "fd00::5"}, {"subnet_id": NETWORK, "ip_address": "fd00:0::5"}]),
            json!([{"subnet_id": NETWORK, "ip_address": "10.0.0"}]),
            json!([{"subnet_id": NETWORK, "colour": "red"}]),
            json!([{"subnet_id": NETWORK, "ipv6_enable": "maybe"}]),
            json!(vec![json!({"subnet_id": NETWORK}); ENTRIES + 1]),
        ] {
            let error = asked(&bad).unwrap_err();
            assert_ne!(error.reason(), "not_built", "{bad}");
        }
        for (unbuilt, value) in [("ipv6_bandwidth", json!({})), ("efi_enable", json!(true))] {
            let error = asked(&json!([{"subnet_id": NETWORK, unbuilt: value}])).unwrap_err();
            assert_eq!(error.reason(), "not_built", "{unbuilt}");
        }
        assert!(read(br#"{"nics": [{"id": "x"}]}"#, named_port).is_err());
        assert!(read(b"{}", named_port).is_err());
    }
}
