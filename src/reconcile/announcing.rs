//! Telling where a port is once its device was made: the machines on its bridge, and the switches behind it, may know it elsewhere, and
//! its guest may not know that it has moved.

use std::sync::Arc;
use std::time::Duration;

use crate::inventory::Inventory;
use crate::model::{Phase, PortId};
use crate::neighbours;
use crate::telemetry::meters;

use super::Reconciler;

/// How often it is told, and how long after each other.
const TIMES: u32 = 3;
const APART: Duration = Duration::from_millis(300);

impl Reconciler {
    /// Tells where a port is, as long as it is there.
    pub(super) async fn announce(self: &Arc<Self>, port: PortId) {
        let Ok(_turn) = self.listening.turns.acquire().await else { return };
        for time in 0..TIMES {
            if time > 0 {
                tokio::time::sleep(APART).await;
            }
            let Some((bridge, frames)) = announcements(&self.lock(), port) else { return };
            let number = u64::try_from(frames.len()).unwrap_or_default();
            match self.listening.say(self.kernel.as_ref(), bridge, frames).await {
                Ok(()) => meters().announcements.inc_by(number),
                Err(error) => return tracing::debug!(%port, %error, "it could not be told where a port is"),
            }
        }
        tracing::debug!(%port, "it was told where a port is");
    }
}

/// What to tell of a port, and on which bridge; none while it is not ACTIVE. What another port may use as well, or another machine
/// has, is left to those.
///
/// Without port security nothing keeps an advertisement from its own guest, which may be asking whether it can have that address.
fn announcements(state: &Inventory, port: PortId) -> Option<(u32, Vec<Vec<u8>>)> {
    let entry = state.ports.get(&port).filter(|entry| entry.phase == Phase::Active)?;
    let speaker = state.speaker(port)?;
    let in_use = state.conflicts.get(&port).map(|conflict| conflict.address);
    let told = state.unshared(&entry.record).into_iter().filter(|address| Some(*address) != in_use);
    let told = told.filter(|address| speaker.is_guarded || address.is_ipv4());
    let frames = told.map(|address| neighbours::announcement(address, speaker.mac));
    Some((speaker.bridge, frames.chain([neighbours::whereabouts(speaker.mac)]).collect()))
}
