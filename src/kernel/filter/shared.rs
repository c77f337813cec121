//! The elements of security groups that several devices share: zones of bridges, holders of addresses, and what profiles allow. An attach touches its own few of them; a profile's come with its first device and go with its last.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::elements::{Does, Element, Set, Sides, difference, octets};
use super::remotes::Remotes;
use crate::model::{GroupId, LinkName, Mac};
use crate::plan::filter::Filter;
use crate::plan::groups::{Key, Profile, Side};
use crate::plan::members::{NetworkMembers, NumberedMember};

/// What elements are of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Of {
    Bridge(LinkName),
    Holder(LinkName, IpAddr),
    Profile(u32),
    /// A set of groups of other hosts' ports.
    Remote(u32),
}

/// The bridges of zones, and whether the host is on each.
pub(super) type Zones<'a> = BTreeMap<u16, (&'a LinkName, bool)>;

/// What the devices that are in groups have in common.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// All profiles of ports, whether one of them has a device or not.
    profiles: BTreeMap<u32, Profile>,
    /// The devices of each profile.
    members: BTreeMap<u32, BTreeSet<u32>>,
    /// The devices of each bridge, with its zone, and its MAC where the host is on it.
    bridges: BTreeMap<LinkName, BTreeMap<u32, (u16, Option<Mac>)>>,
    /// The devices that may use an address on a bridge, and their profiles.
    holders: BTreeMap<(LinkName, IpAddr), BTreeMap<u32, u32>>,
    /// The networks of which a device may use every address, by its bridge.
    nets: BTreeMap<LinkName, BTreeMap<u32, (u32, Vec<IpNetwork>)>>,
    /// Other hosts' ports in groups.
    remotes: Remotes,
    /// The elements before the change that is being made, of what it touches.
    before: BTreeMap<Of, BTreeSet<Element>>,
}

impl Shared {
    /// Whether a device is in groups.
    pub(super) fn is_used(&self) -> bool {
        !self.members.is_empty()
    }

    /// A change begins.
    pub(super) fn begin(&mut self) {
        self.before.clear();
    }

    /// Which elements the change that began last removes and adds.
    pub(super) fn change(&mut self) -> (Vec<Element>, Vec<Element>) {
        let before = std::mem::take(&mut self.before);
        let after: BTreeSet<Element> = before.keys().flat_map(|of| self.elements_of(of)).collect();
        let before: BTreeSet<Element> = before.into_values().flatten().collect();
        difference(before.into_iter().collect(), after.into_iter().collect())
    }

    /// All elements.
    pub(super) fn elements(&self) -> BTreeSet<Element> {
        let bridges = self.bridges.keys().cloned().map(Of::Bridge);
        let holders = self.holders.keys().chain(self.remotes.addresses());
        let holders = holders.map(|(bridge, address)| Of::Holder(bridge.clone(), *address));
        let profiles = self.members.keys().copied().map(Of::Profile);
        bridges.chain(holders).chain(profiles).flat_map(|of| self.elements_of(&of)).collect()
    }

    /// The elements of other hosts' ports alone.
    pub(super) fn remote_elements(&self) -> BTreeSet<Element> {
        let holders = self.remotes.addresses().map(|(bridge, address)| Of::Holder(bridge.clone(), *address));
        holders.flat_map(|of| self.elements_of(&of)).collect()
    }

    /// Takes in what other hosts have of a network. What takes it back, and whether rules of this host's ports name groups of which ports are
    /// gone.
    pub(super) fn set_members(&mut self, change: &NetworkMembers) -> (NetworkMembers, bool) {
        let undo = self.remotes.undo(change);
        let mut narrows = false;
        for id in self.remotes.gone(change) {
            let Some((bridge, gone)) = self.remotes.get(change.network, &id).cloned() else { continue };
            narrows |= self.members.keys().filter_map(|own| self.profiles.get(own)).any(|own| own.names(&gone.member.groups));
            self.touch_member(&bridge, &gone);
            self.remotes.remove(change.network, &id);
        }
        for new in &change.put {
            self.touch_member(&change.bridge, new);
            self.remotes.insert(change.network, &change.bridge, new.clone());
        }
        (undo, narrows)
    }

