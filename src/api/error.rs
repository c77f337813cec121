//! Renders errors of the service, the parsers and the listener as HTTP answers in a dialect's envelope. `api/status.rs` has the
//! status of each.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::http::header::ALLOW;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::inventory;
use crate::kernel::OpErrorKind;
use crate::model::PortId;
use crate::model::idempotency::CallerId;
use crate::model::rule::RuleError;
use crate::service::Error;
use crate::store::StoreError;

use super::dialect::{Dialect, Envelope};
use super::fields::BodyError;
use super::status::{self, Row};

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiError {
    /// An error of the service.
    Service(Error),
    /// The body is invalid.
    Body(BodyError),
    /// The query is invalid.
    Query(String),
    /// The Content-Type is not supported.
    MediaType(String),
    /// The version header is malformed.
    MicroversionMalformed(String),
    /// The version is not supported.
    MicroversionUnsupported {
        /// As asked.
        asked: String,
        /// The first.
        min: String,
        /// The last.
        max: String,
    },
    /// The idempotency key is malformed.
    BadKey,
    /// Another request used the key.
    KeyMismatch(String),
    /// Nova's rule: a request names a port or a network, not both.
    NetworkAndPort,
    /// Nova's rule: an address needs a network.
    AddressWithoutNetwork,
    /// No object has the id in the path.
    Unknown {
        /// The kind of object.
        what: ObjectKind,
        /// As given, cut to 64 characters.
        id: String,
    },
    /// The request sets `device_id`; only an attach gives a port a server.
    UseAttach {
        /// The server given.
        device: String,
        /// The port, when it is there already.
        port: Option<PortId>,
    },
    /// The condition of the request is not supported.
    BadCondition(String),
    /// An id in the path of a PUT is malformed.
    BadId(String),
    /// The path is not UTF-8 once its escapes are undone.
    BadPath(String),
    /// No route has the path.
    NoRoute(String),
    /// The route does not have the method.
    BadMethod {
        /// As given.
        method: String,
        /// The path.
        path: String,
    },
    /// The daemon is starting and still rebuilds ports.
    Starting(String),
    /// The daemon cannot start; it ends after its answers.
    CannotStart(String),
    /// The request is not valid HTTP/1.1 (RFC 9112), or its body violates the framing.
    Malformed,
    /// The peer may not use the socket.
    Unauthorized(CallerId),
    /// No name in the client's certificate is allowed.
    ClientNotAllowed {
        /// The first of them.
        name: Arc<str>,
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
    /// Half of all connections follow events for this caller.
    ManyReaders,
    /// The handler panicked, which is a bug.
    Internal,
}

/// The kinds of objects with ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectKind {
    /// A server.
    Server,
    /// A port.
    Port,
    /// A network.
    Network,
    /// A subnet.
    Subnet,
    /// A security group.
    Group,
    /// A rule of a security group.
    Rule,
    /// A trunk.
    Trunk,
    /// A flavor.
    Flavor,
    /// A job.
    Job,
    /// An extension of Neutron's.
    Extension,
    /// A subnet pool.
    SubnetPool,
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Self::Service(error)
    }
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        Self::Body(error)
    }
}

/// An error with its status and message.
pub(super) struct ErrorAnswer {
    pub(super) status: StatusCode,
    row: &'static Row,
    message: String,
}

impl ErrorAnswer {
    /// The stable word that scripts match on.
    pub(super) fn reason(&self) -> &'static str {
        self.row.reason
    }

    /// Logs it when it is nicd's or the host's trouble.
    fn log(&self) {
        if status::is_trouble(self.status) {
            tracing::warn!(status = self.status.as_u16(), reason = self.reason(), message = self.message, "refused");
        }
    }

    /// The body in the dialect's envelope.
    pub(super) fn body(&self, dialect: Dialect) -> Value {
        envelope(self.row, self.status, &self.message, dialect.envelope)
    }

    /// The complete response.
    pub(super) fn response(&self, dialect: Dialect) -> Response {
        let mut response = (self.status, Json(self.body(dialect))).into_response();
        response.headers_mut().extend(status::header(self.status));
        response
    }
}

