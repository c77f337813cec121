//! The thread that has devices deleted, many together, and failed plans undone.
//!
//! ```text
//!  reconciler, worker ── Job ─► reaper ── Batch ─► a worker of the pool, with a socket of its own
//!                                 ▲ ── done ────┘
//! ```
//!
//! The workers of the pool do the work, one at a time. One that the kernel keeps for long is stuck: the devices that it has not
//! begun are taken back from it and deleted singly, and another worker goes on, so that a device the kernel does not let go
//! holds no other.
//!
//! What is done to a device stands in a plan (`plan::removal`), made from a look at that moment; devices that wait together are
//! deleted together (`plan::merge_deletions`). When that fails they are deleted singly.
//!
//! That a device is gone is concluded from the kernel's word about that very link, or from a complete dump in which no link
//! has its altname or its alias. One that lost its altname gets it back and is deleted by it; one that lost both is left, and
//! is not gone.

use std::collections::{BTreeSet, VecDeque};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use uuid::Uuid;

use super::exec::{Execution, Undone};
use crate::failpoints;
use crate::model::{PortId, names};
use crate::plan::{AbsentPort, GROUP_SIZE, LinkState, Observed, Reason, merge_deletions, removal};
use crate::queue::Queue;
use crate::threads;

use super::{Host, LinkSelector, OpError, OpErrorKind};

/// The most messages that may wait beside answers.
const LIMIT: usize = 65_536;

/// How long a first deletion waits for others: a fraction of the RCU grace period that they share.
const GATHER: Duration = Duration::from_millis(2);

/// The most devices in one batch while attaches come in: 16 links delay one by 7 ms.
const BATCH_AMONG_ATTACHES: usize = 16;

/// How many workers there are: so many devices, less one, may keep theirs for ever before the others wait.
pub const WORKERS: usize = 64;

/// How long a worker may take before another one goes on: far longer than any batch takes.
const STUCK_AFTER: Duration = Duration::from_secs(1);

/// How long the thread waits at its end for workers that are stuck.
const DRAIN: Duration = Duration::from_secs(2);

/// How often a device is looked for again whose altname another program removes, or adds again.
const TRIES: usize = 8;

/// What the reaper is asked for.
pub enum Job<H: Host> {
    /// Delete a device.
    Delete(PendingDelete),
    /// Undo an execution.
    Undo {
        /// What was begun.
        execution: Execution<H>,
        /// Told when it has been undone.
        answer: oneshot::Sender<Undone>,
    },
}

/// A device that waits for its deletion.
#[derive(Debug)]
pub struct PendingDelete {
    /// Whose device.
    pub port: AbsentPort,
    /// The store of the nicd that made it.
    pub store: Uuid,
    /// Told when the kernel has taken it, or why it stays.
    pub answer: oneshot::Sender<Result<Removed, OpError>>,
    /// Whether it is deleted by itself: it was taken back from a stuck worker.
    pub single: bool,
}

/// What became of a device that was to be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// It is gone.
    Gone,
    /// A process holds it open: it is down, in no bridge, and still there.
    Kept,
}

impl<H: Host> std::fmt::Debug for Job<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Delete(pending) => f.debug_tuple("Delete").field(&pending.port).finish(),
            Self::Undo { execution, .. } => f.debug_struct("Undo").field("execution", execution).finish_non_exhaustive(),
        }
    }
}

/// The way into the reaper, before its thread runs.
pub fn queue<H: Host>() -> Queue<Job<H>> {
    Queue::new(LIMIT)
}

/// An access for the first worker, and what gives one for each further.
pub type Hosts<H> = (H, Box<dyn FnMut() -> Option<H> + Send>);

/// Starts the thread. `attaches_come` says whether an attach has come since it was last asked.
///
/// # Errors
/// No thread can be had.
pub fn start<H: Host>(
    hosts: Hosts<H>,
    queue: Queue<Job<H>>,
    attaches_come: impl FnMut() -> bool + Send + 'static,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    let reap = move || Reaper { pool: WorkerPool::new(hosts), pending: VecDeque::new(), attaches_come }.run(&queue);
    threads::start("nicd-reaper", reap)
}

/// Devices that a worker deletes. Each stays in it until its own deletion begins, or all are gone; what is in it can be taken
/// back.
type Batch = Arc<Mutex<VecDeque<PendingDelete>>>;

enum Work<H: Host> {
    Delete(Batch),
    Undo(Execution<H>, oneshot::Sender<Undone>),
}

struct Reaper<H: Host, F> {
    pool: WorkerPool<H>,
    pending: VecDeque<PendingDelete>,
    attaches_come: F,
}

