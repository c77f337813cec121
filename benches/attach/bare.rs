//! The floor: the bare system calls, on their own. Nothing of nicd's kernel room is used here.

#![allow(unsafe_code)] // TUNSETIFF and TUNSETPERSIST have no safe wrapper

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};

use crate::place::Place;

const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const GETLINK: u16 = 18;
const SETLINK: u16 = 19;
const NEWADDR: u16 = 20;
const UP: u32 = 1;
const LOWER_UP: u32 = 0x1_0000;
const CREATE: u16 = 0x600; // NLM_F_CREATE | NLM_F_EXCL
const DUMP: u16 = 0x300;

/// One request being written.
pub struct Request(pub Vec<u8>);

impl Request {
    /// One of a kind, with what stands before its attributes.
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; 16];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | 1).to_ne_bytes());
        bytes.extend_from_slice(fixed);
        Self(bytes)
    }

    fn link(kind: u16, flags: u16, index: u32, up: Option<bool>) -> Self {
        let (set, change) = (up.map_or(0, u32::from) * UP, u32::from(up.is_some()) * UP);
        Self::new(kind, flags, &ifinfo(index, set, change))
    }

    /// Adds an attribute.
    pub fn put(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(4 + value.len()).expect("short");
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.put(kind, &value.to_ne_bytes())
    }

    /// Adds a text.
    pub fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        self.put(kind, format!("{value}\0").as_bytes())
    }

    fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.0.len();
        self.put(kind | 0x8000, &[]);
        fill(self);
        let length = u16::try_from(self.0.len() - start).expect("short");
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }
}

fn ifinfo(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut fixed = [0; 16];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..12].copy_from_slice(&flags.to_ne_bytes());
    fixed[12..16].copy_from_slice(&change.to_ne_bytes());
    fixed
}

/// The 32 bits there.
pub fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four octets"))
}

/// The 16 bits there.
pub fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes(bytes[at..at + 2].try_into().expect("two octets"))
}

