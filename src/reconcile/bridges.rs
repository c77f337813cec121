//! Agent-made bridges: set back when they differ from their record.

use std::sync::Arc;
use std::time::Duration;

use crate::inventory::Inventory;
use crate::inventory::flapping::BridgeRepairs;
use crate::kernel::OpErrorKind;
use crate::model::NetworkId;
use crate::plan::{BridgeMade, Desired, Plan, Reason, plan};

use super::{Error, Reconciler};

impl Reconciler {
    /// Has an agent-made bridge set back that differs from its record; one that another program keeps changing, after a while.
    pub(super) fn evaluate_bridge(self: &Arc<Self>, state: &mut Inventory, network: NetworkId) {
        let differs = self.plan_bridge(state, network).is_some();
        let repairs = state.networks.get_mut(&network).filter(|_| differs).map(|entry| &mut entry.repairs);
        let wait = repairs.and_then(BridgeRepairs::next);
        self.note_bridge(state, network);
        let Some(wait) = wait else { return };
        let reconciler = Arc::clone(self);
        self.tasks.spawn(async move {
            tokio::time::sleep(wait).await;
            reconciler.repair_bridge(network).await;
        });
    }

    /// Sets an agent-made bridge back that was seen to differ.
    async fn repair_bridge(self: Arc<Self>, network: NetworkId) {
        let claim = self.claim(|state| state.claim_network(network)).await;
        let plan = {
            let mut state = self.lock();
            // What is seen from here on asks for another time.
            state.networks.get_mut(&network).into_iter().for_each(|entry| entry.repairs.begun());
            if claim.is_err() {
                return;
            }
            self.plan_bridge(&state, network)
        };
        let outcome = match plan {
            None => Ok(()),
            Some(plan) => self.carry_out_on_bridge(plan).await,
        };
        let open = match &outcome {
            Err(Error::Kernel(error)) => error.kind == OpErrorKind::HostNotClosed && !self.could_not_close(network, error),
            _ => false,
        };
        let mut state = self.lock();
        drop(claim);
        let Some(entry) = state.networks.get_mut(&network) else { return };
        let Err(error) = outcome else { return entry.repairs.done() };
        let wait = entry.repairs.failed();
        if entry.repairs.fails_anew() {
            tracing::warn!(%network, %error, "a bridge could not be set back, and is tried again");
        }
        if open {
            // Its ports are not right then.
            self.follow_networks(&mut state, &[network]);
        }
        self.repair_bridge_later(network, wait);
    }

    fn repair_bridge_later(self: &Arc<Self>, network: NetworkId, wait: Duration) {
        let reconciler = Arc::clone(self);
        // Not in the tracker: a stop need not wait for it.
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            reconciler.repair_bridge(network).await;
        });
    }

    /// What would set an agent-made bridge that is there back to its record; none when it is as it should be.
    pub(crate) fn plan_bridge(&self, state: &Inventory, network: NetworkId) -> Option<Plan> {
        state.have.own_bridge(network).or_else(|| state.have.unmarked_bridge(network))?;
        let bridge = state.desired_bridge(&state.networks.get(&network)?.record);
        let BridgeMade::ByAgent { .. } = bridge.made else { return None };
        let plan = plan(Reason::Drift, &Desired { bridges: vec![bridge], ..Desired::default() }, &state.have).ok()?;
        (!plan.steps.is_empty()).then_some(plan)
    }

    /// Carries out a plan that is about a bridge alone.
    pub(crate) async fn carry_out_on_bridge(&self, plan: Plan) -> Result<(), Error> {
        let done = self.carry_out(plan).await?;
        self.note_links(&mut self.lock(), done.seen, done.at);
        Ok(())
    }
}
