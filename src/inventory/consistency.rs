//! Invariants of the state while no operation changes it, checked after each action of a debug build.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Inventory, TrunkRole};
use crate::model::{NetworkId, Phase, ServerId, SubnetId};

/// Beyond so many ports the check would be what a test waits for.
const MOST: usize = 256;

impl Inventory {
    /// Panics when an index does not hold exactly what the records say.
    pub fn assert_sound(&self) {
        if self.ports.len() > MOST {
            return;
        }
        let records = || self.ports.values().map(|entry| &entry.record);
        let macs: HashMap<_, _> = records().map(|port| (port.mac.host_side(), port.id)).collect();
        assert!(macs.len() == self.ports.len() && macs == self.macs, "MACs: {macs:?}, {:?}", self.macs);
        let held: Vec<_> =
            records().flat_map(|port| port.held_ips().map(|ip| ((port.network_id, ip.ip_address), port.id))).collect();
        let addresses: HashMap<_, _> = held.iter().copied().collect();
        assert!(held.len() == addresses.len() && addresses == self.addresses, "addresses: {addresses:?}, {:?}", self.addresses);
        let mut users: BTreeMap<SubnetId, usize> = BTreeMap::new();
        records().flat_map(|port| port.held_ips()).for_each(|ip| *users.entry(ip.subnet_id).or_default() += 1);
        let segments = self.segments.iter().flat_map(|(segment, networks)| networks.iter().map(move |id| (*id, segment.clone())));
        let known: BTreeMap<_, _> = self.networks.values().map(|entry| (entry.record.id, entry.segment.clone())).collect();
        assert_eq!(segments.collect::<BTreeMap<_, _>>(), known, "segments");
        for (id, subnet) in &self.subnets {
            let mut free = self.all_free(&subnet.record);
            self.held_on_segment_of(subnet).for_each(|ip| free.take(ip));
            assert_eq!(subnet.free, free, "what is free of subnet {id}");
            assert_eq!(subnet.users, users.get(id).copied().unwrap_or(0), "users of subnet {id}");
        }
        let roles = self.trunks.values().flat_map(|trunk| {
            let subs = trunk.sub_ports.iter().map(|sub| (sub.port_id, TrunkRole::SubPort(trunk.id)));
            subs.chain([(trunk.port_id, TrunkRole::Parent(trunk.id))])
        });
        assert_eq!(roles.collect::<HashMap<_, _>>(), self.trunk_roles, "ports' parts in trunks");
        self.assert_sets();
        self.assert_groups();
        self.assert_zones();
    }

    fn assert_sets(&self) {
        let (mut on, mut at): (BTreeMap<NetworkId, BTreeSet<_>>, BTreeMap<ServerId, BTreeSet<_>>) = Default::default();
        let mut phases = [0; 6];
        for entry in self.ports.values() {
            phases[entry.phase as usize] += 1;
            on.entry(entry.record.network_id).or_default().insert(entry.record.id);
            if let Some(binding) = &entry.record.binding {
                at.entry(binding.server_id).or_default().insert(entry.record.id);
            }
        }
        assert_eq!(phases, self.phases, "counted phases");
        let errors = self.ports.values().filter(|entry| entry.phase == Phase::Error).map(|entry| entry.record.id);
        assert_eq!(errors.collect::<BTreeSet<_>>(), self.errors, "ports that are ERROR");
        assert_eq!(on.keys().copied().collect::<BTreeSet<_>>(), self.used, "networks with ports");
        for (id, network) in &self.networks {
            assert_eq!(network.ports, on.remove(id).unwrap_or_default(), "ports of network {id}");
        }
        for (id, server) in &self.servers {
            assert_eq!(server.ports, at.remove(id).unwrap_or_default(), "ports of server {id}");
        }
        let mut monitors: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for entry in self.servers.values() {
            if let Some(qmp) = entry.record.guest.qmp() {
                monitors.entry(qmp.clone()).or_default().insert(entry.record.id);
            }
        }
        assert_eq!(monitors, self.monitors, "monitors");
        let stray =
            self.contested.keys().find(|port| self.ports.get(port).is_none_or(|entry| entry.record.attached_to().is_none()));
        assert_eq!(stray, None, "contested and not attached");
    }
}
