//! Why an attempt failed as a whole.

use std::time::Duration;

use super::http::{Answer, NoAnswer};

/// Why nothing of a batch was accepted. The sentence is for health and the log, and holds no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What was seen.
    pub why: String,
    /// What it means.
    pub kind: FailureKind,
    /// How long the server asks to wait.
    pub retry_after: Option<Duration>,
}

/// What a failure means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The server cannot be reached, or cannot work now.
    Unreachable,
    /// The server does not accept who nicd is.
    Refused,
    /// The server does not accept the request: something in it is wrong, or it is too long.
    Request,
}

impl Failure {
    /// The server does not accept who nicd is.
    pub fn refused(why: impl Into<String>) -> Self {
        Self { why: why.into(), kind: FailureKind::Refused, retry_after: None }
    }

    /// The server does not answer as it should, or the configuration is not what is there.
    pub fn misused(why: impl Into<String>) -> Self {
        Self { why: why.into(), kind: FailureKind::Unreachable, retry_after: None }
    }

    /// The server's answer is an error that says nothing of the request.
    pub fn answered(who: &str, answer: &Answer) -> Self {
        let why = format!("{who} answers {}: {}", answer.status, answer.begins());
        Self { why, kind: FailureKind::Unreachable, retry_after: answer.retry_after() }
    }
}

impl From<NoAnswer> for Failure {
    fn from(error: NoAnswer) -> Self {
        Self::misused(error.to_string())
    }
}
