//! Which servers, and ports of shared networks, have changed since the fleet was told of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::model::PublishedId;

/// What the fleet is to be told.
#[derive(Debug, Default)]
pub struct Publishing {
    /// Whether anybody tells it.
    pub(super) is_on: bool,
    pub(super) changed: BTreeSet<PublishedId>,
    /// Rung with each change.
    pub rung: Arc<Notify>,
}
