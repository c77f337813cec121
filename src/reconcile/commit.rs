//! Commits, and whether the store takes them.

use crate::inventory::Inventory;
use crate::store::{Change, Purpose, StoreError};

use super::Reconciler;

impl Reconciler {
    /// Makes changes durable at once.
    pub(crate) async fn commit(&self, changes: Vec<Change>, purpose: Purpose) -> Result<(), StoreError> {
        self.store.next_commit();
        let result = self.store.commit(changes, purpose).await;
        self.note_store(&mut self.lock(), result.as_ref().err());
        result
    }

    /// Notes whether the store takes commits, for health and events.
    pub(super) fn note_store(&self, state: &mut Inventory, error: Option<&StoreError>) {
        let mut conditions = self.conditions();
        let before = conditions.store_trouble.is_some();
        conditions.store_trouble = match error {
            Some(StoreError::Full | StoreError::Failed(_) | StoreError::Damaged(_) | StoreError::Replaced(_)) => error.cloned(),
            // One refused transaction says nothing about the next.
            Some(_) => return,
            // What frees may use the room that is kept for it; the disk is full until that is there again.
            None if conditions.store_trouble == Some(StoreError::Full) && !self.store.has_room() => return,
            None => None,
        };
        let refuses = conditions.store_trouble.is_some();
        drop(conditions);
        match refuses {
            // The store is asked again from now on.
            true => self.retries.notify_one(),
            false if before => self.causes_ended(state),
            false => {}
        }
        self.publish_health(state);
    }
}
