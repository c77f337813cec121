//! The ioctls of taps (drivers/net/tun.c).

use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{c_int, c_uint, c_ulong};
use nix::errno::Errno;
use nix::{ioctl_read_bad, ioctl_readwrite_bad, ioctl_write_int_bad, ioctl_write_ptr_bad};

/// The size of `struct virtio_net_hdr` (include/uapi/linux/virtio_net.h), which is what a fresh tap's frames carry.
const VNET_HDR: c_int = 10;

/// The requests as the kernel takes them.
mod raw {
    use super::*;

    ioctl_read_bad!(features, libc::TUNGETFEATURES, c_uint);
    ioctl_write_ptr_bad!(set_index, libc::TUNSETIFINDEX, c_int);
    ioctl_readwrite_bad!(set_iff, libc::TUNSETIFF, libc::ifreq);
    ioctl_write_int_bad!(set_owner, libc::TUNSETOWNER);
    ioctl_write_int_bad!(set_group, libc::TUNSETGROUP);
    ioctl_write_int_bad!(set_persist, libc::TUNSETPERSIST);
}

/// `TUNGETFEATURES`: which `IFF_*` flags this kernel takes.
///
/// # Errors
/// What the kernel answered.
pub fn features(tun: BorrowedFd<'_>) -> Result<c_uint, Errno> {
    let mut features: c_uint = 0;
    // SAFETY: the request writes one unsigned int, and `features` is one that outlives the call.
    unsafe { raw::features(tun.as_raw_fd(), &raw mut features) }.map(|_| features)
}

/// `TUNSETIFINDEX`: the index that the device made by the next TUNSETIFF gets.
///
/// # Errors
/// What the kernel answered.
pub fn set_index(tun: BorrowedFd<'_>, index: c_int) -> Result<(), Errno> {
    // SAFETY: the request reads one int, and `index` is one that outlives the call.
    unsafe { raw::set_index(tun.as_raw_fd(), &raw const index) }.map(drop)
}

/// `TUNSETIFF`: makes or opens the device. `name` is cut to what the kernel takes.
///
/// # Errors
/// What the kernel answered.
pub fn set_iff(tun: BorrowedFd<'_>, name: &str, flags: c_int) -> Result<(), Errno> {
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
    unsafe { raw::set_iff(tun.as_raw_fd(), &raw mut request) }.map(drop)
}

/// `TUNSETOWNER`.
///
/// # Errors
/// What the kernel answered.
pub fn set_owner(tun: BorrowedFd<'_>, uid: u32) -> Result<(), Errno> {
    // SAFETY: the request takes its argument as a number.
    unsafe { raw::set_owner(tun.as_raw_fd(), uid.cast_signed()) }.map(drop)
}

/// `TUNSETGROUP`.
///
/// # Errors
/// What the kernel answered.
pub fn set_group(tun: BorrowedFd<'_>, gid: u32) -> Result<(), Errno> {
    // SAFETY: the request takes its argument as a number.
    unsafe { raw::set_group(tun.as_raw_fd(), gid.cast_signed()) }.map(drop)
}

/// `TUNSETPERSIST`.
///
/// # Errors
/// What the kernel answered.
pub fn set_persist(tun: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: the request takes its argument as a number.
    unsafe { raw::set_persist(tun.as_raw_fd(), 1) }.map(drop)
}

/// A setting that the holder of a tap may change without privileges, and that stays with the device after a close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// `TUNDETACHFILTER`: the classic BPF filter of what the holder reads.
    Filter,
    /// `TUNSETTXFILTER`: the MACs whose frames the holder reads.
    TxFilter,
    /// `TUNSETSTEERINGEBPF`: the program that chooses the queue.
    Steering,
    /// `TUNSETFILTEREBPF`: the program that cuts or drops what the holder reads.
    FilterProgram,
    /// `TUNSETOFFLOAD`: checksums and segmentation that are left to the holder.
    Offloads,
    /// `TUNSETVNETHDRSZ`: the size of the virtio-net header.
    HeaderSize,
    /// `TUNSETVNETLE`: virtio-net headers in little endian.
    LittleEndian,
    /// `TUNSETVNETBE`: virtio-net headers in big endian.
    BigEndian,
    /// `TUNSETSNDBUF`: how many octets the holder may have under way.
    SendBuffer,
    /// `TUNSETDEBUG`: messages in the kernel's log.
    Debug,
}

impl Setting {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Filter,
        Self::TxFilter,
        Self::Steering,
        Self::FilterProgram,
        Self::Offloads,
        Self::HeaderSize,
        Self::LittleEndian,
        Self::BigEndian,
        Self::SendBuffer,
        Self::Debug,
    ];

    /// Whether there are kernels that do not know it, and answer EINVAL: no program can have changed it there.
    pub fn is_optional(self) -> bool {
        matches!(self, Self::Steering | Self::FilterProgram | Self::BigEndian | Self::Debug)
    }

    /// The request, and what it is given as a fresh device has it (`tun_set_iff`, `tun_net_initialize`).
    fn fresh(self) -> (libc::Ioctl, Argument) {
        match self {
            Self::Filter => (libc::TUNDETACHFILTER, Argument::Number(0)),
            // A struct tun_filter without addresses is four octets, of which all zeros is no filter.
            Self::TxFilter => (libc::TUNSETTXFILTER, Argument::Int(0)),
            Self::Steering => (libc::TUNSETSTEERINGEBPF, Argument::Int(-1)),
            Self::FilterProgram => (libc::TUNSETFILTEREBPF, Argument::Int(-1)),
            Self::Offloads => (libc::TUNSETOFFLOAD, Argument::Number(0)),
            Self::HeaderSize => (libc::TUNSETVNETHDRSZ, Argument::Int(VNET_HDR)),
            Self::LittleEndian => (libc::TUNSETVNETLE, Argument::Int(0)),
            Self::BigEndian => (libc::TUNSETVNETBE, Argument::Int(0)),
            Self::SendBuffer => (libc::TUNSETSNDBUF, Argument::Int(c_int::MAX)),
            Self::Debug => (libc::TUNSETDEBUG, Argument::Number(0)),
        }
    }
}

/// How a request takes its argument.
enum Argument {
    /// As a number.
    Number(c_ulong),
    /// At an address, four octets.
    Int(c_int),
}

/// Sets a setting as a fresh device has it.
///
/// # Errors
/// What the kernel answered.
pub fn reset(tun: BorrowedFd<'_>, setting: Setting) -> Result<(), Errno> {
    let (request, argument) = setting.fresh();
    let answer = match argument {
        // SAFETY: the requests that `fresh` gives a number take it as one, or take no argument.
        Argument::Number(number) => unsafe { libc::ioctl(tun.as_raw_fd(), request, number) },
        // SAFETY: the requests that `fresh` gives an int read four octets, and `value` is that and outlives the call.
        Argument::Int(value) => unsafe { libc::ioctl(tun.as_raw_fd(), request, &raw const value) },
    };
    Errno::result(answer).map(drop)
}
