//! A dbus-daemon at the system bus's place in the test's own `/run`, and what is asked of it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::daemon::{Daemon, PATIENCE};
use crate::fixture::Fixture;

pub const NAME: &str = "org.nicd.Agent1";
pub const ROOT: &str = "/org/nicd/Agent1";
pub const PORT: &str = "org.nicd.Agent1.Port";

/// Where the system bus listens.
pub const ADDRESS: &str = "unix:path=/run/dbus/system_bus_socket";

/// As Debian's system.conf, but for what only a real system has.
const BASE: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>@ADDRESS@</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Introspectable"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Properties"/>
  </policy>
  <policy user="root"><allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Monitoring"/></policy>
  <includedir>/run/dbus/system.d</includedir>
</busconfig>
"#;

/// A bus that lets everybody do everything, so that nicd's own check is what is seen.
const OPEN: &str = "<busconfig><policy context=\"mandatory\"><allow own=\"*\"/><allow send_destination=\"*\"/>\
    <allow receive_sender=\"*\"/></policy></busconfig>";

/// The same, but for who somebody is: that it tells nobody.
const MUTE: &str = "<busconfig><policy context=\"mandatory\"><allow own=\"*\"/><allow send_destination=\"*\"/>\
    <allow receive_sender=\"*\"/><deny send_destination=\"org.freedesktop.DBus\" send_interface=\"org.freedesktop.DBus\" \
    send_member=\"GetConnectionCredentials\"/></policy></busconfig>";

/// What the bus lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// The file that is installed.
    Shipped,
    /// Everything.
    Open,
    /// Everything but the question who somebody is.
    Mute,
}

/// A running bus; killed when dropped.
#[derive(Debug)]
pub struct Bus {
    child: Child,
}

impl Bus {
    /// Starts one and waits until it listens.
    pub fn start(policy: Policy) -> Self {
        let dir = Path::new("/run/dbus");
        fs::create_dir_all(dir.join("system.d")).unwrap();
        fs::write(dir.join("bus.conf"), BASE.replace("@ADDRESS@", ADDRESS)).unwrap();
        let rules = match policy {
            Policy::Shipped => include_str!("../../systemd/org.nicd.Agent1.conf"),
            Policy::Open => OPEN,
            Policy::Mute => MUTE,
        };
        fs::write(dir.join("system.d/org.nicd.Agent1.conf"), rules).unwrap();
        let _ = fs::remove_file(dir.join("system_bus_socket"));
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "dbus-daemon", "--config-file=/run/dbus/bus.conf", "--nofork", "--nopidfile"]);
        command.args(["--nosyslog", "--print-address"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("dbus-daemon");
        // It says its address once it listens.
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
        assert!(address.starts_with(ADDRESS), "{address}");
        Self { child }
    }

    pub fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap())
    }

    /// Ends it at once.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A bus with a daemon on it.
pub fn with_bus(policy: Policy, config: &str) -> (Bus, Fixture) {
    let bus = Bus::start(policy);
    let mut daemon = Daemon::prepared("/run/nicd");
    fs::write(daemon.config(), config).unwrap();
    daemon.launch();
    wait_for_name();
    (bus, Fixture::of(daemon))
}

/// Waits until the name has an owner.
pub fn wait_for_name() {
    let mut monitor = Lines::of(Command::new("dbus-monitor").args([
        "--system",
        "--profile",
        "type=signal,interface=org.freedesktop.DBus,member=NameOwnerChanged,arg0=org.nicd.Agent1",
    ]));
    let owned = || call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus NameHasOwner s org.nicd.Agent1");
    // The monitor's first lines say that it listens: what happens after that is not missed.
    monitor.wait_for("the monitor", |line| line.contains("NameAcquired") || line.contains("NameLost") || line.starts_with('#'));
    if owned().trim() != "b true" {
        monitor.wait_for("the name", |line| line.contains("NameOwnerChanged"));
        assert_eq!(owned().trim(), "b true");
    }
}

/// busctl as somebody.
pub fn busctl_as(who: &[&str], arguments: &str) -> Output {
    let mut command = match who {
        [] => Command::new("busctl"),
        who => {
            let mut command = Command::new("setpriv");
            command.args(who).arg("--").arg("busctl");
            command
        }
    };
    command.arg(format!("--address={ADDRESS}")).args(arguments.split_whitespace());
    command.stdin(Stdio::null()).output().expect("busctl")
}

/// busctl as root; its failure is a failed test.
pub fn busctl(arguments: &str) -> String {
    let output = busctl_as(&[], arguments);
    assert!(output.status.success(), "busctl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A call, as busctl writes it: `INTERFACE METHOD SIGNATURE ARGUMENTS…`.
pub fn call(destination: &str, path: &str, rest: &str) -> String {
    busctl(&format!("call {destination} {path} {rest}"))
}

/// A call of nicd, its answer as JSON.
pub fn ask(path: &str, rest: &str) -> Value {
    let said = busctl(&format!("--json=short call {NAME} {path} {rest}"));
    serde_json::from_str::<Value>(&said).unwrap()["data"].clone()
}

/// A port's property.
pub fn property(port: &str, name: &str) -> Value {
    let said = busctl(&format!("--json=short get-property {NAME} {} {PORT} {name}", path(port)));
    serde_json::from_str::<Value>(&said).unwrap()["data"].clone()
}

/// A port's path.
pub fn path(port: &str) -> String {
    format!("{ROOT}/port/{}", port.replace('-', "_"))
}

/// What a program says, line by line, as it says it; killed when dropped.
#[derive(Debug)]
pub struct Lines {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Lines {
    pub fn of(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let (sender, lines) = channel();
        let (output, errors) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let forward = |read: Box<dyn std::io::Read + Send>, sender: std::sync::mpsc::Sender<String>| {
            thread::spawn(move || {
                for line in BufReader::new(read).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
        };
        forward(Box::new(output), sender.clone());
        forward(Box::new(errors), sender);
        Self { child, lines, seen: Vec::new() }
    }

    /// Every message of the bus that nicd sends or gets, as busctl shows it.
    pub fn monitor() -> Self {
        let mut lines = Self::of(Command::new("stdbuf").args(["-oL", "busctl", "--json=short"]).args([
            &format!("--address={ADDRESS}"),
            "monitor",
            NAME,
        ]));
        lines.wait_for("monitoring", |line| line.starts_with("Monitoring bus message stream"));
        lines
    }

    /// The first line that is wanted.
    pub fn wait_for(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        while let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            self.seen.push(line.clone());
            if wanted(&line) {
                return line;
            }
        }
        panic!("no line for {what}; the last ones: {:#?}", &self.seen[self.seen.len().saturating_sub(20)..]);
    }

    /// The next signal of a name, in order.
    pub fn signal(&mut self, member: &str) -> Value {
        let wanted = |line: &str| {
            serde_json::from_str::<Value>(line).is_ok_and(|message| message["type"] == "signal" && message["member"] == member)
        };
        serde_json::from_str(&self.wait_for(member, wanted)).unwrap()
    }

    /// What has come, and comes within a moment more.
    pub fn drain(&mut self, moment: Duration) -> Vec<String> {
        while let Ok(line) = self.lines.recv_timeout(moment) {
            self.seen.push(line);
        }
        self.seen.clone()
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
