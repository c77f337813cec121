//! Networks.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use uuid::Uuid;

use crate::clock;
use crate::config::BridgeRule;
use crate::inventory::uplinks::SegmentError;
use crate::inventory::{self, ClaimGuard, Inventory, NetworkEntry, PortClaims};
use crate::model::action::{NetworkChange, NewNetwork};
use crate::model::definition::{Definition, DefinitionName, Redefinition};
use crate::model::idempotency::Made;
use crate::model::names::SegmentKind;
use crate::model::network::{MAX_MTU, MIN_MTU};
use crate::model::{LinkName, Network, NetworkId, Port, PortId, Scope};
use crate::plan::diff::Segment;
use crate::plan::{Desired, Kind, LinkState, Op, PlanError, Reason, Step, plan};
use crate::reconcile::answered;
use crate::store::{Change, Purpose};
use crate::uplink::carried;

use super::segments::Place;
use super::{Context, Error, Reply, Service, view};

/// How far a change of a network goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// It ends at its record.
    Alone,
    /// Its ports' devices follow.
    WithPorts,
}

impl Service {
    pub(super) async fn create_networks(self: Arc<Self>, new: Vec<NewNetwork>, context: &Context) -> Result<Reply, Error> {
        // A client that makes a bridge and then a network on it need not wait until the watch has seen the bridge.
        if new.iter().any(|one| one.bridge.is_some()) {
            self.reconciler.look_at_everything().await?;
        }
        let (mut records, mut bridges) = (Vec::with_capacity(new.len()), HashMap::new());
        for one in new {
            if let Some(name) = one.bridge.as_ref().filter(|name| !bridges.contains_key(name.as_str())) {
                bridges.insert(name.to_string(), self.usable_bridge(name).await?);
            }
            let named = one.bridge.clone().and_then(|name| Some(Place::Bridge(name.clone(), *bridges.get(name.as_str())?)));
            let place = named.or(self.place_of(&one).await?);
            records.push(self.network_record(one, place)?);
        }
        self.enter_networks(records, context).await
    }

    /// Makes networks of records without zones and, where they may have any, without segments.
    pub(super) async fn enter_networks(&self, mut records: Vec<Network>, context: &Context) -> Result<Reply, Error> {
        let ids: Vec<NetworkId> = records.iter().map(|network| network.id).collect();
        let claims = {
            let mut state = self.reconciler.lock();
            let mut seen = BTreeSet::new();
            if let Some(taken) = ids
                .iter()
                .find(|id| state.networks.contains_key(id) || state.ports.contains_key(&PortId(id.0)) || !seen.insert(**id))
            {
                return Err(Error::IdTaken(taken.0));
            }
            let policy = self.reconciler.policy();
            for place in 0..records.len() {
                let given = state.give_segment(&mut records[place], &policy.vlans, &policy.vnis).map_err(Error::from);
                if let Err(error) = given.and_then(|()| Ok(state.give_zone(&mut records[place])?)) {
                    ids[..place].iter().for_each(|id| state.remove_network(*id));
                    return Err(error);
                }
                state.add_network(records[place].clone());
            }
            // No other operation knows them yet.
            ids.iter().filter_map(|id| state.networks.get(id)?.claim.take().ok()).collect::<Vec<ClaimGuard>>()
        };
        let new = records.iter().filter(|network| network.is_shared()).cloned();
        let shared = new.map(|network| Redefinition::New(Definition::Network(network))).collect();
        let mut changes: Vec<Change> = records.into_iter().map(Change::PutNetwork).collect();
        changes.extend(self.note(context, ids.iter().copied().map(Made::Network).collect()));
        let stored = self.commit_shared(shared, changes, Purpose::Growing, context).await;
        let mut state = self.reconciler.lock();
        if let Err(error) = stored {
            ids.iter().for_each(|id| {
                state.remove_network(*id);
            });
            return Err(error);
        }
        drop(claims);
        let views = ids.into_iter().map(|id| view::network(&state, id));
        views.collect::<Result<_, _>>().map(Reply::Networks)
    }

