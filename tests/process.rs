//! The process survives a log without a reader and an output without a reader; a panic ends it.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

#[path = "common/daemon.rs"]
mod daemon;
#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/netns.rs"]
mod netns;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use daemon::{Daemon, PATIENCE};
use fixture::{Fixture, interfaces};
use netns::in_netns;
use serde_json::json;

/// What a daemon may log to, and what keeps it so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stderr {
    Full,
    PipeWithoutReader,
    PipeNobodyReads,
    SocketWithoutReader,
    SocketNobodyReads,
    TerminalNobodyReads,
    TerminalHungUp,
    NotForWriting,
}

impl Stderr {
    const ALL: [Self; 8] = [
        Self::Full,
        Self::PipeWithoutReader,
        Self::PipeNobodyReads,
        Self::SocketWithoutReader,
        Self::SocketNobodyReads,
        Self::TerminalNobodyReads,
        Self::TerminalHungUp,
        Self::NotForWriting,
    ];

    /// The daemon's end, and the other one where somebody has it.
    fn open(self) -> (OwnedFd, Option<OwnedFd>) {
        let pipe = || std::io::pipe().map(|(read, write)| (OwnedFd::from(write), OwnedFd::from(read))).unwrap();
        let socket = || UnixStream::pair().map(|(one, other)| (OwnedFd::from(one), OwnedFd::from(other))).unwrap();
        match self {
            Self::Full => (File::options().write(true).open("/dev/full").unwrap().into(), None),
            Self::NotForWriting => (File::open("/dev/null").unwrap().into(), None),
            Self::PipeWithoutReader => (pipe().0, None),
            Self::SocketWithoutReader => (socket().0, None),
            Self::PipeNobodyReads => kept(pipe()),
            Self::SocketNobodyReads => kept(socket()),
            Self::TerminalNobodyReads => kept(terminal()),
            Self::TerminalHungUp => (terminal().0, None),
        }
    }

    /// Whether nothing at all can be written.
    fn refuses(self) -> bool {
        !matches!(self, Self::PipeNobodyReads | Self::SocketNobodyReads | Self::TerminalNobodyReads)
    }
}

fn kept((theirs, ours): (OwnedFd, OwnedFd)) -> (OwnedFd, Option<OwnedFd>) {
    (theirs, Some(ours))
}

fn terminal() -> (OwnedFd, OwnedFd) {
    let terminal = nix::pty::openpty(None, None).unwrap();
    (terminal.slave, terminal.master)
}

fn lost(fixture: &mut Fixture) -> u64 {
    let text = fixture.api.get("/metrics").text;
    let line = text.lines().find(|line| line.starts_with("nicd_log_lost_total ")).unwrap();
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[test]
fn whatever_becomes_of_the_log_the_daemon_serves_and_ends_as_asked() {
    for stderr in Stderr::ALL {
        in_netns(move || {
            let (theirs, _ours) = stderr.open();
            let mut daemon = Daemon::prepared("/run/nicd");
            daemon.log_to = Some(theirs);
            daemon.launch();
            let mut fixture = Fixture::of(daemon);
            let network = fixture.usual_network();
            let (_guest, server) = fixture.guest("a");
            let port = fixture.attach_to(&server, &network);
            fixture.wait_status(&port, "ACTIVE");
            let began = Instant::now();
            for _ in 0..3000 {
                fixture.api.get("/nicd/v1/health").expect(200);
            }
            let took = began.elapsed();
            assert!(took < PATIENCE, "{stderr:?}: {took:?}");
            assert!(!stderr.refuses() || lost(&mut fixture) > 0, "{stderr:?}: what cannot be written is counted");
            fixture.detach(&server, &port);
            let began = Instant::now();
            fixture.daemon.term();
            let took = began.elapsed();
            assert!(took < Duration::from_secs(5), "{stderr:?}: it ends in {took:?}");
        });
    }
}

/// The queue is bounded: what it has no room for is lost, and that is said once there is a reader again.
#[test]
fn lines_beyond_the_queue_are_lost_and_it_is_said_how_many() {
    in_netns(|| {
        let (theirs, ours) = Stderr::PipeNobodyReads.open();
        let mut daemon = Daemon::prepared("/run/nicd");
        daemon.log_to = Some(theirs);
        daemon.launch();
        let mut fixture = Fixture::of(daemon);
        let until = Instant::now() + Duration::from_secs(120);
        // A long path makes a long line.
        let path = format!("/nicd/v1/{}", "x".repeat(150));
        while lost(&mut fixture) < 100 {
            assert!(Instant::now() < until, "nothing is lost");
            (0..500).for_each(|_| drop(fixture.api.get(&path)));
        }
        let mut reader = File::from(ours.unwrap());
        let reading = std::thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text
        });
        fixture.daemon.term();
        drop(fixture);
        let text = reading.join().unwrap();
        assert!(text.contains("lines of the log were lost"), "{}", &text[text.len().saturating_sub(2000)..]);
        assert!(text.ends_with('\n') && text.contains("stopping"), "what came last is written before it ends");
    });
}

