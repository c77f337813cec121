//! When readers of events are told of a port that changes again and again, and what they know of it until then.

use std::time::{Duration, Instant};

use crate::model::Phase;
use crate::rate_limit::RateLimit;

/// How often a port is told of at most in a [`PERIOD`].
const MOST: usize = 4;

const PERIOD: Duration = Duration::from_secs(1);

/// What is known of a port at a moment: its phase, and why it is not ACTIVE.
pub type Known = (Phase, Option<String>);

/// What readers of events know of a port.
#[derive(Debug, Default)]
pub struct Telling {
    pace: RateLimit<MOST>,
    withheld: Option<Withheld>,
}

/// A change that readers are told of later.
#[derive(Debug, PartialEq, Eq)]
struct Withheld {
    /// What readers know until then.
    told: Known,
    /// What happened without a change, by its word.
    note: Option<&'static str>,
}

/// Something to tell.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    /// Now, to readers who know of this phase.
    Now(Phase),
    /// By [`Telling::due`] at that time.
    Later(Instant),
}

impl Telling {
    /// Something has happened to a port of which readers knew `before` unless something was withheld: it has changed, or what
    /// `note` says. What is `asked` for is told at once.
    pub fn happened(&mut self, before: Known, note: Option<&'static str>, asked: bool, now: Instant) -> Told {
        if asked {
            return Told::Now(self.withheld.take().map_or(before.0, |withheld| withheld.told.0));
        }
        match (&mut self.withheld, self.pace.next_allowed(now, PERIOD)) {
            (None, None) => {
                self.pace.done(now, false);
                Told::Now(before.0)
            }
            (Some(withheld), due) => {
                withheld.note = note.or(withheld.note);
                Told::Later(due.unwrap_or(now))
            }
            (None, Some(due)) => {
                self.withheld = Some(Withheld { told: before, note });
                Told::Later(due)
            }
        }
    }

    /// The time of what was withheld has come: the phase that readers know of, and the word for what they do not. It is told also
    /// when the port is again as they know it: a client may have read the port while it was not, and waits for the next event.
    pub fn due(&mut self, is: (Phase, Option<&str>), now: Instant) -> Option<(Phase, Option<String>)> {
        let Withheld { told, note } = self.withheld.take()?;
        let changed = (told.0, told.1.as_deref()) != is;
        let word = note.filter(|_| !changed).or(is.1).map(str::to_owned);
        self.pace.done(now, true);
        Some((told.0, word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: (Phase, Option<&str>) = (Phase::Active, None);
    const DOWN: (Phase, Option<&str>) = (Phase::Wired, Some("no_carrier"));

    fn known((phase, reason): (Phase, Option<&str>)) -> Known {
        (phase, reason.map(str::to_owned))
    }

    /// Flaps for so many milliseconds, one change each, and lets what was withheld be told when it is due. All that was told:
    /// when, from which phase, to which.
    fn flap(milliseconds: u64) -> Vec<(u64, Phase, Phase)> {
        let start = Instant::now();
        let (mut telling, mut heard, mut due, mut is) = (Telling::default(), Vec::new(), None, UP);
        for ms in 0..milliseconds + 2000 {
            let now = start + Duration::from_millis(ms);
            if ms < milliseconds {
                let before = is;
                is = if is == UP { DOWN } else { UP };
                match telling.happened(known(before), None, false, now) {
                    Told::Now(old) => heard.push((ms, old, is.0)),
                    Told::Later(at) => due = Some(at),
                }
            }
            if due.is_some_and(|at| at <= now) {
                due = None;
                heard.extend(telling.due(is, now).map(|(old, _)| (ms, old, is.0)));
            }
        }
        assert_eq!(telling.withheld, None);
        heard
    }

    #[test]
    fn a_port_that_flaps_is_told_of_at_once_and_then_four_times_a_second() {
        for milliseconds in [1, 2, 5, 6, 777, 5000, 5001] {
            let heard = flap(milliseconds);
            assert_eq!(heard[0], (0, Phase::Active, Phase::Wired));
            assert!(heard.windows(5).all(|five| five[4].0 - five[0].0 >= 1000), "{heard:?}");
            assert!(heard.windows(2).all(|two| two[0].2 == two[1].1), "each goes on from the one before: {heard:?}");
            let last = if milliseconds % 2 == 0 { Phase::Active } else { Phase::Wired };
            assert_eq!(heard.last().map(|last| last.2), Some(last), "after {milliseconds} ms: {heard:?}");
        }
    }

    #[test]
    fn what_a_client_asked_for_is_told_at_once_from_what_readers_know() {
        let (mut telling, now) = (Telling::default(), Instant::now());
        for _ in 0..MOST {
            assert!(matches!(telling.happened(known(UP), None, false, now), Told::Now(Phase::Active)));
        }
        assert!(matches!(telling.happened(known(UP), None, false, now), Told::Later(_)));
        assert_eq!(telling.happened(known(DOWN), None, true, now), Told::Now(Phase::Active));
        assert_eq!(telling.due(DOWN, now), None, "nothing is left to tell");
    }

    #[test]
    fn a_port_that_is_again_as_readers_know_it_is_told_of_all_the_same() {
        let (mut telling, now) = (Telling::default(), Instant::now());
        for _ in 0..MOST {
            telling.happened(known(UP), None, false, now);
        }
        for before in [DOWN, UP] {
            assert!(matches!(telling.happened(known(before), None, false, now), Told::Later(_)));
        }
        let later = now + PERIOD;
        assert_eq!(telling.due(DOWN, later), Some((Phase::Wired, Some("no_carrier".to_owned()))));
    }

    #[test]
    fn a_word_without_a_change_is_told_once() {
        let (mut telling, now) = (Telling::default(), Instant::now());
        for _ in 0..100 {
            telling.happened(known(UP), Some("device_renamed"), false, now);
        }
        let later = now + PERIOD;
        assert_eq!(telling.due(UP, later), Some((Phase::Active, Some("device_renamed".to_owned()))));
        assert_eq!(telling.due(UP, later), None);
    }
}
