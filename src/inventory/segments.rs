//! Which networks are on one link: an address is one machine's there, whatever network its port is on.
//!
//! Two networks on one operator's bridge are two records of one segment, also when they know the bridge by different names.
//! Each subnet's free addresses lack what any port on its segment has of its range.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::Error;
use super::entries::{Inventory, NetworkEntry, Segment, SubnetEntry};
use crate::model::pools::FreeRanges;
use crate::model::{Network, NetworkId, PortId, Subnet, SubnetId};
use crate::plan::{HostAddress, Kind, LinkState, VlanProtocol, VlanTag};

/// A port with an address that is this host's as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clash {
    pub port: PortId,
    pub host: HostAddress,
    /// The link that shows it.
    pub device: String,
}

impl Inventory {
    /// The segment of a network, as far as its bridge was seen.
    pub(super) fn segment_for(&self, network: &Network) -> Segment {
        let Some(name) = &network.bridge else { return Segment::Own(network.id) };
        match self.have.named(name.as_str()) {
            Some(link) if link.kind == Kind::Bridge => Segment::Bridge(link.index, network.bridge_vlan()),
            _ => Segment::Unseen(name.to_string(), network.bridge_vlan()),
        }
    }

    /// The networks on the segment of this one, itself among them.
    fn on_segment_of(&self, network: NetworkId) -> impl Iterator<Item = &NetworkEntry> {
        let segment = self.networks.get(&network).map(|entry| &entry.segment);
        self.on_segment(segment)
    }

    pub(super) fn on_segment(&self, segment: Option<&Segment>) -> impl Iterator<Item = &NetworkEntry> {
        let networks = segment.and_then(|segment| self.segments.get(segment)).into_iter().flatten();
        networks.filter_map(|id| self.networks.get(id))
    }

    /// The port that has an address on the segment of a network, with its own network.
    pub(super) fn holder(&self, network: NetworkId, ip: IpAddr) -> Option<(NetworkId, PortId)> {
        let mut networks = self.on_segment_of(network).map(|entry| entry.record.id);
        networks.find_map(|id| self.addresses.get(&(id, ip)).map(|port| (id, *port)))
    }

    /// The same, but for one port.
    fn other_holder(&self, network: NetworkId, ip: IpAddr, but: Option<PortId>) -> Option<(NetworkId, PortId)> {
        let networks = self.on_segment_of(network).map(|entry| entry.record.id);
        let mut holders = networks.filter_map(|id| self.addresses.get(&(id, ip)).map(|port| (id, *port)));
        holders.find(|(_, port)| Some(*port) != but)
    }

    /// The addresses on a network's segment that are this host's, or machines' that it knows, with the link that shows them.
    pub(super) fn hosts_beside(&self, network: NetworkId) -> impl Iterator<Item = (&LinkState, HostAddress)> {
        let (bridge, vlan) = match self.networks.get(&network).map(|entry| &entry.segment) {
            Some(Segment::Bridge(index, 0)) => (Some(*index), None),
            // The bridge's own addresses are in its own VLAN.
            Some(Segment::Bridge(index, vlan)) => {
                (None, self.have.vlan_on(*index, VlanTag { id: *vlan, protocol: VlanProtocol::Dot1q }))
            }
            Some(Segment::Own(id)) => (self.have.own_bridge(*id).map(|bridge| bridge.index), None),
            _ => (None, None),
        };
        let above = vlan.into_iter().flat_map(|link| link.hosts.iter().map(move |host| (link, *host)));
        bridge.into_iter().flat_map(|bridge| self.have.hosts_on(bridge)).chain(above)
    }

    /// Refuses an address that another port on the segment of a network has, or this host.
    pub fn check_address(&self, network: NetworkId, ip: IpAddr, but: Option<PortId>) -> Result<(), Error> {
        if let Some((network, port)) = self.other_holder(network, ip, but) {
            return Err(Error::AddressInUse { ip, network, port });
        }
        match self.hosts_beside(network).find(|(_, host)| host.ip == ip) {
            Some((link, host)) => {
                Err(Error::AddressOfHost { ip, host: self.host.clone(), device: link.name.clone(), of: host.of })
            }
            None => self.check_held(network, ip),
        }
    }

    /// Addresses that are free in a network's subnets and are not chosen: this host's, and what other networks' subnets on the
    /// same segment keep.
    pub(super) fn not_chosen(&self, network: NetworkId) -> BTreeSet<IpAddr> {
        let hosts = self.hosts_beside(network).map(|(_, host)| host.ip);
        let others = self.on_segment_of(network).filter(|entry| entry.record.id != network);
        let subnets = others.flat_map(|entry| &entry.subnets).filter_map(|id| self.subnets.get(id));
        hosts.chain(subnets.flat_map(|entry| entry.record.never())).collect()
    }

