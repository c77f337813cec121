//! Why a request to etcd did not do what it was for.

/// Why a request failed. No sentence holds a password or a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No endpoint can be reached, or none can work now. A transaction was not done.
    #[error("etcd cannot be reached: {}", .0.iter().map(Unreached::to_string).collect::<Vec<_>>().join("; "))]
    Unreachable(Vec<Unreached>),
    /// etcd does not accept who nicd is, or does not let it do this. Nothing was changed.
    #[error("etcd does not let nicd in: {0}")]
    Denied(String),
    /// etcd has no space left (its alarm NOSPACE): it writes nothing, but is read and deleted from. The transaction that took the last space
    /// is answered so too, although it was done: whether this one was is not known.
    #[error("etcd has no space left: {0}")]
    Full(String),
    /// The revision asked for is compacted away: everything is to be read again.
    #[error("the revision is compacted: {0}")]
    Compacted(String),
    /// etcd has not come to the revision asked for: an older snapshot was restored, or it is another etcd.
    #[error("etcd is older than what was read from it: {0}")]
    Behind(String),
    /// Too many requests are under way, in etcd or in this client. Nothing was changed.
    #[error("too many requests: {0}")]
    Busy(String),
    /// The transaction was sent, and its answer is lost: whether it took effect is not known, and it was not repeated.
    #[error("whether it took effect is not known: {0}")]
    Unknown(Unreached),
    /// The answer is too long for one: less is to be read at a time.
    #[error("{0}")]
    TooLong(String),
    /// etcd, or this client, does not accept the request as it is. Nothing was changed.
    #[error("etcd refuses the request: {0}")]
    Refused(String),
}

impl Error {
    /// Whether a transaction that was answered so may have taken effect: what is there is to be read.
    pub fn may_be_done(&self) -> bool {
        matches!(self, Self::Unknown(_) | Self::Full(_))
    }
}

/// Why there is no answer from an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{endpoint}: {why}")]
pub struct Unreached {
    /// The endpoint, as configured.
    pub endpoint: String,
    /// Why.
    pub why: String,
}

/// Why one endpoint gave no answer that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The request had no effect: it was not sent, or this member did not take it on.
    NotSent(String),
    /// It may have been sent, and no answer of etcd came.
    Lost(String),
    /// The answer was longer than it may be.
    TooLong(String),
    /// etcd answered by an error.
    Told(Told),
    /// Nothing was sent: another endpoint would give the same.
    Final(Error),
}

impl Failure {
    /// The same, where an error of etcd has become what it means.
    pub(super) fn understood(self) -> Self {
        match self {
            Self::Told(told) => told.meaning(),
            other => other,
        }
    }
}

/// An error of etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    /// Its code (gRPC's).
    pub code: i64,
    /// Its text.
    pub message: String,
}

// gRPC's codes.
const INVALID_ARGUMENT: i64 = 3;
const NOT_FOUND: i64 = 5;
const PERMISSION_DENIED: i64 = 7;
const RESOURCE_EXHAUSTED: i64 = 8;
const FAILED_PRECONDITION: i64 = 9;
const OUT_OF_RANGE: i64 = 11;
const UNAUTHENTICATED: i64 = 16;

impl Told {
    /// Whether a new token may help: this one has ended, is not known to this member, or is older than a change of users; or there was none.
    pub(super) fn wants_a_token(&self) -> bool {
        let says = |text| self.message.contains(text);
        self.code == UNAUTHENTICATED
            || says("invalid auth token")
            || says("user name is empty")
            || says("revision of auth store is old")
    }

    /// What it means for a request, or why this member cannot tell.
    pub(super) fn meaning(self) -> Failure {
        let Self { code, message } = self;
        let says = |text| message.contains(text);
        // Such a member refuses before it takes anything on (the header `hasleader`).
        if message == "etcdserver: no leader" {
            return Failure::NotSent(message);
        }
        let denied = says("authentication") || says("auth token") || says("user name is empty") || says("permission denied");
        Failure::Final(match code {
            UNAUTHENTICATED | PERMISSION_DENIED => Error::Denied(message),
            INVALID_ARGUMENT | FAILED_PRECONDITION if denied => Error::Denied(message),
            RESOURCE_EXHAUSTED if says("space exceeded") => Error::Full(message),
            RESOURCE_EXHAUSTED if says("too many requests") => Error::Busy(message),
            OUT_OF_RANGE if says("compacted") => Error::Compacted(message),
            OUT_OF_RANGE if says("future revision") => Error::Behind(message),
            INVALID_ARGUMENT | NOT_FOUND | RESOURCE_EXHAUSTED | FAILED_PRECONDITION | OUT_OF_RANGE => Error::Refused(message),
            _ => return Failure::Lost(message),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(code: i64, message: &str) -> Failure {
        Told { code, message: message.to_owned() }.meaning()
    }

    #[test]
    fn each_error_of_etcd_has_its_meaning() {
        let text = |message: &str| message.to_owned();
        for (code, message, means) in [
            (8, "etcdserver: mvcc: database space exceeded", Error::Full as fn(String) -> Error),
            (8, "etcdserver: too many requests", Error::Busy),
            (8, "trying to send message larger than max", Error::Refused),
            (11, "etcdserver: mvcc: required revision has been compacted", Error::Compacted),
            (11, "etcdserver: mvcc: required revision is a future revision", Error::Behind),
            (16, "etcdserver: invalid auth token", Error::Denied),
            (7, "etcdserver: permission denied", Error::Denied),
            (3, "etcdserver: authentication failed, invalid user ID or password", Error::Denied),
            (9, "etcdserver: authentication is not enabled", Error::Denied),
            (3, "etcdserver: duplicate key given in txn request", Error::Refused),
            (5, "etcdserver: requested lease not found", Error::Refused),
        ] {
            assert_eq!(meaning(code, message), Failure::Final(means(text(message))), "{message}");
        }
        for (code, message) in
            [(14, "etcdserver: request timed out"), (14, "etcdserver: leader changed"), (2, "x"), (13, ""), (-1, "")]
        {
            assert_eq!(meaning(code, message), Failure::Lost(text(message)), "a request may have taken effect");
        }
        assert_eq!(meaning(14, "etcdserver: no leader"), Failure::NotSent(text("etcdserver: no leader")));
    }
}
