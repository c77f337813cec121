//! A host tells of its servers, and of its ports of shared networks.
//!
//! What it has told is in a list of its own in etcd, with a digest of each: at a join only what differs is told again. Each one's part of a
//! transaction has as its guard that its entry of the list is as it was, so that a transaction whose answer was lost, and that is carried out
//! late, overwrites nothing newer. One of before a join is not carried out after it, also where the entry is as it was then: the sign of life
//! that the join has put is its other guard.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::agent::{Fleet, Local};
use super::etcd::{Compare, KeyValue, Keys, Op, Txn};
use super::member::{ForgetError, MemberError, VERSION, json, read_versioned};
use super::published::Told;
use crate::model::group::GROUPS_OF_A_PORT;
use crate::model::{GroupId, NetworkId, PublishedId, Registration, ServerId};

/// Of how many a transaction tells at most.
const SOME: usize = 32;

/// How many changes etcd takes in a transaction.
const ALL_PARTS: usize = 128;

/// With so many there is room for one more port: it has three, and one for each security group that it was or is in.
const PARTS: usize = ALL_PARTS - 3 - 2 * GROUPS_OF_A_PORT;

/// An entry of a host's list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Entry {
    v: u32,
    /// A port's network.
    pub network: Option<NetworkId>,
    /// A port's server.
    pub server: Option<ServerId>,
    /// The security groups that a port is in.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    groups: BTreeSet<GroupId>,
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
    /// Tells of each one that has changed.
    pub(super) async fn publish<L: Local>(
        &self,
        local: &Arc<L>,
        registration: Registration,
        signed: i64,
    ) -> Result<Infallible, MemberError> {
        let host = self.host();
        let (_, listed) = self.kv.pages(self.names.own(&host)).all().await?;
        let mut told: BTreeMap<PublishedId, (Entry, i64)> = BTreeMap::new();
        for found in &listed {
            if let Some(id) = self.names.own_entry_of(&host, &found.key) {
                told.insert(id, (read_versioned(found)?, found.mod_revision));
            }
        }
        local.note_changes(true);
        let own = local.published();
        let differs = own.iter().filter(|(id, one)| told.get(id).is_none_or(|(entry, _)| entry.digest != one.digest()));
        let gone = told.keys().filter(|id| !own.contains_key(id));
        let mut waiting: BTreeSet<PublishedId> = differs.map(|(id, _)| *id).chain(gone.copied()).collect();
        drop(own);
        loop {
            while !waiting.is_empty() {
                let some: Vec<PublishedId> = waiting.iter().take(SOME).copied().collect();
                let done = self.publish_some(&**local, (&registration, signed), &some, &mut told).await?;
                some.iter().take(done).for_each(|one| _ = waiting.remove(one));
                waiting.extend(local.take_changed());
            }
            self.networks_change.notify_one();
            local.changed().await;
            waiting.extend(local.take_changed());
        }
    }

    /// Tells of some, and answers of how many from the first on.
    async fn publish_some(
        &self,
        local: &impl Local,
        (registration, signed): (&Registration, i64),
        ids: &[PublishedId],
        told: &mut BTreeMap<PublishedId, (Entry, i64)>,
    ) -> Result<usize, MemberError> {
        let host = self.host();
        let joined =
            [Compare::made(self.names.host(&host), registration.created), Compare::unchanged(self.names.alive(&host), signed)];
        let mut txn = Txn::when(joined.into(), Vec::new());
        let mut after: Vec<(PublishedId, Option<Entry>)> = Vec::new();
        let mut done = 0;
        for id in ids {
            if txn.success.len() > PARTS {
                break;
            }
            done += 1;
            let own = self.names.own_entry(&host, *id);
            let before = told.get(id);
            let guard = match before {
                Some((_, revision)) => Compare::unchanged(own.clone(), *revision),
                None => Compare::absent(Keys::One(own.clone())),
            };
            let now = local.published_one(*id);
            let entry = now.as_ref().map(|one| Entry { digest: one.digest(), ..entry(one) });
            if before.map(|(before, _)| before.digest) == entry.as_ref().map(|entry| entry.digest) {
                continue;
            }
            if let PublishedId::Port(port) = *id {
                let groups = |entry: Option<&Entry>| entry.map(|entry| entry.groups.clone()).unwrap_or_default();
                let (was, is) = (groups(before.map(|(before, _)| before)), groups(entry.as_ref()));
                let member = |group: &GroupId| self.names.member(*group, &host, port);
                txn.success.extend(was.difference(&is).map(|group| Op::Delete(Keys::One(member(group)))));
                txn.success.extend(is.difference(&was).map(|group| Op::put(member(group), Vec::new())));
            }
            match (*id, &now) {
                (PublishedId::Server(server), Some(one)) => {
                    txn.success.push(Op::put(self.names.server(&host, server), one.value()))
                }
                (PublishedId::Server(server), None) => txn.success.push(Op::Delete(Keys::One(self.names.server(&host, server)))),
                (PublishedId::Port(port), Some(Told::Port(one))) => {
                    let at = Place { v: VERSION, network: one.network, host: host.clone() };
                    txn.success.push(Op::put(self.names.port(one.network, &host, port), one.value()));
                    txn.success.push(Op::put(self.names.place(port), json(&at)));
                }
                (PublishedId::Port(port), _) => {
                    let network = before.and_then(|(before, _)| before.network);
                    let keys =
                        network.map(|network| self.names.port(network, &host, port)).into_iter().chain([self.names.place(port)]);
                    txn.success.extend(keys.map(|key| Op::Delete(Keys::One(key))));
                }
            }
            txn.success.push(match &entry {
                Some(entry) => Op::put(own, json(entry)),
                None => Op::Delete(Keys::One(own)),
            });
            txn.compare.push(guard);
            after.push((*id, entry));
        }
        if after.is_empty() {
            return Ok(done);
        }
        let ports = after.iter().filter_map(|(id, entry)| match id {
            PublishedId::Port(port) => Some((entry.as_ref().or_else(|| told.get(id).map(|(before, _)| before))?.network?, *port)),
            PublishedId::Server(_) => None,
        });
        let now = std::time::Instant::now();
        ports.for_each(|(network, port)| self.lag().sends(network, port, now));
        let answer = self.kv.txn(&txn).await?;
        if !answer.succeeded {
            return Err(MemberError::Contended(self.names.own(&host)));
        }
        self.told.send_replace(());
        for (id, entry) in after {
            match entry {
                Some(entry) => _ = told.insert(id, (entry, answer.header.revision)),
                None => _ = told.remove(&id),
            }
        }
        Ok(done)
    }
}

