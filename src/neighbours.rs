//! ARP and neighbour discovery as nicd speaks them on a bridge: it asks whether an address is in use, and announces a port's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::PacketBuilder;

use crate::model::Mac;

/// The shortest frame of Ethernet, without its checksum, in octets.
const SHORTEST: usize = 60;

const ARP: u16 = 0x0806;
const RARP: u16 = 0x8035;
const IP6: [u8; 2] = [0x86, 0xdd];

/// Ethernet, IPv4, and their addresses' lengths.
const ARP_HEADER: [u8; 6] = [0, 1, 8, 0, 6, 4];
const REQUEST: u16 = 1;
const REPLY: u16 = 2;
const REVERSE_REQUEST: u16 = 3;

const ICMP6: u8 = 58;
const ROUTER_SOLICITATION: u8 = 133;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// It replaces what a neighbour knew (RFC 4861, 4.4).
const OVERRIDE: [u8; 4] = [0x20, 0, 0, 0];
/// The option by which the sender of a solicitation knows it again (RFC 3971, 5.3.2; RFC 7527, 4).
const NONCE: u8 = 14;
/// The option with the MAC that has the target (RFC 4861, 4.6.1).
const TARGET_MAC: u8 = 2;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// Nothing in neighbour discovery was forwarded (RFC 4861, 11.2).
const HOPS: u8 = 255;

const BROADCAST: Mac = Mac([0xff; 6]);
const NONE: Mac = Mac([0; 6]);

/// Asks for the holder of an address that a port will have, as one that has none itself: an ARP probe (RFC 5227, 2.1.1), or the solicitation of
/// duplicate address detection (RFC 4862, 5.4.2). It changes no neighbour cache.
///
/// It comes from the bridge, which gets an ARP probe's answer; a solicitation from no address is answered to all. From the port's MAC
/// switches would learn that the port is here before its guest is. The filters keep it from the port itself by the port's MAC in it: as
/// an ARP probe's target, which is not read, or as a solicitation's nonce.
pub fn question(address: IpAddr, port: Mac, bridge: Mac) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => arp(ARP, REQUEST, (bridge, Ipv4Addr::UNSPECIFIED), (port, address)),
        IpAddr::V6(address) => {
            let [.., a, b, c] = address.octets();
            let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
            let body = [&address.octets()[..], &[NONCE, 1], &port.0].concat();
            discovery(bridge, (Ipv6Addr::UNSPECIFIED, group), (SOLICITATION, [0; 4]), &body)
        }
    }
}

/// Tells that a port has an address: an ARP announcement (RFC 5227, 3), or an unsolicited advertisement (RFC 4861, 7.2.6).
pub fn announcement(address: IpAddr, port: Mac) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => arp(ARP, REQUEST, (port, address), (NONE, address)),
        IpAddr::V6(address) => {
            let body = [&address.octets()[..], &[TARGET_MAC, 1], &port.0].concat();
            discovery(port, (address, ALL_NODES), (ADVERTISEMENT, OVERRIDE), &body)
        }
    }
}

/// Asks for routers as one that has no address yet (RFC 4861, 6.3.7): they answer to all.
pub fn router_question(port: Mac) -> Vec<u8> {
    discovery(port, (Ipv6Addr::UNSPECIFIED, ALL_ROUTERS), (ROUTER_SOLICITATION, [0; 4]), &[])
}

/// Tells switches where a port's MAC is, as a VMM does for a guest that has moved.
pub fn whereabouts(port: Mac) -> Vec<u8> {
    arp(RARP, REVERSE_REQUEST, (port, Ipv4Addr::UNSPECIFIED), (port, Ipv4Addr::UNSPECIFIED))
}

/// The MAC and the address that this frame claims; none where it claims none.
pub fn claim(frame: &[u8]) -> Option<(IpAddr, Mac)> {
    let kind = frame.get(12..14)?;
    if kind == ARP.to_be_bytes() {
        let message = frame.get(14..42)?;
        let operation = u16::from_be_bytes(*message[6..].first_chunk()?);
        let address = Ipv4Addr::from(*message[14..].first_chunk::<4>()?);
        let claims = message[..6] == ARP_HEADER && matches!(operation, REQUEST | REPLY) && !address.is_unspecified();
        return claims.then_some((address.into(), Mac(*message[8..].first_chunk()?)));
    }
    let (header, message) = (frame.get(14..54)?, frame.get(54..)?);
    let is_advertisement = kind == IP6 && header[6] == ICMP6 && header[7] == HOPS && message.first() == Some(&ADVERTISEMENT);
    let address = Ipv6Addr::from(*message.get(8..)?.first_chunk::<16>()?);
    let sender = *frame[6..].first_chunk()?;
    let holder = match message.get(24..32) {
        Some([TARGET_MAC, 1, mac @ ..]) => *mac.first_chunk()?,
        _ => sender,
    };
    is_advertisement.then_some((address.into(), Mac(holder)))
}

