//! What guests asked by DHCP, and were told.

use crate::model::PortId;

use super::{Error, Service};

pub use crate::inventory::leases::{Exchange, LeaseState};

impl Service {
    /// The last exchange of a port's guest over each family, if there was one.
    ///
    /// # Errors
    /// There is no port with that id.
    pub fn leases(&self, id: PortId) -> Result<Vec<Exchange>, Error> {
        let state = self.reconciler.lock();
        let lease = &state.port(id)?.dhcp;
        Ok(lease.last.iter().chain(&lease.last6).cloned().collect())
    }
}
