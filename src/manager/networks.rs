//! Networks and subnets.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

use crate::config::BridgeRule;
use crate::kernel::worker::Outcome;
use crate::model::action::{NetworkChange, NewNetwork, SubnetChange};
use crate::model::subnet::NewSubnet;
use crate::model::{LinkName, Network, NetworkId, SubnetId};
use crate::plan::{Kind, LinkSeen, PlanError, Reason, Want, plan};
use crate::store::{Change, Purpose};

use super::state::{SUBNET_LIMIT, State};
use super::{Claimed, Error, Manager, Reply, answered, view};

impl Manager {
    pub(super) async fn create_network(self: Arc<Self>, new: NewNetwork) -> Result<Reply, Error> {
        let bridge_mtu = match &new.bridge {
            Some(name) => Some(self.usable_bridge(name).await?),
            None => None,
        };
        let mtu = match (new.mtu, bridge_mtu) {
            (Some(mtu), Some(bridge_mtu)) if mtu > bridge_mtu => {
                let bridge = new.bridge.map_or_else(String::new, String::from);
                return Err(PlanError::MtuAboveBridge { mtu, bridge, bridge_mtu }.into());
            }
            (Some(mtu), _) => mtu,
            (None, Some(bridge_mtu)) => bridge_mtu,
            (None, None) => self.policy.mtu,
        };
        let now = Timestamp::now();
        let network = Network {
            id: new.id.unwrap_or_else(|| NetworkId(Uuid::new_v4())),
            name: new.name,
            description: new.description,
            project_id: new.project_id,
            mtu,
            bridge: new.bridge,
            physical_network: new.physical_network,
            created_at: now,
            updated_at: now,
            revision_number: 1,
        };
        let id = network.id;
        {
            let mut state = self.lock();
            if state.networks.contains_key(&id) {
                return Err(Error::IdTaken(id.0));
            }
            state.add_network(network.clone());
            claim_network(&mut state, id)?;
        }
        let stored = self.commit(vec![Change::PutNetwork(network)], Purpose::Growing).await;
        let mut state = self.lock();
        if let Err(error) = stored {
            state.networks.remove(&id);
            return Err(error.into());
        }
        release(&mut state, id);
        Ok(Reply::Network(view::network(&state, id)?))
    }

    /// The MTU of an existing bridge that the policy lets networks use.
    async fn usable_bridge(self: &Arc<Self>, name: &LinkName) -> Result<u32, Error> {
        // Whoever makes a bridge and then a network on it need not wait for the watch to have seen the bridge.
        self.look_at_everything().await?;
        let found = self.lock().have.named(name.as_str()).cloned();
        let Some(link) = found else { return Err(PlanError::NoSuchBridge(name.to_string()).into()) };
        if link.kind != Kind::Bridge {
            return Err(PlanError::NotABridge(name.to_string()).into());
        }
        self.allow_bridge(name, &link).await?;
        Ok(link.mtu)
    }

    async fn allow_bridge(&self, name: &LinkName, link: &LinkSeen) -> Result<(), Error> {
        let refuse = |why: &str| Err(Error::BridgeNotAllowed { bridge: name.to_string(), why: why.to_owned() });
        if link.marks().next().is_some() {
            return refuse("nicd made it for another network");
        }
        match self.policy.allowed_bridges.rule(name) {
            BridgeRule::Allowed => Ok(()),
            BridgeRule::Refused => refuse("links.allowed_bridges does not name it"),
            BridgeRule::UnlessUplink => {
                let carriers = answered(self.hands.default_route_links()?).await?.map_err(Error::Kernel)?;
                match carriers.contains(&link.index) {
                    true => refuse("it holds this host's default route; name it in links.allowed_bridges to allow it"),
                    false => Ok(()),
                }
            }
        }
    }

    pub(super) async fn update_network(self: Arc<Self>, id: NetworkId, change: NetworkChange) -> Result<Reply, Error> {
        self.claim(|state| claim_or_wait(state, id)).await?;
        let result = self.update_network_claimed(id, change).await;
        release(&mut self.lock(), id);
        result
    }

