//! HTTP/1.1 with JSON over the daemon's Unix socket: one connection for each call, which a command makes few of.
//!
//! Calls are never retried: an unanswered change may have been executed, and the error message says so.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Method, Response, StatusCode};
use serde_json::Value;
use tokio::time::timeout;

use super::events::EventStream;
use super::server_error::ServerError;
use crate::client::{self, Connection, JSON, LINES, Lines};

/// The time limit of an answer, including the wait while the daemon starts. It is longer than any operation of the daemon.
const PATIENCE: Duration = Duration::from_secs(120);

/// A daemon, by its socket.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    patience: Duration,
}

/// A call that gave nothing to go on with.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection to the socket failed.
    #[error("nicd cannot be reached at {}", socket.display())]
    Unreachable {
        /// Where it was looked for.
        socket: PathBuf,
        /// What connecting met with.
        source: io::Error,
    },
    /// The connection ended, or what came was not HTTP, before the answer was complete.
    #[error("nicd at {} did not answer {call}", socket.display())]
    Unanswered {
        /// The daemon's socket.
        socket: PathBuf,
        /// What was asked.
        call: Call,
        /// What happened to the connection.
        source: hyper::Error,
    },
    /// The daemon accepted the connection but did not answer in time.
    #[error("nicd at {} did not answer {call} within {} s", socket.display(), patience.as_secs())]
    Silent {
        /// The daemon's socket.
        socket: PathBuf,
        /// What was asked.
        call: Call,
        /// How long was waited.
        patience: Duration,
    },
    /// The event stream ended; the daemon has stopped.
    #[error("nicd at {} closed the event stream", socket.display())]
    StreamEnded {
        /// The daemon's socket.
        socket: PathBuf,
    },
    /// The daemon said no.
    #[error(transparent)]
    Refused(#[from] ServerError),
    /// A request that HTTP cannot carry.
    #[error("{call} cannot be sent")]
    Unsendable {
        /// What was to be asked.
        call: Call,
        /// Why not.
        source: hyper::http::Error,
    },
    /// A success whose body is not what the API promises.
    #[error("nicd's answer to {call} is not JSON")]
    NotJson {
        /// What was asked.
        call: Call,
        /// Where it stops being JSON.
        source: serde_json::Error,
    },
    /// A success without the object it is about.
    #[error("nicd's answer has no '{key}': is it a nicd?")]
    Incomplete {
        /// The member that is missing.
        key: &'static str,
    },
}

impl ClientError {
    /// Whether the daemon says that the thing asked about does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused(error) if error.status == StatusCode::NOT_FOUND)
    }
}

/// A method and a request target, as one says them.
#[derive(Debug, Clone)]
pub struct Call {
    /// The method.
    pub method: Method,
    target: String,
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.target)
    }
}

impl Client {
    /// The daemon at `socket`; connects with each call.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket, patience: PATIENCE }
    }

    /// GET.
    pub async fn get(&self, target: &str) -> Result<Value, ClientError> {
        self.call(Method::GET, target, None).await
    }

    /// POST.
    pub async fn post(&self, target: &str, body: &Value) -> Result<Value, ClientError> {
        self.call(Method::POST, target, Some(body)).await
    }

    /// PUT.
    pub async fn put(&self, target: &str, body: &Value) -> Result<Value, ClientError> {
        self.call(Method::PUT, target, Some(body)).await
    }

    /// DELETE; an answer without a body is `null`.
    pub async fn delete(&self, target: &str) -> Result<Value, ClientError> {
        self.call(Method::DELETE, target, None).await
    }

    /// The event stream. What happens after this has returned is in it.
    pub async fn events(&self) -> Result<EventStream, ClientError> {
        let call = Call { method: Method::GET, target: "/nicd/v1/events".to_owned() };
        let answer = self.in_time(&call, self.send(&call, LINES, None)).await?;
        if answer.status().is_success() {
            return Ok(EventStream::new(Lines::of(answer), self.socket.clone(), call));
        }
        let (status, body) =
            self.in_time(&call, async { client::whole(answer).await.map_err(|error| self.failed(&call, error)) }).await?;
        Err(ServerError::from_answer(status, &body).into())
    }

    async fn call(&self, method: Method, target: &str, body: Option<&Value>) -> Result<Value, ClientError> {
        let call = Call { method, target: target.to_owned() };
        let exchange = async {
            let answer = self.send(&call, JSON, body).await?;
            client::whole(answer).await.map_err(|error| self.failed(&call, error))
        };
        let (status, body) = self.in_time(&call, exchange).await?;
        if !status.is_success() {
            return Err(ServerError::from_answer(status, &body).into());
        }
        if body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body).map_err(|source| ClientError::NotJson { call, source })
    }

    /// What is not done in time is given up.
    async fn in_time<T>(&self, call: &Call, work: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
        let silent = || ClientError::Silent { socket: self.socket.clone(), call: call.clone(), patience: self.patience };
        timeout(self.patience, work).await.unwrap_or_else(|_| Err(silent()))
    }

    async fn send(&self, call: &Call, accept: &str, body: Option<&Value>) -> Result<Response<Incoming>, ClientError> {
        let exchange = async {
            let request = client::json_request(&call.method, &call.target, accept, body)?;
            self.connect(&call.method).await?.send(request).await
        };
        exchange.await.map_err(|error| self.failed(call, error))
    }

    /// Connects to the socket, or to the one for reading beside it where that one may not be used and something is only read.
    async fn connect(&self, method: &Method) -> Result<Connection, client::Error> {
        match Connection::open(&self.socket).await {
            Err(client::Error::Connect(refused))
                if refused.kind() == io::ErrorKind::PermissionDenied && *method == Method::GET =>
            {
                // X.sock has X-view.sock beside it.
                let stem = self.socket.file_stem().unwrap_or_default().to_string_lossy();
                let view = self.socket.with_file_name(format!("{stem}-view.sock"));
                Connection::open(&view).await.map_err(|_| client::Error::Connect(refused))
            }
            opened => opened,
        }
    }

    fn failed(&self, call: &Call, error: client::Error) -> ClientError {
        let (socket, call) = (self.socket.clone(), call.clone());
        match error {
            client::Error::Connect(source) => ClientError::Unreachable { socket, source },
            client::Error::Exchange(source) => ClientError::Unanswered { socket, call, source },
            client::Error::Request(source) => ClientError::Unsendable { call, source },
        }
    }
}

/// The member of an answer that the answer is about.
pub fn member(mut answer: Value, key: &'static str) -> Result<Value, ClientError> {
    match answer.get_mut(key) {
        Some(value) => Ok(value.take()),
        None => Err(ClientError::Incomplete { key }),
    }
}

/// The `id` (or whatever it is called) of an object.
pub fn id_of(object: &Value, key: &'static str) -> Result<String, ClientError> {
    object[key].as_str().map(str::to_owned).ok_or(ClientError::Incomplete { key })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::ctl::failure::Failure;

    #[tokio::test]
    async fn a_daemon_that_says_nothing_is_given_up() {
        let room = tempfile::tempdir().unwrap();
        let socket = room.path().join("nicd.sock");
        let _silent = UnixListener::bind(&socket).unwrap();
        let client = Client { socket, patience: Duration::from_millis(20) };
        for given_up in [client.delete("/x").await.map(drop), client.events().await.map(drop)] {
            let failure = Failure::from(given_up.unwrap_err());
            assert_eq!(failure.exit_code(), 4);
            assert!(failure.sentence().contains("did not answer"), "{}", failure.sentence());
        }
    }
}
