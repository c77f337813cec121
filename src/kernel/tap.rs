//! Taps, created by ioctl because the kernel cannot create them by rtnetlink.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use libc::{IFF_MULTI_QUEUE, IFF_NO_CARRIER, IFF_NO_PI, IFF_NOFILTER, IFF_TAP, IFF_TUN_EXCL, IFF_VNET_HDR, c_int};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::modules;
use crate::failpoints;
use crate::model::{LinkName, Owner};
use crate::sys::tun::{self, Setting};

/// The device node of the tun driver.
pub const NODE: &str = "/dev/net/tun";

/// A tap to create.
#[derive(Debug, Clone, Copy)]
pub struct Spec<'a> {
    /// The index it is to have.
    pub index: u32,
    /// Its name.
    pub name: &'a LinkName,
    /// How many queues it may have.
    pub queues: u16,
    /// Whether frames carry virtio-net headers.
    pub vnet_hdr: bool,
    /// Who may open it.
    pub owner: Owner,
}

/// An open tap. Dropping it deletes the tap, which takes 15 ms, unless the tap is persistent.
#[derive(Debug)]
pub struct Tap {
    fd: OwnedFd,
}

/// A call that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{call}: {}", errno.desc())]
pub struct TapError {
    /// Which.
    pub call: Call,
    /// With what.
    pub errno: Errno,
}

/// The calls that make a tap, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Opening [`NODE`].
    Open,
    /// `TUNGETFEATURES`
    Features,
    /// `TUNSETIFINDEX`
    Index,
    /// `TUNSETIFF`
    Create,
    /// `TUNSETOWNER` or `TUNSETGROUP`
    Owner,
    /// `TUNSETPERSIST`
    Persist,
    /// Resetting the settings of the last user.
    Reset,
}

impl Call {
    fn make<T>(self, call: impl FnOnce() -> Result<T, Errno>) -> Result<T, TapError> {
        let word = match self {
            Self::Open => "open",
            Self::Features => "features",
            Self::Index => "index",
            Self::Create => "create",
            Self::Owner => "owner",
            Self::Persist => "persist",
            Self::Reset => "reset",
        };
        failpoints::call(("tap", word), call, |errno| errno).map_err(|errno| TapError { call: self, errno })
    }
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Open => NODE,
            Self::Features => "TUNGETFEATURES",
            Self::Index => "TUNSETIFINDEX",
            Self::Create => "TUNSETIFF",
            Self::Owner => "TUNSETOWNER",
            Self::Persist => "TUNSETPERSIST",
            Self::Reset => "setting the tap back",
        })
    }
}

impl TapError {
    /// Whether the tun driver is missing. The device node may still exist, because systemd-tmpfiles creates it.
    pub fn lacks_driver(&self) -> bool {
        match (self.call, self.errno) {
            (Call::Open, Errno::ENODEV | Errno::ENXIO) => true,
            (Call::Open, Errno::ENOENT) => !modules::has_tun(),
            _ => false,
        }
    }

    /// The remedy for operators.
    pub fn remedy(&self) -> &'static str {
        match (self.call, self.errno) {
            (Call::Open, Errno::EACCES) => {
                "its mode keeps nicd's user out: chmod 0666 /dev/net/tun, as udev sets it (50-udev-default.rules); making a tap needs CAP_NET_ADMIN all the same"
            }
            (Call::Open, Errno::EPERM) => "the service's device list keeps it out: DeviceAllow=/dev/net/tun rw in nicd.service",
            (Call::Open, Errno::ENOENT) => {
                "the tun driver is there, its node is not: mkdir -p /dev/net; mknod -m 0666 /dev/net/tun c 10 200; a container gets it from its service"
            }
            (_, Errno::EPERM | Errno::EACCES) => "CAP_NET_ADMIN is expected",
            _ => "the kernel's log may say more",
        }
    }
}

/// Checks that [`NODE`] can be opened.
///
/// # Errors
/// It does not open.
pub fn usable() -> Result<(), TapError> {
    open_node().map(drop).map_err(|errno| TapError { call: Call::Open, errno })
}

impl Tap {
    /// Creates a tap that only its owner may open once it is persistent; without an owner, uid 0.
    ///
    /// # Errors
    /// The call that failed; nothing is left of the tap. A name or index that is taken is `EBUSY` at [`Call::Create`]
    /// (`tun_set_iff`, drivers/net/tun.c).
    pub fn create(spec: Spec<'_>) -> Result<Self, TapError> {
        let fd = Call::Open.make(open_node)?;
        let tun = fd.as_fd();
        let features = Call::Features.make(|| features(tun))?;
        let index = c_int::try_from(spec.index).map_err(|_| TapError { call: Call::Index, errno: Errno::EINVAL })?;
        Call::Index.make(|| tun::set_index(tun, index))?;
        Call::Create.make(|| tun::set_iff(tun, spec.name.as_str(), spec.flags(features)))?;
        own(&tun, spec.owner.of_tap())?;
        Ok(Self { fd })
    }

