//! The elements of security groups that several devices share: zones of bridges, holders of addresses, and what profiles allow. An attach touches its own few of them; a profile's come with its first device and go with its last.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::elements::{Does, Element, Set, Sides, difference, octets};
use crate::model::{LinkName, Mac};
use crate::plan::filter::Filter;
use crate::plan::groups::{Key, Profile, Side};

/// What elements are of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Of {
    Bridge(LinkName),
    Holder(LinkName, IpAddr),
    Profile(u32),
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
        let holders = self.holders.keys().map(|(bridge, address)| Of::Holder(bridge.clone(), *address));
        let profiles = self.members.keys().copied().map(Of::Profile);
        bridges.chain(holders).chain(profiles).flat_map(|of| self.elements_of(&of)).collect()
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

    /// The profile that an address on a bridge counts for: none where ports of several profiles may use it.
    pub(super) fn holder(&self, bridge: &LinkName, address: IpAddr) -> Option<&Profile> {
        self.profiles.get(&self.holds(bridge, address)?)
    }

    fn holds(&self, bridge: &LinkName, address: IpAddr) -> Option<u32> {
        let mut profiles = self.holders.get(&(bridge.clone(), address))?.values();
        let first = *profiles.next()?;
        profiles.all(|other| *other == first).then_some(first)
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
                let Some(profile) = self.holds(bridge, *address) else { return BTreeSet::new() };
                let set = if address.is_ipv4() { Set::Holders4 } else { Set::Holders6 };
                let key = [padded(bridge), octets(*address)].concat();
                [Element::new(set, key, Does::HasProfile(profile))].into()
            }
            Of::Profile(number) => self.allowed_by(*number),
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
        elements
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
    use crate::model::{Allows, Direction, Family, GroupId, Remote};
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
}
