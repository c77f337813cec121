//! What the kernel gets of ports in security groups: their sets' profiles and their networks' zones.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Allows, Family, GroupId, Network, Port, names};
use crate::plan::NumberedProfile;
use crate::plan::groups::{InGroups, Profile, number};

use super::Inventory;

/// Zones that networks may have: those below are left to other programs, which count from 1.
const ZONES: std::ops::RangeInclusive<u16> = 4096..=u16::MAX;

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
        let named = sets.iter().filter_map(|(group, sets)| Some((&self.groups.get(group)?.referrers, sets)));
        let of_referrers =
            named.flat_map(|(referrers, named)| referrers.iter().map(move |(group, rules)| (group, rules * named)));
        let between: usize = of_referrers.map(|(group, keys)| sets.get(group).map_or(0, |sets| sets * keys)).sum();
        told.values().sum::<usize>() + between
    }

    /// A port's part in security groups; none where it is in none.
    pub(super) fn in_groups(&self, port: &Port, network: &Network) -> Option<InGroups> {
        if port.groups.is_empty() {
            return None;
        }
        let known = match &network.bridge {
            Some(name) => self.have.named(name.as_str()),
            None => self.have.own_bridge(network.id),
        };
        let named = || network.bridge.clone().unwrap_or_else(|| names::network_bridge(network.id, 0));
        Some(InGroups {
            profile: self.profiles.number(&port.groups),
            zone: self.networks.get(&network.id)?.zone,
            bridge: known.and_then(|bridge| bridge.name.parse().ok()).unwrap_or_else(named),
            // Of an agent-made bridge nothing reaches the host.
            host: network.bridge.as_ref().and(known).and_then(|bridge| bridge.mac),
        })
    }

    /// A zone of conntrack for a network: the same on every start, unless another network has it. Networks on one bridge have one.
    pub(super) fn take_zone(&mut self, network: &Network) -> u16 {
        let beside = network.bridge.as_ref().and_then(|bridge| self.bridges.get(bridge.as_str()));
        let mut beside = beside.into_iter().flatten().filter_map(|id| self.networks.get(id));
        if let Some(entry) = beside.next() {
            return entry.zone;
        }
        let span = u32::from(*ZONES.end() - *ZONES.start()) + 1;
        let wanted = number(&[GroupId(network.id.0)].into());
        let zones = (0..span).map(|step| (wanted % span + step) % span + u32::from(*ZONES.start()));
        let mut zones = zones.filter_map(|zone| u16::try_from(zone).ok());
        // A host has far fewer networks.
        let zone = zones.find(|zone| !self.zones.contains(zone)).unwrap_or(*ZONES.end());
        self.zones.insert(zone);
        zone
    }

    /// Gives a network's zone back, unless another network on its bridge has it too.
    pub(super) fn give_zone_back(&mut self, network: &Network, zone: u16) {
        let beside = network.bridge.as_ref().and_then(|bridge| self.bridges.get(bridge.as_str()));
        if beside.into_iter().flatten().all(|id| *id == network.id) {
            self.zones.remove(&zone);
        }
    }
}

/// IPv4's protocol 0 is any, as in Neutron's reference.
fn any_protocol(allows: Allows) -> Allows {
    let protocol = allows.protocol.filter(|protocol| *protocol != 0 || allows.family == Family::V6);
    Allows { protocol, ..allows }
}
