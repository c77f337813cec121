//! How many connections there are, how many of one caller, and how many of its connections follow events.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::IntGauge;

use crate::model::idempotency::CallerId;

/// Counts the connections of both sockets, or those on TLS.
#[derive(Debug)]
pub(super) struct ConnLimiter {
    max: usize,
    root_reserve: usize,
    open: IntGauge,
    used: Mutex<HashMap<CallerId, Used>>,
}

/// What one caller has open.
#[derive(Debug, Default)]
struct Used {
    connections: usize,
    streams: usize,
}

/// The right to one connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    limiter: Arc<ConnLimiter>,
    caller: CallerId,
    streams: AtomicBool,
}

impl ConnLimiter {
    /// `open` shows how many there are.
    pub(super) fn new(max: usize, root_reserve: usize, open: IntGauge) -> Arc<Self> {
        Arc::new(Self { max, root_reserve, open, used: Mutex::default() })
    }

    fn used(&self) -> MutexGuard<'_, HashMap<CallerId, Used>> {
        // Each change is one addition, whole in itself.
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A permit for a connection of `caller`. Uid 0 may have all connections. Any other caller may have three quarters of those
    /// that are not reserved for uid 0, so that no single client locks out all the others.
    pub(super) fn acquire(self: &Arc<Self>, caller: &CallerId) -> Option<Permit> {
        let others = self.max.saturating_sub(self.root_reserve);
        let (room, share) = if *caller == CallerId::Uid(0) { (self.max, self.max) } else { (others, others - others / 4) };
        let mut used = self.used();
        let open: usize = used.values().map(|used| used.connections).sum();
        let own = used.get(caller).map_or(0, |used| used.connections);
        if open >= room || own >= share {
            return None;
        }
        used.entry(caller.clone()).or_default().connections += 1;
        self.open.inc();
        Some(Permit { limiter: Arc::clone(self), caller: caller.clone(), streams: AtomicBool::new(false) })
    }
}

impl Permit {
    /// Whether this connection may follow events: half of all connections at most do so for one caller, so that its requests
    /// have the rest.
    pub(super) fn may_stream(&self) -> bool {
        let mut used = self.limiter.used();
        let Some(used) = used.get_mut(&self.caller) else { return false };
        let free = used.streams < (self.limiter.max / 2).max(1);
        if free && !self.streams.swap(true, Ordering::Relaxed) {
            used.streams += 1;
        }
        free
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.limiter.open.dec();
        let mut table = self.limiter.used();
        let Some(used) = table.get_mut(&self.caller) else { return };
        used.connections -= 1;
        used.streams -= usize::from(self.streams.load(Ordering::Relaxed));
        if used.connections == 0 {
            table.remove(&self.caller);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(max: usize, root_reserve: usize) -> Arc<ConnLimiter> {
        ConnLimiter::new(max, root_reserve, IntGauge::new("open", "Connections.").unwrap())
    }

    #[test]
    fn the_reserve_is_for_root() {
        let limiter = limiter(6, 2);
        let of = |uid, number| (0..number).map_while(|_| limiter.acquire(&CallerId::Uid(uid))).collect::<Vec<_>>();
        let others = [of(1000, 9), of(1001, 9), of(1002, 9)];
        assert_eq!(others.each_ref().map(Vec::len), [3, 1, 0]);
        assert_eq!(of(0, 9).len(), 2);
        drop(others);
        assert_eq!(of(0, 9).len(), 6);
        assert!(limiter.used().is_empty());
    }

    #[test]
    fn five_thousand_of_one_uid_do_not_lock_out_another() {
        let limiter = limiter(256, 16);
        let held: Vec<_> = (0..5000).filter_map(|_| limiter.acquire(&CallerId::Uid(1000))).collect();
        assert_eq!(held.len(), 180);
        let other: Vec<_> = (0..60).map(|_| limiter.acquire(&CallerId::Uid(1001))).collect();
        assert!(other.iter().all(Option::is_some));
        assert!(limiter.acquire(&CallerId::Uid(1002)).is_none() && limiter.acquire(&CallerId::Uid(0)).is_some());
    }

    #[test]
    fn readers_of_one_uid_have_half_of_the_connections() {
        let limiter = limiter(4, 0);
        let readers = [0, 0].map(|uid| limiter.acquire(&CallerId::Uid(uid)).unwrap());
        assert!(readers.iter().all(Permit::may_stream));
        let (own, other) = (limiter.acquire(&CallerId::Uid(0)).unwrap(), limiter.acquire(&CallerId::Uid(1000)).unwrap());
        assert!(!own.may_stream() && other.may_stream());
        drop(readers);
        assert!(own.may_stream(), "a reader that leaves makes room");
    }
}
