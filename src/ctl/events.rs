//! The daemon's event stream, one JSON object to a line.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use super::client::{Call, ClientError};
use crate::client::Lines;

/// One event, with what this client reads of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Event {
    /// Its kind: `port.created`, `port.status`, `port.deleted`, `agent.degraded`, `agent.recovered`, `lost`.
    pub event: String,
    /// When it happened, as the daemon writes times.
    pub at: Value,
    /// The port it is about.
    pub port_id: Option<String>,
    /// The server the port belongs to.
    pub server_id: Option<String>,
    /// The port's network.
    pub network_id: Option<String>,
    /// The status before.
    pub old: Option<String>,
    /// The status now.
    pub new: Option<String>,
    /// The finer state now.
    pub phase: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// The request that caused it.
    pub request_id: Option<String>,
}

/// Events as they come.
#[derive(Debug)]
pub struct EventStream {
    lines: Lines,
    socket: PathBuf,
    call: Call,
}

impl EventStream {
    /// The stream in `lines`, which `call` on `socket` was answered with.
    pub fn new(lines: Lines, socket: PathBuf, call: Call) -> Self {
        Self { lines, socket, call }
    }

    /// The next event and the line it came in. The stream has no end while the daemon runs, so an end is an error.
    pub async fn next(&mut self) -> Result<(Event, Value), ClientError> {
        match self.lines.next().await {
            Some(line) => self.parse(&line),
            None => Err(ClientError::StreamEnded { socket: self.socket.clone() }),
        }
    }

    fn parse(&self, line: &[u8]) -> Result<(Event, Value), ClientError> {
        let not_json = |source| ClientError::NotJson { call: self.call.clone(), source };
        let said: Value = serde_json::from_slice(line).map_err(not_json)?;
        let event = Event::deserialize(&said).map_err(not_json)?;
        Ok((event, said))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_null_and_unknown_members_are_borne() {
        let event: Event = serde_json::from_str(r#"{"event": "lost", "seq": 7, "port_id": null, "later": []}"#).unwrap();
        assert_eq!(event, Event { event: "lost".to_owned(), ..Event::default() });
    }
}
