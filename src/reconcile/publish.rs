//! Telling of ports, bounded: one whose guest flaps its NIC is told of at once, then at most four times a second, and its last
//! state always. What a client's request causes is told as it happens: clients bound that themselves.

use std::time::Instant;

use crate::events;
use crate::inventory::Inventory;
use crate::inventory::telling::{Known, Told};
use crate::model::{PhaseEvent, PortId};

use super::{Context, Reconciler, Why, port_event};

impl Reconciler {
    /// Tells that a port has changed from what it was before, or what `note` says of it.
    pub(super) fn publish_port(
        &self,
        state: &mut Inventory,
        port: PortId,
        before: Known,
        note: Option<&'static str>,
        context: &Context,
    ) {
        let Some(entry) = state.ports.get_mut(&port) else { return };
        match entry.telling.happened(before, note, context.request_id.is_some(), Instant::now()) {
            Told::Now(old) => {
                let reason = note.map(str::to_owned).or_else(|| entry.reason.clone());
                let event = port_event(events::EventKind::PortStatus, &entry.record, Some(old), Some(entry.phase), reason);
                state.untold.forget(port);
                self.emit(event, context);
            }
            Told::Later(at) => {
                state.untold.set(port, at);
                self.retries.notify_one();
            }
        }
    }

    /// Applies an event to a port's phase, with its cause, and publishes the new phase.
    pub(crate) fn transition(&self, state: &mut Inventory, port: PortId, event: PhaseEvent, why: Option<Why>, context: &Context) {
        let Some(entry) = state.ports.get_mut(&port) else { return };
        let before = entry.phase;
        let Some(after) = before.after(event) else {
            tracing::debug!(%port, phase = before.as_str(), ?event, "not possible in this phase");
            return;
        };
        let reason = why.as_ref().map(|why| why.reason.to_owned());
        let quiet = before == after && entry.reason == reason;
        entry.detail = why.map(|why| why.detail);
        if quiet {
            return;
        }
        let known = (before, std::mem::replace(&mut entry.reason, reason));
        let had_errors = !state.errors.is_empty();
        state.set_phase(port, after);
        if had_errors == state.errors.is_empty() {
            self.tell_soon();
        }
        self.publish_port(state, port, known, None, context);
    }

    /// Tells what was withheld of ports, and whose time has come.
    pub(super) fn publish_withheld(&self, state: &mut Inventory, now: Instant) {
        while let Some(port) = state.untold.take(now) {
            let Some(entry) = state.ports.get_mut(&port) else { continue };
            let (phase, reason) = (entry.phase, entry.reason.as_deref());
            if let Some((old, word)) = entry.telling.due((phase, reason), now) {
                let event = port_event(events::EventKind::PortStatus, &entry.record, Some(old), Some(phase), word);
                self.emit(event, &Context::default());
            }
        }
    }
}
