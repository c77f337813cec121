//! What passed between a port's guest and its bridge, and what was dropped.

use std::collections::BTreeMap;

use crate::kernel::{DroppedFrame, Traffic};
use crate::model::{DropReason, PortId};
use crate::reconcile::answered;

use super::{Error, Service};

/// The counters of a port; zero for one without a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortCounters {
    /// What its guest sent.
    pub from_guest: Traffic,
    /// What its guest was sent.
    pub to_guest: Traffic,
    /// What was dropped of what its guest sent, in frames, by every reason there is.
    pub dropped: BTreeMap<DropReason, u64>,
    /// The last frames that were dropped, oldest first.
    pub last_dropped: Vec<DroppedFrame>,
}

impl Service {
    /// The counters of a port, read from the kernel.
    ///
    /// # Errors
    /// There is no port with that id, or the kernel cannot be asked.
    pub async fn counters(&self, id: PortId) -> Result<PortCounters, Error> {
        self.reconciler.lock().port(id)?;
        let read = answered(self.reconciler.kernel.counters(id)?).await?.map_err(Error::Kernel)?.unwrap_or_default();
        Ok(PortCounters {
            from_guest: read.from_guest,
            to_guest: read.to_guest,
            dropped: DropReason::ALL.into_iter().map(|reason| (reason, read.dropped.get(reason))).collect(),
            last_dropped: read.last_dropped,
        })
    }
}
