//! Packet sockets (`AF_PACKET`): what the kernel passes to one is decided by a filter in the kernel.

use std::io;
use std::mem::{MaybeUninit, offset_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use tokio::io::unix::AsyncFd;

/// A frame that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// How many octets of the buffer it takes.
    pub length: usize,
    /// Whether its checksum was left to a NIC (`TP_STATUS_CSUMNOTREADY`).
    pub checksum_unfinished: bool,
}

/// A packet socket.
#[derive(Debug)]
pub struct PacketSocket(OwnedFd);

/// One instruction of a classic BPF program.
pub type Instruction = libc::sock_filter;

impl PacketSocket {
    /// Opens a socket that gets the frames a device receives, as far as the program lets them pass, with so much room for those that
    /// wait, and as much for those that it sends. Its reads do not block.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn open(device: u32, program: &[Instruction], room: libc::c_int) -> io::Result<Self> {
        let socket = Self::deaf()?;
        let length = u16::try_from(program.len()).map_err(io::Error::other)?;
        let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
        // Before it is bound, so that it never has a frame that the program would not let pass.
        socket.set(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)?;
        socket.set(libc::SOL_PACKET, libc::PACKET_AUXDATA, &1_i32)?;
        for (force, usual) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)] {
            // Without the right to more than is usual there is less.
            let forced = socket.set(libc::SOL_SOCKET, force, &room);
            forced.or_else(|_| socket.set(libc::SOL_SOCKET, usual, &room))?;
        }
        let all = u16::try_from(libc::ETH_P_ALL).map_err(io::Error::other)?;
        let address = address(device, all)?;
        // SAFETY: `address` is a whole sockaddr_ll, whose length is given, and outlives the call.
        check(unsafe { libc::bind(socket.raw(), (&raw const address).cast(), ADDRESS) })?;
        Ok(socket)
    }

    /// Opens a socket that sends, and gets no frame: it is bound to no protocol.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn deaf() -> io::Result<Self> {
        // SAFETY: the call takes no pointer.
        let descriptor =
            check(unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0) })?;
        // SAFETY: the descriptor is new, and nothing else knows of it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(descriptor) }))
    }

    fn set<T>(&self, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
        let length = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
        // SAFETY: `value` is valid for reads of its own size, which is given, and outlives the call; the kernel copies it.
        check(unsafe { libc::setsockopt(self.raw(), level, name, std::ptr::from_ref(value).cast(), length) }).map(drop)
    }

    /// Takes a frame.
    ///
    /// # Errors
    /// There is none (`WouldBlock`), the device is down or gone (`NetworkDown`), or none will come any more.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        // Aligned as a cmsghdr is.
        let mut control = [0_u64; 16];
        // SAFETY: all zero is a valid msghdr.
        let mut header: libc::msghdr = unsafe { zeroed() };
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control) as _;
        // SAFETY: the header's pointers are to `part` and `control`, whose lengths are given, and to the buffer in `part`; all outlive
        // the call.
        let length = unsafe { libc::recvmsg(self.raw(), &raw mut header, 0) };
        let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
        // No frame has no octets.
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut checksum_unfinished = false;
        // SAFETY: the kernel has filled the header's control data in; the macros stay within the length that it has set.
        let mut next = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
        while !next.is_null() {
            // SAFETY: `next` is a cmsghdr within the control data.
            let message = unsafe { *next };
            if (message.cmsg_level, message.cmsg_type) == (libc::SOL_PACKET, libc::PACKET_AUXDATA) {
                let mut auxiliary = MaybeUninit::<libc::tpacket_auxdata>::zeroed();
                // SAFETY: behind this header the kernel has put a tpacket_auxdata, any bits of which are one; it may not be aligned.
                unsafe {
                    std::ptr::copy_nonoverlapping(
                        libc::CMSG_DATA(next),
                        auxiliary.as_mut_ptr().cast::<u8>(),
                        size_of::<libc::tpacket_auxdata>(),
                    );
                }
                // SAFETY: it was zeroed, and any bits are one.
                let auxiliary = unsafe { auxiliary.assume_init() };
                checksum_unfinished = auxiliary.tp_status & CHECKSUM_NOT_READY != 0;
            }
            // SAFETY: as for the first.
            next = unsafe { libc::CMSG_NXTHDR(&raw const header, next) };
        }
        Ok(Received { length: length.min(buffer.len()), checksum_unfinished })
    }

    /// Sends a whole frame out of a device, and nowhere else.
    ///
    /// # Errors
    /// The device is gone or down, or takes no more.
    pub fn send(&self, device: u32, frame: &[u8]) -> io::Result<()> {
        let address = address(device, 0)?;
        // SAFETY: the frame and the address are valid for reads of the lengths given, and outlive the call.
        let sent = unsafe {
            libc::sendto(self.raw(), frame.as_ptr().cast(), frame.len(), libc::MSG_DONTWAIT, (&raw const address).cast(), ADDRESS)
        };
        usize::try_from(sent).map(drop).map_err(|_| io::Error::last_os_error())
    }

    /// The same, to be waited for without blocking, in the runtime of the caller.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn watched(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: the socket owns its descriptor, which stays the same and open until it is dropped.
        unsafe { AsyncFd::register(self) }.map_err(Into::into)
    }

    fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Another kind of socket, for a host in memory, where no frame is sent.
impl From<OwnedFd> for PacketSocket {
    fn from(socket: OwnedFd) -> Self {
        Self(socket)
    }
}

impl AsRawFd for PacketSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.raw()
    }
}

/// `TP_STATUS_CSUMNOTREADY` (include/uapi/linux/if_packet.h).
const CHECKSUM_NOT_READY: u32 = 1 << 3;

/// The length of an address, with which the kernel expects at least the fields before the MAC.
#[expect(clippy::cast_possible_truncation, reason = "20")]
const ADDRESS: libc::socklen_t = size_of::<libc::sockaddr_ll>() as libc::socklen_t;

const _: () = assert!(offset_of!(libc::sockaddr_ll, sll_addr) == 12);

/// A device as an address, with a protocol.
fn address(device: u32, protocol: u16) -> io::Result<libc::sockaddr_ll> {
    // SAFETY: all zero is a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = i32::try_from(device).map_err(io::Error::other)?;
    Ok(address)
}

fn check(answer: libc::c_int) -> io::Result<libc::c_int> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}