/// The entry of a port or server, without its digest.
fn entry(one: &Told) -> Entry {
    match one {
        Told::Port(port) => {
            Entry { v: VERSION, network: Some(port.network), server: port.server, groups: port.groups.clone(), digest: 0 }
        }
        Told::Server(_) => Entry { v: VERSION, network: None, server: None, groups: BTreeSet::new(), digest: 0 },
    }
}

/// What is left of a host that was forgotten.
impl Fleet {
    /// Deletes what a host has told of that was forgotten, and what it was asked to do. Whether there was anything.
    ///
    /// # Errors
    /// It is one of the fleet again, or etcd does not answer; what is left of it then goes with the next try.
    pub(super) async fn forget_published(&self, host: &str) -> Result<bool, ForgetError> {
        let (kv, names) = (&self.kv, &self.names);
        let gone = Compare::absent(Keys::One(names.host(host)));
        let (_, listed) = kv.pages(names.own(host)).all().await?;
        let groups = |found: &KeyValue| read_versioned::<Entry>(found).map(|entry| entry.groups).unwrap_or_default();
        let mut left = listed.as_slice();
        while !left.is_empty() {
            let mut parts = 0;
            let fits = |found: &&KeyValue| {
                parts += 4 + groups(found).len();
                parts <= ALL_PARTS
            };
            let (some, rest) = left.split_at(left.iter().take_while(fits).count());
            left = rest;
            // A port may be on another host by now.
            let ports = some.iter().filter_map(|found| match names.own_entry_of(host, &found.key)? {
                PublishedId::Port(port) => Some(Op::read(Keys::One(names.place(port)))),
                PublishedId::Server(_) => None,
            });
            let places = kv.txn(&Txn::when(Vec::new(), ports.collect())).await?;
            let places = places.found().into_iter().flatten();
            let places = places.filter(|found| read_versioned::<Place>(found).is_ok_and(|place| place.host == host));
            let places: BTreeMap<&str, i64> = places.map(|found| (found.key.as_str(), found.mod_revision)).collect();
            let (mut when, mut keys) = (vec![gone.clone()], Vec::new());
            for found in some {
                when.push(Compare::unchanged(found.key.clone(), found.mod_revision));
                keys.push(found.key.clone());
                match names.own_entry_of(host, &found.key) {
                    Some(PublishedId::Server(server)) => keys.push(names.server(host, server)),
                    Some(PublishedId::Port(port)) => {
                        keys.extend(groups(found).into_iter().map(|group| names.member(group, host, port)));
                        let network = read_versioned::<Entry>(found).ok().and_then(|entry| entry.network);
                        keys.extend(network.map(|network| names.port(network, host, port)));
                        let place = names.place(port);
                        if let Some(revision) = places.get(place.as_str()) {
                            when.push(Compare::unchanged(place.clone(), *revision));
                            keys.push(place);
                        }
                    }
                    None => {}
                }
            }
            let deletes = keys.into_iter().map(|key| Op::Delete(Keys::One(key))).collect();
            if !kv.txn(&Txn::when(when, deletes)).await?.succeeded {
                return Err(ForgetError::Alive(host.to_owned()));
            }
        }
        let asked = [names.calls(host), names.answers(host)].map(|prefix| Op::Delete(Keys::Prefix(prefix)));
        kv.txn(&Txn::when(vec![gone], asked.into())).await?;
        Ok(!listed.is_empty())
    }
}
