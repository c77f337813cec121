//! Taps, made by ioctl because the kernel refuses to make them by rtnetlink.

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

/// The node every tap is made and opened through.
pub const NODE: &str = "/dev/net/tun";

/// A tap to be made.
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

/// A tap held open, which dies when this is dropped unless it was made persistent. Dropping takes 15 ms where it does.
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
    /// Setting back what the last user has changed.
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
    /// Whether the tun driver itself is not there; without it a node may be there all the same, as systemd-tmpfiles makes one.
    pub fn lacks_driver(&self) -> bool {
        match (self.call, self.errno) {
            (Call::Open, Errno::ENODEV | Errno::ENXIO) => true,
            (Call::Open, Errno::ENOENT) => !modules::has_tun(),
            _ => false,
        }
    }

    /// What an operator can do about it.
    pub fn remedy(&self) -> &'static str {
        match (self.call, self.errno) {
            (Call::Open, Errno::EACCES) => {
                "its mode keeps nicd's user out: chmod 0666 /dev/net/tun, as udev sets it (50-udev-default.rules); making a tap needs CAP_NET_ADMIN all the same"
            }
            (Call::Open, Errno::EPERM) => "the service's device list keeps it out: DeviceAllow=/dev/net/tun rw in nicd.service",
            (Call::Open, Errno::ENOENT) => {
                "the tun driver is there, its node is not: mkdir -p /dev/net; mknod -m 0666 /dev/net/tun c 10 200; a container gets it from its manager"
            }
            (_, Errno::EPERM | Errno::EACCES) => "CAP_NET_ADMIN is expected",
            _ => "the kernel's log may say more",
        }
    }
}

/// Whether taps could be made, as far as opening [`NODE`] shows.
///
/// # Errors
/// It does not open.
pub fn usable() -> Result<(), TapError> {
    open_node().map(drop).map_err(|errno| TapError { call: Call::Open, errno })
}

impl Tap {
    /// Makes a tap that nobody but its owner may open once it is persistent; without one that is uid 0.
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

    /// Lets it live on, and closes it.
    ///
    /// # Errors
    /// The kernel refused; the tap is gone.
    pub fn persist(self) -> Result<(), TapError> {
        Call::Persist.make(|| tun::set_persist(self.fd.as_fd()))
    }
}

impl Spec<'_> {
    /// Without carrier from its first moment, where the kernel can (6.1 and later): a carrier that has to go first makes
    /// the opener's come a second late (net/core/link_watch.c).
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

/// Opens an existing tap, as a VMM does: it has carrier for as long as this is held. The filter that an earlier user left is
/// not put on it: it stands where that user's memory had it, and the kernel would read it there in ours.
///
/// # Errors
/// The call that failed: `EBUSY` when another holds it, `EPERM` for who may not.
pub fn attach(name: &LinkName, queues: u16, vnet_hdr: bool) -> Result<OwnedFd, TapError> {
    let fd = open_node().map_err(|errno| TapError { call: Call::Open, errno })?;
    let spec = Spec { index: 0, name, queues, vnet_hdr, owner: Owner::default() };
    let flags = spec.flags(0) & !IFF_TUN_EXCL | IFF_NOFILTER;
    tun::set_iff(fd.as_fd(), name.as_str(), flags).map_err(|errno| TapError { call: Call::Create, errno })?;
    Ok(fd)
}

/// Sets a tap back to what a fresh one is: a device keeps most of what its users set, and the next one would read frames
/// that it did not ask for, or none. To be called once all of its queues are open here, and nowhere else: any of them stands
/// for the device and the others.
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

/// Lets nobody else open a tap by its name. A user or group that the owner does not name stays as it is: the kernel takes none away.
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
