//! One member of etcd: its connections, and one request on one of them.
//!
//! Connections are kept for the next requests. One that has been idle for long is not used again, since what is between may have forgotten
//! it. A request that met a connection which the server had just closed is sent on another one, if hyper gives it back: then no byte of it
//! was sent.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Body, Bytes};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::error::{Failure, Unreached};
use super::wire;
use crate::config::{FleetTls, Url};
use crate::exit::chain;
use crate::http::{self, NoBody};
use crate::tls::client_config;

/// How long a connection may take, TLS aside.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// The longest answer, in bytes.
const MAX_ANSWER: usize = 16 << 20;

/// How many connections without a request are kept.
const MAX_IDLE: usize = 4;

/// For how long one is.
const IDLE_LIMIT: Duration = Duration::from_secs(10);

/// When a silent connection is asked for a sign of life by TCP, how often, and how often in vain; and for how long what was sent may stay
/// unacknowledged: a connection into nowhere ends within 15 s.
const KEEPALIVE_IDLE: u32 = 6;
const KEEPALIVE_INTERVAL: u32 = 3;
const KEEPALIVE_COUNT: u32 = 3;
const UNACKNOWLEDGED: Duration = Duration::from_secs(15);

/// With it a member that knows no leader refuses at once, and ends its watches, in place of waiting for one.
const HAS_LEADER: &str = "grpc-metadata-hasleader";

/// A member of etcd.
#[derive(Debug)]
pub(super) struct Endpoint {
    url: Url,
    tls: FleetTls,
    idle: Mutex<Vec<Connection<Full<Bytes>>>>,
}

/// A connection, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Connection<B> {
    pub(super) sender: SendRequest<B>,
    /// It moves the connection's bytes.
    _task: AbortOnDropHandle<()>,
    since: Instant,
}

impl Endpoint {
    pub(super) fn new(url: Url, tls: FleetTls) -> Self {
        Self { url, tls, idle: Mutex::default() }
    }

    /// Its address as configured.
    pub(super) fn name(&self) -> String {
        self.url.to_string()
    }

    /// Why there is no answer from it.
    pub(super) fn unreached(&self, why: impl Into<String>) -> Unreached {
        Unreached { endpoint: self.name(), why: why.into() }
    }

