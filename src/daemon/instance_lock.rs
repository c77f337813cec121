//! Allows one daemon per network namespace: two daemons would undo each other's changes, even with different state directories.
//!
//! The lock is an flock on the namespace's file in procfs. The kernel has one such file per network namespace, the same in every
//! mount namespace, and releases the lock when the process ends. Any user in the namespace may take the lock, so nicd looks up
//! the holder: a process of neither root nor nicd's own user cannot be a nicd, and its lock is ignored.

use std::fs::{File, Metadata, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::sys::stat::{major, minor};
use nix::unistd::Pid;

/// The network namespace of the calling thread.
const NAMESPACE: &str = "/proc/thread-self/ns/net";

/// How often to retry when the holder releases the lock in between.
const TRIES: usize = 8;

/// The lock of a network namespace; released when dropped.
#[derive(Debug)]
pub struct InstanceLock {
    _hold: Option<File>,
}

/// Another nicd runs in the network namespace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("another nicd runs in this network namespace: {0}; stop it, or start this one in a namespace of its own")]
pub struct AlreadyRunning(String);

impl InstanceLock {
    /// Takes the lock.
    ///
    /// # Errors
    /// A process that may be a nicd holds it.
    pub fn take() -> Result<Self, AlreadyRunning> {
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
                // The holder released the lock in between.
                None if tries.next().is_some() => {}
                None => return Err(AlreadyRunning("a process in another pid namespace holds the lock".to_owned())),
                Some((pid, Some(uid))) if uid != 0 && uid != nix::unistd::geteuid().as_raw() => {
                    tracing::warn!(%pid, uid, "a process of another user holds the lock of this network namespace; it is ignored");
                    return Ok(Self { _hold: None });
                }
                // A nicd holds its lock until it ends and its children do not inherit the file. A lock whose process has ended
                // therefore belongs to another program, which passed the file to a child.
                Some((pid, _)) if kill(pid, None) == Err(Errno::ESRCH) => {
                    if tries.next().is_none() {
                        tracing::warn!(%pid, "a process that has ended left a lock on this network namespace; it is ignored");
                        return Ok(Self { _hold: None });
                    }
                }
                Some((pid, _)) => return Err(AlreadyRunning(format!("pid {pid} holds the lock"))),
            }
        }
    }

    fn without(error: &io::Error) -> Self {
        tracing::warn!(%error, "{NAMESPACE} cannot be locked, so a second nicd in this network namespace would not be detected");
        Self { _hold: None }
    }
}

/// The pid and the uid of the process that holds the lock, if known.
fn holder(namespace: &File) -> Option<(Pid, Option<u32>)> {
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let pid = locked_by(&locks, &shown(&namespace.metadata().ok()?))?;
    Some((pid, std::fs::metadata(format!("/proc/{pid}")).ok().map(|process| process.uid())))
}

/// A file as `/proc/locks` names it.
fn shown(file: &Metadata) -> String {
    format!("{:02x}:{:02x}:{}", major(file.dev()), minor(file.dev()), file.ino())
}

/// The pid that holds an flock on a file, from `/proc/locks`: `1: FLOCK  ADVISORY  WRITE 1384 00:04:4026531833 0 EOF`.
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
    fn the_holder_is_parsed() {
        let locks = "1: FLOCK  ADVISORY  WRITE 1384 00:04:4026531833 0 EOF\n\
                     1: -> FLOCK  ADVISORY  WRITE 99 00:04:4026531833 0 EOF\n\
                     2: POSIX  ADVISORY  READ 1447 00:2a:7 128 128\n3: nonsense\n";
        assert_eq!(locked_by(locks, "00:04:4026531833"), Some(Pid::from_raw(1384)));
        assert_eq!(locked_by(locks, "00:2a:7"), None);
        assert_eq!(locked_by("", "00:04:7"), None);
    }
}
