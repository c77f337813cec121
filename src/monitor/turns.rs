//! One operation at a time on a machine: its monitor serves one client, and a slot found free is to stay so until it is used.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Mutex as Waiting, OwnedMutexGuard};
use tokio::time::timeout;

use super::MonitorError;

/// How long a turn is waited for.
const LIMIT: Duration = Duration::from_secs(10);

/// The turns of all machines, by the paths of their monitors.
#[derive(Debug, Default)]
pub struct Turns(Mutex<HashMap<PathBuf, Weak<Waiting<()>>>>);

/// A turn; it ends when it is dropped.
#[derive(Debug)]
pub struct Turn {
    _taken: OwnedMutexGuard<()>,
}

impl Turns {
    /// Waits for the turn on a machine.
    ///
    /// # Errors
    /// Other operations of nicd have it for too long.
    pub async fn take(&self, monitor: &Path) -> Result<Turn, MonitorError> {
        let turn = self.of(monitor);
        let busy = |_| MonitorError::Crowded { path: monitor.to_owned(), limit: LIMIT };
        timeout(LIMIT, turn.lock_owned()).await.map(|_taken| Turn { _taken }).map_err(busy)
    }

    fn of(&self, monitor: &Path) -> Arc<Waiting<()>> {
        // Nothing can panic while it is held.
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = turns.get(monitor).and_then(Weak::upgrade) {
            return turn;
        }
        let fresh = Arc::new(Waiting::new(()));
        turns.retain(|_, turn| turn.strong_count() > 0);
        turns.insert(monitor.to_owned(), Arc::downgrade(&fresh));
        fresh
    }
}
