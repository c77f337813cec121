//! When ports are to be looked after again: each at most once, however often that was said.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use crate::model::PortId;

/// The times, one a port.
#[derive(Debug, Default)]
pub struct Wakeups {
    by_time: BTreeSet<(Instant, PortId)>,
    by_port: HashMap<PortId, Instant>,
}

impl Wakeups {
    /// Sets a port's time, in place of the one it had.
    pub fn set(&mut self, port: PortId, at: Instant) {
        if let Some(before) = self.by_port.insert(port, at) {
            self.by_time.remove(&(before, port));
        }
        self.by_time.insert((at, port));
    }

    /// A port's time.
    pub fn at(&self, port: PortId) -> Option<Instant> {
        self.by_port.get(&port).copied()
    }

    /// The first time of all.
    pub fn first(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes a port whose time has come.
    pub fn take(&mut self, now: Instant) -> Option<PortId> {
        let (at, port) = *self.by_time.first()?;
        if at > now {
            return None;
        }
        self.forget(port);
        Some(port)
    }

    /// Forgets a port.
    pub fn forget(&mut self, port: PortId) {
        if let Some(at) = self.by_port.remove(&port) {
            self.by_time.remove(&(at, port));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn port(n: u128) -> PortId {
        PortId(uuid::Uuid::from_u128(n))
    }

    #[test]
    fn each_port_is_woken_once_at_the_time_said_last() {
        let (start, mut wakeups) = (Instant::now(), Wakeups::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        for n in 0..1000 {
            wakeups.set(port(1), at(n % 7));
            wakeups.set(port(2), at(3));
        }
        wakeups.set(port(1), at(5));
        assert_eq!((wakeups.by_time.len(), wakeups.first()), (2, Some(at(3))));
        assert_eq!([2, 3, 4, 5].map(|seconds| wakeups.take(at(seconds))), [None, Some(port(2)), None, Some(port(1))]);
        assert_eq!((wakeups.first(), wakeups.by_port.len()), (None, 0));
    }

    #[test]
    fn a_port_that_is_gone_is_not_woken() {
        let mut wakeups = Wakeups::default();
        for n in 0..1_000_000 {
            wakeups.set(port(n), Instant::now());
            wakeups.forget(port(n));
        }
        assert!(wakeups.by_time.is_empty() && wakeups.by_port.is_empty());
    }
}
