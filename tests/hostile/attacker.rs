//! The attackers: a process of their own, as a user who is in the daemon's group and not root.
//!
//! It tells its parent on standard output how far it is, one JSON object a line, and at the end what it got.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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

/// Debian's `daemon`, user and group: on every host, and nobody's login.
const NOBODY_IN_PARTICULAR: u32 = 1;

/// How many attack at the same time, besides the herd.
const HANDS: u64 = 8;

/// Distinct idempotency keys.
pub const KEYS: u64 = 10_000;

/// What the attackers share.
#[derive(Debug)]
pub struct Orders {
    pub socket: PathBuf,
    pub view: PathBuf,
    pub seed: u64,
    pub requests: u64,
    taken: AtomicU64,
    keys: AtomicU64,
    pub over: AtomicBool,
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
            taken: AtomicU64::new(0),
            keys: AtomicU64::new(0),
            over: AtomicBool::new(false),
        })
    }

    /// The number of the next request; none when all are made.
    pub fn take(&self) -> Option<u64> {
        let number = self.taken.fetch_add(1, Ordering::Relaxed);
        if number % (self.requests / 100).max(1) == 0 {
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

/// Attacks until all requests are made.
pub fn run(orders: &Orders) {
    become_somebody();
    let tally = Mutex::new(Tally::default());
    thread::scope(|scope| {
        scope.spawn(|| herd::keep(orders));
        let hands: Vec<_> = (0..HANDS).map(|number| scope.spawn(move || Hand::new(orders, number).run())).collect();
        for hand in hands {
            tally.lock().expect("tally").add(hand.join().expect("a hand"));
        }
        orders.over.store(true, Ordering::Relaxed);
    });
    println!("{}", tally.lock().expect("tally").told());
}

/// Gives up root, for good; descriptors for the herd are had before.
fn become_somebody() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("limits");
    setrlimit(Resource::RLIMIT_NOFILE, hard.max(8192), hard.max(8192)).expect("descriptors for the herd");
    setgroups(&[]).expect("no groups");
    setgid(Gid::from_raw(NOBODY_IN_PARTICULAR)).expect("a group");
    setuid(Uid::from_raw(NOBODY_IN_PARTICULAR)).expect("a user");
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
