//! Routes of the host: which ways they go, and which next hops the host has by a link.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::addresses::ip_of;
use super::answer::{Failure, Part};
use super::socket::Netlink;
use super::uapi::*;
use super::wire::{self, Batch};

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
    for family in [AF_INET, AF_INET6] {
        let ask = || {
            let mut fixed = [0; RTMSG];
            fixed[0] = family;
            let mut batch = Batch::default();
            batch.add(Part::Look, RTM_GETROUTE, NLM_F_DUMP, &fixed, |f| f.u32(RTA_OIF, index));
            batch
        };
        let by_it = |leg: Leg| leg.via.filter(|_| leg.link == Some(index));
        hops.extend(netlink.dump(ask, |body| Some(legs(body).into_iter().filter_map(by_it).collect::<Vec<_>>()))?.concat());
    }
    let ask = || {
        let mut batch = Batch::default();
        batch.add(Part::Look, RTM_GETNEXTHOP, NLM_F_DUMP, &[0; NHMSG], |f| f.u32(NHA_OIF, index));
        batch
    };
    hops.extend(netlink.dump(ask, |body| object(body, index))?);
    Ok(hops)
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
pub(super) fn legs(body: &[u8]) -> Vec<Leg> {
    let fields = || wire::fields_behind(body, RTMSG);
    let link = fields().find(|(kind, _)| *kind == RTA_OIF).and_then(|(_, value)| wire::u32_at(value, 0));
    let only = Leg { link, via: fields().find_map(via) };
    let several = fields().filter(|(kind, _)| *kind == RTA_MULTIPATH).flat_map(|(_, value)| multipath(value));
    [only].into_iter().filter(|leg| leg.link.is_some()).chain(several).collect()
}

/// `RTA_GATEWAY`, or `RTA_VIA` where the next hop is of the other family: `struct rtvia`, the family and the octets.
fn via((kind, value): (u16, &[u8])) -> Option<IpAddr> {
    match kind {
        RTA_GATEWAY => ip_of(value),
        RTA_VIA => ip_of(value.get(2..)?),
        _ => None,
    }
}

/// `RTA_MULTIPATH`: `struct rtnexthop` with attributes behind each.
fn multipath(mut rest: &[u8]) -> impl Iterator<Item = Leg> {
    std::iter::from_fn(move || {
        let length = usize::from(wire::u16_at(rest, 0)?);
        let link = wire::u32_at(rest, 4);
        if length < RTNEXTHOP {
            return None;
        }
        let own = rest.get(..length).unwrap_or(rest);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Leg { link, via: wire::fields_behind(own, RTNEXTHOP).find_map(via) })
    })
}

/// The next hop of a next-hop object by the link with this index.
fn object(body: &[u8], index: u32) -> Option<IpAddr> {
    let field = |wanted| wire::fields_behind(body, NHMSG).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    (wire::u32_at(field(NHA_OIF)?, 0)? == index).then(|| ip_of(field(NHA_GATEWAY)?))?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_routes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = legs(&bytes);
            let _ = multipath(&bytes).count();
            let _ = object(&bytes, 1);
        }
    }
}
