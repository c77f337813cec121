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
use super::keys::Names;
use super::member::{ForgetError, MemberError, VERSION, json, read_versioned};
use super::published::Told;
use crate::model::group::GROUPS_OF_A_PORT;
use crate::model::{GroupId, NetworkId, PortId, PublishedId, Registration, ServerId, Standby};

/// Of how many a transaction tells at most.
const SOME: usize = 32;

/// How many changes etcd takes in a transaction.
const ALL_PARTS: usize = 128;

/// With so many there is room for one more port: it has four, and one for each security group that it was or is in.
const PARTS: usize = ALL_PARTS - 4 - 2 * GROUPS_OF_A_PORT;

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
    /// What was told of a port.
    #[serde(default)]
    tells: Tells,
    digest: u64,
}

/// What a host tells of a port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Tells {
    /// That it is there.
    #[default]
    Active,
    /// That it is kept down, since another host has what it has: where a port of this id is to be found is not told.
    KeptDown,
    /// That it has a silent device here.
    Standby,
}

/// What a host has told of, as in its list, with the revisions of the entries.
pub(super) type Listed = BTreeMap<PublishedId, (Entry, i64)>;

/// A key of what was told.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// What is told.
    Record(String),
    /// Where the port is.
    Place(String, NetworkId),
    /// That it is in a security group.
    Member(String),
}

impl Key {
    fn name(&self) -> &str {
        let (Self::Record(name) | Self::Place(name, _) | Self::Member(name)) = self;
        name
    }

    fn put(self, host: &str, one: &Told) -> Op {
        match self {
            Self::Record(key) => Op::put(key, one.value()),
            Self::Place(key, network) => Op::put(key, json(&Place { v: VERSION, network, host: host.to_owned() })),
            Self::Member(key) => Op::put(key, Vec::new()),
        }
    }
}

/// Where a port is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Place {
    v: u32,
    pub network: NetworkId,
    pub host: String,
}

impl Entry {
    fn of(one: &Told) -> Self {
        let nothing =
            Self { v: VERSION, network: None, server: None, groups: BTreeSet::new(), tells: Tells::Active, digest: one.digest() };
        match one {
            Told::Port(port) => Self {
                network: Some(port.network),
                server: port.server,
                groups: port.groups.clone(),
                tells: if port.is_kept_down { Tells::KeptDown } else { Tells::Active },
                ..nothing
            },
            Told::Standby(_) => Self { tells: Tells::Standby, ..nothing },
            Told::Server(_) => nothing,
        }
    }

    /// Whether it is of a port that is active.
    pub(super) fn is_active(&self) -> bool {
        self.tells == Tells::Active
    }

    /// Of a port that was handed to another host, and of which it is not told yet that its device is silent.
    pub(super) fn handed() -> Self {
        Self { v: VERSION, network: None, server: None, groups: BTreeSet::new(), tells: Tells::Standby, digest: 0 }
    }

    /// The keys that tell what the entry is of.
    fn keys(&self, names: &Names, host: &str, id: PublishedId) -> BTreeSet<Key> {
        let (port, network) = match (id, self.tells, self.network) {
            (PublishedId::Server(server), ..) => return BTreeSet::from([Key::Record(names.server(host, server))]),
            (PublishedId::Port(port), Tells::Standby, _) => return BTreeSet::from([Key::Record(names.binding(port, host))]),
            (PublishedId::Port(port), _, Some(network)) => (port, network),
            (PublishedId::Port(_), _, None) => return BTreeSet::new(),
        };
        let place = (self.tells == Tells::Active).then(|| Key::Place(names.place(port), network));
        let groups = self.groups.iter().map(|group| Key::Member(names.member(*group, host, port)));
        groups.chain([Key::Record(names.port(network, host, port))]).chain(place).collect()
    }
}

