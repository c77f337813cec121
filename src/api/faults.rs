//! The one file with status codes: every refusal as its dialect tells it.
//!
//! The manager's errors, the readers' and the listener's come in, an HTTP answer with the dialect's envelope goes out. 500
//! means a bug of ours or a kernel that refuses what it should not; 503 means try again, be it after the operator has mended
//! the host; 507 means the state directory is full.

use std::time::Duration;

use axum::Json;
use axum::http::header::{ALLOW, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::kernel::{NetnsError, Trouble};
use crate::manager::Error;
use crate::model::PortId;
use crate::plan::PlanError;
use crate::store::StoreError;

use super::dialect::{Dialect, Envelope, OverLimit};
use super::fields::BodyError;

/// Why a request is refused, wherever that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// By the manager.
    Manager(Error),
    /// By the reader of the body.
    Body(BodyError),
    /// By the reader of the query.
    Query(String),
    /// The body is of a type nobody here reads.
    MediaType(String),
    /// The version header is no version.
    MicroversionMalformed(String),
    /// The version is not one of ours.
    MicroversionUnsupported {
        /// As asked.
        asked: String,
        /// The first.
        min: String,
        /// The last.
        max: String,
    },
    /// The idempotency key is none.
    BadKey,
    /// Another request has this key.
    KeyMismatch(String),
    /// Nova's rule: a port brings its own network.
    NetworkAndPort,
    /// Nova's rule: an address is of a network.
    AddressWithoutNetwork,
    /// The last part of the path is the id of nothing.
    Unknown {
        /// What it should be the id of.
        what: What,
        /// As given, cut to 64 characters.
        id: String,
    },
    /// A port gets its server by an attach, not by the `device_id` given.
    UseAttach {
        /// The server given.
        device: String,
        /// The port, when it is there already.
        port: Option<PortId>,
    },
    /// The condition of the request is none that nicd knows.
    BadCondition(String),
    /// An id in the path of a PUT is malformed.
    BadId(String),
    /// The path is not UTF-8 once its escapes are undone.
    BadPath(String),
    /// The path names nothing.
    NoRoute(String),
    /// The path is right, the method is not.
    BadMethod {
        /// As given.
        method: String,
        /// The path.
        path: String,
    },
    /// The daemon still builds what was to be there when it started.
    Starting(String),
    /// Not HTTP/1.1 (RFC 9112), or a body that does not keep to its framing.
    Malformed,
    /// The peer is nobody whom the socket is for.
    Unauthorized {
        /// Who it is.
        uid: u32,
    },
    /// A write on the read-only socket.
    ReadOnly {
        /// As given.
        method: Method,
    },
    /// The request did not arrive in time.
    TooSlow {
        /// The time it had.
        limit: Duration,
    },
    /// The body is longer than allowed.
    BodyTooLarge {
        /// The most, in bytes.
        limit: usize,
    },
    /// The request line and the header fields are longer than allowed.
    HeadersTooLarge {
        /// The most, in bytes.
        limit: usize,
    },
    /// All connections are in use.
    Crowded,
    /// Half of all connections follow events for this uid.
    ManyReaders,
    /// The handler panicked: a bug of ours.
    Internal,
}

/// What an id can be of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A server.
    Server,
    /// A port.
    Port,
    /// A network.
    Network,
    /// A subnet.
    Subnet,
    /// A flavor.
    Flavor,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Manager(error)
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        Self::Body(error)
    }
}

/// A refusal with all that an answer needs.
pub(super) struct Told {
    pub(super) status: StatusCode,
    /// Neutron's exception.
    kind: &'static str,
    /// The stable word that scripts match on.
    pub(super) reason: &'static str,
    message: String,
}

impl Told {
    /// In the dialect's envelope.
    pub(super) fn body(&self, dialect: Dialect) -> Value {
        let Self { status, kind, reason, message } = self;
        match dialect.envelope {
            Envelope::Compute => json!({key(*status): {"code": status.as_u16(), "message": message, "reason": reason}}),
            Envelope::Network => {
                json!({"NeutronError": {"type": kind, "message": message, "detail": "", "reason": reason}})
            }
        }
    }

