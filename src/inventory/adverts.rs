//! When ports' guests are to be told again by router advertisements, and what they were told last.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::lease::advert::Advert;
use crate::model::PortId;

use super::wakeups::Wakeups;

/// The least time between two answers to a guest's solicitations that say the same.
const GAP: Duration = Duration::from_millis(100);

/// The ports of each bridge by when they are to be told, and what they know.
#[derive(Debug, Default)]
pub struct Adverts {
    ports: HashMap<PortId, u32>,
    bridges: HashMap<u32, Queue>,
    told: HashMap<PortId, Advert>,
    answered: HashMap<PortId, Instant>,
}

#[derive(Debug, Default)]
struct Queue {
    due: Wakeups,
    ports: BTreeSet<PortId>,
    news: Arc<Notify>,
}

impl Adverts {
    /// Begins to tell guests on a bridge.
    pub fn open(&mut self, bridge: u32) {
        self.bridges.entry(bridge).or_default();
    }

    /// Ends it. Ports that are still on it are placed anew.
    pub fn close(&mut self, bridge: u32) {
        let ports = self.bridges.remove(&bridge).map(|queue| queue.ports).unwrap_or_default();
        ports.iter().for_each(|port| _ = self.ports.remove(port));
    }

    /// Notes on which bridge a port's guest is to be told, from this time on; none where on none.
    pub fn place(&mut self, port: PortId, bridge: Option<u32>, first: impl FnOnce() -> Instant) {
        if self.ports.get(&port).copied() == bridge {
            return;
        }
        if let Some(before) = self.ports.remove(&port)
            && let Some(queue) = self.bridges.get_mut(&before)
        {
            queue.due.forget(port);
            queue.ports.remove(&port);
        }
        match bridge {
            Some(bridge) => {
                self.ports.insert(port, bridge);
                self.bridges.entry(bridge).or_default().ports.insert(port);
                self.set(port, first());
            }
            None => {
                self.told.remove(&port);
                self.answered.remove(&port);
            }
        }
    }

    /// Whether a port's guest, which asks now, was not answered just before.
    pub fn may_answer(&mut self, port: PortId, now: Instant) -> bool {
        let may = self.answered.get(&port).is_none_or(|last| now.saturating_duration_since(*last) >= GAP);
        if may && self.ports.contains_key(&port) {
            self.answered.insert(port, now);
        }
        may
    }

    /// Sets when a port's guest is to be told.
    pub fn set(&mut self, port: PortId, at: Instant) {
        let Some(queue) = self.ports.get(&port).and_then(|bridge| self.bridges.get_mut(bridge)) else { return };
        queue.due.set(port, at);
        if queue.due.first() == Some(at) {
            queue.news.notify_one();
        }
    }

    /// Takes a port of a bridge whose time has come.
    pub fn take(&mut self, bridge: u32, now: Instant) -> Option<PortId> {
        self.bridges.get_mut(&bridge)?.due.take(now)
    }

    /// The first time of a bridge's ports, and what tells of an earlier one; none of one that is closed.
    pub fn first(&self, bridge: u32) -> Option<(Option<Instant>, Arc<Notify>)> {
        self.bridges.get(&bridge).map(|queue| (queue.due.first(), Arc::clone(&queue.news)))
    }

    /// What a port's guest was told last.
    pub fn told(&self, port: PortId) -> Option<&Advert> {
        self.told.get(&port)
    }

    /// Notes what a port's guest was told.
    pub fn tell(&mut self, port: PortId, advert: Advert) {
        if self.ports.contains_key(&port) {
            self.told.insert(port, advert);
        }
    }

    /// Forgets what a port's guest was told; what that was.
    pub fn forget(&mut self, port: PortId) -> Option<Advert> {
        self.told.remove(&port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_told_on_the_bridge_that_it_is_in() {
        let (one, other) = (PortId(uuid::Uuid::from_u128(1)), PortId(uuid::Uuid::from_u128(2)));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut adverts = Adverts::default();
        adverts.place(one, Some(7), || at(3));
        adverts.place(other, Some(7), || at(5));
        adverts.place(one, Some(7), || at(9));
        assert_eq!(adverts.first(7).unwrap().0, Some(at(3)));
        adverts.place(one, Some(8), || at(4));
        assert_eq!((adverts.take(7, at(4)), adverts.take(8, at(4))), (None, Some(one)));
        adverts.set(other, at(1));
        assert_eq!(adverts.take(7, at(1)), Some(other));
        adverts.close(8);
        adverts.place(one, Some(8), || at(6));
        assert_eq!(adverts.first(8).unwrap().0, Some(at(6)), "it is placed anew");
        let just_after = at(1) + GAP / 2;
        assert!(adverts.may_answer(one, at(1)) && adverts.may_answer(one, at(1) + GAP));
        assert!(!adverts.may_answer(one, just_after + GAP) && adverts.may_answer(one, at(2)));
        for port in [one, other] {
            adverts.place(port, None, || unreachable!());
            adverts.set(port, at(0));
        }
        assert!(adverts.first(7).unwrap().0.is_none() && adverts.ports.is_empty());
        adverts.close(7);
        assert!(adverts.first(7).is_none());
    }
}
