//! What nicd built and no record wants: links of this store's that carry a mark and no record's, and links that lost their mark
//! and still have a seal of this store. An older state put back looks just so, so nothing of it goes unless a client says so.
//!
//! What a nicd with another store built is listed and removed only when a client names that store.

use std::sync::Arc;

use serde::Serialize;
use uuid::Uuid;

use crate::model::{NetworkId, PortId, names};
use crate::plan::{AbsentPort, Deviation, Kind, LinkState, Observed, Owner, Plan, Reason, merge_deletions, removal};

use super::state::State;
use super::{Error, Manager, answered};

/// One link that is left over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Leftover {
    /// Its name.
    pub object: String,
    /// `tap`, `veth` or `bridge`.
    pub kind: &'static str,
    /// The stable word for why it is here: `device_without_record` or `mark_lost`.
    pub reason: &'static str,
    /// Its altname, unless it lost it.
    pub altname: Option<String>,
    /// Its alias: the store and the commit it was sealed for.
    pub alias: Option<String>,
    /// Its index, by which two looks at it are told to be of one link.
    #[serde(skip)]
    pub index: u32,
    /// The id in its altname, or the one it is given to be addressed by.
    #[serde(skip)]
    pub id: Uuid,
}

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

impl Leftover {
    /// The leftover as something that should not be.
    pub(super) fn deviation(&self) -> Deviation {
        let have = match (&self.altname, &self.alias) {
            (Some(altname), _) => format!("a {} marked {altname}", self.kind),
            (None, alias) => format!("a {} sealed {}", self.kind, alias.as_deref().unwrap_or_default()),
        };
        Deviation::new("leftover", self.object.clone(), "a record, or no such link", have)
    }
}

impl Manager {
    /// Lists what is left over on a complete dump, and removes it when asked to.
    ///
    /// # Errors
    /// The kernel could not be read. What it does not let go stays listed.
    pub async fn collect(self: &Arc<Self>, what: Leftovers) -> Result<Collected, Error> {
        self.look_at_everything().await?;
        let store = what.store.unwrap_or(self.store_id);
        let found = leftovers(&self.lock(), store);
        if found.is_empty() {
            return Ok(Collected::default());
        }
        if !what.remove {
            let plan = Some(removal_of(&self.lock(), &found, store));
            return Ok(Collected { leftovers: found, removed: Vec::new(), plan });
        }
        self.remove_devices(&found, store).await;
        self.look_at_everything().await?;
        self.remove_bridges(&found, store).await;
        self.look_at_everything().await?;
        let left = leftovers(&self.lock(), store);
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
        // A port on its own keeps this id: nobody gives it a server meanwhile.
        let claim = match self.claim(|state| state.claim_port(port)).await {
            Ok(claim) => Some(claim),
            Err(Error::NoSuchPort(_)) => None,
            Err(error) => return Err(error),
        };
        // What has the mark of a port and another store's tag is never that port's device.
        let wanted = claim.is_some() && {
            let state = self.lock();
            let attached = state.ports.get(&port).is_some_and(|entry| entry.record.binding.is_some());
            attached && state.have.in_place_of_device(port).is_none()
        };
        match wanted {
            true => Ok(()),
            false => match self.kernel.delete(absent, store) {
                Ok(answer) => answered(answer).await.and_then(|deleted| deleted.map(drop).map_err(Error::Kernel)),
                Err(refused) => Err(refused.into()),
            },
        }
    }

    /// Bridges after what was in them; one that others use stays.
    async fn remove_bridges(&self, found: &[Leftover], store: Uuid) {
        let (bridges, have) = {
            let state = self.lock();
            (unused_bridges(&state, found, &Observed::default()), observed(&state, found, store))
        };
        for bridge in bridges {
            if let Err(error) = self.carry_out(removal(Reason::Gc, &[], &[bridge], &have)).await {
                tracing::warn!(%error, "a leftover could not be removed");
            }
        }
    }
}

