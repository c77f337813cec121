//! What is kept of a request that came with an `Idempotency-Key`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ids::{NetworkId, PortId, SubnetId};

/// Whose key it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// The caller.
    pub uid: u32,
    /// 1 to 64 printable characters.
    pub key: String,
}

/// What is kept under a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// The key.
    pub key: Key,
    /// A digest of method, path and body: another request under the same key is a mistake.
    pub request: String,
    /// Since when.
    pub at: Timestamp,
    /// What was made, as soon as it is durable.
    #[serde(default)]
    pub made: Vec<Made>,
    /// What was answered.
    #[serde(default)]
    pub answer: Option<Answered>,
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
pub struct Answered {
    /// Its HTTP status.
    pub status: u16,
    /// Its body, JSON or empty.
    pub body: String,
}
