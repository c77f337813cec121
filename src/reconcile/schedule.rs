//! When a port is tried again that is not as its record says: after each failure later, and soon when what stood in its way may
//! have gone. A port has one try at a time, under way or set; what comes beside it is one more behind it.
//!
//! A try that fails as the last one did changes nothing that is shown, sends no event, and is logged at debug.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::inventory::flapping::QUIET;
use crate::inventory::retry::backoff;
use crate::inventory::{Inventory, PortEntry};
use crate::model::PortId;
use crate::plan::{Facet, Reason};

use super::{Reconciler, Work};

/// How long to wait for a guest's namespace before looking again, in milliseconds.
pub const NAMESPACE_WAIT: Duration = Duration::from_millis(500);

/// Over how long the tries are spread that one event leads to, in milliseconds.
const SPREAD: Duration = Duration::from_millis(200);

/// The shortest time between two tries that events lead to, in milliseconds: another program may cause many events.
const LEAST: Duration = Duration::from_millis(500);

impl Reconciler {
    /// Has a port brought to its record, unless that is under way; then it is looked at again at the end of it.
    pub(super) fn try_port(self: &Arc<Self>, state: &mut Inventory, port: PortId, reason: Reason) {
        let Some(entry) = state.ports.get_mut(&port) else { return };
        if std::mem::replace(&mut entry.retry.running, true) {
            return;
        }
        self.start(Work::Repair(port, reason));
    }

    /// Counts a try that begins.
    pub(super) fn count_try(state: &mut Inventory, port: PortId, facets: BTreeSet<Facet>) {
        let Some(entry) = state.ports.get_mut(&port) else { return };
        let retry = &mut entry.retry;
        if retry.last.is_none_or(|last| last.elapsed() > QUIET) {
            retry.forget();
        }
        retry.tries += 1;
        retry.due = None;
        retry.last = Some(Instant::now());
        retry.facets.extend(facets);
    }

    /// Sets the next try of a port whose last has failed; how many have failed in a row.
    pub(crate) fn try_later(&self, state: &mut Inventory, port: PortId) -> u32 {
        let Some(entry) = state.ports.get_mut(&port) else { return 0 };
        entry.retry.failed = entry.retry.failed.saturating_add(1);
        let failed = entry.retry.failed;
        self.postpone(state, port, backoff(failed));
        failed
    }

    /// Sets the time of a port's next try.
    pub(crate) fn postpone(&self, state: &mut Inventory, port: PortId, wait: Duration) {
        let due = Instant::now() + wait;
        let Some(entry) = state.ports.get_mut(&port) else { return };
        entry.retry.due = Some(due);
        state.due.set(port, due);
        self.retries.notify_one();
    }

    /// Something has happened that may have stood in a port's way: one that waits for its next try has it soon.
    pub(super) fn cause_ended(&self, state: &mut Inventory, port: PortId) {
        let Some(entry) = state.ports.get_mut(&port).filter(|entry| entry.waits()) else { return };
        if entry.retry.running {
            entry.retry.again = true;
            return;
        }
        let soon = Instant::now() + SPREAD.mul_f64(rand::random());
        let soon = entry.retry.last.map_or(soon, |last| soon.max(last + LEAST));
        if state.due.at(port).is_none_or(|due| due > soon) {
            entry.retry.due = Some(soon);
            state.due.set(port, soon);
            self.retries.notify_one();
        }
    }

    /// The same for every port.
    pub(super) fn causes_ended(&self, state: &mut Inventory) {
        let waiting: Vec<PortId> = state.ports.values().filter(|entry| entry.waits()).map(|entry| entry.record.id).collect();
        waiting.into_iter().for_each(|port| self.cause_ended(state, port));
    }

    /// Has the loop judge a port once more, at this time or earlier: who sees something elsewhere leaves to it what that means.
    pub(super) fn judge_at(&self, state: &mut Inventory, port: PortId, at: Instant) {
        let waits = state.ports.get(&port).is_none_or(PortEntry::waits);
        if !waits && state.due.at(port).is_none_or(|due| due > at) {
            state.due.set(port, at);
            self.retries.notify_one();
        }
    }

    /// Takes up every port whose time has come.
    pub(super) fn run_due(self: &Arc<Self>) {
        let mut state = self.lock();
        let now = Instant::now();
        while let Some(port) = state.due.take(now) {
            let Some(entry) = state.ports.get(&port) else { continue };
            if entry.record.leaving() {
                self.start(Work::Reap(port));
            } else if entry.record.attached_to().is_some() {
                self.try_port(&mut state, port, Reason::Drift);
            }
        }
    }
}
