//! The sets of security groups that ports are in, by their numbers, which the kernel has ([`crate::plan::groups`]).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::model::GroupId;
use crate::plan::groups::{next_number, own_number};

/// The sets of groups that ports are in.
#[derive(Debug, Default)]
pub struct Profiles {
    numbers: HashMap<BTreeSet<GroupId>, u32>,
    sets: BTreeMap<u32, Set>,
    /// By the group.
    of_group: BTreeMap<GroupId, BTreeSet<u32>>,
    /// Those that the kernel has as their groups' records say, and how many keys each has of rules that name no group.
    told: BTreeMap<u32, usize>,
    /// How many keys all of these had when the kernel was told last.
    keys: usize,
    /// Those that no port is in any more, and that the kernel has.
    gone: BTreeSet<u32>,
}

#[derive(Debug)]
struct Set {
    groups: BTreeSet<GroupId>,
    ports: usize,
}

impl Profiles {
    /// The groups of a set; none where no port is in it.
    pub fn groups(&self, number: u32) -> Option<&BTreeSet<GroupId>> {
        self.sets.get(&number).map(|set| &set.groups)
    }

    /// All sets that ports are in.
    pub fn numbers(&self) -> BTreeSet<u32> {
        self.sets.keys().copied().collect()
    }

    /// Whether ports are in a group.
    pub(super) fn has(&self, group: GroupId) -> bool {
        self.of_group.contains_key(&group)
    }

    /// The number of a set; the one that it will have if no port is in it yet.
    pub fn number(&self, groups: &BTreeSet<GroupId>) -> u32 {
        if let Some(number) = self.numbers.get(groups) {
            return *number;
        }
        let mut free = own_number(groups);
        while self.sets.contains_key(&free) {
            free = next_number(free);
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
        if self.told.remove(&number).is_some() {
            self.gone.insert(number);
        }
        for group in groups {
            if let Some(numbers) = self.of_group.get_mut(group) {
                numbers.remove(&number);
                if numbers.is_empty() {
                    self.of_group.remove(group);
                }
            }
        }
    }

    /// The sets with one of these groups that the kernel has. It is told of the others when a port in them is built.
    pub fn told_with(&self, groups: &[GroupId]) -> BTreeSet<u32> {
        let with = groups.iter().filter_map(|group| self.of_group.get(group)).flatten();
        with.filter(|number| self.told.contains_key(number)).copied().collect()
    }

    /// What the kernel is to be told of before a port in these groups is built: nothing if it has their set, else that one, and those
    /// that no port is in any more.
    pub fn untold(&self, groups: &BTreeSet<GroupId>) -> BTreeSet<u32> {
        match self.numbers.get(groups) {
            Some(number) if !self.told.contains_key(number) => self.gone.iter().copied().chain([*number]).collect(),
            _ => BTreeSet::new(),
        }
    }

    /// The kernel has these from now on, as far as there are ports in them, with so many keys of each, and so many of all.
    pub fn told(&mut self, own: &BTreeMap<u32, usize>, keys: usize) {
        for number in own.keys() {
            self.gone.remove(number);
        }
        self.told = self.with_told(own);
        self.keys = keys;
    }

    /// Those that the kernel has once it is told of these.
    pub(super) fn with_told(&self, own: &BTreeMap<u32, usize>) -> BTreeMap<u32, usize> {
        let own = own.iter().filter(|(number, _)| self.sets.contains_key(number));
        self.told.iter().chain(own).map(|(number, keys)| (*number, *keys)).collect()
    }

    /// How many keys the kernel was told of last.
    pub fn keys(&self) -> usize {
        self.keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(numbers: &[u128]) -> BTreeSet<GroupId> {
        numbers.iter().map(|number| GroupId(uuid::Uuid::from_u128(*number))).collect()
    }

    fn tell(profiles: &mut Profiles, numbers: &BTreeSet<u32>) {
        profiles.told(&numbers.iter().map(|number| (*number, 2)).collect(), 0);
    }

    #[test]
    fn the_kernel_is_told_of_a_set_once_and_of_those_that_are_gone() {
        let mut profiles = Profiles::default();
        let (one, two) = (groups(&[1]), groups(&[1, 2]));
        profiles.join(&one);
        let first = profiles.untold(&one);
        assert_eq!(first.len(), 1);
        tell(&mut profiles, &first);
        profiles.join(&one);
        assert_eq!(profiles.untold(&one), BTreeSet::new());
        // A changed record leaves and joins.
        profiles.leave(&one);
        profiles.leave(&one);
        profiles.join(&one);
        assert_eq!(profiles.untold(&one), first, "its rules may have changed while no port was in it");
        tell(&mut profiles, &first);
        profiles.join(&two);
        let with_one = [GroupId(uuid::Uuid::from_u128(1))];
        assert_eq!(profiles.told_with(&with_one), first, "the other one is told with its first port");
        profiles.leave(&one);
        let both = profiles.untold(&two);
        assert_eq!(both.len(), 2);
        tell(&mut profiles, &both);
        assert_eq!((profiles.told.len(), profiles.gone.len()), (1, 0));
    }
}
