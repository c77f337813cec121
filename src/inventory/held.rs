//! What this host has claimed in its fleet: the addresses and MACs that it alone may give to ports of networks that all hosts have.
//!
//! Nothing here asks anybody. What a request lacks is refused with the [`Need`]; the service claims that and tries again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::claim::BLOCK;
use crate::model::pools::{Range, address, number};
use crate::model::{Claim, Epoch, Held, Mac, MacPrefix, Need, Network, NetworkId, Port, PortId, Subnet, SubnetId};

use super::{Error, Inventory};

/// How many free addresses of each family this host has on each shared network with ports of its own, and how many free MACs for each such
/// network: it gives ports so many without etcd.
pub const RESERVE: usize = 16;

/// How many MACs a block has.
const MACS: u16 = 256;

/// What this host has claimed.
#[derive(Debug, Default)]
pub struct Holding {
    claims: BTreeMap<Claim, Held>,
    /// Noted as this host's, and another host's in etcd, with that one's name. Ports that have it are kept down.
    disputed: BTreeMap<Claim, (Held, String)>,
    /// How many MACs of each block, held or not, ports have.
    used: HashMap<[u8; 5], u16>,
    /// The ports that are kept down, with the host that has what they have.
    shut: BTreeMap<PortId, String>,
}

impl Holding {
    fn has(&self, claim: &Claim) -> bool {
        self.claims.contains_key(claim)
    }

    fn has_address(&self, network: NetworkId, ip: IpAddr) -> bool {
        self.has(&Claim::of_address(network, ip))
    }

    fn has_mac(&self, mac: Mac) -> bool {
        self.has(&Claim::of_mac(mac)) || self.has(&Claim::Mac(mac))
    }

    /// The held blocks of a network's addresses.
    fn blocks(&self, network: NetworkId) -> impl Iterator<Item = &Held> {
        let from = Claim::Addresses { network, first: Ipv4Addr::UNSPECIFIED.into() };
        let to = Claim::Addresses { network, first: Ipv6Addr::from_bits(u128::MAX).into() };
        self.claims.range(from..=to).map(|(_, held)| held)
    }

    /// The held blocks of MACs.
    fn mac_blocks(&self) -> impl Iterator<Item = [u8; 5]> {
        self.claims.range(Claim::Macs([0; 5])..=Claim::Macs([u8::MAX; 5])).filter_map(|(claim, _)| match claim {
            Claim::Macs(octets) => Some(*octets),
            _ => None,
        })
    }

    /// The held blocks of MACs that begin so, and have a free one.
    fn free_blocks(&self, prefix: MacPrefix) -> impl Iterator<Item = [u8; 5]> {
        self.mac_blocks().filter(move |block| block[..3] == prefix.octets() && self.used(*block) < MACS)
    }

    fn used(&self, block: [u8; 5]) -> u16 {
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

    pub(super) fn forget_port(&mut self, port: PortId) {
        self.shut.remove(&port);
    }
}

impl Inventory {
    /// Takes in all that is noted as this host's.
    pub fn load_claims(&mut self, claims: Vec<Held>) {
        self.holding.claims = claims.into_iter().map(|held| (held.claim, held)).collect();
    }

    /// All that is noted as this host's, also what another host has in etcd.
    pub fn claims(&self) -> Vec<Held> {
        self.holding.claims.values().chain(self.holding.disputed.values().map(|(held, _)| held)).copied().collect()
    }

    /// What ports of shared networks have that is not noted as this host's: of a store that was put back, it may be another host's.
    pub fn unclaimed(&self) -> Vec<Held> {
        let shared = self.networks.values().filter(|entry| entry.record.is_shared());
        let ports = shared.flat_map(|entry| &entry.ports).filter_map(|id| self.ports.get(id));
        let claims: BTreeSet<Claim> = ports.flat_map(|entry| self.claims_of(&entry.record)).collect();
        let known = |claim: &Claim| self.holding.has(claim) || self.holding.disputed.contains_key(claim);
        // A MAC is in its block, or claimed alone.
        let in_block = |claim: &Claim| matches!(claim, Claim::Mac(mac) if known(&Claim::of_mac(*mac)));
        let missing = claims.into_iter().filter(|claim| !known(claim) && !in_block(claim));
        // It was made at no time that is known: what another host has is newer.
        missing.map(|claim| Held { claim, made: 0, epoch: Epoch { number: 0, id: uuid::Uuid::nil() } }).collect()
    }

