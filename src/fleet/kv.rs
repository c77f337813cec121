//! What the fleet asks of etcd, so that its protocol can be run without sockets too.

use std::future::Future;

use super::etcd::{Compare, Done, Error, Etcd, KeyValue, Keys, Lease, Op, Relation, Target, Txn, TxnAnswer};

/// A store with etcd's semantics.
pub trait Kv: Clone + 'static {
    /// Carries out a transaction, at most once.
    ///
    /// # Errors
    /// It was not carried out, or ([`Error::Unknown`]) it is not known whether it was, or will be.
    fn txn(&self, txn: Txn) -> impl Future<Output = Result<TxnAnswer, Error>>;

    /// Reads all of these keys as they are now; of which revision they are.
    ///
    /// # Errors
    /// No endpoint answers.
    fn read(&self, keys: Keys) -> impl Future<Output = Result<(i64, Vec<KeyValue>), Error>>;
}

/// Its leases.
pub trait Leases: Kv {
    /// Grants a lease that ends so many seconds after it was last kept alive.
    ///
    /// # Errors
    /// No endpoint answers.
    fn grant(&self, seconds: u32) -> impl Future<Output = Result<Lease, Error>>;

    /// Keeps a lease alive. False if it has ended.
    ///
    /// # Errors
    /// No endpoint answers.
    fn keep_alive(&self, lease: Lease) -> impl Future<Output = Result<bool, Error>>;
}

impl Kv for Etcd {
    async fn txn(&self, txn: Txn) -> Result<TxnAnswer, Error> {
        Etcd::txn(self, &txn).await
    }

    async fn read(&self, keys: Keys) -> Result<(i64, Vec<KeyValue>), Error> {
        match keys {
            Keys::One(_) => self.range(&keys, None, 0).await.map(|found| (found.header.revision, found.keys)),
            Keys::Prefix(prefix) => self.pages(prefix).all().await.map(|(header, keys)| (header.revision, keys)),
        }
    }
}

impl Leases for Etcd {
    async fn grant(&self, seconds: u32) -> Result<Lease, Error> {
        self.lease_grant(seconds).await
    }

    async fn keep_alive(&self, lease: Lease) -> Result<bool, Error> {
        Ok(self.lease_keep_alive(lease.id).await?.is_some())
    }
}

impl Compare {
    /// That a key is the one that was made at this revision, and not deleted since.
    pub fn made(key: impl Into<String>, create_revision: i64) -> Self {
        Self { keys: Keys::One(key.into()), is: Relation::Equal, to: Target::CreateRevision(create_revision) }
    }

    /// That there is such a key.
    pub fn present(key: impl Into<String>) -> Self {
        Self { keys: Keys::One(key.into()), is: Relation::Greater, to: Target::CreateRevision(0) }
    }

    /// That a key has this value.
    pub fn value(key: impl Into<String>, value: Vec<u8>) -> Self {
        Self { keys: Keys::One(key.into()), is: Relation::Equal, to: Target::Value(value) }
    }
}

impl Op {
    /// Reads all of these keys.
    pub fn read(keys: Keys) -> Self {
        Self::Range { keys, limit: 0 }
    }
}

impl Txn {
    /// One that does something if all of this holds.
    pub fn when(compare: Vec<Compare>, success: Vec<Op>) -> Self {
        Self { compare, success, failure: Vec::new() }
    }

    /// Reads these keys if it does not hold.
    pub fn or_read(self, keys: impl IntoIterator<Item = Keys>) -> Self {
        Self { failure: keys.into_iter().map(Op::read).collect(), ..self }
    }
}

impl TxnAnswer {
    /// What its reads found, in their order.
    pub fn found(&self) -> Vec<&[KeyValue]> {
        let read = self.done.iter().filter_map(|done| match done {
            Done::Range(range) => Some(range.keys.as_slice()),
            Done::Put | Done::Deleted(_) => None,
        });
        read.collect()
    }
}
