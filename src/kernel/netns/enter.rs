//! Opens a netlink socket inside a namespace: the only operation that needs CAP_SYS_ADMIN.
//!
//! Each namespace is entered on a separate thread that ends afterwards. So every other thread stays in the host's namespace, and a
//! path that blocks delays its caller only until a time limit.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::Mode;
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};
use tokio::sync::oneshot;

use super::super::NetnsError;
use super::super::socket::{Netlink, netfilter};
use super::super::tap;
use super::path::follow;
use super::protocol::Asked;
use super::{Entered, Fresh, Named};
use crate::failpoints;
use crate::sys::socket;

/// How long a search for a cookie may take.
pub(super) const OPENING: Duration = Duration::from_secs(5);

/// The time limit of opening a path. A mounted namespace opens in microseconds, on a host whose processors are all busy in some hundred
/// milliseconds; a path on a dead file server never. One thread does
/// the work of all guests, so each blocked path delays them once by this time.
const PATIENCE: Duration = Duration::from_millis(500);

/// The same while another path blocks, so that the total delay of other requests stays small.
const LITTLE_PATIENCE: Duration = Duration::from_millis(50);

/// The maximum number of threads that enter namespaces at the same time; each blocked path keeps one.
const ENTERING: usize = 256;

/// The namespaces that are being entered, with the time limit of each.
static UNDER_WAY: Mutex<Vec<(Named, Instant)>> = Mutex::new(Vec::new());

/// A thread's entry in [`UNDER_WAY`].
struct Ticket((Named, Instant));

impl Ticket {
    /// Registers a thread, and returns its time limit. `None` while an earlier attempt for the same namespace is still blocked, or when
    /// too many threads are.
    fn take(named: &Named) -> Option<(Self, Duration)> {
        let now = Instant::now();
        let mut under_way = Self::all();
        if under_way.iter().any(|(other, until)| other == named && *until <= now) || under_way.len() >= ENTERING {
            return None;
        }
        let patience = match named {
            Named::Cookie(_) => OPENING,
            Named::Path(_) if under_way.iter().any(|(_, until)| *until <= now) => LITTLE_PATIENCE,
            Named::Path(_) => PATIENCE,
        };
        let entry = (named.clone(), now + patience);
        under_way.push(entry.clone());
        Some((Self(entry), patience))
    }

    fn all() -> MutexGuard<'static, Vec<(Named, Instant)>> {
        // Each change is one insertion or removal, whole in itself.
        UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut under_way = Self::all();
        if let Some(place) = under_way.iter().position(|entry| *entry == self.0) {
            under_way.swap_remove(place);
        }
    }
}

/// Checks on a separate thread whether the file system of a path answers; opens nothing. `None` while an earlier check of the path,
/// or too many others, have no answer.
pub(in crate::kernel) fn probe_path(path: &Path) -> Option<oneshot::Receiver<()>> {
    let (ticket, _) = Ticket::take(&Named::Path(path.to_owned()))?;
    let (sender, answered) = oneshot::channel();
    let path = path.to_owned();
    let look = move || {
        let _ = std::fs::metadata(path);
        drop(ticket);
        let _ = sender.send(());
    };
    // If no thread can be started, the sender is dropped, and entering the namespace reports the error.
    let _ = thread::Builder::new().name("nicd-netns".into()).spawn(failpoints::inherit(look));
    Some(answered)
}

/// A netlink socket inside the namespace.
///
/// # Errors
/// There is no such namespace, or it cannot be entered.
pub(super) fn socket_inside(named: &Named) -> Result<Entered, NetnsError> {
    let hanging = || NetnsError::Hanging(named.shown().display().to_string());
    let (ticket, patience) = Ticket::take(named).ok_or_else(hanging)?;
    let (sender, entered) = mpsc::sync_channel(1);
    let wanted = named.clone();
    let work = move || {
        let entered = match &wanted {
            Named::Path(path) => step_inside(path),
            Named::Cookie(cookie) => search(*cookie, &wanted.shown()),
        };
        drop(ticket);
        // If the caller has given up, the opened socket is dropped.
        let _ = sender.send(entered);
    };
    let thread = thread::Builder::new().name("nicd-netns".into()).spawn(failpoints::inherit(work));
    match thread {
        Ok(_detached) => entered.recv_timeout(patience).unwrap_or_else(|_| Err(hanging())),
        Err(error) => Err(refused(&named.shown(), &error.to_string())),
    }
}

