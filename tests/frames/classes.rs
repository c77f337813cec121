//! Every class of frame: what it is, how it is built, and what becomes of it. `docs/filters.md` has the same table with reasons.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::bytes::{
    ARP, Arp, BROADCAST, DESTINATION, FRAGMENT, HOP_BY_HOP, ICMP, ICMP6, IGMP, IP4, IP6, Ip4, Ip6, Mac, RARP, ROUTING, TCP, UDP,
    alert, dhcp, ethernet, fragment, group_mac, icmp, link_layer, link_local, llc, options, snap, solicited, tagged, tcp, udp,
};

/// Somebody on the link.
#[derive(Debug, Clone, Copy)]
pub struct Host {
    pub mac: Mac,
    pub ip4: Ipv4Addr,
    pub ip6: Ipv6Addr,
}

impl Host {
    pub fn link_local(&self) -> Ipv6Addr {
        link_local(self.mac)
    }
}

/// Who a frame is from, and who it is about.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    /// The class's number, by which frames differ that are alike otherwise.
    pub id: u16,
    pub own: Host,
    /// Who it is sent to.
    pub to: Host,
    /// Who else there is, as whom the sender may not speak.
    pub victim: Host,
}

/// What becomes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Allowed,
    /// Dropped by the table, and counted for a reason.
    Dropped(&'static str),
    /// The kernel ends it before the table sees it.
    Ended,
    /// nicd alone gets it; where it does not answer the port's requests, it is allowed.
    Answered,
    /// nicd alone gets it; where it does not answer the port's requests, it is dropped and counted for this reason.
    AnsweredOr(&'static str),
}

use Verdict::{Allowed, Answered, AnsweredOr, Dropped, Ended};

/// A class of frame.
#[derive(Debug, Clone, Copy)]
pub struct Class {
    pub name: &'static str,
    pub verdict: Verdict,
    /// The published weakness of other programs that it is an example of; empty where there is none.
    pub known_as: &'static str,
    build: fn(&Ends) -> Vec<u8>,
}

impl Class {
    pub fn frame(&self, ends: &Ends) -> Vec<u8> {
        (self.build)(ends)
    }
}

/// Where a class's frames go without being addressed to one host.
pub fn is_for_all(frame: &[u8]) -> bool {
    frame[0] & 1 == 1
}

/// What follows IPv4's or IPv6's header.
const DATA: [u8; 24] = *b"what one host tells them";
const NOWHERE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const EVERYWHERE: Ipv4Addr = Ipv4Addr::BROADCAST;
const UNSPECIFIED: Ipv6Addr = Ipv6Addr::UNSPECIFIED;
/// A link-local address that is not made of a MAC (RFC 7217).
const PRIVATE: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x1234, 0x5678, 0x9abc, 0xdef0);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const MLD_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
const SNOOPERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x6a);
const PIM_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xd);
const DHCP_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
const MDNS6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 1, 3);
/// A host that there is none of.
const NOBODY: Host = Host {
    mac: [0x02, 0, 0, 0xba, 0xd0, 1],
    ip4: Ipv4Addr::new(192, 0, 2, 200),
    ip6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xbad),
};
const ETHER4: [u8; 6] = [0, 1, 8, 0, 6, 4];
const BRIDGES: Mac = [1, 0x80, 0xc2, 0, 0, 0];
const LLDP: u16 = 0x88cc;

fn with_source(mac: Mac, mut frame: Vec<u8>) -> Vec<u8> {
    frame[6..12].copy_from_slice(&mac);
    frame
}

fn addressed(to: Mac, mut frame: Vec<u8>) -> Vec<u8> {
    frame[..6].copy_from_slice(&to);
    frame
}

impl Ends {
    /// A frame of the sender's to whom it is for, padded as short ones are.
    fn frame(&self, kind: u16, payload: &[u8]) -> Vec<u8> {
        self.padded(ethernet(self.to.mac, self.own.mac, kind, payload))
    }

    fn broadcast(&self, kind: u16, payload: &[u8]) -> Vec<u8> {
        self.padded(ethernet(BROADCAST, self.own.mac, kind, payload))
    }

    fn padded(&self, mut frame: Vec<u8>) -> Vec<u8> {
        let id = self.id.to_be_bytes();
        while frame.len() < 60 {
            frame.push(id[frame.len() % 2]);
        }
        frame
    }

    fn ip4(&self, protocol: u8) -> Ip4 {
        Ip4 { id: self.id, from: self.own.ip4, to: self.to.ip4, protocol, options: Vec::new(), fragment: 0 }
    }

    fn own4(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        self.frame(IP4, &self.ip4(protocol).packet(payload))
    }

    /// A datagram from this address.
    fn from4(&self, from: Ipv4Addr) -> Vec<u8> {
        self.frame(IP4, &Ip4 { from, ..self.ip4(UDP) }.packet(&udp(7, 9, &DATA)))
    }

    /// From port to port, between these addresses.
    fn udp4(&self, from: Ipv4Addr, to: Ipv4Addr, [source, target]: [u16; 2], data: &[u8]) -> Vec<u8> {
        let frame = self.frame(IP4, &Ip4 { from, to, ..self.ip4(UDP) }.packet(&udp(source, target, data)));
        if to == EVERYWHERE { addressed(BROADCAST, frame) } else { frame }
    }

    /// IGMP or the like to a group.
    fn group4(&self, from: Ipv4Addr, to: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
        let options = if protocol == IGMP { vec![0x94, 4, 0, 0] } else { Vec::new() };
        let packet = Ip4 { from, to: to.into(), options, ..self.ip4(protocol) }.packet(payload);
        addressed([1, 0, 0x5e, to[1] & 0x7f, to[2], to[3]], self.frame(IP4, &packet))
    }

    /// An own datagram with octets of its IPv4 header changed.
    fn broken4(&self, at: usize, octets: &[u8]) -> Vec<u8> {
        let mut frame = self.own4(UDP, &udp(7, 9, &DATA));
        frame[14 + at..14 + at + octets.len()].copy_from_slice(octets);
        frame
    }

