//! How a call fails.

use std::time::Duration;
use std::{fmt, io};

use hyper::{HeaderMap, Method, StatusCode};
use serde_json::Value;

use crate::retry::Refusals;

/// A call that failed. A `Display` leaves out the source.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection failed. Nothing was executed.
    #[error("nicd cannot be reached at {at}")]
    Unreachable {
        /// The daemon's socket, or its address.
        at: String,
        /// Why connecting failed.
        source: io::Error,
    },
    /// The connection ended, or what came was not HTTP, before the answer was complete. The call may have been executed.
    #[error("nicd at {at} did not answer {call}")]
    Unanswered {
        /// The daemon's socket, or its address.
        at: String,
        /// The call.
        call: Call,
        /// What happened to the connection.
        source: hyper::Error,
    },
    /// The daemon accepted the connection but did not answer in time. The call may have been executed.
    #[error("nicd at {at} did not answer {call} within {} s", limit.as_secs())]
    Silent {
        /// The daemon's socket, or its address.
        at: String,
        /// The call.
        call: Call,
        /// The time limit.
        limit: Duration,
    },
    /// The event stream ended, and is not to be opened again.
    #[error("nicd at {at} closed the event stream")]
    StreamEnded {
        /// The daemon's socket, or its address.
        at: String,
    },
    /// The daemon refused the call.
    #[error(transparent)]
    Refused(Box<Refusal>),
    /// The request cannot be written as HTTP with JSON.
    #[error("{call} cannot be sent")]
    Unsendable {
        /// The call.
        call: Call,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A success whose body is not the JSON that the caller expects.
    #[error("nicd's answer to {call} is not the JSON expected")]
    Unreadable {
        /// The call.
        call: Call,
        /// Where it differs.
        source: serde_json::Error,
    },
    /// A success without the object that it is about.
    #[error("nicd's answer has no '{key}': is it a nicd?")]
    Incomplete {
        /// The member that is missing.
        key: &'static str,
    },
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

impl Error {
    /// The daemon's refusal, if this is one.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// The daemon's stable word for the cause, e.g. `address_in_use`.
    pub fn reason(&self) -> Option<&str> {
        self.refusal()?.reason.as_deref()
    }

    /// Whether the daemon says that the thing asked about does not exist.
    pub fn is_not_found(&self) -> bool {
        self.refusal().is_some_and(|refusal| refusal.status == StatusCode::NOT_FOUND)
    }

    /// Whether the call may have been executed although it failed.
    pub fn is_uncertain(&self) -> bool {
        matches!(self, Self::Unanswered { .. } | Self::Silent { .. })
    }

    /// Whether a repeat may succeed, and how long to wait for it at least.
    pub(crate) fn passes_after(&self, refusals: Refusals) -> Option<Duration> {
        match self {
            // InvalidData: a certificate is not accepted, on this side or on the other.
            Self::Unreachable { source, .. }
                if matches!(source.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidData) =>
            {
                None
            }
            Self::Unreachable { .. } | Self::Unanswered { .. } => Some(Duration::ZERO),
            // A change that takes longer than its limit is not sent a second time while the first may still be under way.
            Self::Silent { call, .. } if call.method == Method::GET => Some(Duration::ZERO),
            Self::Refused(refusal) if refusals.passes(refusal) => Some(refusal.retry_after.unwrap_or_default()),
            _ => None,
        }
    }
}

/// A method and a request target. Displays both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The method.
    pub method: Method,
    /// The path and the query.
    pub target: String,
}

impl Call {
    /// Whether a second execution does nothing more. A POST is executed once under its key, but nicd's own routes know no keys.
    pub(crate) fn is_harmless_twice(&self) -> bool {
        self.method != Method::POST || !self.target.starts_with("/nicd/v1/")
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.target)
    }
}

/// An error answer of the daemon. Displays the daemon's message and the reason.
///
/// It is read from Nova's envelope (`{"<key>": {"code", "message", "reason"}}`) and from Neutron's
/// (`{"NeutronError": {"type", "message", "detail", "reason"}}`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: StatusCode,
    /// The daemon's sentence.
    pub message: String,
    /// The stable word for the cause, to match on.
    pub reason: Option<String>,
    /// The request's id, as in the daemon's log.
    pub request_id: Option<String>,
    /// How long to wait before a repeat.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// Reads an error answer; one in neither envelope still gives a sentence.
    pub fn from_answer(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let parsed: Value = serde_json::from_slice(body).unwrap_or_default();
        let fault = parsed.as_object().and_then(|envelope| envelope.values().find(|fault| fault["message"].is_string()));
        let text = |key: &str| fault.and_then(|fault| fault[key].as_str()).filter(|text| !text.is_empty()).map(str::to_owned);
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        Self {
            status,
            message: text("message").unwrap_or_else(|| format!("nicd answered '{status}' and did not say why")),
            reason: text("reason"),
            request_id: header("x-request-id").map(str::to_owned),
            retry_after: header("retry-after").and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs),
        }
    }
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Some(reason) => write!(f, "{} ({reason})", self.message),
            None => f.write_str(&self.message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(status: StatusCode, body: &str) -> String {
        Refusal::from_answer(status, &HeaderMap::new(), body.as_bytes()).to_string()
    }

    #[test]
    fn both_envelopes_are_read() {
        assert_eq!(
            said(StatusCode::NOT_FOUND, r#"{"itemNotFound": {"code": 404, "message": "Instance x could not be found."}}"#),
            "Instance x could not be found."
        );
        assert_eq!(
            said(
                StatusCode::CONFLICT,
                r#"{"NeutronError": {"type": "IpAddressInUse", "message": "192.0.2.7 is in use", "detail": "",
                    "reason": "address_in_use"}}"#
            ),
            "192.0.2.7 is in use (address_in_use)"
        );
    }

    #[test]
    fn an_answer_in_no_envelope_still_gives_a_sentence() {
        for body in ["", "<html>", "[]", "\"x\"", "{}", r#"{"status": "starting"}"#, r#"{"computeFault": {"message": ""}}"#] {
            assert_eq!(
                said(StatusCode::SERVICE_UNAVAILABLE, body),
                "nicd answered '503 Service Unavailable' and did not say why",
                "{body}"
            );
        }
    }
}
