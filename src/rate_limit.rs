//! How often something may be done: at once after a rest, then so many times in a period, evenly.
//!
//! For what somebody else causes and may cause without end: a guest that sets its NIC down and up makes an event each time.
//! It knows no clock; it is told what time it is.

use std::time::{Duration, Instant};

/// Remembers the last `MOST` times that something was done.
#[derive(Debug, Clone)]
pub struct RateLimit<const MOST: usize> {
    /// A ring of them; `next` is where the oldest stands.
    times: [Option<Instant>; MOST],
    next: usize,
    /// The last one had been put off.
    late: bool,
}

impl<const MOST: usize> Default for RateLimit<MOST> {
    fn default() -> Self {
        Self { times: [None; MOST], next: 0, late: false }
    }
}

impl<const MOST: usize> RateLimit<MOST> {
    /// When it may be done next, if that is not now: never more than `MOST` times in any `period`, and once one was put off
    /// not all of them together.
    pub fn next_allowed(&self, now: Instant, period: Duration) -> Option<Instant> {
        let oldest = self.times[self.next].map(|oldest| oldest + period);
        let newest = self.newest().filter(|_| self.late).map(|newest| newest + period / u32::try_from(MOST).unwrap_or(u32::MAX));
        oldest.max(newest).filter(|due| *due > now)
    }

    /// It is done now; `late` when it had been put off.
    pub fn done(&mut self, now: Instant, late: bool) {
        self.times[self.next] = Some(now);
        self.next = (self.next + 1) % MOST;
        self.late = late;
    }

    /// When it was last done.
    pub fn newest(&self) -> Option<Instant> {
        self.times[(self.next + MOST - 1) % MOST]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Something that wants to be done every millisecond for so many seconds; when it was done, in milliseconds.
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
