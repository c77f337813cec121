//! A port whose MAC on the host's side another program changes. A tap's owner may do so without any privilege, and in a bridge each
//! change to a neighbour's MAC deletes that neighbour's entry in the FDB. So nothing of others may hang on how fast it is set
//! back: after a few changes the port is cut off, which is down and out of every bridge, until its MAC has stood still.

use std::sync::Arc;
use std::time::Instant;

use crate::inventory::Inventory;
use crate::inventory::flapping::{Flapping, QUIET};
use crate::model::{Mac, PortId};
use crate::plan::{Facet, LinkState, Reason};

use super::problems::Problem;
use super::{Reconciler, Why};

/// Changes of a port's MAC that are set back at once, unless it stands still in between; beyond, it is cut off.
const CHANGES: u32 = 2;

impl Reconciler {
    /// Counts a change of a port's MAC by another program; whether the port is to be cut off now.
    pub(super) fn count_mac_change(&self, state: &mut Inventory, port: PortId) -> bool {
        let Some(entry) = state.ports.get_mut(&port) else { return false };
        if entry.retry.last.is_none_or(|last| last.elapsed() > QUIET) {
            entry.retry.forget();
        }
        let retry = &mut entry.retry;
        retry.last = Some(Instant::now());
        retry.mac_changes += 1;
        retry.facets.insert(Facet::Mac);
        if retry.mac_changes <= CHANGES {
            return false;
        }
        let (changes, facets) = (retry.mac_changes, retry.facets.clone());
        state.contested.insert(port, Flapping { first: Facet::Mac, facets, cut_off: true });
        tracing::warn!(%port, changes, "another program keeps changing the MAC of a port's device; the port is cut off");
        self.publish_health(state);
        true
    }

    /// A link was given a guest's MAC. Where it is one of nicd's, and has its own MAC again, that was a change as
    /// well; and that guest's port is returned, whose entry comes back at once, however often that had to be.
    pub(super) fn mac_taken(self: &Arc<Self>, state: &mut Inventory, index: u32, mac: Mac) -> Option<PortId> {
        let link = state.have.link(index).cloned()?;
        let ours: Vec<PortId> = link.marks().map(PortId).filter(|port| state.ports.contains_key(port)).collect();
        for port in &ours {
            let Some(record) = state.ports.get(port).map(|entry| &entry.record).filter(|one| one.attached_to().is_some()) else {
                continue;
            };
            // The MAC of its own guest harms no other port.
            let again = record.mac != mac && link.mac == Some(record.mac.host_side());
            if state.is_cut_off(*port) {
                state.provoked(*port);
            } else if again && self.count_mac_change(state, *port) {
                self.try_port(state, *port, Reason::Drift);
            }
        }
        let guest = state.guests.port(mac).filter(|guest| !ours.is_empty() && !ours.contains(guest))?;
        state.pardon(guest);
        Some(guest)
    }

    /// Follows the device of a port that is cut off: whether its MAC stands still, and whether another program undoes the cut.
    pub(super) fn follow_cut_off(
        self: &Arc<Self>,
        state: &mut Inventory,
        port: PortId,
        before: Option<&LinkState>,
        link: &LinkState,
    ) {
        if before.is_some_and(|before| before.mac != link.mac) {
            state.provoked(port);
        }
        let undone = link.up || link.master.is_some();
        if undone && state.ports.get(&port).is_some_and(|entry| !entry.claim.taken()) {
            self.try_port(state, port, Reason::Drift);
        }
    }

    /// Ends it for a port whose MAC did not change for a while: the next plan puts it back.
    pub(super) fn end_cut_off(&self, state: &mut Inventory, port: PortId) -> bool {
        let Some(entry) = state.ports.get_mut(&port) else { return false };
        if entry.retry.last.is_some_and(|last| last.elapsed() <= QUIET) {
            return false;
        }
        entry.retry.forget();
        state.contested.remove(&port);
        tracing::info!(%port, "no program changes the MAC of the port's device any more; it is put back");
        self.publish_health(state);
        true
    }
}

/// Why such a port is not ACTIVE.
pub fn why() -> Why {
    let detail = format!(
        "another program keeps changing the MAC of its device, which takes other guests' frames from them; it is down and out of its \
         bridge until the MAC has stood still for {} s",
        QUIET.as_secs()
    );
    Why { reason: Problem::ContestedMac.word(), detail }
}
