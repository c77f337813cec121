//! Ends of the traffic: frames as they are sent and as they come.

#![allow(dead_code)] // each test target uses its part

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Instant;

use nicd::kernel::tap;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::ifaddrs::getifaddrs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recvfrom, send, setsockopt, socket, sockopt,
};

use crate::daemon::PATIENCE;
use crate::netns::Guest;

/// What a VMM and the kernel put before each frame of a tap (`struct virtio_net_hdr`).
const TAP_HEADER: usize = 10;

/// One end of the traffic.
#[derive(Debug)]
pub enum Nic {
    Packets(OwnedFd),
    Tap(OwnedFd),
}

impl Nic {
    /// The device of this name in the calling thread's namespace; none where there is none.
    pub fn of(device: &str) -> Option<Self> {
        let named = getifaddrs().unwrap().filter(|one| one.interface_name == device);
        let address = named.filter_map(|one| one.address?.as_link_addr().copied()).next()?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll).unwrap();
        setsockopt(&fd, sockopt::RcvBufForce, &(64 << 20)).unwrap();
        bind(fd.as_raw_fd(), &address).ok()?;
        Some(Self::Packets(fd))
    }

    /// The NIC of a guest in a namespace.
    pub fn of_guest(guest: &Guest) -> Self {
        guest.inside(|| Self::of("eth0")).unwrap()
    }

    /// A tap as a VMM opens it.
    pub fn of_tap(device: &str) -> Self {
        let fd = tap::attach(&device.parse().unwrap(), 1, true).unwrap();
        fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        Self::Tap(fd)
    }

    /// The same end once more.
    pub fn again(&self) -> Self {
        match self {
            Self::Packets(fd) => Self::Packets(fd.try_clone().unwrap()),
            Self::Tap(fd) => Self::Tap(fd.try_clone().unwrap()),
        }
    }

    pub fn send(&self, frame: &[u8]) -> nix::Result<()> {
        match self {
            Self::Packets(fd) => send(fd.as_raw_fd(), frame, MsgFlags::empty()).map(drop),
            Self::Tap(fd) => nix::unistd::write(fd, &[&[0; TAP_HEADER], frame].concat()).map(drop),
        }
    }

    /// The next frame that came, if one is there.
    pub fn next<'a>(&self, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
        /// `PACKET_OUTGOING`: what is sent here, not what came.
        const OUTGOING: u8 = 4;
        loop {
            let (from, to) = match self {
                Self::Packets(fd) => match recvfrom::<LinkAddr>(fd.as_raw_fd(), buffer) {
                    Ok((_, Some(address))) if address.pkttype() == OUTGOING => continue,
                    Ok((length, _)) => (0, length),
                    Err(Errno::EAGAIN | Errno::ENETDOWN) => return None,
                    Err(error) => panic!("a packet socket: {error}"),
                },
                Self::Tap(fd) => match nix::unistd::read(fd, buffer) {
                    Ok(length) => (TAP_HEADER, length),
                    Err(Errno::EAGAIN) => return None,
                    Err(error) => panic!("a tap: {error}"),
                },
            };
            return buffer.get(from..to);
        }
    }

    /// The next frame, which is on its way.
    pub fn wait(&self) -> Vec<u8> {
        let (mut buffer, deadline) = ([0; 4096], Instant::now() + PATIENCE);
        loop {
            if let Some(frame) = self.next(&mut buffer) {
                return frame.to_vec();
            }
            assert!(Instant::now() < deadline, "no frame comes");
            let _ = poll(&mut [PollFd::new(self.fd().as_fd(), PollFlags::POLLIN)], PollTimeout::from(100_u8));
        }
    }

    /// Its descriptor.
    pub fn fd(&self) -> &OwnedFd {
        match self {
            Self::Packets(fd) | Self::Tap(fd) => fd,
        }
    }
}
