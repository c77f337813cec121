//! Security groups in the kernel: sets of groups that ports are in, and what they allow.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::inventory::Inventory;
use crate::model::{GroupId, PortId};
use crate::plan::groups::KEYS_OF_ALL;
use crate::plan::{NumberedProfile, Op, Plan, Reason, Step};

use super::{Error, Reconciler, Work};

/// How long to wait until the kernel is asked again for what it has refused: at first, and at most.
const AGAIN: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(10);

impl Reconciler {
    /// Brings what the kernel has of these groups, whose records have changed, to their records, for all ports that are in them: in one
    /// transaction, after which the kernel has all of the change or none of it. The connections that they do not allow any more are
    /// ended then. The caller has the claims on the groups, and has made their records durable; it takes them back when this fails.
    ///
    /// # Errors
    /// The kernel refused; or a set of groups has too many rules for it.
    pub(crate) async fn apply_groups(&self, groups: &[GroupId]) -> Result<(), Error> {
        self.set_profiles(|state| state.profiles.told_with(groups)).await
    }

    /// The same of a group that another host of the fleet has changed. Ports whose groups' rules are too many for this host are closed; what
    /// the kernel refuses is tried again.
    pub(crate) async fn follow_group(self: &Arc<Self>, group: GroupId) {
        if !self.applied_or_closed(group).await {
            self.start(Work::TellGroup(group));
        }
    }

    /// Tries until the kernel has what the group's record says.
    pub(super) async fn tell_group_again(&self, group: GroupId) {
        let mut rest = AGAIN;
        while !self.stopping.load(Ordering::Relaxed) {
            self.wait_until(Instant::now() + rest).await;
            if self.applied_or_closed(group).await {
                return;
            }
            rest = (rest * 2).min(LONGEST);
        }
    }

    async fn applied_or_closed(&self, group: GroupId) -> bool {
        let refused = match self.apply_groups(&[group]).await {
            Err(error @ (Error::RulesTooMany | Error::RulesOfAllTooMany { .. })) => {
                tracing::error!(%group, %error, "ports in a security group that another host has changed are closed");
                self.close_profiles(group).await.err()
            }
            applied => applied.err(),
        };
        if let Some(error) = &refused {
            tracing::warn!(%group, %error, "the kernel does not follow a security group yet that another host has changed");
        }
        refused.is_none()
    }

    /// Has the kernel allow nothing by the sets with this group, until one of their groups changes.
    async fn close_profiles(&self, group: GroupId) -> Result<(), Error> {
        let _turn = self.telling_groups.lock().await;
        let (mut profiles, keys) = {
            let state = self.lock();
            (state.profiles(&state.profiles.told_with(&[group])), state.profiles.keys())
        };
        profiles.iter_mut().filter_map(|one| one.profile.as_mut()).for_each(|profile| profile.allows.clear());
        let own = profiles.iter().map(|one| (one.number, 0)).collect();
        let reason = Reason::Change;
        self.carry_out(Plan { reason, steps: vec![Step::new(Op::SetProfiles { profiles }, None)] }).await?;
        self.lock().profiles.told(&own, keys);
        Ok(())
    }

    /// Tells the kernel what a port's groups allow, if it does not have it.
    pub(super) async fn tell_groups(self: &Arc<Self>, port: PortId) -> Result<(), Error> {
        let groups = {
            let mut state = self.lock();
            let record = &state.port(port)?.record;
            let (network, groups) = (record.network_id, record.groups.clone());
            if !groups.is_empty() && state.check_bridge_of_members(network) {
                self.start_members(&mut state);
            }
            groups
        };
        if self.lock().profiles.untold(&groups).is_empty() {
            return Ok(());
        }
        self.set_profiles(|state| state.profiles.untold(&groups)).await
    }

    /// Brings these sets in the kernel to their groups' records.
    async fn set_profiles(&self, numbers: impl FnOnce(&Inventory) -> BTreeSet<u32>) -> Result<(), Error> {
        // Two changes reach the kernel in the order in which they were read here.
        let _turn = self.telling_groups.lock().await;
        let profiles: Vec<NumberedProfile> = {
            let state = self.lock();
            state.profiles(&numbers(&state))
        };
        if profiles.is_empty() {
            return Ok(());
        }
        let mut own = BTreeMap::new();
        for NumberedProfile { number, profile } in &profiles {
            let nets = profile.as_ref().map(|profile| profile.nets().map_err(|_| Error::RulesTooMany)).transpose()?;
            own.insert(*number, nets.unwrap_or_default().len());
        }
        let keys = {
            let state = self.lock();
            let keys = state.keys_of_all(&own);
            // What makes them fewer is not refused.
            if keys > KEYS_OF_ALL && keys > state.profiles.keys() {
                return Err(Error::RulesOfAllTooMany { keys });
            }
            keys
        };
        let reason = Reason::Change;
        self.carry_out(Plan { reason, steps: vec![Step::new(Op::SetProfiles { profiles }, None)] }).await?;
        self.lock().profiles.told(&own, keys);
        Ok(())
    }
}
