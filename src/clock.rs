//! Reads the clocks. The wall clock may show any time and may jump, so it is read only here, is clamped to a range that can be
//! printed, and never measures a duration within a boot.

use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};
use uuid::Uuid;

use crate::model::idempotency::{ClockStamp, SinceBoot};

/// 0001-01-01T00:00:00Z. Earlier years cannot be printed with four digits.
const FIRST_SECOND: i64 = -62_135_596_800;

static BOOT: LazyLock<Option<Uuid>> =
    LazyLock::new(|| std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().parse().ok());

/// The wall clock, clamped to the times that can be printed.
pub fn now() -> Timestamp {
    of(SystemTime::now())
}

/// The same, rounded to the second.
pub fn second() -> Timestamp {
    let now = now();
    now.round(jiff::Unit::Second).unwrap_or(now)
}

fn of(time: SystemTime) -> Timestamp {
    let first = Timestamp::from_second(FIRST_SECOND).unwrap_or(Timestamp::UNIX_EPOCH);
    let beyond = if time < UNIX_EPOCH { first } else { Timestamp::MAX };
    Timestamp::try_from(time).unwrap_or(beyond).max(first)
}

/// The wall clock together with the time since boot.
pub fn stamp() -> ClockStamp {
    let since = clock_gettime(ClockId::CLOCK_BOOTTIME).ok();
    let ms = since.map(|time| time.tv_sec().saturating_mul(1000).saturating_add(time.tv_nsec() / 1_000_000));
    ClockStamp { at: now(), since: BOOT.zip(ms).map(|(boot, ms)| SinceBoot { boot, ms }) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn any_clock_is_a_time_that_can_be_written() {
        let year = Duration::from_secs(31_556_952);
        for (time, begins) in [
            (UNIX_EPOCH, "1970-01-01T"),
            (UNIX_EPOCH - Duration::from_nanos(1), "1969-12-31T"),
            (UNIX_EPOCH - year * 1_970, "0001-01-01T"),
            (UNIX_EPOCH - year * 100_000, "0001-01-01T"),
            (UNIX_EPOCH + year * 8_029, "9999-"),
            (UNIX_EPOCH + year * 8_031, "9999-12-30T"),
            (UNIX_EPOCH + year * 100_000_000, "9999-12-30T"),
        ] {
            let written = of(time).to_string();
            assert!(written.starts_with(begins), "{written}");
            assert_eq!(written.parse::<Timestamp>().unwrap(), of(time));
        }
    }

    #[test]
    fn what_has_passed_since_the_boot_grows() {
        let (one, other) = (stamp(), stamp());
        let (one, other) = (one.since.unwrap(), other.since.unwrap());
        assert!(one.boot == other.boot && one.ms > 0 && one.ms <= other.ms);
    }
}
