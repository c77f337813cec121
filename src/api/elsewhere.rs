//! Requests about a port or a server of another host of the fleet: they are carried out there, and answered here.
//!
//! A port is shown and listed by what its host has told of it, also while that one is silent.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{OriginalUri, Request, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE, IF_MATCH, LOCATION};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use serde_json::{Value, json};
use tower::ServiceExt;
use uuid::Uuid;

use crate::model::action::{Action, CallRef};
use crate::model::idempotency::CallerId;
use crate::model::{NetworkId, PortId, ServerId};
use crate::service::{self, Answer, Asks, Call, Context, NewPortOfCall, PassedRequest, PortView, Reply};

use super::dialect::{Dialect, NETWORK};
use super::error::ApiError;
use super::listener::{Caller, RequestId};
use super::{AppState, error, status};

/// The longest body of a request or an answer that goes between hosts, in bytes: etcd takes no longer values.
const LONGEST: usize = 1 << 20;

/// How soon it is tried again to have a port that was handed over.
const TAKE_AGAIN: Duration = Duration::from_secs(1);

/// What is passed on of a request's headers, and of an answer's.
const PASSED: [HeaderName; 7] = [
    ACCEPT,
    CONTENT_TYPE,
    IF_MATCH,
    LOCATION,
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("openstack-api-version"),
    HeaderName::from_static("x-openstack-nova-api-version"),
];

/// The mark of a request that another host has passed on: it goes no further.
#[derive(Debug, Clone, Copy)]
struct PassedOn;

/// Has a request carried out where its port or server is.
pub(super) async fn pass_on(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let about = subject(request.method(), request.uri().path()).filter(|_| !is_passed_on(&request) && state.is_in_fleet());
    let Some(id) = about.filter(|id| !state.has_here(*id)) else { return next.run(request).await };
    let dialect = Dialect::of(request.uri().path());
    match state.host_of(id).await {
        Ok(Some(host)) => match ask(&state, &host, request).await {
            Ok(answer) => response(answer),
            Err(error) => error::answer_and_log(&error, dialect),
        },
        Ok(None) if *request.method() == Method::DELETE => match state.withdraw(PortId(id)).await {
            Ok(true) => {
                let mut withdrawn = Response::new(Body::empty());
                *withdrawn.status_mut() = StatusCode::NO_CONTENT;
                withdrawn
            }
            Ok(false) => next.run(request).await,
            Err(error) => error::answer_and_log(&error.into(), dialect),
        },
        Ok(None) => next.run(request).await,
        Err(error) => error::answer_and_log(&error.into(), dialect),
    }
}

/// Whether another host has passed a request on.
pub(super) fn is_passed_on(request: &Request) -> bool {
    request.extensions().get::<PassedOn>().is_some()
}

/// Has another host carry a request out.
pub(super) async fn pass_to(state: &AppState, host: &str, request: Request) -> Result<Response, ApiError> {
    ask(state, host, request).await.map(response)
}

/// What is shown of a port for which another host has carried out a step, or that one's refusal.
pub(super) fn shown_elsewhere(answer: Answer, show: impl FnOnce(&PortView) -> Response) -> Response {
    match serde_json::from_str(&answer.body) {
        Ok(view) if answer.status == StatusCode::OK.as_u16() => show(&view),
        _ => response(answer),
    }
}

/// The port or server that a request is about, if it is to be carried out where that is. A server is registered at the host that is asked.
fn subject(method: &Method, path: &str) -> Option<Uuid> {
    let parts: Vec<&str> = path.split('/').collect();
    let at = parts.iter().position(|part| matches!(*part, "servers" | "cloudservers" | "ports"))?;
    let id = parts.get(at + 1)?.trim_end_matches(".json").parse().ok()?;
    let is_port = parts[at] == "ports";
    let is_last = parts.len() == at + 2;
    // A binding is removed by the host that it is of.
    let is_binding = is_port && parts.get(at + 2) == Some(&"bindings");
    let is_here = match *method {
        Method::GET => is_port && (is_last || is_binding),
        Method::DELETE => is_binding,
        Method::PUT => !is_port && is_last,
        _ => false,
    };
    (!is_here).then_some(id)
}

