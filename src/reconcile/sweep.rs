//! The slow sweep: now and then everything is compared without a cause, so that nothing stays wrong because it was once
//! not told of. A right host sees no write of it.

use std::sync::Arc;

use crate::model::{NetworkId, PortId};
use crate::plan::Reason;
use crate::store::StoreError;

use super::Reconciler;

/// How many objects are evaluated without letting others have the state.
const CHUNK: usize = 64;

impl Reconciler {
    /// One sweep: a complete dump, then every port and bridge.
    pub(super) async fn sweep(self: Arc<Self>) {
        // Noticed also without a client's change.
        if let Err(error @ StoreError::Replaced(_)) = self.store.check().await {
            self.note_store(&mut self.lock(), Some(&error));
        }
        if let Err(error) = self.look_at_everything().await {
            tracing::warn!(%error, "a sweep could not look at the kernel");
            return;
        }
        let (ports, networks): (Vec<PortId>, Vec<NetworkId>) = {
            let state = self.lock();
            (state.ports.keys().copied().collect(), state.networks.keys().copied().collect())
        };
        for chunk in ports.chunks(CHUNK) {
            chunk.iter().for_each(|port| self.evaluate(&mut self.lock(), *port, Reason::Drift));
            tokio::task::yield_now().await;
        }
        for chunk in networks.chunks(CHUNK) {
            for network in chunk {
                let mut state = self.lock();
                self.evaluate_bridge(&mut state, *network);
                self.compare_all_entries(&mut state, *network);
            }
            tokio::task::yield_now().await;
        }
        // Last, as a machine may take long to answer.
        self.look_at_machines().await;
    }
}
