//! The calls that no safe wrapper has: the tap's ioctls (drivers/net/tun.c) and two about a socket's namespace.

use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libc::{c_int, c_uint, c_ulong, c_void, socklen_t};
use nix::errno::Errno;

/// `SO_NETNS_COOKIE` (include/uapi/asm-generic/socket.h).
const SO_NETNS_COOKIE: c_int = 71;

/// `SIOCGSKNS` (include/uapi/linux/sockios.h).
const SIOCGSKNS: libc::Ioctl = 0x894c;

/// `TUNGETFEATURES`: which `IFF_*` flags this kernel takes.
pub(super) fn features(tun: BorrowedFd<'_>) -> Result<c_uint, Errno> {
    let mut features: c_uint = 0;
    // SAFETY: the request writes one unsigned int, and `features` is one that outlives the call.
    let answer = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNGETFEATURES, &raw mut features) };
    Errno::result(answer).map(|_| features)
}

/// `TUNSETIFINDEX`: the index that the device made by the next TUNSETIFF gets.
pub(super) fn set_index(tun: BorrowedFd<'_>, index: c_int) -> Result<(), Errno> {
    // SAFETY: the request reads one int, and `index` is one that outlives the call.
    let answer = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFINDEX, &raw const index) };
    Errno::result(answer).map(drop)
}

/// `TUNSETIFF`: makes or opens the device. `name` is cut to what the kernel takes.
pub(super) fn set_iff(tun: BorrowedFd<'_>, name: &str, flags: c_int) -> Result<(), Errno> {
    // SAFETY: ifreq is plain data of which all zeros is a value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    // The last octet stays the NUL that ends the name.
    let room = request.ifr_name.len() - 1;
    for (place, octet) in request.ifr_name[..room].iter_mut().zip(name.bytes()) {
        *place = libc::c_char::from_ne_bytes([octet]);
    }
    let [low, high, ..] = flags.to_le_bytes();
    request.ifr_ifru.ifru_flags = i16::from_le_bytes([low, high]);
    // SAFETY: the request reads and writes one ifreq, and `request` is one that outlives the call.
    let answer = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    Errno::result(answer).map(drop)
}

/// `TUNSETOWNER`.
pub(super) fn set_owner(tun: BorrowedFd<'_>, uid: u32) -> Result<(), Errno> {
    // SAFETY: the request takes its argument as a number.
    let answer = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETOWNER, c_ulong::from(uid)) };
    Errno::result(answer).map(drop)
}

/// `TUNSETGROUP`.
pub(super) fn set_group(tun: BorrowedFd<'_>, gid: u32) -> Result<(), Errno> {
    // SAFETY: the request takes its argument as a number.
    let answer = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETGROUP, c_ulong::from(gid)) };
    Errno::result(answer).map(drop)
}

/// `TUNSETPERSIST`.
pub(super) fn set_persist(tun: BorrowedFd<'_>) -> Result<(), Errno> {
    let yes: c_ulong = 1;
    // SAFETY: the request takes its argument as a number.
    let answer = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETPERSIST, yes) };
    Errno::result(answer).map(drop)
}

/// `SO_NETNS_COOKIE`: the namespace a socket is in.
pub(super) fn netns_cookie(socket: BorrowedFd<'_>) -> Result<u64, Errno> {
    let mut cookie: u64 = 0;
    let mut length = socklen_t::try_from(mem::size_of::<u64>()).map_err(|_| Errno::EOVERFLOW)?;
    // SAFETY: the kernel writes at most `length` octets, the size of `cookie`, which outlives the call as `length` does.
    let answer = unsafe {
        let value = (&raw mut cookie).cast::<c_void>();
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_NETNS_COOKIE, value, &raw mut length)
    };
    Errno::result(answer).map(|_| cookie)
}

/// `SIOCGSKNS`: the namespace a socket is in, as a descriptor.
pub(super) fn netns_of(socket: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    // SAFETY: the request takes no argument, and answers with a new descriptor, which nothing else knows of.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSKNS) };
    // SAFETY: as just said.
    Errno::result(answer).map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) })
}