    /// What has to be this host's for a port on a shared network.
    fn claims_of(&self, port: &Port) -> Vec<Claim> {
        let given = port.held_ips().filter(|ip| self.is_given(port.network_id, ip.ip_address));
        let addresses = given.map(|ip| Claim::of_address(port.network_id, ip.ip_address));
        addresses.chain([Claim::Mac(port.mac)]).collect()
    }

    /// Whether an address is given to ports. What a guest makes of its MAC is its own as the MAC is.
    fn is_given(&self, network: NetworkId, ip: IpAddr) -> bool {
        let subnets = self.networks.get(&network).into_iter().flat_map(|entry| &entry.subnets);
        let mut subnets = subnets.filter_map(|id| self.subnets.get(id)).map(|entry| &entry.record);
        subnets.find(|subnet| subnet.cidr.contains(ip)).is_none_or(|subnet| !subnet.is_auto() || subnet.gateway_ip == Some(ip))
    }

    /// Takes a claim in.
    pub fn hold(&mut self, held: Held) {
        self.holding.disputed.remove(&held.claim);
        self.holding.claims.insert(held.claim, held);
        self.refill(&held.claim);
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
    pub fn set_claims(&mut self, held: Vec<Held>, disputed: Vec<(Held, String)>) -> BTreeSet<PortId> {
        let before: BTreeSet<Claim> = self.holding.claims.keys().copied().collect();
        self.holding.claims = held.into_iter().map(|held| (held.claim, held)).collect();
        self.holding.disputed = disputed.into_iter().map(|(held, host)| (held.claim, (held, host))).collect();
        let now: BTreeSet<Claim> = self.holding.claims.keys().copied().collect();
        let changed: BTreeSet<NetworkId> = before.symmetric_difference(&now).filter_map(network_of).collect();
        changed.into_iter().for_each(|network| self.refill_network(network));
        let shut = self.ports_of_others();
        let before = std::mem::replace(&mut self.holding.shut, shut);
        let now = &self.holding.shut;
        before.keys().filter(|port| !now.contains_key(port)).chain(now.keys().filter(|port| !before.contains_key(port))).copied().collect()
    }

    /// The ports that have what another host has claimed.
    fn ports_of_others(&self) -> BTreeMap<PortId, String> {
        if self.holding.disputed.is_empty() {
            return BTreeMap::new();
        }
        let shared = self.networks.values().filter(|entry| entry.record.is_shared());
        let ports = shared.flat_map(|entry| &entry.ports).filter_map(|id| self.ports.get(id)).map(|entry| &entry.record);
        let other = |claim: &Claim| self.holding.disputed.get(claim).map(|(_, host)| host.clone());
        let of = |port: &Port| {
            let claims = self.claims_of(port);
            claims.iter().find_map(other).or_else(|| other(&Claim::of_mac(port.mac)))
        };
        ports.filter_map(|port| Some((port.id, of(port)?))).collect()
    }

    /// The host that has what this port has, in the fleet.
    pub fn other_host_of(&self, port: PortId) -> Option<&str> {
        self.holding.shut.get(&port).map(String::as_str)
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
        match claim {
            Claim::Addresses { network, first } => {
                let begin = number(*first);
                let mut all = (begin..begin + u128::from(BLOCK)).map(|n| address(n, first.is_ipv6()));
                all.any(|ip| self.addresses.contains_key(&(*network, ip)))
            }
            Claim::Macs(octets) => self.holding.used(*octets) > 0,
            Claim::Mac(mac) => self.macs.get(&mac.host_side()).and_then(|port| self.ports.get(port)).is_some_and(|port| port.record.mac == *mac),
        }
    }

    /// What of a shared network's addresses this host may give; none for another network: all of them.
    pub(super) fn may_give(&self, network: NetworkId) -> Option<Vec<Range>> {
        self.networks.get(&network).filter(|entry| entry.record.is_shared())?;
        let range = |held: &Held| match held.claim {
            Claim::Addresses { first, .. } => {
                let last = number(first) + u128::from(BLOCK) - 1;
                Some(Range { start: first, end: address(last, first.is_ipv6()) })
            }
            _ => None,
        };
        Some(self.holding.blocks(network).filter_map(range).collect())
    }

    /// Refuses an address of a shared network that is in no block of this host's.
    pub(super) fn check_held(&self, network: NetworkId, ip: IpAddr) -> Result<(), Error> {
        let shared = self.networks.get(&network).is_some_and(|entry| entry.record.is_shared());
        if !shared || self.holding.has_address(network, ip) || !self.is_given(network, ip) {
            return Ok(());
        }
        Err(Error::Unclaimed(Need::Address(network, ip)))
    }

    /// Refuses a MAC for a shared network that this host has not claimed.
    pub(super) fn check_mac_held(&self, network: &Network, mac: Mac) -> Result<Mac, Error> {
        match !network.is_shared() || self.holding.has_mac(mac) {
            true => Ok(mac),
            false => Err(Error::Unclaimed(Need::Mac(mac))),
        }
    }

    /// A MAC of a held block that is free: of each block from the one with this last octet on.
    pub fn free_mac(&self, network: &Network, prefix: MacPrefix, begin: u8) -> Result<Mac, Error> {
        let blocks = self.holding.free_blocks(prefix);
        let mut macs = blocks.flat_map(|[a, b, c, d, e]| (0..=u8::MAX).map(move |n| Mac([a, b, c, d, e, begin.wrapping_add(n)])));
        macs.find(|mac| self.check_mac(*mac, network, None).is_ok()).ok_or(Error::Unclaimed(Need::AnyMac(prefix)))
    }

    /// Why no address of a subnet is free.
    pub(super) fn none_free(&self, subnet: &Subnet) -> Error {
        match self.networks.get(&subnet.network_id) {
            Some(entry) if entry.record.is_shared() => Error::Unclaimed(Need::AnyAddress(subnet.network_id, subnet.id)),
            _ => self.subnets.get(&subnet.id).map_or(Error::NoSuchSubnet(subnet.id), super::SubnetEntry::empty),
        }
    }

    /// What is to be claimed ahead, so that ports can be made without etcd. Costs a look at each shared network that has ports here.
    pub fn short_of(&self, prefix: MacPrefix, exhausted: impl Fn(SubnetId) -> bool) -> Vec<Need> {
        let mut needs = Vec::new();
        let mut networks = 0;
        for entry in self.networks.values().filter(|entry| entry.record.is_shared() && !entry.ports.is_empty()) {
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
        let free: usize = self.holding.free_blocks(prefix).map(|block| usize::from(MACS.saturating_sub(self.holding.used(block)))).sum();
        if free < networks * RESERVE {
            needs.push(Need::AnyMac(prefix));
        }
        needs
    }

    /// The claims of addresses of networks that have no port here, or are not there any more.
    pub fn idle_claims(&self) -> Vec<Held> {
        let is_idle = |network: &NetworkId| self.networks.get(network).is_none_or(|entry| entry.ports.is_empty());
        let held = self.holding.claims.values().filter(|held| network_of(&held.claim).as_ref().is_some_and(is_idle));
        held.copied().collect()
    }

    /// How many addresses this host has claimed of each network.
    pub fn claimed(&self) -> BTreeMap<NetworkId, usize> {
        let mut all = BTreeMap::new();
        for network in self.holding.claims.keys().filter_map(network_of) {
            *all.entry(network).or_default() += usize::from(BLOCK);
        }
        all
    }
}

fn network_of(claim: &Claim) -> Option<NetworkId> {
    match claim {
        Claim::Addresses { network, .. } => Some(*network),
        Claim::Macs(_) | Claim::Mac(_) => None,
    }
}
