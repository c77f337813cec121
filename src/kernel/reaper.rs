//! The second thread: it has devices deleted in groups, and undone what failed.
//!
//! ```text
//!  manager, worker ── ToReap ─► reaper ── Batch ─► a hand, with a socket of its own
//!                                  ▲ ── done ────────┘
//! ```
//!
//! The work is done by hands, one at a time. One that the kernel keeps for long is left alone: what it has not begun is
//! taken back from it, each for itself, and another hand goes on, so that a device the kernel does not let go holds no other.
//!
//! A delete costs one RCU barrier (16 ms) however many links it carries, so devices that wait together go together:
//! each batch draws a fresh random group, moves its devices there by altname, and deletes the group only when a dump shows
//! that it holds nothing else: a complete one, or, where attaches and detaches interrupt every dump, several together. No
//! link is in such a group by accident (one in four billion). On any doubt they are deleted singly.

use std::collections::{BTreeSet, VecDeque};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::exec::Execution;
use crate::inbox::Inbox;
use crate::model::{PortId, names};
use crate::plan::Op;
use crate::points;
use crate::threads;

use super::worker::{Cause, Outcome};
use super::{Host, OpError, Trouble, Who};

/// The most messages that may wait beside answers.
const LIMIT: usize = 65_536;

/// How long a first delete waits for company, in milliseconds: a fraction of the barrier it may share.
const GATHER: Duration = Duration::from_millis(2);

/// The most devices in one batch. A group delete holds RTNL for 0.4 ms a link, and attaches wait meanwhile.
const BATCH: usize = 64;

/// How many hands there are: so many devices, less one, may keep theirs for ever before the rest waits.
pub const HANDS: usize = 64;

/// How long a hand may be kept before another one goes on: far longer than any batch takes.
const KEPT: Duration = Duration::from_secs(1);

/// How long the thread waits at its end for hands that are still kept.
const LAST: Duration = Duration::from_secs(2);

/// The same while attaches come in: 16 links delay one by 7 ms.
const BATCH_AMONG_ATTACHES: usize = 16;

/// What the reaper is given.
pub enum ToReap<H: Host> {
    /// A device to delete.
    Device {
        /// Whose.
        port: PortId,
        /// Told when the kernel has taken it.
        answer: oneshot::Sender<Result<(), OpError>>,
    },
    /// An execution to take back.
    Unwind {
        /// What was begun.
        execution: Execution<H>,
        /// Why it ends.
        cause: Cause,
        /// Told when it has been taken back.
        answer: oneshot::Sender<Outcome>,
    },
}

impl<H: Host> std::fmt::Debug for ToReap<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Device { port, .. } => f.debug_struct("Device").field("port", port).finish_non_exhaustive(),
            Self::Unwind { execution, cause, .. } => {
                f.debug_struct("Unwind").field("execution", execution).field("cause", cause).finish_non_exhaustive()
            }
        }
    }
}

/// The way into the reaper, before its thread runs.
pub fn inbox<H: Host>() -> Inbox<ToReap<H>> {
    Inbox::new(LIMIT)
}

/// An access for the first hand, and what gives one for each further.
pub type Hosts<H> = (H, Box<dyn FnMut() -> Option<H> + Send>);

/// Starts the thread. `attaches_come` says whether an attach has come since it was last asked.
///
/// # Errors
/// No thread can be had.
pub fn start<H: Host>(
    hosts: Hosts<H>,
    inbox: Inbox<ToReap<H>>,
    attaches_come: impl FnMut() -> bool + Send + 'static,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    let reap = move || Reaper { crew: Crew::new(hosts), doomed: VecDeque::new(), attaches_come }.run(&inbox);
    threads::start_in_kernel("nicd-reaper", reap)
}

/// A device that waits for its deletion.
struct Doomed {
    port: PortId,
    /// It was taken back from a hand that was kept: it goes for itself.
    alone: bool,
    answer: oneshot::Sender<Result<(), OpError>>,
}

/// Devices a hand is to delete. Each stays in it until it is begun singly, or all are gone; what is in it can be taken back.
type Batch = Arc<Mutex<VecDeque<Doomed>>>;

enum Work<H: Host> {
    Delete(Batch),
    Unwind(Execution<H>, Cause, oneshot::Sender<Outcome>),
}

struct Reaper<H: Host, F> {
    crew: Crew<H>,
    doomed: VecDeque<Doomed>,
    attaches_come: F,
}

impl<H: Host, F: FnMut() -> bool> Reaper<H, F> {
    fn run(mut self, inbox: &Inbox<ToReap<H>>) {
        let mut taken = VecDeque::new();
        loop {
            if self.doomed.is_empty() {
                if !inbox.take(&mut taken) {
                    break;
                }
                if taken.iter().any(|message| matches!(message, ToReap::Device { .. })) {
                    gather(inbox, &mut taken);
                }
            } else {
                inbox.take_now(&mut taken);
            }
            for message in taken.drain(..) {
                match message {
                    ToReap::Device { port, answer } => self.doomed.push_back(Doomed { port, alone: false, answer }),
                    ToReap::Unwind { execution, cause, answer } => _ = self.crew.hand_out(Work::Unwind(execution, cause, answer)),
                }
                inbox.hold(self.doomed.len());
            }
            self.reap();
            inbox.hold(self.doomed.len());
        }
        self.crew.rest();
    }

