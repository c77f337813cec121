//! Configures a guest's NIC through a socket in its namespace: addresses, routes, link up.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressHeaderFlags, AddressMessage};
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use rtnetlink::{AddressMessageBuilder, RouteMessageBuilder};

use super::addresses;
use super::answer::{Failure, Request, RequestError};
use super::links::{Target, first_failure};
use super::message::{Batch, Read, attributes};
use super::netns::NetnsHandle;
use super::routes::{self, RTMSG, decoded, ip_of};
use super::seen::{ends, link, require};
use super::socket::Netlink;
use super::{LinkSelector, OpErrorKind};
use crate::model::{LinkName, PortId, names};
use crate::plan::{Address, GuestSettings, LinkState, Route, Switch};

/// Executes [`Op::ConfigureGuest`](crate::plan::Op::ConfigureGuest); returns the NIC's name in the guest.
///
/// Address generation is off. The link-local address is one of the configured addresses, so that the guest does not wait a second
/// for duplicate address detection.
///
/// New addresses are added before old ones are removed: with a link's last IPv4 address the kernel deletes all its routes, including
/// the guest's own (`fib_disable_ip`). With a primary address it also deletes the secondary ones, unless `promote_secondaries`
/// is set; so each address is temporarily a /32 of its own.
///
/// An address that is there already is asked for once more: the kernel compares IPv6 addresses without their prefix lengths
/// (`ipv6_add_addr`, net/ipv6/addrconf.c), so it may have been a stale one that the same batch then removed.
///
/// A route that the guest's kernel refuses does not fail the op; such routes are returned with the kernel's error text.
pub(super) fn configure(
    inside: &mut NetnsHandle,
    index: u32,
    settings: &GuestSettings,
    stale: Stale,
) -> Result<(LinkName, Vec<String>), Failure> {
    let (mut refusals, mut named) = inside.netlink.send_and_read(batch(index, settings, stale), |body| link(body).map(Some))?;
    let is_there = |refusal: &RequestError| matches!(refusal.request, Request::Address(_)) && refusal.errno == Errno::EEXIST;
    if refusals.iter().any(is_there) {
        let again = batch(index, settings, Stale::default());
        (refusals, named) = inside.netlink.send_and_read(again, |body| link(body).map(Some))?;
    }
    refusals.retain(|refusal| match refusal.request {
        // What is already there, exactly so.
        Request::Address(_) | Request::Route(_) => refusal.errno != Errno::EEXIST,
        _ => true,
    });
    let (routes, others): (Vec<_>, Vec<_>) =
        refusals.into_iter().partition(|refusal| matches!(refusal.request, Request::Route(_)));
    first_failure(others)?;
    let refused = routes.into_iter().map(Failure::from).map(|failure| format!("{}: {}", failure.request, failure.said)).collect();
    let name = named.map_or_else(|| name(inside, index), |link| name_of(&link))?;
    Ok((name, refused))
}

/// The requests of one configuration, in their order.
fn batch(index: u32, settings: &GuestSettings, stale: Stale) -> Batch {
    let target = Target::Index(index);
    let mut batch = Batch::default();
    batch.v6_off(target);
    if let Some(mtu) = settings.mtu {
        batch.set(Request::Link, target, |link| link.mtu(mtu));
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
    batch.switch(target, Switch::Up);
    for route in in_order(&settings.routes) {
        add_route(&mut batch, index, route);
    }
    batch
}

/// The IPv4 addresses, each as a subnet of its own; not those that are one already.
fn alone(addresses: &[Address]) -> Vec<Address> {
    let v4 = addresses.iter().filter(|address| address.ip.is_ipv4() && address.prefix < 32);
    v4.map(|address| Address { prefix: 32, ..*address }).collect()
}

/// The name of the NIC with this index.
pub(super) fn name(inside: &mut NetnsHandle, index: u32) -> Result<LinkName, Failure> {
    name_of(&require(&mut inside.netlink, LinkSelector::Index(index))?)
}

fn name_of(link: &LinkState) -> Result<LinkName, Failure> {
    link.name.parse().map_err(|error| Failure::new(OpErrorKind::Other, Request::Look, format!("{error}")))
}

/// The addresses and routes of an earlier configuration that have to be removed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Stale {
    addresses: Vec<Address>,
    routes: Vec<Route>,
}

/// Finds the addresses in the network's ranges, and the static routes with this NIC's metric, that are not in `settings`. Other
/// addresses and routes belong to the guest.
pub(super) fn stale(inside: &mut NetnsHandle, index: u32, settings: &GuestSettings) -> Result<Stale, Failure> {
    let there = addresses::of_link(&mut inside.netlink, index)?;
    let ours = |address: &Address| settings.ranges.iter().any(|range| range.contains(address.ip));
    let addresses = there.into_iter().filter(|address| ours(address) && !settings.addresses.contains(address)).collect();
    let mut routes = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        routes.extend(inside.netlink.dump(|| routes::ask_routes(family, None), |body| route_of(body, index))?);
    }
    let listed =
        |route: &Route| settings.routes.iter().any(|listed| (listed.destination, listed.via) == (route.destination, route.via));
    routes.retain(|route| route.metric == settings.metric && !listed(route));
    Ok(Stale { addresses, routes })
}