    /// The header that belongs to its status (RFC 9110 §10.2.3 and §11.6.1).
    pub(super) fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE => Some((RETRY_AFTER, HeaderValue::from_static("1"))),
            StatusCode::UNAUTHORIZED => Some((WWW_AUTHENTICATE, HeaderValue::from_static("Peercred realm=\"nicd\""))),
            _ => None,
        }
    }

    /// As a whole answer.
    pub(super) fn response(&self, dialect: Dialect) -> Response {
        let mut response = (self.status, Json(self.body(dialect))).into_response();
        response.headers_mut().extend(self.header());
        response
    }
}

/// Answers with a refusal in a dialect's words.
pub fn answer(refusal: &Refusal, dialect: Dialect) -> Response {
    let told = told(refusal, dialect);
    let status = told.status;
    // 501 is the client's choice, and must not fill the log.
    if status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED {
        tracing::warn!(status = status.as_u16(), reason = told.reason, message = told.message, "refused");
    }
    told.response(dialect)
}

/// Answers 405; `allow` is what the route allows (RFC 9110 §15.5.6).
pub fn bad_method(refusal: &Refusal, dialect: Dialect, allow: Option<&HeaderValue>) -> Response {
    let mut response = answer(refusal, dialect);
    if let Some(allow) = allow {
        response.headers_mut().insert(ALLOW, allow.clone());
    }
    response
}

/// Whether the same request may go better next time, so that its answer is not to be remembered.
pub fn may_pass(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::PAYLOAD_TOO_LARGE)
}

/// Every status a request can be refused with: its key in Nova's envelope (nova/api/openstack/wsgi.py), and what it means.
const STATUSES: [(StatusCode, &str, &str); 16] = [
    (StatusCode::BAD_REQUEST, "badRequest", "The request is wrong as it is; the message says what would be right."),
    (StatusCode::UNAUTHORIZED, "unauthorized", "The caller is nobody whom this socket is for."),
    (StatusCode::FORBIDDEN, "forbidden", "It may not be done."),
    (StatusCode::NOT_FOUND, "itemNotFound", "There is no such thing."),
    (StatusCode::METHOD_NOT_ALLOWED, "badMethod", "The route has other methods; `Allow` names them."),
    (StatusCode::NOT_ACCEPTABLE, FAULT, "The version asked for is not one of these."),
    (StatusCode::REQUEST_TIMEOUT, FAULT, "The request did not arrive in time; the connection closes."),
    (StatusCode::CONFLICT, "conflictingRequest", "It does not fit what is there."),
    (StatusCode::PRECONDITION_FAILED, FAULT, "It has another revision than the request was made for."),
    (StatusCode::PAYLOAD_TOO_LARGE, "overLimit", "More than is possible."),
    (StatusCode::UNSUPPORTED_MEDIA_TYPE, "badMediaType", "The body is not JSON."),
    (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, FAULT, "The headers are too long; the connection closes."),
    (
        StatusCode::INTERNAL_SERVER_ERROR,
        FAULT,
        "A bug in nicd, or a kernel that refuses what it should not; the log has it under the request's id.",
    ),
    (StatusCode::NOT_IMPLEMENTED, "notImplemented", "The mechanism is not built yet."),
    (StatusCode::SERVICE_UNAVAILABLE, "serviceUnavailable", "Not now; try again."),
    (StatusCode::INSUFFICIENT_STORAGE, FAULT, "The state directory is full."),
];

/// Nova's key of what has no key of its own.
const FAULT: &str = "computeFault";

/// Nova's key of a status.
fn key(status: StatusCode) -> &'static str {
    STATUSES.iter().find(|(known, ..)| *known == status).map_or(FAULT, |(_, key, _)| key)
}

/// What a status means, for the document.
pub(super) fn meaning(status: u16) -> &'static str {
    STATUSES.iter().find(|(known, ..)| known.as_u16() == status).map_or("Refused.", |(.., meaning)| meaning)
}

