//! Trunks: ports whose NIC carries further ports' frames.

use std::collections::BTreeSet;
use std::sync::Arc;

use uuid::Uuid;

use crate::clock;
use crate::inventory::{Inventory, PortClaims, TrunkRole, Unclaimed};
use crate::model::action::AfterDetach;
use crate::model::idempotency::Made;
use crate::model::trunk::{NewSubPort, NewTrunk, SUBPORT_OWNER, SubPortSegment, TrunkChange};
use crate::model::{Carrier, Origin, PhaseEvent, Port, PortId, SubPort, Trunk, TrunkId};
use crate::plan::Reason;
use crate::store::{Change, Purpose};

use super::apply::renewed;
use super::detach::{check_active, departing};
use super::sub_ports::settled;
use super::{Context, Error, Reply, Service, view};

/// A trunk as it is to be recorded, with what changes of its ports.
struct Changed {
    trunk: Trunk,
    ports: Vec<Port>,
}

impl Service {
    pub(super) async fn create_trunks(self: Arc<Self>, new: Vec<NewTrunk>, context: &Context) -> Result<Reply, Error> {
        let (made, claims) = self
            .reconciler
            .claim(|state| {
                let (mut taken, mut made, mut claims) = (BTreeSet::new(), Vec::new(), PortClaims::new());
                for one in &new {
                    let ports = self.free_for_trunk(state, one, &mut taken)?;
                    settled(state, ports.iter().copied())?;
                    claims.extend(state.claim_ports::<Error>(ports)?);
                    made.push(self.new_trunk(state, one)?);
                }
                Ok((made, claims))
            })
            .await?;
        let ids: Vec<TrunkId> = made.iter().map(|changed| changed.trunk.id).collect();
        let mut changes: Vec<Change> = made.iter().flat_map(Changed::recorded).collect();
        changes.extend(self.note(context, ids.iter().copied().map(Made::Trunk).collect()));
        self.reconciler.commit(changes, Purpose::Growing).await?;
        for changed in made {
            self.take_in(changed, context).await;
        }
        self.release(claims);
        let state = self.reconciler.lock();
        ids.into_iter().map(|id| view::trunk(&state, id)).collect::<Result<_, _>>().map(Reply::Trunks)
    }

    pub(super) async fn update_trunk(
        self: Arc<Self>,
        id: TrunkId,
        change: TrunkChange,
        context: &Context,
    ) -> Result<Reply, Error> {
        let (parent, sub_ports) = self
            .reconciler
            .claim(|state| {
                let parent = state.trunk(id)?.port_id;
                state.claim_with_sub_ports(parent)
            })
            .await?;
        let (before, mut after) = {
            let state = self.reconciler.lock();
            let trunk = state.trunk(id)?;
            context.expects(trunk.revision_number)?;
            (trunk.clone(), trunk.clone())
        };
        after.name = change.name.unwrap_or(after.name);
        after.description = change.description.unwrap_or(after.description);
        after.admin_up = change.admin_up.unwrap_or(after.admin_up);
        if after != before {
            after = renewed_trunk(after);
            self.reconciler.commit(vec![Change::PutTrunk(Box::new(after.clone()))], Purpose::Growing).await?;
            self.reconciler.lock().put_trunk(after.clone());
        }
        if after.admin_up != before.admin_up {
            let carried = self.reconciler.lock().carried(after.port_id);
            self.build_sub_ports(&carried, context).await;
        }
        drop(parent);
        self.release(sub_ports);
        view::trunk(&self.reconciler.lock(), id).map(Reply::Trunk)
    }

    pub(super) async fn delete_trunk(self: Arc<Self>, id: TrunkId, context: &Context) -> Result<Reply, Error> {
        let _claims = self
            .reconciler
            .claim(|state| {
                let trunk = state.trunk(id)?;
                enabled(trunk)?;
                state.claim_with_sub_ports(trunk.port_id)
            })
            .await?;
        let trunk = self.reconciler.lock().trunk(id)?.clone();
        context.expects(trunk.revision_number)?;
        let ports: Vec<PortId> = trunk.sub_ports.iter().map(|sub| sub.port_id).collect();
        self.let_go(&ports, Change::DeleteTrunk(id), context).await?;
        self.reconciler.lock().remove_trunk(id);
        self.follow_role(trunk.port_id, context).await;
        Ok(Reply::Done)
    }

    pub(super) async fn add_sub_ports(
        self: Arc<Self>,
        id: TrunkId,
        new: &[NewSubPort],
        context: &Context,
    ) -> Result<Reply, Error> {
        let (changed, claims) = self
            .reconciler
            .claim(|state| {
                let trunk = state.trunk(id)?;
                let ports = self.free_as_sub_ports(state, trunk.port_id, new, &mut BTreeSet::new())?;
                enabled(trunk)?;
                settled(state, ports.iter().copied())?;
                let claims = state.claim_ports::<Error>([trunk.port_id].into_iter().chain(ports).collect())?;
                context.expects(trunk.revision_number)?;
                Ok((self.with_sub_ports(state, renewed_trunk(trunk.clone()), new)?, claims))
            })
            .await?;
        self.reconciler.commit(changed.recorded().collect(), Purpose::Growing).await?;
        self.take_in(changed, context).await;
        self.release(claims);
        view::trunk(&self.reconciler.lock(), id).map(Reply::Trunk)
    }

