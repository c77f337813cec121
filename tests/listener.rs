//! The listener from outside: raw bytes in, raw bytes out, over real Unix sockets. Needs no privileges.
#![allow(clippy::unwrap_used)] // clippy.toml's leave covers test functions, not their helpers

use std::os::unix::net::UnixListener as StdListener;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::routing::{get, post};
use axum::{Extension, Router};
use hyper::body::Frame;
use nicd::access::AllowedPeers;
use nicd::api::listener::{Caller, Limits, Server};
use nicd::api::socket::Listening;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Longer than anything here may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A running server in a directory of its own.
struct TestServer {
    dir: tempfile::TempDir,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
    /// Each handler that waits says so here, and waits for `go`.
    started: mpsc::UnboundedReceiver<()>,
    go: CancellationToken,
}

/// Events: one at once, no further, and no end.
struct Events(Option<Bytes>);

impl hyper::body::Body for Events {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.take().map_or(Poll::Pending, |event| Poll::Ready(Some(Ok(Frame::data(event)))))
    }
}

async fn buggy() -> &'static str {
    panic!("a bug")
}

fn quick() -> Limits {
    Limits { arrival: Duration::from_millis(300), grace: Duration::from_millis(300), ..Limits::default() }
}

impl TestServer {
    fn start(limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let main = StdListener::bind(dir.path().join("n.sock")).unwrap();
        let view = StdListener::bind(dir.path().join("n-view.sock")).unwrap();
        let (starting, started) = mpsc::unbounded_channel();
        let go = CancellationToken::new();
        let wait = go.clone();
        let hang = move || {
            let (starting, wait) = (starting.clone(), wait.clone());
            async move {
                starting.send(()).unwrap();
                wait.cancelled().await;
                "done"
            }
        };
        let app = Router::new()
            .route("/ok", get(|| async { "fine" }))
            .route("/echo", post(|body: Bytes| async move { body.len().to_string() }))
            .route("/who", get(|Extension(caller): Extension<Caller>| async move { caller.request_id.to_string() }))
            .route("/big", get(|| async { vec![b'x'; 8 << 20] }))
            .route("/events", get(|| async { Body::new(Events(Some(Bytes::from_static(b"event\n")))) }))
            .route("/panic", get(buggy))
            .route("/hang", get(hang));
        let admitted = AllowedPeers { own_uid: nix::unistd::geteuid().as_raw(), group: None, view_group: None };
        let listener = Server::new(Listening { main, view: Some(view) }, admitted, limits);
        let renewed = mpsc::channel(1).1;
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let serving = tokio::spawn(async move { listener.serve(app, renewed, token).await.unwrap() });
        Self { dir, shutdown, serving, started, go }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("n.sock")
    }

    async fn connect(&self) -> Client {
        Client(UnixStream::connect(self.path()).await.unwrap())
    }

    async fn view(&self) -> Client {
        Client(UnixStream::connect(self.dir.path().join("n-view.sock")).await.unwrap())
    }

    /// Sends `request` on a connection of its own and reads until the server closes it.
    async fn ask(&self, request: impl AsRef<[u8]>) -> Reply {
        let mut client = self.connect().await;
        client.send(request).await;
        client.rest().await
    }
}

struct Client(UnixStream);

impl Client {
    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // The server may close before all is sent.
        let _ = timeout(PATIENCE, self.0.write_all(bytes.as_ref())).await.expect("the server takes what is sent");
    }

    /// Everything until the server closes.
    async fn rest(&mut self) -> Reply {
        let mut bytes = Vec::new();
        let end = timeout(PATIENCE, self.0.read_to_end(&mut bytes)).await.expect("the server closes");
        if let Err(error) = end {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
        Reply(String::from_utf8(bytes).unwrap())
    }

    /// One response with a Content-Length, or what came before the server closed.
    async fn reply(&mut self) -> Reply {
        let mut bytes = Vec::new();
        loop {
            if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&bytes[..at]).to_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
                if bytes.len() >= at + 4 + length.parse::<usize>().unwrap() {
                    return Reply(String::from_utf8(bytes).unwrap());
                }
            }
            let read = timeout(PATIENCE, self.0.read_buf(&mut bytes)).await.expect("the server answers");
            if matches!(read, Ok(0) | Err(_)) {
                return Reply(String::from_utf8(bytes).unwrap());
            }
        }
    }

    /// Asks for `path` and reads the answer; the connection stays.
    async fn get(&mut self, path: &str) -> Reply {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        self.reply().await
    }
}

