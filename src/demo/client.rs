//! A control plane's side of the socket: one connection kept open, calls that are timed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Method;
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::clock::{Moment, Took};
use super::failure::{Failure, trouble};
use crate::client::{Connection, Error, JSON, whole};

/// How long an answer is waited for.
const LIMIT: Duration = Duration::from_secs(5);

/// A client of one daemon.
#[derive(Debug)]
pub(super) struct Client {
    socket: PathBuf,
    runtime: Runtime,
    connection: Option<Connection>,
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
    pub(super) fn new(socket: &Path) -> Result<Self, Failure> {
        Ok(Self { socket: socket.to_owned(), runtime: runtime()?, connection: None })
    }

    /// Forgets the connection, which a restart has closed.
    pub(super) fn reconnect(&mut self) {
        self.connection = None;
    }

    /// Asks, and expects a success.
    pub(super) fn call(&mut self, method: Method, target: &str, body: Option<&Value>) -> Result<Answer, Failure> {
        let failed = || trouble::<String>(format!("{method} {target}"));
        let Self { socket, connection, .. } = self;
        let exchange = async {
            let open = match connection.take() {
                Some(open) => open,
                None => Connection::open(socket).await?,
            };
            let open = connection.insert(open);
            let at = Moment::now();
            let (status, text) = whole(open.send(&method, target, JSON, body).await?).await?;
            Ok::<_, Error>((status, text, at, at.elapsed()))
        };
        // A timer needs the runtime around it.
        let answer = self.runtime.block_on(async { timeout(LIMIT, exchange).await });
        let (status, text, at, took) =
            answer.map_err(|_| failed()("no answer".to_owned()))?.map_err(|error| failed()(error.to_string()))?;
        let body = if text.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&text).map_err(|error| failed()(error.to_string()))?
        };
        match status.is_success() {
            true => Ok(Answer { status: status.as_u16(), body, at, took }),
            false => Err(failed()(format!("answered {} {body}", status.as_u16()))),
        }
    }

    /// Reads something.
    pub(super) fn get(&mut self, target: &str) -> Result<Value, Failure> {
        Ok(self.call(Method::GET, target, None)?.body)
    }
}

/// A runtime on the thread that blocks on it.
pub(super) fn runtime() -> Result<Runtime, Failure> {
    Builder::new_current_thread().enable_all().build().map_err(trouble("a runtime"))
}

/// The text at a JSON pointer of an answer.
pub(super) fn text(body: &Value, pointer: &str) -> Result<String, Failure> {
    let found = body.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    found.ok_or_else(|| trouble("reading an answer")(format!("{body} has no text at {pointer}")))
}
