//! The client of the daemon's socket: calls that are timed, and the event stream with the moment of each event.

use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use hyper::Method;
use nicd_client::blocking::{Client, follow};
use nicd_client::http::{JSON, json_request};
use serde_json::Value;

use super::page::{Context, Failure};

/// How long an answer or an event is waited for.
const LIMIT: Duration = Duration::from_secs(5);

/// How many events may wait to be shown.
const WAITING: usize = 1024;

/// A connection for calls, and one for events.
#[derive(Debug)]
pub(super) struct Api {
    client: Client,
    events: Receiver<(Instant, Value)>,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Null when there is none.
    pub(super) body: Value,
    /// When the request was sent.
    pub(super) at: Instant,
    pub(super) took: Duration,
}

impl Api {
    /// Connects to one run of the daemon: every event from now on is followed.
    pub(super) fn connect(socket: &Path) -> Result<Self, Failure> {
        let (sender, events) = sync_channel(WAITING);
        let each = move |line: &[u8]| match serde_json::from_slice(line) {
            Ok(event) => sender.send((Instant::now(), event)).is_ok(),
            Err(_) => true,
        };
        follow(socket, LIMIT, None, each).context("GET /nicd/v1/events")?;
        let mut api = Self { client: Client::new(socket, LIMIT).context("a client")?, events };
        // Opens the connection, which is no part of what is timed.
        api.get("/nicd/v1/health")?;
        Ok(api)
    }

    /// Makes a call that must succeed.
    pub(super) fn call(&mut self, method: Method, target: &str, body: Option<&Value>) -> Result<Answer, Failure> {
        let doing = format!("{method} {target}");
        let answer = self.attempt(method, target, body)?;
        match answer.is_success() {
            true => Ok(answer),
            false => Err(Failure::new(&doing, format!("answered {} {}", answer.status, answer.body))),
        }
    }

    /// Makes a call that may be refused.
    pub(super) fn attempt(&mut self, method: Method, target: &str, body: Option<&Value>) -> Result<Answer, Failure> {
        let doing = format!("{method} {target}");
        let request = json_request(&method, target, JSON, body).context(&doing)?;
        let at = Instant::now();
        let answer = self.client.send(request).context(&doing)?;
        let took = at.elapsed();
        let body = if answer.body.is_empty() { Value::Null } else { serde_json::from_slice(&answer.body).context(&doing)? };
        Ok(Answer { status: answer.status.as_u16(), body, at, took })
    }

    /// Reads something.
    pub(super) fn get(&mut self, target: &str) -> Result<Value, Failure> {
        Ok(self.call(Method::GET, target, None)?.body)
    }

    /// The next event, and when it came.
    pub(super) fn next_event(&self) -> Result<(Instant, Value), Failure> {
        self.events.recv_timeout(LIMIT).context("waiting for an event")
    }

    /// How many events have come that were not taken.
    pub(super) fn waiting_events(&self) -> usize {
        self.events.try_iter().count()
    }
}

impl Answer {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// The text at a JSON pointer of an answer.
pub(super) fn text(body: &Value, pointer: &str) -> Result<String, Failure> {
    let found = body.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    found.ok_or_else(|| Failure::new("reading an answer", format!("{body} has no text at {pointer}")))
}
