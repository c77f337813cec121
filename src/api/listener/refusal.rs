//! The listener's own answers, to requests that reach no handler.
//!
//! Each has a status, the dialect's body and a request id. To a head that is late, too long or malformed hyper gives no request to
//! answer: then the answer is written to the connection as bytes, and the connection closes.

use std::fmt;

use axum::body::Body;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Response};
use uuid::Uuid;

pub(super) use crate::api::error::ApiError;

use crate::api::dialect::{COMPUTE, Dialect};
use crate::api::error::error_answer;
use crate::api::status::header;

/// A request's id, in its answer's headers and in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(pub Uuid);

/// The headers it is answered in: Nova's, the one all of OpenStack has, and the one that Huawei's and other clients read.
pub(super) const ID_HEADERS: [&str; 3] = ["x-compute-request-id", "x-openstack-request-id", "x-request-id"];

impl RequestId {
    /// A new one.
    pub fn draw() -> Self {
        Self(Uuid::new_v4())
    }

    /// As a header's value.
    pub(super) fn value(self) -> HeaderValue {
        // `req-` and hexadecimal digits are always a valid value; the fallback only spares a panic path.
        HeaderValue::try_from(self.to_string()).unwrap_or(HeaderValue::from_static("req-"))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "req-{}", self.0.hyphenated())
    }
}

impl ApiError {
    /// The word that scripts match on.
    pub(super) fn reason(&self) -> &'static str {
        error_answer(self, COMPUTE).reason()
    }

    /// As a response to a request for `path`, after which the connection closes. The id is added by who sends it.
    pub(super) fn response(&self, path: &str) -> Response<Body> {
        let dialect = Dialect::of(path);
        let mut response = error_answer(self, dialect).response(dialect);
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        response
    }

    /// As bytes on a connection whose request is not known. They say that the connection closes.
    pub(super) fn bytes(&self, id: RequestId) -> Vec<u8> {
        let told = error_answer(self, COMPUTE);
        let body = told.body(COMPUTE).to_string();
        let special = header(told.status).map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap_or_default()));
        let ids = ID_HEADERS.map(|name| format!("{name}: {id}\r\n")).concat();
        format!(
            "HTTP/1.1 {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\
             {}{ids}\r\n{body}",
            told.status,
            body.len(),
            special.unwrap_or_default(),
        )
        .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envelopes_are_as_each_dialect_has_them() {
        let refusal = ApiError::BodyTooLarge { limit: 65_536 };
        let envelope = |path: &str| error_answer(&refusal, Dialect::of(path)).body(Dialect::of(path));
        let nova = envelope("/v2.1/servers");
        assert_eq!((&nova["overLimit"]["code"], &nova["overLimit"]["reason"]), (&413.into(), &"body_too_large".into()));
        let neutron = envelope("/v2.0/ports");
        assert_eq!(neutron["NeutronError"]["reason"], "body_too_large");
        assert_eq!(neutron["NeutronError"]["type"], "HTTPRequestEntityTooLarge");
    }

    #[test]
    fn bytes_are_one_whole_response() {
        let id = RequestId::draw();
        let text = String::from_utf8(ApiError::Crowded.bytes(id)).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{head}");
        for line in [
            "retry-after: 1".to_owned(),
            "connection: close".to_owned(),
            format!("x-compute-request-id: {id}"),
            format!("x-openstack-request-id: {id}"),
            format!("x-request-id: {id}"),
            format!("content-length: {}", body.len()),
        ] {
            assert!(head.lines().any(|have| have == line), "{line} in {head}");
        }
        assert!(serde_json::from_str::<serde_json::Value>(body).unwrap()["serviceUnavailable"].is_object());
    }
}
