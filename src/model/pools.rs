//! The free addresses of a subnet, as an ordered set of ranges, so that a /64 costs as much as a /29.
//!
//! Pure bookkeeping of numbers. The caller knows the owner of each address.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// An inclusive range of addresses of one family: a Neutron `allocation_pool`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The first address.
    pub start: IpAddr,
    /// The last address, not before the first.
    pub end: IpAddr,
}

/// The free addresses of a subnet's pools. Allocation takes the lowest.
///
/// Invariant: the ranges do not overlap and do not touch; every one lies inside a pool.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FreeRanges {
    v6: bool,
    pools: Vec<(u128, u128)>,
    free: BTreeMap<u128, u128>,
}

/// The usage of a subnet's pools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Addresses in the pools.
    pub size: u128,
    /// Allocated addresses.
    pub used: u128,
}

impl FreeRanges {
    /// All addresses of `pools` free, except those in `never` (gateway, network and broadcast address).
    pub fn new(pools: &[Range], never: &[IpAddr]) -> Self {
        let mut ranges = Self {
            v6: pools.iter().any(|pool| pool.start.is_ipv6()),
            pools: pools.iter().map(|pool| (number(pool.start), number(pool.end))).collect(),
            free: BTreeMap::new(),
        };
        ranges.free = ranges.pools.iter().copied().collect();
        for address in never {
            ranges.take(*address);
        }
        ranges
    }

    /// The lowest free address.
    pub fn lowest(&self) -> Option<IpAddr> {
        self.free.keys().next().map(|&first| self.address(first))
    }

    /// The lowest free address that `fits`. Checks each lower free address.
    pub fn lowest_where(&self, fits: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        let mut candidates = self.free.iter().flat_map(|(&start, &end)| start..=end).map(|n| self.address(n));
        candidates.find(|address| fits(*address))
    }

    /// Marks an address as allocated. An address outside the pools, or already allocated, changes nothing.
    pub fn take(&mut self, address: IpAddr) {
        let taken = number(address);
        let Some((&start, &end)) = self.free.range(..=taken).next_back() else { return };
        if address.is_ipv6() != self.v6 || taken > end {
            return;
        }
        self.free.remove(&start);
        if start < taken {
            self.free.insert(start, taken - 1);
        }
        if taken < end {
            self.free.insert(taken + 1, end);
        }
    }

    /// Frees an allocated address. An address outside the pools changes nothing.
    pub fn release(&mut self, address: IpAddr) {
        let freed = number(address);
        let pooled = self.pools.iter().any(|&(start, end)| (start..=end).contains(&freed));
        let already = self.free.range(..=freed).next_back().is_some_and(|(_, &end)| freed <= end);
        if address.is_ipv6() != self.v6 || !pooled || already {
            return;
        }
        let (mut start, mut end) = (freed, freed);
        if let Some((&below, &last)) = self.free.range(..freed).next_back()
            && last.checked_add(1) == Some(freed)
            && self.same_pool(last, freed)
        {
            self.free.remove(&below);
            start = below;
        }
        if let Some(next) = freed.checked_add(1)
            && self.same_pool(next, freed)
            && let Some(last) = self.free.remove(&next)
        {
            end = last;
        }
        self.free.insert(start, end);
    }

    /// The number of addresses in the pools, and of allocated addresses.
    pub fn usage(&self) -> Usage {
        let sum = |ranges: &mut dyn Iterator<Item = (u128, u128)>| {
            ranges.fold(0u128, |total, (start, end)| total.saturating_add((end - start).saturating_add(1)))
        };
        let size = sum(&mut self.pools.iter().copied());
        let free = sum(&mut self.free.iter().map(|(&start, &end)| (start, end)));
        Usage { size, used: size.saturating_sub(free) }
    }

    /// The number of free addresses.
    pub fn left(&self) -> u128 {
        let usage = self.usage();
        usage.size - usage.used
    }

    fn same_pool(&self, a: u128, b: u128) -> bool {
        self.pools.iter().any(|&(start, end)| (start..=end).contains(&a) && (start..=end).contains(&b))
    }

    fn address(&self, number: u128) -> IpAddr {
        address(number, self.v6)
    }
}

/// The address of a family with this [`number`].
pub fn address(number: u128, v6: bool) -> IpAddr {
    match u32::try_from(number) {
        Ok(v4) if !v6 => IpAddr::V4(Ipv4Addr::from_bits(v4)),
        _ => IpAddr::V6(Ipv6Addr::from_bits(number)),
    }
}

/// An address as a number, for comparing inside one family.
pub fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn range(start: &str, end: &str) -> Range {
        Range { start: ip(start), end: ip(end) }
    }

    #[test]
    fn gives_the_lowest_and_fills_gaps() {
        let mut free = FreeRanges::new(&[range("10.0.0.2", "10.0.0.5")], &[ip("10.0.0.2")]);
        assert_eq!(free.lowest(), Some(ip("10.0.0.3")));
        for address in ["10.0.0.3", "10.0.0.4", "10.0.0.5"] {
            free.take(ip(address));
        }
        assert_eq!(free.lowest(), None);
        assert_eq!(free.usage(), Usage { size: 4, used: 4 });
        free.release(ip("10.0.0.4"));
        assert_eq!(free.lowest(), Some(ip("10.0.0.4")));
    }

    #[test]
    fn a_64_is_one_range() {
        let mut free = FreeRanges::new(&[range("fd00::1", "fd00::ffff:ffff:ffff:ffff")], &[ip("fd00::1")]);
        assert_eq!(free.lowest(), Some(ip("fd00::2")));
        free.take(ip("fd00::8000:0:0:0"));
        assert_eq!(free.free.len(), 2);
        free.release(ip("fd00::8000:0:0:0"));
        assert_eq!(free.free.len(), 1);
    }

    #[test]
    fn the_whole_of_ipv6_does_not_overflow() {
        let mut free = FreeRanges::new(&[range("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")], &[]);
        free.take(ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
        free.release(ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
        assert_eq!(free.lowest(), Some(ip("::")));
        assert_eq!(free.usage().size, u128::MAX);
    }

    #[test]
    fn the_other_family_and_addresses_outside_change_nothing() {
        let mut free = FreeRanges::new(&[range("0.0.0.1", "0.0.0.3")], &[]);
        let before = free.clone();
        for stranger in ["::1", "::2", "0.0.0.9", "0.0.0.0"] {
            free.take(ip(stranger));
            free.release(ip(stranger));
        }
        assert_eq!(free, before);
    }

    proptest! {
        #[test]
        fn behaves_as_a_set(steps in prop::collection::vec((any::<bool>(), 0u32..40), 0..200)) {
            let pools = [range("10.0.0.2", "10.0.0.9"), range("10.0.0.10", "10.0.0.12"), range("10.0.0.20", "10.0.0.30")];
            let mut free = FreeRanges::new(&pools, &[ip("10.0.0.5")]);
            let pooled: BTreeSet<u32> = (2..=12).chain(20..=30).collect();
            let mut model: BTreeSet<u32> = pooled.iter().copied().filter(|&n| n != 5).collect();
            for (take, last) in steps {
                let address = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + last));
                if take {
                    free.take(address);
                    model.remove(&last);
                } else {
                    free.release(address);
                    if pooled.contains(&last) {
                        model.insert(last);
                    }
                }
                let lowest = model.first().map(|&n| IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + n)));
                prop_assert_eq!(free.lowest(), lowest);
                prop_assert_eq!(free.usage().used, (pooled.len() - model.len()) as u128);
            }
        }
    }
}
