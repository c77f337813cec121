//! The start: what differs from its record since the last run is told, and has its first try.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use uuid::Uuid;

use crate::events;
use crate::inventory::Inventory;
use crate::model::{NetworkId, PortId};
use crate::plan::{LinkState, Owner, Reason};
use crate::store::{Change, Purpose, StoreError};

use super::observe::note_orphan;
use super::{Context, Reconciler};

/// How far event numbers go ahead, at least, when none could be reserved: by chance, so that what is told now and what the
/// next start tells have numbers of their own.
const UNRESERVED: u64 = 1 << 32;

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
}

/// Whether a port's device is there and its name in the guest is not known.
fn nameless(state: &Inventory, port: PortId) -> bool {
    let binding = state.ports.get(&port).and_then(|entry| entry.record.binding.as_ref());
    binding.is_some_and(|binding| binding.guest_device.is_none()) && state.have.device(port).is_some()
}

/// Says which other stores have links here, and how many. nicd leaves them alone; only this line tells the operator.
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
