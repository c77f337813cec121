//! Watches of prefixes, all on one connection.
//!
//! Each prefix has a position, the next revision that was not seen of it. A change moves the position of its own prefix alone: etcd may
//! still catch up with another one. What continues later begins at the [positions](Watch::positions), and then sees each change once.
//!
//! # How the gateway takes several watches
//!
//! The gateway reads requests of a stream from the body of one HTTP request. Go's server, which it is built on, throws away what it has
//! not read of a body when it begins to answer, unless more than 256 KiB of it are missing. So the body is announced as endless
//! (`ANNOUNCED`) and stays open: what is written later is read later, and watches can be added. The server also cannot begin to answer
//! while it waits for the body, so blanks are sent until it does.
//!
//! # How a dead connection is noticed
//!
//! On a stream without messages etcd is asked for a sign of life (`progress_request`), by the same connection: if none comes, the watch has
//! ended. A member that knows no leader ends its watches by itself, because they are asked for by `hasleader`.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::{CONTENT_LENGTH, HeaderValue};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, sleep_until, timeout_at};

use super::endpoint::{Connection, Endpoint, refusal};
use super::error::{Error, Failure, Told};
use super::types::{Event, Header, Keys};
use super::wire::{self, WatchMessage};
use super::{Etcd, LIMIT, conclusive};

/// The length of the body of requests, as it is announced.
const ANNOUNCED: u64 = 1 << 40;

/// How often a blank is sent until the answer begins.
const BLANKS: Duration = Duration::from_millis(5);

/// After which silence a sign of life is asked for, and how long it may take.
const SILENCE: Duration = Duration::from_secs(5);

/// The longest message, in bytes. etcd sends longer ones in parts.
const MAX_MESSAGE: usize = 16 << 20;

/// How many requests may wait to be sent.
const REQUESTS: usize = 64;

/// How many prefixes one watch may have.
pub const MAX_PREFIXES: usize = 4096;

/// A prefix, and the first revision that was not seen of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// What the keys begin with.
    pub prefix: String,
    /// From which revision on it is watched: the one after that of a whole reading.
    pub from: i64,
}

/// Changes below one prefix. They are all that there were up to `revision`, from the position that the prefix had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The prefix.
    pub prefix: String,
    /// The revision of the last change.
    pub revision: i64,
    /// The changes, in order. All those of one transaction are in one batch.
    pub events: Vec<Event>,
}

/// Why a watch has ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WatchEnd {
    /// What came after the position is compacted away: all is to be read again, and watched from there.
    #[error("the changes before revision {0} are compacted")]
    Compacted(i64),
    /// The connection has ended or is silent, or the member knows no leader. It goes on with a new watch from the positions.
    #[error("the watch is lost: {0}")]
    Lost(String),
    /// etcd does not let it be watched.
    #[error("etcd refuses the watch: {0}")]
    Refused(String),
}

/// The body of the requests, which does not end.
#[derive(Debug)]
struct Requests(mpsc::Receiver<Bytes>);

impl Body for Requests {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|request| request.map(|request| Ok(Frame::data(request))))
    }
}

/// Watches of prefixes. It ends when it is dropped.
#[derive(Debug)]
pub struct Watch {
    header: Header,
    endpoint: String,
    _connection: Connection<Requests>,
    requests: mpsc::Sender<Bytes>,
    answer: Incoming,
    /// What came, of which no whole message was read.
    open: Vec<u8>,
    /// How much of that has no end of a line.
    searched: usize,
    /// By etcd's number for each.
    watches: BTreeMap<i64, One>,
    next_id: i64,
    batches: VecDeque<Batch>,
    /// Until when the next watch is to be there that is not yet.
    set_up: Instant,
    heard: Instant,
    /// When a sign of life was asked for.
    asked: Option<Instant>,
    ended: Option<WatchEnd>,
}

/// The watch of one prefix.
#[derive(Debug)]
struct One {
    prefix: String,
    position: i64,
    created: bool,
    /// Changes of the last revision, of which more may come in the next part of a message.
    held: Vec<Event>,
}

impl Watch {
    pub(super) async fn open(etcd: &Etcd, prefixes: &[Watched]) -> Result<Self, Error> {
        prefixes.iter().try_for_each(check)?;
        let Some(first) = prefixes.first() else { return Err(Error::Refused("a watch of no prefix".to_owned())) };
        if prefixes.len() > MAX_PREFIXES {
            return Err(Error::Refused(format!("{} prefixes, and at most {MAX_PREFIXES} are expected", prefixes.len())));
        }
        let _turn = etcd.turn().await?;
        let mut unreached = Vec::new();
        for (index, endpoint) in etcd.in_turn() {
            match Self::at(etcd, endpoint, first, prefixes).await {
                Ok(watch) => {
                    etcd.works(index);
                    return Ok(watch);
                }
                Err(failure) => match conclusive(endpoint, failure) {
                    Error::Unreachable(why) => {
                        etcd.fails(index);
                        unreached.extend(why);
                    }
                    error => return Err(error),
                },
            }
        }
        Err(Error::Unreachable(unreached))
    }

