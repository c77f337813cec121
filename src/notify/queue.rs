//! What waits for one recipient: pure, without a clock, I/O or randomness.
//!
//! ```text
//!  observe ──► notice of a port ── differs from what is known? ──► waiting ── batch ──► sending
//!                    ▲                                               ▲                    │
//!                    └── Accepted, Dropped: known is what was sent ──┼────────────────────┤
//!                                                                    └─ NotAccepted, Unknown
//! ```
//!
//! Of each notice at most one thing is sent at a time, and it is what holds at that moment: what waits is replaced. While something is
//! under way, and until it is accepted, the recipient may know either, so it is told again even if the port is as before.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use jiff::Timestamp;
use uuid::Uuid;

use crate::model::PortId;
use crate::model::notice::{Fact, Notice, NoticeKey, Occasion};

/// How many notices of ports that are gone or detached may wait. Of every other port there is one at most.
pub const LIMIT: usize = 10_000;

/// What waits for one recipient.
#[derive(Debug)]
pub struct Queue<F> {
    entries: BTreeMap<NoticeKey, Entry<F>>,
    /// What may be sent now, in the order in which it began to wait.
    ready: BTreeMap<u64, NoticeKey>,
    /// What is not to be sent before a time.
    postponed: BTreeMap<(Instant, u64), NoticeKey>,
    /// Of both, what nothing can follow.
    ended: BTreeMap<u64, NoticeKey>,
    /// What is under way.
    sending: BTreeSet<NoticeKey>,
    /// What differs from the store.
    unsaved: BTreeSet<NoticeKey>,
    /// Of these, what the store has nothing of.
    new: BTreeSet<NoticeKey>,
    next: u64,
    limit: usize,
}

#[derive(Debug)]
struct Entry<F> {
    notice: Notice<F>,
    place: Place,
    /// How often it was to be sent again.
    tries: u32,
}

/// Where a notice is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nothing is to be told.
    Rests,
    /// It waits, with this place in the order, and perhaps for a time.
    Waits(u64, Option<Instant>),
    /// It is under way; its place in the order if it has to be sent again.
    Sending(u64),
}

/// Something that is being sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sending<F> {
    /// The notice as it was when it was sent.
    pub notice: Notice<F>,
    /// How often it was sent before.
    pub tries: u32,
}

/// What became of something that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The recipient has accepted it.
    Accepted,
    /// It will never be accepted, so it is not sent again.
    Dropped,
    /// It was not accepted, and is to be sent again.
    NotAccepted,
    /// It is not known whether it was accepted, so it is sent again.
    Unknown,
}

/// What is to be written to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Save<F> {
    /// This notice.
    Put(Notice<F>),
    /// That there is none of this.
    Forget(NoticeKey),
}

/// What is seen of a port.
#[derive(Debug, Clone)]
pub struct Seen<F> {
    /// What it is about.
    pub about: NoticeKey,
    /// What holds now.
    pub fact: F,
    /// Whether nothing can follow.
    pub last: bool,
    /// Why this is looked at.
    pub occasion: Occasion,
    /// An unused id.
    pub id: Uuid,
    /// The time.
    pub now: Timestamp,
}

impl<F: Fact> Queue<F> {
    /// The queue with what the store has.
    pub fn new(stored: Vec<Notice<F>>, limit: usize) -> Self {
        let mut queue = Self {
            entries: BTreeMap::new(),
            ready: BTreeMap::new(),
            postponed: BTreeMap::new(),
            ended: BTreeMap::new(),
            sending: BTreeSet::new(),
            unsaved: BTreeSet::new(),
            new: BTreeSet::new(),
            next: 0,
            limit,
        };
        let mut stored = stored;
        stored.sort_by_key(|notice| (notice.since, notice.occasion.seq));
        for notice in stored {
            let key = notice.about;
            queue.entries.insert(key, Entry { notice, place: Place::Rests, tries: 0 });
            queue.settle(key);
        }
        queue
    }

