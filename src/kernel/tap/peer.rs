//! Who is at the other end of a Unix socket, as far as only a raw call tells.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The most groups one process can have (`NGROUPS_MAX`, linux/limits.h).
const MAX_GROUPS: usize = 65_536;

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
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

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
