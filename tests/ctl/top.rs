//! `nicctl top` on a real terminal, against a real daemon with real traffic.

use std::fs::File;
use std::io::{Read, Write};
use std::net::UdpSocket;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, Termios, tcgetattr};
use nix::unistd::Pid;
use serde_json::Value;

use super::daemon::PATIENCE;
use super::fixture::text;
use super::netns::{Guest, in_netns};
use super::{Ctl, started};

/// A terminal with a program on it.
pub struct Screen {
    child: Child,
    master: File,
    /// Kept, so that the terminal is still there when the program has ended.
    slave: OwnedFd,
    before: Termios,
    seen: vt100::Parser,
}

impl Screen {
    /// A terminal of 80 by 24 on which `nicctl` runs; with `errors` its standard error alone is there.
    pub fn start(ctl: &Ctl, line: &str, errors: bool) -> Self {
        let (rows, columns) = (24, 80);
        let pty = openpty(&Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }, None).unwrap();
        let end = || Stdio::from(pty.slave.try_clone().unwrap());
        let mut command = ctl.command(line);
        command.env("TERM", "xterm-256color").stderr(end());
        match errors {
            true => command.stdout(Stdio::null()),
            false => command.stdin(end()).stdout(end()),
        };
        let before = tcgetattr(&pty.slave).unwrap();
        let child = command.spawn().unwrap();
        let seen = vt100::Parser::new(rows, columns, 0);
        Self { child, master: pty.master.into(), slave: pty.slave, before, seen }
    }

    /// What is on the screen once that is so.
    pub fn wait_for(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let text = self.seen.screen().contents();
            if wanted(&text) {
                return text;
            }
            assert!(Instant::now() < until && self.read(), "{what}: {text}");
        }
    }

    /// Reads what the program has written; false when it writes nothing for long.
    fn read(&mut self) -> bool {
        let mut fds = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
        let some = poll(&mut fds, PollTimeout::try_from(PATIENCE).unwrap()).unwrap() > 0;
        let mut bytes = [0; 4096];
        if some {
            let read = self.master.read(&mut bytes).unwrap();
            self.seen.process(&bytes[..read]);
        }
        some
    }

    fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Its exit code; the terminal must be as it was.
    fn ends(mut self) -> i32 {
        let code = self.child.wait().unwrap().code().expect("it ends by itself");
        assert_eq!(tcgetattr(&self.slave).unwrap(), self.before, "the terminal's modes");
        // A mark behind all that it has written.
        File::from(self.slave.try_clone().unwrap()).write_all(b"the mark").unwrap();
        self.wait_for("the mark", |text| text.contains("the mark"));
        assert!(!self.seen.screen().alternate_screen(), "it has left its screen");
        assert!(!self.seen.screen().hide_cursor(), "the cursor is shown");
        code
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A guest's socket on which a datagram is sent each millisecond.
struct Traffic {
    ends: Arc<AtomicBool>,
    sender: Option<JoinHandle<()>>,
}

impl Traffic {
    fn start(guest: &Guest, from: &'static str, to: &'static str) -> Self {
        // A socket stays in the namespace that it was made in.
        let socket = guest.inside(move || UdpSocket::bind((from, 0)).unwrap());
        let ends = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&ends);
        let send = move || {
            while !ended.load(Ordering::Relaxed) {
                // Before its neighbour is known, or when it is refused, there is nothing to do about it.
                let _ = socket.send_to(&[0; 1000], (to, 9));
                thread::sleep(Duration::from_millis(1));
            }
        };
        Self { ends, sender: Some(thread::spawn(send)) }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let _ = self.sender.take().map(JoinHandle::join);
    }
}

/// Two guests on a network; the first sends to the second.
fn talking(ctl: &Ctl) -> ([Guest; 2], Traffic) {
    let guests = ["web", "db"].map(|name| {
        let guest = Guest::new(name);
        ctl.ok(&format!("server add {name} --netns {}", guest.path.display()));
        guest
    });
    ctl.ok("network create blue --subnet 192.0.2.0/24");
    ctl.ok("attach web --network blue --ip 192.0.2.10 --name web-0 --wait");
    ctl.ok("attach db --network blue --ip 192.0.2.20 --name db-0 --wait");
    let traffic = Traffic::start(&guests[0], "192.0.2.10", "192.0.2.20");
    (guests, traffic)
}