    pub(super) async fn remove_sub_ports(
        self: Arc<Self>,
        id: TrunkId,
        ports: &[PortId],
        context: &Context,
    ) -> Result<Reply, Error> {
        let (mut trunk, claims) = self
            .reconciler
            .claim(|state| {
                let trunk = state.trunk(id)?;
                enabled(trunk)?;
                if let Some(port) = ports.iter().find(|port| trunk.sub_port(**port).is_none()) {
                    return Err(Error::NoSuchSubPort { trunk: id, port: *port }.into());
                }
                context.expects(trunk.revision_number)?;
                let claims = state.claim_ports::<Error>([trunk.port_id].into_iter().chain(ports.iter().copied()).collect())?;
                Ok((renewed_trunk(trunk.clone()), claims))
            })
            .await?;
        trunk.sub_ports.retain(|sub| !ports.contains(&sub.port_id));
        self.let_go(ports, Change::PutTrunk(Box::new(trunk.clone())), context).await?;
        self.reconciler.lock().put_trunk(trunk);
        self.release(claims);
        view::trunk(&self.reconciler.lock(), id).map(Reply::Trunk)
    }

    /// The ports of a new trunk, if they can be in one; `taken` are those that the request has given to others.
    fn free_for_trunk(
        &self,
        state: &Inventory,
        new: &NewTrunk,
        taken: &mut BTreeSet<PortId>,
    ) -> Result<Vec<PortId>, Unclaimed<Error>> {
        let parent = new.port_id;
        check_active(state, parent)?;
        if new.id.is_some_and(|id| state.trunks.contains_key(&id)) {
            return Err(Error::IdTaken(new.id.unwrap_or(TrunkId(parent.0)).0).into());
        }
        in_no_trunk(state, parent)?;
        if !taken.insert(parent) {
            return Err(Error::ParentPortInUse { port: parent }.into());
        }
        let sub_ports = self.free_as_sub_ports(state, parent, &new.sub_ports, taken)?;
        Ok([parent].into_iter().chain(sub_ports).collect())
    }

    /// The ports of new subports, if they can be subports on this parent.
    fn free_as_sub_ports(
        &self,
        state: &Inventory,
        parent: PortId,
        new: &[NewSubPort],
        taken: &mut BTreeSet<PortId>,
    ) -> Result<Vec<PortId>, Error> {
        let mtu = |port: PortId| Ok::<_, Error>(state.network(state.port(port)?.record.network_id)?.record.mtu);
        let parent_mtu = mtu(parent)?;
        for NewSubPort { port_id: port, .. } in new {
            let (port, mtu) = (*port, mtu(*port)?);
            if port == parent {
                return Err(Error::ParentPortInUse { port });
            }
            if mtu > parent_mtu {
                return Err(Error::SubPortMtu { port, mtu, parent, parent_mtu });
            }
            in_no_trunk(state, port)?;
            // One that is being detached is waited for.
            if state.port(port)?.record.attached_to().is_some() {
                return Err(Error::PortInUse(port));
            }
            if !taken.insert(port) {
                return Err(Error::TrunkPortInUse { port, trunk: None });
            }
        }
        Ok(new.iter().map(|sub| sub.port_id).collect())
    }

    fn new_trunk(&self, state: &Inventory, new: &NewTrunk) -> Result<Changed, Error> {
        let now = clock::now();
        let trunk = Trunk {
            id: new.id.unwrap_or_else(|| TrunkId(Uuid::new_v4())),
            name: new.name.clone(),
            description: new.description.clone(),
            project_id: new.project_id.clone(),
            port_id: new.port_id,
            admin_up: new.admin_up,
            sub_ports: Vec::new(),
            created_at: now,
            updated_at: now,
            revision_number: 1,
        };
        let parent = &state.port(new.port_id)?.record;
        // A trunk's port is the client's, also where an attach made it: it stays when it is detached.
        let kept = (parent.origin == Origin::Attach).then(|| Port { origin: Origin::Client, ..parent.clone() });
        let Changed { trunk, mut ports } = self.with_sub_ports(state, trunk, &new.sub_ports)?;
        ports.splice(..0, kept);
        Ok(Changed { trunk, ports })
    }

