//! The attackers: two processes, each as a user of its own who is in the daemon's group and not root.
//!
//! The hands tell their parent on standard output how far they are, one JSON object a line, and at the end what they got.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
use serde_json::{Value, json};

use crate::dice::Dice;
use crate::hand::Hand;
use crate::herd;

/// In the environment of the attackers' process: what it is to do.
pub const ORDERS: &str = "NICD_HOSTILE_ORDERS";

/// The group the sockets are for in this test, Debian's `daemon`: on every host, and nobody's.
const GROUP: u32 = 1;

/// As whom the hands attack.
const HANDS_UID: u32 = 1;

/// As whom the herd does: so many of one user must not lock out another.
const HERD_UID: u32 = 2;

/// How many attack at the same time, besides the herd.
const WORKERS: u64 = 8;

/// Distinct idempotency keys.
pub const KEYS: u64 = 10_000;

/// What the attackers share.
#[derive(Debug)]
pub struct Orders {
    pub socket: PathBuf,
    pub view: PathBuf,
    pub seed: u64,
    pub requests: u64,
    /// Whether this is the herd's process.
    herd: bool,
    taken: AtomicU64,
    keys: AtomicU64,
}

/// What came back.
#[derive(Debug, Default)]
pub struct Tally {
    /// By kind and status; 0 is a connection closed without answer.
    pub answers: BTreeMap<(&'static str, u16), u64>,
    pub wrong: Vec<String>,
}

impl Orders {
    /// As the environment has them, if this is the attackers' process.
    pub fn received() -> Option<Self> {
        let orders: Value = serde_json::from_str(&std::env::var(ORDERS).ok()?).expect("orders");
        let path = |key: &str| PathBuf::from(orders[key].as_str().expect("a path"));
        let number = |key: &str| orders[key].as_u64().expect("a number");
        Some(Self {
            socket: path("socket"),
            view: path("view"),
            seed: number("seed"),
            requests: number("requests"),
            herd: orders["herd"].as_bool().expect("a part"),
            taken: AtomicU64::new(0),
            keys: AtomicU64::new(0),
        })
    }

    /// The number of the next request; none when all are made.
    pub fn take(&self) -> Option<u64> {
        let number = self.taken.fetch_add(1, Ordering::Relaxed);
        if number.is_multiple_of((self.requests / 100).max(1)) {
            println!("{}", json!({"sent": number.min(self.requests)}));
        }
        (number < self.requests).then_some(number)
    }

    /// A key's number, so that all are used in the first fifth, and none besides them ever.
    pub fn key(&self, dice: &mut Dice) -> Option<u64> {
        let used = self.keys.load(Ordering::Relaxed);
        if used < KEYS && dice.chance(70) {
            return Some(self.keys.fetch_add(1, Ordering::Relaxed)).filter(|key| *key < KEYS);
        }
        dice.chance(3).then(|| dice.next() % KEYS)
    }
}

/// Attacks until all requests are made; the herd until it is killed.
pub fn run(orders: &Orders) {
    become_user(if orders.herd { HERD_UID } else { HANDS_UID });
    if orders.herd {
        herd::keep(orders);
    }
    let mut tally = Tally::default();
    thread::scope(|scope| {
        let hands: Vec<_> = (0..WORKERS).map(|number| scope.spawn(move || Hand::new(orders, number).run())).collect();
        hands.into_iter().for_each(|hand| tally.add(hand.join().expect("a hand")));
    });
    println!("{}", tally.told());
}

/// Gives up root, for good; descriptors for the herd are had before.
fn become_user(uid: u32) {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("limits");
    setrlimit(Resource::RLIMIT_NOFILE, hard.max(8192), hard.max(8192)).expect("descriptors for the herd");
    setgroups(&[]).expect("no groups");
    setgid(Gid::from_raw(GROUP)).expect("a group");
    setuid(Uid::from_raw(uid)).expect("a user");
    // The parent's end is the end of this.
    set_pdeathsig(Signal::SIGKILL).expect("an end");
}

impl Tally {
    pub fn count(&mut self, kind: &'static str, status: u16) {
        *self.answers.entry((kind, status)).or_default() += 1;
    }

    fn add(&mut self, other: Self) {
        other.answers.into_iter().for_each(|(key, count)| *self.answers.entry(key).or_default() += count);
        self.wrong.extend(other.wrong);
    }

    fn told(&self) -> Value {
        let mut kinds: BTreeMap<&str, BTreeMap<String, u64>> = BTreeMap::new();
        for ((kind, status), count) in &self.answers {
            kinds.entry(kind).or_default().insert(status.to_string(), *count);
        }
        json!({"kinds": kinds, "wrong": self.wrong.len(), "first": self.wrong.iter().take(20).collect::<Vec<_>>()})
    }
}
