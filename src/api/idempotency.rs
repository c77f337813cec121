//! `Idempotency-Key` on POSTs: for a day, a repeated request with the same key runs once and gets the same answer.

use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use sha2::{Digest, Sha256};

use crate::model::idempotency::{Key, StoredAnswer};
use crate::service::Known;

use super::dialect::Dialect;
use super::error::{self, ApiError};
use super::listener::Caller;
use super::{AppState, replay, status};

/// How long a second request waits for the first, in seconds.
const WAIT: Duration = Duration::from_secs(30);

/// The maximum size of a stored answer, in bytes: enough for a bulk create.
const ANSWER: usize = 4 << 20;

/// Runs a request once per key, and replays its stored answer afterwards.
pub(super) async fn replay_or_run(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let given = request.headers().get("idempotency-key").filter(|_| request.method() == Method::POST).cloned();
    let Some(given) = given else { return next.run(request).await };
    let several = request.headers().get_all("idempotency-key").iter().count() > 1;
    let path = super::whole_path(&request);
    let dialect = Dialect::of(&path);
    let caller = request.extensions().get::<Caller>().cloned();
    let Some((text, caller)) = readable(&given).filter(|_| !several).zip(caller) else {
        return error::answer(&ApiError::BadKey, dialect);
    };
    let key = Key { caller: caller.id.clone(), key: text };
    let (head, body) = request.into_parts();
    // The listener has limited the body's size.
    let Ok(body) = to_bytes(body, ANSWER).await else { return error::answer(&ApiError::BadKey, dialect) };
    let digest = digest(&path, &body);
    loop {
        match state.recollect(&key, &digest) {
            Known::New => break,
            Known::Mismatch => return error::answer(&ApiError::KeyMismatch(key.key), dialect),
            Known::Answered(answer) => return again(answer),
            Known::Made(things) => match replay::show(&state, &path, &head.headers, &body, &things) {
                Some(answer) => return keep(&state, &key, answer).await,
                // The created object was deleted since, so the request may run again.
                None => state.forget_key(&key).await,
            },
            Known::Underway(bell) => {
                if tokio::time::timeout(WAIT, bell).await.is_err() {
                    let busy = crate::service::Error::Busy("the first request under this key has not ended in 30 s");
                    return error::answer(&busy.into(), dialect);
                }
            }
        }
    }
    let mut request = Request::from_parts(head, Body::from(body));
    request.extensions_mut().insert(Caller { key: Some(key.clone()), ..caller });
    // A disconnected client must not leave its key unfinished, so the request runs in its own task.
    let ending = {
        let (state, key) = (state.clone(), key.clone());
        state.clone().to_its_end(async move { keep(&state, &key, next.run(request).await).await }).await
    };
    ending.unwrap_or_else(|error| error::answer(&error.into(), dialect))
}

fn readable(given: &HeaderValue) -> Option<String> {
    let text = given.to_str().ok()?;
    let printable = text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    (printable && (1..=64).contains(&text.len())).then(|| text.to_owned())
}

fn digest(path: &str, body: &[u8]) -> String {
    let hash = Sha256::new().chain_update(path.as_bytes()).chain_update([0]).chain_update(body).finalize();
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Stores an answer under its key before it is sent. Answers that a retry may improve are not stored.
async fn keep(state: &AppState, key: &Key, response: Response) -> Response {
    let status = response.status();
    if status::may_pass(status) {
        state.forget_key(key).await;
        return response;
    }
    let (head, body) = response.into_parts();
    // An answer that is too long to store is rendered again from the created objects.
    if body.size_hint().exact().is_none_or(|length| length > ANSWER as u64) {
        state.end_key(key);
        return Response::from_parts(head, body);
    }
    let body = to_bytes(body, ANSWER).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&body).into_owned();
    if let Err(error) = state.answered(key, StoredAnswer { status: status.as_u16(), body: text }).await {
        tracing::error!(%error, "an answer could not be made durable under its key");
    }
    Response::from_parts(head, Body::from(body))
}

fn again(answer: StoredAnswer) -> Response {
    let mut response = Response::new(Body::from(Bytes::from(answer.body)));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_1_to_64_printable_characters() {
        let read = |bytes: &[u8]| readable(&HeaderValue::from_bytes(bytes).unwrap());
        assert_eq!(read(b"a key").as_deref(), Some("a key"));
        assert!(read(&[b'x'; 64]).is_some());
        for bad in [&b""[..], &[b'x'; 65], b"a\tb", b"\xff"] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn another_path_or_body_is_another_request() {
        assert_ne!(digest("/a", b"b"), digest("/a", b"c"));
        assert_ne!(digest("/a", b"b"), digest("/ab", b""));
        assert_eq!(digest("/a", b"b"), digest("/a", b"b"));
    }
}