/// Makes a namespace that ends with what is opened in it here.
///
/// # Errors
/// It cannot be made.
pub(super) fn make() -> Result<Fresh, NetnsError> {
    let shown = Asked::Fresh.shown();
    let inside = {
        let shown = shown.clone();
        move || {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| NetnsError::of(&shown, errno))?;
            let netlink = Netlink::open().map_err(|failure| refused(&shown, &failure.said))?;
            let netfilter = netfilter().map_err(|error| refused(&shown, &error.to_string()))?;
            let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
            let said = |errno: Errno| refused(&shown, &format!("{}: {} ({errno:?})", tap::NODE, errno.desc()));
            let tap = || open(tap::NODE, flags, Mode::empty()).map_err(said);
            Ok(Fresh { netlink, netfilter, taps: [tap()?, tap()?, tap()?] })
        }
    };
    let thread = thread::Builder::new().name("nicd-netns".into()).spawn(failpoints::inherit(inside));
    let thread = thread.map_err(|error| refused(&shown, &error.to_string()))?;
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Moves the calling thread, which ends afterwards, into the namespace, and opens the socket.
fn step_inside(path: &Path) -> Result<Entered, NetnsError> {
    let not_netns = || NetnsError::NotNetns(path.display().to_string());
    let refused = |errno: Errno| NetnsError::of(path, errno);
    let place = follow(path).map_err(|errno| match errno {
        Errno::ENOENT | Errno::ENOTDIR | Errno::ENAMETOOLONG | Errno::ELOOP => NetnsError::Missing(path.display().to_string()),
        errno => refused(errno),
    })?;
    if fstatfs(&place.fd).map_err(refused)?.filesystem_type() != NSFS_MAGIC {
        return Err(not_netns());
    }
    setns(reopened(&place.fd).map_err(refused)?, CloneFlags::CLONE_NEWNET).map_err(|errno| match errno {
        Errno::EINVAL => not_netns(),
        Errno::EPERM => self::refused(path, "entering a namespace needs CAP_SYS_ADMIN"),
        errno => refused(errno),
    })?;
    if place.by_us {
        return Err(NetnsError::OwnProcess(path.display().to_string()));
    }
    let netlink = Netlink::open().map_err(|failure| match failure.errno {
        Some(errno) => refused(errno),
        None => self::refused(path, &failure.said),
    })?;
    Ok(Entered { netlink, by_process: place.by_process })
}

/// Opens the checked object again for reading. Through /proc/self/fd, so that it is the same object even if its path was replaced.
fn reopened(place: &OwnedFd) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    open(format!("/proc/self/fd/{}", place.as_raw_fd()).as_str(), flags, Mode::empty())
}

/// Finds the namespace with this cookie among the namespaces of all processes and mounts. A missing descriptor is an error, because
/// the skipped namespace may be the one.
fn search(cookie: u64, shown: &Path) -> Result<Entered, NetnsError> {
    let unlisted = |error: io::Error| match error.raw_os_error() {
        Some(errno) => NetnsError::of(shown, Errno::from_raw(errno)),
        None => refused(shown, &error.to_string()),
    };
    let mut seen = BTreeSet::new();
    let mut unseen = |path: &Path| std::fs::metadata(path).is_ok_and(|found| seen.insert((found.dev(), found.ino())));
    let paths = processes().and_then(|processes| Ok([processes, mounts()?].concat())).map_err(unlisted)?;
    for path in paths.iter().filter(|path| unseen(path)) {
        match step_inside(path) {
            Ok(entered) if socket::netns_cookie(entered.netlink.socket()) == Ok(cookie) => return Ok(entered),
            Err(error @ NetnsError::NoDescriptors { .. }) => return Err(error),
            _ => {}
        }
    }
    Err(NetnsError::Missing(shown.display().to_string()))
}

/// The namespaces processes are in.
fn processes() -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().first().is_some_and(u8::is_ascii_digit) {
            found.push(entry.path().join("ns/net"));
        }
    }
    Ok(found)
}

/// The namespaces that are mounted somewhere (proc_pid_mountinfo(5)).
fn mounts() -> io::Result<Vec<PathBuf>> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let mounted = table.lines().filter(|line| line.contains(" - nsfs "));
    Ok(mounted.filter_map(|line| line.split(' ').nth(4).map(unescaped)).collect())
}

/// A path of the table, in which space, tab, line feed and backslash are octal (`mangle`, fs/seq_file.c).
fn unescaped(field: &str) -> PathBuf {
    let plain = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    plain.iter().fold(field.to_owned(), |path, (octal, character)| path.replace(octal, character)).into()
}

impl Named {
    /// For messages.
    pub(super) fn shown(&self) -> PathBuf {
        match self {
            Self::Path(path) => path.clone(),
            Self::Cookie(cookie) => format!("the network namespace with cookie {cookie}").into(),
        }
    }
}

/// A namespace that cannot be entered.
pub(super) fn refused(path: &Path, said: &str) -> NetnsError {
    NetnsError::Refused { path: path.display().to_string(), said: said.to_owned() }
}
