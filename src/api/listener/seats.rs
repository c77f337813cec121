//! Who gets a connection when there are many: a bounded number of seats, some of them kept for uid 0.
//!
//! When the seats a newcomer may use are taken, one is freed at the expense of the uid that has the most. HTTP allows an
//! idle connection to be closed at any time (RFC 9112 §9.5), and its client opens another; so does a reader of events,
//! which resumes. A request that is being handled is never cut short. Thus thousands of connections of one uid, idle, slow
//! or listening, cannot lock out another.
//!
//! A reader of events stays, so readers have no more than half of all seats per uid: that uid's requests have the rest.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::line::{Line, Phase};
use crate::telemetry::meters;

/// The seats of both doors together.
#[derive(Debug)]
pub(super) struct Seats {
    room: Room,
    table: Mutex<Table>,
}

/// How many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// All of them.
    pub max: usize,
    /// Of these, for uid 0 alone.
    pub reserve: usize,
    /// How long a connection must have been idle before its own uid's newcomers may have its seat.
    pub idle_grace: Duration,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    taken: HashMap<u64, Held>,
}

#[derive(Debug)]
struct Held {
    uid: u32,
    line: Arc<Line>,
    leave: CancellationToken,
}

/// A seat; dropping it frees it.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    number: u64,
}

/// A taken seat as the rule sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Taken {
    number: u64,
    uid: u32,
    phase: Phase,
    since: Instant,
}

/// What becomes of a newcomer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Sit,
    /// Once this seat's connection is told to leave.
    SitInsteadOf(u64),
    Refuse,
}

