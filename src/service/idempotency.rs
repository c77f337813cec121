//! Answers remembered by `Idempotency-Key`: the same key from the same caller does nothing twice.
//!
//! A key is taken before its action begins. The commit that makes the thing notes the key with it, so that after a crash
//! the thing answers for the request that was never answered; the answer itself is noted before it is sent.
//!
//! A key is kept for a day as it passes, not as the wall's clock shows it: a clock that is set forgets nothing.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use crate::model::idempotency::{ClockStamp, Key, Made, StoredAnswer, StoredRequest};

/// How long an answer is kept, in milliseconds: a day.
const KEPT: i64 = 24 * 3_600_000;

/// The most answers kept; beyond, the oldest go first.
const MOST: usize = 65_536;

/// The most bytes of answers kept; beyond, the oldest go first. A bulk create's answer is long.
const MOST_BYTES: usize = 64 << 20;

/// What is known of a key.
#[derive(Debug)]
pub enum Known {
    /// Nothing: it is the caller's now, who must let it go or have it answered.
    New,
    /// The same request was answered with this.
    Answered(StoredAnswer),
    /// The same request made these, and was never answered.
    Made(Vec<Made>),
    /// The same request is under way.
    Underway(OwnedNotified),
    /// Another request has this key.
    Mismatch,
}

/// All keys of the last hours.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: HashMap<Key, Entry>,
    by_age: BTreeSet<(i64, Key)>,
    /// Of all answers together.
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    remembered: StoredRequest,
    /// When it was new, in milliseconds of this boot; before the boot below 0.
    born: i64,
    /// Rung when the request under way has ended; none when none is.
    underway: Option<Arc<Notify>>,
}

impl Cache {
    /// Takes in what the store kept.
    pub fn recall(&mut self, remembered: StoredRequest, now: ClockStamp) {
        self.bytes += length(&remembered);
        let born = elapsed(now).saturating_sub(now.ago(remembered.at, remembered.since));
        self.by_age.insert((born, remembered.key.clone()));
        self.entries.insert(remembered.key.clone(), Entry { remembered, born, underway: None });
    }

    /// What is known of a key for this request; one not known is taken. Also answers with the keys that are too old.
    pub fn ask(&mut self, key: &Key, request: &str, now: ClockStamp) -> (Known, Vec<Key>) {
        let old = self.expire(now);
        let known = match self.entries.get(key) {
            None => {
                let (at, since) = (now.at, now.since);
                let remembered =
                    StoredRequest { key: key.clone(), request: request.to_owned(), at, since, made: Vec::new(), answer: None };
                let born = elapsed(now);
                self.by_age.insert((born, key.clone()));
                self.entries.insert(key.clone(), Entry { remembered, born, underway: Some(Arc::default()) });
                Known::New
            }
            Some(entry) if entry.remembered.request != request => Known::Mismatch,
            Some(Entry { underway: Some(bell), .. }) => Known::Underway(Arc::clone(bell).notified_owned()),
            Some(Entry { remembered: StoredRequest { answer: Some(answer), .. }, .. }) => Known::Answered(answer.clone()),
            Some(entry) if !entry.remembered.made.is_empty() => Known::Made(entry.remembered.made.clone()),
            // It was never answered and made nothing: as if it had never been.
            Some(_) => {
                self.forget(key);
                return self.ask(key, request, now);
            }
        };
        (known, old)
    }

    /// Notes what is being made under a key; what is then to be stored with it.
    pub fn made(&mut self, key: &Key, made: Vec<Made>) -> Option<StoredRequest> {
        let entry = self.entries.get_mut(key)?;
        entry.remembered.made = made;
        Some(entry.remembered.clone())
    }

    /// Notes the answer; what is then to be stored.
    pub fn answered(&mut self, key: &Key, answer: StoredAnswer) -> Option<StoredRequest> {
        let entry = self.entries.get_mut(key)?;
        self.bytes -= length(&entry.remembered);
        entry.remembered.answer = Some(answer);
        self.bytes += length(&entry.remembered);
        Some(entry.remembered.clone())
    }

    /// The request has ended; waiting requests look again.
    pub fn end(&mut self, key: &Key) {
        if let Some(bell) = self.entries.get_mut(key).and_then(|entry| entry.underway.take()) {
            bell.notify_waiters();
        }
    }

