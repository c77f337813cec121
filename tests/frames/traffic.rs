//! Sends frames of every class and counts what arrives, and where.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};

use crate::classes::{Class, Ends, Host, Verdict, classes, is_for_all};
use crate::daemon::PATIENCE;
use crate::netns::Guest;
pub use crate::wire::Nic;

/// Whether an isolated guest hears a frame that another guest may send: one for one host, ARP, or neighbour discovery.
fn is_needed(frame: &[u8]) -> bool {
    let arp = frame.get(12..14) == Some(&[8, 6]);
    let neighbours =
        frame.get(12..14) == Some(&[0x86, 0xdd]) && frame.get(20) == Some(&58) && matches!(frame.get(54), Some(135 | 136));
    !is_for_all(frame) || arp || neighbours
}

/// Somebody on the bridge.
#[derive(Debug, Clone, Copy)]
pub struct Party {
    pub name: &'static str,
    pub host: Host,
}

/// A frame that is sent again and again.
#[derive(Debug)]
struct Shot {
    class: usize,
    sender: usize,
    bytes: Vec<u8>,
    /// Who it is addressed to; none where it is for all.
    to: Option<usize>,
    /// Whether it has to arrive; none where that changes in the meantime.
    is_honest: Option<bool>,
    sent: u64,
    /// By party.
    got: Vec<u64>,
}

/// The host among the parties.
const HOST: usize = 3;

/// How long a frame may be on its way on a busy machine.
const FLIGHT: Duration = Duration::from_millis(200);

impl Shot {
    /// Whether it is from this MAC, to a DHCP server and of no relay, nor a later fragment, or a router solicitation; over IPv6 where
    /// nothing is before it.
    fn is_request(&self, of: Host) -> bool {
        if self.bytes.get(12..14) == Some(&[0x86, 0xdd]) {
            let at = |at: usize| self.bytes.get(at..at + 2);
            let is_one = match self.bytes.get(20) {
                Some(17) => at(56) == Some(&[2, 0x23]) && at(54) != Some(&[2, 0x23]),
                Some(58) => self.bytes.get(54) == Some(&133),
                _ => false,
            };
            return is_one && self.bytes.get(6..12) == Some(&of.mac);
        }
        let header = 14 + usize::from(self.bytes.get(14).unwrap_or(&0) & 0xf) * 4;
        let port = |at: usize| self.bytes.get(header + at..header + at + 2);
        let is_ip4 = self.bytes.get(12..14) == Some(&[8, 0]) && self.bytes.get(23) == Some(&17);
        let is_first = self.bytes.get(20..22).is_some_and(|two| two[0] & 0x1f == 0 && two[1] == 0);
        self.bytes.get(6..12) == Some(&of.mac) && is_ip4 && is_first && port(2) == Some(&[0, 67]) && port(0) != Some(&[0, 67])
    }
}

/// Who sends what, and who has got it.
#[derive(Debug)]
pub struct Traffic {
    classes: Vec<Class>,
    parties: Vec<Party>,
    senders: Vec<(usize, Option<Nic>)>,
    listeners: Vec<(usize, Nic)>,
    shots: Vec<Shot>,
    /// The shots by their octets, also without their outer tag, which the kernel keeps beside a frame.
    known: HashMap<Vec<u8>, usize>,
    /// Frames that came and that nobody sent like this, though from an invented MAC.
    strange: Vec<Vec<u8>>,
    pub total: u64,
    /// Who is isolated.
    pub isolated: Option<usize>,
}

impl Traffic {
    /// A sender without a NIC sends nothing before it has one.
    pub fn new(parties: &[Party], senders: Vec<(usize, Option<Nic>)>, listeners: Vec<(usize, Nic)>) -> Self {
        let (classes, parties) = (classes(), parties.to_vec());
        let mut all = Self {
            classes,
            parties,
            senders,
            listeners,
            shots: Vec::new(),
            known: HashMap::new(),
            strange: Vec::new(),
            total: 0,
            isolated: None,
        };
        let who: Vec<usize> = all.senders.iter().map(|(party, _)| *party).collect();
        for sender in who {
            all.prepare(sender, all.parties[sender].host);
        }
        // What had come before.
        all.forget();
        all
    }

    fn prepare(&mut self, sender: usize, own: Host) {
        let parties = self.parties.clone();
        for class in 0..self.classes.len() {
            for to in (0..parties.len()).filter(|to| *to != sender) {
                // Not whom it is sent to, and a guest: the first two parties and the third.
                let victim = (0..parties.len()).find(|one| ![sender, to].contains(one)).unwrap();
                let id = u16::try_from(class * 8 + sender + 1).unwrap();
                let ends = Ends { id, own, to: parties[to].host, victim: parties[victim].host };
                let built = self.classes[class];
                let bytes = built.frame(&ends);
                if is_for_all(&bytes) && self.shots.last().is_some_and(|last| last.class == class && last.sender == sender) {
                    continue;
                }
                let is_honest = Some(built.verdict == Verdict::Allowed);
                self.add(Shot {
                    class,
                    sender,
                    to: (!is_for_all(&bytes)).then_some(to),
                    bytes,
                    is_honest,
                    sent: 0,
                    got: Vec::new(),
                });
            }
        }
    }