/// What removing these leftovers does.
fn removal_of(state: &State, found: &[Leftover], store: Uuid) -> Plan {
    let ports: Vec<AbsentPort> = absent_ports(found).collect();
    let have = observed(state, found, store);
    merge_deletions(removal(Reason::DryRun, &ports, &unused_bridges(state, found, &have), &have), &ports)
}

/// The leftover links as the nicd that made them sees them.
fn observed(state: &State, found: &[Leftover], store: Uuid) -> Observed {
    let links = found.iter().filter_map(|one| state.have.link(one.index).cloned());
    Observed::from(links.collect::<Vec<LinkState>>()).seen_by(store)
}

/// The leftover devices as ports that are wanted gone, also while a process holds them open.
fn absent_ports(found: &[Leftover]) -> impl Iterator<Item = AbsentPort> {
    let devices = found.iter().filter(|one| one.kind != Kind::Bridge.as_str());
    devices.map(|device| AbsentPort {
        id: PortId(device.id),
        alias: device.alias.clone().unwrap_or_default(),
        mac: None,
        seen: Some(device.index),
        force: true,
    })
}

/// The leftover bridges that nothing is in but what is removed with them.
fn unused_bridges(state: &State, found: &[Leftover], removed: &Observed) -> Vec<NetworkId> {
    let bridges = found.iter().filter(|one| one.kind == Kind::Bridge.as_str());
    let unused = bridges.filter(|one| state.have.members(one.index) == removed.members(one.index));
    unused.map(|one| NetworkId(one.id)).collect()
}

/// Everything that a nicd with this store left over, by index.
pub(super) fn leftovers(state: &State, store: Uuid) -> Vec<Leftover> {
    state.have.iter().filter_map(|link| leftover(state, link, store)).collect()
}

/// What a link is as a leftover of a nicd with this store; none when a record wants it, or that nicd never made it.
pub(super) fn leftover(state: &State, link: &LinkState, store: Uuid) -> Option<Leftover> {
    let by_us = store == state.store_id;
    let owner = if by_us { Owner::Us } else { Owner::OtherStore(store) };
    if link.owner(state.store_id) != owner {
        return None;
    }
    let mark = link.marks().next();
    let reason = match mark {
        // One that a record wants under another mark is that record's. What another store's nicd made no record here wants.
        Some(_) if !by_us || link.marks().all(|mark| stranger(state, mark)) => "device_without_record",
        None if !by_us || !wanted(state, link) => "mark_lost",
        _ => return None,
    };
    Some(Leftover {
        object: link.name.clone(),
        kind: link.kind.as_str(),
        reason,
        altname: mark.map(|mark| names::port_altname(PortId(mark))),
        alias: link.alias.clone(),
        index: link.index,
        id: mark.unwrap_or_else(|| id_of_unmarked(link, store)),
    })
}

/// The id that a link without its mark is addressed by: a bridge's network, and for a device one that nothing else has.
fn id_of_unmarked(link: &LinkState, store: Uuid) -> Uuid {
    let network = link.alias.as_deref().filter(|_| link.kind == Kind::Bridge).and_then(names::tagged_network);
    network.map_or_else(|| Uuid::from_u128(store.as_u128() ^ u128::from(link.index)), |network| network.0)
}

/// Whether a link without its mark gets it back: it is what an attach sealed of a port that has a server or is leaving it, or
/// a network's bridge.
fn wanted(state: &State, link: &LinkState) -> bool {
    if link.kind == Kind::Bridge {
        let network = link.alias.as_deref().and_then(names::tagged_network);
        return network.is_some_and(|network| state.networks.contains_key(&network));
    }
    let Some(commit) = link.alias.as_deref().and_then(|alias| names::sealed(alias, state.store_id)) else { return false };
    let mut bindings = state.ports.values().filter_map(|entry| entry.record.binding.as_ref());
    bindings.any(|binding| binding.commit == commit)
}

/// Whether no record wants a link with this mark.
fn stranger(state: &State, mark: Uuid) -> bool {
    let port = state.ports.get(&PortId(mark));
    let unwanted = port.is_none_or(|entry| entry.record.binding.is_none() && !entry.claim.taken());
    unwanted && !state.networks.contains_key(&NetworkId(mark))
}
