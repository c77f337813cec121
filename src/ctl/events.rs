//! The daemon's event stream, one JSON object to a line. An empty line is the keep-alive and is swallowed here.

use std::path::PathBuf;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::Value;

use super::client::{Call, ClientError};

/// One event, with what this client reads of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Event {
    /// What it tells: `port.created`, `port.status`, `port.deleted`, `agent.degraded`, `agent.recovered`, `lost`.
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
    body: Incoming,
    socket: PathBuf,
    call: Call,
    /// What has come of lines not yet handed out. Kept here, so that a read given up half-way loses nothing.
    unread: Vec<u8>,
}

impl EventStream {
    /// The stream in `body`, which `call` on `socket` was answered with.
    pub fn new(body: Incoming, socket: PathBuf, call: Call) -> Self {
        Self { body, socket, call, unread: Vec::new() }
    }

    /// The next event and the line it came in. The stream has no end while the daemon runs, so an end is an error.
    pub async fn next(&mut self) -> Result<(Event, Value), ClientError> {
        loop {
            while let Some(line) = take_line(&mut self.unread) {
                if !line.trim_ascii().is_empty() {
                    return self.parse(&line);
                }
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.unread.extend(frame.into_data().unwrap_or_default()),
                Some(Err(_)) | None => return Err(ClientError::StreamEnded { socket: self.socket.clone() }),
            }
        }
    }

    fn parse(&self, line: &[u8]) -> Result<(Event, Value), ClientError> {
        let not_json = |source| ClientError::NotJson { call: self.call.clone(), source };
        let said: Value = serde_json::from_slice(line).map_err(not_json)?;
        let event = Event::deserialize(&said).map_err(not_json)?;
        Ok((event, said))
    }
}

/// Takes the first complete line, its end included, from what has come.
fn take_line(unread: &mut Vec<u8>) -> Option<Vec<u8>> {
    let end = unread.iter().position(|&byte| byte == b'\n')?;
    Some(unread.drain(..=end).collect())
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
    fn absent_null_and_unknown_members_are_borne() {
        let event: Event = serde_json::from_str(r#"{"event": "lost", "seq": 7, "port_id": null, "later": []}"#).unwrap();
        assert_eq!(event, Event { event: "lost".to_owned(), ..Event::default() });
    }
}
