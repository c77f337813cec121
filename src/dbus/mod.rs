//! Ports on the system bus, for reading and for opening taps. Attaching and detaching need the HTTP socket.
//!
//! ```text
//!  service ── events ──► follow ──► PropertyCache (each port as signalled) ── signals ──► bus
//!                                     ▲
//!  bus ── call ──► calls ── caller? ──┤ reads
//!                    └── OpenTap ─────┴──► service ──► kernel
//! ```
//!
//! It reads the reconciler's views and follows the events like any reader; after lost events it lists all ports again. It runs on
//! its own thread, so that a missing, slow or restarting bus never delays a port. Unsent signals need no queue: the reader's
//! position in the event ring marks them.
//!
//! nicd dispatches calls itself instead of using zbus's object server, because the object server answers `GetManagedObjects` and
//! `Introspect` without checking the caller; only peers of the view socket may call them. So nicd registers nothing per port.

mod cache;
mod caller;
mod calls;
mod error;
mod follow;
mod object;
mod xml;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use zbus::connection::{Builder, Connection};
use zbus::fdo::RequestNameFlags;
use zbus::message::Type;
use zbus::{MatchRule, MessageStream};

use crate::access::AllowedPeers;
use crate::config::DbusSettings;
use crate::service::{Finding, Service};
use crate::telemetry::meters;

use cache::PropertyCache;
use calls::Calls;
use follow::Follower;

pub use calls::PAGE;
pub use object::{PORTS, ROOT};

/// The name on the bus.
pub const NAME: &str = "org.nicd.Agent1";

/// How long connecting, and any answer of the bus itself, may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest wait between two tries to connect.
const LONGEST: Duration = Duration::from_secs(30);

/// What the D-Bus task needs.
#[derive(Debug, Clone)]
pub struct Bus {
    /// What is shown.
    pub service: Arc<Service>,
    /// Where.
    pub settings: DbusSettings,
    /// To whom.
    pub admitted: AllowedPeers,
}

/// How connecting went so far.
#[derive(Debug, Default)]
struct Past {
    /// Tries in a row that failed.
    failures: u32,
    /// Whether one did not.
    was_there: bool,
}

/// Why the connection ended.
enum End {
    /// The daemon ends.
    Stop,
    /// The bus does not answer, refuses the name, or is gone.
    Lost(zbus::Error),
}

impl Bus {
    /// Exports ports until `stop` is cancelled. Connects again after each failure.
    pub async fn run(self, stop: CancellationToken) {
        let mut past = Past::default();
        loop {
            let error = match self.serve(&stop, &mut past).await {
                End::Stop => return,
                End::Lost(error) => error,
            };
            // A host that never had a bus does not have this problem.
            if past.was_there {
                let detail = format!("ports are not shown on the bus, and no tap is opened by it: {error}");
                let remedy = "systemctl start dbus; nicd comes back to it by itself, within 30 s";
                self.service.reconciler().note_bus(Some(Finding::new(detail, remedy)));
            }
            meters().dbus_connected.set(0);
            past.failures += 1;
            let failures = past.failures;
            // Logged once for repeated failures.
            if failures == 1 {
                tracing::warn!(%error, "no bus: ports are not shown on it until there is one; everything else goes on");
            } else {
                tracing::debug!(%error, failures, "no bus yet");
            }
            if timeout(backoff(failures), stop.cancelled()).await.is_ok() {
                return;
            }
        }
    }

    /// One connection, from its beginning to its end.
    async fn serve(&self, stop: &CancellationToken, past: &mut Past) -> End {
        let connected = tokio::select! {
            connected = timeout(PATIENCE, self.connect()) => connected,
            () = stop.cancelled() => return End::Stop,
        };
        let (connection, calls, mut follower, cache) = match connected {
            Ok(Ok(connected)) => connected,
            Ok(Err(error)) => return End::Lost(error),
            Err(_) => return End::Lost(zbus::Error::Failure("the bus does not answer".to_owned())),
        };
        *past = Past { failures: 0, was_there: true };
        meters().dbus_connected.set(1);
        self.service.reconciler().note_bus(None);
        tracing::info!(name = NAME, "on the bus");
        let answering = Calls::new(self.clone(), connection.clone(), cache);
        tokio::select! {
            () = stop.cancelled() => End::Stop,
            () = connection.closed() => End::Lost(zbus::Error::Failure("the bus closed the connection".to_owned())),
            error = follower.run() => End::Lost(error),
            () = answering.run(calls) => End::Lost(zbus::Error::Failure("the bus is gone".to_owned())),
        }
    }

    /// Lists all ports before the name is requested, so that a client that finds the name finds every port.
    async fn connect(&self) -> zbus::Result<(Connection, MessageStream, Follower, Arc<PropertyCache>)> {
        let builder = self.settings.address.as_deref().map_or_else(Builder::system, Builder::address);
        let connection = builder.method_timeout(PATIENCE).build().await?;
        let calls = MatchRule::builder().msg_type(Type::MethodCall).build()?;
        let calls = MessageStream::for_match_rule(calls, &connection, None).await?;
        let cache = Arc::new(PropertyCache::default());
        let follower = Follower::new(Arc::clone(&self.service), connection.clone(), Arc::clone(&cache));
        connection.request_name_with_flags(NAME, RequestNameFlags::DO_NOT_QUEUE).await?;
        Ok((connection, calls, follower, cache))
    }
}

/// Exponential backoff from 500 ms with jitter, so that the daemons of many hosts do not reconnect at the same time.
fn backoff(failures: u32) -> Duration {
    let full = Duration::from_millis(500 << failures.saturating_sub(1).min(6)).min(LONGEST);
    full.mul_f64(rand::random_range(0.5..1.0))
}
