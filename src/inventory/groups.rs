//! Security groups: their records, which ports are in them, and which other groups refer to them.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::rule::DEFAULT_NAME;
use crate::model::{Group, GroupId, Port, Remote, RuleId};

use super::claim::{Claim, ClaimGuard, Unclaimed};
use super::entries::GroupEntry;
use super::{Error, Inventory};

impl Inventory {
    /// A security group by id.
    pub fn group(&self, id: GroupId) -> Result<&GroupEntry, Error> {
        self.groups.get(&id).ok_or(Error::NoSuchGroup(id))
    }

    /// The group that a rule is of.
    pub fn group_of_rule(&self, id: RuleId) -> Result<&GroupEntry, Error> {
        self.rules.get(&id).and_then(|group| self.groups.get(group)).ok_or(Error::NoSuchRule(id))
    }

    /// Whether there is a rule with this id.
    pub fn has_rule(&self, id: RuleId) -> bool {
        self.rules.contains_key(&id)
    }

    /// A project's default group.
    pub fn default_group(&self, project: &str) -> Option<GroupId> {
        self.default_groups.get(project).copied()
    }

    /// Takes the claim on a security group.
    pub fn claim_group<E: From<Error>>(&self, id: GroupId) -> Result<ClaimGuard, Unclaimed<E>> {
        Ok(self.group(id)?.claim.take()?)
    }

    /// Refuses groups that do not exist, and waits for those that are just being made or deleted.
    pub fn check_groups<E: From<Error>>(&self, ids: &BTreeSet<GroupId>) -> Result<(), Unclaimed<E>> {
        ids.iter().try_for_each(|id| Ok(self.group(*id)?.claim.check_free()?))
    }

    /// The groups with rules that name a group, itself among them, and how many such rules each has.
    pub fn referrers(&self, id: GroupId) -> impl Iterator<Item = (GroupId, usize)> + '_ {
        self.referrers.get(&id).into_iter().flatten().map(|(group, rules)| (*group, *rules))
    }

    /// Takes in all groups of the store, before ports.
    pub fn load_groups(&mut self, groups: Vec<Group>) {
        groups.into_iter().for_each(|group| self.add_group(group));
    }

    /// Takes in a group. There may be ports in it, and rules that name it, where it is told of late.
    pub fn add_group(&mut self, record: Group) {
        let id = record.id;
        let ports = match self.profiles.has(id) {
            true => self.ports.values().filter(|entry| entry.record.groups.contains(&id)).map(|entry| entry.record.id).collect(),
            false => BTreeSet::new(),
        };
        self.groups.insert(id, GroupEntry { ports, claim: Claim::default(), record });
        self.refer(id);
    }

    /// Puts a changed record in a group's place.
    pub fn replace_group(&mut self, record: Group) {
        let id = record.id;
        self.unrefer(id);
        if let Some(entry) = self.groups.get_mut(&id) {
            entry.record = record;
        }
        self.refer(id);
    }

    /// Forgets a group without ports.
    pub fn remove_group(&mut self, id: GroupId) -> Option<GroupEntry> {
        self.unrefer(id);
        self.groups.remove(&id)
    }

    /// Notes what a group's record says beside its rules, and what these refer to.
    fn refer(&mut self, id: GroupId) {
        let Some(entry) = self.groups.get(&id) else { return };
        if entry.record.name == DEFAULT_NAME {
            self.default_groups.insert(entry.record.project_id.clone(), id);
        }
        self.rules.extend(entry.record.rules.iter().map(|rule| (rule.id, id)));
        for (remote, rules) in remotes(&entry.record) {
            self.referrers.entry(remote).or_default().insert(id, rules);
        }
    }

    fn unrefer(&mut self, id: GroupId) {
        let Some(entry) = self.groups.get(&id) else { return };
        if self.default_groups.get(&entry.record.project_id) == Some(&id) {
            self.default_groups.remove(&entry.record.project_id);
        }
        for rule in &entry.record.rules {
            self.rules.remove(&rule.id);
        }
        for remote in remotes(&entry.record).into_keys() {
            if let Some(referrers) = self.referrers.get_mut(&remote) {
                referrers.remove(&id);
                if referrers.is_empty() {
                    self.referrers.remove(&remote);
                }
            }
        }
    }

    /// Notes that a port is in its groups.
    pub(super) fn join_groups(&mut self, port: &Port) {
        self.profiles.join(&port.groups);
        for group in &port.groups {
            if let Some(entry) = self.groups.get_mut(group) {
                entry.ports.insert(port.id);
            }
        }
    }

    /// Notes that a port is no longer in its groups.
    pub(super) fn leave_groups(&mut self, port: &Port) {
        self.profiles.leave(&port.groups);
        for group in &port.groups {
            if let Some(entry) = self.groups.get_mut(group) {
                entry.ports.remove(&port.id);
            }
        }
    }

    /// Panics when an index over groups does not hold exactly what the records say.
    #[cfg(debug_assertions)]
    pub(super) fn assert_groups(&self) {
        let (mut ports, mut referrers) = (BTreeSet::new(), BTreeMap::new());
        for port in self.ports.values().map(|entry| &entry.record) {
            let known = port.groups.iter().filter(|group| self.groups.contains_key(group));
            ports.extend(known.map(|group| (*group, port.id)));
        }
        for group in self.groups.values().map(|entry| &entry.record) {
            referrers.extend(remotes(group).into_iter().map(|(remote, rules)| ((remote, group.id), rules)));
        }
        let noted = self.groups.iter().flat_map(|(id, entry)| entry.ports.iter().map(move |port| (*id, *port)));
        assert_eq!(noted.collect::<BTreeSet<_>>(), ports, "ports of security groups");
        let noted = self.referrers.iter();
        let noted = noted.flat_map(|(id, groups)| groups.iter().map(move |(group, rules)| ((*id, *group), *rules)));
        assert_eq!(noted.collect::<BTreeMap<_, _>>(), referrers, "who refers to security groups");
        let rules = self.groups.iter().flat_map(|(id, entry)| entry.record.rules.iter().map(move |rule| (rule.id, *id)));
        assert_eq!(rules.collect::<std::collections::HashMap<_, _>>(), self.rules, "rules of security groups");
        let defaults = self.groups.values().filter(|entry| entry.record.name == DEFAULT_NAME);
        let defaults = defaults.map(|entry| (entry.record.project_id.clone(), entry.record.id));
        assert_eq!(defaults.collect::<std::collections::HashMap<_, _>>(), self.default_groups, "default groups");
    }
}

/// The groups that a group's rules refer to, and how many of them refer to each.
fn remotes(group: &Group) -> BTreeMap<GroupId, usize> {
    let mut remotes = BTreeMap::new();
    for rule in &group.rules {
        if let Remote::Group(remote) = rule.allows.remote {
            *remotes.entry(remote).or_default() += 1;
        }
    }
    remotes
}
