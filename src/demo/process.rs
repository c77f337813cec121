//! A process that the demo starts.

use std::fs::OpenOptions;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::page::{Context, Failure};

/// How long one may take to be ready, and to end.
pub(super) const LIMIT: Duration = Duration::from_secs(10);

/// How many of the last lines of a log are shown when something failed.
const TAIL: usize = 15;

/// A process. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Process {
    name: &'static str,
    child: Child,
}

impl Process {
    /// Starts one, which reads nothing and writes only its log.
    pub(super) fn start(name: &'static str, command: &mut Command, log: &Path) -> Result<Self, Failure> {
        let mut start = || {
            let log = OpenOptions::new().create(true).append(true).open(log)?;
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()
        };
        Ok(Self { name, child: start().context(&format!("starting {name}"))? })
    }

    /// Its pid, as the demo's processes see it.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// That it runs still.
    pub(super) fn check_runs(&mut self) -> Result<(), Failure> {
        match self.child.try_wait() {
            Ok(Some(status)) => Err(Failure::new(&format!("starting {}", self.name), format!("it ended at once ({status})"))),
            _ => Ok(()),
        }
    }

    /// Sends it a signal and waits until it has ended.
    pub(super) fn end(&mut self, signal: Signal) -> Result<(ExitStatus, Duration), Failure> {
        let doing = format!("ending {} with {signal}", self.name);
        let began = Instant::now();
        kill(Pid::from_raw(i32::try_from(self.child.id()).context(&doing)?), signal).context(&doing)?;
        while began.elapsed() < LIMIT {
            if let Some(status) = self.child.try_wait().context(&doing)? {
                return Ok((status, began.elapsed()));
            }
            thread::sleep(Duration::from_micros(500));
        }
        Err(Failure::new(&doing, "it still runs"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The end of a log.
pub(super) fn log_tail(log: &Path) -> String {
    let log = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}
