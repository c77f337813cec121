//! The agent's look at itself: what a request would do, what differs, what is left over.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::{Extension, Json};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::model::action::{Attach, DryRun};
use crate::model::{PortId, ServerId};
use crate::service::Leftovers;

use super::dialect::COMPUTE;
use super::error::ApiError;
use super::fields::{BodyError, Fields, wrong};
use super::listener::Caller;
use super::microversion::Microversion;
use super::{AppState, json_body, nova, respond_and_log};

pub(super) async fn plan(State(state): State<AppState>, headers: HeaderMap, body: Bytes) -> Response {
    let planned = || Ok(state.dry_run(&read_dry_run(json_body(&headers, &body)?)?)?);
    respond_and_log(planned().map(|plan| Json(json!({ "plan": plan }))))
}

pub(super) async fn verify(State(state): State<AppState>) -> Response {
    respond_and_log(state.verify().await.map(Json).map_err(ApiError::from))
}

pub(super) async fn gc(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let collected = async {
        let what = read_leftovers(json_body(&headers, &body)?)?;
        tracing::info!(request_id = %caller.request_id, ?what, "collecting leftovers");
        let service = state.clone();
        // The collection runs to its end, also when the client disconnects.
        Ok(state.to_its_end(async move { service.collect(what).await }).await??)
    };
    respond_and_log(collected.await.map(Json))
}

/// `{"server_id", "interfaceAttachment": {…}}`, as Nova's attach in its newest version, or `{"detach": "<port id>"}`.
fn read_dry_run(body: &[u8]) -> Result<DryRun, ApiError> {
    let mut top = Fields::top(body)?;
    let (server, attachment) = (top.parsed::<ServerId>("server_id")?, top.value("interfaceAttachment"));
    let detach = top.parsed::<PortId>("detach")?;
    top.end()?;
    match (server, attachment, detach) {
        (None, None, Some(port)) => Ok(DryRun::Detach(port)),
        (Some(server_id), Some(attachment), None) => {
            let mut asked = nova::asked(attachment, Microversion::MAX)?;
            let tag = asked.tag.take();
            Ok(DryRun::Attach(Attach { server_id, nic: asked.nic()?, second_on_network: COMPUTE.second_on_network, tag }))
        }
        _ => Err(BodyError::Top(
            "either 'server_id' and 'interfaceAttachment', or 'detach' with a port's id, is expected".to_owned(),
        )
        .into()),
    }
}

/// `{"apply": true}` removes; false, and nothing said, lists. `store` names another store than this nicd's.
fn read_leftovers(body: &[u8]) -> Result<Leftovers, BodyError> {
    let mut top = Fields::top(body)?;
    let (apply, store) = (top.value("apply"), top.parsed::<Uuid>("store")?);
    top.end()?;
    let remove = match apply {
        None | Some(Value::Bool(false)) => false,
        Some(Value::Bool(true)) => true,
        Some(other) => return Err(wrong("apply", &other, "true or false is expected")),
    };
    Ok(Leftovers { remove, store })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "ce531f90-199f-48c0-816c-13e38010b442";

    #[test]
    fn a_dry_run_is_an_attach_or_a_detach() {
        let detach = read_dry_run(json!({ "detach": ID }).to_string().as_bytes()).unwrap();
        assert_eq!(detach, DryRun::Detach(ID.parse().unwrap()));
        let attach = json!({"server_id": ID, "interfaceAttachment": {"net_id": ID}}).to_string();
        assert!(matches!(read_dry_run(attach.as_bytes()), Ok(DryRun::Attach(_))));
        for bad in [
            json!({}),
            json!({"server_id": ID}),
            json!({"interfaceAttachment": {}}),
            json!({"detach": "x"}),
            json!({"detach": null}),
            json!({"detach": ID, "server_id": ID, "interfaceAttachment": {}}),
            json!({"server_id": ID, "interfaceAttachment": {"net_id": ID, "port_id": ID}}),
            json!({"server_id": ID, "interfaceAttachment": {"colour": 1}}),
            json!({"detach": ID, "colour": 1}),
        ] {
            assert!(read_dry_run(bad.to_string().as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn nothing_is_removed_that_was_not_asked_for() {
        let read = |body: &str| read_leftovers(body.as_bytes());
        for lists in ["", "{}", r#"{"apply": false}"#] {
            assert_eq!(read(lists), Ok(Leftovers { remove: false, store: None }), "{lists}");
        }
        assert_eq!(read(r#"{"apply": true}"#), Ok(Leftovers { remove: true, store: None }));
        let of_store = format!(r#"{{"store": "{ID}"}}"#);
        assert_eq!(read(&of_store), Ok(Leftovers { remove: false, store: Some(ID.parse().unwrap()) }));
        for bad in
            [r#"{"apply": "true"}"#, r#"{"apply": 1}"#, r#"{"apply": null}"#, r#"{"aply": true}"#, r#"{"store": "x"}"#, "[]"]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
