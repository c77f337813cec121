//! Brings the observed state to the desired state: the loop and its parts.
//!
//! ```text
//!                 kernel/watch ── Notice
//!                                   ▼
//!   observe   observe: the inventory shows it ── evaluate: does it differ? ──┐
//!   plan      planning: plan::plan on records and the newest look            │ schedule: now or later
//!   execute   port, bridges, deletion ── build ──► kernel/handle, store  ◄───┘
//!                                   ▼
//!                    publish, health ──► events
//! ```
//!
//! The inventory is behind a mutex that is held for look-ups and reservations only, never across an await. Work on one object
//! is exclusive by a claim on it; work on different objects meets only in the kernel's and the store's queues. Attach, repair
//! and restart share one function, [`Reconciler::build`]; they differ in the reason.

mod bridges;
mod build;
mod closing;
mod conditions;
mod crowded;
mod cut_off;
mod deletion;
mod error;
mod flapping;
mod health;
mod heartbeat;
mod namespaces;
mod observe;
mod passing;
mod planning;
mod port;
mod publish;
mod rollback;
mod run;
mod schedule;
mod start;
mod sweep;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore, oneshot};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::clock;
use crate::config::AllowedBridges;
use crate::events::{self, Event, Events};
use crate::inventory::{Busy, Inventory, Unclaimed};
use crate::kernel::handle::{Answer, KernelHandle};
use crate::kernel::worker::Done;
use crate::model::idempotency::Key;
use crate::model::names::FIRST_INDEX;
use crate::model::{Happening, Intent, MacPrefix, Phase, Port, PortId, Readiness};
use crate::plan::{LinkState, Plan};
use crate::store::{Change, Loaded, Purpose, Store, StoreError};

pub use build::Failed;
pub use error::Error;
pub use health::{ADDRESS_OF_HOST, Health, Problem};
pub use heartbeat::Heartbeat;
pub use namespaces::check_pin;
pub use schedule::NAMESPACE_WAIT;

use conditions::Conditions;

/// How long an action waits for another one's work on the same object, in seconds.
pub const CLAIM_WAIT: Duration = Duration::from_secs(30);

/// What the configuration decides.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The first three octets of generated MACs.
    pub mac_prefix: MacPrefix,
    /// Which existing bridges networks may use.
    pub allowed_bridges: AllowedBridges,
    /// The MTU of agent-made bridges, in bytes.
    pub mtu: u32,
    /// Whether an agent-made bridge that cannot be closed to the host is refused.
    pub require_host_closed: bool,
    /// How often everything is compared without a cause.
    pub sweep: Duration,
    /// NICs a server may have unless it says otherwise.
    pub nics_per_server: u32,
    /// The name of this host (`binding:host_id`).
    pub host: String,
}

/// What an action came with.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// The id of the request, as in the log and in events.
    pub request_id: Option<String>,
    /// The key under which the answer is to be remembered.
    pub key: Option<Key>,
    /// The revision that what it is about must have; none for any.
    pub revision: Option<u64>,
    /// Whether a device is to go also while a process holds it open.
    pub force: bool,
}

impl Context {
    /// Refuses a request that was made for another revision than the one there is.
    pub(crate) fn expects(&self, is: u64) -> Result<(), Error> {
        match self.revision {
            Some(asked) if asked != is => Err(Error::RevisionMismatch { asked, is }),
            _ => Ok(()),
        }
    }
}

/// Inventory, store and kernel, and what brings them together; used behind an [`Arc`].
#[derive(Debug)]
pub struct Reconciler {
    inventory: Mutex<Inventory>,
    conditions: Mutex<Conditions>,
    policy: RwLock<Arc<Policy>>,
    /// This host's name, which stays while the daemon runs.
    pub(crate) host: String,
    pub(crate) store: Store,
    pub(crate) store_id: Uuid,
    pub(crate) kernel: Arc<dyn KernelHandle>,
    events: Events,
    /// Event numbers below this are reserved in the store.
    events_reserved: Arc<AtomicU64>,
    /// The next ifindex for a new link.
    next_index: AtomicU32,
    pub(crate) tasks: TaskTracker,
    /// The first try of each port that differed at the start.
    first_pass: TaskTracker,
    reconciled: AtomicBool,
    /// For a complete dump: one at a time.
    dumps: Semaphore,
    /// Rung when a repair's time has been set.
    retries: Notify,
    pub(crate) stopping: AtomicBool,
    pub(crate) started: Instant,
}

