//! What the kernel gets of ports in security groups: their sets' profiles and their networks' zones.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::network::ZONES;
use crate::model::{Allows, Family, GroupId, LinkName, Network, Port, names};
use crate::plan::groups::{InGroups, Profile, number};
use crate::plan::{LinkState, NumberedProfile};

use super::{Error, Inventory, NetworkEntry};

impl Inventory {
    /// What sets of groups allow, by their numbers.
    pub fn profiles(&self, numbers: &BTreeSet<u32>) -> Vec<NumberedProfile> {
        let profile = |number: u32| {
            let groups = self.profiles.groups(number)?.clone();
            let records = groups.iter().filter_map(|id| self.groups.get(id));
            let allows =
                records.flat_map(|entry| &entry.record.rules).map(|rule| rule.allows.clone()).map(any_protocol).collect();
            Some(Profile { groups, allows })
        };
        numbers.iter().map(|number| NumberedProfile { number: *number, profile: profile(*number) }).collect()
    }

    /// All that there are.
    pub fn all_profiles(&mut self) -> BTreeMap<u32, Profile> {
        let profiles = self.profiles(&self.profiles.numbers());
        let own = profiles.iter().filter_map(|one| Some((one.number, one.profile.as_ref()?.nets().unwrap_or_default().len())));
        let own = own.collect();
        let keys = self.keys_of_all(&own);
        self.profiles.told(&own, keys);
        profiles.into_iter().filter_map(|one| Some((one.number, one.profile?))).collect()
    }

    /// How many keys there are at most once the kernel is told of these sets, of which each has so many of rules that name no group. A
    /// rule that names a group has one for each set with its own group and each set with the group that it names.
    pub fn keys_of_all(&self, own: &BTreeMap<u32, usize>) -> usize {
        let told = self.profiles.with_told(own);
        let mut sets: BTreeMap<GroupId, usize> = BTreeMap::new();
        for group in told.keys().filter_map(|number| self.profiles.groups(*number)).flatten() {
            *sets.entry(*group).or_default() += 1;
        }
        let mut named = sets.clone();
        for (group, remote) in self.members.sets_with() {
            *named.entry(group).or_default() += remote;
        }
        let of_referrers =
            named.iter().flat_map(|(group, named)| self.referrers(*group).map(move |(group, rules)| (group, rules * named)));
        let between: usize = of_referrers.map(|(group, keys)| sets.get(&group).map_or(0, |sets| sets * keys)).sum();
        told.values().sum::<usize>() + between
    }

    /// A port's part in security groups; none where it is in none.
    pub(super) fn in_groups(&self, port: &Port, network: &Network) -> Option<InGroups> {
        if port.groups.is_empty() {
            return None;
        }
        let known = self.known_bridge(network);
        Some(InGroups {
            profile: self.profiles.number(&port.groups),
            zone: network.zone,
            bridge: self.name_of_bridge(network),
            // Of an agent-made bridge nothing reaches the host.
            host: network.bridge.as_ref().and(known).and_then(|bridge| bridge.mac),
        })
    }

    fn known_bridge(&self, network: &Network) -> Option<&LinkState> {
        match &network.bridge {
            Some(name) => self.have.named(name.as_str()),
            None => self.have.own_bridge(network.id),
        }
    }

    /// The name of a network's bridge: the one that it has, or is to get.
    pub(super) fn name_of_bridge(&self, network: &Network) -> LinkName {
        let named = || network.bridge.clone().unwrap_or_else(|| names::network_bridge(network.id, 0));
        self.known_bridge(network).and_then(|bridge| bridge.name.parse().ok()).unwrap_or_else(named)
    }

    /// Gives a new network its zone of conntrack: that of the networks on its bridge, or one that no network has. It is not the first
    /// that is free, so that one that was given back is seldom another network's at once.
    pub fn give_zone(&self, network: &mut Network) -> Result<(), Error> {
        let beside = self.on_bridge_of(network).next().map(|entry| entry.record.zone);
        if let Some(zone) = beside {
            network.zone = zone;
            return Ok(());
        }
        let zones = u32::from(*ZONES.end() - *ZONES.start()) + 1;
        let first = number(&[GroupId(network.id.0)].into()) % zones;
        let mut from_there = (first..zones).chain(0..first).filter_map(|at| ZONES.start().checked_add(u16::try_from(at).ok()?));
        network.zone = from_there.find(|zone| !self.zones.contains(zone)).ok_or(Error::TooManyNetworks { limit: zones })?;
        Ok(())
    }

    /// Gives a network's zone back, unless another network on its bridge has it too.
    pub(super) fn give_zone_back(&mut self, network: &Network) {
        if self.on_bridge_of(network).all(|entry| entry.record.id == network.id) {
            self.zones.remove(&network.zone);
        }
    }

    /// The networks that know their operator's bridge by the same name.
    fn on_bridge_of(&self, network: &Network) -> impl Iterator<Item = &NetworkEntry> {
        let ids = network.bridge.as_ref().and_then(|bridge| self.bridges.get(bridge.as_str()));
        ids.into_iter().flatten().filter_map(|id| self.networks.get(id))
    }

    /// Panics when a zone is not what the networks' records say, or two networks have one that are not on one bridge.
    #[cfg(debug_assertions)]
    pub(super) fn assert_zones(&self) {
        let mut zones: BTreeMap<u16, BTreeSet<Option<&LinkName>>> = BTreeMap::new();
        let records = || self.networks.values().map(|entry| &entry.record);
        records().for_each(|network| _ = zones.entry(network.zone).or_default().insert(network.bridge.as_ref()));
        assert_eq!(zones.keys().copied().collect::<BTreeSet<_>>(), self.zones, "zones");
        let alone = records().filter(|network| network.bridge.is_none()).map(|network| network.zone);
        let alone: Vec<u16> = alone.collect();
        assert!(zones.values().all(|bridges| bridges.len() == 1), "{zones:?}");
        assert_eq!(alone.iter().collect::<BTreeSet<_>>().len(), alone.len(), "zones of networks with a bridge of their own");
    }
}

/// IPv4's protocol 0 is any, as in Neutron's reference.
fn any_protocol(allows: Allows) -> Allows {
    let protocol = allows.protocol.filter(|protocol| *protocol != 0 || allows.family == Family::V6);
    Allows { protocol, ..allows }
}
