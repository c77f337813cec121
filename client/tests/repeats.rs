//! What a client does when its daemon goes away, is busy or says nothing: against a daemon that plays a script.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Mutex;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nicd_client::{Attachment, Client, Error, EventKind, FirstContact, Nics, Refusals, Retry};
use serde_json::Value;
use tempfile::TempDir;
use uuid::Uuid;

const PORT: &str = "ce531f90-199f-48c0-816c-13e38010b442";
const BUSY: &str = r#"{"serviceUnavailable": {"code": 503, "message": "busy", "reason": "busy"}}"#;

/// Short pauses, and longer than any test takes.
const QUICK: Retry = Retry {
    first: Duration::from_millis(1),
    longest: Duration::from_millis(5),
    limit: Duration::from_secs(30),
    first_contact: FirstContact::Awaited,
    refusals: Refusals::Unavailable,
};

/// What the daemon does with one connection.
enum Turn {
    /// Reads the request and closes the connection.
    Loses,
    /// Reads the request and says nothing until the client has closed the connection.
    IsSilent,
    /// Answers with a status, headers and a body.
    Answers(u16, &'static str, String),
    /// Opens the event stream, sends these lines and closes it.
    Streams(&'static [&'static str]),
}

struct Daemon {
    room: TempDir,
    heard: Option<JoinHandle<Vec<String>>>,
}

impl Daemon {
    /// A daemon that plays these turns, one connection each, and is gone afterwards.
    fn plays(turns: Vec<Turn>) -> Self {
        let room = TempDir::new().unwrap();
        let listener = UnixListener::bind(room.path().join("nicd.sock")).unwrap();
        let play = move || turns.into_iter().map(|turn| turn.play(&listener.accept().unwrap().0)).collect();
        Self { room, heard: Some(thread::spawn(play)) }
    }

    fn client(&self, retry: Retry) -> Client {
        Client::new(self.room.path().join("nicd.sock")).with_retry(retry)
    }

    /// The requests, once all turns are over.
    fn heard(&mut self) -> Vec<String> {
        self.heard.take().unwrap().join().unwrap()
    }
}

