//! A thread that executes plans in the order of their arrival.
//!
//! ```text
//!             plan                      ┌────────┐ ── Ok(Done) | Err(Failed) ──► service
//!  service ── plan, intent durable? ──► │ worker │
//!                                       └────────┘ ── unwinding ──► reaper
//! ```
//!
//! A plan may begin while its intent is being committed: the worker runs the steps that end with the process, and reads the
//! device. After the commit it runs the remaining steps; if the commit fails, the plan is undone. Meanwhile the worker runs
//! other plans. It polls the commit's future itself, so that the store's thread wakes it directly. More workers would be slower,
//! because the kernel serializes them by RTNL. Work in guests' namespaces has a second worker, because a namespace path or
//! `nicd-netns` may block.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::exec::{Execution, StepTime, Timing, Undone};
use crate::failpoints;
use crate::model::names::SegmentKind;
use crate::model::{LinkName, names};
use crate::plan::{LinkState, Op, Plan};
use crate::queue::{Queue, QueueError};
use crate::threads;

use super::handle::Answer;
use super::reaper::Job;
use super::{Host, LinkSelector, OpError};

/// How many plans and queries may wait. Further requests get 503.
const LIMIT: usize = 4096;

/// The result of a finished plan.
#[derive(Debug, Default)]
pub struct Done {
    /// The state of the links that the plan changed, read afterwards.
    pub seen: Vec<LinkState>,
    /// When this read began.
    pub at: Option<Instant>,
    /// When the last step was done.
    pub ended: Option<Instant>,
    /// How long the steps took, without the wait for the intent.
    pub took: Duration,
    /// The NIC's name in its guest, if the plan configured the guest.
    pub guest_device: Option<LinkName>,
    /// The routes that the guest's kernel refused, when the plan gave it routes.
    pub refused: Option<Vec<String>>,
    /// The times of its steps, where they were to be noted.
    pub steps: Vec<StepTime>,
}

/// A plan with a failed step. The steps before it are being undone.
#[derive(Debug)]
pub struct Failed {
    /// The error of the failed step.
    pub error: OpError,
    /// Resolves when the undo has ended.
    pub undone: Answer<Undone>,
}

/// The result of a plan that began while its intent was being committed.
#[derive(Debug)]
pub enum Outcome {
    /// All steps are done.
    Done(Done),
    /// A step failed.
    Failed(Failed),
    /// The commit failed, and the steps are being undone.
    NotDurable(Answer<Undone>),
}

/// Resolves to true when a plan's intent is durable, and to false when the commit failed.
pub type Durable = Pin<Box<dyn Future<Output = bool> + Send>>;

type Query<H> = Box<dyn FnOnce(&mut H) + Send>;

enum Message<H> {
    Run(Plan, oneshot::Sender<Result<Done, Failed>>),
    RunBeside(Plan, Timing, Durable, oneshot::Sender<Outcome>),
    /// Poll the commit of the plan with this number.
    Poll(u64),
    Query(Query<H>),
}

/// A handle of the worker.
pub struct Worker<H: Host> {
    queue: Queue<Message<H>>,
}

impl<H: Host> std::fmt::Debug for Worker<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("waiting", &self.queue.len()).finish()
    }
}

impl<H: Host> Worker<H> {
    /// Starts the thread, which is called `name`.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(name: &str, host: H, reaper: Queue<Job<H>>) -> std::io::Result<(Self, std::thread::JoinHandle<()>)> {
        let worker = Self { queue: Queue::new(LIMIT) };
        let queue = worker.queue.clone();
        let work = Loop { host, reaper, begun: HashMap::new(), next: 0 };
        let thread = threads::start(name, move || work.run(&queue))?;
        Ok((worker, thread))
    }

    /// Executes a plan whose intent is durable, or that needs none.
    ///
    /// # Errors
    /// The queue is full, or the worker has ended.
    pub fn run(&self, plan: Plan) -> Result<Answer<Result<Done, Failed>>, QueueError> {
        let (answer, answered) = oneshot::channel();
        self.queue.push(Message::Run(plan, answer))?;
        Ok(answered)
    }

    /// Executes a plan while its intent is being committed: steps that end with the process run at once, the others after the commit.
    /// The answer comes after `durable` has resolved, also if a step fails before.
    ///
    /// # Errors
    /// As for `run`.
    pub fn run_beside(&self, plan: Plan, timing: Timing, durable: Durable) -> Result<Answer<Outcome>, QueueError> {
        let (answer, answered) = oneshot::channel();
        self.queue.push(Message::RunBeside(plan, timing, durable, answer))?;
        Ok(answered)
    }

    /// Runs a query on the worker's thread.
    ///
    /// # Errors
    /// As for `run`.
    pub fn ask<A: Send + 'static>(&self, ask: impl FnOnce(&mut H) -> A + Send + 'static) -> Result<Answer<A>, QueueError> {
        let (answer, answered) = oneshot::channel();
        self.queue.push(Message::Query(Box::new(move |host| {
            let _ = answer.send(ask(host));
        })))?;
        Ok(answered)
    }

    /// How many messages wait for the thread.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Ends the thread after the waiting messages.
    pub fn close(&self) {
        self.queue.close();
    }
}

