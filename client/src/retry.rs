//! When a call is repeated.

use std::time::{Duration, Instant};

use rand::RngExt;

/// How long a failed call is repeated, and with what pauses.
///
/// Repeated are calls that found no daemon, that lost their connection before the answer was complete, and that were answered 503.
/// A repeated POST is executed once, because it carries the same `Idempotency-Key`.
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
}

/// What a call does that finds no daemon at its first attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstContact {
    /// It waits for one, as for one that restarts.
    Awaited,
    /// It fails at once. Only what was interrupted is repeated.
    Required,
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
