//! One connection: its state, its limits in time, and how it ends.
//!
//! ```text
//!         first byte          head complete           answer's body of unknown length
//!   New ────────────► Head ─────────────────► Request ───────────────────────────────► Stream
//!                      ▲ first byte              │ answer flushed
//!                      └─────────── Idle ◄───────┘
//! ```
//!
//! [`Io`] is between hyper and the socket and notices when bytes move; the service notices when a head is complete and when its
//! answer ends. The start of a request that came together with the one before is in hyper's buffer and is not noticed: the
//! connection counts as idle until the next byte.

use std::error::Error;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::Limits;
use super::refusal::{ApiError, RequestId};
use super::service::Service;
use crate::failpoints;
use crate::telemetry::meters;

/// How long a last answer may take to be written and read.
pub(super) const GOODBYE: Duration = Duration::from_secs(1);

/// The same while the daemon ends, so that a client with an idle connection does not delay a restart.
const HURRIED: Duration = Duration::from_millis(20);

/// How much of a refused request is still read, in bytes: a client whose sending fails may not read the answer.
const GOODBYE_BYTES: usize = 1 << 20;

/// hyper's least buffer, below which it panics.
const LEAST_BUFFER: usize = 8192;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It was accepted, and nothing has come.
    New,
    /// Its last request was answered, and nothing has come since.
    Idle,
    /// A request's head is on its way.
    Head,
    /// A request's body is on its way, it is handled, or its answer is sent.
    Request,
    /// An answer without known length is sent: events.
    Stream,
}

/// What a connection is doing.
#[derive(Debug)]
pub(super) struct ConnState(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    phase: Phase,
    since: Instant,
    /// hyper has the whole answer.
    answered: bool,
}

impl ConnState {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Inner { phase: Phase::New, since: Instant::now(), answered: false })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Plain values, whole after each statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn phase(&self) -> Phase {
        self.inner().phase
    }

    fn enter(&self, phase: Phase) {
        *self.inner() = Inner { phase, since: Instant::now(), answered: false };
    }

    /// A head is complete. Returns when its first byte came.
    pub(super) fn begin(&self) -> Instant {
        let Inner { phase, since, .. } = *self.inner();
        self.enter(Phase::Request);
        if phase == Phase::Head { since } else { Instant::now() }
    }

    /// The answer has no known length.
    pub(super) fn streams(&self) {
        self.enter(Phase::Stream);
    }

    /// hyper has the whole answer.
    pub(super) fn answered(&self) {
        self.inner().answered = true;
    }

    fn received_bytes(&self) {
        if matches!(self.phase(), Phase::New | Phase::Idle) {
            self.enter(Phase::Head);
        }
    }

    fn flushed(&self) {
        if self.inner().answered {
            self.enter(Phase::Idle);
        }
    }

    /// When a request must have arrived. hyper's timer has the limit of an idle connection, the service that of a body.
    fn due(&self, limits: &Limits) -> Option<Instant> {
        let Inner { phase, since, .. } = *self.inner();
        matches!(phase, Phase::New | Phase::Head).then_some(since + limits.arrival)
    }
}

