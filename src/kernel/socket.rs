//! One blocking netlink socket: requests in, each answer matched to its request.

use std::time::{Duration, Instant};

use netlink_packet_core::{DecodeError, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, NLMSG_OVERRUN};
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;

use super::OpErrorKind;
use super::answer::{Failure, Request, RequestError};
use super::message::{self, Batch, Message, Read};
use super::nft;
use crate::failpoints;
use crate::telemetry::meters;

/// The time limit of an answer. The kernel handles a request within the send call, so only a lost answer exceeds it.
pub(super) const LIMIT: Duration = Duration::from_secs(10);

/// For how long an interrupted dump is restarted, in seconds. Changes that interrupt dumps come in bursts.
const DUMP_LIMIT: Duration = Duration::from_secs(1);

/// How many dumps are tried without a pause. Later ones wait for a random time of up to [`REST`], because changes may be periodic.
const DUMPS_AT_ONCE: usize = 8;

/// See [`DUMPS_AT_ONCE`], in milliseconds.
const REST: Duration = Duration::from_millis(10);

/// How many interrupted dumps are merged.
const DUMPS_TOGETHER: usize = 3;

/// Enough for what the kernel puts into one datagram of a dump (at most 32 KiB; net/netlink/af_netlink.c).
const BUFFER: usize = 64 * 1024;

/// How many objects are asked for in one send: each answer takes some 5 KiB of the socket's room, which is 208 KiB by default, and one
/// that finds none is lost (`netlink_attachskb`, net/netlink/af_netlink.c).
const AT_ONCE: usize = 24;

/// The write requests of all threads since the process started: netlink messages that change something, and taps created or made
/// persistent. It stays zero after a restart on a host without drift.
pub fn writes() -> u64 {
    meters().kernel_writes.get()
}

/// Counts write requests outside netlink.
pub(super) fn count_writes(number: usize) {
    meters().kernel_writes.inc_by(u64::try_from(number).unwrap_or(u64::MAX));
}

/// A NETLINK_ROUTE socket in the namespace of the thread that opened it.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: Socket,
    seq: u32,
    buffer: Box<[u8]>,
    /// Whether an answer was lost. A dump may still be running on the socket, so the socket is not used again.
    spent: bool,
    /// Whether its transactions change the host, and are counted as writes.
    counted: bool,
}

/// What a message means for the wait.
pub(super) enum Step {
    More,
    Last,
}

impl Netlink {
    /// Opens a socket in this thread's namespace.
    pub(super) fn open() -> Result<Self, Failure> {
        configured(NETLINK_ROUTE).map(Self::over).map_err(|error| failed(Request::Open, &error))
    }

    /// Wraps a socket in a namespace, which another process may have opened.
    pub(super) fn over(socket: Socket) -> Self {
        Self { socket, seq: 1, buffer: vec![0; BUFFER].into_boxed_slice(), spent: false, counted: true }
    }

    /// The same in a namespace that has nothing to do with the host or its guests.
    pub(super) fn apart(socket: Socket) -> Self {
        Self { counted: false, ..Self::over(socket) }
    }

    /// Whether the socket has to be replaced.
    pub(super) fn spent(&self) -> bool {
        self.spent
    }

    /// The socket itself.
    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Sends changes in one call; returns the refused ones in order.
    pub(super) fn send(&mut self, batch: Batch) -> Result<Vec<RequestError>, Failure> {
        self.send_and_read(batch, |_| Ok(None::<()>)).map(|(refusals, _)| refusals)
    }

    /// The same with a read among them; also returns what `read` made of its answer.
    pub(super) fn send_and_read<T>(
        &mut self,
        mut batch: Batch,
        read: impl Fn(&[u8]) -> Read<T>,
    ) -> Result<(Vec<RequestError>, Option<T>), Failure> {
        let requests: Vec<Request> = batch.requests().collect();
        if requests.is_empty() {
            return Ok((Vec::new(), None));
        }
        let injected = failpoints::messages(requests.iter().map(|request| ("message", request.word())));
        injected.iter().filter(|one| !one.applied).for_each(|one| batch.blank(one.position));
        let injected = injected.iter().map(|one| RequestError { request: requests[one.position], errno: one.errno, text: None });
        let mut refusals: Vec<RequestError> = injected.collect();
        let fail = |errno| Failure::system(requests[0], errno);
        let (answered, seen) = failpoints::call(("netlink", "send"), || self.exchange(batch, &requests, read), fail)?;
        refusals.extend(answered);
        Ok((refusals, seen))
    }

