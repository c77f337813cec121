//! The second thread: it has devices deleted in groups, and undone what failed.
//!
//! ```text
//!  manager, worker ── ToReap ─► reaper ── Batch ─► a pool worker, with a socket of its own
//!                                  ▲ ── done ────────┘
//! ```
//!
//! The work is done by the workers of a pool, one at a time. One that the kernel keeps for long is left alone: what it has not begun is
//! taken back from it, each for itself, and another worker goes on, so that a device the kernel does not let go holds no other.
//!
//! A delete costs one RCU barrier (16 ms) however many links it carries, so devices that wait together go together:
//! each batch draws a fresh random group, moves its devices there by altname, and deletes the group only when a dump shows
//! that it holds nothing else: a complete one, or, where attaches and detaches interrupt every dump, several together. No
//! link is in such a group by accident (one in four billion). On any doubt they are deleted singly.
//!
//! That a device is gone is concluded from the kernel's word about that very link, or from a complete dump in which no link
//! has its altname or its alias. One that lost its altname gets it back and is deleted by it; one that lost both is left, and
//! is not gone. A tap that a process holds open is taken out of its bridge and stays, unless it is to go all the same: its
//! holder would read errors from it without end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::exec::{Execution, Undone};
use crate::queue::Queue;
use uuid::Uuid;

use crate::failpoints;
use crate::model::{Mac, PortId, names};
use crate::plan::{Kind, LinkState, Observed, Op, Switch, Traces};
use crate::threads;

use super::{Host, LinkSelector, OpError, OpErrorKind};

/// The most messages that may wait beside answers.
const LIMIT: usize = 65_536;

/// How long a first delete waits for company, in milliseconds: a fraction of the barrier it may share.
const GATHER: Duration = Duration::from_millis(2);

/// The most devices in one batch. A group delete holds RTNL for 0.4 ms a link, and attaches wait meanwhile.
const BATCH: usize = 64;

/// How many workers there are: so many devices, less one, may keep theirs for ever before the rest waits.
pub const WORKERS: usize = 64;

/// How long a worker may be kept before another one goes on: far longer than any batch takes.
const STUCK_AFTER: Duration = Duration::from_secs(1);

/// How long the thread waits at its end for workers that are still kept.
const LAST: Duration = Duration::from_secs(2);

/// The same while attaches come in: 16 links delay one by 7 ms.
const BATCH_AMONG_ATTACHES: usize = 16;

/// How often a device is looked for anew that somebody takes the altname from, or puts it back.
const TRIES: usize = 8;

/// What the reaper is given.
pub enum ToReap<H: Host> {
    /// A device to delete.
    Device {
        /// Which.
        device: PendingDelete,
        /// Told when the kernel has taken it, or why it stays.
        answer: oneshot::Sender<Result<Reaped, OpError>>,
    },
    /// An execution to take back.
    Unwind {
        /// What was begun.
        execution: Execution<H>,
        /// Told when it has been taken back.
        answer: oneshot::Sender<Undone>,
    },
}

/// A device that is to be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingDelete {
    /// Whose it is, by which it has its altname.
    pub port: PortId,
    /// The alias by which it is known again without its altname.
    pub alias: Option<String>,
    /// Its guest's MAC, by which it is known again without its altname and its alias.
    pub mac: Option<Mac>,
    /// The index it was last seen with.
    pub index: Option<u32>,
    /// Whether it is to go also while a process holds it open.
    pub force: bool,
    /// The store of the nicd that made it.
    pub store: Uuid,
}

/// What became of a device that was to be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaped {
    /// It is gone.
    Gone,
    /// A process holds it open: it is down, in no bridge, and still there.
    Held,
}

impl<H: Host> std::fmt::Debug for ToReap<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Device { device, .. } => f.debug_struct("Device").field("device", device).finish_non_exhaustive(),
            Self::Unwind { execution, .. } => f.debug_struct("Unwind").field("execution", execution).finish_non_exhaustive(),
        }
    }
}

/// The way into the reaper, before its thread runs.
pub fn queue<H: Host>() -> Queue<ToReap<H>> {
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
    queue: Queue<ToReap<H>>,
    attaches_come: impl FnMut() -> bool + Send + 'static,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    let reap = move || Reaper { pool: WorkerPool::new(hosts), pending: VecDeque::new(), attaches_come }.run(&queue);
    threads::start("nicd-reaper", reap)
}

/// A device that waits for its deletion.
struct Waiting {
    device: PendingDelete,
    /// It was taken back from a worker that was kept: it goes for itself.
    alone: bool,
    answer: oneshot::Sender<Result<Reaped, OpError>>,
}

/// Devices a worker is to delete. Each stays in it until it is begun singly, or all are gone; what is in it can be taken back.
type Batch = Arc<Mutex<VecDeque<Waiting>>>;