    fn touch_member(&mut self, bridge: &LinkName, member: &NumberedMember) {
        for address in &member.member.addresses {
            self.touch(Of::Holder(bridge.clone(), *address));
        }
        if self.remotes.is_last(member.number) {
            self.touch(Of::Remote(member.number));
        }
    }

    /// A device has this filter.
    pub(super) fn insert(&mut self, index: u32, filter: &Filter) {
        let Some(groups) = &filter.groups else { return };
        let (profile, bridge) = (groups.profile, &groups.bridge);
        if !self.members.contains_key(&profile) {
            self.touch(Of::Profile(profile));
        }
        self.members.entry(profile).or_default().insert(index);
        self.touch(Of::Bridge(bridge.clone()));
        self.bridges.entry(bridge.clone()).or_default().insert(index, (groups.zone, groups.host));
        for address in hosts(filter) {
            self.touch(Of::Holder(bridge.clone(), address));
            self.holders.entry((bridge.clone(), address)).or_default().insert(index, profile);
        }
        let nets: Vec<IpNetwork> = nets(filter).collect();
        if !nets.is_empty() {
            self.nets.entry(bridge.clone()).or_default().insert(index, (profile, nets));
        }
    }

    /// A device has this filter no more.
    pub(super) fn remove(&mut self, index: u32, filter: &Filter) {
        let Some(groups) = &filter.groups else { return };
        let (profile, bridge) = (groups.profile, &groups.bridge);
        if self.members.get(&profile).is_some_and(|members| members.len() == 1) {
            self.touch(Of::Profile(profile));
        }
        take(&mut self.members, &profile, |members| _ = members.remove(&index), BTreeSet::is_empty);
        self.touch(Of::Bridge(bridge.clone()));
        take(&mut self.bridges, bridge, |devices| _ = devices.remove(&index), BTreeMap::is_empty);
        for address in hosts(filter) {
            self.touch(Of::Holder(bridge.clone(), address));
            take(&mut self.holders, &(bridge.clone(), address), |devices| _ = devices.remove(&index), BTreeMap::is_empty);
        }
        take(&mut self.nets, bridge, |devices| _ = devices.remove(&index), BTreeMap::is_empty);
    }

    /// What profiles allow from now on; none of a profile that no port has any more. What it was.
    pub(super) fn set_profiles(&mut self, profiles: BTreeMap<u32, Option<Profile>>) -> BTreeMap<u32, Option<Profile>> {
        let change = |(number, profile): (u32, Option<Profile>)| {
            if self.profiles.get(&number) != profile.as_ref() {
                self.touch(Of::Profile(number));
            }
            let before = match profile {
                Some(profile) => self.profiles.insert(number, profile),
                None => self.profiles.remove(&number),
            };
            (number, before)
        };
        profiles.into_iter().map(change).collect()
    }

    /// The profiles of the devices that may use an address on a bridge.
    pub(super) fn profiles_of(&self, bridge: &LinkName, address: IpAddr) -> Vec<&Profile> {
        let holders = self.holders.get(&(bridge.clone(), address)).into_iter().flat_map(BTreeMap::values);
        let nets = self.nets.get(bridge).into_iter().flat_map(BTreeMap::values);
        let of_nets = nets.filter(|(_, nets)| nets.iter().any(|net| net.contains(address))).map(|(profile, _)| profile);
        holders.chain(of_nets).filter_map(|profile| self.profiles.get(profile)).collect()
    }

    /// The groups that an address on a bridge counts for: none where ports with different groups may use it.
    pub(super) fn holder(&self, bridge: &LinkName, address: IpAddr) -> Option<&BTreeSet<GroupId>> {
        self.groups_of(self.holds(bridge, address)?)
    }

    /// The number of these groups, which is that of this host's ports where one of them may use the address.
    fn holds(&self, bridge: &LinkName, address: IpAddr) -> Option<u32> {
        let at = (bridge.clone(), address);
        let own = self.holders.get(&at).into_iter().flat_map(BTreeMap::values);
        let mut numbers = own.chain(self.remotes.holders(&at)).copied();
        let first = numbers.next()?;
        let is_same = |other: u32| other == first || self.groups_of(other) == self.groups_of(first);
        numbers.all(is_same).then_some(first)
    }

    /// The groups of a number.
    fn groups_of(&self, number: u32) -> Option<&BTreeSet<GroupId>> {
        self.profiles.get(&number).map(|profile| &profile.groups).or_else(|| self.remotes.groups(number))
    }

