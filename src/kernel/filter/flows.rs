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
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
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
    /// The destination port, or ICMP's type and code; 0 of other protocols.
    word: u16,
    from: IpAddr,
    to: IpAddr,
    /// As the kernel gives it, by which it is deleted.
    tuple: Vec<u8>,
    id: Vec<u8>,
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
            let family = if flow.from.is_ipv4() { NetfilterProtoFamily::IPv4 } else { NetfilterProtoFamily::IPv6 };
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
        let [from, to] = [flow.from, flow.to].map(|side| shared.profiles_of(bridge, side));
        let is_gone = |side: IpAddr, profiles: &[&Profile]| profiles.is_empty() && gone.contains(&(zone, side));
        let allows = |own: &[&Profile], direction, remote: IpAddr| {
            let groups = shared.holder(bridge, remote).map(|profile| profile.groups.clone()).unwrap_or_default();
            own.is_empty() || own.iter().any(|profile| profile.allows(direction, flow.protocol, flow.word, remote, &groups))
        };
        is_gone(flow.from, &from)
            || is_gone(flow.to, &to)
            || !allows(&from, Direction::Egress, flow.to)
            || !allows(&to, Direction::Ingress, flow.from)
    };
    match flow.zone {
        // What a host routes is in the host's own zone.
        0 => zones.iter().any(|(zone, (bridge, has_host))| *has_host && of(*zone, bridge)),
        zone => match zones.get(&zone) {
            Some((bridge, _)) => of(zone, bridge),
            None => [flow.from, flow.to].iter().any(|side| gone.contains(&(zone, *side))),
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
    let (ip, carried) = (find(tuple, 0, CTA_TUPLE_IP)?, find(tuple, 0, CTA_TUPLE_PROTO)?);
    let v4 = |kind| find(ip, 0, kind)?.first_chunk().map(|octets: &[u8; 4]| IpAddr::from(Ipv4Addr::from(*octets)));
    let v6 = |kind| find(ip, 0, kind)?.first_chunk().map(|octets: &[u8; 16]| IpAddr::from(Ipv6Addr::from(*octets)));
    let octet = |kind| find(carried, 0, kind).and_then(<[u8]>::first).copied();
    let icmp = |kind, code| Some(u16::from_be_bytes([octet(kind)?, octet(code)?]));
    let port = || find(carried, 0, CTA_PROTO_DST_PORT)?.first_chunk().map(|octets| u16::from_be_bytes(*octets));
    let word = port()
        .or_else(|| icmp(CTA_PROTO_ICMP_TYPE, CTA_PROTO_ICMP_CODE))
        .or_else(|| icmp(CTA_PROTO_ICMPV6_TYPE, CTA_PROTO_ICMPV6_CODE));
    Some(Flow {
        zone: find(body, NFGENMSG, CTA_ZONE).and_then(<[u8]>::first_chunk).map_or(0, |octets| u16::from_be_bytes(*octets)),
        protocol: octet(CTA_PROTO_NUM)?,
        word: word.unwrap_or_default(),
        from: v4(CTA_IP_V4_SRC).or_else(|| v6(CTA_IP_V6_SRC))?,
        to: v4(CTA_IP_V4_DST).or_else(|| v6(CTA_IP_V6_DST))?,
        tuple: tuple.to_vec(),
        id: find(body, NFGENMSG, CTA_ID)?.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernel::message::nested;

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

    #[test]
    fn a_connection_has_its_zone_its_sides_and_what_it_carries() {
        let ip = [DefaultNla::new(CTA_IP_V4_SRC, vec![10, 0, 0, 1]), DefaultNla::new(CTA_IP_V4_DST, vec![10, 0, 0, 2])];
        let tcp = [DefaultNla::new(CTA_PROTO_NUM, vec![6]), DefaultNla::new(CTA_PROTO_DST_PORT, vec![0, 22])];
        let flow = read(&message_of(&ip, &tcp, Some(40_000))).unwrap();
        let sides = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        assert_eq!((flow.zone, flow.protocol, flow.word, (flow.from, flow.to)), (40_000, 6, 22, sides));
        let icmp = [(CTA_PROTO_NUM, 1), (CTA_PROTO_ICMP_TYPE, 8), (CTA_PROTO_ICMP_CODE, 0)];
        let flow = read(&message_of(&ip, &icmp.map(|(kind, value)| DefaultNla::new(kind, vec![value])), None)).unwrap();
        assert_eq!((flow.zone, flow.protocol, flow.word), (0, 1, 0x0800));
    }
}
