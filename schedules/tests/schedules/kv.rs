//! A store with etcd's semantics, in memory: one revision a transaction that changes something, guards, and a backup that can be put
//! back. The way to it loses answers, delays transactions, and can be cut.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use nicd::fleet::etcd::{Compare, Done, Error, Header, KeyValue, Keys, Op, Range, Relation, Target, Txn, TxnAnswer, Unreached};
use nicd::fleet::kv::Kv;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::clock::{sleep, spawn};

#[derive(Clone, Default)]
struct Data {
    revision: i64,
    keys: BTreeMap<String, KeyValue>,
}

/// The store.
#[derive(Default)]
pub struct Etcd {
    data: RefCell<Data>,
    backup: RefCell<Data>,
    /// How often a backup was put back: connections end each time, and what is on its way is lost.
    restored: Cell<u32>,
}

impl Etcd {
    pub fn back_up(&self) {
        *self.backup.borrow_mut() = self.data.borrow().clone();
    }

    pub fn restore(&self) {
        *self.data.borrow_mut() = self.backup.borrow().clone();
        self.restored.set(self.restored.get() + 1);
    }

    pub fn find(&self, keys: &Keys) -> Vec<KeyValue> {
        let data = self.data.borrow();
        match keys {
            Keys::One(key) => data.keys.get(key).cloned().into_iter().collect(),
            Keys::Prefix(prefix) => data
                .keys
                .range(prefix.clone()..)
                .take_while(|(key, _)| key.starts_with(prefix))
                .map(|(_, found)| found.clone())
                .collect(),
        }
    }

    /// As etcd's `applyCompare` (server/etcdserver/apply.go): without a key its numbers are 0, and it has no value.
    fn holds(&self, compare: &Compare) -> bool {
        let found = self.find(&compare.keys);
        let is = |there: Option<&KeyValue>| {
            let number = |of: fn(&KeyValue) -> i64, to: i64| there.map_or(0, of).cmp(&to);
            let order = match &compare.to {
                Target::CreateRevision(to) => number(|key| key.create_revision, *to),
                Target::ModRevision(to) => number(|key| key.mod_revision, *to),
                Target::Lease(to) => number(|key| key.lease, *to),
                Target::Value(to) => match there {
                    Some(key) => key.value.cmp(to),
                    None => return false,
                },
            };
            match compare.is {
                Relation::Equal => order.is_eq(),
                Relation::NotEqual => order.is_ne(),
                Relation::Greater => order.is_gt(),
                Relation::Less => order.is_lt(),
            }
        };
        if found.is_empty() { is(None) } else { found.iter().all(|key| is(Some(key))) }
    }

    fn header(&self) -> Header {
        Header { cluster_id: 1, member_id: 1, revision: self.data.borrow().revision }
    }

    pub fn apply(&self, txn: &Txn) -> TxnAnswer {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        let ops = if succeeded { &txn.success } else { &txn.failure };
        let next = self.data.borrow().revision + 1;
        let (mut done, mut changes) = (Vec::new(), false);
        for op in ops {
            match op {
                Op::Range { keys, .. } => {
                    done.push(Done::Range(Range { header: self.header(), keys: self.find(keys), more: false }));
                }
                Op::Put { key, value, lease } => {
                    let before = self.find(&Keys::One(key.clone())).pop();
                    let create_revision = before.as_ref().map_or(next, |there| there.create_revision);
                    let (key, value, version) = (key.clone(), value.clone(), before.map_or(0, |there| there.version) + 1);
                    let put = KeyValue { key: key.clone(), value, create_revision, mod_revision: next, version, lease: *lease };
                    self.data.borrow_mut().keys.insert(key, put);
                    changes = true;
                    done.push(Done::Put);
                }
                Op::Delete(keys) => {
                    let gone = self.find(keys);
                    gone.iter().for_each(|gone| _ = self.data.borrow_mut().keys.remove(&gone.key));
                    changes |= !gone.is_empty();
                    done.push(Done::Deleted(gone.len() as u64));
                }
            }
        }
        if changes {
            self.data.borrow_mut().revision = next;
        }
        TxnAnswer { header: self.header(), succeeded, done }
    }
}

/// A host's way to the store.
#[derive(Clone)]
pub struct Way {
    etcd: Rc<Etcd>,
    random: Rc<RefCell<StdRng>>,
    is_cut: Rc<Cell<bool>>,
    /// Nothing is carried out after its answer was given up.
    is_prompt: bool,
    restored: Rc<Cell<u32>>,
}

impl Way {
    pub fn new(etcd: &Rc<Etcd>, seed: u64) -> Self {
        let random = Rc::new(RefCell::new(StdRng::seed_from_u64(seed)));
        Self {
            etcd: Rc::clone(etcd),
            random,
            is_cut: Rc::default(),
            is_prompt: false,
            restored: Rc::new(Cell::new(etcd.restored.get())),
        }
    }

    /// One that carries nothing out after its answer was given up.
    pub fn prompt(self) -> Self {
        Self { is_prompt: true, ..self }
    }

    pub fn cut(&self, is_cut: bool) {
        self.is_cut.set(is_cut);
    }

    /// The connection has ended since this was last asked.
    pub fn has_ended(&self) -> bool {
        self.restored.replace(self.etcd.restored.get()) != self.etcd.restored.get()
    }

    fn draw(&self, below: u64) -> u64 {
        self.random.borrow_mut().random_range(0..below)
    }

    async fn take(&self) -> Result<(), Error> {
        sleep(Duration::from_millis(self.draw(20))).await;
        let has_ended = self.restored.get() != self.etcd.restored.get();
        // A request may find the other data on a connection of its own, before the end of the first is noticed.
        if self.is_cut.get() || has_ended && self.draw(2) == 0 {
            sleep(Duration::from_millis(500)).await;
            return Err(Error::Unreachable(vec![silent()]));
        }
        Ok(())
    }
}

impl Kv for Way {
    async fn txn(&self, txn: Txn) -> Result<TxnAnswer, Error> {
        self.take().await?;
        let lost = || Err(Error::Unknown(silent()));
        match self.draw(100) {
            // It is carried out, and the answer lost.
            0..3 => {
                self.etcd.apply(&txn);
                lost()
            }
            // It is carried out much later.
            3..6 if !self.is_prompt => {
                let (etcd, wait, restored) = (Rc::clone(&self.etcd), self.draw(60_000), self.etcd.restored.get());
                spawn(async move {
                    sleep(Duration::from_millis(wait)).await;
                    if etcd.restored.get() == restored {
                        etcd.apply(&txn);
                    }
                });
                lost()
            }
            6..8 => Err(Error::Busy("too many requests".into())),
            3..9 => lost(),
            _ => {
                let answer = self.etcd.apply(&txn);
                sleep(Duration::from_millis(self.draw(20))).await;
                Ok(answer)
            }
        }
    }

    async fn read(&self, keys: Keys) -> Result<(i64, Vec<KeyValue>), Error> {
        self.take().await?;
        let found = (self.etcd.data.borrow().revision, self.etcd.find(&keys));
        sleep(Duration::from_millis(self.draw(20))).await;
        Ok(found)
    }
}

fn silent() -> Unreached {
    Unreached { endpoint: "etcd".into(), why: "no answer".into() }
}
