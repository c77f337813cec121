//! The event stream, followed on a thread of its own that stamps each event as it comes.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use hyper::Method;
use serde::Deserialize;

use super::client::runtime;
use super::clock::Moment;
use super::failure::{Failure, trouble};
use crate::client::{Connection, Error, LINES, Lines};

/// How many events may wait to be shown.
const WAITING: usize = 1024;

/// How long an event is waited for.
const LIMIT: Duration = Duration::from_secs(5);

/// An event, with what the demo shows of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Event {
    /// Its kind.
    pub(super) event: String,
    /// The server whose NIC it is about.
    pub(super) server_id: Option<String>,
    /// The status before.
    pub(super) old: Option<String>,
    /// The status after.
    pub(super) new: Option<String>,
    /// The finer state after.
    pub(super) phase: Option<String>,
    /// Why.
    pub(super) reason: Option<String>,
}

/// The stream of one run of the daemon.
#[derive(Debug)]
pub(super) struct Follower {
    events: Receiver<(Moment, Event)>,
}

impl Follower {
    /// Follows from now on: what happens once this has returned is followed.
    pub(super) fn start(socket: &Path) -> Result<Self, Failure> {
        let runtime = runtime()?;
        let subscribe = async { Connection::open(socket).await?.send(&Method::GET, "/nicd/v1/events", LINES, None).await };
        let answer = runtime.block_on(subscribe).map_err(trouble::<Error>("GET /nicd/v1/events"))?;
        if !answer.status().is_success() {
            return Err(trouble("GET /nicd/v1/events")(format!("answered {}", answer.status())));
        }
        let mut lines = Lines::of(answer);
        let (sender, events) = sync_channel(WAITING);
        // It ends with the stream, that is with the daemon.
        let follow = move || {
            while let Some(line) = runtime.block_on(lines.next()) {
                let Ok(event) = serde_json::from_slice(&line) else { continue };
                if sender.send((Moment::now(), event)).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("events".to_owned()).spawn(follow).map_err(trouble("following the events"))?;
        Ok(Self { events })
    }

    /// The next event, waited for.
    pub(super) fn next(&self) -> Result<(Moment, Event), Failure> {
        self.events.recv_timeout(LIMIT).map_err(|error| {
            let said = match error {
                RecvTimeoutError::Timeout => format!("none came in {} s", LIMIT.as_secs()),
                RecvTimeoutError::Disconnected => "the daemon closed the stream".to_owned(),
            };
            Failure::Trouble { doing: "waiting for an event".to_owned(), said }
        })
    }

    /// What has come and was not taken yet.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (Moment, Event)> {
        self.events.try_iter()
    }
}
