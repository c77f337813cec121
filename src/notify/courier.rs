//! Brings one recipient what its queue holds, until it is accepted.
//!
//! What is sent is durable before, so that a process that is killed knows at its next start what the recipient may have.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::events::{Event, EventKind, Reader};
use crate::model::PortId;
use crate::model::notice::{Fact, Notice};
use crate::service::{Finding, RecipientTrouble, Service};
use crate::store::{Change, Purpose};
use crate::telemetry::meters;

use super::failure::{Failure, FailureKind};
use super::nova::Outcomes;
use super::queue::{LIMIT, Outcome, Queue, Save, Sending};
use super::target::{Cause, Target};

/// How many notices one request has at most.
const BATCH: usize = 100;

/// The shortest time between two requests; what happens meanwhile goes together.
const INTERVAL: Duration = Duration::from_millis(200);

/// How long a change may not be durable while nothing can be sent.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// How many notices one transaction writes.
const TRANSACTION: usize = 200;

/// The first and the longest wait after failures.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(60));

/// How long one notice is sent again that the recipient does not accept and does not refuse either.
const GIVE_UP: Duration = Duration::from_secs(600);

const REMEDY_UNREACHABLE: &str = "mend what is named, or the address in the configuration; nicd.service reaches other hosts only when a \
     drop-in has IPAddressAllow= for them; nicd tries again by itself, and tells the last state of each port then";

/// How many ports are looked at in one go.
const LOOKS: usize = 256;

/// The end of an attempt: the target, and what became of the batch.
type Ended<T> = (T, Result<Outcomes, Failure>);

/// An attempt, and what it sends.
type UnderWay<T> = (JoinHandle<Ended<T>>, Vec<Sending<<T as Target>::Fact>>);

/// See the module.
#[derive(Debug)]
pub struct Courier<T: Target> {
    service: Arc<Service>,
    queue: Queue<T::Fact>,
    reader: Reader,
    settings: T::Settings,
    /// The target while nothing is under way.
    target: Option<T>,
    under_way: Option<UnderWay<T>>,
    /// Attempts in a row that failed, and why the last one did.
    failures: u32,
    failure: Option<Failure>,
    /// Nothing is sent before.
    not_before: Instant,
    /// One after a request that was refused as a whole, to find out which part is meant.
    batch: usize,
    save_at: Option<Instant>,
    /// What health was told last.
    trouble: Option<RecipientTrouble>,
}

/// Tells one recipient whenever it is configured, until `stop` is cancelled.
pub async fn follow<T: Target>(
    service: Arc<Service>,
    stored: Vec<Notice<T::Fact>>,
    mut settings: watch::Receiver<T::Settings>,
    stop: CancellationToken,
) {
    let mut queue = Queue::new(stored, LIMIT);
    loop {
        let now = settings.borrow_and_update().clone();
        let ended = match T::of(&now) {
            Some(target) => {
                tracing::info!(recipient = T::RECIPIENT.as_str(), place = T::place(&now), "told of ports from now on");
                let mut courier = Courier::new(Arc::clone(&service), queue, now, target);
                let ended = courier.run(&mut settings, &stop).await;
                queue = courier.end().await;
                ended
            }
            None => tokio::select! {
                changed = settings.changed() => changed.is_err(),
                () = stop.cancelled() => true,
            },
        };
        service.reconciler().note_recipient(T::RECIPIENT, None);
        if ended || stop.is_cancelled() {
            return;
        }
    }
}

impl<T: Target> Courier<T> {
    fn new(service: Arc<Service>, queue: Queue<T::Fact>, settings: T::Settings, target: T) -> Self {
        Self {
            reader: service.events().read_after(None),
            service,
            queue,
            settings,
            target: Some(target),
            under_way: None,
            failures: 0,
            failure: None,
            not_before: Instant::now(),
            batch: BATCH,
            save_at: None,
            trouble: None,
        }
    }

    /// Runs until the settings change, or the daemon stops; whether it stops.
    async fn run(&mut self, settings: &mut watch::Receiver<T::Settings>, stop: &CancellationToken) -> bool {
        self.look_at_all().await;
        loop {
            let now = Instant::now();
            let idle = self.under_way.is_none();
            let send_at = self.queue.due(now).filter(|_| idle).map(|due| due.max(self.not_before));
            if self.queue.is_unsaved() && self.save_at.is_none() {
                self.save_at = Some(now + SAVE_EVERY);
            }
            let tell_at = self.tell(now);
            tokio::select! {
                biased;
                () = stop.cancelled() => return true,
                changed = settings.changed() => return changed.is_err(),
                ended = ended(&mut self.under_way) => self.take_in(ended),
                () = at(send_at) => self.send().await,
                () = at(self.save_at) => self.save().await,
                () = at(tell_at) => {}
                event = self.reader.next() => self.hear(&event).await,
            }
        }
    }