/// The messages of a datagram: type and body.
fn messages(mut rest: &[u8]) -> Vec<(u16, &[u8])> {
    let mut all = Vec::new();
    while rest.len() >= 16 {
        let length = usize::try_from(word(rest, 0)).expect("a length");
        all.push((half(rest, 4), &rest[16..length]));
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    all
}

/// A netlink socket in the namespace it was opened in.
pub struct Wire {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Wire {
    /// Opens one here.
    pub fn open() -> Self {
        let mut socket = Socket::new(NETLINK_ROUTE).expect("netlink");
        socket.bind_auto().expect("bind");
        Self { socket, buffer: vec![0; 64 * 1024] }
    }

    /// Sends requests in one go and waits until the last is acknowledged.
    fn send(&mut self, requests: Vec<Request>) -> io::Result<()> {
        let last = requests.len() - 1;
        let mut all = Vec::new();
        for (place, Request(mut bytes)) in requests.into_iter().enumerate() {
            let length = u32::try_from(bytes.len()).expect("short");
            bytes[0..4].copy_from_slice(&length.to_ne_bytes());
            if place == last {
                bytes[6] |= 4; // NLM_F_ACK
                bytes[8] = 1;
            }
            all.extend_from_slice(&bytes);
        }
        self.socket.send_to(&all, &SocketAddr::new(0, 0), 0)?;
        loop {
            let bytes = self.receive()?;
            for (kind, body) in messages(bytes) {
                if kind == 2 {
                    return match word(body, 0).cast_signed() {
                        0 => Ok(()),
                        errno => Err(io::Error::from_raw_os_error(-errno)),
                    };
                }
            }
        }
    }

    fn receive(&mut self) -> io::Result<&[u8]> {
        let (length, _) = self.socket.recv_from(&mut &mut self.buffer[..], 0)?;
        Ok(&self.buffer[..length])
    }

    /// Makes a bridge as nicd does: no STP, no multicast snooping, up.
    pub fn bridge(&mut self, name: &str) -> u32 {
        let mut create = Request::link(NEWLINK, CREATE, 0, Some(true));
        create.text(3, name).nest(18, |f| {
            f.text(1, "bridge").nest(2, |f| {
                f.u32(1, 0).u32(5, 0).put(23, &[0]);
            });
        });
        self.send(vec![create]).expect("a bridge");
        index_of(name)
    }

    /// A tap as bare as can be: TUNSETIFF, then MAC, MTU, bridge and up in one message. The descriptor stays open.
    pub fn tap(&mut self, name: &str, mac: [u8; 6], master: u32) -> File {
        let file = open_tap(name, true);
        let mut set = Request::link(NEWLINK, 0, 0, Some(true));
        set.text(3, name).put(1, &mac).u32(4, 1500).u32(10, master);
        self.send(vec![set]).expect("the tap's settings");
        file
    }

    /// A veth with its other end in a guest's namespace; there one address, and up.
    pub fn veth(&mut self, name: &str, master: u32, guest: &mut Guest, address: [u8; 4]) {
        let index = guest.next_index;
        guest.next_index += 1;
        // The kernel takes an index for the other end only together with one for this end (`veth_newlink`).
        let mut create = Request::link(NEWLINK, CREATE, guest.first + index, Some(true));
        create.text(3, name).u32(4, 1500).u32(10, master).nest(18, |f| {
            f.text(1, "veth").nest(2, |f| {
                f.nest(1, |f| {
                    f.0.extend_from_slice(&ifinfo(index, 0, 0));
                    f.text(3, &format!("eth{}", index - FIRST_INDEX)).u32(4, 1500);
                    f.put(28, &guest.place.fd().as_raw_fd().to_ne_bytes());
                });
            });
        });
        self.send(vec![create]).expect("a veth");
        let mut fixed = [2, 16, 0, 0, 0, 0, 0, 0];
        fixed[4..8].copy_from_slice(&index.to_ne_bytes());
        let mut add = Request::new(NEWADDR, CREATE, &fixed);
        add.put(2, &address).put(1, &address);
        guest.wire.send(vec![add, Request::link(SETLINK, 0, index, Some(true))]).expect("the guest's end");
    }

    /// Looks at a link by index, which has the kernel do at once what it still has to do about its carrier.
    pub fn look(&mut self, index: u32) {
        self.send(vec![Request::link(GETLINK, 0, index, None)]).expect("a look");
    }

    /// Sets a link up or down.
    pub fn set(&mut self, index: u32, up: bool) {
        self.send(vec![Request::link(SETLINK, 0, index, Some(up))]).expect("up or down");
    }

    /// Moves links into a group, down and out of their bridge.
    pub fn gather(&mut self, indexes: &[u32], group: u32) {
        for index in indexes {
            let mut set = Request::link(SETLINK, 0, *index, Some(false));
            set.u32(27, group).u32(10, 0);
            self.send(vec![set]).expect("a group");
        }
    }

    /// Deletes a group; returns at the kernel's answer.
    pub fn delete_group(&mut self, group: u32) {
        let mut delete = Request::link(DELLINK, 0, 0, None);
        delete.u32(27, group);
        self.send(vec![delete]).expect("a group's end");
    }

    /// Dumps all links; how many there are.
    pub fn dump(&mut self) -> usize {
        let mut ask = Request::link(GETLINK, DUMP, 0, None);
        ask.u32(29, 8); // without statistics
        let length = u32::try_from(ask.0.len()).expect("short");
        ask.0[0..4].copy_from_slice(&length.to_ne_bytes());
        self.socket.send_to(&ask.0, &SocketAddr::new(0, 0), 0).expect("ask");
        let mut links = 0;
        loop {
            for (kind, _) in messages(self.receive().expect("a dump")) {
                match kind {
                    3 => return links,
                    _ => links += 1,
                }
            }
        }
    }
}

const FIRST_INDEX: u32 = 100;

/// A bare guest: its namespace, and a socket inside.
pub struct Guest {
    place: Place,
    wire: Wire,
    /// Indexes of the host's ends start here.
    first: u32,
    next_index: u32,
}

impl Guest {
    /// The n-th.
    pub fn new(number: u32) -> Self {
        let place = Place::new(&format!("b{number}"));
        let wire = place.inside(Wire::open);
        Self { place, wire, first: (number + 1) * 0x1_0000, next_index: FIRST_INDEX }
    }
}

/// The index of a link in this thread's namespace.
pub fn index_of(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).unwrap_or_else(|errno| panic!("{name}: {errno}"))
}

/// Opens a tap, making it when it is not there. Not `fresh`, it is opened as a VMM does one that nicd made.
pub fn open_tap(name: &str, fresh: bool) -> File {
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun").expect("/dev/net/tun");
    // SAFETY: ifreq is plain data of which all zeros is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, octet) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = libc::c_char::from_ne_bytes([octet]);
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | if fresh { 0 } else { libc::IFF_VNET_HDR };
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).expect("flags");
    // SAFETY: the request reads and writes one ifreq, and `request` is one that outlives the call.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    assert_eq!(answer, 0, "TUNSETIFF {name}: {}", io::Error::last_os_error());
    file
}

