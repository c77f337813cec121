//! The event stream: numbered events, a ring buffer of the last ones, and readers.
//!
//! ```text
//!  reconciler ── emit ──► ring ──► Reader (one a stream: SSE, NDJSON, the demo)
//! ```
//!
//! A reader holds a position, not a queue: a slow reader costs nothing, and gets one `lost` event for all events it missed.
//! Numbers only grow, also across restarts, because they come from blocks reserved in the store.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::watch;

use crate::clock;
use crate::failpoints;
use crate::model::{NetworkId, Phase, PortId, ServerId, Status};
use crate::telemetry::meters;

/// The capacity of the ring, for readers that reconnect.
pub const KEPT: usize = 10_000;

/// Numbers reserved in the store at a time; a restart skips what is left of them.
pub const BLOCK: u64 = 1_000_000;

/// One event, as clients get it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// What kind it is.
    #[serde(skip)]
    pub kind: EventKind,
    /// Its number; each event's is greater than any before.
    pub seq: u64,
    /// When it happened.
    pub at: Timestamp,
    /// The port it is about.
    pub port_id: Option<PortId>,
    /// That port's server.
    pub server_id: Option<ServerId>,
    /// That port's network.
    pub network_id: Option<NetworkId>,
    /// The status before.
    pub old: Option<Status>,
    /// The status after.
    pub new: Option<Status>,
    /// The phase after.
    pub phase: Option<Phase>,
    /// The stable word for the cause, where there is one.
    pub reason: Option<String>,
    /// The request that caused it, where one did.
    pub request_id: Option<String>,
    /// The port's host, of an event of the fleet's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_id: Option<String>,
}

/// The kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum EventKind {
    /// A port was created.
    #[serde(rename = "port.created")]
    PortCreated,
    /// A port's phase has changed, and its status perhaps with it; or its MAC or addresses have, and the phase is as before.
    #[serde(rename = "port.status")]
    PortStatus,
    /// A port was deleted.
    #[serde(rename = "port.deleted")]
    PortDeleted,
    /// The agent has a problem; health shows it.
    #[serde(rename = "agent.degraded")]
    AgentDegraded,
    /// The agent's problem has ended.
    #[serde(rename = "agent.recovered")]
    AgentRecovered,
    /// The reader missed events and should list again.
    #[serde(rename = "lost")]
    Lost,
}

impl EventKind {
    /// The API's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PortCreated => "port.created",
            Self::PortStatus => "port.status",
            Self::PortDeleted => "port.deleted",
            Self::AgentDegraded => "agent.degraded",
            Self::AgentRecovered => "agent.recovered",
            Self::Lost => "lost",
        }
    }
}

impl Event {
    /// An event of a kind with nothing said yet; [`Events::emit`] numbers it.
    pub fn new(kind: EventKind, at: Timestamp) -> Self {
        Self {
            kind,
            seq: 0,
            at,
            port_id: None,
            server_id: None,
            network_id: None,
            old: None,
            new: None,
            phase: None,
            reason: None,
            request_id: None,
            host_id: None,
        }
    }
}

/// The sequence of all events; clones share it.
#[derive(Debug, Clone)]
pub struct Events {
    ring: Arc<Mutex<Ring>>,
    newest: Arc<watch::Sender<u64>>,
}

#[derive(Debug)]
struct Ring {
    kept: VecDeque<Arc<Event>>,
    next: u64,
    /// The first number of this run; a reader that resumes from an older one has missed events.
    first: u64,
}

impl Events {
    /// An empty sequence that starts with number `first`.
    pub fn new(first: u64) -> Self {
        let ring = Ring { kept: VecDeque::new(), next: first, first };
        Self { ring: Arc::new(Mutex::new(ring)), newest: Arc::new(watch::Sender::new(first.saturating_sub(1))) }
    }

    /// Numbers an event and gives it to all readers; answers its number.
    pub fn emit(&self, event: Event) -> u64 {
        failpoints::step(("event", event.kind.as_str()), || self.append(event))
    }

    fn append(&self, mut event: Event) -> u64 {
        let mut ring = self.lock();
        let seq = ring.next;
        event.seq = seq;
        meters().emitted(event.kind.as_str());
        ring.next += 1;
        if ring.kept.len() == KEPT {
            ring.kept.pop_front();
        }
        ring.kept.push_back(Arc::new(event));
        drop(ring);
        self.newest.send_replace(seq);
        seq
    }

