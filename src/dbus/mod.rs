//! Ports on the system bus, for seeing and for descriptors. Attaching and detaching is the socket's.
//!
//! ```text
//!  manager ── events ──► follow ──► PropertyCache (each port as told) ── signals ──► bus
//!                                     ▲
//!  bus ── call ──► calls ── caller? ──┤ reads
//!                    └── OpenTap ─────┴──► manager ──► kernel
//! ```
//!
//! It has no logic of its own: it reads the manager's views, follows its events as any reader, and has them listed anew
//! when some were lost. It runs on a thread of its own, so that no bus, a slow one, one that is stopped or restarted
//! delays a port; what cannot be sent waits here, as a position in the ring of events.
//!
//! Calls are dispatched here rather than by zbus's object server: that one answers `GetManagedObjects` and `Introspect`
//! without saying who asks, and each of these is for whom the view socket is for. Thus an object costs what is shown of
//! it, and nothing is registered per port.

mod cache;
mod caller;
mod calls;
mod follow;
mod object;
mod refusal;
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
use crate::service::Service;
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

/// What the task on the bus needs.
#[derive(Debug, Clone)]
pub struct Bus {
    /// What is shown.
    pub manager: Arc<Service>,
    /// Where.
    pub settings: DbusSettings,
    /// To whom.
    pub admitted: AllowedPeers,
}

/// Why it is not on the bus any more.
enum End {
    /// The daemon ends.
    Stop,
    /// The bus does not answer, refuses the name, or is gone.
    Lost(zbus::Error),
}

impl Bus {
    /// Shows ports until `stop` is cancelled: connects, and connects again, for as long as it takes.
    pub async fn run(self, stop: CancellationToken) {
        let mut failures = 0;
        loop {
            let error = match self.serve(&stop, &mut failures).await {
                End::Stop => return,
                End::Lost(error) => error,
            };
            meters().dbus_connected.set(0);
            failures += 1;
            // Said once; what follows is the same trouble.
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
    async fn serve(&self, stop: &CancellationToken, failures: &mut u32) -> End {
        let connected = tokio::select! {
            connected = timeout(PATIENCE, self.connect()) => connected,
            () = stop.cancelled() => return End::Stop,
        };
        let (connection, calls, mut follower, cache) = match connected {
            Ok(Ok(connected)) => connected,
            Ok(Err(error)) => return End::Lost(error),
            Err(_) => return End::Lost(zbus::Error::Failure("the bus does not answer".to_owned())),
        };
        *failures = 0;
        meters().dbus_connected.set(1);
        tracing::info!(name = NAME, "on the bus");
        let answering = Calls::new(self.clone(), connection.clone(), cache);
        tokio::select! {
            () = stop.cancelled() => End::Stop,
            () = connection.closed() => End::Lost(zbus::Error::Failure("the bus closed the connection".to_owned())),
            error = follower.run() => End::Lost(error),
            () = answering.run(calls) => End::Lost(zbus::Error::Failure("the bus is gone".to_owned())),
        }
    }

    /// Whoever finds the name finds every port there, and what happens from then on is told.
    async fn connect(&self) -> zbus::Result<(Connection, MessageStream, Follower, Arc<PropertyCache>)> {
        let builder = self.settings.address.as_deref().map_or_else(Builder::system, Builder::address);
        let connection = builder.method_timeout(PATIENCE).build().await?;
        let calls = MatchRule::builder().msg_type(Type::MethodCall).build()?;
        let calls = MessageStream::for_match_rule(calls, &connection, None).await?;
        let cache = Arc::new(PropertyCache::default());
        let follower = Follower::new(Arc::clone(&self.manager), connection.clone(), Arc::clone(&cache));
        connection.request_name_with_flags(NAME, RequestNameFlags::DO_NOT_QUEUE).await?;
        Ok((connection, calls, follower, cache))
    }
}

/// Doubling from 500 ms, by half at random: the daemons of many hosts do not come back at once.
fn backoff(failures: u32) -> Duration {
    let full = Duration::from_millis(500 << failures.saturating_sub(1).min(6)).min(LONGEST);
    full.mul_f64(rand::random_range(0.5..1.0))
}
