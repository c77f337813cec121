//! ICMP echo (RFC 792, RFC 4443): its messages, and pings from the guest that is a namespace.

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, setsockopt, socket, sockopt};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, Ipv4Packet};

use super::page::{Context, Failure, Page, micros};

/// How long an answer is waited for.
pub(super) const LIMIT: Duration = Duration::from_secs(1);

/// The time between two pings.
const STEP: Duration = Duration::from_millis(2);

/// How many pings a second are sent.
pub(super) const RATE: u32 = 500;

/// How many pings show that somebody is reached.
pub(super) const PINGS: u16 = 20;

/// A raw socket that speaks ICMP with one address.
#[derive(Debug)]
pub(super) struct Pinger {
    /// Raw, not UDP: the standard library's calls are the same for both.
    socket: UdpSocket,
    to: IpAddr,
    ident: u16,
}

/// What became of some pings.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    pub(super) sent: u16,
    pub(super) answered: u16,
    /// The longest time between two answers.
    pub(super) longest_gap: Duration,
}

impl Pinger {
    /// Opens one in the namespace of the calling thread.
    pub(super) fn open(to: IpAddr) -> Result<Self, Failure> {
        let open = || {
            let (family, protocol) = match to {
                IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
                IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
            };
            let raw: OwnedFd = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
            // Room for answers while this process is not scheduled.
            setsockopt(&raw, sockopt::RcvBuf, &(1 << 20))?;
            let socket = UdpSocket::from(raw);
            socket.connect((to, 0))?;
            Ok::<_, io::Error>(Self { socket, to, ident: rand::random() })
        };
        open().context(&format!("a raw socket to {to}"))
    }

    /// Pings at a steady rate, `most` times or until `stop`; then waits for the last answers.
    pub(super) fn ping(&self, most: u16, stop: &AtomicBool) -> Tally {
        let (mut tally, mut answered) = (Tally::default(), HashSet::new());
        let (mut last, mut due) = (Instant::now(), Instant::now());
        let mut receive = |until| {
            // An error (a host is unreachable) says that something is lost, which the count shows.
            while let Ok(Some(number)) = self.receive(until) {
                answered.insert(number);
                tally.longest_gap = tally.longest_gap.max(last.elapsed());
                last = Instant::now();
            }
            answered.len()
        };
        let mut sent = 0;
        while sent < most && !stop.load(Ordering::Relaxed) {
            // A ping that cannot be sent counts as sent, and so as lost.
            let _ = self.socket.send(&echo_request(self.to, self.ident, sent));
            sent += 1;
            due += STEP;
            receive(due);
        }
        let end = Instant::now() + LIMIT;
        while receive(Instant::now() + STEP) < usize::from(sent) && Instant::now() < end {}
        let answered = u16::try_from(answered.len()).unwrap_or(u16::MAX);
        Tally { sent, answered, ..tally }
    }

    /// The number of the next reply; none when there was none before `until`.
    fn receive(&self, until: Instant) -> io::Result<Option<u16>> {
        let mut buffer = [0; 256];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(left))?;
            match self.socket.recv(&mut buffer) {
                Ok(length) => {
                    let number = echo_reply(self.to, self.ident, without_header(self.to, &buffer[..length]));
                    if number.is_some() {
                        return Ok(number);
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Does something while pings go on; answers what it gave, and what became of the pings of each.
pub(super) fn while_pinging<T>(
    pingers: &[Pinger],
    work: impl FnOnce() -> Result<T, Failure>,
) -> Result<(T, Vec<Tally>), Failure> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let pings: Vec<_> = pingers.iter().map(|pinger| scope.spawn(|| pinger.ping(u16::MAX, &stop))).collect();
        let done = work();
        stop.store(true, Ordering::Relaxed);
        let tallies = pings.into_iter().map(|ping| ping.join().map_err(|_| Failure::new("pinging", "a thread panicked")));
        done.and_then(|done| Ok((done, tallies.collect::<Result<_, _>>()?)))
    })
}

/// Checks that each of some pings had an answer.
pub(super) fn check_lossless(page: &Page, tallies: &[Tally]) -> Result<(), Failure> {
    let sent: u32 = tallies.iter().map(|tally| u32::from(tally.sent)).sum();
    let lost: u32 = tallies.iter().map(|tally| u32::from(tally.sent - tally.answered)).sum();
    let gap = tallies.iter().map(|tally| tally.longest_gap).max().unwrap_or_default();
    let seen = format!("{sent} pings sent, {lost} lost; longest time between two answers {}", micros(gap));
    page.check(lost == 0 && sent > 0, &seen)
}

/// Checks that each of [`PINGS`] had an answer.
pub(super) fn check_answered(page: &Page, way: &str, answered: u16) -> Result<(), Failure> {
    page.check(answered == PINGS, &format!("{way}: {answered} of {PINGS} pings answered"))
}

/// An echo request for `to`. ICMPv6's checksum covers the addresses and is left to the IP stack.
pub(super) fn echo_request(to: IpAddr, ident: u16, seq_no: u16) -> Vec<u8> {
    let data = b"nicddemo";
    if to.is_ipv4() {
        let request = Icmpv4Repr::EchoRequest { ident, seq_no, data };
        let mut bytes = vec![0; request.buffer_len()];
        request.emit(&mut Icmpv4Packet::new_unchecked(&mut bytes), &ChecksumCapabilities::default());
        return bytes;
    }
    let (request, any) = (Icmpv6Repr::EchoRequest { ident, seq_no, data }, Ipv6Addr::UNSPECIFIED);
    let mut bytes = vec![0; request.buffer_len()];
    request.emit(&any, &any, &mut Icmpv6Packet::new_unchecked(&mut bytes), &ChecksumCapabilities::ignored());
    bytes
}

/// The number of the echo that a message from `from` replies to; none when it is something else.
pub(super) fn echo_reply(from: IpAddr, of: u16, message: &[u8]) -> Option<u16> {
    let (any, checksums) = (Ipv6Addr::UNSPECIFIED, ChecksumCapabilities::ignored());
    let (ident, number) = if from.is_ipv4() {
        match Icmpv4Repr::parse(&Icmpv4Packet::new_checked(message).ok()?, &checksums).ok()? {
            Icmpv4Repr::EchoReply { ident, seq_no, .. } => (ident, seq_no),
            _ => return None,
        }
    } else {
        match Icmpv6Repr::parse(&any, &any, &Icmpv6Packet::new_checked(message).ok()?, &checksums).ok()? {
            Icmpv6Repr::EchoReply { ident, seq_no, .. } => (ident, seq_no),
            _ => return None,
        }
    };
    (ident == of).then_some(number)
}

/// A raw IPv4 socket gives the packet with its header.
fn without_header(from: IpAddr, packet: &[u8]) -> &[u8] {
    if from.is_ipv4() { Ipv4Packet::new_checked(packet).map_or(&[], |packet| packet.payload()) } else { packet }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn replies_are_told_from_requests_and_rubbish() {
        for (ip, kind) in [(IpAddr::from(Ipv4Addr::LOCALHOST), 0), (Ipv6Addr::LOCALHOST.into(), 129)] {
            let mut message = echo_request(ip, 0x1234, 0xfffe);
            assert_eq!(echo_reply(ip, 0x1234, &message), None);
            message[0] = kind;
            assert_eq!(echo_reply(ip, 0x1234, &message), Some(0xfffe));
            assert_eq!(echo_reply(ip, 0x1235, &message), None);
            assert_eq!(echo_reply(ip, 0x1234, &message[..7]), None);
        }
    }
}
