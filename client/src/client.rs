//! A daemon: calls with a time limit, repeated where that is safe.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, CONTENT_TYPE};
use hyper::http::response::Parts;
use hyper::{Method, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::daemon::{Daemon, Remote, refused_handshake};
use crate::error::{Call, Error, Refusal};
use crate::events::Events;
use crate::http::{self, Connection, JSON, LINES, Lines};
use crate::retry::{FirstContact, Pauses, Retry};

/// The time limit of one attempt, including the wait while the daemon starts. It is longer than any operation of the daemon.
const LIMIT: Duration = Duration::from_secs(120);

/// A daemon. Each call opens a connection of its own, so a client may be shared and cloned freely.
#[derive(Debug, Clone)]
pub struct Client {
    daemon: Daemon,
    limit: Duration,
    /// The same of a GET.
    read_limit: Duration,
    retry: Retry,
    notice: Option<fn(&Error)>,
}

/// A request, to be sent as often as needed.
#[derive(Debug)]
struct Request {
    call: Call,
    accept: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

/// The call that opens the event stream.
pub(crate) fn events_call() -> Call {
    Call { method: Method::GET, target: "/nicd/v1/events".to_owned() }
}

/// What is known of the earlier attempts at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Earlier {
    /// None of them was executed.
    NotExecuted,
    /// One of them may have been executed.
    Unknown,
}

impl Client {
    /// The daemon at `socket`. An attempt is given up after two minutes; repeats are [`Retry::default`].
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self::of(Daemon::Socket(socket.into()))
    }

    /// A daemon on another host, with the same limits and repeats.
    pub fn remote(remote: Remote) -> Self {
        Self::of(Daemon::Remote(remote))
    }

    fn of(daemon: Daemon) -> Self {
        Self { daemon, limit: LIMIT, read_limit: LIMIT, retry: Retry::default(), notice: None }
    }

    /// The same daemon, with this time limit for each attempt.
    #[must_use]
    pub fn with_limit(self, limit: Duration) -> Self {
        Self { limit, read_limit: limit, ..self }
    }

    /// The same daemon, with this time limit for each attempt at a GET, and at opening the event stream.
    #[must_use]
    pub fn with_read_limit(self, read_limit: Duration) -> Self {
        Self { read_limit, ..self }
    }

    /// The same daemon, with calls repeated so.
    #[must_use]
    pub fn with_retry(self, retry: Retry) -> Self {
        Self { retry, ..self }
    }

    /// The same daemon. `notice` is called before a call is repeated the first time, and again when the daemon's reason has changed
    /// since: without it, a call that is repeated for ever says nothing.
    #[must_use]
    pub fn with_notice(self, notice: fn(&Error)) -> Self {
        Self { notice: Some(notice), ..self }
    }

    /// GET.
    ///
    /// # Errors
    /// Every [`Error`] but `StreamEnded`; this holds for all calls.
    pub async fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, Error> {
        self.call(Method::GET, target, None::<&()>, vec![]).await
    }

    /// POST, with a fresh idempotency key: however often it is repeated, it is executed once. nicd's own routes, below `/nicd/v1/`,
    /// know no keys: there it is not repeated once it may have been executed.
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub async fn post<T: DeserializeOwned>(&self, target: &str, body: &impl Serialize) -> Result<T, Error> {
        self.post_once(target, body, &Uuid::new_v4().to_string()).await
    }

    /// POST with the caller's own idempotency key, of 1 to 64 printable ASCII characters. For 24 h nicd executes it once and gives
    /// the same answer, also to a caller that was restarted; not so below `/nicd/v1/`, see [`Client::post`].
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub async fn post_once<T: DeserializeOwned>(&self, target: &str, body: &impl Serialize, key: &str) -> Result<T, Error> {
        self.call(Method::POST, target, Some(body), vec![("idempotency-key", key.to_owned())]).await
    }

    /// PUT.
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub async fn put<T: DeserializeOwned>(&self, target: &str, body: &impl Serialize) -> Result<T, Error> {
        self.call(Method::PUT, target, Some(body), vec![]).await
    }

    /// DELETE. Where an unanswered attempt is repeated, and the thing is gone by then, that is a success.
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub async fn delete(&self, target: &str) -> Result<(), Error> {
        let _: Value = self.call(Method::DELETE, target, None::<&()>, vec![]).await?;
        Ok(())
    }

    /// The event stream from now on: what happens after this has returned is in it.
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub async fn events(&self) -> Result<Events, Error> {
        Ok(Events::open(self.clone(), self.lines(None, self.retry).await?, None))
    }

    /// The event stream after the event with number `last`. If that is no longer kept, the stream begins with
    /// [`Lost`](crate::EventKind::Lost).
    ///
    /// # Errors
    /// As for [`Client::get`].
    pub async fn events_after(&self, last: u64) -> Result<Events, Error> {
        Ok(Events::open(self.clone(), self.lines(Some(last), self.retry).await?, Some(last)))
    }

    /// Whether the daemon is on another host.
    pub fn is_remote(&self) -> bool {
        matches!(self.daemon, Daemon::Remote(_))
    }

    pub(crate) fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    /// Opens the event stream again after its connection has ended.
    pub(crate) async fn reopen(&self, last: Option<u64>) -> Result<Lines, Error> {
        if self.retry.limit.is_zero() {
            return Err(Error::StreamEnded { at: self.daemon.to_string() });
        }
        // So that a daemon that closes each stream at once is not asked without end.
        sleep(self.retry.first).await;
        self.lines(last, Retry { first_contact: FirstContact::Awaited, ..self.retry }).await
    }

    /// The lines of the event stream.
    async fn lines(&self, last: Option<u64>, retry: Retry) -> Result<Lines, Error> {
        let headers = last.map(|last| ("last-event-id", last.to_string())).into_iter().collect();
        let request = Request { call: events_call(), accept: LINES, headers, body: Bytes::new() };
        self.repeatedly(retry, &request.call, |_| self.in_time(&request.call, self.stream(&request))).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        body: Option<&impl Serialize>,
        headers: Vec<(&'static str, String)>,
    ) -> Result<T, Error> {
        let call = Call { method, target: target.to_owned() };
        let body = body.map(serde_json::to_vec).transpose();
        let body = body.map_err(|error| Error::Unsendable { call: call.clone(), source: error.into() })?;
        let request = Request { call, accept: JSON, headers, body: body.unwrap_or_default().into() };
        let attempt = |earlier| self.in_time(&request.call, self.exchange(&request, earlier));
        let answer = self.repeatedly(self.retry, &request.call, attempt).await?;
        let text: &[u8] = if answer.is_empty() { b"null" } else { &answer };
        serde_json::from_slice(text).map_err(|source| Error::Unreadable { call: request.call, source })
    }

    /// Attempts until there is a success, a failure that a repeat does not mend, or the limit is over.
    async fn repeatedly<T, F>(&self, retry: Retry, call: &Call, attempt: impl Fn(Earlier) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut pauses = Pauses::of(retry);
        let mut is_first = true;
        // The last error that leaves open whether the call was executed.
        let mut open: Option<Error> = None;
        // The reason of which notice was given.
        let mut told: Option<Option<String>> = None;
        loop {
            let earlier = if open.is_some() { Earlier::Unknown } else { Earlier::NotExecuted };
            let error = match attempt(earlier).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let Some(least) = error.passes_after(retry.refusals) else { return Err(error) };
            if error.is_uncertain() && !call.is_harmless_twice() {
                return Err(error);
            }
            let is_absent = is_first && matches!(error, Error::Unreachable { .. } | Error::Silent { .. });
            let is_awaited = !is_absent || retry.first_contact == FirstContact::Awaited;
            let pause = pauses.next(least).filter(|_| is_awaited);
            let Some(pause) = pause else { return Err(open.filter(|_| !error.is_uncertain()).unwrap_or(error)) };
            let reason = error.reason().map(str::to_owned);
            if let Some(notice) = self.notice.filter(|_| told.as_ref() != Some(&reason)) {
                notice(&error);
                told = Some(reason);
            }
            if error.is_uncertain() {
                open = Some(error);
            }
            is_first = false;
            sleep(pause).await;
        }
    }

    /// One attempt at a call.
    async fn exchange(&self, request: &Request, earlier: Earlier) -> Result<Bytes, Error> {
        let answer = self.send(request).await?;
        let (head, body) = self.read(request, answer).await?;
        let is_gone =
            request.call.method == Method::DELETE && head.status == StatusCode::NOT_FOUND && earlier == Earlier::Unknown;
        if head.status.is_success() {
            Ok(body)
        } else if is_gone {
            Ok(Bytes::new())
        } else {
            Err(Refusal::from_answer(head.status, &head.headers, &body).into())
        }
    }

    /// One attempt at the event stream.
    async fn stream(&self, request: &Request) -> Result<Lines, Error> {
        let answer = self.send(request).await?;
        if answer.status().is_success() {
            return Ok(Lines::of(answer));
        }
        let (head, body) = self.read(request, answer).await?;
        Err(Refusal::from_answer(head.status, &head.headers, &body).into())
    }

    async fn send(&self, request: &Request) -> Result<Response<Incoming>, Error> {
        let mut headers = vec![(ACCEPT.as_str(), request.accept)];
        if !request.body.is_empty() {
            headers.push((CONTENT_TYPE.as_str(), JSON));
        }
        headers.extend(request.headers.iter().map(|(name, value)| (*name, value.as_str())));
        let Call { method, target } = &request.call;
        let exchange = async {
            let request = http::request(method.as_str(), target, &headers, request.body.clone())?;
            self.connect(method).await?.send(request).await
        };
        exchange.await.map_err(|error| self.failed(&request.call, error))
    }

    async fn read(&self, request: &Request, answer: Response<Incoming>) -> Result<(Parts, Bytes), Error> {
        let (head, body) = answer.into_parts();
        match body.collect().await {
            Ok(body) => Ok((head, body.to_bytes())),
            Err(error) => Err(self.failed(&request.call, error.into())),
        }
    }

    /// Connects. If the socket may not be used and the call only reads, connects to the socket for reading beside it.
    async fn connect(&self, method: &Method) -> Result<Connection, http::Error> {
        let socket = match &self.daemon {
            Daemon::Socket(socket) => socket,
            Daemon::Remote(remote) => return Connection::open_remote(remote).await,
        };
        match Connection::open(socket).await {
            Err(http::Error::Connect(refused)) if refused.kind() == io::ErrorKind::PermissionDenied && *method == Method::GET => {
                Connection::open(&view_beside(socket)).await.map_err(|_| http::Error::Connect(refused))
            }
            opened => opened,
        }
    }

    async fn in_time<T>(&self, call: &Call, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let limit = if call.method == Method::GET { self.read_limit } else { self.limit };
        let silent = || Error::Silent { at: self.daemon.to_string(), call: call.clone(), limit };
        timeout(limit, work).await.unwrap_or_else(|_| Err(silent()))
    }

    fn failed(&self, call: &Call, error: http::Error) -> Error {
        let (at, call) = (self.daemon.to_string(), call.clone());
        match error {
            http::Error::Connect(source) => Error::Unreachable { at, source },
            http::Error::Exchange(source) => match refused_handshake(&source) {
                Some(source) => Error::Unreachable { at, source },
                None => Error::Unanswered { at, call, source },
            },
            http::Error::Request(source) => Error::Unsendable { call, source: source.into() },
        }
    }
}

/// The socket for reading beside `socket`, as nicd names it: `X.sock` has `X-view.sock`, and another name gets that at its end.
fn view_beside(socket: &Path) -> PathBuf {
    let name = socket.file_name().unwrap_or_default().to_string_lossy();
    socket.with_file_name(format!("{}-view.sock", name.strip_suffix(".sock").unwrap_or(&name)))
}

/// The member of an answer that the answer is about.
///
/// # Errors
/// [`Error::Incomplete`].
pub fn member(mut answer: Value, key: &'static str) -> Result<Value, Error> {
    match answer.get_mut(key) {
        Some(value) => Ok(value.take()),
        None => Err(Error::Incomplete { key }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_for_reading_is_named_as_the_daemon_names_it() {
        for (socket, view) in
            [("/r/nicd.sock", "/r/nicd-view.sock"), ("/r/nicd", "/r/nicd-view.sock"), ("n.v1", "n.v1-view.sock")]
        {
            assert_eq!(view_beside(Path::new(socket)), Path::new(view));
        }
    }
}
