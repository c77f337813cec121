//! Drift that comes back: how often another program has undone nicd's repairs, and how long the next repair waits.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::plan::Facet;

use super::retry::backoff;

/// Repairs in a row that are tried at once; beyond, another program undoes them, and each waits longer.
pub const PATIENCE: u32 = 5;

/// A port that stood still for so long is no longer fought over, in seconds.
pub const QUIET: Duration = Duration::from_secs(10);

/// How long a bridge that cannot be set back waits for its next try at most, in seconds.
const LONGEST: Duration = Duration::from_secs(10);

/// What is fought over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flapping {
    /// What was changed when the fight was noticed.
    pub first: Facet,
    /// All that was changed.
    pub facets: BTreeSet<Facet>,
    /// Whether the port is kept down and out of every bridge meanwhile.
    pub cut_off: bool,
}

/// How often an agent-made bridge was set back since it last stood still.
#[derive(Debug, Default)]
pub struct BridgeRepairs {
    count: u32,
    last: Option<Instant>,
    /// The next time is set already.
    waits: bool,
    /// Tries in a row that failed.
    failed: u32,
}

impl BridgeRepairs {
    /// How long the next one is to wait; none when one waits already.
    pub fn next(&mut self) -> Option<Duration> {
        if self.waits {
            return None;
        }
        self.waits = true;
        Some(if self.contested() { rest(self.count) } else { Duration::ZERO })
    }

    /// The one that waited is due. It counts if the bridge still differs: what an attach was about to make or to undo is no other
    /// program's change.
    pub fn begun(&mut self, differs: bool) {
        self.waits = false;
        if differs {
            if self.last.is_none_or(|last| last.elapsed() > QUIET) {
                self.count = 0;
            }
            self.count += 1;
            self.last = Some(Instant::now());
        }
    }

    /// One has failed; how long the next is to wait.
    pub fn failed(&mut self) -> Duration {
        self.waits = true;
        self.failed = self.failed.saturating_add(1);
        LONGEST.min(backoff(1) * 2_u32.saturating_pow(self.failed - 1))
    }

    /// Whether the last one failed and the one before did not.
    pub fn fails_anew(&self) -> bool {
        self.failed == 1
    }

    /// One was carried out.
    pub fn done(&mut self) {
        self.failed = 0;
    }

    /// Whether another program keeps undoing it.
    pub fn contested(&self) -> bool {
        self.count > PATIENCE && self.last.is_some_and(|last| last.elapsed() <= QUIET)
    }
}

/// How long a fight rests after so many rounds: never so long that a device stays wrong for long.
pub fn rest(rounds: u32) -> Duration {
    backoff(rounds.min(PATIENCE))
}