async fn ask(state: &AppState, host: &str, request: Request) -> Result<Answer, ApiError> {
    let (head, body) = request.into_parts();
    let caller = head.extensions.get::<Caller>().cloned();
    let body = to_bytes(body, LONGEST).await.map_err(|_| ApiError::BodyTooLarge { limit: LONGEST })?;
    // A handler sees its path without its prefix.
    let uri = head.extensions.get::<OriginalUri>().map_or(&head.uri, |whole| &whole.0);
    let path = uri.path_and_query().map_or_else(|| uri.path().to_owned(), ToString::to_string);
    let makes = (head.method == Method::POST).then(|| new_port(head.uri.path(), &body)).flatten();
    let request = service::PassedRequest {
        method: head.method.to_string(),
        path,
        headers: passed(&head.headers),
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    let (who, request_id) = caller.map(|caller| (named(&caller.id), caller.request_id.0)).unzip();
    let call = state.new_call(who.unwrap_or_default(), request_id, request, makes);
    Ok(state.call(host, &call).await?)
}

/// A client as it is known at the other host: by the name in its certificate, which is the same at each.
fn named(caller: &CallerId) -> String {
    match caller {
        CallerId::Client(name) => name.to_string(),
        CallerId::Uid(_) => caller.to_string(),
    }
}

/// The port that an attach makes.
fn new_port(path: &str, body: &[u8]) -> Option<NewPortOfCall> {
    let server = subject(&Method::POST, path).map(ServerId)?;
    let body: Value = serde_json::from_slice(body).ok()?;
    let asked = ["interfaceAttachment", "virtual_interface"].iter().find_map(|key| body.get(key))?;
    if asked.get("port_id").is_some_and(|port| !port.is_null()) {
        return None;
    }
    let network = ["net_id", "network_id"].iter().find_map(|key| asked.get(key)?.as_str()?.parse().ok()).map(NetworkId);
    Some(NewPortOfCall { server, network })
}

fn passed(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |name: &HeaderName| Some((name.to_string(), headers.get(name)?.to_str().ok()?.to_owned()));
    PASSED.iter().filter_map(text).collect()
}

fn response(answer: Answer) -> Response {
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(status::UNREADABLE);
    for (name, value) in answer.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// Carries out what other hosts pass on, as long as there is somebody who does.
pub async fn carry_out(state: AppState, router: Router) {
    while let Some(call) = state.next_call().await {
        tokio::spawn(carry_out_one(state.clone(), router.clone(), call));
    }
}

async fn carry_out_one(state: AppState, router: Router, call: Call) {
    let Asks::Request { request: passed, makes } = &call.asks else { return carry_out_step(&state, &call).await };
    let answered = match request(&call, passed, *makes) {
        Some(request) => {
            let Ok(answered) = router.oneshot(request).await;
            answered
        }
        None => error::answer(&ApiError::Malformed, Dialect::of(&passed.path)),
    };
    let answer = match read(answered).await {
        Some(answer) => answer,
        None => {
            let refusal = service::Error::Busy("the answer is too long to be passed on to another host; ask this one").into();
            // nicd's own errors are short.
            read(error::answer(&refusal, Dialect::of(&passed.path))).await.unwrap_or_default()
        }
    };
    state.answer_call(&call, &answer).await;
}

/// A step of moving a port.
async fn carry_out_step(state: &AppState, call: &Call) {
    let context = || Context { request_id: call.request_id.map(|id| id.to_string()), ..Context::default() };
    let reply = match &call.asks {
        Asks::Request { .. } => return,
        Asks::Prepare(prepare) => state.perform(Action::Prepare(prepare.clone()), context()).await,
        // The port is this host's by now: it is tried until it is.
        Asks::Take(handed) => loop {
            match state
                .perform(
                    Action::Take(handed.clone(), CallRef { from: call.from.clone(), id: call.id, made: call.made }),
                    context(),
                )
                .await
            {
                Err(service::Error::Stopping) => return,
                // It is carried out already, or is nothing any more.
                Ok(Reply::Done) => break Ok(Reply::Done),
                Err(_) => tokio::time::sleep(TAKE_AGAIN).await,
                reply => break reply,
            }
        },
    };
    let answer = match reply {
        Ok(Reply::Port(view)) => Answer::new(StatusCode::OK.as_u16(), Vec::new(), json!(view).to_string()),
        Ok(_) => Answer::new(StatusCode::NO_CONTENT.as_u16(), Vec::new(), String::new()),
        Err(error) => read(error::answer(&error.into(), NETWORK)).await.unwrap_or_default(),
    };
    state.answer_call(call, &answer).await;
}

/// An answer as it is passed on; none where it is too long.
async fn read(answered: Response) -> Option<Answer> {
    let (head, body) = answered.into_parts();
    let body = to_bytes(body, LONGEST).await.ok()?;
    Some(Answer::new(head.status.as_u16(), passed(&head.headers), String::from_utf8_lossy(&body).into_owned()))
}

/// The request that a call is. One that makes something has an idempotency key, so that it makes it once.
fn request(call: &Call, passed: &PassedRequest, makes: Option<NewPortOfCall>) -> Option<Request> {
    let mut request = Request::builder().method(passed.method.as_str()).uri(passed.path.as_str());
    for (name, value) in &passed.headers {
        request = request.header(name, value);
    }
    let has_key = passed.headers.iter().any(|(name, _)| name == "idempotency-key");
    if passed.method == "POST" && !has_key {
        request = request.header("idempotency-key", format!("call {}", call.id));
    }
    let mut request = request.body(Body::from(Bytes::from(passed.body.clone()))).ok()?;
    // Alike whichever host was asked: a client that repeats a request at another one has it done once.
    let id = CallerId::Client(call.caller.as_str().into());
    let request_id = call.request_id.map_or_else(RequestId::draw, RequestId);
    let makes = makes.map(|_| PortId(call.id));
    request.extensions_mut().insert(Caller { id, request_id, key: None, makes });
    request.extensions_mut().insert(PassedOn);
    Some(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_about_the_server_or_port_in_its_path() {
        let id = "4d8c3732-a248-40ed-bebc-539a6ffd25c0";
        let about = |method, path: &str| subject(&method, &path.replace("ID", id)).map(|id| id.to_string());
        for (method, path) in [
            (Method::POST, "/v2.1/servers/ID/os-interface"),
            (Method::GET, "/v2.1/p/servers/ID"),
            (Method::POST, "/v1/p/cloudservers/ID/nics"),
            (Method::DELETE, "/v2.0/ports/ID"),
            (Method::GET, "/nicd/v1/ports/ID/explain"),
            (Method::DELETE, "/nicd/v1/servers/ID"),
        ] {
            assert_eq!(about(method, path).as_deref(), Some(id), "{path}");
        }
        for (method, path) in [
            (Method::PUT, "/nicd/v1/servers/ID"),
            (Method::GET, "/v2.0/ports/ID"),
            (Method::GET, "/v2.0/networks/ID"),
            (Method::GET, "/v2.1/servers/detail"),
            (Method::GET, "/v2.0/ports"),
        ] {
            assert_eq!(about(method, path), None, "{path}");
        }
    }

    #[test]
    fn an_attach_that_makes_a_port_is_told_from_one_of_a_port() {
        let (server, other) = ("4d8c3732-a248-40ed-bebc-539a6ffd25c0", "3cb9bc59-5699-4588-a4b1-b87f96708bc6");
        let made = |body: &str| new_port(&format!("/v2.1/servers/{server}/os-interface"), body.as_bytes());
        let wanted = NewPortOfCall { server: server.parse().unwrap(), network: Some(other.parse().unwrap()) };
        assert_eq!(made(&format!(r#"{{"interfaceAttachment": {{"net_id": "{other}"}}}}"#)), Some(wanted));
        assert_eq!(made(r#"{"interfaceAttachment": {}}"#), Some(NewPortOfCall { network: None, ..wanted }));
        assert_eq!(made(&format!(r#"{{"interfaceAttachment": {{"port_id": "{other}"}}}}"#)), None);
        assert_eq!(made("{"), None);
    }
}
