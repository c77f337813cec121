//! A subnet: a range of addresses of one family on a network, with the settings of its guests.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::action::SubnetChange;
use super::guidance::Guidance;
use super::ids::{NetworkId, SubnetId};
use super::pools::{FreeRanges, Range, number};

/// A subnet's record. Only [`NewSubnet::checked`] creates one, so its attributes are consistent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subnet {
    /// Its id.
    pub id: SubnetId,
    /// The network it belongs to.
    pub network_id: NetworkId,
    /// The display name; need not be unique.
    pub name: String,
    /// A description for operators.
    #[serde(default)]
    pub description: String,
    /// The project, stored and returned only.
    #[serde(default)]
    pub project_id: String,
    /// The range, with its network address.
    pub cidr: IpNetwork,
    /// The guest's next hop by default; none for an isolated subnet.
    pub gateway_ip: Option<IpAddr>,
    /// The ranges for automatic allocation.
    pub allocation_pools: Vec<Range>,
    /// DNS servers for guests.
    pub dns_nameservers: Vec<IpAddr>,
    /// Further routes for guests.
    pub host_routes: Vec<HostRoute>,
    /// Whether guests are told their addresses of it by DHCP. Records of versions without a responder have it not.
    #[serde(default)]
    pub enable_dhcp: bool,
    /// How guests get their addresses of it, where it is one of IPv6.
    #[serde(default, skip_serializing_if = "Guidance::is_default")]
    pub guidance: Guidance,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// The revision number; grows with each change.
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

/// The gateway requested for a new subnet.
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

/// A request for a new subnet.
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
    /// Whether guests are told their addresses of it by DHCP.
    pub enable_dhcp: bool,
    /// How guests get their addresses of it, where it is one of IPv6.
    pub guidance: Guidance,
}

/// Why a subnet is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    /// Bits behind the prefix are set.
    #[error("{what} {given} has bits set behind its prefix; {right} is the network of that range")]
    HostBits {
        /// The attribute.
        what: &'static str,
        /// As given.
        given: IpNetwork,
        /// Its network.
        right: IpNetwork,
    },
    /// The range contains addresses that no guest can have.
    #[error("{cidr} is not a range for guests: it contains {what} addresses ({block})")]
    NotForGuests {
        /// As given.
        cidr: IpNetwork,
        /// What kind of addresses they are.
        what: &'static str,
        /// The block that they are in.
        block: IpNetwork,
    },
    /// The gateway has the other family, is the network or broadcast address, or cannot be a host's address.
    #[error("gateway_ip {gateway} cannot serve {cidr}: a host address of the same family is expected, or null for none")]
    Gateway {
        /// As given.
        gateway: IpAddr,
        /// The range.
        cidr: IpNetwork,
    },
    /// A route that a guest's kernel would refuse.
    #[error("host route to {destination} via {nexthop} is not possible: {why}")]
    Route {
        /// Where to.
        destination: IpNetwork,
        /// By whom.
        nexthop: IpAddr,
        /// The error and the remedy.
        why: String,
    },
    /// A pool that ends before it starts, exceeds the subnet, or overlaps another pool.
    #[error("allocation pool {start}-{end} does not fit: {why}")]
    Pool {
        /// Its first address.
        start: IpAddr,
        /// Its last address.
        end: IpAddr,
        /// What is wrong.
        why: &'static str,
    },
    /// Modes of IPv6 that do not fit it.
    #[error("ipv6_address_mode and ipv6_ra_mode do not fit {cidr}: {why}")]
    Guidance {
        /// The range.
        cidr: IpNetwork,
        /// What would be right.
        why: &'static str,
    },
    /// More entries than allowed.
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
    /// Checks the attributes for consistency and fills in the defaults.
    ///
    /// # Errors
    /// The first inconsistency.
    pub fn checked(self, now: Timestamp) -> Result<Subnet, SubnetError> {
        let cidr = check_range(self.cidr)?;
        let gateway_ip = match self.gateway {
            Gateway::None => None,
            Gateway::FirstHost => first_host(cidr),
            Gateway::At(gateway) => Some(check_gateway(cidr, gateway)?),
        };
        let allocation_pools = match self.allocation_pools {
            Some(pools) => check_pools(cidr, pools)?,
            None => default_pools(cidr, gateway_ip),
        };
        limit("dns_nameservers", self.dns_nameservers.len())?;
        check_routes(cidr, &self.host_routes)?;
        self.guidance.check(cidr, self.enable_dhcp)?;
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
            enable_dhcp: self.enable_dhcp,
            guidance: self.guidance,
            created_at: now,
            updated_at: now,
            revision_number: 1,
        })
    }
}

