//! The daemon: this program as it always runs, in a process of its own.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use super::outside::SELF;
use super::page::{Context, Failure};
use super::process::{LIMIT, Process};

/// The host's own configuration is not used. The groups are ones that every user namespace can have.
const CONFIG: &str = "[socket]\ngroup = \"root\"\nview_group = \"root\"\n";

/// Its directory.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) directory: PathBuf,
    pub(super) socket: PathBuf,
    pub(super) state: PathBuf,
    pub(super) log: PathBuf,
    /// Where it says that it is ready.
    notify: UnixDatagram,
}

impl Place {
    /// Makes the directory, with these lines of configuration besides the demo's.
    pub(super) fn prepare(directory: PathBuf, configuration: &str) -> Result<Self, Failure> {
        let doing = directory.display().to_string();
        // The daemon makes no socket in a directory that others can write, which the umask could allow.
        DirBuilder::new().mode(0o755).create(&directory).context(&doing)?;
        std::fs::write(directory.join("nicd.toml"), format!("{CONFIG}{configuration}")).context(&doing)?;
        let notify = UnixDatagram::bind(directory.join("notify.sock")).context(&doing)?;
        notify.set_read_timeout(Some(Duration::from_millis(20))).context(&doing)?;
        let [socket, state, log] = ["nicd.sock", "state", "nicd.log"].map(|name| directory.join(name));
        Ok(Self { socket, state, log, notify, directory })
    }

    /// Starts the daemon and waits until it says that it answers requests, as systemd would (sd_notify(3)).
    pub(super) fn start(&self) -> Result<(Process, Duration), Failure> {
        let began = Instant::now();
        let mut daemon = Process::start("the daemon", &mut self.command(), &self.log)?;
        while began.elapsed() < LIMIT {
            let mut buffer = [0; 4096];
            let length = self.notify.recv(&mut buffer).unwrap_or(0);
            if buffer[..length].split(|&byte| byte == b'\n').any(|line| line == b"READY=1") {
                return Ok((daemon, began.elapsed()));
            }
            daemon.check_runs()?;
        }
        Err(Failure::new("starting the daemon", "it was not ready in time"))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(SELF);
        command.arg0("nicd").arg("--config").arg(self.directory.join("nicd.toml"));
        command.arg("--socket").arg(&self.socket).arg("--state-dir").arg(&self.state);
        command.env_clear().env("NOTIFY_SOCKET", self.directory.join("notify.sock"));
        command
    }
}
