//! The daemon under show: this program as it always runs, in a process of its own.

use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::clock::{Moment, Took};
use super::failure::{Failure, trouble};
use super::host::SELF;

/// How long it may take to be ready, and to end.
const LIMIT: Duration = Duration::from_secs(10);

/// How many of the last lines of the log are shown when something failed.
const TAIL: usize = 15;

/// The host's own configuration is not the demo's. The groups are ones that every user namespace can have.
const CONFIG: &str = "[socket]\ngroup = \"root\"\nview_group = \"root\"\n";

/// Where it keeps what.
#[derive(Debug)]
pub(super) struct Place {
    /// The directory of all of it.
    pub(super) directory: PathBuf,
    /// The API's socket.
    pub(super) socket: PathBuf,
    /// The state's directory.
    pub(super) state: PathBuf,
    config: PathBuf,
    log: PathBuf,
    notify: PathBuf,
}

/// The daemon's process. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Daemon {
    child: Child,
}

impl Place {
    /// Prepares a directory, which must be private.
    pub(super) fn prepare(directory: PathBuf) -> Result<(Self, UnixDatagram), Failure> {
        let failed = || trouble::<std::io::Error>(directory.display().to_string());
        // Where others may write, the daemon refuses to make its socket; the umask may let them.
        DirBuilder::new().mode(0o755).create(&directory).map_err(failed())?;
        let at = |name: &str| directory.join(name);
        let place = Self {
            socket: at("nicd.sock"),
            state: at("state"),
            config: at("nicd.toml"),
            log: at("nicd.log"),
            notify: at("notify.sock"),
            directory: directory.clone(),
        };
        std::fs::write(&place.config, CONFIG).map_err(failed())?;
        let ready = UnixDatagram::bind(&place.notify).map_err(failed())?;
        ready.set_read_timeout(Some(Duration::from_millis(20))).map_err(failed())?;
        Ok((place, ready))
    }

    /// The end of the log.
    pub(super) fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }

    /// The database.
    pub(super) fn database(&self) -> PathBuf {
        self.state.join(crate::store::FILE)
    }
}

impl Daemon {
    /// Starts it and waits until it says that it answers requests, as systemd would (sd_notify(3)).
    pub(super) fn start(place: &Place, ready: &UnixDatagram) -> Result<(Self, Took), Failure> {
        let began = Moment::now();
        let mut daemon = Self { child: spawn(place).map_err(trouble("starting the daemon"))? };
        while began.elapsed().duration() < LIMIT {
            let mut buffer = [0; 4096];
            let length = ready.recv(&mut buffer).unwrap_or(0);
            if buffer[..length].split(|&byte| byte == b'\n').any(|line| line == b"READY=1") {
                return Ok((daemon, began.elapsed()));
            }
            if let Ok(Some(status)) = daemon.child.try_wait() {
                return Err(trouble("starting the daemon")(format!("it ended at once ({status})")));
            }
        }
        Err(trouble("starting the daemon")("it was not ready in time"))
    }

    /// Its pid, as the demo's processes see it.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it by a signal, and waits until it has.
    pub(super) fn end(mut self, signal: Signal) -> Result<(ExitStatus, Took), Failure> {
        let failed = || trouble::<String>(format!("ending the daemon with {signal}"));
        let began = Moment::now();
        let pid = i32::try_from(self.child.id()).map_err(|error| failed()(error.to_string()))?;
        kill(Pid::from_raw(pid), signal).map_err(|errno| failed()(errno.desc().to_owned()))?;
        while began.elapsed().duration() < LIMIT {
            if let Some(status) = self.child.try_wait().map_err(|error| failed()(error.to_string()))? {
                return Ok((status, began.elapsed()));
            }
            thread::sleep(Duration::from_micros(500));
        }
        Err(failed()("it still runs".to_owned()))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Whether it ran still or had ended by itself does not matter here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(place: &Place) -> std::io::Result<Child> {
    let log = OpenOptions::new().create(true).append(true).open(&place.log)?;
    Command::new(SELF)
        .arg0("nicd")
        .args([flag("--config", &place.config), flag("--socket", &place.socket), flag("--state-dir", &place.state)].concat())
        .env_clear()
        .env("NOTIFY_SOCKET", &place.notify)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
}

fn flag<'a>(name: &'a str, path: &'a Path) -> [&'a std::ffi::OsStr; 2] {
    [name.as_ref(), path.as_os_str()]
}