impl Subnet {
    /// Applies a change. Changed attributes are checked like those of a new subnet. Unchanged ones are not, because an older version may
    /// have accepted them.
    ///
    /// # Errors
    /// The first inconsistency.
    pub fn changed(&self, change: SubnetChange, now: Timestamp) -> Result<Self, SubnetError> {
        let mut after = self.clone();
        if let Some(gateway) = change.gateway_ip.filter(|gateway| *gateway != self.gateway_ip) {
            after.gateway_ip = gateway.map(|gateway| check_gateway(self.cidr, gateway)).transpose()?;
        }
        if let Some(pools) = change.allocation_pools.filter(|pools| *pools != self.allocation_pools) {
            after.allocation_pools = check_pools(self.cidr, pools)?;
        }
        if let Some(resolvers) = change.dns_nameservers {
            limit("dns_nameservers", resolvers.len())?;
            after.dns_nameservers = resolvers;
        }
        if let Some(routes) = change.host_routes.filter(|routes| *routes != self.host_routes) {
            check_routes(self.cidr, &routes)?;
            after.host_routes = routes;
        }
        after.name = change.name.unwrap_or(after.name);
        after.description = change.description.unwrap_or(after.description);
        after.enable_dhcp = change.enable_dhcp.unwrap_or(after.enable_dhcp);
        if after.enable_dhcp != self.enable_dhcp {
            after.guidance.check(self.cidr, after.enable_dhcp)?;
        }
        if after != *self {
            after.updated_at = now;
            after.revision_number += 1;
        }
        Ok(after)
    }

    /// Refuses a gateway or next hop that a guest's kernel would not reach. A valid next hop is in one of the network's subnets, is a
    /// gateway of one, or is an IPv6 link-local address. `subnets` are all subnets of the network.
    ///
    /// # Errors
    /// The first that does not fit.
    pub fn check_next_hops(&self, subnets: &[&Self]) -> Result<(), SubnetError> {
        let edge = |ip: IpAddr| subnets.iter().find(|subnet| subnet.is_edge(ip));
        if let Some(gateway) = self.gateway_ip
            && let Some(other) = edge(gateway)
        {
            return Err(SubnetError::Gateway { gateway, cidr: other.cidr });
        }
        for HostRoute { destination, nexthop } in self.host_routes.iter().copied() {
            let refuse = |why| Err(SubnetError::Route { destination, nexthop, why });
            if let Some(other) = edge(nexthop) {
                return refuse(format!("{nexthop} is the network or broadcast address of {}", other.cidr));
            }
            let on_link = |subnet: &&Self| subnet.cidr.contains(nexthop) || subnet.gateway_ip == Some(nexthop);
            let link_local = matches!(nexthop, IpAddr::V6(v6) if v6.is_unicast_link_local());
            if !link_local && !subnets.iter().any(on_link) {
                let ranges: Vec<String> = subnets.iter().map(|subnet| subnet.cidr.to_string()).collect();
                let ranges = ranges.join(", ");
                return refuse(format!("{nexthop} is in no subnet of the network; its subnets are {ranges}"));
            }
        }
        Ok(())
    }

    /// Whether an address is the range's network or broadcast address, which no host can have.
    pub fn is_edge(&self, address: IpAddr) -> bool {
        edges(self.cidr).contains(&address)
    }

    /// Whether an address is excluded from automatic allocation.
    pub fn keeps(&self, address: IpAddr) -> bool {
        self.gateway_ip == Some(address) || self.is_edge(address)
    }

    /// All addresses free that the pools hold.
    pub fn all_free(&self) -> FreeRanges {
        FreeRanges::new(&self.allocation_pools, &self.never())
    }

    /// The addresses free that the pools hold and that are in these ranges.
    pub fn free_in(&self, ranges: &[Range]) -> FreeRanges {
        let both = |pool: &Range, range: &Range| {
            let (start, end) = (pool.start.max(range.start), pool.end.min(range.end));
            (pool.start.is_ipv4() == range.start.is_ipv4() && start <= end).then_some(Range { start, end })
        };
        let pools: Vec<Range> =
            self.allocation_pools.iter().flat_map(|pool| ranges.iter().filter_map(move |range| both(pool, range))).collect();
        FreeRanges::new(&pools, &self.never())
    }