/// A static unicast route by the NIC with this index.
fn route_of(body: &[u8], index: u32) -> Read<Route> {
    let header = RouteHeader::parse(body)?;
    if header.protocol != RouteProtocol::Static || header.kind != RouteType::Unicast {
        return Ok(None);
    }
    let any = if header.address_family == AddressFamily::Inet6 { IpAddr::from([0u16; 8]) } else { IpAddr::from([0u8; 4]) };
    let (mut by, mut destination, mut via, mut metric) = (None, Some(any), Some(any), 0);
    for attribute in attributes(body, RTMSG) {
        match decoded(&attribute, header.address_family) {
            Some(RouteAttribute::Oif(link)) => by = Some(link),
            Some(RouteAttribute::Destination(to)) => destination = ip_of(to),
            Some(RouteAttribute::Gateway(hop)) => via = ip_of(hop),
            Some(RouteAttribute::Priority(priority)) => metric = priority,
            _ => {}
        }
    }
    let destination = destination.and_then(|to| IpNetwork::new(to, header.destination_prefix_length).ok());
    let route = destination.zip(via).map(|(destination, via)| Route { destination, via, onlink: false, metric });
    Ok(route.filter(|_| by == Some(index)))
}

/// The index of the other end of a port's device, which must still be in the namespace.
pub(super) fn find(netlink: &mut Netlink, inside: &mut NetnsHandle, port: PortId) -> Result<u32, Failure> {
    let gone = |said| Failure::new(OpErrorKind::Gone, Request::Namespace, said);
    let altname = names::port_altname(port);
    let Some((host, index)) = ends(netlink, LinkSelector::Altname(&altname))? else {
        // Says so if it is the host's end that is gone.
        require(netlink, LinkSelector::Altname(&altname))?;
        return Err(gone("the device has no other end"));
    };
    match ends(&mut inside.netlink, LinkSelector::Index(index))? {
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

/// A message about an address, as one of its subnet: without `IFA_ADDRESS` the kernel compares no prefix length, and deletes the
/// first that it finds (`inet_rtm_deladdr`, net/ipv4/devinet.c).
fn address_message(index: u32, Address { ip, prefix }: Address) -> AddressMessage {
    match ip {
        IpAddr::V4(ip) => AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(ip, prefix).build(),
        IpAddr::V6(ip) => AddressMessageBuilder::<Ipv6Addr>::new().index(index).address(ip, prefix).build(),
    }
}

/// Adds an address. Uniqueness of IPv6 addresses is the allocator's, so none is detected for.
fn add_address(batch: &mut Batch, index: u32, address: Address) {
    let mut message = address_message(index, address);
    if address.ip.is_ipv6() {
        message.header.flags = AddressHeaderFlags::Nodad;
    }
    batch.add(Request::Address(address), NLM_F_CREATE | NLM_F_EXCL, RouteNetlinkMessage::NewAddress(message));
}

/// Removes an address that is a /32 of its own, but not the same address as part of its subnet.
fn delete_alone(batch: &mut Batch, index: u32, address: Address) {
    batch.add(Request::Stale, 0, RouteNetlinkMessage::DelAddress(address_message(index, address)));
}

/// A message about a static unicast route by the NIC with this index, in the main table.
fn route_message(index: u32, Route { destination, via, metric, .. }: Route) -> RouteMessageBuilder<IpAddr> {
    let mut message = RouteMessageBuilder::<IpAddr>::new().output_interface(index).priority(metric);
    let RouteMessage { header, attributes, .. } = message.get_mut();
    header.address_family = if destination.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    header.destination_prefix_length = destination.prefix();
    attributes.push(RouteAttribute::Destination(destination.network().into()));
    if !via.is_unspecified() {
        attributes.push(RouteAttribute::Gateway(via.into()));
    }
    message
}

fn delete_route(batch: &mut Batch, index: u32, route: Route) {
    // Any next hop and any scope, so that on-link routes are meant as well.
    let any = Route { via: IpAddr::from([0u8; 4]), ..route };
    let message = route_message(index, any).scope(RouteScope::NoWhere).build();
    batch.add(Request::Stale, 0, RouteNetlinkMessage::DelRoute(message));
}

/// Adds a route. Appended, so that EEXIST means this very route, and another one of the same metric stays the guest's first choice
/// (`fib_table_insert`, net/ipv4/fib_trie.c).
fn add_route(batch: &mut Batch, index: u32, route: Route) {
    let message = match (route.via.is_unspecified(), route.onlink) {
        (true, _) => route_message(index, route).scope(RouteScope::Link),
        (false, true) => route_message(index, route).onlink(),
        (false, false) => route_message(index, route),
    };
    batch.add(Request::Route(route), NLM_F_CREATE | NLM_F_APPEND, RouteNetlinkMessage::NewRoute(message.build()));
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
