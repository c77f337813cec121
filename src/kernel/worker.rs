//! A thread that carries plans out forwards, in the order in which they came.
//!
//! ```text
//!  manager ── Job ─────────► ┌────────┐ ── unwinding, deletes ──► reaper
//!  store ──── Durable(job) ► │ worker │
//!            ◄── flush! ──── └────────┘ ── Outcome ──► whoever waits
//! ```
//!
//! A job's volatile steps run while its intent is being made durable; the rest when it is. The worker asks for a flush
//! when it reaches a job whose intent is not durable yet, so that one flush serves all that have queued up by then. When it
//! has nothing else to do, it is asked for as the job is handed in.
//! More threads would be slower, as RTNL is one lock. There are two all the same: what enters guests' namespaces has one of
//! its own, as a path, or `nicd-netns`, can keep it waiting.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::exec::{Execution, Undone};
use crate::inbox::{Inbox, Refused};
use crate::model::{LinkName, names};
use crate::plan::{LinkSeen, Op, Plan};
use crate::points;
use crate::store::StoreError;
use crate::threads;

use super::reaper::ToReap;
use super::{Host, OpError, Who};

/// The most jobs that may wait. A client sees 503 beyond.
const LIMIT: usize = 4096;

/// How long to stay awake for an intent that is becoming durable: most flushes take less.
const SPIN: Duration = Duration::from_micros(300);

/// What became of a job.
#[derive(Debug)]
pub enum Outcome {
    /// Every step is done.
    Done(Done),
    /// A step or the store failed; what was begun has been undone.
    Failed {
        /// What failed.
        cause: Cause,
        /// Whether the undo was complete.
        undone: Undone,
    },
}

/// What a finished job shows.
#[derive(Debug, Default)]
pub struct Done {
    /// The links the plan touched, as they were seen afterwards.
    pub seen: Vec<LinkSeen>,
    /// When that look began.
    pub at: Option<Instant>,
    /// When the last step was done.
    pub ended: Option<Instant>,
    /// How long the steps took, without the wait for the intent.
    pub took: Duration,
    /// The NIC's name in its guest, when the job learnt it.
    pub guest_device: Option<LinkName>,
    /// The routes that the guest's kernel refused, when the job gave it routes.
    pub refused: Option<Vec<String>>,
}

/// Why a job failed.
#[derive(Debug)]
pub enum Cause {
    /// The kernel refused a step.
    Op(OpError),
    /// The intent could not be made durable.
    Store(StoreError),
    /// The daemon is stopping.
    Stopping,
}

/// A way to ask the store for a flush.
pub type Flush = Arc<dyn Fn() + Send + Sync>;

type Query<H> = Box<dyn FnOnce(&mut H) + Send>;

enum Message<H> {
    Job(Job),
    Durable(u64, Result<(), StoreError>),
    Query(Query<H>),
}

struct Job {
    id: u64,
    plan: Plan,
    durable: Durability,
    answer: oneshot::Sender<Outcome>,
}

/// Whether a job's intent is durable when the job is handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It is, or the plan needs none.
    Given,
    /// A commit is on its way and will be reported, after a flush that is still to be asked for.
    Awaited,
    /// The same, and the flush is asked for by whoever handed the job in.
    Asked,
}

/// The worker's front door.
pub struct Worker<H: Host> {
    inbox: Inbox<Message<H>>,
    next: Arc<AtomicU64>,
    flush: Flush,
}

impl<H: Host> Clone for Worker<H> {
    fn clone(&self) -> Self {
        Self { inbox: self.inbox.clone(), next: Arc::clone(&self.next), flush: Arc::clone(&self.flush) }
    }
}

impl<H: Host> std::fmt::Debug for Worker<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("waiting", &self.inbox.len()).finish()
    }
}

/// How the store tells the worker that a job's intent is durable, or why it is not.
pub type Report = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

