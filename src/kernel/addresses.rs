//! Addresses of links, read from a dump (`inet_fill_ifaddr`, net/ipv4/devinet.c; `inet6_fill_ifaddr`, net/ipv6/addrconf.c).

use std::net::IpAddr;

use super::answer::{Failure, Part};
use super::socket::Netlink;
use super::uapi::*;
use super::wire::{self, Batch};
use crate::plan::{Address, HostAddress};

/// Length of `struct ifaddrmsg`.
const IFADDRMSG: usize = 8;

/// Every address in the socket's namespace.
pub(super) fn all(netlink: &mut Netlink) -> Result<Vec<HostAddress>, Failure> {
    netlink.dump(ask, |body| read(body).map(|(index, address)| HostAddress { index, ip: address.ip }))
}

/// The addresses of the link with this index.
pub(super) fn of_link(netlink: &mut Netlink, index: u32) -> Result<Vec<Address>, Failure> {
    netlink.dump(ask, |body| read(body).filter(|(of, _)| *of == index).map(|(_, address)| address))
}

fn ask() -> Batch {
    asking(RTM_GETADDR, AF_UNSPEC, IFADDRMSG)
}

/// A request for a dump, whose fixed part of this length says nothing but the family.
pub(super) fn asking(kind: u16, family: u8, length: usize) -> Batch {
    let mut fixed = vec![0; length];
    fixed[0] = family;
    let mut batch = Batch::default();
    batch.add(Part::Look, kind, NLM_F_DUMP, &fixed, |_| {});
    batch
}

/// An address and the index of its link.
fn read(body: &[u8]) -> Option<(u32, Address)> {
    let index = wire::u32_at(body, 4)?;
    let field = |wanted| wire::fields_behind(body, IFADDRMSG).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let ip = ip_of(field(IFA_LOCAL).or_else(|| field(IFA_ADDRESS))?)?;
    Some((index, Address { ip, prefix: wire::u8_at(body, 1)? }))
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
