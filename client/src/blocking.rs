//! [`http`](crate::http) for callers without a runtime: one connection, one call after the other, each with a limit.

use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{CONNECTION, HeaderMap};
use hyper::{Request, StatusCode};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use crate::http::{Connection, Error, LINES, Lines, request};

/// A connection that is opened with the first call and kept.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    limit: Duration,
    runtime: Runtime,
    connection: Option<Connection>,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Client {
    /// A client of the daemon at `socket` that waits so long for each answer.
    ///
    /// # Errors
    /// The system has no descriptors for it.
    pub fn new(socket: &Path, limit: Duration) -> io::Result<Self> {
        Ok(Self { socket: socket.to_owned(), limit, runtime: runtime()?, connection: None })
    }

    /// Sends a request and reads the whole answer. The next call after a failure, or after an answer that closes the
    /// connection, opens a new one.
    ///
    /// # Errors
    /// There was no whole answer in time. Whether the request was carried out is not known.
    pub fn send(&mut self, request: Request<Full<Bytes>>) -> io::Result<Answer> {
        let Self { socket, limit, runtime, connection } = self;
        let kept = connection.take();
        let exchange = async {
            let mut open = match kept {
                Some(open) => open,
                None => Connection::open(socket).await?,
            };
            let (head, body) = open.send(request).await?.into_parts();
            let answer = Answer { status: head.status, headers: head.headers, body: body.collect().await?.to_bytes() };
            let closes = answer.headers.get(CONNECTION).is_some_and(|value| value == "close");
            Ok((answer, (!closes).then_some(open)))
        };
        let (answer, open) = in_time(runtime, *limit, exchange)?;
        *connection = open;
        Ok(answer)
    }

    /// Closes the connection; the next call opens a new one.
    pub fn close(&mut self) {
        self.connection = None;
    }
}

/// Follows the event stream on a thread of its own, which gives every line to `each` until that answers false or the
/// stream ends. Everything that happens after this has returned is in the stream; with `last`, also what happened behind
/// the event with that number.
///
/// # Errors
/// The stream was not opened in time.
pub fn follow(
    socket: &Path,
    limit: Duration,
    last: Option<u64>,
    mut each: impl FnMut(&[u8]) -> bool + Send + 'static,
) -> io::Result<()> {
    let runtime = runtime()?;
    let last = last.map(|last| last.to_string());
    let mut headers = vec![("accept", LINES)];
    headers.extend(last.iter().map(|last| ("last-event-id", last.as_str())));
    let request = request("GET", "/nicd/v1/events", &headers, Bytes::new()).map_err(failed)?;
    let answer = in_time(&runtime, limit, async { Connection::open(socket).await?.send(request).await })?;
    if !answer.status().is_success() {
        return Err(io::Error::other(format!("answered {}", answer.status())));
    }
    let mut lines = Lines::of(answer);
    thread::Builder::new().name("events".to_owned()).spawn(move || {
        while let Some(line) = runtime.block_on(lines.next()) {
            if !each(&line) {
                return;
            }
        }
    })?;
    Ok(())
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

fn in_time<T>(runtime: &Runtime, limit: Duration, work: impl Future<Output = Result<T, Error>>) -> io::Result<T> {
    // The timer needs the runtime around it.
    let answer = runtime.block_on(async { timeout(limit, work).await });
    answer.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?.map_err(failed)
}

fn failed(error: Error) -> io::Error {
    match error {
        Error::Connect(error) => error,
        other => io::Error::other(other),
    }
}
