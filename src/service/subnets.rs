//! Subnets.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::clock;
use crate::inventory::{ClaimGuard, Inventory, PortClaims, SUBNET_LIMIT, Unclaimed};
use crate::model::action::SubnetChange;
use crate::model::definition::{Definition, Redefinition};
use crate::model::idempotency::Made;
use crate::model::subnet::{NewSubnet, SubnetError};
use crate::model::{NetworkId, Port, PortId, Subnet, SubnetId};
use crate::plan::Reason;
use crate::store::{Change, Purpose};

use super::made::{self, Changed};
use super::networks::attached;
use super::{Context, Error, Reply, Service};

impl Service {
    pub(super) async fn create_subnets(self: Arc<Self>, new: Vec<NewSubnet>, context: &Context) -> Result<Reply, Error> {
        let now = clock::now();
        let subnets = new.into_iter().map(|one| one.checked(now)).collect::<Result<Vec<_>, _>>()?;
        self.enter_subnets(subnets, context).await
    }

    pub(super) async fn enter_subnets(self: Arc<Self>, subnets: Vec<Subnet>, context: &Context) -> Result<Reply, Error> {
        let networks: BTreeSet<NetworkId> = subnets.iter().map(|subnet| subnet.network_id).collect();
        let auto: BTreeSet<NetworkId> = subnets.iter().filter(|one| one.is_auto()).map(|one| one.network_id).collect();
        for network in &auto {
            self.reconciler.look_at_existing_bridge(*network).await?;
        }
        // All or none: an operation that has a port may wait for its network.
        let claims = self.reconciler.claim(|state| {
            let with_ports = |network: &NetworkId| {
                let claim = state.claim_network(*network)?;
                let ports = if auto.contains(network) { state.network(*network)?.ports.clone() } else { BTreeSet::new() };
                Ok((claim, state.claim_ports(ports.into_iter().collect())?))
            };
            networks.iter().map(with_ports).collect::<Result<Vec<_>, Unclaimed<Error>>>()
        });
        let (networks, ports): (Vec<ClaimGuard>, Vec<PortClaims>) = claims.await?.into_iter().unzip();
        let ports: PortClaims = ports.into_iter().flatten().collect();
        let made = self.create_subnets_claimed(&subnets, &ids(&ports), context).await;
        // A port's build may need it.
        drop(networks);
        self.follow_made(made.as_deref().unwrap_or_default(), ports, context).await;
        made.map(|_| Reply::Subnets(subnets))
    }

    /// Records subnets, with what their network's ports get of them.
    async fn create_subnets_claimed(
        self: &Arc<Self>,
        subnets: &[Subnet],
        ports: &[PortId],
        context: &Context,
    ) -> Result<Vec<Changed>, Error> {
        {
            // In their place before they are durable, so that no other network gets their ids.
            let mut state = self.reconciler.lock();
            for (n, subnet) in subnets.iter().enumerate() {
                if let Err(error) = check_subnet(&state, subnet, subnets, context) {
                    subnets[..n].iter().for_each(|made| drop(state.remove_subnet(made.id)));
                    return Err(error);
                }
                state.add_subnet(subnet.clone());
            }
        }
        let changed = self.give_made(subnets, ports).await;
        let shared = self.shared(subnets).map(Definition::Subnet).map(Redefinition::New).collect();
        let mut changes: Vec<Change> = subnets.iter().cloned().map(Change::PutSubnet).collect();
        changes.extend(made::recorded(&changed));
        changes.extend(self.note(context, subnets.iter().map(|subnet| Made::Subnet(subnet.id)).collect()));
        if let Err(error) = self.commit_shared(shared, changes, Purpose::Growing, context).await {
            let mut state = self.reconciler.lock();
            made::put_back(&mut state, changed);
            subnets.iter().for_each(|subnet| drop(state.remove_subnet(subnet.id)));
            return Err(error);
        }
        Ok(changed)
    }

    /// Those of networks that all hosts have.
    fn shared(&self, subnets: &[Subnet]) -> impl Iterator<Item = Subnet> {
        let state = self.reconciler.lock();
        let is_shared = |subnet: &&Subnet| state.network(subnet.network_id).is_ok_and(|entry| entry.record.is_shared());
        subnets.iter().filter(is_shared).cloned().collect::<Vec<_>>().into_iter()
    }

    pub(super) async fn update_subnet(
        self: Arc<Self>,
        id: SubnetId,
        change: SubnetChange,
        context: &Context,
    ) -> Result<Reply, Error> {
        self.revise_subnet(id, |before| before.changed(change, clock::now()), context).await
    }

    /// Has a subnet's record changed, and what follows from it.
    pub(super) async fn revise_subnet(
        self: Arc<Self>,
        id: SubnetId,
        revise: impl FnOnce(&Subnet) -> Result<Subnet, SubnetError>,
        context: &Context,
    ) -> Result<Reply, Error> {
        let network = self.network_of_subnet(id)?;
        let claim = self.reconciler.claim(|state| state.claim_network(network)).await?;
        let before = self.subnet(id)?;
        let reply = self.revise_subnet_claimed(id, revise, context).await?;
        // A port's build may need it.
        drop(claim);
        if self.subnet(id).is_ok_and(|after| after.enable_dhcp != before.enable_dhcp) {
            self.follow_dhcp(id, network, context).await;
        }
        Ok(reply)
    }

