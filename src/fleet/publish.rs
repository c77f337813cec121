//! A host tells of its ports of shared networks.
//!
//! What it has told is in a list of its own in etcd, with a digest of each: at a join only what differs is told again. Each port's part of a
//! transaction has as its guard that its entry of the list is as it was, so that a transaction whose answer was lost, and that is carried out
//! late, overwrites nothing newer.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::agent::{Fleet, Local};
use super::etcd::{Compare, Keys, Op, Txn};
use super::member::{MemberError, VERSION, json, read_versioned};
use crate::model::{NetworkId, PortId, Registration};

/// How many ports one transaction tells of: etcd takes 128 parts, and each port has three.
const PORTS: usize = 32;

/// The entry of a port in its host's list.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Entry {
    v: u32,
    network: NetworkId,
    digest: u64,
}

/// Where a port is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Place {
    v: u32,
    pub network: NetworkId,
    pub host: String,
}

impl Fleet {
    /// Tells of each port that has changed.
    pub(super) async fn publish<L: Local>(&self, local: &Arc<L>, registration: Registration) -> Result<Infallible, MemberError> {
        let host = self.host();
        let list = self.names.own_ports(&host);
        let (_, listed) = self.kv.pages(list.clone()).all().await?;
        let mut told: BTreeMap<PortId, (Entry, i64)> = BTreeMap::new();
        for found in &listed {
            if let Some(port) = found.key.strip_prefix(&list).and_then(|port| port.parse().ok()) {
                told.insert(PortId(port), (read_versioned(found)?, found.mod_revision));
            }
        }
        local.take_changed();
        let own = local.own_ports();
        let differs = own.iter().filter(|(id, port)| told.get(id).is_none_or(|(entry, _)| entry.digest != port.digest()));
        let gone = told.keys().filter(|id| !own.contains_key(id));
        let mut waiting: BTreeSet<PortId> = differs.map(|(id, _)| *id).chain(gone.copied()).collect();
        drop(own);
        loop {
            while !waiting.is_empty() {
                let some: Vec<PortId> = waiting.iter().take(PORTS).copied().collect();
                self.publish_some(&**local, &registration, &some, &mut told).await?;
                some.iter().for_each(|port| _ = waiting.remove(port));
                waiting.extend(local.take_changed());
            }
            self.networks_change.notify_one();
            local.changed().await;
            waiting.extend(local.take_changed());
        }
    }

    async fn publish_some(
        &self,
        local: &impl Local,
        registration: &Registration,
        ports: &[PortId],
        told: &mut BTreeMap<PortId, (Entry, i64)>,
    ) -> Result<(), MemberError> {
        let host = self.host();
        let mut txn = Txn::when(vec![Compare::made(self.names.host(&host), registration.created)], Vec::new());
        let mut after: Vec<(PortId, Option<Entry>)> = Vec::new();
        for id in ports {
            let (own, place) = (self.names.own_port(&host, *id), self.names.place(*id));
            let before = told.get(id);
            let guard = match before {
                Some((_, revision)) => Compare::unchanged(own.clone(), *revision),
                None => Compare::absent(Keys::One(own.clone())),
            };
            match (local.own_port(*id), before) {
                (Some(port), _) => {
                    let entry = Entry { v: VERSION, network: port.network, digest: port.digest() };
                    if before.is_some_and(|(before, _)| before.digest == entry.digest) {
                        continue;
                    }
                    let at = Place { v: VERSION, network: port.network, host: host.clone() };
                    txn.success.push(Op::put(self.names.port(port.network, &host, *id), port.value()));
                    txn.success.push(Op::put(own, json(&entry)));
                    txn.success.push(Op::put(place, json(&at)));
                    after.push((*id, Some(entry)));
                }
                (None, Some((entry, _))) => {
                    let keys = [self.names.port(entry.network, &host, *id), own, place];
                    txn.success.extend(keys.map(|key| Op::Delete(Keys::One(key))));
                    after.push((*id, None));
                }
                (None, None) => continue,
            }
            txn.compare.push(guard);
        }
        if after.is_empty() {
            return Ok(());
        }
        let answer = self.kv.txn(&txn).await?;
        if !answer.succeeded {
            return Err(MemberError::Contended(self.names.own_ports(&host)));
        }
        for (id, entry) in after {
            match entry {
                Some(entry) => _ = told.insert(id, (entry, answer.header.revision)),
                None => _ = told.remove(&id),
            }
        }
        Ok(())
    }
}
