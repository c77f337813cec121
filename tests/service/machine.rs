//! A Debian with systemd as its first process, in a container with a network of its own, thrown away after the test.
//!
//! The root is made once by debootstrap (`root`, beside this file) and kept outside the repository (`$XDG_CACHE_HOME`, or `/var/cache`,
//! below `nicd-tests`); each machine writes to a layer of its own above it. Machines boot one at a time, by a lock beside the
//! root: they share the host's control groups.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::daemon::{Client, PATIENCE};
use crate::debian::{Release, cache};
use crate::netns::{in_netns, is_root, run};
use crate::package::{INSTALL, packages};

/// A running machine; it ends when this is dropped.
#[derive(Debug)]
pub struct Machine {
    nspawn: Child,
    first: Pid,
    _turn: File,
}

/// What a test wants of its machine.
#[derive(Debug, Default, Clone, Copy)]
pub struct Wishes {
    /// `/sys` can be written to, so that udev runs.
    pub udev: bool,
    /// What it runs.
    pub release: Release,
}

/// Runs `test` on a machine that has just booted. Without root it says that the test is left to the full command.
pub fn on_a_machine(wishes: Wishes, test: impl FnOnce(Machine) + Send + 'static) {
    if is_root() {
        packages();
        // While there is a network to fetch from.
        let (root, turn) = (root(wishes.release), turn());
        in_netns(move || test(Machine::boot(&root, turn, wishes)));
    }
}

/// A release's root, made when it is not there yet.
pub fn root(release: Release) -> PathBuf {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/service/root");
    let output = Command::new(script).arg(release.name()).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{script} {}", release.name());
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end())
}

/// Waits for the turn to boot a machine.
pub fn turn() -> File {
    fs::create_dir_all(cache()).unwrap();
    let turn = File::create(cache().join("lock")).unwrap();
    turn.lock().unwrap();
    turn
}

/// Lays a layer of the test's own above the root.
pub fn layered(root: &Path) -> PathBuf {
    let [upper, work, merged] = ["upper", "work", "root"].map(|name| Path::new("/run/machine").join(name));
    [&upper, &work, &merged].iter().for_each(|folder| fs::create_dir_all(folder).unwrap());
    let layers = format!("lowerdir={},upperdir={},workdir={}", root.display(), upper.display(), work.display());
    run(&format!("mount -t overlay -o {layers} overlay {}", merged.display()));
    // Nobody logs in. Started at its own time after the boot, it would leave files of its own.
    symlink("/dev/null", merged.join("etc/systemd/system/console-getty.service")).unwrap();
    merged
}

impl Machine {
    fn boot(base: &Path, turn: File, wishes: Wishes) -> Self {
        let root = layered(base);
        let notify = UnixDatagram::bind("/run/machine/notify").unwrap();
        notify.set_read_timeout(Some(PATIENCE * 3)).unwrap();
        let nspawn = command(&root, wishes).spawn().expect("systemd-nspawn");
        Self { nspawn, first: booted(&notify), _turn: turn }
    }

    /// Runs a script inside, and gives back what it says; a failure is a failed test.
    pub fn run(&self, script: &str) -> String {
        self.try_run(script).unwrap_or_else(|said| panic!("{script}: {said}\n{}", self.log()))
    }

    /// Runs a script inside, and gives back what it says, or all it said when it fails.
    pub fn try_run(&self, script: &str) -> Result<String, String> {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.first.to_string(), "--all", "--", "sh", "-ec", script]).env_clear();
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout).trim_end().to_owned()),
            false => Err(text(&output.stdout) + &text(&output.stderr)),
        }
    }

    /// Waits until a command inside succeeds.
    pub fn comes_true(&self, command: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.try_run(&format!("timeout 2 sh -ec \"{command}\"")) {
                Ok(said) => return said,
                Err(said) => assert!(Instant::now() < deadline, "{command}: {said}\n{}", self.units()),
            }
        }
    }

    /// What all units have logged.
    pub fn units(&self) -> String {
        self.try_run("journalctl --no-pager --output=cat --lines=40 --unit='nicd*'").unwrap_or_else(|said| said)
    }

    /// One of systemd's properties of a unit.
    pub fn property(&self, unit: &str, name: &str) -> String {
        self.run(&format!("systemctl show --property={name} --value {unit}"))
    }

    /// A place inside, as seen from outside.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.first))
    }

    /// A client on the daemon's socket.
    pub fn client(&self) -> Client {
        Client::new(self.path("/run/nicd/nicd.sock"))
    }

    /// What nicd has logged.
    pub fn log(&self) -> String {
        self.try_run("journalctl --no-pager --output=cat --unit=nicd --unit=nicd-netns --lines=60").unwrap_or_else(|said| said)
    }

    /// Installs the package.
    pub fn install(&self) {
        self.run(INSTALL);
    }
}

/// Waits until the machine says that it has booted; its first process.
fn booted(notify: &UnixDatagram) -> Pid {
    let (mut first, mut said) = (None, [0; 4096]);
    loop {
        let length = notify.recv(&mut said).unwrap_or_else(|error| panic!("the machine does not boot ({error}): {}", console()));
        for line in String::from_utf8_lossy(&said[..length]).lines() {
            if let Some(pid) = line.strip_prefix("X_NSPAWN_LEADER_PID=") {
                first = Some(Pid::from_raw(pid.parse().unwrap()));
            }
            if let ("READY=1", Some(first)) = (line, first) {
                return first;
            }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // With the first process all others of the machine end, and then nspawn.
        let _ = kill(self.first, Signal::SIGKILL);
        let _ = self.nspawn.wait();
        remove_groups();
    }
}

fn command(root: &Path, wishes: Wishes) -> Command {
    // A node of its own: the mode of the host's stays as it is.
    run("mknod /run/machine/tun c 10 200");
    fs::set_permissions("/run/machine/tun", fs::Permissions::from_mode(0o666)).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "systemd-nspawn", "--quiet", "--directory"]).arg(root);
    command.args(["--private-network", "--register=no", "--keep-unit", "--capability=CAP_NET_ADMIN", "--notify-ready=yes"]);
    command.arg("--machine=nicd-test").arg("--bind=/run/machine/tun:/dev/net/tun");
    command.arg(format!("--bind-ro={}:/nicd", packages().display())).arg("--boot");
    command.env("NOTIFY_SOCKET", "/run/machine/notify");
    command.env("SYSTEMD_NSPAWN_API_VFS_WRITABLE", if wishes.udev { "yes" } else { "no" });
    let log = File::create("/run/machine/console").unwrap();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    command
}

fn console() -> String {
    fs::read_to_string("/run/machine/console").unwrap_or_default()
}

/// nspawn leaves the control groups it has made inside this process's.
fn remove_groups() {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(hierarchy), Some(path)) = (parts.next(), parts.next()) else { continue };
        let mounts = match hierarchy {
            "name=systemd" => &["/sys/fs/cgroup/systemd"][..],
            "" => &["/sys/fs/cgroup/unified", "/sys/fs/cgroup"],
            _ => continue,
        };
        for (mount, group) in mounts.iter().flat_map(|mount| ["payload", "supervisor"].map(|group| (mount, group))) {
            remove_group(&PathBuf::from(format!("{mount}{path}")).join(group));
        }
    }
}

fn remove_group(group: &Path) {
    let below = fs::read_dir(group).into_iter().flatten().flatten().map(|entry| entry.path());
    below.filter(|path| path.is_dir()).for_each(|path| remove_group(&path));
    let _ = fs::remove_dir(group);
}
