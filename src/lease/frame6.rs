//! Frames over IPv6: what a guest asks is taken apart, what it is told is put together, with complete checksums.

use std::net::Ipv6Addr;

use etherparse::{NetSlice, PacketBuilder, PacketBuilderStep, SlicedPacket, TransportSlice, UdpHeader};

use crate::model::Mac;

use super::advert::{self, ADVERTISEMENT, SOLICITATION};
use super::frame::{BadFrame, Checksum};

/// The ports of servers and of clients (RFC 8415, 7.2).
const SERVER: u16 = 547;
const CLIENT: u16 = 546;

/// Neighbour discovery is heard with this hop limit alone: no router has let it pass (RFC 4861, 6.1).
const FROM_THE_LINK: u8 = 255;

/// All of a link (RFC 4291, 2.7.1).
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// What a guest asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// Whose MAC sent it.
    pub from: Mac,
    /// The address it came from.
    pub source: Ipv6Addr,
    /// The address it is for.
    pub target: Ipv6Addr,
    /// What it is.
    pub asks: Asks<'a>,
}

/// What a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks<'a> {
    /// A router solicitation.
    Router,
    /// A DHCPv6 message.
    Dhcp(&'a [u8]),
}

/// Takes a request's frame apart.
///
/// # Errors
/// It is none.
pub fn read(frame: &[u8], checksum: Checksum) -> Result<Request<'_>, BadFrame> {
    let packet = SlicedPacket::from_ethernet(frame).map_err(|_| BadFrame::Malformed)?;
    let from = frame.get(6..12).and_then(|mac| mac.first_chunk()).copied().ok_or(BadFrame::Malformed)?;
    let Some(NetSlice::Ipv6(ip)) = &packet.net else { return Err(BadFrame::Malformed) };
    let header = ip.header();
    let (source, target) = (header.source(), header.destination());
    if !packet.link_exts.is_empty() || !ip.extensions().is_empty() {
        return Err(BadFrame::Malformed);
    }
    let (asks, right) = match &packet.transport {
        Some(TransportSlice::Udp(udp)) if udp.destination_port() == SERVER => {
            let right = udp.to_header().calc_checksum_ipv6_raw(source, target, udp.payload());
            (Asks::Dhcp(udp.payload()), right.is_ok_and(|right| right == udp.checksum()))
        }
        Some(TransportSlice::Icmpv6(icmp)) if icmp.type_u8() == SOLICITATION => {
            let is_one = advert::is_solicitation(icmp.code_u8(), header.source_addr(), icmp.payload());
            if !is_one || header.hop_limit() != FROM_THE_LINK {
                return Err(BadFrame::Malformed);
            }
            (Asks::Router, icmp.is_checksum_valid(source, target))
        }
        _ => return Err(BadFrame::Malformed),
    };
    if checksum == Checksum::Complete && !right {
        return Err(BadFrame::Checksum);
    }
    Ok(Request { from: Mac(from), source: header.source_addr(), target: header.destination_addr(), asks })
}

/// Who tells whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope {
    /// The MAC it is from.
    pub from: Mac,
    /// The MAC it is for.
    pub to: Mac,
    /// The address it is from.
    pub source: Ipv6Addr,
    /// The address it is for.
    pub target: Ipv6Addr,
}

impl Envelope {
    fn packet(&self) -> PacketBuilderStep<etherparse::IpHeaders> {
        let packet = PacketBuilder::ethernet2(self.from.0, self.to.0);
        packet.ipv6(self.source.octets(), self.target.octets(), FROM_THE_LINK)
    }

    /// Puts a router advertisement's frame together; none where it is longer than IPv6 carries.
    pub fn advert(&self, message: &advert::Message) -> Option<Vec<u8>> {
        let packet = self.packet().icmpv6_raw(ADVERTISEMENT, 0, message.head);
        let mut frame = Vec::with_capacity(packet.size(message.rest.len()));
        packet.write(&mut frame, &message.rest).ok()?;
        Some(frame)
    }

    /// The same with a DHCPv6 message.
    pub fn dhcp(&self, message: &[u8]) -> Option<Vec<u8>> {
        let packet = self.packet().udp(SERVER, CLIENT);
        let mut frame = Vec::with_capacity(packet.size(message.len()));
        UdpHeader::without_ipv4_checksum(SERVER, CLIENT, message.len()).ok()?;
        packet.write(&mut frame, message).ok()?;
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope() -> Envelope {
        Envelope {
            from: Mac([2, 0, 0, 0, 0, 1]),
            to: Mac([2, 0, 0, 0, 0, 2]),
            source: "fe80::1".parse().unwrap(),
            target: "ff02::2".parse().unwrap(),
        }
    }

    #[test]
    fn a_solicitation_is_read_and_its_checksum_proven() {
        let packet = envelope().packet().icmpv6_raw(SOLICITATION, 0, [0; 4]);
        let mut frame = Vec::new();
        packet.write(&mut frame, &[1, 1, 2, 0, 0, 0, 0, 1]).unwrap();
        let Envelope { from, source, target, .. } = envelope();
        assert_eq!(read(&frame, Checksum::Complete), Ok(Request { from, source, target, asks: Asks::Router }));
        for length in 0..frame.len() {
            assert!(read(&frame[..length], Checksum::Complete).is_err(), "{length}");
        }
        frame[56] ^= 1;
        assert_eq!(read(&frame, Checksum::Complete), Err(BadFrame::Checksum));
        assert!(read(&frame, Checksum::Unfinished).is_ok());
        // From behind a router.
        frame[21] = 254;
        assert_eq!(read(&frame, Checksum::Unfinished), Err(BadFrame::Malformed));
    }

    #[test]
    fn what_is_told_has_whole_checksums() {
        let message = advert::Message { source: envelope().source, head: [64, 0, 0, 0], rest: vec![7; 40] };
        let frame = envelope().advert(&message).unwrap();
        let packet = SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(TransportSlice::Icmpv6(icmp)) = packet.transport else { panic!("{frame:?}") };
        let Envelope { source, target, .. } = envelope();
        assert!(icmp.is_checksum_valid(source.octets(), target.octets()));
        assert_eq!((icmp.type_u8(), icmp.bytes5to8(), icmp.payload()), (134, [64, 0, 0, 0], &[7; 40][..]));
    }
}