enum Work<H: Host> {
    Delete(Batch),
    Unwind(Execution<H>, oneshot::Sender<Undone>),
}

struct Reaper<H: Host, F> {
    pool: WorkerPool<H>,
    pending: VecDeque<Waiting>,
    attaches_come: F,
}

impl<H: Host, F: FnMut() -> bool> Reaper<H, F> {
    fn run(mut self, queue: &Queue<ToReap<H>>) {
        let mut taken = VecDeque::new();
        loop {
            if self.pending.is_empty() {
                if !queue.take(&mut taken) {
                    break;
                }
                if taken.iter().any(|message| matches!(message, ToReap::Device { .. })) {
                    gather(queue, &mut taken);
                }
            } else {
                queue.take_now(&mut taken);
            }
            for message in taken.drain(..) {
                match message {
                    ToReap::Device { device, answer } => self.pending.push_back(Waiting { device, alone: false, answer }),
                    ToReap::Unwind { execution, answer } => _ = self.pool.dispatch(Work::Unwind(execution, answer)),
                }
                queue.hold(self.pending.len());
            }
            self.reap();
            queue.hold(self.pending.len());
        }
        self.pool.rest();
    }

    /// Has the next batch deleted, and goes on when that takes too long.
    fn reap(&mut self) {
        let most = if (self.attaches_come)() { BATCH_AMONG_ATTACHES } else { BATCH };
        let together = self.pending.iter().take(most).take_while(|pending| !pending.alone).count();
        let batch: VecDeque<Waiting> = self.pending.drain(..together.max(1).min(self.pending.len())).collect();
        if batch.is_empty() {
            return;
        }
        let batch: Batch = Arc::new(Mutex::new(batch));
        if self.pool.dispatch(Work::Delete(Arc::clone(&batch))) {
            return;
        }
        let back = lock(&batch).drain(..).map(|pending| Waiting { alone: true, ..pending }).collect::<Vec<_>>();
        self.pending.extend(back);
    }
}

/// The workers of the pool, started when they are needed.
struct WorkerPool<H: Host> {
    spare: Option<H>,
    more: Box<dyn FnMut() -> Option<H> + Send>,
    workers: Vec<Sender<Work<H>>>,
    idle: Vec<usize>,
    done: Receiver<usize>,
    tell: Sender<usize>,
}

impl<H: Host> WorkerPool<H> {
    fn new((spare, more): Hosts<H>) -> Self {
        let (tell, done) = channel();
        Self { spare: Some(spare), more, workers: Vec::new(), idle: Vec::new(), done, tell }
    }

    /// Gives work to a worker and waits for its end; false when the worker is kept for long.
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
        let another = self.spare.take().or_else(|| (self.workers.len() < WORKERS).then(|| (self.more)())?);
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
    fn rest(mut self) {
        let until = Instant::now() + LAST;
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
        Work::Unwind(execution, answer) => {
            let undone = execution.unwind(host);
            let _ = failpoints::step(("report", "undone"), || answer.send(undone));
        }
    }
}

fn delete<H: Host>(host: &mut H, batch: &Batch) {
    if lock(batch).len() > 1 {
        let gone = delete_together(host, batch).unwrap_or_default();
        // What was taken back meanwhile is answered by who has it now.
        let (gone, rest) = lock(batch).drain(..).partition::<Vec<_>, _>(|one| gone.contains(&one.device.port));
        lock(batch).extend(rest);
        gone.into_iter().for_each(|one| tell(one.answer, Ok(Reaped::Gone)));
    }
    loop {
        let Some(one) = lock(batch).pop_front() else { return };
        let deleted = delete_alone(host, &one.device);
        tell(one.answer, deleted);
    }
}

/// Deletes what of the batch can go by group, and gives back whose devices are gone. None on any doubt: what is still there is
/// then to be deleted singly.
fn delete_together<H: Host>(host: &mut H, batch: &Batch) -> Option<BTreeSet<PortId>> {
    let mut held = H::ExecContext::default();
    let group = rand::random_range(1..=u32::MAX);
    let devices: Vec<PendingDelete> = lock(batch).iter().map(|one| one.device.clone()).collect();
    let mut members: BTreeMap<u32, PortId> = BTreeMap::new();
    for PendingDelete { port, force, store, .. } in devices {
        // What is not found, and what is held, is for the look at one alone.
        let Some(link) = host.get_link(LinkSelector::Altname(&names::port_altname(port))).ok()? else { continue };
        // Only what that nicd made is changed.
        if !link.is_of(store) || link.is_held() && !force {
            continue;
        }
        // One by one, so that RTNL is free in between.
        for op in [Op::Unbind { port }, Op::SetGroup { port, group }] {
            // One that was taken back may be another device by now.
            if lock(batch).is_empty() {
                return None;
            }
            host.apply(&op, &mut held).ok()?;
        }
        members.insert(link.index, port);
    }
    let links = host.links_in_group(group).ok()?;
    let known = |link: &LinkState| {
        let ours = |port: &PortId| link.altnames.contains(&names::port_altname(*port));
        members.get(&link.index).is_some_and(ours)
    };
    let spared = |link: &LinkState| link.is_held() && members.get(&link.index).is_some_and(|port| !is_forced(batch, port));
    if members.len() < 2 || lock(batch).is_empty() || !links.iter().all(known) || links.iter().any(spared) {
        return None;
    }
    host.apply(&Op::DeleteGroup { group }, &mut held).ok()?;
    // The kernel's word about each: one may have been moved out of the group in between.
    let mut gone = BTreeSet::new();
    for (index, port) in members {
        if host.get_link(LinkSelector::Index(index)).ok()?.is_none() {
            gone.insert(port);
        }
    }
    Some(gone)
}

