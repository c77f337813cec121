//! The edge's own answers: to what never reached a handler.
//!
//! Each is whole: status, envelope, request id. Where HTTP is not spoken any more (a head that is late, too long or
//! malformed) the answer is written to the connection as bytes, and the connection closes.

use std::fmt;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Method, Response, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Limits;
use crate::api::dialect::{COMPUTE, Dialect, Envelope};

/// A request's id, in its answer's headers and in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(pub Uuid);

/// The headers it is answered in: Nova's, the one all of OpenStack has, and the one that Huawei's and other clients read.
pub(super) const ID_HEADERS: [&str; 3] = ["x-compute-request-id", "x-openstack-request-id", "x-request-id"];

/// Why a request went no further than the edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Not HTTP/1.1 (RFC 9112), or a body that does not keep to its framing.
    Malformed,
    /// The peer is nobody whom the socket is for.
    Unauthorized { uid: u32 },
    /// A write on the read-only socket.
    ReadOnly { method: Method },
    /// The request did not arrive in time.
    TooSlow { limit: Duration },
    /// The body is longer than allowed, in bytes.
    BodyTooLarge { limit: usize },
    /// The request line and the header fields are longer than allowed, in bytes.
    HeadersTooLarge { limit: usize },
    /// All connections are in use.
    Crowded,
    /// Half of all connections follow events for this uid.
    ManyReaders,
    /// The handler panicked: a bug of ours.
    Internal,
}

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

/// Every answer of the edge to requests of a dialect, for the document: its status, its body, and what it is for.
pub(in crate::api) fn shown(dialect: Dialect) -> Vec<(StatusCode, Value, For)> {
    let all = Refusal::all().into_iter().flat_map(|refusal| {
        let of = if matches!(refusal, Refusal::ReadOnly { .. }) { For::Writes } else { For::All };
        let bodies = refusal.dialects(dialect).into_iter().map(|dialect| refusal.envelope(dialect)).collect::<Vec<_>>();
        bodies.into_iter().map(move |body| (refusal.status(), body, of))
    });
    all.collect()
}

/// Which requests the edge refuses so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum For {
    /// Any.
    All,
    /// All but GET and HEAD.
    Writes,
}

