//! Frames with DHCPv4 messages: a request's is taken apart, an answer's is put together, with complete checksums.

use std::net::Ipv4Addr;

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice, UdpHeader};

use crate::model::Mac;

/// The port at which servers and relays hear.
pub const SERVER: u16 = 67;
/// The port at which clients hear.
pub const CLIENT: u16 = 68;

/// How far an answer goes: its guest is on the same link.
const TTL: u8 = 64;

/// A request as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// Whose MAC sent it.
    pub from: Mac,
    /// The address it came from.
    pub source: Ipv4Addr,
    /// The message.
    pub message: &'a [u8],
}

/// Whether the sender has left a checksum to its NIC, which a virtual one does not compute (`TP_STATUS_CSUMNOTREADY`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// It is there.
    Complete,
    /// It was to be completed by the NIC.
    Unfinished,
}

/// Why a frame cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadFrame {
    /// It is no whole UDP packet to a DHCP server.
    Malformed,
    /// A checksum is wrong.
    Checksum,
}

/// Takes a request's frame apart.
///
/// # Errors
/// It is none.
pub fn read(frame: &[u8], checksum: Checksum) -> Result<Request<'_>, BadFrame> {
    let packet = SlicedPacket::from_ethernet(frame).map_err(|_| BadFrame::Malformed)?;
    let from = frame.get(6..12).and_then(|mac| mac.first_chunk()).copied().ok_or(BadFrame::Malformed)?;
    let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Udp(udp))) = (&packet.net, &packet.transport) else {
        return Err(BadFrame::Malformed);
    };
    let header = ip.header();
    if !packet.link_exts.is_empty() || header.is_fragmenting_payload() || udp.destination_port() != SERVER {
        return Err(BadFrame::Malformed);
    }
    let expected = header.to_header().calc_header_checksum();
    if header.header_checksum() != expected {
        return Err(BadFrame::Checksum);
    }
    if checksum == Checksum::Complete && udp.checksum() != 0 {
        let (source, target) = (header.source(), header.destination());
        match udp.to_header().calc_checksum_ipv4_raw(source, target, udp.payload()) {
            Ok(right) if right == udp.checksum() => {}
            _ => return Err(BadFrame::Checksum),
        }
    }
    Ok(Request { from: Mac(from), source: header.source_addr(), message: udp.payload() })
}

/// An answer's frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope {
    /// The MAC it is from.
    pub from: Mac,
    /// The MAC it is for.
    pub to: Mac,
    /// The address it is from.
    pub source: Ipv4Addr,
    /// The address it is for.
    pub target: Ipv4Addr,
    /// The UDP port it is for.
    pub port: u16,
}

/// Puts an answer's frame together; none where the message is longer than UDP carries.
pub fn write(envelope: Envelope, message: &[u8]) -> Option<Vec<u8>> {
    let Envelope { from, to, source, target, port } = envelope;
    let packet = PacketBuilder::ethernet2(from.0, to.0).ipv4(source.octets(), target.octets(), TTL).udp(SERVER, port);
    let mut frame = Vec::with_capacity(packet.size(message.len()));
    UdpHeader::without_ipv4_checksum(SERVER, port, message.len()).ok()?;
    packet.write(&mut frame, message).ok()?;
    Some(frame)
}
