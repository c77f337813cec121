//! Addresses that guests make themselves come and go with their subnet: ports that are there get theirs when it is made, as Neutron has it
//! (`add_auto_addrs_on_network_ports`, neutron/db/ipam_pluggable_backend.py), and lose them when it is deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{StreamExt, stream};

use crate::config::ConflictProbe;
use crate::inventory::{ADDRESS_LIMIT, ClaimGuard, Inventory, PortClaims};
use crate::model::{FixedIp, Intent, Port, PortId, Subnet, SubnetId};
use crate::plan::Reason;
use crate::store::Change;

use super::apply::renewed;
use super::{Context, Service};

/// How many ports are changed without letting others have the state.
const CHUNK: usize = 64;

/// How many ports' machines are asked about at a time.
const ASKED: usize = 64;

/// A port's record before a change and after it.
#[derive(Debug)]
pub(super) struct Changed {
    before: Port,
    after: Port,
}

/// A port, and an address that it is not to get.
type Held = BTreeSet<(PortId, IpAddr)>;

impl Changed {
    /// How many addresses of a subnet the port holds only until its guest has lost them.
    pub(super) fn releasing(&self, subnet: SubnetId) -> usize {
        let releasing = self.after.binding.iter().flat_map(|binding| &binding.releasing);
        releasing.filter(|ip| ip.subnet_id == subnet).count()
    }
}

impl Service {
    /// Gives ports the addresses of new subnets that their guests make. The caller has the claims on them, and makes it durable.
    pub(super) async fn give_made(self: &Arc<Self>, subnets: &[Subnet], ports: &[PortId]) -> Vec<Changed> {
        let held = self.held_by_others(subnets, ports).await;
        let mut all = Vec::with_capacity(ports.len());
        for chunk in ports.chunks(CHUNK) {
            {
                let mut state = self.reconciler.lock();
                for port in chunk {
                    let Some(mut changed) = with_made(&state, *port, subnets, &held) else { continue };
                    self.reconciler.to_be_proven(&state, &changed.before, &mut changed.after);
                    self.have_guest_follow(&mut changed.after);
                    state.replace_port(changed.after.clone());
                    all.push(changed);
                }
            }
            tokio::task::yield_now().await;
        }
        all
    }

    /// The addresses among those to be given that another machine is known to have, or for which no probe could be sent.
    async fn held_by_others(self: &Arc<Self>, subnets: &[Subnet], ports: &[PortId]) -> Held {
        if self.reconciler.policy().conflict_probe != ConflictProbe::Refuse {
            return Held::new();
        }
        let mut asked = Vec::new();
        for chunk in ports.chunks(CHUNK) {
            {
                let state = self.reconciler.lock();
                for port in chunk {
                    let Some(mut changed) = with_made(&state, *port, subnets, &Held::new()) else { continue };
                    let addresses = self.reconciler.to_be_proven(&state, &changed.before, &mut changed.after);
                    asked.extend(addresses.into_iter().map(|address| (*port, address)));
                }
            }
            tokio::task::yield_now().await;
        }
        let held = Mutex::new(Held::new());
        let asking = stream::iter(asked).for_each_concurrent(ASKED, |(port, address)| {
            let held = &held;
            async move {
                if let Err(error) = self.reconciler.refuse_held(port, &[address]).await {
                    tracing::warn!(%port, %address, %error, "a port does not get an address that its guest makes");
                    held.lock().unwrap_or_else(PoisonError::into_inner).insert((port, address));
                }
            }
        });
        asking.await;
        held.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a subnet's addresses from ports; attached ones hold them until their guests have lost them. The caller has the claims on
    /// the ports, and makes it durable.
    pub(super) async fn take_made(&self, subnet: SubnetId, ports: &[PortId]) -> Vec<Changed> {
        let mut all = Vec::with_capacity(ports.len());
        for chunk in ports.chunks(CHUNK) {
            {
                let mut state = self.reconciler.lock();
                for port in chunk {
                    let Ok(entry) = state.port(*port) else { continue };
                    let before = entry.record.clone();
                    let mut after = renewed(&before);
                    let lost: Vec<FixedIp> = after.fixed_ips.extract_if(.., |ip| ip.subnet_id == subnet).collect();
                    match after.binding.as_mut() {
                        Some(binding) if binding.intent == Intent::Attached => binding.releasing.extend(lost),
                        Some(binding) => binding.releasing.retain(|ip| ip.subnet_id != subnet),
                        None => {}
                    }
                    self.have_guest_follow(&mut after);
                    state.replace_port(after.clone());
                    all.push(Changed { before, after });
                }
            }
            tokio::task::yield_now().await;
        }
        all
    }

    /// Has the guest's end of an attached port configured again. The device of one that leaves is still known by its tag.
    fn have_guest_follow(&self, port: &mut Port) {
        if port.attached_to().is_some() {
            self.renew_commit(port);
        }
    }

    /// Brings the devices of ports to their changed records, tells readers, and lets go of the claims: those of ports that did not change
    /// first, the others each when its port is done.
    pub(super) async fn follow_made(self: &Arc<Self>, changed: &[Changed], claims: PortClaims, context: &Context) {
        let release = |port, claim: Option<ClaimGuard>| {
            drop(claim);
            // What was seen while the claim was taken is evaluated now.
            self.reconciler.evaluate(&mut self.reconciler.lock(), port, Reason::Drift);
        };
        let ports: BTreeSet<PortId> = changed.iter().map(|changed| changed.after.id).collect();
        let (mut claims, others): (BTreeMap<PortId, ClaimGuard>, BTreeMap<_, _>) =
            claims.into_iter().partition(|(port, _)| ports.contains(port));
        others.into_iter().for_each(|(port, claim)| release(port, Some(claim)));
        for port in changed.iter().map(|changed| &changed.after) {
            self.tell_changed(port.id, context);
            if port.attached_to().is_some() {
                self.apply_change(port.id, context).await;
            }
            release(port.id, claims.remove(&port.id));
        }
    }
}

/// The changes as the store takes them.
pub(super) fn recorded(changed: &[Changed]) -> impl Iterator<Item = Change> {
    changed.iter().map(|changed| Change::PutPort(Box::new(changed.after.clone())))
}

/// Gives ports their records back that they had before a change.
pub(super) fn put_back(state: &mut Inventory, changed: Vec<Changed>) {
    changed.into_iter().for_each(|changed| state.replace_port(changed.before));
}

/// A port with the addresses that its guest makes of these subnets; none where that adds none.
fn with_made(state: &Inventory, port: PortId, subnets: &[Subnet], held: &Held) -> Option<Changed> {
    let before = state.port(port).ok().map(|entry| entry.record.clone())?;
    if before.binding.as_ref().is_some_and(|binding| binding.intent == Intent::Deleting) {
        return None;
    }
    let mut after = renewed(&before);
    for subnet in subnets.iter().filter(|subnet| subnet.network_id == before.network_id) {
        match state.made_for(&before, subnet.id) {
            Ok(None) => {}
            Ok(Some(made)) if held.contains(&(port, made.ip_address)) => {}
            Ok(Some(made)) if after.fixed_ips.len() < ADDRESS_LIMIT => after.fixed_ips.push(made),
            Ok(Some(made)) => {
                let address = made.ip_address;
                tracing::warn!(%port, %address, limit = ADDRESS_LIMIT, "a port has too many addresses for one that its guest makes");
            }
            // This host has it, for one.
            Err(error) => tracing::warn!(%port, %error, "a port does not get an address that its guest makes"),
        }
    }
    (after.fixed_ips != before.fixed_ips).then_some(Changed { before, after })
}