    /// A request to it.
    ///
    /// # Errors
    /// The token has a character that HTTP forbids.
    pub(super) fn request<B>(&self, path: &str, token: Option<&str>, body: B) -> Result<Request<B>, Failure> {
        let mut request = Request::post(path)
            .header(HOST, &self.url.authority)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("nicd/", env!("CARGO_PKG_VERSION")))
            .header(HAS_LEADER, "true");
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, token);
        }
        // The error could repeat the token.
        request.body(body).map_err(|_| Failure::NotSent("its token cannot be sent".to_owned()))
    }

    /// Sends JSON and reads the answer, until `deadline`.
    pub(super) async fn post(&self, path: &str, token: Option<&str>, body: Bytes, deadline: Instant) -> Result<Bytes, Failure> {
        let mut request = self.request(path, token, Full::new(body))?;
        loop {
            let kept = self.kept().await;
            let was_kept = kept.is_some();
            let mut connection = match kept {
                Some(connection) => connection,
                None => self.connect(deadline).await.map_err(Failure::NotSent)?,
            };
            let late = |_| Failure::Lost("no answer in time".to_owned());
            let answer = match timeout_at(deadline, connection.sender.try_send_request(request)).await.map_err(late)? {
                Ok(answer) => answer,
                Err(mut error) => match error.take_message() {
                    Some(unsent) if was_kept => {
                        request = unsent;
                        continue;
                    }
                    Some(_) => return Err(Failure::NotSent(chain(error.error()))),
                    None => return Err(Failure::Lost(chain(error.error()))),
                },
            };
            let (head, body) = answer.into_parts();
            let body = timeout_at(deadline, http::read_body(body, MAX_ANSWER)).await.map_err(late)??;
            self.keep(connection);
            if head.status.is_success() {
                return Ok(body);
            }
            return Err(match wire::told_answer(&body) {
                Some(told) => Failure::Told(told),
                None => Failure::Lost(format!("it answers {}: {}", head.status.as_u16(), http::begins(&body))),
            });
        }
    }

    /// Connects.
    pub(super) async fn connect<B>(&self, deadline: Instant) -> Result<Connection<B>, String>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::error::Error + Send + Sync,
    {
        let connecting = async {
            let stream = http::connect(&self.url.host, self.url.port, CONNECT_LIMIT).await?;
            watch_over(&stream).map_err(|error| format!("the socket's options: {error}"))?;
            if !self.url.tls {
                return handshake(stream).await;
            }
            let tls = self.tls.clone();
            let config = tokio::task::spawn_blocking(move || read_config(&tls)).await.map_err(|error| error.to_string())?;
            handshake(http::secure(&self.url.host, config.map_err(|error| error.to_string())?, stream).await?).await
        };
        timeout_at(deadline, connecting).await.unwrap_or_else(|_| Err("no connection in time".to_owned()))
    }

    /// A connection that was kept, if there is one.
    async fn kept(&self) -> Option<Connection<Full<Bytes>>> {
        loop {
            let connection = self.take()?;
            // Its end may have come while this thread did something else: now it is seen.
            tokio::task::yield_now().await;
            if connection.since.elapsed() < IDLE_LIMIT && connection.sender.is_ready() {
                return Some(connection);
            }
        }
    }

    fn take(&self) -> Option<Connection<Full<Bytes>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn keep(&self, mut connection: Connection<Full<Bytes>>) {
        connection.since = Instant::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MAX_IDLE {
            idle.push(connection);
        }
    }
}

impl From<NoBody> for Failure {
    fn from(error: NoBody) -> Self {
        match error {
            NoBody::TooLong(_) => Self::TooLong(error.to_string()),
            NoBody::Broken(why) => Self::Lost(why),
        }
    }
}

/// How TLS is spoken, with the files as they are now.
pub(super) fn read_config(tls: &FleetTls) -> Result<tokio_rustls::rustls::ClientConfig, crate::tls::pem::FileError> {
    client_config(tls.ca.as_deref(), tls.cert.as_deref().zip(tls.key.as_deref()))
}

async fn handshake<B, S>(stream: S) -> Result<Connection<B>, String>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::error::Error + Send + Sync,
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| chain(&error))?;
    // Its error is also that of the request.
    let task = tokio::spawn(async move { connection.await.unwrap_or_default() });
    Ok(Connection { sender, _task: AbortOnDropHandle::new(task), since: Instant::now() })
}

/// Has the kernel end a connection whose other side is gone.
fn watch_over(stream: &TcpStream) -> nix::Result<()> {
    let milliseconds = u32::try_from(UNACKNOWLEDGED.as_millis()).unwrap_or(u32::MAX);
    setsockopt(stream, sockopt::TcpNoDelay, &true)?;
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &KEEPALIVE_IDLE)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &KEEPALIVE_INTERVAL)?;
    setsockopt(stream, sockopt::TcpKeepCount, &KEEPALIVE_COUNT)?;
    setsockopt(stream, sockopt::TcpUserTimeout, &milliseconds)
}

/// The beginning of an answer that is no stream.
pub(super) async fn refusal(answer: Response<hyper::body::Incoming>, deadline: Instant) -> Failure {
    let status = answer.status().as_u16();
    match timeout_at(deadline, http::read_body(answer.into_body(), MAX_ANSWER)).await {
        Ok(Ok(body)) => match wire::told_answer(&body) {
            Some(told) => Failure::Told(told),
            None => Failure::Lost(format!("it answers {status}: {}", http::begins(&body))),
        },
        Ok(Err(error)) => error.into(),
        Err(_) => Failure::Lost(format!("it answers {status}, and no more in time")),
    }
}
