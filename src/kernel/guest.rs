//! What a guest in a namespace is given: addresses, routes and an end that is up, sent through a socket inside.

use std::net::IpAddr;

use ipnetwork::{IpNetwork, Ipv4Network};
use nix::errno::Errno;

use super::addresses::{self, asking, family, ip_of, octets};
use super::answer::{Failure, Part};
use super::links::{Target, first_failure, shape};
use super::netns::Inside;
use super::seen::{ends, link, must_look};
use super::socket::Netlink;
use super::uapi::*;
use super::wire::{self, Batch};
use super::{Trouble, Who};
use crate::model::{LinkName, PortId, names};
use crate::plan::{Address, GuestSettings, LinkSeen, Route, Switch};

/// Length of `struct rtmsg`.
const RTMSG: usize = 12;

/// [`Op::ConfigureGuest`](crate::plan::Op::ConfigureGuest); gives back the NIC's name in the guest.
///
/// Address generation is off although the guest might like it: its link-local address is among those given, set without
/// a second of duplicate address detection.
///
/// What a NIC that is there is to have is added before what it is to have no longer goes: with the last IPv4 address of a link
/// the kernel takes all of its routes, the guest's own among them (`fib_disable_ip`). It takes a first address's secondaries
/// along as well, unless `promote_secondaries` is set, so that each address stands by itself (/32) meanwhile.
///
/// A route that the guest's kernel refuses costs that route alone; gives back which, with the kernel's words.
pub(super) fn configure(
    inside: &mut Inside,
    index: u32,
    settings: &GuestSettings,
    stale: Stale,
) -> Result<(LinkName, Vec<String>), Failure> {
    let target = Target::Index(index);
    let mut batch = Batch::default();
    batch.v6_off(target);
    if settings.mtu.is_some() {
        batch.set(Part::Link, target, 0, 0, |f| shape(f, None, settings.mtu, None));
    }
    let add = |batch: &mut Batch, v6| {
        let of_family = settings.addresses.iter().filter(|address| address.ip.is_ipv6() == v6);
        of_family.for_each(|address| add_address(batch, index, *address));
    };
    let held = if stale.addresses.iter().any(|address| address.ip.is_ipv4()) { alone(&settings.addresses) } else { Vec::new() };
    add(&mut batch, true);
    held.iter().for_each(|address| add_address(&mut batch, index, *address));
    // One that an interrupted change left by itself goes last, with the others of its kind.
    let stale_addresses = stale.addresses.into_iter().filter(|address| !held.contains(address));
    stale_addresses.for_each(|address| batch.unaddress(index, address));
    add(&mut batch, false);
    held.iter().for_each(|address| delete_alone(&mut batch, index, *address));
    stale.routes.into_iter().for_each(|route| delete_route(&mut batch, index, route));
    // For its name as well: behind the switch it would be a look at a link that is up, while the host's end is not.
    batch.settle(index);
    batch.switch(target, Switch::Up, |_| {});
    for route in in_order(&settings.routes) {
        add_route(&mut batch, index, route);
    }
    let (mut refusals, named) = inside.netlink.send_and_read(batch, link)?;
    refusals.retain(|refusal| match refusal.part {
        // What is already there, exactly so.
        Part::Address(_) | Part::Route(_) => refusal.errno != Errno::EEXIST,
        _ => true,
    });
    let (routes, others): (Vec<_>, Vec<_>) = refusals.into_iter().partition(|refusal| matches!(refusal.part, Part::Route(_)));
    first_failure(others)?;
    let refused = routes.into_iter().map(Failure::from).map(|failure| format!("{}: {}", failure.part, failure.said)).collect();
    let name = named.map_or_else(|| name(inside, index), |link| name_of(&link))?;
    Ok((name, refused))
}

/// The IPv4 addresses, each as a subnet of its own; not those that are one already.
fn alone(addresses: &[Address]) -> Vec<Address> {
    let v4 = addresses.iter().filter(|address| address.ip.is_ipv4() && address.prefix < 32);
    v4.map(|address| Address { prefix: 32, ..*address }).collect()
}

