//! Servers that are no etcd, and one in front of etcd that loses what etcd answers.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// What a server does with each connection.
#[derive(Debug, Clone)]
pub enum Deed {
    /// Closes it at once.
    Close,
    /// Reads a request, and closes.
    ReadAndClose,
    /// Says nothing.
    Silence,
    /// Answers a request so, and closes.
    Say(Vec<u8>),
    /// Answers a request so, and goes on saying this.
    SayOn(Vec<u8>, Vec<u8>),
}

impl Deed {
    /// An answer with this status line and body.
    pub fn answer(status: &str, body: &str) -> Self {
        Self::Say(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes())
    }
}

/// Serves a port so until the test ends; returns its address.
pub fn serve(port: u16, deed: Deed) -> String {
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let mut held = Vec::new();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            match &deed {
                Deed::Close => {}
                Deed::Silence => held.push(stream),
                Deed::ReadAndClose => _ = request(&mut stream),
                Deed::Say(said) => {
                    request(&mut stream);
                    let _ = stream.write_all(said);
                    let _ = stream.shutdown(Shutdown::Write);
                    // What the client still sends is read, so that the kernel does not reset the connection before it has read.
                    let _ = stream.read_to_end(&mut Vec::new());
                }
                Deed::SayOn(said, more) => {
                    request(&mut stream);
                    let _ = stream.write_all(said);
                    let more = more.clone();
                    thread::spawn(move || while stream.write_all(&more).is_ok() {});
                }
            }
        }
    });
    format!("http://127.0.0.1:{port}")
}

/// Reads until a request's head is there, and some of its body.
fn request(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let mut some = [0; 4096];
    while !all.windows(4).any(|four| four == b"\r\n\r\n") {
        match stream.read(&mut some) {
            Ok(n) if n > 0 => all.extend_from_slice(&some[..n]),
            _ => break,
        }
    }
    all
}

/// What is between a client and etcd.
#[derive(Debug)]
pub struct Between {
    pub url: String,
    pub losing: Arc<AtomicBool>,
    /// How often something came from the client.
    pub asked: Arc<AtomicUsize>,
    /// Whether it closes a connection after its answer, without saying so before.
    pub closing: Arc<AtomicBool>,
}

impl Between {
    pub fn start(port: u16, target: &str) -> Self {
        let target: SocketAddr = target.strip_prefix("http://").unwrap().parse().unwrap();
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let this = Self {
            url: format!("http://127.0.0.1:{port}"),
            losing: Arc::default(),
            asked: Arc::default(),
            closing: Arc::default(),
        };
        let (losing, asked, closing) = (Arc::clone(&this.losing), Arc::clone(&this.asked), Arc::clone(&this.closing));
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(target).unwrap());
                let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let count = Arc::clone(&asked);
                thread::spawn(move || {
                    forward(&mut from, &mut to, |some, to| {
                        count.fetch_add(1, Ordering::SeqCst);
                        to.write_all(some).is_ok()
                    });
                });
                let (mut from, mut to) = (server, client);
                let (losing, closing) = (Arc::clone(&losing), Arc::clone(&closing));
                thread::spawn(move || {
                    forward(&mut from, &mut to, |some, to| {
                        if losing.load(Ordering::SeqCst) {
                            return false;
                        }
                        let _ = to.write_all(some);
                        !closing.load(Ordering::SeqCst)
                    });
                });
            }
        });
        this
    }
}

/// Has `pass` pass on what comes, as long as it says so; then both connections end.
fn forward(from: &mut TcpStream, to: &mut TcpStream, mut pass: impl FnMut(&[u8], &mut TcpStream) -> bool) {
    let mut some = [0; 65536];
    while let Ok(n) = from.read(&mut some) {
        if n == 0 || !pass(&some[..n], to) {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
