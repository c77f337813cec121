//! What this host has claimed in its fleet: the addresses and MACs that it alone may give to ports of networks that all hosts have.
//!
//! Nothing here asks anybody. What a request lacks is refused with the [`Need`]; the service claims that and tries again.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::claim::BLOCK;
use crate::model::pools::{address, number};
use crate::model::{Claim, Epoch, Held, Lent, Mac, MacPrefix, Need, Network, NetworkId, PortId, PublishedId, SubnetId};

use super::holding::{Holding, MACS};
use super::{Error, Inventory};

/// How many free addresses of each family this host has on each shared network with ports of its own, and how many free MACs for each such
/// network: it gives ports so many without etcd.
pub const RESERVE: usize = 16;

impl Inventory {
    /// Takes in all that is noted as this host's, and what other hosts hold of it.
    pub fn load_claims(&mut self, claims: Vec<Held>, lent: Vec<Lent>) {
        self.holding.claims = claims.into_iter().map(|held| (held.claim, held)).collect();
        self.holding.lent = lent.into_iter().map(|lent| (lent.claim, lent)).collect();
    }

    /// What other hosts hold of blocks of this host's.
    pub fn lent(&self) -> Vec<Lent> {
        self.holding.lent.values().cloned().collect()
    }

    /// The host that holds what is needed of a block of this host's.
    pub fn borrower(&self, need: &Need) -> Option<&str> {
        let one = match need {
            Need::Address(network, ip) => Claim::Address(*network, *ip),
            Need::Mac(mac) => Claim::Mac(*mac),
            Need::AnyAddress(..) | Need::AnyMac(_) => return None,
        };
        self.holding.lent.get(&one).map(|lent| lent.host.as_str())
    }

    /// Takes in that other hosts hold something of blocks of this host's.
    pub fn lend(&mut self, lent: Vec<Lent>) {
        for one in lent {
            let claim = one.claim;
            self.holding.lent.insert(claim, one);
            self.refill(&claim);
        }
    }

    /// Whether a claim is held as it is, or was, and is another host's.
    pub fn has_noted(&self, claim: &Claim) -> bool {
        self.holding.has(claim) || self.holding.disputed.contains_key(claim)
    }

    /// Takes in that a claim is another host's from now on.
    pub fn lose(&mut self, claim: &Claim) {
        self.holding.claims.remove(claim);
        self.holding.disputed.remove(claim);
        self.refill(claim);
    }

    /// Takes in that no other host holds it any more.
    pub fn end_lending(&mut self, claim: &Claim) {
        if self.holding.lent.remove(claim).is_some() {
            self.refill(claim);
        }
    }

    /// All that is noted as this host's, also what another host has in etcd.
    pub fn claims(&self) -> Vec<Held> {
        self.holding.claims.values().chain(self.holding.disputed.values().map(|(held, _)| held)).copied().collect()
    }

    /// What ports of shared networks have that is not noted as this host's: of a store that was put back, it may be another host's.
    pub fn unclaimed(&self) -> Vec<Held> {
        let shared = self.used_networks().filter(|entry| entry.record.is_shared());
        let ports = shared.flat_map(|entry| &entry.ports).filter_map(|id| self.ports.get(id));
        let active = ports.map(|entry| &entry.record).filter(|port| port.standby.is_none());
        let needs = active.flat_map(|port| self.needs_of(port));
        let unknown = needs.filter(|one| !self.holding.has_one(one) && self.holding.other_host(one).is_none());
        let missing: BTreeSet<Claim> = unknown
            .map(|one| match one {
                Claim::Address(network, ip) => Claim::of_address(network, ip),
                other => other,
            })
            .collect();
        let missing = missing.into_iter();
        // It was made at no time that is known: what another host has is newer.
        missing.map(|claim| Held { claim, made: 0, epoch: Epoch { number: 0, id: uuid::Uuid::nil() } }).collect()
    }

    /// Takes a claim in. Answers with the ports that are no longer kept down.
    pub fn hold(&mut self, held: Held) -> BTreeSet<PortId> {
        let shut = self.ports_of_others();
        self.holding.disputed.remove(&held.claim);
        self.holding.lent.remove(&held.claim);
        self.holding.claims.insert(held.claim, held);
        self.refill(&held.claim);
        let opened = shut.difference(&self.ports_of_others()).copied().collect();
        self.opens(&opened);
        opened
    }

