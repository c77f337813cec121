//! A subnet: a range of addresses of one family on a network, and what a guest in it is told.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::action::SubnetChange;
use super::ids::{NetworkId, SubnetId};
use super::pools::{FreeRanges, Range, number};

/// A subnet as recorded. Made by [`NewSubnet::checked`] alone, so its parts fit together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subnet {
    /// Its id.
    pub id: SubnetId,
    /// The network it belongs to.
    pub network_id: NetworkId,
    /// A person's name for it; need not be unique.
    pub name: String,
    /// A person's remark.
    #[serde(default)]
    pub description: String,
    /// The project it was made for; nicd keeps it and gives it back.
    #[serde(default)]
    pub project_id: String,
    /// The range, with its network address.
    pub cidr: IpNetwork,
    /// The guest's next hop by default; none for an isolated subnet.
    pub gateway_ip: Option<IpAddr>,
    /// Where addresses are given from when none is asked for.
    pub allocation_pools: Vec<Range>,
    /// Resolvers the guest is told of.
    pub dns_nameservers: Vec<IpAddr>,
    /// Further routes of the guest.
    pub host_routes: Vec<HostRoute>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Grows with each change.
    pub revision_number: u64,
}

/// A route the guest gets beside its default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostRoute {
    /// Where to.
    pub destination: IpNetwork,
    /// By whom.
    pub nexthop: IpAddr,
}

/// Which gateway a new subnet asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Gateway {
    /// The first host of the range.
    #[default]
    FirstHost,
    /// None.
    None,
    /// This one.
    At(IpAddr),
}

/// What a client asks of a new subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSubnet {
    /// The id to use.
    pub id: SubnetId,
    /// The network to put it on.
    pub network_id: NetworkId,
    /// A name, possibly empty.
    pub name: String,
    /// A remark, possibly empty.
    pub description: String,
    /// A project, possibly empty.
    pub project_id: String,
    /// The range.
    pub cidr: IpNetwork,
    /// The gateway.
    pub gateway: Gateway,
    /// Pools; `None` for the whole range but the gateway.
    pub allocation_pools: Option<Vec<Range>>,
    /// Resolvers.
    pub dns_nameservers: Vec<IpAddr>,
    /// Further routes.
    pub host_routes: Vec<HostRoute>,
}

/// Why a subnet cannot be made as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    /// Bits behind the prefix are set.
    #[error("{given} has bits set behind its prefix; {right} is the network of that range")]
    HostBits {
        /// As given.
        given: IpNetwork,
        /// Its network.
        right: IpNetwork,
    },
    /// A range nobody can be a host in.
    #[error("{0} is not a range for guests: loopback, multicast, unspecified and link-local ranges are refused")]
    NotForGuests(IpNetwork),
    /// No room for a guest beside network, broadcast and gateway address.
    #[error("{0} has no room for a guest; a v4 subnet needs a prefix of at most /30 and a v6 one of at most /126")]
    TooSmall(IpNetwork),
    /// The gateway is of the other family, or the network or broadcast address.
    #[error("gateway_ip {gateway} cannot serve {cidr}: a host address of the same family is expected, or null for none")]
    Gateway {
        /// As given.
        gateway: IpAddr,
        /// The range.
        cidr: IpNetwork,
    },
    /// A pool that ends before it starts, leaves the subnet, or overlaps another.
    #[error("allocation pool {start}-{end} does not fit: {why}")]
    Pool {
        /// Its first address.
        start: IpAddr,
        /// Its last address.
        end: IpAddr,
        /// What is wrong.
        why: &'static str,
    },
    /// A resolver or route of the other family.
    #[error("{what} {value} is not of the family of {cidr}")]
    Family {
        /// The attribute.
        what: &'static str,
        /// Its value.
        value: IpAddr,
        /// The range.
        cidr: IpNetwork,
    },
    /// More entries than a guest could be told.
    #[error("{count} {what} are too many; at most {limit} are possible")]
    TooMany {
        /// The attribute.
        what: &'static str,
        /// As given.
        count: usize,
        /// The limit.
        limit: usize,
    },
}

