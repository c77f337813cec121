//! The event stream, followed on a thread of its own that stamps each event as it comes.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use serde::Deserialize;

use super::client::connect;
use super::clock::Moment;
use super::failure::{Failure, trouble};
use super::http;

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
        let stream = subscribe(socket).map_err(trouble("GET /nicd/v1/events"))?;
        let (sender, events) = sync_channel(WAITING);
        thread::Builder::new()
            .name("events".to_owned())
            // It ends with the stream, that is with the daemon.
            .spawn(move || follow(stream, &sender))
            .map_err(trouble("following the events"))?;
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

fn subscribe(socket: &Path) -> io::Result<BufReader<UnixStream>> {
    let mut stream = connect(socket)?;
    let request = http::request("GET", "/nicd/v1/events", "Accept: application/x-ndjson\r\n", None);
    stream.get_mut().write_all(request.as_bytes())?;
    let head = http::head(&mut stream)?;
    if head.status != 200 || head.length != http::Length::Chunked {
        return Err(io::Error::other(format!("answered {}", head.status)));
    }
    // Quiet is no failure of a stream.
    stream.get_ref().set_read_timeout(None)?;
    Ok(stream)
}

fn follow(mut stream: BufReader<UnixStream>, sink: &SyncSender<(Moment, Event)>) {
    let mut unread = Vec::new();
    while let Ok(Some(chunk)) = http::chunk(&mut stream) {
        let at = Moment::now();
        unread.extend(chunk);
        for event in take_lines(&mut unread) {
            if sink.send((at, event)).is_err() {
                return;
            }
        }
    }
}

/// Takes the complete lines from what has come; an empty one is the keep-alive.
fn take_lines(unread: &mut Vec<u8>) -> Vec<Event> {
    let Some(end) = unread.iter().rposition(|&byte| byte == b'\n') else { return Vec::new() };
    let complete: Vec<u8> = unread.drain(..=end).collect();
    complete.as_slice().lines().filter_map(|line| serde_json::from_str(&line.ok()?).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_complete_lines_are_events() {
        let mut unread = b"\n{\"event\": \"lost\", \"seq\": 7}\n{\"event\"".to_vec();
        let taken = take_lines(&mut unread);
        assert_eq!(taken, [Event { event: "lost".to_owned(), ..Event::default() }]);
        assert_eq!(unread, b"{\"event\"");
    }
}
