//! What is kept of a request that came with an `Idempotency-Key`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ids::{NetworkId, PortId, SubnetId};

/// Whose key it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// The caller.
    pub uid: u32,
    /// 1 to 64 printable characters.
    pub key: String,
}

/// What is kept under a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredRequest {
    /// The key.
    pub key: Key,
    /// A digest of method, path and body: another request under the same key is a mistake.
    pub request: String,
    /// Since when, by the wall's clock.
    pub at: Timestamp,
    /// The same by a clock that nobody sets.
    #[serde(default)]
    pub since: Option<SinceBoot>,
    /// What was made, as soon as it is durable.
    #[serde(default)]
    pub made: Vec<Made>,
    /// What was answered.
    #[serde(default)]
    pub answer: Option<StoredAnswer>,
}

/// What had passed since a boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SinceBoot {
    /// Which boot (`/proc/sys/kernel/random/boot_id`).
    pub boot: Uuid,
    /// Milliseconds, those of a suspended host too.
    pub ms: i64,
}

/// A moment by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockStamp {
    /// By the wall's clock, which may be set.
    pub at: Timestamp,
    /// Since the boot, where that can be told.
    pub since: Option<SinceBoot>,
}

impl ClockStamp {
    /// How long ago something was, in milliseconds: by the clock that nobody sets when it was in the same boot, else by
    /// the wall's, which may have been set back meanwhile.
    pub fn ago(&self, at: Timestamp, since: Option<SinceBoot>) -> i64 {
        let elapsed = match (self.since, since) {
            (Some(now), Some(then)) if now.boot == then.boot => now.ms.saturating_sub(then.ms),
            _ => i64::try_from(self.at.duration_since(at).as_millis()).unwrap_or(i64::MAX),
        };
        elapsed.max(0)
    }
}

/// The thing a request made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Made {
    /// A network.
    Network(NetworkId),
    /// A subnet.
    Subnet(SubnetId),
    /// A port, by itself or by an attach.
    Port(PortId),
}

/// An answer to be given again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredAnswer {
    /// Its HTTP status.
    pub status: u16,
    /// Its body, JSON or empty.
    pub body: String,
}