    /// Gives a claim up. False if a port has something of it.
    pub fn let_go(&mut self, claim: &Claim) -> bool {
        if self.is_used(claim) {
            return false;
        }
        self.holding.disputed.remove(claim);
        if self.holding.claims.remove(claim).is_some() {
            self.refill(claim);
        }
        true
    }

    /// Puts what came of a join in the place of all claims: what is held, and what is another host's, with that one's name. Answers with the
    /// ports that are kept down from now on, or no longer.
    pub fn set_claims(&mut self, held: Vec<Held>, disputed: Vec<(Held, String)>, lent: Vec<Lent>) -> BTreeSet<PortId> {
        let shut = self.ports_of_others();
        let all = |holding: &Holding| holding.claims.keys().chain(holding.lent.keys()).copied().collect();
        let before: BTreeSet<Claim> = all(&self.holding);
        self.holding.claims = held.into_iter().map(|held| (held.claim, held)).collect();
        self.holding.disputed = disputed.into_iter().map(|(held, host)| (held.claim, (held, host))).collect();
        self.holding.lent = lent.into_iter().map(|lent| (lent.claim, lent)).collect();
        let now: BTreeSet<Claim> = all(&self.holding);
        let changed: BTreeSet<NetworkId> = before.symmetric_difference(&now).filter_map(network_of).collect();
        changed.into_iter().for_each(|network| self.refill_network(network));
        let now = self.ports_of_others();
        let opened = shut.difference(&now).chain(now.difference(&shut)).copied().collect();
        self.opens(&opened);
        opened
    }

    /// The ports that have what another host has claimed.
    fn ports_of_others(&self) -> BTreeSet<PortId> {
        if self.holding.disputed.is_empty() && self.holding.lent.is_empty() {
            return BTreeSet::new();
        }
        let shared = self.used_networks().filter(|entry| entry.record.is_shared()).flat_map(|entry| entry.ports.iter().copied());
        shared.filter(|port| self.other_host_of(*port).is_some()).collect()
    }

    /// Has the fleet told of ports that are kept down from now on, or no longer.
    fn opens(&mut self, ports: &BTreeSet<PortId>) {
        for port in ports {
            if let Some(network) = self.ports.get(port).map(|entry| entry.record.network_id) {
                self.port_changed(network, *port);
            }
        }
    }

    /// Whether what is needed is this host's by now.
    pub fn has_claimed(&self, need: &Need) -> bool {
        match need {
            Need::AnyAddress(network, subnet) => {
                let not_chosen = self.not_chosen(*network);
                let free = self.subnets.get(subnet).and_then(|entry| entry.free.lowest_where(|ip| !not_chosen.contains(&ip)));
                free.is_some()
            }
            Need::Address(network, ip) => self.holding.has_address(*network, *ip),
            Need::AnyMac(prefix) => self.holding.free_blocks(*prefix).next().is_some(),
            Need::Mac(mac) => self.holding.has_mac(*mac),
        }
    }

    fn refill(&mut self, claim: &Claim) {
        if let Some(network) = network_of(claim) {
            self.refill_network(network);
        }
    }

    pub(super) fn refill_network(&mut self, network: NetworkId) {
        let subnets = self.networks.get(&network).map(|entry| entry.subnets.clone()).unwrap_or_default();
        subnets.into_iter().for_each(|subnet| self.fill(subnet));
    }

    /// Whether a port has something of a claim.
    fn is_used(&self, claim: &Claim) -> bool {
        let is_needed = match claim {
            Claim::Addresses { network, first } => {
                let begin = number(*first);
                let mut all = (begin..begin + u128::from(BLOCK)).map(|n| address(n, first.is_ipv6()));
                all.any(|ip| self.addresses.contains_key(&(*network, ip)))
            }
            Claim::Macs(octets) => self.holding.used(*octets) > 0,
            // What is of a held block needs no claim of its own.
            Claim::Mac(_) | Claim::Address(..) if self.holding.is_in_block(claim) => false,
            Claim::Mac(mac) => {
                self.macs.get(&mac.host_side()).and_then(|port| self.ports.get(port)).is_some_and(|port| port.record.mac == *mac)
            }
            Claim::Address(network, ip) => self.addresses.contains_key(&(*network, *ip)),
        };
        is_needed || self.holding.is_lent_of(claim)
    }

