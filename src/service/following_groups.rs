//! Security groups that other hosts of the fleet define. What the kernel refuses of one closes its ports, and never opens them.

use std::sync::Arc;

use crate::inventory;
use crate::model::definition::Definition;
use crate::model::rule::{DEFAULT_NAME, default_name_of};
use crate::model::{Group, GroupId, PortId};
use crate::store::{Change, Purpose};

use super::{Error, Service};

impl Service {
    /// Waits until what this host's clients have under way with a group is done or undone.
    async fn ends_work_on_group(&self, group: GroupId) -> Result<Option<inventory::ClaimGuard>, Error> {
        match self.reconciler.claim(|state| state.claim_group(group)).await {
            Ok(claim) => Ok(Some(claim)),
            Err(Error::Inventory(inventory::Error::NoSuchGroup(_))) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes in a group as it is in the fleet.
    pub(super) async fn follow_group(&self, group: Group) -> Result<(), Error> {
        let (id, _claim) = (group.id, self.ends_work_on_group(group.id).await?);
        // A group that a request is just making is not in the fleet yet, and is not made.
        let rival = { self.reconciler.lock().default_group(&group.project_id) };
        let rival = rival.filter(|rival| *rival != id && group.name == DEFAULT_NAME);
        let _rivals_claim = match rival {
            Some(rival) => self.ends_work_on_group(rival).await?,
            None => None,
        };
        let (changes, before) = {
            let mut state = self.reconciler.lock();
            let before = state.group(id).ok().map(|entry| entry.record.clone());
            if before.as_ref() == Some(&group) {
                return Ok(());
            }
            let mut before = vec![(id, before)];
            let mut after = vec![group.clone()];
            if let Some(rival) = rival.and_then(|rival| state.group(rival).ok()).map(|entry| entry.record.clone()) {
                after.insert(0, Group { name: default_name_of(self.host()), ..rival.clone() });
                before.push((rival.id, Some(rival)));
            }
            for group in &after {
                match state.group(group.id) {
                    Ok(_) => state.replace_group(group.clone()),
                    Err(_) => state.add_group(group.clone()),
                }
            }
            (after.into_iter().map(|group| Change::PutGroup(Box::new(group))).collect(), before)
        };
        if let Err(error) = self.reconciler.commit(changes, Purpose::Growing).await {
            let mut state = self.reconciler.lock();
            for (id, before) in before {
                match before {
                    Some(before) => state.replace_group(before),
                    None => drop(state.remove_group(id)),
                }
            }
            return Err(error.into());
        }
        self.reconciler.follow_group(id).await;
        Ok(())
    }

    /// Takes in that a group is not in the fleet any more. Answers with it if it has to stay: ports here are in it, or it was never this
    /// fleet's.
    pub(super) async fn unfollow_group(self: &Arc<Self>, id: GroupId) -> Result<Option<Definition>, Error> {
        let Some(_claim) = self.ends_work_on_group(id).await? else { return Ok(None) };
        let before = {
            let members: Vec<PortId> = self.reconciler.lock().group(id)?.ports.iter().copied().collect();
            if self.end_standbys(members).await {
                return Ok(None);
            }
            let mut state = self.reconciler.lock();
            let entry = state.group(id)?;
            if !entry.record.is_shared() || !entry.ports.is_empty() {
                return Ok(Some(Definition::Group(Box::new(entry.record.clone()))));
            }
            state.remove_group(id)
        };
        if let Err(error) = self.reconciler.commit(vec![Change::DeleteGroup(id)], Purpose::Freeing).await {
            before.into_iter().for_each(|entry| self.reconciler.lock().add_group(entry.record));
            return Err(error.into());
        }
        Ok(None)
    }
}
