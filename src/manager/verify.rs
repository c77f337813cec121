//! Memory, store and kernel compared with each other, on a fresh reading of both.
//!
//! What is under way differs for a moment: an object somebody works on is left out, and a difference counts only when a
//! second comparison finds it too. Nothing is changed; what can be mended is mended by the loop, which the dump also feeds.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::model::{Phase, Port, PortId, Readiness};
use crate::plan::{Deviation, verify};
use crate::store::{Loaded, StoreError};

use super::error::whose;
use super::gc::leftovers;
use super::health::ADDRESS_OF_HOST;
use super::state::{PortEntry, State};
use super::{Error, Manager};

/// How many ports are compared without letting others have the state.
const CHUNK: usize = 128;

/// What a comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Every difference.
    pub deviations: Vec<Deviation>,
    /// How many of what were compared; `under_way` were left out.
    pub checked: BTreeMap<&'static str, usize>,
}

impl Manager {
    /// Compares everything with everything.
    ///
    /// # Errors
    /// The kernel could not be read, or too much is under way.
    pub async fn verify(self: &Arc<Self>) -> Result<Verified, Error> {
        let mut found = self.compare().await?;
        if !found.deviations.is_empty() {
            let first = std::mem::take(&mut found.deviations);
            found = self.compare().await?;
            found.deviations.retain(|deviation| first.contains(deviation));
        }
        Ok(found)
    }

    async fn compare(self: &Arc<Self>) -> Result<Verified, Error> {
        let stored = match self.store.read().await {
            Err(error @ (StoreError::Busy | StoreError::Closed | StoreError::Replaced(_))) => return Err(error.into()),
            read => read,
        };
        self.look_at_everything().await?;
        let mut found = Verified::default();
        {
            let state = self.lock();
            found.deviations.extend(match stored {
                Ok(stored) => stored_records(&state, stored),
                Err(error) => vec![Deviation::new("store_unreadable", "the store", "what was written", error)],
            });
            found.deviations.extend(duplicates(&state));
            self.whole_host(&state, &mut found);
        }
        let ports: Vec<PortId> = self.lock().ports.keys().copied().collect();
        for chunk in ports.chunks(CHUNK) {
            {
                let state = self.lock();
                chunk
                    .iter()
                    .filter_map(|port| state.ports.get(port))
                    .for_each(|entry| self.compare_port(&state, entry, &mut found));
            }
            tokio::task::yield_now().await;
        }
        Ok(found)
    }

    /// What concerns no single port: bridges, leftovers, addresses.
    fn whole_host(&self, state: &State, found: &mut Verified) {
        let count = |what, number| (what, number);
        found.checked.extend([
            count("links", state.have.iter().count()),
            count("networks", state.networks.len()),
            count("subnets", state.subnets.len()),
            count("servers", state.servers.len()),
            count("ports", state.ports.len()),
            count("devices", 0),
            count("under_way", 0),
        ]);
        for entry in state.networks.values().filter(|entry| !entry.claim.taken()) {
            let needed = entry.ports.iter().filter_map(|port| state.ports.get(port)).any(stands);
            if needed || state.have.own_bridge(entry.record.id).is_some() {
                found.deviations.extend(verify::of_bridge(&state.bridge_want(&entry.record, 0), &state.have));
            }
        }
        found.deviations.extend(leftovers(state, state.store_id).iter().map(|leftover| leftover.deviation()));
        found.deviations.extend(verify::of_links(&state.have));
        found.deviations.extend(state.clashes().into_iter().map(|clash| {
            let have = format!("{} is this host's: {}", clash.host.ip, whose(clash.host.of, &clash.device));
            Deviation::new(ADDRESS_OF_HOST, format!("port {}", clash.port), "addresses of its own", have)
        }));
    }

    fn compare_port(&self, state: &State, entry: &PortEntry, found: &mut Verified) {
        let under_way = entry.claim.taken() || entry.reaping || matches!(entry.phase, Phase::Building | Phase::Detaching);
        if under_way {
            *found.checked.entry("under_way").or_default() += 1;
            return;
        }
        found.deviations.extend(dangling(state, &entry.record));
        if !stands(entry) {
            return;
        }
        let Some(network) = state.networks.get(&entry.record.network_id) else { return };
        let Some(want) = state.port_want(&entry.record, self.store_id, 0) else { return };
        *found.checked.entry("devices").or_default() += 1;
        found.deviations.extend(verify::of_port(&want, &state.bridge_want(&network.record, 0), &state.have));
        let (readiness, why) = self.readiness(state, entry.record.id);
        if entry.phase == Phase::Active && readiness != Readiness::Ready {
            let why = why.map_or("not ready", |why| why.reason);
            found.deviations.push(Deviation::new(
                "status",
                format!("port {}", entry.record.id),
                "wired",
                format!("active, {why}"),
            ));
        }
    }
}

