//! Security groups in the kernel: sets of groups that ports are in, and what they allow.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::model::{GroupId, PortId};
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
        let numbers = self.lock().profiles.with(groups);
        self.set_profiles(&numbers).await
    }

    /// Tells the kernel what a port's groups allow, if it does not have it.
    pub(super) async fn tell_groups(self: &Arc<Self>, port: PortId) -> Result<(), Error> {
        let numbers = {
            let state = self.lock();
            let groups = &state.port(port)?.record.groups;
            if groups.is_empty() {
                return Ok(());
            }
            state.profiles.untold(groups)
        };
        self.set_profiles(&numbers).await
    }

    async fn set_profiles(&self, numbers: &BTreeSet<u32>) -> Result<(), Error> {
        if numbers.is_empty() {
            return Ok(());
        }
        // Two changes reach the kernel in the order in which they were read here.
        let _turn = self.telling_groups.lock().await;
        let profiles: Vec<NumberedProfile> = self.lock().profiles(numbers);
        for profile in profiles.iter().filter_map(|one| one.profile.as_ref()) {
            profile.nets().map_err(|_| Error::RulesTooMany)?;
        }
        let reason = Reason::Change;
        self.carry_out(Plan { reason, steps: vec![Step::new(Op::SetProfiles { profiles }, None)] }).await?;
        self.lock().profiles.told(numbers);
        Ok(())
    }
}