    /// Makes the tap persistent, and closes it.
    ///
    /// # Errors
    /// The kernel refused; the tap is gone.
    pub fn persist(self) -> Result<(), TapError> {
        Call::Persist.make(|| tun::set_persist(self.fd.as_fd()))
    }
}

impl Spec<'_> {
    /// Creates the tap without carrier (kernel 6.1 and later). If the carrier had to go down first, the carrier of a VMM's open would be
    /// reported up to a second late (net/core/link_watch.c).
    fn flags(&self, features: libc::c_uint) -> c_int {
        let mut flags = IFF_TAP | IFF_NO_PI | IFF_TUN_EXCL;
        if features.cast_signed() & IFF_NO_CARRIER != 0 {
            flags |= IFF_NO_CARRIER;
        }
        if self.queues > 1 {
            flags |= IFF_MULTI_QUEUE;
        }
        if self.vnet_hdr {
            flags |= IFF_VNET_HDR;
        }
        flags
    }
}

/// Opens an existing tap, as a VMM does: the tap has carrier while the descriptor is open. An earlier user's filter is not attached:
/// the kernel stored its user-space address, and would read it from nicd's memory.
///
/// # Errors
/// The failed call: `EBUSY` when another process has the tap open, `EPERM` without permission.
pub fn attach(name: &LinkName, queues: u16, vnet_hdr: bool) -> Result<OwnedFd, TapError> {
    let fd = open_node().map_err(|errno| TapError { call: Call::Open, errno })?;
    let spec = Spec { index: 0, name, queues, vnet_hdr, owner: Owner::default() };
    let flags = spec.flags(0) & !IFF_TUN_EXCL | IFF_NOFILTER;
    tun::set_iff(fd.as_fd(), name.as_str(), flags).map_err(|errno| TapError { call: Call::Create, errno })?;
    Ok(fd)
}

/// Resets a tap to the settings of a new one. The kernel keeps most settings of an earlier user, so the next user would read frames in
/// an unexpected format, or none. Call it when all queues are open here and no other process has the tap open: each queue
/// changes the whole device.
///
/// # Errors
/// The kernel refused.
pub fn reset(queue: &impl AsFd) -> Result<(), TapError> {
    Setting::ALL.into_iter().try_for_each(|setting| {
        Call::Reset.make(|| match tun::reset(queue.as_fd(), setting) {
            Err(Errno::EINVAL) if setting.is_optional() => Ok(()),
            other => other,
        })
    })
}

/// Restricts opening a tap by name to its owner. If the owner has no user or no group, the tap keeps its former one, because the
/// kernel cannot clear it.
///
/// # Errors
/// The kernel refused.
pub fn own(queue: &impl AsFd, Owner { uid, gid }: Owner) -> Result<(), TapError> {
    if let Some(uid) = uid {
        Call::Owner.make(|| tun::set_owner(queue.as_fd(), uid))?;
    }
    if let Some(gid) = gid {
        Call::Owner.make(|| tun::set_group(queue.as_fd(), gid))?;
    }
    Ok(())
}

/// What the driver can do, which it is asked once.
fn features(tun: BorrowedFd<'_>) -> Result<libc::c_uint, Errno> {
    static KNOWN: OnceLock<libc::c_uint> = OnceLock::new();
    match KNOWN.get() {
        Some(known) => Ok(*known),
        None => tun::features(tun).inspect(|found| _ = KNOWN.set(*found)),
    }
}

fn open_node() -> Result<OwnedFd, Errno> {
    open(NODE, OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_follow_the_spec_and_the_kernel() {
        let name: LinkName = "t0".parse().unwrap();
        let spec = |queues, vnet_hdr| Spec { index: 1, name: &name, queues, vnet_hdr, owner: Owner::default() };
        let plain = IFF_TAP | IFF_NO_PI | IFF_TUN_EXCL;
        assert_eq!(spec(1, false).flags(0), plain);
        assert_eq!(spec(2, true).flags(IFF_NO_CARRIER.cast_unsigned()), plain | IFF_MULTI_QUEUE | IFF_VNET_HDR | IFF_NO_CARRIER);
    }
}
