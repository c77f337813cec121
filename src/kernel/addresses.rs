//! Addresses of links, read from a dump (`inet_fill_ifaddr`, net/ipv4/devinet.c; `inet6_fill_ifaddr`, net/ipv6/addrconf.c).

use std::collections::HashMap;
use std::net::IpAddr;

use super::answer::{Failure, Part};
use super::socket::Netlink;
use super::uapi::*;
use super::wire::{self, Batch};
use crate::plan::{Address, Kind, LinkSeen};

/// Length of `struct ifaddrmsg`.
const IFADDRMSG: usize = 8;

/// One address, as the kernel tells of it.
struct Told {
    /// The index of its link.
    index: u32,
    address: Address,
    /// Nobody asked for it (`IFA_PROTO`, from Linux 5.18 on).
    by_kernel: bool,
}

/// The addresses of the link with this index.
pub(super) fn of_link(netlink: &mut Netlink, index: u32) -> Result<Vec<Address>, Failure> {
    Ok(told(netlink, index)?.into_iter().map(|told| told.address).collect())
}

/// Notes on links of ours the addresses that are not to be there. With 0 for the index all links are asked for at once.
pub(super) fn note_strays(netlink: &mut Netlink, index: u32, links: &mut [LinkSeen]) -> Result<(), Failure> {
    let mut on: HashMap<u32, Vec<Told>> = HashMap::new();
    told(netlink, index)?.into_iter().for_each(|told| on.entry(told.index).or_default().push(told));
    for link in links.iter_mut().filter(|link| link.marks().next().is_some()) {
        let all = on.remove(&link.index).unwrap_or_default();
        let stray = all.into_iter().filter(|told| link.kind != Kind::Bridge || told.by_kernel);
        link.stray = stray.map(|told| told.address).collect();
    }
    Ok(())
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
    let by_kernel =
        field(IFA_PROTO).and_then(|proto| wire::u8_at(proto, 0)).is_some_and(|proto| proto != 0 && proto <= IFAPROT_KERNEL_LL);
    Some(Told { index, address: Address { ip, prefix: wire::u8_at(body, 1)? }, by_kernel })
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
