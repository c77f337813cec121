//! Pings from the guest: a few, timed; or a thousand a second, counted.

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, setsockopt, socket, sockopt};

use super::clock::{Moment, Took};
use super::echo::{self, Echo};
use super::failure::{Failure, trouble};

/// How long an answer is waited for.
pub(super) const LIMIT: Duration = Duration::from_secs(1);

/// The time between two pings of a flow.
const STEP: Duration = Duration::from_millis(2);

/// How many pings a second a flow sends.
pub(super) const RATE: u32 = 500;

/// What became of some pings sent one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally {
    /// How many were sent.
    pub(super) sent: u16,
    /// How many were answered.
    pub(super) answered: u16,
    /// The median time there and back.
    pub(super) median: Took,
}

impl Tally {
    /// Sums up the times of those answered.
    pub(super) fn of(sent: u16, mut times: Vec<Took>) -> Self {
        times.sort_unstable();
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        Self { sent, answered: u16::try_from(times.len()).unwrap_or(u16::MAX), median }
    }
}

/// A raw socket that speaks ICMP with one address.
#[derive(Debug)]
pub(super) struct Line {
    /// Raw, not UDP: the standard library's calls are the same for both.
    socket: UdpSocket,
    to: IpAddr,
    ident: u16,
}

impl Line {
    /// Opens a line to `to` from the namespace of the calling thread.
    pub(super) fn open(to: IpAddr) -> Result<Self, Failure> {
        Self::dial(to).map_err(trouble(format!("a raw socket to {to}")))
    }

    fn dial(to: IpAddr) -> io::Result<Self> {
        let (family, protocol) = match to {
            IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
            IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
        };
        let raw: OwnedFd = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        // Room for answers while this process is not scheduled.
        setsockopt(&raw, sockopt::RcvBuf, &(1 << 20))?;
        let socket = UdpSocket::from(raw);
        socket.connect((to, 0))?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        Ok(Self { socket, to, ident: rand::random() })
    }

    fn send(&self, number: u16) -> io::Result<()> {
        self.socket.send(&echo::request(self.to, Echo { ident: self.ident, number })).map(drop)
    }

    /// The number of the next reply; none when there was none for a moment.
    fn receive(&self) -> io::Result<Option<u16>> {
        let mut buffer = [0; 256];
        match self.socket.recv(&mut buffer) {
            Ok(length) => {
                let message = echo::without_header(self.to, &buffer[..length]);
                Ok(echo::reply(self.to, message).filter(|echo| echo.ident == self.ident).map(|echo| echo.number))
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Pings `count` times, one after the other.
    pub(super) fn ping(&self, count: u16) -> Result<Tally, Failure> {
        let failed = || trouble::<io::Error>(format!("pinging {}", self.to));
        let mut times = Vec::new();
        for number in 0..count {
            let at = Moment::now();
            self.send(number).map_err(failed())?;
            while at.elapsed().duration() < LIMIT {
                if self.receive().map_err(failed())? == Some(number) {
                    times.push(at.elapsed());
                    break;
                }
            }
        }
        Ok(Tally::of(count, times))
    }
}

/// Pings without a pause, until it is finished.
#[derive(Debug)]
pub(super) struct Flow {
    shared: Arc<Shared>,
    sender: JoinHandle<()>,
    receiver: JoinHandle<Heard>,
}

#[derive(Debug)]
struct Shared {
    line: Line,
    sent: AtomicU32,
    stop: AtomicBool,
}

#[derive(Debug, Default)]
struct Heard {
    numbers: HashSet<u16>,
    longest_gap: Took,
}

/// What became of a flow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Flown {
    /// How many pings were sent.
    pub(super) sent: u32,
    /// How many of them were answered.
    pub(super) answered: u32,
    /// The longest time between two answers.
    pub(super) longest_gap: Took,
}

impl Flow {
    /// Starts to ping.
    pub(super) fn start(line: Line) -> Result<Self, Failure> {
        let shared = Arc::new(Shared { line, sent: AtomicU32::new(0), stop: AtomicBool::new(false) });
        let (sending, receiving) = (Arc::clone(&shared), Arc::clone(&shared));
        let failed = || trouble::<io::Error>("a thread for pings");
        let receiver = thread::Builder::new().spawn(move || receiving.hear()).map_err(failed())?;
        let sender = thread::Builder::new().spawn(move || sending.speak()).map_err(failed())?;
        Ok(Self { shared, sender, receiver })
    }

    /// Stops, waits for the last answers and counts.
    pub(super) fn finish(self) -> Result<Flown, Failure> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let panicked = |_| Failure::Trouble { doing: "pinging".to_owned(), said: "a thread of the demo panicked".to_owned() };
        self.sender.join().map_err(panicked)?;
        let heard = self.receiver.join().map_err(panicked)?;
        let answered = u32::try_from(heard.numbers.len()).unwrap_or(u32::MAX);
        Ok(Flown { sent: self.shared.sent.load(Ordering::Relaxed), answered, longest_gap: heard.longest_gap })
    }
}

impl Shared {
    fn speak(&self) {
        let mut due = std::time::Instant::now();
        // The number is 16 bits wide and must not come round again.
        for number in 0..u16::MAX {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            // What cannot be sent counts as sent, and so as lost.
            let _ = self.line.send(number);
            self.sent.fetch_add(1, Ordering::Relaxed);
            due += STEP;
            thread::sleep(due.saturating_duration_since(std::time::Instant::now()));
        }
    }

    fn hear(&self) -> Heard {
        let mut heard = Heard::default();
        let mut last = Moment::now();
        loop {
            // What an error says (a host unreachable) is that something is lost, which the count shows.
            if let Ok(Some(number)) = self.line.receive() {
                heard.numbers.insert(number);
                heard.longest_gap = heard.longest_gap.max(last.elapsed());
                last = Moment::now();
            }
            let all = heard.numbers.len() == self.sent.load(Ordering::Relaxed) as usize;
            if self.stop.load(Ordering::Relaxed) && (all || last.elapsed().duration() > LIMIT) {
                return heard;
            }
        }
    }
}

impl Flown {
    /// Both together.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            answered: self.answered + other.answered,
            longest_gap: self.longest_gap.max(other.longest_gap),
        }
    }

    /// How many were lost.
    pub(super) fn lost(self) -> u32 {
        self.sent.saturating_sub(self.answered)
    }
}