/// At most so many pools, resolvers and routes each.
const LIST_LIMIT: usize = 32;

impl NewSubnet {
    /// Checks the parts against each other and fills in the defaults.
    ///
    /// # Errors
    /// The first thing that does not fit.
    pub fn checked(self, now: Timestamp) -> Result<Subnet, SubnetError> {
        let cidr = check_range(self.cidr)?;
        let gateway_ip = match self.gateway {
            Gateway::None => None,
            Gateway::FirstHost => Some(first_host(cidr)),
            Gateway::At(gateway) => Some(check_gateway(cidr, gateway)?),
        };
        let allocation_pools = match self.allocation_pools {
            Some(pools) => check_pools(cidr, pools)?,
            None => default_pools(cidr, gateway_ip),
        };
        limit("dns_nameservers", self.dns_nameservers.len())?;
        limit("host_routes", self.host_routes.len())?;
        let family = |what, value: IpAddr| match value.is_ipv6() == cidr.is_ipv6() {
            true => Ok(()),
            false => Err(SubnetError::Family { what, value, cidr }),
        };
        for route in &self.host_routes {
            family("host route", route.destination.ip())?;
            family("host route's next hop", route.nexthop)?;
        }
        Ok(Subnet {
            id: self.id,
            network_id: self.network_id,
            name: self.name,
            description: self.description,
            project_id: self.project_id,
            cidr,
            gateway_ip,
            allocation_pools,
            dns_nameservers: self.dns_nameservers,
            host_routes: self.host_routes,
            created_at: now,
            updated_at: now,
            revision_number: 1,
        })
    }
}

impl Subnet {
    /// Itself with a change, checked like a new one, so that no change leads to what could not have been made.
    ///
    /// # Errors
    /// The first thing that does not fit.
    pub fn changed(&self, change: SubnetChange, now: Timestamp) -> Result<Self, SubnetError> {
        let given = |gateway: Option<IpAddr>| gateway.map_or(Gateway::None, Gateway::At);
        let as_asked = NewSubnet {
            id: self.id,
            network_id: self.network_id,
            name: change.name.unwrap_or_else(|| self.name.clone()),
            description: change.description.unwrap_or_else(|| self.description.clone()),
            project_id: self.project_id.clone(),
            cidr: self.cidr,
            gateway: given(change.gateway_ip.unwrap_or(self.gateway_ip)),
            allocation_pools: Some(change.allocation_pools.unwrap_or_else(|| self.allocation_pools.clone())),
            dns_nameservers: change.dns_nameservers.unwrap_or_else(|| self.dns_nameservers.clone()),
            host_routes: change.host_routes.unwrap_or_else(|| self.host_routes.clone()),
        };
        let (created_at, updated_at, revision_number) = (self.created_at, self.updated_at, self.revision_number);
        let same = Self { created_at, updated_at, revision_number, ..as_asked.checked(now)? };
        match same == *self {
            true => Ok(same),
            false => Ok(Self { updated_at: now, revision_number: revision_number + 1, ..same }),
        }
    }

    /// Why a guest may not have `address`, if it may not: outside the range, or kept for the subnet itself.
    pub fn refuses(&self, address: IpAddr) -> Option<&'static str> {
        if !self.cidr.contains(address) {
            return Some("outside");
        }
        if self.never().contains(&address) {
            return Some(match self.gateway_ip == Some(address) {
                true => "the gateway's address",
                false => "the network or broadcast address",
            });
        }
        None
    }

    /// All addresses free that the pools hold.
    pub fn all_free(&self) -> FreeRanges {
        FreeRanges::new(&self.allocation_pools, &self.never())
    }

    /// Whether an address is in both ranges.
    pub fn overlaps(&self, other: &IpNetwork) -> bool {
        self.cidr.is_ipv6() == other.is_ipv6() && (self.cidr.contains(other.network()) || other.contains(self.cidr.network()))
    }

    /// Network address, v4 broadcast address (RFC 919) or v6 subnet-router anycast (RFC 4291 §2.6.1), and gateway.
    fn never(&self) -> Vec<IpAddr> {
        let mut never = vec![self.cidr.network()];
        if self.cidr.is_ipv4() {
            never.push(self.cidr.broadcast());
        }
        never.extend(self.gateway_ip);
        never
    }
}

