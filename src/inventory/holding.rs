//! The claims that a host holds, by what they are of.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::{Claim, Held, Mac, MacPrefix, NetworkId};

/// How many MACs a block has.
pub(super) const MACS: u16 = 256;

/// What this host has claimed.
#[derive(Debug, Default)]
pub struct Holding {
    pub(super) claims: BTreeMap<Claim, Held>,
    /// Noted as this host's, and another host's in etcd, with that one's name. Ports that have it are kept down.
    pub(super) disputed: BTreeMap<Claim, (Held, String)>,
    /// How many MACs of each block, held or not, ports have.
    pub(super) used: HashMap<[u8; 5], u16>,
}

impl Holding {
    pub(super) fn has(&self, claim: &Claim) -> bool {
        self.claims.contains_key(claim)
    }

    pub(super) fn has_address(&self, network: NetworkId, ip: IpAddr) -> bool {
        self.has(&Claim::of_address(network, ip))
    }

    pub(super) fn has_mac(&self, mac: Mac) -> bool {
        self.has(&Claim::of_mac(mac)) || self.has(&Claim::Mac(mac))
    }

    /// The held blocks of a network's addresses.
    pub(super) fn blocks(&self, network: NetworkId) -> impl Iterator<Item = &Held> {
        let from = Claim::Addresses { network, first: Ipv4Addr::UNSPECIFIED.into() };
        let to = Claim::Addresses { network, first: Ipv6Addr::from_bits(u128::MAX).into() };
        self.claims.range(from..=to).map(|(_, held)| held)
    }

    /// The held blocks of MACs.
    pub(super) fn mac_blocks(&self) -> impl Iterator<Item = [u8; 5]> {
        self.claims.range(Claim::Macs([0; 5])..=Claim::Macs([u8::MAX; 5])).filter_map(|(claim, _)| match claim {
            Claim::Macs(octets) => Some(*octets),
            _ => None,
        })
    }

    /// The held blocks of MACs that begin so, and have a free one.
    pub(super) fn free_blocks(&self, prefix: MacPrefix) -> impl Iterator<Item = [u8; 5]> {
        self.mac_blocks().filter(move |block| block[..3] == prefix.octets() && self.used(*block) < MACS)
    }

    pub(super) fn used(&self, block: [u8; 5]) -> u16 {
        self.used.get(&block).copied().unwrap_or(0)
    }

    pub(super) fn use_mac(&mut self, Mac([a, b, c, d, e, _]): Mac) {
        *self.used.entry([a, b, c, d, e]).or_default() += 1;
    }

    pub(super) fn free_mac(&mut self, Mac([a, b, c, d, e, _]): Mac) {
        if let Some(used) = self.used.get_mut(&[a, b, c, d, e]) {
            *used -= 1;
            if *used == 0 {
                self.used.remove(&[a, b, c, d, e]);
            }
        }
    }
}
