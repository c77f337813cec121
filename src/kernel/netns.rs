//! Network namespaces: which one a path names, and a netlink socket inside it.
//!
//! A namespace is entered on a thread of its own that ends at once, so that no other thread is ever anywhere but in the
//! host's. What is opened here keeps the namespace alive and is dropped with the execution that asked for it.

use std::collections::BTreeSet;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::Mode;
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};
use uuid::Uuid;

use super::answer::{Failure, Part};
use super::socket::{LIMIT, Netlink};
use super::{NetnsError, Trouble, tap};
use crate::model::NetnsPin;
use crate::points;

/// Threads that may be on their way into a namespace at once. One that hangs, on a path of a dead file server, stays.
const ENTERING: usize = 8;

static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// An entered namespace.
#[derive(Debug)]
pub(super) struct Inside {
    /// A socket inside.
    pub(super) netlink: Netlink,
    /// The namespace, to give a device into.
    pub(super) fd: OwnedFd,
    cookie: u64,
}

/// The host's own namespace, and how a guest's is told from it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Home {
    boot_id: Uuid,
    cookie: u64,
}

impl Home {
    /// Reads which boot this is, and which namespace `netlink` is in.
    pub(super) fn of(netlink: &Netlink) -> Result<Self, Failure> {
        let path = "/proc/sys/kernel/random/boot_id";
        let boot_id = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
        let boot_id = boot_id.ok_or_else(|| Failure::new(Trouble::Other, Part::Open, format!("{path} cannot be read")))?;
        let cookie = tap::netns_cookie(netlink.socket()).map_err(|errno| Failure::system(Part::Open, errno))?;
        Ok(Self { boot_id, cookie })
    }

    /// The namespace that `path` names, entered.
    pub(super) fn enter(self, path: &Path) -> Result<Inside, NetnsError> {
        let inside = enter(path)?;
        match inside.cookie == self.cookie {
            true => Err(NetnsError::Own(path.display().to_string())),
            false => Ok(inside),
        }
    }

    /// The same, which must be the pinned one.
    pub(super) fn enter_pinned(self, path: &Path, pin: NetnsPin) -> Result<Inside, Failure> {
        let wrong = |said: String| Failure::new(Trouble::Namespace, Part::Namespace, said);
        let inside = self.enter(path).map_err(|error| wrong(error.to_string()))?;
        match self.pin(&inside) == pin {
            true => Ok(inside),
            false => Err(wrong(format!("{} is another namespace than the one the server was given", path.display()))),
        }
    }

    /// Whether the pinned namespace is one of those that a process is in or that are mounted somewhere.
    pub(super) fn lives(self, pin: NetnsPin) -> bool {
        let mut seen = BTreeSet::new();
        let unseen = |path: &PathBuf| std::fs::metadata(path).is_ok_and(|found| seen.insert((found.dev(), found.ino())));
        let mut candidates = processes().chain(mounts()).filter(unseen);
        pin.boot_id == self.boot_id && candidates.any(|path| enter(&path).is_ok_and(|inside| inside.cookie == pin.cookie))
    }

    /// What tells an entered namespace from all others.
    pub(super) fn pin(self, inside: &Inside) -> NetnsPin {
        NetnsPin { boot_id: self.boot_id, cookie: inside.cookie }
    }
}

/// The namespaces processes are in.
fn processes() -> impl Iterator<Item = PathBuf> {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbered = all.filter(|entry| entry.file_name().as_encoded_bytes().first().is_some_and(u8::is_ascii_digit));
    numbered.map(|entry| entry.path().join("ns/net"))
}

/// The namespaces that are mounted where this process sees them (proc_pid_mountinfo(5)).
fn mounts() -> impl Iterator<Item = PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounted: Vec<PathBuf> = table
        .lines()
        .filter(|line| line.contains(" - nsfs "))
        .filter_map(|line| line.split(' ').nth(4).map(PathBuf::from))
        .collect();
    mounted.into_iter()
}

/// Counts a thread under way for as long as it is.
struct Ticket;

impl Ticket {
    fn take() -> Option<Self> {
        let more = |now: usize| (now < ENTERING).then_some(now + 1);
        UNDER_WAY.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Self)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
    }
}

fn enter(path: &Path) -> Result<Inside, NetnsError> {
    let refused = |said: &str| NetnsError::Refused { path: path.display().to_string(), said: said.to_owned() };
    points::call(("netns", "enter"), || enter_on_a_thread(path), |errno| refused(errno.desc()))
}

fn enter_on_a_thread(path: &Path) -> Result<Inside, NetnsError> {
    let refused = |said: &str| NetnsError::Refused { path: path.display().to_string(), said: said.to_owned() };
    let ticket = Ticket::take().ok_or_else(|| refused("too many other paths are being waited for"))?;
    let (sender, entered) = mpsc::sync_channel(1);
    let inside_path = PathBuf::from(path);
    let work = move || {
        let _ticket = ticket;
        // A caller that has given up no longer listens; what was opened is then dropped.
        let _ = sender.send(enter_here(&inside_path));
    };
    let thread = thread::Builder::new().name("nicd-netns".into()).spawn(points::carry(work));
    match thread {
        Ok(_detached) => entered.recv_timeout(LIMIT).unwrap_or_else(|_| Err(refused("it did not open in time"))),
        Err(error) => Err(refused(&error.to_string())),
    }
}

/// Moves this thread, which ends soon, into the namespace.
fn enter_here(path: &Path) -> Result<Inside, NetnsError> {
    let shown = || path.display().to_string();
    let refused = |said: String| NetnsError::Refused { path: shown(), said };
    // O_PATH opens nothing yet: no FIFO blocks, no device wakes up.
    let place = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).map_err(|errno| match errno {
        Errno::ENOENT | Errno::ENOTDIR | Errno::ENAMETOOLONG | Errno::ELOOP => NetnsError::Missing(shown()),
        errno => refused(errno.desc().to_owned()),
    })?;
    let kind = fstatfs(&place).map_err(|errno| refused(errno.desc().to_owned()))?;
    if kind.filesystem_type() != NSFS_MAGIC {
        return Err(NetnsError::NotNetns(shown()));
    }
    // Through /proc, so that it is the object just checked whatever the path names by now.
    let checked = format!("/proc/self/fd/{}", place.as_raw_fd());
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let fd = open(checked.as_str(), flags, Mode::empty()).map_err(|errno| refused(errno.desc().to_owned()))?;
    setns(&fd, CloneFlags::CLONE_NEWNET).map_err(|errno| match errno {
        Errno::EINVAL => NetnsError::NotNetns(shown()),
        Errno::EPERM => refused("entering a namespace needs CAP_SYS_ADMIN".into()),
        errno => refused(errno.desc().to_owned()),
    })?;
    let netlink = Netlink::open().map_err(|failure| refused(failure.said))?;
    let cookie = tap::netns_cookie(netlink.socket()).map_err(|errno| refused(errno.desc().to_owned()))?;
    Ok(Inside { netlink, fd, cookie })
}