/// A plan in execution.
struct Running<H: Host> {
    execution: Execution<H>,
    /// The altnames of the links to read after the plan.
    subjects: Vec<String>,
    /// The state of these links and when it was read, if the remaining steps do not change it.
    seen: Option<(Vec<LinkState>, Instant)>,
    /// The duration of its steps so far.
    took: Duration,
}

/// A plan whose intent is not durable yet.
struct Begun<H: Host> {
    /// The remaining execution, or the error.
    prepared: Result<Running<H>, Failed>,
    durable: Durable,
    answer: oneshot::Sender<Outcome>,
}

/// Wakes the worker to poll a commit again.
struct Again<H> {
    queue: Queue<Message<H>>,
    id: u64,
}

impl<H: Send> Wake for Again<H> {
    fn wake(self: Arc<Self>) {
        // If the worker has ended, there is no commit to poll.
        let _ = self.queue.push_answer(Message::Poll(self.id));
    }
}

struct Loop<H: Host> {
    host: H,
    reaper: Queue<Job<H>>,
    /// The plans that wait for their commit, by number.
    begun: HashMap<u64, Begun<H>>,
    next: u64,
}

impl<H: Host> Loop<H> {
    fn run(mut self, queue: &Queue<Message<H>>) {
        let (mut taken, mut later) = (VecDeque::new(), VecDeque::new());
        loop {
            if later.is_empty() {
                if !queue.take(&mut taken) {
                    break;
                }
            } else {
                queue.take_now(&mut taken);
            }
            // Prepared plans are finished before the next plan begins.
            for message in taken.drain(..) {
                match message {
                    Message::Poll(id) => self.poll(id, queue),
                    other => later.push_back(other),
                }
            }
            let next = later.pop_front();
            queue.hold(later.len());
            match next {
                Some(Message::Run(plan, answer)) => {
                    let ran = self.carry_out(Running::new(plan, Timing::Off));
                    let _ = failpoints::step(("report", "built"), || answer.send(ran).is_ok());
                }
                Some(Message::RunBeside(plan, timing, durable, answer)) => {
                    let prepared = self.prepare(Running::new(plan, timing));
                    self.next += 1;
                    self.begun.insert(self.next, Begun { prepared, durable, answer });
                    self.poll(self.next, queue);
                }
                Some(Message::Query(ask)) => ask(&mut self.host),
                Some(Message::Poll(_)) | None => {}
            }
        }
    }

    /// Goes on with a plan whose intent is durable by now, or undoes one whose intent will not be.
    fn poll(&mut self, id: u64, queue: &Queue<Message<H>>) {
        let Some(begun) = self.begun.get_mut(&id) else { return };
        let waker = Waker::from(Arc::new(Again { queue: queue.clone(), id }));
        let Poll::Ready(durable) = begun.durable.as_mut().poll(&mut Context::from_waker(&waker)) else { return };
        let Some(Begun { prepared, answer, .. }) = self.begun.remove(&id) else { return };
        let outcome = match (prepared, durable) {
            (Err(failed), _) => Outcome::Failed(failed),
            (Ok(running), true) => self.carry_out(running).map_or_else(Outcome::Failed, Outcome::Done),
            (Ok(running), false) => Outcome::NotDurable(self.unwind(running.execution)),
        };
        let _ = failpoints::step(("report", "built"), || answer.send(outcome).is_ok());
    }

