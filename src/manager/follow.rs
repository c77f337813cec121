//! Following the kernel: what the watch saw, and tries whose time has come.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::sync::mpsc;

use crate::events;
use crate::kernel::Notice;
use crate::model::{Happening, NetworkId, Phase, PortId};
use crate::plan::{LinkSeen, Reason};
use crate::store::{Change, Purpose, StoreError};
use crate::telemetry::meters;

use super::state::State;
use super::{Context, Manager, Pulse};

/// How many notices are taken at a time.
const BATCH: usize = 256;

impl Manager {
    /// Begins: reserves event numbers, tells which ports need work, and has it done. Right devices see no write.
    ///
    /// # Errors
    /// The store cannot write.
    pub async fn begin(self: &Arc<Self>) -> Result<(), StoreError> {
        let next = self.events_reserved.load(Ordering::Relaxed) + events::BLOCK;
        self.commit(vec![Change::ReserveEvents(next)], Purpose::Freeing).await?;
        self.events_reserved.store(next, Ordering::Relaxed);
        let mut state = self.lock();
        let links: Vec<LinkSeen> = state.have.iter().filter(|link| link.marks().next().is_some()).cloned().collect();
        links.iter().for_each(|link| note_orphan(&mut state, link));
        let ports: Vec<(PortId, bool)> = state.ports.values().map(|port| (port.record.id, port.record.leaving())).collect();
        for (port, leaving) in ports {
            if leaving {
                self.spawn_reap(port);
            } else {
                self.judge(&mut state, port, Reason::Restart);
                if nameless(&state, port) {
                    let manager = Arc::clone(self);
                    self.tasks.spawn(async move { manager.learn_guest_device(port).await });
                }
            }
        }
        self.resume_leaving(&mut state);
        self.tell_health(&mut state);
        let networks: Vec<NetworkId> = state.networks.keys().copied().collect();
        networks.into_iter().for_each(|network| self.judge_bridge(&state, network));
        // A start that finds everything right is over before the first client is served.
        self.reconciled.store(self.first_pass.is_empty(), Ordering::Relaxed);
        Ok(())
    }