/// Lets a tap outlive its descriptor.
pub fn persist(tap: &File) {
    // SAFETY: the request takes its argument as a number.
    let answer = unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETPERSIST, 1 as libc::c_ulong) };
    assert_eq!(answer, 0, "TUNSETPERSIST: {}", io::Error::last_os_error());
}

/// What an event says of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// Which.
    pub index: u32,
    /// Whether it is gone.
    pub gone: bool,
    /// Whether it is up.
    pub up: bool,
    /// Whether it has carrier.
    pub carrier: bool,
}

/// The kernel's events about links, in the namespace it was opened in.
pub struct Events {
    socket: Socket,
    buffer: Vec<u8>,
    waiting: std::collections::VecDeque<Told>,
}

impl Events {
    /// Subscribes here.
    pub fn open() -> Self {
        let mut socket = Socket::new(NETLINK_ROUTE).expect("netlink");
        setsockopt(&socket, sockopt::RcvBufForce, &(64 << 20)).expect("a large buffer");
        socket.bind(&SocketAddr::new(0, 0)).expect("bind");
        socket.add_membership(1).expect("RTNLGRP_LINK");
        Self { socket, buffer: vec![0; 64 * 1024], waiting: std::collections::VecDeque::new() }
    }

    /// The next event, or none when none comes in time.
    pub fn next(&mut self, patience: Duration) -> Option<Told> {
        let until = Instant::now() + patience;
        while self.waiting.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).expect("a timeout");
            if poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], timeout).expect("poll") == 0 {
                return None;
            }
            self.take();
        }
        self.waiting.pop_front()
    }

    /// Waits for an event; when it was read.
    pub fn wait(&mut self, what: &str, fits: impl Fn(Told) -> bool) -> Instant {
        loop {
            let told = self.next(Duration::from_secs(20)).unwrap_or_else(|| panic!("no event: {what}"));
            if fits(told) {
                return Instant::now();
            }
        }
    }

    /// Takes everything there is by now, without waiting.
    pub fn drain(&mut self) -> Vec<Told> {
        std::iter::from_fn(|| self.next(Duration::ZERO)).collect()
    }

    fn take(&mut self) {
        let (length, _) = self.socket.recv_from(&mut &mut self.buffer[..], 0).expect("events");
        for (kind, body) in messages(&self.buffer[..length]) {
            // Copies that speak of the link as a bridge's port are of another family.
            if matches!(kind, NEWLINK | DELLINK) && body[0] == 0 {
                let flags = word(body, 8);
                let (up, carrier) = (flags & UP != 0, flags & LOWER_UP != 0);
                self.waiting.push_back(Told { index: word(body, 4), gone: kind == DELLINK, up, carrier });
            }
        }
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A durable commit as bare as can be: one row of 500 bytes.
pub struct Commits {
    connection: rusqlite::Connection,
    body: String,
    next: i64,
}

impl Commits {
    /// A database in `dir`.
    pub fn open(dir: &std::path::Path) -> Self {
        let connection = rusqlite::Connection::open(dir.join("floor.db")).expect("sqlite");
        connection.pragma_update(None, "journal_mode", "wal").expect("wal");
        connection.pragma_update(None, "synchronous", "full").expect("full");
        connection.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT)").expect("a table");
        Self { connection, body: "x".repeat(500), next: 0 }
    }

    /// Commits one record.
    pub fn commit(&mut self) {
        self.next += 1;
        let mut put = self.connection.prepare_cached("INSERT INTO t VALUES (?1, ?2)").expect("prepare");
        put.execute(rusqlite::params![self.next, self.body]).expect("insert");
    }
}
