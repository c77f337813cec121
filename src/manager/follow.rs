//! Following the kernel: what the watch saw, and tries whose time has come.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior};
use uuid::Uuid;

use crate::events;
use crate::kernel::Notice;
use crate::model::{Happening, NetworkId, Phase, PortId};
use crate::plan::{Kind, LinkState, Owner, Reason};
use crate::store::{Change, Holder, Purpose, StoreError};
use crate::telemetry::meters;

use super::contest::Mends;
use super::detach::GUEST_KEEPS_DEVICE;
use super::gc::leftover;
use super::state::State;
use super::{Context, Manager, Pulse};

/// How often a store that refused is asked whether it takes commits again, in seconds.
const PROBE: Duration = Duration::from_secs(1);

/// How far event numbers go ahead, at least, when none could be reserved: by chance, so that what is told now and what the
/// next start tells have numbers of their own.
const UNRESERVED: u64 = 1 << 32;

/// How many notices are taken at a time.
const BATCH: usize = 256;

impl Manager {
    /// Begins: reserves event numbers, tells which ports need work, and has it done. Right devices see no write.
    ///
    /// # Errors
    /// The store cannot write.
    pub async fn begin(self: &Arc<Self>) -> Result<(), StoreError> {
        let next = self.events_reserved.load(Ordering::Relaxed) + events::BLOCK;
        let lost = self.lock().lost;
        self.store.next_commit();
        let reserved = self.store.commit(vec![Change::ReserveEvents(next), Change::NoteLost(lost)], Purpose::Freeing).await;
        match &reserved {
            Ok(()) => self.events_reserved.store(next, Ordering::Relaxed),
            // What lives is looked after all the same; numbers are reserved with the first event.
            Err(error @ (StoreError::Full | StoreError::Busy)) => {
                tracing::error!(%error, "the store cannot be written to yet");
                self.events.skip_ahead(rand::random_range(UNRESERVED..2 * UNRESERVED));
            }
            Err(error) => return Err(error.clone()),
        }
        self.note_store(&mut self.lock(), reserved.as_ref().err());
        let mut state = self.lock();
        let links: Vec<LinkState> = state.have.iter().filter(|link| link.made_by_nicd()).cloned().collect();
        links.iter().for_each(|link| note_orphan(&mut state, link));
        tell_others(&state);
        let ports: Vec<(PortId, bool)> = state.ports.values().map(|port| (port.record.id, port.record.leaving())).collect();
        for (port, leaving) in ports {
            if leaving {
                if !self.is_from_lost_time(&mut state, port, &Context::default()) {
                    self.spawn_reap(port);
                }
            } else {
                self.judge(&mut state, port, Reason::Restart);
                if nameless(&state, port) {
                    let manager = Arc::clone(self);
                    self.tasks.spawn(async move { manager.learn_guest_device(port).await });
                }
            }
        }
        self.resume_leaving(&mut state);
        self.settle_lost_time(&mut state);
        self.tell_health(&mut state);
        let networks: Vec<NetworkId> = state.networks.keys().copied().collect();
        networks.into_iter().for_each(|network| self.judge_bridge(&mut state, network));
        // A start that finds everything right is over before the first client is served.
        self.reconciled.store(self.first_pass.is_empty(), Ordering::Relaxed);
        Ok(())
    }

