//! A descriptor handed over a Unix socket (`SCM_RIGHTS`, unix(7)).

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use netlink_sys::Socket;
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};

/// Sends octets in one go, and a descriptor with them.
///
/// # Errors
/// The other end is gone, or does not take them in time.
pub fn send(to: BorrowedFd<'_>, octets: &[u8], with: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let descriptors: Vec<RawFd> = with.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let control = if with.is_some() { &rights[..] } else { &[] };
    let sent = sendmsg::<UnixAddr>(to.as_raw_fd(), &[IoSlice::new(octets)], control, MsgFlags::MSG_NOSIGNAL, None)?;
    if sent == octets.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Receives what was sent in one go: how many octets came, and the descriptor that came with them.
///
/// # Errors
/// Nothing comes in time; EMFILE when there was no room in this process for the descriptor (MSG_CTRUNC, recvmsg(2)).
pub fn receive(from: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = cmsg_space!(RawFd);
    let mut parts = [IoSliceMut::new(into)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<UnixAddr>(from.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    if message.flags.contains(MsgFlags::MSG_CTRUNC) {
        return Err(Errno::EMFILE.into());
    }
    let rights = message.cmsgs()?.filter_map(|control| match control {
        ControlMessageOwned::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    // SAFETY: the kernel has just installed these descriptors for this process, and nothing else knows of them.
    let owned = |descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) };
    // All are taken, so that what is more than one is closed.
    let received: Vec<OwnedFd> = rights.flatten().map(owned).collect();
    Ok((message.bytes, received.into_iter().next()))
}

/// A netlink socket that was handed over.
pub fn netlink(descriptor: OwnedFd) -> Socket {
    // SAFETY: the descriptor is open, and its ownership goes over.
    unsafe { Socket::from_raw_fd(descriptor.into_raw_fd()) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_descriptor_arrives_and_names_the_same_socket() {
        let (here, there) = UnixStream::pair().unwrap();
        let netlink = Socket::new(netlink_sys::protocols::NETLINK_ROUTE).unwrap();
        send(here.as_fd(), b"S", Some(netlink.as_fd())).unwrap();
        let mut octets = [0; 8];
        let (length, received) = receive(there.as_fd(), &mut octets).unwrap();
        assert_eq!(&octets[..length], b"S");
        let received = super::netlink(received.expect("a descriptor"));
        let cookie = |socket: &Socket| crate::sys::socket::netns_cookie(socket);
        assert_eq!(cookie(&received), cookie(&netlink));
        send(here.as_fd(), b"M", None).unwrap();
        assert!(matches!(receive(there.as_fd(), &mut octets), Ok((1, None))));
        drop(here);
        assert!(matches!(receive(there.as_fd(), &mut octets), Ok((0, None))));
    }
}
