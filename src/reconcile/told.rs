//! What readers of events know of the agent's troubles: of one that comes and goes they are told a few times a second, and of its
//! last state always.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::model::PortId;
use crate::rate_limit::RateLimit;

/// A trouble as events tell of it: the stable word, and the port when it is one's.
pub type Trouble = (&'static str, Option<PortId>);

/// How often events tell of one trouble at most in a [`PERIOD`].
const MOST: usize = 4;

const PERIOD: Duration = Duration::from_secs(1);

/// What readers of events know of the agent's troubles.
#[derive(Debug, Default)]
pub struct Told {
    /// Those that have not ended, as far as they know.
    troubles: BTreeSet<Trouble>,
    /// Those that they were told of a moment ago, or that are withheld.
    lately: BTreeMap<Trouble, Lately>,
    /// When what is withheld is to be told.
    pub due: Option<Instant>,
}

#[derive(Debug, Default)]
struct Lately {
    pace: RateLimit<MOST>,
    withheld: bool,
}

impl Told {
    /// The events due now, given the present troubles: which have begun, and then which have ended.
    pub fn news(&mut self, now: &BTreeSet<Trouble>, at: Instant) -> Vec<(Trouble, bool)> {
        self.due = None;
        if self.lately.is_empty() && *now == self.troubles {
            return Vec::new();
        }
        let begun = now.difference(&self.troubles).map(|trouble| (*trouble, true));
        let ended = self.troubles.difference(now).map(|trouble| (*trouble, false));
        let mut news: Vec<(Trouble, bool)> = begun.chain(ended).collect();
        news.retain(|(trouble, _)| {
            let lately = self.lately.entry(*trouble).or_default();
            match lately.pace.next_allowed(at, PERIOD) {
                Some(due) => {
                    lately.withheld = true;
                    self.due = Some(self.due.map_or(due, |first| first.min(due)));
                    false
                }
                None => {
                    lately.pace.done(at, std::mem::take(&mut lately.withheld));
                    true
                }
            }
        });
        for (trouble, begun) in &news {
            match begun {
                true => self.troubles.insert(*trouble),
                false => self.troubles.remove(trouble),
            };
        }
        self.lately.retain(|_, lately| lately.pace.newest().is_some_and(|newest| newest + PERIOD > at));
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAPS: Trouble = ("store_failed", None);
    const OTHER: Trouble = ("config_invalid", None);

    #[test]
    fn a_trouble_that_comes_and_goes_is_told_four_times_a_second_and_its_last_state_always() {
        for last in [998, 999] {
            let (mut told, begin) = (Told::default(), Instant::now());
            let at = |ms: u64| begin + Duration::from_millis(ms);
            let mut news = Vec::new();
            for ms in 0..=last {
                let now = if ms % 2 == 0 { BTreeSet::from([FLAPS]) } else { BTreeSet::new() };
                news.extend(told.news(&now, at(ms)));
            }
            assert!(news.len() <= MOST, "{}", news.len());
            assert_eq!(news[0], (FLAPS, true), "at once");
            let is = if last % 2 == 0 { BTreeSet::from([FLAPS]) } else { BTreeSet::new() };
            while let Some(due) = told.due {
                assert!(due <= at(last) + PERIOD);
                news.extend(told.news(&is, due));
            }
            assert_eq!(told.troubles, is);
            assert!(news.windows(2).all(|pair| pair[0].1 != pair[1].1), "each is another than the one before: {news:?}");
            // What is over is forgotten.
            told.news(&is, at(last) + 3 * PERIOD);
            assert!(told.lately.is_empty());
        }
    }

    #[test]
    fn one_trouble_does_not_hold_another_back() {
        let (mut told, now) = (Told::default(), Instant::now());
        for turn in 0..20 {
            told.news(&if turn % 2 == 0 { BTreeSet::from([FLAPS]) } else { BTreeSet::new() }, now);
        }
        assert!(told.due.is_none(), "readers know that it has ended");
        assert_eq!(told.news(&BTreeSet::from([FLAPS, OTHER]), now), [(OTHER, true)]);
        assert!(told.due.is_some());
    }
}