    /// One send of changes, the refusals among the answers, and the one that is none.
    fn exchange<T>(
        &mut self,
        mut batch: Batch,
        requests: &[Request],
        read: impl Fn(&[u8]) -> Read<T>,
    ) -> Result<(Vec<RequestError>, Option<T>), Failure> {
        let last = requests.len().saturating_sub(1);
        count_writes(requests.iter().filter(|request| **request != Request::Look).count());
        batch.acknowledge_last();
        let first = self.transmit(&mut batch)?;
        let (mut refusals, mut seen) = (Vec::new(), None);
        self.receive(requests[last], |message| {
            let position = position(message, first);
            let Some(request) = requests.get(position) else { return Step::More };
            if message.message_type() != NLMSG_ERROR {
                // If the answer cannot be decoded, a separate read follows.
                seen = read(message.payload()).ok().flatten().or(seen.take());
                return Step::More;
            }
            refusals.extend(RequestError::read(*request, message));
            if position == last { Step::Last } else { Step::More }
        })?;
        Ok((refusals, seen))
    }

    /// Reads one object; `None` when it does not exist: no link (ENODEV), no entry (ENOENT).
    pub(super) fn ask<T>(&mut self, batch: Batch, read: impl Fn(&[u8]) -> Read<T>) -> Result<Option<T>, Failure> {
        let fail = |errno| Failure::system(Request::Look, errno);
        failpoints::call(("netlink", "ask"), || self.answer(batch, read), fail)
    }

    /// Reads several objects; returns each result in order.
    pub(super) fn ask_all<A, T>(
        &mut self,
        asked: &[A],
        add: impl Fn(&mut Batch, &A),
        read: impl Fn(&[u8]) -> Read<T>,
    ) -> Result<Vec<Result<Option<T>, Failure>>, Failure> {
        let fail = |errno| Failure::system(Request::Look, errno);
        let mut all = Vec::with_capacity(asked.len());
        for some in asked.chunks(AT_ONCE) {
            let mut batch = Batch::default();
            some.iter().for_each(|one| add(&mut batch, one));
            all.extend(failpoints::call(("netlink", "ask"), || self.answers(batch, &read), fail)?);
        }
        Ok(all)
    }

    pub(super) fn answer<T>(&mut self, batch: Batch, read: impl Fn(&[u8]) -> Read<T>) -> Result<Option<T>, Failure> {
        self.answers(batch, read)?.pop().unwrap_or(Ok(None))
    }

    /// Sends messages that each have one answer.
    fn answers<T>(
        &mut self,
        mut batch: Batch,
        read: impl Fn(&[u8]) -> Read<T>,
    ) -> Result<Vec<Result<Option<T>, Failure>>, Failure> {
        let requests: Vec<Request> = batch.requests().collect();
        let first = self.transmit(&mut batch)?;
        let mut answers: Vec<Option<Result<Option<T>, Failure>>> = requests.iter().map(|_| None).collect();
        let mut missing = requests.len();
        self.receive(requests.first().copied().unwrap_or(Request::Look), |message| {
            let position = position(message, first);
            let Some(answer) = answers.get_mut(position).filter(|answer| answer.is_none()) else { return Step::More };
            let request = requests[position];
            *answer = Some(match message.message_type() {
                NLMSG_ERROR => match RequestError::read(request, message) {
                    Some(refusal) if matches!(refusal.errno, Errno::ENODEV | Errno::ENOENT) => Ok(None),
                    Some(refusal) => Err(refusal.into()),
                    None => Ok(None),
                },
                _ => read(message.payload()).map_err(|error| unreadable(request, &error)),
            });
            missing -= 1;
            if missing == 0 { Step::Last } else { Step::More }
        })?;
        Ok(answers.into_iter().flatten().collect())
    }

    /// A complete dump, restarted while changes interrupt it. `ask` builds the request, `read` decodes one object.
    pub(super) fn dump<T>(&mut self, ask: impl Fn() -> Batch, read: impl Fn(&[u8]) -> Read<T>) -> Result<Vec<T>, Failure> {
        let fail = |errno| Failure::system(Request::Look, errno);
        failpoints::call(("netlink", "dump"), || self.dump_whole(ask, read), fail)
    }

    /// A complete dump, or the merged objects of several interrupted ones.
    pub(super) fn dump_all_there_is<T>(
        &mut self,
        ask: impl Fn() -> Batch,
        read: impl Fn(&[u8]) -> Read<T>,
    ) -> Result<Vec<T>, Failure> {
        let fail = |errno| Failure::system(Request::Look, errno);
        let dumps = || {
            let mut seen = Vec::new();
            for _ in 0..DUMPS_TOGETHER {
                let (all, whole) = self.dump_once(ask(), &read)?;
                if whole {
                    return Ok(all);
                }
                seen.extend(all);
            }
            Ok(seen)
        };
        failpoints::call(("netlink", "dump"), dumps, fail)
    }