/// A connection with its limits in time.
struct Io<S> {
    stream: S,
    state: Arc<ConnState>,
    limits: Limits,
    timer: Pin<Box<Sleep>>,
    /// Until when a write that waits must go on.
    write_due: Option<Instant>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Io<S> {
    fn new(stream: S, state: Arc<ConnState>, limits: Limits) -> Self {
        Self { stream, state, limits, timer: Box::pin(sleep_until(Instant::now())), write_due: None }
    }

    /// An error once `due` has passed.
    fn poll_due<T>(&mut self, due: Instant, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if self.timer.deadline() != due {
            self.timer.as_mut().reset(due);
        }
        self.timer.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Writes; fails when the reader has left, or has read nothing for too long.
    fn poll_send<F>(&mut self, cx: &mut Context<'_>, length: usize, write: F) -> Poll<io::Result<usize>>
    where
        F: FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    {
        let phase = self.state.phase();
        if !matches!(phase, Phase::Request | Phase::Stream) {
            // hyper's own answer to a head that it cannot read has no body and no id. It is dropped, and `refuse` sends ours.
            return Poll::Ready(Ok(length));
        }
        let gone = || Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        if self.reader_left(cx) {
            return gone();
        }
        let name = ("reply", if phase == Phase::Stream { "stream" } else { "http" });
        let sent = failpoints::reply(name, || write(Pin::new(&mut self.stream), cx)).unwrap_or_else(gone);
        if sent.is_ready() {
            self.write_due = None;
            return sent;
        }
        let due = self.write_due();
        self.poll_due(due, cx)
    }

    fn write_due(&mut self) -> Instant {
        let limit = self.limits.stall;
        *self.write_due.get_or_insert_with(|| Instant::now() + limit)
    }

    /// Whether the reader of a stream has closed at least its sending side; hyper does not read while it answers. What such a
    /// reader sends is dropped, as a stream is the last answer of its connection.
    fn reader_left(&mut self, cx: &mut Context<'_>) -> bool {
        if self.state.phase() != Phase::Stream {
            return false;
        }
        let mut dropped = [0; 1024];
        let mut buffer = ReadBuf::new(&mut dropped);
        match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
            Poll::Pending => false,
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                cx.waker().wake_by_ref();
                false
            }
            Poll::Ready(_) => true,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Io<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.state.received_bytes();
        }
        match self.state.due(&self.limits) {
            Some(due) if read.is_pending() => self.poll_due(due, cx),
            _ => read,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Io<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send(cx, buf.len(), |stream, cx| stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let length = bufs.iter().map(|buf| buf.len()).sum();
        self.poll_send(cx, length, |stream, cx| stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes when it has written all it has.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if self.reader_left(cx) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if flushed.is_ready() {
            self.write_due = None;
            self.state.flushed();
            return flushed;
        }
        // TLS takes what the peer does not read yet.
        let due = self.write_due();
        self.poll_due(due, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Serves one connection until it ends.
pub(super) async fn serve_connection<S: AsyncRead + AsyncWrite + Unpin>(stream: S, service: Service) {
    let (state, limits, shutdown) = (Arc::clone(&service.state), service.limits.clone(), service.shutdown.clone());
    let io = TokioIo::new(Io::new(stream, Arc::clone(&state), limits.clone()));
    let mut connection = builder(&limits).serve_connection(io, service);
    let served = match shutdown.run_until_cancelled(poll_fn(|cx| connection.poll_without_shutdown(cx))).await {
        Some(served) => served,
        None => {
            Pin::new(&mut connection).graceful_shutdown();
            poll_fn(|cx| connection.poll_without_shutdown(cx)).await
        }
    };
    let mut stream = connection.into_parts().io.into_inner().stream;
    match served.map_err(|error| refusal(&error, state.phase(), &limits)) {
        Ok(()) => goodbye(&mut stream, if shutdown.is_cancelled() { HURRIED } else { GOODBYE }).await,
        Err(Some(refusal)) => refuse(&mut stream, &refusal).await,
        Err(None) => {}
    }
}

fn builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // From one answer to the whole head of the next request.
        .header_read_timeout(limits.idle + limits.arrival)
        .max_header_size(limits.header_bytes)
        .max_buf_size(limits.header_bytes.max(LEAST_BUFFER))
        // A client that has sent all and said so (`nc -N`) still reads, and what it asked for is carried out.
        .half_close(true);
    builder
}

/// The answer on a connection that failed, if there is one.
fn refusal(error: &hyper::Error, phase: Phase, limits: &Limits) -> Option<ApiError> {
    let io = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    let late = error.is_timeout() || io.is_some_and(|io| io.kind() == io::ErrorKind::TimedOut);
    match phase {
        Phase::Request | Phase::Stream => None,
        _ if error.is_parse_too_large() => Some(ApiError::HeadersTooLarge { limit: limits.header_bytes }),
        _ if error.is_parse() => Some(ApiError::Malformed),
        Phase::Head if late => Some(ApiError::TooSlow { limit: limits.arrival }),
        Phase::Head if error.is_incomplete_message() => Some(ApiError::Malformed),
        Phase::New | Phase::Idle | Phase::Head => None,
    }
}

/// Answers a connection beyond the limit. The request is waited for, for a moment: clients take an answer that comes before
/// it for a fault.
pub(super) async fn reject<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    let _ = timeout(GOODBYE, stream.read(&mut [0; 1])).await;
    refuse(&mut stream, &ApiError::Crowded).await;
}

async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, refusal: &ApiError) {
    tracing::debug!(?refusal, "connection closed");
    meters().refused(refusal.reason());
    let bytes = refusal.bytes(RequestId::draw());
    if let Ok(Ok(())) = timeout(GOODBYE, stream.write_all(&bytes)).await {
        goodbye(stream, GOODBYE).await;
    }
}

/// Closes the sending side and reads on for a moment. If a Unix socket is closed with bytes unread, its peer's sending fails
/// (EPIPE) before the peer has read the answer (RFC 9112 §9.6).
pub(super) async fn goodbye<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, limit: Duration) {
    let drain = async {
        stream.shutdown().await?;
        let mut buffer = [0; 4096];
        let mut left = GOODBYE_BYTES;
        while left > 0 {
            match stream.read(&mut buffer).await? {
                0 => break,
                read => left = left.saturating_sub(read),
            }
        }
        io::Result::Ok(())
    };
    let _ = timeout(limit, drain).await;
}