/// The name of the NIC with this index.
pub(super) fn name(inside: &mut Inside, index: u32) -> Result<LinkName, Failure> {
    name_of(&must_look(&mut inside.netlink, Who::Index(index))?)
}

fn name_of(link: &LinkSeen) -> Result<LinkName, Failure> {
    link.name.parse().map_err(|error| Failure::new(Trouble::Other, Part::Look, format!("{error}")))
}

/// What a NIC has of an earlier configuration and is to have no longer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Stale {
    addresses: Vec<Address>,
    routes: Vec<Route>,
}

/// What `settings` no longer list of what nicd gave the NIC before: addresses in the network's ranges, and static
/// routes with this NIC's metric. What the guest itself added elsewhere is its own.
pub(super) fn stale(inside: &mut Inside, index: u32, settings: &GuestSettings) -> Result<Stale, Failure> {
    let there = addresses::of_link(&mut inside.netlink, index)?;
    let ours = |address: &Address| settings.ranges.iter().any(|range| range.contains(address.ip));
    let addresses = there.into_iter().filter(|address| ours(address) && !settings.addresses.contains(address)).collect();
    let mut routes = Vec::new();
    for family in [AF_INET, AF_INET6] {
        routes.extend(inside.netlink.dump(|| asking(RTM_GETROUTE, family, RTMSG), |body| route_of(body, index))?);
    }
    let listed =
        |route: &Route| settings.routes.iter().any(|listed| (listed.destination, listed.via) == (route.destination, route.via));
    routes.retain(|route| route.metric == settings.metric && !listed(route));
    Ok(Stale { addresses, routes })
}

/// A static unicast route by the NIC with this index.
fn route_of(body: &[u8], index: u32) -> Option<Route> {
    let (prefix, protocol, kind) = (wire::u8_at(body, 1)?, wire::u8_at(body, 5)?, wire::u8_at(body, 7)?);
    let field = |wanted| wire::fields_behind(body, RTMSG).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    if protocol != RTPROT_STATIC || kind != RTN_UNICAST || wire::u32_at(field(RTA_OIF)?, 0)? != index {
        return None;
    }
    let any = if wire::u8_at(body, 0)? == AF_INET6 { IpAddr::from([0u16; 8]) } else { IpAddr::from([0u8; 4]) };
    let destination = field(RTA_DST).map_or(Some(any), ip_of)?;
    let via = field(RTA_GATEWAY).map_or(Some(any), ip_of)?;
    let metric = field(RTA_PRIORITY).and_then(|value| wire::u32_at(value, 0)).unwrap_or(0);
    Some(Route { destination: IpNetwork::new(destination, prefix).ok()?, via, onlink: false, metric })
}

/// The index of the other end of a port's device, which must still be in the namespace.
pub(super) fn find(netlink: &mut Netlink, inside: &mut Inside, port: PortId) -> Result<u32, Failure> {
    let gone = |said| Failure::new(Trouble::Gone, Part::Namespace, said);
    let altname = names::port_altname(port);
    let Some((host, index)) = ends(netlink, Who::Altname(&altname))? else {
        // Says so if it is the host's end that is gone.
        must_look(netlink, Who::Altname(&altname))?;
        return Err(gone("the device has no other end"));
    };
    match ends(&mut inside.netlink, Who::Index(index))? {
        Some((_, back)) if back == host => Ok(index),
        _ => Err(gone("the device's other end is no longer in it")),
    }
}

/// What reaches next hops before what goes by them: routes without a next hop, then from the longest prefix to the
/// default.
fn in_order(routes: &[Route]) -> Vec<Route> {
    let mut routes = routes.to_vec();
    routes.sort_by_key(|route| (!route.via.is_unspecified(), u8::MAX - route.destination.prefix()));
    routes
}

