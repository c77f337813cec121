//! A control plane's side of the socket: one connection kept open, calls that are timed.

use std::io::{self, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::clock::{Moment, Took};
use super::failure::{Failure, trouble};
use super::http;

/// How long an answer is waited for.
const LIMIT: Duration = Duration::from_secs(5);

/// A client of one daemon.
#[derive(Debug)]
pub(super) struct Client {
    socket: PathBuf,
    connection: Option<BufReader<UnixStream>>,
}

/// What was answered.
#[derive(Debug)]
pub(super) struct Answer {
    /// The status code.
    pub(super) status: u16,
    /// The body; null when there is none.
    pub(super) body: Value,
    /// When the request was sent.
    pub(super) at: Moment,
    /// From the request's first byte to the answer's last.
    pub(super) took: Took,
}

impl Client {
    /// A client of the daemon at `socket`.
    pub(super) fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), connection: None }
    }

    /// Forgets the connection, which a restart has closed.
    pub(super) fn reconnect(&mut self) {
        self.connection = None;
    }

    /// Asks, and expects a success.
    pub(super) fn call(&mut self, method: &str, target: &str, body: Option<&Value>) -> Result<Answer, Failure> {
        let answer = self.exchange(method, target, body).map_err(trouble(format!("{method} {target}")))?;
        match answer.status {
            200..=299 => Ok(answer),
            status => {
                Err(Failure::Trouble { doing: format!("{method} {target}"), said: format!("answered {status} {}", answer.body) })
            }
        }
    }

    /// Reads something.
    pub(super) fn get(&mut self, target: &str) -> Result<Value, Failure> {
        Ok(self.call("GET", target, None)?.body)
    }

    fn exchange(&mut self, method: &str, target: &str, body: Option<&Value>) -> io::Result<Answer> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(&self.socket)?,
        };
        let request = http::request(method, target, "", body);
        let at = Moment::now();
        connection.get_mut().write_all(request.as_bytes())?;
        let head = http::head(&mut connection)?;
        let text = http::body(&mut connection, head)?;
        let took = at.elapsed();
        self.connection = Some(connection);
        let body = if text.is_empty() { Value::Null } else { serde_json::from_slice(&text)? };
        Ok(Answer { status: head.status, body, at, took })
    }
}

/// A connection with limits in time.
pub(super) fn connect(socket: &Path) -> io::Result<BufReader<UnixStream>> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    Ok(BufReader::new(stream))
}

/// The text at a JSON pointer of an answer.
pub(super) fn text(body: &Value, pointer: &str) -> Result<String, Failure> {
    let found = body.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    found.ok_or_else(|| Failure::Trouble {
        doing: "reading an answer".to_owned(),
        said: format!("{body} has no text at {pointer}"),
    })
}
