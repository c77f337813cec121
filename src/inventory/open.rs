//! Agent-made bridges that deliver frames to the host's stack, as they could not be closed to it.

use std::collections::BTreeMap;

use crate::model::NetworkId;

/// Agent-made bridges that could not be closed to the host.
#[derive(Debug, Default)]
pub struct Open {
    /// Whether they may be used all the same (`links.require_host_closed = false`).
    pub tolerated: bool,
    /// Why each could not.
    pub why: BTreeMap<NetworkId, String>,
}

impl Open {
    /// Whether a network's bridge is not tried to be closed: that failed, and is tolerated.
    pub fn may_stay(&self, network: NetworkId) -> bool {
        self.tolerated && self.why.contains_key(&network)
    }

    /// It is closed, or no more.
    pub fn closed(&mut self, network: NetworkId) {
        self.why.remove(&network);
    }
}