    /// The bridges of zones, and whether the host is on each.
    pub(super) fn zones(&self) -> Zones<'_> {
        let zone = |(bridge, devices): (_, &BTreeMap<u32, (u16, Option<Mac>)>)| {
            devices.values().next().map(|(zone, host)| (*zone, (bridge, host.is_some())))
        };
        self.bridges.iter().filter_map(zone).collect()
    }

    fn touch(&mut self, of: Of) {
        if !self.before.contains_key(&of) {
            let elements = self.elements_of(&of);
            self.before.insert(of, elements);
        }
    }

    fn elements_of(&self, of: &Of) -> BTreeSet<Element> {
        match of {
            Of::Bridge(bridge) => {
                let Some((zone, host)) = self.bridges.get(bridge).and_then(|devices| devices.values().next()) else {
                    return BTreeSet::new();
                };
                let name = padded(bridge);
                let at = |mac: &Mac| Element::new(Set::Hosts, [&name[..], &mac.0, &[0, 0]].concat(), Does::Nothing);
                let host = host.as_ref().map(at);
                host.into_iter().chain([Element::new(Set::Zones, name.clone(), Does::InZone(*zone))]).collect()
            }
            Of::Holder(bridge, address) => {
                let (set, remote) = if address.is_ipv4() { (Set::Holders4, Set::Remote4) } else { (Set::Holders6, Set::Remote6) };
                let key = [padded(bridge), octets(*address)].concat();
                let is_remote = self.remotes.holders(&(bridge.clone(), *address)).next().is_some();
                let remote = is_remote.then(|| Element::new(remote, key.clone(), Does::Nothing));
                let holder = self.holds(bridge, *address).map(|number| Element::new(set, key, Does::HasProfile(number)));
                remote.into_iter().chain(holder).collect()
            }
            Of::Profile(number) => self.allowed_by(*number),
            Of::Remote(number) => self.members.keys().flat_map(|own| self.allowed_with(*own, *number)).collect(),
        }
    }

    /// What a profile allows, and what others allow with it.
    fn allowed_by(&self, number: u32) -> BTreeSet<Element> {
        let used = |number: u32| self.profiles.get(&number).filter(|_| self.members.contains_key(&number));
        let Some(profile) = used(number) else { return BTreeSet::new() };
        // The service refuses rules with too many keys.
        let nets = profile.nets().unwrap_or_default();
        let mut elements: BTreeSet<Element> = nets.iter().map(|key| allowed(number, key)).collect();
        for other in self.members.keys().copied() {
            let Some(with) = used(other) else { continue };
            if !profile.names(&with.groups) && !with.names(&profile.groups) {
                continue;
            }
            elements.extend(profile.with(other, &with.groups).iter().map(|key| allowed(number, key)));
            elements.extend(with.with(number, &profile.groups).iter().map(|key| allowed(other, key)));
        }
        elements.extend(self.remotes.numbers().flat_map(|other| self.allowed_with(number, other)));
        elements
    }

    /// What a profile of this host's ports allows with other hosts' ports of these groups.
    fn allowed_with(&self, own: u32, remote: u32) -> BTreeSet<Element> {
        let both = self.profiles.get(&own).zip(self.remotes.groups(remote));
        let keys = both.map(|(profile, groups)| profile.with(remote, groups)).unwrap_or_default();
        keys.iter().map(|key| allowed(own, key)).collect()
    }
}

/// A bridge's name as it is in keys.
fn padded(bridge: &LinkName) -> Vec<u8> {
    let mut name = bridge.as_str().as_bytes().to_vec();
    name.resize(16, 0);
    name
}

/// The addresses that a filter allows one by one, whatever the MAC.
pub(super) fn hosts(filter: &Filter) -> impl Iterator<Item = IpAddr> {
    let addresses = filter.guard.iter().flat_map(|guard| &guard.addresses);
    addresses.filter(|source| source.is_host()).map(|source| source.address.ip()).collect::<BTreeSet<_>>().into_iter()
}

fn nets(filter: &Filter) -> impl Iterator<Item = IpNetwork> {
    let addresses = filter.guard.iter().flat_map(|guard| &guard.addresses);
    addresses.filter(|source| !source.is_host()).map(|source| source.address)
}