    /// What is wanted of a port so far.
    pub fn wanted(&self, about: NoticeKey) -> Option<&F> {
        self.entries.get(&about).map(|entry| &entry.notice.wanted)
    }

    /// The notices of a port.
    pub fn of_port(&self, port: PortId) -> Vec<NoticeKey> {
        let first = NoticeKey { port_id: port, server_id: None };
        self.entries.range(first..).map(|(key, _)| *key).take_while(|key| key.port_id == port).collect()
    }

    /// All of which there are notices.
    pub fn ports(&self) -> BTreeSet<PortId> {
        self.entries.keys().map(|key| key.port_id).collect()
    }

    /// Takes in what is seen of a port. Answers what is lost for it, when too much waits.
    pub fn observe(&mut self, seen: Seen<F>) -> Option<Notice<F>> {
        let Seen { about, fact, last, occasion, id, now } = seen;
        match self.entries.get_mut(&about) {
            Some(entry) if entry.notice.wanted == fact && entry.notice.last == last => return None,
            Some(entry) => {
                let rests = entry.place == Place::Rests;
                let notice = &mut entry.notice;
                // What was put off until Nova knows a host is tried at once when something new is to be said.
                entry.tries = 0;
                notice.since = if rests { now } else { notice.since };
                (notice.wanted, notice.last, notice.id, notice.occasion) = (fact, last, id, occasion);
            }
            None => {
                let notice = Notice { about, known: None, unsure: false, wanted: fact, last, id, since: now, occasion };
                self.entries.insert(about, Entry { notice, place: Place::Rests, tries: 0 });
                self.new.insert(about);
            }
        }
        self.unsaved.insert(about);
        self.settle(about);
        self.lose_one()
    }

