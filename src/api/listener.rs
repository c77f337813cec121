//! The server: accepts connections on both sockets, and lets complete, admitted requests through to the handlers.
//!
//! ```text
//!  nicd.sock ─────► accept ─► peer ─► permit ─┬─► serve_connection: hyper over Io ─► Service ─► Router
//!  nicd-view.sock ► accept ─► peer ─► permit ─┘     (limits in time)        (caller, body, id)
//!                                        └─ none free: reject, 503
//! ```
//!
//! What a client may cost is bounded here, and only here: connections (`limiter`), the bytes and the time of a request, the
//! time of a reader that does not read (`conn`). What a request means is not known here: no route, no action. hyper frames
//! the messages (RFC 9112), so wrong lengths and malformed chunks end in it.

use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::socket::Listening;
use crate::access::{Access, AllowedPeers, Peer, SocketKind};
use crate::config::SocketSettings;
use crate::exit::chain;

mod conn;
mod limiter;
mod refusal;
mod service;

use conn::{reject, serve_connection};
use limiter::ConnLimiter;
use service::{Client, Service};

pub use refusal::RequestId;
pub use service::Caller;

/// How long accepting rests after it failed for want of descriptors or memory.
pub(super) const BACKOFF: Duration = Duration::from_millis(100);

/// How often a failure to accept is logged at most.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// How many connections beyond the limit are told so at the same time; further ones are closed without an answer.
const REJECTED: usize = 64;

/// Descriptors that are not for connections: both sockets, netlink, the store, taps and namespaces that are being built, the
/// bus, and scrapers on TCP.
const OWN_DESCRIPTORS: usize = 96;

/// How long connections that are ended have to be dropped.
const DROPPING: Duration = Duration::from_millis(250);

/// What clients may cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Request line and header fields, in bytes.
    pub header_bytes: usize,
    /// A request's body, in bytes.
    pub body_bytes: usize,
    /// From a request's first byte, or the connection's start, to its last byte.
    pub arrival: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// For how long a peer may read nothing of an answer that waits.
    pub stall: Duration,
    /// What requests under way have left when the daemon ends.
    pub grace: Duration,
    /// Connections of both sockets together.
    pub max_connections: usize,
    /// Of these, for uid 0 alone.
    pub root_reserve: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: 16 << 10,
            body_bytes: 64 << 10,
            arrival: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            stall: Duration::from_secs(30),
            grace: Duration::from_secs(5),
            max_connections: 256,
            root_reserve: 16,
        }
    }
}

impl From<&SocketSettings> for Limits {
    fn from(settings: &SocketSettings) -> Self {
        Self { max_connections: settings.max_connections, root_reserve: settings.root_reserve, ..Self::default() }
    }
}

impl Limits {
    /// No more connections than `descriptors` allow beside our own: when none are left, nobody can be accepted, not even
    /// root, and nothing can be built.
    #[must_use]
    pub fn within(self, descriptors: u64) -> Self {
        let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
        let most = descriptors.saturating_sub(OWN_DESCRIPTORS + REJECTED).max(2);
        if self.max_connections <= most {
            return self;
        }
        tracing::warn!(descriptors, wanted = self.max_connections, possible = most, "fewer connections than configured");
        Self { max_connections: most, root_reserve: self.root_reserve.min(most / 2), ..self }
    }
}

/// Why nothing can be served.
#[derive(Debug, thiserror::Error)]
pub enum ListenerError {
    /// A socket cannot be waited on.
    #[error("the socket cannot be registered with the event loop")]
    Register(#[source] io::Error),
}

/// The server of both sockets.
#[derive(Debug)]
pub struct Server {
    sockets: Listening,
    admitted: AllowedPeers,
    limits: Limits,
    /// Sockets to be served beside those.
    renewed: Receiver<(SocketKind, StdListener)>,
}

impl Server {
    /// What `serve` will serve.
    pub fn new(sockets: Listening, admitted: AllowedPeers, limits: Limits) -> Self {
        let renewed = channel(1).1;
        Self { sockets, admitted, limits, renewed }
    }

    /// Serves further sockets as they come: those made anew in the place of some that clients no longer reach.
    pub fn with_renewed(self, renewed: Receiver<(SocketKind, StdListener)>) -> Self {
        Self { renewed, ..self }
    }

