//! Times, and how they are shown.

use std::fmt;
use std::time::{Duration, Instant};

/// A moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(Instant);

/// A time between two moments, shown in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Took(Duration);

impl Moment {
    /// Now.
    pub(super) fn now() -> Self {
        Self(Instant::now())
    }

    /// How long ago `earlier` was; nothing if it was later.
    pub(super) fn since(self, earlier: Self) -> Took {
        Took(self.0.saturating_duration_since(earlier.0))
    }

    /// From then until now.
    pub(super) fn elapsed(self) -> Took {
        Self::now().since(self)
    }
}

impl Took {
    /// As the standard library has it.
    pub(super) fn duration(self) -> Duration {
        self.0
    }
}

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{} µs", grouped(self.0.as_micros())))
    }
}

/// A number with its thousands set apart.
pub(super) fn grouped(number: u128) -> String {
    let digits = number.to_string();
    let mut text = String::new();
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
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
        assert_eq!(Took(Duration::from_nanos(1_234_999)).to_string(), "1,234 µs");
    }
}
