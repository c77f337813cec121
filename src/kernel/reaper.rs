//! The second thread: it deletes devices in groups, and undoes what failed.
//!
//! A delete costs one RCU barrier (16 ms) however many links it carries, so devices that wait together go together:
//! each batch draws a fresh random group, moves its devices there by altname, and deletes the group only when a complete
//! dump shows that it holds nothing else. On any doubt they are deleted singly.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::exec::Execution;
use crate::inbox::Inbox;
use crate::model::{PortId, names};
use crate::plan::Op;
use crate::points;
use crate::threads;

use super::worker::{Cause, Outcome};
use super::{Host, OpError, Trouble};

/// The most messages that may wait beside answers.
const LIMIT: usize = 65_536;

/// How long a first delete waits for company, in milliseconds: a fraction of the barrier it may share.
const GATHER: Duration = Duration::from_millis(2);

/// The most devices in one batch. A group delete holds RTNL for 0.4 ms a link, and attaches wait meanwhile.
const BATCH: usize = 64;

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

/// Starts the thread. `attaches_come` says whether an attach has come since it was last asked.
///
/// # Errors
/// No thread can be had.
pub fn start<H: Host>(
    host: H,
    inbox: Inbox<ToReap<H>>,
    attaches_come: impl FnMut() -> bool + Send + 'static,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    threads::start("nicd-reaper", move || Loop { host, attaches_come }.run(&inbox))
}

type Doomed = (PortId, oneshot::Sender<Result<(), OpError>>);

struct Loop<H, F> {
    host: H,
    attaches_come: F,
}

impl<H: Host, F: FnMut() -> bool> Loop<H, F> {
    fn run(mut self, inbox: &Inbox<ToReap<H>>) {
        let (mut taken, mut doomed) = (VecDeque::new(), VecDeque::new());
        loop {
            if doomed.is_empty() {
                if !inbox.take(&mut taken) {
                    return;
                }
                if taken.iter().any(|message| matches!(message, ToReap::Device { .. })) {
                    gather(inbox, &mut taken);
                }
            } else {
                inbox.take_now(&mut taken);
            }
            for message in taken.drain(..) {
                match message {
                    ToReap::Device { port, answer } => doomed.push_back((port, answer)),
                    ToReap::Unwind { execution, cause, answer } => {
                        let undone = execution.unwind(&mut self.host);
                        let _ = points::moment(("report", "undone"), || answer.send(Outcome::Failed { cause, undone }));
                    }
                }
            }
            let most = if (self.attaches_come)() { BATCH_AMONG_ATTACHES } else { BATCH };
            let batch: Vec<Doomed> = doomed.drain(..doomed.len().min(most)).collect();
            self.reap(batch);
        }
    }

    fn reap(&mut self, batch: Vec<Doomed>) {
        if batch.len() > 1 && self.reap_together(&batch).is_some() {
            for (_, answer) in batch {
                tell(answer, Ok(()));
            }
            return;
        }
        for (port, answer) in batch {
            let mut held = H::Held::default();
            tell(answer, self.host.apply(&Op::DeleteLink { port }, &mut held).map(|_| ()));
        }
    }

    /// Deletes the whole batch by group; none on any doubt, and then every device is still there or gone as asked.
    fn reap_together(&mut self, batch: &[Doomed]) -> Option<()> {
        let mut held = H::Held::default();
        let group = rand::random_range(1..=u32::MAX);
        for (port, _) in batch {
            // One by one, so that RTNL is free in between; what is already gone is as asked.
            for op in [Op::Unbind { port: *port }, Op::SetGroup { port: *port, group }] {
                match self.host.apply(&op, &mut held) {
                    Err(error) if error.trouble != Trouble::Gone => return None,
                    _ => {}
                }
            }
        }
        let ours: BTreeSet<String> = batch.iter().map(|(port, _)| names::port_altname(*port)).collect();
        let members = self.host.observe().ok()?;
        let stranger = members.iter().any(|link| link.group == group && !link.altnames.iter().any(|name| ours.contains(name)));
        if stranger {
            return None;
        }
        self.host.apply(&Op::DeleteGroup { group }, &mut held).ok().map(|_| ())
    }
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