impl<H: Host, F: FnMut() -> bool> Reaper<H, F> {
    fn run(mut self, queue: &Queue<Job<H>>) {
        let mut taken = VecDeque::new();
        loop {
            if self.pending.is_empty() {
                if !queue.take(&mut taken) {
                    break;
                }
                if taken.iter().any(|message| matches!(message, Job::Delete(_))) {
                    gather(queue, &mut taken);
                }
            } else {
                queue.take_now(&mut taken);
            }
            for message in taken.drain(..) {
                match message {
                    Job::Delete(pending) => self.pending.push_back(pending),
                    Job::Undo { execution, answer } => _ = self.pool.dispatch(Work::Undo(execution, answer)),
                }
                queue.hold(self.pending.len());
            }
            self.delete_batch();
            queue.hold(self.pending.len());
        }
        self.pool.drain();
    }

    /// Has the next batch deleted, and goes on when that takes too long.
    fn delete_batch(&mut self) {
        let Some(store) = self.pending.front().map(|first| first.store) else { return };
        let most = if (self.attaches_come)() { BATCH_AMONG_ATTACHES } else { GROUP_SIZE };
        let together = |pending: &&PendingDelete| !pending.single && pending.store == store;
        let together = self.pending.iter().take(most).take_while(together).count().max(1);
        let batch: Batch = Arc::new(Mutex::new(self.pending.drain(..together).collect()));
        if self.pool.dispatch(Work::Delete(Arc::clone(&batch))) {
            return;
        }
        let back = lock(&batch).drain(..).map(|pending| PendingDelete { single: true, ..pending }).collect::<Vec<_>>();
        self.pending.extend(back);
    }
}

/// The workers of the pool, started when they are needed.
struct WorkerPool<H: Host> {
    first: Option<H>,
    more: Box<dyn FnMut() -> Option<H> + Send>,
    workers: Vec<Sender<Work<H>>>,
    idle: Vec<usize>,
    done: Receiver<usize>,
    tell: Sender<usize>,
}

impl<H: Host> WorkerPool<H> {
    fn new((first, more): Hosts<H>) -> Self {
        let (tell, done) = channel();
        Self { first: Some(first), more, workers: Vec::new(), idle: Vec::new(), done, tell }
    }

