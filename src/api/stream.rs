//! The event stream: server-sent events, or a JSON object a line for those who ask for it.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use serde_json::Value;

use crate::events::{Event, Reader};
use crate::service::FleetReader;

use super::AppState;
use super::dialect::COMPUTE;
use super::error::ApiError;
use super::listing::form;

/// How often an idle stream shows that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `text/event-stream` (WHATWG HTML, server-sent events).
    Sse,
    /// `application/x-ndjson`.
    Lines,
}

/// Whose things are told of (`scope`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// This host's.
    Host,
    /// All hosts' of the fleet.
    Fleet,
}

pub(super) async fn events(State(state): State<AppState>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    let reach = match reach(query.as_deref(), Reach::Host) {
        Ok(reach) => reach,
        Err(refusal) => return super::error::answer(&refusal, COMPUTE),
    };
    let last = match last_seen(&headers) {
        Ok(last) => last,
        Err(refusal) => return super::error::answer(&refusal, COMPUTE),
    };
    let accepted = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let (form, kind) = match accepted.contains("application/x-ndjson") {
        true => (Form::Lines, HeaderValue::from_static("application/x-ndjson")),
        false => (Form::Sse, HeaderValue::from_static("text/event-stream")),
    };
    let body = match reach {
        Reach::Host => {
            let reader = state.events().read_after(last);
            Body::from_stream(futures_util::stream::unfold(reader, move |mut reader| async move {
                let chunk = next(&mut reader, form).await;
                Some((Ok::<_, Infallible>(Bytes::from(chunk)), reader))
            }))
        }
        Reach::Fleet => match state.fleet_events(last).await {
            Ok(reader) => Body::from_stream(futures_util::stream::unfold(reader, move |mut reader| async move {
                let chunk = next_of_fleet(&mut reader, form).await;
                Some((Ok::<_, Infallible>(Bytes::from(chunk)), reader))
            })),
            Err(error) => return super::error::answer_and_log(&error.into(), COMPUTE),
        },
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn next(reader: &mut Reader, form: Form) -> String {
    match (tokio::time::timeout(KEEP_ALIVE, reader.next()).await, form) {
        (Ok(event), Form::Sse) => sse(&event),
        (Ok(event), Form::Lines) => line(&event),
        (Err(_), Form::Sse) => ": still here\n\n".to_owned(),
        (Err(_), Form::Lines) => "\n".to_owned(),
    }
}

async fn next_of_fleet(reader: &mut FleetReader, form: Form) -> String {
    match (tokio::time::timeout(KEEP_ALIVE, reader.next()).await, form) {
        // The number comes with the last one of it: a reader that goes on after it has had all of them.
        (Ok(events), Form::Sse) => {
            let last = events.len().saturating_sub(1);
            let numbered = |(at, event): (usize, &Event)| if at == last { sse(event) } else { unnumbered(event) };
            events.iter().enumerate().map(numbered).collect()
        }
        (Ok(events), Form::Lines) => events.iter().map(line).collect(),
        (Err(_), Form::Sse) => ": still here\n\n".to_owned(),
        (Err(_), Form::Lines) => "\n".to_owned(),
    }
}

/// Whose the query asks for.
pub(super) fn reach(query: Option<&str>, unless_said: Reach) -> Result<Reach, ApiError> {
    let mut reach = unless_said;
    for (key, value) in form(query.unwrap_or_default()) {
        reach = match (key.as_str(), value.as_str()) {
            ("scope", "host") => Reach::Host,
            ("scope", "fleet") => Reach::Fleet,
            ("scope", other) => {
                let shown: String = other.escape_debug().take(64).collect();
                return Err(ApiError::Query(format!("scope={shown}: host or fleet is expected")));
            }
            _ => reach,
        };
    }
    Ok(reach)
}

fn last_seen(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(given) = headers.get("last-event-id") else { return Ok(None) };
    let text = given.to_str().unwrap_or("?").trim();
    if text.is_empty() {
        return Ok(None);
    }
    let refuse =
        |_| ApiError::Query(format!("Last-Event-ID: '{}' is not the id of an event: a whole number", text.escape_debug()));
    text.parse().map(Some).map_err(refuse)
}

pub(super) fn sse(event: &Event) -> String {
    let data = serde_json::to_string(event).unwrap_or_default();
    format!("id: {}\nevent: {}\ndata: {data}\n\n", event.seq, event.kind.as_str())
}

fn unnumbered(event: &Event) -> String {
    let data = serde_json::to_string(event).unwrap_or_default();
    format!("event: {}\ndata: {data}\n\n", event.kind.as_str())
}

pub(super) fn line(event: &Event) -> String {
    let mut data = serde_json::to_value(event).unwrap_or_default();
    if let Value::Object(fields) = &mut data {
        fields.insert("event".to_owned(), event.kind.as_str().into());
    }
    format!("{data}\n")
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use crate::events::EventKind;

    use super::*;

    #[test]
    fn both_forms_carry_the_same() {
        let mut event = Event::new(EventKind::PortStatus, Timestamp::UNIX_EPOCH);
        event.seq = 7;
        let text = sse(&event);
        assert!(text.starts_with("id: 7\nevent: port.status\ndata: {\"seq\":7,"), "{text}");
        assert!(text.ends_with("}\n\n"));
        let data: Value = serde_json::from_str(&line(&event)).unwrap();
        assert_eq!((&data["event"], &data["seq"]), (&"port.status".into(), &7.into()));
        let keys: Vec<_> = data.as_object().unwrap().keys().map(String::as_str).collect();
        for key in ["seq", "at", "port_id", "server_id", "network_id", "old", "new", "phase", "reason", "request_id"] {
            assert!(keys.contains(&key), "{key}");
        }
    }
}
