//! Uplinks: the links that lead to physical networks. They are the operator's. nicd puts one into a bridge and takes it out, and
//! changes nothing else of it.

use std::net::IpAddr;
use std::path::Path;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{LinkFlags, LinkHeader};
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteType};

use super::answer::{Failure, Request};
use super::links::Target;
use super::message::{Batch, Read, attributes};
use super::routes::{RTMSG, ask_routes, decoded, ip_of, legs};
use super::seen::{self, require};
use super::socket::Netlink;
use super::{LinkSelector, OpErrorKind, UplinkSeen, addresses};
use crate::model::LinkName;

/// What is known of the link with this name, and what of the host's own it carries; none when there is none.
pub(super) fn look(netlink: &mut Netlink, name: &LinkName) -> Result<Option<UplinkSeen>, Failure> {
    let Some(link) = seen::get(netlink, LinkSelector::Altname(name.as_str()))? else { return Ok(None) };
    let carries = carried(netlink, link.index)?;
    let is_loopback = is_loopback(netlink, link.index)?;
    // The kernel names the radio of a wireless device there (`cfg80211_netdev_notifier_call`, net/wireless/core.c).
    let is_wireless = Path::new("/sys/class/net").join(&link.name).join("phy80211").exists();
    Ok(Some(UplinkSeen { link, is_loopback, is_wireless, carries }))
}

fn is_loopback(netlink: &mut Netlink, index: u32) -> Result<bool, Failure> {
    let read = |body: &[u8]| Ok(Some(LinkHeader::parse(body)?.flags.contains(LinkFlags::Loopback)));
    Ok(seen::look_at(netlink, LinkSelector::Index(index), read)?.unwrap_or_default())
}

/// The host's addresses on a link and its routes by it, in words. What IPv6 gives each link by itself is not the host's.
fn carried(netlink: &mut Netlink, index: u32) -> Result<Vec<String>, Failure> {
    let on_it = match addresses::of_link(netlink, index) {
        Err(failure) if failure.kind == OpErrorKind::Gone => Vec::new(),
        found => found?,
    };
    let own = on_it.into_iter().filter(|address| !is_of_the_link(address.ip));
    let mut carried: Vec<String> = own.map(|address| format!("the address {}/{}", address.ip, address.prefix)).collect();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let by_it = |body: &[u8]| route(body, index);
        let routes = match netlink.dump(|| ask_routes(family, Some(index)), by_it) {
            Err(failure) if failure.kind == OpErrorKind::Gone => Vec::new(),
            found => found?,
        };
        carried.extend(routes);
    }
    Ok(carried)
}

/// Whether an address or a destination is one that each link with IPv6 has.
fn is_of_the_link(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local() || v6.is_multicast())
}

/// A route by the link with this index, unless it is one of the kernel's own.
fn route(body: &[u8], index: u32) -> Read<String> {
    let header = RouteHeader::parse(body)?;
    if header.kind != RouteType::Unicast || !legs(body)?.iter().any(|leg| leg.link == Some(index)) {
        return Ok(None);
    }
    let (mut to, mut table) = (None, u32::from(header.table));
    for attribute in attributes(body, RTMSG).filter(|attribute| attribute.kind() != libc::RTA_MULTIPATH) {
        match decoded(&attribute, header.address_family) {
            Some(RouteAttribute::Table(other)) => table = other,
            Some(RouteAttribute::Destination(destination)) => to = ip_of(destination),
            _ => {}
        }
    }
    let kernels = table == u32::from(libc::RT_TABLE_LOCAL) || to.is_some_and(is_of_the_link);
    let to = to.map_or_else(|| "default".to_owned(), |ip| format!("{ip}/{}", header.destination_prefix_length));
    Ok((!kernels).then(|| format!("the route to {to}")))
}

/// [`Op::AdoptUplink`](crate::plan::Op::AdoptUplink). What the host has on the uplink is looked at right before: in a bridge it would be cut
/// off.
pub(super) fn adopt(netlink: &mut Netlink, index: u32, bridge: u32) -> Result<(), Failure> {
    let link = require(netlink, LinkSelector::Index(index))?;
    if link.master == Some(bridge) {
        return Ok(());
    }
    let refuse = |why: String| Err(Failure::new(OpErrorKind::Other, Request::Link, format!("{} {why}", link.name)));
    if let Some(other) = link.master {
        return refuse(format!("is a port of the link with index {other} already"));
    }
    match carried(netlink, index)?.first() {
        Some(carried) => refuse(format!("carries {carried} of this host")),
        None => set_master(netlink, index, bridge),
    }
}

/// [`Op::ReleaseUplink`](crate::plan::Op::ReleaseUplink).
pub(super) fn release(netlink: &mut Netlink, index: u32, bridge: u32) -> Result<(), Failure> {
    match seen::get(netlink, LinkSelector::Index(index))? {
        Some(link) if link.master == Some(bridge) => set_master(netlink, index, 0),
        _ => Ok(()),
    }
}

fn set_master(netlink: &mut Netlink, index: u32, master: u32) -> Result<(), Failure> {
    let mut batch = Batch::default();
    batch.set(Request::Link, Target::Index(index), |link| link.controller(master));
    super::links::send_all(netlink, batch).map_err(|failure| super::links::explained(netlink, failure, Some(master)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_routes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = route(&bytes, 1);
        }
    }

    #[test]
    fn what_ipv6_gives_each_link_is_not_the_hosts() {
        for (ip, own) in [("fe80::1", true), ("ff02::1", true), ("2001:db8::1", false), ("192.0.2.1", false)] {
            assert_eq!(is_of_the_link(ip.parse().unwrap()), own, "{ip}");
        }
    }
}
