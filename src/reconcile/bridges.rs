//! Agent-made bridges: set back when they differ from their record.

use std::sync::Arc;
use std::time::Duration;

use crate::inventory::Inventory;
use crate::kernel::{OpError, OpErrorKind};
use crate::model::{LinkName, NetworkId};
use crate::plan::{Op, Plan, Reason, Step};

use super::{Error, Reconciler};

impl Reconciler {
    /// Sets an agent-made bridge back that was seen to differ.
    pub(super) async fn repair_bridge(self: Arc<Self>, network: NetworkId) {
        let claim = self.claim(|state| state.claim_network(network)).await;
        let plan = {
            let mut state = self.lock();
            let plan = if claim.is_ok() { self.plan_bridge(&state, network) } else { None };
            // What is seen from here on asks for another time.
            state.networks.get_mut(&network).into_iter().for_each(|entry| entry.repairs.begun(plan.is_some()));
            self.note_bridge(&mut state, network);
            if claim.is_err() {
                return;
            }
            plan
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

    /// Takes uplinks out of networks' bridges that the configuration gives these networks no longer.
    pub(super) fn release_uplinks(self: &Arc<Self>, state: &Inventory, left: Vec<(NetworkId, LinkName)>) {
        let release = |(network, device): (NetworkId, LinkName)| {
            let (uplink, bridge) = (state.have.named(device.as_str())?, state.have.own_bridge(network)?);
            let op = Op::ReleaseUplink { network, index: uplink.index, bridge: bridge.index };
            (uplink.master == Some(bridge.index)).then(|| Step::new(op, None))
        };
        let steps: Vec<Step> = left.into_iter().filter_map(release).collect();
        if steps.is_empty() {
            return;
        }
        let reconciler = Arc::clone(self);
        self.tasks.spawn(async move {
            if let Err(error) = reconciler.carry_out_on_bridge(Plan { reason: Reason::Change, steps }).await {
                tracing::warn!(%error, "an uplink could not be taken out of the bridge of a network that has it no longer");
            }
        });
    }

    /// Carries out a plan that is about a bridge alone.
    pub(crate) async fn carry_out_on_bridge(self: &Arc<Self>, plan: Plan) -> Result<(), Error> {
        let done = self.carry_out(plan).await?;
        self.note_links(&mut self.lock(), done.seen, done.at);
        Ok(())
    }

    /// Notes that a network's bridge could not be closed; whether it may be used all the same.
    pub(super) fn could_not_close(&self, network: NetworkId, error: &OpError) -> bool {
        if error.kind != OpErrorKind::HostNotClosed {
            return false;
        }
        let mut state = self.lock();
        if state.networks.contains_key(&network) && state.open.why.insert(network, error.said.clone()).is_none() {
            tracing::warn!(%network, tolerated = state.open.tolerated, said = error.said, "a bridge cannot be closed to the host");
        }
        self.publish_health(&state);
        state.open.tolerated
    }
}
