//! The examples against the real daemon: each keeps a server's ports attached while the daemon, the example itself and the ports go
//! away.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

#[path = "common/cargo.rs"]
mod cargo;
#[path = "common/clients.rs"]
mod clients;
#[path = "common/daemon.rs"]
mod daemon;
#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/netns.rs"]
mod netns;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cargo::cargo;
use daemon::PATIENCE;
use fixture::{Fixture, text};
use netns::in_netns;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

/// How many ports are to be kept.
const COUNT: usize = 3;

/// A running example; it is killed when it is dropped.
struct Example {
    process: Child,
}

impl Example {
    fn start(mut command: Command, fixture: &Fixture, server: &str, network: &str) -> Self {
        command.arg(fixture.daemon.socket()).args([server, network, &COUNT.to_string()]);
        Self { process: command.stdin(Stdio::null()).spawn().unwrap() }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id().try_into().unwrap()), signal).unwrap();
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Waits until the server has as many ports on the network as are to be kept, all of them ACTIVE and none of them `gone`.
fn kept(fixture: &mut Fixture, network: &str, gone: &[String]) -> Vec<String> {
    let mut follower = fixture.daemon.follow(None);
    loop {
        let ports: Vec<_> = fixture.ports().into_iter().filter(|port| port["network_id"] == network).collect();
        let ids: Vec<String> = ports.iter().map(|port| text(&port["id"])).collect();
        if ids.len() == COUNT && ports.iter().all(|port| port["status"] == "ACTIVE") && !ids.iter().any(|id| gone.contains(id)) {
            return ids;
        }
        assert!(follower.next(PATIENCE).is_some(), "{} ports are not kept: {ports:#?}", COUNT);
    }
}

/// Everything that can go away does, one after the other.
fn keeps_ports(command: impl Fn() -> Command) {
    let mut fixture = Fixture::start();
    let network = fixture.usual_network();
    let (_guest, server) = fixture.guest("kept");
    let red = fixture.network(json!({"name": "red"}));
    fixture.subnet(&red, "198.51.100.0/24");
    let other = fixture.attach_to(&server, &red);
    let mut example = Example::start(command(), &fixture, &server, &network);
    let mut gone = Vec::new();
    let first = kept(&mut fixture, &network, &gone);

    // Behind its back, by an attach's own undoing and by a deletion.
    fixture.detach(&server, &first[0]);
    fixture.api.delete(&format!("/v2.0/ports/{}", first[1])).expect(204);
    gone.extend(first[..2].to_vec());
    kept(&mut fixture, &network, &gone);

    // The daemon is killed, and a port goes while the example cannot see it: after its resume it is told `lost`.
    example.signal(Signal::SIGSTOP);
    fixture.daemon.kill();
    fixture.launch();
    let ports = kept(&mut fixture, &network, &gone);
    fixture.api.delete(&format!("/v2.0/ports/{}", ports[0])).expect(204);
    gone.push(ports[0].clone());
    example.signal(Signal::SIGCONT);
    kept(&mut fixture, &network, &gone);

    // The daemon is away for a while.
    fixture.daemon.term();
    fixture.launch();
    let ports = kept(&mut fixture, &network, &gone);

    // The example is killed, and started when there are too few ports, and too many.
    drop(example);
    fixture.api.delete(&format!("/v2.0/ports/{}", ports[0])).expect(204);
    gone.push(ports[0].clone());
    example = Example::start(command(), &fixture, &server, &network);
    kept(&mut fixture, &network, &gone);
    drop(example);
    for _ in 0..2 {
        fixture.attach_to(&server, &network);
    }
    example = Example::start(command(), &fixture, &server, &network);
    kept(&mut fixture, &network, &gone);

    let unkept = fixture.port(&other);
    assert_eq!((&unkept["status"], &unkept["device_id"]), (&json!("ACTIVE"), &json!(server)), "it is on another network");
    example.signal(Signal::SIGTERM);
    let status = example.process.wait().unwrap();
    assert!(status.success(), "{status}");
}

/// Told on stderr is an absent daemon once, and once the reason of a refusal; before `Retry-After` is over nothing is sent.
fn tells_of_outages(mut command: Command) {
    let room = tempfile::tempdir().unwrap();
    let socket = room.path().join("nicd.sock");
    let id = uuid::Uuid::new_v4().to_string();
    command.arg(&socket).args([&id, &id, "1"]).stdin(Stdio::null()).stderr(Stdio::piped());
    let mut example = Example { process: command.spawn().unwrap() };
    let mut told = BufReader::new(example.process.stderr.take().unwrap()).lines();
    let mut line = || told.next().unwrap().unwrap();
    let absent = line();
    assert!(absent.contains("nicd"), "{absent}");
    let listener = UnixListener::bind(&socket).unwrap();
    let refuse = || {
        let (mut connection, _) = listener.accept().unwrap();
        let mut request = BufReader::new(connection.try_clone().unwrap()).lines().map_while(Result::ok);
        assert!(request.any(|line| line.is_empty()), "the head has an end");
        let body = r#"{"serviceUnavailable": {"code": 503, "message": "no store", "reason": "cannot_start"}}"#;
        let head = format!("HTTP/1.1 503 Refused\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: {}", body.len());
        write!(connection, "{head}\r\n\r\n{body}").unwrap();
        Instant::now()
    };
    let times = [refuse(), refuse(), refuse()];
    for pair in times.windows(2) {
        assert!(pair[1] - pair[0] >= Duration::from_millis(900), "{times:?}");
    }
    let refused = line();
    assert!(refused.contains("cannot_start"), "{refused}");
    example.process.kill().unwrap();
    assert_eq!(told.map(Result::unwrap).collect::<Vec<_>>(), [""; 0], "each is told once");
}

/// The example in Rust, built.
fn built() -> PathBuf {
    let mut build = cargo();
    build
        .args(["build", "--quiet", "--locked", "--workspace", "--example", "keep_ports"])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    assert!(build.status().unwrap().success());
    // This test is below `deps`, beside which the examples are.
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().with_file_name("examples").join("keep_ports")
}

#[test]
fn the_rust_example_keeps_ports_attached() {
    let example = built();
    tells_of_outages(Command::new(&example));
    in_netns(move || keeps_ports(|| Command::new(&example)));
}

#[test]
fn the_python_example_keeps_ports_attached() {
    clients::install();
    in_netns(|| {
        let example = || {
            let mut python = clients::python();
            python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/keep_ports.py"));
            python
        };
        tells_of_outages(example());
        keeps_ports(example);
    });
}