    /// Follows the watch until it ends or `stop` is over. Cancel-safe: a notice is taken in as soon as it is received.
    pub async fn follow(self: Arc<Self>, mut notices: mpsc::Receiver<Notice>, mut pulse: Pulse, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let due = self.lock().due.first().map(|(due, _)| tokio::time::Instant::from_std(*due));
            let retry = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                received = notices.recv_many(&mut batch, BATCH) => {
                    if received == 0 {
                        return;
                    }
                    batch.drain(..).for_each(|notice| self.take_in(notice));
                    meters().notices.set(i64::try_from(notices.len()).unwrap_or(i64::MAX));
                }
                () = retry => self.try_again(),
                () = pulse.next() => pulse.beat(&self),
                () = self.retries.notified() => {}
                () = &mut stop => return,
            }
        }
    }

    pub(super) fn take_in(self: &Arc<Self>, notice: Notice) {
        let mut state = self.lock();
        match notice {
            Notice::Seen { link, at } => self.saw(&mut state, link, at),
            Notice::Gone { index, at } => {
                if let Some(link) = state.gone(index, at) {
                    self.lost(&mut state, &link);
                }
            }
            Notice::Resync { links, at } => {
                let known: Vec<LinkSeen> = state.have.iter().cloned().collect();
                state.resync(links.clone(), at);
                for link in known {
                    if state.have.link(link.index).is_none() {
                        self.lost(&mut state, &link);
                    }
                }
                links.into_iter().for_each(|link| self.follow_link(&mut state, &link));
            }
        }
        self.tell_health(&mut state);
    }

    fn saw(self: &Arc<Self>, state: &mut State, link: LinkSeen, at: Instant) {
        let before = state.have.link(link.index).map(|before| before.marks().collect::<Vec<_>>()).unwrap_or_default();
        if state.seen(link.clone(), at) {
            self.follow_link(state, &link);
            // A mark that was taken off leaves its port without a device.
            let taken_off = before.into_iter().filter(|mark| !link.marks().any(|still| still == *mark));
            taken_off.for_each(|mark| self.judge(state, PortId(mark), Reason::Drift));
        }
    }

    fn follow_link(self: &Arc<Self>, state: &mut State, link: &LinkSeen) {
        note_orphan(state, link);
        for mark in link.marks() {
            self.judge(state, PortId(mark), Reason::Drift);
            self.judge_bridge(state, NetworkId(mark));
        }
    }

    /// A link is gone that was there.
    fn lost(self: &Arc<Self>, state: &mut State, link: &LinkSeen) {
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
            }
        }
    }

    /// Decides what a look means for a port: its phase, or a repair when the kernel differs from the record.
    pub(super) fn judge(self: &Arc<Self>, state: &mut State, port: PortId, reason: Reason) {
        let Some(entry) = state.ports.get(&port) else { return };
        if entry.claim.taken() || !matches!(entry.phase, Phase::Wired | Phase::Active) {
            return;
        }
        let held = entry.record.binding.as_ref().is_some_and(|binding| !binding.releasing.is_empty());
        let right = !held && self.plan_port(state, port, reason).is_ok_and(|plan| plan.steps.is_empty());
        if right {
            let (readiness, why) = self.readiness(state, port);
            self.happen(state, port, Happening::Looked(readiness), why, &Context::default());
        } else if let Some(due) = entry.retry.due.filter(|due| *due > Instant::now()) {
            state.due.insert((due, port));
            self.retries.notify_one();
        } else {
            let manager = Arc::clone(self);
            let repair = async move { manager.repair(port, reason).await };
            match reason {
                Reason::Restart => self.tasks.spawn(self.first_pass.track_future(repair)),
                _ => self.tasks.spawn(repair),
            };
        }
    }

    fn judge_bridge(self: &Arc<Self>, state: &State, network: NetworkId) {
        if self.plan_bridge(state, network).is_some() {
            let manager = Arc::clone(self);
            self.tasks.spawn(async move { manager.repair_bridge(network).await });
        }
    }

    /// Takes up every port whose time has come.
    fn try_again(self: &Arc<Self>) {
        let mut state = self.lock();
        let now = Instant::now();
        while let Some((due, port)) = state.due.first().copied().filter(|(due, _)| *due <= now) {
            state.due.remove(&(due, port));
            let Some(entry) = state.ports.get(&port) else { continue };
            if entry.record.leaving() {
                self.spawn_reap(port);
            } else if entry.record.attached_to().is_some() {
                let manager = Arc::clone(self);
                self.tasks.spawn(async move { manager.repair(port, Reason::Drift).await });
            }
        }
    }

    fn spawn_reap(self: &Arc<Self>, port: PortId) {
        let manager = Arc::clone(self);
        self.tasks.spawn(async move {
            let context = Context::default();
            manager.happen(&mut manager.lock(), port, Happening::Unbind, None, &context);
            manager.reap(port, &context).await;
        });
    }
}

/// Whether a port's device is there and its name in the guest is not known.
fn nameless(state: &State, port: PortId) -> bool {
    let binding = state.ports.get(&port).and_then(|entry| entry.record.binding.as_ref());
    binding.is_some_and(|binding| binding.guest_device.is_none()) && state.have.device(port).is_some()
}

/// Notes a marked link that belongs to no record, or no longer.
fn note_orphan(state: &mut State, link: &LinkSeen) {
    let stranger = |mark: &uuid::Uuid| {
        let port = state.ports.get(&PortId(*mark));
        let unbound = port.is_none_or(|entry| entry.record.binding.is_none() && !entry.claim.taken());
        unbound && !state.networks.contains_key(&NetworkId(*mark))
    };
    let orphan = link.marks().any(|mark| stranger(&mark));
    if orphan {
        state.orphans.insert(link.index, link.name.clone());
    } else {
        state.orphans.remove(&link.index);
    }
}
