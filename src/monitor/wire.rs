//! The wire of QMP: a line of JSON each for the greeting, commands, answers and events (docs/interop/qmp-spec.txt of QEMU).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, timeout_at};

use super::MonitorError;
use crate::failpoints;
use crate::sys::pass;

/// How long a monitor may take to accept and to greet.
const GREETING: Duration = Duration::from_secs(2);

/// How long it may take to answer a command.
const ANSWER: Duration = Duration::from_secs(5);

/// How long all of an operation on a machine may take.
const WHOLE: Duration = Duration::from_secs(10);

/// The longest line, in octets. The longest that is asked for, a machine's PCI devices, has some 400 a device.
const LINE: usize = 512 << 10;

/// The most that is read for one command, in octets: its answer and the events before it.
const TALK: usize = 2 << 20;

/// How much is read at a time, in octets.
const CHUNK: usize = 16 << 10;

/// A connection to a monitor.
#[derive(Debug)]
pub(super) struct Wire {
    stream: UnixStream,
    path: PathBuf,
    /// What was read.
    read: Vec<u8>,
    /// How much of it, from its beginning, was taken as lines.
    taken: usize,
    /// How much was read since the last command began.
    heard: usize,
    /// When the operation is to be over.
    ends: Instant,
    /// The id of the next command.
    next: u64,
    /// The device whose end is waited for.
    watched: Option<String>,
    /// What was told of it.
    told: Option<Told>,
}

/// What an event tells of a device that is to be unplugged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// It is gone.
    Deleted,
    /// The guest has refused.
    Refused,
}

/// A line from a monitor.
#[derive(Debug, Deserialize)]
struct Line {
    #[serde(rename = "QMP")]
    greeting: Option<Value>,
    id: Option<Value>,
    #[serde(rename = "return")]
    answer: Option<Value>,
    error: Option<Refusal>,
    event: Option<String>,
    #[serde(default)]
    data: Value,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    class: String,
    desc: String,
}

