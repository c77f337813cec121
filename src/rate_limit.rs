//! A rate limit: the first runs are allowed at once, later runs are spread evenly over a period.
//!
//! It limits work that others trigger: a guest that keeps setting its NIC down and up causes an event each time. The caller
//! passes the current time.

use std::time::{Duration, Instant};

/// Stores the times of the last `MOST` runs.
#[derive(Debug, Clone)]
pub struct RateLimit<const MOST: usize> {
    /// A ring buffer; `next` is the index of the oldest entry.
    times: [Option<Instant>; MOST],
    next: usize,
    /// Whether the last run had been delayed.
    late: bool,
}

impl<const MOST: usize> Default for RateLimit<MOST> {
    fn default() -> Self {
        Self { times: [None; MOST], next: 0, late: false }
    }
}

impl<const MOST: usize> RateLimit<MOST> {
    /// When the next run is allowed; `None` means now. Allows at most `MOST` runs in any `period`; after a delayed run, the next
    /// runs are spread evenly.
    pub fn next_allowed(&self, now: Instant, period: Duration) -> Option<Instant> {
        let oldest = self.times[self.next].map(|oldest| oldest + period);
        let newest = self.newest().filter(|_| self.late).map(|newest| newest + period / u32::try_from(MOST).unwrap_or(u32::MAX));
        oldest.max(newest).filter(|due| *due > now)
    }

    /// Records a run at `now`; `late` says whether the run had been delayed.
    pub fn done(&mut self, now: Instant, late: bool) {
        self.times[self.next] = Some(now);
        self.next = (self.next + 1) % MOST;
        self.late = late;
    }

    /// The time of the last run.
    pub fn newest(&self) -> Option<Instant> {
        self.times[(self.next + MOST - 1) % MOST]
    }
}

/// A rate limit that refuses what exceeds it: so many at once, and one more in each `every`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Budget {
    /// When as many are allowed at once as ever; none where that is now.
    whole: Option<Instant>,
}

impl Budget {
    /// Whether one more is allowed at `now`; if so it is counted.
    pub fn take(&mut self, now: Instant, at_once: u32, every: Duration) -> bool {
        let whole = self.whole.map_or(now, |whole| whole.max(now)) + every;
        let allowed = whole <= now + every * at_once;
        if allowed {
            self.whole = Some(whole);
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Asks for a run every millisecond for `seconds`; the times of the allowed runs, in milliseconds.
    fn wanted_all_the_time(seconds: u64) -> Vec<u64> {
        let start = Instant::now();
        let (mut limit, mut done, mut late) = (RateLimit::<4>::default(), Vec::new(), false);
        for ms in 0..seconds * 1000 {
            let now = start + Duration::from_millis(ms);
            match limit.next_allowed(now, SECOND) {
                Some(_) => late = true,
                None => {
                    limit.done(now, std::mem::take(&mut late));
                    done.push(ms);
                }
            }
        }
        done
    }

    #[test]
    fn the_first_come_at_once_and_then_evenly() {
        assert_eq!(wanted_all_the_time(3), [0, 1, 2, 3, 1000, 1250, 1500, 1750, 2000, 2250, 2500, 2750]);
    }

    #[test]
    fn there_are_never_more_in_any_period() {
        for window in wanted_all_the_time(60).windows(5) {
            assert!(window[4] - window[0] >= 1000, "{window:?}");
        }
    }

    #[test]
    fn a_budget_allows_so_many_at_once_and_then_so_many_in_each_second() {
        let (start, mut budget) = (Instant::now(), Budget::default());
        let mut allowed = |second: u64| {
            let times = (0..1000).map(|ms| start + Duration::from_millis(second * 1000 + ms));
            times.filter(|now| budget.take(*now, 40, Duration::from_millis(50))).count()
        };
        assert_eq!([0, 1, 2, 9].map(&mut allowed), [59, 20, 20, 59]);
    }

    #[test]
    fn after_a_rest_it_is_at_once_again() {
        let start = Instant::now();
        let mut limit = RateLimit::<4>::default();
        for _ in 0..4 {
            assert_eq!(limit.next_allowed(start, SECOND), None);
            limit.done(start, false);
        }
        assert_eq!(limit.next_allowed(start, SECOND), Some(start + SECOND));
        assert_eq!(limit.next_allowed(start + SECOND, SECOND), None);
        limit.done(start + SECOND, true);
        assert_eq!(limit.next_allowed(start + SECOND * 5, SECOND), None);
    }
}
