//! A virtual machine's DHCP client, octet by octet.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nicd::kernel::tap;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{read, write};
use serde_json::json;

use crate::bytes::{BROADCAST, IP4, Ip4, Mac, UDP, ethernet, udp};
use crate::daemon::PATIENCE;
use crate::fixture::{Fixture, text};
use crate::netns::run;

/// What a VMM and the kernel put before each frame of a tap (`struct virtio_net_hdr`).
const TAP_HEADER: usize = 10;

pub const NOWHERE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
pub const DISCOVER: u8 = 1;
pub const OFFER: u8 = 2;
pub const REQUEST: u8 = 3;
pub const DECLINE: u8 = 4;
pub const ACK: u8 = 5;
pub const NAK: u8 = 6;
pub const RELEASE: u8 = 7;
pub const INFORM: u8 = 8;

/// A virtual machine with a port.
#[derive(Debug)]
pub struct Machine {
    pub port: String,
    pub mac: Mac,
    pub address: Ipv4Addr,
    tap: OwnedFd,
    xid: u32,
}

/// A message as a client sends it.
#[derive(Debug, Clone)]
pub struct Message {
    pub kind: u8,
    pub flags: u16,
    pub ciaddr: Ipv4Addr,
    pub giaddr: Ipv4Addr,
    pub options: Vec<u8>,
}

impl Message {
    pub fn of(kind: u8) -> Self {
        Self { kind, flags: 0, ciaddr: NOWHERE, giaddr: NOWHERE, options: Vec::new() }
    }

    pub fn from(self, ciaddr: Ipv4Addr) -> Self {
        Self { ciaddr, ..self }
    }

    pub fn with(mut self, code: u8, value: &[u8]) -> Self {
        self.options.extend([code, u8::try_from(value.len()).unwrap()]);
        self.options.extend(value);
        self
    }

    pub fn octets(&self, xid: u32, chaddr: Mac) -> Vec<u8> {
        let mut octets = vec![1, 1, 6, 0];
        octets.extend(xid.to_be_bytes());
        octets.extend([0, 0]);
        octets.extend(self.flags.to_be_bytes());
        for address in [self.ciaddr, NOWHERE, NOWHERE, self.giaddr] {
            octets.extend(address.octets());
        }
        octets.extend(chaddr);
        octets.resize(236, 0);
        octets.extend([99, 130, 83, 99, 53, 1, self.kind]);
        octets.extend(&self.options);
        octets.push(255);
        octets
    }
}

/// An answer as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub to: Mac,
    pub from: Mac,
    pub source: Ipv4Addr,
    pub target: Ipv4Addr,
    pub kind: u8,
    pub yiaddr: Ipv4Addr,
    pub ciaddr: Ipv4Addr,
    pub giaddr: Ipv4Addr,
    /// The UDP port it is for.
    pub port: u16,
    pub options: BTreeMap<u8, Vec<u8>>,
}

pub fn octets(mac: &str) -> Mac {
    let octets: Vec<u8> = mac.split(':').map(|octet| u8::from_str_radix(octet, 16).unwrap()).collect();
    octets.try_into().unwrap()
}

impl Machine {
    /// One that is attached to a network and ACTIVE.
    pub fn start(fixture: &mut Fixture, network: &str) -> Self {
        let port = fixture.create_port(json!({ "network_id": network }));
        Self::of(fixture, &port)
    }

    /// One with this port.
    pub fn of(fixture: &mut Fixture, port: &str) -> Self {
        let server = fixture.vm();
        fixture.attach(&server, json!({ "port_id": port }));
        Self::opened(fixture, port)
    }

    /// The same machine once its device was deleted under it, and made anew.
    pub fn anew(self, fixture: &mut Fixture) -> Self {
        drop(self.tap);
        fixture.wait_status(&self.port, "DOWN");
        run(&format!("ip link delete {}", fixture.device(&self.port)));
        fixture.events.wait_for("it is built", |event| event["port_id"] == self.port.as_str() && event["new"] == "BUILD");
        fixture.wait_status(&self.port, "DOWN");
        Self::opened(fixture, &self.port)
    }