impl Turn {
    fn play(self, mut connection: &UnixStream) -> String {
        let mut reader = BufReader::new(connection);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap() > 0 {}
        let mut body = vec![0; field(&head, "content-length").map_or(0, |length| length.parse().unwrap())];
        reader.read_exact(&mut body).unwrap();
        match self {
            Self::Loses => {}
            Self::IsSilent => assert_eq!(reader.read(&mut [0]).unwrap(), 0),
            Self::Answers(status, headers, body) => {
                let length = body.len();
                write!(connection, "HTTP/1.1 {status} Scripted\r\n{headers}Content-Length: {length}\r\n\r\n{body}").unwrap();
            }
            Self::Streams(lines) => {
                let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
                write!(connection, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n\n{text}").unwrap();
            }
        }
        head
    }
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
}

fn attached() -> Turn {
    let nic = format!(r#"{{"port_id": "{PORT}", "net_id": "{PORT}", "mac_addr": "fa:16:3e:4c:2c:30", "port_state": "ACTIVE"}}"#);
    Turn::Answers(200, "", format!(r#"{{"interfaceAttachment": {nic}}}"#))
}

fn id() -> Uuid {
    PORT.parse().unwrap()
}

#[tokio::test]
async fn an_interrupted_attach_is_repeated_under_one_key() {
    let mut daemon = Daemon::plays(vec![
        Turn::Loses,
        Turn::Answers(503, "Retry-After: 0\r\n", BUSY.to_owned()),
        Turn::Loses,
        attached(),
        attached(),
    ]);
    let client = daemon.client(QUICK);
    let nic = client.attach(id(), &Attachment::to_network(id())).await.unwrap();
    assert_eq!(nic.port_id, id());
    client.attach(id(), &Attachment::to_network(id())).await.unwrap();
    let heard = daemon.heard();
    let keys: Vec<_> = heard.iter().map(|head| field(head, "idempotency-key").unwrap()).collect();
    assert!(keys[..4].iter().all(|key| *key == keys[0]), "{keys:?}");
    assert_ne!(keys[4], keys[0], "another call has another key");
}

#[tokio::test]
async fn a_post_without_a_key_is_not_repeated_once_it_may_have_been_executed() {
    let answers = Turn::Answers(200, "", "{}".to_owned());
    let daemon = Daemon::plays(vec![Turn::Answers(503, "", BUSY.to_owned()), Turn::Loses, answers]);
    let client = daemon.client(QUICK);
    let error = client.post::<Value>("/nicd/v1/gc", &serde_json::json!({})).await.unwrap_err();
    assert!(matches!(error, Error::Unanswered { .. }), "{error}");
    assert_eq!(client.get::<Value>("/nicd/v1/health").await.unwrap(), serde_json::json!({}), "the answer was not taken yet");
}

#[tokio::test]
async fn a_read_is_repeated_after_a_silence_and_a_change_is_not() {
    let mut daemon = Daemon::plays(vec![
        Turn::IsSilent,
        Turn::Answers(200, "", "{}".to_owned()),
        Turn::Streams(&[r#"{"event": "port.created", "seq": 7}"#]),
        Turn::IsSilent,
        Turn::Streams(&[r#"{"event": "port.deleted", "seq": 8}"#]),
        Turn::IsSilent,
        Turn::IsSilent,
    ]);
    let client = daemon.client(QUICK).with_limit(Duration::from_secs(2)).with_read_limit(Duration::from_secs(1));
    assert_eq!(client.get::<Value>("/nicd/v1/health").await.unwrap(), serde_json::json!({}));
    let mut events = client.events().await.unwrap();
    for seq in [7, 8] {
        assert_eq!(events.next().await.unwrap().seq, Some(seq));
    }
    drop(events);
    let error = client.delete_port(id()).await.unwrap_err();
    assert!(matches!(error, Error::Silent { limit, .. } if limit == Duration::from_secs(2)), "{error}");
    let client = client.with_retry(Retry { first_contact: FirstContact::Required, ..QUICK });
    let error = client.get::<Value>("/nicd/v1/health").await.unwrap_err();
    assert!(matches!(error, Error::Silent { limit, .. } if limit == Duration::from_secs(1)), "{error}");
    // The connection is closed by a task of this runtime.
    let heard = tokio::task::spawn_blocking(move || daemon.heard()).await.unwrap();
    assert_eq!(heard.len(), 7);
}

#[tokio::test]
async fn only_brief_refusals_are_repeated_if_that_is_asked_for() {
    let refusal = |reason: &str| BUSY.replace("busy", reason);
    let refuses = |reason| Turn::Answers(503, "Retry-After: 0\r\n", refusal(reason));
    let mut daemon = Daemon::plays(vec![
        refuses("busy"),
        refuses("starting"),
        refuses("stopping"),
        attached(),
        refuses("no_permission"),
        refuses("cannot_start"),
    ]);
    let client = daemon.client(Retry { refusals: Refusals::Brief, ..QUICK });
    client.attach(id(), &Attachment::to_network(id())).await.unwrap();
    for reason in ["no_permission", "cannot_start"] {
        let error = client.attach(id(), &Attachment::to_network(id())).await.unwrap_err();
        assert_eq!(error.reason(), Some(reason));
    }
    assert_eq!(daemon.heard().len(), 6);
}

#[tokio::test]
async fn notice_is_given_once_of_each_reason() {
    static NOTICES: Mutex<Vec<Option<String>>> = Mutex::new(Vec::new());
    let busy = || Turn::Answers(503, "", BUSY.to_owned());
    let daemon = Daemon::plays(vec![Turn::Loses, Turn::Loses, busy(), busy(), attached()]);
    let client = daemon.client(QUICK).with_notice(|error| NOTICES.lock().unwrap().push(error.reason().map(str::to_owned)));
    client.attach(id(), &Attachment::to_network(id())).await.unwrap();
    assert_eq!(*NOTICES.lock().unwrap(), [None, Some("busy".to_owned())]);
}

#[tokio::test]
async fn what_an_unanswered_delete_removed_is_gone() {
    let gone = || Turn::Answers(404, "", r#"{"itemNotFound": {"code": 404, "message": "no such server"}}"#.to_owned());
    let mut daemon = Daemon::plays(vec![Turn::Loses, gone(), gone()]);
    let client = daemon.client(QUICK);
    client.delete_server(id(), Nics::Detach).await.unwrap();
    assert!(client.delete_server(id(), Nics::Keep).await.unwrap_err().is_not_found());
    let heard = daemon.heard();
    assert!(heard[1].starts_with(&format!("DELETE /nicd/v1/servers/{PORT}?detach=true ")), "{}", heard[1]);
}

#[tokio::test]
async fn a_refusal_is_not_repeated_and_says_what_and_why() {
    let body = r#"{"NeutronError": {"type": "IpAddressInUse", "message": "in use", "detail": "", "reason": "address_in_use"}}"#;
    let daemon = Daemon::plays(vec![Turn::Answers(409, "X-Request-Id: req-7\r\n", body.to_owned())]);
    let refused = daemon.client(QUICK).health().await.unwrap_err();
    assert_eq!(refused.reason(), Some("address_in_use"));
    let refusal = refused.refusal().unwrap();
    assert_eq!((refusal.status.as_u16(), refusal.request_id.as_deref()), (409, Some("req-7")));
}

#[tokio::test]
async fn a_daemon_that_does_not_come_back_leaves_open_what_it_did() {
    let mut daemon = Daemon::plays(vec![Turn::Loses]);
    let client = daemon.client(Retry { limit: Duration::from_millis(50), ..QUICK });
    let error = client.delete_port(id()).await.unwrap_err();
    assert!(matches!(error, Error::Unanswered { .. }) && error.is_uncertain(), "{error}");
    daemon.heard();
    let error = client.delete_port(id()).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }) && !error.is_uncertain(), "{error}");
}

#[tokio::test]
async fn a_daemon_that_must_be_there_is_not_waited_for() {
    let daemon = Daemon::plays(vec![]);
    let client = daemon.client(Retry { first_contact: FirstContact::Required, ..QUICK });
    std::fs::remove_file(daemon.room.path().join("nicd.sock")).unwrap();
    assert!(matches!(client.health().await.unwrap_err(), Error::Unreachable { .. }));
}

#[tokio::test]
async fn a_daemon_that_comes_later_is_waited_for() {
    let room = TempDir::new().unwrap();
    let socket = room.path().join("nicd.sock");
    let client = Client::new(&socket).with_retry(QUICK);
    let call = tokio::spawn(async move { client.get::<Value>("/nicd/v1/health").await });
    tokio::task::yield_now().await;
    let listener = UnixListener::bind(&socket).unwrap();
    let come = thread::spawn(move || Turn::Answers(200, "", "{}".to_owned()).play(&listener.accept().unwrap().0));
    assert_eq!(call.await.unwrap().unwrap(), serde_json::json!({}));
    come.join().unwrap();
}

#[tokio::test]
async fn events_go_on_after_the_last_one_seen() {
    let mut daemon = Daemon::plays(vec![
        Turn::Streams(&[r#"{"event": "port.created", "seq": 7}"#, r#"{"event": "port.status", "seq": 8, "new": "ACTIVE"}"#]),
        Turn::Loses,
        Turn::Answers(503, "", BUSY.to_owned()),
        Turn::Streams(&[r#"{"event": "lost", "seq": 20}"#]),
        Turn::Streams(&[r#"{"event": "port.deleted", "seq": 21}"#]),
    ]);
    let mut events = daemon.client(QUICK).events().await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let event = events.next().await.unwrap();
        seen.push((event.kind, event.seq));
    }
    let told = [(EventKind::PortCreated, 7), (EventKind::PortStatus, 8), (EventKind::Lost, 20), (EventKind::PortDeleted, 21)];
    assert_eq!(seen, told.map(|(kind, seq)| (kind, Some(seq))));
    let heard = daemon.heard();
    let resumed: Vec<_> = heard.iter().map(|head| field(head, "last-event-id")).collect();
    assert_eq!(resumed, [None, Some("8"), Some("8"), Some("8"), Some("20")]);
}

#[tokio::test]
async fn without_a_number_to_go_on_after_events_count_as_lost() {
    let daemon = Daemon::plays(vec![Turn::Streams(&[]), Turn::Streams(&[r#"{"event": "port.created", "seq": 7}"#])]);
    let mut events = daemon.client(QUICK).events().await.unwrap();
    assert_eq!(events.next().await.unwrap().kind, EventKind::Lost);
    assert_eq!(events.next().await.unwrap().seq, Some(7));
}

#[tokio::test]
async fn a_stream_that_is_not_to_be_opened_again_ends() {
    let daemon = Daemon::plays(vec![Turn::Streams(&[r#"{"event": "port.created", "seq": 7}"#])]);
    let mut events = daemon.client(Retry::NONE).events().await.unwrap();
    assert_eq!(events.next().await.unwrap().seq, Some(7));
    for _ in 0..2 {
        assert!(matches!(events.next().await.unwrap_err(), Error::StreamEnded { .. }));
    }
}
