//! One hostile message: its bytes, how they are sent, and what may come back.

use crate::dice::Dice;

/// See the module.
#[derive(Debug, Clone)]
pub struct Attack {
    /// What it tries, for the tally and for a failed test's words.
    pub kind: &'static str,
    pub bytes: Vec<u8>,
    pub pace: Pace,
    pub want: Want,
}

/// How the bytes are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// At once, on a connection that is kept: exactly one answer is due.
    Kept,
    /// At once, then the sending side is closed: whatever is answered until the end.
    Whole,
    /// The same, one byte at a time.
    Bytewise,
    /// At once, then the connection is dropped unread.
    Dropped,
}

/// What an answer may be; no answer and a closed connection is always possible, as is 503 because there are too many connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// A success or a refusal: chance decides whether it was valid.
    Any,
    /// A refusal: every answer on this connection.
    Refused,
    /// A refusal as the last answer: valid requests may have come before.
    RefusedAtLast,
    /// A success: it was valid, however odd.
    Fine,
}

impl Attack {
    /// Bytes that are no proper message, or several.
    pub fn raw(kind: &'static str, bytes: impl Into<Vec<u8>>, want: Want) -> Self {
        Self { kind, bytes: bytes.into(), pace: Pace::Whole, want }
    }

    /// A properly framed request, whatever is in it.
    pub fn request(kind: &'static str, method: &str, target: &str, headers: &[(&str, &[u8])], body: &[u8], want: Want) -> Self {
        Self { kind, bytes: framed(method, target, headers, body), pace: Pace::Kept, want }
    }

    /// A properly framed request with a JSON body.
    pub fn json(kind: &'static str, method: &str, target: &str, body: &[u8], want: Want) -> Self {
        Self::request(kind, method, target, &[("Content-Type", b"application/json")], body, want)
    }

    pub fn paced(self, pace: Pace) -> Self {
        Self { pace, ..self }
    }

    /// Whether an answer has no body (RFC 9112 §6.3).
    pub fn is_head(&self) -> bool {
        self.bytes.starts_with(b"HEAD ")
    }
}

/// A request whose length is right.
pub fn framed(method: &str, target: &str, headers: &[(&str, &[u8])], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{method} {target} HTTP/1.1\r\nHost: nicd\r\nContent-Length: {}\r\n", body.len()).into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PRI", "get", "M-SEARCH"];

/// A method: mostly one that some route knows.
pub fn method(dice: &mut Dice) -> &'static str {
    if dice.chance(80) { dice.of(&METHODS[..5]) } else { dice.of(METHODS) }
}

/// A route of the contract, with ids that chance chose.
pub fn route(dice: &mut Dice) -> String {
    let (one, other) = (dice.id(), dice.id());
    let routes = [
        "/".to_owned(),
        "/v2.1/".to_owned(),
        "/v2.0/".to_owned(),
        "/v2.1/servers".to_owned(),
        format!("/v2.1/servers/{one}"),
        format!("/v2.1/servers/{one}/os-interface"),
        format!("/v2.1/tenant/servers/{one}/os-interface"),
        format!("/v2/servers/{one}/os-interface/{other}"),
        format!("/servers/{one}/os-virtual-interfacesv2"),
        format!("/v2/t/servers/{one}/os-virtual-interfacesv2/{other}"),
        "/v2.0/extensions".to_owned(),
        "/v2.0/networks".to_owned(),
        format!("/v2.0/networks/{one}"),
        "/v2.0/subnets".to_owned(),
        format!("/v2.0/subnets/{one}"),
        "/v2.0/ports".to_owned(),
        format!("/v2.0/ports/{one}"),
        "/nicd/v1/servers".to_owned(),
        format!("/nicd/v1/servers/{one}"),
        "/nicd/v1/health".to_owned(),
        format!("/nicd/v1/ports/{one}/explain"),
        format!("/nicd/v1/ports/{one}/counters"),
        "/nicd/v1/plan".to_owned(),
        "/nicd/v1/verify".to_owned(),
        "/nicd/v1/gc".to_owned(),
        "/nicd/v1/metrics".to_owned(),
        "/nicd/v1/openapi.json".to_owned(),
    ];
    dice.of(&routes)
}
