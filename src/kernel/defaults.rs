//! The host's default and other broad routes, in every table, with their outgoing links.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netlink_packet_core::parse_u32;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteType};

use super::answer::Failure;
use super::message::{Read, attributes, check, find};
use super::routes::{self, NHMSG, RTMSG, decoded, ip_of, legs};
use super::socket::Netlink;
use super::untyped::{NHA_GROUP, NHA_ID, NHA_OIF};
use crate::uplink::{BROAD, BroadRoute};

/// Length of `struct nexthop_grp`.
const NEXTHOP_GRP: usize = 8;

/// Routes of the host with a prefix of at most [`BROAD`], v4 and v6, in every table but the local one.
pub(super) fn broad_routes(netlink: &mut Netlink) -> Result<Vec<BroadRoute>, Failure> {
    let mut routes = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        routes.extend(netlink.dump(|| routes::ask_routes(family, None), broad)?);
    }
    // With `net.ipv4.nexthop_compat_mode` off, the kernel reports only the next-hop object.
    let objects = match routes.iter().any(|route: &Broad| route.links.is_empty() && route.object.is_some()) {
        true => objects(netlink)?,
        false => Objects::default(),
    };
    Ok(routes.into_iter().flat_map(|route| route.by_link(&objects)).collect())
}

/// A broad route, as reported by the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Broad {
    v6: bool,
    table: u32,
    first_octet: u8,
    length: u8,
    links: Vec<u32>,
    object: Option<u32>,
}

impl Broad {
    fn by_link(self, objects: &Objects) -> Vec<BroadRoute> {
        let named = self.object.filter(|_| self.links.is_empty()).map(|object| objects.links(object)).unwrap_or_default();
        let links: BTreeSet<u32> = self.links.iter().copied().chain(named).collect();
        let Self { v6, table, first_octet, length, .. } = self;
        links.into_iter().map(|link| BroadRoute { link, table, v6, first_octet, length }).collect()
    }
}

/// One route; none unless it is a broad one.
fn broad(body: &[u8]) -> Read<Broad> {
    let header = RouteHeader::parse(body)?;
    let length = header.destination_prefix_length;
    if length > BROAD || header.kind != RouteType::Unicast {
        return Ok(None);
    }
    let links = legs(body)?.into_iter().filter_map(|leg| leg.link).collect();
    let v6 = header.address_family == AddressFamily::Inet6;
    let mut route = Broad { v6, table: header.table.into(), first_octet: 0, length, links, object: None };
    for attribute in attributes(body, RTMSG).filter(|attribute| attribute.kind() != libc::RTA_MULTIPATH) {
        match decoded(&attribute, header.address_family) {
            Some(RouteAttribute::Table(table)) => route.table = table,
            Some(RouteAttribute::Destination(to)) => route.first_octet = ip_of(to).map_or(0, first_octet),
            Some(RouteAttribute::NhId(object)) => route.object = Some(object),
            _ => {}
        }
    }
    Ok(Some(route).filter(|route| route.table != u32::from(libc::RT_TABLE_LOCAL)))
}

fn first_octet(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(ip) => ip.octets()[0],
        IpAddr::V6(ip) => ip.octets()[0],
    }
}

/// Next-hop objects: the link of each, and what is in each group.
#[derive(Debug, Default)]
struct Objects {
    links: BTreeMap<u32, u32>,
    groups: BTreeMap<u32, Vec<u32>>,
}

impl Objects {
    /// The links of an object. A group has no groups in it.
    fn links(&self, object: u32) -> Vec<u32> {
        let members = self.groups.get(&object).map_or(&[][..], Vec::as_slice);
        members.iter().chain([&object]).filter_map(|object| self.links.get(object)).copied().collect()
    }
}

fn objects(netlink: &mut Netlink) -> Result<Objects, Failure> {
    let mut objects = Objects::default();
    for (id, link, group) in netlink.dump(|| routes::ask_objects(None), object)? {
        objects.links.extend(link.map(|link| (id, link)));
        objects.groups.insert(id, group);
    }
    Ok(objects)
}

fn object(body: &[u8]) -> Read<(u32, Option<u32>, Vec<u32>)> {
    check(body, NHMSG)?;
    let number = |wanted| find(body, NHMSG, wanted).and_then(|value| parse_u32(value).ok());
    let group = find(body, NHMSG, NHA_GROUP).unwrap_or_default().chunks_exact(NEXTHOP_GRP);
    let group = group.filter_map(|one| one.first_chunk().map(|object| u32::from_ne_bytes(*object))).collect();
    Ok(number(NHA_ID).map(|id| (id, number(NHA_OIF), group)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_routes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = broad(&bytes);
            let _ = object(&bytes);
        }
    }
}
