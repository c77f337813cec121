//! What only a raw call tells of a socket: its network namespace, and its peer's groups.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{GetSockOpt, sockopt::GetStruct};

/// `SO_NETNS_COOKIE` (include/uapi/asm-generic/socket.h).
const SO_NETNS_COOKIE: libc::c_int = 71;

/// `SIOCGSKNS` (include/uapi/linux/sockios.h).
const SIOCGSKNS: libc::Ioctl = 0x894c;

/// The most groups one process can have (`NGROUPS_MAX`, linux/limits.h).
const MAX_GROUPS: usize = 65_536;

#[derive(Debug, Clone, Copy)]
struct NetnsCookie;

nix::getsockopt_impl!(NetnsCookie, libc::SOL_SOCKET, SO_NETNS_COOKIE, u64, GetStruct<u64>);

/// The request as the kernel takes it.
mod raw {
    nix::ioctl_none_bad!(netns, super::SIOCGSKNS);
}

/// Which network namespace a socket is in (`SO_NETNS_COOKIE`, Linux 5.14): never used twice within one boot.
///
/// # Errors
/// What the kernel answered; `ENOPROTOOPT` before 5.14.
pub fn netns_cookie(socket: &impl AsFd) -> Result<u64, Errno> {
    NetnsCookie.get(socket)
}

/// The network namespace a socket is in (`SIOCGSKNS`, net/socket.c), as `IFLA_NET_NS_FD` takes it. Needs CAP_NET_ADMIN there.
///
/// # Errors
/// What the kernel answered.
pub fn netns_of(socket: &impl AsFd) -> Result<OwnedFd, Errno> {
    // SAFETY: the request takes no argument, and answers with a new descriptor, which nothing else knows of.
    let descriptor = unsafe { raw::netns(socket.as_fd().as_raw_fd()) }?;
    // SAFETY: as just said.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// The supplementary groups the peer of a connected Unix socket had when it connected (`SO_PEERGROUPS`, Linux 4.13), as
/// this user namespace sees them: a group it cannot see is the overflow gid.
///
/// # Errors
/// The descriptor is no connected Unix socket.
pub fn peer_groups(fd: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; 32];
    loop {
        let capacity = groups.len() * size_of::<u32>();
        let mut length = libc::socklen_t::try_from(capacity).map_err(io::Error::other)?;
        // SAFETY: `groups` is valid for writes of `length` bytes, which is its own size, and both outlive the call; any
        // bit pattern is a u32. The descriptor is open for as long as `fd` lives.
        let answer = unsafe {
            libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERGROUPS, groups.as_mut_ptr().cast(), &raw mut length)
        };
        let count = usize::try_from(length).map_err(io::Error::other)? / size_of::<u32>();
        if answer == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        // ERANGE tells the size needed (net/core/sock.c, sk_getsockopt).
        if error.raw_os_error() != Some(libc::ERANGE) || count <= groups.len() || count > MAX_GROUPS {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn every_socket_has_its_namespaces_cookie() {
        let (one, other) = UnixStream::pair().unwrap();
        assert_eq!(netns_cookie(&one).unwrap(), netns_cookie(&other).unwrap());
        assert_ne!(netns_cookie(&one).unwrap(), 0);
    }

    #[test]
    fn the_peer_of_a_pair_has_our_own_groups() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let own: Vec<u32> = nix::unistd::getgroups().unwrap().into_iter().map(nix::unistd::Gid::as_raw).collect();
        assert_eq!(peer_groups(ours.as_fd()).unwrap(), own);
    }

    #[test]
    fn what_is_no_unix_socket_has_none() {
        assert!(peer_groups(std::fs::File::open("/dev/null").unwrap().as_fd()).is_err());
    }
}
