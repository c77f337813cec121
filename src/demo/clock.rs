//! Time as all of the demo's processes share it, and how it is shown.

use std::fmt;
use std::time::Duration;

use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// A moment of `CLOCK_MONOTONIC`, in nanoseconds: the same number means the same moment in every process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Moment(i64);

/// A time between two moments, shown in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Took(i64);

impl Moment {
    /// Now.
    pub(super) fn now() -> Self {
        // Cannot fail: every kernel has this clock.
        Self(clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| time.num_nanoseconds()))
    }

    /// How long ago `earlier` was.
    pub(super) fn since(self, earlier: Self) -> Took {
        Took(self.0 - earlier.0)
    }

    /// From then until now.
    pub(super) fn elapsed(self) -> Took {
        Self::now().since(self)
    }

    /// In microseconds.
    pub(super) fn micros(self) -> i64 {
        self.0 / 1000
    }
}

impl Took {
    /// As the standard library has it.
    pub(super) fn duration(self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0).unwrap_or(0))
    }
}

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{} µs", grouped(self.0 / 1000)))
    }
}

/// A number with its thousands set apart.
pub(super) fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::from(if number < 0 { "-" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567"), (-1000, "-1,000")] {
            assert_eq!(grouped(number), text);
        }
        assert_eq!(Took(1_234_999).to_string(), "1,234 µs");
    }

    #[test]
    fn moments_go_on() {
        let then = Moment::now();
        assert!(then.elapsed() >= Took(0) && then.micros() > 0);
    }
}
