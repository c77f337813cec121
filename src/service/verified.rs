//! What a comparison of memory, store and kernel found, and the last one.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde::Serialize;
use tokio::sync::Semaphore;

use crate::plan::Deviation;

/// One comparison at a time, and the last one.
#[derive(Debug)]
pub(super) struct Verifying {
    pub(super) one: Semaphore,
    last: Mutex<Option<Last>>,
}

/// A comparison that has ended.
#[derive(Debug, Clone)]
pub(super) struct Last {
    pub(super) began: Instant,
    pub(super) ended: Instant,
    pub(super) found: Verified,
}

impl Default for Verifying {
    fn default() -> Self {
        Self { one: Semaphore::new(1), last: Mutex::new(None) }
    }
}

impl Verifying {
    pub(super) fn last(&self) -> Option<Last> {
        // Replaced as a whole.
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn note(&self, last: Last) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
    }
}

/// What a comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Every difference.
    pub deviations: Vec<Deviation>,
    /// How many of what were compared; `under_way` were left out.
    pub checked: BTreeMap<&'static str, usize>,
}