    async fn at(etcd: &Etcd, endpoint: &Endpoint, first: &Watched, prefixes: &[Watched]) -> Result<Self, Failure> {
        // After a read the member has come as far as any other, and the token is one that it knows.
        let body = wire::range(&Keys::One(first.prefix.clone()), None, 1, 0);
        let read = etcd.at(endpoint, "/v3/kv/range", body.into()).await?;
        let header = wire::range_answer(&read).map_err(Failure::Lost)?.range.header;
        if let Some(ahead) = prefixes.iter().find(|watched| watched.from > header.revision + 1) {
            let why = format!("its revision is {}, and {} is watched from {}", header.revision, ahead.prefix, ahead.from);
            return Err(Failure::Final(Error::Behind(why)));
        }
        let deadline = Instant::now() + LIMIT;
        let token = etcd.token(endpoint, deadline).await?;
        let (requests, queue) = mpsc::channel(REQUESTS);
        let mut request = endpoint.request("/v3/watch", token.as_deref(), Requests(queue))?;
        request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(ANNOUNCED));
        let mut connection: Connection<Requests> = endpoint.connect(deadline).await.map_err(Failure::NotSent)?;
        let watches: BTreeMap<i64, One> = (1..).zip(prefixes.iter().map(One::new)).collect();
        let asked: String = watches.iter().map(|(id, one)| wire::watch(&one.prefix, one.position, *id)).collect();
        let _ = requests.try_send(asked.into());
        let answering = connection.sender.send_request(request);
        tokio::pin!(answering);
        let mut blanks = interval(BLANKS);
        let answer = loop {
            tokio::select! {
                answer = timeout_at(deadline, &mut answering) => break answer,
                _ = blanks.tick() => {
                    let _ = requests.try_send(Bytes::from_static(b"\n"));
                }
            }
        };
        let answer = answer.map_err(|_| Failure::Lost("no answer in time".to_owned()))?;
        let answer = answer.map_err(|error| Failure::Lost(crate::exit::chain(&error)))?;
        if !answer.status().is_success() {
            return Err(refusal(answer, deadline).await.understood());
        }
        Ok(Self {
            header,
            endpoint: endpoint.name(),
            _connection: connection,
            requests,
            answer: answer.into_body(),
            open: Vec::new(),
            searched: 0,
            next_id: i64::try_from(watches.len()).unwrap_or(i64::MAX) + 1,
            watches,
            batches: VecDeque::new(),
            set_up: Instant::now() + LIMIT,
            heard: Instant::now(),
            asked: None,
            ended: None,
        })
    }

    /// The cluster and the revision that a member had when it was opened.
    pub fn header(&self) -> Header {
        self.header
    }

    /// The endpoint that is watched.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Where each prefix continues. Changes in batches that [`Watch::next`] has returned lie before.
    pub fn positions(&self) -> Vec<Watched> {
        let waiting = |prefix: &str| self.batches.iter().find(|batch| batch.prefix == prefix);
        let from =
            |one: &One| waiting(&one.prefix).and_then(|batch| batch.events.first()).map_or(one.position, Event::mod_revision);
        self.watches.values().map(|one| Watched { prefix: one.prefix.clone(), from: from(one) }).collect()
    }

    /// Watches another prefix too.
    ///
    /// # Errors
    /// It has no prefix or no revision, or there are too many.
    pub fn add(&mut self, watched: &Watched) -> Result<(), Error> {
        check(watched)?;
        if self.watches.len() >= MAX_PREFIXES || self.watches.values().any(|one| one.prefix == watched.prefix) {
            let why = format!("{} is watched, or {MAX_PREFIXES} others are", watched.prefix);
            return Err(Error::Refused(why));
        }
        self.send(wire::watch(&watched.prefix, watched.from, self.next_id).into());
        self.watches.insert(self.next_id, One::new(watched));
        self.next_id += 1;
        self.set_up = Instant::now() + LIMIT;
        Ok(())
    }

    /// Watches a prefix no more. What was not returned of it is not.
    pub fn remove(&mut self, prefix: &str) {
        let found = self.watches.iter().find(|(_, one)| one.prefix == prefix).map(|(id, _)| *id);
        if let Some(id) = found {
            self.watches.remove(&id);
            self.batches.retain(|batch| batch.prefix != prefix);
            self.send(wire::cancel(id).into());
        }
    }

    /// The next changes. It may be dropped while it waits: nothing is lost.
    ///
    /// # Errors
    /// The watch has ended, and stays so.
    pub async fn next(&mut self) -> Result<Batch, WatchEnd> {
        loop {
            if let Some(batch) = self.batches.pop_front() {
                return Ok(batch);
            }
            if let Some(end) = &self.ended {
                return Err(end.clone());
            }
            if let Err(end) = self.advance().await {
                self.ended = Some(end);
            }
        }
    }

    /// Waits for something to come, or for a limit.
    async fn advance(&mut self) -> Result<(), WatchEnd> {
        let late = self.asked.map_or(self.heard, |asked| asked) + SILENCE;
        let missing = self.watches.values().find(|one| !one.created);
        let limit = if missing.is_some() { late.min(self.set_up) } else { late };
        tokio::select! {
            biased;
            frame = self.answer.frame() => match frame {
                Some(Ok(frame)) => {
                    self.heard = Instant::now();
                    self.asked = None;
                    self.open.extend_from_slice(&frame.into_data().unwrap_or_default());
                    self.read_lines()
                }
                Some(Err(error)) => Err(WatchEnd::Lost(crate::exit::chain(&error))),
                None => Err(WatchEnd::Lost("its server has ended it".to_owned())),
            },
            () = sleep_until(limit) => {
                if let Some(one) = missing.filter(|_| limit == self.set_up) {
                    let why = format!("{} is not watched after {} s", one.prefix, LIMIT.as_secs());
                    return Err(WatchEnd::Lost(why));
                }
                if self.asked.is_some() {
                    return Err(WatchEnd::Lost(format!("no sign of life in {} s", SILENCE.as_secs())));
                }
                self.asked = Some(Instant::now());
                self.send(Bytes::from_static(wire::PROGRESS.as_bytes()));
                Ok(())
            }
        }
    }

    /// Sends a request. One that finds no room has its effect missed within a limit, and then the watch ends.
    fn send(&self, request: Bytes) {
        let _ = self.requests.try_send(request);
    }

    fn read_lines(&mut self) -> Result<(), WatchEnd> {
        while let Some(end) = self.open[self.searched..].iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.open.drain(..=self.searched + end).collect();
            self.searched = 0;
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            match wire::watch_message(&line).map_err(WatchEnd::Lost)? {
                Ok(message) => self.take(message)?,
                Err(told) => return Err(end_of(told)),
            }
        }
        self.searched = self.open.len();
        if self.open.len() > MAX_MESSAGE {
            return Err(WatchEnd::Lost(format!("a message is longer than {MAX_MESSAGE} bytes")));
        }
        Ok(())
    }

    fn take(&mut self, message: WatchMessage) -> Result<(), WatchEnd> {
        let WatchMessage { id, revision, created, canceled, compact_revision, reason, fragment, events } = message;
        if canceled && compact_revision > 0 && self.watches.contains_key(&id) {
            return Err(WatchEnd::Compacted(compact_revision));
        }
        // One that cannot be made may have no number of ours.
        if canceled && created {
            return Err(WatchEnd::Refused(if reason.is_empty() { "it is not made".to_owned() } else { reason }));
        }
        // A sign of life, or one that was removed meanwhile.
        let Some(one) = self.watches.get_mut(&id) else { return Ok(()) };
        if canceled {
            return Err(WatchEnd::Lost(if reason.is_empty() { "etcd has ended it".to_owned() } else { reason }));
        }
        if created {
            one.created = true;
            self.set_up = Instant::now() + LIMIT;
            return Ok(());
        }
        if events.is_empty() && !fragment && one.held.is_empty() {
            one.position = one.position.max(revision + 1);
            return Ok(());
        }
        self.batches.extend(one.changes(events, fragment));
        Ok(())
    }
}

