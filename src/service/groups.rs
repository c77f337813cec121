//! Security groups and their rules.

use std::collections::BTreeSet;
use std::sync::Arc;

use uuid::Uuid;

use crate::clock;
use crate::inventory::{ClaimGuard, GroupEntry, Inventory, Unclaimed};
use crate::model::definition::{Definition, DefinitionName, Redefinition};
use crate::model::group::{GROUPS_OF_A_PORT, RULES};
use crate::model::idempotency::Made;
use crate::model::rule::{DEFAULT_NAME, GroupChange, NewGroup, NewRule, RULE_REVISION};
use crate::model::{Group, GroupId, Remote, Rule, RuleId, Scope};
use crate::store::{Change, Purpose};

use super::{Context, Error, Reply, Service};

/// A rule and the group that it is of.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleView {
    /// The record.
    pub rule: Rule,
    /// Its group.
    pub group: GroupId,
    /// Its group's project.
    pub project_id: String,
}

/// Which rules to list. What is `None` does not matter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RuleFilter {
    /// This one.
    pub id: Option<RuleId>,
    /// Those of this group.
    pub group: Option<GroupId>,
}

impl Service {
    /// One security group.
    ///
    /// # Errors
    /// There is none with that id.
    pub fn group(&self, id: GroupId) -> Result<Group, Error> {
        Ok(self.reconciler.lock().group(id)?.record.clone())
    }

    /// All security groups, by id.
    pub fn groups(&self) -> Vec<Group> {
        self.reconciler.lock().groups.values().map(|entry| entry.record.clone()).collect()
    }

    /// One rule.
    ///
    /// # Errors
    /// There is none with that id.
    pub fn rule(&self, id: RuleId) -> Result<RuleView, Error> {
        let state = self.reconciler.lock();
        let group = &state.group_of_rule(id)?.record;
        let rule = group.rules.iter().find(|rule| rule.id == id);
        Ok(view(group, rule.ok_or(crate::inventory::Error::NoSuchRule(id))?))
    }

    /// The rules that fit a filter.
    pub fn rules(&self, filter: RuleFilter) -> Vec<RuleView> {
        let state = self.reconciler.lock();
        let of = |entry: &GroupEntry| {
            let rules = entry.record.rules.iter().filter(|rule| filter.id.is_none_or(|id| rule.id == id));
            rules.map(|rule| view(&entry.record, rule)).collect::<Vec<_>>()
        };
        match (filter.group, filter.id) {
            (Some(group), _) => state.group(group).map_or_else(|_| Vec::new(), of),
            (None, Some(rule)) => state.group_of_rule(rule).map_or_else(|_| Vec::new(), of),
            (None, None) => state.groups.values().flat_map(of).collect(),
        }
    }

    pub(super) async fn create_groups(self: Arc<Self>, new: Vec<NewGroup>, context: &Context) -> Result<Reply, Error> {
        if new.iter().any(|one| one.name == DEFAULT_NAME) {
            return Err(Error::DefaultGroupName);
        }
        let projects: BTreeSet<&str> = new.iter().map(|one| one.project_id.as_str()).collect();
        for project in projects {
            self.own_group(project).await?;
        }
        let now = clock::now();
        let groups: Vec<Group> = new.into_iter().map(|one| self.in_scope(one.made(now, Uuid::new_v4))).collect();
        let claims = {
            let mut state = self.reconciler.lock();
            let mut seen = BTreeSet::new();
            if let Some(taken) = groups.iter().find(|group| state.groups.contains_key(&group.id) || !seen.insert(group.id)) {
                return Err(Error::IdTaken(taken.id.0));
            }
            groups.iter().for_each(|group| state.add_group(group.clone()));
            // No other operation knows them yet.
            groups.iter().filter_map(|group| state.groups.get(&group.id)?.claim.take().ok()).collect::<Vec<ClaimGuard>>()
        };
        let mut changes: Vec<Change> = groups.iter().map(|group| Change::PutGroup(Box::new(group.clone()))).collect();
        changes.extend(self.note(context, groups.iter().map(|group| Made::Group(group.id)).collect()));
        let shared = groups.iter().filter_map(|group| self.shared_group(group)).map(Redefinition::New).collect();
        if let Err(error) = self.commit_shared(shared, changes, Purpose::Growing, context).await {
            let mut state = self.reconciler.lock();
            groups.iter().for_each(|group| drop(state.remove_group(group.id)));
            return Err(error);
        }
        drop(claims);
        Ok(Reply::Groups(groups))
    }