/// The program, with nothing but these arguments.
fn nicd(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nicd"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Its exit code, which is to come soon.
fn code(mut command: Command, what: &str) -> i32 {
    let mut child = command.spawn().unwrap();
    drop(command);
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().unwrap_or_else(|| panic!("{what}: {status}"));
        }
        if Instant::now() > until {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{what}: it does not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_start_that_fails_has_its_exit_code_whatever_becomes_of_its_words() {
    let bad = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(bad.path(), "[links]\nnonsense = 1\n").unwrap();
    let config = bad.path().to_str().unwrap();
    for stderr in Stderr::ALL {
        for (arguments, expected) in [(&["--config", config][..], 78), (&["--nonsense"], 64), (&["netns"], 64)] {
            let (theirs, ours) = stderr.open();
            if ours.is_some() && stderr != Stderr::TerminalNobodyReads {
                fill(&theirs);
            }
            let mut command = nicd(arguments);
            command.stderr(theirs).env_remove("LISTEN_FDS");
            assert_eq!(code(command, &format!("{stderr:?} {arguments:?}")), expected, "{stderr:?} {arguments:?}");
        }
    }
}

/// Writes until nothing more goes in.
fn fill(end: &OwnedFd) {
    let mut file = File::from(end.try_clone().unwrap());
    let flags = nix::fcntl::OFlag::from_bits_retain(nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_GETFL).unwrap());
    let set = |flags| nix::fcntl::fcntl(end, nix::fcntl::FcntlArg::F_SETFL(flags)).unwrap();
    set(flags | nix::fcntl::OFlag::O_NONBLOCK);
    while file.write(&[b'x'; 1024]).is_ok() {}
    set(flags);
}

#[test]
fn an_output_without_a_reader_is_no_failure_and_a_full_one_is() {
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let closed = || std::io::pipe().unwrap().1;
    for arguments in [&["--config", "/dev/null", "check-config"][..], &["--help"], &["--version"]] {
        let mut without_reader = nicd(arguments);
        without_reader.stdout(closed()).stderr(Stdio::null());
        assert_eq!(code(without_reader, "closed"), 0, "{arguments:?}");
        let mut into_full = nicd(arguments);
        into_full.stdout(full()).stderr(Stdio::null());
        assert_eq!(code(into_full, "full"), 1, "{arguments:?}");
    }
}

#[test]
fn a_panic_anywhere_ends_the_process_and_the_next_start_goes_on() {
    // Threads of the kernel's, the watch, the store's thread, a task of the reconciler's; before, during and after an attach's commit.
    for point in [
        "op.set_filter:1",
        "op.create_veth:1",
        "op.configure:1",
        "watch.events:1",
        "store.commit:4",
        "store.commit:5",
        "event.port.created:1",
        "event.port.status:1",
    ] {
        in_netns(move || {
            let mut daemon = Daemon::prepared("/run/nicd");
            daemon.set_failpoints(Some(&format!("{point}:panic")));
            // The watch is one of the first to go.
            if daemon.try_launch() {
                let mut fixture = Fixture::of(daemon);
                fixture.leaves_deviations();
                let mut api = fixture.daemon.client();
                let network = json!({"network": {"name": "n"}});
                let network = api.try_call(
                    "POST",
                    "/v2.0/networks",
                    &[("Content-Type", "application/json")],
                    network.to_string().as_bytes(),
                );
                if let Ok(answer) = network {
                    let network = fixture::text(&answer.expect(201)["network"]["id"]);
                    let subnet = json!({"subnet": {"network_id": network, "cidr": "192.0.2.0/24"}}).to_string();
                    let _ = api.try_call("POST", "/v2.0/subnets", &[("Content-Type", "application/json")], subnet.as_bytes());
                    let guest = netns::Guest::new("a");
                    let server = uuid::Uuid::new_v4().to_string();
                    let body = json!({"server": {"guest": {"kind": "netns", "path": guest.path}}}).to_string();
                    let _ = api.try_call(
                        "PUT",
                        &fixture::server_path(&server),
                        &[("Content-Type", "application/json")],
                        body.as_bytes(),
                    );
                    let body = json!({"interfaceAttachment": {"net_id": network}}).to_string();
                    let _ = api.try_call("POST", &interfaces(&server), &[("Content-Type", "application/json")], body.as_bytes());
                }
                let status = fixture.daemon.bury();
                assert_eq!(status.code(), Some(1), "{point}: {}", fixture.daemon.log());
                assert!(fixture.daemon.log().contains("a panic"), "{point}: {}", fixture.daemon.log());
                fixture.daemon.set_failpoints(None);
                fixture.launch();
                // An attach that was not answered is wholly there, or not at all.
                for port in fixture.port_ids() {
                    fixture.wait_status(&port, "ACTIVE");
                }
                let verified = fixture.verified();
                assert_eq!(verified["deviations"], json!([]), "{point}: {verified:#}");
            } else {
                assert!(daemon.log().contains("a panic"), "{point}: {}", daemon.log());
                daemon.set_failpoints(None);
                daemon.launch();
            }
        });
    }
}

/// Follows events on a connection of its own, whose head has been answered.
fn follow(daemon: &Daemon) -> (UnixStream, u16) {
    let mut stream = UnixStream::connect(daemon.socket()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /nicd/v1/events HTTP/1.1\r\nHost: nicd\r\n\r\n").unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).unwrap();
    let status = std::str::from_utf8(&head[9..]).unwrap().parse().unwrap();
    (stream, status)
}

#[test]
fn readers_that_have_left_hold_no_place_and_readers_lock_no_requests_out() {
    in_netns(|| {
        let daemon = Daemon::start();
        for end in [Some(std::net::Shutdown::Write), Some(std::net::Shutdown::Both), None] {
            let mut readers: Vec<UnixStream> = Vec::new();
            let mut refused = 0;
            for _ in 0..256 {
                let (stream, status) = follow(&daemon);
                match status {
                    200 => readers.push(stream),
                    503 => refused += 1,
                    other => panic!("{other}"),
                }
            }
            assert_eq!((readers.len(), refused), (128, 128), "half of the connections");
            let began = Instant::now();
            daemon.client().get("/nicd/v1/health").expect(200);
            assert!(began.elapsed() < Duration::from_secs(1), "requests are served beside readers");
            match end {
                Some(how) => readers.iter().for_each(|reader| reader.shutdown(how).unwrap()),
                None => readers.clear(),
            }
            let until = Instant::now() + Duration::from_secs(2);
            loop {
                let text = daemon.client().get("/metrics").text;
                if text.contains("nicd_event_readers 0") {
                    break;
                }
                assert!(Instant::now() < until, "{end:?}: {text}");
            }
            // Those that only half closed see the end of the stream.
            for reader in &mut readers {
                let mut rest = Vec::new();
                reader.read_to_end(&mut rest).unwrap();
            }
        }
    });
}
