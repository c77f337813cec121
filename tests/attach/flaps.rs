//! What one guest, one device or one bridge can make nicd do is bounded, and the last state is always told.

use std::fmt::Display;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use serde_json::Value;

use crate::fixture::{Fixture, foreign_bridge};
use crate::netns::{in_netns, run};
use crate::taps::vm_with_tap;
use serde_json::json;

/// How long something flaps.
const TIME: Duration = Duration::from_secs(4);

/// The processor time a process has had.
fn processor_time(process: impl Display) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// Runs lines of ip(8) again and again, in a namespace or here, until it is dropped.
struct Loop(Child);

impl Loop {
    fn start(namespace: Option<&str>, lines: &str) -> Self {
        let batch = format!("/run/loop-{}", namespace.unwrap_or("host"));
        fs::write(&batch, lines.repeat(20_000)).unwrap();
        let inside = namespace.map_or_else(String::new, |name| format!("-n {name}"));
        let script = format!("while :; do ip {inside} -force -batch {batch}; done");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "timeout", "--foreground", "-s", "KILL", "30", "sh", "-c", &script]);
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Loop {
    /// The whole group: the shell, and the ip(8) that it has started.
    fn drop(&mut self) {
        let _ = nix::sys::signal::killpg(Pid::from_raw(self.0.id().try_into().unwrap()), nix::sys::signal::Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

/// What happened while something flapped.
struct Heard {
    /// Events of the port.
    events: Vec<Value>,
    /// All lines of the log, at the level of production or above.
    lines: usize,
    processor: Duration,
}

/// Lets something flap, while another guest is served.
fn flap(fixture: &mut Fixture, port: &str, namespace: Option<&str>, lines: &str) -> Heard {
    let info = |fixture: &Fixture| fixture.daemon.log().lines().filter(|line| !line.contains(" DEBUG ")).count();
    while fixture.events.next(Duration::from_millis(200)).is_some() {}
    let (before, processor, began) = (info(fixture), processor_time(fixture.daemon.pid()), Instant::now());
    let flapping = Loop::start(namespace, lines);
    let mut events = Vec::new();
    while began.elapsed() < TIME {
        if let Some(event) = fixture.events.next(TIME.saturating_sub(began.elapsed())) {
            events.push(event);
        }
    }
    let processor = processor_time(fixture.daemon.pid()) - processor;
    drop(flapping);
    events.retain(|event| event["port_id"] == port && event["event"] == "port.status");
    Heard { events, lines: info(fixture) - before, processor }
}

impl Heard {
    fn is_bounded(&self, what: &str) {
        // Four a second, and one that was told as it began.
        assert!(self.events.len() <= 4 * 4 + 4, "{what}: {} events: {:#?}", self.events.len(), self.events);
        assert!(!self.events.is_empty(), "{what}: nothing is told");
        assert!(self.lines < 100, "{what}: {} lines", self.lines);
        // A debug build spends most of this on reading some ten thousand events a second.
        assert!(self.processor < TIME * 3 / 4, "{what}: {:?} of a processor", self.processor);
        for two in self.events.windows(2) {
            assert_eq!(two[0]["new"], two[1]["old"], "{what}: each goes on from the one before: {:#?}", self.events);
        }
    }
}

#[test]
fn a_guest_that_flaps_its_nic_is_told_of_a_few_times_a_second_and_disturbs_nobody() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (guest, server) = fixture.guest("a");
        let (_other, other) = fixture.guest("b");
        let port = fixture.attach_to(&server, &network);
        fixture.wait_status(&port, "ACTIVE");
        let flapped = flap(&mut fixture, &port, Some("a"), "link set eth0 down\nlink set eth0 up\n");
        flapped.is_bounded("a NIC set down and up");
        assert!(flapped.events.len() >= 4, "{:#?}", flapped.events);
        // The last state is told, whichever it is.
        guest.ip("link set eth0 down");
        fixture.wait_status(&port, "DOWN");
        guest.ip("link set eth0 up");
        fixture.events.wait_status(&port, "ACTIVE");
        // Others meanwhile.
        let again = Loop::start(Some("a"), "link set eth0 down\nlink set eth0 up\n");
        let began = Instant::now();
        for _ in 0..5 {
            let one = fixture.attach_to(&other, &network);
            fixture.wait_status(&one, "ACTIVE");
            fixture.detach(&other, &one);
        }
        let took = began.elapsed();
        drop(again);
        assert!(took < Duration::from_secs(10), "{took:?}");
        guest.ip("link set eth0 up");
        fixture.wait_status(&port, "ACTIVE");
    });
}

#[test]
fn a_device_that_is_renamed_all_the_time_is_told_of_a_few_times_a_second() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (_guest, _server, port) = fixture.active_guest("a", &network);
        let device = fixture.device(&port);
        let lines = format!("link set {device} name other0\nlink set other0 name {device}\n");
        let renamed = flap(&mut fixture, &port, None, &lines);
        renamed.is_bounded("renaming");
        assert!(renamed.events.iter().any(|event| event["reason"] == "device_renamed"), "{:#?}", renamed.events);
        fixture.wait_status(&port, "ACTIVE");
    });
}

#[test]
fn a_device_whose_settings_are_changed_all_the_time_is_fought_and_told_of_within_bounds() {
    for change in ["mtu 1300", "address 02:00:00:00:00:77", "alias x"] {
        in_netns(move || {
            let mut fixture = Fixture::start();
            let network = fixture.usual_network();
            let (_guest, _server, port) = fixture.active_guest("a", &network);
            let device = fixture.device(&port);
            flap(&mut fixture, &port, None, &format!("link set {device} {change}\n")).is_bounded(change);
            fixture.wait_status(&port, "ACTIVE");
        });
    }
}

