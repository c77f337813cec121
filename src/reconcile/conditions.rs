//! What is known of the agent itself: what it lacks, what it cannot do, and what readers of events were told of that.

use std::collections::BTreeSet;
use std::time::Instant;

use serde::Serialize;

use crate::kernel::MissingRequirement;
use crate::store::{Holder, LostCommits, StoreError};

use super::told::Told;

/// The agent's own state. Code that locks both locks the inventory first.
#[derive(Debug, Default)]
pub struct Conditions {
    /// When a namespace's path was last seen to hang.
    pub hung: Option<Instant>,
    /// When the last complete dump that was taken in began.
    pub dumped: Option<Instant>,
    /// What the store last refused for, until it takes a commit again.
    pub store_trouble: Option<StoreError>,
    /// Another program that holds the store up.
    pub store_holder: Option<Holder>,
    /// What the host was last seen to lack.
    pub lacks: Vec<MissingRequirement>,
    /// Why the configuration could not be read again.
    pub config_trouble: Option<String>,
    /// Sockets that no client gets to.
    pub socket_trouble: Option<Finding>,
    /// Certificates of `[listen]` that have ended, or end soon.
    pub certificates: Vec<Finding>,
    /// Why the fleet is not reached.
    pub fleet_trouble: Option<Finding>,
    /// The bus, which was there and is away.
    pub bus_trouble: Option<Finding>,
    /// Why Nova is not told of ports.
    pub nova_trouble: Option<RecipientTrouble>,
    /// Why the webhook is not told of ports.
    pub webhook_trouble: Option<RecipientTrouble>,
    /// The troubles that events told of.
    pub told: Told,
    /// Bridges that are nearly full, by index.
    pub nearly_full: BTreeSet<u32>,
    /// The commits that a store put back no longer knows, while devices with their tags are there.
    pub lost: Option<LostCommits>,
}

/// What was seen of a problem, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was seen.
    pub detail: String,
    /// What to do about it.
    pub remedy: String,
}

impl Finding {
    /// These two.
    pub fn new(detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { detail: detail.into(), remedy: remedy.into() }
    }
}

/// Why a recipient of notices is not told of ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecipientTrouble {
    /// It has not been reached for a while, or does not answer as it should.
    Unreachable(Finding),
    /// It does not accept who nicd is.
    Refuses(Finding),
}

impl RecipientTrouble {
    /// What was seen, if it was not reached.
    pub fn unreachable(&self) -> Option<&Finding> {
        match self {
            Self::Unreachable(finding) => Some(finding),
            Self::Refuses(_) => None,
        }
    }

    /// What was seen, if it does not accept who nicd is.
    pub fn refuses(&self) -> Option<&Finding> {
        match self {
            Self::Refuses(finding) => Some(finding),
            Self::Unreachable(_) => None,
        }
    }
}