/// Whether a port's device is to be there now: attached, and its guest not away.
fn stands(entry: &PortEntry) -> bool {
    entry.record.attached_to().is_some() && entry.reason.as_deref() != Some("namespace_gone")
}

/// What a port's record names and nobody knows.
fn dangling(state: &State, port: &Port) -> Vec<Deviation> {
    let object = || format!("port {}", port.id);
    let missing = |kind, what: String| Deviation::new(kind, object(), what, "no such record");
    let mut found = Vec::new();
    if !state.networks.contains_key(&port.network_id) {
        found.push(missing("no_such_network", port.network_id.to_string()));
    }
    if let Some(server) = port.binding.as_ref().map(|binding| binding.server_id).filter(|id| !state.servers.contains_key(id)) {
        found.push(missing("no_such_server", server.to_string()));
    }
    for ip in port.held_ips() {
        match state.subnets.get(&ip.subnet_id) {
            None => found.push(missing("no_such_subnet", ip.subnet_id.to_string())),
            Some(subnet) if !subnet.record.cidr.contains(ip.ip_address) => {
                found.push(Deviation::new("address_outside_subnet", object(), subnet.record.cidr, ip.ip_address));
            }
            Some(_) => {}
        }
    }
    found
}

/// MACs that two records have, and addresses that two have on one segment.
fn duplicates(state: &State) -> Vec<Deviation> {
    let mut first = HashMap::new();
    let mut found = Vec::new();
    for entry in state.ports.values() {
        let record = &entry.record;
        let segment = state.networks.get(&record.network_id).map(|entry| &entry.segment);
        let addresses = record.held_ips().map(|ip| ("duplicate_address", segment, ip.ip_address.to_string()));
        for what in addresses.chain([("duplicate_mac", None, record.mac.to_string())]) {
            let other = *first.entry(what.clone()).or_insert(record.id);
            if other != record.id {
                let (kind, _, value) = what;
                let have = format!("port {other} has {value} too");
                found.push(Deviation::new(kind, format!("port {}", record.id), "one of its own", have));
            }
        }
    }
    found
}

/// Records that are in memory and in the store not alike.
fn stored_records(state: &State, stored: Loaded) -> Vec<Deviation> {
    let networks =
        state.networks.values().filter(|entry| !entry.claim.taken()).map(|entry| (entry.record.id, value(&entry.record)));
    let subnets = state.subnets.values().map(|entry| (entry.record.id, value(&entry.record)));
    let servers =
        state.servers.values().filter(|entry| !entry.claim.taken()).map(|entry| (entry.record.id, value(&entry.record)));
    let ports =
        state.ports.values().filter(|entry| !entry.claim.taken()).map(|entry| (entry.record.id, value(&named(&entry.record))));
    let in_work = |port: &PortId| state.ports.get(port).is_some_and(|entry| entry.claim.taken());
    let kept = stored.ports.iter().filter(|port| !in_work(&port.id)).map(|port| (port.id, value(&named(port))));
    [
        compare("network", networks.collect(), stored.networks.iter().map(|one| (one.id, value(one))).collect()),
        compare("subnet", subnets.collect(), stored.subnets.iter().map(|one| (one.id, value(one))).collect()),
        compare("server", servers.collect(), stored.servers.iter().map(|one| (one.id, value(one))).collect()),
        compare("port", ports.collect(), kept.collect()),
    ]
    .concat()
}

fn compare<K: Ord + Display>(what: &str, memory: BTreeMap<K, Value>, mut stored: BTreeMap<K, Value>) -> Vec<Deviation> {
    let mut found = Vec::new();
    for (id, record) in memory {
        let object = format!("{what} {id}");
        match stored.remove(&id) {
            None => found.push(Deviation::new("record_missing", object, "in the store", "in memory alone")),
            Some(kept) => found.extend(fields(&object, &record, &kept)),
        }
    }
    let unknown = |id: K| Deviation::new("record_unknown", format!("{what} {id}"), "in memory", "in the store alone");
    found.extend(stored.into_keys().map(unknown));
    found
}

/// The attributes in which two records differ.
fn fields(object: &str, memory: &Value, stored: &Value) -> Vec<Deviation> {
    let names = memory.as_object().into_iter().flat_map(|members| members.keys());
    let differ = names.filter(|name| memory[*name] != stored[*name]);
    differ.map(|name| Deviation::new("record_differs", format!("{name} of {object}"), &memory[name], &stored[name])).collect()
}

/// The name that a guest gave its NIC becomes durable with whatever is next.
fn named(port: &Port) -> Port {
    let mut port = port.clone();
    if let Some(binding) = port.binding.as_mut() {
        binding.guest_device = None;
    }
    port
}

fn value(record: &impl Serialize) -> Value {
    serde_json::to_value(record).unwrap_or_default()
}