    /// A trunk with further subports, which are bound where its parent is.
    fn with_sub_ports(&self, state: &Inventory, mut trunk: Trunk, new: &[NewSubPort]) -> Result<Changed, Error> {
        let server = state.port(trunk.port_id)?.record.attached_to();
        let mut ports = Vec::with_capacity(new.len());
        for sub in new {
            let record = &state.port(sub.port_id)?.record;
            let vlan = match sub.segment {
                SubPortSegment::Vlan(vlan) => vlan,
                SubPortSegment::Inherit => {
                    let network = &state.network(record.network_id)?.record;
                    network.vlan().ok_or(Error::NoVlanToInherit { port: sub.port_id, network: network.id })?
                }
            };
            if let Some(other) = trunk.sub_ports.iter().find(|other| other.vlan == vlan) {
                return Err(Error::DuplicateSubPort { vlan, trunk: trunk.id, port: other.port_id });
            }
            trunk.sub_ports.push(SubPort { port_id: sub.port_id, vlan });
            let carrier = Carrier { port: trunk.port_id, vlan };
            let binding = server.map(|server| self.carried_binding(server, carrier));
            let device_owner = SUBPORT_OWNER.to_owned();
            ports.push(Port { device_owner, origin: Origin::Client, binding, ..renewed(record) });
        }
        Ok(Changed { trunk, ports })
    }

    /// Takes in a trunk that is durable, and builds the devices of the subports that were bound. The caller has the claims on its ports.
    async fn take_in(self: &Arc<Self>, changed: Changed, context: &Context) {
        let Changed { trunk, ports } = changed;
        let parent = trunk.port_id;
        let bound: Vec<PortId> = ports.iter().filter(|port| port.carrier().is_some()).map(|port| port.id).collect();
        {
            let mut state = self.reconciler.lock();
            state.put_trunk(trunk);
            for record in ports {
                let (port, binds) = (record.id, record.carrier().is_some());
                state.replace_port(record);
                if binds {
                    self.reconciler.transition(&mut state, port, PhaseEvent::Bind, None, context);
                }
            }
        }
        self.follow_role(parent, context).await;
        self.build_sub_ports(&bound, context).await;
    }

    /// Brings the device of a port that has become a trunk's parent, or is one no more, to that.
    async fn follow_role(self: &Arc<Self>, port: PortId, context: &Context) {
        let is_attached = self.reconciler.lock().port(port).is_ok_and(|entry| entry.record.attached_to().is_some());
        if is_attached {
            self.apply_change(port, context).await;
        }
    }

    /// Takes ports from their trunk, in one commit with what becomes of that, and has their devices deleted. The caller has the claims
    /// on them.
    async fn let_go(self: &Arc<Self>, ports: &[PortId], trunk: Change, context: &Context) -> Result<(), Error> {
        let (mut leaving, mut free) = (Vec::new(), Vec::new());
        for port in ports {
            let state = self.reconciler.lock();
            let record = &state.port(*port)?.record;
            let owner = record.device_owner.as_str();
            let device_owner = if owner == SUBPORT_OWNER { String::new() } else { owner.to_owned() };
            let after = Port { device_owner, ..renewed(record) };
            match record.attached_to() {
                Some(_) => leaving.push(departing(&after, AfterDetach::Keep, false)),
                None => free.push(after),
            }
        }
        let freed = free.iter().cloned().map(|port| Change::PutPort(Box::new(port)));
        let changes: Vec<Change> = std::iter::once(trunk).chain(freed).collect();
        if leaving.is_empty() {
            self.reconciler.commit(changes, Purpose::Freeing).await?;
        } else {
            self.begin_detach(leaving, changes, context).await?;
        }
        let mut state = self.reconciler.lock();
        free.into_iter().for_each(|port| state.replace_port(port));
        Ok(())
    }

    /// Lets go of claims; what was seen meanwhile is evaluated now.
    fn release(&self, claims: PortClaims) {
        let ports: Vec<PortId> = claims.iter().map(|(port, _)| *port).collect();
        drop(claims);
        let mut state = self.reconciler.lock();
        for port in ports {
            self.reconciler.evaluate(&mut state, port, Reason::Drift);
        }
    }
}

impl Changed {
    fn recorded(&self) -> impl Iterator<Item = Change> {
        let ports = self.ports.iter().cloned().map(|port| Change::PutPort(Box::new(port)));
        std::iter::once(Change::PutTrunk(Box::new(self.trunk.clone()))).chain(ports)
    }
}

/// Refuses a port that is in a trunk.
fn in_no_trunk(state: &Inventory, port: PortId) -> Result<(), Error> {
    state.port(port)?;
    match state.trunk_role(port) {
        Some(TrunkRole::Parent(_)) => Err(Error::ParentPortInUse { port }),
        Some(TrunkRole::SubPort(trunk)) => Err(Error::TrunkPortInUse { port, trunk: Some(trunk) }),
        None => Ok(()),
    }
}

/// Refuses a change of a trunk that is down, as Neutron does.
fn enabled(trunk: &Trunk) -> Result<(), Error> {
    if trunk.admin_up { Ok(()) } else { Err(Error::TrunkDisabled(trunk.id)) }
}

/// The record of a trunk that is being changed.
fn renewed_trunk(before: Trunk) -> Trunk {
    Trunk { updated_at: clock::now(), revision_number: before.revision_number + 1, ..before }
}