    fn add(&mut self, mut shot: Shot) {
        shot.got = vec![0; self.parties.len()];
        let number = self.shots.len();
        let kind = shot.bytes.get(12..14);
        let mut seen_as = vec![shot.bytes.clone()];
        if matches!(kind, Some([0x81, 0] | [0x88, 0xa8])) && shot.bytes.len() > 18 {
            seen_as.push([&shot.bytes[..12], &shot.bytes[16..]].concat());
        }
        for bytes in seen_as {
            let other = self.known.insert(bytes, number);
            assert!(other.is_none(), "{} is as {:?}", self.classes[shot.class].name, other.map(|other| self.name(other)));
        }
        self.shots.push(shot);
    }

    fn name(&self, shot: usize) -> &'static str {
        self.classes[self.shots[shot].class].name
    }

    /// A party's addresses are about to change: what has one of the old or the new ones may arrive or not.
    pub fn changes(&mut self, sender: usize, to: Host) {
        for shot in &mut self.shots {
            if shot.sender == sender && shot.is_honest == Some(true) {
                shot.is_honest = None;
            }
        }
        // What has none of them is the same, and has to arrive all the time.
        let mut new = Self::new(&self.parties, Vec::new(), Vec::new());
        new.prepare(sender, to);
        for shot in new.shots {
            match self.known.get(&shot.bytes) {
                Some(same) => self.shots[*same].is_honest = shot.is_honest,
                None if shot.is_honest == Some(true) => self.add(Shot { is_honest: None, ..shot }),
                None => {}
            }
        }
    }

    /// A party's port security is off: what is for one host arrives, what switches say to each other does not, and of the rest
    /// the bridge may understand some and keep it.
    pub fn opens(&mut self, sender: usize) {
        let own = self.parties[sender].host;
        for shot in self.shots.iter_mut().filter(|shot| shot.sender == sender) {
            let class = &self.classes[shot.class];
            let to_bridges = shot.bytes.starts_with(&[1, 0x80, 0xc2, 0, 0]) && shot.bytes[5] != 0;
            shot.is_honest = match class.verdict {
                Verdict::Ended => Some(false),
                _ if to_bridges || shot.is_request(own) => Some(false),
                _ => (!is_for_all(&shot.bytes)).then_some(true),
            };
        }
    }

    /// A party's NIC is a trunk's: nothing with a tag comes from it, or goes to it.
    pub fn carries(&mut self, party: usize) {
        let is_tagged = |shot: &Shot| matches!(shot.bytes.get(12..14), Some([0x81, 0] | [0x88, 0xa8]));
        for shot in self.shots.iter_mut().filter(|shot| is_tagged(shot)) {
            if shot.sender == party || shot.to == Some(party) {
                shot.is_honest = Some(false);
            }
        }
    }

    /// nicd does not answer a party's DHCP requests: they are as other frames.
    pub fn is_not_served(&mut self, sender: usize) {
        for shot in self.shots.iter_mut().filter(|shot| shot.sender == sender) {
            if self.classes[shot.class].verdict == Verdict::Answered {
                shot.is_honest = Some(true);
            }
        }
    }

    /// Sends each frame once, and takes what has come. A sender whose device is not there or down sends nothing.
    pub fn round(&mut self) {
        for at in 0..self.senders.len() {
            self.send(at, |_| true);
        }
        self.take();
    }

    /// The same for one class; how many were sent.
    pub fn only(&mut self, class: &str) -> u64 {
        let number = self.classes.iter().position(|one| one.name == class).unwrap();
        let before = self.total;
        (0..self.senders.len()).for_each(|at| self.send(at, |shot| shot.class == number));
        self.take();
        self.total - before
    }

    fn send(&mut self, at: usize, which: impl Fn(&Shot) -> bool) {
        let (sender, Some(nic)) = &self.senders[at] else { return };
        for shot in self.shots.iter_mut().filter(|shot| shot.sender == *sender && which(shot)) {
            loop {
                match nic.send(&shot.bytes) {
                    Ok(()) => (shot.sent, self.total) = (shot.sent + 1, self.total + 1),
                    Err(Errno::ENETDOWN | Errno::ENXIO | Errno::ENODEV | Errno::EIO | Errno::EBADFD) => {}
                    Err(Errno::EAGAIN | Errno::ENOBUFS) => {
                        let _ = poll(&mut [PollFd::new(nic.fd().as_fd(), PollFlags::POLLOUT)], PollTimeout::from(100_u8));
                        continue;
                    }
                    Err(error) => panic!("{}: {error}", self.classes[shot.class].name),
                }
                break;
            }
        }
    }

    fn take(&mut self) {
        let mut buffer = [0; 4096];
        for (party, nic) in &self.listeners {
            while let Some(frame) = nic.next(&mut buffer) {
                match self.known.get(frame) {
                    Some(shot) => self.shots[*shot].got[*party] += 1,
                    // The host's own, and what guests' kernels answer.
                    None if frame.get(6..9) == Some(&[2, 0, 0]) && frame.get(9) == Some(&0xba) => {
                        self.strange.push(frame.to_vec())
                    }
                    None => {}
                }
            }
        }
    }

    /// Whether another frame arrives in this time.
    fn more_within(&self, time: Duration) -> bool {
        let mut waits: Vec<PollFd> =
            self.listeners.iter().map(|(_, nic)| PollFd::new(nic.fd().as_fd(), PollFlags::POLLIN)).collect();
        poll(&mut waits, PollTimeout::try_from(time).unwrap()).is_ok_and(|ready| ready > 0)
    }

    /// Forgets what was counted, with what was sent before and is on its way; how many frames that was.
    pub fn forget(&mut self) -> u64 {
        let deadline = Instant::now() + PATIENCE;
        while self.more_within(FLIGHT) && Instant::now() < deadline {
            self.take();
        }
        let arrived = self.shots.iter().flat_map(|shot| &shot.got).sum();
        for shot in &mut self.shots {
            shot.sent = 0;
            shot.got.fill(0);
        }
        self.strange.clear();
        arrived
    }

    /// How often a shot has to have arrived at a party.
    fn due(&self, shot: &Shot, party: usize) -> u64 {
        let is_for = shot.to.map_or(shot.sender != party, |to| to == party);
        let hears = self.isolated != Some(party) || is_needed(&shot.bytes);
        if is_for && hears { shot.sent } else { 0 }
    }

    /// What arrived that may not, and with `all` what did not arrive that has to.
    pub fn wrong(&mut self, all: bool) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.take();
            let (mut forged, mut lost) = (Vec::new(), Vec::new());
            let named = |shot: &Shot, what: &str, party: usize| {
                let [from, at] = [shot.sender, party].map(|one| self.parties[one].name);
                let reason = match self.classes[shot.class].verdict {
                    Verdict::Dropped(reason) => reason,
                    Verdict::Answered | Verdict::AnsweredOr(_) => "request",
                    Verdict::Allowed | Verdict::Ended => "",
                };
                format!(
                    "{reason}: {}, from {from} {what} {at}: {} of {}",
                    self.classes[shot.class].name, shot.got[party], shot.sent
                )
            };
            for shot in &self.shots {
                for (party, _) in &self.listeners {
                    let (got, due) = (shot.got[*party], self.due(shot, *party));
                    match shot.is_honest {
                        // The responder hears it on the bridge; the host's stack does not take it.
                        Some(false) if shot.is_request(self.parties[shot.sender].host) && *party == HOST => {}
                        Some(false) if got > 0 => forged.push(named(shot, "came to", *party)),
                        _ if got > due => forged.push(named(shot, "came too often to", *party)),
                        Some(true) if got < due => lost.push(named(shot, "was lost for", *party)),
                        _ => {}
                    }
                }
            }
            forged.extend(self.strange.iter().map(|frame| format!("from an invented MAC: {frame:x?}")));
            if !all || lost.is_empty() || Instant::now() > deadline {
                return if all { [forged, lost].concat() } else { forged };
            }
            // What is on its way arrives: then there is something to read.
            self.more_within(Duration::from_millis(100));
        }
    }

    /// Nothing forged has arrived, and everything honest has.
    #[track_caller]
    pub fn is_right(&mut self) {
        let wrong = self.wrong(true);
        assert!(wrong.is_empty(), "{} are wrong: {:#?}", wrong.len(), wrong.get(..40).unwrap_or(&wrong));
    }

    /// Nothing forged has arrived.
    #[track_caller]
    pub fn is_closed(&mut self) {
        let wrong = self.wrong(false);
        assert!(wrong.is_empty(), "{} are wrong: {:#?}", wrong.len(), wrong.get(..40).unwrap_or(&wrong));
    }
}