/// What takes a port's keys from one host to another: what the first one told of it goes, and what the other one will tell of it comes.
pub(super) fn hand(names: &Names, port: PortId, (from, before): (&str, Option<&Entry>), (to, there): (&str, &Told)) -> Vec<Op> {
    let id = PublishedId::Port(port);
    // What was told of it for this host when it came here, and what this host has told since.
    let mut had = Entry::of(there).keys(names, from, id);
    had.extend(before.into_iter().flat_map(|before| before.keys(names, from, id)));
    let puts = Entry::of(there).keys(names, to, id);
    let gone = had.iter().filter(|key| puts.iter().all(|put| put.name() != key.name()));
    let gone: Vec<Op> = gone.map(|key| Op::Delete(Keys::One(key.name().to_owned()))).collect();
    gone.into_iter().chain(puts.into_iter().map(|key| key.put(to, there))).collect()
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
        let mut waiting: BTreeSet<PublishedId> = {
            let mut listed = self.listed.lock().await;
            listed.clear();
            let (_, entries) = self.kv.pages(self.names.own(&host)).all().await?;
            for found in &entries {
                if let Some(id) = self.names.own_entry_of(&host, &found.key) {
                    listed.insert(id, (read_versioned(found)?, found.mod_revision));
                }
            }
            local.note_changes(true);
            let own = local.published();
            let differs = own.iter().filter(|(id, one)| listed.get(id).is_none_or(|(entry, _)| entry.digest != one.digest()));
            let gone = listed.keys().filter(|id| !own.contains_key(id));
            differs.map(|(id, _)| *id).chain(gone.copied()).collect()
        };
        loop {
            while !waiting.is_empty() {
                let some: Vec<PublishedId> = waiting.iter().take(SOME).copied().collect();
                let done = self.publish_some(&**local, (&registration, signed), &some).await?;
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
    ) -> Result<usize, MemberError> {
        let host = self.host();
        let mut listed = self.listed.lock().await;
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
            // Where it is decides who told etcd last: it is told of once that is settled.
            if let PublishedId::Port(port) = id
                && matches!(local.standby(*port), Some(Standby::HandedTo(_)))
            {
                continue;
            }
            let own = self.names.own_entry(&host, *id);
            let before = listed.get(id);
            let guard = match before {
                Some((_, revision)) => Compare::unchanged(own.clone(), *revision),
                None => Compare::absent(Keys::One(own.clone())),
            };
            let now = local.published_one(*id);
            let entry = now.as_ref().map(Entry::of);
            if before.map(|(before, _)| before.digest) == entry.as_ref().map(|entry| entry.digest) {
                continue;
            }
            let keys = |entry: Option<&Entry>| entry.map(|entry| entry.keys(&self.names, &host, *id)).unwrap_or_default();
            let (had, has) = (keys(before.map(|(before, _)| before)), keys(entry.as_ref()));
            txn.success.extend(had.difference(&has).map(|key| Op::Delete(Keys::One(key.name().to_owned()))));
            let puts = has.into_iter().filter(|key| !(had.contains(key) && matches!(key, Key::Member(_))));
            if let Some(one) = &now {
                txn.success.extend(puts.map(|key| key.put(&host, one)));
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
            PublishedId::Port(port) => {
                Some((entry.as_ref().or_else(|| listed.get(id).map(|(before, _)| before))?.network?, *port))
            }
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
                Some(entry) => _ = listed.insert(id, (entry, answer.header.revision)),
                None => _ = listed.remove(&id),
            }
        }
        Ok(done)
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
            let places: BTreeMap<&str, &KeyValue> = places.map(|found| (found.key.as_str(), found)).collect();
            let (mut when, mut keys) = (vec![gone.clone()], BTreeSet::new());
            for found in some {
                when.push(Compare::unchanged(found.key.clone(), found.mod_revision));
                keys.insert(found.key.clone());
                let Some(id) = names.own_entry_of(host, &found.key) else { continue };
                let told = read_versioned::<Entry>(found).map(|entry| entry.keys(names, host, id)).unwrap_or_default();
                keys.extend(told.iter().filter(|key| !matches!(key, Key::Place(..))).map(|key| key.name().to_owned()));
                if let PublishedId::Port(port) = id
                    && let Some(place) = places.get(names.place(port).as_str())
                {
                    when.push(Compare::unchanged(place.key.clone(), place.mod_revision));
                    keys.insert(place.key.clone());
                    // One that was handed to it and that it has not told of itself.
                    let network = read_versioned::<Place>(place).ok().map(|place| place.network);
                    keys.extend(network.map(|network| names.port(network, host, port)));
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