    /// Whether an address is in both ranges.
    pub fn overlaps(&self, other: &IpNetwork) -> bool {
        self.cidr.is_ipv6() == other.is_ipv6() && (self.cidr.contains(other.network()) || other.contains(self.cidr.network()))
    }

    /// The addresses excluded from allocation: the network and broadcast addresses, and the gateway.
    pub fn never(&self) -> Vec<IpAddr> {
        edges(self.cidr).into_iter().chain(self.gateway_ip).collect()
    }
}

/// The addresses of a range that no machine has: the network address, and the v4 broadcast address (RFC 919) or v6
/// subnet-router anycast address (RFC 4291 §2.6.1). A range of two addresses or one has none (RFC 3021, RFC 6164).
fn edges(cidr: IpNetwork) -> Vec<IpAddr> {
    let two_or_one = cidr.prefix() >= if cidr.is_ipv4() { 31 } else { 127 };
    match (two_or_one, cidr.is_ipv4()) {
        (true, _) => Vec::new(),
        (false, true) => vec![cidr.network(), cidr.broadcast()],
        (false, false) => vec![cidr.network()],
    }
}

fn limit(what: &'static str, count: usize) -> Result<(), SubnetError> {
    match count <= LIST_LIMIT {
        true => Ok(()),
        false => Err(SubnetError::TooMany { what, count, limit: LIST_LIMIT }),
    }
}

fn check_range(cidr: IpNetwork) -> Result<IpNetwork, SubnetError> {
    without_host_bits("cidr", cidr)?;
    match NOT_FOR_GUESTS.iter().find_map(|(what, block)| overlap(cidr, block).map(|block| (*what, block))) {
        Some((what, block)) => Err(SubnetError::NotForGuests { cidr, what, block }),
        None => Ok(cidr),
    }
}

fn without_host_bits(what: &'static str, given: IpNetwork) -> Result<(), SubnetError> {
    match IpNetwork::new(given.network(), given.prefix()) {
        Ok(right) if right != given => Err(SubnetError::HostBits { what, given, right }),
        _ => Ok(()),
    }
}

/// Blocks in which no guest can have an address, with what they are for.
const NOT_FOR_GUESTS: [(&str, &str); 10] = [
    ("unspecified", "0.0.0.0/8"),
    ("loopback", "127.0.0.0/8"),
    ("link-local", "169.254.0.0/16"),
    ("multicast", "224.0.0.0/4"),
    ("reserved", "240.0.0.0/4"),
    ("unspecified", "::/128"),
    ("loopback", "::1/128"),
    ("IPv4-mapped", "::ffff:0:0/96"),
    ("link-local", "fe80::/10"),
    ("multicast", "ff00::/8"),
];

/// A block as a range, when it has addresses in common with `cidr`. One of two ranges that meet is inside the other.
fn overlap(cidr: IpNetwork, block: &str) -> Option<IpNetwork> {
    let block: IpNetwork = block.parse().ok()?;
    let meet = cidr.is_ipv6() == block.is_ipv6() && (cidr.contains(block.network()) || block.contains(cidr.network()));
    meet.then_some(block)
}

/// What an address is that is no machine's; a link-local one is one's.
fn no_machine(address: IpAddr) -> Option<&'static str> {
    let inside = |block: &str| block.parse().is_ok_and(|block: IpNetwork| block.contains(address));
    NOT_FOR_GUESTS.iter().find(|(what, block)| *what != "link-local" && inside(block)).map(|(what, _)| *what)
}

fn check_gateway(cidr: IpNetwork, gateway: IpAddr) -> Result<IpAddr, SubnetError> {
    match gateway.is_ipv6() == cidr.is_ipv6() && !edges(cidr).contains(&gateway) && no_machine(gateway).is_none() {
        true => Ok(gateway),
        false => Err(SubnetError::Gateway { gateway, cidr }),
    }
}

