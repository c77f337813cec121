//! Recurring drift: another program undoes nicd's changes again and again. nicd notices it after a few rounds, reports which
//! properties keep changing, repairs them less and less often, and forgets it when the port was stable for a while.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::inventory::Inventory;
use crate::inventory::flapping::{Flapping, PATIENCE, QUIET, rest};
use crate::model::{NetworkId, PortId};
use crate::plan::Facet;

use super::Reconciler;
use super::problems::Problem;

/// The longest that a guest's entry in the FDB waits to be put back.
const ENTRY_WAIT: Duration = Duration::from_millis(500);

impl Reconciler {
    /// Counts a repair that was carried out, and notices a fight.
    pub(super) fn count_repair(self: &Arc<Self>, state: &mut Inventory, port: PortId) {
        let Some(entry) = state.ports.get_mut(&port) else { return };
        entry.retry.repaired += 1;
        if entry.retry.tries > PATIENCE {
            let wait = rest(entry.retry.tries);
            // Without its entry a guest gets nothing, and restoring the entry delays no other port.
            let only_entry = entry.retry.facets.iter().all(|facet| *facet == Facet::Fdb);
            entry.retry.due = Some(Instant::now() + if only_entry { wait.min(ENTRY_WAIT) } else { wait });
        }
        let (repaired, facets) = (entry.retry.repaired, entry.retry.facets.clone());
        let Some(first) = facets.first().filter(|_| repaired > PATIENCE) else { return };
        let first = state.contested.get(&port).map_or(*first, |contest| contest.first);
        if state.contested.insert(port, Flapping { first, facets, cut_off: false }).is_none() {
            let reason = Problem::of_contest(first).word();
            tracing::warn!(%port, reason, repaired, "another program keeps undoing nicd's repairs; they are made less often from now on");
        }
        state.due.set(port, Instant::now() + QUIET + QUIET / 10);
        self.publish_health(state);
        self.retries.notify_one();
    }

    /// Notes whether another program keeps changing a network's bridge.
    pub(super) fn note_bridge(&self, state: &mut Inventory, network: NetworkId) {
        let fought = state.networks.get(&network).is_some_and(|entry| entry.repairs.contested());
        let news = if fought { state.fought_bridges.insert(network) } else { state.fought_bridges.remove(&network) };
        if news {
            tracing::warn!(%network, fought, "whether another program keeps undoing nicd's repairs of its own bridge has changed");
            self.publish_health(state);
        }
    }

    /// Ends the fight over a port that has stood still.
    pub(super) fn end_flapping(&self, state: &mut Inventory, port: PortId) {
        let quiet = state.ports.get(&port).is_some_and(|entry| entry.retry.last.is_none_or(|last| last.elapsed() > QUIET));
        if quiet && state.contested.remove(&port).is_some() {
            tracing::info!(%port, "no program undoes nicd's repairs any more");
            self.publish_health(state);
        }
    }
}
