//! The loop: it takes in what the kernel shows, evaluates what that is about, and has what differs brought back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior};
use uuid::Uuid;

use crate::events;
use crate::inventory::Inventory;
use crate::kernel::Notice;
use crate::model::{NetworkId, PortId};
use crate::plan::{LinkState, Owner, Reason};
use crate::store::{Change, Holder, Purpose, StoreError};
use crate::telemetry::meters;

use super::observe::note_orphan;
use super::{Context, Heartbeat, Reconciler};

/// How often a store that refused is asked whether it takes commits again, in seconds.
const PROBE: Duration = Duration::from_secs(1);

/// How far event numbers go ahead, at least, when none could be reserved: by chance, so that what is told now and what the
/// next start tells have numbers of their own.
const UNRESERVED: u64 = 1 << 32;

/// How many notices are taken at a time.
const BATCH: usize = 256;

impl Reconciler {
    /// Begins: reserves event numbers, tells which ports need work, and has it done. Right devices see no write.
    ///
    /// # Errors
    /// The store cannot write.
    pub async fn begin(self: &Arc<Self>) -> Result<(), StoreError> {
        let next = self.events_reserved.load(Ordering::Relaxed) + events::BLOCK;
        let lost = self.conditions().lost;
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
                if !self.is_from_lost_commits(&mut state, port, &Context::default()) {
                    self.spawn_reap(port);
                }
            } else {
                self.evaluate(&mut state, port, Reason::Restart);
                if nameless(&state, port) {
                    let reconciler = Arc::clone(self);
                    self.tasks.spawn(async move { reconciler.learn_guest_device(port).await });
                }
            }
        }
        self.resume_leaving(&mut state);
        self.settle_lost_commits(&state);
        self.publish_health(&state);
        let networks: Vec<NetworkId> = state.networks.keys().copied().collect();
        networks.into_iter().for_each(|network| self.evaluate_bridge(&mut state, network));
        // A start that finds everything right is over before the first client is served.
        self.reconciled.store(self.first_pass.is_empty(), Ordering::Relaxed);
        Ok(())
    }

    /// Follows the watch until it ends or `stop` is over. Cancel-safe: a notice is taken in as soon as it is received.
    pub async fn follow(
        self: Arc<Self>,
        mut notices: mpsc::Receiver<Notice>,
        mut pulse: Heartbeat,
        stop: impl Future<Output = ()>,
    ) {
        tokio::pin!(stop);
        let (mut swept, mut probes) = (tokio::time::Instant::now(), every(PROBE));
        let (mut sweep, mut probe): (Option<JoinHandle<()>>, Option<JoinHandle<()>>) = (None, None);
        let mut holder = self.store.holder();
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let (due, troubled) = {
                let state = self.lock();
                let conditions = self.conditions();
                let troubled = conditions.store_trouble.is_some() || conditions.store_holder == Some(Holder::Writer);
                let untold = state.untold.first().into_iter().chain(conditions.told.due).min();
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
                    batch.drain(..).for_each(|notice| self.handle_notice(notice));
                    meters().notices.set(i64::try_from(notices.len()).unwrap_or(i64::MAX));
                }
                () = retry => self.run_due(),
                () = tell => self.publish_withheld(),
                () = pulse.next() => pulse.beat(&self),
                () = self.retries.notified() => {}
                // Each turn anew: a reload may have changed how often.
                () = tokio::time::sleep_until(swept + self.policy().sweep), if sweep.as_ref().is_none_or(JoinHandle::is_finished) => {
                    swept = tokio::time::Instant::now();
                    sweep = Some(self.tasks.spawn(Arc::clone(&self).sweep()));
                }
                _ = probes.tick(), if troubled && probe.as_ref().is_none_or(JoinHandle::is_finished) => probe = Some(self.probe_store()),
                Ok(()) = holder.changed() => {
                    let state = self.lock();
                    self.conditions().store_holder = *holder.borrow_and_update();
                    self.publish_health(&state);
                }
                () = &mut stop => return,
            }
        }
    }

    /// Asks the store whether it takes commits again.
    fn probe_store(self: &Arc<Self>) -> JoinHandle<()> {
        let reconciler = Arc::clone(self);
        self.tasks.spawn(async move {
            if let Err(error) = reconciler.commit(Vec::new(), Purpose::Growing).await {
                tracing::debug!(%error, "the store refuses still");
            }
        })
    }
}

/// Beats that are left out when nobody had time for them.
fn every(period: Duration) -> Interval {
    let mut beats = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beats
}

/// Whether a port's device is there and its name in the guest is not known.
fn nameless(state: &Inventory, port: PortId) -> bool {
    let binding = state.ports.get(&port).and_then(|entry| entry.record.binding.as_ref());
    binding.is_some_and(|binding| binding.guest_device.is_none()) && state.have.device(port).is_some()
}

/// Says which other stores have links here, and how many. They are left alone, so that nobody else says it.
fn tell_others(state: &Inventory) {
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
