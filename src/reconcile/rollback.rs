//! An older copy of the store that was put back: the tags of devices have commit numbers that it does not have.
//!
//! A device that outlives the process is tagged after its commit is durable. So a tag with a later commit than the store's last
//! one shows that the store is an older copy. The records of such a device are lost: the device is left unchanged, its port (if
//! there is one) is ERROR, and a client decides.

use crate::inventory::Inventory;
use crate::model::{PhaseEvent, PortId, names};
use crate::plan::LinkState;
use crate::store::{Change, Loaded, LostCommits};

use super::{Context, Problem, Reconciler, Why};

/// How far event numbers are advanced, because the lost commits also used event numbers.
pub const EVENTS_LOST: u64 = 1 << 32;

/// The lost commits, as far as tags show them, and whether a tag is newer than the store's last commit.
pub fn detect(state: &Inventory, loaded: &Loaded) -> (Option<LostCommits>, bool) {
    let newest = state.have.iter().filter_map(|link| tag_commit(state, link)).max();
    match (newest.filter(|newest| *newest > loaded.commit), loaded.lost) {
        (Some(until), known) => {
            let after = known.map_or(loaded.commit, |known| known.after.min(loaded.commit));
            (Some(LostCommits { after, until }), true)
        }
        (None, known) => (known, false),
    }
}

impl Reconciler {
    /// Whether a port's device was tagged by a lost commit. Such a port becomes ERROR, and its device is left unchanged.
    pub(super) fn is_from_lost_commits(&self, state: &mut Inventory, port: PortId, context: &Context) -> bool {
        let Some(lost) = self.conditions().lost else { return false };
        let Some(device) =
            state.have.device(port).filter(|device| tag_commit(state, device).is_some_and(|commit| lost.has(commit)))
        else {
            return false;
        };
        let detail =
            format!("{} was tagged by a commit that the store, put back to commit {}, has lost", device.name, lost.after);
        self.transition(state, port, PhaseEvent::Failed, Some(Why { reason: Problem::StoreRolledBack.word(), detail }), context);
        true
    }

    /// Ends the problem when no device has the tag of a lost commit any more.
    pub(super) fn settle_lost_commits(&self, state: &Inventory) {
        let Some(lost) = self.conditions().lost else { return };
        if state.have.iter().any(|link| tag_commit(state, link).is_some_and(|commit| lost.has(commit))) {
            return;
        }
        self.conditions().lost = None;
        tracing::info!("no device of the time that the store has lost is left");
        self.store.note(vec![Change::NoteLost(None)]);
    }
}

fn tag_commit(state: &Inventory, link: &LinkState) -> Option<u64> {
    names::commit_in_tag(link.alias.as_deref()?, state.store_id)
}
