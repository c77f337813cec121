//! Whether a bridge carries the traffic of the host itself: its default route, in whichever table and by whichever link above
//! the bridge.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::observed::{Kind, Observed};

/// Routes with a longer prefix than this are not looked at.
pub const BROAD: u8 = 8;

/// A route to so much of the world counts as a default route: a quarter. So `0.0.0.0/1` does, and `2000::/3`.
const SHARE: usize = 4;

/// One way of a route with a short prefix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BroadRoute {
    /// The link it leaves by.
    pub link: u32,
    /// Its table.
    pub table: u32,
    /// Whether it is IPv6's.
    pub v6: bool,
    /// The first octet of its destination.
    pub first_octet: u8,
    /// The length of its prefix, at most [`BROAD`].
    pub length: u8,
}

/// How the host's default route goes through a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// The link that the route leaves by: the bridge or one above it.
    pub by: String,
    /// The route's table.
    pub table: u32,
}

impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = match self.table {
            254 => "main".to_owned(),
            other => other.to_string(),
        };
        write!(f, "it holds this host's default route (table {table}, by {})", self.by)
    }
}

impl BroadRoute {
    /// The first octets of the addresses it leads to, of those that hosts of the world have.
    fn octets(&self) -> impl Iterator<Item = u8> + use<> {
        let world = world(self.v6);
        let first = u16::from(self.first_octet);
        let behind = first + (256 >> self.length.min(BROAD));
        (first..behind).filter_map(|octet| u8::try_from(octet).ok()).filter(move |octet| world.contains(octet))
    }
}

/// The first octets of unicast addresses: of IPv4, and of what IPv6 has given out (`2000::/3`).
fn world(v6: bool) -> std::ops::Range<u8> {
    if v6 { 0x20..0x40 } else { 1..224 }
}

/// How a bridge carries one of the host's default routes; none when it carries none. Routes of a link in all tables count
/// together, so a default route that is split into parts is one.
pub fn carried(routes: &[BroadRoute], bridge: u32, have: &Observed) -> Option<Carried> {
    let mut reached: BTreeMap<(u32, bool), BTreeSet<u8>> = BTreeMap::new();
    for route in routes {
        reached.entry((route.link, route.v6)).or_default().extend(route.octets());
    }
    let default = |link: u32, v6: bool| reached.get(&(link, v6)).is_some_and(|octets| octets.len() * SHARE >= world(v6).len());
    let mut defaults: Vec<&BroadRoute> = routes.iter().filter(|route| default(route.link, route.v6)).collect();
    // The main table is what is looked for first.
    defaults.sort_by_key(|route| (route.table != 254, route.length, (*route).clone()));
    let route = defaults.into_iter().find(|route| leads_through(have, route.link, bridge))?;
    let by = have.link(route.link).map_or_else(|| format!("index {}", route.link), |link| link.name.clone());
    Some(Carried { by, table: route.table })
}