impl Wire {
    /// Connects, waits for the greeting, and agrees on no further capability.
    pub(super) async fn connect(path: &Path) -> Result<Self, MonitorError> {
        let until = Instant::now() + GREETING;
        let busy = || MonitorError::Busy { path: path.to_owned(), limit: GREETING };
        let opening = UnixStream::connect(path);
        let stream = timeout_at(until, opening).await.map_err(|_| busy())?.map_err(|error| refused(path, &error))?;
        let path = path.to_owned();
        let mut wire = Self {
            stream,
            path,
            read: Vec::new(),
            taken: 0,
            heard: 0,
            ends: Instant::now() + WHOLE,
            next: 0,
            watched: None,
            told: None,
        };
        match timeout_at(until, wire.line()).await {
            Err(_) => return Err(busy()),
            Ok(line) if line.as_ref().is_ok_and(|line| line.greeting.is_some()) => {}
            Ok(line) => return Err(line.map_or_else(|error| error, |_| wire.not_qmp("the first line is no greeting"))),
        }
        wire.execute("qmp_capabilities", json!({}), None).await?;
        Ok(wire)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// An operation begins, which has its own time.
    pub(super) fn begin(&mut self) {
        self.ends = Instant::now() + WHOLE;
    }

    /// Executes a command, and hands a descriptor over with it. The own copy of that is closed once it is sent.
    pub(super) async fn execute(
        &mut self,
        command: &'static str,
        arguments: Value,
        descriptor: Option<OwnedFd>,
    ) -> Result<Value, MonitorError> {
        self.next += 1;
        self.heard = 0;
        let (id, until) = (self.next, Instant::now() + ANSWER);
        let (until, asked, limit) =
            if until <= self.ends { (until, command, ANSWER) } else { (self.ends, "all it was asked", WHOLE) };
        let line = format!("{}\n", json!({"execute": command, "arguments": arguments, "id": id}));
        // A command fits into the socket's buffer: at most one is under way.
        let send = || pass::send(self.stream.as_fd(), line.as_bytes(), descriptor.as_ref().map(AsFd::as_fd));
        let sent = failpoints::call(("monitor", command), send, |errno| errno.into());
        drop(descriptor);
        sent.map_err(|error| refused(&self.path, &error))?;
        let silent = MonitorError::Silent { path: self.path.clone(), command: asked, limit };
        timeout_at(until, self.answer(command, id)).await.unwrap_or(Err(silent))
    }

    async fn answer(&mut self, command: &'static str, id: u64) -> Result<Value, MonitorError> {
        loop {
            let line = self.line().await?;
            if let Some(event) = &line.event {
                self.note(event, &line.data);
                continue;
            }
            // What cannot be parsed is refused without an id.
            if line.id.as_ref().is_some_and(|given| *given != json!(id)) {
                return Err(self.not_qmp("an answer belongs to no command"));
            }
            return match (line.answer, line.error) {
                (Some(answer), None) if line.id.is_some() => Ok(answer),
                (None, Some(Refusal { class, desc })) => {
                    Err(MonitorError::Refused { path: self.path.clone(), command, class, said: shortened(&desc) })
                }
                _ => Err(self.not_qmp("a line is no answer")),
            };
        }
    }

    /// Watches for events about a device from now on.
    pub(super) fn watch(&mut self, device: &str) {
        (self.watched, self.told) = (Some(device.to_owned()), None);
    }

    /// Waits until the watched device is gone or its guest refuses; none when neither is told until then.
    pub(super) async fn told_until(&mut self, until: Instant) -> Result<Option<Told>, MonitorError> {
        self.heard = 0;
        timeout_at(until.min(self.ends), self.be_told()).await.unwrap_or(Ok(None))
    }

    async fn be_told(&mut self) -> Result<Option<Told>, MonitorError> {
        while self.told.is_none() {
            let line = self.line().await?;
            if let Some(event) = &line.event {
                self.note(event, &line.data);
            }
        }
        Ok(self.told)
    }

    /// A virtio NIC's end is told twice: for its inner device, which has no id, and for itself.
    fn note(&mut self, event: &str, data: &Value) {
        if self.watched.is_none() || data["device"].as_str() != self.watched.as_deref() {
            return;
        }
        match event {
            "DEVICE_DELETED" => self.told = Some(Told::Deleted),
            "DEVICE_UNPLUG_GUEST_ERROR" => self.told = Some(Told::Refused),
            _ => {}
        }
    }

    /// The next line. Cancel-safe: what was read of one is kept. A monitor that writes without end is always ready to be read: each
    /// line and each read costs of what a task may do at a time, so that limits of time hold and others have their turn.
    async fn line(&mut self) -> Result<Line, MonitorError> {
        let mut looked = self.taken;
        loop {
            consume_budget().await;
            if let Some(end) = self.read[looked..].iter().position(|octet| *octet == b'\n') {
                let line = self.taken..=looked + end;
                self.taken = looked + end + 1;
                return serde_json::from_slice(&self.read[line]).map_err(|error| self.not_qmp(&error.to_string()));
            }
            self.read.drain(..self.taken);
            self.taken = 0;
            looked = self.read.len();
            if looked > LINE {
                return Err(self.not_qmp("a line has no end"));
            }
            if self.heard > TALK {
                return Err(self.not_qmp("it says too much"));
            }
            self.stream.readable().await.map_err(|error| refused(&self.path, &error))?;
            self.read.reserve(CHUNK);
            match self.stream.try_read_buf(&mut self.read) {
                Ok(0) => return Err(self.unreachable("it closed the connection")),
                Ok(octets) => self.heard += octets,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(refused(&self.path, &error)),
            }
        }
    }

    fn not_qmp(&self, said: &str) -> MonitorError {
        MonitorError::NotQmp { path: self.path.clone(), said: shortened(said) }
    }

    fn unreachable(&self, said: &str) -> MonitorError {
        MonitorError::Unreachable { path: self.path.clone(), said: said.to_owned() }
    }
}

/// What a refusal of the system means.
fn refused(path: &Path, error: &io::Error) -> MonitorError {
    let path = path.to_owned();
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            MonitorError::Denied { path, uid: nix::unistd::geteuid().as_raw(), said: error.to_string() }
        }
        // The machine has not accepted the connections that wait already.
        io::ErrorKind::WouldBlock => MonitorError::Busy { path, limit: Duration::ZERO },
        _ => {
            let said = error.raw_os_error().map_or_else(|| error.to_string(), |errno| Errno::from_raw(errno).desc().to_owned());
            MonitorError::Unreachable { path, said }
        }
    }
}

/// The first words of what another program says, without control characters.
fn shortened(said: &str) -> String {
    said.chars().filter(|one| !one.is_control()).take(300).collect()
}
