//! A QEMU with two monitors: nicd's, and one by which the test looks.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::daemon::PATIENCE;

/// See the module; killed when dropped.
pub struct Machine {
    child: Child,
    /// The monitor that nicd is told of.
    pub qmp: String,
    look: Monitor,
}

/// A client of a monitor.
pub struct Monitor {
    lines: BufReader<UnixStream>,
    next: u64,
}

/// A q35 machine's ports for NICs to come.
pub fn root_ports(many: usize) -> Vec<String> {
    let port = |n| ["-device".to_owned(), format!("pcie-root-port,id=rp{n},chassis={n},slot={n}")];
    (1..=many).flat_map(port).collect()
}

impl Machine {
    /// One that is stopped before its first instruction, so that its guest answers nothing.
    pub fn stopped(name: &str, kind: &str, more: &[String]) -> Self {
        let mut command = vec!["-S".to_owned(), "-m".to_owned(), "32".to_owned(), "-serial".to_owned(), "none".to_owned()];
        command.extend(more.iter().cloned());
        Self::start(name, kind, &command)
    }

    /// One with these further arguments.
    pub fn start(name: &str, kind: &str, more: &[String]) -> Self {
        let [qmp, own] = ["qmp", "own"].map(|what| format!("/run/{name}.{what}"));
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64", "-M", &format!("{kind},accel=tcg")]);
        command.args(["-nodefaults", "-display", "none", "-monitor", "none"]);
        for socket in [&qmp, &own] {
            let _ = std::fs::remove_file(socket);
            command.args(["-qmp", &format!("unix:{socket},server=on,wait=off")]);
        }
        let child = command.args(more).stdin(Stdio::null()).spawn().expect("QEMU");
        Self { child, look: Monitor::connect(&own), qmp }
    }

    pub fn ask(&mut self, command: &str, arguments: Value) -> Value {
        self.look.ask(command, arguments).unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    /// The ids of nicd's NICs that it has.
    pub fn nics(&mut self) -> Vec<String> {
        let devices = self.ask("qom-list", json!({"path": "/machine/peripheral"}));
        let ids = devices.as_array().unwrap().iter().map(|device| device["name"].as_str().unwrap().to_owned());
        let mut nics: Vec<String> = ids.filter(|id| id.starts_with("nicd-")).collect();
        nics.sort();
        nics
    }

    /// Kills it, as it may end at any time.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// The processor time it has used so far, in clock ticks (proc_pid_stat(5)).
    pub fn ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Monitor {
    /// Connects once the machine listens, and has the monitor for itself until it is dropped.
    pub fn connect(socket: &str) -> Self {
        let deadline = Instant::now() + PATIENCE;
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < deadline, "{socket}: {error}"),
            }
            // A process that begins to listen makes no event.
            std::thread::sleep(Duration::from_millis(2));
        };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut monitor = Self { lines: BufReader::new(stream), next: 0 };
        assert!(monitor.line()["QMP"].is_object(), "{socket}");
        monitor.ask("qmp_capabilities", json!({})).unwrap();
        monitor
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
    }

    pub fn ask(&mut self, command: &str, arguments: Value) -> Result<Value, String> {
        self.next += 1;
        let line = json!({"execute": command, "arguments": arguments, "id": self.next});
        writeln!(self.lines.get_mut(), "{line}").unwrap();
        loop {
            let answer = self.line();
            if answer["id"] == self.next {
                return if answer["error"].is_null() { Ok(answer["return"].clone()) } else { Err(answer["error"].to_string()) };
            }
        }
    }
}
