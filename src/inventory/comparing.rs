//! Which entries that lead a VXLAN network to other hosts are to be compared with the kernel's.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::model::NetworkId;
use crate::plan::{DesiredOverlay, Entry, Overlays, Unwanted};

/// The entries of a network that are to be compared, and whether they are being compared.
#[derive(Debug, Default)]
pub struct OverlayWork {
    /// Those to compare; all, beyond what a look at all of them costs.
    pub pending: Pending,
    /// A task compares them.
    pub is_under_way: bool,
    /// The tries that failed one after the other, and why the last one did.
    pub failures: u32,
    pub refused: Option<String>,
    /// When all entries were last looked at, and how long that took.
    pub looked: Option<(Instant, Duration)>,
}

/// Entries that are to be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pending {
    /// These.
    These(BTreeSet<Entry>),
    /// All, after a look at them.
    All,
}

impl Default for Pending {
    fn default() -> Self {
        Self::These(BTreeSet::new())
    }
}

/// With more entries than this to compare, all are: what waits is bounded.
const MOST: usize = 4096;

impl Pending {
    pub(super) fn add(&mut self, about: BTreeSet<Entry>) {
        if let Self::These(entries) = self {
            entries.extend(about);
            if entries.len() > MOST {
                *self = Self::All;
            }
        }
    }

    /// What the entries of a network are to be, as far as they are to be compared; none where it is not known what is on other hosts.
    pub fn desired(self, overlays: &Overlays, network: NetworkId) -> Option<DesiredOverlay> {
        overlays.with(network, |overlay| match self {
            Self::All => DesiredOverlay { network, entries: overlay.entries(), unwanted: Unwanted::Others },
            Self::These(these) => {
                let (entries, others) = these.into_iter().partition(|entry| overlay.wants(entry));
                DesiredOverlay { network, entries, unwanted: Unwanted::These(others) }
            }
        })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::These(entries) if entries.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded() {
        let host = |n: u32| Entry::Flood(std::net::Ipv4Addr::from(n).into());
        let mut pending = Pending::default();
        assert!(pending.is_empty());
        pending.add((0..4096).map(host).collect());
        assert!(matches!(&pending, Pending::These(entries) if entries.len() == 4096));
        pending.add(BTreeSet::from([host(5000)]));
        assert_eq!(pending, Pending::All);
        pending.add(BTreeSet::from([host(1)]));
        assert_eq!(pending, Pending::All);
    }
}
