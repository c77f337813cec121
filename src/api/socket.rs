//! Setting up the two sockets, and removing their files at the end.
//!
//! A socket is made in a private directory beside its path, gets its group and mode there, and is then renamed to its path:
//! at no moment can a client connect that may not. A lock on a file beside the socket keeps a second daemon out. That file is
//! never removed, as a daemon could then lock a new one. At the path only a socket on which no process listens is replaced;
//! anything else is left alone and named in the error.
//!
//! Sockets that systemd passed (sd_listen_fds(3)) are systemd's: their files are neither changed nor removed.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use listenfd::ListenFd;
use nix::sys::socket::{getsockopt, sockopt};

use crate::access::{AllowedPeers, SocketKind};
use crate::config::SocketSettings;
use crate::exit::{Exit, chain};

mod file;

use file::SocketFile;

/// Two listening sockets and what they hold in the file system.
#[derive(Debug)]
pub struct Sockets {
    /// What clients connect to.
    pub listening: Listening,
    /// What the daemon keeps until it ends.
    pub held: SocketFiles,
}

/// The sockets themselves.
#[derive(Debug)]
pub struct Listening {
    /// For everything.
    pub main: UnixListener,
    /// For reading; none when systemd passed only the other.
    pub view: Option<UnixListener>,
}

/// The sockets' files and the lock that keeps other daemons out. Dropping it removes the files that are still ours, and then
/// unlocks. systemd's files are not removed.
#[derive(Debug, Default)]
pub struct SocketFiles {
    /// Before the lock, so that it is dropped first: no other daemon finds files that are about to be removed.
    files: Vec<SocketFile>,
    _lock: Option<File>,
}

/// What a check of the sockets' files has found.
#[derive(Debug, Default)]
pub struct Checked {
    /// Sockets made anew for those whose files were gone.
    pub renewed: Vec<(SocketKind, UnixListener)>,
    /// Files that do not lead to their sockets and could not be made anew, with the cause.
    pub lost: Vec<(PathBuf, String)>,
    /// Whether systemd could make them anew.
    pub systemds: bool,
    /// Whether one of them was gone when the daemon started.
    pub from_the_start: bool,
}

impl SocketFiles {
    /// Checks whether clients reach the sockets, and makes anew those that nicd may make: a file can be removed or replaced
    /// while its socket goes on listening.
    pub fn check(&mut self) -> Checked {
        let mut checked = Checked::default();
        for file in self.files.iter_mut().filter(|file| !file.is_reachable()) {
            match file.renew() {
                Ok(Some(socket)) => checked.renewed.push((file.door, socket)),
                Ok(None) => {
                    checked.lost.push((file.path.clone(), "its file is gone, or another is in its place".to_owned()));
                    checked.systemds = true;
                    checked.from_the_start |= !file.existed();
                }
                Err(error) => checked.lost.push((file.path.clone(), chain(&error))),
            }
        }
        checked
    }
}

/// Why the sockets cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another nicd holds the lock.
    #[error("another nicd is running: it holds {}", .0.display())]
    Locked(PathBuf),
    /// Another program listens there.
    #[error("another program listens on {}; end it, or choose another --socket", .0.display())]
    Live(PathBuf),
    /// Something else is there; it was not touched.
    #[error(
        "{} is in the way: it is {what}, and only a socket without a listener is replaced; remove it, or choose another --socket",
        path.display()
    )]
    InTheWay {
        /// Where.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// Others could put their own socket in place of ours.
    #[error(
        "others can write the directory {} (mode {mode:04o}) and so replace the socket; chmod go-w it, or choose another --socket",
        path.display()
    )]
    OpenDirectory {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file operation failed.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A service that may not make its sockets was started without any.
    #[error(
        "systemd passed no socket, and nicd may not make {} itself (Permission denied): systemctl restart nicd.socket makes it \
         anew", .0.display()
    )]
    NotPassed(PathBuf),
    /// What systemd passed is not what nicd can serve.
    #[error("the sockets that systemd passed cannot be used: {0}")]
    Passed(&'static str),
    /// What systemd passed is no Unix stream socket, or cannot be asked what it is.
    #[error("a descriptor that systemd passed cannot be used")]
    Descriptor(#[source] io::Error),
}

impl SocketError {
    /// What the program ends with.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Locked(_) | Self::Live(_) => Exit::Unavailable,
            Self::NotPassed(_) => Exit::Permission,
            Self::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => Exit::Permission,
            Self::InTheWay { .. } | Self::OpenDirectory { .. } | Self::File { .. } | Self::Passed(_) | Self::Descriptor(_) => {
                Exit::Config
            }
        }
    }

    fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { doing, path, source }
    }
}

impl Sockets {
    /// Makes both sockets, where systemd passed none. A service may not; its error says what makes them.
    ///
    /// # Errors
    /// Another nicd, another program or something else is there; or the system refused.
    pub fn make(settings: &SocketSettings, admitted: &AllowedPeers) -> Result<Self, SocketError> {
        Self::bind(settings, admitted).map_err(|error| {
            let is_service = std::env::var_os("NOTIFY_SOCKET").is_some();
            match is_service && error.exit() == Exit::Permission {
                true => SocketError::NotPassed(settings.path.clone()),
                false => error,
            }
        })
    }

