//! The start: what differs from its record since the last run is told, and has its first try.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Instant;

use tokio::sync::{Notify, Semaphore};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::events::{self, Events};
use crate::inventory::{Inventory, PortEntry};
use crate::kernel::handle::KernelHandle;
use crate::model::names::FIRST_INDEX;
use crate::model::{Intent, NetworkId, Phase, Port, PortId, Readiness};
use crate::monitor::Turns;
use crate::plan::{LinkState, Owner, PortFilter, PortFilters, Reason};
use crate::store::{Change, Loaded, Purpose, Store, StoreError};

use super::conditions::Conditions;
use super::hearing::Hearing;
use super::listening::Listening;
use super::observe::note_orphan;
use super::{Context, Policy, Reconciler, Work, answered, responder, rollback, run};

/// How far event numbers go ahead, at least, when none could be reserved: by chance, so that what is told now and what the
/// next start tells have numbers of their own.
const UNRESERVED: u64 = 1 << 32;

impl Reconciler {
    /// Takes in what the store holds and what the kernel shows. Nothing is done yet; [`Reconciler::begin`] and [`Reconciler::follow`] do.
    pub fn new(
        policy: Policy,
        (store, loaded): (Store, Loaded),
        kernel: Arc<dyn KernelHandle>,
        links: Vec<LinkState>,
        at: Instant,
    ) -> Arc<Self> {
        let mut state = Inventory::new(loaded.store_id, policy.host.clone(), kernel.guests(), kernel.overlays());
        state.open.tolerated = !policy.require_host_closed;
        state.set_physical(policy.physical_networks.clone());
        state.set_tunnel(policy.tunnel);
        state.resync(links, at);
        let (lost, news) = rollback::detect(&state, &loaded);
        let mut next_event = loaded.next_event;
        if let Some(lost) = lost.filter(|_| news) {
            tracing::error!(last = loaded.commit, newest_tag = lost.until, "an older copy of the store was put back");
            // No number is used twice.
            store.skip_to(lost.until);
            next_event += rollback::EVENTS_LOST;
        }
        state.load_claims(loaded.claims, loaded.lent);
        loaded.networks.into_iter().for_each(|network| state.add_network(network));
        loaded.subnets.into_iter().for_each(|subnet| state.add_subnet(subnet));
        state.load_groups(loaded.groups);
        state.load_members(loaded.members);
        loaded.servers.into_iter().for_each(|server| state.add_server(server));
        loaded.ports.into_iter().for_each(|port| {
            let phase = first_phase(&port);
            state.add_port(port, phase);
        });
        loaded.trunks.into_iter().for_each(|trunk| state.put_trunk(trunk));
        let reconciler = Self {
            inventory: Mutex::new(state),
            telling_groups: tokio::sync::Mutex::default(),
            conditions: Mutex::new(Conditions { lost, ..Conditions::default() }),
            host: policy.host.clone(),
            policy: RwLock::new(Arc::new(policy)),
            store,
            store_id: loaded.store_id,
            kernel,
            events: Events::new(next_event),
            events_reserved: Arc::new(AtomicU64::new(next_event)),
            next_index: AtomicU32::new(rand::random_range(FIRST_INDEX..0x4000_0000u32)),
            tasks: TaskTracker::new(),
            first_pass: TaskTracker::new(),
            reconciled: AtomicBool::new(false),
            dumps: Semaphore::new(1),
            retries: Notify::new(),
            stopping: AtomicBool::new(false),
            started: Instant::now(),
            turns: Turns::default(),
            hearing: Hearing::default(),
            listening: Listening::default(),
            answer: responder::start,
            work: run::start,
        };
        let reconciler = Arc::new(reconciler);
        reconciler.recall();
        reconciler
    }

    /// Ports go on with the phase that the kernel shows, without an event: nothing has happened to them.
    fn recall(self: &Arc<Self>) {
        let mut state = self.lock();
        let attached: Vec<PortId> =
            state.ports.values().filter(|port| port.phase == Phase::Wired).map(|port| port.record.id).collect();
        for port in attached {
            self.follow_responder(&mut state, port);
            let (readiness, why) = self.readiness(&state, port);
            if readiness == Readiness::Ready {
                state.set_phase(port, Phase::Active);
            }
            if let Some(entry) = state.ports.get_mut(&port) {
                (entry.reason, entry.detail) = why.map(|why| (why.reason.to_owned(), why.detail)).unzip();
            }
        }
    }

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
        self.make_filters().await;
        if self.look_at_machines_once().await {
            self.recall();
        }
        let mut state = self.lock();
        let links: Vec<LinkState> = state.have.iter().filter(|link| link.made_by_nicd()).cloned().collect();
        links.iter().for_each(|link| note_orphan(&mut state, link));
        tell_others(&state);
        let ports: Vec<(PortId, bool)> = state.ports.values().map(|port| (port.record.id, port.record.leaving())).collect();
        for (port, leaving) in ports {
            if leaving {
                if !self.is_from_lost_commits(&mut state, port, &Context::default()) {
                    self.start(Work::Reap(port));
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

    /// Makes the table of filters where it is missing or damaged: with the elements of all devices that are there, so that their
    /// traffic does not stop meanwhile.
    async fn make_filters(self: &Arc<Self>) {
        let wanted = {
            let mut state = self.lock();
            let (profiles, members, connections) = (state.all_profiles(), state.all_members(), self.policy().connections);
            let of = |port: &PortEntry| {
                let wanted = state.desired_port(&port.record, self.store_id)?;
                let index = state.have.device(wanted.id)?.index;
                Some(PortFilter { port: wanted.id, index, filter: wanted.filter? })
            };
            let ports = state.ports.values().filter_map(of).collect();
            PortFilters { ports, profiles, members, connections: Some(connections) }
        };
        let Ok(asked) = self.kernel.keep_filters(wanted) else { return };
        match answered(asked).await {
            Ok(Ok(true)) => {
                if let Err(error) = self.look_at_everything().await {
                    tracing::warn!(%error, "the table of filters was made, and the kernel could not be looked at");
                }
            }
            Ok(Ok(false)) => {}
            Ok(Err(error)) => tracing::error!(%error, "no port with port security becomes ACTIVE"),
            Err(error) => tracing::warn!(%error, "the table of filters was not made"),
        }
    }
}

/// Whether a port's device is there and its name in the guest is not known.
fn nameless(state: &Inventory, port: PortId) -> bool {
    let binding = state.ports.get(&port).and_then(|entry| entry.record.binding.as_ref());
    binding.is_some_and(|binding| binding.guest_device.is_none() && binding.carrier.is_none())
        && state.have.device(port).is_some()
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

/// The phase a record has before anything was looked at.
fn first_phase(port: &Port) -> Phase {
    match port.binding.as_ref().map(|binding| binding.intent) {
        None => Phase::Unbound,
        Some(Intent::Attached) => Phase::Wired,
        Some(Intent::Detaching | Intent::Deleting) => Phase::Detaching,
    }
}