    async fn update_network_claimed(&self, id: NetworkId, change: NetworkChange) -> Result<Reply, Error> {
        let mut record = {
            let state = self.lock();
            let entry = state.network(id)?;
            if let Some(mtu) = change.mtu.filter(|mtu| *mtu != entry.record.mtu) {
                self.check_mtu(&state, id, mtu)?;
            }
            entry.record.clone()
        };
        record.name = change.name.unwrap_or(record.name);
        record.description = change.description.unwrap_or(record.description);
        record.mtu = change.mtu.unwrap_or(record.mtu);
        record.updated_at = Timestamp::now();
        record.revision_number += 1;
        self.commit(vec![Change::PutNetwork(record.clone())], Purpose::Growing).await?;
        let plan = {
            let mut state = self.lock();
            let Some(entry) = state.networks.get_mut(&id) else { return Err(Error::NoSuchNetwork(id)) };
            entry.record = record;
            self.plan_bridge(&state, id)
        };
        if let Some(plan) = plan {
            let outcome = answered(self.hands.submit(plan)?).await?;
            self.bridge_outcome(outcome)?;
        }
        view::network(&self.lock(), id).map(Reply::Network)
    }

    fn check_mtu(&self, state: &State, id: NetworkId, mtu: u32) -> Result<(), Error> {
        let entry = state.network(id)?;
        if entry.ports.iter().any(|port| state.ports.get(port).is_some_and(|port| port.record.binding.is_some())) {
            return Err(Error::MtuInUse { network: id });
        }
        let bridge = entry.record.bridge.as_ref().and_then(|name| state.have.named(name.as_str()));
        match bridge.filter(|bridge| mtu > bridge.mtu) {
            Some(bridge) => Err(PlanError::MtuAboveBridge { mtu, bridge: bridge.name.clone(), bridge_mtu: bridge.mtu }.into()),
            None => Ok(()),
        }
    }

    fn bridge_outcome(&self, outcome: Outcome) -> Result<(), Error> {
        match outcome {
            Outcome::Done(done) => {
                let mut state = self.lock();
                let at = done.at.unwrap_or_else(std::time::Instant::now);
                done.seen.into_iter().for_each(|link| {
                    state.seen(link, at);
                });
                Ok(())
            }
            Outcome::Failed { cause: crate::kernel::worker::Cause::Op(error), .. } => Err(Error::Kernel(error)),
            Outcome::Failed { .. } => Err(Error::Stopping),
        }
    }

    pub(super) async fn delete_network(self: Arc<Self>, id: NetworkId) -> Result<Reply, Error> {
        self.claim(|state| claim_or_wait(state, id)).await?;
        let result = self.delete_network_claimed(id).await;
        release(&mut self.lock(), id);
        result
    }

    /// The bridge goes first: a bridge without a record would be nobody's.
    async fn delete_network_claimed(&self, id: NetworkId) -> Result<Reply, Error> {
        let (plan, subnets) = {
            let state = self.lock();
            let entry = state.network(id)?;
            if !entry.ports.is_empty() {
                return Err(Error::NetworkInUse { network: id, ports: entry.ports.len() });
            }
            let want = Want { absent_bridges: vec![id], ..Want::default() };
            (plan(Reason::Change, &want, &state.have)?, entry.subnets.clone())
        };
        if !plan.steps.is_empty() {
            let outcome = answered(self.hands.submit(plan)?).await?;
            self.bridge_outcome(outcome)?;
            if let Some(index) = { self.lock().have.own_bridge(id).map(|bridge| bridge.index) } {
                self.lock().gone(index, std::time::Instant::now());
            }
        }
        let mut changes: Vec<Change> = subnets.iter().copied().map(Change::DeleteSubnet).collect();
        changes.push(Change::DeleteNetwork(id));
        {
            // A port may have come while the bridge went.
            let state = self.lock();
            let ports = state.network(id)?.ports.len();
            if ports > 0 {
                return Err(Error::NetworkInUse { network: id, ports });
            }
        }
        self.commit(changes, Purpose::Freeing).await?;
        let mut state = self.lock();
        subnets.into_iter().for_each(|subnet| state.remove_subnet(subnet));
        state.networks.remove(&id);
        Ok(Reply::Done)
    }

    pub(super) async fn create_subnet(self: Arc<Self>, new: NewSubnet) -> Result<Reply, Error> {
        let subnet = new.checked(Timestamp::now())?;
        let (id, network) = (subnet.id, subnet.network_id);
        self.claim(|state| claim_or_wait(state, network)).await?;
        let result = self.create_subnet_claimed(subnet).await;
        release(&mut self.lock(), network);
        result?;
        let state = self.lock();
        state.subnets.get(&id).map(|entry| Reply::Subnet(entry.record.clone())).ok_or(Error::NoSuchSubnet(id))
    }

