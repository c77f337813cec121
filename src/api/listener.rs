//! The server: accepts connections on both sockets and on TLS, and lets complete, admitted requests through to the handlers.
//!
//! ```text
//!  nicd.sock ─────► accept ─► peer ───────┬─► permit ─► serve_connection: hyper over Io ─► Service ─► Router
//!  nicd-view.sock ► accept ─► peer ───────┤     │        (limits in time)        (caller, body, id)
//!  [listen] tls ──► secure: certificate ──┘     └─ none free: reject, 503
//! ```
//!
//! Sockets and TLS have limits of their own for connections, so that neither takes them from the other.
//!
//! What a client may cost is limited here alone: connections (`limiter`), the bytes of a request and the time it takes
//! (`service`, `conn`), and the time of a reader that does not read (`conn`). No route and no action is known here. hyper frames
//! the messages (RFC 9112) and refuses wrong lengths and malformed chunks.
//!
//! The layers of tower-http are not used: their refusals have no body of the dialect, `CatchPanic` does not know the request
//! that it answers, and `Timeout` and hyper's own timers cannot tell a connection that waits from a request that is late.

use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{self, Receiver};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::socket::Listening;
use crate::access::{Access, AllowedPeers, Peer, SocketKind};
use crate::config::Settings;
use crate::model::idempotency::CallerId;
use crate::telemetry::meters;

mod conn;
mod limiter;
mod newest;
mod refusal;
mod secure;
mod service;

use conn::{reject, serve_connection};
use limiter::ConnLimiter;
use secure::{Established, HANDSHAKES, WAITING};
use service::{Client, Rights, Service};

pub(super) use newest::Newest;
pub use refusal::RequestId;
pub use secure::SecureListener;
pub use service::Caller;

/// How long no connection is accepted after accepting has failed for want of descriptors or memory.
pub(super) const BACKOFF: Duration = Duration::from_millis(100);

/// How often a failure to accept is logged at most.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// How many connections beyond the limit are answered at the same time; further ones are closed without an answer.
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
    /// How long a peer may read nothing of an answer that waits for it.
    pub stall: Duration,
    /// How long requests that have begun may go on when the daemon ends.
    pub grace: Duration,
    /// Connections of both sockets together.
    pub max_connections: usize,
    /// Of these, for uid 0 alone.
    pub root_reserve: usize,
    /// Connections on TLS.
    pub max_secure: usize,
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
            max_secure: 0,
        }
    }
}

impl From<&Settings> for Limits {
    fn from(Settings { socket, listen, .. }: &Settings) -> Self {
        Self {
            max_connections: socket.max_connections,
            root_reserve: socket.root_reserve,
            max_secure: if listen.tls.is_some() { listen.max_connections } else { 0 },
            ..Self::default()
        }
    }
}

impl Limits {
    /// No more connections than `descriptors` allow beside our own: when none are left, no connection can be accepted, not even
    /// root, and nothing can be built.
    #[must_use]
    pub fn within(self, descriptors: u64) -> Self {
        let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
        let own = OWN_DESCRIPTORS + REJECTED + if self.max_secure > 0 { HANDSHAKES + WAITING } else { 0 };
        let most = descriptors.saturating_sub(own).max(2);
        let max_connections = self.max_connections.min(most);
        let root_reserve =
            if max_connections < self.max_connections { self.root_reserve.min(most / 2) } else { self.root_reserve };
        let max_secure = self.max_secure.min((most - max_connections).max(2));
        let limited = Self { max_connections, root_reserve, max_secure, ..self.clone() };
        if limited != self {
            let wanted = self.max_connections + self.max_secure;
            tracing::warn!(descriptors, wanted, possible = max_connections + max_secure, "fewer connections than configured");
        }
        limited
    }
}

/// The server of both sockets, and of TLS where it is configured.
#[derive(Debug)]
pub struct Server {
    sockets: Listening,
    admitted: AllowedPeers,
    limits: Limits,
    secure: Option<mpsc::Receiver<Established>>,
}

impl Server {
    /// What `serve` will serve.
    pub fn new(sockets: Listening, admitted: AllowedPeers, limits: Limits) -> Self {
        Self { sockets, admitted, limits, secure: None }
    }

    /// The same server, which also serves clients with certificates. The handshakes are the second value, which is to run on a thread of
    /// its own until `shutdown` is cancelled.
    pub fn with_tls(
        self,
        listener: SecureListener,
        shutdown: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (established, secure) = mpsc::channel(WAITING);
        (Self { secure: Some(secure), ..self }, listener.run(established, shutdown))
    }