    /// Makes durable what is not yet, and gives the queue back.
    async fn end(mut self) -> Queue<T::Fact> {
        if let Some((attempt, batch)) = self.under_way.take() {
            attempt.abort();
            batch.iter().for_each(|sent| self.queue.ended(sent, Outcome::Unknown));
        }
        self.save().await;
        self.queue
    }

    /// Takes in an event.
    async fn hear(&mut self, event: &Event) {
        match (event.kind, event.port_id) {
            (EventKind::PortCreated | EventKind::PortStatus | EventKind::PortDeleted, Some(port)) => {
                self.look(port, &Cause::Event(event));
                self.note_new();
            }
            (EventKind::Lost, _) => self.look_at_all().await,
            _ => {}
        }
    }

    /// Compares all ports with all notices: after a start, and after lost events.
    async fn look_at_all(&mut self) {
        let seq = self.service.events().newest();
        let mut ports = self.queue.ports();
        ports.extend(self.service.port_ids());
        let ports: Vec<PortId> = ports.into_iter().collect();
        for some in ports.chunks(LOOKS) {
            some.iter().for_each(|port| self.look(*port, &Cause::All(seq)));
            tokio::task::yield_now().await;
        }
    }

    fn look(&mut self, port: PortId, cause: &Cause<'_>) {
        let view = self.service.port(port).ok();
        for seen in T::see(&self.queue, port, view.as_ref(), cause) {
            if let Some(lost) = self.queue.observe(seen) {
                let (recipient, port) = (T::RECIPIENT.as_str(), lost.about.port_id);
                tracing::error!(recipient, %port, state = lost.wanted.word(), since = %lost.since, "too much waits: this is never told");
                meters().notified(recipient, "lost", 1);
            }
        }
    }

    /// Has the store know, no later than the deletion of a port, that its deletion is to be told. This costs no flush.
    fn note_new(&mut self) {
        let new = self.queue.take_new().into_iter().map(|notice| Change::PutNotice(Box::new(T::stored(notice))));
        let new: Vec<Change> = new.collect();
        if !new.is_empty() {
            self.service.note_notices(new);
        }
    }

    /// Begins an attempt, once what it sends is durable.
    async fn send(&mut self) {
        let Some(mut target) = self.target.take() else { return };
        let batch = self.queue.batch(self.batch, Instant::now());
        self.save().await;
        let sent = batch.clone();
        let attempt = tokio::spawn(async move {
            let ended = target.send(&sent).await;
            (target, ended)
        });
        self.under_way = Some((attempt, batch));
    }

    /// Takes in the end of an attempt.
    fn take_in(&mut self, ended: Option<Ended<T>>) {
        let Some((_, batch)) = self.under_way.take() else { return };
        // A panic of the attempt is a bug; the process ends by it elsewhere, or goes on with a new target.
        let (target, ended) = match ended {
            Some((target, ended)) => (Some(target), ended),
            None => (T::of(&self.settings), Err(Failure::misused("the attempt was not carried out to its end"))),
        };
        self.target = target;
        let now = Instant::now();
        match ended {
            Ok(outcomes) => {
                if self.failures > 0 {
                    tracing::info!(recipient = T::RECIPIENT.as_str(), failures = self.failures, "reached again");
                }
                (self.failures, self.failure, self.not_before) = (0, None, now + INTERVAL);
                self.batch = if self.batch == 1 && self.queue.due(now).is_some() { 1 } else { BATCH };
                for (sent, (outcome, why)) in batch.iter().zip(outcomes) {
                    self.settle(sent, outcome, why, now);
                }
            }
            Err(failure) if failure.kind == FailureKind::Request && batch.len() > 1 => {
                // The same again, one by one.
                (self.batch, self.not_before) = (1, now);
                batch.iter().for_each(|sent| self.queue.ended(sent, Outcome::NotAccepted));
            }
            Err(failure) if failure.kind == FailureKind::Request => {
                (self.failures, self.failure, self.not_before) = (0, None, now + INTERVAL);
                batch.iter().for_each(|sent| self.settle(sent, Outcome::Dropped, Some(failure.why.clone()), now));
            }
            Err(failure) => self.fail(&batch, failure, now),
        }
    }

    /// Takes in what became of one notice that the recipient has read.
    fn settle(&mut self, sent: &Sending<T::Fact>, outcome: Outcome, why: Option<String>, now: Instant) {
        let recipient = T::RECIPIENT.as_str();
        let waits = clock::now().duration_since(sent.notice.since);
        let too_long = waits > jiff::SignedDuration::try_from(GIVE_UP).unwrap_or(jiff::SignedDuration::MAX);
        let outcome = if outcome != Outcome::Accepted && too_long { Outcome::Dropped } else { outcome };
        let (port, why) = (sent.notice.about.port_id, why.unwrap_or_default());
        match outcome {
            Outcome::Accepted => meters().notified(recipient, "accepted", 1),
            Outcome::Dropped => {
                let server = sent.notice.about.server_id.map(tracing::field::display);
                let state = sent.notice.wanted.word();
                tracing::warn!(recipient, %port, server, state, why, "not accepted, and not sent again");
                meters().notified(recipient, "dropped", 1);
            }
            Outcome::NotAccepted | Outcome::Unknown => {
                tracing::debug!(recipient, %port, why, "sent again later");
                meters().notified(recipient, "retried", 1);
            }
        }
        self.queue.ended(sent, outcome);
        if matches!(outcome, Outcome::NotAccepted | Outcome::Unknown) {
            self.queue.postpone(sent, now + backoff(sent.tries + 1));
        }
    }