    fn arp(&self, operation: u16, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Arp {
        Arp { header: ETHER4, operation, sender, target }
    }

    /// The sender asks for who it sends to.
    fn asks(&self) -> Arp {
        self.arp(1, (self.own.mac, self.own.ip4), ([0; 6], self.to.ip4))
    }

    /// The sender answers that it has an address.
    fn answers(&self, mac: Mac, address: Ipv4Addr) -> Arp {
        self.arp(2, (mac, address), (self.to.mac, self.to.ip4))
    }

    fn ip6(&self) -> Ip6 {
        Ip6 { id: self.id, from: self.own.ip6, to: self.to.ip6 }
    }

    fn own6(&self, next: u8, payload: &[u8]) -> Vec<u8> {
        self.frame(IP6, &self.ip6().packet(next, payload))
    }

    fn from6(&self, from: Ipv6Addr) -> Vec<u8> {
        self.frame(IP6, &Ip6 { from, ..self.ip6() }.packet(UDP, &udp(7, 9, &DATA)))
    }

    /// A packet to a group.
    fn group6(&self, packet: &[u8]) -> Vec<u8> {
        let group: [u8; 16] = packet[24..40].try_into().unwrap();
        addressed(group_mac(group.into()), self.frame(IP6, packet))
    }

    /// MLD, behind the header that it has.
    fn mld(&self, from: Ipv6Addr, to: Ipv6Addr, kind: u8, body: &[u8]) -> Vec<u8> {
        let packet = Ip6 { from, to, ..self.ip6() };
        self.group6(&packet.packet(HOP_BY_HOP, &[alert(), packet.icmp(kind, body)].concat()))
    }

    /// A solicitation for an address.
    fn solicits(&self, from: Ipv6Addr, target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
        let packet = Ip6 { from, to: solicited(target), ..self.ip6() };
        self.group6(&packet.of_icmp(135, &[&[0; 4], &target.octets()[..], options].concat()))
    }

    /// The message that a host has an address.
    fn claim(&self, from: Ipv6Addr, target: Ipv6Addr, options: &[u8]) -> (Ip6, Vec<u8>) {
        let packet = Ip6 { from, to: ALL_NODES, ..self.ip6() };
        let message = packet.icmp(136, &[&[0x20, 0, 0, 0], &target.octets()[..], options].concat());
        (packet, message)
    }

    fn claims(&self, from: Ipv6Addr, target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
        let (packet, message) = self.claim(from, target, options);
        self.group6(&packet.packet(ICMP6, &message))
    }

    /// The same of a victim's address, behind these headers.
    fn hidden_claim(&self, first: u8, headers: &[u8]) -> Vec<u8> {
        let (packet, message) = self.claim(self.own.ip6, self.victim.ip6, &link_layer(2, self.own.mac));
        self.group6(&packet.packet(first, &[headers, &message].concat()))
    }

    /// A router's advertisement, behind these headers.
    fn router(&self, first: u8, headers: &[u8]) -> Vec<u8> {
        let packet = Ip6 { from: self.own.link_local(), to: ALL_NODES, ..self.ip6() };
        let body = [&[64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0], &link_layer(1, self.own.mac)[..]].concat();
        self.group6(&packet.packet(first, &[headers, &packet.icmp(134, &body)].concat()))
    }

    fn seeks_routers(&self, from: Ipv6Addr, options: &[u8]) -> Vec<u8> {
        let packet = Ip6 { from, to: ALL_ROUTERS, ..self.ip6() };
        self.group6(&packet.of_icmp(133, &[&[0; 4], options].concat()))
    }

    /// DHCP's message for IPv6, behind these headers.
    fn dhcp6(&self, from: Ipv6Addr, [source, target]: [u16; 2], first: u8, headers: &[u8]) -> Vec<u8> {
        let packet = Ip6 { from, to: DHCP_SERVERS, ..self.ip6() };
        self.group6(&packet.packet(first, &[headers, &udp(source, target, &[1, 0, 0, 1])].concat()))
    }

    /// An own datagram with octets of its IPv6 header changed.
    fn broken6(&self, at: usize, octets: &[u8]) -> Vec<u8> {
        let mut frame = self.own6(UDP, &udp(7, 9, &DATA));
        frame[14 + at..14 + at + octets.len()].copy_from_slice(octets);
        frame
    }

    /// A type that no rule knows.
    fn of_type(&self, kind: u16) -> Vec<u8> {
        let mut frame = self.frame(kind, &self.id.to_be_bytes());
        frame.resize(80, 0);
        frame
    }

    /// Spanning tree's message, which claims to be the root.
    fn bpdu(&self, to: Mac, version: u8) -> Vec<u8> {
        let kind = if version == 2 { 2 } else { 0 };
        let root = [&[0, 0], &self.own.mac[..]].concat();
        let message =
            [&[0x42, 0x42, 3, 0, 0, version, kind, 0x3c], &root[..], &[0; 4], &root, &[0x80, 1, 0, 0, 20, 0, 2, 0, 15, 0]];
        self.padded(llc(to, self.own.mac, &message.concat(), 0))
    }

    /// An own IPv4 packet in LLC's SNAP, whose length is off by so much.
    fn snap4(&self, off: i32) -> Vec<u8> {
        snap(&ethernet(self.to.mac, self.own.mac, IP4, &self.ip4(UDP).packet(&udp(7, 9, &DATA))), off)
    }
}

fn class(name: &'static str, verdict: Verdict, build: fn(&Ends) -> Vec<u8>) -> Class {
    Class { name, verdict, known_as: "", build }
}

/// A class that is a published weakness of other programs.
fn known(name: &'static str, known_as: &'static str, verdict: Verdict, build: fn(&Ends) -> Vec<u8>) -> Class {
    Class { name, verdict, known_as, build }
}

/// All classes.
pub fn classes() -> Vec<Class> {
    [macs(), ip4(), dhcp4(), multicast4(), arp(), ip6(), neighbours(), routers(), multicast6(), others()].concat()
}

fn macs() -> Vec<Class> {
    vec![
        class("own IPv4 from another port's MAC", Dropped("mac"), |e| with_source(e.victim.mac, e.own4(UDP, &udp(7, 9, &DATA)))),
        known("own IPv4 from an invented MAC", "CVE-2021-38598", Dropped("mac"), |e| {
            with_source(NOBODY.mac, e.own4(UDP, &udp(7, 9, &DATA)))
        }),
        class("another port's IPv4 and MAC", Dropped("mac"), |e| with_source(e.victim.mac, e.from4(e.victim.ip4))),
        class("IPv6 from another port's MAC", Dropped("mac"), |e| with_source(e.victim.mac, e.from6(e.victim.ip6))),
        known("own ARP from an invented MAC", "CVE-2016-5363", Dropped("mac"), |e| {
            with_source(NOBODY.mac, e.broadcast(ARP, &e.asks().message()))
        }),
        known("unknown type from an invented MAC", "CVE-2016-5363", Dropped("mac"), |e| {
            with_source(NOBODY.mac, e.of_type(0x88b6))
        }),
        class("RARP from an invented MAC", Dropped("mac"), |e| {
            with_source(NOBODY.mac, e.broadcast(RARP, &e.arp(3, (e.own.mac, NOWHERE), (e.own.mac, NOWHERE)).message()))
        }),
        class("VLAN tag from an invented MAC", Dropped("mac"), |e| {
            with_source(NOBODY.mac, tagged(&e.own4(UDP, &udp(7, 9, &DATA)), 0x8100, 5))
        }),
        class("LLC from an invented MAC", Dropped("mac"), |e| with_source(NOBODY.mac, e.snap4(0))),
        class("BPDU from an invented MAC", Dropped("mac"), |e| with_source(NOBODY.mac, e.bpdu(BRIDGES, 0))),
        class("VRRP's MAC without a pair", Dropped("mac"), |e| {
            with_source([0, 0, 0x5e, 0, 1, 7], e.group4(e.own.ip4, [224, 0, 0, 18], 112, &[0x21, 7, 100, 0, 0, 1, 0, 0]))
        }),
        class("MAC of a group as source", Ended, |e| with_source([1, 0, 0x5e, 0, 0, 9], e.own4(UDP, &udp(7, 9, &DATA)))),
        class("MAC 0 as source", Ended, |e| with_source([0; 6], e.own4(UDP, &udp(7, 9, &DATA)))),
    ]
}

fn ip4() -> Vec<Class> {
    vec![
        class("IPv4: UDP", Allowed, |e| e.own4(UDP, &udp(7, 9, &DATA))),
        class("IPv4: TCP", Allowed, |e| e.own4(TCP, &tcp(7, 80))),
        class("IPv4: ICMP echo", Allowed, |e| e.own4(ICMP, &icmp(0, 0, &DATA))),
        class("IPv4: GRE, ESP and other protocols", Allowed, |e| e.own4(50, &DATA)),
        class("IPv4 to all", Allowed, |e| e.udp4(e.own.ip4, EVERYWHERE, [7, 9], &DATA)),
        class("IPv4 to a group (mDNS)", Allowed, |e| e.group4(e.own.ip4, [224, 0, 0, 251], UDP, &udp(5353, 5353, &DATA))),
        class("IPv4: VRRP from the own MAC", Allowed, |e| {
            e.group4(e.own.ip4, [224, 0, 0, 18], 112, &[0x21, 8, 100, 0, 0, 1, 0, 0])
        }),
        class("IPv4 with options", Allowed, |e| {
            e.frame(IP4, &Ip4 { options: vec![7, 7, 4, 0, 0, 0, 0, 0], ..e.ip4(UDP) }.packet(&udp(7, 9, &DATA)))
        }),
        class("IPv4: first fragment", Allowed, |e| {
            e.frame(IP4, &Ip4 { fragment: 0x2000, ..e.ip4(UDP) }.packet(&udp(7, 9, &DATA)))
        }),
        class("IPv4: first fragment of 8 octets", Allowed, |e| {
            e.frame(IP4, &Ip4 { fragment: 0x2000, ..e.ip4(TCP) }.packet(&tcp(7, 81)[..8]))
        }),
        class("IPv4: later fragment", Allowed, |e| e.frame(IP4, &Ip4 { fragment: 3, ..e.ip4(UDP) }.packet(&DATA))),
        class("IPv4: later fragment that looks like a DHCP server's", Allowed, |e| {
            e.frame(IP4, &Ip4 { fragment: 3, ..e.ip4(UDP) }.packet(&udp(67, 68, &DATA)))
        }),
        class("IPv4 of the MTU", Allowed, |e| e.own4(UDP, &udp(7, 9, &[7; 1472]))),
        class("IPv4 of an odd length, not padded", Allowed, |e| {
            ethernet(e.to.mac, e.own.mac, IP4, &e.ip4(UDP).packet(&udp(7, 9, &DATA[..3])))
        }),
        class("IPv4 with octets behind it", Allowed, |e| {
            let mut frame = e.own4(UDP, &udp(7, 9, &DATA[..5]));
            frame.resize(200, 0xee);
            frame
        }),
        class("another port's IPv4", Dropped("ip4"), |e| e.from4(e.victim.ip4)),
        class("an IPv4 address of nobody", Dropped("ip4"), |e| e.from4(NOBODY.ip4)),
        class("IPv4 from 0.0.0.0", Dropped("ip4"), |e| e.from4(NOWHERE)),
        class("IPv4 from 255.255.255.255", Dropped("ip4"), |e| e.from4(EVERYWHERE)),
        class("IPv4 from 127.0.0.1", Dropped("ip4"), |e| e.from4(Ipv4Addr::LOCALHOST)),
        class("IPv4 from a group", Dropped("ip4"), |e| e.from4(Ipv4Addr::new(224, 0, 0, 1))),
        class("another's IPv4 with options", Dropped("ip4"), |e| {
            let packet = Ip4 { options: vec![7, 7, 4, 0, 0, 0, 0, 0], from: e.victim.ip4, ..e.ip4(UDP) };
            e.frame(IP4, &packet.packet(&udp(7, 9, &DATA)))
        }),
        class("another's IPv4: later fragment", Dropped("ip4"), |e| {
            e.frame(IP4, &Ip4 { fragment: 3, from: e.victim.ip4, ..e.ip4(UDP) }.packet(&DATA))
        }),
        class("IPv4 header cut off", Dropped("ip4"), |e| ethernet(e.to.mac, e.own.mac, IP4, &e.broken4(0, &[])[14..30])),
        class("IPv4 without a header", Dropped("ip4"), |e| ethernet(e.to.mac, e.own.mac, IP4, &[])),
        class("IPv4 with a header of 16 octets", Dropped("ip4"), |e| e.broken4(0, &[0x44])),
        class("IPv4 with a header longer than it", Dropped("ip4"), |e| e.broken4(2, &[0, 18])),
        class("IPv4 that ends behind its frame", Dropped("ip4"), |e| e.broken4(2, &[0, 200])),
        class("IPv4's type with version 6", Dropped("ip4"), |e| e.broken4(0, &[0x65])),
    ]
}

/// A DHCP message that this relay has sent on.
fn relayed(mut message: Vec<u8>, relay: Ipv4Addr) -> Vec<u8> {
    message[24..28].copy_from_slice(&relay.octets());
    message
}

fn dhcp4() -> Vec<Class> {
    vec![
        class("DHCP: a client without an address", Answered, |e| e.udp4(NOWHERE, EVERYWHERE, [68, 67], &dhcp(1, e.own.mac))),
        class("DHCP: a client renews", Answered, |e| e.udp4(e.own.ip4, e.to.ip4, [68, 67], &dhcp(1, e.own.mac))),
        known("DHCP: a client from another's address", "CVE-2016-5362", AnsweredOr("ip4"), |e| {
            e.udp4(e.victim.ip4, EVERYWHERE, [68, 67], &dhcp(1, e.own.mac))
        }),
        class("DHCP: a client asks for another's MAC", Dropped("ip4"), |e| {
            e.udp4(NOWHERE, EVERYWHERE, [68, 67], &dhcp(1, NOBODY.mac))
        }),
        class("DHCP: a client renews for another's MAC", Dropped("ip4"), |e| {
            e.udp4(e.own.ip4, e.to.ip4, [68, 67], &dhcp(1, e.victim.mac))
        }),
        class("DHCP: a client from another's MAC", Dropped("mac"), |e| {
            Ends { own: e.victim, ..*e }.udp4(NOWHERE, EVERYWHERE, [68, 67], &dhcp(1, e.victim.mac))
        }),
        class("DHCP: a client without an address asks one host", AnsweredOr("ip4"), |e| {
            e.udp4(NOWHERE, e.to.ip4, [68, 67], &dhcp(1, e.own.mac))
        }),
        class("DHCP: a client from another port", Dropped("ip4"), |e| e.udp4(NOWHERE, EVERYWHERE, [69, 67], &dhcp(1, e.own.mac))),
        class("DHCP: a request cut off", Dropped("ip4"), |e| e.udp4(NOWHERE, EVERYWHERE, [68, 67], &dhcp(1, e.own.mac)[..28])),
        class("DHCP: a server", Dropped("dhcp_server"), |e| e.udp4(e.own.ip4, EVERYWHERE, [67, 68], &dhcp(2, e.to.mac))),
        class("DHCP: a server from another's address", Dropped("dhcp_server"), |e| {
            e.udp4(e.victim.ip4, e.to.ip4, [67, 68], &dhcp(2, e.to.mac))
        }),
        class("DHCP: a server from another port", Dropped("dhcp_server"), |e| {
            e.udp4(e.own.ip4, e.to.ip4, [4011, 68], &dhcp(2, e.to.mac))
        }),
        class("DHCP: a relay", Dropped("dhcp_server"), |e| e.udp4(e.own.ip4, e.to.ip4, [67, 67], &dhcp(1, e.own.mac))),
        class("DHCP: a guest that relays for itself", AnsweredOr("dhcp_server"), |e| {
            e.udp4(e.own.ip4, e.to.ip4, [67, 67], &relayed(dhcp(1, e.own.mac), e.own.ip4))
        }),
        class("DHCP: a relay with another's address", Dropped("dhcp_server"), |e| {
            e.udp4(e.own.ip4, e.to.ip4, [67, 67], &relayed(dhcp(1, e.own.mac), e.victim.ip4))
        }),
        class("DHCP: a server's answer to itself as a relay", Dropped("dhcp_server"), |e| {
            e.udp4(e.own.ip4, e.to.ip4, [67, 67], &relayed(dhcp(2, e.to.mac), e.own.ip4))
        }),
        class("DHCP: a server's first fragment", Dropped("dhcp_server"), |e| {
            let packet = Ip4 { fragment: 0x2000, ..e.ip4(UDP) };
            e.frame(IP4, &packet.packet(&udp(67, 68, &dhcp(2, e.to.mac))[..8]))
        }),
        class("DHCP: a server behind IPv4's options", Dropped("dhcp_server"), |e| {
            let packet = Ip4 { options: vec![1, 1, 1, 0], ..e.ip4(UDP) };
            e.frame(IP4, &packet.packet(&udp(67, 68, &dhcp(2, e.to.mac))))
        }),
    ]
}

fn multicast4() -> Vec<Class> {
    const GROUP: [u8; 4] = [239, 1, 2, 3];
    fn v3() -> Vec<u8> {
        icmp(0x22, 0, &[0, 0, 0, 1, 4, 0, 0, 0, 239, 1, 2, 3])
    }
    vec![
        class("IGMPv2 report", Allowed, |e| e.group4(e.own.ip4, GROUP, IGMP, &icmp(0x16, 0, &GROUP))),
        class("IGMPv2 leave", Allowed, |e| e.group4(e.own.ip4, [224, 0, 0, 2], IGMP, &icmp(0x17, 0, &GROUP))),
        class("IGMPv3 report", Allowed, |e| e.group4(e.own.ip4, [224, 0, 0, 22], IGMP, &v3())),
        class("IGMPv3 report from 0.0.0.0", Allowed, |e| e.group4(NOWHERE, [224, 0, 0, 22], IGMP, &v3())),
        class("IGMPv3 report from another's address", Dropped("ip4"), |e| e.group4(e.victim.ip4, [224, 0, 0, 22], IGMP, &v3())),
        class("IGMP query", Dropped("ip4"), |e| e.group4(e.own.ip4, [224, 0, 0, 1], IGMP, &icmp(0x11, 100, &[0; 4]))),
        class("IGMP query from 0.0.0.0", Dropped("ip4"), |e| e.group4(NOWHERE, [224, 0, 0, 1], IGMP, &icmp(0x11, 101, &[0; 4]))),
        class("IGMP: multicast router advertisement", Dropped("ip4"), |e| {
            e.group4(e.own.ip4, [224, 0, 0, 106], IGMP, &icmp(0x30, 20, &[0; 4]))
        }),
        class("IGMP in a fragment", Dropped("ip4"), |e| {
            let packet = Ip4 { to: [224, 0, 0, 22].into(), fragment: 0x2000, ..e.ip4(IGMP) };
            addressed([1, 0, 0x5e, 0, 0, 22], e.frame(IP4, &packet.packet(&v3())))
        }),
        class("DVMRP", Dropped("ip4"), |e| e.group4(e.own.ip4, [224, 0, 0, 4], IGMP, &icmp(0x13, 1, &[0, 0, 0xff, 3]))),
        class("PIM hello in IPv4", Dropped("ip4"), |e| {
            e.group4(e.own.ip4, [224, 0, 0, 13], 103, &icmp(0x20, 0, &[0, 1, 0, 2, 0, 105]))
        }),
    ]
}

fn arp() -> Vec<Class> {
    vec![
        class("ARP request", Allowed, |e| e.broadcast(ARP, &e.asks().message())),
        class("ARP request to one host", Allowed, |e| e.frame(ARP, &e.asks().message())),
        class("ARP reply", Allowed, |e| e.frame(ARP, &e.answers(e.own.mac, e.own.ip4).message())),
        class("ARP probe for the own address", Allowed, |e| {
            e.broadcast(ARP, &e.arp(1, (e.own.mac, NOWHERE), ([0; 6], e.own.ip4)).message())
        }),
        class("gratuitous ARP request", Allowed, |e| {
            e.broadcast(ARP, &e.arp(1, (e.own.mac, e.own.ip4), ([0; 6], e.own.ip4)).message())
        }),
        class("gratuitous ARP reply", Allowed, |e| {
            e.broadcast(ARP, &e.arp(2, (e.own.mac, e.own.ip4), (BROADCAST, e.own.ip4)).message())
        }),
        class("ARP with octets behind it", Allowed, |e| e.frame(ARP, &[&e.asks().message()[..], &[0xee; 171]].concat())),
        // Without the target's MAC it would be as the guest's kernel asks a neighbour that it knows.
        class("ARP request, not padded", Allowed, |e| {
            let asks = e.arp(1, (e.own.mac, e.own.ip4), (e.to.mac, e.to.ip4));
            ethernet(e.to.mac, e.own.mac, ARP, &asks.message())
        }),
        known("ARP reply with another's address", "CVE-2025-52890", Dropped("arp"), |e| {
            e.frame(ARP, &e.answers(e.own.mac, e.victim.ip4).message())
        }),
        known("gratuitous ARP with another's address", "CVE-2025-52890", Dropped("arp"), |e| {
            e.broadcast(ARP, &e.arp(1, (e.own.mac, e.victim.ip4), ([0; 6], e.victim.ip4)).message())
        }),
        class("ARP request with another's address", Dropped("arp"), |e| {
            e.broadcast(ARP, &e.arp(1, (e.own.mac, e.victim.ip4), ([0; 6], e.to.ip4)).message())
        }),
        class("ARP reply with another's MAC inside", Dropped("arp"), |e| {
            e.frame(ARP, &e.answers(e.victim.mac, e.own.ip4).message())
        }),
        class("ARP reply with another's MAC and address inside", Dropped("arp"), |e| {
            e.frame(ARP, &e.answers(e.victim.mac, e.victim.ip4).message())
        }),
        class("ARP request with an invented MAC inside", Dropped("arp"), |e| {
            e.broadcast(ARP, &e.arp(1, (NOBODY.mac, e.own.ip4), ([0; 6], e.to.ip4)).message())
        }),
        class("ARP probe for another's address", Dropped("arp"), |e| {
            e.broadcast(ARP, &e.arp(1, (e.own.mac, NOWHERE), ([0; 6], e.victim.ip4)).message())
        }),
        class("ARP reply from 0.0.0.0", Dropped("arp"), |e| e.frame(ARP, &e.answers(e.own.mac, NOWHERE).message())),
        class("ARP with operation 0", Dropped("arp"), |e| e.frame(ARP, &Arp { operation: 0, ..e.asks() }.message())),
        class("ARP with operation 3 (RARP's)", Dropped("arp"), |e| e.frame(ARP, &Arp { operation: 3, ..e.asks() }.message())),
        class("InARP", Dropped("arp"), |e| e.frame(ARP, &Arp { operation: 8, ..e.asks() }.message())),
        class("ARP with an operation above 255", Dropped("arp"), |e| {
            e.frame(ARP, &Arp { operation: 0x0101, ..e.asks() }.message())
        }),
        class("ARP of another hardware", Dropped("arp"), |e| {
            e.frame(ARP, &Arp { header: [0, 6, 8, 0, 6, 4], ..e.asks() }.message())
        }),
        class("ARP for another protocol", Dropped("arp"), |e| {
            e.frame(ARP, &Arp { header: [0, 1, 0x86, 0xdd, 6, 4], ..e.asks() }.message())
        }),
        class("ARP with MACs of 8 octets", Dropped("arp"), |e| {
            e.frame(ARP, &Arp { header: [0, 1, 8, 0, 8, 4], ..e.asks() }.message())
        }),
        class("ARP with addresses of 16 octets", Dropped("arp"), |e| {
            e.frame(ARP, &Arp { header: [0, 1, 8, 0, 6, 16], ..e.asks() }.message())
        }),
        class("ARP with addresses of no octets", Dropped("arp"), |e| {
            e.frame(ARP, &Arp { header: [0, 1, 8, 0, 6, 0], ..e.asks() }.message())
        }),
        class("ARP cut off in the sender", Dropped("arp"), |e| ethernet(e.to.mac, e.own.mac, ARP, &e.asks().message()[..16])),
        class("ARP without a message", Dropped("arp"), |e| ethernet(e.to.mac, e.own.mac, ARP, &[])),
        class("ARP cut off in the target", Dropped("arp"), |e| ethernet(e.to.mac, e.own.mac, ARP, &e.asks().message()[..27])),
        class("RARP of a guest that has moved", Allowed, |e| {
            e.broadcast(RARP, &e.arp(3, (e.own.mac, NOWHERE), (e.own.mac, NOWHERE)).message())
        }),
        class("RARP for another's MAC", Dropped("arp"), |e| {
            e.broadcast(RARP, &e.arp(3, (e.own.mac, NOWHERE), (e.victim.mac, NOWHERE)).message())
        }),
        class("RARP reply", Dropped("arp"), |e| e.frame(RARP, &e.arp(4, (e.own.mac, NOWHERE), (e.own.mac, NOWHERE)).message())),
        class("RARP with an address", Dropped("arp"), |e| {
            e.broadcast(RARP, &e.arp(3, (e.own.mac, e.victim.ip4), (e.own.mac, NOWHERE)).message())
        }),
    ]
}

fn ip6() -> Vec<Class> {
    fn datagram() -> Vec<u8> {
        udp(7, 9, &DATA)
    }
    vec![
        class("IPv6: UDP", Allowed, |e| e.own6(UDP, &datagram())),
        class("IPv6: UDP from the link-local address", Allowed, |e| e.from6(e.own.link_local())),
        class("IPv6: TCP", Allowed, |e| e.own6(TCP, &tcp(7, 80))),
        class("IPv6: ICMPv6 echo", Allowed, |e| e.frame(IP6, &e.ip6().of_icmp(129, &DATA))),
        class("IPv6: ICMPv6 error", Allowed, |e| e.frame(IP6, &e.ip6().of_icmp(2, &DATA))),
        class("IPv6 to a group (mDNS)", Allowed, |e| {
            e.group6(&Ip6 { to: MDNS6, ..e.ip6() }.packet(UDP, &udp(5353, 5353, &DATA)))
        }),
        class("IPv6 with hop-by-hop options", Allowed, |e| e.own6(HOP_BY_HOP, &[options(UDP, 0), datagram()].concat())),
        class("IPv6 with destination options", Allowed, |e| e.own6(DESTINATION, &[options(UDP, 2), datagram()].concat())),
        class("IPv6 with a routing header", Allowed, |e| {
            e.own6(ROUTING, &[&[UDP, 0, 4, 0, 0, 0, 0, 0], &datagram()[..]].concat())
        }),
        class("IPv6 with three headers", Allowed, |e| {
            let headers = [options(ROUTING, 0), vec![DESTINATION, 0, 4, 0, 0, 0, 0, 0], options(UDP, 1)].concat();
            e.own6(HOP_BY_HOP, &[headers, datagram()].concat())
        }),
        class("IPv6: ESP", Allowed, |e| e.own6(50, &DATA)),
        class("IPv6: first fragment", Allowed, |e| e.own6(FRAGMENT, &[fragment(UDP, 0, true), datagram()].concat())),
        class("IPv6: later fragment", Allowed, |e| e.own6(FRAGMENT, &[&fragment(UDP, 24, false), &DATA[..]].concat())),
        class("IPv6: later fragment that looks like a DHCP server's", Allowed, |e| {
            e.own6(FRAGMENT, &[fragment(UDP, 24, false), udp(547, 546, &DATA)].concat())
        }),
        class("IPv6: only fragment", Allowed, |e| e.own6(FRAGMENT, &[fragment(UDP, 0, false), datagram()].concat())),
        class("IPv6 of the MTU", Allowed, |e| e.own6(UDP, &udp(7, 9, &[7; 1452]))),
        class("another port's IPv6", Dropped("ip6"), |e| e.from6(e.victim.ip6)),
        class("another port's link-local address", Dropped("ip6"), |e| e.from6(e.victim.link_local())),
        class("a link-local address that is not of the MAC", Dropped("ip6"), |e| e.from6("fe80::1".parse().unwrap())),
        class("an IPv6 address of nobody", Dropped("ip6"), |e| e.from6(NOBODY.ip6)),
        class("IPv6 from ::", Dropped("ip6"), |e| e.from6(UNSPECIFIED)),
        class("IPv6 from ::1", Dropped("ip6"), |e| e.from6(Ipv6Addr::LOCALHOST)),
        class("IPv6 from a group", Dropped("ip6"), |e| e.from6(ALL_NODES)),
        class("IPv6 from an IPv4-mapped address", Dropped("ip6"), |e| e.from6(e.own.ip4.to_ipv6_mapped())),
        class("another's IPv6 behind hop-by-hop options", Dropped("ip6"), |e| {
            let packet = Ip6 { from: e.victim.ip6, ..e.ip6() };
            e.frame(IP6, &packet.packet(HOP_BY_HOP, &[options(UDP, 0), datagram()].concat()))
        }),
        class("another's IPv6: later fragment", Dropped("ip6"), |e| {
            let packet = Ip6 { from: e.victim.ip6, ..e.ip6() };
            e.frame(IP6, &packet.packet(FRAGMENT, &[&fragment(UDP, 24, false), &DATA[..]].concat()))
        }),
        class("another's IPv6: first fragment", Dropped("ip6"), |e| {
            let packet = Ip6 { from: e.victim.ip6, ..e.ip6() };
            e.frame(IP6, &packet.packet(FRAGMENT, &[fragment(UDP, 0, true), datagram()].concat()))
        }),
        class("IPv6 header cut off", Dropped("ip6"), |e| ethernet(e.to.mac, e.own.mac, IP6, &e.own6(UDP, &datagram())[14..44])),
        class("IPv6 without a header", Dropped("ip6"), |e| ethernet(e.to.mac, e.own.mac, IP6, &[])),
        class("IPv6 that ends behind its frame", Dropped("ip6"), |e| e.broken6(4, &[1, 0])),
        class("IPv6's type with version 4", Dropped("ip6"), |e| e.broken6(0, &[0x40])),
        class("IPv6's type with version 4: later fragment", Dropped("ip6"), |e| {
            let mut frame = e.own6(FRAGMENT, &[&fragment(UDP, 24, false), &DATA[..]].concat());
            frame[14] = 0x40;
            frame
        }),
        class("IPv6 with options cut off", Dropped("ip6"), |e| e.own6(DESTINATION, &[UDP, 30, 1, 4, 0, 0, 0, 0])),
        class("IPv6 with nothing behind its headers", Dropped("ip6"), |e| e.own6(DESTINATION, &options(UDP, 0))),
        class("IPv6: no next header", Allowed, |e| e.own6(59, &DATA)),
        class("IPv6: first fragment without what it carries (RFC 7112)", Dropped("ip6"), |e| {
            e.own6(FRAGMENT, &[fragment(DESTINATION, 0, true), options(ICMP6, 0)].concat())
        }),
        class("IPv6: first fragment that ends in options (RFC 7112)", Dropped("ip6"), |e| {
            e.own6(FRAGMENT, &[fragment(DESTINATION, 0, true), options(ICMP6, 2)[..16].to_vec()].concat())
        }),
        class("IPv6: a later fragment within a first one", Dropped("ip6"), |e| {
            e.own6(FRAGMENT, &[&fragment(FRAGMENT, 0, true), &fragment(ICMP6, 8, false), &DATA[..]].concat())
        }),
        class("PIM hello in IPv6", Dropped("ip6"), |e| {
            let packet = Ip6 { from: e.own.link_local(), to: PIM_ROUTERS, ..e.ip6() };
            e.group6(&packet.packet(103, &[0x20, 0, 0, 0, 0, 1, 0, 2, 0, 105]))
        }),
        class("DHCPv6: a client", Answered, |e| e.dhcp6(e.own.link_local(), [546, 547], UDP, &[])),
        class("DHCPv6: a client from ::", AnsweredOr("ip6"), |e| e.dhcp6(UNSPECIFIED, [546, 547], UDP, &[])),
        class("DHCPv6: a client from another's address", AnsweredOr("ip6"), |e| {
            e.dhcp6(e.victim.link_local(), [546, 547], UDP, &[])
        }),
        class("DHCPv6: a client from a private link-local address", AnsweredOr("ip6"), |e| {
            e.dhcp6(PRIVATE, [546, 547], UDP, &[])
        }),
        class("DHCPv6: another's address and no client's port", Dropped("ip6"), |e| {
            e.dhcp6(e.victim.link_local(), [999, 547], UDP, &[])
        }),
        class("DHCPv6: a server", Dropped("dhcp_server"), |e| e.dhcp6(e.own.link_local(), [547, 546], UDP, &[])),
        class("DHCPv6: a server from another port", Dropped("dhcp_server"), |e| {
            e.dhcp6(e.own.link_local(), [999, 546], UDP, &[])
        }),
        class("DHCPv6: a relay", Dropped("dhcp_server"), |e| e.dhcp6(e.own.link_local(), [547, 547], UDP, &[])),
        class("DHCPv6: a server behind options", Dropped("dhcp_server"), |e| {
            e.dhcp6(e.own.link_local(), [547, 546], DESTINATION, &options(UDP, 0))
        }),
        class("DHCPv6: a server's first fragment", Dropped("dhcp_server"), |e| {
            e.dhcp6(e.own.link_local(), [547, 546], FRAGMENT, &fragment(UDP, 0, true))
        }),
    ]
}

fn neighbours() -> Vec<Class> {
    vec![
        class("solicitation", Allowed, |e| e.solicits(e.own.ip6, e.to.ip6, &link_layer(1, e.own.mac))),
        class("solicitation from the link-local address", Allowed, |e| {
            e.solicits(e.own.link_local(), e.to.ip6, &link_layer(1, e.own.mac))
        }),
        class("solicitation to one host, without options", Allowed, |e| {
            e.frame(IP6, &e.ip6().of_icmp(135, &[&[0; 4], &e.to.ip6.octets()[..]].concat()))
        }),
        class("solicitation whether the own address is free", Allowed, |e| e.solicits(UNSPECIFIED, e.own.ip6, &[])),
        class("solicitation whether the own link-local address is free", Allowed, |e| {
            e.solicits(UNSPECIFIED, e.own.link_local(), &[])
        }),
        class("solicitation whether the own address is free, with a nonce (RFC 7527)", Allowed, |e| {
            e.solicits(UNSPECIFIED, e.own.ip6, &[14, 1, 1, 2, 3, 4, 5, 6])
        }),
        class("solicitation whether another's address is free", Dropped("nd"), |e| e.solicits(UNSPECIFIED, e.victim.ip6, &[])),
        known("solicitation from another's address", "CVE-2015-8914", Dropped("nd"), |e| {
            e.solicits(e.victim.ip6, e.to.ip6, &link_layer(1, e.own.mac))
        }),
        class("solicitation from another's address, without options", Dropped("ip6"), |e| {
            e.solicits(e.victim.ip6, e.to.ip6, &[])
        }),
        class("solicitation with another's MAC inside", Dropped("nd"), |e| {
            e.solicits(e.own.ip6, e.to.ip6, &link_layer(1, e.victim.mac))
        }),
        class("solicitation with a second option", Dropped("nd"), |e| {
            let options = [link_layer(1, e.own.mac), link_layer(1, e.victim.mac)].concat();
            e.solicits(e.own.ip6, e.to.ip6, &options)
        }),
        class("solicitation with a MAC behind a nonce", Dropped("nd"), |e| {
            let options = [vec![14, 1, 1, 2, 3, 4, 5, 6], link_layer(1, e.victim.mac)].concat();
            e.solicits(e.own.ip6, e.to.ip6, &options)
        }),
        class("solicitation in a fragment", Dropped("nd"), |e| {
            let packet = Ip6 { to: solicited(e.to.ip6), ..e.ip6() };
            let message = packet.icmp(135, &[&[0; 4], &e.to.ip6.octets()[..]].concat());
            e.group6(&packet.packet(FRAGMENT, &[fragment(ICMP6, 0, false), message].concat()))
        }),
        class("solicitation cut off", Dropped("nd"), |e| {
            let packet = Ip6 { from: UNSPECIFIED, to: ALL_NODES, ..e.ip6() };
            e.group6(&packet.of_icmp(135, &[0; 8]))
        }),
        class("advertisement", Allowed, |e| e.claims(e.own.ip6, e.own.ip6, &link_layer(2, e.own.mac))),
        class("advertisement from the link-local address", Allowed, |e| {
            e.claims(e.own.link_local(), e.own.ip6, &link_layer(2, e.own.mac))
        }),
        class("advertisement to one host, without options", Allowed, |e| {
            e.frame(IP6, &e.ip6().of_icmp(136, &[&[0x40, 0, 0, 0], &e.own.ip6.octets()[..]].concat()))
        }),
        known("advertisement of another's address", "CVE-2021-20267", Dropped("nd"), |e| {
            e.claims(e.own.ip6, e.victim.ip6, &link_layer(2, e.own.mac))
        }),
        known("advertisement of another's link-local address", "CVE-2015-8914", Dropped("nd"), |e| {
            e.claims(e.own.link_local(), e.victim.link_local(), &link_layer(2, e.own.mac))
        }),
        class("advertisement of another's link-local address from it", Dropped("nd"), |e| {
            e.claims(e.victim.link_local(), e.victim.link_local(), &link_layer(2, e.own.mac))
        }),
        class("advertisement of another's address, without options", Dropped("nd"), |e| e.claims(e.own.ip6, e.victim.ip6, &[])),
        class("advertisement of the own address from another's", Dropped("ip6"), |e| {
            e.claims(e.victim.ip6, e.own.ip6, &link_layer(2, e.own.mac))
        }),
        class("advertisement from ::", Dropped("ip6"), |e| e.claims(UNSPECIFIED, e.own.ip6, &link_layer(2, e.own.mac))),
        class("advertisement with another's MAC inside", Dropped("nd"), |e| {
            e.claims(e.own.ip6, e.own.ip6, &link_layer(2, e.victim.mac))
        }),
        class("advertisement with a second option", Dropped("nd"), |e| {
            let options = [link_layer(2, e.own.mac), link_layer(2, e.victim.mac)].concat();
            e.claims(e.own.ip6, e.own.ip6, &options)
        }),
        class("advertisement with an option of no length", Dropped("nd"), |e| {
            e.claims(e.own.ip6, e.own.ip6, &[2, 0, 0, 0, 0, 0, 0, 0])
        }),
        class("another's advertisement behind hop-by-hop options", Dropped("nd"), |e| {
            e.hidden_claim(HOP_BY_HOP, &options(ICMP6, 0))
        }),
        class("another's advertisement behind destination options", Dropped("nd"), |e| {
            e.hidden_claim(DESTINATION, &options(ICMP6, 3))
        }),
        class("another's advertisement behind a routing header", Dropped("nd"), |e| {
            e.hidden_claim(ROUTING, &[ICMP6, 0, 4, 0, 0, 0, 0, 0])
        }),
        class("another's advertisement behind AH", Allowed, |e| e.hidden_claim(51, &[ICMP6, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1])),
        class("advertisement in an only fragment", Dropped("nd"), |e| e.hidden_claim(FRAGMENT, &fragment(ICMP6, 0, false))),
        class("advertisement in a first fragment", Dropped("nd"), |e| e.hidden_claim(FRAGMENT, &fragment(ICMP6, 0, true))),
        class("advertisement behind options in a fragment", Dropped("nd"), |e| {
            e.hidden_claim(FRAGMENT, &[fragment(DESTINATION, 0, true), options(ICMP6, 0)].concat())
        }),
        class("advertisement cut off", Dropped("nd"), |e| {
            let packet = Ip6 { to: ALL_NODES, ..e.ip6() };
            e.group6(&packet.of_icmp(136, &[0x20, 0, 0, 0, 0x20, 1]))
        }),
    ]
}

fn routers() -> Vec<Class> {
    vec![
        class("router solicitation", Answered, |e| e.seeks_routers(e.own.link_local(), &link_layer(1, e.own.mac))),
        class("router solicitation without options", Answered, |e| e.seeks_routers(e.own.link_local(), &[])),
        class("router solicitation from ::", Answered, |e| e.seeks_routers(UNSPECIFIED, &[])),
        class("router solicitation from a private link-local address", AnsweredOr("nd"), |e| {
            e.seeks_routers(PRIVATE, &link_layer(1, e.own.mac))
        }),
        class("router solicitation with another's MAC inside", AnsweredOr("nd"), |e| {
            e.seeks_routers(e.own.link_local(), &link_layer(1, e.victim.mac))
        }),
        class("router solicitation from another's address", AnsweredOr("nd"), |e| {
            e.seeks_routers(e.victim.link_local(), &link_layer(1, e.own.mac))
        }),
        class("router solicitation in a fragment", Dropped("nd"), |e| {
            let packet = Ip6 { from: e.own.link_local(), to: ALL_ROUTERS, ..e.ip6() };
            e.group6(&packet.packet(FRAGMENT, &[fragment(ICMP6, 0, false), packet.icmp(133, &[0; 4])].concat()))
        }),
        known("router advertisement", "CVE-2020-13401", Dropped("ra"), |e| e.router(ICMP6, &[])),
        known("router advertisement to one host", "CVE-2020-13401", Dropped("ra"), |e| {
            let packet = Ip6 { from: e.own.link_local(), ..e.ip6() };
            e.frame(IP6, &packet.of_icmp(134, &[64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]))
        }),
        class("router advertisement from another's address", Dropped("ra"), |e| {
            let packet = Ip6 { from: e.victim.link_local(), to: ALL_NODES, ..e.ip6() };
            e.group6(&packet.of_icmp(134, &[64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]))
        }),
        class("router advertisement cut off", Dropped("ra"), |e| {
            let packet = Ip6 { from: e.own.link_local(), to: ALL_NODES, ..e.ip6() };
            e.group6(&packet.packet(ICMP6, &[134]))
        }),
        class("router advertisement behind hop-by-hop options", Dropped("ra"), |e| e.router(HOP_BY_HOP, &options(ICMP6, 0))),
        class("router advertisement behind destination options", Dropped("ra"), |e| e.router(DESTINATION, &options(ICMP6, 9))),
        class("router advertisement behind a routing header", Dropped("ra"), |e| {
            e.router(ROUTING, &[ICMP6, 0, 4, 0, 0, 0, 0, 0])
        }),
        class("router advertisement behind twenty headers", Dropped("ra"), |e| {
            let headers: Vec<u8> = (0..20).flat_map(|n| options(if n == 19 { ICMP6 } else { DESTINATION }, 0)).collect();
            e.router(DESTINATION, &headers)
        }),
        class("router advertisement in an only fragment", Dropped("nd"), |e| e.router(FRAGMENT, &fragment(ICMP6, 0, false))),
        class("router advertisement in a first fragment", Dropped("nd"), |e| e.router(FRAGMENT, &fragment(ICMP6, 0, true))),
        class("redirect", Dropped("ra"), |e| {
            let packet = Ip6 { from: e.own.link_local(), ..e.ip6() };
            let body = [&[0; 4], &e.own.link_local().octets()[..], &e.victim.ip6.octets(), &link_layer(2, e.own.mac)].concat();
            e.frame(IP6, &packet.of_icmp(137, &body))
        }),
    ]
}

fn multicast6() -> Vec<Class> {
    fn v1() -> Vec<u8> {
        [&[0; 4], &GROUP6.octets()[..]].concat()
    }
    fn v2() -> Vec<u8> {
        [&[0, 0, 0, 1, 4, 0, 0, 0], &GROUP6.octets()[..]].concat()
    }
    vec![
        class("MLD report", Allowed, |e| e.mld(e.own.link_local(), GROUP6, 131, &v1())),
        class("MLD done", Allowed, |e| e.mld(e.own.link_local(), ALL_ROUTERS, 132, &v1())),
        class("MLDv2 report", Allowed, |e| e.mld(e.own.link_local(), MLD_ROUTERS, 143, &v2())),
        class("MLDv2 report from ::", Allowed, |e| e.mld(UNSPECIFIED, MLD_ROUTERS, 143, &v2())),
        class("MLDv2 report from another's address", Dropped("ip6"), |e| e.mld(e.victim.link_local(), MLD_ROUTERS, 143, &v2())),
        class("MLD query", Dropped("nd"), |e| e.mld(e.own.link_local(), ALL_NODES, 130, &[0; 20])),
        class("MLD query from ::", Dropped("nd"), |e| e.mld(UNSPECIFIED, ALL_NODES, 130, &[0; 20])),
        class("multicast router advertisement in ICMPv6", Dropped("nd"), |e| e.mld(e.own.link_local(), SNOOPERS, 151, &[0; 4])),
    ]
}

fn others() -> Vec<Class> {
    fn own(e: &Ends) -> Vec<u8> {
        e.own4(UDP, &udp(7, 9, &DATA))
    }
    vec![
        class("VLAN tag", Dropped("ethertype"), |e| tagged(&own(e), 0x8100, 5)),
        class("VLAN 0 with own IPv4", Dropped("ethertype"), |e| tagged(&own(e), 0x8100, 0)),
        known("VLAN 0 with another's ARP", "VU#855201", Dropped("ethertype"), |e| {
            tagged(&e.broadcast(ARP, &e.answers(e.own.mac, e.victim.ip4).message()), 0x8100, 0)
        }),
        known("VLAN 0 with a router advertisement", "VU#855201", Dropped("ethertype"), |e| {
            tagged(&e.router(ICMP6, &[]), 0x8100, 0)
        }),
        known("VLAN 0 with IPv4 in SNAP", "VU#855201", Dropped("ethertype"), |e| tagged(&e.snap4(0), 0x8100, 0)),
        known("VLAN 0 with IPv4 in SNAP of a wrong length", "VU#855201", Dropped("ethertype"), |e| {
            tagged(&e.snap4(99), 0x8100, 0)
        }),
        known("VLAN 0 twice", "VU#855201", Dropped("ethertype"), |e| tagged(&tagged(&own(e), 0x8100, 0), 0x8100, 0)),
        class("VLAN 4095", Dropped("ethertype"), |e| tagged(&own(e), 0x8100, 0xfff)),
        class("802.1ad tag", Dropped("ethertype"), |e| tagged(&own(e), 0x88a8, 5)),
        class("802.1ad tag of VLAN 0", Dropped("ethertype"), |e| tagged(&own(e), 0x88a8, 0)),
        class("802.1ad tag over a VLAN tag", Dropped("ethertype"), |e| tagged(&tagged(&own(e), 0x8100, 6), 0x88a8, 5)),
        class("VLAN tag over a VLAN tag", Dropped("ethertype"), |e| tagged(&tagged(&own(e), 0x8100, 6), 0x8100, 5)),
        class("tag of type 9100", Dropped("ethertype"), |e| tagged(&own(e), 0x9100, 5)),
        class("VLAN tag with nothing behind it", Ended, |e| ethernet(e.to.mac, e.own.mac, 0x8100, &[0])),
        known("IPv4 in SNAP", "VU#855201", Dropped("ethertype"), |e| e.snap4(0)),
        known("IPv4 in SNAP of a length too long", "VU#855201", Dropped("ethertype"), |e| e.snap4(100)),
        known("IPv4 in SNAP of a length too short", "VU#855201", Dropped("ethertype"), |e| e.snap4(-20)),
        class("IPv4 in SNAP of length 1500", Dropped("ethertype"), |e| e.snap4(1500 - 60)),
        class("ARP in SNAP", Dropped("ethertype"), |e| {
            snap(&ethernet(BROADCAST, e.own.mac, ARP, &e.answers(e.own.mac, e.victim.ip4).message()), 0)
        }),
        known("router advertisement in SNAP", "VU#855201", Dropped("ethertype"), |e| snap(&e.router(ICMP6, &[]), 0)),
        class("LLC with IP's number", Dropped("ethertype"), |e| {
            llc(e.to.mac, e.own.mac, &[&[6, 6, 3], &e.ip4(UDP).packet(&udp(7, 9, &DATA))[..]].concat(), 0)
        }),
        class("Novell's raw 802.3", Dropped("ethertype"), |e| llc(e.to.mac, e.own.mac, &[&[0xff; 30], &DATA[..]].concat(), 0)),
        class("length 0", Dropped("ethertype"), |e| e.of_type(0)),
        class("type between a length and a type", Dropped("ethertype"), |e| e.of_type(0x05dd)),
        class("BPDU", Dropped("ethertype"), |e| e.bpdu(BRIDGES, 0)),
        class("BPDU of RSTP", Dropped("ethertype"), |e| e.bpdu(BRIDGES, 2)),
        class("BPDU to one host", Dropped("ethertype"), |e| e.bpdu(e.to.mac, 0)),
        class("BPDU of PVST+", Dropped("ethertype"), |e| {
            let bpdu = e.bpdu([1, 0, 0x0c, 0xcc, 0xcc, 0xcd], 0);
            llc(bpdu[..6].try_into().unwrap(), e.own.mac, &[&[0xaa, 0xaa, 3, 0, 0, 0x0c, 1, 0x0b], &bpdu[17..]].concat(), 0)
        }),
        class("CDP", Dropped("ethertype"), |e| {
            let payload = [&[0xaa, 0xaa, 3, 0, 0, 0x0c, 0x20, 0, 2, 180, 0, 0], &DATA[..]].concat();
            llc([1, 0, 0x0c, 0xcc, 0xcc, 0xcc], e.own.mac, &payload, 0)
        }),
        class("LLDP", Ended, |e| addressed([1, 0x80, 0xc2, 0, 0, 0x0e], e.of_type(LLDP))),
        class("LLDP to one host", Dropped("ethertype"), |e| e.of_type(LLDP)),
        class("PAUSE", Ended, |e| addressed([1, 0x80, 0xc2, 0, 0, 1], e.of_type(0x8808))),
        class("LACP", Dropped("ethertype"), |e| addressed([1, 0x80, 0xc2, 0, 0, 2], e.of_type(0x8809))),
        class("802.1X", Dropped("ethertype"), |e| addressed([1, 0x80, 0xc2, 0, 0, 3], e.of_type(0x888e))),
        class("MACsec", Dropped("ethertype"), |e| e.of_type(0x88e5)),
        class("PPPoE discovery", Dropped("ethertype"), |e| addressed(BROADCAST, e.of_type(0x8863))),
        class("PPPoE with IPv4", Dropped("ethertype"), |e| {
            let packet = e.ip4(UDP).packet(&udp(7, 9, &DATA));
            e.frame(0x8864, &[&[0x11, 0, 0, 1, 0, 54, 0, 0x21], &packet[..]].concat())
        }),
        class("MPLS", Dropped("ethertype"), |e| e.of_type(0x8847)),
        class("AoE", Dropped("ethertype"), |e| e.of_type(0x88a2)),
        class("FCoE", Dropped("ethertype"), |e| e.of_type(0x8906)),
        class("PTP", Dropped("ethertype"), |e| e.of_type(0x88f7)),
        class("wake on LAN", Dropped("ethertype"), |e| addressed(BROADCAST, e.of_type(0x0842))),
        class("Ethernet loopback", Dropped("ethertype"), |e| e.of_type(0x9000)),
        class("IPX", Dropped("ethertype"), |e| e.of_type(0x8137)),
        class("unknown type", Dropped("ethertype"), |e| e.of_type(0x88b5)),
        class("type ffff", Dropped("ethertype"), |e| e.of_type(0xffff)),
    ]
}