impl One {
    fn new(watched: &Watched) -> Self {
        Self { prefix: watched.prefix.clone(), position: watched.from, created: false, held: Vec::new() }
    }

    /// What is whole of the changes that came. Of the last revision in a part of a message, more may come.
    fn changes(&mut self, events: Vec<Event>, fragment: bool) -> Option<Batch> {
        let mut events: Vec<Event> =
            self.held.drain(..).chain(events).filter(|event| event.mod_revision() >= self.position).collect();
        if fragment {
            let last = events.last()?.mod_revision();
            let whole = events.iter().position(|event| event.mod_revision() == last).unwrap_or(events.len());
            self.held = events.split_off(whole);
        }
        let revision = events.last()?.mod_revision();
        self.position = revision + 1;
        Some(Batch { prefix: self.prefix.clone(), revision, events })
    }
}

fn check(watched: &Watched) -> Result<(), Error> {
    if watched.prefix.is_empty() || watched.from <= 0 {
        let Watched { prefix, from } = watched;
        return Err(Error::Refused(format!("{prefix:?} from {from}: a prefix and a revision from 1 on are expected")));
    }
    Ok(())
}

/// What an error in the stream means for it.
fn end_of(told: Told) -> WatchEnd {
    match told.meaning() {
        Failure::Final(Error::Denied(why) | Error::Refused(why)) => WatchEnd::Refused(why),
        Failure::Final(error) => WatchEnd::Lost(error.to_string()),
        Failure::NotSent(why) | Failure::Lost(why) | Failure::TooLong(why) => WatchEnd::Lost(why),
        Failure::Told(told) => WatchEnd::Lost(told.message),
    }
}

#[cfg(test)]
#[path = "watch/tests.rs"]
mod tests;
