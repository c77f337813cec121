//! What nicd built and no record wants: links of this store's that carry a mark and no record's, and links that lost their mark
//! and still have a tag of this store. An older state put back looks just so, so nothing of it goes unless a client says so.
//!
//! What a nicd with another store built is listed and removed only when a client names that store.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;
use uuid::Uuid;

use crate::inventory::leftovers::{Leftover, leftovers};
use crate::inventory::{self, Inventory};
use crate::model::{NetworkId, PortId};
use crate::plan::{AbsentPort, Kind, LinkState, Observed, Op, Plan, Reason, merge_deletions, removal};
use crate::reconcile::answered;

use super::{Error, Service};

/// Which leftovers, and what to do with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leftovers {
    /// Remove them, not only list them.
    pub remove: bool,
    /// The store of the nicd that built them; none for this one's.
    pub store: Option<Uuid>,
}

/// What is left over, and what was removed of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Collected {
    /// What is there still.
    pub leftovers: Vec<Leftover>,
    /// What a complete dump no longer shows.
    pub removed: Vec<Leftover>,
    /// What removing them would do; none when there are none, or they were to be removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
}

impl Service {
    /// Lists what is left over on a complete dump, and removes it when asked to.
    ///
    /// # Errors
    /// The kernel could not be read. What it does not let go stays listed.
    pub async fn collect(self: &Arc<Self>, what: Leftovers) -> Result<Collected, Error> {
        self.reconciler.look_at_everything().await?;
        let store = what.store.unwrap_or(self.reconciler.store_id);
        let found = leftovers(&self.reconciler.lock(), store);
        if found.is_empty() {
            return Ok(Collected::default());
        }
        if !what.remove {
            let plan = Some(removal_of(&self.reconciler.lock(), &found, store));
            return Ok(Collected { leftovers: found, removed: Vec::new(), plan });
        }
        self.remove_devices(&found, store).await;
        self.reconciler.look_at_everything().await?;
        self.remove_segments(&found, store).await;
        self.reconciler.look_at_everything().await?;
        self.remove_bridges(&found, store).await;
        self.reconciler.look_at_everything().await?;
        let left = leftovers(&self.reconciler.lock(), store);
        let removed = found.into_iter().filter(|one| !left.iter().any(|still| still.index == one.index)).collect();
        Ok(Collected { leftovers: left, removed, plan: None })
    }

    /// All at once, so that they are deleted together.
    async fn remove_devices(self: &Arc<Self>, found: &[Leftover], store: Uuid) {
        let removed = futures_util::future::join_all(absent_ports(found).map(|port| self.remove_device(port, store))).await;
        for error in removed.into_iter().filter_map(Result::err) {
            tracing::warn!(%error, "a leftover could not be removed");
        }
    }

    async fn remove_device(&self, absent: AbsentPort, store: Uuid) -> Result<(), Error> {
        let port = absent.id;
        // A port on its own keeps this id: no server gets it meanwhile.
        let claim = match self.reconciler.claim(|state| state.claim_port(port)).await {
            Ok(claim) => Some(claim),
            Err(Error::Inventory(inventory::Error::NoSuchPort(_))) => None,
            Err(error) => return Err(error),
        };
        // What has the mark of a port and another store's tag is never that port's device.
        let wanted = claim.is_some() && {
            let state = self.reconciler.lock();
            let attached = state.ports.get(&port).is_some_and(|entry| entry.record.binding.is_some());
            attached && state.have.in_place_of_device(port).is_none()
        };
        match wanted {
            true => Ok(()),
            false => match self.reconciler.kernel.delete(absent, store) {
                Ok(answer) => answered(answer).await.and_then(|deleted| deleted.map(drop).map_err(Error::Kernel)),
                Err(refused) => Err(refused.into()),
            },
        }
    }

    /// What leads networks to other hosts that are no more.
    async fn remove_segments(&self, found: &[Leftover], store: Uuid) {
        let have = observed(&self.reconciler.lock(), found, store);
        for network in found.iter().filter(|one| one.is_segments()).map(|one| NetworkId(one.id)) {
            let mut plan = removal(Reason::Gc, &[], &[network], &have);
            plan.steps.retain(|step| matches!(step.op, Op::RestoreSegmentAltname { .. } | Op::DeleteSegment { .. }));
            if let Err(error) = self.reconciler.carry_out(plan).await {
                tracing::warn!(%error, "a leftover could not be removed");
            }
        }
    }

    /// Bridges after what was in them; one that others use stays.
    async fn remove_bridges(&self, found: &[Leftover], store: Uuid) {
        let (bridges, have) = {
            let state = self.reconciler.lock();
            (unused_bridges(&state, found, &Observed::default()), observed(&state, found, store))
        };
        for bridge in bridges {
            if let Err(error) = self.reconciler.carry_out(removal(Reason::Gc, &[], &[bridge], &have)).await {
                tracing::warn!(%error, "a leftover could not be removed");
            }
        }
    }
}

/// What removing these leftovers does.
fn removal_of(state: &Inventory, found: &[Leftover], store: Uuid) -> Plan {
    let ports: Vec<AbsentPort> = absent_ports(found).collect();
    let have = observed(state, found, store);
    let vlans = found.iter().filter(|one| one.is_segments()).map(|one| NetworkId(one.id));
    let networks: Vec<NetworkId> =
        unused_bridges(state, found, &have).into_iter().chain(vlans).collect::<BTreeSet<_>>().into_iter().collect();
    merge_deletions(removal(Reason::DryRun, &ports, &networks, &have), &ports)
}

/// The leftover links as the nicd that made them sees them.
fn observed(state: &Inventory, found: &[Leftover], store: Uuid) -> Observed {
    let links = found.iter().filter_map(|one| state.have.link(one.index).cloned());
    Observed::from(links.collect::<Vec<LinkState>>()).seen_by(store)
}

/// The leftover devices as ports that are wanted gone, also while a process holds them open.
fn absent_ports(found: &[Leftover]) -> impl Iterator<Item = AbsentPort> {
    let devices = found.iter().filter(|one| one.kind != Kind::Bridge.as_str() && !one.is_segments());
    devices.map(|device| AbsentPort {
        monitor: None,
        id: PortId(device.id),
        alias: device.alias.clone().unwrap_or_default(),
        mac: None,
        seen: Some(device.index),
        force: true,
    })
}

/// The leftover bridges that nothing is in but what is removed with them.
fn unused_bridges(state: &Inventory, found: &[Leftover], removed: &Observed) -> Vec<NetworkId> {
    let bridges = found.iter().filter(|one| one.kind == Kind::Bridge.as_str());
    let unused = bridges.filter(|one| state.have.members(one.index) == removed.members(one.index));
    unused.map(|one| NetworkId(one.id)).collect()
}
