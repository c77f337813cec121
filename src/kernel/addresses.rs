//! Addresses of links, read from a dump (`inet_fill_ifaddr`, net/ipv4/devinet.c; `inet6_fill_ifaddr`, net/ipv6/addrconf.c).

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_DUMP, Parseable};
use netlink_packet_route::address::{AddressAttribute, AddressHeader, AddressMessage, AddressProtocol};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::OpErrorKind;
use super::answer::{Failure, Request};
use super::message::{Batch, Read, attributes};
use super::routes;
use super::socket::Netlink;
use crate::plan::{Address, HostAddress, HostUse, Kind, LinkState};

/// Length of `struct ifaddrmsg`.
const IFADDRMSG: usize = 8;

/// One address, as reported by the kernel.
struct ReadAddress {
    /// The index of its link.
    index: u32,
    address: Address,
    /// The other end of a point-to-point address.
    peer: Option<IpAddr>,
    /// Whether the kernel added it by itself (`IFA_PROTO`, from Linux 5.18 on).
    by_kernel: bool,
}

/// The addresses of the link with this index.
pub(super) fn of_link(netlink: &mut Netlink, index: u32) -> Result<Vec<Address>, Failure> {
    Ok(read_addresses(netlink, index)?.into_iter().map(|found| found.address).collect())
}

/// Notes on links the addresses they have. With 0 for the index all links are asked for at once. On a device of ours none is to
/// be there; on a bridge of ours none that the kernel made by itself.
pub(super) fn note(netlink: &mut Netlink, index: u32, links: &mut [LinkState]) -> Result<(), Failure> {
    let mut on: HashMap<u32, Vec<ReadAddress>> = HashMap::new();
    read_addresses(netlink, index)?.into_iter().for_each(|found| on.entry(found.index).or_default().push(found));
    for link in links {
        let all = on.remove(&link.index).unwrap_or_default();
        let ours = link.is_marked();
        let (foreign, others): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|found| ours && (link.kind != Kind::Bridge || found.by_kernel));
        link.foreign_addresses = foreign.iter().map(|found| found.address).collect();
        link.hosts = others.iter().flat_map(ReadAddress::hosts).collect();
        if link.kind == Kind::Bridge && !(ours && link.hosts.is_empty()) {
            let hops = routes::next_hops(netlink, link.index);
            // It went in between, which the next look shows.
            let hops =
                hops.or_else(|failure| if failure.kind == OpErrorKind::Gone { Ok(BTreeSet::new()) } else { Err(failure) })?;
            link.hosts.extend(hops.into_iter().map(|ip| HostAddress { ip, of: HostUse::NextHop }));
        }
        // Where the host has another address it may be a router, which guests know by its link-local one.
        let is_local = |ip: &IpAddr| matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let may_route = link.hosts.iter().any(|host| host.ip.is_ipv6() && !is_local(&host.ip));
        link.hosts.retain(|host| !is_local(&host.ip) || may_route && host.of == HostUse::Own);
        link.hosts.sort_unstable();
        // The first thing that is known of an address is what it is.
        link.hosts.dedup_by_key(|host| host.ip);
    }
    Ok(())
}

impl ReadAddress {
    fn hosts(&self) -> impl Iterator<Item = HostAddress> {
        let peer = self.peer.filter(|peer| *peer != self.address.ip).map(|ip| HostAddress { ip, of: HostUse::Peer });
        [HostAddress { ip: self.address.ip, of: HostUse::Own }].into_iter().chain(peer)
    }
}

/// The addresses of one link, or with 0 of all. A socket without strict checks gives all.
fn read_addresses(netlink: &mut Netlink, index: u32) -> Result<Vec<ReadAddress>, Failure> {
    let ask = || {
        let mut message = AddressMessage::default();
        message.header.index = index;
        let mut batch = Batch::default();
        batch.add(Request::Look, NLM_F_DUMP, RouteNetlinkMessage::GetAddress(message));
        batch
    };
    netlink.dump(ask, |body| Ok(read(body)?.filter(|found| index == 0 || found.index == index)))
}

impl Batch {
    /// Takes an address off the link with this index. One that is not there is EADDRNOTAVAIL.
    pub(super) fn unaddress(&mut self, index: u32, address: Address) {
        let mut message = AddressMessage::default();
        message.header =
            AddressHeader { family: family(address.ip), prefix_len: address.prefix, index, ..AddressHeader::default() };
        message.attributes = vec![AddressAttribute::Local(address.ip)];
        self.add(Request::Stale, 0, RouteNetlinkMessage::DelAddress(message));
    }
}

/// The family of an address.
fn family(ip: IpAddr) -> AddressFamily {
    match ip {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// Reads an RTM_NEWADDR; none where it names no address.
fn read(body: &[u8]) -> Read<ReadAddress> {
    let header = AddressHeader::parse(body)?;
    let (mut local, mut peer, mut by_kernel) = (None, None, false);
    for attribute in attributes(body, IFADDRMSG).filter_map(|attribute| AddressAttribute::parse(&attribute).ok()) {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(ip),
            AddressAttribute::Address(ip) => peer = Some(ip),
            AddressAttribute::Protocol(protocol) => {
                use AddressProtocol::{LinkLocal, Loopback, RouterAnnouncement};
                by_kernel = matches!(protocol, Loopback | RouterAnnouncement | LinkLocal);
            }
            _ => {}
        }
    }
    let read = |ip| ReadAddress { index: header.index, address: Address { ip, prefix: header.prefix_len }, peer, by_kernel };
    Ok(local.or(peer).map(read))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_addresses_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = read(&bytes);
        }
    }
}
