//! Ports of other hosts that are in security groups, of networks that have ports here: what the fleet tells of them is noted in the store,
//! and then the kernel is told.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Member, MemberChange, MemberId, NetworkId, NotedMember};
use crate::plan::groups::KEYS_OF_ALL;
use crate::plan::members::NetworkMembers;

use super::entries::Inventory;
use super::members::Untold;

impl Inventory {
    /// Takes in those of the store.
    pub fn load_members(&mut self, members: Vec<NotedMember>) {
        members.into_iter().for_each(|noted| self.members.put(noted.network, noted.id, Some(noted.member)));
    }

    /// Takes in what the fleet tells of a network.
    pub fn change_members(&mut self, network: NetworkId, change: MemberChange) {
        match change {
            MemberChange::One(id, member) => self.members.tell(network, id, member),
            MemberChange::All { members, may_lack } => {
                let told: BTreeMap<MemberId, Member> = members.into_iter().collect();
                let ports: BTreeSet<_> = told.keys().map(|id| id.port).collect();
                let known = self.members.networks.get(&network).into_iter().flat_map(|known| known.members.keys());
                let untaken = self.members.unnoted.keys().filter(|(of, _)| *of == network).map(|(_, id)| id);
                let others: Vec<MemberId> = known.chain(untaken).filter(|id| !told.contains_key(id)).cloned().collect();
                let gone = others.into_iter().filter(|id| !may_lack || ports.contains(&id.port));
                gone.for_each(|id| self.members.tell(network, id, None));
                told.into_iter().for_each(|(id, member)| self.members.tell(network, id, Some(member)));
            }
        }
    }

    /// Forgets those of all networks but these.
    pub fn keep_members_of(&mut self, networks: &BTreeSet<NetworkId>) {
        let left =
            self.members.networks.iter().filter(|(network, known)| !networks.contains(network) && !known.members.is_empty());
        let left: Vec<NetworkId> = left.map(|(network, _)| *network).collect();
        for network in left {
            self.change_members(network, MemberChange::All { members: Vec::new(), may_lack: false });
        }
    }

    /// Whether something is to be noted, or told to the kernel.
    pub fn has_members_to_follow(&self) -> bool {
        !self.members.unnoted.is_empty() || self.members.networks.values().any(|known| known.untold != Untold::default())
    }

    /// So many at most of those that are to be noted, those that are gone first. They are not taken yet.
    pub fn unnoted_members(&self, most: usize) -> Vec<(NetworkId, MemberId, Option<Member>)> {
        let some = |is_gone: bool| {
            let all = self.members.unnoted.iter().filter(move |(_, member)| member.is_none() == is_gone);
            all.map(|((network, id), member)| (*network, id.clone(), member.clone()))
        };
        some(true).chain(some(false)).take(most).collect()
    }

    /// These are noted. What was told meanwhile is still to be.
    pub fn note_members(&mut self, noted: Vec<(NetworkId, MemberId, Option<Member>)>) {
        for (network, id, member) in noted {
            let at = (network, id);
            if self.members.unnoted.get(&at) == Some(&member) {
                self.members.unnoted.remove(&at);
            }
            self.members.put(at.0, at.1, member);
        }
    }

    /// Takes what the kernel is to be told of one network. Where all rules are too many for it then, ports with new sets of groups count as
    /// in none.
    pub fn take_untold_members(&mut self) -> Option<NetworkMembers> {
        let (network, known) = self.members.networks.iter().find(|(_, known)| known.untold != Untold::default())?;
        let network = *network;
        let Ok(bridge) = self.network(network).map(|entry| self.name_of_bridge(&entry.record)) else {
            // Its bridge is gone.
            let known = self.members.networks.remove(&network)?;
            known.members.values().for_each(|member| self.members.leave(&member.groups));
            let bridge = known.bridge?;
            return Some(NetworkMembers { network, bridge, is_all: true, put: Vec::new(), gone: BTreeSet::new() });
        };
        let is_all = known.untold == Untold::All || known.bridge.as_ref().is_some_and(|before| *before != bridge);
        let (mut put, gone) = match &known.untold {
            Untold::These(ids) if !is_all => self.members.of(known, ids.iter().cloned()),
            _ => self.members.of(known, known.members.keys().cloned()),
        };
        let keys = self.keys_of_all(&BTreeMap::new());
        if keys > KEYS_OF_ALL && !put.is_empty() {
            tracing::error!(%network, keys, "ports of other hosts count as in no security group: the rules are too many for this host");
            put.clear();
        }
        if let Some(known) = self.members.networks.get_mut(&network) {
            (known.untold, known.bridge) = (Untold::default(), Some(bridge.clone()));
        }
        Some(NetworkMembers { network, bridge, is_all, put, gone })
    }

