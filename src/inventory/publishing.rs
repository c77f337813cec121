//! Which ports of shared networks have changed since the fleet was told of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::model::{NetworkId, PortId};

use super::Inventory;

/// The ports of which the fleet is to be told.
#[derive(Debug, Default)]
pub struct Publishing {
    /// Whether anybody tells it.
    is_on: bool,
    changed: BTreeSet<PortId>,
    /// Rung with each change.
    pub rung: Arc<Notify>,
}

impl Inventory {
    /// Notes changes of ports from now on.
    pub fn publish_ports(&mut self) {
        self.publishing.is_on = true;
    }

    /// Notes that a port of a network has changed, if the fleet is to be told.
    pub(super) fn port_changed(&mut self, network: NetworkId, port: PortId) {
        if self.publishing.is_on && self.networks.get(&network).is_some_and(|entry| entry.record.is_shared()) {
            self.publishing.changed.insert(port);
            self.publishing.rung.notify_one();
        }
    }

    /// Takes the ports that have changed.
    pub fn take_changed(&mut self) -> BTreeSet<PortId> {
        std::mem::take(&mut self.publishing.changed)
    }

    /// The ports of shared networks.
    pub fn shared_ports(&self) -> impl Iterator<Item = PortId> + '_ {
        self.networks.values().filter(|entry| entry.record.is_shared()).flat_map(|entry| entry.ports.iter().copied())
    }
}
