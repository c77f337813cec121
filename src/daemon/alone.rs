//! One daemon in a network namespace: two would take each other's work apart, whatever their state directories and sockets.
//!
//! The hold is an flock on the namespace's own file, which the kernel keeps for each network namespace and shows to every
//! mount namespace alike, and which ends with the process. Anybody in the namespace may take it without any right, so who
//! has it is looked up: one that is neither root's nor this user's is no nicd, and does not keep this one from running.

use std::fs::{File, Metadata, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::sys::stat::{major, minor};
use nix::unistd::Pid;

/// The namespace of the thread that asks.
const NAMESPACE: &str = "/proc/thread-self/ns/net";

/// How often a lock is tried that somebody lets go meanwhile.
const TRIES: usize = 8;

/// The hold on a network namespace, until it is dropped.
#[derive(Debug)]
pub struct Alone {
    _hold: Option<File>,
}

/// Another nicd runs here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("another nicd runs in this network namespace: {0}; stop it, or start this one in a namespace of its own")]
pub struct NotAlone(String);

impl Alone {
    /// Takes the hold.
    ///
    /// # Errors
    /// A process that may be a nicd has it.
    pub fn take() -> Result<Self, NotAlone> {
        let namespace = match File::open(NAMESPACE) {
            Ok(namespace) => namespace,
            Err(error) => return Ok(Self::without(&error)),
        };
        let mut tries = 0..TRIES;
        loop {
            match namespace.try_lock() {
                Ok(()) => return Ok(Self { _hold: Some(namespace) }),
                Err(TryLockError::Error(error)) => return Ok(Self::without(&error)),
                Err(TryLockError::WouldBlock) => {}
            }
            match holder(&namespace) {
                // It let go between the two looks.
                None if tries.next().is_some() => {}
                None => return Err(NotAlone("a process that is not seen from here has the lock on it".to_owned())),
                Some((pid, Some(uid))) if uid != 0 && uid != nix::unistd::geteuid().as_raw() => {
                    tracing::warn!(%pid, uid, "a process that is no nicd has the lock on this network namespace; it is ignored");
                    return Ok(Self { _hold: None });
                }
                // A nicd has its lock while it lives, and no child of it has the file: of a process that is gone only a
                // stranger's lock stays.
                Some((pid, _)) if kill(pid, None) == Err(Errno::ESRCH) => {
                    if tries.next().is_none() {
                        tracing::warn!(%pid, "a process that is gone has left a lock on this network namespace; it is ignored");
                        return Ok(Self { _hold: None });
                    }
                }
                Some((pid, _)) => return Err(NotAlone(format!("pid {pid} has the lock on it"))),
            }
        }
    }

    fn without(error: &io::Error) -> Self {
        tracing::warn!(%error, "{NAMESPACE} cannot be locked; whether another nicd runs in this network namespace cannot be told");
        Self { _hold: None }
    }
}

/// Who has the lock, and whose process that is, as far as either is shown.
fn holder(namespace: &File) -> Option<(Pid, Option<u32>)> {
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let pid = locked_by(&locks, &shown(&namespace.metadata().ok()?))?;
    Some((pid, std::fs::metadata(format!("/proc/{pid}")).ok().map(|process| process.uid())))
}

/// A file as `/proc/locks` names it.
fn shown(file: &Metadata) -> String {
    format!("{:02x}:{:02x}:{}", major(file.dev()), minor(file.dev()), file.ino())
}

/// Who has the lock on a file, as `/proc/locks` has it: `1: FLOCK  ADVISORY  WRITE 1384 00:04:4026531833 0 EOF`.
fn locked_by(locks: &str, file: &str) -> Option<Pid> {
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, _, pid, of, ..] = fields[..] else { return None };
        (of == file).then(|| pid.parse().ok().map(Pid::from_raw))?
    };
    locks.lines().find_map(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_the_lock_is_read_off() {
        let locks = "1: FLOCK  ADVISORY  WRITE 1384 00:04:4026531833 0 EOF\n\
                     1: -> FLOCK  ADVISORY  WRITE 99 00:04:4026531833 0 EOF\n\
                     2: POSIX  ADVISORY  READ 1447 00:2a:7 128 128\n3: nonsense\n";
        assert_eq!(locked_by(locks, "00:04:4026531833"), Some(Pid::from_raw(1384)));
        assert_eq!(locked_by(locks, "00:2a:7"), None);
        assert_eq!(locked_by("", "00:04:7"), None);
    }
}
