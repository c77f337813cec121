//! Connections that conntrack has (ctnetlink): those that the rules of groups do not allow any more are deleted.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{DefaultNla, NLA_F_NESTED, NLM_F_ACK, NLM_F_DUMP};
use netlink_packet_netfilter::conntrack::{ConntrackAttribute, ConntrackMessage};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};
use nix::errno::Errno;

use super::shared::{Shared, Zones};
use crate::kernel::answer::{Failure, Request};
use crate::kernel::message::{Batch, find};
use crate::kernel::nft::NFGENMSG;
use crate::kernel::socket::{Netlink, failed, netfilter};
use crate::model::{Direction, LinkName};
use crate::plan::groups::Profile;

/// `linux/netfilter/nfnetlink_conntrack.h`.
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_PROTO_ICMP_TYPE: u16 = 5;
const CTA_PROTO_ICMP_CODE: u16 = 6;
const CTA_PROTO_ICMPV6_TYPE: u16 = 8;
const CTA_PROTO_ICMPV6_CODE: u16 = 9;

/// A connection, by its first packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flow {
    zone: u16,
    protocol: u8,
    /// As it was sent.
    sent: Packet,
    /// As it arrived: the host may have translated its addresses and its port in between.
    arrived: Packet,
    /// As the kernel gives it, by which it is deleted.
    tuple: Vec<u8>,
    id: Vec<u8>,
}

/// What groups ask of a packet, beside its protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Packet {
    from: IpAddr,
    to: IpAddr,
    /// The destination port, or ICMP's type and code; 0 of other protocols.
    word: u16,
}

/// The connections of some zones.
pub(super) fn of_zones(zones: &BTreeSet<u16>) -> Result<Vec<Flow>, Failure> {
    let ask = || {
        let mut batch = Batch::default();
        batch.add(Request::Look, NLM_F_DUMP, message(NetfilterProtoFamily::Unspec, ConntrackMessage::Get(Vec::new())));
        batch
    };
    open()?.dump(ask, |body| Ok(read(body).filter(|flow| zones.contains(&flow.zone))))
}

/// Deletes connections; those that have ended meanwhile are no failure.
pub(super) fn delete(flows: &[Flow]) -> Result<(), Failure> {
    const TOGETHER: usize = 64;
    let (mut socket, mut refused) = (open()?, None);
    for some in flows.chunks(TOGETHER) {
        let mut batch = Batch::default();
        for flow in some {
            let attributes = [
                (CTA_TUPLE_ORIG | NLA_F_NESTED, flow.tuple.clone()),
                (CTA_ZONE, flow.zone.to_be_bytes().to_vec()),
                (CTA_ID, flow.id.clone()),
            ];
            let attributes = attributes.map(|(kind, value)| ConntrackAttribute::Other(DefaultNla::new(kind, value)));
            let family = if flow.sent.from.is_ipv4() { NetfilterProtoFamily::IPv4 } else { NetfilterProtoFamily::IPv6 };
            batch.add(Request::Filter, NLM_F_ACK, message(family, ConntrackMessage::Delete(attributes.into())));
        }
        let errors = socket.send(batch)?;
        refused = refused.or_else(|| errors.into_iter().find(|error| error.errno != Errno::ENOENT));
    }
    refused.map_or(Ok(()), |error| Err(Failure::system(error.request, error.errno)))
}

/// Whether a connection's first packet would not be allowed any more, or one of its sides is gone.
pub(super) fn is_refused(flow: &Flow, shared: &Shared, zones: &Zones<'_>, gone: &BTreeSet<(u16, IpAddr)>) -> bool {
    let of = |zone: u16, bridge: &LinkName| {
        let [from, to] = [flow.sent.from, flow.arrived.to].map(|side| shared.profiles_of(bridge, side));
        let is_gone = |side: IpAddr, profiles: &[&Profile]| profiles.is_empty() && gone.contains(&(zone, side));
        let allows = |own: &[&Profile], direction, word: u16, remote: IpAddr| {
            let groups = shared.holder(bridge, remote).cloned().unwrap_or_default();
            own.is_empty() || own.iter().any(|profile| profile.allows(direction, flow.protocol, word, remote, &groups))
        };
        is_gone(flow.sent.from, &from)
            || is_gone(flow.arrived.to, &to)
            || !allows(&from, Direction::Egress, flow.sent.word, flow.sent.to)
            || !allows(&to, Direction::Ingress, flow.arrived.word, flow.arrived.from)
    };
    match flow.zone {
        // What a host routes is in the host's own zone.
        0 => zones.iter().any(|(zone, (bridge, has_host))| *has_host && of(*zone, bridge)),
        zone => match zones.get(&zone) {
            Some((bridge, _)) => of(zone, bridge),
            None => [flow.sent.from, flow.arrived.to].iter().any(|side| gone.contains(&(zone, *side))),
        },
    }
}