impl<H: Host> Worker<H> {
    /// Starts the thread, which is called `name`.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn start(
        name: &str,
        host: H,
        reaper: Inbox<ToReap<H>>,
        flush: Flush,
    ) -> std::io::Result<(Self, std::thread::JoinHandle<()>)> {
        let worker = Self { inbox: Inbox::new(LIMIT), next: Arc::new(AtomicU64::new(1)), flush: Arc::clone(&flush) };
        let inbox = worker.inbox.clone();
        let thread = threads::start_in_kernel(name, move || {
            Loop { host, reaper, flush, waiting: HashMap::new(), early: HashMap::new(), failed: HashSet::new() }.run(&inbox)
        })?;
        Ok((worker, thread))
    }

    /// Hands in a plan that needs no further commit.
    ///
    /// # Errors
    /// Too many jobs wait, or the worker has ended.
    pub fn submit(&self, plan: Plan) -> Result<oneshot::Receiver<Outcome>, Refused> {
        let (answer, outcome) = oneshot::channel();
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.inbox.push(Message::Job(Job { id, plan, durable: Durability::Given, answer }))?;
        Ok(outcome)
    }

    /// Hands in a plan whose intent `commit` sends to the store; `commit` gets the way to report it durable.
    ///
    /// # Errors
    /// Too many jobs wait, and `commit` was not called; or the worker has ended.
    pub fn submit_with(&self, plan: Plan, commit: impl FnOnce(Report)) -> Result<oneshot::Receiver<Outcome>, Refused> {
        self.inbox.room()?;
        let (answer, outcome) = oneshot::channel();
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let inbox = self.inbox.clone();
        commit(Box::new(move |result| {
            // A closed inbox means that the worker has already answered every job with Stopping.
            let _ = inbox.push_answer(Message::Durable(id, result));
        }));
        // After the commit, so that the flush asked for when the job is reached finds it: one that came before it would
        // make nothing durable, and the job would wait for somebody else's.
        let idle = self.inbox.idle();
        let durable = if idle { Durability::Asked } else { Durability::Awaited };
        self.inbox.push_answer(Message::Job(Job { id, plan, durable, answer }))?;
        if idle {
            // Nobody is ahead whose flush this one could share: it need not wait until the worker has woken up. The worker is
            // woken first all the same, as the store may have the very processor that this runs on.
            (self.flush)();
        }
        Ok(outcome)
    }

    /// Asks the host something on the worker's thread.
    ///
    /// # Errors
    /// Too many jobs wait, or the worker has ended.
    pub fn ask<A: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut H) -> A + Send + 'static,
    ) -> Result<oneshot::Receiver<A>, Refused> {
        let (answer, answered) = oneshot::channel();
        self.inbox.push(Message::Query(Box::new(move |host| {
            let _ = answer.send(ask(host));
        })))?;
        Ok(answered)
    }

    /// How many messages wait for the thread.
    pub fn waiting(&self) -> usize {
        self.inbox.len()
    }

    /// Lets the thread end after the jobs that wait.
    pub fn close(&self) {
        self.inbox.close();
    }
}

/// A job between its volatile steps and the rest.
struct Waiting<H: Host> {
    execution: Execution<H>,
    answer: oneshot::Sender<Outcome>,
    /// The altnames of what is to be looked at once it is done.
    subjects: Vec<String>,
    /// What they look like and since when, where the rest does not change it.
    seen: Option<(Vec<LinkSeen>, Instant)>,
    /// The time it took so far.
    took: Duration,
}

struct Loop<H: Host> {
    host: H,
    reaper: Inbox<ToReap<H>>,
    flush: Flush,
    /// Jobs whose volatile steps are done and whose intent is not durable yet.
    waiting: HashMap<u64, Waiting<H>>,
    /// Intents that were durable before their job was reached.
    early: HashMap<u64, Result<(), StoreError>>,
    /// Jobs that failed before their commit was reported.
    failed: HashSet<u64>,
}

impl<H: Host> Loop<H> {
    fn run(mut self, inbox: &Inbox<Message<H>>) {
        let (mut taken, mut jobs) = (VecDeque::new(), VecDeque::new());
        loop {
            if jobs.is_empty() {
                if !self.waiting.is_empty() {
                    inbox.expect(SPIN);
                }
                if !inbox.take(&mut taken) {
                    break;
                }
            } else {
                inbox.take_now(&mut taken);
            }
            // Durable intents first: whoever can be finished is answered before the next is begun.
            for message in taken.drain(..) {
                match message {
                    Message::Durable(id, result) => self.durable(id, result),
                    other => jobs.push_back(other),
                }
            }
            let next = jobs.pop_front();
            inbox.hold(jobs.len());
            match next {
                Some(Message::Job(job)) => self.begin(job),
                Some(Message::Query(ask)) => ask(&mut self.host),
                Some(Message::Durable(..)) | None => {}
            }
        }
        for (_, Waiting { execution, answer, .. }) in self.waiting.drain() {
            let _ = self.reaper.push_answer(ToReap::Unwind { execution, cause: Cause::Stopping, answer });
        }
    }

    fn begin(&mut self, job: Job) {
        let began = Instant::now();
        let subjects = subjects(&job.plan);
        let mut execution = Execution::new(job.plan);
        let durable = match job.durable {
            Durability::Given => Some(Ok(())),
            Durability::Awaited | Durability::Asked => self.early.remove(&job.id),
        };
        if durable.is_none() && job.durable == Durability::Awaited {
            (self.flush)();
        }
        if let Err(error) = execution.run_volatile(&mut self.host) {
            // Its commit may still be on its way; whoever asked for it takes it back.
            if durable.is_none() {
                self.failed.insert(job.id);
            }
            self.fail(execution, Cause::Op(error), job.answer);
            return;
        }
        // Somebody waits for what comes behind the intent, and nobody for this.
        let seen = (durable.is_none() && execution.shows_its_end()).then(|| self.look(&subjects));
        let took = began.elapsed();
        self.waiting.insert(job.id, Waiting { execution, answer: job.answer, subjects, seen, took });
        if let Some(result) = durable {
            self.durable(job.id, result);
        }
    }

    fn look(&mut self, subjects: &[String]) -> (Vec<LinkSeen>, Instant) {
        let at = Instant::now();
        let look = |altname: &String| self.host.look(Who::Altname(altname)).ok().flatten();
        (subjects.iter().filter_map(look).collect(), at)
    }

