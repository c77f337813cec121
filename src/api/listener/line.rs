//! One connection as bytes, and what it is doing at the moment.
//!
//! ```text
//!            first byte        head complete         body complete       answer's body of unknown length
//!   fresh ──► arriving ──────────► receiving ──────────► working ────────────► streaming
//!               ▲ first byte                                │ answer flushed        │
//!               └───────────────── idle ◄───────────────────┴───────────────────────┘
//! ```
//!
//! From anywhere to `leaving`, when HTTP is over and only a last answer is written and read.
//!
//! [`Wire`] lies under hyper and tells [`Line`] when bytes move; the gate above hyper tells it when a request is complete
//! and when its answer ends. From that the driver knows which limit runs, and the seats know whom they may close.
//!
//! The part of a next request that came together with the last one lies in hyper's buffer and is not seen here: such a
//! connection counts as idle until its next byte.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::Limits;
use crate::points;

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It was accepted and nothing has come.
    Fresh,
    /// Its last request was answered and nothing has come since.
    Idle,
    /// A request's head is on its way.
    Arriving,
    /// A request's body is on its way.
    Receiving,
    /// A request is handled, or its answer is sent.
    Working,
    /// An answer without known length is sent: events.
    Streaming,
    /// HTTP is over; the peer gets a moment to read the last answer.
    Leaving,
}

/// Which limit ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Late {
    /// Nothing came: there is nobody to answer.
    Silent,
    /// A part of a head came.
    Head,
    /// The peer does not read its answer.
    Reader,
}

/// What a connection is doing, and since when.
#[derive(Debug)]
pub(super) struct Line(Mutex<State>);

#[derive(Debug)]
struct State {
    phase: Phase,
    since: Instant,
    /// Since when a write waits for the peer to read.
    stalled: Option<Instant>,
    /// Whether hyper has the whole answer.
    answer: Answer,
    /// The status with which hyper itself wanted to answer a head it could not read.
    bare: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Open,
    HandedOver,
}

impl Line {
    pub(super) fn new() -> Arc<Self> {
        let state = State { phase: Phase::Fresh, since: Instant::now(), stalled: None, answer: Answer::Open, bare: None };
        Arc::new(Self(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is plain values, whole after each statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, phase: Phase) {
        let mut state = self.state();
        state.phase = phase;
        state.since = Instant::now();
    }

    /// The phase, and since when.
    pub(super) fn phase(&self) -> (Phase, Instant) {
        let state = self.state();
        (state.phase, state.since)
    }

    /// A head is complete. Returns when the request began to arrive.
    pub(super) fn begin(&self) -> Instant {
        let mut state = self.state();
        let now = Instant::now();
        let began = if state.phase == Phase::Arriving { state.since } else { now };
        *state = State { phase: Phase::Receiving, since: now, answer: Answer::Open, stalled: state.stalled, bare: None };
        began
    }

    /// The body is complete, or not wanted.
    pub(super) fn received(&self) {
        self.enter(Phase::Working);
    }

    /// HTTP is over on this connection.
    pub(super) fn leaves(&self) {
        self.enter(Phase::Leaving);
    }

    /// The answer has no known length.
    pub(super) fn streams(&self) {
        self.enter(Phase::Streaming);
    }

    /// hyper has the whole answer.
    pub(super) fn answered(&self) {
        self.state().answer = Answer::HandedOver;
    }

    /// The status hyper wanted to answer with, if it did.
    pub(super) fn bare(&self) -> Option<u16> {
        self.state().bare
    }

    /// When which limit runs out, as things are.
    pub(super) fn due(&self, limits: &Limits) -> Option<(Instant, Late)> {
        let state = self.state();
        let stalled = state.stalled.map(|since| (since + limits.stall, Late::Reader));
        let phase = match state.phase {
            Phase::Fresh => Some((state.since + limits.arrival, Late::Silent)),
            Phase::Idle => Some((state.since + limits.idle, Late::Silent)),
            Phase::Arriving => Some((state.since + limits.arrival, Late::Head)),
            // The gate has the rest of the same limit for the body.
            Phase::Receiving | Phase::Working | Phase::Streaming | Phase::Leaving => None,
        };
        stalled.into_iter().chain(phase).min_by_key(|(due, _)| *due)
    }

    fn bytes_came(&self) {
        if let (Phase::Fresh | Phase::Idle, _) = self.phase() {
            self.enter(Phase::Arriving);
        }
    }

    /// A write was tried.
    fn wrote(&self, result: &Poll<io::Result<usize>>) {
        let mut state = self.state();
        match result {
            Poll::Pending => state.stalled = state.stalled.or_else(|| Some(Instant::now())),
            Poll::Ready(_) => state.stalled = None,
        }
    }

    fn flushed(&self) {
        if self.state().answer == Answer::HandedOver {
            self.enter(Phase::Idle);
            self.state().answer = Answer::Open;
        }
    }

    /// What is being written.
    fn answering(&self) -> points::Name {
        let (phase, _) = self.phase();
        ("reply", if phase == Phase::Streaming { "stream" } else { "http" })
    }

    /// Whether these bytes are hyper's own answer to a head it could not read. It has neither envelope nor id, so it is
    /// kept back, and a whole one is sent in its place when the connection is ours again.
    fn keep_back(&self, bytes: &[u8]) -> bool {
        let mut state = self.state();
        if matches!(state.phase, Phase::Receiving | Phase::Working | Phase::Streaming) {
            return false;
        }
        let status = bytes.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()).and_then(|digits| digits.parse().ok());
        state.bare = state.bare.or(status).or(Some(400));
        true
    }
}

/// What is left of a client's words while an endless answer is sent, at a time, in bytes.
const SCRAP: usize = 1024;

/// The peer is gone.
fn lost() -> Poll<io::Result<usize>> {
    Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
}

/// A connection's bytes, watched.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) stream: UnixStream,
    line: Arc<Line>,
}

impl Wire {
    pub(super) fn new(stream: UnixStream, line: Arc<Line>) -> Self {
        Self { stream, line }
    }

    /// Whether the reader of an endless answer has left: who says that nothing more will come from it has, too. hyper does not
    /// look while it answers, and no write may come for long. What it sends instead is no request, as this answer does not end.
    fn reader_left(&mut self, cx: &mut Context<'_>) -> bool {
        if self.line.phase().0 != Phase::Streaming {
            return false;
        }
        while let Poll::Ready(ready) = self.stream.poll_read_ready(cx) {
            match ready.and_then(|()| self.stream.try_read(&mut [0; SCRAP])) {
                Ok(0) => return true,
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return true,
                // One that talks without end does not keep others waiting.
                Ok(SCRAP) => {
                    cx.waker().wake_by_ref();
                    return false;
                }
                Ok(_) | Err(_) => {}
            }
        }
        false
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.line.bytes_came();
        }
        result
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.line.keep_back(buf) {
            return Poll::Ready(Ok(buf.len()));
        }
        if self.reader_left(cx) {
            return lost();
        }
        let name = self.line.answering();
        let result = points::reply(name, || Pin::new(&mut self.stream).poll_write(cx, buf)).unwrap_or_else(lost);
        self.line.wrote(&result);
        result
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| buf);
        if self.line.keep_back(first) {
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        if self.reader_left(cx) {
            return lost();
        }
        let name = self.line.answering();
        let result = points::reply(name, || Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)).unwrap_or_else(lost);
        self.line.wrote(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes when it has written all it has.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        if result.is_ready() {
            self.line.flushed();
        }
        if self.reader_left(cx) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
