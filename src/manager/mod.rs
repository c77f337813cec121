//! The loop: owns what should be and what is, and brings the one to the other.
//!
//! ```text
//!             Action                          Notice
//!   api ─────────────► ┌───────────────────┐ ◄──────── kernel/watch
//!       ◄───────────── │      manager      │
//!         Reply, view  │ state (Observed)  │ ── Plan ──► kernel/handle ──► Done, Failed
//!                      └───────────────────┘ ── intent ─► store
//!                                └────────── Event ────► events
//! ```
//!
//! Each action runs as a task of its own to its end, whether or not its client still waits. The state is behind a mutex
//! that is held for lookups and reservations only, never across an await. Work on one object is exclusive by a claim on
//! it; work on different objects meets only in the kernel's and the store's queues. Attach, repair and restart share one
//! function, `Manager::build`; they differ in the reason.

mod attach;
mod claim;
mod closing;
mod contest;
mod crowded;
mod cut_off;
mod detach;
mod dry_run;
mod error;
mod follow;
mod gc;
mod health;
mod memory;
mod networks;
mod passing;
mod ports;
mod pulse;
mod repair;
mod retry;
mod rollback;
mod servers;
mod state;
mod sweep;
mod tap;
mod telling;
mod verify;
mod view;
mod wakeups;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore, oneshot};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::clock;
use crate::config::AllowedBridges;
use crate::events::{self, Event, Events};
use crate::kernel::handle::{Answer, KernelHandle};
use crate::kernel::worker::Done;
use crate::model::action::Action;
use crate::model::idempotency::{Key, Made, StoredAnswer};
use crate::model::names::FIRST_INDEX;
use crate::model::{Happening, Intent, MacPrefix, Phase, Port, PortId, Readiness, Subnet};
use crate::plan::{LinkState, Plan};
use crate::store::{Change, Loaded, Purpose, Store, StoreError};
use crate::telemetry::meters;
use crate::telemetry::meters::OK;

pub use error::Error;
pub use gc::{Collected, Leftover, Leftovers};
pub use memory::Known;
pub use pulse::Pulse;
pub use state::{ADDRESS_LIMIT, SUBNET_LIMIT};
pub use tap::NotOpened;
pub use verify::Verified;

use verify::Verifying;
pub use view::{Binding, DeviceView, Health, NetworkView, PortFilter, PortView, Problem, ServerView, Tap};

use claim::Unclaimed;
use memory::Memory;
use state::State;

/// How long an action waits for another one's work on the same object, in seconds.
const CLAIM_WAIT: Duration = Duration::from_secs(30);

/// How many actions may be under way: more than there can be clients that wait, and clients may leave before the end.
const ACTIONS: usize = 4096;

/// What the manager is told by the config.
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
    fn expects(&self, is: u64) -> Result<(), Error> {
        match self.revision {
            Some(asked) if asked != is => Err(Error::RevisionMismatch { asked, is }),
            _ => Ok(()),
        }
    }
}

/// What a successful action answers with.
#[derive(Debug, Clone)]
pub enum Reply {
    /// A network as it is now.
    Network(NetworkView),
    /// The networks made.
    Networks(Vec<NetworkView>),
    /// A subnet as it is now.
    Subnet(Subnet),
    /// The subnets made.
    Subnets(Vec<Subnet>),
    /// A server as it is now.
    Server(ServerView),
    /// A server that was not known before.
    NewServer(ServerView),
    /// A port as it is now.
    Port(Box<PortView>),
    /// The ports made.
    Ports(Vec<PortView>),
    /// It is done, and there is nothing to show.
    Done,
}

/// The manager; used behind an [`Arc`].
#[derive(Debug)]
pub struct Manager {
    state: Mutex<State>,
    memory: Mutex<Memory>,
    policy: RwLock<Arc<Policy>>,
    /// This host's name, which stays while the daemon runs.
    host: String,
    store: Store,
    store_id: Uuid,
    kernel: Arc<dyn KernelHandle>,
    events: Events,
    /// Event numbers below this are reserved in the store.
    events_reserved: Arc<AtomicU64>,
    /// The next ifindex for a new link.
    next_index: AtomicU32,
    tasks: TaskTracker,
    /// For further actions.
    room: Arc<Semaphore>,
    verifying: Verifying,
    /// The first try of each port that differed at the start.
    first_pass: TaskTracker,
    reconciled: AtomicBool,
    /// For a complete dump: one at a time.
    dumps: Semaphore,
    /// Rung when a repair's time has been set.
    retries: Notify,
    stopping: AtomicBool,
    started: Instant,
}

