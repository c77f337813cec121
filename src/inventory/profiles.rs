//! The sets of security groups that ports are in, by their numbers, which the kernel has ([`crate::plan::groups`]).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::model::{GroupId, Network, NetworkId, Port, names};
use crate::plan::groups::{InGroups, Profile, number};
use crate::plan::{BridgeMade, NumberedProfile};

use super::Inventory;

/// Zones that networks may have: those below are left to other programs, which count from 1.
const ZONES: std::ops::RangeInclusive<u16> = 4096..=u16::MAX;

/// The sets of groups that ports are in.
#[derive(Debug, Default)]
pub struct Profiles {
    numbers: HashMap<BTreeSet<GroupId>, u32>,
    sets: BTreeMap<u32, Set>,
    /// By the group.
    of_group: BTreeMap<GroupId, BTreeSet<u32>>,
    /// Those that the kernel has.
    told: BTreeSet<u32>,
}

#[derive(Debug)]
struct Set {
    groups: BTreeSet<GroupId>,
    ports: usize,
}

impl Profiles {
    /// The number of a set; the one that it will have if no port is in it yet.
    fn number(&self, groups: &BTreeSet<GroupId>) -> u32 {
        if let Some(number) = self.numbers.get(groups) {
            return *number;
        }
        let mut free = number(groups);
        while self.sets.contains_key(&free) {
            free = free.wrapping_add(1).max(1);
        }
        free
    }

    /// Notes that one more port is in these groups.
    pub(super) fn join(&mut self, groups: &BTreeSet<GroupId>) {
        if groups.is_empty() {
            return;
        }
        let number = self.number(groups);
        let set = self.sets.entry(number).or_insert_with(|| {
            self.numbers.insert(groups.clone(), number);
            groups.iter().for_each(|group| _ = self.of_group.entry(*group).or_default().insert(number));
            Set { groups: groups.clone(), ports: 0 }
        });
        set.ports += 1;
    }

    /// Notes that one port less is in these groups.
    pub(super) fn leave(&mut self, groups: &BTreeSet<GroupId>) {
        let Some(number) = self.numbers.get(groups).copied() else { return };
        let Some(set) = self.sets.get_mut(&number) else { return };
        set.ports -= 1;
        if set.ports > 0 {
            return;
        }
        self.sets.remove(&number);
        self.numbers.remove(groups);
        for group in groups {
            if let Some(numbers) = self.of_group.get_mut(group) {
                numbers.remove(&number);
                if numbers.is_empty() {
                    self.of_group.remove(group);
                }
            }
        }
    }

    /// The sets that have one of these groups.
    pub fn with(&self, groups: &[GroupId]) -> BTreeSet<u32> {
        groups.iter().filter_map(|group| self.of_group.get(group)).flatten().copied().collect()
    }

    /// What the kernel is to be told of before a port in these groups is built: nothing if it has their set, else that one, and those
    /// that no port is in any more.
    pub fn untold(&self, groups: &BTreeSet<GroupId>) -> BTreeSet<u32> {
        match self.numbers.get(groups) {
            Some(number) if !self.told.contains(number) => {
                let gone = self.told.iter().filter(|told| !self.sets.contains_key(told)).copied();
                gone.chain([*number]).collect()
            }
            _ => BTreeSet::new(),
        }
    }

    /// The kernel has these from now on, as far as there are ports in them.
    pub fn told(&mut self, numbers: &BTreeSet<u32>) {
        for number in numbers {
            match self.sets.contains_key(number) {
                true => self.told.insert(*number),
                false => self.told.remove(number),
            };
        }
    }
}

impl Inventory {
    /// What sets of groups allow, by their numbers.
    pub fn profiles(&self, numbers: &BTreeSet<u32>) -> Vec<NumberedProfile> {
        let profile = |number: u32| {
            let groups = self.profiles.sets.get(&number)?.groups.clone();
            let records = groups.iter().filter_map(|id| self.groups.get(id));
            let allows = records.flat_map(|entry| &entry.record.rules).map(|rule| rule.allows.clone()).collect();
            Some(Profile { groups, allows })
        };
        numbers.iter().map(|number| NumberedProfile { number: *number, profile: profile(*number) }).collect()
    }

    /// All that there are.
    pub fn all_profiles(&mut self) -> BTreeMap<u32, Profile> {
        let numbers = self.profiles.sets.keys().copied().collect();
        self.profiles.told(&numbers);
        self.profiles(&numbers).into_iter().filter_map(|one| Some((one.number, one.profile?))).collect()
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
        let made = match &self.desired_bridge(network).made {
            BridgeMade::ByAgent { .. } => names::network_bridge(network.id, 0),
            BridgeMade::Existing { name } => name.clone(),
        };
        Some(InGroups {
            profile: self.profiles.number(&port.groups),
            zone: self.networks.get(&network.id)?.zone,
            bridge: known.and_then(|bridge| bridge.name.parse().ok()).unwrap_or(made),
            // Of an agent-made bridge nothing reaches the host.
            host: network.bridge.as_ref().and(known).and_then(|bridge| bridge.mac),
        })
    }

    /// A zone of conntrack for a network: the same on every start, unless another network has it.
    pub(super) fn take_zone(&mut self, network: NetworkId) -> u16 {
        let span = u32::from(*ZONES.end() - *ZONES.start()) + 1;
        let wanted = number(&[GroupId(network.0)].into());
        let zones = (0..span).map(|step| (wanted % span + step) % span + u32::from(*ZONES.start()));
        let mut zones = zones.filter_map(|zone| u16::try_from(zone).ok());
        // A host has far fewer networks.
        let zone = zones.find(|zone| !self.zones.contains(zone)).unwrap_or(*ZONES.end());
        self.zones.insert(zone);
        zone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(numbers: &[u128]) -> BTreeSet<GroupId> {
        numbers.iter().map(|number| GroupId(uuid::Uuid::from_u128(*number))).collect()
    }

    #[test]
    fn the_kernel_is_told_of_a_set_once_and_of_those_that_are_gone() {
        let mut profiles = Profiles::default();
        let (one, two) = (groups(&[1]), groups(&[1, 2]));
        profiles.join(&one);
        let first = profiles.untold(&one);
        assert_eq!(first.len(), 1);
        profiles.told(&first);
        profiles.join(&one);
        assert_eq!(profiles.untold(&one), BTreeSet::new());
        // A changed record leaves and joins.
        profiles.leave(&one);
        profiles.leave(&one);
        profiles.join(&one);
        assert_eq!(profiles.untold(&one), BTreeSet::new());
        profiles.join(&two);
        assert_eq!(profiles.with(&[GroupId(uuid::Uuid::from_u128(1))]).len(), 2);
        profiles.leave(&one);
        let both = profiles.untold(&two);
        assert_eq!(both.len(), 2);
        profiles.told(&both);
        assert_eq!(profiles.told.len(), 1);
    }

    #[test]
    fn networks_have_zones_of_their_own() {
        let mut state = Inventory::default();
        let zones: BTreeSet<u16> = (0..5000).map(|id| state.take_zone(NetworkId(uuid::Uuid::from_u128(id)))).collect();
        assert_eq!(zones.len(), 5000);
        assert!(zones.iter().all(|zone| ZONES.contains(zone)));
    }
}