fn is_forced(batch: &Batch, port: &PortId) -> bool {
    lock(batch).iter().any(|one| one.device.port == *port && one.device.force)
}

/// Deletes one device, whatever somebody does to its marks meanwhile.
fn delete_alone<H: Host>(host: &mut H, device: &PendingDelete) -> Result<Reaped, OpError> {
    let altname = names::port_altname(device.port);
    let mut held = H::ExecContext::default();
    for _ in 0..TRIES {
        // Another's link that has the altname is left, and is not this device.
        if let Some(link) = host.get_link(LinkSelector::Altname(&altname))?.filter(|link| link.is_of(device.store)) {
            if link.is_held() && !device.force {
                if spare(host, device.port, &link)? {
                    return Ok(Reaped::Held);
                }
                continue;
            }
            host.apply(&Op::DeleteLink { port: device.port, store: device.store }, &mut held)?;
            // The delete says the same of a link that is gone and of one that has just lost its altname.
            if host.get_link(LinkSelector::Index(link.index))?.is_none() {
                return Ok(Reaped::Gone);
            }
            continue;
        }
        let links = host.dump_links()?;
        if links.iter().any(|link| link.is_of(device.store) && link.altnames.contains(&altname)) {
            continue;
        }
        let seen = Observed::from(links);
        let lost = device.alias.as_deref().and_then(|alias| {
            let link = seen.lost_device(&Traces { alias, mac: device.mac, index: device.index })?;
            Some(Op::MarkAgain { port: device.port, index: link.index, alias: alias.to_owned() })
        });
        if let Some(again) = lost {
            match host.apply(&again, &mut held) {
                Err(error) if error.kind != OpErrorKind::Gone => return Err(error),
                _ => continue,
            }
        }
        let disowned = |link: &&LinkState| Some(link.index) == device.index && matches!(link.kind, Kind::Tap | Kind::Veth);
        return match seen.iter().find(disowned) {
            None => Ok(Reaped::Gone),
            Some(link) => {
                let said = format!(
                    "{} (index {}) has not the altname {altname} any more and is marked as another's, and is not touched; if it is \
                     this port's, ip link del {}",
                    link.name, link.index, link.name
                );
                Err(unmarked(device, said))
            }
        };
    }
    Err(unmarked(device, format!("somebody keeps taking off its altname {altname}")))
}

/// Cuts a device that a process holds open; false when it was another one by then.
fn spare<H: Host>(host: &mut H, port: PortId, link: &LinkState) -> Result<bool, OpError> {
    let mut held = H::ExecContext::default();
    let down = link.up.then_some(Op::SetLink { port, switch: Switch::Down });
    let out = link.master.map(|_| Op::Unbind { port });
    for op in down.into_iter().chain(out) {
        match host.apply(&op, &mut held) {
            Err(error) if error.kind == OpErrorKind::Gone => return Ok(false),
            done => done.map(drop)?,
        }
    }
    Ok(true)
}

fn unmarked(device: &PendingDelete, said: String) -> OpError {
    OpError { kind: OpErrorKind::Unmarked, doing: format!("delete the device of port {}", device.port), said }
}

fn lock(batch: &Batch) -> MutexGuard<'_, VecDeque<Waiting>> {
    // Each use leaves a queue of whole entries.
    batch.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tell(answer: oneshot::Sender<Result<Reaped, OpError>>, deleted: Result<Reaped, OpError>) {
    let _ = failpoints::step(("report", "deleted"), || answer.send(deleted));
}

fn gather<H: Host>(queue: &Queue<ToReap<H>>, taken: &mut VecDeque<ToReap<H>>) {
    let until = Instant::now() + GATHER;
    while Instant::now() < until && taken.len() < BATCH {
        queue.take_until(until, taken);
    }
}
