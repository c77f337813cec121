//! Where guests' DHCP requests are heard: a socket on each bridge, from its first port that is to be answered to its last.

use std::io;
use std::sync::Arc;

use crate::inventory::Inventory;
use crate::model::PortId;

use super::Reconciler;
use super::hearing::Bridge;

impl Reconciler {
    /// Has a port's requests heard on the bridge that its device is in, as long as they are to be answered.
    pub(crate) fn follow_responder(self: &Arc<Self>, state: &mut Inventory, port: PortId) {
        let record = state.ports.get(&port).map(|entry| &entry.record).filter(|record| record.attached_to().is_some());
        let bridge = record.filter(|record| state.is_served(record)).and_then(|record| state.have.device(record.id)?.master);
        state.responder.place(port, bridge);
        state.responder.take_left().into_iter().for_each(|left| self.close(state, left));
        if let Some(bridge) = bridge.filter(|bridge| !state.have.is_heard(*bridge))
            && let Err(error) = self.open(state, bridge)
        {
            // The port's fact `responder` tells it, and the next look tries it again.
            tracing::debug!(bridge, %error, "no socket could be bound for DHCP requests");
        }
    }

    fn open(self: &Arc<Self>, state: &mut Inventory, bridge: u32) -> io::Result<()> {
        let thread = self.hearing.thread()?;
        let socket = self.kernel.hear_requests(bridge)?;
        let stop = self.hearing.begin(bridge);
        (self.answer)(self, Bridge { index: bridge, socket, thread, stop });
        state.have.hear(bridge, true);
        tracing::debug!(bridge, "DHCP requests are heard");
        Ok(())
    }

    fn close(&self, state: &mut Inventory, bridge: u32) {
        state.have.hear(bridge, false);
        self.hearing.end(bridge);
    }
}
