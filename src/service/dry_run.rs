//! What an attach or a detach would do to the host: the same checks and the same plan, and nothing reserved, claimed or told.

use crate::model::PortId;
use crate::model::action::{Attach, DryRun};
use crate::plan::{Plan, Reason, removal};

use super::{Error, Service};

impl Service {
    /// The plan for a request that is not made. It is what would be done now: another request may come in between.
    ///
    /// # Errors
    /// What the request itself would be refused with before the kernel or the store is asked.
    pub fn dry_run(&self, what: &DryRun) -> Result<Plan, Error> {
        match what {
            DryRun::Attach(attach) => self.dry_attach(attach),
            DryRun::Detach(port) => self.dry_detach(*port),
        }
    }

    fn dry_attach(&self, attach: &Attach) -> Result<Plan, Error> {
        let state = self.reconciler.lock();
        let network = state.network_of(&attach.nic, &state.server(attach.server_id)?.record.project_id)?;
        let record = self.bound(&state, attach, (network, None), || self.reconciler.store.last_commit() + 1)?;
        self.reconciler.plan_record(&state, &record, Reason::DryRun)
    }

    fn dry_detach(&self, port: PortId) -> Result<Plan, Error> {
        let state = self.reconciler.lock();
        let absent = self.reconciler.absent(&state, port)?;
        Ok(removal(Reason::DryRun, &[absent], &[], &state.have))
    }
}