#[derive(Debug)]
struct Reply(String);

impl Reply {
    fn status(&self) -> u16 {
        self.0.get(9..12).and_then(|digits| digits.parse().ok()).unwrap_or(0)
    }

    fn header(&self, name: &str) -> Option<&str> {
        let head = self.0.split("\r\n\r\n").next().unwrap();
        head.lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(have, _)| have.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    fn body(&self) -> &str {
        self.0.split_once("\r\n\r\n").map_or("", |(_, body)| body)
    }

    /// Checks a whole refusal of the server: envelope, ids, and that the connection closes.
    #[track_caller]
    fn is_refusal(&self, status: u16, key: &str, reason: &str) {
        assert_eq!(self.status(), status, "{self:?}");
        let body: serde_json::Value = serde_json::from_str(self.body()).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        assert_eq!((&body[key]["code"], &body[key]["reason"]), (&status.into(), &reason.into()), "{self:?}");
        assert_eq!(self.header("connection"), Some("close"), "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"));
        let id = self.header("x-compute-request-id").unwrap();
        assert!(id.starts_with("req-") && id.len() == 40, "{id}");
        assert_eq!((self.header("x-openstack-request-id"), self.header("x-request-id")), (Some(id), Some(id)));
    }
}

#[tokio::test]
async fn requests_follow_one_another_on_a_connection_each_with_its_id() {
    let server = TestServer::start(quick());
    let mut client = server.connect().await;
    let mut seen = Vec::new();
    for _ in 0..20 {
        let reply = client.get("/who").await;
        assert_eq!(reply.status(), 200);
        // The handler and all headers: one id.
        for name in ["x-compute-request-id", "x-openstack-request-id", "x-request-id"] {
            assert_eq!(reply.header(name), Some(reply.body()), "{name}");
        }
        seen.push(reply.body().to_owned());
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 20);
    // Answers of the router's own have it too.
    let nowhere = client.get("/nowhere").await;
    assert!(nowhere.header("x-request-id").is_some() && nowhere.header("x-request-id") == nowhere.header("x-compute-request-id"));
    client.send("HEAD /ok HTTP/1.1\r\n\r\n").await;
    let head = timeout(PATIENCE, client.0.read_u8()).await.unwrap().unwrap();
    assert_eq!(head, b'H');
}

