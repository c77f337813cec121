//! When a call is repeated.

use std::time::{Duration, Instant};

use hyper::StatusCode;
use rand::RngExt;

use crate::error::Refusal;

/// How long a failed call is repeated, and with what pauses.
///
/// Repeated are calls that found no daemon, that lost their connection before the answer was complete, and those refusals that
/// `refusals` names; a GET also after its time limit. A repeated POST carries the same `Idempotency-Key`, so that it is executed
/// once; one to a route below `/nicd/v1/`, where nicd knows no keys, is repeated only if it was not executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// The first pause, about; each further one is twice as long.
    pub first: Duration,
    /// The longest pause, about.
    pub longest: Duration,
    /// How long after the first failure a call is given up. Zero: it is not repeated.
    pub limit: Duration,
    /// What a call does that finds no daemon at first.
    pub first_contact: FirstContact,
    /// After which refusals a call is repeated.
    pub refusals: Refusals,
}

/// What a call does that finds no daemon at its first attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstContact {
    /// It waits for one, as for one that restarts.
    Awaited,
    /// It fails at once, also if what listens there does not answer in time. Only what was interrupted is repeated.
    Required,
}

/// After which of the daemon's refusals a call is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusals {
    /// All with status 503: also those that need an operator, e.g. `no_permission`.
    Unavailable,
    /// Those that soon end by themselves: reason `starting`, `stopping` or `busy`.
    Brief,
}

impl Refusals {
    pub(crate) fn passes(self, refusal: &Refusal) -> bool {
        let is_brief = || matches!(refusal.reason.as_deref(), Some("starting" | "stopping" | "busy"));
        refusal.status == StatusCode::SERVICE_UNAVAILABLE && (self == Self::Unavailable || is_brief())
    }
}

impl Retry {
    /// No call is repeated.
    pub const NONE: Self = Self { limit: Duration::ZERO, ..Self::MINUTE };

    /// Calls are repeated for ever.
    pub const FOREVER: Self = Self { limit: Duration::MAX, ..Self::MINUTE };

    const MINUTE: Self = Self {
        first: Duration::from_millis(50),
        longest: Duration::from_secs(2),
        limit: Duration::from_secs(60),
        first_contact: FirstContact::Awaited,
        refusals: Refusals::Unavailable,
    };
}

impl Default for Retry {
    /// Pauses from 50 ms to 2 s, for a minute.
    fn default() -> Self {
        Self::MINUTE
    }
}

/// The pauses of one call.
#[derive(Debug)]
pub(crate) struct Pauses {
    retry: Retry,
    next: Duration,
    /// When the first failure was.
    since: Option<Instant>,
}

impl Pauses {
    pub(crate) fn of(retry: Retry) -> Self {
        Self { retry, next: retry.first, since: None }
    }

    /// The pause before the next attempt, which is at least `least`; none when the call is to be given up. Half of it is random,
    /// so that many clients do not come at the same moment.
    pub(crate) fn next(&mut self, least: Duration) -> Option<Duration> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let pause = self.next.mul_f64(rand::rng().random_range(0.5..1.0)).max(least);
        self.next = (self.next * 2).min(self.retry.longest);
        (since.elapsed().saturating_add(pause) <= self.retry.limit).then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_end_with_the_limit() {
        let mut pauses = Pauses::of(Retry { limit: Duration::from_secs(10), ..Retry::default() });
        let first = pauses.next(Duration::ZERO).unwrap();
        assert!(first <= Duration::from_millis(50), "{first:?}");
        for _ in 0..20 {
            assert!(pauses.next(Duration::ZERO).unwrap() <= Duration::from_secs(2));
        }
        assert!(pauses.next(Duration::ZERO).unwrap() >= Duration::from_secs(1));
        assert_eq!(pauses.next(Duration::from_secs(3)), Some(Duration::from_secs(3)), "as long as the daemon asks for");
        assert_eq!(pauses.next(Duration::from_secs(11)), None);
        assert_eq!(Pauses::of(Retry::NONE).next(Duration::ZERO), None);
        assert!(Pauses::of(Retry::FOREVER).next(Duration::from_secs(1_000_000)).is_some());
    }
}
