//! What clients ask for: each action runs as a task of its own to its end, whether or not its client still waits.
//!
//! The use cases reserve, commit and claim in the inventory, and have the devices built and taken away by
//! `reconcile`, which knows nothing of them.

mod apply;
mod attach;
mod calls;
mod counters;
mod detach;
mod dry_run;
mod filters;
mod fleet;
mod following;
mod following_groups;
mod gc;
mod groups;
mod idempotency;
mod jobs;
mod leases;
mod logged;
mod made;
mod moving;
mod networks;
mod news;
mod notices;
mod perform;
mod ports;
mod run_jobs;
mod segments;
mod servers;
mod sharing;
mod standby;
mod start_job;
mod sub_ports;
mod subnets;
mod tap;
mod trunks;
mod verified;
mod verify;
mod view;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, Semaphore};

use crate::clock;
use crate::events::Events;
use crate::fleet::agent::Fleet;
use crate::kernel::handle::KernelHandle;
use crate::model::idempotency::{Key, Made, StoredAnswer};
use crate::model::{Group, Job, PortId, Subnet};
use crate::plan::LinkState;
use crate::store::{Change, Loaded, Purpose, Store};
use crate::telemetry::meters::OK;

pub use crate::fleet::agent::Status as FleetStatus;
pub use crate::fleet::elsewhere::Wanted as WantedElsewhere;
pub use crate::fleet::roster::HostView;
pub use crate::inventory::leftovers::Leftover;
pub use crate::inventory::{ADDRESS_LIMIT, SUBNET_LIMIT};
pub use crate::kernel::exec::StepTime;
pub use crate::reconcile::{Context, Error, Finding, Health, Heartbeat, Policy, Problem, Receipt, RecipientTrouble, Reconciler};
pub use calls::{Answer, Asks, Call, NewPortOfCall, PassedRequest};
pub use counters::PortCounters;
pub use fleet::{FleetView, Reserved};
pub use gc::{Collected, Leftovers};
pub use groups::{RuleFilter, RuleView};
pub use idempotency::Known;
pub use leases::{Exchange, LeaseState};
pub use news::FleetReader;
pub use tap::NotOpened;
pub use verified::Verified;
pub use view::{Binding, DeviceView, NetworkView, PortFilter, PortTrunk, PortView, ServerView, Tap, TrunkView};

use idempotency::Cache;
use jobs::Jobs;
use verified::Verifying;

/// How many actions may be under way: more than there can be clients that wait, and clients may leave before the end.
const ACTIONS: usize = 4096;

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
    /// A security group as it is now.
    Group(Group),
    /// The security groups made.
    Groups(Vec<Group>),
    /// The rules made.
    Rules(Vec<RuleView>),
    /// A server as it is now.
    Server(ServerView),
    /// A server that was not known before.
    NewServer(ServerView),
    /// A port as it is now.
    Port(Box<PortView>),
    /// The ports made.
    Ports(Vec<PortView>),
    /// A trunk as it is now.
    Trunk(TrunkView),
    /// The trunks made.
    Trunks(Vec<TrunkView>),
    /// A job that was accepted.
    Job(Box<Job>),
    /// It is done, and there is nothing to show.
    Done,
}

/// The use cases; used behind an [`Arc`].
#[derive(Debug)]
pub struct Service {
    reconciler: Arc<Reconciler>,
    cache: Mutex<Cache>,
    jobs: Mutex<Jobs>,
    /// Rung when a job was accepted.
    jobs_waiting: Notify,
    /// For further actions.
    room: Arc<Semaphore>,
    verifying: Verifying,
    /// The fleet that this host is one of.
    fleet: OnceLock<Arc<Fleet>>,
}

