//! The claims that a host holds, by what they are of.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::claim::BLOCK;
use crate::model::pools::{address, number};
use crate::model::{Claim, Held, Lent, Mac, MacPrefix, NetworkId};

/// How many MACs a block has.
pub(super) const MACS: u16 = 256;

/// What this host has claimed.
#[derive(Debug, Default)]
pub struct Holding {
    pub(super) claims: BTreeMap<Claim, Held>,
    /// Noted as this host's, and another host's in etcd, with that one's name. Ports that have it are kept down.
    pub(super) disputed: BTreeMap<Claim, (Held, String)>,
    /// What other hosts hold of blocks of this host's: it gives no port any of it.
    pub(super) lent: BTreeMap<Claim, Lent>,
    /// How many MACs of each block, held or not, ports have.
    pub(super) used: HashMap<[u8; 5], u16>,
}

impl Holding {
    pub(super) fn has(&self, claim: &Claim) -> bool {
        self.claims.contains_key(claim)
    }

    pub(super) fn has_address(&self, network: NetworkId, ip: IpAddr) -> bool {
        self.has_one(&Claim::Address(network, ip))
    }

    pub(super) fn has_mac(&self, mac: Mac) -> bool {
        self.has_one(&Claim::Mac(mac))
    }

    /// Whether one address or MAC is this host's: it is held by itself, or is of a held block and no other host's.
    pub(super) fn has_one(&self, one: &Claim) -> bool {
        self.has(one) || self.is_in_block(one)
    }

    /// Whether it is of a held block, and no other host's.
    pub(super) fn is_in_block(&self, one: &Claim) -> bool {
        one.block().is_some_and(|block| self.has(&block)) && !self.lent.contains_key(one)
    }

    /// The host that has one address or MAC which is noted as this host's, or is of a block of this host's.
    pub(super) fn other_host(&self, one: &Claim) -> Option<&str> {
        let disputed = |claim: &Claim| self.disputed.get(claim).map(|(_, host)| host.as_str());
        let in_block = || one.block().and_then(|block| disputed(&block));
        disputed(one)
            .or_else(in_block)
            .or_else(|| self.lent.get(one).map(|lent| lent.host.as_str()))
            .filter(|_| !self.has_one(one))
    }

    /// Whether other hosts hold something of a block.
    pub(super) fn is_lent_of(&self, block: &Claim) -> bool {
        let (first, last) = match *block {
            Claim::Addresses { network, first } => {
                let last = address(number(first) + u128::from(BLOCK) - 1, first.is_ipv6());
                (Claim::Address(network, first), Claim::Address(network, last))
            }
            Claim::Macs([a, b, c, d, e]) => (Claim::Mac(Mac([a, b, c, d, e, 0])), Claim::Mac(Mac([a, b, c, d, e, u8::MAX]))),
            one => (one, one),
        };
        self.lent.range(first..=last).next().is_some()
    }

    /// The addresses of a network that other hosts hold of blocks of this host's.
    pub(super) fn lent_addresses(&self, network: NetworkId) -> impl Iterator<Item = IpAddr> + '_ {
        let from = Claim::Address(network, Ipv4Addr::UNSPECIFIED.into());
        let to = Claim::Address(network, Ipv6Addr::from_bits(u128::MAX).into());
        self.lent.range(from..=to).filter_map(|(one, _)| match one {
            Claim::Address(_, ip) => Some(*ip),
            _ => None,
        })
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