/// Refuses routes that no guest's kernel takes, or that one would never have. Whether a next hop is on the network is
/// [`Subnet::check_next_hops`].
fn check_routes(cidr: IpNetwork, routes: &[HostRoute]) -> Result<(), SubnetError> {
    limit("host_routes", routes.len())?;
    for (n, HostRoute { destination, nexthop }) in routes.iter().copied().enumerate() {
        let refuse = |why| Err(SubnetError::Route { destination, nexthop, why });
        if destination.is_ipv6() != cidr.is_ipv6() || nexthop.is_ipv6() != cidr.is_ipv6() {
            return refuse(format!("both are to be of the family of {cidr}"));
        }
        without_host_bits("host route's destination", destination)?;
        let everywhere = destination.prefix() == 0;
        if let Some(what) = no_machine(destination.network()).filter(|_| !everywhere && !halves(destination)) {
            return refuse(format!("{destination} are {what} addresses"));
        }
        // The exception for IPv4 is 169.254.169.254, the metadata service.
        if matches!(destination, IpNetwork::V6(v6) if v6.network().is_unicast_link_local()) {
            return refuse(format!("{destination} are link-local addresses, which are on every link"));
        }
        if let Some(what) = no_machine(nexthop) {
            return refuse(format!("{nexthop} is a {what} address; that of a router on the network is expected"));
        }
        if edges(cidr).contains(&nexthop) {
            return refuse(format!("{nexthop} is the network or broadcast address of {cidr}"));
        }
        if destination.ip() == nexthop && destination.prefix() == if cidr.is_ipv4() { 32 } else { 128 } {
            return refuse("it leads to its own next hop".to_owned());
        }
        if routes[..n].iter().any(|other| other.destination == destination) {
            return refuse(format!("another host route leads to {destination}, and a guest has one for each destination"));
        }
    }
    Ok(())
}