    fn opened(fixture: &mut Fixture, port: &str) -> Self {
        let tap = tap::attach(&fixture.device(port).parse().unwrap(), 1, true).unwrap();
        fcntl(&tap, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        fixture.wait_status(port, "ACTIVE");
        let shown = fixture.port(port);
        let address = text(&shown["fixed_ips"][0]["ip_address"]).parse().unwrap();
        Self { port: port.to_owned(), mac: octets(&text(&shown["mac_address"])), address, tap, xid: 7 }
    }

    /// One that opens its device as soon as there is one: its name follows from the port's id.
    pub fn early(port: &str, mac: &str, address: &str) -> Self {
        let name = format!("nicd{}", &port.replace('-', "")[..11]);
        let deadline = Instant::now() + PATIENCE;
        // Else it would make one itself.
        while if_nametoindex(name.as_str()).is_err() {
            assert!(Instant::now() < deadline, "{name} is not made");
        }
        let tap = loop {
            match tap::attach(&name.parse().unwrap(), 1, true) {
                Ok(tap) => break tap,
                Err(error) => assert!(Instant::now() < deadline, "{name}: {error:?}"),
            }
        };
        fcntl(&tap, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        Self { port: port.to_owned(), mac: octets(mac), address: address.parse().unwrap(), tap, xid: 7 }
    }

    /// Sends a message to all, unless the device takes no frame yet; the number of the exchange.
    pub fn try_send(&mut self, message: &Message) -> Option<u32> {
        self.xid += 1;
        let frame = self.frame(&message.octets(self.xid, self.mac), None);
        write(&self.tap, &[&[0; TAP_HEADER][..], &frame].concat()).ok().map(|_| self.xid)
    }

    /// The frames that have come.
    pub fn frames(&mut self) -> Vec<Vec<u8>> {
        let (mut frames, mut buffer) = (Vec::new(), [0; 70_000]);
        while let Ok(length) = read(&self.tap, &mut buffer) {
            frames.push(buffer[TAP_HEADER..length].to_vec());
        }
        frames
    }

    pub fn send_frame(&self, frame: &[u8]) {
        loop {
            match write(&self.tap, &[&[0; TAP_HEADER], frame].concat()) {
                Ok(_) => return,
                Err(Errno::EAGAIN | Errno::ENOBUFS) => {
                    let _ = poll(&mut [PollFd::new(self.tap.as_fd(), PollFlags::POLLOUT)], PollTimeout::from(100_u8));
                }
                Err(error) => panic!("a tap: {error}"),
            }
        }
    }

    /// The frame of a message: to all, or from its own address to one MAC and address.
    pub fn frame(&self, message: &[u8], to: Option<(Mac, Ipv4Addr)>) -> Vec<u8> {
        let (mac, target, from) = match to {
            Some((mac, target)) => (mac, target, self.address),
            None => (BROADCAST, Ipv4Addr::BROADCAST, NOWHERE),
        };
        let packet = Ip4 { id: 1, from, to: target, protocol: UDP, options: Vec::new(), fragment: 0 };
        ethernet(mac, self.mac, IP4, &packet.packet(&udp(68, 67, message)))
    }

    /// Sends a message; the number of the exchange.
    pub fn send(&mut self, message: &Message, to: Option<(Mac, Ipv4Addr)>) -> u32 {
        self.xid += 1;
        self.send_frame(&self.frame(&message.octets(self.xid, self.mac), to));
        self.xid
    }

    /// Sends a message to all, and takes its answer.
    pub fn ask(&mut self, message: &Message) -> Answer {
        let xid = self.send(message, None);
        self.answer(xid, PATIENCE).unwrap_or_else(|| panic!("no answer to {message:?}"))
    }

    /// The same from the own address to one host.
    pub fn ask_one(&mut self, message: &Message, to: (Mac, Ipv4Addr)) -> Answer {
        let xid = self.send(message, Some(to));
        self.answer(xid, PATIENCE).unwrap_or_else(|| panic!("no answer to {message:?}"))
    }

    /// The same as a relay, from a server's port.
    pub fn ask_relayed(&mut self, message: &Message) -> Answer {
        self.xid += 1;
        let packet = Ip4 { id: 1, from: self.address, to: Ipv4Addr::BROADCAST, protocol: UDP, options: Vec::new(), fragment: 0 };
        let datagram = udp(67, 67, &message.octets(self.xid, self.mac));
        self.send_frame(&ethernet(BROADCAST, self.mac, IP4, &packet.packet(&datagram)));
        self.answer(self.xid, PATIENCE).unwrap_or_else(|| panic!("no answer to {message:?}"))
    }

    /// Nothing is said to a message: the answer to the next one is the first that comes.
    pub fn is_ignored(&mut self, message: &Message, to: Option<(Mac, Ipv4Addr)>) {
        let ignored = self.send(message, to);
        let next = self.send(&Message::of(DISCOVER), None);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (xid, answer) = self.next(deadline).expect("no answer to what follows");
            assert_ne!(xid, ignored, "an answer to {message:?}: {answer:?}");
            if xid == next {
                return;
            }
        }
    }

    /// The answer with this number.
    pub fn answer(&self, xid: u32, limit: Duration) -> Option<Answer> {
        let deadline = Instant::now() + limit;
        loop {
            match self.next(deadline)? {
                (number, answer) if number == xid => return Some(answer),
                _ => {}
            }
        }
    }

    /// The next DHCP message that comes, with its number.
    fn next(&self, deadline: Instant) -> Option<(u32, Answer)> {
        loop {
            if let Some(answer) = parse(&self.next_frame(deadline)?) {
                return Some(answer);
            }
        }
    }

    /// The next frame that comes.
    pub fn next_frame(&self, deadline: Instant) -> Option<Vec<u8>> {
        let mut buffer = [0; 70_000];
        loop {
            match read(&self.tap, &mut buffer) {
                Ok(length) => return Some(buffer[TAP_HEADER..length].to_vec()),
                Err(Errno::EAGAIN) => {
                    let left = deadline.checked_duration_since(Instant::now())?;
                    let wait = PollTimeout::try_from(left.min(Duration::from_secs(1))).unwrap();
                    let _ = poll(&mut [PollFd::new(self.tap.as_fd(), PollFlags::POLLIN)], wait);
                }
                Err(error) => panic!("a tap: {error}"),
            }
        }
    }
}

/// A server's message in a frame, whose checksums must be complete.
pub fn parse(frame: &[u8]) -> Option<(u32, Answer)> {
    let packet = etherparse::SlicedPacket::from_ethernet(frame).ok()?;
    let (Some(etherparse::NetSlice::Ipv4(ip)), Some(etherparse::TransportSlice::Udp(datagram))) =
        (&packet.net, &packet.transport)
    else {
        return None;
    };
    if datagram.source_port() != 67 || ![67, 68].contains(&datagram.destination_port()) {
        return None;
    }
    let header = ip.header();
    assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
    let right = datagram.to_header().calc_checksum_ipv4_raw(header.source(), header.destination(), datagram.payload()).unwrap();
    assert_eq!(datagram.checksum(), right, "UDP's checksum");
    let said = datagram.payload();
    assert!(said.len() >= 300, "BOOTP's messages are not shorter");
    assert_eq!(said[236..240], [99, 130, 83, 99]);
    assert_eq!(said[240], 53, "the message type comes first");
    let word = |at: usize| Ipv4Addr::from(*said[at..].first_chunk::<4>().unwrap());
    let mut options: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
    let mut rest = &said[240..];
    while let [code, tail @ ..] = rest {
        match code {
            255 => break,
            0 => rest = tail,
            code => {
                let length = usize::from(tail[0]);
                options.entry(*code).or_default().extend(&tail[1..=length]);
                rest = &tail[1 + length..];
            }
        }
    }
    let answer = Answer {
        to: frame[..6].try_into().unwrap(),
        from: frame[6..12].try_into().unwrap(),
        source: header.source_addr(),
        target: header.destination_addr(),
        kind: options[&53][0],
        yiaddr: word(16),
        ciaddr: word(12),
        giaddr: word(24),
        port: datagram.destination_port(),
        options,
    };
    Some((u32::from_be_bytes(*said[4..].first_chunk().unwrap()), answer))
}
