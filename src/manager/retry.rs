//! When a port is tried again that is not as its record says: after each failure later, and soon when what stood in its way may
//! have gone. A port has one try at a time, under way or set; what comes beside it is one more behind it.
//!
//! A try that fails as the last one did changes nothing that is shown, sends no event, and is logged at debug.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::{Phase, PortId, ServerId};
use crate::plan::{Facet, Reason};

use super::Manager;
use super::contest::QUIET;
use super::state::{PortEntry, State};

/// How long to wait for a guest's namespace before looking again, in milliseconds.
pub(super) const NAMESPACE_WAIT: Duration = Duration::from_millis(500);

/// The reason of a port whose guest's namespace is waited for.
pub(super) const NAMESPACE_GONE: &str = "namespace_gone";

/// The longest wait between two tries, in seconds.
const LONGEST: Duration = Duration::from_secs(60);

/// Over how long the tries are spread that one event leads to, in milliseconds.
const SPREAD: Duration = Duration::from_millis(200);

/// The shortest time between two tries that events lead to, in milliseconds: the events may be somebody's who makes many.
const LEAST: Duration = Duration::from_millis(500);

/// How a port's tries went, and when the next may come.
#[derive(Debug, Default, Clone)]
pub(super) struct Retry {
    /// Tries since it last stood still.
    pub tries: u32,
    /// How many of them brought it back, only to be undone.
    pub repaired: u32,
    /// How often somebody changed its MAC.
    pub mac_changes: u32,
    /// What was brought back in them.
    pub facets: BTreeSet<Facet>,
    /// The last try.
    pub last: Option<Instant>,
    /// Not before.
    pub due: Option<Instant>,
    /// Failures since one last succeeded.
    failed: u32,
    /// One is under way.
    running: bool,
    /// While it was, what stood in its way may have gone.
    again: bool,
}

impl Retry {
    /// Forgets how its tries went; one that is under way goes on.
    pub fn forget(&mut self) {
        *self = Self { running: self.running, again: self.again, failed: self.failed, ..Self::default() };
    }

    /// Nothing stands in its way any more.
    pub fn succeeded(&mut self) {
        self.failed = 0;
    }
}

impl Manager {
    /// Has a port brought to its record, unless that is under way; then it is looked at again at the end of it.
    pub(super) fn try_port(self: &Arc<Self>, state: &mut State, port: PortId, reason: Reason) {
        let Some(entry) = state.ports.get_mut(&port) else { return };
        if std::mem::replace(&mut entry.retry.running, true) {
            return;
        }
        let manager = Arc::clone(self);
        let repair = async move {
            manager.repair(port, reason).await;
            manager.tried(port);
        };
        match reason {
            Reason::Restart => self.tasks.spawn(self.first_pass.track_future(repair)),
            _ => self.tasks.spawn(repair),
        };
    }

    /// A try has ended.
    fn tried(self: &Arc<Self>, port: PortId) {
        let mut state = self.lock();
        let Some(entry) = state.ports.get_mut(&port) else { return };
        entry.retry.running = false;
        if std::mem::take(&mut entry.retry.again) {
            self.cause_ended(&mut state, port);
        }
        // What was seen meanwhile was left to this try, and may have come too late for it.
        self.judge(&mut state, port, Reason::Drift);
    }

    /// Counts a try that begins.
    pub(super) fn count_try(state: &mut State, port: PortId, facets: BTreeSet<Facet>) {
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
    pub(super) fn try_later(&self, state: &mut State, port: PortId) -> u32 {
        let Some(entry) = state.ports.get_mut(&port) else { return 0 };
        entry.retry.failed = entry.retry.failed.saturating_add(1);
        let failed = entry.retry.failed;
        self.postpone(state, port, backoff(failed));
        failed
    }

    /// Sets the time of a port's next try.
    pub(super) fn postpone(&self, state: &mut State, port: PortId, wait: Duration) {
        let due = Instant::now() + wait;
        let Some(entry) = state.ports.get_mut(&port) else { return };
        entry.retry.due = Some(due);
        state.due.set(port, due);
        self.retries.notify_one();
    }

    /// Something has happened that may have stood in a port's way: one that waits for its next try has it soon.
    pub(super) fn cause_ended(&self, state: &mut State, port: PortId) {
        let Some(entry) = state.ports.get_mut(&port).filter(|entry| waits(entry)) else { return };
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
    pub(super) fn causes_ended(&self, state: &mut State) {
        let waiting: Vec<PortId> = state.ports.values().filter(|entry| waits(entry)).map(|entry| entry.record.id).collect();
        waiting.into_iter().for_each(|port| self.cause_ended(state, port));
    }

    /// Takes up every port whose time has come.
    pub(super) fn try_again(self: &Arc<Self>) {
        let mut state = self.lock();
        let now = Instant::now();
        while let Some(port) = state.due.take(now) {
            let Some(entry) = state.ports.get(&port) else { continue };
            if entry.record.leaving() {
                match entry.phase {
                    Phase::Error => self.spawn_reap(port),
                    _ => self.reap_again(port),
                }
            } else if entry.record.attached_to().is_some() {
                self.try_port(&mut state, port, Reason::Drift);
            }
        }
    }
}

/// Whether a port is told of as one that could not be brought to its record: a try that fails again is not worth a word.
pub(super) fn is_known_to_fail(entry: &PortEntry) -> bool {
    entry.phase == Phase::Error || waited_for(entry).is_some()
}

/// The server of a port that waits for its guest's namespace.
pub(super) fn waited_for(entry: &PortEntry) -> Option<ServerId> {
    entry.record.attached_to().filter(|_| entry.reason.as_deref() == Some(NAMESPACE_GONE))
}

/// Whether a port is not as its record says and waits for its next try.
fn waits(entry: &PortEntry) -> bool {
    let binding = entry.record.binding.as_ref();
    binding.is_some_and(|binding| is_known_to_fail(entry) || entry.record.leaving() || !binding.releasing.is_empty())
}

/// How long to wait after the n-th failure in a row: doubling from 100 ms to a minute, by half at random so that many that
/// failed together do not come back together.
pub(super) fn backoff(failures: u32) -> Duration {
    let full = Duration::from_millis(100 << failures.saturating_sub(1).min(10)).min(LONGEST);
    full.mul_f64(rand::random_range(0.5..1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_come_later_and_later_up_to_a_minute_and_never_together() {
        for (failures, most) in [(0, 100), (1, 100), (2, 200), (5, 1600), (10, 51_200), (11, 60_000), (u32::MAX, 60_000)] {
            let most = Duration::from_millis(most);
            let waits: Vec<Duration> = (0..100).map(|_| backoff(failures)).collect();
            assert!(waits.iter().all(|wait| (most / 2..most).contains(wait)), "{failures}: {waits:?}");
            assert!(waits.iter().any(|wait| *wait != waits[0]), "{failures}");
        }
    }
}