    /// Follows the watch until it ends or `stop` is over. Cancel-safe: a notice is taken in as soon as it is received.
    pub async fn follow(self: Arc<Self>, mut notices: mpsc::Receiver<Notice>, mut pulse: Pulse, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        let (mut swept, mut probes) = (tokio::time::Instant::now(), every(PROBE));
        let (mut sweep, mut probe): (Option<JoinHandle<()>>, Option<JoinHandle<()>>) = (None, None);
        let mut holder = self.store.holder();
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let (due, troubled) = {
                let state = self.lock();
                let troubled = state.store_trouble.is_some() || state.store_holder == Some(Holder::Writer);
                let untold = state.untold.first().into_iter().chain(state.told.due).min();
                ([state.due.first(), untold], troubled)
            };
            let [retry, tell] = due.map(|due| async move {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            });
            tokio::select! {
                received = notices.recv_many(&mut batch, BATCH) => {
                    if received == 0 {
                        return;
                    }
                    batch.drain(..).for_each(|notice| self.take_in(notice));
                    meters().notices.set(i64::try_from(notices.len()).unwrap_or(i64::MAX));
                }
                () = retry => self.try_again(),
                () = tell => self.tell_withheld(),
                () = pulse.next() => pulse.beat(&self),
                () = self.retries.notified() => {}
                // Each turn anew: a reload may have changed how often.
                () = tokio::time::sleep_until(swept + self.policy().sweep), if sweep.as_ref().is_none_or(JoinHandle::is_finished) => {
                    swept = tokio::time::Instant::now();
                    sweep = Some(self.tasks.spawn(Arc::clone(&self).sweep()));
                }
                _ = probes.tick(), if troubled && probe.as_ref().is_none_or(JoinHandle::is_finished) => probe = Some(self.probe_store()),
                Ok(()) = holder.changed() => {
                    let mut state = self.lock();
                    state.store_holder = *holder.borrow_and_update();
                    self.tell_health(&mut state);
                }
                () = &mut stop => return,
            }
        }
    }

    pub(super) fn take_in(self: &Arc<Self>, notice: Notice) {
        let mut state = self.lock();
        match notice {
            Notice::Seen { link, at } => self.saw(&mut state, *link, at),
            Notice::Gone { index, at } => {
                if let Some(link) = state.gone(index, at) {
                    self.lost(&mut state, &link);
                    self.settle_lost_time(&mut state);
                }
            }
            Notice::MacTaken { index, mac, .. } => self.mac_taken(&mut state, index, mac),
            Notice::EntriesLost => self.look_at_all_soon("events about FDBs were lost"),
            Notice::Resync { links, at } => {
                let known: HashMap<u32, LinkState> = state.have.iter().map(|link| (link.index, link.clone())).collect();
                state.resync(links, at);
                for link in known.values().filter(|link| state.have.link(link.index).is_none()).cloned().collect::<Vec<_>>() {
                    self.lost(&mut state, &link);
                }
                let news = state.have.iter().filter(|link| known.get(&link.index) != Some(*link)).cloned();
                for link in news.collect::<Vec<_>>() {
                    self.follow_link(&mut state, known.get(&link.index), &link);
                }
                self.settle_lost_time(&mut state);
            }
        }
        self.tell_health(&mut state);
    }

    fn saw(self: &Arc<Self>, state: &mut State, link: LinkState, at: Instant) {
        let before = state.have.link(link.index).cloned();
        if state.seen(link.clone(), at) {
            self.follow_link(state, before.as_ref(), &link);
        }
    }

    /// Follows a link that was looked at, with what was known of it before.
    fn follow_link(self: &Arc<Self>, state: &mut State, before: Option<&LinkState>, link: &LinkState) {
        note_orphan(state, link);
        for mark in link.marks() {
            self.follow_kept(state, PortId(mark), link);
            if state.is_cut_off(PortId(mark)) {
                self.follow_cut_off(state, PortId(mark), before, link);
            } else {
                self.judge(state, PortId(mark), Reason::Drift);
            }
            self.judge_bridge(state, NetworkId(mark));
        }
        let Some(before) = before else { return self.follow_bridge(state, link) };
        if before.master != link.master {
            self.has_room(state, before.master);
        }
        // A mark that was taken off leaves its port without a device, or a network's ports without a bridge.
        for mark in before.marks().filter(|mark| !link.marks().any(|still| still == *mark)) {
            self.judge(state, PortId(mark), Reason::Drift);
            self.cause_ended(state, PortId(mark));
            self.judge_bridge(state, NetworkId(mark));
            self.follow_networks(state, &[NetworkId(mark)]);
        }
        if before.name != link.name {
            self.renamed(state, before, link);
        }
        let closed = link.host_closed && !before.host_closed;
        let filters = before.extras.vlan_filtering != link.extras.vlan_filtering;
        if filters {
            // What its ports let pass is seen on them, and of the ports no event tells.
            self.look_at_all_soon("a bridge begins or ceases to tell VLANs apart");
        }
        if closed
            || filters
            || before.forward != link.forward
            || (&before.name, before.mtu, &before.kind) != (&link.name, link.mtu, &link.kind)
        {
            self.follow_bridge(state, link);
        }
    }

    /// Has everything looked at, for a reason.
    fn look_at_all_soon(self: &Arc<Self>, why: &'static str) {
        let manager = Arc::clone(self);
        self.tasks.spawn(async move {
            if let Err(error) = manager.look_at_everything().await {
                tracing::warn!(%error, "{why}, and the kernel could not be looked at");
            }
        });
    }

    /// A bridge is there, or is another than it was: the ports of the networks on it may be right again, or wrong.
    fn follow_bridge(self: &Arc<Self>, state: &mut State, link: &LinkState) {
        if link.kind != Kind::Bridge {
            return;
        }
        let on = state.bridges.get(&link.name).into_iter().flatten().copied();
        let networks: Vec<NetworkId> = on.chain(link.marks().map(NetworkId)).collect();
        self.follow_networks(state, &networks);
    }

    pub(super) fn follow_networks(self: &Arc<Self>, state: &mut State, networks: &[NetworkId]) {
        let entries = networks.iter().filter_map(|id| state.networks.get(id));
        let ports: Vec<PortId> = entries.flat_map(|entry| entry.ports.iter().copied()).collect();
        for port in ports {
            self.judge(state, port, Reason::Drift);
            self.cause_ended(state, port);
        }
    }

    /// A device has another name. Its identity is its altname, so that is left, and told.
    fn renamed(&self, state: &mut State, before: &LinkState, link: &LinkState) {
        for port in link.marks().map(PortId) {
            let Some(entry) = state.ports.get(&port).filter(|entry| entry.record.attached_to().is_some()) else { continue };
            let known = (entry.phase, entry.reason.clone());
            tracing::debug!(%port, from = before.name, to = link.name, "a device was renamed, and is left so");
            self.tell_port(state, port, known, Some("device_renamed"), &Context::default());
        }
    }

    /// Asks the store whether it takes commits again.
    fn probe_store(self: &Arc<Self>) -> JoinHandle<()> {
        let manager = Arc::clone(self);
        self.tasks.spawn(async move {
            if let Err(error) = manager.commit(Vec::new(), Purpose::Growing).await {
                tracing::debug!(%error, "the store refuses still");
            }
        })
    }

    /// A link has left this bridge, which may have been full.
    fn has_room(&self, state: &mut State, bridge: Option<u32>) {
        let Some(bridge) = bridge.filter(|_| state.has_errors()).and_then(|index| state.have.link(index)) else { return };
        let on = state.bridges.get(&bridge.name).into_iter().flatten().copied().chain(bridge.marks().map(NetworkId));
        let ports = on.filter_map(|id| state.networks.get(&id)).flat_map(|network| network.ports.iter());
        let full = |port: &&PortId| state.ports.get(port).is_some_and(|entry| entry.reason.as_deref() == Some("bridge_full"));
        let waiting: Vec<PortId> = ports.filter(full).copied().collect();
        waiting.into_iter().for_each(|port| self.cause_ended(state, port));
    }

    /// A link is gone that was there.
    fn lost(self: &Arc<Self>, state: &mut State, link: &LinkState) {
        self.has_room(state, link.master);
        for mark in link.marks() {
            let port = PortId(mark);
            let Some(entry) = state.ports.get(&port) else { continue };
            if entry.phase == Phase::Detaching {
                // The delete that is under way goes by the altname: a port that may come back waits until it has ended.
                if !entry.never_comes_back() || state.have.device(port).is_some() {
                    continue;
                }
                let manager = Arc::clone(self);
                self.tasks.spawn(async move { manager.gone(port, &Context::default()).await });
            } else {
                self.judge(state, port, Reason::Drift);
                self.cause_ended(state, port);
            }
        }
    }

    /// Decides what a look means for a port: its phase, or a repair when the kernel differs from the record.
    pub(super) fn judge(self: &Arc<Self>, state: &mut State, port: PortId, reason: Reason) {
        let Some(entry) = state.ports.get(&port) else { return };
        if entry.claim.taken() {
            return;
        }
        if entry.phase == Phase::Error {
            self.keep_exposed_down(state, port);
        }
        if !matches!(entry.phase, Phase::Wired | Phase::Active) {
            return;
        }
        if self.is_from_lost_time(state, port, &Context::default()) {
            return;
        }
        let Some(entry) = state.ports.get(&port) else { return };
        let held = entry.record.binding.as_ref().is_some_and(|binding| !binding.releasing.is_empty());
        let right = !held && self.plan_port(state, port, reason).is_ok_and(|plan| plan.steps.is_empty());
        if right {
            let (readiness, why) = self.readiness(state, port);
            self.happen(state, port, Happening::Looked(readiness), why, &Context::default());
        } else if let Some(due) = entry.retry.due.filter(|due| *due > Instant::now()) {
            // It waits, and is not shown as what it no longer is.
            if entry.phase == Phase::Active {
                let (readiness, why) = self.readiness(state, port);
                self.happen(state, port, Happening::Looked(readiness), why, &Context::default());
            }
            state.due.set(port, due);
            self.retries.notify_one();
            self.keep_exposed_down(state, port);
        } else {
            self.try_port(state, port, reason);
        }
    }

    /// Has an agent-made bridge set back that differs from its record; one that somebody keeps changing after a while.
    pub(super) fn judge_bridge(self: &Arc<Self>, state: &mut State, network: NetworkId) {
        let differs = self.plan_bridge(state, network).is_some();
        let mends = state.networks.get_mut(&network).filter(|_| differs).map(|entry| &mut entry.mends);
        let wait = mends.and_then(Mends::next);
        self.note_bridge(state, network);
        let Some(wait) = wait else { return };
        let manager = Arc::clone(self);
        self.tasks.spawn(async move {
            tokio::time::sleep(wait).await;
            manager.repair_bridge(network).await;
        });
    }

    /// Has the device of a port deleted that is detaching still.
    pub(super) fn reap_again(self: &Arc<Self>, port: PortId) {
        let manager = Arc::clone(self);
        self.tasks.spawn(async move { manager.reap(port, &Context::default()).await });
    }

    /// A device that a process holds open is as it was left: down, and in no bridge.
    fn follow_kept(self: &Arc<Self>, state: &State, port: PortId, link: &LinkState) {
        let kept = state.ports.get(&port).is_some_and(|entry| {
            entry.phase == Phase::Detaching && !entry.reaping && entry.reason.as_deref() == Some(GUEST_KEEPS_DEVICE)
        });
        if kept && (link.up || link.master.is_some() || !link.is_held()) {
            self.reap_again(port);
        }
    }

    pub(super) fn spawn_reap(self: &Arc<Self>, port: PortId) {
        let manager = Arc::clone(self);
        self.tasks.spawn(async move {
            manager.reap(port, &Context::default()).await;
        });
    }
}

/// Beats that are left out when nobody had time for them.
fn every(period: Duration) -> Interval {
    let mut beats = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beats
}

/// Whether a port's device is there and its name in the guest is not known.
fn nameless(state: &State, port: PortId) -> bool {
    let binding = state.ports.get(&port).and_then(|entry| entry.record.binding.as_ref());
    binding.is_some_and(|binding| binding.guest_device.is_none()) && state.have.device(port).is_some()
}

/// Says which other stores have links here, and how many. They are left alone, so that nobody else says it.
fn tell_others(state: &State) {
    let mut others: BTreeMap<Uuid, usize> = BTreeMap::new();
    for link in state.have.iter() {
        if let Owner::OtherStore(store) = link.owner(state.store_id) {
            *others.entry(store).or_default() += 1;
        }
    }
    for (store, links) in others {
        tracing::warn!(%store, links, "a nicd with another store made links on this host; nicctl gc --store lists them");
    }
}

/// Notes a link of nicd's that belongs to no record, or no longer.
fn note_orphan(state: &mut State, link: &LinkState) {
    match leftover(state, link, state.store_id) {
        Some(orphan) => state.orphans.insert(link.index, orphan),
        None => state.orphans.remove(&link.index),
    };
}
