//! Bringing a port's device to a record that a client has changed.

use std::sync::Arc;

use crate::clock;
use crate::kernel::exec::Timing;
use crate::model::{Phase, PhaseEvent, Port, PortId, Readiness};
use crate::plan::Reason;
use crate::reconcile::{Failed, NAMESPACE_WAIT, Why};

use super::{Context, Error, Service};

impl Service {
    /// Brings the device to its port's new record. The change is durable; what the kernel refuses now is tried again.
    pub(super) async fn apply_change(self: &Arc<Self>, port: PortId, context: &Context) {
        let built = self.reconciler.build(port, Reason::Change, Vec::new(), Timing::Off).await.map(drop);
        self.applied(port, built, context);
    }

    /// Tells how a port is after its device was brought to its record, or was not.
    pub(super) fn applied(&self, port: PortId, built: Result<(), Failed>, context: &Context) {
        match built {
            Ok(()) => {
                let mut state = self.reconciler.lock();
                self.reconciler.follow_responder(&mut state, port);
                state.advertise_soon(port);
                let (readiness, why) = self.reconciler.readiness(&state, port);
                if state.port(port).is_ok_and(|entry| matches!(entry.phase, Phase::Building | Phase::Error)) {
                    return self.reconciler.ended(&mut state, port, readiness, why, context);
                }
                self.reconciler.transition(&mut state, port, PhaseEvent::Observed(readiness), why, context);
            }
            // A namespace that is away is waited for; whatever else stands against it is an error.
            Err(Failed { error: error @ Error::NamespaceGone { .. }, .. }) => {
                let mut state = self.reconciler.lock();
                let why = Why { reason: error.reason(), detail: error.to_string() };
                self.reconciler.transition(&mut state, port, PhaseEvent::Observed(Readiness::Waiting), Some(why), context);
                self.reconciler.postpone(&mut state, port, NAMESPACE_WAIT);
            }
            Err(Failed { error, .. }) => self.reconciler.failed(port, Reason::Change, &error, context),
        }
    }
}

/// The record of a port that is being changed.
pub(super) fn renewed(before: &Port) -> Port {
    Port { updated_at: clock::now(), revision_number: before.revision_number + 1, ..before.clone() }
}
