//! The event stream.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::stream::{Stream, StreamExt, unfold};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::client::{Client, events_call};
use crate::error::Error;
use crate::http::Lines;
use crate::types::{Phase, PortStatus, words};

words! {
    /// What an event tells of.
    EventKind {
        /// A port was created.
        PortCreated = "port.created",
        /// A port has another status, phase or reason.
        PortStatus = "port.status",
        /// A port was deleted.
        PortDeleted = "port.deleted",
        /// A problem of the daemon has begun: `reason` names it, and `port_id` the port if it is one port's.
        AgentDegraded = "agent.degraded",
        /// A problem of the daemon has ended; there may be others.
        AgentRecovered = "agent.recovered",
        /// Events were missed: a caller that keeps state of its own lists again. The stream goes on.
        Lost = "lost",
    }
}

/// One event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Event {
    /// What it tells of.
    #[serde(rename = "event")]
    pub kind: EventKind,
    /// Its number, to resume after; none in a `Lost` of the client itself.
    pub seq: Option<u64>,
    /// When it happened, in RFC 3339.
    pub at: String,
    /// The port.
    pub port_id: Option<Uuid>,
    /// The server that has the port.
    pub server_id: Option<Uuid>,
    /// The port's network.
    pub network_id: Option<Uuid>,
    /// The port's status before.
    pub old: Option<PortStatus>,
    /// The port's status now.
    pub new: Option<PortStatus>,
    /// The port's phase now.
    pub phase: Option<Phase>,
    /// Why the port has this status.
    pub reason: Option<String>,
    /// The request that caused the event.
    pub request_id: Option<String>,
    /// The whole event as nicd sent it.
    #[serde(skip)]
    pub sent: Value,
}

/// The event stream. It is opened again when its connection ends, as the client's [`Retry`](crate::Retry) says, and goes on after the
/// last event seen; [`EventKind::Lost`] says that events were missed.
///
/// As a `Stream` it ends after its first error.
pub struct Events {
    at: String,
    stream: Pin<Box<dyn Stream<Item = Result<Event, Error>> + Send>>,
}

impl Events {
    pub(crate) fn open(client: Client, lines: Lines, last: Option<u64>) -> Self {
        let at = client.daemon().to_string();
        Self { at, stream: Box::pin(unfold(Reader { client, state: State::Open(lines), last }, Reader::next)) }
    }

    /// The next event. Cancel-safe: a wait that was given up loses no event.
    ///
    /// # Errors
    /// The stream ended and could not be opened again, or has ended with an error before.
    pub async fn next(&mut self) -> Result<Event, Error> {
        self.stream.next().await.unwrap_or_else(|| Err(Error::StreamEnded { at: self.at.clone() }))
    }
}

impl Stream for Events {
    type Item = Result<Event, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.stream.as_mut().poll_next(context)
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("at", &self.at).finish_non_exhaustive()
    }
}

/// What the stream is made from.
struct Reader {
    client: Client,
    state: State,
    /// The number of the last event seen.
    last: Option<u64>,
}

enum State {
    Open(Lines),
    Closed,
    /// An error was given out.
    Ended,
}

impl Reader {
    async fn next(mut self) -> Option<(Result<Event, Error>, Self)> {
        loop {
            match &mut self.state {
                State::Open(lines) => match lines.next().await {
                    Some(line) => {
                        let event = self.read(&line);
                        if event.is_err() {
                            self.state = State::Ended;
                        }
                        return Some((event, self));
                    }
                    None => self.state = State::Closed,
                },
                State::Closed => match self.client.reopen(self.last).await {
                    Ok(lines) => {
                        self.state = State::Open(lines);
                        // Without a number to resume after, what happened in between is not known.
                        if self.last.is_none() {
                            return Some((Ok(Event { kind: EventKind::Lost, ..Event::default() }), self));
                        }
                    }
                    Err(error) => {
                        self.state = State::Ended;
                        return Some((Err(error), self));
                    }
                },
                State::Ended => return None,
            }
        }
    }

    fn read(&mut self, line: &[u8]) -> Result<Event, Error> {
        let event = parse(line).map_err(|source| Error::Unreadable { call: events_call(), source })?;
        self.last = event.seq.or(self.last);
        Ok(event)
    }
}

fn parse(line: &[u8]) -> Result<Event, serde_json::Error> {
    let sent: Value = serde_json::from_slice(line)?;
    Ok(Event { sent: sent.clone(), ..serde_json::from_value(sent)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_null_and_unknown_members_are_accepted() {
        let line = r#"{"event": "lost", "seq": 7, "port_id": null, "later": []}"#;
        let sent = serde_json::from_str(line).unwrap();
        let event = Event { kind: EventKind::Lost, seq: Some(7), sent, ..Event::default() };
        assert_eq!(parse(line.as_bytes()).unwrap(), event);
    }

    #[test]
    fn words_of_a_later_version_are_kept() {
        let event = parse(br#"{"event": "port.moved", "seq": 8, "new": "PAUSED"}"#).unwrap();
        assert_eq!(event.kind, EventKind::Other("port.moved".to_owned()));
        assert_eq!(event.new.unwrap().to_string(), "PAUSED");
    }
}
