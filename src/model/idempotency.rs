//! Stored requests with an `Idempotency-Key`.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ids::{GroupId, JobId, NetworkId, PortId, RuleId, SubnetId, TrunkId};

/// Who makes requests: what limits, idempotency keys and the log tell callers apart by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CallerId {
    /// The user of a process on this host.
    Uid(u32),
    /// The name in the certificate of a client on TLS.
    Client(Arc<str>),
}

impl fmt::Display for CallerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uid(uid) => write!(f, "uid {uid}"),
            Self::Client(name) => write!(f, "client {name}"),
        }
    }
}

/// An idempotency key of a caller.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "WrittenKey", into = "WrittenKey")]
pub struct Key {
    /// The caller.
    pub caller: CallerId,
    /// 1 to 64 printable characters.
    pub key: String,
}

/// A key as records have it: with a uid, or with a client's name.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenKey {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    key: String,
}

impl From<Key> for WrittenKey {
    fn from(Key { caller, key }: Key) -> Self {
        match caller {
            CallerId::Uid(uid) => Self { uid: Some(uid), client: None, key },
            CallerId::Client(name) => Self { uid: None, client: Some(name.to_string()), key },
        }
    }
}

impl TryFrom<WrittenKey> for Key {
    type Error = &'static str;

    fn try_from(WrittenKey { uid, client, key }: WrittenKey) -> Result<Self, Self::Error> {
        let caller = match (uid, client) {
            (Some(uid), None) => CallerId::Uid(uid),
            (None, Some(name)) => CallerId::Client(name.into()),
            _ => return Err("a key has either a uid or a client"),
        };
        Ok(Self { caller, key })
    }
}

/// A request stored under its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredRequest {
    /// The key.
    pub key: Key,
    /// A digest of method, path and body, to detect another request under the same key.
    pub request: String,
    /// When it was stored, by the wall clock.
    pub at: Timestamp,
    /// The same by the monotonic clock.
    #[serde(default)]
    pub since: Option<SinceBoot>,
    /// The objects that the request created, as soon as they are durable.
    #[serde(default)]
    pub made: Vec<Made>,
    /// The answer, once given.
    #[serde(default)]
    pub answer: Option<StoredAnswer>,
}

/// The time since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SinceBoot {
    /// Which boot (`/proc/sys/kernel/random/boot_id`).
    pub boot: Uuid,
    /// Milliseconds, including the time of suspension.
    pub ms: i64,
}

/// A time by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockStamp {
    /// By the wall clock, which may be set.
    pub at: Timestamp,
    /// The time since boot, if known.
    pub since: Option<SinceBoot>,
}

impl ClockStamp {
    /// The milliseconds elapsed since a stored time: by the monotonic clock within the same boot, otherwise by the wall clock.
    pub fn ago(&self, at: Timestamp, since: Option<SinceBoot>) -> i64 {
        let elapsed = match (self.since, since) {
            (Some(now), Some(then)) if now.boot == then.boot => now.ms.saturating_sub(then.ms),
            _ => i64::try_from(self.at.duration_since(at).as_millis()).unwrap_or(i64::MAX),
        };
        elapsed.max(0)
    }
}

/// An object that a request created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Made {
    /// A network.
    Network(NetworkId),
    /// A subnet.
    Subnet(SubnetId),
    /// A security group.
    Group(GroupId),
    /// A rule of a security group.
    Rule(RuleId),
    /// A port, by itself or by an attach.
    Port(PortId),
    /// A trunk.
    Trunk(TrunkId),
    /// A job.
    Job(JobId),
}

/// A stored answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredAnswer {
    /// Its HTTP status.
    pub status: u16,
    /// Its body, JSON or empty.
    pub body: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_users_are_written_as_before_and_those_of_clients_beside_them() {
        for (caller, written) in [
            (CallerId::Uid(7), r#"{"uid":7,"key":"a"}"#),
            (CallerId::Client("cloud-1".into()), r#"{"client":"cloud-1","key":"a"}"#),
        ] {
            let key = Key { caller, key: "a".to_owned() };
            assert_eq!(serde_json::to_string(&key).unwrap(), written);
            assert_eq!(serde_json::from_str::<Key>(written).unwrap(), key);
        }
        for bad in [r#"{"key":"a"}"#, r#"{"uid":1,"client":"b","key":"a"}"#, r#"{"uid":1,"key":"a","more":1}"#] {
            assert!(serde_json::from_str::<Key>(bad).is_err(), "{bad}");
        }
    }
}