fn arp(kind: u16, operation: u16, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
    let mut frame = [&BROADCAST.0[..], &sender.0.0, &kind.to_be_bytes(), &ARP_HEADER, &operation.to_be_bytes()].concat();
    for (mac, address) in [sender, target] {
        frame.extend(mac.0);
        frame.extend(address.octets());
    }
    frame.resize(SHORTEST, 0);
    frame
}

fn discovery(from: Mac, (source, group): (Ipv6Addr, Ipv6Addr), (kind, flags): (u8, [u8; 4]), body: &[u8]) -> Vec<u8> {
    let [.., a, b, c, d] = group.octets();
    let packet = PacketBuilder::ethernet2(from.0, [0x33, 0x33, a, b, c, d])
        .ipv6(source.octets(), group.octets(), HOPS)
        .icmpv6_raw(kind, 0, flags);
    let mut frame = Vec::with_capacity(packet.size(body.len()));
    // Its length fits, and memory takes what is written.
    let _ = packet.write(&mut frame, body);
    frame
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    use super::*;

    const PORT: Mac = Mac([0xfa, 0x16, 0x3e, 1, 2, 3]);
    const BRIDGE: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn addresses() -> [IpAddr; 2] {
        ["192.0.2.5".parse().unwrap(), "2001:db8::1:2345".parse().unwrap()]
    }

    #[test]
    fn an_announcement_claims_the_address_and_a_question_claims_none() {
        for address in addresses() {
            assert_eq!(claim(&announcement(address, PORT)), Some((address, PORT)));
            assert_eq!(claim(&question(address, PORT, BRIDGE)), None);
        }
        assert_eq!(claim(&whereabouts(PORT)), None);
    }

    #[test]
    fn an_arp_probe_is_from_no_address_and_answered_to_the_bridge() {
        let frame = question(addresses()[0], PORT, BRIDGE);
        let sender = [2, 0, 0, 0, 0, 1];
        assert_eq!(frame[..12], [[0xff; 6], sender].concat());
        assert_eq!(frame[12..22], [8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        assert_eq!(frame[22..42], [&sender[..], &[0; 4], &PORT.0, &[192, 0, 2, 5]].concat());
        assert_eq!(frame.len(), 60);
    }

    #[test]
    fn neighbour_discovery_has_its_checksum_and_goes_to_its_group() {
        let address = addresses()[1];
        let group: Ipv6Addr = "ff02::1:ff01:2345".parse().unwrap();
        let all: Ipv6Addr = "ff02::1".parse().unwrap();
        for (frame, kind, to) in
            [(question(address, PORT, BRIDGE), SOLICITATION, group), (announcement(address, PORT), ADVERTISEMENT, all)]
        {
            let packet = SlicedPacket::from_ethernet(&frame).unwrap();
            let (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Icmpv6(icmp))) = (&packet.net, &packet.transport) else {
                panic!()
            };
            assert_eq!((ip.header().hop_limit(), ip.header().destination_addr()), (HOPS, to));
            assert_eq!(icmp.type_u8(), kind);
            assert!(icmp.is_checksum_valid(ip.header().source(), ip.header().destination()));
            assert_eq!(frame[..2], [0x33, 0x33]);
            assert_eq!(frame[2..6], to.octets()[12..]);
        }
    }

    #[test]
    fn no_part_of_a_frame_is_taken_for_more_than_it_is() {
        for address in addresses() {
            let frame = announcement(address, PORT);
            for length in 0..frame.len() {
                let said = claim(&frame[..length]);
                assert!(said.is_none_or(|said| said == (address, PORT)), "{length}: {said:?}");
            }
            for at in 0..frame.len() {
                for value in 0..=255 {
                    let mut other = frame.clone();
                    other[at] = value;
                    let _ = claim(&other);
                }
            }
        }
        let forwarded = {
            let mut frame = announcement(addresses()[1], PORT);
            frame[21] = 254;
            frame
        };
        assert_eq!(claim(&forwarded), None);
    }
}