    /// Skips this many numbers, before the first event.
    pub fn skip_ahead(&self, numbers: u64) {
        let mut ring = self.lock();
        let next = ring.next.saturating_add(numbers);
        (ring.next, ring.first) = (next, next);
        drop(ring);
        self.newest.send_replace(next.saturating_sub(1));
    }

    /// The number of the last event.
    pub fn newest(&self) -> u64 {
        *self.newest.borrow()
    }

    /// A reader of what comes from now on, or of what came after `last`.
    pub fn read_after(&self, last: Option<u64>) -> Reader {
        let ring = self.lock();
        let position = last.map_or(ring.next, |last| last.saturating_add(1));
        let lost = position > ring.next || last.is_some() && position < ring.oldest();
        let position = if lost { ring.next } else { position };
        drop(ring);
        Reader { events: self.clone(), newest: self.newest.subscribe(), position, lost }
    }

    /// How many readers there are.
    pub fn readers(&self) -> usize {
        self.newest.receiver_count()
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        // Each change of the ring is complete in itself, so a panic in another thread leaves it valid.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    /// The oldest number that can still be read.
    fn oldest(&self) -> u64 {
        self.kept.front().map_or(self.next.max(self.first), |event| event.seq)
    }
}

/// A position in the sequence.
#[derive(Debug)]
pub struct Reader {
    events: Events,
    newest: watch::Receiver<u64>,
    position: u64,
    lost: bool,
}

impl Reader {
    /// The next event, as soon as there is one. Cancel-safe: the position moves only when an event is given out.
    pub async fn next(&mut self) -> Arc<Event> {
        loop {
            // Marked as seen before the ring is read, so that an event in between wakes the wait below.
            self.newest.mark_unchanged();
            if let Some(event) = self.take() {
                return event;
            }
            if self.newest.changed().await.is_err() {
                // The sender lives in `self.events`, so it cannot be gone.
                std::future::pending::<()>().await;
            }
        }
    }

    fn take(&mut self) -> Option<Arc<Event>> {
        let ring = self.events.lock();
        if self.position < ring.oldest() {
            self.lost = true;
        }
        if self.lost {
            // The `lost` event has the number of the last missed event, so a reader that resumes from it misses no more.
            self.lost = false;
            meters().events_lost.inc();
            self.position = ring.next;
            let mut event = Event::new(EventKind::Lost, clock::now());
            event.seq = ring.next.saturating_sub(1);
            return Some(Arc::new(event));
        }
        let ahead = usize::try_from(self.position - ring.oldest()).ok()?;
        let event = ring.kept.get(ahead).map(Arc::clone)?;
        self.position += 1;
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Event {
        Event::new(EventKind::PortStatus, Timestamp::UNIX_EPOCH)
    }

    async fn next(reader: &mut Reader) -> (EventKind, u64) {
        let event = reader.next().await;
        (event.kind, event.seq)
    }

    #[tokio::test]
    async fn resumes_after_the_last_one_seen() {
        let events = Events::new(5);
        for _ in 0..3 {
            events.emit(some());
        }
        let mut reader = events.read_after(Some(5));
        assert_eq!(next(&mut reader).await, (EventKind::PortStatus, 6));
        assert_eq!(next(&mut reader).await, (EventKind::PortStatus, 7));
        events.emit(some());
        assert_eq!(next(&mut reader).await, (EventKind::PortStatus, 8));
    }

    #[tokio::test]
    async fn the_last_number_before_a_restart_is_not_lost_when_nothing_followed() {
        let events = Events::new(100);
        let mut reader = events.read_after(Some(99));
        events.emit(some());
        assert_eq!(next(&mut reader).await, (EventKind::PortStatus, 100));
    }

    #[tokio::test]
    async fn a_number_from_before_or_from_the_future_is_lost_once() {
        let events = Events::new(100);
        for last in [3, 5000] {
            let mut reader = events.read_after(Some(last));
            assert_eq!(next(&mut reader).await.0, EventKind::Lost);
            let emitted = events.emit(some());
            assert_eq!(next(&mut reader).await, (EventKind::PortStatus, emitted));
        }
    }

    #[tokio::test]
    async fn a_reader_too_slow_is_told_and_goes_on_from_now() {
        let events = Events::new(1);
        let mut reader = events.read_after(None);
        for _ in 0..=KEPT {
            events.emit(some());
        }
        assert_eq!(next(&mut reader).await.0, EventKind::Lost);
        let emitted = events.emit(some());
        assert_eq!(next(&mut reader).await, (EventKind::PortStatus, emitted));
    }
}