    /// Forgets a key.
    pub fn forget(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.by_age.remove(&(entry.born, key.clone()));
            self.bytes -= length(&entry.remembered);
            if let Some(bell) = entry.underway {
                bell.notify_waiters();
            }
        }
    }

    /// The oldest that is not under way: one request that hangs must not keep all behind it.
    fn oldest(&self) -> Option<&(i64, Key)> {
        self.by_age.iter().find(|(_, key)| self.entries.get(key).is_none_or(|entry| entry.underway.is_none()))
    }

    /// Drops what is too old or too much, but for what is under way.
    fn expire(&mut self, now: ClockStamp) -> Vec<Key> {
        let mut old = Vec::new();
        while let Some((born, key)) = self.oldest() {
            if elapsed(now).saturating_sub(*born) <= KEPT && self.by_age.len() <= MOST && self.bytes <= MOST_BYTES {
                break;
            }
            let key = key.clone();
            self.forget(&key);
            old.push(key);
        }
        old
    }
}

/// What has passed since the boot, in milliseconds.
fn elapsed(now: ClockStamp) -> i64 {
    // Where the host does not tell, the wall's clock has to do.
    now.since.map_or(now.at.as_millisecond(), |since| since.ms)
}

fn length(remembered: &StoredRequest) -> usize {
    remembered.answer.as_ref().map_or(0, |answer| answer.body.len())
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};

    use crate::model::PortId;
    use crate::model::idempotency::{CallerId, SinceBoot};

    use super::*;

    fn key(text: &str) -> Key {
        Key { caller: CallerId::Uid(0), key: text.to_owned() }
    }

    const BOOT: uuid::Uuid = uuid::Uuid::from_u128(1);

    /// So many hours after the boot, which was then by the wall's clock.
    fn at(hours: i64) -> ClockStamp {
        after(SignedDuration::from_hours(hours))
    }

    fn after(passed: SignedDuration) -> ClockStamp {
        let since = SinceBoot { boot: BOOT, ms: i64::try_from(passed.as_millis()).unwrap() };
        ClockStamp { at: Timestamp::UNIX_EPOCH + passed, since: Some(since) }
    }

    /// The same moment with a wall clock that was set.
    fn set(moment: ClockStamp, to: Timestamp) -> ClockStamp {
        ClockStamp { at: to, ..moment }
    }

    /// The same moment of another boot.
    fn in_another_boot(moment: ClockStamp) -> ClockStamp {
        ClockStamp { since: Some(SinceBoot { boot: uuid::Uuid::from_u128(2), ms: 1000 }), ..moment }
    }

    fn kept(moment: ClockStamp, made: Vec<Made>, key_text: &str) -> StoredRequest {
        let ClockStamp { at, since } = moment;
        StoredRequest { key: key(key_text), request: "x".to_owned(), at, since, made, answer: None }
    }

    #[test]
    fn a_clock_that_is_set_forgets_no_key() {
        let made = vec![Made::Port(PortId(uuid::Uuid::from_u128(1)))];
        for clock in [Timestamp::MAX, Timestamp::MIN, Timestamp::UNIX_EPOCH] {
            let mut memory = Cache::default();
            assert!(matches!(memory.ask(&key("a"), "x", at(1)).0, Known::New));
            memory.made(&key("a"), made.clone()).unwrap();
            memory.end(&key("a"));
            assert!(matches!(memory.ask(&key("a"), "x", set(at(24), clock)).0, Known::Made(_)), "{clock}");
            // Also when the daemon is started anew after that.
            let mut again = Cache::default();
            again.recall(kept(at(1), made.clone(), "a"), set(at(2), clock));
            assert!(matches!(again.ask(&key("a"), "x", set(at(24), clock)).0, Known::Made(_)), "{clock}");
            assert!(matches!(again.ask(&key("a"), "x", set(at(26), clock)).0, Known::New), "{clock}");
        }
    }

    #[test]
    fn over_a_boot_the_walls_clock_counts() {
        let made = vec![Made::Port(PortId(uuid::Uuid::from_u128(1)))];
        let mut memory = Cache::default();
        memory.recall(kept(at(100), made.clone(), "a"), in_another_boot(at(120)));
        assert!(matches!(memory.ask(&key("a"), "x", in_another_boot(at(120))).0, Known::Made(_)));
        let late = ClockStamp { since: Some(SinceBoot { boot: uuid::Uuid::from_u128(2), ms: 5 * 3_600_000 }), ..at(125) };
        assert!(matches!(memory.ask(&key("a"), "x", late).0, Known::New));
        // One from a time that is yet to come is as if it were new.
        memory.recall(kept(at(9000), made, "b"), in_another_boot(at(120)));
        assert!(matches!(memory.ask(&key("b"), "x", in_another_boot(at(120))).0, Known::Made(_)));
    }

    #[test]
    fn a_key_is_one_request_for_a_day() {
        let mut memory = Cache::default();
        assert!(matches!(memory.ask(&key("a"), "x", at(0)).0, Known::New));
        assert!(matches!(memory.ask(&key("a"), "x", at(0)).0, Known::Underway(_)));
        assert!(matches!(memory.ask(&key("a"), "y", at(0)).0, Known::Mismatch));
        let answer = StoredAnswer { status: 200, body: "{}".to_owned() };
        memory.answered(&key("a"), answer.clone()).unwrap();
        memory.end(&key("a"));
        assert!(matches!(memory.ask(&key("a"), "x", at(23)).0, Known::Answered(given) if given == answer));
        let (known, old) = memory.ask(&key("b"), "x", at(25));
        assert!(matches!(known, Known::New));
        assert_eq!(old, [key("a")]);
        assert!(matches!(memory.ask(&key("a"), "y", at(25)).0, Known::New));
    }

    #[test]
    fn long_answers_are_forgotten_before_they_fill_the_memory() {
        let mut memory = Cache::default();
        for number in 0..80 {
            let key = key(&number.to_string());
            assert!(matches!(memory.ask(&key, "x", after(SignedDuration::from_secs(number))).0, Known::New));
            memory.answered(&key, StoredAnswer { status: 201, body: "x".repeat(1 << 20) }).unwrap();
            memory.end(&key);
        }
        assert!(memory.bytes <= MOST_BYTES + (1 << 20), "{}", memory.bytes);
        assert!(matches!(memory.ask(&key("79"), "x", at(1)).0, Known::Answered(_)));
        assert!(!memory.entries.contains_key(&key("0")));
    }

    #[test]
    fn a_million_keys_leave_as_many_as_are_kept_beside_one_that_hangs() {
        let mut memory = Cache::default();
        memory.ask(&key("hangs"), "x", at(0));
        for number in 0..1_000_000 {
            let key = key(&number.to_string());
            assert!(matches!(memory.ask(&key, "x", after(SignedDuration::from_millis(number))).0, Known::New));
            memory.answered(&key, StoredAnswer { status: 204, body: String::new() }).unwrap();
            memory.end(&key);
        }
        assert!(memory.entries.len() <= MOST + 1 && memory.by_age.len() == memory.entries.len(), "{}", memory.entries.len());
        assert!(matches!(memory.ask(&key("hangs"), "x", at(0)).0, Known::Underway(_)));
        memory.forget(&key("hangs"));
        memory.ask(&key("late"), "x", at(48));
        assert_eq!((memory.entries.len(), memory.by_age.len(), memory.bytes), (1, 1, 0));
    }

    #[test]
    fn another_uid_has_keys_of_its_own() {
        let mut memory = Cache::default();
        memory.ask(&key("a"), "x", at(0));
        assert!(matches!(memory.ask(&Key { caller: CallerId::Uid(7), key: "a".to_owned() }, "y", at(0)).0, Known::New));
    }

    #[test]
    fn what_was_made_and_never_answered_answers() {
        let made = Made::Port(PortId(uuid::Uuid::from_u128(1)));
        let mut memory = Cache::default();
        memory.recall(kept(at(0), vec![made], "a"), at(0));
        assert!(matches!(memory.ask(&key("a"), "x", at(1)).0, Known::Made(found) if found == [made]));
        memory.recall(kept(at(0), Vec::new(), "b"), at(0));
        assert!(matches!(memory.ask(&key("b"), "x", at(1)).0, Known::New));
    }
}