/// Traffic without a pause, on a thread of its own.
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    thread: JoinHandle<Traffic>,
}

impl Flood {
    pub fn start(traffic: Traffic) -> Self {
        Self::run(traffic, |_| {})
    }

    /// The first sender's NIC is in this namespace, as soon as there is one.
    pub fn as_soon_as_plugged(traffic: Traffic, guest: &Guest) -> Self {
        let namespace = File::open(&guest.path).unwrap();
        let mut inside = false;
        Self::run(traffic, move |traffic| {
            if !inside {
                setns(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
                inside = true;
            }
            if traffic.senders[0].1.is_none() {
                traffic.senders[0].1 = Nic::of("eth0");
            }
        })
    }

    fn run(mut traffic: Traffic, mut before: impl FnMut(&mut Traffic) + Send + 'static) -> Self {
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let thread = thread::spawn({
            let (stop, rounds) = (Arc::clone(&stop), Arc::clone(&rounds));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    before(&mut traffic);
                    traffic.round();
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
                traffic
            }
        });
        Self { stop, rounds, thread }
    }

    /// Waits for so many rounds from now on.
    pub fn goes_on(&self, rounds: usize) {
        let until = self.rounds.load(Ordering::Relaxed) + rounds;
        while self.rounds.load(Ordering::Relaxed) < until && !self.thread.is_finished() {
            thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn end(self) -> Traffic {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}
