//! How a port's tries went, and how long the next one waits.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::plan::Facet;

/// The reason of a port whose guest's namespace is waited for.
pub const NAMESPACE_GONE: &str = "namespace_gone";

/// The longest wait between two tries, in seconds.
const LONGEST: Duration = Duration::from_secs(60);

/// The shortest and the longest wait for a machine.
const SOONEST: Duration = Duration::from_millis(500);
const LATEST: Duration = Duration::from_secs(10);

/// How a port's tries went, and when the next may come.
#[derive(Debug, Default, Clone)]
pub struct Retry {
    /// Tries since it last stood still.
    pub tries: u32,
    /// How many of them brought it back, only to be undone.
    pub repaired: u32,
    /// How often another program changed its MAC.
    pub mac_changes: u32,
    /// What was brought back in them.
    pub facets: BTreeSet<Facet>,
    /// The last try.
    pub last: Option<Instant>,
    /// Not before.
    pub due: Option<Instant>,
    /// Failures since one last succeeded.
    pub failed: u32,
    /// One is under way.
    pub running: bool,
    /// While it was, what stood in its way may have gone.
    pub again: bool,
    /// Since when its machine cannot be asked.
    pub away: Option<Instant>,
}

impl Retry {
    /// Forgets how its tries went; one that is under way goes on.
    pub fn forget(&mut self) {
        let Self { running, again, failed, away, .. } = *self;
        *self = Self { running, again, failed, away, ..Self::default() };
    }

    /// Nothing stands in its way any more.
    pub fn succeeded(&mut self) {
        self.failed = 0;
    }
}

/// How long to wait after the n-th failure in a row: doubling from 100 ms to a minute, by half at random so that many that
/// failed together do not come back together.
pub fn backoff(failures: u32) -> Duration {
    let full = Duration::from_millis(100 << failures.saturating_sub(1).min(10)).min(LONGEST);
    full.mul_f64(rand::random_range(0.5..1.0))
}

/// How long to wait before a machine is asked again that could not be asked for so long: an eighth of that, so that its return is noticed
/// soon after a short absence, and costs little during a long one.
pub fn absence_wait(away: Duration) -> Duration {
    let full = (away / 8).clamp(SOONEST, LATEST);
    full.mul_f64(rand::random_range(0.75..1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_asked_less_often_the_longer_it_is_away() {
        for (away, most) in [(0, 500), (4_000, 500), (16_000, 2_000), (80_000, 10_000), (86_400_000, 10_000)] {
            let (wait, most) = (absence_wait(Duration::from_millis(away)), Duration::from_millis(most));
            assert!((most * 3 / 4..=most).contains(&wait), "{away}: {wait:?}");
        }
    }

    #[test]
    fn tries_come_later_and_later_up_to_a_minute_and_never_together() {
        for (failures, most) in [(0, 100), (1, 100), (2, 200), (5, 1600), (10, 51_200), (11, 60_000), (u32::MAX, 60_000)] {
            let most = Duration::from_millis(most);
            let waits: Vec<Duration> = (0..100).map(|_| backoff(failures)).collect();
            assert!(waits.iter().all(|wait| (most / 2..most).contains(wait)), "{failures}: {waits:?}");
            assert!(waits.iter().any(|wait| *wait != waits[0]), "{failures}");
        }
    }
}