/// A refusal with its status in a dialect, Neutron's name of it, and its message.
pub(super) fn told(refusal: &Refusal, dialect: Dialect) -> Told {
    let bad = |kind, reason, message| Told { status: StatusCode::BAD_REQUEST, kind, reason, message };
    let busy = |reason, message: &str| Told {
        status: StatusCode::SERVICE_UNAVAILABLE,
        kind: "HTTPServiceUnavailable",
        reason,
        message: message.to_owned(),
    };
    match refusal {
        Refusal::Manager(error) => manager(error, dialect),
        Refusal::Body(error) => body(error),
        Refusal::Query(message) => bad("HTTPBadRequest", "bad_query", message.clone()),
        Refusal::MediaType(given) => Told {
            status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            kind: "HTTPUnsupportedMediaType",
            reason: "unsupported_media_type",
            message: format!("Unsupported Content-Type '{given}'; application/json is expected"),
        },
        Refusal::MicroversionMalformed(given) => {
            let rule = "Must be of format MajorNum.MinorNum.";
            bad("HTTPBadRequest", "malformed_version", format!("API Version String {given} is of invalid format. {rule}"))
        }
        Refusal::MicroversionUnsupported { asked, min, max } => Told {
            status: StatusCode::NOT_ACCEPTABLE,
            kind: "HTTPNotAcceptable",
            reason: "unsupported_version",
            message: format!("Version {asked} is not supported by the API. Minimum is {min} and maximum is {max}."),
        },
        Refusal::BadKey => {
            bad("HTTPBadRequest", "bad_idempotency_key", "Idempotency-Key takes 1 to 64 printable characters".to_owned())
        }
        Refusal::KeyMismatch(key) => Told {
            status: StatusCode::CONFLICT,
            kind: "Conflict",
            reason: "idempotency_mismatch",
            message: format!("Idempotency-Key '{key}' came with another request before; use a fresh one"),
        },
        Refusal::NetworkAndPort => {
            bad("InvalidInput", "network_and_port", "Must not input both network_id and port_id".to_owned())
        }
        Refusal::AddressWithoutNetwork => {
            let message = "Must input network_id when request IP address".to_owned();
            bad("InvalidInput", "address_without_network", message)
        }
        Refusal::Unknown { what, id } => {
            let (kind, reason, message) = match what {
                What::Server => ("InstanceNotFound", "no_such_server", format!("Instance {id} could not be found.")),
                What::Port => ("PortNotFound", "no_such_port", format!("Port id {id} could not be found.")),
                What::Network => ("NetworkNotFound", "no_such_network", format!("Network {id} could not be found.")),
                What::Subnet => ("SubnetNotFound", "no_such_subnet", format!("Subnet {id} could not be found.")),
                What::Flavor => ("FlavorNotFound", "no_such_flavor", format!("Flavor {id} could not be found.")),
            };
            Told { status: StatusCode::NOT_FOUND, kind, reason, message }
        }
        Refusal::UseAttach { device, port } => {
            let of = port.map_or_else(String::new, |port| format!(" of port {port}"));
            let how = "by an attach: POST …/servers/{server}/os-interface with port_id; '' detaches";
            let message = format!("device_id '{device}'{of} is set {how}");
            Told { status: StatusCode::CONFLICT, kind: "Conflict", reason: "use_attach", message }
        }
        Refusal::BadCondition(given) => {
            bad("HTTPBadRequest", "bad_condition", format!("If-Match: '{given}'; revision_number=N is expected"))
        }
        Refusal::BadId(message) => bad("InvalidInput", "bad_id", message.clone()),
        Refusal::BadPath(path) => {
            bad("HTTPBadRequest", "bad_path", format!("the path {path} is not UTF-8 once its escapes are undone"))
        }
        Refusal::NoRoute(path) => Told {
            status: StatusCode::NOT_FOUND,
            kind: "HTTPNotFound",
            reason: "no_such_route",
            message: format!("The resource could not be found: there is no {path}"),
        },
        Refusal::BadMethod { method, path } => Told {
            status: StatusCode::METHOD_NOT_ALLOWED,
            kind: "HTTPMethodNotAllowed",
            reason: "bad_method",
            message: format!("The method {method} is not allowed for {path}"),
        },
        Refusal::Starting(summary) => Told {
            status: StatusCode::SERVICE_UNAVAILABLE,
            kind: "ServiceUnavailable",
            reason: "starting",
            message: format!("nicd is starting, and still brings ports back: {summary}"),
        },
        Refusal::Malformed => {
            bad("HTTPBadRequest", "malformed_request", "The request is not well-formed HTTP/1.1 (RFC 9112).".to_owned())
        }
        Refusal::Unauthorized { uid } => Told {
            status: StatusCode::UNAUTHORIZED,
            kind: "HTTPUnauthorized",
            reason: "unknown_caller",
            message: format!("uid {uid} may not use this socket; root and the members of its group may."),
        },
        Refusal::ReadOnly { method } => Told {
            status: StatusCode::FORBIDDEN,
            kind: "HTTPForbidden",
            reason: "read_only_socket",
            message: format!("{method} is not possible on the read-only socket; GET and HEAD are. Use nicd.sock."),
        },
        Refusal::TooSlow { limit } => Told {
            status: StatusCode::REQUEST_TIMEOUT,
            kind: "HTTPRequestTimeout",
            reason: "request_timeout",
            message: format!("The request did not arrive whole within {} s; send it at once.", limit.as_secs_f32()),
        },
        Refusal::BodyTooLarge { limit } => Told {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            kind: "HTTPRequestEntityTooLarge",
            reason: "body_too_large",
            message: format!("The request's body is longer than {limit} bytes, which is the most."),
        },
        Refusal::HeadersTooLarge { limit } => Told {
            status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            kind: "HTTPRequestHeaderFieldsTooLarge",
            reason: "headers_too_large",
            message: format!("The request's headers are longer than {limit} bytes, which is the most."),
        },
        Refusal::Crowded => busy("too_many_connections", "All connections are in use; try again, and keep fewer open."),
        Refusal::ManyReaders => busy(
            "too_many_readers",
            "Half of all connections follow events for this uid, which is the most; end some, or try again later.",
        ),
        Refusal::Internal => Told {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            kind: "HTTPInternalServerError",
            reason: "internal",
            message: "The request met a bug in nicd; its log has the details under the request's id.".to_owned(),
        },
    }
}