    /// Makes both sockets.
    ///
    /// # Errors
    /// Another nicd, another program or something else is there; or the system refused.
    pub fn bind(settings: &SocketSettings, admitted: &AllowedPeers) -> Result<Self, SocketError> {
        let directory = settings.path.parent().unwrap_or(Path::new("/"));
        prepare(directory)?;
        let lock = lock(&lock_path(&settings.path))?;
        // The main one last: a client that finds it finds both.
        let take = |door, path| SocketFile::bind(door, path, settings.mode, admitted.group_of(door));
        let (view, view_file) = take(SocketKind::View, &settings.view_path)?;
        let (main, main_file) = take(SocketKind::Main, &settings.path)?;
        let held = SocketFiles { files: vec![main_file, view_file], _lock: Some(lock) };
        Ok(Self { listening: Listening { main, view: Some(view) }, held })
    }

    /// The sockets systemd passed; none when it passed nothing. Which is which is told by the file each is bound to.
    ///
    /// Clients wait in them until they are accepted. To be called once and early, while the process has one thread: it takes
    /// `LISTEN_FDS` out of the environment.
    ///
    /// # Errors
    /// They are not what nicd can listen on.
    pub fn passed() -> Result<Option<Self>, SocketError> {
        let mut passed = ListenFd::from_env();
        let (mut main, mut view) = (None, None);
        let mut held = SocketFiles::default();
        for index in 0..passed.len() {
            let socket = passed.take_unix_listener(index).map_err(SocketError::Descriptor)?;
            let Some(socket) = socket else { continue };
            let (door, path) = door_of(&socket)?;
            held.files.push(SocketFile::passed(door, path));
            let door = match door {
                SocketKind::Main => &mut main,
                SocketKind::View => &mut view,
            };
            if door.replace(socket).is_some() {
                return Err(SocketError::Passed(
                    "two are for the same purpose; one for everything is expected, and at most one ending in -view.sock",
                ));
            }
        }
        match (main, view) {
            (Some(main), view) => Ok(Some(Self { listening: Listening { main, view }, held })),
            (None, Some(_)) => Err(SocketError::Passed("only the read-only one is there")),
            (None, None) => Ok(None),
        }
    }
}

/// `nicd.sock.lock` beside `nicd.sock`.
fn lock_path(socket: &Path) -> PathBuf {
    let mut name = socket.file_name().unwrap_or_default().to_owned();
    name.push(".lock");
    socket.with_file_name(name)
}

/// What a socket is for, and its file.
fn door_of(socket: &UnixListener) -> Result<(SocketKind, PathBuf), SocketError> {
    if !getsockopt(socket, sockopt::AcceptConn).map_err(|errno| SocketError::Descriptor(errno.into()))? {
        return Err(SocketError::Passed("one does not listen (Accept=yes is not what nicd expects)"));
    }
    let address = socket.local_addr().map_err(SocketError::Descriptor)?;
    match address.as_pathname() {
        None => Err(SocketError::Passed("one has no path; an abstract socket has no mode to protect it")),
        Some(path) if path.as_os_str().as_bytes().ends_with(b"-view.sock") => Ok((SocketKind::View, path.to_owned())),
        Some(path) => Ok((SocketKind::Main, path.to_owned())),
    }
}

/// Makes the sockets' directory when it is missing, and refuses one in which others could replace the sockets.
fn prepare(directory: &Path) -> Result<(), SocketError> {
    match fs::metadata(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(SocketError::file("create", directory))?;
            // The umask may have taken bits away that clients need to get through.
            fs::set_permissions(directory, Permissions::from_mode(0o755)).map_err(SocketError::file("chmod", directory))
        }
        Err(error) => Err(SocketError::file("look at", directory)(error)),
        Ok(found) => {
            let mode = found.mode() & 0o7777;
            // With the sticky bit only a file's owner can replace it (rename(2)).
            let replaceable = mode & 0o022 != 0 && mode & 0o1000 == 0;
            if replaceable { Err(SocketError::OpenDirectory { path: directory.to_owned(), mode }) } else { Ok(()) }
        }
    }
}

/// Takes the lock, or finds that another nicd has it. The kernel gives it back when the process ends, however it ends.
fn lock(path: &Path) -> Result<File, SocketError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .map_err(SocketError::file("open", path))?;
    let found = file.metadata().map_err(SocketError::file("look at", path))?;
    if !found.is_file() {
        return Err(SocketError::InTheWay { path: path.to_owned(), what: what(found.file_type()) });
    }
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(SocketError::Locked(path.to_owned())),
        Err(fs::TryLockError::Error(error)) => Err(SocketError::file("lock", path)(error)),
    }
}

fn what(kind: fs::FileType) -> &'static str {
    if kind.is_symlink() {
        "a symbolic link"
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket of another kind"
    } else if kind.is_file() {
        "a file"
    } else {
        "a device"
    }
}

#[cfg(test)]
mod tests;