    /// The default group of a project, made on its first use; none where the configuration asks for none.
    pub(super) async fn own_group(&self, project: &str) -> Result<Option<GroupId>, Error> {
        if !self.reconciler.policy().default_group {
            return Ok(None);
        }
        let (id, made) = self
            .reconciler
            .claim(|state| match state.default_group(project) {
                // One that is just being made is waited for.
                Some(id) => {
                    state.group(id)?.claim.check_free()?;
                    Ok((id, None))
                }
                None => {
                    let description = "Default security group".to_owned();
                    let new = NewGroup {
                        id: GroupId(Uuid::new_v4()),
                        name: DEFAULT_NAME.to_owned(),
                        description,
                        project_id: project.to_owned(),
                    };
                    let record = self.in_scope(new.made(clock::now(), Uuid::new_v4));
                    state.add_group(record.clone());
                    Ok((record.id, Some((state.claim_group(record.id)?, record))))
                }
            })
            .await?;
        if let Some((claim, record)) = made {
            let shared = self.shared_group(&record).map(Redefinition::New).into_iter().collect();
            let changes = vec![Change::PutGroup(Box::new(record))];
            if let Err(error) = self.commit_shared(shared, changes, Purpose::Growing, &Context::default()).await {
                self.reconciler.lock().remove_group(id);
                return Err(error);
            }
            drop(claim);
        }
        Ok(Some(id))
    }

    /// A new group, or a changed one: it is for all hosts, or has its place on this one alone.
    fn in_scope(&self, group: Group) -> Group {
        let scope = if self.reconciler.policy().in_fleet { Scope::Fleet } else { group.scope };
        Group { scope, ..group }
    }

    /// The definition of a group that all hosts have.
    fn shared_group(&self, group: &Group) -> Option<Definition> {
        (group.is_shared() || self.reconciler.policy().in_fleet).then(|| Definition::Group(Box::new(group.clone())))
    }

    /// The groups of a new port of a project: those given, if it may be in them, or else the project's own.
    pub(super) fn groups_of_new(
        &self,
        state: &Inventory,
        port_security: bool,
        given: Option<&BTreeSet<GroupId>>,
        project: &str,
    ) -> Result<BTreeSet<GroupId>, Error> {
        if let Some(given) = given {
            return checked_groups(state, port_security, given.clone());
        }
        let own = state.default_group(project).filter(|_| port_security && self.reconciler.policy().default_group);
        Ok(own.into_iter().collect())
    }

    pub(super) async fn update_group(
        self: Arc<Self>,
        id: GroupId,
        change: GroupChange,
        context: &Context,
    ) -> Result<Reply, Error> {
        let _claim = self.reconciler.claim(|state| state.claim_group(id)).await?;
        let changed = self.replaced_group(id, context, |_, group| {
            let name = change.name.unwrap_or_else(|| group.name.clone());
            if name != group.name && group.name == DEFAULT_NAME {
                return Err(Error::DefaultGroupChange(id));
            }
            if name != group.name && name == DEFAULT_NAME {
                return Err(Error::DefaultGroupName);
            }
            group.name = name;
            group.description = change.description.unwrap_or_else(|| group.description.clone());
            Ok(())
        })?;
        self.record_group(&changed, None, context).await?;
        Ok(Reply::Group(changed.after))
    }

    pub(super) async fn create_rules(self: Arc<Self>, new: Vec<NewRule>, context: &Context) -> Result<Reply, Error> {
        let Some(id) = new.first().map(|rule| rule.group_id) else { return Ok(Reply::Rules(Vec::new())) };
        if new.iter().any(|rule| rule.group_id != id) {
            return Err(Error::RulesOfSeveralGroups);
        }
        let projects: BTreeSet<String> = new.iter().filter_map(|rule| rule.project_id.clone()).collect();
        let now = clock::now();
        let rules = new.into_iter().map(|rule| rule.checked(now)).collect::<Result<Vec<_>, _>>()?;
        let others = rules.iter().filter_map(|rule| match rule.allows.remote {
            Remote::Group(remote) if remote != id => Some(remote),
            _ => None,
        });
        let others: BTreeSet<GroupId> = others.collect();
        let _claim = self
            .reconciler
            .claim(|state| {
                // Waits for an operation that makes or deletes one: only a durable group is referred to.
                state.check_groups(&others)?;
                state.claim_group(id)
            })
            .await?;
        let changed = self.replaced_group(id, context, |state, group| {
            others.iter().try_for_each(|other| state.group(*other).map(drop))?;
            if let Some(given) = projects.iter().find(|project| **project != group.project_id) {
                return Err(Error::RuleOfOtherProject { given: given.clone(), group: id, is: group.project_id.clone() });
            }
            rules.iter().try_for_each(|rule| add_rule(state, group, rule.clone()))
        })?;
        let note = self.note(context, rules.iter().map(|rule| Made::Rule(rule.id)).collect());
        let revision = self.record_group(&changed, note, context).await?;
        if let Err(error) = self.reconciler.apply_groups(&[id]).await {
            return Err(self.take_group_back(changed, revision, error, context).await);
        }
        Ok(Reply::Rules(rules.iter().map(|rule| view(&changed.after, rule)).collect()))
    }

