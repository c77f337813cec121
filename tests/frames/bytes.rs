//! Builds frames, right ones and wrong ones, octet by octet.

use std::net::{Ipv4Addr, Ipv6Addr};

/// A MAC.
pub type Mac = [u8; 6];

pub const BROADCAST: Mac = [0xff; 6];
pub const IP4: u16 = 0x0800;
pub const ARP: u16 = 0x0806;
pub const RARP: u16 = 0x8035;
pub const IP6: u16 = 0x86dd;

pub const HOP_BY_HOP: u8 = 0;
pub const ICMP: u8 = 1;
pub const IGMP: u8 = 2;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ROUTING: u8 = 43;
pub const FRAGMENT: u8 = 44;
pub const ICMP6: u8 = 58;
pub const DESTINATION: u8 = 60;

/// A frame with this type.
pub fn ethernet(to: Mac, from: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes(), payload].concat()
}

/// A frame with a tag in front of its type.
pub fn tagged(frame: &[u8], kind: u16, tag: u16) -> Vec<u8> {
    [&frame[..12], &kind.to_be_bytes(), &tag.to_be_bytes(), &frame[12..]].concat()
}

/// A frame of IEEE 802.3 with LLC's SNAP in front of its type; what its length is off by.
pub fn snap(frame: &[u8], off: i32) -> Vec<u8> {
    let payload = [&[0xaa, 0xaa, 3, 0, 0, 0], &frame[12..]].concat();
    llc(frame[..6].try_into().unwrap(), frame[6..12].try_into().unwrap(), &payload, off)
}

/// A frame of IEEE 802.3; what its length is off by.
pub fn llc(to: Mac, from: Mac, payload: &[u8], off: i32) -> Vec<u8> {
    let length = i32::try_from(payload.len()).unwrap() + off;
    ethernet(to, from, length.try_into().unwrap(), payload)
}

/// The Internet's checksum (RFC 1071).
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let bytes = parts.concat();
    let mut sum: u32 = bytes.chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(*two.get(1).unwrap_or(&0))).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).unwrap()).to_be_bytes()
}

/// An IPv4 header's fields beside its addresses.
#[derive(Debug, Clone)]
pub struct Ip4 {
    pub id: u16,
    pub from: Ipv4Addr,
    pub to: Ipv4Addr,
    pub protocol: u8,
    pub options: Vec<u8>,
    /// Offset and flags as they are sent.
    pub fragment: u16,
}

impl Ip4 {
    /// The packet.
    pub fn packet(&self, payload: &[u8]) -> Vec<u8> {
        let header = 20 + self.options.len();
        let mut packet = vec![0x40 | u8::try_from(header / 4).unwrap(), 0];
        packet.extend(u16::try_from(header + payload.len()).unwrap().to_be_bytes());
        packet.extend(self.id.to_be_bytes());
        packet.extend(self.fragment.to_be_bytes());
        packet.extend([64, self.protocol, 0, 0]);
        packet.extend(self.from.octets());
        packet.extend(self.to.octets());
        packet.extend(&self.options);
        let sum = checksum(&[&packet]);
        packet[10..12].copy_from_slice(&sum);
        packet.extend(payload);
        packet
    }
}

/// A UDP datagram without a checksum of its own, as IPv4 allows.
pub fn udp(from: u16, to: u16, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + data.len()).unwrap();
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &length.to_be_bytes(), &[0, 0], data].concat()
}

/// A TCP segment with SYN.
pub fn tcp(from: u16, to: u16) -> Vec<u8> {
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &[0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 4, 0, 0, 0, 0, 0]].concat()
}

/// ICMP's or IGMP's message with its checksum.
pub fn icmp(kind: u8, code: u8, body: &[u8]) -> Vec<u8> {
    let sum = checksum(&[&[kind, code, 0, 0], body]);
    [&[kind, code], &sum[..], body].concat()
}

/// What a DHCP client asks (1) or a server answers (2), for this MAC.
pub fn dhcp(op: u8, client: Mac) -> Vec<u8> {
    let mut data = vec![op, 1, 6, 0, 1, 2, 3, 4];
    data.resize(28, 0);
    data.extend(client);
    data.resize(236, 0);
    data.extend([0x63, 0x82, 0x53, 0x63, 53, 1, op, 255]);
    data
}

/// An ARP message.
#[derive(Debug, Clone)]
pub struct Arp {
    /// Hardware, protocol, and their addresses' lengths.
    pub header: [u8; 6],
    pub operation: u16,
    pub sender: (Mac, Ipv4Addr),
    pub target: (Mac, Ipv4Addr),
}

impl Arp {
    /// Its octets.
    pub fn message(&self) -> Vec<u8> {
        let ((from, speaks), (to, asked)) = (self.sender, self.target);
        let operation = self.operation.to_be_bytes();
        [&self.header[..], &operation, &from, &speaks.octets(), &to, &asked.octets()].concat()
    }
}

/// An IPv6 packet.
#[derive(Debug, Clone)]
pub struct Ip6 {
    /// Told apart by it, as its flow label.
    pub id: u16,
    pub from: Ipv6Addr,
    pub to: Ipv6Addr,
}

impl Ip6 {
    /// The packet, with what the header says comes next.
    pub fn packet(&self, next: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0];
        packet.extend(self.id.to_be_bytes());
        packet.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        packet.extend([next, 255]);
        packet.extend(self.from.octets());
        packet.extend(self.to.octets());
        packet.extend(payload);
        packet
    }

    /// ICMPv6's message with its checksum.
    pub fn icmp(&self, kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(4 + body.len()).unwrap().to_be_bytes();
        let (from, to) = (self.from.octets(), self.to.octets());
        let sum = checksum(&[&from, &to, &length, &[0, 0, 0, ICMP6], &[kind, 0, 0, 0], body]);
        [&[kind, 0], &sum[..], body].concat()
    }

    /// A packet with it.
    pub fn of_icmp(&self, kind: u8, body: &[u8]) -> Vec<u8> {
        self.packet(ICMP6, &self.icmp(kind, body))
    }
}

/// An extension header with padding; so many units of 8 octets behind the first.
pub fn options(next: u8, more: u8) -> Vec<u8> {
    let padding = 4 + 8 * more;
    [&[next, more, 1, padding], &vec![0; padding.into()][..]].concat()
}

/// The hop-by-hop header of MLD: a router alert (RFC 2710, 3).
pub fn alert() -> Vec<u8> {
    vec![ICMP6, 0, 5, 2, 0, 0, 1, 0]
}

/// A fragment header: the offset in octets, and whether there is more.
pub fn fragment(next: u8, offset: u16, more: bool) -> Vec<u8> {
    let [high, low] = (offset | u16::from(more)).to_be_bytes();
    vec![next, 0, high, low, 0, 0, 0, 7]
}

/// An option of neighbour discovery: a MAC (RFC 4861, 4.6.1).
pub fn link_layer(kind: u8, mac: Mac) -> Vec<u8> {
    [&[kind, 1], &mac[..]].concat()
}

/// The MAC of an IPv6 multicast group.
pub fn group_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    [0x33, 0x33, a, b, c, d]
}

/// Whom a neighbour solicitation for an address is sent to.
pub fn solicited(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c].into()
}

/// The link-local address of a MAC (RFC 4291, appendix A).
pub fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac;
    [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f].into()
}
