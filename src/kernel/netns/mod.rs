//! Network namespaces: which one a path names, and a netlink socket inside it.
//!
//! ```text
//!  HostNetns ── Named ──► NetnsAccess ─┬─ Here ─────────────────► enter: a thread that ends at once
//!       ◄── socket ────────┴─ Helper ── protocol ──► helper ──► enter
//! ```
//!
//! Entering needs CAP_SYS_ADMIN. A daemon with the capability enters by itself. The shipped service lacks it, and asks the helper
//! `nicd-netns`, which only does this. Both ways give a netlink socket inside the namespace. Its cookie is the namespace's
//! identity, and it gives the descriptor with which a device is moved. An open socket keeps the namespace alive, so it is dropped
//! at the end of the execution.

mod access;
mod enter;
pub mod helper;
mod path;
mod protocol;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use netlink_sys::Socket;
use uuid::Uuid;

use super::answer::{Failure, Request};
use super::socket::Netlink;
use super::{Found, NetnsError, OpErrorKind};
use crate::model::NetnsPin;
use crate::sys::socket;

pub(super) use access::NetnsAccess;
pub(super) use enter::probe_path;

/// Selects a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Named {
    /// The one that a path names.
    Path(PathBuf),
    /// The one with this `SO_NETNS_COOKIE`, wherever a process or a mount of it shows it.
    Cookie(u64),
}

/// The result of entering a namespace.
#[derive(Debug)]
struct Entered {
    /// A socket inside.
    netlink: Netlink,
    /// Whether what was named names a process.
    by_process: bool,
}

/// A namespace that was made, which is empty but for its loopback and ends with these descriptors.
#[derive(Debug)]
pub(super) struct Fresh {
    /// A socket inside.
    pub(super) netlink: Netlink,
    /// A socket for nf_tables inside.
    pub(super) netfilter: Socket,
    /// What a tap inside is made of, each.
    pub(super) taps: [OwnedFd; TAPS],
}

/// How many taps a namespace that is made can get.
const TAPS: usize = 3;

/// An entered namespace.
#[derive(Debug)]
pub(super) struct NetnsHandle {
    /// A socket inside.
    pub(super) netlink: Netlink,
    /// The namespace, to give a device into.
    pub(super) fd: OwnedFd,
    cookie: u64,
    by_process: bool,
}

/// The host's namespace; enters guests' namespaces and distinguishes them from the host's.
#[derive(Debug, Clone, Copy)]
pub(super) struct HostNetns {
    boot_id: Uuid,
    cookie: u64,
    access: NetnsAccess,
}

impl HostNetns {
    /// Reads which boot this is, and which namespace `netlink` is in.
    pub(super) fn of(netlink: &Netlink) -> Result<Self, Failure> {
        let path = "/proc/sys/kernel/random/boot_id";
        let boot_id = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
        let boot_id = boot_id.ok_or_else(|| Failure::new(OpErrorKind::Other, Request::Open, format!("{path} cannot be read")))?;
        let cookie = socket::netns_cookie(netlink.socket()).map_err(|errno| Failure::system(Request::Open, errno))?;
        Ok(Self { boot_id, cookie, access: NetnsAccess::of_this_process() })
    }

    /// How namespaces are reached.
    pub(super) fn access(self) -> NetnsAccess {
        self.access
    }

    /// The namespace that `path` names, entered.
    pub(super) fn enter(self, path: &Path) -> Result<NetnsHandle, NetnsError> {
        let Entered { netlink, by_process } = self.access.open(&Named::Path(path.to_owned()))?;
        let inside = NetnsHandle::at(path, netlink, by_process)?;
        match inside.cookie == self.cookie {
            true => Err(NetnsError::Own(path.display().to_string())),
            false => Ok(inside),
        }
    }

    /// The same, which must be the pinned one.
    pub(super) fn enter_pinned(self, path: &Path, pin: NetnsPin) -> Result<NetnsHandle, Failure> {
        let wrong = |kind, said: String| Failure::new(kind, Request::Namespace, said);
        let inside = self.enter(path).map_err(|error| wrong(error.kind(), error.to_string()))?;
        match self.pin(&inside) == pin {
            true => Ok(inside),
            false => {
                let said = format!("{} is another namespace than the one the server was given", path.display());
                Err(wrong(OpErrorKind::Namespace, said))
            }
        }
    }

    /// Whether the pinned namespace is one of those that a process is in or that are mounted somewhere.
    pub(super) fn lives(self, pin: NetnsPin) -> Result<bool, NetnsError> {
        if pin.boot_id != self.boot_id {
            return Ok(false);
        }
        match self.access.open(&Named::Cookie(pin.cookie)) {
            Ok(_) => Ok(true),
            Err(NetnsError::Missing(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The namespace that `path` names.
    pub(super) fn inspect(self, path: &Path) -> Result<Found, NetnsError> {
        self.enter(path).map(|inside| Found { pin: self.pin(&inside), by_process: inside.by_process })
    }

    /// The identity of an entered namespace.
    pub(super) fn pin(self, inside: &NetnsHandle) -> NetnsPin {
        NetnsPin { boot_id: self.boot_id, cookie: inside.cookie }
    }
}

impl NetnsHandle {
    fn at(path: &Path, netlink: Netlink, by_process: bool) -> Result<Self, NetnsError> {
        let refused = |errno| NetnsError::of(path, errno);
        let cookie = socket::netns_cookie(netlink.socket()).map_err(refused)?;
        let fd = socket::netns_of(netlink.socket()).map_err(refused)?;
        Ok(Self { netlink, fd, cookie, by_process })
    }
}
