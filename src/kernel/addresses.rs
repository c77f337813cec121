//! Addresses of links, read from a dump (`inet_fill_ifaddr`, net/ipv4/devinet.c; `inet6_fill_ifaddr`, net/ipv6/addrconf.c).

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use super::Trouble;
use super::answer::{Failure, Part};
use super::routes;
use super::socket::Netlink;
use super::uapi::*;
use super::wire::{self, Batch};
use crate::plan::{Address, HostAddress, HostUse, Kind, LinkSeen};

/// Length of `struct ifaddrmsg`.
const IFADDRMSG: usize = 8;

/// One address, as the kernel tells of it.
struct Told {
    /// The index of its link.
    index: u32,
    address: Address,
    /// The other end of a point-to-point address.
    peer: Option<IpAddr>,
    /// Nobody asked for it (`IFA_PROTO`, from Linux 5.18 on).
    by_kernel: bool,
}

/// The addresses of the link with this index.
pub(super) fn of_link(netlink: &mut Netlink, index: u32) -> Result<Vec<Address>, Failure> {
    Ok(told(netlink, index)?.into_iter().map(|told| told.address).collect())
}

/// Notes on links the addresses they have. With 0 for the index all links are asked for at once. On a device of ours none is to
/// be there; on a bridge of ours none that the kernel made by itself.
pub(super) fn note(netlink: &mut Netlink, index: u32, links: &mut [LinkSeen]) -> Result<(), Failure> {
    let mut on: HashMap<u32, Vec<Told>> = HashMap::new();
    told(netlink, index)?.into_iter().for_each(|told| on.entry(told.index).or_default().push(told));
    for link in links {
        let all = on.remove(&link.index).unwrap_or_default();
        let ours = link.marks().next().is_some();
        let (stray, others): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|told| ours && (link.kind != Kind::Bridge || told.by_kernel));
        link.stray = stray.iter().map(|told| told.address).collect();
        link.hosts = others.iter().flat_map(Told::hosts).collect();
        if link.kind == Kind::Bridge && !(ours && link.hosts.is_empty()) {
            let hops = routes::next_hops(netlink, link.index);
            // It went in between, which the next look shows.
            let hops =
                hops.or_else(|failure| if failure.trouble == Trouble::Gone { Ok(BTreeSet::new()) } else { Err(failure) })?;
            link.hosts.extend(hops.into_iter().map(|ip| HostAddress { ip, of: HostUse::NextHop }));
        }
        link.hosts.retain(|host| !matches!(host.ip, IpAddr::V6(v6) if v6.is_unicast_link_local()));
        link.hosts.sort_unstable();
        // The first thing that is known of an address is what it is.
        link.hosts.dedup_by_key(|host| host.ip);
    }
    Ok(())
}

impl Told {
    fn hosts(&self) -> impl Iterator<Item = HostAddress> {
        let peer = self.peer.filter(|peer| *peer != self.address.ip).map(|ip| HostAddress { ip, of: HostUse::Peer });
        [HostAddress { ip: self.address.ip, of: HostUse::Own }].into_iter().chain(peer)
    }
}

/// The addresses of one link, or with 0 of all. A socket without strict checks gives all.
fn told(netlink: &mut Netlink, index: u32) -> Result<Vec<Told>, Failure> {
    let ask = || {
        let mut batch = Batch::default();
        let [a, b, c, d] = index.to_ne_bytes();
        batch.add(Part::Look, RTM_GETADDR, NLM_F_DUMP, &[AF_UNSPEC, 0, 0, 0, a, b, c, d], |_| {});
        batch
    };
    netlink.dump(ask, |body| read(body).filter(|told| index == 0 || told.index == index))
}

/// A request for a dump, whose fixed part of this length says nothing but the family.
pub(super) fn asking(kind: u16, family: u8, length: usize) -> Batch {
    let mut fixed = vec![0; length];
    fixed[0] = family;
    let mut batch = Batch::default();
    batch.add(Part::Look, kind, NLM_F_DUMP, &fixed, |_| {});
    batch
}

impl Batch {
    /// Takes an address off the link with this index. One that is not there is EADDRNOTAVAIL.
    pub(super) fn unaddress(&mut self, index: u32, address: Address) {
        let [a, b, c, d] = index.to_ne_bytes();
        let fixed = [family(address.ip), address.prefix, 0, RT_SCOPE_UNIVERSE, a, b, c, d];
        self.add(Part::Stale, RTM_DELADDR, 0, &fixed, |f| f.put(IFA_LOCAL, &octets(address.ip)));
    }
}

/// The family of an address.
pub(super) fn family(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => AF_INET,
        IpAddr::V6(_) => AF_INET6,
    }
}

/// The octets of an address, in the network's order.
pub(super) fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn read(body: &[u8]) -> Option<Told> {
    let index = wire::u32_at(body, 4)?;
    let field = |wanted| wire::fields_behind(body, IFADDRMSG).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let ip = ip_of(field(IFA_LOCAL).or_else(|| field(IFA_ADDRESS))?)?;
    let peer = field(IFA_ADDRESS).and_then(ip_of);
    let by_kernel =
        field(IFA_PROTO).and_then(|proto| wire::u8_at(proto, 0)).is_some_and(|proto| proto != 0 && proto <= IFAPROT_KERNEL_LL);
    Some(Told { index, address: Address { ip, prefix: wire::u8_at(body, 1)? }, peer, by_kernel })
}

/// Four or sixteen octets as an address.
pub(super) fn ip_of(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
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