#[test]
fn a_tap_that_is_opened_and_closed_all_the_time_is_told_of_a_few_times_a_second() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let (_, port, device) = vm_with_tap(&mut fixture, json!({"kind": "vm", "owner": {"uid": 0}}));
        let opening = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
        let opener = {
            let opening = std::sync::Arc::clone(&opening);
            std::thread::spawn(move || {
                let mut openings = 0;
                while opening.load(std::sync::atomic::Ordering::Relaxed) {
                    let _ = nicd::kernel::tap::attach(&device.parse().unwrap(), 1, true);
                    openings += 1;
                }
                (openings, processor_time("thread-self"))
            })
        };
        let (processor, began) = (processor_time(fixture.daemon.pid()), Instant::now());
        let mut events = Vec::new();
        while began.elapsed() < TIME {
            events.extend(fixture.events.next(TIME.saturating_sub(began.elapsed())));
        }
        let processor = processor_time(fixture.daemon.pid()) - processor;
        opening.store(false, std::sync::atomic::Ordering::Relaxed);
        let (openings, opener): (u32, Duration) = opener.join().unwrap();
        events.retain(|event| event["port_id"] == port.as_str());
        assert!(events.len() <= 4 * 4 + 4, "{events:#?}");
        // A debug build reads what the kernel tells of an opening and its end in one and a half times the processor time that the
        // opening itself takes. One that looked, or told, each time would take three times that.
        assert!(processor < opener * 3, "{processor:?} for {openings} openings, which took {opener:?}");
        fixture.wait_status(&port, "DOWN");
    });
}

/// Case: fifty taps of a bridge that somebody deletes.
#[test]
fn ports_of_a_bridge_that_is_gone_are_told_of_once_and_right_again_soon_after_it_is_back() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        fixture.leaves_deviations();
        foreign_bridge("br0", 1500);
        let network = fixture.network_on("br0");
        let ports: Vec<String> = (0..50)
            .map(|_| {
                let vm = fixture.vm();
                fixture.attach_to(&vm, &network)
            })
            .collect();
        run("ip link del br0");
        for port in &ports {
            fixture.wait_until(port, "ERROR", |port| port.is_some_and(|port| port["status"] == "ERROR"));
        }
        let errors = |events: &[Value], port: &str| {
            events.iter().filter(|event| event["port_id"] == port && event["new"] == "ERROR").count()
        };
        // What was still on its way.
        while fixture.events.next(Duration::from_millis(500)).is_some() {}
        for port in &ports {
            assert_eq!(errors(&fixture.events.seen, port), 1, "{port}: one each");
            let of_it = |event: &&Value| event["port_id"] == port.as_str() && event["new"] == "BUILD";
            assert!(fixture.events.seen.iter().filter(of_it).count() <= 2, "with the attach's");
        }
        let lines = |fixture: &Fixture| fixture.daemon.log().lines().filter(|line| !line.contains(" DEBUG ")).count();
        let (before, processor) = (lines(&fixture), processor_time(fixture.daemon.pid()));
        let event = fixture.events.next(TIME);
        assert!(event.is_none(), "silence: {event:?}");
        assert_eq!(lines(&fixture), before, "{}", fixture.daemon.log());
        assert!(processor_time(fixture.daemon.pid()) - processor < TIME / 10);
        foreign_bridge("br0", 1500);
        let back = Instant::now();
        for port in &ports {
            fixture.wait_until(port, "built", |port| port.is_some_and(|port| port["status"] == "DOWN"));
        }
        let took = back.elapsed();
        assert!(took < Duration::from_secs(3), "{took:?}");
        let verified = fixture.verified();
        assert_eq!(verified["deviations"], json!([]), "{verified:#}");
    });
}

#[test]
fn a_bridge_that_comes_and_goes_all_the_time_costs_its_ports_a_try_now_and_then() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        fixture.leaves_deviations();
        foreign_bridge("br0", 1500);
        let network = fixture.network_on("br0");
        let ports: Vec<String> = (0..10)
            .map(|_| {
                let vm = fixture.vm();
                fixture.attach_to(&vm, &network)
            })
            .collect();
        let flapped = flap(&mut fixture, &ports[0], None, "link del br0\nlink add br0 type bridge\nlink set br0 mtu 1400\n");
        assert!(flapped.events.len() <= 4 * 4 + 4, "{:#?}", flapped.events);
        assert!(flapped.lines < 1000, "{} lines", flapped.lines);
        let _ = crate::netns::try_run("ip link del br0");
        foreign_bridge("br0", 1500);
        for port in &ports {
            fixture.wait_until(port, "built", |port| port.is_some_and(|port| port["status"] == "DOWN"));
        }
    });
}

#[test]
fn a_guest_whose_namespace_is_away_is_waited_for_in_silence() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        fixture.leaves_deviations();
        let network = fixture.usual_network();
        let (guest, _server, port) = fixture.active_guest("a", &network);
        guest.end();
        fixture.wait_until(&port, "waiting", |port| port.is_some_and(|port| port["nicd:reason"] == "namespace_gone"));
        while fixture.events.next(Duration::from_millis(500)).is_some() {}
        let before = fixture.daemon.log().lines().filter(|line| !line.contains(" DEBUG ")).count();
        let event = fixture.events.next(Duration::from_secs(3));
        assert!(event.is_none(), "silence: {event:?}");
        let after = fixture.daemon.log().lines().filter(|line| !line.contains(" DEBUG ")).count();
        assert_eq!(after, before, "{}", fixture.daemon.log());
        let _again = crate::netns::Guest::new("a");
        fixture.events.wait_status(&port, "ACTIVE");
    });
}