/// Whether frames that the host sends by a link go through a bridge: the link is the bridge, is above it (a VLAN, a macvlan), has
/// such a link in it (a bond, a VRF), or is a veth whose other end is in it.
fn leads_through(have: &Observed, link: u32, bridge: u32) -> bool {
    let (mut seen, mut next) = (BTreeSet::new(), vec![link]);
    while let Some(index) = next.pop() {
        if index == bridge {
            return true;
        }
        let Some(link) = have.link(index).filter(|_| seen.insert(index)) else { continue };
        match link.lower.and_then(|lower| have.link(lower)) {
            Some(peer) if link.kind == Kind::Veth => next.extend(peer.master),
            Some(lower) => next.push(lower.index),
            None => {}
        }
        next.extend(have.iter().filter(|member| member.master == Some(index)).map(|member| member.index));
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::observed::LinkState;
    use super::*;

    const BRIDGE: u32 = 10;

    fn host(others: &[LinkState]) -> Observed {
        let bridge = LinkState::bare(BRIDGE, "brx", Kind::Bridge);
        Observed::from([&[bridge], others].concat())
    }

    fn over(index: u32, name: &str, lower: u32) -> LinkState {
        LinkState { lower: Some(lower), ..LinkState::bare(index, name, Kind::Other) }
    }

    fn v4(link: u32, table: u32, first_octet: u8, length: u8) -> BroadRoute {
        BroadRoute { link, table, v6: false, first_octet, length }
    }

    fn v6(link: u32, first_octet: u8, length: u8) -> BroadRoute {
        BroadRoute { link, table: 254, v6: true, first_octet, length }
    }

    fn by(routes: &[BroadRoute], others: &[LinkState]) -> Option<(String, u32)> {
        carried(routes, BRIDGE, &host(others)).map(|carried| (carried.by, carried.table))
    }

    #[test]
    fn any_table_counts_and_is_named() {
        assert_eq!(by(&[v4(BRIDGE, 100, 0, 0)], &[]), Some(("brx".into(), 100)));
        assert_eq!(by(&[v4(BRIDGE, 100, 0, 0), v4(BRIDGE, 254, 0, 0)], &[]), Some(("brx".into(), 254)));
        assert_eq!(by(&[v4(3, 254, 0, 0)], &[LinkState::bare(3, "eth0", Kind::Other)]), None);
    }

    #[test]
    fn a_default_route_in_parts_is_one_and_a_private_range_is_none() {
        for routes in [
            vec![v4(BRIDGE, 254, 0, 1)],
            vec![v4(BRIDGE, 254, 128, 1)],
            vec![v4(BRIDGE, 254, 0, 2), v4(BRIDGE, 7, 64, 2)],
            vec![v6(BRIDGE, 0x20, 3)],
            vec![v6(BRIDGE, 0, 0)],
            vec![v6(BRIDGE, 0x20, 4), v6(BRIDGE, 0x30, 4)],
        ] {
            assert!(by(&routes, &[]).is_some(), "{routes:?}");
        }
        for routes in [vec![v4(BRIDGE, 254, 10, 8)], vec![v6(BRIDGE, 0xfc, 7)], vec![v4(BRIDGE, 254, 224, 4)], vec![]] {
            assert_eq!(by(&routes, &[]), None, "{routes:?}");
        }
    }

    #[test]
    fn links_above_the_bridge_count() {
        let member = |index, name: &str, master| LinkState { master: Some(master), ..LinkState::bare(index, name, Kind::Other) };
        let vlan = over(20, "brx.5", BRIDGE);
        let route = |link| [v4(link, 254, 0, 0)];
        assert_eq!(by(&route(20), std::slice::from_ref(&vlan)), Some(("brx.5".into(), 254)));
        assert!(by(&route(21), &[vlan.clone(), over(21, "mac0", 20)]).is_some(), "a macvlan on a VLAN");
        let bonded = LinkState { master: Some(22), ..vlan };
        assert!(by(&route(22), &[bonded, LinkState::bare(22, "bond0", Kind::Other)]).is_some());
        let in_vrf = LinkState { master: Some(30), ..LinkState::bare(BRIDGE, "brx", Kind::Bridge) };
        let vrf = Observed::from(vec![in_vrf, LinkState::bare(30, "vrf0", Kind::Other)]);
        assert!(carried(&route(30), BRIDGE, &vrf).is_some());
        let veth = |index, name: &str, peer| LinkState { kind: Kind::Veth, ..over(index, name, peer) };
        let plugged = LinkState { master: Some(BRIDGE), ..veth(41, "host0-br", 40) };
        assert!(by(&route(40), &[veth(40, "host0", 41), plugged]).is_some(), "a veth into the bridge");
        // Frames of a VLAN on the uplink do not go through the bridge that the uplink is in.
        assert_eq!(by(&route(50), &[member(49, "eth0", BRIDGE), over(50, "eth0.7", 49)]), None);
    }

    #[test]
    fn links_in_a_ring_are_walked_once() {
        assert_eq!(by(&[v4(60, 254, 0, 0)], &[over(60, "a", 61), over(61, "b", 60)]), None);
    }
}
