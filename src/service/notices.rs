//! What the recipients of notices were told, as the store has it.

use crate::store::{Change, Purpose, StoreError};

use super::Service;

impl Service {
    /// Makes notices durable. This is no part of an action, and a failure is no trouble of the store for health.
    ///
    /// # Errors
    /// None of the changes is in the store.
    pub async fn save_notices(&self, changes: Vec<Change>, purpose: Purpose) -> Result<(), StoreError> {
        self.reconciler.store.commit(changes, purpose).await
    }

    /// Has notices written with the next commit, such as that of their port's deletion. A failure is only logged.
    pub fn note_notices(&self, changes: Vec<Change>) {
        self.reconciler.store.note(changes);
    }
}
