//! Other hosts' ports that are in security groups: the addresses that they have on bridges, and their sets of groups by number.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::model::{GroupId, LinkName, MemberId, NetworkId};
use crate::plan::members::{NetworkMembers, NumberedMember};

/// Where an address is.
pub(super) type At = (LinkName, IpAddr);

/// Other hosts' ports.
#[derive(Debug, Default)]
pub(super) struct Remotes {
    networks: BTreeMap<NetworkId, BTreeMap<MemberId, (LinkName, NumberedMember)>>,
    /// The ports that may use an address, and the numbers of their sets of groups.
    holders: BTreeMap<At, BTreeMap<(NetworkId, MemberId), u32>>,
    /// The sets, and how many ports have each.
    sets: BTreeMap<u32, (BTreeSet<GroupId>, usize)>,
}

impl Remotes {
    /// All addresses that they have.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &At> {
        self.holders.keys()
    }

    /// The numbers of the ports that may use an address.
    pub(super) fn holders(&self, at: &At) -> impl Iterator<Item = &u32> {
        self.holders.get(at).into_iter().flat_map(BTreeMap::values)
    }

    /// The groups of a number.
    pub(super) fn groups(&self, number: u32) -> Option<&BTreeSet<GroupId>> {
        self.sets.get(&number).map(|(groups, _)| groups)
    }

    /// The numbers of all sets.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> {
        self.sets.keys().copied()
    }

    /// Whether at most one port has a set.
    pub(super) fn is_last(&self, number: u32) -> bool {
        self.sets.get(&number).is_none_or(|(_, ports)| *ports <= 1)
    }

    /// A port, and its bridge.
    pub(super) fn get(&self, network: NetworkId, id: &MemberId) -> Option<&(LinkName, NumberedMember)> {
        self.networks.get(&network)?.get(id)
    }

    /// Those that a change takes away, also to put them in again otherwise. What stays as it is is none of them.
    pub(super) fn gone(&self, change: &NetworkMembers) -> Vec<MemberId> {
        let Some(known) = self.networks.get(&change.network) else { return Vec::new() };
        let put: BTreeMap<&MemberId, &NumberedMember> = change.put.iter().map(|member| (&member.id, member)).collect();
        let stays = |id: &MemberId, (bridge, known): &(LinkName, NumberedMember)| match put.get(id) {
            Some(put) => bridge == &change.bridge && *put == known,
            None => !change.is_all && !change.gone.contains(id),
        };
        if change.is_all {
            return known.iter().filter(|(id, known)| !stays(id, known)).map(|(id, _)| id.clone()).collect();
        }
        let touched = change.gone.iter().chain(put.keys().copied());
        touched.filter(|id| known.get(id).is_some_and(|known| !stays(id, known))).cloned().collect()
    }

    /// What takes a change back.
    pub(super) fn undo(&self, change: &NetworkMembers) -> NetworkMembers {
        let known = self.networks.get(&change.network);
        let gone = change.put.iter().map(|member| &member.id).filter(|id| known.is_none_or(|known| !known.contains_key(id)));
        let before = self.gone(change);
        let before: Vec<&(LinkName, NumberedMember)> = before.iter().filter_map(|id| known?.get(id)).collect();
        NetworkMembers {
            network: change.network,
            bridge: before.first().map_or_else(|| change.bridge.clone(), |(bridge, _)| bridge.clone()),
            is_all: false,
            put: before.iter().map(|(_, member)| member.clone()).collect(),
            gone: gone.cloned().collect(),
        }
    }

    pub(super) fn insert(&mut self, network: NetworkId, bridge: &LinkName, member: NumberedMember) {
        self.remove(network, &member.id);
        for address in &member.member.addresses {
            let at = (bridge.clone(), *address);
            self.holders.entry(at).or_default().insert((network, member.id.clone()), member.number);
        }
        self.sets.entry(member.number).or_insert_with(|| (member.member.groups.clone(), 0)).1 += 1;
        self.networks.entry(network).or_default().insert(member.id.clone(), (bridge.clone(), member));
    }

    pub(super) fn remove(&mut self, network: NetworkId, id: &MemberId) {
        let Some(members) = self.networks.get_mut(&network) else { return };
        let Some((bridge, gone)) = members.remove(id) else { return };
        if members.is_empty() {
            self.networks.remove(&network);
        }
        let key = (network, id.clone());
        for address in gone.member.addresses {
            let at = (bridge.clone(), address);
            if let Some(holders) = self.holders.get_mut(&at) {
                holders.remove(&key);
                if holders.is_empty() {
                    self.holders.remove(&at);
                }
            }
        }
        if let Some((_, ports)) = self.sets.get_mut(&gone.number) {
            *ports -= 1;
            if *ports == 0 {
                self.sets.remove(&gone.number);
            }
        }
    }
}
