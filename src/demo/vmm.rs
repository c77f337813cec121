//! The VM stand-in: opens the tap as a VMM does and is the guest behind it, with smoltcp as its IP stack. ARP, neighbour
//! discovery and echo requests are answered by that stack; it shares nothing with the kernel's.

mod card;

use std::io::{self, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
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
use super::machine::{Card, Order, Report};
use super::traffic::{LIMIT, Tally};

use card::Nic;

/// What echoes of this guest carry.
const IDENT: u16 = 0x6e64;

/// Serves the orders on standard input until it ends.
pub(super) fn run() -> Result<(), Failure> {
    let mut orders = Orders::default();
    let Some(Order::Open(card)) = orders.wait()? else { return Ok(()) };
    let at = Moment::now();
    let mut vm = Vm::boot(&card)?;
    report(&Report::Opened(at))?;
    loop {
        vm.step();
        if vm.nic.is_unplugged() {
            return report(&Report::Unplugged);
        }
        match orders.take()? {
            Some(Order::Ping(to, count)) => {
                let tally = vm.ping(to, count)?;
                report(&Report::Pinged(tally))?;
            }
            Some(Order::Unplug) => {
                drop(vm);
                return report(&Report::Unplugged);
            }
            Some(Order::Open(_)) => {}
            None if orders.ended => return Ok(()),
            None => vm.wait(Some(io::stdin().as_fd()), LIMIT)?,
        }
    }
}

fn report(report: &Report) -> Result<(), Failure> {
    let line = serde_json::to_string(report).map_err(trouble("reporting"))?;
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(Failure::Output)
}

/// Lines of standard input, read without a buffer that a `poll` would not know of.
#[derive(Debug, Default)]
struct Orders {
    unread: Vec<u8>,
    ended: bool,
}

impl Orders {
    /// The next order; none at the end.
    fn wait(&mut self) -> Result<Option<Order>, Failure> {
        loop {
            match self.take()? {
                None if !self.ended => ready(&mut [PollFd::new(io::stdin().as_fd(), PollFlags::POLLIN)], LIMIT)?,
                order => return Ok(order),
            }
        }
    }

    /// An order, if one is there.
    fn take(&mut self) -> Result<Option<Order>, Failure> {
        let input = io::stdin();
        let mut waiting = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
        ready(&mut waiting, Duration::ZERO)?;
        if waiting[0].any().unwrap_or(false) {
            let mut buffer = [0; 4096];
            let length = nix::unistd::read(&input, &mut buffer).map_err(trouble("standard input"))?;
            self.ended = length == 0;
            self.unread.extend(&buffer[..length]);
        }
        let Some(end) = self.unread.iter().position(|&byte| byte == b'\n') else { return Ok(None) };
        let line: Vec<u8> = self.unread.drain(..=end).collect();
        serde_json::from_slice(&line).map(Some).map_err(trouble("an order"))
    }
}

/// Waits until a descriptor is ready, at most for `limit`.
fn ready(descriptors: &mut [PollFd<'_>], limit: Duration) -> Result<(), Failure> {
    match poll(descriptors, PollTimeout::try_from(limit).unwrap_or(PollTimeout::ZERO)) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(trouble("waiting")(errno.desc())),
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
        let mut stack = Interface::new(config, &mut nic, now());
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
        self.stack.poll(now(), &mut self.nic, &mut self.sockets);
    }

    /// Waits for a frame, for `other`, or until the stack has something to do.
    fn wait(&mut self, other: Option<BorrowedFd<'_>>, limit: Duration) -> Result<(), Failure> {
        let due = self.stack.poll_delay(now(), &self.sockets).map_or(limit, Duration::from);
        let mut descriptors = vec![PollFd::new(self.nic.as_fd(), PollFlags::POLLIN)];
        descriptors.extend(other.map(|other| PollFd::new(other, PollFlags::POLLIN)));
        ready(&mut descriptors, due.min(limit))
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

fn now() -> Instant {
    Instant::from_micros(Moment::now().micros())
}
