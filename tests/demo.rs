//! `nicd demo`: it succeeds, or says why it cannot run, and leaves nothing behind.

#![allow(clippy::unwrap_used)] // clippy.toml's leave covers test functions, not their helpers

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[path = "common/netns.rs"]
mod netns;
#[path = "common/programs.rs"]
mod programs;

use netns::{comes_true, in_netns, is_root};

const NICD: &str = env!("CARGO_BIN_EXE_nicd");

/// The most lines a person is given to read.
const LINES: usize = 80;

#[test]
fn it_holds_and_leaves_the_machine_as_it_was() {
    if !is_root() {
        return;
    }
    leaves_nothing(|| {
        holds(&Command::new(NICD).arg("demo").env_clear().output().unwrap());
    });
}

#[test]
fn a_fleet_holds_and_leaves_the_machine_as_it_was() {
    if !is_root() || !programs::has("etcd") {
        return;
    }
    leaves_nothing(|| {
        let output = Command::new(NICD).args(["demo", "--fleet"]).output().unwrap();
        holds_with(
            &output,
            &[
                "host-3 lists as alive: host-1, host-2, host-3",
                "host-2 and host-3 have both, ",
                "3 addresses and 3 MACs for 3 guests",
                " from 10.9.0.11: guest-2 at 10.9.0.12, guest-3 at 10.9.0.13",
                "guest-2 → guest-3 10.77.0.",
                "the guests' MTU is 1450",
                "etcd ended with signal: 9 (SIGKILL); all hosts said so",
                "host-2: guest-4, answered after ",
                "guest-2 → guest-4 10.77.0.",
                "etcd is started again, with its data",
                "guest-1 → guest-4 10.77.0.",
                " pings sent, 0 lost;",
                "ended with signal: 9 (SIGKILL); not running for 400 ms; ready again",
                "the kernel told of no change",
                "A second guest on host-3, asked for at host-1",
                "host-3: guest-5, answered after ",
                "guest-1 → guest-5 10.77.0.",
                "INACTIVE; moved in ",
                "guest-4 → guest-2 10.77.0.",
                "the network is gone at all hosts",
                "links as before: lo, uplink on each host, lo in the guests",
                "the APIs of all hosts list 0 networks, 0 subnets, 0 ports, 0 servers",
                "etcd, asked without nicd, has 0 networks and subnets, 0 numbers of networks, 0 ports",
                "their databases, read without nicd, have 0 networks, 0 subnets, 0 servers, 0 ports, 0 addresses",
                "this host has the same links as before",
                "All of it held",
            ],
        );
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(said.matches(": 20 of 20 pings answered").count(), 7, "{said}");
        assert_eq!(said.matches(" pings sent, 0 lost;").count(), 2, "{said}");
    });
}

#[test]
fn without_etcd_it_says_what_to_install() {
    let output = Command::new(NICD).args(["demo", "--fleet"]).env("PATH", "/nonexistent").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(69), 0), "{said}");
    assert!(said.contains("apt install etcd-server"), "{said}");
}

/// Does something, after which this machine's links are the same, and nothing of the demo is mounted.
fn leaves_nothing(act: impl FnOnce()) {
    let links = || std::fs::read_dir("/sys/class/net").unwrap().map(|entry| entry.unwrap().file_name()).collect::<BTreeSet<_>>();
    let before = links();
    act();
    assert_eq!(links(), before);
    assert!(!std::fs::read_to_string("/proc/mounts").unwrap().contains("nicd-demo"));
}

#[test]
fn without_root_a_user_namespace_will_do() {
    in_netns(|| {
        // Some hosts let nobody but root have one.
        let restricted = std::fs::read_to_string("/proc/sys/kernel/apparmor_restrict_unprivileged_userns");
        if restricted.is_ok_and(|word| word.trim() == "1") {
            return eprintln!("not run: AppArmor refuses user namespaces to programs it does not know");
        }
        holds(&as_nobody());
    });
}

#[test]
fn without_the_tun_driver_it_says_what_is_missing() {
    in_netns(|| {
        std::fs::write("/run/tun", "").unwrap();
        std::fs::set_permissions("/run/tun", PermissionsExt::from_mode(0o600)).unwrap();
        let nothing = None::<&str>;
        mount(Some("/run/tun"), "/dev/net/tun", nothing, MsFlags::MS_BIND, nothing).unwrap();
        let Output { status, stdout, stderr } = as_nobody();
        let said = String::from_utf8(stderr).unwrap();
        assert_eq!((status.code(), stdout.len()), (Some(77), 0), "{said}");
        assert!(said.contains("/dev/net/tun") && said.contains("sudo nicd demo"), "{said}");
    });
}

#[test]
fn killed_in_the_middle_it_takes_everything_along() {
    if is_root() {
        takes_all_along(&["demo"], "They talk", 1);
    }
}

#[test]
fn a_fleet_that_is_killed_in_the_middle_takes_everything_along() {
    if is_root() && programs::has("etcd") {
        takes_all_along(&["demo", "--fleet"], "They talk", 4);
    }
}

/// Kills the demo when it has printed a line: its inner process and the `others` that this one started end.
fn takes_all_along(arguments: &[&str], at: &str, others: usize) {
    let mut demo = Command::new(NICD).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains(at)));
    let inner = children(demo.id());
    let started: Vec<u32> = inner.iter().flat_map(|inner| children(*inner)).collect();
    assert_eq!((inner.len(), started.len()), (1, others), "the inner process, and what it started");
    kill(Pid::from_raw(demo.id().try_into().unwrap()), Signal::SIGKILL).unwrap();
    demo.wait().unwrap();
    for process in inner.into_iter().chain(started) {
        let has_ended = || !Path::new(&format!("/proc/{process}")).exists();
        comes_true(Duration::from_secs(5), has_ended, || format!("{process} still runs"));
    }
}

#[test]
fn a_reader_who_goes_away_ends_it_without_a_word() {
    if !is_root() {
        return;
    }
    let mut demo = Command::new(NICD).arg("demo").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(demo.stdout.take());
    let mut said = String::new();
    demo.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((demo.wait().unwrap().code(), said.as_str()), (Some(1), ""));
}

fn holds(output: &Output) {
    holds_with(
        output,
        &[
            "guest → VM fd77::3: 20 of 20 pings answered",
            "VM → guest 10.77.0.2: 20 of 20 pings answered",
            "SIGKILL: ended after",
            " pings sent, 0 lost;",
            "the kernel told of no change",
            "closed its tap first",
            "links as before: lo on the node, lo in the guest",
            "0 networks, 0 subnets, 0 servers, 0 ports, 0 addresses",
            "this host has the same links as before",
            "All of it held",
        ],
    );
}

/// It ended well, and said all of this, for a person to read.
fn holds_with(output: &Output, lines: &[&str]) {
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    for line in lines {
        assert!(said.contains(line), "{line}\n{said}");
    }
    assert!(!said.contains('✗') && !said.contains('\x1b'), "{said}");
    assert!(said.lines().count() <= LINES, "{said}");
}

/// Runs it as somebody without any right, from where they can reach it.
fn as_nobody() -> Output {
    let program = PathBuf::from("/run/nicd-program");
    std::fs::copy(NICD, &program).expect("a copy");
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(program).arg("demo");
    command.output().expect("setpriv")
}

/// The processes whose parent is `parent`.
fn children(parent: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("/proc");
    let processes = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_child = |process: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        status.lines().any(|line| line.strip_prefix("PPid:").is_some_and(|id| id.trim() == parent.to_string()))
    };
    processes.filter(is_child).collect()
}