    /// A MAC of a held block that is free: of each block from the one with this last octet on.
    pub fn free_mac(&self, network: &Network, prefix: MacPrefix, begin: u8) -> Result<Mac, Error> {
        let blocks = self.holding.free_blocks(prefix);
        let mut macs = blocks.flat_map(|[a, b, c, d, e]| (0..=u8::MAX).map(move |n| Mac([a, b, c, d, e, begin.wrapping_add(n)])));
        macs.find(|mac| self.check_mac(*mac, network, None).is_ok()).ok_or(Error::Unclaimed(Need::AnyMac(prefix)))
    }

    /// What is to be claimed ahead, so that ports can be made without etcd. Costs a look at each shared network that has ports here.
    pub fn short_of(&self, prefix: MacPrefix, exhausted: impl Fn(SubnetId) -> bool) -> Vec<Need> {
        let mut needs = Vec::new();
        let mut networks = 0;
        for entry in self.used_networks().filter(|entry| entry.record.is_shared()) {
            networks += 1;
            for v6 in [false, true] {
                let subnets = entry.subnets.iter().filter_map(|id| self.subnets.get(id));
                let family: Vec<_> =
                    subnets.filter(|subnet| subnet.record.cidr.is_ipv6() == v6 && !subnet.record.is_auto()).collect();
                let free = family.iter().map(|subnet| subnet.free.left()).fold(0_u128, u128::saturating_add);
                // As many again as there are ports, in part: what is needed in a burst is claimed before.
                let wanted = RESERVE.max(entry.ports.len() / 8) as u128;
                let next = family.iter().find(|subnet| !exhausted(subnet.record.id)).filter(|_| free < wanted);
                needs.extend(next.map(|subnet| Need::AnyAddress(entry.record.id, subnet.record.id)));
            }
        }
        let free: usize =
            self.holding.free_blocks(prefix).map(|block| usize::from(MACS.saturating_sub(self.holding.used(block)))).sum();
        if free < networks * RESERVE {
            needs.push(Need::AnyMac(prefix));
        }
        needs
    }

    /// What is noted as this host's and another host has in etcd.
    pub fn disputed_claims(&self) -> Vec<Held> {
        self.holding.disputed.values().map(|(held, _)| *held).collect()
    }

    /// The claims of addresses of networks that have no port here, or are not there any more, and those of single MACs that no port has.
    pub fn idle_claims(&self) -> Vec<Held> {
        let is_idle = |claim: &Claim| match claim {
            Claim::Addresses { network, .. } => self.networks.get(network).is_none_or(|entry| entry.ports.is_empty()),
            Claim::Mac(_) | Claim::Address(..) => !self.is_used(claim),
            Claim::Macs(_) => false,
        };
        self.holding.claims.values().filter(|held| is_idle(&held.claim)).copied().collect()
    }

    /// How many addresses this host has claimed of each network, and how many of them it can give still.
    pub fn reserved(&self) -> BTreeMap<NetworkId, (usize, u128)> {
        let mut all: BTreeMap<NetworkId, (usize, u128)> = BTreeMap::new();
        for claim in self.holding.claims.keys() {
            let size = if matches!(claim, Claim::Addresses { .. }) { usize::from(BLOCK) } else { 1 };
            network_of(claim).into_iter().for_each(|network| all.entry(network).or_default().0 += size);
        }
        for (network, (_, free)) in &mut all {
            let subnets = self.networks.get(network).into_iter().flat_map(|entry| &entry.subnets);
            *free = subnets.filter_map(|id| self.subnets.get(id)).map(|subnet| subnet.free.left()).sum();
        }
        all
    }
}

/// Of which ports the fleet is to be told.
impl Inventory {
    /// Notes changes from now on, or none any more: at a join all is compared.
    pub fn publish(&mut self, is_on: bool) {
        self.publishing.is_on = is_on;
        self.publishing.changed.clear();
    }

    /// Takes what has changed.
    pub fn take_changed(&mut self) -> BTreeSet<PublishedId> {
        std::mem::take(&mut self.publishing.changed)
    }

    /// The ports of shared networks, and the servers.
    pub fn published_ids(&self) -> impl Iterator<Item = PublishedId> + '_ {
        let shared = self.used_networks().filter(|entry| entry.record.is_shared());
        let ports = shared.flat_map(|entry| entry.ports.iter().copied());
        ports.map(PublishedId::Port).chain(self.servers.keys().copied().map(PublishedId::Server))
    }
}

fn network_of(claim: &Claim) -> Option<NetworkId> {
    match claim {
        Claim::Addresses { network, .. } | Claim::Address(network, _) => Some(*network),
        Claim::Macs(_) | Claim::Mac(_) => None,
    }
}