    /// Gives work to a worker and waits for its end; false when the worker is stuck.
    fn dispatch(&mut self, work: Work<H>) -> bool {
        let Some(worker) = self.free_worker() else { return true };
        if self.workers[worker].send(work).is_err() {
            return true;
        }
        let until = Instant::now() + STUCK_AFTER;
        loop {
            match self.done.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(done) => {
                    self.idle.push(done);
                    if done == worker {
                        return true;
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    /// A worker that has nothing to do, waited for when there are no more; none when none can be had.
    fn free_worker(&mut self) -> Option<usize> {
        self.idle.extend(self.done.try_iter());
        if let Some(worker) = self.idle.pop() {
            return Some(worker);
        }
        let another = self.first.take().or_else(|| (self.workers.len() < WORKERS).then(|| (self.more)())?);
        match another {
            Some(host) => self.start(host),
            None if self.workers.is_empty() => None,
            None => self.done.recv().ok(),
        }
    }

    fn start(&mut self, mut host: H) -> Option<usize> {
        let (give, given) = channel::<Work<H>>();
        let (worker, tell) = (self.workers.len(), self.tell.clone());
        let work = move || {
            for work in given {
                carry_out(&mut host, work);
                if tell.send(worker).is_err() {
                    return;
                }
            }
        };
        if let Err(error) = threads::start(&format!("nicd-reaper-{worker}"), work) {
            tracing::error!(%error, "no thread can be had to delete devices with");
            return None;
        }
        self.workers.push(give);
        Some(worker)
    }

    /// Waits for all workers that end their work soon.
    fn drain(mut self) {
        let until = Instant::now() + DRAIN;
        while self.idle.len() < self.workers.len() {
            match self.done.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(done) => self.idle.push(done),
                Err(_) => return tracing::warn!("the kernel still keeps a device that is to be deleted"),
            }
        }
    }
}

fn carry_out<H: Host>(host: &mut H, work: Work<H>) {
    match work {
        Work::Delete(batch) => delete(host, &batch),
        Work::Undo(execution, answer) => {
            let undone = execution.unwind(host);
            let _ = failpoints::step(("report", "undone"), || answer.send(undone));
        }
    }
}

fn delete<H: Host>(host: &mut H, batch: &Batch) {
    if lock(batch).len() > 1 {
        let gone = delete_together(host, batch).unwrap_or_default();
        // What was taken back meanwhile is answered by the worker that has it now.
        let (gone, left) = lock(batch).drain(..).partition::<Vec<_>, _>(|one| gone.contains(&one.port.id));
        lock(batch).extend(left);
        gone.into_iter().for_each(|one| respond(one.answer, Ok(Removed::Gone)));
    }
    loop {
        let Some(one) = lock(batch).pop_front() else { return };
        let removed = delete_single(host, &one.port, one.store);
        respond(one.answer, removed);
    }
}

/// Deletes what of the batch can go in one group, and says whose devices are gone. None when that failed: what is still there
/// is then deleted singly.
fn delete_together<H: Host>(host: &mut H, batch: &Batch) -> Option<BTreeSet<PortId>> {
    let (ports, store) = {
        let batch = lock(batch);
        (batch.iter().map(|one| one.port.clone()).collect::<Vec<AbsentPort>>(), batch.front()?.store)
    };
    let mut links = Vec::new();
    for port in &ports {
        links.extend(host.get_link(LinkSelector::Altname(&names::port_altname(port.id))).ok()?);
    }
    let mut have = Observed::from(links).seen_by(store);
    if ports.iter().any(|port| have.device(port.id).is_none()) {
        // One may have lost its altname.
        have = host.dump_links().map_or(have, |links| Observed::from(links).seen_by(store));
    }
    // What is not found, and what is kept, is looked at again singly.
    let found = |port: &AbsentPort| port.device(&have).filter(|link| !port.is_kept(link)).map(|link| (port.id, link.index));
    let indexes: Vec<(PortId, u32)> = ports.iter().filter_map(found).collect();
    if indexes.len() < 2 {
        return None;
    }
    let ports: Vec<AbsentPort> = ports.into_iter().filter(|port| found(port).is_some()).collect();
    let plan = merge_deletions(removal(Reason::Detach, &ports, &[], &have), &ports);
    let mut execution = Execution::new(plan);
    // A device that was taken back may be another one by now.
    execution.run_while(host, |_| !lock(batch).is_empty()).ok()?;
    if !execution.is_done() {
        return None;
    }
    // The kernel's word about each: one may have been moved out of the group in between.
    let mut gone = BTreeSet::new();
    for (port, index) in indexes {
        if host.get_link(LinkSelector::Index(index)).ok()?.is_none() {
            gone.insert(port);
        }
    }
    Some(gone)
}

/// Deletes one device, or cuts one that is kept, also when another program changes its altname or alias meanwhile.
fn delete_single<H: Host>(host: &mut H, port: &AbsentPort, store: Uuid) -> Result<Removed, OpError> {
    let altname = names::port_altname(port.id);
    for _ in 0..TRIES {
        let looked = host.get_link(LinkSelector::Altname(&altname))?;
        let mut have = Observed::from(Vec::from_iter(looked)).seen_by(store);
        if have.device(port.id).is_none() {
            have = Observed::from(host.dump_links()?).seen_by(store);
        }
        let Some(link) = port.device(&have) else { return not_found(port, &have) };
        let ports = std::slice::from_ref(port);
        let plan = merge_deletions(removal(Reason::Detach, ports, &[], &have), ports);
        match Execution::new(plan).run(host) {
            // It lost its altname since the look.
            Err(error) if error.kind == OpErrorKind::Gone => continue,
            done => done?,
        }
        if port.is_kept(link) {
            return Ok(Removed::Kept);
        }
        // The deletion says the same of a link that is gone and of one that has just lost its altname.
        if host.get_link(LinkSelector::Index(link.index))?.is_none() {
            return Ok(Removed::Gone);
        }
    }
    Err(unmarked(port, format!("another program keeps taking off its altname {altname}")))
}

/// A device of which a complete dump shows neither the altname nor the alias is gone, unless its index is still a device's.
fn not_found(port: &AbsentPort, have: &Observed) -> Result<Removed, OpError> {
    let disowned = |link: &&LinkState| link.kind.is_device();
    match port.seen.and_then(|index| have.link(index)).filter(disowned) {
        None => Ok(Removed::Gone),
        Some(LinkState { name, index, .. }) => {
            let altname = names::port_altname(port.id);
            let said = format!(
                "{name} (index {index}) has not the altname {altname} any more and is marked as another's, and is not touched; if \
                 it is this port's, ip link del {name}"
            );
            Err(unmarked(port, said))
        }
    }
}

fn unmarked(port: &AbsentPort, said: String) -> OpError {
    OpError { kind: OpErrorKind::Unmarked, doing: format!("delete the device of port {}", port.id), said }
}

fn lock(batch: &Batch) -> MutexGuard<'_, VecDeque<PendingDelete>> {
    // Each use leaves a queue of whole entries.
    batch.lock().unwrap_or_else(PoisonError::into_inner)
}

fn respond(answer: oneshot::Sender<Result<Removed, OpError>>, removed: Result<Removed, OpError>) {
    let _ = failpoints::step(("report", "deleted"), || answer.send(removed));
}

fn gather<H: Host>(queue: &Queue<Job<H>>, taken: &mut VecDeque<Job<H>>) {
    let until = Instant::now() + GATHER;
    while Instant::now() < until && taken.len() < GROUP_SIZE {
        queue.take_until(until, taken);
    }
}