    /// Has the next batch deleted, and goes on when that takes too long.
    fn reap(&mut self) {
        let most = if (self.attaches_come)() { BATCH_AMONG_ATTACHES } else { BATCH };
        let together = self.doomed.iter().take(most).take_while(|doomed| !doomed.alone).count();
        let batch: VecDeque<Doomed> = self.doomed.drain(..together.max(1).min(self.doomed.len())).collect();
        if batch.is_empty() {
            return;
        }
        let batch: Batch = Arc::new(Mutex::new(batch));
        if self.crew.hand_out(Work::Delete(Arc::clone(&batch))) {
            return;
        }
        let back = lock(&batch).drain(..).map(|doomed| Doomed { alone: true, ..doomed }).collect::<Vec<_>>();
        self.doomed.extend(back);
    }
}

/// The hands, started when they are needed.
struct Crew<H: Host> {
    spare: Option<H>,
    more: Box<dyn FnMut() -> Option<H> + Send>,
    hands: Vec<Sender<Work<H>>>,
    idle: Vec<usize>,
    done: Receiver<usize>,
    tell: Sender<usize>,
}

impl<H: Host> Crew<H> {
    fn new((spare, more): Hosts<H>) -> Self {
        let (tell, done) = channel();
        Self { spare: Some(spare), more, hands: Vec::new(), idle: Vec::new(), done, tell }
    }

    /// Gives work to a hand and waits for its end; false when the hand is kept for long.
    fn hand_out(&mut self, work: Work<H>) -> bool {
        let Some(hand) = self.free_hand() else { return true };
        if self.hands[hand].send(work).is_err() {
            return true;
        }
        let until = Instant::now() + KEPT;
        loop {
            match self.done.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(done) => {
                    self.idle.push(done);
                    if done == hand {
                        return true;
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    /// A hand that has nothing to do, waited for when there are no more; none when none can be had.
    fn free_hand(&mut self) -> Option<usize> {
        self.idle.extend(self.done.try_iter());
        if let Some(hand) = self.idle.pop() {
            return Some(hand);
        }
        let another = self.spare.take().or_else(|| (self.hands.len() < HANDS).then(|| (self.more)())?);
        match another {
            Some(host) => self.start(host),
            None if self.hands.is_empty() => None,
            None => self.done.recv().ok(),
        }
    }

    fn start(&mut self, mut host: H) -> Option<usize> {
        let (give, given) = channel::<Work<H>>();
        let (hand, tell) = (self.hands.len(), self.tell.clone());
        let work = move || {
            for work in given {
                carry_out(&mut host, work);
                if tell.send(hand).is_err() {
                    return;
                }
            }
        };
        if let Err(error) = threads::start_in_kernel(&format!("nicd-reaper-{hand}"), work) {
            tracing::error!(%error, "no thread can be had to delete devices with");
            return None;
        }
        self.hands.push(give);
        Some(hand)
    }

    /// Waits for all hands that end their work soon.
    fn rest(mut self) {
        let until = Instant::now() + LAST;
        while self.idle.len() < self.hands.len() {
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
        Work::Unwind(execution, cause, answer) => {
            let undone = execution.unwind(host);
            let _ = points::moment(("report", "undone"), || answer.send(Outcome::Failed { cause, undone }));
        }
    }
}

fn delete<H: Host>(host: &mut H, batch: &Batch) {
    if lock(batch).len() > 1 && delete_together(host, batch).is_some() {
        // What was taken back meanwhile is answered by who has it now.
        for doomed in lock(batch).drain(..) {
            tell(doomed.answer, Ok(()));
        }
    }
    loop {
        let Some(doomed) = lock(batch).pop_front() else { return };
        let mut held = H::Held::default();
        tell(doomed.answer, host.apply(&Op::DeleteLink { port: doomed.port }, &mut held).map(|_| ()));
    }
}

/// Deletes the whole batch by group; none on any doubt, and then every device is still there or gone as asked.
fn delete_together<H: Host>(host: &mut H, batch: &Batch) -> Option<()> {
    let mut held = H::Held::default();
    let group = rand::random_range(1..=u32::MAX);
    let ports: Vec<PortId> = lock(batch).iter().map(|doomed| doomed.port).collect();
    for port in &ports {
        // Only what some nicd made is changed; what is not there, or is another's, is as asked.
        match host.look(Who::Altname(&names::port_altname(*port))) {
            Ok(Some(link)) if link.made_by_nicd() => {}
            Ok(_) => continue,
            Err(_) => return None,
        }
        // One by one, so that RTNL is free in between; what is already gone is as asked.
        for op in [Op::Unbind { port: *port }, Op::SetGroup { port: *port, group }] {
            // One that was taken back may be another device by now.
            if lock(batch).is_empty() {
                return None;
            }
            match host.apply(&op, &mut held) {
                Err(error) if error.trouble != Trouble::Gone => return None,
                _ => {}
            }
        }
    }
    let ours: BTreeSet<String> = ports.iter().map(|port| names::port_altname(*port)).collect();
    let members = host.in_group(group).ok()?;
    let stranger = members.iter().any(|link| !link.altnames.iter().any(|name| ours.contains(name)));
    if stranger || lock(batch).is_empty() {
        return None;
    }
    host.apply(&Op::DeleteGroup { group }, &mut held).ok().map(|_| ())
}

fn lock(batch: &Batch) -> MutexGuard<'_, VecDeque<Doomed>> {
    // Each use leaves a queue of whole entries.
    batch.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tell(answer: oneshot::Sender<Result<(), OpError>>, deleted: Result<(), OpError>) {
    let _ = points::moment(("report", "deleted"), || answer.send(deleted));
}

fn gather<H: Host>(inbox: &Inbox<ToReap<H>>, taken: &mut VecDeque<ToReap<H>>) {
    let until = Instant::now() + GATHER;
    while Instant::now() < until && taken.len() < BATCH {
        inbox.take_until(until, taken);
    }
}