    /// Has the filters of a subnet's ports turn DHCP requests to the responder, or no longer.
    async fn follow_dhcp(self: &Arc<Self>, subnet: SubnetId, network: NetworkId, context: &Context) {
        let ports: Vec<PortId> = {
            let state = self.reconciler.lock();
            let Ok(entry) = state.network(network) else { return };
            let on_it = |port: &&Port| port.fixed_ips.iter().any(|ip| ip.subnet_id == subnet);
            attached(&state, entry).filter(on_it).map(|port| port.id).collect()
        };
        for port in ports {
            // One that is being worked on is evaluated at the end of that.
            let Ok(claim) = self.reconciler.claim(|state| state.claim_port::<Error>(port)).await else { continue };
            self.apply_change(port, context).await;
            drop(claim);
            self.reconciler.evaluate(&mut self.reconciler.lock(), port, Reason::Drift);
        }
    }

    async fn revise_subnet_claimed(
        &self,
        id: SubnetId,
        revise: impl FnOnce(&Subnet) -> Result<Subnet, SubnetError>,
        context: &Context,
    ) -> Result<Reply, Error> {
        let (before, after) = {
            let mut state = self.reconciler.lock();
            let before = state.subnet(id)?.record.clone();
            context.expects(before.revision_number)?;
            let after = revise(&before)?;
            state.check_gateway(&before, &after)?;
            // In its place before it is durable, so that no port takes its new gateway's address meanwhile.
            state.replace_subnet(after.clone());
            (before, after)
        };
        if after != before {
            let shared = self.shared(std::slice::from_ref(&after)).map(Definition::Subnet).map(Redefinition::Changed).collect();
            let changes = vec![Change::PutSubnet(after.clone())];
            if let Err(error) = self.commit_shared(shared, changes, Purpose::Growing, context).await {
                self.reconciler.lock().replace_subnet(before);
                return Err(error);
            }
        }
        Ok(Reply::Subnet(after))
    }

    pub(super) async fn delete_subnet(self: Arc<Self>, id: SubnetId, context: &Context) -> Result<Reply, Error> {
        let network = self.network_of_subnet(id)?;
        let (claim, ports) = self
            .reconciler
            .claim(|state| {
                let claim = state.claim_network(network)?;
                let users = if state.subnet(id)?.record.is_auto() { state.users_of(id) } else { Vec::new() };
                Ok((claim, state.claim_ports(users)?))
            })
            .await?;
        let taken = self.delete_subnet_claimed(id, &ids(&ports), context).await;
        // A port's build may need it.
        drop(claim);
        self.follow_made(taken.as_deref().unwrap_or_default(), ports, context).await;
        taken.map(|_| Reply::Done)
    }

    /// Removes a subnet, with what guests have made of it.
    async fn delete_subnet_claimed(&self, id: SubnetId, ports: &[PortId], context: &Context) -> Result<Vec<Changed>, Error> {
        {
            let state = self.reconciler.lock();
            let entry = state.subnet(id)?;
            context.expects(entry.record.revision_number)?;
            // What a guest makes goes with the subnet; what it was given, as a router its gateway's address, does not.
            let made = ports.iter().filter(|port| state.has_made_all(**port, &entry.record)).count();
            if entry.users() > made {
                return Err(Error::SubnetInUse { subnet: id, ports: entry.users() - made });
            }
        }
        let changed = self.take_made(id, ports).await;
        let removed = {
            let mut state = self.reconciler.lock();
            let releasing: usize = changed.iter().map(|changed| changed.releasing(id)).sum();
            let users = state.subnet(id)?.users().saturating_sub(releasing);
            if users > 0 {
                made::put_back(&mut state, changed);
                return Err(Error::SubnetInUse { subnet: id, ports: users });
            }
            // Out of sight first, so that no port takes an address of it meanwhile.
            state.remove_subnet(id)
        };
        let changes = made::recorded(&changed).chain([Change::DeleteSubnet(id)]).collect();
        let record = removed.as_ref().map(|entry| entry.record.clone());
        let shared = self.shared(record.as_slice()).map(|subnet| Redefinition::Gone(Definition::Subnet(subnet).name())).collect();
        if let Err(error) = self.commit_shared(shared, changes, Purpose::Freeing, context).await {
            let mut state = self.reconciler.lock();
            removed.into_iter().for_each(|entry| state.restore_subnet(entry));
            made::put_back(&mut state, changed);
            return Err(error);
        }
        Ok(changed)
    }

    fn network_of_subnet(&self, id: SubnetId) -> Result<NetworkId, Error> {
        Ok(self.reconciler.lock().subnet(id)?.record.network_id)
    }
}

/// Refuses a subnet that does not fit beside those there are, and those that are made with it.
fn check_subnet(state: &Inventory, subnet: &Subnet, beside: &[Subnet], context: &Context) -> Result<(), Error> {
    if state.subnets.contains_key(&subnet.id) {
        return Err(Error::IdTaken(subnet.id.0));
    }
    if context.follows {
        // What all hosts have is on this one too. It may overlap another one that stays only for the ports that use it.
        return Ok(state.network(subnet.network_id).map(drop)?);
    }
    let there = state.network(subnet.network_id)?.subnets.iter().filter_map(|id| state.subnets.get(id));
    let siblings: Vec<&Subnet> = there.map(|entry| &entry.record).collect();
    if siblings.len() >= SUBNET_LIMIT {
        return Err(Error::TooManySubnets { network: subnet.network_id, limit: SUBNET_LIMIT });
    }
    match siblings.into_iter().find(|other| other.overlaps(&subnet.cidr)) {
        Some(other) => {
            let (cidr, other_cidr) = (subnet.cidr.to_string(), other.cidr.to_string());
            Err(Error::SubnetOverlap { cidr, other: other.id, other_cidr })
        }
        None => Ok(state.check_next_hops(subnet, beside)?),
    }
}

fn ids(claims: &PortClaims) -> Vec<PortId> {
    claims.iter().map(|(port, _)| *port).collect()
}