    fn prepare(&mut self, mut running: Running<H>) -> Result<Running<H>, Failed> {
        let began = Instant::now();
        if let Err(error) = running.execution.run_volatile(&mut self.host) {
            return Err(Failed { error, undone: self.unwind(running.execution) });
        }
        running.seen = running.execution.shows_its_end().then(|| self.look(&running.subjects));
        running.took = began.elapsed();
        Ok(running)
    }

    fn carry_out(&mut self, mut running: Running<H>) -> Result<Done, Failed> {
        let began = Instant::now();
        if let Err(error) = running.execution.run(&mut self.host) {
            return Err(Failed { error, undone: self.unwind(running.execution) });
        }
        let ended = Instant::now();
        let (seen, at) = match running.seen {
            Some((mut links, at)) => {
                // All that has changed since.
                links.iter_mut().filter_map(|link| link.tap.as_mut()).for_each(|tap| tap.persist = true);
                (links, at)
            }
            None => self.look(&running.subjects),
        };
        Ok(Done {
            seen,
            at: Some(at),
            ended: Some(ended),
            took: running.took + ended.duration_since(began),
            guest_device: running.execution.guest_device().cloned(),
            refused: running.execution.refused().cloned(),
            steps: running.execution.times().to_vec(),
        })
    }

    /// Leaves the undo to the reaper thread, because it costs RCU barriers (16 ms each).
    fn unwind(&mut self, execution: Execution<H>) -> Answer<Undone> {
        let (answer, undone) = oneshot::channel();
        let _ = self.reaper.push_answer(Job::Undo { execution, answer });
        undone
    }

    fn look(&mut self, subjects: &[String]) -> (Vec<LinkState>, Instant) {
        let at = Instant::now();
        let look = |altname: &String| self.host.get_link(LinkSelector::Altname(altname)).ok().flatten();
        (subjects.iter().filter_map(look).collect(), at)
    }
}

impl<H: Host> Running<H> {
    fn new(plan: Plan, timing: Timing) -> Self {
        if tracing::enabled!(tracing::Level::DEBUG) {
            let steps: Vec<&str> = plan.steps.iter().map(|step| step.op.name()).collect();
            let port = plan.steps.iter().find_map(|step| step.op.port()).map(tracing::field::display);
            tracing::debug!(port, reason = plan.reason.as_str(), steps = steps.join(" "), "plan");
        }
        Self { subjects: subjects(&plan), execution: Execution::new(plan).timed(timing), seen: None, took: Duration::ZERO }
    }
}

/// The altnames of the links that a plan creates or changes, each once.
fn subjects(plan: &Plan) -> Vec<String> {
    let mut subjects: Vec<String> = Vec::new();
    for step in &plan.steps {
        let subject = match &step.op {
            Op::CreateBridge { network, .. }
            | Op::CloseBridge { network }
            | Op::SetBridge { network, .. }
            | Op::RestoreBridgeAltname { network, .. } => names::network_altname(*network),
            Op::CreateVlan { network, .. } => names::segment_altname(SegmentKind::Vlan, *network),
            Op::CreateVxlan { network, .. } => names::segment_altname(SegmentKind::Vxlan, *network),
            Op::SetSegment { network, kind, .. } | Op::RestoreSegmentAltname { network, kind, .. } => {
                names::segment_altname(*kind, *network)
            }
            Op::CreateTap { port, .. }
            | Op::CreateVeth { port, .. }
            | Op::Configure { port, .. }
            | Op::RestoreAltname { port, .. }
            | Op::SetFilter { port, .. }
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
    use super::*;
    use crate::kernel::Kernel;
    use crate::kernel::fake::Fake;
    use crate::kernel::reaper;

    #[test]
    fn what_the_worker_has_taken_and_not_begun_counts_as_waiting() {
        let (worker, thread) = Worker::start("worker", Fake::new().open().unwrap(), reaper::queue()).unwrap();
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
        assert_eq!((worker.waiting(), worker.ask(|_| ()).err()), (LIMIT, Some(QueueError::Full)));
        // From here on all of them are the worker's, which does the second.
        first.send(()).unwrap();
        begins.recv().unwrap();
        assert_eq!(worker.waiting(), LIMIT - 1);
        assert!(worker.ask(|_| ()).is_ok());
        assert_eq!(worker.ask(|_| ()).err(), Some(QueueError::Full), "the bound is for both together");
        second.send(()).unwrap();
        waiting.into_iter().for_each(|one| one.blocking_recv().unwrap());
        worker.close();
        thread.join().unwrap();
        assert_eq!(worker.waiting(), 0);
    }
}