impl Manager {
    /// Takes in what the store holds and what the kernel shows. Nothing is done yet; [`Manager::follow`] begins.
    pub fn new(
        policy: Policy,
        (store, loaded): (Store, Loaded),
        kernel: Arc<dyn KernelHandle>,
        links: Vec<LinkState>,
        at: Instant,
    ) -> Arc<Self> {
        let mut state = State::new(loaded.store_id, policy.host.clone(), kernel.guests());
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
        state.lost = lost;
        loaded.networks.into_iter().for_each(|network| state.add_network(network));
        loaded.subnets.into_iter().for_each(|subnet| state.add_subnet(subnet));
        loaded.servers.into_iter().for_each(|server| state.add_server(server));
        loaded.ports.into_iter().for_each(|port| {
            let phase = first_phase(&port);
            state.add_port(port, phase);
        });
        let mut memory = Memory::default();
        let now = clock::stamp();
        loaded.remembered.into_iter().for_each(|one| memory.recall(one, now));
        let manager = Self {
            state: Mutex::new(state),
            memory: Mutex::new(memory),
            host: policy.host.clone(),
            policy: RwLock::new(Arc::new(policy)),
            store,
            store_id: loaded.store_id,
            kernel,
            events: Events::new(next_event),
            events_reserved: Arc::new(AtomicU64::new(next_event)),
            next_index: AtomicU32::new(rand::random_range(FIRST_INDEX..0x4000_0000u32)),
            tasks: TaskTracker::new(),
            room: Arc::new(Semaphore::new(ACTIONS)),
            verifying: Verifying::default(),
            first_pass: TaskTracker::new(),
            reconciled: AtomicBool::new(false),
            dumps: Semaphore::new(1),
            retries: Notify::new(),
            stopping: AtomicBool::new(false),
            started: Instant::now(),
        };
        manager.recall();
        Arc::new(manager)
    }

