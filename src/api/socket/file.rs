//! One socket's file: made in a private directory, renamed to its path, and removed at the end if it is still ours.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use super::*;

/// A socket's file.
#[derive(Debug)]
pub(super) struct SocketFile {
    pub door: SocketKind,
    pub path: PathBuf,
    /// Device and inode; none of a file that was not there any more.
    identity: Option<(u64, u64)>,
    maker: Maker,
}

/// Who makes a socket's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Maker {
    /// nicd, with this mode and group.
    Us(u32, Option<u32>),
    /// systemd.
    Systemd,
}

/// What is at the path before.
enum Existing {
    None,
    /// A socket on which no process listens, with its device and inode.
    Stale(u64, u64),
}

impl SocketFile {
    /// Makes a listening socket at `path`.
    pub fn bind(door: SocketKind, path: &Path, mode: u32, group: Option<u32>) -> Result<(UnixListener, Self), SocketError> {
        let (listener, identity) = make(path, mode, group)?;
        let (path, identity) = (path.to_owned(), Some(identity));
        Ok((listener, Self { door, path, identity, maker: Maker::Us(mode, group) }))
    }

    /// Of a socket that systemd has made.
    pub fn passed(door: SocketKind, path: PathBuf) -> Self {
        Self { door, identity: identity(&path), path, maker: Maker::Systemd }
    }

    /// Whether the path leads to the socket.
    pub fn is_reachable(&self) -> bool {
        self.identity.is_some() && identity(&self.path) == self.identity
    }

    /// Whether there was a file.
    pub fn existed(&self) -> bool {
        self.identity.is_some()
    }

    /// Whether systemd makes it.
    pub fn is_systemds(&self) -> bool {
        self.maker == Maker::Systemd
    }

    /// Makes it anew; none for one that systemd makes.
    pub fn renew(&mut self) -> Result<Option<UnixListener>, SocketError> {
        let Maker::Us(mode, group) = self.maker else { return Ok(None) };
        prepare(self.path.parent().unwrap_or(Path::new("/")))?;
        let (listener, identity) = make(&self.path, mode, group)?;
        self.identity = Some(identity);
        Ok(Some(listener))
    }
}

/// What is at a path now.
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// Makes a listening socket at `path`, with this mode and group from the first moment on. Returns also its device and inode.
fn make(path: &Path, mode: u32, group: Option<u32>) -> Result<(UnixListener, (u64, u64)), SocketError> {
    let before = examine(path)?;
    let aside = PrivateDirectory::new(path)?;
    let made = aside.socket();
    let listener = UnixListener::bind(&made).map_err(SocketError::file("bind", &made))?;
    fs::set_permissions(&made, Permissions::from_mode(mode)).map_err(SocketError::file("chmod", &made))?;
    if group.is_some() {
        chown(&made, None, group).map_err(SocketError::file("chgrp", &made))?;
    }
    let found = fs::symlink_metadata(&made).map_err(SocketError::file("look at", &made))?;
    install(&made, path, before)?;
    Ok((listener, (found.dev(), found.ino())))
}

/// Finds out what is there, without following or changing it.
fn examine(path: &Path) -> Result<Existing, SocketError> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Existing::None),
        Err(error) => return Err(SocketError::file("look at", path)(error)),
    };
    if !found.file_type().is_socket() {
        return Err(SocketError::InTheWay { path: path.to_owned(), what: what(found.file_type()) });
    }
    match probe(path) {
        Err(Errno::ECONNREFUSED) => Ok(Existing::Stale(found.dev(), found.ino())),
        // It went away by itself.
        Err(Errno::ENOENT) => Ok(Existing::None),
        // A full backlog means that a process listens.
        Ok(()) | Err(Errno::EAGAIN) => Err(SocketError::Live(path.to_owned())),
        Err(Errno::EPROTOTYPE) => Err(SocketError::InTheWay { path: path.to_owned(), what: what(found.file_type()) }),
        Err(errno) => Err(SocketError::file("connect to", path)(errno.into())),
    }
}

/// Connects without waiting: a daemon that hangs must not hang us.
fn probe(path: &Path) -> nix::Result<()> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let probe: OwnedFd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(probe.as_raw_fd(), &UnixAddr::new(path)?)
}

/// Renames the finished socket to its path, replacing nothing but the stale socket that was examined.
fn install(made: &Path, path: &Path, before: Existing) -> Result<(), SocketError> {
    let rename = |flags| renameat2(AT_FDCWD, made, AT_FDCWD, path, flags);
    let failed = |errno: Errno| SocketError::file("move the new socket to", path)(errno.into());
    let taken = || SocketError::InTheWay { path: path.to_owned(), what: "something that appeared just now" };
    let Existing::Stale(device, inode) = before else {
        return match rename(RenameFlags::RENAME_NOREPLACE) {
            Err(Errno::EEXIST) => Err(taken()),
            other => other.map_err(failed),
        };
    };
    // After the exchange it is known what was there at that moment.
    rename(RenameFlags::RENAME_EXCHANGE).map_err(failed)?;
    let out = fs::symlink_metadata(made).map_err(SocketError::file("look at", made))?;
    if (out.dev(), out.ino()) == (device, inode) {
        return Ok(());
    }
    rename(RenameFlags::RENAME_EXCHANGE).map_err(failed)?;
    Err(taken())
}

/// A private directory beside the path. Dropping it removes it with the socket in it: the new one, or the stale one that it
/// was exchanged for.
struct PrivateDirectory(PathBuf);

impl PrivateDirectory {
    /// Its name is short, so that the socket in it can be bound wherever the final path can (`sun_path`).
    fn new(path: &Path) -> Result<Self, SocketError> {
        let mut tries = 0;
        loop {
            let directory = path.with_file_name(format!(".n{:06x}", rand::random::<u32>() >> 8));
            match DirBuilder::new().mode(0o700).create(&directory) {
                Ok(()) => return Ok(Self(directory)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tries < 16 => tries += 1,
                Err(error) => return Err(SocketError::file("create", &directory)(error)),
            }
        }
    }

    fn socket(&self) -> PathBuf {
        self.0.join("s")
    }
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        // Only a socket can be there; anything else stays, with its directory.
        let socket = self.socket();
        if fs::symlink_metadata(&socket).is_ok_and(|found| found.file_type().is_socket()) {
            let _ = fs::remove_file(&socket);
        }
        if let Err(error) = fs::remove_dir(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "a temporary directory was left behind");
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_systemds() {
            return;
        }
        if !self.is_reachable() {
            tracing::warn!(path = %self.path.display(), "the socket's file is not ours any more; it was left alone");
        } else if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the socket's file cannot be removed");
        }
    }
}
