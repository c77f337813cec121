//! Security groups in the kernel: sets of groups that ports are in, and what they allow.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::inventory::Inventory;
use crate::model::{GroupId, PortId};
use crate::plan::groups::KEYS_OF_ALL;
use crate::plan::{NumberedProfile, Op, Plan, Reason, Step};

use super::{Error, Reconciler};

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

    /// Tells the kernel what a port's groups allow, if it does not have it.
    pub(super) async fn tell_groups(self: &Arc<Self>, port: PortId) -> Result<(), Error> {
        let groups = self.lock().port(port)?.record.groups.clone();
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