impl Refusal {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::Unauthorized { .. } => StatusCode::UNAUTHORIZED,
            Self::ReadOnly { .. } => StatusCode::FORBIDDEN,
            Self::TooSlow { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::HeadersTooLarge { .. } => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Crowded | Self::ManyReaders => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The word that scripts match on.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Malformed => "malformed_request",
            Self::Unauthorized { .. } => "unknown_caller",
            Self::ReadOnly { .. } => "read_only_socket",
            Self::TooSlow { .. } => "request_timeout",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::HeadersTooLarge { .. } => "headers_too_large",
            Self::Crowded => "too_many_connections",
            Self::ManyReaders => "too_many_readers",
            Self::Internal => "internal",
        }
    }

    /// The key of Nova's envelope.
    fn key(&self) -> &'static str {
        match self {
            Self::Malformed => "badRequest",
            Self::Unauthorized { .. } => "unauthorized",
            Self::ReadOnly { .. } => "forbidden",
            Self::BodyTooLarge { .. } => "overLimit",
            Self::Crowded | Self::ManyReaders => "serviceUnavailable",
            Self::TooSlow { .. } | Self::HeadersTooLarge { .. } | Self::Internal => "computeFault",
        }
    }

    /// The type in Neutron's envelope.
    fn neutron_type(&self) -> &'static str {
        match self {
            Self::Malformed => "HTTPBadRequest",
            Self::Unauthorized { .. } => "HTTPUnauthorized",
            Self::ReadOnly { .. } => "HTTPForbidden",
            Self::TooSlow { .. } => "HTTPRequestTimeout",
            Self::BodyTooLarge { .. } => "HTTPRequestEntityTooLarge",
            Self::HeadersTooLarge { .. } => "HTTPRequestHeaderFieldsTooLarge",
            Self::Crowded | Self::ManyReaders => "HTTPServiceUnavailable",
            Self::Internal => "HTTPInternalServerError",
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Malformed => "The request is not well-formed HTTP/1.1 (RFC 9112).".to_owned(),
            Self::Unauthorized { uid } => {
                format!("uid {uid} may not use this socket; root and the members of its group may.")
            }
            Self::ReadOnly { method } => {
                format!("{method} is not possible on the read-only socket; GET and HEAD are. Use nicd.sock.")
            }
            Self::TooSlow { limit } => {
                format!("The request did not arrive whole within {} s; send it at once.", limit.as_secs_f32())
            }
            Self::BodyTooLarge { limit } => format!("The request's body is longer than {limit} bytes, which is the most."),
            Self::HeadersTooLarge { limit } => format!("The request's headers are longer than {limit} bytes, which is the most."),
            Self::Crowded => "All connections are in use; try again, and keep fewer open.".to_owned(),
            Self::ManyReaders => {
                "Half of all connections follow events for this uid, which is the most; end some, or try again later.".to_owned()
            }
            Self::Internal => "The request met a bug in nicd; its log has the details under the request's id.".to_owned(),
        }
    }

    fn envelope(&self, dialect: Dialect) -> Value {
        let (message, reason) = (self.message(), self.reason());
        match dialect.envelope {
            Envelope::Network => {
                let kind = self.neutron_type();
                json!({"NeutronError": {"type": kind, "message": message, "detail": "", "reason": reason}})
            }
            Envelope::Compute => {
                let code = self.status().as_u16();
                json!({self.key(): {"code": code, "message": message, "reason": reason}})
            }
        }
    }

    /// One of each, with the daemon's limits.
    fn all() -> [Self; 9] {
        let limits = Limits::default();
        [
            Self::Malformed,
            Self::Unauthorized { uid: 1000 },
            Self::ReadOnly { method: Method::POST },
            Self::TooSlow { limit: limits.arrival },
            Self::BodyTooLarge { limit: limits.body_bytes },
            Self::HeadersTooLarge { limit: limits.header_bytes },
            Self::Crowded,
            Self::ManyReaders,
            Self::Internal,
        ]
    }

    /// In which envelopes it comes: the path's, Nova's where the path is not known yet, or either.
    fn dialects(&self, dialect: Dialect) -> Vec<Dialect> {
        match self {
            Self::Malformed | Self::TooSlow { .. } if dialect.envelope == Envelope::Network => vec![dialect, COMPUTE],
            Self::HeadersTooLarge { .. } | Self::Crowded => vec![COMPUTE],
            _ => vec![dialect],
        }
    }

    /// Headers that belong to this status: RFC 9110 §11.6.1 and §10.2.3.
    fn special(&self) -> Option<(axum::http::HeaderName, HeaderValue)> {
        match self {
            Self::Unauthorized { .. } => Some((WWW_AUTHENTICATE, HeaderValue::from_static("Peercred realm=\"nicd\""))),
            Self::Crowded | Self::ManyReaders => Some((RETRY_AFTER, HeaderValue::from_static("1"))),
            _ => None,
        }
    }

    /// As a response to a request for `path`, after which the connection closes. The id is added by who sends it.
    pub(super) fn response(&self, path: &str) -> Response<Body> {
        let mut response = Response::new(Body::from(self.envelope(Dialect::of(path)).to_string()));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        headers.extend(self.special());
        response
    }

    /// As bytes on a connection whose request is not known. They say that the connection closes.
    pub(super) fn bytes(&self, id: RequestId) -> Vec<u8> {
        let body = self.envelope(COMPUTE).to_string();
        let special = self.special().map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap_or_default()));
        let ids = ID_HEADERS.map(|name| format!("{name}: {id}\r\n")).concat();
        format!(
            "HTTP/1.1 {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\
             {}{ids}\r\n{body}",
            self.status(),
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
        let refusal = Refusal::BodyTooLarge { limit: 65_536 };
        let nova = refusal.envelope(Dialect::of("/v2.1/servers"));
        assert_eq!((&nova["overLimit"]["code"], &nova["overLimit"]["reason"]), (&413.into(), &"body_too_large".into()));
        let neutron = refusal.envelope(Dialect::of("/v2.0/ports"));
        assert_eq!(neutron["NeutronError"]["reason"], "body_too_large");
        assert_eq!(neutron["NeutronError"]["type"], "HTTPRequestEntityTooLarge");
    }

    #[test]
    fn bytes_are_one_whole_response() {
        let id = RequestId::draw();
        let text = String::from_utf8(Refusal::Crowded.bytes(id)).unwrap();
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
