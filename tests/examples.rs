//! The examples against the real daemon: each keeps a server's ports attached while the daemon, the example itself and the ports go
//! away.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

#[path = "common/clients.rs"]
mod clients;
#[path = "common/daemon.rs"]
mod daemon;
#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/netns.rs"]
mod netns;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use daemon::PATIENCE;
use fixture::{Fixture, text};
use netns::in_netns;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

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

/// Waits until the server has as many ports as are to be kept, all of them ACTIVE and none of them `gone`.
fn kept(fixture: &mut Fixture, gone: &[String]) -> Vec<String> {
    let mut follower = fixture.daemon.follow(None);
    loop {
        let ports = fixture.ports();
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
    let mut example = Example::start(command(), &fixture, &server, &network);
    let mut gone = Vec::new();
    let first = kept(&mut fixture, &gone);

    // Behind its back, by an attach's own undoing and by a deletion.
    fixture.detach(&server, &first[0]);
    fixture.api.delete(&format!("/v2.0/ports/{}", first[1])).expect(204);
    gone.extend(first[..2].to_vec());
    kept(&mut fixture, &gone);

    // The daemon is killed, and a port goes while the example cannot see it: after its resume it is told `lost`.
    example.signal(Signal::SIGSTOP);
    fixture.daemon.kill();
    fixture.launch();
    let ports = kept(&mut fixture, &gone);
    fixture.api.delete(&format!("/v2.0/ports/{}", ports[0])).expect(204);
    gone.push(ports[0].clone());
    example.signal(Signal::SIGCONT);
    kept(&mut fixture, &gone);

    // The daemon is away for a while.
    fixture.daemon.term();
    fixture.launch();
    let ports = kept(&mut fixture, &gone);

    // The example is killed, and started when there are too few ports, and too many.
    drop(example);
    fixture.api.delete(&format!("/v2.0/ports/{}", ports[0])).expect(204);
    gone.push(ports[0].clone());
    example = Example::start(command(), &fixture, &server, &network);
    kept(&mut fixture, &gone);
    drop(example);
    for _ in 0..2 {
        fixture.attach_to(&server, &network);
    }
    example = Example::start(command(), &fixture, &server, &network);
    kept(&mut fixture, &gone);

    example.signal(Signal::SIGTERM);
    let status = example.process.wait().unwrap();
    assert!(status.success(), "{status}");
}

/// The example in Rust, built.
fn built() -> PathBuf {
    let cargo = env!("CARGO");
    let mut build = Command::new(cargo);
    build
        .args(["build", "--quiet", "--locked", "--workspace", "--example", "keep_ports"])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    assert!(build.status().unwrap().success());
    // This test is below `deps`, beside which the examples are.
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().with_file_name("examples").join("keep_ports")
}

#[test]
fn the_rust_example_keeps_ports_attached() {
    let example = built();
    in_netns(move || keeps_ports(|| Command::new(&example)));
}

#[test]
fn the_python_example_keeps_ports_attached() {
    clients::install();
    in_netns(|| {
        keeps_ports(|| {
            let mut python = clients::python();
            python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/keep_ports.py"));
            python
        });
    });
}
