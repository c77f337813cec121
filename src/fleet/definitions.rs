//! What is defined for all hosts: networks and subnets.
//!
//! A host changes a definition only where it has followed all that was done to it before, which each transaction has as its guard: nothing
//! of what it depends on is newer than the revision up to which the host has followed. What was changed meanwhile is followed first, and the
//! change is tried again.

use serde::{Deserialize, Serialize};

use super::agent::Fleet;
use super::etcd::{Compare, KeyValue, Keys, Op, Relation, Target, Txn};
use super::keys::Names;
use super::member::{MemberError, VERSION, json, read_versioned};
use super::published::Published;
use crate::model::definition::{Definition, DefinitionName as Name, Redefinition};
use crate::model::{Network, NetworkKind};

/// How many guards, and how many changes, etcd takes in one transaction unless it is told otherwise (`--max-txn-ops`).
const PARTS: usize = 128;

/// Why something is not defined as asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotDefined {
    /// Other hosts have changed something at this revision, which is to be followed first.
    Newer(i64),
    /// Ports of these hosts use it.
    InUse(Name, Vec<String>),
    /// So many parts of a transaction are more than etcd takes.
    TooMany(usize),
    /// Etcd does not answer, or this host is not one of the fleet.
    Unreachable(MemberError),
}

impl From<MemberError> for NotDefined {
    fn from(error: MemberError) -> Self {
        Self::Unreachable(error)
    }
}

#[derive(Serialize, Deserialize)]
struct Record {
    v: u32,
    #[serde(flatten)]
    definition: Definition,
}

/// The value of a definition in etcd.
fn value(definition: &Definition) -> Vec<u8> {
    let mut definition = definition.clone();
    if let Definition::Network(network) = &mut definition {
        network.zone = 0;
    }
    json(&Record { v: VERSION, definition })
}

/// The definition that a key has.
pub(super) fn read(found: &KeyValue) -> Result<Definition, MemberError> {
    Ok(read_versioned::<Record>(found)?.definition)
}

/// What a network has in the fleet that no other may have: its number of VXLAN, its VLAN of a physical network, or that one's untagged side.
fn segment(names: &Names, network: &Network) -> Option<String> {
    match (network.kind, &network.physical_network, network.segmentation_id) {
        (NetworkKind::Vxlan, _, Some(vni)) => Some(names.vxlan(vni)),
        (NetworkKind::Vlan, Some(physical), Some(vlan)) => Some(names.vlan(physical, vlan)),
        (NetworkKind::Flat, Some(physical), _) if network.bridge.is_none() => Some(names.vlan(physical, 0)),
        _ => None,
    }
}

/// That nothing of these keys is newer than a revision.
fn none_newer(keys: Keys, revision: i64) -> Compare {
    Compare { keys, is: Relation::Less, to: Target::ModRevision(revision + 1) }
}

impl Fleet {
    /// Changes what is defined, all or nothing, and answers with the revision.
    ///
    /// # Errors
    /// Nothing is changed then, unless etcd's answer was lost: what came of that is followed as what other hosts do is.
    pub async fn redefine(&self, changes: &[Redefinition]) -> Result<i64, NotDefined> {
        let registration = self.registered()?;
        let followed = *self.followed.borrow();
        let mut txn = Txn::when(vec![Compare::made(self.names.host(&self.host()), registration.created)], Vec::new());
        let (mut reads, mut ports) = (Vec::new(), Vec::new());
        for change in changes {
            match change {
                Redefinition::New(definition) => {
                    let key = self.names.definition(definition.name());
                    txn.compare.push(Compare::absent(Keys::One(key.clone())));
                    self.depends(definition, followed, &mut txn, &mut reads, changes);
                    if let Definition::Network(network) = definition
                        && let Some(segment) = segment(&self.names, network)
                    {
                        txn.compare.push(Compare::absent(Keys::One(segment.clone())));
                        txn.success.push(Op::put(segment.clone(), network.id.to_string()));
                        reads.push(Keys::One(segment));
                    }
                    txn.success.push(Op::put(key.clone(), value(definition)));
                    reads.push(Keys::One(key));
                }
                Redefinition::Changed(definition) => {
                    let key = self.names.definition(definition.name());
                    txn.compare.extend([Compare::present(key.clone()), none_newer(Keys::One(key.clone()), followed)]);
                    self.depends(definition, followed, &mut txn, &mut reads, changes);
                    txn.success.push(Op::put(key.clone(), value(definition)));
                    reads.push(Keys::One(key));
                }
                Redefinition::Gone(name) => {
                    let key = self.names.definition(*name);
                    txn.compare.extend([Compare::present(key.clone()), none_newer(Keys::One(key.clone()), followed)]);
                    txn.success.push(Op::Delete(Keys::One(key.clone())));
                    reads.push(Keys::One(key));
                    ports.push(*name);
                }
            }
        }
        for name in &ports {
            let network = name.network();
            self.check_unused(*name).await?;
            if let Name::Network(_) = name {
                // Who has made a port meanwhile has told of it.
                txn.compare.push(Compare::absent(Keys::Prefix(self.names.ports(network))));
                txn.success.push(Op::Delete(Keys::Prefix(self.names.subnets(network))));
            }
        }
        for gone in self.segments_of(&ports).await? {
            txn.success.push(Op::Delete(Keys::One(gone)));
        }
        let parts = txn.compare.len().max(txn.success.len()).max(reads.len());
        if parts > PARTS {
            return Err(NotDefined::TooMany(parts));
        }
        let answer = self.kv.txn(&txn.or_read(reads)).await.map_err(MemberError::from)?;
        if answer.succeeded {
            return Ok(answer.header.revision);
        }
        for name in &ports {
            self.check_unused(*name).await?;
        }
        // What is newer is followed before the next try. What is gone has no revision but a later one than was followed.
        let newest = answer.found().into_iter().flatten().map(|found| found.mod_revision).max();
        Err(NotDefined::Newer(newest.unwrap_or(0).max(followed + 1)))
    }