fn limit(what: &'static str, count: usize) -> Result<(), SubnetError> {
    match count <= LIST_LIMIT {
        true => Ok(()),
        false => Err(SubnetError::TooMany { what, count, limit: LIST_LIMIT }),
    }
}

fn check_range(cidr: IpNetwork) -> Result<IpNetwork, SubnetError> {
    if let Ok(right) = IpNetwork::new(cidr.network(), cidr.prefix())
        && right != cidr
    {
        return Err(SubnetError::HostBits { given: cidr, right });
    }
    let unfit = match cidr.ip() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_multicast() || v4.is_link_local() || v4.octets()[0] == 0,
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_multicast() || v6.is_unicast_link_local() || v6.is_unspecified(),
    };
    let small = cidr.prefix() > if cidr.is_ipv4() { 30 } else { 126 };
    match (unfit, small) {
        (true, _) => Err(SubnetError::NotForGuests(cidr)),
        (false, true) => Err(SubnetError::TooSmall(cidr)),
        (false, false) => Ok(cidr),
    }
}

fn check_gateway(cidr: IpNetwork, gateway: IpAddr) -> Result<IpAddr, SubnetError> {
    let edge = gateway == cidr.network() || cidr.is_ipv4() && gateway == cidr.broadcast();
    let host = !gateway.is_unspecified() && !gateway.is_multicast() && !gateway.is_loopback();
    match gateway.is_ipv6() == cidr.is_ipv6() && !edge && host {
        true => Ok(gateway),
        false => Err(SubnetError::Gateway { gateway, cidr }),
    }
}

fn check_pools(cidr: IpNetwork, mut pools: Vec<Range>) -> Result<Vec<Range>, SubnetError> {
    limit("allocation_pools", pools.len())?;
    let refuse = |pool: &Range, why| Err(SubnetError::Pool { start: pool.start, end: pool.end, why });
    for pool in &pools {
        if !cidr.contains(pool.start) || !cidr.contains(pool.end) {
            return refuse(pool, "both ends must lie inside the subnet's cidr");
        }
        if number(pool.start) > number(pool.end) {
            return refuse(pool, "its end lies before its start");
        }
    }
    pools.sort_by_key(|pool| number(pool.start));
    for pair in pools.windows(2) {
        if number(pair[1].start) <= number(pair[0].end) {
            return refuse(&pair[1], "it overlaps another pool");
        }
    }
    Ok(pools)
}

fn first_host(cidr: IpNetwork) -> IpAddr {
    match cidr.network() {
        IpAddr::V4(v4) => IpAddr::V4(std::net::Ipv4Addr::from_bits(v4.to_bits() | 1)),
        IpAddr::V6(v6) => IpAddr::V6(std::net::Ipv6Addr::from_bits(v6.to_bits() | 1)),
    }
}

