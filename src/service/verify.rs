//! Memory, store and kernel compared with each other, on a fresh reading of both.
//!
//! The store is read on a connection and a thread of its own, the kernel on a thread of its own, and the rest goes by parts:
//! commits and attaches go on meanwhile.
//!
//! What is under way differs for a moment: a claimed object is left out, and a difference counts only when a
//! second comparison finds it too. Nothing is changed; what can be mended is mended by the loop, which the dump also feeds.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use crate::inventory::comparing::Pending;
use crate::inventory::{Inventory, PortEntry, Segment, whose};
use crate::model::{Network, NetworkId, Phase, Port, PortId, Readiness, Server, Subnet};
use crate::plan::{Deviation, MachineNic, verify};
use crate::reconcile::Problem;
use crate::store::{Loaded, StoreError};

use super::verified::{Last, Verified};
use super::{Error, Service};
use crate::inventory::leftovers::leftovers;

/// How many ports are compared without letting others have the state.
const CHUNK: usize = 128;

/// How long a comparison is rested from, at most.
const REST: Duration = Duration::from_secs(1);

impl Service {
    /// Compares everything with everything. One comparison at a time: requests that come meanwhile share the next one.
    ///
    /// # Errors
    /// The kernel could not be read, or too much is under way.
    pub async fn verify(self: &Arc<Self>) -> Result<Verified, Error> {
        let asked = Instant::now();
        let _one = self.verifying.one.acquire().await.map_err(|_| Error::Stopping)?;
        let last = self.verifying.last();
        if let Some(last) = &last {
            if last.began >= asked {
                return Ok(last.found.clone());
            }
            // At most half of the time, however many ask.
            let rest = last.ended.duration_since(last.began).min(REST);
            tokio::time::sleep_until((last.ended + rest).into()).await;
        }
        let began = Instant::now();
        let found = self.compare_twice().await?;
        self.verifying.note(Last { began, ended: Instant::now(), found: found.clone() });
        Ok(found)
    }

    async fn compare_twice(self: &Arc<Self>) -> Result<Verified, Error> {
        let mut found = self.compare().await?;
        if !found.deviations.is_empty() {
            let first = std::mem::take(&mut found.deviations);
            found = self.compare().await?;
            found.deviations.retain(|deviation| first.contains(deviation));
        }
        Ok(found)
    }

    async fn compare(self: &Arc<Self>) -> Result<Verified, Error> {
        let stored = match self.reconciler.store.read().await {
            Err(error @ (StoreError::Busy | StoreError::Closed | StoreError::NoDescriptors(_) | StoreError::Replaced(_))) => {
                return Err(error.into());
            }
            read => read,
        };
        self.reconciler.look_at_everything().await?;
        let mut found = Verified::default();
        match stored {
            Ok(stored) => self.compare_records(stored, &mut found).await,
            Err(error) => {
                found.deviations.push(Deviation::new("store_unreadable", "the store", "what was written", error));
            }
        }
        self.compare_overlays(&mut found).await;
        self.whole_host(&self.reconciler.lock(), &mut found);
        let mut holders = Holders::new();
        let ports: Vec<PortId> = self.reconciler.lock().ports.keys().copied().collect();
        for chunk in ports.chunks(CHUNK) {
            {
                let state = self.reconciler.lock();
                chunk.iter().filter_map(|port| state.ports.get(port)).for_each(|entry| {
                    found.deviations.extend(duplicates(&state, &entry.record, &mut holders));
                    self.compare_port(&state, entry, &mut found);
                });
            }
            tokio::task::yield_now().await;
        }
        Ok(found)
    }

    /// The entries that lead VXLAN networks to other hosts, on a fresh reading. What differs is compared by the loop as well.
    async fn compare_overlays(self: &Arc<Self>, found: &mut Verified) {
        let networks: Vec<NetworkId> = self.reconciler.lock().on_tunnels().collect();
        for network in networks {
            if let Err(error) = self.reconciler.look_at_entries(network).await {
                let object = format!("network {network}");
                found.deviations.push(Deviation::new("entries_unreadable", object, "entries that lead to other hosts", error));
                continue;
            }
            let overlays = self.reconciler.lock().overlays.clone();
            let want = Pending::All.desired(&overlays, network);
            let mut state = self.reconciler.lock();
            let differs = want.map(|want| verify::of_overlay(&want, &state.have)).unwrap_or_default();
            if !differs.is_empty() {
                self.reconciler.compare_all_entries(&mut state, network);
            }
            found.deviations.extend(differs);
        }
    }

