//! What is known of ports of other hosts that are in security groups, and the numbers of their sets of groups.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{GroupId, LinkName, Member, MemberId, NetworkId};
use crate::plan::groups::{next_remote_number, remote_number};
use crate::plan::members::NumberedMember;

/// What is known of them.
#[derive(Debug, Default)]
pub struct Members {
    pub(super) networks: BTreeMap<NetworkId, Known>,
    /// What was told and is not noted yet.
    pub(super) unnoted: BTreeMap<(NetworkId, MemberId), Option<Member>>,
    /// The numbers of their sets of groups, and how many ports are in each.
    pub(super) sets: BTreeMap<BTreeSet<GroupId>, (u32, usize)>,
    pub(super) numbers: BTreeSet<u32>,
    /// Whether they are being noted and told.
    pub is_under_way: bool,
}

/// Those of a network.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) members: BTreeMap<MemberId, Member>,
    pub(super) untold: Untold,
    /// The bridge by which the kernel knows them.
    pub(super) bridge: Option<LinkName>,
}

/// Which of a network's members the kernel is to be told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Untold {
    These(BTreeSet<MemberId>),
    All,
}

impl Default for Untold {
    fn default() -> Self {
        Self::These(BTreeSet::new())
    }
}

impl Members {
    /// By the group: how many sets have it.
    pub(super) fn sets_with(&self) -> impl Iterator<Item = (GroupId, usize)> + '_ {
        self.sets.keys().flatten().map(|group| (*group, 1))
    }

    fn join(&mut self, groups: &BTreeSet<GroupId>) {
        if let Some((_, ports)) = self.sets.get_mut(groups) {
            *ports += 1;
            return;
        }
        let mut free = remote_number(groups);
        while self.numbers.contains(&free) {
            free = next_remote_number(free);
        }
        self.numbers.insert(free);
        self.sets.insert(groups.clone(), (free, 1));
    }

    /// Notes that one port less is in these groups.
    pub(super) fn leave(&mut self, groups: &BTreeSet<GroupId>) {
        if let Some((number, ports)) = self.sets.get_mut(groups) {
            *ports -= 1;
            if *ports == 0 {
                self.numbers.remove(number);
                self.sets.remove(groups);
            }
        }
    }

    /// What a member is once all is noted that was told.
    fn latest(&self, network: NetworkId, id: &MemberId) -> Option<&Member> {
        match self.unnoted.get(&(network, id.clone())) {
            Some(told) => told.as_ref(),
            None => self.networks.get(&network)?.members.get(id),
        }
    }

    /// Takes in what was told of a port.
    pub(super) fn tell(&mut self, network: NetworkId, id: MemberId, member: Option<Member>) {
        if self.latest(network, &id) != member.as_ref() {
            self.unnoted.insert((network, id), member);
        }
    }

    /// Takes in what is noted of a port.
    pub(super) fn put(&mut self, network: NetworkId, id: MemberId, member: Option<Member>) {
        let known = self.networks.entry(network).or_default();
        if let Untold::These(untold) = &mut known.untold {
            untold.insert(id.clone());
        }
        let before = match member.clone() {
            Some(member) => known.members.insert(id, member),
            None => known.members.remove(&id),
        };
        member.iter().for_each(|member| self.join(&member.groups));
        before.iter().for_each(|before| self.leave(&before.groups));
    }

    fn number(&self, groups: &BTreeSet<GroupId>) -> Option<u32> {
        self.sets.get(groups).map(|(number, _)| *number)
    }

    /// Which of these ports there are, and which are gone.
    pub(super) fn of(&self, known: &Known, ids: impl Iterator<Item = MemberId>) -> (Vec<NumberedMember>, BTreeSet<MemberId>) {
        let (mut put, mut gone) = (Vec::new(), BTreeSet::new());
        for id in ids {
            match known.members.get(&id).and_then(|member| Some((self.number(&member.groups)?, member.clone()))) {
                Some((number, member)) => put.push(NumberedMember { id, number, member }),
                None => _ = gone.insert(id),
            }
        }
        (put, gone)
    }
}
