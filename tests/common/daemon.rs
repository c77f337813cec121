//! Runs the real daemon in the calling test's namespaces, with a blocking client and a follower of events.
//!
//! No wait polls: readiness comes from sd_notify(3), the end of the process is the end of its standard output, and state changes
//! come from the event stream. Every wait has a time limit, and a test fails when the limit is reached.

#![allow(dead_code)] // each test target uses its part

use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use nicd_client::{blocking, http};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// The time limit of all waits, long enough for a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A daemon with its own directory for socket, state, config and log, below the test's own `/run`. The process is killed when
/// this is dropped, and when the test's thread ends.
#[derive(Debug)]
pub struct Daemon {
    dir: PathBuf,
    running: Option<Running>,
    /// The limit of file descriptors, if a test sets one; the daemon then logs as in production.
    descriptors: Option<usize>,
    /// The log file of the next starts, instead of the default.
    pub log_to: Option<OwnedFd>,
    /// Environment variables of the next starts.
    pub environment: Vec<(&'static str, String)>,
    power: Power,
}

/// The user and the capabilities of a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// As root.
    Root,
    /// Its own user, with the capabilities of its unit.
    Unit,
    /// Its own user, without capabilities.
    Nobody,
}

/// The uid and gid of a daemon with [`Power::Unit`].
pub const USER: u32 = 64_320;

#[derive(Debug)]
struct Running {
    child: Child,
    /// The other end of its standard output; reads end-of-file when the process ends.
    output: UnixStream,
}

impl Daemon {
    /// Starts one and waits until it is ready.
    pub fn start() -> Self {
        let mut daemon = Self::prepared("/run/nicd");
        daemon.launch();
        daemon
    }

    /// A daemon that is not started yet.
    pub fn prepared(dir: impl AsRef<Path>) -> Self {
        let dir = dir.as_ref().to_owned();
        fs::create_dir_all(dir.join("state")).unwrap();
        fs::write(dir.join("nicd.toml"), "").unwrap();
        Self { dir, running: None, descriptors: None, power: Power::Root, log_to: None, environment: Vec::new() }
    }

    /// Makes the next start run as its own user with the capabilities of its unit. Changes the owner of its directory.
    pub fn confine(&mut self) {
        self.run_as_user(Power::Unit);
    }

    /// The same with another power than the unit's.
    pub fn run_as_user(&mut self, power: Power) {
        self.power = power;
        for place in [self.dir.clone(), self.state()] {
            std::os::unix::fs::chown(place, Some(USER), Some(USER)).unwrap();
        }
    }

    /// Limits the file descriptors of the next start, which then logs as in production.
    pub fn limits(&mut self, descriptors: usize) {
        self.descriptors = Some(descriptors);
    }

    /// Sets or clears the failpoint rules of the next start (`src/failpoints.rs`).
    pub fn set_failpoints(&mut self, rules: Option<&str>) {
        self.environment = rules.map(|rules| ("NICD_FAILPOINTS", rules.to_owned())).into_iter().collect();
    }

    /// The path of its config file, to be written before a start.
    pub fn config(&self) -> PathBuf {
        self.dir.join("nicd.toml")
    }