    /// What concerns no single port: bridges, leftovers, addresses.
    fn whole_host(&self, state: &Inventory, found: &mut Verified) {
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
                found.deviations.extend(verify::of_bridge(&state.desired_bridge(&entry.record), &state.have));
            }
        }
        found.deviations.extend(leftovers(state, state.store_id).iter().map(|leftover| leftover.deviation()));
        found.deviations.extend(verify::of_links(&state.have));
        found.deviations.extend(state.clashes().into_iter().map(|clash| {
            let have = format!("{} is this host's: {}", clash.host.ip, whose(clash.host.of, &clash.device));
            Deviation::new(Problem::AddressOfHost.word(), format!("port {}", clash.port), "addresses of its own", have)
        }));
    }

    fn compare_port(&self, state: &Inventory, entry: &PortEntry, found: &mut Verified) {
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
        let Some(want) = state.desired_port(&entry.record, self.reconciler.store_id) else { return };
        *found.checked.entry("devices").or_default() += 1;
        let differs = verify::of_port(&want, &state.desired_bridge(&network.record), &state.have).into_iter();
        // A machine that is off has no NIC.
        let is_away = matches!(state.have.nic(entry.record.id), Some(MachineNic::Missing { reason: "monitor_unreachable", .. }));
        found.deviations.extend(differs.filter(|deviation| !(is_away && deviation.kind == "nic")));
        let (readiness, why) = self.reconciler.readiness(state, entry.record.id);
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

/// Objects that a port's record names and the store does not have.
fn dangling(state: &Inventory, port: &Port) -> Vec<Deviation> {
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
            // A guest that has yet to lose it.
            None if !port.fixed_ips.contains(ip) => {}
            None => found.push(missing("no_such_subnet", ip.subnet_id.to_string())),
            Some(subnet) if !subnet.record.cidr.contains(ip.ip_address) => {
                found.push(Deviation::new("address_outside_subnet", object(), subnet.record.cidr, ip.ip_address));
            }
            Some(_) => {}
        }
    }
    found
}

/// Who was found to have an address on a segment, or a MAC.
type Holders = HashMap<(&'static str, Option<Segment>, String), PortId>;

/// The MAC that a record before has too, and the addresses that one on the same segment has.
fn duplicates(state: &Inventory, record: &Port, holders: &mut Holders) -> Vec<Deviation> {
    let mut found = Vec::new();
    let segment = state.networks.get(&record.network_id).map(|entry| &entry.segment);
    let addresses = record.held_ips().map(|ip| ("duplicate_address", segment.cloned(), ip.ip_address.to_string()));
    for what in addresses.chain([("duplicate_mac", None, record.mac.to_string())]) {
        let other = *holders.entry(what.clone()).or_insert(record.id);
        if other != record.id {
            let (kind, _, value) = what;
            let have = format!("port {other} has {value} too");
            found.push(Deviation::new(kind, format!("port {}", record.id), "one of its own", have));
        }
    }
    found
}

/// A kind of record, as memory has it.
struct RecordKind<K, R> {
    what: &'static str,
    id: fn(&R) -> K,
    all: fn(&Inventory) -> Vec<K>,
    /// A record, and whether it is claimed.
    get: fn(&Inventory, &K) -> Option<(R, bool)>,
}

impl Service {
    /// Records that are in memory and in the store not alike.
    async fn compare_records(&self, stored: Loaded, found: &mut Verified) {
        let networks = RecordKind {
            what: "network",
            id: |network: &Network| network.id,
            all: |state| state.networks.keys().copied().collect(),
            get: |state, id| state.networks.get(id).map(|entry| (entry.record.clone(), entry.claim.taken())),
        };
        let subnets = RecordKind {
            what: "subnet",
            id: |subnet: &Subnet| subnet.id,
            all: |state| state.subnets.keys().copied().collect(),
            get: |state, id| state.subnets.get(id).map(|entry| (entry.record.clone(), false)),
        };
        let servers = RecordKind {
            what: "server",
            id: |server: &Server| server.id,
            all: |state| state.servers.keys().copied().collect(),
            get: |state, id| state.servers.get(id).map(|entry| (entry.record.clone(), entry.claim.taken())),
        };
        let ports = RecordKind {
            what: "port",
            id: |port: &Port| port.id,
            all: |state| state.ports.keys().copied().collect(),
            get: |state, id| state.ports.get(id).map(|entry| (named(&entry.record), entry.claim.taken())),
        };
        self.compare_kind(networks, stored.networks, found).await;
        self.compare_kind(subnets, stored.subnets, found).await;
        self.compare_kind(servers, stored.servers, found).await;
        self.compare_kind(ports, stored.ports.iter().map(named).collect(), found).await;
    }

    async fn compare_kind<K: Ord + Display + Copy, R: PartialEq + Serialize>(
        &self,
        kind: RecordKind<K, R>,
        stored: Vec<R>,
        found: &mut Verified,
    ) {
        let mut stored: BTreeMap<K, R> = stored.into_iter().map(|record| ((kind.id)(&record), record)).collect();
        let ids = (kind.all)(&self.reconciler.lock());
        for chunk in ids.chunks(CHUNK) {
            {
                let state = self.reconciler.lock();
                for id in chunk {
                    let kept = stored.remove(id);
                    let Some((record, false)) = (kind.get)(&state, id) else { continue };
                    let object = format!("{} {id}", kind.what);
                    match kept {
                        None => {
                            found.deviations.push(Deviation::new("record_missing", object, "in the store", "in memory alone"));
                        }
                        Some(kept) if kept == record => {}
                        Some(kept) => found.deviations.extend(fields(&object, &value(&record), &value(&kept))),
                    }
                }
            }
            tokio::task::yield_now().await;
        }
        let unknown = |id: K| Deviation::new("record_unknown", format!("{} {id}", kind.what), "in memory", "in the store alone");
        found.deviations.extend(stored.into_keys().map(unknown));
    }
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
