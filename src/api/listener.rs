//! The edge: accepts connections on both sockets and lets complete, admitted requests through to the handlers.
//!
//! ```text
//!  nicd.sock ─────► accept ─► peer ─► seat ─┬─► drive: hyper over Wire ─► gate ─► Router
//!  nicd-view.sock ► accept ─► peer ─► seat ─┘      (limits in time)     (caller, body, id)
//!                                      └─ none free: 503
//! ```
//!
//! What a client may cost is bounded here, and only here: connections (`seats`), bytes and time of a request, time of a
//! reader that does not read (`line`). What a request means is not known here: no route, no action. hyper frames the
//! messages (RFC 9112), so lying lengths and odd chunks end in it.

use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::socket::Listening;
use crate::access::{Access, Admitted, Door, Peer};
use crate::config::SocketSettings;
use crate::exit::chain;

mod drive;
mod gate;
mod line;
mod refusal;
mod seats;

use gate::Gate;
use line::Line;
use seats::{Room, Seats};

pub use gate::Caller;
pub use refusal::RequestId;

/// How long accepting rests after it failed for want of descriptors or memory.
const BACKOFF: Duration = Duration::from_millis(100);

/// How often a failure to accept is logged at most.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// How many connections beyond the seats are told so at the same time; further ones are closed without words.
const TURNED_AWAY: usize = 64;

/// Descriptors that are not for connections: both sockets, netlink, the store, taps and namespaces that are being built, the
/// bus, and scrapers on TCP.
const OWN_DESCRIPTORS: usize = 96;

/// How long a connection that is told to leave at once has for its next step.
const LEAVING: Duration = Duration::from_millis(250);

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
    /// How long a connection must have been idle before, all being in use, one more of the same uid takes its seat.
    pub idle_grace: Duration,
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
            idle: Duration::from_secs(300),
            idle_grace: Duration::from_secs(5),
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
        let most = descriptors.saturating_sub(OWN_DESCRIPTORS + TURNED_AWAY).max(2);
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

/// Both doors, and whom they are for.
#[derive(Debug)]
pub struct Listener {
    sockets: Listening,
    admitted: Admitted,
    limits: Limits,
    /// Sockets to be served beside those.
    renewed: Receiver<(Door, StdListener)>,
}

impl Listener {
    /// What `serve` will serve.
    pub fn new(sockets: Listening, admitted: Admitted, limits: Limits) -> Self {
        let renewed = channel(1).1;
        Self { sockets, admitted, limits, renewed }
    }

    /// Serves further sockets as they come: those made anew in the place of some that nobody gets to any more.
    pub fn with_renewed(self, renewed: Receiver<(Door, StdListener)>) -> Self {
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
        let grace = limits.grace;
        let house = House::new(app, admitted, limits, shutdown);
        let mut accepting = FuturesUnordered::new();
        accepting.push(house.accept(Door::Main, main));
        accepting.extend(view.map(|view| house.accept(Door::View, view)));
        while !accepting.is_empty() {
            let further = tokio::select! {
                biased;
                _ = accepting.next() => continue,
                Some(further) = renewed.recv() => further,
            };
            match register(further.1) {
                Ok(socket) => accepting.push(house.accept(further.0, socket)),
                Err(error) => tracing::error!(error = chain(&error), "a socket made anew is not served"),
            }
        }
        drop(accepting);
        house.close(grace).await;
        Ok(())
    }
}

fn register(socket: StdListener) -> Result<UnixListener, ListenerError> {
    socket.set_nonblocking(true).and_then(|()| UnixListener::from_std(socket)).map_err(ListenerError::Register)
}

/// What all connections share.
struct House {
    app: Router,
    admitted: Admitted,
    limits: Limits,
    seats: Arc<Seats>,
    turned_away: Arc<Semaphore>,
    tasks: TaskTracker,
    /// Cancelled: finish what you do.
    shutdown: CancellationToken,
    /// Cancelled: leave at once. Each connection has a child of it.
    leave: CancellationToken,
}

impl House {
    fn new(app: Router, admitted: Admitted, limits: Limits, shutdown: CancellationToken) -> Self {
        let room = Room { max: limits.max_connections, reserve: limits.root_reserve, idle_grace: limits.idle_grace };
        Self {
            app,
            admitted,
            limits,
            seats: Seats::new(room),
            turned_away: Arc::new(Semaphore::new(TURNED_AWAY)),
            tasks: TaskTracker::new(),
            shutdown,
            leave: CancellationToken::new(),
        }
    }

    /// Accepts at one door until the daemon ends.
    async fn accept(&self, door: Door, listener: UnixListener) {
        let mut complaint = Throttle::default();
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    self.welcome(door, stream);
                    // Who has lost a seat closes before the next one comes, or a crowd would take all descriptors at once.
                    tokio::task::yield_now().await;
                }
                // The client went away before we came (accept(2)).
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    if complaint.allows(Instant::now()) {
                        tracing::error!(?door, %error, "connections cannot be accepted");
                    }
                    // The connection stays in the backlog, and the socket stays readable: without a rest this would spin.
                    let _ = timeout(BACKOFF, self.shutdown.cancelled()).await;
                }
            }
        }
    }

    /// Seats a new connection, or says that there is no seat.
    fn welcome(&self, door: Door, stream: UnixStream) {
        let peer = match Peer::of(&stream) {
            Ok(peer) => Arc::new(peer),
            Err(error) => return tracing::warn!(%error, "connection closed: its peer is unknown"),
        };
        let line = Line::new();
        let leave = self.leave.child_token();
        let Some(seat) = self.seats.take(peer.uid, Arc::clone(&line), leave.clone()) else {
            return self.turn_away(peer.uid, stream);
        };
        let gate = Gate {
            app: self.app.clone(),
            access: Access::of(&peer, door, &self.admitted),
            peer,
            door,
            limits: self.limits.clone(),
            line,
            seats: Arc::clone(&self.seats),
            shutdown: self.shutdown.clone(),
        };
        self.tasks.spawn(async move {
            drive::drive(stream, gate, leave).await;
            drop(seat);
        });
    }

    fn turn_away(&self, uid: u32, stream: UnixStream) {
        let Ok(permit) = Arc::clone(&self.turned_away).try_acquire_owned() else { return };
        tracing::debug!(uid, "connection refused: all are in use");
        self.tasks.spawn(async move {
            drive::turn_away(stream).await;
            drop(permit);
        });
    }

    /// Waits for the connections to finish, then ends those that have not.
    async fn close(self, grace: Duration) {
        self.tasks.close();
        if timeout(grace, self.tasks.wait()).await.is_err() {
            tracing::warn!(connections = self.tasks.len(), "connections did not finish in time");
            self.leave.cancel();
            // Each leaves at its next step; one that cannot is left to the end of the runtime.
            let _ = timeout(LEAVING, self.tasks.wait()).await;
        }
    }
}

/// Lets one through per [`LOG_EVERY`].
#[derive(Debug, Default)]
struct Throttle {
    last: Option<Instant>,
}

impl Throttle {
    fn allows(&mut self, now: Instant) -> bool {
        let due = self.last.is_none_or(|last| now.duration_since(last) >= LOG_EVERY);
        if due {
            self.last = Some(now);
        }
        due
    }
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

    #[test]
    fn a_failure_is_logged_once_in_ten_seconds() {
        let start = Instant::now();
        let mut throttle = Throttle::default();
        let logged = (0..=300).filter(|tenth| throttle.allows(start + Duration::from_millis(tenth * 100))).count();
        assert_eq!(logged, 4);
    }
}
