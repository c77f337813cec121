//! Replays a request that created objects but was never answered: the answer shows the objects in their current state.

use axum::Json;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::model::PortId;
use crate::model::idempotency::Made;
use crate::service::PortView;

use super::fields::Shape;
use super::microversion::{self, Microversion};
use super::resource::Resource;
use super::{AppState, nova, otc, rackspace};

/// Renders the answer. The body of the repeated request, which equals the first one, selects the answer's shape. `None` when an
/// object was deleted since.
pub(super) fn show(state: &AppState, path: &str, headers: &HeaderMap, body: &[u8], made: &[Made]) -> Option<Response> {
    let version = microversion::asked(headers).unwrap_or(Microversion::MIN);
    match (path.rsplit('/').next(), made) {
        (Some("os-interface"), [Made::Port(port)]) => {
            let port = attached(state, path, *port)?;
            Some(Json(json!({"interfaceAttachment": nova::attachment(&port, version)})).into_response())
        }
        (Some("os-virtual-interfacesv2"), [Made::Port(port)]) => {
            let port = attached(state, path, *port)?;
            Some(Json(json!({"virtual_interfaces": [rackspace::interface(state, &port)]})).into_response())
        }
        (_, [Made::Job(job)]) => state.job(*job).ok().map(|job| Json(otc::accepted(job.id)).into_response()),
        (Some(last), _) => {
            let many = &last.replace('-', "_");
            let shown = made.iter().map(|one| match one {
                Made::Network(id) => state.network(*id).ok().map(|network| network.shown()),
                Made::Subnet(id) => state.subnet(*id).ok().map(|subnet| subnet.shown()),
                Made::Group(id) => state.group(*id).ok().map(|group| group.shown()),
                Made::Rule(id) => state.rule(*id).ok().map(|rule| rule.shown()),
                Made::Job(_) => None,
                Made::Port(id) => state.port(*id).ok().map(|port| port.shown()),
                Made::Trunk(id) => state.trunk(*id).ok().map(|trunk| trunk.shown()),
            });
            let shown: Vec<_> = shown.collect::<Option<_>>()?;
            let body = Shape::of(body, many).wrap(many.trim_end_matches('s'), many, shown.into_iter());
            Some((StatusCode::CREATED, Json(body)).into_response())
        }
        (None, _) => None,
    }
}

/// The port, if it is still attached to the server in the path.
fn attached(state: &AppState, path: &str, port: PortId) -> Option<PortView> {
    let server = path.rsplit('/').nth(1)?.parse().ok()?;
    state.port_of(server, port).ok()
}