impl Seats {
    pub(super) fn new(room: Room) -> Arc<Self> {
        Arc::new(Self { room, table: Mutex::default() })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A seat for a connection of `uid`, or none. `leave` is cancelled when the seat is wanted by another.
    pub(super) fn take(self: &Arc<Self>, uid: u32, line: Arc<Line>, leave: CancellationToken) -> Option<Seat> {
        let mut table = self.table();
        match table.verdict(self.room, uid, Instant::now()) {
            Verdict::Refuse => return None,
            Verdict::Sit => {}
            Verdict::SitInsteadOf(number) => {
                if let Some(held) = table.taken.remove(&number) {
                    held.leave.cancel();
                }
            }
        }
        let number = table.next;
        table.next += 1;
        table.taken.insert(number, Held { uid, line, leave });
        meters().connections.inc();
        Some(Seat { seats: Arc::clone(self), number })
    }

    /// Whether one more connection of `uid` may become an endless answer.
    pub(super) fn may_stream(&self, uid: u32) -> bool {
        let table = self.table();
        let streams = table.taken.values().filter(|held| held.uid == uid && held.line.phase().0 == Phase::Streaming);
        streams.count() < (self.room.max / 2).max(1)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        meters().connections.dec();
        self.seats.table().taken.remove(&self.number);
    }
}

impl Table {
    fn verdict(&self, room: Room, uid: u32, now: Instant) -> Verdict {
        if self.taken.len() < room.for_uid(uid) {
            return Verdict::Sit;
        }
        let taken: Vec<Taken> = self
            .taken
            .iter()
            .map(|(number, held)| {
                let (phase, since) = held.line.phase();
                Taken { number: *number, uid: held.uid, phase, since }
            })
            .collect();
        make_room(&taken, uid, now, room.idle_grace)
    }
}

impl Room {
    /// How many may be taken for `uid` still to get one.
    fn for_uid(self, uid: u32) -> usize {
        if uid == 0 { self.max } else { self.max.saturating_sub(self.reserve) }
    }
}

/// The rule, when all seats a newcomer may use are taken.
fn make_room(taken: &[Taken], newcomer: u32, now: Instant, idle_grace: Duration) -> Verdict {
    // Nobody but root sends root's connections away.
    let within_reach = || taken.iter().filter(|seat| newcomer == 0 || seat.uid != 0);
    let mut counts: HashMap<u32, usize> = HashMap::new();
    within_reach().for_each(|seat| *counts.entry(seat.uid).or_default() += 1);
    let own = counts.get(&newcomer).copied().unwrap_or_default();
    let Some((most, crowd)) = counts.into_iter().map(|(uid, count)| (count, uid)).max() else { return Verdict::Refuse };
    // Among equals only what has long been idle goes, or two clients would push each other out in turns.
    let equals = most <= own + 1;
    let may_go = |seat: &&Taken| match seat.phase {
        Phase::Leaving => true,
        Phase::Fresh | Phase::Idle => !equals || now.duration_since(seat.since) > idle_grace,
        Phase::Arriving | Phase::Receiving | Phase::Working | Phase::Streaming => !equals,
    };
    let of_crowd = within_reach().filter(|seat| seat.uid == crowd).filter(may_go);
    let next = of_crowd.filter_map(|seat| cost(seat.phase).map(|cost| (cost, seat.since, seat.number))).min();
    next.map_or(Verdict::Refuse, |(_, _, number)| Verdict::SitInsteadOf(number))
}

/// What closing a connection costs its client, from nothing upwards; none when it must not be closed.
fn cost(phase: Phase) -> Option<u8> {
    match phase {
        Phase::Leaving => Some(0),
        Phase::Fresh | Phase::Idle => Some(1),
        Phase::Arriving | Phase::Receiving => Some(2),
        Phase::Streaming => Some(3),
        Phase::Working => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Phase::{Arriving, Fresh, Idle, Leaving, Streaming, Working};

    /// Seats numbered from 0, each with a uid, a phase and an age in seconds.
    fn seats(now: Instant, list: &[(u32, Phase, u64)]) -> Vec<Taken> {
        let seat = |(number, (uid, phase, age)): (usize, &(u32, Phase, u64))| Taken {
            number: number as u64,
            uid: *uid,
            phase: *phase,
            since: now - Duration::from_secs(*age),
        };
        list.iter().enumerate().map(seat).collect()
    }

    #[test]
    fn room_is_made_at_the_expense_of_who_has_most() {
        let now = Instant::now() + Duration::from_secs(1000);
        let full = |uid, list: &[(u32, Phase, u64)]| make_room(&seats(now, list), uid, now, Duration::from_secs(5));
        for (what, newcomer, list, verdict) in [
            (
                "the longest idle of the crowd",
                7,
                &[(5, Idle, 1), (5, Idle, 3), (5, Idle, 2), (6, Idle, 99)][..],
                Verdict::SitInsteadOf(1),
            ),
            (
                "idle before slow before streaming",
                7,
                &[(5, Streaming, 9), (5, Arriving, 8), (5, Fresh, 1)],
                Verdict::SitInsteadOf(2),
            ),
            ("slow before streaming", 7, &[(5, Streaming, 9), (5, Arriving, 1), (5, Working, 9)], Verdict::SitInsteadOf(1)),
            ("streams too, of a crowd", 7, &[(5, Streaming, 9), (5, Working, 99), (5, Working, 9)], Verdict::SitInsteadOf(0)),
            ("never one that works", 7, &[(5, Working, 99), (5, Working, 9), (5, Working, 9)], Verdict::Refuse),
            ("its own, if idle for long", 5, &[(5, Idle, 6), (5, Idle, 4), (5, Working, 9)], Verdict::SitInsteadOf(0)),
            ("not its own, if idle for a moment", 5, &[(5, Idle, 4), (5, Arriving, 9)], Verdict::Refuse),
            ("one that leaves, at once", 5, &[(5, Idle, 99), (5, Leaving, 0)], Verdict::SitInsteadOf(1)),
            ("an equal's only if idle for long", 7, &[(5, Streaming, 99), (6, Idle, 4)], Verdict::Refuse),
            ("not root's", 7, &[(0, Idle, 99), (0, Idle, 99)], Verdict::Refuse),
            ("the crowd beside root", 7, &[(0, Idle, 99), (0, Idle, 99), (5, Idle, 9)], Verdict::SitInsteadOf(2)),
            ("root's own by root", 0, &[(0, Idle, 99), (0, Idle, 9)], Verdict::SitInsteadOf(0)),
            ("nobody there", 7, &[], Verdict::Refuse),
        ] {
            assert_eq!(full(newcomer, list), verdict, "{what}");
        }
    }

    #[test]
    fn the_reserve_is_for_root() {
        let seats = Seats::new(Room { max: 4, reserve: 1, idle_grace: Duration::from_secs(5) });
        let take = |uid| seats.take(uid, Line::new(), CancellationToken::new());
        let ours: Vec<_> = (0..3).map(|_| take(1000).unwrap()).collect();
        assert!(take(1000).is_none());
        let root = take(0).unwrap();
        // A root newcomer beyond the last seat gets one of the crowd's.
        let more = take(0).unwrap();
        assert_eq!(seats.table().taken.len(), 4);
        drop((ours, root, more));
        assert_eq!(seats.table().taken.len(), 0);
    }

    #[test]
    fn readers_of_one_uid_have_half_of_the_seats() {
        let seats = Seats::new(Room { max: 4, reserve: 1, idle_grace: Duration::from_secs(5) });
        let sit = |uid| {
            let line = Line::new();
            (seats.take(uid, Arc::clone(&line), CancellationToken::new()).unwrap(), line)
        };
        let readers = [sit(0), sit(0)];
        for (_, line) in &readers {
            assert!(seats.may_stream(0));
            line.streams();
        }
        assert!(!seats.may_stream(0) && seats.may_stream(1000));
        let [(left, _), _stays] = readers;
        drop(left);
        assert!(seats.may_stream(0), "who leaves makes room");
    }

    #[test]
    fn five_thousand_of_one_uid_do_not_lock_out_another() {
        let seats = Seats::new(Room { max: 256, reserve: 16, idle_grace: Duration::from_secs(5) });
        let leave = CancellationToken::new();
        let held: Vec<_> = (0..5000).filter_map(|_| seats.take(1000, Line::new(), leave.child_token())).collect();
        assert_eq!(held.len(), 240);
        let other: Vec<_> = (0..100).map(|_| seats.take(1001, Line::new(), leave.child_token())).collect();
        assert!(other.iter().all(Option::is_some));
        assert!(seats.take(0, Line::new(), leave.child_token()).is_some());
        assert!(seats.table().taken.len() <= 256);
    }
}
