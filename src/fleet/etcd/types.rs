//! What is asked of etcd, and what it answers.

/// Which keys are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keys {
    /// One.
    One(String),
    /// All that begin so. An empty prefix is that of all keys.
    Prefix(String),
}

/// What every answer begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Header {
    /// Which cluster answered.
    pub cluster_id: u64,
    /// Which of its members.
    pub member_id: u64,
    /// How far the keys have come. Each transaction that changes any has the next number.
    pub revision: i64,
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The key. One that is no UTF-8 has replacement characters.
    pub key: String,
    /// Its value.
    pub value: Vec<u8>,
    /// The revision at which it was made.
    pub create_revision: i64,
    /// The revision at which it was last written.
    pub mod_revision: i64,
    /// How often it was written since it was made.
    pub version: i64,
    /// The lease that it ends with; 0 for none.
    pub lease: i64,
}

/// A transaction: if all of `compare` hold, `success` is done, otherwise `failure`; all of it at one revision, or nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Txn {
    /// What must hold.
    pub compare: Vec<Compare>,
    /// What is done if it does.
    pub success: Vec<Op>,
    /// What is done if it does not.
    pub failure: Vec<Op>,
}

/// What must hold of a key, or of each key with a prefix. Where there is no key, its revisions, version and lease are 0. A prefix without
/// keys is in `create_revision = 0` and `mod_revision = 0`, and in nothing that demands more: so "no key begins so" can be demanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare {
    /// Of which keys.
    pub keys: Keys,
    /// How it is to be to what is there.
    pub is: Relation,
    /// What it is compared with.
    pub to: Target,
}

/// How what is there is to be to what is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// The same.
    Equal,
    /// Another.
    NotEqual,
    /// More.
    Greater,
    /// Less.
    Less,
}

/// What of a key is compared, and with what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// [`KeyValue::create_revision`].
    CreateRevision(i64),
    /// [`KeyValue::mod_revision`].
    ModRevision(i64),
    /// [`KeyValue::lease`].
    Lease(i64),
    /// [`KeyValue::value`].
    Value(Vec<u8>),
}

impl Compare {
    /// That there is no such key.
    pub fn absent(keys: Keys) -> Self {
        Self { keys, is: Relation::Equal, to: Target::CreateRevision(0) }
    }

    /// That a key is as it was read at this `mod_revision`.
    pub fn unchanged(key: impl Into<String>, mod_revision: i64) -> Self {
        Self { keys: Keys::One(key.into()), is: Relation::Equal, to: Target::ModRevision(mod_revision) }
    }
}

/// A part of a transaction. No key may be written twice in one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Writes a key.
    Put {
        /// The key.
        key: String,
        /// Its value, of at most [`MAX_VALUE`](super::MAX_VALUE) bytes.
        value: Vec<u8>,
        /// The lease that it ends with; 0 for none. An unknown one makes the whole transaction fail as refused.
        lease: i64,
    },
    /// Deletes keys.
    Delete(Keys),
    /// Reads keys, in their order.
    Range {
        /// Which.
        keys: Keys,
        /// How many at most; 0 for all.
        limit: u32,
    },
}

impl Op {
    /// Writes a key that ends with no lease.
    pub fn put(key: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        Self::Put { key: key.into(), value: value.into(), lease: 0 }
    }
}

/// What a transaction did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnAnswer {
    /// Its revision is that of the transaction, if it changed anything.
    pub header: Header,
    /// Whether what must hold did.
    pub succeeded: bool,
    /// What became of each part that was done, in order.
    pub done: Vec<Done>,
}

/// What became of a part of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// The key is written.
    Put,
    /// So many keys were deleted.
    Deleted(u64),
    /// What was read.
    Range(Range),
}

/// Keys that were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The cluster, and its revision when it answered, which may be later than that asked for. Within a transaction it is the transaction's.
    pub header: Header,
    /// The keys, in their order.
    pub keys: Vec<KeyValue>,
    /// Whether there are more of them.
    pub more: bool,
}

/// A lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Its number; never 0.
    pub id: i64,
    /// After how many seconds it ends unless it is kept alive. It may be more than was asked for.
    pub ttl: i64,
}

/// What a member says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The cluster, the member and its own revision.
    pub header: Header,
    /// Its version.
    pub version: String,
    /// How long its database is, in bytes.
    pub db_size: i64,
    /// How much of that holds something.
    pub db_size_in_use: i64,
    /// The member that leads; 0 for none.
    pub leader: u64,
    /// What is wrong with it, such as an alarm.
    pub errors: Vec<String>,
}

/// A change of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It was written.
    Put(KeyValue),
    /// It was deleted, or its lease has ended.
    Delete {
        /// The key.
        key: String,
        /// At which revision.
        mod_revision: i64,
    },
}

impl Event {
    /// The key that changed.
    pub fn key(&self) -> &str {
        match self {
            Self::Put(pair) => &pair.key,
            Self::Delete { key, .. } => key,
        }
    }

    /// The revision of the change.
    pub fn mod_revision(&self) -> i64 {
        match self {
            Self::Put(pair) => pair.mod_revision,
            Self::Delete { mod_revision, .. } => *mod_revision,
        }
    }
}
