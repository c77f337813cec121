//! The instrument: a blocking HTTP/1.1 client, one connection kept open, no more of the protocol than nicd's answers need.
//!
//! It is not `nicd_client::blocking`, because that has no descriptor to wait for: here one thread waits for many connections, or
//! for an answer and the kernel's notices at the same time, and a request is sent before its answer is waited for.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;

/// A connection.
pub struct Client {
    /// The socket.
    pub stream: UnixStream,
    buffer: Vec<u8>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status code.
    pub status: u16,
    /// Its body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body, which must be that of a success.
    pub fn json(&self) -> Value {
        assert!(self.status < 300, "{}: {}", self.status, String::from_utf8_lossy(&self.body));
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// A request's bytes.
pub fn request(method: &str, path: &str, body: Option<&Value>) -> Vec<u8> {
    match body {
        None => format!("{method} {path} HTTP/1.1\r\nHost: nicd\r\n\r\n").into_bytes(),
        Some(body) => {
            let body = body.to_string();
            let length = body.len();
            format!(
                "{method} {path} HTTP/1.1\r\nHost: nicd\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
            )
            .into_bytes()
        }
    }
}

impl Client {
    /// Connects.
    pub fn connect(socket: &Path) -> std::io::Result<Self> {
        Ok(Self { stream: UnixStream::connect(socket)?, buffer: Vec::with_capacity(16 * 1024) })
    }

    /// Sends, and does not wait.
    pub fn send(&mut self, request: &[u8]) {
        self.stream.write_all(request).expect("a request");
    }

    /// Waits for the answer.
    pub fn receive(&mut self) -> Answer {
        loop {
            if let Some(answer) = self.take() {
                return answer;
            }
            self.read();
        }
    }

    /// Sends and waits.
    pub fn ask(&mut self, request: &[u8]) -> Answer {
        self.send(request);
        self.receive()
    }

    /// Reads what has come; blocks when nothing has.
    pub fn read(&mut self) {
        let mut chunk = [0; 16 * 1024];
        let length = self.stream.read(&mut chunk).expect("an answer");
        assert!(length > 0, "nicd closed the connection");
        self.buffer.extend_from_slice(&chunk[..length]);
    }

    /// The answer, when all of it has come.
    fn take(&mut self) -> Option<Answer> {
        let end = self.buffer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let head = std::str::from_utf8(&self.buffer[..end]).expect("a head").to_ascii_lowercase();
        let status = head[9..12].parse().expect("a status");
        let length = head
            .split("content-length: ")
            .nth(1)
            .map_or(0, |rest| rest.split("\r\n").next().expect("a line").parse().expect("a length"));
        if self.buffer.len() < end + length {
            return None;
        }
        let body = self.buffer[end..end + length].to_vec();
        self.buffer.drain(..end + length);
        Some(Answer { status, body })
    }

    /// What has come of a stream, line by line, without waiting for more.
    pub fn lines(&mut self) -> Vec<Value> {
        let mut lines = Vec::new();
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            // Chunk sizes and heads lie between the events.
            lines.extend(serde_json::from_slice(&line).ok().filter(Value::is_object));
        }
        lines
    }
}

/// Sends each queue's requests over its own connection, one after the other, all connections at once. Gives `answered`
/// every answer with its queue and how long it took in seconds.
pub fn crowd(clients: &mut [Client], mut queues: Vec<Vec<Vec<u8>>>, mut answered: impl FnMut(usize, Answer, f64)) {
    for queue in &mut queues {
        queue.reverse();
    }
    let mut sent = vec![None; clients.len()];
    for (place, client) in clients.iter_mut().enumerate() {
        if let Some(next) = queues[place].pop() {
            sent[place] = Some(Instant::now());
            client.send(&next);
        }
    }
    while sent.iter().any(Option::is_some) {
        let busy: Vec<usize> = (0..clients.len()).filter(|place| sent[*place].is_some()).collect();
        let ready: Vec<usize> = {
            let mut fds: Vec<PollFd<'_>> =
                busy.iter().map(|place| PollFd::new(clients[*place].stream.as_fd(), PollFlags::POLLIN)).collect();
            poll(&mut fds, PollTimeout::NONE).expect("poll");
            busy.iter().zip(&fds).filter(|(_, fd)| fd.any() == Some(true)).map(|(place, _)| *place).collect()
        };
        for place in ready {
            clients[place].read();
            let Some(answer) = clients[place].take() else { continue };
            let took = sent[place].take().expect("sent").elapsed().as_secs_f64();
            if let Some(next) = queues[place].pop() {
                sent[place] = Some(Instant::now());
                clients[place].send(&next);
            }
            answered(place, answer, took);
        }
    }
}