    /// The path of its socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("nicd.sock")
    }

    /// Its state directory.
    pub fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// The id of its store.
    pub fn store_id(&self) -> String {
        let store = rusqlite::Connection::open(self.state().join("nicd.db")).unwrap();
        let quoted: String = store.query_row("SELECT value FROM meta WHERE key = 'store_id'", [], |row| row.get(0)).unwrap();
        quoted.trim_matches('"').to_owned()
    }

    /// Gives a link the altname and the ownership tag of a device, with the number of a commit that no record has.
    pub fn tag(&self, link: &str) {
        crate::netns::set_alias(link, &format!("nicd {} 1", self.store_id()));
    }

    /// Starts the process and waits for readiness.
    pub fn launch(&mut self) {
        assert!(self.try_launch(), "it ends before it is ready: {}", self.log());
    }

    /// The same; false when it ends before it is ready.
    pub fn try_launch(&mut self) -> bool {
        let notify = self.notified();
        notify.set_nonblocking(true).unwrap();
        self.spawn(self.command(&self.socket(), &self.state()).env("NOTIFY_SOCKET", self.dir.join("notify")));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let running = self.running.as_ref().expect("it was started");
            let mut ends =
                [PollFd::new(notify.as_fd(), PollFlags::POLLIN), PollFd::new(running.output.as_fd(), PollFlags::POLLIN)];
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(left > Duration::ZERO, "not ready: {}", self.log());
            let _ = poll(&mut ends, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
            if wait_ready(&notify).is_ok() {
                return true;
            }
            if self.has_ended() {
                self.ended();
                return false;
            }
        }
    }

    /// Whether the process was started and not waited for yet.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Whether the process has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.running.as_mut().is_none_or(|running| running.child.try_wait().unwrap().is_some())
    }

    /// Reloads its config and waits for the reload.
    pub fn reload(&self) {
        let notify = self.notified();
        self.signal(Signal::SIGHUP);
        let ready = wait_ready(&notify);
        assert!(ready.is_ok(), "not reloaded ({ready:?}): {}", self.log());
    }

    /// Changes the path of its notification socket.
    fn notified(&self) -> UnixDatagram {
        let path = self.dir.join("notify");
        let _ = fs::remove_file(&path);
        let notify = UnixDatagram::bind(&path).unwrap();
        notify.set_read_timeout(Some(PATIENCE)).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        notify
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Waits for the end of a process that was told to stop.
    pub fn ends(&mut self) {
        let status = self.ended();
        assert!(status.success(), "{status}: {}", self.log());
    }

    /// The command line of a daemon on a socket and a state directory, as root may give it. It dies with the calling
    /// thread, also when that is killed.
    pub fn command(&self, socket: &Path, state: &Path) -> Command {
        let mut command = Command::new(if self.descriptors.is_some() { "prlimit" } else { "setpriv" });
        if let Some(most) = self.descriptors {
            command.args([&format!("--nofile={most}:{most}"), "setpriv"]);
        }
        let level = if self.descriptors.is_some() { "info" } else { "info,nicd=debug" };
        if self.power != Power::Root {
            let caps = if self.power == Power::Unit { "-all,+net_admin,+net_raw" } else { "-all" };
            command.args([format!("--reuid={USER}"), format!("--regid={USER}"), "--clear-groups".into()]);
            command.args([format!("--inh-caps={caps}"), format!("--ambient-caps={caps}"), format!("--bounding-set={caps}")]);
        }
        command.args(["--pdeathsig", "KILL", "--", env!("CARGO_BIN_EXE_nicd")]);
        // A test may set the log level in the config.
        if !fs::read_to_string(self.config()).is_ok_and(|config| config.contains("[log]")) {
            command.args(["--log", level]);
        }
        command.arg("--socket").arg(socket).arg("--state-dir").arg(state).arg("--config").arg(self.config());
        for variable in
            ["NICD_SOCKET", "NICD_STATE_DIR", "NICD_CONFIG", "NICD_LOG", "NICD_FAILPOINTS", "NOTIFY_SOCKET", "LISTEN_FDS"]
        {
            command.env_remove(variable);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn spawn(&mut self, command: &mut Command) {
        let log = match &self.log_to {
            Some(given) => given.try_clone().unwrap(),
            None => File::options().create(true).append(true).open(self.dir.join("log")).unwrap().into(),
        };
        let (output, theirs) = UnixStream::pair().unwrap();
        output.set_read_timeout(Some(PATIENCE * 2)).unwrap();
        let child = command.stdin(Stdio::null()).stdout(OwnedFd::from(theirs)).stderr(log).spawn().expect("nicd");
        // Otherwise this process would keep the daemon's end of the pipe open.
        command.stdout(Stdio::null());
        self.running = Some(Running { child, output });
    }

    /// Whether a process was started and neither stopped nor killed.
    pub fn runs(&self) -> bool {
        self.running.is_some()
    }

    /// The running process.
    pub fn pid(&self) -> Pid {
        let child = &self.running.as_ref().expect("it runs").child;
        Pid::from_raw(child.id().try_into().unwrap())
    }

    /// Stops the process and waits for its end.
    pub fn term(&mut self) {
        self.signal(Signal::SIGTERM);
        self.ends();
    }

    /// Waits for the end of a process that is killed by a failpoint.
    pub fn bury(&mut self) -> ExitStatus {
        self.ended()
    }

    /// Kills it, and waits until it is gone.
    pub fn kill(&mut self) {
        kill(self.pid(), Signal::SIGKILL).unwrap();
        self.ended();
    }

    fn ended(&mut self) -> ExitStatus {
        let mut running = self.running.take().expect("it runs");
        let mut end = running.output.read(&mut [0]);
        while end.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::Interrupted) {
            end = running.output.read(&mut [0]);
        }
        assert!(matches!(end, Ok(0)), "it does not end ({end:?}): {}", self.log());
        running.child.wait().unwrap()
    }

    /// Runs a second daemon on `socket` and `state` that has to exit by itself; its exit code and its output.
    pub fn second(&self, socket: &Path, state: &Path) -> (i32, String) {
        let output = self.command(socket, state).output().unwrap();
        (output.status.code().expect("an exit code"), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// A connection of its own.
    pub fn client(&self) -> Client {
        Client::new(self.socket())
    }

    /// Follows events from now on, or from behind one.
    pub fn follow(&self, last: Option<u64>) -> Follower {
        Follower::start(&self.socket(), last)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("the end of the daemon's log:\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
    }
}

/// Waits until a daemon says on its notification socket that it is ready; what it says before is passed over.
pub fn wait_ready(notify: &UnixDatagram) -> std::io::Result<()> {
    let mut said = [0; 1024];
    loop {
        let length = notify.recv(&mut said)?;
        if said[..length].split(|&byte| byte == b'\n').any(|line| line == b"READY=1") {
            return Ok(());
        }
    }
}

/// A client with a kept-alive connection.
#[derive(Debug)]
pub struct Client(blocking::Client);

/// One answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub text: String,
    /// The request, for the message of a failed test.
    pub call: String,
}

impl Client {
    pub fn new(socket: PathBuf) -> Self {
        Self(blocking::Client::new(&socket, PATIENCE * 3).unwrap())
    }

    pub fn get(&mut self, path: &str) -> Answer {
        self.call("GET", path, &[], b"")
    }

    pub fn delete(&mut self, path: &str) -> Answer {
        self.call("DELETE", path, &[], b"")
    }

    pub fn post(&mut self, path: &str, body: &Value) -> Answer {
        self.call("POST", path, &[("Content-Type", "application/json")], body.to_string().as_bytes())
    }

    pub fn put(&mut self, path: &str, body: &Value) -> Answer {
        self.call("PUT", path, &[("Content-Type", "application/json")], body.to_string().as_bytes())
    }

    /// One request; no answer is a failed test.
    pub fn call(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.try_call(method, path, headers, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// One request, where the daemon may die.
    pub fn try_call(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> std::io::Result<Answer> {
        self.send(http::request(method, path, headers, body.to_vec()).expect("a request"))
    }

    /// One request with no header but its own.
    pub fn send(&mut self, request: Request<Full<Bytes>>) -> std::io::Result<Answer> {
        let call = format!("{} {}", request.method(), request.uri());
        let answer = self.0.send(request)?;
        let header = |(name, value): (&HeaderName, &HeaderValue)| (name.to_string(), value.to_str().expect("text").to_owned());
        Ok(Answer {
            status: answer.status.as_u16(),
            headers: answer.headers.iter().map(header).collect(),
            text: String::from_utf8(answer.body.to_vec()).expect("UTF-8"),
            call,
        })
    }
}

impl Answer {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body; null where there is none.
    pub fn json(&self) -> Value {
        if self.text.is_empty() {
            return Value::Null;
        }
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{}: {error}: {}", self.call, self.text))
    }

    /// The body of an answer that is to have this status.
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}: {}", self.call, self.text);
        self.json()
    }

    /// The object inside an error's envelope.
    pub fn error(&self) -> Value {
        let json = self.json();
        let envelope = json.as_object().unwrap_or_else(|| panic!("{}: no envelope: {}", self.call, self.text));
        assert_eq!(envelope.len(), 1, "{}: {}", self.call, self.text);
        envelope.values().next().unwrap().clone()
    }

    /// Asserts an error's status and stable word.
    pub fn refused(&self, status: u16, reason: &str) -> Value {
        assert_eq!(self.status, status, "{}: {}", self.call, self.text);
        let error = self.error();
        assert_eq!(error["reason"], reason, "{}: {}", self.call, self.text);
        error
    }
}

/// The event stream, read by a separate thread.
#[derive(Debug)]
pub struct Follower {
    events: Receiver<Value>,
    /// All that were received, in order.
    pub seen: Vec<Value>,
}

impl Follower {
    fn start(socket: &Path, last: Option<u64>) -> Self {
        let (sender, events) = channel();
        let each = move |line: &[u8]| serde_json::from_slice(line).is_ok_and(|event| sender.send(event).is_ok());
        blocking::follow(socket, PATIENCE, last, each).unwrap();
        Self { events, seen: Vec::new() }
    }

    /// The next event; none when `limit` is over or the stream has ended.
    pub fn next(&mut self, limit: Duration) -> Option<Value> {
        let event = self.events.recv_timeout(limit).ok()?;
        self.seen.push(event.clone());
        Some(event)
    }

    /// Waits for an event that is wanted; those before it are passed over.
    pub fn wait_for(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        while let Some(event) = self.next(deadline.saturating_duration_since(Instant::now())) {
            if wanted(&event) {
                return event;
            }
        }
        let last = &self.seen[self.seen.len().saturating_sub(20)..];
        panic!("no event '{what}'; the last ones:\n{}", last.iter().map(|event| format!("{event}\n")).collect::<String>());
    }

    /// Waits until a port's event tells a status.
    pub fn wait_status(&mut self, port: &str, status: &str) -> Value {
        self.wait_for(&format!("{port} {status}"), |event| event["port_id"] == port && event["new"] == status)
    }

    /// Waits until a port is deleted.
    pub fn wait_deleted(&mut self, port: &str) -> Value {
        self.wait_for(&format!("{port} deleted"), |event| event["port_id"] == port && event["event"] == "port.deleted")
    }
}
