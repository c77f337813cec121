//! Where guests' DHCP requests are heard: a socket on each bridge, from its first port that is to be answered to its last.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::inventory::Inventory;
use crate::model::PortId;

use super::Reconciler;
use super::hearing::Bridge;

/// How long a bridge that could not be heard is left alone.
const AGAIN: Duration = Duration::from_secs(1);

impl Reconciler {
    /// Has a port's requests heard on the bridge that its device is in, as long as they are to be answered.
    pub(crate) fn follow_responder(self: &Arc<Self>, state: &mut Inventory, port: PortId) {
        let record = state.ports.get(&port).map(|entry| &entry.record).filter(|record| record.attached_to().is_some());
        let served = record.filter(|record| state.served(record).is_some());
        let is_served = served.is_some();
        let bridge = served.and_then(|record| state.have.device(record.id)?.master);
        self.follow_adverts(state, port, bridge);
        state.responder.place(port, bridge);
        // Whom nicd tells no address, it has none to complain of.
        if !is_served && state.end_decline(port) {
            self.tell_soon();
        }
        state.responder.take_left().into_iter().for_each(|left| self.close(state, left));
        let Some(bridge) = bridge.filter(|bridge| !state.have.is_heard(*bridge)) else { return };
        if let Some(due) = state.responder.due(bridge, Instant::now()) {
            return self.judge_at(state, port, due);
        }
        match self.open(state, bridge) {
            Ok(()) if state.responder.succeeds(bridge) => self.tell_soon(),
            Ok(()) => {}
            Err(error) => self.cannot_hear(state, bridge, &error),
        }
    }

    /// A bridge cannot be heard, or no longer: its ports' fact `responder` and health tell it, and it is tried again after a while.
    pub(super) fn cannot_hear(&self, state: &mut Inventory, bridge: u32, error: &io::Error) {
        if !state.responder.succeeds(bridge) {
            tracing::warn!(bridge, %error, "DHCP requests are not heard on a bridge");
        }
        self.close(state, bridge);
        let now = Instant::now();
        for port in state.responder.fails(bridge, error.to_string(), now + AGAIN) {
            self.judge_at(state, port, now);
        }
        self.tell_soon();
    }

    fn open(self: &Arc<Self>, state: &mut Inventory, bridge: u32) -> io::Result<()> {
        let thread = self.hearing.thread()?;
        let socket = self.kernel.hear_requests(bridge)?;
        let stop = self.hearing.begin(bridge);
        state.adverts.open(bridge);
        (self.answer)(self, Bridge { index: bridge, socket, thread, stop });
        state.have.hear(bridge, true);
        tracing::debug!(bridge, "DHCP requests are heard");
        Ok(())
    }

    fn close(&self, state: &mut Inventory, bridge: u32) {
        state.have.hear(bridge, false);
        state.adverts.close(bridge);
        self.hearing.end(bridge);
    }
}