    /// Puts a notice where it belongs, if nothing of it is under way.
    fn settle(&mut self, key: NoticeKey) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let order = match entry.place {
            Place::Sending(_) => return,
            Place::Rests => self.next,
            Place::Waits(order, until) => {
                remove(&mut self.ready, &mut self.postponed, order, until);
                self.ended.remove(&order);
                order
            }
        };
        let notice = &mut entry.notice;
        if notice.unsure || !notice.wanted.is_silent_after(notice.known.as_ref()) {
            self.next = self.next.max(order + 1);
            entry.place = Place::Waits(order, None);
            self.ready.insert(order, key);
            if notice.last {
                self.ended.insert(order, key);
            }
            return;
        }
        entry.place = Place::Rests;
        if notice.last {
            self.entries.remove(&key);
        } else {
            notice.known = Some(notice.wanted.clone());
        }
        self.unsaved.insert(key);
    }

    /// Removes the oldest of what nothing can follow, when there is too much of it.
    fn lose_one(&mut self) -> Option<Notice<F>> {
        if self.ended.len() <= self.limit {
            return None;
        }
        let (order, key) = self.ended.pop_first()?;
        let entry = self.entries.remove(&key)?;
        if let Place::Waits(_, until) = entry.place {
            remove(&mut self.ready, &mut self.postponed, order, until);
        }
        self.unsaved.insert(key);
        Some(entry.notice)
    }

    /// Takes up to `most` of what may be sent now, the oldest first.
    pub fn batch(&mut self, most: usize, now: Instant) -> Vec<Sending<F>> {
        while let Some(first) = self.postponed.first_entry().filter(|first| first.key().0 <= now) {
            let ((_, order), key) = first.remove_entry();
            self.ready.insert(order, key);
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.place = Place::Waits(order, None);
            }
        }
        let mut batch = Vec::new();
        while batch.len() < most
            && let Some((order, key)) = self.ready.pop_first()
        {
            self.ended.remove(&order);
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            batch.push(Sending { notice: entry.notice.clone(), tries: entry.tries });
            entry.place = Place::Sending(order);
            let notice = &mut entry.notice;
            notice.unsure = true;
            if let Some(known) = &mut notice.known {
                known.doubt(&notice.wanted);
            }
            self.sending.insert(key);
            self.unsaved.insert(key);
        }
        batch
    }

    /// Takes in what became of something sent.
    pub fn ended(&mut self, sent: &Sending<F>, outcome: Outcome) {
        let key = sent.notice.about;
        self.sending.remove(&key);
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let Place::Sending(order) = entry.place else { return };
        self.unsaved.insert(key);
        // What is wanted by now is something else, which is not put off.
        let renewed = entry.notice.id != sent.notice.id;
        entry.place = Place::Waits(order, None);
        entry.tries = if renewed { 0 } else { entry.tries.saturating_add(1) };
        match outcome {
            Outcome::Accepted | Outcome::Dropped => {
                (entry.notice.known, entry.notice.unsure, entry.tries) = (Some(sent.notice.wanted.clone()), false, 0);
            }
            Outcome::NotAccepted => {
                (entry.notice.known, entry.notice.unsure) = (sent.notice.known.clone(), sent.notice.unsure);
            }
            Outcome::Unknown => {}
        }
        self.settle(key);
    }

    /// Puts off what was to be sent again, unless something else is wanted by now.
    pub fn postpone(&mut self, sent: &Sending<F>, until: Instant) {
        let key = sent.notice.about;
        if let Some(entry) = self.entries.get_mut(&key)
            && entry.notice.id == sent.notice.id
            && let Place::Waits(order, None) = entry.place
        {
            entry.place = Place::Waits(order, Some(until));
            self.ready.remove(&order);
            self.postponed.insert((until, order), key);
        }
    }

    /// When something may be sent: at once, at a time, or, if nothing waits, never.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        match self.ready.is_empty() {
            false => Some(now),
            true => self.postponed.keys().next().map(|(until, _)| *until),
        }
    }

    /// How many wait or are under way.
    pub fn len(&self) -> usize {
        self.ready.len() + self.postponed.len() + self.sending.len()
    }

    /// Since when the oldest has been waiting; without those that are put off.
    pub fn oldest(&self) -> Option<Timestamp> {
        let oldest = self.ready.values().take(1).chain(&self.sending);
        oldest.filter_map(|key| self.entries.get(key)).map(|entry| entry.notice.since).min()
    }

    /// Takes the notices of which the store has nothing. They are still to be saved as all others.
    pub fn take_new(&mut self) -> Vec<Notice<F>> {
        let new = std::mem::take(&mut self.new);
        new.iter().filter_map(|key| self.entries.get(key)).map(|entry| entry.notice.clone()).collect()
    }

    /// Takes up to `most` of what differs from the store.
    pub fn unsaved(&mut self, most: usize) -> Vec<Save<F>> {
        let mut saves = Vec::new();
        self.new.clear();
        while saves.len() < most
            && let Some(key) = self.unsaved.pop_first()
        {
            saves.push(self.entries.get(&key).map_or(Save::Forget(key), |entry| Save::Put(entry.notice.clone())));
        }
        saves
    }

    /// Has what could not be written be written again.
    pub fn save_again(&mut self, saves: &[Save<F>]) {
        self.unsaved.extend(saves.iter().map(|save| match save {
            Save::Put(notice) => notice.about,
            Save::Forget(key) => *key,
        }));
    }

    /// Whether something differs from the store.
    pub fn is_unsaved(&self) -> bool {
        !self.unsaved.is_empty()
    }
}

/// Takes something that waits out of the order.
fn remove(
    ready: &mut BTreeMap<u64, NoticeKey>,
    postponed: &mut BTreeMap<(Instant, u64), NoticeKey>,
    order: u64,
    until: Option<Instant>,
) {
    match until {
        None => ready.remove(&order),
        Some(until) => postponed.remove(&(until, order)),
    };
}

#[cfg(test)]
mod tests;