/// `struct ifaddrmsg` and its attributes. Uniqueness of IPv6 addresses is the allocator's, so none is detected for.
fn add_address(batch: &mut Batch, index: u32, address: Address) {
    let Address { ip, prefix } = address;
    let flags = if ip.is_ipv6() { IFA_F_NODAD } else { 0 };
    let [a, b, c, d] = index.to_ne_bytes();
    let fixed = [family(ip), prefix, flags, RT_SCOPE_UNIVERSE, a, b, c, d];
    batch.add(Part::Address(address), RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &fixed, |f| {
        f.put(IFA_LOCAL, &octets(ip));
        f.put(IFA_ADDRESS, &octets(ip));
        if let IpAddr::V4(ip) = ip
            && prefix < 31
            && let Ok(network) = Ipv4Network::new(ip, prefix)
        {
            f.put(IFA_BROADCAST, &network.broadcast().octets());
        }
    });
}

/// Takes an address off that stands by itself, and not the same address as part of its subnet: without `IFA_ADDRESS` the kernel
/// compares no prefix length, and takes the first that it finds (`inet_rtm_deladdr`, net/ipv4/devinet.c).
fn delete_alone(batch: &mut Batch, index: u32, address: Address) {
    let [a, b, c, d] = index.to_ne_bytes();
    let fixed = [family(address.ip), address.prefix, 0, RT_SCOPE_UNIVERSE, a, b, c, d];
    batch.add(Part::Stale, RTM_DELADDR, 0, &fixed, |f| {
        f.put(IFA_LOCAL, &octets(address.ip));
        f.put(IFA_ADDRESS, &octets(address.ip));
    });
}

fn delete_route(batch: &mut Batch, index: u32, route: Route) {
    let mut fixed = [0; RTMSG];
    fixed[0] = family(route.destination.ip());
    fixed[1] = route.destination.prefix();
    // Any scope (RT_SCOPE_NOWHERE), so that on-link routes are meant as well.
    fixed[4..8].copy_from_slice(&[RT_TABLE_MAIN, RTPROT_STATIC, u8::MAX, RTN_UNICAST]);
    batch.add(Part::Stale, RTM_DELROUTE, 0, &fixed, |f| {
        f.put(RTA_DST, &octets(route.destination.network()));
        f.u32(RTA_OIF, index);
        f.u32(RTA_PRIORITY, route.metric);
    });
}

/// `struct rtmsg` and its attributes. Appended, so that EEXIST means this very route, and another one of the same
/// metric stays the guest's first choice (`fib_table_insert`, net/ipv4/fib_trie.c).
fn add_route(batch: &mut Batch, index: u32, route: Route) {
    let Route { destination, via, onlink, metric } = route;
    let (scope, flags) = match (via.is_unspecified(), onlink) {
        (true, _) => (RT_SCOPE_LINK, 0),
        (false, true) => (RT_SCOPE_UNIVERSE, RTNH_F_ONLINK),
        (false, false) => (RT_SCOPE_UNIVERSE, 0),
    };
    let mut fixed = [0; RTMSG];
    fixed[0] = family(destination.ip());
    fixed[1] = destination.prefix();
    fixed[4..8].copy_from_slice(&[RT_TABLE_MAIN, RTPROT_STATIC, scope, RTN_UNICAST]);
    fixed[8..12].copy_from_slice(&flags.to_ne_bytes());
    batch.add(Part::Route(route), RTM_NEWROUTE, NLM_F_CREATE | NLM_F_APPEND, &fixed, |f| {
        f.put(RTA_DST, &octets(destination.network()));
        if !via.is_unspecified() {
            f.put(RTA_GATEWAY, &octets(via));
        }
        f.u32(RTA_OIF, index);
        f.u32(RTA_PRIORITY, metric);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_hops_are_reachable_before_they_are_used() {
        let route = |destination: &str, via: &str| Route {
            destination: destination.parse().unwrap(),
            via: via.parse().unwrap(),
            onlink: false,
            metric: 0,
        };
        let given = [route("0.0.0.0/0", "10.9.9.9"), route("10.0.0.0/8", "192.0.2.1"), route("10.9.9.9/32", "0.0.0.0")];
        let order: Vec<_> = in_order(&given).iter().map(|route| route.destination.to_string()).collect();
        assert_eq!(order, ["10.9.9.9/32", "10.0.0.0/8", "0.0.0.0/0"]);
    }
}
