//! The entries that lead VXLAN networks to other hosts: what changed of them is brought into the kernel, and what another program changed is
//! put back.
//!
//! One task compares those of a network at a time, and takes along what changes meanwhile. A change is compared with what the kernel was last
//! seen to have. After a start, after a device was made and when something else was told, the kernel's entries are looked at first.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::inventory::Inventory;
use crate::inventory::comparing::Pending;
use crate::model::names::SegmentKind;
use crate::model::{Mac, NetworkId};
use crate::plan::overlay::not_replaced;
use crate::plan::{Desired, Entry, Op, Overlay, Plan, Reason, Remote, Step, plan};

use super::{Error, Reconciler, Work, answered};

/// How long the entries of a network are not looked at again: this, and so many times what a look took.
const REST: Duration = Duration::from_secs(1);
const REST_TIMES: u32 = 20;

/// How often a wait looks whether the daemon is stopping.
const STOPS: Duration = Duration::from_millis(200);

/// How long to wait after a try that failed: this, doubled with each, up to the second.
const RETRY: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(10);

/// What a fleet tells of networks' ports on other hosts.
impl Reconciler {
    /// Puts what is on other hosts in the place of all that was known of a network.
    pub fn set_overlay(self: &Arc<Self>, network: NetworkId, overlay: Overlay) {
        self.follow_overlay(network, |state| state.set_overlay(network, overlay));
    }

    /// Takes in that a host, by its tunnel address, has ports of a network.
    pub fn put_peer(self: &Arc<Self>, network: NetworkId, host: std::net::IpAddr) {
        self.follow_overlay(network, |state| state.put_peer(network, host));
    }

    /// Takes in that a host with ports of a network is lost: it is sent no copy of what is for all.
    pub fn lose_peer(self: &Arc<Self>, network: NetworkId, host: std::net::IpAddr) {
        self.follow_overlay(network, |state| state.lose_peer(network, host));
    }

    /// Takes in that a host has no ports of a network any more. The ports that it had go along.
    pub fn remove_peer(self: &Arc<Self>, network: NetworkId, host: std::net::IpAddr) {
        self.follow_overlay(network, |state| state.remove_peer(network, host));
    }

    /// Takes in a port that is on another host, in the place of what was known of its MAC.
    pub fn put_remote(self: &Arc<Self>, network: NetworkId, mac: Mac, remote: Remote) {
        self.follow_overlay(network, |state| state.put_remote(network, mac, remote));
    }

    /// Takes in that the port with this MAC is on no other host any more.
    pub fn remove_remote(self: &Arc<Self>, network: NetworkId, mac: Mac) {
        self.follow_overlay(network, |state| state.remove_remote(network, mac));
    }

    fn follow_overlay(self: &Arc<Self>, network: NetworkId, change: impl FnOnce(&mut Inventory)) {
        let mut state = self.lock();
        change(&mut state);
        self.start_comparing(&mut state, network);
    }
}

impl Reconciler {
    /// Has all entries of a network looked at and compared, if it has a VXLAN device.
    pub(crate) fn compare_all_entries(self: &Arc<Self>, state: &mut Inventory, network: NetworkId) {
        state.compare_all_entries(network);
        self.start_comparing(state, network);
    }

    fn start_comparing(self: &Arc<Self>, state: &mut Inventory, network: NetworkId) {
        if !state.has_entries_to_compare(network) {
            return;
        }
        let Some(entry) = state.networks.get_mut(&network) else { return };
        if !std::mem::replace(&mut entry.overlay.is_under_way, true) {
            self.start(Work::CompareEntries(network));
        }
    }

    /// Compares entries of a network until none waits.
    pub(super) async fn compare_entries(self: Arc<Self>, network: NetworkId) {
        loop {
            let pending = {
                let mut state = self.lock();
                let goes_on = state.has_entries_to_compare(network) && !self.stopping.load(Ordering::Relaxed);
                let pending = if goes_on { state.take_pending(network) } else { Pending::default() };
                let Some(entry) = state.networks.get_mut(&network) else { return };
                entry.overlay.is_under_way = goes_on;
                if !goes_on {
                    return;
                }
                pending
            };
            let compared = self.compare_some(network, pending).await;
            let wait = {
                let mut state = self.lock();
                let Some(entry) = state.networks.get_mut(&network) else { return };
                let failures = if compared.is_ok() { 0 } else { entry.overlay.failures + 1 };
                entry.overlay.failures = failures;
                // One that fails once may have met a device that was being made anew.
                let refused = compared.as_ref().err().filter(|_| failures > 1).map(ToString::to_string);
                if std::mem::replace(&mut entry.overlay.refused, refused.clone()).is_some() != refused.is_some() {
                    self.publish_health(&state);
                }
                compared.err().map(|error| {
                    // Said once of a row.
                    if failures == 1 {
                        tracing::warn!(%network, %error, "what leads to other hosts could not be set");
                    }
                    state.compare_all_entries(network);
                    RETRY.saturating_mul(1 << failures.min(10)).min(LONGEST)
                })
            };
            if let Some(wait) = wait {
                self.wait_until(Instant::now() + wait).await;
            }
        }
    }