/// Changes a map's value, and removes it if it is empty then.
fn take<K: Ord, V>(map: &mut BTreeMap<K, V>, key: &K, change: impl FnOnce(&mut V), is_empty: impl FnOnce(&V) -> bool) {
    if let Some(value) = map.get_mut(key) {
        change(value);
        if is_empty(value) {
            map.remove(key);
        }
    }
}

/// A profile's key as an element. Each part begins at a multiple of 4 octets.
fn allowed(profile: u32, key: &Key) -> Element {
    let side = match (key.side, key.carried.is_some()) {
        (Side::Net(_), false) => Sides::Nets,
        (Side::Net(_), true) => Sides::CarriedNets,
        (Side::Profile(_), false) => Sides::Profiles,
        (Side::Profile(_), true) => Sides::CarriedProfiles,
    };
    let own = profile.to_ne_bytes().to_vec();
    let carried = |word: fn(&(u8, u16, u16)) -> u16| match &key.carried {
        Some(carried) => {
            let [high, low] = word(carried).to_be_bytes();
            vec![carried.0, 0, 0, 0, high, low, 0, 0]
        }
        None => Vec::new(),
    };
    let (first, last) = (carried(|(_, first, _)| *first), carried(|(_, _, last)| *last));
    let (key_first, key_last) = match key.side {
        Side::Net(net) => {
            let (from, to) = (octets(net.network()), octets(net.broadcast()));
            ([&own[..], &first, &from].concat(), [&own[..], &last, &to].concat())
        }
        Side::Profile(other) => {
            let other = other.to_ne_bytes();
            ([&own[..], &other, &first].concat(), [&own[..], &other, &last].concat())
        }
    };
    let set = Set::Allowed(key.direction, key.family, side);
    Element { end: set.has_intervals().then_some(key_last), ..Element::new(set, key_first, Does::Nothing) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::group::What;
    use crate::model::{Allows, Direction, Family, GroupId, Member, MemberId, NetworkId, PortId, Remote};
    use crate::plan::filter::Guard;
    use crate::plan::groups::InGroups;

    fn group(number: u128) -> GroupId {
        GroupId(uuid::Uuid::from_u128(number))
    }

    fn profile(groups: &[u128], remote: Remote) -> Profile {
        let allows = Allows { direction: Direction::Ingress, family: Family::V4, protocol: Some(6), what: What::All, remote };
        Profile { groups: groups.iter().map(|number| group(*number)).collect(), allows: [allows].into() }
    }

    fn filter(profile: u32, address: &str) -> Filter {
        let mut guard = Guard::default();
        guard.allow("fa:16:3e:00:00:01".parse().unwrap(), address.parse::<IpAddr>().unwrap().into());
        let bridge = "nbr0".parse().unwrap();
        let groups = InGroups { profile, zone: 7, bridge, host: None };
        Filter { guard: Some(guard), groups: Some(groups), ..Filter::default() }
    }

    /// What was added and removed one after the other is what there is.
    #[test]
    fn changes_add_up_to_all_elements() {
        let mut shared = Shared::default();
        let mut there = BTreeSet::new();
        let mut follow = |shared: &mut Shared, change: &dyn Fn(&mut Shared), sizes: (usize, usize)| {
            shared.begin();
            change(shared);
            let (gone, new) = shared.change();
            assert_eq!((gone.len(), new.len()), sizes);
            gone.iter().for_each(|one| assert!(there.remove(one)));
            new.into_iter().for_each(|one| assert!(there.insert(one)));
            assert_eq!(there, shared.elements());
        };
        let profiles = [(1, Some(profile(&[1], Remote::Any))), (2, Some(profile(&[2], Remote::Group(group(1)))))];
        follow(&mut shared, &|shared| _ = shared.set_profiles(profiles.clone().into()), (0, 0));
        // The zone, the holder, and what the profile allows.
        follow(&mut shared, &|shared| shared.insert(10, &filter(1, "10.0.0.1")), (0, 3));
        follow(&mut shared, &|shared| shared.insert(11, &filter(1, "10.0.0.2")), (0, 1));
        follow(&mut shared, &|shared| shared.insert(12, &filter(2, "10.0.0.3")), (0, 2));
        // An address of two profiles is nobody's.
        follow(&mut shared, &|shared| shared.insert(13, &filter(2, "10.0.0.1")), (1, 0));
        follow(&mut shared, &|shared| shared.remove(13, &filter(2, "10.0.0.1")), (0, 1));
        follow(&mut shared, &|shared| _ = shared.set_profiles([(2, Some(profile(&[2], Remote::Any)))].into()), (1, 1));
        for (index, address) in [(10, "10.0.0.1"), (11, "10.0.0.2")] {
            shared.remove(index, &filter(1, address));
        }
        shared.remove(12, &filter(2, "10.0.0.3"));
        assert_eq!(shared.elements(), BTreeSet::new());
        assert!(!shared.is_used());
    }

    fn remote(port: u128, number: u32, groups: &[u128], address: &str) -> NumberedMember {
        let id = MemberId { host: "b".to_owned(), port: PortId(uuid::Uuid::from_u128(port)) };
        let groups = groups.iter().map(|number| group(*number)).collect();
        NumberedMember { id, number, member: Member { groups, addresses: [address.parse().unwrap()].into() } }
    }

    fn members(is_all: bool, put: Vec<NumberedMember>, gone: &[u128]) -> NetworkMembers {
        let id = |port: &u128| MemberId { host: "b".to_owned(), port: PortId(uuid::Uuid::from_u128(*port)) };
        let (network, bridge) = (NetworkId(uuid::Uuid::nil()), "nbr0".parse().unwrap());
        NetworkMembers { network, bridge, is_all, put, gone: gone.iter().map(id).collect() }
    }

    /// The same of what other hosts have, and of what takes it back.
    #[test]
    fn other_hosts_members_come_and_go_one_by_one() {
        const FAR: u32 = 1 << 31;
        let mut shared = Shared::default();
        let profiles = [(2, Some(profile(&[2], Remote::Group(group(1)))))];
        shared.set_profiles(profiles.into());
        shared.insert(10, &filter(2, "10.0.0.1"));
        let mut there = shared.elements();
        let mut follow = |shared: &mut Shared, change: &NetworkMembers, sizes: (usize, usize), narrows: bool| {
            shared.begin();
            let (undo, is_narrower) = shared.set_members(change);
            assert_eq!(is_narrower, narrows);
            let (gone, new) = shared.change();
            assert_eq!((gone.len(), new.len()), sizes, "{gone:?} {new:?}");
            gone.iter().for_each(|one| assert!(there.remove(one)));
            new.into_iter().for_each(|one| assert!(there.insert(one)));
            assert_eq!(there, shared.elements());
            undo
        };
        // Its address, its holder, and what the rule that names its group allows with it.
        let first = members(true, vec![remote(1, FAR, &[1], "10.0.0.7")], &[]);
        follow(&mut shared, &first, (0, 3), false);
        follow(&mut shared, &first, (0, 0), false);
        // One more of the same set, and one whose group no rule names.
        follow(&mut shared, &members(false, vec![remote(2, FAR, &[1], "10.0.0.8")], &[]), (0, 2), false);
        let third = members(false, vec![remote(3, FAR + 1, &[3], "10.0.0.9")], &[]);
        follow(&mut shared, &third, (0, 2), false);
        // An address of ports with different groups is nobody's, but it may come from there.
        let undo = follow(&mut shared, &members(false, vec![remote(3, FAR + 1, &[3], "10.0.0.8")], &[]), (3, 0), false);
        follow(&mut shared, &undo, (0, 3), false);
        // With the groups of this host's port it is theirs.
        let same = members(false, vec![remote(4, FAR + 2, &[2], "10.0.0.1")], &[]);
        follow(&mut shared, &same, (0, 1), false);
        assert_eq!(shared.holder(&"nbr0".parse().unwrap(), "10.0.0.1".parse().unwrap()), Some(&[group(2)].into()));
        follow(&mut shared, &members(false, Vec::new(), &[4]), (1, 0), false);
        // In another group.
        follow(&mut shared, &members(false, vec![remote(2, FAR + 1, &[3], "10.0.0.8")], &[]), (1, 1), true);
        follow(&mut shared, &members(true, vec![remote(3, FAR + 1, &[3], "10.0.0.9")], &[]), (5, 0), true);
        follow(&mut shared, &members(true, Vec::new(), &[]), (2, 0), false);
        shared.remove(10, &filter(2, "10.0.0.1"));
        assert_eq!(shared.elements(), BTreeSet::new());
    }
}
