//! A fake daemon for tests that plays a script: a list of exchanges, answered in order, one connection each.
//!
//! An exchange may push lines onto the event stream opened before it, so that what a test sees happen has an order.
//! When the script is at its end the socket refuses connections, so a call too many fails.

use std::cell::RefCell;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use clap::Parser;
use serde_json::Value;
use tempfile::TempDir;

use super::args::Cli;
use super::client;
use super::commands::{self, Session};
use super::out::Out;

/// One request to come and what it is answered with.
pub struct Exchange {
    status: u16,
    body: String,
    events: Vec<&'static str>,
    stream: Stream,
}

#[derive(PartialEq)]
enum Stream {
    No,
    Opens,
}

/// An answer with a body.
pub fn answer(status: u16, body: Value) -> Exchange {
    Exchange { status, body: body.to_string(), events: vec![], stream: Stream::No }
}

/// An answer without one.
pub fn bare(status: u16) -> Exchange {
    Exchange { status, body: String::new(), events: vec![], stream: Stream::No }
}

/// The event stream, which stays open until the script is at its end.
pub fn stream() -> Exchange {
    Exchange { stream: Stream::Opens, ..bare(200) }
}

impl Exchange {
    /// Then pushes these lines onto the event stream.
    pub fn then(self, events: &[&'static str]) -> Self {
        Self { events: events.to_vec(), ..self }
    }
}

/// The result of a command line.
pub struct Outcome {
    /// The exit code and the sentence on stderr.
    end: (u8, String),
    /// What it printed.
    pub printed: String,
    /// The requests it made, as "METHOD target body".
    pub requests: Vec<String>,
}

impl Outcome {
    /// The exit code and the sentence on stderr.
    pub fn end(&self) -> (u8, String) {
        self.end.clone()
    }
}

/// Runs a command line against a daemon that follows the script.
pub fn play(line: &str, script: Vec<Exchange>) -> Outcome {
    let room = TempDir::new().unwrap();
    let socket = room.path().join("nicd.sock");
    let requests = Arc::new(Mutex::new(vec![]));
    let listener = UnixListener::bind(&socket).unwrap();
    let heard = Arc::clone(&requests);
    if script.is_empty() {
        // Closed before the client comes, so that it is refused and not merely hung up on.
        drop(listener);
    } else {
        std::thread::spawn(move || follow(&listener, script, &heard));
    }

    let cli = Cli::try_parse_from(line.split(' ')).unwrap();
    let printed = Printed::default();
    let out = Out::to(Box::new(printed.clone()), cli.output, cli.listing);
    let mut session = Session::new(client::daemon(socket), out);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let result = runtime.block_on(commands::run(&mut session, cli.command));
    let requests = requests.lock().unwrap().clone();
    let end = result.map_or_else(|failure| (failure.exit_code(), session.sentence(&failure)), |()| (0, String::new()));
    Outcome { end, printed: printed.text(), requests }
}

fn follow(listener: &UnixListener, script: Vec<Exchange>, heard: &Mutex<Vec<String>>) {
    let mut events: Option<UnixStream> = None;
    for exchange in script {
        let (mut connection, _) = listener.accept().unwrap();
        heard.lock().unwrap().push(read_request(&connection));
        let length = exchange.body.len();
        let framing = if exchange.stream == Stream::Opens {
            "Transfer-Encoding: chunked\r\n".to_owned()
        } else {
            format!("Content-Length: {length}\r\n")
        };
        // The lines come first: a client that has its answer must find them waiting.
        for line in &exchange.events {
            let stream = events.as_mut().expect("the script opens a stream before it pushes lines");
            stream.write_all(format!("{:x}\r\n{line}\n\r\n", line.len() + 1).as_bytes()).unwrap();
        }
        write!(connection, "HTTP/1.1 {} Scripted\r\n{framing}\r\n{}", exchange.status, exchange.body).unwrap();
        if exchange.stream == Stream::Opens {
            events = Some(connection);
        }
    }
    // The stream ends with the script only if the script says so; a client that waits for more shall wait.
    std::mem::forget(events);
}

fn read_request(connection: &UnixStream) -> String {
    let mut reader = BufReader::new(connection);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap() > 0 {}
    let field = |name: &str| {
        head.lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    };
    let mut body = vec![0; field("content-length").map_or(0, |length| length.parse().unwrap())];
    reader.read_exact(&mut body).unwrap();
    let call = head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1");
    format!("{call} {}", String::from_utf8(body).unwrap()).trim_end().to_owned()
}

/// A sink whose text can be read afterwards.
#[derive(Default, Clone)]
struct Printed(Rc<RefCell<Vec<u8>>>);

impl Printed {
    fn text(&self) -> String {
        String::from_utf8(self.0.borrow().clone()).unwrap()
    }
}

impl Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