    /// A complete dump without a failpoint of its own, for one that is part of a larger read.
    pub(super) fn dump_whole<T>(&mut self, ask: impl Fn() -> Batch, read: impl Fn(&[u8]) -> Read<T>) -> Result<Vec<T>, Failure> {
        let until = Instant::now() + DUMP_LIMIT;
        let mut tries = 0;
        loop {
            tries += 1;
            match self.dump_once(ask(), &read)? {
                (all, true) => return Ok(all),
                _ if Instant::now() >= until => {
                    return Err(Failure::new(
                        OpErrorKind::Other,
                        Request::Look,
                        format!("links changed during each of {tries} dumps"),
                    ));
                }
                _ if tries >= DUMPS_AT_ONCE => std::thread::sleep(REST.mul_f64(rand::random())),
                _ => {}
            }
        }
    }

    /// One dump, and whether no change interrupted it.
    fn dump_once<T>(&mut self, mut batch: Batch, read: &impl Fn(&[u8]) -> Read<T>) -> Result<(Vec<T>, bool), Failure> {
        let mut dump = Dump::of(self.transmit(&mut batch)?);
        self.receive(Request::Look, |message| dump.take(message, read))?;
        dump.end()
    }

    /// Sends a transaction of nf_tables changes, which the kernel applies completely or not at all.
    pub(super) fn transact(&mut self, request: Request, fill: impl FnOnce(&mut Batch)) -> Result<(), Failure> {
        let mut batch = begun(request, fill);
        if self.counted {
            count_writes(batch.requests().len() - 1);
        }
        batch.add(request, 0, nft::batch_mark(libc::NFNL_MSG_BATCH_END));
        self.judged(batch, request)
    }

    /// Lets the kernel validate such changes without applying them: it rolls back a batch without an end message
    /// (`nfnetlink_rcv_batch`, net/netfilter/nfnetlink.c).
    pub(super) fn judge(&mut self, request: Request, fill: impl FnOnce(&mut Batch)) -> Result<(), Failure> {
        self.judged(begun(request, fill), request)
    }

    /// The first refusal. The last change is answered in any case; a refusal of the whole names its first message.
    fn judged(&mut self, mut batch: Batch, request: Request) -> Result<(), Failure> {
        let asked = batch.acknowledged();
        let first = self.transmit(&mut batch)?;
        let mut refused = None;
        self.receive(request, |message| {
            let position = position(message, first);
            if position > asked || message.message_type() != NLMSG_ERROR {
                return Step::More;
            }
            refused = refused.take().or(RequestError::read(request, message));
            if position == 0 || position == asked { Step::Last } else { Step::More }
        })?;
        refused.map_or(Ok(()), |refusal| Err(refusal.into()))
    }

    /// Sends a batch, and returns the sequence number of its first message.
    fn transmit(&mut self, batch: &mut Batch) -> Result<u32, Failure> {
        let request = batch.requests().next().unwrap_or(Request::Look);
        let first = self.seq;
        self.seq = self.seq.wrapping_add(u32::try_from(batch.requests().len()).unwrap_or(1));
        let Some(bytes) = batch.finish(first) else {
            return Err(Failure::new(OpErrorKind::Other, request, "a value is too long for a netlink attribute"));
        };
        let kernel = SocketAddr::new(0, 0);
        self.socket.send_to(bytes, &kernel, 0).map_err(|error| failed(request, &error))?;
        Ok(first)
    }

    /// Passes each received message to `take` until `take` has the last one. Skips answers to earlier, abandoned requests, which have
    /// other sequence numbers.
    fn receive(&mut self, request: Request, mut take: impl FnMut(&Message<'_>) -> Step) -> Result<(), Failure> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let bytes = match receive_once(&self.socket, &mut self.buffer, 0) {
                Ok(bytes) => bytes,
                Err(error) => {
                    self.spent = true;
                    return Err(failed(request, &error));
                }
            };
            match walk(bytes, &mut take) {
                Ok(Step::More) => {}
                Ok(Step::Last) => return Ok(()),
                Err(error) => {
                    self.spent = true;
                    return Err(unreadable(request, &error));
                }
            }
            if Instant::now() >= deadline {
                self.spent = true;
                return Err(Failure::new(OpErrorKind::TimedOut, request, "the kernel gave no answer"));
            }
        }
    }
}