    /// Ports with an address that is this host's as well. Costs a look-up for each address that the host has on a bridge.
    pub fn clashes(&self) -> Vec<Clash> {
        let mut found = Vec::new();
        for (bridge, link, host) in self.have.hosts() {
            let own = self.have.link(bridge).into_iter().flat_map(LinkState::marks).map(|mark| Segment::Own(NetworkId(mark)));
            for segment in own.chain([Segment::Bridge(bridge, 0)]) {
                let networks = self.on_segment(Some(&segment)).map(|entry| entry.record.id);
                let ports = networks.filter_map(|id| self.addresses.get(&(id, host.ip)));
                found.extend(ports.map(|port| Clash { port: *port, host, device: link.name.clone() }));
            }
        }
        found
    }

    /// Takes an address out of what is free on a segment.
    pub(super) fn take(&mut self, network: NetworkId, ip: IpAddr) {
        for id in self.subnets_with(network, ip) {
            self.subnets.get_mut(&id).into_iter().for_each(|entry| entry.free.take(ip));
        }
    }

    /// Gives an address back that no port on the segment has any more.
    pub(super) fn give_back(&mut self, network: NetworkId, ip: IpAddr) {
        if self.holder(network, ip).is_some() || !self.is_free_again(network, ip) {
            return;
        }
        for id in self.subnets_with(network, ip) {
            let entry = self.subnets.get_mut(&id).filter(|entry| !entry.record.keeps(ip));
            entry.into_iter().for_each(|entry| entry.free.release(ip));
        }
    }

    /// The subnets on the segment whose range an address is in: one, unless networks share a bridge.
    fn subnets_with(&self, network: NetworkId, ip: IpAddr) -> Vec<SubnetId> {
        let subnets = self.on_segment_of(network).flat_map(|entry| &entry.subnets).copied();
        subnets.filter(|id| self.subnets.get(id).is_some_and(|entry| entry.record.cidr.contains(ip))).collect()
    }

    /// What is free of a subnet's pools, counted anew.
    pub(super) fn fill(&mut self, id: SubnetId) {
        let Some(entry) = self.subnets.get(&id) else { return };
        let mut free = self.all_free(&entry.record);
        for ip in self.held_on_segment_of(entry).filter(|ip| entry.record.cidr.contains(*ip)) {
            free.take(ip);
        }
        self.subnets.get_mut(&id).into_iter().for_each(|entry| entry.free = free.clone());
    }

    /// What of a subnet's pools can be given as long as no port has any of it.
    pub(super) fn all_free(&self, subnet: &Subnet) -> FreeRanges {
        match self.may_give(subnet.network_id) {
            Some(blocks) => subnet.free_in(&blocks),
            None => subnet.all_free(),
        }
    }

    pub(super) fn held_on_segment_of(&self, subnet: &SubnetEntry) -> impl Iterator<Item = IpAddr> {
        let ports = self.on_segment_of(subnet.record.network_id).flat_map(|entry| &entry.ports);
        let held = ports.filter_map(|port| self.ports.get(port)).flat_map(|port| port.record.held_ips()).map(|ip| ip.ip_address);
        held.chain(self.holding.lent_addresses(subnet.record.network_id))
    }

    /// Notes of which bridge the names are that networks know it by. A network whose bridge has gone stays where it was.
    pub(super) fn regroup(&mut self, link: &LinkState) {
        if link.kind != Kind::Bridge || self.bridges.is_empty() {
            return;
        }
        let named = link.altnames.iter().chain([&link.name]).filter_map(|name| self.bridges.get(name)).flatten();
        let networks = named.filter_map(|id| self.networks.get(id));
        let targets = networks.map(|entry| (entry, Segment::Bridge(link.index, entry.record.bridge_vlan())));
        let mut moving: BTreeMap<Segment, Vec<NetworkId>> = BTreeMap::new();
        for (entry, target) in targets.filter(|(entry, target)| entry.segment != *target) {
            moving.entry(target).or_default().push(entry.record.id);
        }
        moving.into_iter().for_each(|(target, networks)| self.move_to(&target, &networks));
    }

    fn move_to(&mut self, target: &Segment, moving: &[NetworkId]) {
        let mut left: BTreeMap<NetworkId, Segment> = BTreeMap::new();
        for id in moving {
            if let Some(entry) = self.networks.get_mut(id) {
                left.insert(*id, std::mem::replace(&mut entry.segment, target.clone()));
            }
        }
        let alone = |segment: &Segment, before: &Self| before.segments.get(segment).is_some_and(|networks| networks.len() == 1);
        // A network that alone takes its bridge's new index along shares with no other, before and after.
        let as_it_was =
            left.len() == 1 && left.values().all(|segment| alone(segment, self)) && !self.segments.contains_key(target);
        let mut changed: BTreeSet<NetworkId> = BTreeSet::new();
        for (id, segment) in &left {
            if let Some(networks) = self.segments.get_mut(segment) {
                networks.remove(id);
                changed.extend(networks.iter().copied());
                if networks.is_empty() {
                    self.segments.remove(segment);
                }
            }
            self.segments.entry(target.clone()).or_default().insert(*id);
        }
        if as_it_was {
            return;
        }
        changed.extend(self.segments.get(target).into_iter().flatten());
        let subnets = changed.iter().filter_map(|id| self.networks.get(id)).flat_map(|entry| entry.subnets.iter().copied());
        subnets.collect::<Vec<_>>().into_iter().for_each(|subnet| self.fill(subnet));
    }
}