    fn durable(&mut self, id: u64, result: Result<(), StoreError>) {
        let began = Instant::now();
        let Some(Waiting { mut execution, answer, subjects, seen, took }) = self.waiting.remove(&id) else {
            if !self.failed.remove(&id) {
                self.early.insert(id, result);
            }
            return;
        };
        if let Err(error) = result {
            return self.fail(execution, Cause::Store(error), answer);
        }
        if let Err(error) = execution.run(&mut self.host) {
            return self.fail(execution, Cause::Op(error), answer);
        }
        let ended = Instant::now();
        let (seen, at) = match seen {
            Some((mut links, at)) => {
                // All that has changed since.
                links.iter_mut().filter_map(|link| link.tap.as_mut()).for_each(|tap| tap.persist = true);
                (links, at)
            }
            None => self.look(&subjects),
        };
        let took = took + ended.duration_since(began);
        let done = Done {
            seen,
            at: Some(at),
            ended: Some(ended),
            took,
            guest_device: execution.guest_device().cloned(),
            refused: execution.refused().cloned(),
        };
        let _ = points::moment(("report", "built"), || answer.send(Outcome::Done(done)));
    }

    /// Undoing costs RCU barriers (16 ms each), so it is done where nobody waits for it.
    fn fail(&mut self, execution: Execution<H>, cause: Cause, answer: oneshot::Sender<Outcome>) {
        let _ = self.reaper.push_answer(ToReap::Unwind { execution, cause, answer });
    }
}

/// The altnames of what a plan makes or changes, each once.
fn subjects(plan: &Plan) -> Vec<String> {
    let mut subjects: Vec<String> = Vec::new();
    for step in &plan.steps {
        let subject = match &step.op {
            Op::CreateBridge { network, .. }
            | Op::CloseBridge { network }
            | Op::SetBridge { network, .. }
            | Op::MarkBridgeAgain { network, .. } => names::network_altname(*network),
            Op::CreateTap { port, .. }
            | Op::CreateVeth { port, .. }
            | Op::Configure { port, .. }
            | Op::MarkAgain { port, .. }
            | Op::SetLink { port, .. } => names::port_altname(*port),
            _ => continue,
        };
        if !subjects.contains(&subject) {
            subjects.push(subject);
        }
    }
    subjects
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::kernel::Kernel;
    use crate::kernel::fake::Fake;
    use crate::kernel::reaper;
    use crate::plan::Reason;

    #[test]
    fn what_the_worker_has_taken_and_not_begun_counts_as_waiting() {
        let flush: Flush = Arc::new(|| ());
        let (worker, thread) = Worker::start("worker", Fake::new().open().unwrap(), reaper::inbox(), flush).unwrap();
        let (begun, begins) = std::sync::mpsc::channel();
        let block = || {
            let (go, wait) = std::sync::mpsc::channel::<()>();
            let begun = begun.clone();
            let asked = worker.ask(move |_| {
                begun.send(()).unwrap();
                let _ = wait.recv();
            });
            (go, asked.unwrap())
        };
        let (first, _first) = block();
        begins.recv().unwrap();
        let (second, _second) = block();
        let waiting: Vec<_> = (1..LIMIT).map(|_| worker.ask(|_| ()).unwrap()).collect();
        assert_eq!((worker.waiting(), worker.ask(|_| ()).err()), (LIMIT, Some(Refused::Full)));
        // From here on all of them are the worker's, which does the second.
        first.send(()).unwrap();
        begins.recv().unwrap();
        assert_eq!(worker.waiting(), LIMIT - 1);
        assert!(worker.ask(|_| ()).is_ok());
        assert_eq!(worker.ask(|_| ()).err(), Some(Refused::Full), "the bound is for both together");
        second.send(()).unwrap();
        waiting.into_iter().for_each(|one| one.blocking_recv().unwrap());
        worker.close();
        thread.join().unwrap();
        assert_eq!(worker.waiting(), 0);
    }

    #[test]
    fn a_flush_is_asked_for_only_after_the_commit_was_handed_in() {
        let handed_in = Arc::new(AtomicBool::new(false));
        let (asked, at_flush) = std::sync::mpsc::channel();
        let seen = Arc::clone(&handed_in);
        let flush: Flush = Arc::new(move || asked.send(seen.load(Ordering::SeqCst)).unwrap());
        let (worker, thread) = Worker::start("worker", Fake::new().open().unwrap(), reaper::inbox(), flush).unwrap();
        let mut report = None;
        let outcome = worker.submit_with(Plan { reason: Reason::Attach, steps: Vec::new() }, |given| {
            // Whoever hands in may lose the processor here.
            std::thread::sleep(Duration::from_millis(20));
            handed_in.store(true, Ordering::SeqCst);
            report = Some(given);
        });
        assert_eq!(at_flush.recv_timeout(Duration::from_secs(5)), Ok(true));
        let report: Report = report.expect("it was called");
        report(Ok(()));
        assert!(matches!(outcome.unwrap().blocking_recv(), Ok(Outcome::Done(_))));
        worker.close();
        thread.join().unwrap();
    }
}
