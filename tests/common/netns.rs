//! Runs a test that needs a real kernel in its own network namespace, so that it does not touch the machine's network and
//! leaves nothing behind, also when it fails.

#![allow(dead_code)] // each test target uses its part

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

/// Set by the full test command, which runs as root: it makes a test fail that cannot run.
const FULL: &str = "NICD_TEST_FULL";

/// Whether a test that needs root can run. If not, prints that the full command runs it; in the full command the test fails.
pub fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        assert!(std::env::var_os(FULL).is_none(), "{FULL} is set, but this test needs root");
        eprintln!("not run: needs root, and is left to the full test command ({FULL}=1, as root)");
    }
    root
}

/// Runs `test` on a thread with its own network and mount namespaces: `lo` is up, `/run` has only a `netns` directory, and every
/// user may open `/dev/net/tun`. Child processes inherit the namespaces. A panic is passed to the caller.
///
/// Without root it only says that the test is left to the full command, unless this is the full command.
pub fn in_netns(test: impl FnOnce() + Send + 'static) {
    if !is_root() {
        return;
    }
    let own = move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("unshare");
        let nothing = None::<&str>;
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).expect("private mounts");
        mount(Some("run"), "/run", Some("tmpfs"), MsFlags::empty(), nothing).expect("a /run of its own");
        std::fs::create_dir("/run/netns").expect("/run/netns");
        // As udev has it, without which the daemon's user and VMMs could not open it.
        run("mknod -m 0666 /run/open-tun c 10 200");
        mount(Some("/run/open-tun"), "/dev/net/tun", nothing, MsFlags::MS_BIND, nothing).expect("a tun node for everybody");
        run("ip link set lo up");
        test();
    };
    if let Err(panic) = thread::spawn(own).join() {
        std::panic::resume_unwind(panic);
    }
}

/// A guest's network namespace, mounted as `/run/netns/NAME` inside the test's own mount namespace.
#[derive(Debug)]
pub struct Guest {
    /// What `ip -n` takes.
    pub name: String,
    /// Where it is mounted.
    pub path: PathBuf,
}

impl Guest {
    /// Makes one.
    pub fn new(name: &str) -> Self {
        let path = Path::new("/run/netns").join(name);
        std::fs::write(&path, "").expect("mount point");
        let target = path.clone();
        let make = move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("unshare");
            let nothing = None::<&str>;
            mount(Some("/proc/thread-self/ns/net"), &target, nothing, MsFlags::MS_BIND, nothing).expect("bind mount");
        };
        thread::spawn(make).join().expect("a namespace");
        Self { name: name.to_owned(), path }
    }

    /// Runs `ip` inside and gives back what it says.
    pub fn ip(&self, arguments: &str) -> String {
        run(&format!("ip -n {} {arguments}", self.name))
    }

    /// The same as JSON.
    pub fn ip_json(&self, arguments: &str) -> serde_json::Value {
        json(&format!("ip -n {} -j {arguments}", self.name))
    }

    /// Runs something on a thread that is in this namespace, and only in this one.
    pub fn inside<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = std::fs::File::open(&self.path).expect("the namespace");
        let enter = move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("setns");
            act()
        };
        thread::spawn(enter).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Unmounts it, so that the kernel deletes it unless a process or descriptor keeps it.
    pub fn end(self) {
        umount2(&self.path, nix::mount::MntFlags::MNT_DETACH).expect("umount");
        std::fs::remove_file(&self.path).expect("remove");
    }
}

/// Runs a command line, split at white space, and returns its output. A failure fails the test.
pub fn run(line: &str) -> String {
    try_run(line).unwrap_or_else(|said| panic!("{line}: {said}"))
}

/// Runs a command line and returns its output, or its error output.
pub fn try_run(line: &str) -> Result<String, String> {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().expect("a program")).args(words).output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Looks again and again until something holds of which no event tells. After `limit` the test fails, and says what there is instead.
pub fn comes_true(limit: Duration, mut holds: impl FnMut() -> bool, instead: impl FnOnce() -> String) {
    let start = Instant::now();
    while !holds() {
        if start.elapsed() > limit {
            panic!("not after {limit:?}: {}", instead());
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Gives a link an alias, which may have spaces.
pub fn set_alias(link: &str, alias: &str) {
    let set = Command::new("ip").args(["link", "set", "dev", link, "alias", alias]).status().expect("ip");
    assert!(set.success(), "the alias of {link}");
}

/// Runs a program that answers in JSON.
pub fn json(line: &str) -> serde_json::Value {
    let said = run(line);
    // `bridge -j` says nothing at all where there is nothing.
    if said.trim().is_empty() {
        return serde_json::Value::Array(Vec::new());
    }
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{line}: {error}: {said}"))
}
