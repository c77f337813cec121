//! Neutron's bindings of a port (`binding-extended`), by which it moves from host to host of a fleet.
//!
//! A port is active on one host. Others have inactive bindings: silent devices, made beforehand or left over.

use axum::body::Bytes;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::{Value, json};

use crate::model::PortId;
use crate::model::action::Action;
use crate::service::{Error, PortView, Reply};

use super::agent::NAME;
use super::answer::answer;
use super::dialect::NETWORK;
use super::elsewhere::{is_passed_on, pass_to, shown_elsewhere};
use super::error::{ApiError, ObjectKind};
use super::fields::{Fields, wrong};
use super::listener::Caller;
use super::openapi::schema::{Record, one_of_words, only, or_null, text, words};
use super::ports::{details, profile, read_profile, vif};
use super::{AppState, context, id, json_body, respond, slip};

answer! {
    /// A port's binding on a host.
    pub(super) Shown(view: &PortView, vif: (&str, Value)) {
        /// The host.
        "host": view.host => words(),
        /// How the NIC is given to the guest there.
        "vif_type": vif.0 => one_of_words(["tap", "veth", "vlan", "unbound"]),
        /// The device there.
        "vif_details": vif.1 => details(),
        /// Always normal.
        "vnic_type": "normal" => only("normal"),
        /// What its NIC is built with.
        "profile": view.port.profile => profile(),
        /// Whether the port is active there: on one host at any time.
        "status": if view.port.standby.is_none() { "ACTIVE" } else { "INACTIVE" } => one_of_words(["ACTIVE", "INACTIVE"]),
    }
}

fn shown(view: &PortView) -> Value {
    Shown::of(view, vif(view))
}

fn wrapped(view: &PortView) -> Json<Value> {
    Json(json!({ "binding": shown(view) }))
}

pub(super) async fn list(State(state): State<AppState>, Path(port): Path<String>) -> Response {
    let listed = async {
        let all = state.bindings(id(ObjectKind::Port, &port)?).await?;
        Ok(Json(json!({ "bindings": all.iter().map(shown).collect::<Vec<_>>() })))
    };
    respond(listed.await, NETWORK)
}

pub(super) async fn show(State(state): State<AppState>, Path((port, host)): Path<(String, String)>) -> Response {
    let found = async {
        let port = id(ObjectKind::Port, &port)?;
        let binding = state.bindings(port).await?.into_iter().find(|view| view.host == host);
        Ok(wrapped(&binding.ok_or(Error::NoSuchBinding { port, host })?))
    };
    respond(found.await, NETWORK)
}

pub(super) async fn create(
    State(state): State<AppState>,
    Path(port): Path<String>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let made = async {
        let port = id(ObjectKind::Port, &port)?;
        let mut fields = Fields::envelope(json_body(&headers, &body)?, "binding")?;
        let host = fields.text("host", NAME)?;
        let host = fields.required("host", host)?;
        fields.only("vnic_type", &["normal".into()])?;
        let profile = read_profile(&mut fields, "profile")?;
        fields.end()?;
        let own = state.port(port)?.port.profile;
        if let Some(other) = profile.filter(|profile| *profile != own) {
            return Err(wrong("profile", &json!(other), "the port's own profile, or none, is expected").into());
        }
        let call = state.call_to_prepare(port, &host, caller.id.to_string()).await?;
        let answer = state.call(&host, &call).await?;
        Ok(shown_elsewhere(answer, |view| (StatusCode::CREATED, wrapped(view)).into_response()))
    };
    respond(made.await, NETWORK)
}

pub(super) async fn activate(
    State(state): State<AppState>,
    Path((port, host)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
) -> Response {
    let moved = async {
        let action = Action::Activate(id(ObjectKind::Port, &port)?, host);
        match state.perform(action, context(&caller)).await? {
            Reply::Port(view) => Ok(wrapped(&view)),
            _ => Err(slip()),
        }
    };
    respond(moved.await, NETWORK)
}

pub(super) async fn delete(
    State(state): State<AppState>,
    Path((port, host)): Path<(String, String)>,
    request: Request,
) -> Response {
    let deleted = async {
        let port: PortId = id(ObjectKind::Port, &port)?;
        if host != state.host() && !is_passed_on(&request) {
            state.host_named(&host).await?;
            return pass_to(&state, &host, request).await;
        }
        let caller = request.extensions().get::<Caller>().ok_or_else(slip)?;
        if host != state.host() || state.port(port).is_err() {
            return Err(ApiError::from(Error::NoSuchBinding { port, host }));
        }
        state.perform(Action::DeleteBinding(port), context(caller)).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    };
    respond(deleted.await, NETWORK)
}

/// The body of a request for a binding.
pub(super) fn wanted() -> Record {
    Record::new().must("host", "The host.", text(NAME)).may("vnic_type", "Always normal.", only("normal")).may(
        "profile",
        "The port's own, or null.",
        or_null(profile()),
    )
}