    async fn create_subnet_claimed(&self, subnet: crate::model::Subnet) -> Result<(), Error> {
        {
            let state = self.lock();
            if state.subnets.contains_key(&subnet.id) {
                return Err(Error::IdTaken(subnet.id.0));
            }
            let siblings: &BTreeSet<SubnetId> = &state.network(subnet.network_id)?.subnets;
            if siblings.len() >= SUBNET_LIMIT {
                return Err(Error::TooManySubnets { network: subnet.network_id, limit: SUBNET_LIMIT });
            }
            let siblings = siblings.iter().filter_map(|id| state.subnets.get(id));
            if let Some(other) = siblings.map(|entry| &entry.record).find(|other| other.overlaps(&subnet.cidr)) {
                let (cidr, other_cidr) = (subnet.cidr.to_string(), other.cidr.to_string());
                return Err(Error::SubnetOverlap { cidr, other: other.id, other_cidr });
            }
        }
        self.commit(vec![Change::PutSubnet(subnet.clone())], Purpose::Growing).await?;
        self.lock().add_subnet(subnet);
        Ok(())
    }

    pub(super) async fn update_subnet(self: Arc<Self>, id: SubnetId, change: SubnetChange) -> Result<Reply, Error> {
        let network = self.network_of_subnet(id)?;
        self.claim(|state| claim_or_wait(state, network)).await?;
        let result = self.update_subnet_claimed(id, change).await;
        release(&mut self.lock(), network);
        result
    }

    async fn update_subnet_claimed(&self, id: SubnetId, change: SubnetChange) -> Result<Reply, Error> {
        let before = { self.lock().subnets.get(&id).map(|entry| entry.record.clone()).ok_or(Error::NoSuchSubnet(id))? };
        // Checked like a new one, so that no change leads to what could not have been made.
        let mut changed = NewSubnet {
            id,
            network_id: before.network_id,
            name: change.name.unwrap_or_else(|| before.name.clone()),
            description: change.description.unwrap_or_else(|| before.description.clone()),
            project_id: before.project_id.clone(),
            cidr: before.cidr,
            gateway: before.gateway_ip.map_or(crate::model::subnet::Gateway::None, crate::model::subnet::Gateway::At),
            allocation_pools: Some(before.allocation_pools.clone()),
            dns_nameservers: change.dns_nameservers.unwrap_or_else(|| before.dns_nameservers.clone()),
            host_routes: change.host_routes.unwrap_or_else(|| before.host_routes.clone()),
        }
        .checked(Timestamp::now())?;
        changed.created_at = before.created_at;
        changed.revision_number = before.revision_number + 1;
        self.commit(vec![Change::PutSubnet(changed.clone())], Purpose::Growing).await?;
        if let Some(entry) = self.lock().subnets.get_mut(&id) {
            entry.record = changed.clone();
        }
        Ok(Reply::Subnet(changed))
    }

    pub(super) async fn delete_subnet(self: Arc<Self>, id: SubnetId) -> Result<Reply, Error> {
        let network = self.network_of_subnet(id)?;
        self.claim(|state| claim_or_wait(state, network)).await?;
        let result = self.delete_subnet_claimed(id).await;
        release(&mut self.lock(), network);
        result
    }

    async fn delete_subnet_claimed(&self, id: SubnetId) -> Result<Reply, Error> {
        let record = {
            let mut state = self.lock();
            let entry = state.subnets.get(&id).ok_or(Error::NoSuchSubnet(id))?;
            if entry.users() > 0 {
                return Err(Error::SubnetInUse { subnet: id, ports: entry.users() });
            }
            let record = entry.record.clone();
            // Out of sight first, so that no port takes an address of it meanwhile.
            state.remove_subnet(id);
            record
        };
        if let Err(error) = self.commit(vec![Change::DeleteSubnet(id)], Purpose::Freeing).await {
            self.lock().add_subnet(record);
            return Err(error.into());
        }
        Ok(Reply::Done)
    }

    fn network_of_subnet(&self, id: SubnetId) -> Result<NetworkId, Error> {
        self.lock().subnets.get(&id).map(|entry| entry.record.network_id).ok_or(Error::NoSuchSubnet(id))
    }
}

fn claim_or_wait(state: &mut State, id: NetworkId) -> Result<Claimed<()>, Error> {
    let Some(entry) = state.networks.get_mut(&id) else { return Err(Error::NoSuchNetwork(id)) };
    Ok(match entry.claim.take() {
        Ok(()) => Claimed::Taken(()),
        Err(bell) => Claimed::Busy(bell),
    })
}

fn claim_network(state: &mut State, id: NetworkId) -> Result<(), Error> {
    match claim_or_wait(state, id)? {
        Claimed::Taken(()) => Ok(()),
        Claimed::Busy(_) => Err(Error::IdTaken(id.0)),
    }
}

fn release(state: &mut State, id: NetworkId) {
    if let Some(entry) = state.networks.get_mut(&id) {
        entry.claim.release();
    }
}
