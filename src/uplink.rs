//! Whether a bridge carries the traffic of the host itself: its default route, in whichever table and by whichever link above
//! the bridge.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

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

/// The links of a host, as far as they are looked at here.
pub trait Links {
    /// The link with this index.
    fn link(&self, index: u32) -> Option<Link<'_>>;
    /// The links whose master this one is.
    fn members(&self, master: u32) -> Vec<u32>;
}

/// One link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link<'a> {
    /// Its name.
    pub name: &'a str,
    /// Whether it is a veth, whose `lower` is its other end.
    pub is_veth: bool,
    /// The bridge, bond or VRF it is in.
    pub master: Option<u32>,
    /// The link below it (`IFLA_LINK`); none in another namespace.
    pub lower: Option<u32>,
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
pub fn carried(routes: &[BroadRoute], bridge: u32, links: &impl Links) -> Option<Carried> {
    let mut reached: BTreeMap<(u32, bool), BTreeSet<u8>> = BTreeMap::new();
    for route in routes {
        reached.entry((route.link, route.v6)).or_default().extend(route.octets());
    }
    let default = |link: u32, v6: bool| reached.get(&(link, v6)).is_some_and(|octets| octets.len() * SHARE >= world(v6).len());
    let mut defaults: Vec<&BroadRoute> = routes.iter().filter(|route| default(route.link, route.v6)).collect();
    // The main table is what is looked for first.
    defaults.sort_by_key(|route| (route.table != 254, route.length, (*route).clone()));
    let route = defaults.into_iter().find(|route| leads_through(links, route.link, bridge))?;
    let by = links.link(route.link).map_or_else(|| format!("index {}", route.link), |link| link.name.to_owned());
    Some(Carried { by, table: route.table })
}

/// Whether frames that the host sends by a link go through a bridge: the link is the bridge, is above it (a VLAN, a macvlan), has
/// such a link in it (a bond, a VRF), or is a veth whose other end is in it.
fn leads_through(links: &impl Links, link: u32, bridge: u32) -> bool {
    let (mut seen, mut next) = (BTreeSet::new(), vec![link]);
    while let Some(index) = next.pop() {
        if index == bridge {
            return true;
        }
        let Some(link) = links.link(index).filter(|_| seen.insert(index)) else { continue };
        match link.lower.and_then(|lower| Some((lower, links.link(lower)?))) {
            Some((_, peer)) if link.is_veth => next.extend(peer.master),
            Some((lower, _)) => next.push(lower),
            None => {}
        }
        next.extend(links.members(index));
    }
    false
}
