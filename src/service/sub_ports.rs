//! The subports that a port's NIC carries are bound, built and let go with that port.

use std::sync::Arc;

use crate::config::ConflictProbe;
use crate::inventory::{Busy, Inventory};
use crate::model::port::Binding;
use crate::model::{Carrier, Intent, PhaseEvent, Port, PortId, ServerId};
use crate::store::Change;

use super::apply::renewed;
use super::{Context, Service};

impl Service {
    /// The binding of a subport whose frames the NIC of a server's port carries.
    pub(super) fn carried_binding(&self, server_id: ServerId, carrier: Carrier) -> Binding {
        Binding {
            server_id,
            ordinal: 0,
            intent: Intent::Attached,
            commit: self.reconciler.store.next_commit(),
            guest_device: None,
            releasing: Vec::new(),
            unproven: self.reconciler.policy().conflict_probe == ConflictProbe::Refuse,
            tap: None,
            forced: false,
            tag: None,
            carrier: Some(carrier),
        }
    }

    /// Binds the subports of a port that is given to a server; they as they were. The caller has the claims on them, and makes it
    /// durable.
    pub(super) fn bind_sub_ports(&self, state: &mut Inventory, server: ServerId, parent: PortId, context: &Context) -> Vec<Port> {
        let mut before = Vec::new();
        for sub in state.sub_ports(parent).to_vec() {
            let Ok(entry) = state.port(sub.port_id) else { continue };
            let record = entry.record.clone();
            let binding = Some(self.carried_binding(server, Carrier { port: parent, vlan: sub.vlan }));
            state.replace_port(Port { binding, ..renewed(&record) });
            self.reconciler.transition(state, sub.port_id, PhaseEvent::Bind, None, context);
            before.push(record);
        }
        before
    }

    /// The records of subports that were bound, to be made durable.
    pub(super) fn bound_records(&self, sub_ports: &[Port]) -> Vec<Change> {
        let state = self.reconciler.lock();
        let entries = sub_ports.iter().filter_map(|port| state.ports.get(&port.id));
        entries.map(|entry| Change::PutPort(Box::new(entry.record.clone()))).collect()
    }

    /// Takes back that subports were bound of which nothing was built.
    pub(super) fn unbind_sub_ports(&self, state: &mut Inventory, before: Vec<Port>, context: &Context) {
        for record in before {
            let port = record.id;
            state.replace_port(record);
            self.reconciler.transition(state, port, PhaseEvent::Undone, None, context);
        }
    }

    /// Builds the devices of subports, one after the other. What the kernel refuses now is tried again.
    pub(super) async fn build_sub_ports(self: &Arc<Self>, sub_ports: &[PortId], context: &Context) {
        for port in sub_ports {
            self.apply_change(*port, context).await;
        }
    }
}

/// Waits for ports that are being detached.
pub(super) fn settled(state: &Inventory, ports: impl Iterator<Item = PortId>) -> Result<(), Busy> {
    for entry in ports.filter_map(|port| state.ports.get(&port)) {
        // Listened for first: it may end between the look and the wait.
        let ended = entry.claim.ended();
        if entry.record.leaving() {
            return Err(Busy(ended));
        }
    }
    Ok(())
}
