//! The bridges whose DHCP requests are heard, and the thread that waits for them.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

use crate::sys::packet::PacketSocket;
use crate::threads;

/// A bridge's socket, with the thread that waits for it until it is told to stop.
#[derive(Debug)]
pub(super) struct Bridge {
    pub(super) index: u32,
    pub(super) socket: PacketSocket,
    pub(super) thread: Handle,
    pub(super) stop: CancellationToken,
}

/// The thread, and the bridges that it hears.
#[derive(Debug, Default)]
pub(super) struct Hearing {
    thread: OnceLock<Handle>,
    heard: Mutex<HashMap<u32, CancellationToken>>,
    stop: CancellationToken,
}

impl Hearing {
    fn heard(&self) -> MutexGuard<'_, HashMap<u32, CancellationToken>> {
        // Nothing can panic while it is held.
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread, which is started for the first bridge.
    pub(super) fn thread(&self) -> io::Result<Handle> {
        if let Some(thread) = self.thread.get() {
            return Ok(thread.clone());
        }
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (thread, stop) = (runtime.handle().clone(), self.stop.clone());
        threads::start("nicd-dhcp", move || runtime.block_on(stop.cancelled()))?;
        Ok(self.thread.get_or_init(|| thread).clone())
    }

    /// Notes that a bridge is heard until the token says otherwise.
    pub(super) fn begin(&self, bridge: u32) -> CancellationToken {
        let stop = self.stop.child_token();
        if let Some(before) = self.heard().insert(bridge, stop.clone()) {
            before.cancel();
        }
        stop
    }

    /// Ends the hearing of a bridge. Its task has the socket closed.
    pub(super) fn end(&self, bridge: u32) {
        if let Some(stop) = self.heard().remove(&bridge) {
            stop.cancel();
            tracing::debug!(bridge, "DHCP requests are no longer heard");
        }
    }

    /// Ends it: no further request is answered, and no guest is told.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }
}

impl Drop for Hearing {
    fn drop(&mut self) {
        self.stop();
    }
}
