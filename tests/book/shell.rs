//! The shell that a page's commands run in, one after the other.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::daemon::PATIENCE;

/// What ends the output of each command.
const END: &str = "--- end of a command:";

/// See the module. All processes of its network namespace are killed when it is dropped, but never those of the machine's.
#[derive(Debug)]
pub struct Shell {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Shell {
    /// Starts one that finds nicd's programs first.
    pub fn start() -> Self {
        let programs = Path::new(env!("CARGO_BIN_EXE_nicctl")).parent().unwrap();
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("bash");
        command.args(["--noprofile", "--norc"]).current_dir("/run").process_group(0);
        command.env_clear().env("PATH", path).env("HOME", "/run").env("LC_ALL", "C.UTF-8").env("TERM", "dumb");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(b"exec 2>&1\n").unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, input, lines }
    }

    /// Runs a command; its exit code and what it prints.
    pub fn run(&mut self, command: &str) -> (i32, Vec<String>) {
        // The next command may ask for this one's exit code.
        let script = format!("{{\n{command}\n}} </dev/null\nlast=$?; printf '\\n%s%d\\n' '{END}' $last; (exit $last)\n");
        self.input.write_all(script.as_bytes()).unwrap();
        let mut printed: Vec<String> = Vec::new();
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{command}: does not end: {printed:#?}"));
            if let Some(code) = line.strip_prefix(END) {
                if printed.last().is_some_and(String::is_empty) {
                    printed.pop();
                }
                return (code.parse().unwrap(), printed);
            }
            printed.push(line);
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = killpg(Pid::from_raw(self.child.id().try_into().unwrap()), Signal::SIGKILL);
        let _ = self.child.wait();
        // Also what has left the shell's group, as a machine that became a daemon.
        let of = |process: &Path| std::fs::read_link(process.join("ns/net")).ok();
        let own = of(Path::new("/proc/thread-self"));
        // The machine's, and the one that this program was started in.
        let others = ["/proc/1", "/proc/self"].map(|process| of(Path::new(process)));
        if own.is_none() || others.iter().any(|other| other.is_none() || *other == own) {
            return;
        }
        for process in std::fs::read_dir("/proc").unwrap().flatten() {
            let id = process.file_name().to_str().and_then(|name| name.parse().ok());
            if let Some(id) = id
                && of(&process.path()) == own
            {
                let _ = kill(Pid::from_raw(id), Signal::SIGKILL);
            }
        }
    }
}