/// The whole range but network, broadcast and gateway address, as Neutron gives it.
fn default_pools(cidr: IpNetwork, gateway: Option<IpAddr>) -> Vec<Range> {
    let address = |n: u128| match u32::try_from(n) {
        Ok(v4) if cidr.is_ipv4() => IpAddr::V4(std::net::Ipv4Addr::from_bits(v4)),
        _ => IpAddr::V6(std::net::Ipv6Addr::from_bits(n)),
    };
    let first = number(cidr.network()) + 1;
    let last = number(cidr.broadcast()) - u128::from(cidr.is_ipv4());
    let mut pools = Vec::new();
    let mut push = |start: u128, end: u128| {
        if start <= end {
            pools.push(Range { start: address(start), end: address(end) });
        }
    };
    match gateway.map(number).filter(|gateway| (first..=last).contains(gateway)) {
        Some(gateway) => {
            push(first, gateway - 1);
            push(gateway + 1, last);
        }
        None => push(first, last),
    }
    pools
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(cidr: &str) -> NewSubnet {
        NewSubnet {
            id: SubnetId(uuid::Uuid::from_u128(1)),
            network_id: NetworkId(uuid::Uuid::from_u128(2)),
            name: String::new(),
            description: String::new(),
            project_id: String::new(),
            cidr: cidr.parse().unwrap(),
            gateway: Gateway::FirstHost,
            allocation_pools: None,
            dns_nameservers: Vec::new(),
            host_routes: Vec::new(),
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn made(new: NewSubnet) -> Result<Subnet, SubnetError> {
        new.checked(Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn defaults_are_neutrons() {
        let v4 = made(new("192.168.1.0/24")).unwrap();
        assert_eq!(v4.gateway_ip, Some(ip("192.168.1.1")));
        assert_eq!(v4.allocation_pools, [Range { start: ip("192.168.1.2"), end: ip("192.168.1.254") }]);
        let v6 = made(new("fd00:1::/64")).unwrap();
        assert_eq!(v6.gateway_ip, Some(ip("fd00:1::1")));
        assert_eq!(v6.allocation_pools, [Range { start: ip("fd00:1::2"), end: ip("fd00:1::ffff:ffff:ffff:ffff") }]);
    }

    #[test]
    fn a_gateway_in_the_middle_splits_the_pool() {
        let subnet = made(NewSubnet { gateway: Gateway::At(ip("10.0.0.4")), ..new("10.0.0.0/29") }).unwrap();
        let ends: Vec<_> = subnet.allocation_pools.iter().map(|p| (p.start, p.end)).collect();
        assert_eq!(ends, [(ip("10.0.0.1"), ip("10.0.0.3")), (ip("10.0.0.5"), ip("10.0.0.6"))]);
        let isolated = made(NewSubnet { gateway: Gateway::None, ..new("10.0.0.0/29") }).unwrap();
        assert_eq!(isolated.all_free().lowest(), Some(ip("10.0.0.1")));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for bad in
            ["10.0.0.1/24", "127.0.0.0/8", "224.0.0.0/24", "169.254.0.0/16", "fe80::/64", "ff00::/8", "10.0.0.0/31", "0.0.0.0/0"]
        {
            assert!(made(new(bad)).is_err(), "{bad}");
        }
        for gateway in ["10.0.0.0", "10.0.0.255", "fd00::1", "224.0.0.1"] {
            assert!(made(NewSubnet { gateway: Gateway::At(ip(gateway)), ..new("10.0.0.0/24") }).is_err(), "{gateway}");
        }
        for (start, end) in [("10.0.0.9", "10.0.0.2"), ("10.0.0.2", "10.0.1.2"), ("fd00::1", "fd00::2")] {
            let pools = Some(vec![Range { start: ip(start), end: ip(end) }]);
            assert!(made(NewSubnet { allocation_pools: pools, ..new("10.0.0.0/24") }).is_err(), "{start}-{end}");
        }
        let overlapping =
            vec![Range { start: ip("10.0.0.2"), end: ip("10.0.0.9") }, Range { start: ip("10.0.0.9"), end: ip("10.0.0.12") }];
        assert!(made(NewSubnet { allocation_pools: Some(overlapping), ..new("10.0.0.0/24") }).is_err());
    }

    #[test]
    fn the_subnets_own_addresses_are_never_given() {
        let subnet = made(new("10.0.0.0/29")).unwrap();
        for kept in ["10.0.0.0", "10.0.0.1", "10.0.0.7", "10.0.0.8", "fd00::1"] {
            assert!(subnet.refuses(ip(kept)).is_some(), "{kept}");
        }
        assert_eq!(subnet.refuses(ip("10.0.0.6")), None);
    }

    #[test]
    fn overlaps_are_seen_in_both_directions() {
        let subnet = made(new("10.0.0.0/16")).unwrap();
        for other in ["10.0.5.0/24", "10.0.0.0/8", "10.0.0.0/16"] {
            assert!(subnet.overlaps(&other.parse().unwrap()), "{other}");
        }
        for other in ["10.1.0.0/16", "fd00::/8"] {
            assert!(!subnet.overlaps(&other.parse().unwrap()), "{other}");
        }
    }
}
