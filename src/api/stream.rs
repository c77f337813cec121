//! The event stream: server-sent events, or a JSON object a line for those who ask for it.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use serde_json::Value;

use crate::events::{Event, Reader};

use super::AppState;
use super::dialect::COMPUTE;
use super::error::ApiError;

/// How often an idle stream shows that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `text/event-stream` (WHATWG HTML, server-sent events).
    Sse,
    /// `application/x-ndjson`.
    Lines,
}

pub(super) async fn events(State(state): State<AppState>, headers: HeaderMap) -> Response {
    let last = match last_seen(&headers) {
        Ok(last) => last,
        Err(refusal) => return super::error::answer(&refusal, COMPUTE),
    };
    let accepted = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let (form, kind) = match accepted.contains("application/x-ndjson") {
        true => (Form::Lines, HeaderValue::from_static("application/x-ndjson")),
        false => (Form::Sse, HeaderValue::from_static("text/event-stream")),
    };
    let reader = state.events().read_after(last);
    let stream = futures_util::stream::unfold(reader, move |mut reader| async move {
        let chunk = next(&mut reader, form).await;
        Some((Ok::<_, Infallible>(Bytes::from(chunk)), reader))
    });
    let mut response = Response::new(Body::from_stream(stream));
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