impl Reconciler {
    /// Takes in what the store holds and what the kernel shows. Nothing is done yet; [`Reconciler::begin`] and [`Reconciler::follow`] do.
    pub fn new(
        policy: Policy,
        (store, loaded): (Store, Loaded),
        kernel: Arc<dyn KernelHandle>,
        links: Vec<LinkState>,
        at: Instant,
    ) -> Arc<Self> {
        let mut state = Inventory::new(loaded.store_id, policy.host.clone(), kernel.guests());
        state.open.tolerated = !policy.require_host_closed;
        state.resync(links, at);
        let (lost, news) = rollback::detect(&state, &loaded);
        let mut next_event = loaded.next_event;
        if let Some(lost) = lost.filter(|_| news) {
            tracing::error!(last = loaded.commit, sealed = lost.until, "an older copy of the store was put back");
            // No number is used twice.
            store.skip_to(lost.until);
            next_event += rollback::EVENTS_LOST;
        }
        loaded.networks.into_iter().for_each(|network| state.add_network(network));
        loaded.subnets.into_iter().for_each(|subnet| state.add_subnet(subnet));
        loaded.servers.into_iter().for_each(|server| state.add_server(server));
        loaded.ports.into_iter().for_each(|port| {
            let phase = first_phase(&port);
            state.add_port(port, phase);
        });
        let reconciler = Self {
            inventory: Mutex::new(state),
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
        };
        reconciler.recall();
        Arc::new(reconciler)
    }

    /// Ports go on with the phase that the kernel shows, without an event: nothing has happened to them.
    pub(crate) fn recall(&self) {
        let mut state = self.lock();
        let attached: Vec<PortId> =
            state.ports.values().filter(|port| port.phase == Phase::Wired).map(|port| port.record.id).collect();
        for port in attached {
            let (readiness, why) = self.readiness(&state, port);
            if readiness == Readiness::Ready {
                state.set_phase(port, Phase::Active);
            }
            if let Some((entry, why)) = state.ports.get_mut(&port).zip(why) {
                (entry.reason, entry.detail) = (Some(why.reason.to_owned()), Some(why.detail));
            }
        }
    }

