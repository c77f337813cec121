//! The VM stand-in: opens the tap as a VMM does and is the guest behind it, with smoltcp as its IP stack. ARP, neighbour
//! discovery and echo requests are answered by that stack; it shares nothing with the kernel's.

mod card;

use std::io::Read;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::TryRecvError;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::icmp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpCidr};

use super::clock::Moment;
use super::echo::{self, Echo};
use super::failure::{Failure, trouble};
use super::machine::{Card, Order, Report, Told};
use super::traffic::{LIMIT, Tally};

use card::Nic;

/// What echoes of this guest carry.
const IDENT: u16 = 0x6e64;

/// Opens the NIC and serves the orders until the one who gives them is gone, or the NIC is.
pub(super) fn run(card: &Card, told: &Told) {
    // Nobody is left to be told.
    let _ = told.reports.send(serve(card, told));
}

fn serve(card: &Card, told: &Told) -> Result<Report, Failure> {
    let report = |report| told.reports.send(Ok(report)).map_err(trouble("reporting"));
    let at = Moment::now();
    let mut vm = Vm::boot(card)?;
    report(Report::Opened(at))?;
    loop {
        vm.step();
        if vm.nic.is_unplugged() {
            return Ok(Report::Unplugged);
        }
        match told.orders.try_recv() {
            Err(TryRecvError::Empty) => vm.wait(Some(told.bell.as_fd()), LIMIT)?,
            Err(TryRecvError::Disconnected) => return Ok(Report::Unplugged),
            Ok(Order::Unplug) => {
                drop(vm);
                return Ok(Report::Unplugged);
            }
            Ok(Order::Ping(to, count)) => {
                (&told.bell).read_exact(&mut [0]).map_err(trouble("an order"))?;
                let tally = vm.ping(to, count)?;
                report(Report::Pinged(tally))?;
            }
        }
    }
}

/// The guest behind the NIC.
struct Vm {
    nic: Nic,
    stack: Interface,
    sockets: SocketSet<'static>,
    pings: SocketHandle,
}

impl Vm {
    fn boot(card: &Card) -> Result<Self, Failure> {
        let mut nic = Nic::plug(card).map_err(trouble(format!("opening {}", card.device)))?;
        let mut config = Config::new(EthernetAddress(card.mac.0).into());
        config.random_seed = rand::random();
        let mut stack = Interface::new(config, &mut nic, Instant::now());
        let mut fit = Ok(());
        stack.update_ip_addrs(|addresses| {
            for network in &card.addresses {
                fit = fit.and(addresses.push(IpCidr::new(network.ip().into(), network.prefix())));
            }
        });
        fit.map_err(trouble("the VM stand-in's addresses"))?;
        let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 4], vec![0; 256]);
        let mut socket = icmp::Socket::new(buffer(), buffer());
        socket.bind(icmp::Endpoint::Ident(IDENT)).map_err(trouble("the VM stand-in's socket"))?;
        let mut sockets = SocketSet::new(Vec::new());
        let pings = sockets.add(socket);
        Ok(Self { nic, stack, sockets, pings })
    }

    /// Handles every frame that is there, and sends what is due.
    fn step(&mut self) {
        self.stack.poll(Instant::now(), &mut self.nic, &mut self.sockets);
    }

    /// Waits for a frame, for `other`, or until the stack has something to do.
    fn wait(&mut self, other: Option<BorrowedFd<'_>>, limit: Duration) -> Result<(), Failure> {
        let due = self.stack.poll_delay(Instant::now(), &self.sockets).map_or(limit, Duration::from);
        let mut descriptors = vec![PollFd::new(self.nic.as_fd(), PollFlags::POLLIN)];
        descriptors.extend(other.map(|other| PollFd::new(other, PollFlags::POLLIN)));
        match poll(&mut descriptors, PollTimeout::try_from(due.min(limit)).unwrap_or(PollTimeout::ZERO)) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(trouble("waiting")(errno.desc())),
        }
    }

    fn ping(&mut self, to: IpAddr, count: u16) -> Result<Tally, Failure> {
        let mut times = Vec::new();
        for number in 0..count {
            let at = Moment::now();
            let message = echo::request(to, Echo { ident: IDENT, number });
            let socket = self.sockets.get_mut::<icmp::Socket<'_>>(self.pings);
            socket.send_slice(&message, to.into()).map_err(trouble("pinging"))?;
            while at.elapsed().duration() < LIMIT && !self.nic.is_unplugged() {
                self.step();
                if self.heard(to, number) {
                    times.push(at.elapsed());
                    break;
                }
                self.wait(None, LIMIT)?;
            }
        }
        Ok(Tally::of(count, times))
    }

    fn heard(&mut self, from: IpAddr, number: u16) -> bool {
        let socket = self.sockets.get_mut::<icmp::Socket<'_>>(self.pings);
        while let Ok((message, _)) = socket.recv() {
            if echo::reply(from, message) == Some(Echo { ident: IDENT, number }) {
                return true;
            }
        }
        false
    }
}
