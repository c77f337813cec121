//! `nicd demo`: it succeeds, or says why it cannot run, and leaves nothing behind.

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

use netns::{comes_true, in_netns, is_root};

const NICD: &str = env!("CARGO_BIN_EXE_nicd");

/// The most lines a person is given to read.
const LINES: usize = 80;

#[test]
fn it_holds_and_leaves_the_machine_as_it_was() {
    if !is_root() {
        return;
    }
    let links = || std::fs::read_dir("/sys/class/net").unwrap().map(|entry| entry.unwrap().file_name()).collect::<BTreeSet<_>>();
    let before = links();
    let output = Command::new(NICD).arg("demo").env_clear().output().unwrap();
    holds(&output);
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
    if !is_root() {
        return;
    }
    let mut demo = Command::new(NICD).arg("demo").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("They talk")));
    let inner = children(demo.id());
    let others: Vec<u32> = inner.iter().flat_map(|inner| children(*inner)).collect();
    assert_eq!((inner.len(), others.len()), (1, 1), "the inner process, and its daemon");
    kill(Pid::from_raw(demo.id().try_into().unwrap()), Signal::SIGKILL).unwrap();
    demo.wait().unwrap();
    for process in inner.into_iter().chain(others) {
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
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    for line in [
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
    ] {
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