    /// Serves `app` on both sockets and on TLS, and on sockets that come by `renewed`, which replace one that clients no longer reach.
    /// When `shutdown` is cancelled it accepts no more, lets requests that have begun finish within the grace, ends streams,
    /// closes what is idle, and returns.
    ///
    /// # Errors
    /// A socket cannot be registered with the event loop; nothing was served.
    pub async fn serve(
        self,
        app: Router,
        mut renewed: Receiver<(SocketKind, StdListener)>,
        shutdown: CancellationToken,
    ) -> io::Result<()> {
        let Self { sockets: Listening { main, view }, admitted, limits, secure } = self;
        let main = register(main)?;
        let view = view.map(register).transpose()?;
        let acceptor = Arc::new(Acceptor {
            app,
            admitted,
            limiter: ConnLimiter::new(limits.max_connections, limits.root_reserve, meters().connections.clone()),
            secure_limiter: ConnLimiter::new(limits.max_secure, 0, meters().secure_connections.clone()),
            limits,
            rejected: Arc::new(Semaphore::new(REJECTED)),
            tasks: TaskTracker::new(),
            shutdown,
            abort: CancellationToken::new(),
        });
        let accept = |door, socket| acceptor.tasks.spawn(Arc::clone(&acceptor).accept(door, socket));
        accept(SocketKind::Main, main);
        view.map(|view| accept(SocketKind::View, view));
        secure.map(|secure| acceptor.tasks.spawn(Arc::clone(&acceptor).accept_secure(secure)));
        while let Some(Some((door, socket))) = acceptor.shutdown.run_until_cancelled(renewed.recv()).await {
            match register(socket) {
                Ok(socket) => drop(accept(door, socket)),
                Err(error) => tracing::error!(%error, "a socket made anew is not served"),
            }
        }
        acceptor.shutdown.cancelled().await;
        acceptor.close().await;
        Ok(())
    }
}

fn register(socket: StdListener) -> io::Result<UnixListener> {
    socket.set_nonblocking(true)?;
    UnixListener::from_std(socket)
}

/// What all connections share.
struct Acceptor {
    app: Router,
    admitted: AllowedPeers,
    limits: Limits,
    limiter: Arc<ConnLimiter>,
    secure_limiter: Arc<ConnLimiter>,
    rejected: Arc<Semaphore>,
    tasks: TaskTracker,
    /// Cancelled: requests that have begun finish, and no more are taken.
    shutdown: CancellationToken,
    /// Cancelled: every connection is dropped.
    abort: CancellationToken,
}

impl Acceptor {
    /// Accepts on one socket until the daemon ends.
    async fn accept(self: Arc<Self>, door: SocketKind, listener: UnixListener) {
        let mut logged: Option<Instant> = None;
        loop {
            let Some(accepted) = self.shutdown.run_until_cancelled(listener.accept()).await else { return };
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
                    // The connection stays in the backlog, and the socket stays readable: without a pause this would spin.
                    let _ = timeout(BACKOFF, self.shutdown.cancelled()).await;
                }
            }
        }
    }

    /// Takes the connections on TLS until the daemon ends.
    async fn accept_secure(self: Arc<Self>, mut connections: mpsc::Receiver<Established>) {
        while let Some(Some(established)) = self.shutdown.run_until_cancelled(connections.recv()).await {
            let Established { mut stream, names, tls } = established;
            match stream.get_mut().0.arrive() {
                Ok(()) => {
                    let id = CallerId::Client(names.first());
                    self.begin(stream, id, Rights::Tls(names, tls), &self.secure_limiter);
                }
                Err(error) => tracing::warn!(%error, "a connection on TLS is not served"),
            }
            tokio::task::yield_now().await;
        }
    }

    /// Serves a new connection to a socket.
    fn take(&self, door: SocketKind, stream: UnixStream) {
        match Peer::of(&stream) {
            Ok(peer) => {
                let rights = Rights::Socket(Access::of(&peer, door, &self.admitted));
                self.begin(stream, CallerId::Uid(peer.uid), rights, &self.limiter);
            }
            Err(error) => tracing::warn!(%error, "connection closed: its peer is unknown"),
        }
    }

    /// Serves a new connection, or says that there are too many.
    fn begin<S>(&self, stream: S, id: CallerId, rights: Rights, limiter: &Arc<ConnLimiter>)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Some(permit) = limiter.acquire(&id) else {
            tracing::debug!(caller = %id, "connection rejected: no more are allowed");
            if let Ok(permit) = Arc::clone(&self.rejected).try_acquire_owned() {
                self.spawn(async move {
                    reject(stream).await;
                    drop(permit);
                });
            }
            return;
        };
        let permit = Arc::new(permit);
        let client = Client { id, rights, permit: Arc::clone(&permit) };
        let service = Service::new(self.app.clone(), Some(client), self.limits.clone(), self.shutdown.clone());
        self.spawn(async move {
            serve_connection(stream, service).await;
            // Not before: a connection that only waits for its peer to read still has a descriptor.
            drop(permit);
        });
    }

    fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(self.abort.clone().run_until_cancelled_owned(connection));
    }

    /// Waits for the connections to finish, then drops those that have not.
    async fn close(&self) {
        self.tasks.close();
        if timeout(self.limits.grace, self.tasks.wait()).await.is_err() {
            tracing::warn!(connections = self.tasks.len(), "connections did not finish in time");
            self.abort.cancel();
            let _ = timeout(DROPPING, self.tasks.wait()).await;
        }
    }
}

/// Serves one connection whose peer is not known, with the limits of the sockets.
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