    /// The rules in force.
    pub(crate) fn policy(&self) -> Arc<Policy> {
        // Nothing can panic while it is held.
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Goes by other rules from now on. What is made already stays as it was made.
    pub fn set_policy(self: &Arc<Self>, policy: Policy) {
        let required = policy.require_host_closed;
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(policy);
        self.causes_ended(&mut self.lock());
        self.require_closed(required);
        self.retries.notify_one();
    }

    /// Notes why the configuration could not be read again, or that it could, for health and events.
    pub fn note_config(&self, trouble: Option<String>) {
        let state = self.lock();
        self.conditions().config_trouble = trouble;
        self.publish_health(&state);
    }

    /// Notes that no client gets to a socket, or that all are reached again, for health and events.
    pub fn note_sockets(&self, trouble: Option<Problem>) {
        let state = self.lock();
        let before = std::mem::replace(&mut self.conditions().socket_trouble, trouble.clone());
        if before != trouble {
            self.publish_health(&state);
        }
    }

    /// The event sequence.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Refuses further actions and waits for those under way, at most for `limit`.
    pub async fn stop(&self, limit: Duration) {
        self.stopping.store(true, Ordering::Relaxed);
        self.retries.notify_one();
        self.tasks.close();
        if tokio::time::timeout(limit, self.tasks.wait()).await.is_err() {
            tracing::warn!(tasks = self.tasks.len(), "stopping with work under way; it is taken up again at the next start");
        }
    }

    /// Waits for what is still under way after a stop, at most for `limit`: what the kernel's threads gave up is taken back.
    pub async fn wind_up(&self, limit: Duration) {
        let _ = tokio::time::timeout(limit, self.tasks.wait()).await;
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inventory> {
        // A panic while the lock was held would be a bug; what is durable is in the store, and going on serves the rest.
        self.inventory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn conditions(&self) -> MutexGuard<'_, Conditions> {
        // As for the inventory.
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An unused ifindex.
    fn fresh_index(&self) -> u32 {
        // Wraps back into the range from which the kernel does not choose by itself.
        let drawn = self.next_index.fetch_add(1, Ordering::Relaxed);
        if drawn < 0x7fff_fff0 {
            return drawn;
        }
        self.next_index.store(FIRST_INDEX + 1, Ordering::Relaxed);
        FIRST_INDEX
    }

    /// Makes changes durable at once.
    pub(crate) async fn commit(&self, changes: Vec<Change>, purpose: Purpose) -> Result<(), StoreError> {
        self.store.next_commit();
        let result = self.store.commit(changes, purpose).await;
        self.note_store(&mut self.lock(), result.as_ref().err());
        result
    }

    /// Notes whether the store takes commits, for health and events.
    fn note_store(&self, state: &mut Inventory, error: Option<&StoreError>) {
        let mut conditions = self.conditions();
        let before = conditions.store_trouble.is_some();
        conditions.store_trouble = match error {
            Some(StoreError::Full | StoreError::Failed(_) | StoreError::Damaged(_) | StoreError::Replaced(_)) => error.cloned(),
            // One refused transaction says nothing about the next.
            Some(_) => return,
            // What frees may use the room that is kept for it; the disk is full until that is there again.
            None if conditions.store_trouble == Some(StoreError::Full) && !self.store.has_room() => return,
            None => None,
        };
        let refuses = conditions.store_trouble.is_some();
        drop(conditions);
        match refuses {
            // The store is asked again from now on.
            true => self.retries.notify_one(),
            false if before => self.causes_ended(state),
            false => {}
        }
        self.publish_health(state);
    }

    /// Takes claims, and waits for operations that have one of them. `take` gives all of them, or says why there are none.
    pub(crate) async fn claim<T>(&self, mut take: impl FnMut(&mut Inventory) -> Result<T, Unclaimed<Error>>) -> Result<T, Error> {
        let until = tokio::time::Instant::now() + CLAIM_WAIT;
        loop {
            let ended = match take(&mut self.lock()) {
                Ok(taken) => return Ok(taken),
                Err(Unclaimed::Refused(error)) => return Err(error),
                Err(Unclaimed::Busy(Busy(ended))) => ended,
            };
            if tokio::time::timeout_at(until, ended).await.is_err() {
                return Err(Error::Busy("other work on the same object did not end in 30 s"));
            }
        }
    }

    /// Moves a port on, with the cause, and tells of it.
    pub(crate) fn transition(&self, state: &mut Inventory, port: PortId, what: Happening, why: Option<Why>, context: &Context) {
        let Some(entry) = state.ports.get_mut(&port) else { return };
        let before = entry.phase;
        let Some(after) = before.after(what) else {
            tracing::debug!(%port, phase = before.as_str(), ?what, "cannot happen in this phase");
            return;
        };
        let reason = why.as_ref().map(|why| why.reason.to_owned());
        let quiet = before == after && entry.reason == reason;
        entry.detail = why.map(|why| why.detail);
        if quiet {
            return;
        }
        let known = (before, std::mem::replace(&mut entry.reason, reason));
        state.set_phase(port, after);
        self.publish_port(state, port, known, None, context);
    }

    pub(crate) fn emit(&self, mut event: Event, context: &Context) {
        event.request_id.clone_from(&context.request_id);
        tracing::info!(
            event = event.kind.as_str(),
            port = event.port_id.map(tracing::field::display),
            phase = event.phase.map(Phase::as_str),
            reason = event.reason,
            request_id = event.request_id,
            "event"
        );
        let number = self.events.emit(event);
        let reserved = self.events_reserved.load(Ordering::Relaxed);
        if number + events::BLOCK / 2 >= reserved {
            let next = number + events::BLOCK;
            self.events_reserved.store(next, Ordering::Relaxed);
            let (store, back) = (self.store.clone(), Arc::clone(&self.events_reserved));
            tokio::spawn(async move {
                if let Err(error) = store.commit(vec![Change::ReserveEvents(next)], Purpose::Freeing).await {
                    tracing::error!(%error, "event numbers could not be reserved");
                    // The next event asks again.
                    let _ = back.compare_exchange(next, reserved, Ordering::Relaxed, Ordering::Relaxed);
                }
            });
        }
    }
}

impl From<Error> for Unclaimed<Error> {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// Why a port is not ACTIVE: the stable word, and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// The stable word.
    pub reason: &'static str,
    /// The sentence.
    pub detail: String,
}

/// An event about a port.
pub fn port_event(
    kind: events::EventKind,
    port: &Port,
    before: Option<Phase>,
    after: Option<Phase>,
    reason: Option<String>,
) -> Event {
    Event {
        port_id: Some(port.id),
        server_id: port.binding.as_ref().map(|binding| binding.server_id),
        network_id: Some(port.network_id),
        old: before.map(Phase::status),
        new: after.map(Phase::status),
        phase: after,
        reason,
        ..Event::new(kind, clock::now())
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

impl Reconciler {
    /// Carries a plan out and waits for its end.
    pub(crate) async fn carry_out(&self, plan: Plan) -> Result<Done, Error> {
        answered(self.kernel.run(plan)?).await?.map_err(|failed| Error::Kernel(failed.error))
    }

    /// Takes in what a finished plan saw.
    fn note_links(&self, state: &mut Inventory, links: Vec<LinkState>, at: Option<Instant>) {
        let at = at.unwrap_or_else(Instant::now);
        links.into_iter().for_each(|link| _ = state.seen(link, at));
    }
}

/// Waits for an answer of the kernel's threads.
pub async fn answered<T>(answer: Answer<T>) -> Result<T, Error> {
    let answer: Result<T, oneshot::error::RecvError> = answer.await;
    answer.map_err(|_| Error::Stopping)
}
