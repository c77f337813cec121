//! From the installation of the package to its purge: nothing that `systemctl`, `kill` and `dpkg` do loses a packet or a client.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use serde_json::json;

use crate::daemon::{Client, PATIENCE};
use crate::debian::Release;
use crate::guests::{Nic, Traffic, attach_namespace, network};
use crate::machine::{Machine, Wishes, on_a_machine};

/// A client that connects anew for each request, one after the other: each has to be answered.
struct Persistent {
    stop: Arc<AtomicBool>,
    asking: JoinHandle<usize>,
}

impl Persistent {
    fn start(machine: &Machine) -> Self {
        let socket = machine.path("/run/nicd/nicd.sock");
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let asking = thread::spawn(move || {
            let mut answered = 0;
            while !until.load(Ordering::Relaxed) {
                // A daemon that is killed between taking a connection and answering breaks it off, as any would.
                let answer = Client::new(socket.clone()).try_call("GET", "/v2.0/ports", &[], b"");
                match answer {
                    Ok(answer) => assert_eq!(answer.status, 200, "{}", answer.text),
                    Err(error) => assert!(!is_refused(&error), "a client was turned away: {error}"),
                }
                answered += 1;
            }
            answered
        });
        Self { stop, asking }
    }

    fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.asking.join().unwrap()
    }
}

fn is_refused(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied, TimedOut, WouldBlock};
    matches!(error.kind(), ConnectionRefused | NotFound | PermissionDenied | TimedOut | WouldBlock)
}

/// What an installation could leave behind: files beside those systemd itself keeps, users and groups.
fn traces(machine: &Machine) -> BTreeSet<String> {
    let kept = r"^/(etc/(passwd|group|shadow|gshadow)-|etc/\.pwd\.lock|var/lib/systemd/|run/systemd/|run/nicd-test)";
    let files = format!("find /etc /usr /var/lib /run -xdev | grep -Ev '{kept}' | sort");
    let said = machine.run(&format!("{files}; cat /etc/passwd /etc/group; ip -o link | cut -d: -f2"));
    said.lines().map(str::to_owned).collect()
}

#[test]
fn on_debian_12_an_installed_service_lives_through_all_that_is_done_to_it_and_leaves_nothing() {
    lives_and_leaves_nothing(Release::Bookworm);
}

#[test]
fn on_debian_13_too() {
    lives_and_leaves_nothing(Release::Trixie);
}

fn lives_and_leaves_nothing(release: Release) {
    on_a_machine(Wishes { release, ..Wishes::default() }, |machine| {
        let before = traces(&machine);
        machine.install();
        sockets_are_whose_they_are(&machine);

        let mut api = machine.client();
        api.get("/nicd/v1/health").expect(200);
        assert_eq!(machine.property("nicd", "ActiveState"), "active", "it starts with its sockets");
        assert!(machine.property("nicd", "StatusText").starts_with("0 ports: 0 active"));

        let network = network(&mut api);
        let a = attach_namespace(&machine, &mut api, "a", &network);
        let b = attach_namespace(&machine, &mut api, "b", &network);
        the_journal_finds_it(&machine, &mut api, &a, &network);
        let links = machine.run("ip -o link");
        let traffic = Traffic::start(&machine, ("a", a.address), ("b", b.address));
        let client = Persistent::start(&machine);
        machine.run("systemctl restart nicd");
        let restarted = machine.property("nicd", "MainPID");
        machine.run(&format!("kill -9 {restarted}"));
        // Waits in the socket until the next one is there.
        machine.client().get("/nicd/v1/health").expect(200);
        assert_ne!(machine.property("nicd", "MainPID"), restarted);
        a_stuck_loop_is_noticed(&machine);
        a_reload_ends(&machine);
        upgrades_start_what_was_running(&machine);
        assert!(client.end() > 10);
        let (sent, lost) = traffic.end();
        assert_eq!(lost, 0, "of {sent} packets");
        assert_eq!(machine.run("ip -o link"), links, "no device was touched");

        machine.run("systemctl stop nicd.socket nicd.service");
        assert!(machine.client().try_call("GET", "/", &[], b"").is_err());
        assert_eq!(machine.run("ip -o link"), links, "guests stay connected without it");
        machine.run("systemctl start nicd.service");
        let mut api = machine.client();
        for nic in [a, b] {
            api.delete(&format!("/nicd/v1/servers/{}?detach=true", nic.server)).expect(204);
        }
        api.delete(&format!("/v2.0/networks/{network}")).expect(204);
        machine.run("ip netns del a; ip netns del b; umount /run/netns; rmdir /run/netns");
        what_is_removed_and_what_is_purged(&machine);
        let left: Vec<String> = traces(&machine).symmetric_difference(&before).cloned().collect();
        assert!(left.is_empty(), "left behind, or taken away: {left:?}");
    });
}

fn sockets_are_whose_they_are(machine: &Machine) {
    let modes = machine.run("stat --format='%n %a %U %G' /run/nicd /run/nicd/*");
    let expected = "/run/nicd 755 root root
/run/nicd/nicd-netns.sock 600 nicd nicd
/run/nicd/nicd-view.sock 660 root nicd-view
/run/nicd/nicd.sock 660 root nicd";
    assert_eq!(modes, expected);
}