    /// The record of a new network in this place, or with a bridge of its own that leads nowhere.
    fn network_record(&self, new: NewNetwork, place: Option<Place>) -> Result<Network, Error> {
        let scope = match new.scope {
            Some(Scope::Fleet) if !self.reconciler.policy().in_fleet => return Err(SegmentError::NoFleet.into()),
            Some(scope) => scope,
            None if self.reconciler.policy().in_fleet => Scope::Fleet,
            None => Scope::Host,
        };
        let mtu = match (new.mtu, &place) {
            (Some(mtu), Some(Place::Bridge(bridge, bridge_mtu))) if mtu > *bridge_mtu => {
                return Err(PlanError::MtuAboveBridge { mtu, bridge: bridge.to_string(), bridge_mtu: *bridge_mtu }.into());
            }
            (Some(mtu), Some(Place::Uplink(device, most))) if mtu > *most => {
                return Err(Error::MtuAboveUplink { mtu, device: device.to_string(), most: *most });
            }
            (Some(mtu), _) => mtu,
            (None, Some(Place::Bridge(_, mtu))) => *mtu,
            (None, Some(Place::Uplink(_, most))) => (*most).clamp(MIN_MTU, MAX_MTU),
            (None, None) => self.reconciler.policy().mtu,
        };
        let bridge = match place {
            Some(Place::Bridge(bridge, _)) => Some(bridge),
            _ => None,
        };
        let now = clock::now();
        Ok(Network {
            id: new.id.unwrap_or_else(|| NetworkId(Uuid::new_v4())),
            name: new.name,
            description: new.description,
            project_id: new.project_id,
            mtu,
            bridge,
            kind: new.kind,
            physical_network: new.physical_network,
            segmentation_id: new.segmentation_id,
            // It is given one among the others.
            zone: 0,
            port_security: new.port_security,
            isolated: new.isolated,
            scope,
            created_at: now,
            updated_at: now,
            revision_number: 1,
        })
    }

    /// The MTU of an existing bridge that the policy lets networks use.
    async fn usable_bridge(self: &Arc<Self>, name: &LinkName) -> Result<u32, Error> {
        let found = self.reconciler.lock().have.named(name.as_str()).cloned();
        let Some(link) = found else { return Err(PlanError::NoSuchBridge(name.to_string()).into()) };
        if link.kind != Kind::Bridge {
            return Err(PlanError::NotABridge(name.to_string()).into());
        }
        self.allow_bridge(name, &link).await?;
        Ok(link.mtu)
    }

    async fn allow_bridge(&self, name: &LinkName, link: &LinkState) -> Result<(), Error> {
        let refuse = |why: &str| Err(Error::BridgeNotAllowed { bridge: name.to_string(), why: why.to_owned() });
        if link.made_by_nicd() {
            return refuse("nicd made it for another network");
        }
        match self.reconciler.policy().allowed_bridges.rule(name) {
            BridgeRule::Allowed => Ok(()),
            BridgeRule::Refused => refuse("links.allowed_bridges does not name it"),
            BridgeRule::UnlessUplink => {
                let routes = answered(self.reconciler.kernel.broad_routes()?).await?.map_err(Error::Kernel)?;
                match carried(&routes, link.index, &self.reconciler.lock().have) {
                    Some(carried) => refuse(&format!("{carried}; name it in links.allowed_bridges to allow it")),
                    None => Ok(()),
                }
            }
        }
    }

    pub(super) async fn update_network(
        self: Arc<Self>,
        id: NetworkId,
        change: NetworkChange,
        context: &Context,
    ) -> Result<Reply, Error> {
        let reach = if change.mtu.is_some() || change.isolated.is_some() { Reach::WithPorts } else { Reach::Alone };
        let revise = |before: &Network| Network {
            name: change.name.unwrap_or_else(|| before.name.clone()),
            description: change.description.unwrap_or_else(|| before.description.clone()),
            mtu: change.mtu.unwrap_or(before.mtu),
            port_security: change.port_security.unwrap_or(before.port_security),
            isolated: change.isolated.unwrap_or(before.isolated),
            ..before.clone()
        };
        self.revise_network(id, reach, revise, context).await
    }