    /// Takes in that nothing of a batch was accepted.
    fn fail(&mut self, batch: &[Sending<T::Fact>], failure: Failure, now: Instant) {
        let recipient = T::RECIPIENT.as_str();
        self.failures = self.failures.saturating_add(1);
        // Logged once for repeated failures.
        if self.failures == 1 {
            tracing::warn!(recipient, why = failure.why, "not told; nicd tries again until it is");
        } else {
            tracing::debug!(recipient, why = failure.why, failures = self.failures, "not told yet");
        }
        meters().notified(recipient, "retried", u64::try_from(batch.len()).unwrap_or(u64::MAX));
        let asked = failure.retry_after.map(|asked| asked.max(BACKOFF.0));
        self.not_before = now + asked.unwrap_or_else(|| backoff(self.failures));
        self.failure = Some(failure);
        batch.iter().for_each(|sent| self.queue.ended(sent, Outcome::Unknown));
    }

    /// Writes what differs from the store.
    async fn save(&mut self) {
        self.save_at = None;
        while self.queue.is_unsaved() {
            let saves = self.queue.unsaved(TRANSACTION);
            let change = |save: &Save<T::Fact>| match save {
                Save::Put(notice) => Change::PutNotice(Box::new(T::stored(notice.clone()))),
                Save::Forget(key) => Change::ForgetNotice(T::RECIPIENT, *key),
            };
            let frees = saves.iter().all(|save| matches!(save, Save::Forget(_)));
            let purpose = if frees { Purpose::Freeing } else { Purpose::Growing };
            if let Err(error) = self.service.save_notices(saves.iter().map(change).collect(), purpose).await {
                tracing::debug!(recipient = T::RECIPIENT.as_str(), %error, "what is told is not durable yet");
                self.queue.save_again(&saves);
                return;
            }
        }
    }

    /// Tells health and metrics how things stand; when to do so again although nothing happens.
    fn tell(&mut self, now: Instant) -> Option<Instant> {
        let oldest = self.queue.oldest();
        meters().notices(T::RECIPIENT.as_str(), self.queue.len(), oldest.map_or(0, |since| since.as_second()));
        let failure = self.failure.as_ref();
        let (trouble, again) = match (failure, oldest) {
            (_, None) => (None, None),
            (Some(failure), _) if failure.kind == FailureKind::Refused => (Some(self.refused(&failure.why)), None),
            (failure, Some(since)) => {
                let waits = clock::now().duration_since(since).max(jiff::SignedDuration::ZERO);
                let patience = Duration::from_secs(T::patience(&self.settings).into());
                let left = patience.saturating_sub(waits.unsigned_abs());
                let why = failure.map_or("there is no answer yet", |failure| failure.why.as_str());
                match left.is_zero() {
                    true => (Some(self.unreachable(why, since)), None),
                    false => (None, Some(now + left)),
                }
            }
        };
        if trouble != self.trouble {
            self.trouble.clone_from(&trouble);
            self.service.reconciler().note_recipient(T::RECIPIENT, trouble);
        }
        again
    }

    fn refused(&self, why: &str) -> RecipientTrouble {
        let (name, place) = (T::NAME, T::place(&self.settings));
        let detail = format!("{name} at {place} is not told of ports, because nicd is not let in: {why}");
        RecipientTrouble::Refuses(Finding::new(detail, T::REMEDY_REFUSED))
    }

    fn unreachable(&self, why: &str, since: Timestamp) -> RecipientTrouble {
        let (name, place) = (T::NAME, T::place(&self.settings));
        let detail = format!("{name} at {place} has not been told of ports since {since:.0}: {why}");
        RecipientTrouble::Unreachable(Finding::new(detail, REMEDY_UNREACHABLE))
    }
}

/// Waits for the end of an attempt, if one is under way; none if it panicked.
async fn ended<T: Target>(under_way: &mut Option<UnderWay<T>>) -> Option<Ended<T>> {
    match under_way {
        Some((attempt, _)) => attempt.await.ok(),
        None => std::future::pending().await,
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

/// Exponential backoff with jitter, so that the daemons of many hosts do not come back at the same time.
fn backoff(failures: u32) -> Duration {
    let (first, longest) = BACKOFF;
    let full = first.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(longest);
    full.mul_f64(rand::random_range(0.5..1.0))
}