/// By a port, a server and a priority. Each entry is the service's.
fn the_journal_finds_it(machine: &Machine, api: &mut Client, nic: &Nic, network: &str) {
    let path = format!("/v2.1/servers/{}/os-interface", nic.server);
    api.post(&path, &json!({"interfaceAttachment": {"net_id": uuid::Uuid::nil()}})).refused(404, "no_such_network");
    let found = |what: &str| machine.run(&format!("journalctl --sync; journalctl --no-pager --output=cat --unit=nicd {what}"));
    let attached = found(&format!("NICD_PORT={}", nic.port));
    let line = attached.lines().find(|line| line.contains("attach done")).unwrap_or_else(|| panic!("{attached}"));
    for part in [&nic.server, network, &nic.device, &nic.address.to_string(), "mac=fa:16:3e:", "request_id=", "took="] {
        assert!(line.contains(part), "{part} in {line}");
    }
    let refused = found(&format!("NICD_SERVER={} NICD_REASON=no_such_network PRIORITY=6", nic.server));
    assert!(refused.contains("attach refused") && refused.lines().count() == 1, "{refused}");
    assert!(found(&format!("NICD_NETWORK={network}")).contains("network create done"));
    assert_eq!(found("--priority=warning --grep='done|refused' | cat"), "");
}

#[test]
fn it_comes_back_however_often_it_is_killed_or_restarted() {
    // More often than systemd gives a unit by default before it gives it up, and its socket with it.
    const OFTEN: usize = 8;
    on_a_machine(Wishes::default(), |machine| {
        machine.install();
        machine.client().get("/nicd/v1/health").expect(200);
        for _ in 0..OFTEN {
            machine.run(&format!("kill -9 {}", machine.property("nicd", "MainPID")));
            machine.client().get("/nicd/v1/health").expect(200);
        }
        (0..OFTEN).for_each(|_| _ = machine.run("systemctl restart nicd"));
        for guest in 0..OFTEN {
            machine.run(&format!("ip netns add g{guest}; nicctl server add g{guest} --netns /run/netns/g{guest}"));
            machine.run(&format!("kill -9 {}", machine.property("nicd-netns", "MainPID")));
        }
        machine.run("nicctl server add last --netns /run/netns/g0");
        assert_eq!(machine.property("nicd", "ActiveState"), "active");
    });
}

/// With a limit that a test can wait for.
fn a_stuck_loop_is_noticed(machine: &Machine) {
    machine.run(
        "mkdir -p /run/systemd/system/nicd.service.d
         printf '[Service]\\nWatchdogSec=1s\\n' >/run/systemd/system/nicd.service.d/watchdog.conf
         systemctl daemon-reload && systemctl restart nicd",
    );
    let stuck = machine.property("nicd", "MainPID");
    machine.run(&format!("kill -STOP {stuck}"));
    machine.client().get("/nicd/v1/health").expect(200);
    assert_ne!(machine.property("nicd", "MainPID"), stuck);
    let journal = machine.run("journalctl --no-pager --output=cat --unit=nicd");
    assert!(journal.contains("Watchdog timeout (limit 1s)!"), "{journal}");
    machine.run("rm -r /run/systemd/system/nicd.service.d; systemctl daemon-reload; systemctl restart nicd");
}

/// To the later version and back, twelve upgrades without a pause: more in ten seconds than systemd lets a unit start by default.
fn upgrades_start_what_was_running(machine: &Machine) {
    let begin = Instant::now();
    for version in ["next", "nicd"].into_iter().cycle().take(12) {
        let pid = machine.property("nicd", "MainPID");
        machine.run(&format!("dpkg --force-unsafe-io --install /nicd/{version}.deb"));
        machine.client().get("/nicd/v1/health").expect(200);
        assert_ne!(machine.property("nicd", "MainPID"), pid, "{version}");
        assert_eq!(machine.property("nicd", "ActiveState"), "active", "{version}");
    }
    eprintln!("twelve upgrades: {:.1} s", begin.elapsed().as_secs_f64());
}

fn what_is_removed_and_what_is_purged(machine: &Machine) {
    // Stands for a guest's that was not detached.
    machine.run("ip link add nbrleft type bridge");
    let said = machine.run("dpkg --remove nicd");
    assert!(said.contains("guests keep their devices and bridges") && said.contains("nbrleft"), "{said}");
    machine.run("ip link del nbrleft; test -s /var/lib/nicd/nicd.db; test -s /etc/nicd/nicd.toml; ! test -e /run/nicd");
    machine.run("! systemctl is-active nicd.socket nicd.service nicd-netns.socket; dpkg --purge nicd");
}

fn a_reload_ends(machine: &Machine) {
    let pid = machine.property("nicd", "MainPID");
    machine.run("systemctl reload nicd");
    machine.client().get("/nicd/v1/health").expect(200);
    assert_eq!(machine.property("nicd", "MainPID"), pid);
    // The reconciler takes in the end of a reload a moment after the command that began it has returned.
    let start = Instant::now();
    while machine.property("nicd", "ActiveState") == "reloading" {
        assert!(start.elapsed() < PATIENCE, "the reload does not end");
    }
    assert_eq!(machine.property("nicd", "ActiveState"), "active");
}