fn open() -> Result<Netlink, Failure> {
    netfilter().map(Netlink::over).map_err(|error| failed(Request::Look, &error))
}

fn message(family: NetfilterProtoFamily, message: ConntrackMessage) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), message)
}

/// A connection as it is received; none of what has no addresses.
fn read(body: &[u8]) -> Option<Flow> {
    let tuple = find(body, NFGENMSG, CTA_TUPLE_ORIG)?;
    let carried = find(tuple, 0, CTA_TUPLE_PROTO)?;
    let octet = |kind| find(carried, 0, kind).and_then(<[u8]>::first).copied();
    let icmp = |kind, code| Some(u16::from_be_bytes([octet(kind)?, octet(code)?]));
    let port = port(tuple, CTA_PROTO_DST_PORT);
    let word = port
        .or_else(|| icmp(CTA_PROTO_ICMP_TYPE, CTA_PROTO_ICMP_CODE))
        .or_else(|| icmp(CTA_PROTO_ICMPV6_TYPE, CTA_PROTO_ICMPV6_CODE));
    let (from, to) = sides(tuple)?;
    let sent = Packet { from, to, word: word.unwrap_or_default() };
    // An answer goes from where the packet arrived to whom it seemed to be from there. Of ICMP it has a type of its own.
    let answer = find(body, NFGENMSG, CTA_TUPLE_REPLY);
    let arrived = answer.and_then(|answer| {
        let (to, from) = sides(answer)?;
        Some(Packet { from, to, word: self::port(answer, CTA_PROTO_SRC_PORT).filter(|_| port.is_some()).unwrap_or(sent.word) })
    });
    Some(Flow {
        zone: find(body, NFGENMSG, CTA_ZONE).and_then(<[u8]>::first_chunk).map_or(0, |octets| u16::from_be_bytes(*octets)),
        protocol: octet(CTA_PROTO_NUM)?,
        sent,
        arrived: arrived.unwrap_or(sent),
        tuple: tuple.to_vec(),
        id: find(body, NFGENMSG, CTA_ID)?.to_vec(),
    })
}

/// The addresses of a tuple: from which, and to which.
fn sides(tuple: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let ip = find(tuple, 0, CTA_TUPLE_IP)?;
    let v4 = |kind| find(ip, 0, kind)?.first_chunk().map(|octets: &[u8; 4]| IpAddr::from(Ipv4Addr::from(*octets)));
    let v6 = |kind| find(ip, 0, kind)?.first_chunk().map(|octets: &[u8; 16]| IpAddr::from(Ipv6Addr::from(*octets)));
    let side = |four, six| v4(four).or_else(|| v6(six));
    Some((side(CTA_IP_V4_SRC, CTA_IP_V6_SRC)?, side(CTA_IP_V4_DST, CTA_IP_V6_DST)?))
}

