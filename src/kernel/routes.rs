//! Routes of the host: their outgoing links and next hops.

use std::collections::BTreeSet;
use std::net::IpAddr;

use netlink_packet_core::{DecodeError, DefaultNla, NLM_F_DUMP, NlaBuffer, ParseableParametrized, parse_ip, parse_u32};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteLwEnCapType, RouteMessage, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::answer::{Failure, Request};
use super::message::{Batch, Read, Untyped, attributes, check, find};
use super::socket::Netlink;
use super::untyped::{NHA_GATEWAY, NHA_OIF, RTM_GETNEXTHOP};

/// Length of `struct rtmsg`.
pub(super) const RTMSG: usize = 12;
/// Length of `struct rtnexthop`.
const RTNEXTHOP: usize = 8;
/// Length of `struct nhmsg`.
pub(super) const NHMSG: usize = 8;

/// The next hops by the link with this index: of the host's routes in all tables, and of its next-hop objects. The kernel
/// picks them out, so this costs a message for each route by that link alone.
pub(super) fn next_hops(netlink: &mut Netlink, index: u32) -> Result<BTreeSet<IpAddr>, Failure> {
    let mut hops = BTreeSet::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let by_it = |leg: Leg| leg.via.filter(|_| leg.link == Some(index));
        let read = |body: &[u8]| Ok(Some(legs(body)?.into_iter().filter_map(by_it).collect::<Vec<_>>()));
        hops.extend(netlink.dump(|| ask_routes(family, Some(index)), read)?.concat());
    }
    hops.extend(netlink.dump(|| ask_objects(Some(index)), |body| object(body, index))?);
    Ok(hops)
}

/// Asks for all routes of a family, or for those by the link with this index.
pub(super) fn ask_routes(family: AddressFamily, by: Option<u32>) -> Batch {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.attributes = by.map(RouteAttribute::Oif).into_iter().collect();
    let mut batch = Batch::default();
    batch.add(Request::Look, NLM_F_DUMP, RouteNetlinkMessage::GetRoute(message));
    batch
}

/// Asks for all next-hop objects, or for those by the link with this index.
pub(super) fn ask_objects(by: Option<u32>) -> Batch {
    let attributes = by.map(|index| DefaultNla::new(NHA_OIF, index.to_ne_bytes().to_vec())).into_iter().collect();
    let mut batch = Batch::default();
    batch.add(Request::Look, NLM_F_DUMP, Untyped { kind: RTM_GETNEXTHOP, fixed: vec![0; NHMSG], attributes });
    batch
}

/// One way of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Leg {
    /// The link it leaves by.
    pub(super) link: Option<u32>,
    /// The next hop; none for what is on the link itself.
    via: Option<IpAddr>,
}

/// The ways of one route.
pub(super) fn legs(body: &[u8]) -> Result<Vec<Leg>, DecodeError> {
    let family = RouteHeader::parse(body)?.address_family;
    let only = leg(None, attributes(body, RTMSG), family);
    let several = find(body, RTMSG, libc::RTA_MULTIPATH).into_iter().flat_map(|hops| multipath(hops, family));
    Ok([only].into_iter().filter(|leg| leg.link.is_some()).chain(several).collect())
}

fn leg<'a>(link: Option<u32>, attributes: impl Iterator<Item = NlaBuffer<&'a [u8]>>, family: AddressFamily) -> Leg {
    let mut leg = Leg { link, via: None };
    for attribute in attributes.filter(|attribute| attribute.kind() != libc::RTA_MULTIPATH) {
        match decoded(&attribute, family) {
            Some(RouteAttribute::Oif(index)) => leg.link = Some(index),
            Some(RouteAttribute::Gateway(address)) => leg.via = ip_of(address),
            Some(RouteAttribute::Via(RouteVia::Inet(ip))) => leg.via = Some(ip.into()),
            Some(RouteAttribute::Via(RouteVia::Inet6(ip))) => leg.via = Some(ip.into()),
            _ => {}
        }
    }
    leg
}

/// Decodes an attribute of a route of this family; none where that cannot be done.
pub(super) fn decoded(attribute: &NlaBuffer<&[u8]>, family: AddressFamily) -> Option<RouteAttribute> {
    RouteAttribute::parse_with_param(attribute, (family, RouteType::Unspec, RouteLwEnCapType::None)).ok()
}

/// An address of a route.
pub(super) fn ip_of(address: RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(ip.into()),
        RouteAddress::Inet6(ip) => Some(ip.into()),
        _ => None,
    }
}

/// `RTA_MULTIPATH`: `struct rtnexthop` with attributes behind each. The crate would read all of them or none.
fn multipath(mut rest: &[u8], family: AddressFamily) -> impl Iterator<Item = Leg> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
        let link = parse_u32(rest.get(4..RTNEXTHOP)?).ok();
        if length < RTNEXTHOP {
            return None;
        }
        let own = rest.get(..length).unwrap_or(rest);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(leg(link, attributes(own, RTNEXTHOP), family))
    })
}

/// The next hop of a next-hop object by the link with this index.
fn object(body: &[u8], index: u32) -> Read<IpAddr> {
    check(body, NHMSG)?;
    let by_it = find(body, NHMSG, NHA_OIF).and_then(|link| parse_u32(link).ok()) == Some(index);
    Ok(find(body, NHMSG, NHA_GATEWAY).filter(|_| by_it).and_then(|gateway| parse_ip(gateway).ok()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_routes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = legs(&bytes);
            for family in [AddressFamily::Inet, AddressFamily::Inet6, AddressFamily::Mpls] {
                let _ = multipath(&bytes, family).count();
            }
            let _ = object(&bytes, 1);
        }
    }
}