    pub(super) async fn delete_rule(self: Arc<Self>, id: RuleId, context: &Context) -> Result<Reply, Error> {
        let (_claim, group) = self
            .reconciler
            .claim(|state| {
                let group = state.group_of_rule(id)?.record.id;
                context.expects(RULE_REVISION)?;
                Ok((state.claim_group(group)?, group))
            })
            .await?;
        let changed = self.replaced_group(group, &Context::default(), |_, group| {
            let before = group.rules.len();
            group.rules.retain(|rule| rule.id != id);
            if group.rules.len() == before { Err(crate::inventory::Error::NoSuchRule(id).into()) } else { Ok(()) }
        })?;
        let revision = self.record_group(&changed, None, context).await?;
        if let Err(error) = self.reconciler.apply_groups(&[group]).await {
            return Err(self.take_group_back(changed, revision, error, context).await);
        }
        Ok(Reply::Done)
    }

    pub(super) async fn delete_group(self: Arc<Self>, id: GroupId, context: &Context) -> Result<Reply, Error> {
        let keeps_default = self.reconciler.policy().default_group;
        let (_claims, before, referrers) = self
            .reconciler
            .claim(|state| {
                let claim = state.claim_group(id)?;
                let entry = state.group(id)?;
                context.expects(entry.record.revision_number)?;
                if keeps_default && entry.record.name == DEFAULT_NAME {
                    return Err(Error::DefaultGroupDelete(id).into());
                }
                if !entry.ports.is_empty() {
                    return Err(Error::GroupInUse { group: id, ports: entry.ports.len() }.into());
                }
                let others: Vec<GroupId> = state.referrers(id).map(|(other, _)| other).filter(|other| *other != id).collect();
                let claims =
                    others.iter().map(|other| state.claim_group(*other)).collect::<Result<Vec<_>, Unclaimed<Error>>>()?;
                let without = others.iter().filter_map(|other| without(state, *other, id));
                let referrers: Vec<ChangedGroup> =
                    without.map(|changed| ChangedGroup { after: self.in_scope(changed.after), ..changed }).collect();
                // Out of sight at once, so that no port and no rule takes it meanwhile.
                referrers.iter().for_each(|changed| state.replace_group(changed.after.clone()));
                Ok(((claim, claims), state.remove_group(id), referrers))
            })
            .await?;
        let changes = referrers.iter().map(|changed| Change::PutGroup(Box::new(changed.after.clone())));
        let changes = changes.chain([Change::DeleteGroup(id)]).collect();
        let gone =
            before.as_ref().and_then(|entry| self.shared_group(&entry.record)).map(|group| Redefinition::Gone(group.name()));
        let changed = referrers.iter().filter_map(|changed| self.shared_group(&changed.after)).map(Redefinition::Changed);
        if let Err(error) =
            self.commit_shared(gone.into_iter().chain(changed).collect(), changes, Purpose::Freeing, context).await
        {
            let mut state = self.reconciler.lock();
            before.into_iter().for_each(|entry| state.add_group(entry.record));
            referrers.into_iter().for_each(|changed| state.replace_group(changed.before));
            return Err(error);
        }
        let changed: Vec<GroupId> = referrers.iter().map(|changed| changed.after.id).collect();
        // No port was in it, so no packet is judged otherwise now.
        if let Err(error) = self.reconciler.apply_groups(&changed).await {
            tracing::warn!(group = %id, %error, "the kernel does not follow the groups yet whose rules referred to a deleted one");
        }
        Ok(Reply::Done)
    }

    /// Changes a group in memory, where the change is possible. The caller has its claim.
    fn replaced_group(
        &self,
        id: GroupId,
        context: &Context,
        change: impl FnOnce(&Inventory, &mut Group) -> Result<(), Error>,
    ) -> Result<ChangedGroup, Error> {
        let mut state = self.reconciler.lock();
        let before = state.group(id)?.record.clone();
        context.expects(before.revision_number)?;
        let mut after = before.clone();
        change(&state, &mut after)?;
        if after != before {
            renew(&mut after);
            after = self.in_scope(after);
            state.replace_group(after.clone());
        }
        Ok(ChangedGroup { before, after })
    }

