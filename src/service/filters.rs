//! What ports ask of the filters.

use crate::inventory::Inventory;
use crate::model::Port;

use super::{Error, Service};

impl Service {
    /// Refuses a port that asks for a filter where the kernel filters nothing.
    pub(super) fn check_filter(&self, state: &Inventory, port: &Port) -> Result<(), Error> {
        match self.reconciler.filters_refused() {
            Some(said) if state.needs_filter(port) => Err(Error::FiltersUnavailable(said)),
            _ => Ok(()),
        }
    }
}
