//! What passed between a port's guest and its bridge, and what was dropped.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::timeout;

use crate::kernel::{DroppedFrame, Traffic};
use crate::model::{DropReason, PortId};
use crate::plan::Fact;
use crate::plan::facts::FactName;
use crate::reconcile::answered;

use super::{Error, PortView, Service};

/// How long a kernel is waited for whose answer is not needed; other holders of RTNL may delay it.
const LIMIT: Duration = Duration::from_secs(1);

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

impl PortCounters {
    /// What was dropped, by the reasons there were.
    fn words(&self) -> String {
        let there = self.dropped.iter().filter(|(_, frames)| **frames > 0);
        let words: Vec<String> = there.map(|(reason, frames)| format!("{} {frames}", reason.as_str())).collect();
        if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
    }
}

impl Service {
    /// Every fact that a port's status depends on, as [`Service::explain`] has them; that of the filters with what they dropped.
    ///
    /// # Errors
    /// There is no port with that id.
    pub async fn explain_with_drops(&self, id: PortId) -> Result<(PortView, Vec<Fact>), Error> {
        let (view, mut facts) = self.explain(id)?;
        if let Some(fact) = facts.iter_mut().find(|fact| fact.fact == FactName::Filters)
            && let Ok(Ok(counters)) = timeout(LIMIT, self.counters(id)).await
        {
            fact.detail.push_str(&format!("; dropped: {}", counters.words()));
        }
        Ok((view, facts))
    }

    /// Counts in the metrics what the filters have dropped since the last time.
    pub async fn count_drops(&self) {
        let Ok(asked) = self.reconciler.kernel.count_drops() else { return };
        if let Ok(Ok(Err(error))) = timeout(LIMIT, answered(asked)).await {
            tracing::debug!(%error, "what was dropped could not be counted");
        }
    }

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