    /// Makes a changed group durable, or takes the change back. Answers with the fleet's revision that it has then.
    async fn record_group(&self, changed: &ChangedGroup, note: Option<Change>, context: &Context) -> Result<Option<i64>, Error> {
        if changed.after == changed.before {
            return Ok(None);
        }
        let changes = [Change::PutGroup(Box::new(changed.after.clone()))].into_iter().chain(note).collect();
        let mut shared: Vec<Redefinition> = self.shared_group(&changed.after).map(Redefinition::Changed).into_iter().collect();
        if !shared.is_empty() {
            let (named, before) = (changed.after.names(), changed.before.names());
            shared.extend(named.difference(&before).map(|group| Redefinition::Needed(DefinitionName::Group(*group))));
        }
        let stored = self.commit_shared(shared, changes, Purpose::Growing, context).await;
        if stored.is_err() {
            self.reconciler.lock().replace_group(changed.before.clone());
            self.tell_again(changed.before.id).await;
        }
        stored
    }

    /// Has the kernel follow a record that was put back: a port that was built meanwhile may have told it of the one that is not kept.
    async fn tell_again(&self, group: GroupId) {
        if let Err(error) = self.reconciler.apply_groups(&[group]).await {
            tracing::warn!(%group, %error, "the kernel does not follow a security group whose change was taken back");
        }
    }

    /// Gives a group the record back that it had before a change which the kernel refused.
    async fn take_group_back(&self, changed: ChangedGroup, revision: Option<i64>, cause: Error, context: &Context) -> Error {
        if let Some(((fleet, revision), before)) = self.fleet.get().zip(revision).zip(self.shared_group(&changed.before)) {
            fleet.put_back(&before, revision).await;
        }
        // What was noted under a key says that something was made.
        let forget = context.key.clone().map(Change::ForgetKey);
        let changes = [Change::PutGroup(Box::new(changed.before.clone()))].into_iter().chain(forget).collect();
        let id = changed.before.id;
        self.reconciler.lock().replace_group(changed.before.clone());
        self.tell_again(id).await;
        match self.reconciler.commit(changes, Purpose::Freeing).await {
            Ok(()) => cause,
            Err(store) => {
                let left = format!("the record of security group {}: {store}", changed.after.id);
                Error::NotUndone { cause: cause.to_string(), left }
            }
        }
    }
}

/// A group's record before a change and after it.
#[derive(Debug)]
struct ChangedGroup {
    before: Group,
    after: Group,
}

/// The group without the rules that refer to another.
fn without(state: &Inventory, id: GroupId, other: GroupId) -> Option<ChangedGroup> {
    let before = state.group(id).ok()?.record.clone();
    let mut after = before.clone();
    after.rules.retain(|rule| rule.allows.remote != Remote::Group(other));
    renew(&mut after);
    Some(ChangedGroup { before, after })
}

fn renew(group: &mut Group) {
    group.updated_at = clock::now();
    group.revision_number += 1;
}

/// Adds a rule to a group's record, if it may be there.
fn add_rule(state: &Inventory, group: &mut Group, rule: Rule) -> Result<(), Error> {
    if state.has_rule(rule.id) || group.rules.iter().any(|other| other.id == rule.id) {
        return Err(Error::IdTaken(rule.id.0));
    }
    if let Some(same) = group.rules.iter().find(|other| other.allows == rule.allows) {
        return Err(Error::RuleExists(same.id));
    }
    if group.rules.len() >= RULES {
        return Err(Error::TooManyRules { group: group.id, limit: RULES });
    }
    group.rules.push(rule);
    Ok(())
}

/// The groups that a port is to be in, if it may be in them.
pub(super) fn checked_groups(
    state: &Inventory,
    port_security: bool,
    given: BTreeSet<GroupId>,
) -> Result<BTreeSet<GroupId>, Error> {
    if !port_security && !given.is_empty() {
        return Err(Error::GroupsWithoutPortSecurity);
    }
    if given.len() > GROUPS_OF_A_PORT {
        return Err(Error::TooManyGroups { given: given.len(), limit: GROUPS_OF_A_PORT });
    }
    given.iter().try_for_each(|id| state.group(*id).map(drop))?;
    Ok(given)
}

fn view(group: &Group, rule: &Rule) -> RuleView {
    RuleView { rule: rule.clone(), group: group.id, project_id: group.project_id.clone() }
}