    /// Has a network's record changed, and what follows from it.
    pub(super) async fn revise_network(
        self: Arc<Self>,
        id: NetworkId,
        reach: Reach,
        revise: impl FnOnce(&Network) -> Network,
        context: &Context,
    ) -> Result<Reply, Error> {
        let (network, ports) = self.claim_reach(id, reach).await?;
        let result = self.revise_network_claimed(id, revise, context).await;
        // A port's build may need it.
        drop(network);
        if let Ok(followers) = &result {
            for port in followers {
                self.apply_change(*port, context).await;
            }
        }
        for (port, claim) in ports {
            drop(claim);
            // What was seen while the claim was taken is evaluated now.
            self.reconciler.evaluate(&mut self.reconciler.lock(), port, Reason::Drift);
        }
        result?;
        view::network(&self.reconciler.lock(), id).map(Reply::Network)
    }

    /// Claims a network and, when its ports are to follow, every bound port of it: all at once, or none and a wait for
    /// one that another operation has. An operation that has a port may wait for the network, or for another port.
    async fn claim_reach(&self, id: NetworkId, reach: Reach) -> Result<(ClaimGuard, PortClaims), Error> {
        self.reconciler
            .claim(|state| {
                let network = state.claim_network(id)?;
                let ports = if reach == Reach::WithPorts { bound_ports(state, id) } else { Vec::new() };
                Ok((network, state.claim_ports(ports)?))
            })
            .await
    }

    /// Records the change and brings the bridge to it; answers with the ports whose devices are then to follow.
    async fn revise_network_claimed(
        &self,
        id: NetworkId,
        revise: impl FnOnce(&Network) -> Network,
        context: &Context,
    ) -> Result<Vec<PortId>, Error> {
        let (record, ports, followers) = {
            let state = self.reconciler.lock();
            let entry = state.network(id)?;
            context.expects(entry.record.revision_number)?;
            let mut record = revise(&entry.record);
            if record == entry.record {
                return Ok(Vec::new());
            }
            let ports = if record.mtu == entry.record.mtu { Vec::new() } else { self.resized(&state, &record)? };
            let isolates =
                record.isolated && !entry.record.isolated && attached(&state, entry).any(|port| port.isolated.is_none());
            if isolates && let Some(said) = self.reconciler.filters_refused() {
                return Err(Error::FiltersUnavailable(said));
            }
            let followers = attached(&state, entry)
                .filter(|port| {
                    record.mtu != entry.record.mtu || port.isolated.is_none() && record.isolated != entry.record.isolated
                })
                .map(|port| port.id)
                .collect();
            if !context.follows {
                record.updated_at = clock::now();
                record.revision_number += 1;
            }
            (record, ports, followers)
        };
        let mut changes = vec![Change::PutNetwork(record.clone())];
        changes.extend(ports.iter().cloned().map(|port| Change::PutPort(Box::new(port))));
        let shared = record.is_shared().then(|| Redefinition::Changed(Definition::Network(record.clone())));
        self.commit_shared(shared.into_iter().collect(), changes, Purpose::Growing, context).await?;
        let plan = {
            let mut state = self.reconciler.lock();
            let Some(entry) = state.networks.get_mut(&id) else { return Err(inventory::Error::NoSuchNetwork(id).into()) };
            entry.record = record;
            for port in &ports {
                if let (Some(entry), Some(new)) = (state.ports.get_mut(&port.id), &port.binding)
                    && let Some(binding) = entry.record.binding.as_mut()
                {
                    binding.commit = new.commit;
                }
            }
            self.reconciler.plan_bridge(&state, id)
        };
        if let Some(plan) = plan {
            // The change is durable: what the bridge refuses now is mended later, as drift.
            if let Err(error) = self.reconciler.carry_out_on_bridge(plan).await {
                tracing::warn!(network = %id, %error, "a bridge does not follow its network yet");
            }
        }
        Ok(followers)
    }

