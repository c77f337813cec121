//! What guests asked by DHCP, and were told.

use crate::model::PortId;

use super::{Error, Service};

pub use crate::inventory::leases::{Exchange, LeaseState};

impl Service {
    /// The last exchange of a port's guest, if there was one.
    ///
    /// # Errors
    /// There is no port with that id.
    pub fn leases(&self, id: PortId) -> Result<Vec<Exchange>, Error> {
        Ok(self.reconciler.lock().port(id)?.dhcp.last.clone().into_iter().collect())
    }
}
