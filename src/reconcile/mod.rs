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
//! A file uses only files above it in this list, so that no two files use each other:
//!
//! ```text
//!   mod, uplinks, error, conditions, told   the reconciler, and what is known of the agent itself
//!   publish, schedule                events of ports; when a port is tried again
//!   rollback … problems, health      what is wrong with the agent, for health and for events
//!   commit, flapping, cut_off        the store's answers; other programs that undo what nicd does
//!   hearing, sockets                 where guests' DHCP requests are heard
//!   listening                        who says that it has which address
//!   planning, observe                what a look means; the work that follows is started as [`Work`]
//!   namespaces, bridges              what carrying plans out needs
//!   machines, build, groups          carrying plans out; security groups in the kernel
//!   asking, announcing               whether another machine has a port's addresses; telling where the port is
//!   port, deletion                   one port's way back to its record, and its end
//!   overlays                         the entries that lead VXLAN networks to other hosts
//!   responder                        answers guests' DHCP requests
//!   heartbeat, sweep, run, start     the loop, which also carries [`Work`] out
//! ```
//!
//! The inventory is behind a mutex that is held for look-ups and reservations only, never across an await. Work on one object
//! is exclusive by a claim on it; work on different objects meets only in the kernel's and the store's queues. Attach, repair
//! and restart share one function, [`Reconciler::build`]; they differ in the reason.

mod advertise;
mod announcing;
mod asking;
mod bridges;
mod build;
mod closing;
mod commit;
mod conditions;
mod crowded;
mod cut_off;
mod declines;
mod deletion;
mod error;
mod flapping;
mod groups;
mod health;
mod hearing;
mod heartbeat;
mod listening;
mod machines;
mod members;
mod namespaces;
mod observe;
mod overlays;
mod passing;
mod planning;
mod port;
mod problems;
mod publish;
mod responder;
mod responder6;
mod rollback;
mod run;
mod schedule;
mod sockets;
mod start;
mod sweep;
mod told;
mod uplinks;

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore, oneshot};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::clock;
use crate::config::{AllowedBridges, ConflictProbe, GuestDefaults};
use crate::events::{self, Event, Events};
use crate::inventory::{Busy, Inventory, Unclaimed};
use crate::kernel::exec::StepTime;
use crate::kernel::handle::{Answer, KernelHandle};
use crate::kernel::worker::Done;
use crate::model::idempotency::Key;
use crate::model::names::{FIRST_INDEX, SegmentKind};
use crate::model::{GroupId, IdRanges, JobId, MacPrefix, NetworkId, Phase, PhysicalNetworks, Port, PortId};
use crate::monitor::Turns;
use crate::plan::{Plan, Reason};
use crate::store::{Change, Purpose, Store};

pub use build::Failed;
pub use conditions::{Finding, RecipientTrouble};
pub use error::Error;
pub use health::Health;
pub use heartbeat::Heartbeat;
pub use namespaces::check_pin;
pub use problems::Problem;
pub use schedule::NAMESPACE_WAIT;
pub use uplinks::{UplinkError, UplinkFault};

use conditions::Conditions;
use hearing::Hearing;
use listening::Listening;

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
    /// Whether each project has a security group of its own for ports that name none.
    pub default_group: bool,
    /// How many connections a port in security groups may have.
    pub connections: u32,
    /// What leads to physical networks.
    pub physical_networks: PhysicalNetworks,
    /// The VLANs of networks that name none.
    pub vlans: IdRanges,
    /// The numbers of VXLAN networks that name none.
    pub vnis: IdRanges,
    /// Whether this host is in a fleet, for whose hosts new networks are unless they say otherwise.
    pub in_fleet: bool,
    /// The tunnel address of this host; none where it is in no fleet, and has no VXLAN networks.
    pub tunnel: Option<IpAddr>,
    /// What guests are told whose subnets say nothing.
    pub guest: GuestDefaults,
    /// Whether an agent-made bridge that cannot be closed to the host is refused.
    pub require_host_closed: bool,
    /// What is done about an address that another machine has.
    pub conflict_probe: ConflictProbe,
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
    /// The part of a job that it is: its job, and its place in that.
    pub part: Option<(JobId, usize)>,
    /// Where the times of an attach's steps are noted, if they are asked for.
    pub receipt: Option<Receipt>,
    /// The id of the port that an attach makes; none for a fresh one.
    pub port_id: Option<PortId>,
    /// It is done after another host, which has told the fleet of it.
    pub follows: bool,
}

/// The times of an attach's steps, once it is done.
pub type Receipt = Arc<OnceLock<Vec<StepTime>>>;

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
    /// Held from the read of what sets of security groups allow until the kernel has it.
    telling_groups: tokio::sync::Mutex<()>,
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
    /// The turns on virtual machines.
    turns: Turns,
    /// Where guests' DHCP requests are heard.
    hearing: Hearing,
    /// Answers those of a bridge.
    answer: fn(&Arc<Self>, hearing::Bridge),
    /// Who says that it has which address.
    listening: Listening,
    /// Does work beside the loop.
    work: fn(&Arc<Self>, Work),
}

/// Work that is done beside the loop. What sees that there is something to do, or is asked for it, starts it; `run` carries it out.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Work {
    /// Brings a port back to its record.
    Repair(PortId, Reason),
    /// Sets the device of a port down that is up and not in its bridge.
    SetDown(PortId),
    /// Sets an agent-made bridge back to its record, after a while.
    RepairBridge(NetworkId, Duration),
    /// Has the device of a leaving port deleted.
    Reap(PortId),
    /// Ends a leaving port whose device has gone.
    Gone(PortId),
    /// Asks whether another machine has a port's addresses.
    Ask(PortId),
    /// Tells where a port is.
    Announce(PortId),
    /// Compares entries that lead a network to other hosts.
    CompareEntries(NetworkId),
    /// Brings what the kernel has of a security group to its record, after a while.
    TellGroup(GroupId),
    /// Notes other hosts' ports in security groups, and tells the kernel of them.
    FollowMembers,
}

impl Reconciler {
    /// The rules in force.
    pub(crate) fn policy(&self) -> Arc<Policy> {
        // Nothing can panic while it is held.
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Starts work beside the loop.
    pub(crate) fn start(self: &Arc<Self>, work: Work) {
        (self.work)(self, work);
    }

    /// The event sequence.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Refuses further actions and waits for those under way, at most for `limit`.
    pub async fn stop(&self, limit: Duration) {
        self.stopping.store(true, Ordering::Relaxed);
        self.hearing.stop();
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

    /// An unused ifindex for a device that leads a network to other hosts.
    fn fresh_segment_index(&self, kind: SegmentKind) -> u32 {
        kind.first_index() | (self.fresh_index() % kind.first_index())
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

impl Reconciler {
    /// Carries a plan out and waits for its end.
    pub(crate) async fn carry_out(&self, plan: Plan) -> Result<Done, Error> {
        answered(self.kernel.run(plan)?).await?.map_err(|failed| Error::Kernel(failed.error))
    }
}

/// Waits for an answer of the kernel's threads.
pub async fn answered<T>(answer: Answer<T>) -> Result<T, Error> {
    let answer: Result<T, oneshot::error::RecvError> = answer.await;
    answer.map_err(|_| Error::Stopping)
}