    /// Serves `app` on both sockets until `shutdown` is cancelled; then accepts no more, lets requests under way finish
    /// within the grace, ends streams, closes what is idle, and returns.
    ///
    /// # Errors
    /// A socket cannot be registered with the event loop; nothing was served.
    pub async fn serve(self, app: Router, shutdown: CancellationToken) -> Result<(), ListenerError> {
        let Self { sockets: Listening { main, view }, admitted, limits, mut renewed } = self;
        let main = register(main)?;
        let view = view.map(register).transpose()?;
        let acceptor = Acceptor {
            app,
            admitted,
            limiter: ConnLimiter::new(limits.max_connections, limits.root_reserve),
            limits,
            rejected: Arc::new(Semaphore::new(REJECTED)),
            tasks: TaskTracker::new(),
            shutdown,
            abort: CancellationToken::new(),
        };
        let mut accepting = FuturesUnordered::new();
        accepting.push(acceptor.accept(SocketKind::Main, main));
        accepting.extend(view.map(|view| acceptor.accept(SocketKind::View, view)));
        while !accepting.is_empty() {
            let (door, socket) = tokio::select! {
                biased;
                _ = accepting.next() => continue,
                Some(further) = renewed.recv() => further,
            };
            match register(socket) {
                Ok(socket) => accepting.push(acceptor.accept(door, socket)),
                Err(error) => tracing::error!(error = chain(&error), "a socket made anew is not served"),
            }
        }
        drop(accepting);
        acceptor.close().await;
        Ok(())
    }
}

fn register(socket: StdListener) -> Result<UnixListener, ListenerError> {
    socket.set_nonblocking(true).and_then(|()| UnixListener::from_std(socket)).map_err(ListenerError::Register)
}

/// What all connections share.
struct Acceptor {
    app: Router,
    admitted: AllowedPeers,
    limits: Limits,
    limiter: Arc<ConnLimiter>,
    rejected: Arc<Semaphore>,
    tasks: TaskTracker,
    /// Cancelled: requests under way finish, and no more are taken.
    shutdown: CancellationToken,
    /// Cancelled: every connection is dropped.
    abort: CancellationToken,
}

impl Acceptor {
    /// Accepts on one socket until the daemon ends.
    async fn accept(&self, door: SocketKind, listener: UnixListener) {
        let mut logged: Option<Instant> = None;
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    self.take(door, stream);
                    // A connection that has just ended is closed before the next one is taken.
                    tokio::task::yield_now().await;
                }
                // The client went away before it was accepted (accept(2)).
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    if logged.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
                        tracing::error!(?door, %error, "connections cannot be accepted");
                        logged = Some(Instant::now());
                    }
                    // The connection stays in the backlog, and the socket stays readable: without a rest this would spin.
                    let _ = timeout(BACKOFF, self.shutdown.cancelled()).await;
                }
            }
        }
    }

    /// Serves a new connection, or says that there are too many.
    fn take(&self, door: SocketKind, stream: UnixStream) {
        let peer = match Peer::of(&stream) {
            Ok(peer) => Arc::new(peer),
            Err(error) => return tracing::warn!(%error, "connection closed: its peer is unknown"),
        };
        let Some(permit) = self.limiter.acquire(peer.uid) else {
            tracing::debug!(uid = peer.uid, "connection rejected: no more are allowed");
            if let Ok(permit) = Arc::clone(&self.rejected).try_acquire_owned() {
                self.spawn(async move {
                    reject(stream).await;
                    drop(permit);
                });
            }
            return;
        };
        let access = Access::of(&peer, door, &self.admitted);
        let permit = Arc::new(permit);
        let client = Client { peer, door, access, permit: Arc::clone(&permit) };
        let service = Service::new(self.app.clone(), Some(client), self.limits.clone(), self.shutdown.clone());
        self.spawn(async move {
            serve_connection(stream, service).await;
            // Not before: also a connection that only waits for its peer to read has a descriptor.
            drop(permit);
        });
    }

    fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) {
        let abort = self.abort.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = connection => {}
                () = abort.cancelled() => {}
            }
        });
    }

    /// Waits for the connections to finish, then drops those that have not.
    async fn close(self) {
        self.tasks.close();
        if timeout(self.limits.grace, self.tasks.wait()).await.is_err() {
            tracing::warn!(connections = self.tasks.len(), "connections did not finish in time");
            self.abort.cancel();
            let _ = timeout(DROPPING, self.tasks.wait()).await;
        }
    }
}

/// Serves one connection on which nobody is known, with the limits of the sockets.
pub(super) async fn serve_anonymous<S: AsyncRead + AsyncWrite + Unpin>(stream: S, app: Router, shutdown: CancellationToken) {
    serve_connection(stream, Service::new(app, None, Limits::default(), shutdown)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_everything_else() {
        assert_eq!(Limits::default().within(u64::MAX), Limits::default());
        assert_eq!(Limits::default().within(1024), Limits::default());
        let few = Limits::default().within(256);
        assert_eq!((few.max_connections, few.root_reserve), (96, 16));
        let least = Limits::default().within(10);
        assert_eq!((least.max_connections, least.root_reserve), (2, 1));
    }
}
