//! TLS: the handshakes, on a thread of their own.
//!
//! ```text
//!  [listen] tls ─► accept ─► handshake: certificate required ─► names ─► Established ─► the event loop of the API
//!                   nicd-tls: at most HANDSHAKES at a time                 Acceptor::accept_secure
//! ```
//!
//! A peer without a certificate that the authorities vouch for costs the API's event loop nothing: its connection ends here. So do the
//! signatures of all others. After the handshake a connection moves to the event loop that serves the sockets.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::conn::{GOODBYE, goodbye};
use super::newest::Newest;
use super::{BACKOFF, LOG_EVERY, Limits};
use crate::telemetry::meters;
use crate::tls::{Names, Tls};

/// How many handshakes are under way at most. A further one replaces the oldest: a handshake takes milliseconds, so the oldest one's
/// peer says nothing.
pub(super) const HANDSHAKES: usize = 256;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// How many connections may wait for the API's event loop.
pub(super) const WAITING: usize = 64;

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 1024;

/// The listener of `[listen] tls`.
#[derive(Debug)]
pub struct SecureListener {
    listener: StdListener,
    tls: watch::Receiver<Arc<Tls>>,
}

/// A connection whose peer has proven that its certificate is its own.
pub(super) struct Established {
    pub stream: TlsStream<Transport>,
    pub names: Arc<Names>,
    pub tls: watch::Receiver<Arc<Tls>>,
}

impl SecureListener {
    /// Listens at `address`, also if this host does not have it yet. `tls` says how clients are served at any time.
    ///
    /// # Errors
    /// Another program listens there, or the system does not allow it.
    pub fn bind(address: SocketAddr, tls: watch::Receiver<Arc<Tls>>) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        setsockopt(&socket, sockopt::IpFreebind, &true)?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
        listen(&socket, Backlog::new(BACKLOG)?)?;
        Ok(Self { listener: socket.into(), tls })
    }

    /// Does the handshakes until `shutdown` is cancelled.
    pub(super) async fn run(self, established: mpsc::Sender<Established>, shutdown: CancellationToken) {
        let listener = match TcpListener::from_std(self.listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "no client is served over TLS"),
        };
        let mut handshakes = Newest::new(HANDSHAKES);
        let mut failures = FailureLog::default();
        let (failing, mut failed) = mpsc::channel(WAITING);
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                Some(failure) = failed.recv() => {
                    failures.log(&failure);
                    continue;
                }
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let (tls, established, failing) = (self.tls.clone(), established.clone(), failing.clone());
                    let replaced = handshakes.run(async move {
                        match secure(stream, tls).await {
                            // The API takes no more when the daemon ends.
                            Ok(connection) => _ = established.send(connection).await,
                            // Of many at once some are not logged.
                            Err(why) => _ = failing.try_send(Failure { peer: Some(peer), why }),
                        }
                    });
                    if replaced {
                        meters().secured("replaced");
                    }
                    tokio::task::yield_now().await;
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    failures.log(&Failure { peer: None, why: format!("not accepted: {error}") });
                    let _ = timeout(BACKOFF, shutdown.cancelled()).await;
                }
            }
        }
    }
}

/// A handshake that failed, or a connection that could not be accepted.
struct Failure {
    /// None where there is no connection.
    peer: Option<SocketAddr>,
    why: String,
}

/// Logs failures, one in [`LOG_EVERY`].
#[derive(Default)]
struct FailureLog {
    last: Option<Instant>,
    /// How many were not logged since.
    since: usize,
}

impl FailureLog {
    fn log(&mut self, Failure { peer, why }: &Failure) {
        if self.last.is_some_and(|at| at.elapsed() < LOG_EVERY) {
            self.since += 1;
            return;
        }
        let peer = peer.map(tracing::field::display);
        tracing::warn!(peer, why, not_logged = self.since, "a client could not be served over TLS");
        *self = Self { last: Some(Instant::now()), since: 0 };
    }
}

/// Does the handshake; a sentence when there is none.
async fn secure(stream: TcpStream, tls: watch::Receiver<Arc<Tls>>) -> Result<Established, String> {
    // An answer is sent at once, and a peer that is gone is noticed although nothing is sent to it.
    let _ = stream.set_nodelay(true);
    let stall = u32::try_from(Limits::default().stall.as_millis()).unwrap_or(u32::MAX);
    let _ = setsockopt(&stream, sockopt::TcpUserTimeout, &stall);
    let config = Arc::clone(&tls.borrow().config);
    let accepting = TlsAcceptor::from(config).accept(Transport::Here(stream)).into_fallible();
    let mut stream = match timeout(HANDSHAKE, accepting).await {
        Ok(Ok(stream)) => stream,
        Ok(Err((error, mut transport))) => {
            meters().secured("failed");
            // The peer reads why from the alert only if what it has sent was read.
            goodbye(&mut transport, GOODBYE).await;
            return Err(error.to_string());
        }
        Err(_) => {
            meters().secured("late");
            return Err(format!("no handshake in {} s", HANDSHAKE.as_secs()));
        }
    };
    // The verifier has seen to it that there is one.
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).map(|certificate| Names::of(certificate));
    let names = match certificate {
        Some(Ok(names)) => Arc::new(names),
        Some(Err(why)) => {
            meters().secured("failed");
            return Err(why);
        }
        None => return Err("no certificate".to_owned()),
    };
    stream.get_mut().0.leave().map_err(|error| error.to_string())?;
    meters().secured("ok");
    Ok(Established { stream, names, tls })
}

/// A TCP connection that can move from one event loop to another.
#[derive(Debug)]
pub(super) enum Transport {
    /// This event loop waits for it.
    Here(TcpStream),
    /// None does.
    Between(StdStream),
    /// It could not be moved.
    Lost,
}

impl Transport {
    /// Has this event loop wait for it no more.
    fn leave(&mut self) -> io::Result<()> {
        if let Self::Here(stream) = std::mem::replace(self, Self::Lost) {
            *self = Self::Between(stream.into_std()?);
        }
        Ok(())
    }

    /// Has this event loop wait for it.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn arrive(&mut self) -> io::Result<()> {
        if let Self::Between(stream) = std::mem::replace(self, Self::Lost) {
            *self = Self::Here(TcpStream::from_std(stream)?);
        }
        Ok(())
    }

    fn here(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        match self {
            Self::Here(stream) => Ok(Pin::new(stream)),
            Self::Between(_) | Self::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.here()?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Transport {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.here()?.poll_write(cx, buf)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.here()?.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.here()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.here()?.poll_shutdown(cx)
    }
}
