//! How far behind this host sees what is written in etcd: how long its own writes take to come back by its watch. No other host's clock is in
//! it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::model::{NetworkId, PortId};

/// How many writes may be on their way at most that are waited for.
const MOST: usize = 1024;

/// What is measured.
#[derive(Debug, Default)]
pub(super) struct Lag {
    /// The networks that are watched: what is written of another one does not come back.
    watched: BTreeSet<NetworkId>,
    /// The ports that were told of and have not come back, with the network and when that was sent.
    sent: BTreeMap<PortId, (NetworkId, Instant)>,
    last: Option<Duration>,
}

impl Lag {
    /// Forgets what is on its way: what comes next is read anew.
    pub fn begin(&mut self) {
        *self = Self { last: self.last, ..Self::default() };
    }

    /// A network is watched from now on.
    pub fn watch(&mut self, network: NetworkId) {
        self.watched.insert(network);
    }

    /// A network is watched no more.
    pub fn unwatch(&mut self, network: NetworkId) {
        self.watched.remove(&network);
        self.sent.retain(|_, (of, _)| *of != network);
    }

    /// A write about a port is sent.
    pub fn sends(&mut self, network: NetworkId, port: PortId, now: Instant) {
        if self.watched.contains(&network) && self.sent.len() < MOST {
            self.sent.entry(port).or_insert((network, now));
        }
    }

    /// A write about a port has come back. How long that took, if it was waited for.
    pub fn comes(&mut self, port: PortId, now: Instant) -> Option<Duration> {
        let (_, sent) = self.sent.remove(&port)?;
        self.last = Some(now.saturating_duration_since(sent));
        self.last
    }

    /// How long the last one took, or for how long one that takes longer has been waited for; none before the first.
    pub fn at(&self, now: Instant) -> Option<Duration> {
        self.last.max(self.sent.values().map(|(_, sent)| now.saturating_duration_since(*sent)).max())
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_is_overdue_counts_and_what_is_not_watched_does_not() {
        let (one, other) = (NetworkId(Uuid::from_u128(1)), NetworkId(Uuid::from_u128(2)));
        let port = |n| PortId(Uuid::from_u128(n));
        let began = Instant::now();
        let (ms, at) = (Duration::from_millis, |ms| began + Duration::from_millis(ms));
        let mut lag = Lag::default();
        lag.watch(one);
        assert_eq!(lag.at(began), None);
        lag.sends(one, port(1), began);
        lag.sends(other, port(2), began);
        assert_eq!(
            (lag.comes(port(2), at(30)), lag.comes(port(1), at(30)), lag.comes(port(1), at(30))),
            (None, Some(ms(30)), None)
        );
        lag.sends(one, port(3), at(30));
        assert_eq!(lag.at(at(40)), Some(ms(30)), "the last one");
        lag.sends(one, port(3), at(50));
        assert_eq!(lag.at(at(2040)), Some(ms(2010)), "one that is overdue");
        lag.unwatch(one);
        assert_eq!(lag.at(at(2040)), Some(ms(30)));
    }
}