    /// Ports go on with the phase that the kernel shows, without an event: nothing has happened to them.
    fn recall(&self) {
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
    fn policy(&self) -> Arc<Policy> {
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
        let mut state = self.lock();
        state.config_trouble = trouble;
        self.tell_health(&mut state);
    }

    /// Notes that no client gets to a socket, or that all are reached again, for health and events.
    pub fn note_sockets(&self, trouble: Option<Problem>) {
        let mut state = self.lock();
        if state.socket_trouble != trouble {
            state.socket_trouble = trouble;
            self.tell_health(&mut state);
        }
    }

    /// The event sequence.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Carries an action out, to its end also when the caller stops waiting.
    ///
    /// # Errors
    /// Nothing is left of the action then.
    pub async fn perform(self: &Arc<Self>, action: Action, context: Context) -> Result<Reply, Error> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err(Error::Stopping);
        }
        let Ok(room) = Arc::clone(&self.room).try_acquire_owned() else {
            return Err(Error::Busy("4096 requests are being carried out"));
        };
        let manager = Arc::clone(self);
        let task = self.tasks.spawn(async move {
            let _room = room;
            manager.dispatch(action, &context).await
        });
        // The task ends with an answer, unless the event loop ends before it.
        task.await.unwrap_or(Err(Error::Stopping))
    }

    async fn dispatch(self: Arc<Self>, action: Action, context: &Context) -> Result<Reply, Error> {
        let result = Arc::clone(&self).act(action, context).await;
        #[cfg(debug_assertions)]
        self.lock().assert_sound();
        result
    }

    async fn act(self: Arc<Self>, action: Action, context: &Context) -> Result<Reply, Error> {
        match action {
            Action::CreateNetworks(new) => self.create_networks(new, context).await,
            Action::UpdateNetwork(id, change) => self.update_network(id, change, context).await,
            Action::DeleteNetwork(id) => self.delete_network(id, context).await,
            Action::CreateSubnets(new) => self.create_subnets(new, context).await,
            Action::UpdateSubnet(id, change) => self.update_subnet(id, change, context).await,
            Action::DeleteSubnet(id) => self.delete_subnet(id, context).await,
            Action::PutServer(new) => self.put_server(new).await,
            Action::DeleteServer(id, nics) => self.delete_server(id, nics, context).await,
            Action::CreatePorts(new) => self.create_ports(new, context).await,
            Action::UpdatePort(id, change) => self.update_port(id, change, context).await,
            Action::DeletePort(id) => self.delete_port(id, context).await,
            Action::Attach(attach) => {
                let began = Instant::now();
                let result = self.attach(attach, context).await;
                meters().attached(word(&result), began.elapsed());
                result
            }
            Action::Detach(server, port, after) => self.detach(server, port, after, context).await,
        }
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

    /// What is known of a key for a request; a key not known is the caller's to end with `answered` or `forget`.
    pub fn recollect(&self, key: &Key, request: &str) -> Known {
        let (known, old) = self.memory().ask(key, request, clock::stamp());
        if !old.is_empty() {
            let forget = old.into_iter().map(Change::ForgetKey).collect();
            self.store.note(forget);
        }
        known
    }

    /// Makes the answer under a key durable, and lets those who wait for it have it.
    ///
    /// # Errors
    /// It could not be stored; it is kept in memory all the same.
    pub async fn answered(&self, key: &Key, answer: StoredAnswer) -> Result<(), Error> {
        let remembered = self.memory().answered(key, answer);
        let stored = match remembered {
            Some(remembered) => self.commit(vec![Change::Remember(Box::new(remembered))], Purpose::Growing).await,
            None => Ok(()),
        };
        self.memory().end(key);
        Ok(stored?)
    }

    /// Lets those go on who wait for a key whose answer is not kept: what was made answers for it.
    pub fn end_key(&self, key: &Key) {
        self.memory().end(key);
    }

    /// Forgets a key whose request is to be possible again.
    pub async fn forget_key(&self, key: &Key) {
        let forgotten = self.commit(vec![Change::ForgetKey(key.clone())], Purpose::Freeing).await;
        self.memory().forget(key);
        if let Err(error) = forgotten {
            tracing::warn!(%error, "an idempotency key could not be forgotten");
        }
    }

    /// Runs something to its end, also when its caller stops waiting.
    ///
    /// # Errors
    /// The event loop ends before it.
    pub async fn to_its_end<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Result<T, Error> {
        self.tasks.spawn(work).await.map_err(|_| Error::Stopping)
    }

    /// What is stored with the things a request makes, so that its key and they are there together or not at all.
    fn note(&self, context: &Context, made: Vec<Made>) -> Option<Change> {
        let key = context.key.as_ref()?;
        self.memory().made(key, made).map(|remembered| Change::Remember(Box::new(remembered)))
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // As for the state.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held would be a bug; what is durable is in the store, and going on serves the rest.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
    async fn commit(&self, changes: Vec<Change>, purpose: Purpose) -> Result<(), StoreError> {
        self.store.next_commit();
        let result = self.store.commit(changes, purpose).await;
        self.note_store(&mut self.lock(), result.as_ref().err());
        result
    }

    /// Notes whether the store takes commits, for health and events.
    fn note_store(&self, state: &mut State, error: Option<&StoreError>) {
        let before = state.store_trouble.is_some();
        state.store_trouble = match error {
            Some(StoreError::Full | StoreError::Failed(_) | StoreError::Damaged(_) | StoreError::Replaced(_)) => error.cloned(),
            // One refused transaction says nothing about the next.
            Some(_) => return,
            // What frees may use the room that is kept for it; the disk is full until that is there again.
            None if state.store_trouble == Some(StoreError::Full) && !self.store.has_room() => return,
            None => None,
        };
        match state.store_trouble {
            // The store is asked again from now on.
            Some(_) => self.retries.notify_one(),
            None if before => self.causes_ended(state),
            None => {}
        }
        self.tell_health(state);
    }

    /// Takes claims, waiting for whoever has one of them. `take` gives all of them, or says why there are none.
    async fn claim<T>(&self, mut take: impl FnMut(&mut State) -> Result<T, Unclaimed>) -> Result<T, Error> {
        let until = tokio::time::Instant::now() + CLAIM_WAIT;
        loop {
            let ended = match take(&mut self.lock()) {
                Ok(taken) => return Ok(taken),
                Err(Unclaimed::Refused(error)) => return Err(error),
                Err(Unclaimed::Busy(ended)) => ended,
            };
            if tokio::time::timeout_at(until, ended).await.is_err() {
                return Err(Error::Busy("other work on the same object did not end in 30 s"));
            }
        }
    }

    /// Moves a port on, with the cause, and tells of it.
    fn happen(&self, state: &mut State, port: PortId, what: Happening, why: Option<Why>, context: &Context) {
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
        self.tell_port(state, port, known, None, context);
    }

    fn emit(&self, mut event: Event, context: &Context) {
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

/// Why a port is not ACTIVE: the stable word, and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Why {
    reason: &'static str,
    detail: String,
}

fn port_event(
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

/// How an action ended, for what is counted.
fn word<T>(result: &Result<T, Error>) -> &'static str {
    result.as_ref().map_or_else(Error::reason, |_| OK)
}

/// The phase a record has before anything was looked at.
fn first_phase(port: &Port) -> Phase {
    match port.binding.as_ref().map(|binding| binding.intent) {
        None => Phase::Unbound,
        Some(Intent::Attached) => Phase::Wired,
        Some(Intent::Detaching | Intent::Deleting) => Phase::Detaching,
    }
}

impl Manager {
    /// Carries a plan out and waits for its end.
    async fn carry_out(&self, plan: Plan) -> Result<Done, Error> {
        answered(self.kernel.run(plan)?).await?.map_err(|failed| Error::Kernel(failed.error))
    }

    /// Takes in what a finished plan saw.
    fn take_in_links(&self, state: &mut State, links: Vec<LinkState>, at: Option<Instant>) {
        let at = at.unwrap_or_else(Instant::now);
        links.into_iter().for_each(|link| _ = state.seen(link, at));
    }
}

/// Waits for an answer of the kernel's threads.
async fn answered<T>(answer: Answer<T>) -> Result<T, Error> {
    let answer: Result<T, oneshot::error::RecvError> = answer.await;
    answer.map_err(|_| Error::Stopping)
}
