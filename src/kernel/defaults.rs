//! The host's routes that lead to most of the world, in every table, with the links they leave by.

use std::collections::{BTreeMap, BTreeSet};

use super::answer::{Failure, Part};
use super::routes::{NHMSG, RTMSG, legs};
use super::socket::Netlink;
use super::uapi::*;
use super::wire::{self, Batch};
use crate::plan::{BROAD, BroadRoute};

/// Length of `struct nexthop_grp`.
const NEXTHOP_GRP: usize = 8;

/// Routes of the host with a prefix of at most [`BROAD`], v4 and v6, in every table but the local one.
pub(super) fn broad_routes(netlink: &mut Netlink) -> Result<Vec<BroadRoute>, Failure> {
    let mut routes = Vec::new();
    for family in [AF_INET, AF_INET6] {
        let ask = || {
            let mut fixed = [0; RTMSG];
            fixed[0] = family;
            let mut batch = Batch::default();
            batch.add(Part::Look, RTM_GETROUTE, NLM_F_DUMP, &fixed, |_| {});
            batch
        };
        routes.extend(netlink.dump(ask, broad)?);
    }
    // The kernel can be told to name next-hop objects alone (`net.ipv4.nexthop_compat_mode`).
    let objects = match routes.iter().any(|route: &Broad| route.links.is_empty() && route.object.is_some()) {
        true => objects(netlink)?,
        false => Objects::default(),
    };
    Ok(routes.into_iter().flat_map(|route| route.by_link(&objects)).collect())
}

/// A broad route as the kernel tells of it.
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
fn broad(body: &[u8]) -> Option<Broad> {
    let (family, length) = (wire::u8_at(body, 0)?, wire::u8_at(body, 1)?);
    let (table, kind) = (wire::u8_at(body, 4)?, wire::u8_at(body, 7)?);
    if length > BROAD || kind != RTN_UNICAST {
        return None;
    }
    let links = legs(body).into_iter().filter_map(|leg| leg.link).collect();
    let mut route = Broad { v6: family == AF_INET6, table: table.into(), first_octet: 0, length, links, object: None };
    for (kind, value) in wire::fields_behind(body, RTMSG) {
        match kind {
            RTA_TABLE => route.table = wire::u32_at(value, 0)?,
            RTA_DST => route.first_octet = wire::u8_at(value, 0)?,
            RTA_NH_ID => route.object = wire::u32_at(value, 0),
            _ => {}
        }
    }
    (route.table != u32::from(RT_TABLE_LOCAL)).then_some(route)
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
    let ask = || {
        let mut batch = Batch::default();
        batch.add(Part::Look, RTM_GETNEXTHOP, NLM_F_DUMP, &[0; NHMSG], |_| {});
        batch
    };
    let mut objects = Objects::default();
    for (id, link, group) in netlink.dump(ask, object)? {
        objects.links.extend(link.map(|link| (id, link)));
        objects.groups.insert(id, group);
    }
    Ok(objects)
}

fn object(body: &[u8]) -> Option<(u32, Option<u32>, Vec<u32>)> {
    let field = |wanted| wire::fields_behind(body, NHMSG).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let id = wire::u32_at(field(NHA_ID)?, 0)?;
    let link = field(NHA_OIF).and_then(|value| wire::u32_at(value, 0));
    let group = field(NHA_GROUP).unwrap_or_default().chunks_exact(NEXTHOP_GRP).filter_map(|one| wire::u32_at(one, 0));
    Some((id, link, group.collect()))
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
