//! Which links the host's default routes leave by.

use std::collections::BTreeSet;

use super::answer::{Failure, Part};
use super::socket::Netlink;
use super::uapi::*;
use super::wire::{self, Batch};

/// Length of `struct rtmsg`.
const RTMSG: usize = 12;
/// Length of `struct rtnexthop`.
const RTNEXTHOP: usize = 8;

/// The links of the default routes in the main table, v4 and v6.
pub(super) fn default_route_links(netlink: &mut Netlink) -> Result<BTreeSet<u32>, Failure> {
    let mut links = BTreeSet::new();
    for family in [AF_INET, AF_INET6] {
        let ask = || {
            let mut fixed = [0; RTMSG];
            fixed[0] = family;
            fixed[4] = RT_TABLE_MAIN;
            let mut batch = Batch::default();
            batch.add(Part::Look, RTM_GETROUTE, NLM_F_DUMP, &fixed, |_| {});
            batch
        };
        links.extend(netlink.dump(ask, leaves_by)?.into_iter().flatten());
    }
    Ok(links)
}

/// The links of one route; none unless it is a default route of the main table.
fn leaves_by(body: &[u8]) -> Option<Vec<u32>> {
    let (length, table, kind) = (wire::u8_at(body, 1)?, wire::u8_at(body, 4)?, wire::u8_at(body, 7)?);
    if length != 0 || kind != RTN_UNICAST {
        return None;
    }
    let (mut links, mut table) = (Vec::new(), u32::from(table));
    for (kind, value) in wire::fields_behind(body, RTMSG) {
        match kind {
            RTA_TABLE => table = wire::u32_at(value, 0)?,
            RTA_OIF => links.extend(wire::u32_at(value, 0)),
            RTA_MULTIPATH => links.extend(next_hops(value)),
            _ => {}
        }
    }
    (table == u32::from(RT_TABLE_MAIN)).then_some(links)
}

/// The links of `RTA_MULTIPATH`: `struct rtnexthop` with attributes behind each.
fn next_hops(mut rest: &[u8]) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let length = usize::from(wire::u16_at(rest, 0)?);
        let link = wire::u32_at(rest, 4)?;
        if length < RTNEXTHOP {
            return None;
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(link)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_routes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = leaves_by(&bytes);
            let _ = next_hops(&bytes).count();
        }
    }
}
