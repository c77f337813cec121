//! Runs `nicd-netns` as systemd does, for a daemon without the capability to enter namespaces.

#![allow(dead_code)] // each test target uses its part

use std::fs::Permissions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::daemon::USER;

/// The path of its socket.
pub const SOCKET: &str = "/run/nicd/nicd-netns.sock";

/// The uid it runs as.
const HELPER: u32 = 64_321;

/// A running helper with the capabilities of its unit; killed when dropped.
#[derive(Debug)]
pub struct Helper {
    child: Child,
    listener: UnixListener,
}

impl Helper {
    /// Creates its socket as `nicd-netns.socket` does, and starts it.
    pub fn start() -> Self {
        let _ = std::fs::remove_file(SOCKET);
        let listener = UnixListener::bind(SOCKET).expect("the helper's socket");
        std::fs::set_permissions(SOCKET, Permissions::from_mode(0o600)).expect("chmod");
        chown(SOCKET, Some(USER), Some(USER)).expect("chown");
        Self { child: spawn(&listener), listener }
    }

    /// Waits until it has ended by itself.
    pub fn ended(&mut self) -> std::process::ExitStatus {
        self.child.wait().expect("the helper")
    }

    /// Stops or continues the process (SIGSTOP, SIGCONT).
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("kill");
    }

    /// The running process.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().expect("a pid"))
    }

    /// Starts it again on its socket, as the next caller would make systemd do.
    pub fn again(&mut self) {
        self.child = spawn(&self.listener);
    }
}

/// The socket is descriptor 3, and the variables name the process that is to have it (sd_listen_fds(3)).
fn spawn(listener: &UnixListener) -> Child {
    let caps = "-all,+sys_admin,+sys_ptrace";
    let passed = r#"exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec "$@""#;
    let mut command = Command::new("sh");
    command.args(["-c", passed, "sh", "unshare", "--net", "setpriv", "--pdeathsig", "KILL"]);
    command.args([format!("--reuid={HELPER}"), format!("--regid={HELPER}"), "--clear-groups".into()]);
    command.args([format!("--inh-caps={caps}"), format!("--ambient-caps={caps}"), format!("--bounding-set={caps}")]);
    command.args(["--", env!("CARGO_BIN_EXE_nicd"), "netns"]);
    command.stdin(OwnedFd::from(listener.try_clone().expect("a copy"))).stdout(Stdio::null());
    command.spawn().expect("the helper")
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