/// One dump as it comes in.
pub(super) struct Dump<T> {
    /// The number of the request.
    asked: u32,
    all: Vec<T>,
    /// A change interrupted the dump.
    interrupted: bool,
    /// It was refused, or a message could not be read.
    failed: Option<Failure>,
}

impl<T> Dump<T> {
    pub(super) fn of(asked: u32) -> Self {
        Self { asked, all: Vec::new(), interrupted: false, failed: None }
    }

    pub(super) fn take(&mut self, message: &Message<'_>, read: &impl Fn(&[u8]) -> Read<T>) -> Step {
        if message.sequence_number() != self.asked {
            return Step::More;
        }
        self.interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
        match message.message_type() {
            // Both begin with an errno; a dump that fails at its end says so in its DONE.
            NLMSG_DONE | NLMSG_ERROR => {
                match RequestError::read(Request::Look, message) {
                    // The table asked for does not exist.
                    Some(refusal) if refusal.errno == Errno::ENOENT => {}
                    Some(refusal) if matches!(refusal.errno, Errno::EINTR | Errno::EAGAIN) => self.interrupted = true,
                    refused => self.failed = self.failed.take().or(refused.map(Failure::from)),
                }
                return Step::Last;
            }
            NLMSG_OVERRUN => self.interrupted = true,
            _ => match read(message.payload()) {
                Ok(one) => self.all.extend(one),
                Err(error) => _ = self.failed.get_or_insert_with(|| unreadable(Request::Look, &error)),
            },
        }
        Step::More
    }

    /// The objects, and whether the dump was not interrupted. A dump with an unreadable message is an error.
    pub(super) fn end(self) -> Result<(Vec<T>, bool), Failure> {
        self.failed.map_or(Ok((self.all, !self.interrupted)), Err)
    }
}

/// Gives each message of a datagram to `take` until it has the last.
pub(super) fn walk(bytes: &[u8], mut take: impl FnMut(&Message<'_>) -> Step) -> Result<Step, DecodeError> {
    for message in message::messages(bytes) {
        if let Step::Last = take(&message?) {
            return Ok(Step::Last);
        }
    }
    Ok(Step::More)
}

/// The place in its send of the message that this one answers; beyond all of them for another send's.
fn position(message: &Message<'_>, first: u32) -> usize {
    usize::try_from(message.sequence_number().wrapping_sub(first)).unwrap_or(usize::MAX)
}

/// The failure of a message that cannot be understood.
fn unreadable(request: Request, error: &DecodeError) -> Failure {
    Failure::new(OpErrorKind::Other, request, format!("the kernel sent a message that cannot be read: {error}"))
}

/// Starts a transaction. The last change is acknowledged also when it succeeds.
fn begun(request: Request, fill: impl FnOnce(&mut Batch)) -> Batch {
    let mut batch = Batch::default();
    batch.add(request, 0, nft::batch_mark(libc::NFNL_MSG_BATCH_BEGIN));
    fill(&mut batch);
    batch.acknowledge_last();
    batch
}

/// One datagram, of the kernel's own; others are empty here.
pub(super) fn receive_once<'a>(socket: &Socket, buffer: &'a mut [u8], flags: i32) -> std::io::Result<&'a [u8]> {
    loop {
        let mut room = &mut *buffer;
        match socket.recv_from(&mut room, flags | libc::MSG_TRUNC) {
            Ok((_, from)) if from.port_number() != 0 => return Ok(&[]),
            Ok((length, _)) if length > buffer.len() => return Err(Errno::ENOBUFS.into()),
            Ok((length, _)) => return Ok(&buffer[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A socket for nf_tables, in the namespace of the thread that opens it.
pub(super) fn netfilter() -> std::io::Result<Socket> {
    configured(NETLINK_NETFILTER)
}

/// A socket with a limit in time, whose answers carry the kernel's words and no copy of the request.
fn configured(protocol: isize) -> std::io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.set_ext_ack(true)?;
    socket.set_cap_ack(true)?;
    socket.set_netlink_get_strict_chk(true)?;
    let seconds = i64::try_from(LIMIT.as_secs()).unwrap_or(i64::MAX);
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(seconds, 0))?;
    Ok(socket)
}

/// A socket call's failure.
pub(super) fn failed(request: Request, error: &std::io::Error) -> Failure {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EAGAIN) => {
            Failure::new(OpErrorKind::TimedOut, request, format!("the kernel gave no answer within {} s", LIMIT.as_secs()))
        }
        Some(errno) => Failure::system(request, errno),
        None => Failure::new(OpErrorKind::Other, request, error.to_string()),
    }
}
