//! What is defined for all hosts: networks, subnets and security groups.
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
use crate::model::rule::{DEFAULT_NAME, default_name_of};
use crate::model::{Group, Network, NetworkId, NetworkKind, Scope};

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
    match &mut definition {
        Definition::Network(network) => network.zone = 0,
        Definition::Group(group) => group.scope = Scope::Fleet,
        Definition::Subnet(_) => {}
    }
    json(&Record { v: VERSION, definition })
}

/// The definition that a key has.
pub(super) fn read(found: &KeyValue) -> Result<Definition, MemberError> {
    Ok(read_versioned::<Record>(found)?.definition)
}

/// What a definition has in the fleet that no other may have: a network's number of VXLAN, its VLAN of a physical network, or that one's
/// untagged side; a project of which a group is its own.
fn taken(names: &Names, definition: &Definition) -> Option<(String, String)> {
    match definition {
        Definition::Network(network) => Some((segment(names, network)?, network.id.to_string())),
        Definition::Group(group) if group.name == DEFAULT_NAME => {
            Some((names.default_group(&group.project_id), group.id.to_string()))
        }
        Definition::Subnet(_) | Definition::Group(_) => None,
    }
}

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
        let (mut reads, mut gone) = (Vec::new(), Vec::new());
        for change in changes {
            match change {
                Redefinition::New(definition) => {
                    let key = self.names.definition(definition.name());
                    txn.compare.push(Compare::absent(Keys::One(key.clone())));
                    self.depends(definition, followed, &mut txn, &mut reads, changes);
                    if let Some((taken, by)) = taken(&self.names, definition) {
                        txn.compare.push(Compare::absent(Keys::One(taken.clone())));
                        txn.success.push(Op::put(taken.clone(), by));
                        reads.push(Keys::One(taken));
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
                    gone.push(*name);
                }
                Redefinition::Needed(name) => {
                    let key = self.names.definition(*name);
                    txn.compare.push(Compare::present(key.clone()));
                    reads.push(Keys::One(key));
                }
            }
        }
        for name in &gone {
            self.check_unused(*name).await?;
            match *name {
                // Who has made a port meanwhile has told of it.
                Name::Network(network) => {
                    txn.compare.push(Compare::absent(Keys::Prefix(self.names.ports(network))));
                    txn.success.push(Op::Delete(Keys::Prefix(self.names.subnets(network))));
                }
                Name::Subnet(..) => {}
                // The rules that name it are known, and go with it.
                Name::Group(group) => {
                    txn.compare.push(Compare::absent(Keys::Prefix(self.names.members(group))));
                    txn.compare.push(none_newer(Keys::Prefix(self.names.groups()), followed));
                }
            }
        }
        for taken in self.taken_by(&gone).await? {
            txn.success.push(Op::Delete(Keys::One(taken)));
        }
        let parts = txn.compare.len().max(txn.success.len()).max(reads.len());
        if parts > PARTS {
            return Err(NotDefined::TooMany(parts));
        }
        let answer = self.kv.txn(&txn.or_read(reads)).await.map_err(MemberError::from)?;
        if answer.succeeded {
            return Ok(answer.header.revision);
        }
        let mut newest = answer.found().into_iter().flatten().map(|found| found.mod_revision).max();
        for name in &gone {
            self.check_unused(*name).await?;
            if let Name::Group(_) = name {
                let (_, groups) = self.kv.pages(self.names.groups()).all().await.map_err(MemberError::from)?;
                newest = newest.max(groups.iter().map(|found| found.mod_revision).max());
            }
        }
        // What is newer is followed before the next try. What is gone has no revision but a later one than was followed.
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
        let mut hosts: Vec<String> = match name {
            Name::Network(network) => self.hosts_on(network, |_| Ok(true)).await?,
            Name::Subnet(network, subnet) => {
                self.hosts_on(network, |entry| Ok(Published::read(entry)?.subnets.contains(&subnet))).await?
            }
            Name::Group(group) => {
                let (_, found) = self.kv.pages(self.names.members(group)).all().await?;
                found.iter().filter_map(|entry| self.names.host_of_member(group, &entry.key)).map(str::to_owned).collect()
            }
        };
        hosts.dedup();
        Ok(hosts)
    }

    /// The hosts of those ports of a network that are asked for.
    async fn hosts_on(
        &self,
        network: NetworkId,
        is_asked_for: impl Fn(&KeyValue) -> Result<bool, MemberError>,
    ) -> Result<Vec<String>, MemberError> {
        let (_, found) = self.kv.pages(self.names.ports(network)).all().await?;
        let mut hosts: Vec<String> = Vec::new();
        for entry in &found {
            let Some((host, _)) = self.names.port_of(network, &entry.key) else { continue };
            if hosts.last() != Some(&host) && is_asked_for(entry)? {
                hosts.push(host);
            }
        }
        Ok(hosts)
    }

    /// What definitions that are to go have that no other may have.
    async fn taken_by(&self, gone: &[Name]) -> Result<Vec<String>, MemberError> {
        let mut all = Vec::new();
        for name in gone.iter().filter(|name| !matches!(name, Name::Subnet(..))) {
            let found = self.kv.range(&Keys::One(self.names.definition(*name)), None, 0).await?.keys;
            let definition = found.first().map(read).transpose()?;
            all.extend(definition.and_then(|definition| taken(&self.names, &definition)).map(|(key, _)| key));
        }
        Ok(all)
    }

    /// Defines again what is missing, which this host has not seen deleted or cannot do without. What is there stays as it is. Answers with
    /// what cannot be: another network has its number by now, or it is of such a network. A group that was its project's own, and is not any
    /// more, gets another name.
    pub(super) async fn define_again(&self, missing: &[Definition]) -> Result<Vec<Name>, MemberError> {
        let mut refused = Vec::new();
        for definition in missing {
            let mut is_defined = self.define_missing(definition).await?;
            if let Definition::Group(group) = definition
                && !is_defined
            {
                let beside = Group { name: default_name_of(&self.host()), ..Group::clone(group) };
                is_defined = self.define_missing(&Definition::Group(Box::new(beside))).await?;
            }
            if !is_defined {
                refused.push(definition.name());
            }
        }
        Ok(refused)
    }

    /// Defines something unless it is defined. False if it cannot be.
    async fn define_missing(&self, definition: &Definition) -> Result<bool, MemberError> {
        let registration = self.registered()?;
        let host = self.names.host(&self.host());
        let key = self.names.definition(definition.name());
        let mut when = vec![Compare::made(host.clone(), registration.created), Compare::absent(Keys::One(key.clone()))];
        let mut puts = vec![Op::put(key.clone(), value(definition))];
        if let Some((taken, by)) = taken(&self.names, definition) {
            when.push(Compare::absent(Keys::One(taken.clone())));
            puts.push(Op::put(taken, by));
        }
        if let Definition::Subnet(subnet) = definition {
            when.push(Compare::present(self.names.definition(Name::Network(subnet.network_id))));
        }
        let answer = self.kv.txn(&Txn::when(when, puts).or_read([Keys::One(host), Keys::One(key)])).await?;
        if answer.succeeded {
            return Ok(true);
        }
        let read = answer.found();
        let found = |place: usize| read.get(place).and_then(|found| found.first());
        match found(0).is_none_or(|record| record.create_revision != registration.created) {
            true => Err(MemberError::Forgotten(self.host())),
            false => Ok(found(1).is_some()),
        }
    }

    /// Puts a definition back as it was before this host has changed it at a revision, unless another host has changed it since.
    pub async fn put_back(&self, definition: &Definition, revision: i64) {
        let key = self.names.definition(definition.name());
        let txn = Txn::when(vec![Compare::unchanged(key.clone(), revision)], vec![Op::put(key, value(definition))]);
        if let Err(error) = self.kv.txn(&txn).await {
            tracing::warn!(name = ?definition.name(), %error, "a change that this host could not make may be there for other hosts");
        }
    }

    /// Takes definitions back that this host has just made and cannot note. What cannot be taken back stays, and is followed.
    pub async fn take_back(&self, names: Vec<Name>) {
        for name in names {
            if let Ok(taken) = self.taken_by(&[name]).await {
                let keys = [self.names.definition(name)].into_iter().chain(taken);
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
