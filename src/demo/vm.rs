//! The VM stand-in: opens the tap as a VMM does and is the guest behind it, with smoltcp as its IP stack. ARP, neighbour
//! discovery and echo requests are answered by that stack; it shares nothing with the kernel's.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{read, write};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::icmp;
use smoltcp::time::Instant as Now;
use smoltcp::wire::{EthernetAddress, IpCidr};

use super::nic::Nic;
use super::page::{Context, Failure};
use super::ping::{LIMIT, echo_reply, echo_request};
use crate::kernel::tap;
use crate::model::{LinkName, Mac};

/// The identifier of this guest's echo requests.
const IDENT: u16 = 0x6e64;

/// `struct virtio_net_hdr` (include/uapi/linux/virtio_net.h). All zeros asks for nothing, and as no offload is switched on,
/// the kernel asks for nothing either.
const VNET_HDR: usize = 10;

/// An Ethernet header.
const ETHERNET: usize = 14;

/// The guest and its open tap, which closes when this is dropped.
pub(super) struct Vm {
    tap: Tap,
    stack: Interface,
    sockets: SocketSet<'static>,
    icmp: SocketHandle,
}

/// A guest that answers, on a thread of its own.
pub(super) struct RunningVm {
    /// Closed, it stops the thread.
    stop: UnixStream,
    thread: JoinHandle<Result<Vm, Failure>>,
}

impl Vm {
    /// Opens the NIC's tap, which gives it carrier.
    pub(super) fn boot(nic: &Nic) -> Result<Self, Failure> {
        let doing = format!("opening {}", nic.device);
        let (device, mac): (LinkName, Mac) = (nic.device.parse().context(&doing)?, nic.mac.parse().context(&doing)?);
        let mtu = nic.details["mtu"].as_u64().and_then(|mtu| usize::try_from(mtu).ok()).ok_or("no MTU").context(&doing)?;
        let vnet_hdr = nic.details["vnet_hdr"] == true;
        let file = tap::attach(&device, 1, vnet_hdr).context(&doing)?;
        let mut tap = Tap { file, header: if vnet_hdr { VNET_HDR } else { 0 }, mtu };
        let mut config = Config::new(EthernetAddress(mac.0).into());
        config.random_seed = rand::random();
        let mut stack = Interface::new(config, &mut tap, Now::now());
        let mut fit = Ok(());
        stack.update_ip_addrs(|addresses| {
            for address in &nic.addresses {
                let prefix = if address.is_ipv4() { 24 } else { 64 };
                fit = fit.and(addresses.push(IpCidr::new((*address).into(), prefix)));
            }
        });
        fit.context("the VM stand-in's addresses")?;
        let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 4], vec![0; 256]);
        let mut socket = icmp::Socket::new(buffer(), buffer());
        socket.bind(icmp::Endpoint::Ident(IDENT)).context("the VM stand-in's socket")?;
        let mut sockets = SocketSet::new(Vec::new());
        let icmp = sockets.add(socket);
        Ok(Self { tap, stack, sockets, icmp })
    }

    /// Lets it answer until it is stopped.
    pub(super) fn run(mut self) -> Result<RunningVm, Failure> {
        let doing = "starting the VM stand-in";
        let (stop, stopped) = UnixStream::pair().context(doing)?;
        let answer = move || {
            while !self.step(Some(stopped.as_fd()))? {}
            Ok(self)
        };
        Ok(RunningVm { stop, thread: thread::Builder::new().name("vm".to_owned()).spawn(answer).context(doing)? })
    }

    /// Sends what is due, waits for a frame or for `other`, and handles every frame that is there; answers whether `other` is
    /// ready.
    fn step(&mut self, other: Option<BorrowedFd<'_>>) -> Result<bool, Failure> {
        self.stack.poll(Now::now(), &mut self.tap, &mut self.sockets);
        let due = self.stack.poll_delay(Now::now(), &self.sockets).map_or(LIMIT, Duration::from).min(LIMIT);
        let mut files = vec![PollFd::new(self.tap.file.as_fd(), PollFlags::POLLIN)];
        files.extend(other.map(|other| PollFd::new(other, PollFlags::POLLIN)));
        match poll(&mut files, PollTimeout::try_from(due).unwrap_or(PollTimeout::ZERO)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Failure::new("the VM stand-in", errno)),
        }
        let is_ready = files.get(1).is_some_and(|file| file.any() == Some(true));
        // A deleted device's file reports an error (drivers/net/tun.c).
        if files[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR)) {
            return Err(Failure::new("the VM stand-in", "its tap was deleted"));
        }
        self.stack.poll(Now::now(), &mut self.tap, &mut self.sockets);
        Ok(is_ready)
    }

    /// Pings `count` times, one after the other; answers how many were answered.
    pub(super) fn ping(&mut self, to: IpAddr, count: u16) -> Result<u16, Failure> {
        let mut answered = 0;
        for number in 0..count {
            let at = Instant::now();
            let message = echo_request(to, IDENT, number);
            self.sockets.get_mut::<icmp::Socket<'_>>(self.icmp).send_slice(&message, to.into()).context("pinging")?;
            while at.elapsed() < LIMIT {
                self.step(None)?;
                if self.received(to, number) {
                    answered += 1;
                    break;
                }
            }
        }
        Ok(answered)
    }

    fn received(&mut self, from: IpAddr, number: u16) -> bool {
        let socket = self.sockets.get_mut::<icmp::Socket<'_>>(self.icmp);
        std::iter::from_fn(|| socket.recv().ok().map(|(message, _)| echo_reply(from, IDENT, message)))
            .any(|reply| reply == Some(number))
    }
}

impl RunningVm {
    /// Stops the thread.
    pub(super) fn stop(self) -> Result<Vm, Failure> {
        drop(self.stop);
        self.thread.join().map_err(|_| Failure::new("the VM stand-in", "its thread panicked"))?
    }
}

/// The open tap, as smoltcp drives it.
struct Tap {
    file: OwnedFd,
    /// The length of the virtio-net header.
    header: usize,
    mtu: usize,
}

impl Device for Tap {
    type RxToken<'a> = Frame;
    type TxToken<'a> = Sender<'a>;

    fn receive(&mut self, _: Now) -> Option<(Frame, Sender<'_>)> {
        let mut bytes = vec![0; self.header + ETHERNET + self.mtu];
        let length = read(&self.file, &mut bytes).ok()?;
        bytes.truncate(length);
        bytes.drain(..self.header.min(length));
        Some((Frame(bytes), Sender(self)))
    }

    fn transmit(&mut self, _: Now) -> Option<Sender<'_>> {
        Some(Sender(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = ETHERNET + self.mtu;
        capabilities
    }
}

/// A frame that came.
struct Frame(Vec<u8>);

impl RxToken for Frame {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

/// Room for a frame to send.
struct Sender<'a>(&'a Tap);

impl TxToken for Sender<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        let mut bytes = vec![0; self.0.header + length];
        let filled = fill(&mut bytes[self.0.header..]);
        // A frame that cannot be written is lost, as on any cable.
        let _ = write(&self.0.file, &bytes);
        filled
    }
}