    /// Has the kernel told of all of a network.
    pub fn tell_all_members(&mut self, network: NetworkId) {
        if let Some(known) = self.members.networks.get_mut(&network) {
            known.untold = Untold::All;
        }
    }

    /// Has the kernel told of all of a network if it knows them by another bridge. Whether that is so.
    pub fn check_bridge_of_members(&mut self, network: NetworkId) -> bool {
        let told = self.members.networks.get(&network).and_then(|known| known.bridge.as_ref());
        let differs = match (told, self.network(network)) {
            (Some(told), Ok(entry)) => *told != self.name_of_bridge(&entry.record),
            _ => false,
        };
        if differs {
            self.tell_all_members(network);
        }
        differs
    }

    /// All that there are, as the kernel gets them at the start.
    pub fn all_members(&mut self) -> Vec<NetworkMembers> {
        let networks: Vec<NetworkId> = self.members.networks.keys().copied().collect();
        networks.iter().for_each(|network| self.tell_all_members(*network));
        std::iter::from_fn(|| self.take_untold_members()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{GroupId, PortId};

    fn id(host: &str, port: u128) -> MemberId {
        MemberId { host: host.to_owned(), port: PortId(uuid::Uuid::from_u128(port)) }
    }

    fn member(group: u128) -> Member {
        Member { groups: [GroupId(uuid::Uuid::from_u128(group))].into(), addresses: ["192.0.2.7".parse().unwrap()].into() }
    }

    fn noted(state: &mut Inventory) -> Vec<(MemberId, Option<Member>)> {
        let mut all = Vec::new();
        loop {
            let some = state.unnoted_members(2);
            if some.is_empty() {
                return all;
            }
            all.extend(some.iter().map(|(_, id, member)| (id.clone(), member.clone())));
            state.note_members(some);
        }
    }

    #[test]
    fn what_differs_is_noted_once_and_what_is_gone_comes_first() {
        let (mut state, network) = (Inventory::default(), NetworkId(uuid::Uuid::nil()));
        let all = |members: &[(MemberId, Member)], may_lack| MemberChange::All { members: members.to_vec(), may_lack };
        state.change_members(network, all(&[(id("b", 1), member(1)), (id("b", 2), member(1)), (id("c", 3), member(2))], false));
        assert_eq!(noted(&mut state).len(), 3);
        assert_eq!(state.members.sets.len(), 2);
        state.change_members(network, MemberChange::One(id("b", 1), Some(member(1))));
        assert_eq!(noted(&mut state), []);
        // An etcd that may lack something takes nothing away, but for a port that is on another host.
        state.change_members(network, all(&[(id("c", 2), member(1))], true));
        assert_eq!(noted(&mut state), [(id("b", 2), None), (id("c", 2), Some(member(1)))]);
        state.change_members(network, MemberChange::One(id("b", 1), Some(member(3))));
        state.change_members(network, all(&[(id("c", 2), member(1))], false));
        assert_eq!(noted(&mut state), [(id("b", 1), None), (id("c", 3), None)]);
        assert_eq!(state.members.sets.len(), 1);
        state.keep_members_of(&BTreeSet::new());
        assert_eq!(noted(&mut state), [(id("c", 2), None)]);
        assert!(state.members.sets.is_empty() && state.members.numbers.is_empty());
    }
}
