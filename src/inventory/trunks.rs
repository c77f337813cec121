//! Trunks: which ports carry others' frames, and which ports' frames are carried.

use crate::model::{Carrier, Network, NetworkKind, PortId, SubPort, Trunk, TrunkId};

use super::{Error, Inventory, TrunkRole};

impl Inventory {
    /// Takes in a trunk, or puts another record in its place.
    pub fn put_trunk(&mut self, record: Trunk) {
        self.remove_trunk(record.id);
        self.trunk_roles.insert(record.port_id, TrunkRole::Parent(record.id));
        for sub in &record.sub_ports {
            self.trunk_roles.insert(sub.port_id, TrunkRole::SubPort(record.id));
        }
        self.trunks.insert(record.id, record);
    }

    /// Forgets a trunk; its ports stay.
    pub fn remove_trunk(&mut self, id: TrunkId) {
        let Some(record) = self.trunks.remove(&id) else { return };
        self.trunk_roles.remove(&record.port_id);
        for sub in &record.sub_ports {
            self.trunk_roles.remove(&sub.port_id);
        }
    }

    /// A trunk by id.
    pub fn trunk(&self, id: TrunkId) -> Result<&Trunk, Error> {
        self.trunks.get(&id).ok_or(Error::NoSuchTrunk(id))
    }

    /// A port's part in a trunk; none where it is in none.
    pub fn trunk_role(&self, port: PortId) -> Option<TrunkRole> {
        self.trunk_roles.get(&port).copied()
    }

    /// The trunk that a port is the parent of.
    pub fn trunk_on(&self, parent: PortId) -> Option<&Trunk> {
        match self.trunk_role(parent)? {
            TrunkRole::Parent(id) => self.trunks.get(&id),
            TrunkRole::SubPort(_) => None,
        }
    }

    /// Whether something here is made of VLAN devices.
    pub fn needs_vlan_devices(&self) -> bool {
        let is_on_uplink = |network: &Network| network.kind == NetworkKind::Vlan && network.bridge.is_none();
        !self.trunks.is_empty() || self.networks.values().any(|entry| is_on_uplink(&entry.record))
    }

    /// The subports whose frames a port's NIC carries.
    pub fn sub_ports(&self, parent: PortId) -> &[SubPort] {
        self.trunk_on(parent).map_or(&[], |trunk| trunk.sub_ports.as_slice())
    }

    /// Whether the trunk whose subport a port is lets it be up; of any other port true.
    pub(super) fn trunk_is_up(&self, port: PortId) -> bool {
        match self.trunk_role(port) {
            Some(TrunkRole::SubPort(id)) => self.trunks.get(&id).is_none_or(|trunk| trunk.admin_up),
            Some(TrunkRole::Parent(_)) | None => true,
        }
    }

    /// The subports of a port that have a device on its, or are about to.
    pub fn carried(&self, parent: PortId) -> Vec<PortId> {
        let on_it = |sub: &&SubPort| {
            let carrier = self.ports.get(&sub.port_id).and_then(|entry| entry.record.carrier());
            carrier == Some(Carrier { port: parent, vlan: sub.vlan })
        };
        self.sub_ports(parent).iter().filter(on_it).map(|sub| sub.port_id).collect()
    }

    /// Refuses to delete a port that is in a trunk.
    pub fn check_in_no_trunk(&self, port: PortId) -> Result<(), Error> {
        match self.trunk_role(port) {
            Some(TrunkRole::Parent(trunk)) => Err(Error::PortIsTrunkParent { port, trunk }),
            Some(TrunkRole::SubPort(trunk)) => Err(Error::PortIsSubPort { port, trunk }),
            None => Ok(()),
        }
    }

    /// Refuses what a subport cannot have done to it alone.
    pub fn check_no_sub_port(&self, port: PortId) -> Result<(), Error> {
        match self.trunk_role(port) {
            Some(TrunkRole::SubPort(trunk)) => Err(Error::PortIsSubPort { port, trunk }),
            Some(TrunkRole::Parent(_)) | None => Ok(()),
        }
    }
}