    /// The attached ports of a network whose MTU changes, as they are to be recorded.
    fn resized(&self, state: &Inventory, network: &Network) -> Result<Vec<Port>, Error> {
        let bridge = network.bridge.as_ref().and_then(|name| state.have.named(name.as_str()));
        let most = |bridge: &LinkState| state.have.bridge_mtu(bridge, network.mtu);
        if let Some(bridge) = bridge.filter(|bridge| network.mtu > most(bridge)) {
            let (mtu, bridge_mtu) = (network.mtu, most(bridge));
            return Err(PlanError::MtuAboveBridge { mtu, bridge: bridge.name.clone(), bridge_mtu }.into());
        }
        let way = state.desired_bridge(network);
        if let Some(most) = Segment::find(&way, &state.have).and_then(|way| way.most_mtu()).filter(|most| network.mtu > *most) {
            let device = network.physical_network.clone().unwrap_or_else(|| "of the tunnels".to_owned());
            return Err(Error::MtuAboveUplink { mtu: network.mtu, device, most });
        }
        Ok(attached(state, state.network(network.id)?)
            .map(|port| {
                let mut port = port.clone();
                self.renew_commit(&mut port);
                port
            })
            .collect())
    }

    pub(super) async fn delete_network(self: Arc<Self>, id: NetworkId, context: &Context) -> Result<Reply, Error> {
        let _claim = self.reconciler.claim(|state| state.claim_network(id)).await?;
        self.delete_network_claimed(id, context).await
    }

    /// The bridge goes first: no record would name a bridge that stays.
    async fn delete_network_claimed(&self, id: NetworkId, context: &Context) -> Result<Reply, Error> {
        let (plan, subnets, is_shared) = {
            let state = self.reconciler.lock();
            let entry = state.network(id)?;
            context.expects(entry.record.revision_number)?;
            if !entry.ports.is_empty() {
                return Err(Error::NetworkInUse { network: id, ports: entry.ports.len() });
            }
            let want = Desired { absent_bridges: vec![id], ..Desired::default() };
            let mut plan = plan(Reason::Change, &want, &state.have)?;
            // Another program may have deleted the bridge; from Linux 6.16 on the chain that closed it stays.
            if plan.steps.is_empty() && entry.record.bridge.is_none() {
                plan.steps.push(Step::new(Op::DeleteBridge { network: id, store: self.reconciler.store_id }, None));
            }
            (plan, entry.subnets.clone(), entry.record.is_shared())
        };
        if !plan.steps.is_empty() {
            self.reconciler.carry_out_on_bridge(plan).await?;
            let mut state = self.reconciler.lock();
            let devices = SegmentKind::ALL.map(|kind| state.have.own_segment(kind, id));
            let links = devices.into_iter().chain([state.have.own_bridge(id)]);
            let gone: Vec<u32> = links.flatten().map(|link| link.index).collect();
            gone.into_iter().for_each(|index| _ = state.gone(index, std::time::Instant::now()));
        }
        let mut changes: Vec<Change> = subnets.iter().copied().map(Change::DeleteSubnet).collect();
        changes.push(Change::DeleteNetwork(id));
        {
            // A port may have come while the bridge went.
            let state = self.reconciler.lock();
            let ports = state.network(id)?.ports.len();
            if ports > 0 {
                return Err(Error::NetworkInUse { network: id, ports });
            }
        }
        let shared = is_shared.then_some(Redefinition::Gone(DefinitionName::Network(id)));
        self.commit_shared(shared.into_iter().collect(), changes, Purpose::Freeing, context).await?;
        let mut state = self.reconciler.lock();
        subnets.into_iter().for_each(|subnet| drop(state.remove_subnet(subnet)));
        state.remove_network(id);
        Ok(Reply::Done)
    }
}

/// The attached ports of a network.
pub(super) fn attached<'a>(state: &'a Inventory, network: &'a NetworkEntry) -> impl Iterator<Item = &'a Port> {
    let entries = network.ports.iter().filter_map(|port| state.ports.get(port));
    entries.map(|entry| &entry.record).filter(|port| port.attached_to().is_some())
}

fn bound_ports(state: &Inventory, id: NetworkId) -> Vec<PortId> {
    let ports = state.networks.get(&id).map(|entry| &entry.ports).into_iter().flatten();
    ports.copied().filter(|port| state.ports.get(port).is_some_and(|entry| entry.record.binding.is_some())).collect()
}
