//! HTTP/1.1 over a Unix socket or TLS: connections, requests, answers. [`Client`](crate::Client) is built on it.

use std::fmt::Write;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use crate::daemon::Remote;

/// The media type of JSON.
pub const JSON: &str = "application/json";

/// The media type of a stream of JSON objects, one to a line.
pub const LINES: &str = "application/x-ndjson";

/// How long to wait for room in the socket's backlog, in seconds, and how often to try, in milliseconds.
const BACKLOG_WAIT: Duration = Duration::from_secs(5);
const BACKLOG_RETRY: Duration = Duration::from_millis(5);

/// How long a stream may be silent before it counts as ended. nicd sends an empty line every 15 seconds.
const SILENCE: Duration = Duration::from_secs(60);

/// The longest line, in bytes. An event has some 400.
const LINE: usize = 1 << 20;

/// A call that was not answered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection failed.
    #[error(transparent)]
    Connect(#[from] io::Error),
    /// The connection ended, or what came was not HTTP, before the answer was complete.
    #[error(transparent)]
    Exchange(#[from] hyper::Error),
    /// HTTP cannot carry the request.
    #[error(transparent)]
    Request(#[from] hyper::http::Error),
}

/// One connection, on which one call follows the other.
#[derive(Debug)]
pub struct Connection(SendRequest<Full<Bytes>>);

/// Connects. Where many clients connect at once, the socket's backlog is full for a moment: a non-blocking connect then fails with
/// EAGAIN, and no event reports room (`unix_stream_connect`, net/unix/af_unix.c). So it is tried again, for [`BACKLOG_WAIT`].
async fn connect(path: &Path) -> io::Result<UnixStream> {
    let until = Instant::now() + BACKLOG_WAIT;
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < until => sleep(BACKLOG_RETRY).await,
            connected => return connected,
        }
    }
}

impl Connection {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// [`Error::Connect`], or what came at once was not HTTP.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        Self::over(connect(path).await?).await
    }

    /// Connects to a daemon on another host.
    ///
    /// # Errors
    /// As for [`Connection::open`].
    pub async fn open_remote(remote: &Remote) -> Result<Self, Error> {
        Self::over(remote.connect().await?).await
    }

    async fn over(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<Self, Error> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Its failures also reach the call in flight, which reports them.
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// Sends a request and waits for the head of the answer.
    ///
    /// # Errors
    /// [`Error::Exchange`].
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Error> {
        self.0.ready().await?;
        Ok(self.0.send_request(request).await?)
    }
}

/// A request with these headers and the `Host` that HTTP/1.1 requires.
///
/// # Errors
/// [`Error::Request`].
pub fn request(
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Result<Request<Full<Bytes>>, Error> {
    let start = Request::builder().method(method).uri(target).header(HOST, "nicd");
    let request = headers.iter().fold(start, |request, (name, value)| request.header(*name, value.as_bytes()));
    Ok(request.body(Full::new(body.into()))?)
}

/// A request that accepts `accept`, with a JSON body if there is one.
///
/// # Errors
/// [`Error::Request`].
pub fn json_request(method: &Method, target: &str, accept: &str, body: Option<&Value>) -> Result<Request<Full<Bytes>>, Error> {
    let accept = (ACCEPT.as_str(), accept);
    match body {
        Some(body) => request(method.as_str(), target, &[accept, (CONTENT_TYPE.as_str(), JSON)], body.to_string()),
        None => request(method.as_str(), target, &[accept], Bytes::new()),
    }
}

/// The lines of an answer that has no end.
#[derive(Debug)]
pub struct Lines {
    body: Incoming,
    /// What has come of lines not yet handed out. Kept here, so that a read given up half-way loses nothing.
    unread: Vec<u8>,
}

impl Lines {
    /// The lines of this answer's body.
    pub fn of(answer: Response<Incoming>) -> Self {
        Self { body: answer.into_body(), unread: Vec::new() }
    }

    /// The next line that is not empty, as an empty one is the keep-alive; none when the connection has ended, or carries nothing any
    /// more.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            while let Some(line) = take_line(&mut self.unread) {
                if !line.trim_ascii().is_empty() {
                    return Some(line);
                }
            }
            let frame = timeout(SILENCE, self.body.frame()).await.ok()??.ok()?;
            self.unread.extend(frame.into_data().unwrap_or_default());
            if self.unread.len() > LINE {
                return None;
            }
        }
    }
}

/// Takes the first complete line, its end included, from what has come.
fn take_line(unread: &mut Vec<u8>) -> Option<Vec<u8>> {
    let end = unread.iter().position(|&byte| byte == b'\n')?;
    Some(unread.drain(..=end).collect())
}

/// `path` with `pairs` as its query, the values percent-encoded.
pub fn with_query(path: &str, pairs: &[(&str, &str)]) -> String {
    let mut target = path.to_owned();
    for (place, (key, value)) in pairs.iter().enumerate() {
        target.push(if place == 0 { '?' } else { '&' });
        target.push_str(key);
        target.push('=');
        encode(&mut target, value);
    }
    target
}

/// Everything but RFC 3986's unreserved characters is encoded.
fn encode(target: &mut String, value: &str) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            target.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(target, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_complete_lines_are_taken() {
        let mut unread = b"\n{\"a\": 1}\n{\"b\"".to_vec();
        assert_eq!(take_line(&mut unread), Some(b"\n".to_vec()));
        assert_eq!(take_line(&mut unread), Some(b"{\"a\": 1}\n".to_vec()));
        assert_eq!(take_line(&mut unread), None);
        unread.extend(b": 2}\n");
        assert_eq!(take_line(&mut unread), Some(b"{\"b\": 2}\n".to_vec()));
    }

    #[test]
    fn values_cannot_leave_their_place() {
        assert_eq!(with_query("/v2.0/ports", &[]), "/v2.0/ports");
        assert_eq!(with_query("/v2.0/ports", &[("a", "x-1._~"), ("b", "")]), "/v2.0/ports?a=x-1._~&b=");
        assert_eq!(with_query("/p", &[("name", "a b&c=d#e?/%é")]), "/p?name=a%20b%26c%3Dd%23e%3F%2F%25%C3%A9");
    }
}