/// A port of a tuple.
fn port(tuple: &[u8], kind: u16) -> Option<u16> {
    find(find(tuple, 0, CTA_TUPLE_PROTO)?, 0, kind)?.first_chunk().map(|octets| u16::from_be_bytes(*octets))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernel::message::nested;
    use crate::model::group::What;
    use crate::model::{Allows, Family, Remote};
    use crate::plan::filter::{Filter, Guard};
    use crate::plan::groups::InGroups;

    fn message_of(ip: &[DefaultNla], carried: &[DefaultNla], zone: Option<u16>) -> Vec<u8> {
        use netlink_packet_core::Emitable;
        let mut all = vec![
            nested(CTA_TUPLE_ORIG, &[nested(CTA_TUPLE_IP, ip), nested(CTA_TUPLE_PROTO, carried)]),
            DefaultNla::new(CTA_ID, vec![1, 2, 3, 4]),
        ];
        all.extend(zone.map(|zone| DefaultNla::new(CTA_ZONE, zone.to_be_bytes().to_vec())));
        let mut octets = vec![0; all.as_slice().buffer_len()];
        all.as_slice().emit(&mut octets);
        [&[0; NFGENMSG][..], &octets].concat()
    }

    proptest! {
        #[test]
        fn arbitrary_messages_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&body);
            let nla = |kind| DefaultNla::new(kind, body.clone());
            let _ = read(&message_of(&[nla(CTA_IP_V4_SRC), nla(CTA_IP_V6_DST)], &[nla(CTA_PROTO_NUM), nla(CTA_PROTO_ICMP_TYPE)], None));
        }
    }

    fn ip(from: [u8; 4], to: [u8; 4]) -> [DefaultNla; 2] {
        [DefaultNla::new(CTA_IP_V4_SRC, from.to_vec()), DefaultNla::new(CTA_IP_V4_DST, to.to_vec())]
    }

    fn packet(from: [u8; 4], to: [u8; 4], word: u16) -> Packet {
        Packet { from: from.into(), to: to.into(), word }
    }

    const GUEST: [u8; 4] = [10, 0, 0, 1];
    const OTHER: [u8; 4] = [10, 0, 0, 2];

    #[test]
    fn a_connection_has_its_zone_its_sides_and_what_it_carries() {
        let tcp = [DefaultNla::new(CTA_PROTO_NUM, vec![6]), DefaultNla::new(CTA_PROTO_DST_PORT, vec![0, 22])];
        let flow = read(&message_of(&ip(GUEST, OTHER), &tcp, Some(40_000))).unwrap();
        assert_eq!((flow.zone, flow.protocol, flow.sent), (40_000, 6, packet(GUEST, OTHER, 22)));
        assert_eq!(flow.arrived, flow.sent);
        let icmp = [(CTA_PROTO_NUM, 1), (CTA_PROTO_ICMP_TYPE, 8), (CTA_PROTO_ICMP_CODE, 0)];
        let flow =
            read(&message_of(&ip(GUEST, OTHER), &icmp.map(|(kind, value)| DefaultNla::new(kind, vec![value])), None)).unwrap();
        assert_eq!((flow.zone, flow.protocol, flow.sent.word, flow.arrived.word), (0, 1, 0x0800, 0x0800));
    }

    /// A client asks the host's own address, port 80, which the host sends on to a guest's port 8080, in its own name.
    #[test]
    fn of_a_connection_that_the_host_translates_each_side_is_judged_as_it_sees_it() {
        use netlink_packet_core::Emitable;
        const CLIENT: [u8; 4] = [198, 51, 100, 7];
        const HOST: [u8; 4] = [203, 0, 113, 1];
        let tcp = |kind, word: u16| [DefaultNla::new(CTA_PROTO_NUM, vec![6]), DefaultNla::new(kind, word.to_be_bytes().to_vec())];
        let mut body = message_of(&ip(CLIENT, HOST), &tcp(CTA_PROTO_DST_PORT, 80), None);
        let carried = tcp(CTA_PROTO_SRC_PORT, 8080);
        let answer = [nested(CTA_TUPLE_REPLY, &[nested(CTA_TUPLE_IP, &ip(GUEST, HOST)), nested(CTA_TUPLE_PROTO, &carried)])];
        let mut octets = vec![0; answer.as_slice().buffer_len()];
        answer.as_slice().emit(&mut octets);
        body.extend(octets);
        let flow = read(&body).unwrap();
        assert_eq!((flow.sent, flow.arrived), (packet(CLIENT, HOST, 80), packet(HOST, GUEST, 8080)));
        let refused = |port: u16, remote: &str| {
            let (mut shared, bridge) = (Shared::default(), "br0".parse::<LinkName>().unwrap());
            let allows = Allows {
                direction: Direction::Ingress,
                family: Family::V4,
                protocol: Some(6),
                what: What::Ports { first: port, last: port },
                remote: Remote::Prefix(remote.parse().unwrap()),
            };
            shared.set_profiles([(1, Some(Profile { groups: BTreeSet::new(), allows: [allows].into() }))].into());
            let mut guard = Guard::default();
            guard.allow("fa:16:3e:00:00:01".parse().unwrap(), IpAddr::from(GUEST).into());
            let groups = InGroups { profile: 1, zone: 7, bridge, host: Some("fa:16:3e:00:00:02".parse().unwrap()) };
            shared.insert(10, &Filter { guard: Some(guard), groups: Some(groups), ..Filter::default() });
            is_refused(&flow, &shared, &shared.zones(), &BTreeSet::new())
        };
        assert!(!refused(8080, "203.0.113.1/32"));
        assert!(refused(80, "203.0.113.1/32") && refused(8080, "198.51.100.7/32"));
    }
}
