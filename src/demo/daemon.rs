//! The daemon: this program as it always runs, in a process of its own.

use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::outside::SELF;
use super::page::{Context, Failure};

/// How long it may take to be ready, and to end.
const LIMIT: Duration = Duration::from_secs(10);

/// How many of the last lines of the log are shown when something failed.
const TAIL: usize = 15;

/// The host's own configuration is not used. The groups are ones that every user namespace can have.
const CONFIG: &str = "[socket]\ngroup = \"root\"\nview_group = \"root\"\n";

/// Its directory.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) directory: PathBuf,
    pub(super) socket: PathBuf,
    pub(super) state: PathBuf,
    /// Where it says that it is ready.
    notify: UnixDatagram,
}

/// The daemon's process. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Daemon(Child);

impl Place {
    /// Makes the directory.
    pub(super) fn prepare(directory: PathBuf) -> Result<Self, Failure> {
        let doing = directory.display().to_string();
        // The daemon makes no socket in a directory that others can write, which the umask could allow.
        DirBuilder::new().mode(0o755).create(&directory).context(&doing)?;
        std::fs::write(directory.join("nicd.toml"), CONFIG).context(&doing)?;
        let notify = UnixDatagram::bind(directory.join("notify.sock")).context(&doing)?;
        notify.set_read_timeout(Some(Duration::from_millis(20))).context(&doing)?;
        Ok(Self { socket: directory.join("nicd.sock"), state: directory.join("state"), notify, directory })
    }

    /// The end of the log.
    pub(super) fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.directory.join("nicd.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }

    /// Starts the daemon and waits until it says that it answers requests, as systemd would (sd_notify(3)).
    pub(super) fn start(&self) -> Result<(Daemon, Duration), Failure> {
        let doing = "starting the daemon";
        let began = Instant::now();
        let mut daemon = Daemon(self.spawn().context(doing)?);
        while began.elapsed() < LIMIT {
            let mut buffer = [0; 4096];
            let length = self.notify.recv(&mut buffer).unwrap_or(0);
            if buffer[..length].split(|&byte| byte == b'\n').any(|line| line == b"READY=1") {
                return Ok((daemon, began.elapsed()));
            }
            if let Ok(Some(status)) = daemon.0.try_wait() {
                return Err(Failure::new(doing, format!("it ended at once ({status})")));
            }
        }
        Err(Failure::new(doing, "it was not ready in time"))
    }

    fn spawn(&self) -> std::io::Result<Child> {
        let log = OpenOptions::new().create(true).append(true).open(self.directory.join("nicd.log"))?;
        let mut command = Command::new(SELF);
        command.arg0("nicd").arg("--config").arg(self.directory.join("nicd.toml"));
        command.arg("--socket").arg(&self.socket).arg("--state-dir").arg(&self.state);
        command.env_clear().env("NOTIFY_SOCKET", self.directory.join("notify.sock"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()
    }
}

impl Daemon {
    /// Its pid, as the demo's processes see it.
    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Sends it a signal and waits until it has ended.
    pub(super) fn end(&mut self, signal: Signal) -> Result<(ExitStatus, Duration), Failure> {
        let doing = format!("ending the daemon with {signal}");
        let began = Instant::now();
        kill(Pid::from_raw(i32::try_from(self.0.id()).context(&doing)?), signal).context(&doing)?;
        while began.elapsed() < LIMIT {
            if let Some(status) = self.0.try_wait().context(&doing)? {
                return Ok((status, began.elapsed()));
            }
            thread::sleep(Duration::from_micros(500));
        }
        Err(Failure::new(&doing, "it still runs"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