/// An error in an envelope.
pub(super) fn envelope(row: &Row, status: StatusCode, message: &str, envelope: Envelope) -> Value {
    let Row { reason, kind, .. } = row;
    match envelope {
        Envelope::Compute => {
            json!({status::key(status): {"code": status.as_u16(), "message": message, "reason": reason}})
        }
        Envelope::Otc => {
            let code = status::ecs(row);
            let details = [json!({"code": code, "message": message})];
            json!({"error": {"code": code, "message": message, "reason": reason, "details": details}})
        }
        Envelope::Network => json!({"NeutronError": {"type": kind, "message": message, "detail": "", "reason": reason}}),
    }
}

/// The response for an error, in a dialect.
pub fn answer(refusal: &ApiError, dialect: Dialect) -> Response {
    let told = error_answer(refusal, dialect);
    // The line of the refused action tells of what the service refuses.
    if !matches!(refusal, ApiError::Service(_)) {
        told.log();
    }
    told.response(dialect)
}

/// The same for a request that is no action, whose refusal by the service no other line of the log has.
pub fn answer_and_log(refusal: &ApiError, dialect: Dialect) -> Response {
    let told = error_answer(refusal, dialect);
    told.log();
    told.response(dialect)
}

/// Answers 405; `allow` is what the route allows (RFC 9110 §15.5.6).
pub fn bad_method(refusal: &ApiError, dialect: Dialect, allow: Option<&HeaderValue>) -> Response {
    let mut response = answer(refusal, dialect);
    if let Some(allow) = allow {
        response.headers_mut().insert(ALLOW, allow.clone());
    }
    response
}

/// Looks up an error's row and status in a dialect, and renders its message.
pub(super) fn error_answer(refusal: &ApiError, dialect: Dialect) -> ErrorAnswer {
    let (reason, message) = match refusal {
        ApiError::Service(error) => (error.reason(), error.to_string()),
        ApiError::Body(error) => (error.reason(), error.to_string()),
        ApiError::Query(message) => ("bad_query", message.clone()),
        ApiError::MediaType(given) => {
            ("unsupported_media_type", format!("Unsupported Content-Type '{given}'; application/json is expected"))
        }
        ApiError::MicroversionMalformed(given) => {
            let rule = "Must be of format MajorNum.MinorNum.";
            ("malformed_version", format!("API Version String {given} is of invalid format. {rule}"))
        }
        ApiError::MicroversionUnsupported { asked, min, max } => (
            "unsupported_version",
            format!("Version {asked} is not supported by the API. Minimum is {min} and maximum is {max}."),
        ),
        ApiError::BadKey => ("bad_idempotency_key", "Idempotency-Key takes 1 to 64 printable characters".to_owned()),
        ApiError::KeyMismatch(key) => {
            ("idempotency_mismatch", format!("Idempotency-Key '{key}' came with another request before; use a fresh one"))
        }
        ApiError::NetworkAndPort => ("network_and_port", "Must not input both network_id and port_id".to_owned()),
        ApiError::AddressWithoutNetwork => {
            ("address_without_network", "Must input network_id when request IP address".to_owned())
        }
        ApiError::Unknown { what, id } => match what {
            ObjectKind::Server => ("no_such_server", format!("Instance {id} could not be found.")),
            ObjectKind::Port => ("no_such_port", format!("Port id {id} could not be found.")),
            ObjectKind::Network => ("no_such_network", format!("Network {id} could not be found.")),
            ObjectKind::Subnet => ("no_such_subnet", format!("Subnet {id} could not be found.")),
            ObjectKind::Group => ("no_such_group", format!("Security group {id} does not exist")),
            ObjectKind::Rule => ("no_such_rule", format!("Security group rule {id} does not exist")),
            ObjectKind::Trunk => ("no_such_trunk", format!("Trunk {id} could not be found.")),
            ObjectKind::Job => ("no_such_job", format!("there is no job {id}; jobs are kept for a day after their end")),
            ObjectKind::Extension => ("no_such_extension", format!("Extension with alias {id} does not exist")),
            ObjectKind::SubnetPool => ("no_such_subnetpool", format!("Subnet pool {id} could not be found; there are none")),
            ObjectKind::Flavor => ("no_such_flavor", format!("Flavor {id} could not be found.")),
        },
        ApiError::UseAttach { device, port } => {
            let of = port.map_or_else(String::new, |port| format!(" of port {port}"));
            let how = "by an attach: POST …/servers/{server}/os-interface with port_id; '' detaches";
            ("use_attach", format!("device_id '{device}'{of} is set {how}"))
        }
        ApiError::BadCondition(given) => ("bad_condition", format!("If-Match: '{given}'; revision_number=N is expected")),
        ApiError::BadId(message) => ("bad_id", message.clone()),
        ApiError::BadPath(path) => ("bad_path", format!("the path {path} is not UTF-8 once its escapes are undone")),
        ApiError::NoRoute(path) => ("no_such_route", format!("The resource could not be found: there is no {path}")),
        ApiError::BadMethod { method, path } => ("bad_method", format!("The method {method} is not allowed for {path}")),
        ApiError::Starting(summary) => ("starting", format!("nicd is starting, and still brings ports back: {summary}")),
        ApiError::CannotStart(why) => ("cannot_start", format!("nicd cannot start: {why}")),
        ApiError::Malformed => ("malformed_request", "The request is not well-formed HTTP/1.1 (RFC 9112).".to_owned()),
        ApiError::Unauthorized(caller) => {
            ("unknown_caller", format!("{caller} may not use this socket; root and the members of its group may."))
        }
        ApiError::ClientNotAllowed { name } => (
            "client_not_allowed",
            format!("no name in the certificate of '{name}' is in allow of [listen], which names the clients that may use nicd"),
        ),
        ApiError::ReadOnly { method } => {
            ("read_only_socket", format!("{method} is not possible on the read-only socket; GET and HEAD are. Use nicd.sock."))
        }
        ApiError::TooSlow { limit } => {
            ("request_timeout", format!("The request did not arrive whole within {} s; send it at once.", limit.as_secs_f32()))
        }
        ApiError::BodyTooLarge { limit } => {
            ("body_too_large", format!("The request's body is longer than {limit} bytes, which is the most."))
        }
        ApiError::HeadersTooLarge { limit } => {
            ("headers_too_large", format!("The request's headers are longer than {limit} bytes, which is the most."))
        }
        ApiError::Crowded => (
            "too_many_connections",
            "All connections that this caller may have are in use; try again, and keep fewer open.".to_owned(),
        ),
        ApiError::ManyReaders => (
            "too_many_readers",
            "Half of all connections follow events for this caller, which is the most; end some, or try again later.".to_owned(),
        ),
        ApiError::Internal => {
            ("internal", "The request met a bug in nicd; its log has the details under the request's id.".to_owned())
        }
    };
    let row = status::find(reason, kind(refusal));
    ErrorAnswer { status: row.status(dialect), row, message }
}

