//! The HTTP API: listeners, dialects and routes.
//!
//! ```text
//!   socket ─► listener (peer, limits, ids) ─► a dialect: body → Action ─► service
//!                                             a dialect: Reply → body ◄──┘
//! ```
//!
//! A dialect parses requests and renders replies; it decides nothing. Only `api/status.rs` has status codes.

mod absent;
mod agent;
mod answer;
mod bindings;
pub mod dialect;
mod elsewhere;
pub mod error;
mod extensions;
mod fields;
mod flavors;
mod groups;
mod hosts;
mod idempotency;
mod json;
mod links;
pub mod listener;
mod listing;
mod maintenance;
pub mod metrics;
mod microversion;
mod networks;
mod nova;
mod openapi;
mod otc;
mod ports;
mod quotas;
mod rackspace;
mod replay;
mod resource;
mod routes;
pub mod socket;
mod status;
mod stream;
mod subnets;
mod trunks;
mod versions;

use std::str::FromStr;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{OriginalUri, Request};
use axum::http::header::{ALLOW, CONTENT_TYPE};
use axum::http::{HeaderMap, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};

use crate::service::{Context, Service};

use dialect::Dialect;
use error::{ApiError, ObjectKind};
use fields::BodyError;
use listener::Caller;
use routes::Layers;

pub use elsewhere::carry_out;

/// The state that every handler gets.
pub(crate) type AppState = Arc<Service>;

/// All routes of the contract over one service.
pub fn router(service: AppState) -> Router {
    let idempotent = middleware::from_fn_with_state(service.clone(), idempotency::replay_or_run);
    let mut app = Router::new();
    for group in routes::groups() {
        let served = group.routes.into_iter().fold(Router::new(), |served, route| served.route(route.path, route.serve));
        let served = match group.layers {
            Layers::None => served,
            Layers::Idempotent => served.layer(idempotent.clone()),
            Layers::IdempotentVersioned => served.layer(idempotent.clone()).layer(middleware::from_fn(microversion::speak)),
        };
        for prefix in group.prefixes {
            app = match prefix.is_empty() {
                true => app.merge(served.clone()),
                false => app.nest(prefix, served.clone()),
            };
        }
    }
    let elsewhere = middleware::from_fn_with_state(service.clone(), elsewhere::pass_on);
    let app = app.fallback(no_route).layer(elsewhere).layer(middleware::from_fn(finish)).with_state(service);
    // This layer is outside the router, because a layer inside runs only after the route was chosen.
    Router::new().fallback_service(app).layer(middleware::from_fn(without_ending))
}

/// Answers every request with why the daemon cannot start.
pub fn refusing(why: &str) -> Router {
    let refusal = ApiError::CannotStart(why.to_owned());
    Router::new().fallback(move |request: Request| async move {
        error::error_answer(&refusal, Dialect::of(request.uri().path())).response(Dialect::of(request.uri().path()))
    })
}

/// Removes a slash at the end of a path, as Nova and Neutron do (the `/?$` of Python's routes). Version documents keep theirs. On
/// the cloud dialects' routes it also removes `.json`, with which older clients select the format.
async fn without_ending(mut request: Request, next: Next) -> Response {
    let uri = request.uri();
    let path = uri.path();
    let clouds = !path.starts_with("/nicd/");
    let bare = path.strip_suffix('/').or_else(|| path.strip_suffix(".json").filter(|_| clouds));
    // A path with one segment is a version document, except Rackspace's list of networks.
    if let Some(path) = bare.filter(|path| path.matches('/').count() > 1 || *path == "/os-networksv2") {
        let query = uri.query().map_or_else(String::new, |query| format!("?{query}"));
        // Links in the answer need the host of the original URI.
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = format!("{path}{query}").parse().ok();
        if let Ok(uri) = Uri::from_parts(parts) {
            request.extensions_mut().insert(OriginalUri(uri.clone()));
            *request.uri_mut() = uri;
        }
    }
    next.run(request).await
}

/// Applies to every route: refuses paths that are not UTF-8, and unknown methods, with an error in the path's dialect.
async fn finish(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let dialect = Dialect::of(&path);
    if !listing::is_text(&path) {
        return error::answer(&ApiError::BadPath(path.chars().take(200).collect()), dialect);
    }
    let method = request.method().to_string();
    let response = next.run(request).await;
    if !status::is_bad_method(response.status()) {
        return response;
    }
    error::bad_method(&ApiError::BadMethod { method, path }, dialect, response.headers().get(ALLOW))
}

/// The path that the client requested. Under a prefix, the request itself has only the rest of it.
fn whole_path(request: &Request) -> String {
    let original = request.extensions().get::<OriginalUri>().map(|uri| uri.path());
    original.unwrap_or(request.uri().path()).to_owned()
}

async fn no_route(request: Request) -> Response {
    let path = whole_path(&request);
    error::answer(&ApiError::NoRoute(path.chars().take(200).collect()), Dialect::of(&path))
}

/// Converts a handler's result into a response of the dialect.
fn respond<T: IntoResponse>(result: Result<T, ApiError>, dialect: Dialect) -> Response {
    match result {
        Ok(answer) => answer.into_response(),
        Err(refusal) => error::answer(&refusal, dialect),
    }
}

/// The same for a request that is no action, whose refusal no other line of the log has.
fn respond_and_log<T: IntoResponse>(result: Result<T, ApiError>) -> Response {
    match result {
        Ok(answer) => answer.into_response(),
        Err(refusal) => error::answer_and_log(&refusal, dialect::COMPUTE),
    }
}

/// Parses the id at the end of a path. An invalid UUID is reported as an unknown object.
fn id<T: FromStr>(what: ObjectKind, text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|_| ApiError::Unknown { what, id: text.chars().take(64).collect() })
}

/// The body, if its Content-Type is JSON, or if it is empty and has no Content-Type.
fn json_body<'a>(headers: &HeaderMap, body: &'a Bytes) -> Result<&'a [u8], ApiError> {
    let given = headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or("?"));
    let essence = given.map(|given| given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    match essence.as_deref() {
        Some("application/json") => Ok(body),
        None if body.is_empty() => Ok(body),
        _ => Err(ApiError::MediaType(given.unwrap_or("none").chars().take(64).collect())),
    }
}

/// The context of an action, for log and events.
fn context(caller: &Caller) -> Context {
    Context {
        request_id: Some(caller.request_id.to_string()),
        key: caller.key.clone(),
        port_id: caller.makes,
        ..Context::default()
    }
}

/// The error for a reply that does not fit the action, which is a bug.
fn slip() -> ApiError {
    ApiError::Body(BodyError::Top("the answer does not fit the request".to_owned()))
}