/// Whether a destination is so wide that it holds ordinary addresses beside those it begins with, as `0.0.0.0/1` does.
fn halves(destination: IpNetwork) -> bool {
    destination.prefix() < if destination.is_ipv4() { 8 } else { 96 } && destination.network().is_unspecified()
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

/// The first host behind the network address; none in a range of a single address.
fn first_host(cidr: IpNetwork) -> Option<IpAddr> {
    match cidr.network() {
        IpAddr::V4(v4) => (cidr.prefix() < 32).then(|| IpAddr::V4(std::net::Ipv4Addr::from_bits(v4.to_bits() | 1))),
        IpAddr::V6(v6) => (cidr.prefix() < 128).then(|| IpAddr::V6(std::net::Ipv6Addr::from_bits(v6.to_bits() | 1))),
    }
}

/// The whole range but its edges and the gateway, as Neutron gives it; of two addresses or one all but the gateway.
fn default_pools(cidr: IpNetwork, gateway: Option<IpAddr>) -> Vec<Range> {
    let address = |n: u128| match u32::try_from(n) {
        Ok(v4) if cidr.is_ipv4() => IpAddr::V4(std::net::Ipv4Addr::from_bits(v4)),
        _ => IpAddr::V6(std::net::Ipv6Addr::from_bits(n)),
    };
    let edges = edges(cidr);
    let first = number(cidr.network()) + u128::from(edges.contains(&cidr.network()));
    let last = number(cidr.broadcast()) - u128::from(edges.contains(&cidr.broadcast()));
    let mut pools = Vec::new();
    let mut push = |start: u128, end: u128| {
        if start <= end {
            pools.push(Range { start: address(start), end: address(end) });
        }
    };
    match gateway.map(number).filter(|gateway| (first..=last).contains(gateway)) {
        Some(gateway) => {
            if gateway > first {
                push(first, gateway - 1);
            }
            if gateway < last {
                push(gateway + 1, last);
            }
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
            enable_dhcp: true,
            guidance: Guidance::default(),
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
        for gateway in ["10.0.0.0", "10.0.0.255", "fd00::1", "224.0.0.1", "127.0.0.1", "0.0.0.0", "255.255.255.255"] {
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
    fn a_range_with_any_address_in_it_that_no_guest_can_have_is_refused_and_names_it() {
        for (bad, block) in [
            ("0.0.0.0/0", "0.0.0.0/8"),
            ("0.0.0.0/7", "0.0.0.0/8"),
            ("0.5.0.0/16", "0.0.0.0/8"),
            ("126.0.0.0/7", "127.0.0.0/8"),
            ("127.0.0.0/8", "127.0.0.0/8"),
            ("127.3.0.0/16", "127.0.0.0/8"),
            ("64.0.0.0/2", "127.0.0.0/8"),
            ("169.254.0.0/16", "169.254.0.0/16"),
            ("169.254.7.0/24", "169.254.0.0/16"),
            ("169.252.0.0/14", "169.254.0.0/16"),
            ("128.0.0.0/2", "169.254.0.0/16"),
            ("192.0.0.0/2", "224.0.0.0/4"),
            ("224.0.0.0/24", "224.0.0.0/4"),
            ("240.0.0.0/24", "240.0.0.0/4"),
            ("255.255.255.255/32", "240.0.0.0/4"),
            ("::/0", "::/128"),
            ("::/1", "::/128"),
            ("::/64", "::/128"),
            ("::1/128", "::1/128"),
            ("::ffff:10.0.0.0/120", "::ffff:0.0.0.0/96"),
            ("fc00::/6", "fe80::/10"),
            ("fe80::/64", "fe80::/10"),
            ("fe00::/7", "fe80::/10"),
            ("ff00::/8", "ff00::/8"),
            ("ff02::/16", "ff00::/8"),
        ] {
            let said = made(new(bad)).unwrap_err().to_string();
            assert!(said.contains(bad) && said.contains(block), "{bad}: {said}");
        }
        for good in ["1.0.0.0/8", "126.0.0.0/8", "128.0.0.0/3", "169.253.0.0/16", "223.0.0.0/8", "100.64.0.0/10", "fc00::/7"] {
            assert!(made(new(good)).is_ok(), "{good}");
        }
        let bits = made(new("10.0.0.1/24")).unwrap_err().to_string();
        assert!(bits.contains("10.0.0.0/24"), "{bits}");
    }

    #[test]
    fn a_range_of_two_addresses_or_one_has_no_edges() {
        for (cidr, gateway, pool) in [
            ("10.0.0.0/31", Some("10.0.0.1"), Some(("10.0.0.0", "10.0.0.0"))),
            ("10.0.0.8/32", None, Some(("10.0.0.8", "10.0.0.8"))),
            ("fd00::/127", Some("fd00::1"), Some(("fd00::", "fd00::"))),
            ("fd00::8/128", None, Some(("fd00::8", "fd00::8"))),
            ("10.0.0.0/30", Some("10.0.0.1"), Some(("10.0.0.2", "10.0.0.2"))),
        ] {
            let subnet = made(new(cidr)).unwrap();
            assert_eq!(subnet.gateway_ip, gateway.map(ip), "{cidr}");
            let pools: Vec<_> = subnet.allocation_pools.iter().map(|pool| (pool.start, pool.end)).collect();
            assert_eq!(pools, pool.map(|(start, end)| (ip(start), ip(end))).into_iter().collect::<Vec<_>>(), "{cidr}");
        }
        let both = made(NewSubnet { gateway: Gateway::None, ..new("10.0.0.0/31") }).unwrap();
        assert_eq!(both.allocation_pools, [Range { start: ip("10.0.0.0"), end: ip("10.0.0.1") }]);
        assert!(!both.is_edge(ip("10.0.0.0")) && !both.is_edge(ip("10.0.0.1")));
        let routed = made(NewSubnet { gateway: Gateway::At(ip("10.9.9.9")), ..new("10.0.0.8/32") }).unwrap();
        assert_eq!(routed.all_free().lowest(), Some(ip("10.0.0.8")));
        let alone = made(NewSubnet { gateway: Gateway::At(ip("10.0.0.8")), ..new("10.0.0.8/32") }).unwrap();
        assert_eq!(alone.all_free().lowest(), None);
    }

    fn routed(cidr: &str, destination: &str, nexthop: &str) -> Result<Subnet, SubnetError> {
        let route = HostRoute { destination: destination.parse().unwrap(), nexthop: ip(nexthop) };
        let subnet = made(NewSubnet { host_routes: vec![route], ..new(cidr) })?;
        let (four, six) = (made(new("10.7.0.0/24"))?, made(new("fd07::/64"))?);
        subnet.check_next_hops(&[&subnet, &four, &six]).map(|()| subnet)
    }

    #[test]
    fn a_route_that_no_guest_could_have_is_refused_and_named() {
        for (cidr, destination, nexthop) in [
            ("10.0.0.0/24", "198.51.100.0/24", "10.0.0.255"),
            ("10.0.0.0/24", "198.51.100.0/24", "10.0.0.0"),
            ("10.0.0.0/24", "198.51.100.0/24", "10.7.0.255"),
            ("10.0.0.0/24", "198.51.100.0/24", "192.0.2.1"),
            ("10.0.0.0/24", "198.51.100.0/24", "fd00::1"),
            ("10.0.0.0/24", "fd09::/64", "10.0.0.9"),
            ("10.0.0.0/24", "198.51.100.0/24", "224.0.0.1"),
            ("10.0.0.0/24", "198.51.100.0/24", "127.0.0.1"),
            ("10.0.0.0/24", "198.51.100.0/24", "0.0.0.0"),
            ("10.0.0.0/24", "198.51.100.0/24", "255.255.255.255"),
            ("10.0.0.0/24", "198.51.100.7/24", "10.0.0.9"),
            ("10.0.0.0/24", "224.0.0.0/4", "10.0.0.9"),
            ("10.0.0.0/24", "127.0.0.0/8", "10.0.0.9"),
            ("10.0.0.0/24", "0.0.0.0/8", "10.0.0.9"),
            ("10.0.0.0/24", "10.0.0.9/32", "10.0.0.9"),
            ("fd00::/64", "fd09::/64", "fd00::"),
            ("fd00::/64", "fd09::/64", "fd08::1"),
            ("fd00::/64", "fd09::/64", "::"),
            ("fd00::/64", "fd09::/64", "::1"),
            ("fd00::/64", "fd09::/64", "ff02::1"),
            ("fd00::/64", "ff00::/8", "fd00::9"),
            ("fd00::/64", "fe80::/64", "fd00::9"),
            ("fd00::/64", "fe80::1/128", "fd00::9"),
        ] {
            let said = routed(cidr, destination, nexthop).map(drop).unwrap_err().to_string();
            let (named, hop) = (said.contains(destination), said.contains(nexthop));
            assert!(named || hop, "{destination} via {nexthop}: {said}");
        }
        for (cidr, destination, nexthop) in [
            ("10.0.0.0/24", "198.51.100.0/24", "10.0.0.9"),
            ("10.0.0.0/24", "0.0.0.0/0", "10.0.0.9"),
            ("10.0.0.0/24", "0.0.0.0/1", "10.0.0.9"),
            ("10.0.0.0/24", "169.254.169.254/32", "10.0.0.9"),
            ("10.0.0.0/24", "10.0.0.0/24", "10.0.0.9"),
            ("10.0.0.0/24", "198.51.100.0/24", "10.7.0.9"),
            ("10.0.0.0/31", "198.51.100.0/24", "10.0.0.0"),
            ("fd00::/64", "::/0", "fe80::1"),
            ("fd00::/64", "fd09::/64", "fd07::9"),
        ] {
            assert!(routed(cidr, destination, nexthop).is_ok(), "{destination} via {nexthop}");
        }
        let twice = HostRoute { destination: "198.51.100.0/24".parse().unwrap(), nexthop: ip("10.0.0.9") };
        let other = HostRoute { nexthop: ip("10.0.0.8"), ..twice };
        assert!(made(NewSubnet { host_routes: vec![twice, other], ..new("10.0.0.0/24") }).is_err());
    }

    #[test]
    fn what_stays_is_not_checked_again() {
        let route = HostRoute { destination: "198.51.100.0/24".parse().unwrap(), nexthop: ip("10.0.0.255") };
        let old = Subnet { host_routes: vec![route], ..made(new("10.0.0.0/24")).unwrap() };
        let named = SubnetChange { name: Some("x".into()), ..SubnetChange::default() };
        assert_eq!(old.changed(named, Timestamp::UNIX_EPOCH).unwrap().name, "x");
        let other = HostRoute { destination: "198.51.101.0/24".parse().unwrap(), ..route };
        let again = SubnetChange { host_routes: Some(vec![route, other]), ..SubnetChange::default() };
        assert!(old.changed(again, Timestamp::UNIX_EPOCH).is_err());
    }

    #[test]
    fn the_subnets_own_addresses_are_never_chosen_and_the_gateway_may_be_asked_for() {
        let subnet = made(new("10.0.0.0/29")).unwrap();
        for kept in ["10.0.0.0", "10.0.0.1", "10.0.0.7"] {
            assert!(subnet.keeps(ip(kept)), "{kept}");
            assert_eq!(subnet.is_edge(ip(kept)), kept != "10.0.0.1", "{kept}");
        }
        assert!(!subnet.keeps(ip("10.0.0.6")));
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