/// Selects the row of an error whose word has several rows.
fn kind(refusal: &ApiError) -> Option<&'static str> {
    let ApiError::Service(error) = refusal else { return None };
    match error {
        Error::Inventory(inventory::Error::GatewayInUse { .. }) => Some("GatewayIpInUse"),
        Error::DefaultGroupChange(_) => Some("SecurityGroupCannotUpdateDefault"),
        Error::DefaultGroupDelete(_) => Some("SecurityGroupCannotRemoveDefault"),
        Error::GroupsWithoutPortSecurity => Some("PortSecurityPortHasSecurityGroup"),
        Error::Rule(error) => match error {
            RuleError::PrefixOfOtherFamily { .. } => Some("SecurityGroupRuleParameterConflict"),
            RuleError::PortsWithoutProtocol => Some("SecurityGroupProtocolRequiredWithPorts"),
            RuleError::ProtocolWithoutPorts(_) => Some("SecurityGroupInvalidProtocolForPortRange"),
            RuleError::IcmpCodeAlone(_) => Some("SecurityGroupMissingIcmpType"),
            _ => None,
        },
        Error::ParentPortInUse { .. } => Some("ParentPortInUse"),
        Error::TrunkPortInUse { .. } => Some("TrunkPortInUse"),
        Error::Kernel(error) => match error.kind {
            OpErrorKind::NoBridge => Some("Conflict"),
            OpErrorKind::Taken => Some("ServiceUnavailable"),
            _ => None,
        },
        Error::Store(
            StoreError::Conflict(_)
            | StoreError::Newer { .. }
            | StoreError::NewerRecord(_)
            | StoreError::Denied(_)
            | StoreError::Held(_),
        ) => Some("HTTPInternalServerError"),
        _ => None,
    }
}