#[tokio::test]
async fn a_head_that_trickles_in_gets_408_at_the_limit() {
    let server = TestServer::start(quick());
    let started = Instant::now();
    let (mut reading, mut writing) = server.connect().await.0.into_split();
    let trickle = tokio::spawn(async move {
        for byte in b"GET /ok HTTP/1.1\r\nx-slow: ".iter().chain(std::iter::repeat(&b'a')) {
            if writing.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let mut bytes = Vec::new();
    let _ = timeout(PATIENCE, reading.read_to_end(&mut bytes)).await.unwrap();
    Reply(String::from_utf8(bytes).unwrap()).is_refusal(408, "computeFault", "request_timeout");
    assert!(started.elapsed() >= Duration::from_millis(250) && started.elapsed() < Duration::from_secs(2));
    trickle.await.unwrap();
}

#[tokio::test]
async fn a_body_that_stays_away_gets_408_and_time_spent_on_the_head_counts() {
    let server = TestServer::start(quick());
    server.ask("POST /echo HTTP/1.1\r\ncontent-length: 10\r\n\r\nabc").await.is_refusal(408, "computeFault", "request_timeout");
    server.ask("POST /echo HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n").await.is_refusal(
        408,
        "computeFault",
        "request_timeout",
    );
    let started = Instant::now();
    let mut client = server.connect().await;
    client.send("POST /echo HTTP/1.1\r\n").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    client.send("content-length: 3\r\n\r\n").await;
    assert_eq!(client.rest().await.status(), 408);
    assert!(started.elapsed() < Duration::from_millis(450), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed_without_words() {
    let server = TestServer::start(quick());
    assert_eq!(server.connect().await.rest().await.0, "");
}

#[tokio::test]
async fn between_requests_another_limit_holds() {
    let server = TestServer::start(Limits { idle: Duration::from_millis(700), ..quick() });
    let mut client = server.connect().await;
    assert_eq!(client.get("/ok").await.status(), 200);
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(client.get("/ok").await.status(), 200);
    assert_eq!(client.rest().await.0, "");
    // The next request's clock starts with its first byte.
    let mut client = server.connect().await;
    client.get("/ok").await;
    client.send("GET /").await;
    assert_eq!(client.rest().await.status(), 408);
}

#[tokio::test]
async fn bodies_up_to_64_kib_are_taken_and_not_a_byte_more() {
    let server = TestServer::start(Limits::default());
    let post = |length: usize| format!("POST /echo HTTP/1.1\r\ncontent-length: {length}\r\n\r\n{}", "b".repeat(length));
    let mut client = server.connect().await;
    client.send(post(65_536)).await;
    assert_eq!(client.reply().await.body(), "65536");
    server.ask(post(65_537)).await.is_refusal(413, "overLimit", "body_too_large");
    server.ask(post(900_000)).await.is_refusal(413, "overLimit", "body_too_large");
    let chunk = format!("8000\r\n{}\r\n", "b".repeat(0x8000));
    let chunked =
        |chunks: usize| format!("POST /echo HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n{}0\r\n\r\n", chunk.repeat(chunks));
    client.send(chunked(2)).await;
    assert_eq!(client.reply().await.body(), "65536");
    server.ask(chunked(3)).await.is_refusal(413, "overLimit", "body_too_large");
}

#[tokio::test]
async fn a_gigabyte_announced_is_refused_before_it_is_sent() {
    let server = TestServer::start(Limits::default());
    for expect in ["", "expect: 100-continue\r\n"] {
        let reply = server.ask(format!("POST /echo HTTP/1.1\r\n{expect}content-length: 1073741824\r\n\r\n")).await;
        reply.is_refusal(413, "overLimit", "body_too_large");
    }
    // Lengths beyond what a number holds are malformed.
    server.ask("POST /echo HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n").await.is_refusal(
        400,
        "badRequest",
        "malformed_request",
    );
}

#[tokio::test]
async fn a_body_that_waits_for_100_continue_gets_it() {
    let server = TestServer::start(quick());
    let mut client = server.connect().await;
    client.send("POST /echo HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n").await;
    assert_eq!(client.reply().await.status(), 100);
    client.send("abc").await;
    assert_eq!(client.reply().await.body(), "3");
}

#[tokio::test]
async fn headers_up_to_16_kib_are_taken_and_more_are_431() {
    let server = TestServer::start(Limits::default());
    let request = |length: usize| format!("GET /ok HTTP/1.1\r\nx-long: {}\r\n\r\n", "h".repeat(length));
    let mut client = server.connect().await;
    client.send(request(16_000)).await;
    assert_eq!(client.reply().await.status(), 200);
    for length in [17 << 10, 300 << 10] {
        server.ask(request(length)).await.is_refusal(431, "computeFault", "headers_too_large");
    }
    server.ask(format!("GET /{} HTTP/1.1\r\n\r\n", "p".repeat(17 << 10))).await.is_refusal(
        431,
        "computeFault",
        "headers_too_large",
    );
    server.ask(format!("GET /ok HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(101))).await.is_refusal(
        431,
        "computeFault",
        "headers_too_large",
    );
}

#[tokio::test]
async fn what_is_not_http_is_400() {
    let server = TestServer::start(quick());
    for garbage in [
        &b"garbage\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET / HTTP/1.1\r\na: \x00\r\n\r\n",
        b"GET\x00/ HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /echo HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc",
        b"POST /echo HTTP/1.1\r\ncontent-length: -3\r\n\r\nabc",
        b"POST /echo HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\nabc",
        b"POST /echo HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nabc",
    ] {
        let reply = server.ask(garbage).await;
        reply.is_refusal(400, "badRequest", "malformed_request");
    }
}

#[tokio::test]
async fn garbage_behind_a_request_does_not_cost_it_its_answer() {
    let server = TestServer::start(quick());
    let all = server.ask("GET /ok HTTP/1.1\r\n\r\n\0\0\0 not http\r\n\r\n").await.0;
    let (first, second) = all.split_once("fine").unwrap();
    assert!(first.starts_with("HTTP/1.1 200"), "{all}");
    Reply(second.to_owned()).is_refusal(400, "badRequest", "malformed_request");
    // Length and chunks at once are a smuggler's: the connection does not go on (RFC 9112 §6.1).
    let all = server
        .ask("POST /echo HTTP/1.1\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /ok HTTP/1.1\r\n\r\n")
        .await;
    assert!(!all.0.contains("fine"), "{all:?}");
}

#[tokio::test]
async fn every_form_of_a_target_is_answered() {
    let server = TestServer::start(quick());
    for (line, status) in [
        ("GET http://any/ok", 200),
        ("GET /ok?a=b#c", 200),
        ("OPTIONS *", 404),
        ("CONNECT x:1", 404),
        ("GET /%00%ff/../..", 404),
        ("BREW /ok", 405),
    ] {
        let reply = server.ask(format!("{line} HTTP/1.1\r\nconnection: close\r\n\r\n")).await;
        assert_eq!(reply.status(), status, "{line}: {reply:?}");
    }
}

#[tokio::test]
async fn a_message_that_breaks_off_is_400() {
    let server = TestServer::start(quick());
    for part in ["POST /echo HTTP/1.1\r\ncontent-length: 10\r\n\r\nabc", "GET /ok HTT"] {
        let mut client = server.connect().await;
        client.send(part).await;
        client.0.shutdown().await.unwrap();
        client.rest().await.is_refusal(400, "badRequest", "malformed_request");
    }
}

#[tokio::test]
async fn a_client_that_has_said_all_still_gets_its_answer() {
    let mut server = TestServer::start(quick());
    let mut client = server.connect().await;
    client.send("GET /hang HTTP/1.1\r\n\r\n").await;
    client.0.shutdown().await.unwrap();
    server.started.recv().await.unwrap();
    server.go.cancel();
    assert_eq!(client.rest().await.body(), "done");
}

#[tokio::test]
async fn the_view_socket_is_for_reading() {
    let server = TestServer::start(quick());
    let mut client = server.view().await;
    assert_eq!(client.get("/ok").await.body(), "fine");
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "BREW"] {
        let mut client = server.view().await;
        client.send(format!("{method} /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nx")).await;
        client.rest().await.is_refusal(403, "forbidden", "read_only_socket");
    }
    let mut client = server.view().await;
    client.send("POST /v2.0/ports HTTP/1.1\r\n\r\n").await;
    let reply = client.rest().await;
    assert!(reply.status() == 403 && reply.body().contains("\"NeutronError\""), "{reply:?}");
}

#[tokio::test]
async fn beyond_the_last_permit_is_503_and_a_freed_permit_is_given_again() {
    let mut server = TestServer::start(Limits { max_connections: 2, root_reserve: 0, ..quick() });
    let mut working = Vec::new();
    for _ in 0..2 {
        let mut client = server.connect().await;
        client.send("GET /hang HTTP/1.1\r\nconnection: close\r\n\r\n").await;
        server.started.recv().await.unwrap();
        working.push(client);
    }
    let reply = server.ask("GET /ok HTTP/1.1\r\n\r\n").await;
    reply.is_refusal(503, "serviceUnavailable", "too_many_connections");
    assert_eq!(reply.header("retry-after"), Some("1"));
    server.go.cancel();
    for mut client in working {
        assert_eq!(client.rest().await.body(), "done");
    }
    // Each has seen its connection close; its permit is free by the time we can ask again.
    assert_eq!(server.connect().await.get("/ok").await.status(), 200);
}

#[tokio::test]
async fn idle_connections_make_room_at_their_limit() {
    let server = TestServer::start(Limits { max_connections: 2, root_reserve: 0, idle: Duration::ZERO, ..quick() });
    let mut idle = [server.connect().await, server.connect().await];
    for client in &mut idle {
        assert_eq!(client.get("/ok").await.status(), 200);
    }
    server.ask("GET /ok HTTP/1.1\r\n\r\n").await.is_refusal(503, "serviceUnavailable", "too_many_connections");
    for client in &mut idle {
        assert_eq!(client.rest().await.0, "");
    }
    assert_eq!(server.connect().await.get("/ok").await.status(), 200);
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_let_go() {
    let server = TestServer::start(Limits { stall: Duration::from_millis(200), max_connections: 2, root_reserve: 0, ..quick() });
    let mut stuck = [server.connect().await, server.connect().await];
    for client in &mut stuck {
        client.send("GET /big HTTP/1.1\r\n\r\n").await;
        // The answer has begun, so the permit is taken.
        client.0.readable().await.unwrap();
    }
    let freed = async {
        while server.connect().await.get("/ok").await.status() != 200 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, freed).await.unwrap();
    let [first, _] = &mut stuck;
    assert!(first.rest().await.0.len() < 8 << 20);
}

#[tokio::test]
async fn a_reader_that_reads_gets_all_of_it() {
    let server = TestServer::start(quick());
    let mut client = server.connect().await;
    let reply = client.get("/big").await;
    assert_eq!(reply.body().len(), 8 << 20);
    assert_eq!(client.get("/ok").await.status(), 200);
}

#[tokio::test]
async fn a_panic_is_500_and_costs_nothing_else() {
    let server = TestServer::start(quick());
    server.ask("GET /panic HTTP/1.1\r\n\r\n").await.is_refusal(500, "computeFault", "internal");
    assert_eq!(server.connect().await.get("/ok").await.status(), 200);
}

#[tokio::test]
async fn at_the_end_what_runs_finishes_and_what_rests_is_closed() {
    let mut server = TestServer::start(Limits { grace: PATIENCE, ..quick() });
    let mut idle = server.connect().await;
    idle.get("/ok").await;
    let mut events = server.connect().await;
    events.send("GET /events HTTP/1.1\r\n\r\n").await;
    let mut first = [0; 12];
    events.0.read_exact(&mut first).await.unwrap();
    let mut working = server.connect().await;
    working.send("GET /hang HTTP/1.1\r\n\r\n").await;
    server.started.recv().await.unwrap();
    let started = Instant::now();
    server.shutdown.cancel();
    assert_eq!(idle.rest().await.0, "");
    // The last chunk says that the stream ended, and did not break.
    assert!(events.rest().await.0.ends_with("event\n\r\n0\r\n\r\n"));
    assert!(UnixStream::connect(server.path()).await.is_err());
    server.go.cancel();
    let reply = working.rest().await;
    assert_eq!((reply.body(), reply.header("connection")), ("done", Some("close")));
    timeout(PATIENCE, server.serving).await.unwrap().unwrap();
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn who_keeps_an_idle_connection_open_does_not_hold_up_the_end() {
    let server = TestServer::start(Limits { grace: PATIENCE, ..quick() });
    let mut idle = server.connect().await;
    idle.get("/ok").await;
    let started = Instant::now();
    server.shutdown.cancel();
    timeout(PATIENCE, server.serving).await.unwrap().unwrap();
    assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
    assert_eq!(idle.rest().await.0, "");
}

#[tokio::test]
async fn what_does_not_finish_in_time_is_ended() {
    let mut server = TestServer::start(quick());
    let mut working = server.connect().await;
    working.send("GET /hang HTTP/1.1\r\n\r\n").await;
    server.started.recv().await.unwrap();
    server.shutdown.cancel();
    timeout(PATIENCE, server.serving).await.unwrap().unwrap();
    assert_eq!(working.rest().await.0, "");
}