#[test]
fn a_frame_has_the_rates_drops_and_limits_of_a_real_host() {
    in_netns(|| {
        let (_daemon, ctl) = started();
        let ([_web, db], _traffic) = talking(&ctl);
        db.ip("addr add 192.0.2.200/24 dev eth0");
        let _spoofed = Traffic::start(&db, "192.0.2.200", "192.0.2.10");
        ctl.ok("port set db-0 --limit-to-guest 50000");
        ctl.ok("server add vm --vm");
        ctl.ok("attach vm --network blue --name vm-0");
        ctl.ok("port create blue --name unattached");
        let told = ctl.json("top --once --interval 0.5");
        let of = |name: &str| {
            let rows = told["ports"].as_array().unwrap();
            rows.iter().find(|row| row["name"] == name).cloned().unwrap_or_else(|| panic!("{name}: {told}"))
        };
        assert_eq!(told["ports"].as_array().map(Vec::len), Some(3), "those that are attached: {told}");
        let rate = |name: &str, direction: &str, unit: &str| of(name)["rates"][direction][unit].as_f64().unwrap();
        let (sent, got) = (rate("web-0", "from_guest", "packets"), rate("db-0", "to_guest", "packets"));
        assert!((50.0..2000.0).contains(&sent) && (50.0..2000.0).contains(&got), "{told}");
        assert!(rate("web-0", "from_guest", "bits") > 8000.0 * 50.0, "{told}");
        let dropped = of("db-0")["rates"]["dropped"].clone();
        assert!(["arp", "ip4"].iter().any(|reason| dropped[reason].as_f64().unwrap_or_default() > 0.0), "{told}");
        assert_eq!((&of("db-0")["limit_to_guest"], &of("db-0")["limit_from_guest"]), (&50_000.into(), &Value::Null));
        assert_eq!((&of("vm-0")["status"], text(&of("vm-0")["server"])), (&"DOWN".into(), "vm".to_owned()));
        let frame = ctl.ok("top --once --interval 0.5");
        let lines: Vec<&str> = frame.lines().collect();
        let first = lines.iter().position(|line| line.starts_with("PORT")).unwrap() + 1;
        assert!(lines[first].starts_with("db-0") && lines[first].contains("drops"), "what drops is first: {frame}");
        assert!(lines[first + 1].starts_with("web-0") && lines[first + 2].starts_with("vm-0"), "{frame}");
        assert!(lines[1].contains("3 ports") && lines[1].contains("2 ACTIVE"), "{frame}");
        let by_name = ctl.ok("top --once --interval 0.2 --sort -name");
        assert!(by_name.find("web-0") < by_name.find("vm-0"), "{by_name}");
        assert!(ctl.fails("top --once --sort colour", 2).contains("trouble"));
        assert!(ctl.fails("top", 2).contains("--once"), "no terminal");
    });
}

#[test]
fn a_live_table_follows_what_happens_and_outlives_a_restart_of_the_daemon() {
    in_netns(|| {
        let (mut daemon, ctl) = started();
        let (_guests, _traffic) = talking(&ctl);
        let mut screen = Screen::start(&ctl, "top --interval 0.2", false);
        let rated =
            |text: &str| text.lines().any(|line| line.starts_with("web-0") && line.contains("ACTIVE") && line.contains('k'));
        screen.wait_for("rates", rated);
        assert!(!tcgetattr(&screen.slave).unwrap().local_flags.contains(LocalFlags::ICANON), "keys come one by one");
        ctl.ok("server add vm --vm");
        ctl.ok("attach vm --network blue --name vm-0");
        screen.wait_for("a new port", |text| text.contains("vm-0") && text.contains("1-3 of 3, by trouble"));
        screen.press("s");
        screen.wait_for("another order", |text| text.contains("by rate"));
        screen.press("r");
        screen.wait_for("from the last", |text| text.contains("by rate (reversed)"));
        screen.press(" ");
        screen.wait_for("a pause", |text| text.contains("PAUSED"));
        ctl.ok("port delete vm-0");
        screen.press("s");
        let paused = screen.wait_for("another order", |text| text.contains("by drops"));
        assert!(paused.contains("vm-0"), "{paused}");
        screen.press(" ");
        screen.wait_for("it is gone", |text| !text.contains("vm-0") && !text.contains("PAUSED"));
        daemon.term();
        let gone = screen.wait_for("no daemon", |text| text.contains("nicd is not there since"));
        assert!(gone.contains("web-0") && gone.contains("db-0"), "what was known stays: {gone}");
        daemon.launch();
        screen.wait_for("a daemon again", |text| !text.contains("is not there") && rated(text));
        ctl.ok("attach vm --network blue --name vm-1");
        screen.wait_for("its events again", |text| text.contains("vm-1"));
        screen.press("q");
        assert_eq!(screen.ends(), 0);
    });
}

#[test]
fn the_terminal_is_as_it_was_however_it_ends() {
    in_netns(|| {
        let (mut daemon, ctl) = started();
        let started = |ctl: &Ctl| {
            let mut screen = Screen::start(ctl, "top", false);
            screen.wait_for("the table", |text| text.contains("no port is attached"));
            assert!(screen.seen.screen().alternate_screen() && screen.seen.screen().hide_cursor());
            screen
        };
        for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130), (Signal::SIGHUP, 129), (Signal::SIGQUIT, 131)] {
            let screen = started(&ctl);
            kill(Pid::from_raw(i32::try_from(screen.child.id()).unwrap()), signal).unwrap();
            assert_eq!(screen.ends(), code, "{signal}");
        }
        for keys in ["q", "\u{3}"] {
            let mut screen = started(&ctl);
            screen.press(keys);
            assert_eq!(screen.ends(), 0, "{keys:?}");
        }
        daemon.term();
        let screen = Screen::start(&ctl, "top", false);
        assert_eq!(screen.ends(), 4, "there is nothing to follow");
    });
}

#[test]
fn a_person_sees_that_something_is_waited_for_and_a_pipe_does_not() {
    in_netns(|| {
        let (_daemon, ctl) = started();
        ctl.ok("network create blue --subnet 192.0.2.0/24");
        ctl.ok("server add vm --vm");
        let mut screen = Screen::start(&ctl, "attach vm --network blue --name vm-0 --wait=2", true);
        let seen = screen.wait_for("the wait", |text| text.contains("waiting until port"));
        assert!(seen.contains("DOWN"), "{seen}");
        assert_eq!(screen.ends(), 3);
        let said = ctl.fails("attach vm --network blue --wait=2", 3);
        assert!(!said.contains("waiting until"), "{said}");
    });
}
