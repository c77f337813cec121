//! Stored requests with an `Idempotency-Key`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ids::{GroupId, JobId, NetworkId, PortId, RuleId, SubnetId, TrunkId};

/// An idempotency key of a caller.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// The caller.
    pub uid: u32,
    /// 1 to 64 printable characters.
    pub key: String,
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
