//! What other hosts of the fleet define is done here too, by the same steps as what this host's clients ask for.

use std::sync::Arc;

use crate::inventory::{self, Inventory};
use crate::model::definition::{Definition, DefinitionName};
use crate::model::{GroupId, Network, NetworkId, Subnet};

use super::networks::Reach;
use super::{Context, Error, Service};

/// How often a network is tried to be made whose number another one has.
const TRIES: usize = 8;

fn context() -> Context {
    Context { follows: true, ..Context::default() }
}

impl Service {
    /// Takes in a definition.
    ///
    /// # Errors
    /// It could not be noted. What cannot be here at all is only told of.
    pub(super) async fn follow_definition(self: Arc<Self>, definition: Definition) -> Result<(), String> {
        let name = definition.name();
        let followed = match definition {
            Definition::Network(network) => self.follow_network(network).await,
            Definition::Subnet(subnet) => self.follow_subnet(subnet).await,
            Definition::Group(group) => self.follow_group(*group).await,
        };
        match followed {
            Err(error) if error.is_trouble() => Err(format!("{name:?} could not be taken in: {error}")),
            Err(error) => {
                tracing::error!(?name, %error, "what another host has defined cannot be on this one");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Waits until what this host's clients have under way with a network is done or undone.
    async fn ends_work(&self, network: NetworkId) -> Result<(), Error> {
        match self.reconciler.claim(|state| state.claim_network(network)).await {
            Ok(_) | Err(Error::Inventory(inventory::Error::NoSuchNetwork(_))) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn follow_network(self: Arc<Self>, network: Network) -> Result<(), Error> {
        self.ends_work(network.id).await?;
        let known = self.reconciler.lock().network(network.id).ok().map(|entry| entry.record.clone());
        match known {
            None => self.enter_network(&network).await,
            Some(known) if !known.is_shared() => Err(Error::IdTaken(network.id.0)),
            Some(known) if known == (Network { zone: known.zone, ..network.clone() }) => Ok(()),
            Some(_) => {
                let id = network.id;
                let revise = |before: &Network| Network { zone: before.zone, ..network };
                self.revise_network(id, Reach::WithPorts, revise, &context()).await.map(drop)
            }
        }
    }

    /// Makes a network. One that a client's request is about to make may have drawn the same number, and then is not made.
    async fn enter_network(&self, network: &Network) -> Result<(), Error> {
        let place = |one: &Network| (one.kind, one.physical_network.clone(), one.segmentation_id);
        for _ in 0..TRIES {
            let refused = match self.enter_networks(vec![network.clone()], &context()).await {
                Err(error @ Error::Segment(_)) => error,
                entered => return entered.map(drop),
            };
            let rival = {
                let state = self.reconciler.lock();
                let mut others = state.networks.values().filter(|entry| entry.claim.taken());
                others.find(|entry| place(&entry.record) == place(network)).map(|entry| entry.record.id)
            };
            self.ends_work(rival.ok_or(refused)?).await?;
        }
        self.enter_networks(vec![network.clone()], &context()).await.map(drop)
    }

    async fn follow_subnet(self: Arc<Self>, subnet: Subnet) -> Result<(), Error> {
        self.ends_work(subnet.network_id).await?;
        let known = self.subnet(subnet.id).ok();
        match known {
            None => self.enter_subnets(vec![subnet], &context()).await.map(drop),
            Some(known) if known == subnet => Ok(()),
            Some(_) => self.revise_subnet(subnet.id, |_| Ok(subnet.clone()), &context()).await.map(drop),
        }
    }

    /// Takes in that something is not defined any more. Answers with what has to stay, since ports here use it.
    ///
    /// # Errors
    /// It could not be noted.
    pub(super) async fn unfollow_definition(self: Arc<Self>, name: DefinitionName) -> Result<Vec<Definition>, String> {
        let (service, ends) = (Arc::clone(&self), context());
        let told = |error: Error| format!("{name:?} could not be deleted: {error}");
        let network = match name {
            DefinitionName::Network(network) | DefinitionName::Subnet(network, _) => network,
            DefinitionName::Group(group) => return Ok(self.unfollow_group(group).await.map_err(told)?.into_iter().collect()),
        };
        self.ends_work(network).await.map_err(told)?;
        if !self.reconciler.lock().network(network).is_ok_and(|entry| entry.record.is_shared()) {
            return Ok(Vec::new());
        }
        let deleted = match name {
            DefinitionName::Subnet(_, subnet) => service.delete_subnet(subnet, &ends).await,
            _ => service.delete_network(network, &ends).await,
        };
        match deleted {
            Ok(_) | Err(Error::Inventory(inventory::Error::NoSuchNetwork(_) | inventory::Error::NoSuchSubnet(_))) => {
                Ok(Vec::new())
            }
            Err(Error::NetworkInUse { .. } | Error::SubnetInUse { .. }) => {
                let users = {
                    let state = self.reconciler.lock();
                    match name {
                        DefinitionName::Subnet(_, id) => state.users_of(id),
                        _ => state.network(network).map(|entry| entry.ports.iter().copied().collect()).unwrap_or_default(),
                    }
                };
                if self.end_standbys(users).await {
                    return Ok(Vec::new());
                }
                let state = self.reconciler.lock();
                let kept = match name {
                    DefinitionName::Subnet(_, id) => {
                        state.subnet(id).map(|entry| Definition::Subnet(entry.record.clone())).into_iter().collect()
                    }
                    _ => of_network(&state, network),
                };
                tracing::warn!(?name, "what another host has deleted stays, since ports of this host use it");
                Ok(kept)
            }
            Err(error) => Err(told(error)),
        }
    }

    /// What is known of what all hosts have. What a client's request is about to make or to delete is told of as it is in the end.
    pub(super) async fn known_definitions(&self) -> Vec<Definition> {
        let shared = |state: &Inventory| -> Vec<NetworkId> {
            state.networks.values().filter(|entry| entry.record.is_shared()).map(|entry| entry.record.id).collect()
        };
        let networks = shared(&self.reconciler.lock());
        let mut all = Vec::new();
        for network in networks {
            // One on which work does not end is left as it is.
            if let Ok(_claim) = self.reconciler.claim(|state| state.claim_network::<Error>(network)).await {
                all.extend(of_network(&self.reconciler.lock(), network));
            }
        }
        let groups: Vec<GroupId> = self.reconciler.lock().groups.keys().copied().collect();
        for group in groups {
            if let Ok(_claim) = self.reconciler.claim(|state| state.claim_group::<Error>(group)).await {
                let known = self.reconciler.lock().group(group).ok().map(|entry| entry.record.clone());
                all.extend(known.map(Box::new).map(Definition::Group));
            }
        }
        all
    }
}

/// A network with its subnets.
fn of_network(state: &Inventory, network: NetworkId) -> Vec<Definition> {
    let Ok(entry) = state.network(network) else { return Vec::new() };
    let subnets =
        entry.subnets.iter().filter_map(|id| state.subnets.get(id)).map(|entry| Definition::Subnet(entry.record.clone()));
    [Definition::Network(entry.record.clone())].into_iter().chain(subnets).collect()
}