    /// A subnet depends on its network, and on the other subnets of it.
    fn depends(&self, definition: &Definition, followed: i64, txn: &mut Txn, reads: &mut Vec<Keys>, beside: &[Redefinition]) {
        let Definition::Subnet(subnet) = definition else { return };
        let network = self.names.definition(Name::Network(subnet.network_id));
        let is_beside = beside
            .iter()
            .any(|one| matches!(one, Redefinition::New(Definition::Network(network)) if network.id == subnet.network_id));
        if !is_beside {
            txn.compare.push(Compare::present(network.clone()));
            reads.push(Keys::One(network));
        }
        let siblings = Keys::Prefix(self.names.subnets(subnet.network_id));
        txn.compare.push(none_newer(siblings.clone(), followed));
        reads.push(siblings);
    }

    /// Refuses what ports of other hosts use. Ports of this host are gone when it asks, and etcd may have to be told of it first.
    async fn check_unused(&self, name: Name) -> Result<(), NotDefined> {
        let (own, mut told) = (self.host(), self.told.subscribe());
        let deadline = tokio::time::Instant::now() + super::etcd::LIMIT;
        loop {
            let (of_this_host, others): (Vec<String>, Vec<String>) =
                self.users(name).await?.into_iter().partition(|host| *host == own);
            if !others.is_empty() {
                return Err(NotDefined::InUse(name, others));
            }
            if of_this_host.is_empty() || tokio::time::timeout_at(deadline, told.changed()).await.is_err() {
                return Ok(());
            }
        }
    }

    /// The hosts with ports that use something.
    async fn users(&self, name: Name) -> Result<Vec<String>, MemberError> {
        let network = name.network();
        let (_, found) = self.kv.pages(self.names.ports(network)).all().await?;
        let mut hosts: Vec<String> = Vec::new();
        for entry in &found {
            let Some((host, _)) = self.names.port_of(network, &entry.key) else { continue };
            let uses = match name {
                Name::Network(_) => true,
                Name::Subnet(_, subnet) => Published::read(entry)?.subnets.contains(&subnet),
            };
            if uses && hosts.last() != Some(&host) {
                hosts.push(host);
            }
        }
        Ok(hosts)
    }

    /// What networks that are to go have that no other may have.
    async fn segments_of(&self, gone: &[Name]) -> Result<Vec<String>, MemberError> {
        let mut all = Vec::new();
        for name in gone.iter().filter(|name| matches!(name, Name::Network(_))) {
            let found = self.kv.range(&Keys::One(self.names.definition(*name)), None, 0).await?.keys;
            if let Some(Definition::Network(network)) = found.first().map(read).transpose()? {
                all.extend(segment(&self.names, &network));
            }
        }
        Ok(all)
    }

    /// Defines again what is missing, which this host has not seen deleted or cannot do without. What is there stays as it is. Answers with
    /// what cannot be: another network has its number by now, or it is of such a network.
    pub(super) async fn define_again(&self, missing: &[Definition]) -> Result<Vec<Name>, MemberError> {
        let registration = self.registered()?;
        let host = self.names.host(&self.host());
        let mut refused = Vec::new();
        for definition in missing {
            let key = self.names.definition(definition.name());
            let mut when = vec![Compare::made(host.clone(), registration.created), Compare::absent(Keys::One(key.clone()))];
            let mut puts = vec![Op::put(key.clone(), value(definition))];
            match definition {
                Definition::Network(network) => {
                    if let Some(segment) = segment(&self.names, network) {
                        when.push(Compare::absent(Keys::One(segment.clone())));
                        puts.push(Op::put(segment, network.id.to_string()));
                    }
                }
                Definition::Subnet(subnet) => {
                    when.push(Compare::present(self.names.definition(Name::Network(subnet.network_id))))
                }
            }
            let answer = self.kv.txn(&Txn::when(when, puts).or_read([Keys::One(host.clone()), Keys::One(key)])).await?;
            if answer.succeeded {
                continue;
            }
            let read = answer.found();
            let found = |place: usize| read.get(place).and_then(|found| found.first());
            if found(0).is_none_or(|record| record.create_revision != registration.created) {
                return Err(MemberError::Forgotten(self.host()));
            }
            if found(1).is_none() {
                refused.push(definition.name());
            }
        }
        Ok(refused)
    }

    /// Takes definitions back that this host has just made and cannot note. What cannot be taken back stays, and is followed.
    pub async fn take_back(&self, names: Vec<Name>) {
        for name in names {
            if let Ok(segments) = self.segments_of(&[name]).await {
                let keys = [self.names.definition(name)].into_iter().chain(segments);
                let gone = keys.map(|key| Op::Delete(Keys::One(key))).collect();
                if let Err(error) = self.kv.txn(&Txn::when(Vec::new(), gone)).await {
                    tracing::warn!(?name, %error, "what was not made here may be defined for other hosts");
                }
            }
        }
    }

    /// Waits until this host has followed up to a revision. False if it takes too long.
    pub async fn has_followed(&self, revision: i64) -> bool {
        let mut followed = self.followed.subscribe();
        let waiting = followed.wait_for(|now| *now >= revision);
        tokio::time::timeout(super::etcd::LIMIT, waiting).await.is_ok_and(|seen| seen.is_ok())
    }
}