fn body(error: &BodyError) -> Told {
    let (status, kind, reason) = match error {
        BodyError::Json(_) => (StatusCode::BAD_REQUEST, "HTTPBadRequest", "malformed_body"),
        BodyError::Twice(_) => (StatusCode::BAD_REQUEST, "HTTPBadRequest", "duplicate_key"),
        BodyError::Top(_) => (StatusCode::BAD_REQUEST, "HTTPBadRequest", "invalid_body"),
        BodyError::Field { .. } => (StatusCode::BAD_REQUEST, "InvalidInput", "invalid_value"),
        BodyError::NotBuilt(_) => (StatusCode::NOT_IMPLEMENTED, "HTTPNotImplemented", "not_built"),
    };
    Told { status, kind, reason, message: error.to_string() }
}

/// Status and Neutron's name of each of the manager's errors.
fn manager(error: &Error, dialect: Dialect) -> Told {
    use StatusCode as S;
    let (status, kind) = match error {
        Error::NoSuchNetwork(_) => (S::NOT_FOUND, "NetworkNotFound"),
        Error::NoSuchSubnet(_) => (S::NOT_FOUND, "SubnetNotFound"),
        Error::NoSuchServer(_) => (S::NOT_FOUND, "InstanceNotFound"),
        Error::NoSuchPort(_) | Error::PortNotOnServer { .. } => (S::NOT_FOUND, "PortNotFound"),
        Error::PortInUse(_) => (S::CONFLICT, "PortInUse"),
        Error::IdTaken(_) => (S::CONFLICT, "Conflict"),
        Error::AddressInUse { .. } | Error::AddressOfHost { .. } => (S::CONFLICT, "IpAddressInUse"),
        Error::GatewayInUse { .. } => (S::CONFLICT, "GatewayIpInUse"),
        Error::RevisionMismatch { .. } => (S::PRECONDITION_FAILED, "RevisionNumberConstraintFailed"),
        Error::AddressOutside { .. } | Error::AddressKept { .. } => (S::BAD_REQUEST, "InvalidIpForNetwork"),
        Error::SubnetOfOther { .. } => (S::BAD_REQUEST, "InvalidInput"),
        // Neutron's generation failure is a conflict, which Nova turns into a bad request.
        Error::PoolEmpty { .. } => match dialect.envelope {
            Envelope::Compute => (S::BAD_REQUEST, ""),
            Envelope::Network => (S::CONFLICT, "IpAddressGenerationFailure"),
        },
        Error::NoSubnet(_) | Error::NoNetwork(_) | Error::SeveralNetworks => (S::BAD_REQUEST, "InvalidInput"),
        Error::TooManyAddresses { .. } | Error::Mac(_) | Error::Subnet(_) => (S::BAD_REQUEST, "InvalidInput"),
        Error::MacInUse { .. } => (S::CONFLICT, "MacAddressInUse"),
        Error::TooManyNics { .. } => match dialect.over_limit {
            OverLimit::Forbidden => (S::FORBIDDEN, "OverQuota"),
            OverLimit::TooLarge => (S::PAYLOAD_TOO_LARGE, ""),
        },
        Error::SecondOnNetwork { .. } => (S::CONFLICT, "Conflict"),
        Error::NetworkInUse { .. } => (S::CONFLICT, "NetworkInUse"),
        Error::SubnetInUse { .. } => (S::CONFLICT, "SubnetInUse"),
        Error::SubnetOverlap { .. } => (S::BAD_REQUEST, "InvalidInput"),
        Error::TooManySubnets { .. } => (S::CONFLICT, "OverQuota"),
        Error::ServerHasNics { .. } | Error::KindChange { .. } => (S::CONFLICT, "Conflict"),
        // A right that is missing, or a path that hangs: it works once that has been mended.
        Error::Netns(
            NetnsError::Refused { .. } | NetnsError::Hanging(_) | NetnsError::NoDescriptors { .. } | NetnsError::Helper { .. },
        ) => (S::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
        Error::Netns(_) => (S::BAD_REQUEST, "InvalidInput"),
        Error::NamespaceChanged { .. } | Error::NamespaceGone { .. } => (S::CONFLICT, "Conflict"),
        Error::BridgeNotAllowed { .. } => (S::FORBIDDEN, "Forbidden"),
        Error::GuestNameTaken { .. } | Error::GuestRefused(_) | Error::Ipv6Disabled(_) => (S::CONFLICT, "Conflict"),
        Error::NeedsDetach { .. } | Error::MtuInUse { .. } => (S::CONFLICT, "Conflict"),
        Error::Plan(PlanError::NoSuchBridge(_) | PlanError::NotABridge(_)) => match dialect.envelope {
            // The client has just named it; an attach finds what somebody named before.
            Envelope::Network => (S::BAD_REQUEST, "InvalidInput"),
            Envelope::Compute => (S::CONFLICT, ""),
        },
        Error::Plan(
            PlanError::MtuAboveBridge { .. } | PlanError::BridgeFull(_) | PlanError::NoFreeName(_) | PlanError::NotOurs(_),
        ) => (S::CONFLICT, "Conflict"),
        Error::Plan(PlanError::IndexTaken(_)) => (S::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
        Error::Plan(PlanError::Incomplete(_)) => (S::INTERNAL_SERVER_ERROR, "HTTPInternalServerError"),
        Error::Kernel(error) => match error.trouble {
            Trouble::TimedOut
            | Trouble::Taken
            | Trouble::Gone
            | Trouble::Unmarked
            | Trouble::Helper
            | Trouble::Hanging
            | Trouble::NamespaceRefused
            | Trouble::NoDescriptors
            | Trouble::HostNotClosed
            | Trouble::ModuleMissing
            | Trouble::Permission => (S::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
            Trouble::NoBridge => (S::CONFLICT, "Conflict"),
            _ => (S::INTERNAL_SERVER_ERROR, "HTTPInternalServerError"),
        },
        Error::NotUndone { .. } => (S::INTERNAL_SERVER_ERROR, "HTTPInternalServerError"),
        Error::Store(StoreError::Full) => (S::INSUFFICIENT_STORAGE, "InsufficientStorage"),
        // A disk that refuses may take the next one.
        Error::Store(
            StoreError::Busy
            | StoreError::Closed
            | StoreError::Failed(_)
            | StoreError::NoDescriptors(_)
            | StoreError::Damaged(_)
            | StoreError::Replaced(_),
        )
        | Error::Busy(_)
        | Error::Stopping => (S::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
        Error::Store(_) => (S::INTERNAL_SERVER_ERROR, "HTTPInternalServerError"),
    };
    Told { status, kind, reason: error.reason(), message: error.to_string() }
}
