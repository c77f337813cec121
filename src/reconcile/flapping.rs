//! Recurring drift: another program undoes nicd's changes again and again. nicd notices it after a few rounds, reports which
//! properties keep changing, repairs them less and less often, and forgets it when the port was stable for a while.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::inventory::Inventory;
use crate::inventory::flapping::{Flapping, PATIENCE, QUIET, contested, rest};
use crate::model::{NetworkId, PortId};
use crate::plan::Facet;

use super::{Problem, Reconciler};

/// The longest that a guest's entry in the FDB waits to be put back.
const ENTRY_WAIT: Duration = Duration::from_millis(500);

const CUT_OFF_REMEDY: &str = "find the program that changes the device's MAC, often the one that holds the tap, and end it; the port is put back 10 s after";

const REMEDY: &str = "find who does, such as a network manager, udev or another agent, and have it leave nicd's devices alone";

/// The word for a bridge of nicd's that another program keeps changing.
pub const NETWORK_BRIDGE: &str = "contested_network_bridge";

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
        let reason = state.contested.get(&port).map_or(contested(*first), |contest| contest.reason);
        if state.contested.insert(port, Flapping { reason, facets, cut_off: false }).is_none() {
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

/// The fights as health tells of them.
pub fn problems(state: &Inventory) -> impl Iterator<Item = Problem> {
    state.contested.iter().map(|(port, contest)| {
        let facets: Vec<&str> = contest.facets.iter().map(|facet| facet.as_str()).collect();
        let device = state.have.device(*port).map_or("no device", |link| link.name.as_str());
        Problem {
            reason: contest.reason,
            detail: format!("another program keeps changing the {} of port {port} ({device})", facets.join(", ")),
            remedy: if contest.cut_off { CUT_OFF_REMEDY } else { REMEDY }.to_owned(),
        }
    })
}

/// The bridges that are fought over, as health tells of them.
pub fn bridge_problems(state: &Inventory) -> impl Iterator<Item = Problem> {
    state.fought_bridges.iter().map(|network| Problem {
        reason: NETWORK_BRIDGE,
        detail: format!("another program keeps changing bridge {} of network {network}", state.bridge_name(*network)),
        remedy: REMEDY.to_owned(),
    })
}
