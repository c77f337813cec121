//! The NIC that smoltcp drives: an open tap, frames with their virtio-net header.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::unistd::{read, write};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

use crate::demo::machine::Card;
use crate::kernel::tap::{self, TapError};

/// `struct virtio_net_hdr` (include/uapi/linux/virtio_net.h). All zeros asks for nothing, and as no offload is switched
/// on, the kernel asks for nothing either.
const VNET_HDR: usize = 10;

/// An Ethernet header.
const ETHERNET: usize = 14;

/// The open tap.
#[derive(Debug)]
pub(super) struct Nic {
    tap: OwnedFd,
    header: usize,
    mtu: usize,
    plug: Plug,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plug {
    In,
    Out,
}

impl Nic {
    /// Opens a tap as a VMM does, which gives it carrier.
    pub(super) fn plug(card: &Card) -> Result<Self, TapError> {
        let tap = tap::attach(&card.device, 1, card.vnet_hdr)?;
        let header = if card.vnet_hdr { VNET_HDR } else { 0 };
        Ok(Self { tap, header, mtu: card.mtu, plug: Plug::In })
    }

    /// Whether the tap was deleted.
    pub(super) fn is_unplugged(&self) -> bool {
        self.plug == Plug::Out
    }

    fn sender(&self) -> Sender<'_> {
        Sender { tap: self.tap.as_fd(), header: self.header }
    }
}

impl AsFd for Nic {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tap.as_fd()
    }
}

impl Device for Nic {
    type RxToken<'a> = Frame;
    type TxToken<'a> = Sender<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Frame, Sender<'_>)> {
        let mut bytes = vec![0; self.header + ETHERNET + self.mtu];
        match read(&self.tap, &mut bytes) {
            Ok(length) => {
                bytes.truncate(length);
                bytes.drain(..self.header.min(length));
                Some((Frame(bytes), self.sender()))
            }
            Err(Errno::EAGAIN | Errno::EINTR) => None,
            // EBADFD: the device behind the descriptor is gone (drivers/net/tun.c).
            Err(_) => {
                self.plug = Plug::Out;
                None
            }
        }
    }

    fn transmit(&mut self, _: Instant) -> Option<Sender<'_>> {
        Some(self.sender())
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = ETHERNET + self.mtu;
        capabilities
    }
}

/// A frame that came.
#[derive(Debug)]
pub(super) struct Frame(Vec<u8>);

impl RxToken for Frame {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

/// Room for a frame to send.
#[derive(Debug)]
pub(super) struct Sender<'a> {
    tap: BorrowedFd<'a>,
    header: usize,
}

impl TxToken for Sender<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        let mut bytes = vec![0; self.header + length];
        let filled = fill(&mut bytes[self.header..]);
        // A frame that does not get out is a frame lost, as on any wire.
        let _ = write(self.tap, &bytes);
        filled
    }
}