impl Service {
    /// Takes in what the store holds and what the kernel shows. Nothing is done yet: the [`Service::reconciler`] begins.
    pub fn new(
        policy: Policy,
        (store, mut loaded): (Store, Loaded),
        kernel: Arc<dyn KernelHandle>,
        links: Vec<LinkState>,
        at: Instant,
    ) -> Arc<Self> {
        let mut cache = Cache::default();
        let now = clock::stamp();
        std::mem::take(&mut loaded.remembered).into_iter().for_each(|one| cache.recall(one, now));
        let jobs = Jobs::recall(std::mem::take(&mut loaded.jobs));
        Arc::new(Self {
            jobs: Mutex::new(jobs),
            jobs_waiting: Notify::new(),
            reconciler: Reconciler::new(policy, (store, loaded), kernel, links, at),
            cache: Mutex::new(cache),
            room: Arc::new(Semaphore::new(ACTIONS)),
            verifying: Verifying::default(),
            fleet: OnceLock::new(),
        })
    }

    /// What keeps the devices as their records say.
    pub fn reconciler(&self) -> &Arc<Reconciler> {
        &self.reconciler
    }

    /// How the daemon fares.
    pub fn health(&self) -> Health {
        self.reconciler.health()
    }

    /// The event sequence.
    pub fn events(&self) -> &Events {
        self.reconciler.events()
    }

    /// What is known of a key for a request; a key not known is the caller's to end with `answered` or `forget`.
    pub fn recollect(&self, key: &Key, request: &str) -> Known {
        let (known, old) = self.cache().ask(key, request, clock::stamp());
        if !old.is_empty() {
            let forget = old.into_iter().map(Change::ForgetKey).collect();
            self.reconciler.store.note(forget);
        }
        known
    }

    /// Makes the answer under a key durable, and lets those who wait for it have it.
    ///
    /// # Errors
    /// It could not be stored; it is kept in memory all the same.
    pub async fn answered(&self, key: &Key, answer: StoredAnswer) -> Result<(), Error> {
        let remembered = self.cache().answered(key, answer);
        let stored = match remembered {
            Some(remembered) => self.reconciler.commit(vec![Change::Remember(Box::new(remembered))], Purpose::Growing).await,
            None => Ok(()),
        };
        self.cache().end(key);
        Ok(stored?)
    }

    /// Lets those go on who wait for a key whose answer is not kept: what was made answers for it.
    pub fn end_key(&self, key: &Key) {
        self.cache().end(key);
    }

    /// Forgets a key whose request is to be possible again.
    pub async fn forget_key(&self, key: &Key) {
        let forgotten = self.reconciler.commit(vec![Change::ForgetKey(key.clone())], Purpose::Freeing).await;
        self.cache().forget(key);
        if let Err(error) = forgotten {
            tracing::warn!(%error, "an idempotency key could not be forgotten");
        }
    }

    /// Runs something to its end, also when its caller stops waiting.
    ///
    /// # Errors
    /// The event loop ends before it.
    pub async fn to_its_end<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Result<T, Error> {
        self.reconciler.tasks.spawn(work).await.map_err(|_| Error::Stopping)
    }

    /// What is stored with the things a request makes, so that its key and they are there together or not at all.
    fn note(&self, context: &Context, made: Vec<Made>) -> Option<Change> {
        if let [Made::Port(port)] = made[..]
            && context.part.is_some()
        {
            return self.note_part(context, port);
        }
        let key = context.key.as_ref()?;
        self.cache().made(key, made).map(|remembered| Change::Remember(Box::new(remembered)))
    }

    /// What is stored with the port that a job's part is done to.
    fn note_part(&self, context: &Context, port: PortId) -> Option<Change> {
        self.jobs().with_done(context.part?, port, clock::stamp())
    }

    /// What is stored when that port is taken back.
    fn forget_part(&self, context: &Context) -> Option<Change> {
        self.jobs().without(context.part?)
    }

    /// All jobs.
    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        // Plain values, whole after each statement.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        // Plain values, whole after each statement.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How an action ended, for what is counted.
fn word<T>(result: &Result<T, Error>) -> &'static str {
    result.as_ref().map_or_else(Error::reason, |_| OK)
}
