//! Error answers of the daemon: parses Nova's envelope (`{"<key>": {"code", "message", "reason"}}`) and Neutron's
//! (`{"NeutronError": {"type", "message", "detail", "reason"}}`) into one type.

use std::fmt;

use hyper::StatusCode;
use serde_json::Value;

/// An error answer. Displays the daemon's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerError {
    /// The HTTP status.
    pub status: StatusCode,
    /// The daemon's sentence.
    pub message: String,
    /// Its stable word for the cause, where it gave one.
    pub reason: Option<String>,
}

impl ServerError {
    /// Reads an answer's body; one that is in neither envelope still gives a sentence.
    pub fn from_answer(status: StatusCode, body: &[u8]) -> Self {
        let parsed: Value = serde_json::from_slice(body).unwrap_or_default();
        let fault = parsed.as_object().and_then(|envelope| envelope.values().find(|fault| fault["message"].is_string()));
        let text = |key: &str| fault.and_then(|fault| fault[key].as_str()).filter(|text| !text.is_empty()).map(str::to_owned);
        Self {
            status,
            message: text("message").unwrap_or_else(|| format!("nicd answered '{status}' and did not say why")),
            reason: text("reason"),
        }
    }
}

impl std::error::Error for ServerError {}

impl fmt::Display for ServerError {
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
        ServerError::from_answer(status, body.as_bytes()).to_string()
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