    async fn compare_some(&self, network: NetworkId, pending: Pending) -> Result<(), Error> {
        let is_known = self.lock().have.entries(network).is_some();
        let pending = if is_known { pending } else { Pending::All };
        if pending == Pending::All {
            self.rest_from_looks(network).await;
            self.look_at_entries(network).await?;
        }
        // Of all entries this takes its time, and others have the state meanwhile. What changes from here on waits for the next turn.
        let overlays = self.lock().overlays.clone();
        let overlays = pending.desired(&overlays, network).into_iter().collect();
        let (plan, device) = {
            let state = self.lock();
            let Some(device) = state.have.own_segment(SegmentKind::Vxlan, network).map(|link| link.index) else { return Ok(()) };
            (plan(Reason::Drift, &Desired { overlays, ..Desired::default() }, &state.have)?, device)
        };
        for step in plan.steps {
            let Op::SetEntries { put, remove, .. } = step.op else { continue };
            for op in in_parts(network, &put, &remove) {
                self.carry_out(Plan { reason: plan.reason, steps: vec![Step::new(op, None)] }).await?;
            }
            self.lock().have.change_entries(device, &put, &remove);
        }
        Ok(())
    }

    /// Looks at the kernel's entries of a network.
    pub(crate) async fn look_at_entries(&self, network: NetworkId) -> Result<(), Error> {
        let began = Instant::now();
        let found = answered(self.kernel.entries(network)?).await?.map_err(Error::Kernel)?;
        let mut state = self.lock();
        if let Some(entry) = state.networks.get_mut(&network) {
            entry.overlay.looked = Some((Instant::now(), began.elapsed()));
        }
        found.into_iter().for_each(|seen| state.have.note_entries(seen));
        Ok(())
    }

    /// However often another program changes entries, they are looked at once in a while.
    async fn rest_from_looks(&self, network: NetworkId) {
        let looked = self.lock().networks.get(&network).and_then(|entry| entry.overlay.looked);
        let Some((at, took)) = looked else { return };
        self.wait_until(at + REST.max(took * REST_TIMES)).await;
    }

    /// Waits, unless the daemon is stopping.
    pub(super) async fn wait_until(&self, due: Instant) {
        while Instant::now() < due && !self.stopping.load(Ordering::Relaxed) {
            tokio::time::sleep_until(due.min(Instant::now() + STOPS).into()).await;
        }
    }
}

/// The most entries that are set in one turn of the kernel's thread. Attaches wait meanwhile.
const PART: usize = 512;

/// Entries to set and to remove, in parts.
fn in_parts(network: NetworkId, put: &BTreeSet<Entry>, remove: &BTreeSet<Entry>) -> Vec<Op> {
    if put.len() + remove.len() <= PART {
        return vec![Op::SetEntries { network, put: put.clone(), remove: remove.clone() }];
    }
    let some = |entries: &[&Entry]| entries.iter().map(|entry| (*entry).clone()).collect::<BTreeSet<Entry>>();
    let put_all: Vec<&Entry> = put.iter().collect();
    let puts = put_all.chunks(PART).map(|part| Op::SetEntries { network, put: some(part), remove: BTreeSet::new() });
    let left = not_replaced(put, remove);
    let removes = left.chunks(PART).map(|part| Op::SetEntries { network, put: BTreeSet::new(), remove: some(part) });
    puts.chain(removes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_small_and_together_the_whole() {
        let (network, mac) = (NetworkId(uuid::Uuid::nil()), |n: u16| Mac([2, 0, 0, 0, n.to_be_bytes()[0], n.to_be_bytes()[1]]));
        let forward = |n: u16, to: u8| Entry::Forward { mac: mac(n), to: [192, 0, 2, to].into() };
        let put: BTreeSet<Entry> = (0..1000).map(|n| forward(n, 1)).collect();
        let remove: BTreeSet<Entry> = (500..2000).map(|n| forward(n, 2)).collect();
        let (mut all_put, mut all_removed) = (BTreeSet::new(), BTreeSet::new());
        for op in in_parts(network, &put, &remove) {
            let Op::SetEntries { put, remove, .. } = op else { unreachable!() };
            assert!(put.len() + remove.len() <= PART);
            all_put.extend(put);
            all_removed.extend(remove);
        }
        // What is set in its place is not removed after it.
        assert_eq!((all_put, all_removed), (put.clone(), (1000..2000).map(|n| forward(n, 2)).collect()));
        let few = BTreeSet::from([forward(1, 1)]);
        assert_eq!(in_parts(network, &few, &remove.iter().take(2).cloned().collect()).len(), 1);
    }
}
