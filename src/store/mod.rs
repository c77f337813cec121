//! The durable desired state: SQLite in WAL mode with `synchronous=FULL`, written by one thread.
//!
//! ```text
//!  service ── Transaction ─► ┌──────────────┐
//!                            │ store thread │ ── durable, or why not ──► service
//!                            └──────────────┘
//! ```
//!
//! Group commit: all transactions that wait when a flush starts become durable with one `fdatasync`. Each of them still
//! succeeds or fails on its own. A record is the JSON of a `model` type, beside the columns that must be unique: (network,
//! address) and MAC. `sqlite3 nicd.db` can open the file while the daemon runs.

mod files;
mod records;
mod reserve;
mod schema;
mod writer;
mod zones;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use rusqlite::{Connection, OpenFlags};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, oneshot, watch};
use uuid::Uuid;

use crate::failpoints;
use crate::model::idempotency::{Key, StoredRequest};
use crate::model::notice::{NoticeKey, Recipient, StoredNotice};
use crate::model::{
    Claim, Group, GroupId, Held, Job, JobId, Lent, LinkName, MemberId, Network, NetworkId, NotedMember, Port, PortId,
    Registration, Server, ServerId, Subnet, SubnetId, Trunk, TrunkId,
};
use crate::queue::{Queue, QueueError};
use crate::telemetry::meters;
use crate::threads;

use files::Files;
use reserve::Reserve;
use writer::Writer;

pub use schema::Lock;

/// How many transactions may wait. Further requests get 503.
const LIMIT: usize = 8192;

/// The database's name in the state directory.
pub const FILE: &str = "nicd.db";

/// How many transactions that free something may wait: one for each port and each action that can exist.
const FREEING_LIMIT: usize = 8 * LIMIT;

/// Why a store operation failed. All transactions of a failed flush get a clone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No space left, or a quota reached.
    #[error("the state directory is full")]
    Full,
    /// A record conflicts with the existing records: a unique value is taken, or a referenced record is missing. The reconciler checks
    /// the same in memory first, so this error shows a bug.
    #[error("a record does not go with those that are there: {0}")]
    Conflict(String),
    /// The content of the file is corrupt.
    #[error("the store is damaged: {0}. Put a copy back; or move it away: devices stay then, and nicctl gc lists them")]
    Damaged(String),
    /// The disk or SQLite returned an error.
    #[error("the store failed: {0}")]
    Failed(String),
    /// A file could not be opened because the process or the host has no free file descriptor.
    #[error("no file of the store can be opened: {0}; close connections, or raise LimitNOFILE= in nicd's unit")]
    NoDescriptors(String),
    /// The file was written by a newer nicd.
    #[error("{file} has schema version {found}; this nicd knows up to {known}. Run the newer nicd, or restore an older copy")]
    Newer {
        /// The file.
        file: String,
        /// Its version.
        found: u32,
        /// The last one known here.
        known: u32,
    },
    /// A record was written by a newer nicd.
    #[error("a record was written by a newer nicd: {0}. Run the newer nicd, or restore an older copy")]
    NewerRecord(String),
    /// The process has no permission to write.
    #[error("{0} may not be written by this user; start nicd by its service (systemctl start nicd), or as root")]
    Denied(String),
    /// Another nicd holds the state directory.
    #[error("another nicd holds {0}")]
    Held(String),
    /// The open files are no longer the files at the store's paths, so a commit would be lost at the next start.
    #[error("the store's files were replaced while nicd runs: {0}")]
    Replaced(String),
    /// Too many transactions wait, or another program holds the file.
    #[error("the store is busy")]
    Busy,
    /// The store's thread has ended.
    #[error("the store is closed")]
    Closed,
}

impl From<QueueError> for StoreError {
    fn from(refused: QueueError) -> Self {
        match refused {
            QueueError::Full => Self::Busy,
            QueueError::Closed => Self::Closed,
        }
    }
}

impl StoreError {
    /// The error for a failed file operation.
    fn of(errno: Errno) -> Self {
        match errno {
            Errno::ENOSPC | Errno::EDQUOT => Self::Full,
            Errno::EBUSY => Self::Busy,
            Errno::EMFILE | Errno::ENFILE => Self::NoDescriptors(format!("{} ({errno:?})", errno.desc())),
            errno => Self::Failed(errno.desc().to_owned()),
        }
    }

    /// The word for the error's kind, as a metric label.
    fn word(&self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Conflict(_) => "conflict",
            Self::Damaged(_) => "damaged",
            Self::Failed(_) => "failed",
            Self::NoDescriptors(_) => "no_descriptors",
            Self::Denied(_) => "denied",
            Self::Newer { .. } | Self::NewerRecord(_) => "newer",
            Self::Held(_) => "held",
            Self::Replaced(_) => "replaced",
            Self::Busy => "busy",
            Self::Closed => "closed",
        }
    }
}

/// One change to the records.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Writes a network, new or changed.
    PutNetwork(Network),
    /// Removes a network.
    DeleteNetwork(NetworkId),
    /// Writes a subnet, new or changed.
    PutSubnet(Subnet),
    /// Removes a subnet.
    DeleteSubnet(SubnetId),
    /// Writes a security group with its rules, new or changed.
    PutGroup(Box<Group>),
    /// Removes a security group with its rules.
    DeleteGroup(GroupId),
    /// Writes a server, new or changed.
    PutServer(Server),
    /// Removes a server.
    DeleteServer(ServerId),
    /// Writes a port with its addresses, new or changed.
    PutPort(Box<Port>),
    /// Records the name of a port's NIC in its guest, if the port is still attached by the commit with this number.
    NoteGuestDevice(PortId, u64, LinkName),
    /// Removes a port with its addresses.
    DeletePort(PortId),
    /// Writes a trunk, new or changed.
    PutTrunk(Box<Trunk>),
    /// Removes a trunk.
    DeleteTrunk(TrunkId),
    /// Writes the request stored under an idempotency key.
    Remember(Box<StoredRequest>),
    /// Removes an idempotency key.
    ForgetKey(Key),
    /// Writes a job, new or changed.
    PutJob(Box<Job>),
    /// Removes a job.
    DeleteJob(JobId),
    /// Writes what a recipient of notices was told of a port, and is to be told.
    PutNotice(Box<StoredNotice>),
    /// Removes it.
    ForgetNotice(Recipient, NoticeKey),
    /// Notes that this host is registered in its fleet.
    NoteRegistration(Registration),
    /// Writes what this host has claimed in its fleet, new or changed.
    PutClaim(Held),
    /// Removes a claim of this host's.
    DeleteClaim(Claim),
    /// Writes another host's port in security groups, new or changed.
    PutMember(Box<NotedMember>),
    /// Removes one.
    DeleteMember(NetworkId, MemberId),
    /// Writes what another host holds of a block of this host's, new or changed.
    PutLent(Lent),
    /// Removes that.
    DeleteLent(Claim),
    /// Reserves the event numbers below this one.
    ReserveEvents(u64),
    /// Records the range of commits lost by restoring an older copy, or that no device of these commits is left.
    NoteLost(Option<LostCommits>),
}

/// The commits that are missing because an older copy of the store was restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LostCommits {
    /// The last commit that the store has.
    pub after: u64,
    /// The highest commit number found in the ownership tag of a device.
    pub until: u64,
}

impl LostCommits {
    /// Whether a commit is one of the lost commits.
    pub fn has(self, commit: u64) -> bool {
        (self.after + 1..=self.until).contains(&commit)
    }
}

impl Change {
    /// Its word.
    fn word(&self) -> &'static str {
        match self {
            Self::PutNetwork(_) => "put_network",
            Self::DeleteNetwork(_) => "delete_network",
            Self::PutSubnet(_) => "put_subnet",
            Self::DeleteSubnet(_) => "delete_subnet",
            Self::PutGroup(_) => "put_group",
            Self::DeleteGroup(_) => "delete_group",
            Self::PutServer(_) => "put_server",
            Self::DeleteServer(_) => "delete_server",
            Self::PutPort(_) => "put_port",
            Self::NoteGuestDevice(..) => "note_guest_device",
            Self::DeletePort(_) => "delete_port",
            Self::PutTrunk(_) => "put_trunk",
            Self::DeleteTrunk(_) => "delete_trunk",
            Self::Remember(_) => "remember",
            Self::ForgetKey(_) => "forget_key",
            Self::PutJob(_) => "put_job",
            Self::DeleteJob(_) => "delete_job",
            Self::PutNotice(_) => "put_notice",
            Self::ForgetNotice(..) => "forget_notice",
            Self::NoteRegistration(_) => "note_registration",
            Self::PutClaim(_) => "put_claim",
            Self::DeleteClaim(_) => "delete_claim",
            Self::PutMember(_) => "put_member",
            Self::DeleteMember(..) => "delete_member",
            Self::PutLent(_) => "put_lent",
            Self::DeleteLent(_) => "delete_lent",
            Self::ReserveEvents(_) => "reserve_events",
            Self::NoteLost(_) => "note_lost",
        }
    }
}

/// Whether a transaction adds or frees; decides how it is treated on a full disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The transaction adds records, and fails when the disk is full.
    Growing,
    /// The transaction removes records, and may use the reserved disk space.
    Freeing,
}

struct Transaction {
    submitted: Instant,
    /// When the transaction began to wait for the write lock that another program holds.
    waits_since: Option<Instant>,
    changes: Vec<Change>,
    purpose: Purpose,
    /// Gets the result, if a caller waits for it.
    answer: Option<oneshot::Sender<Result<(), StoreError>>>,
    /// Counts the transaction as waiting until it is dropped.
    waits: WaitingCount,
    /// The error of this transaction alone, when the rest of its batch succeeded.
    refused: Option<StoreError>,
}

enum Message {
    /// A transaction to commit at once.
    Commit(Transaction),
    /// A transaction to commit together with the next one that must be committed at once.
    Note(Transaction),
    /// Asks to flush the waiting transactions and to check that the files were not replaced.
    Check(oneshot::Sender<Result<(), StoreError>>),
}

/// Another program that blocks the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// The program holds the write lock, and commits wait for it.
    Writer,
    /// The program has an open read transaction, so the write-ahead log cannot be checkpointed and grows.
    Reader {
        /// The log's length, in bytes.
        log: u64,
    },
}

/// The whole content of the store when it was opened.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The store's id, generated when the store was created; part of every device's alias.
    pub store_id: Uuid,
    /// The number of the last commit.
    pub commit: u64,
    /// The first event number that was never used.
    pub next_event: u64,
    /// The commits lost by restoring an older copy, while a device of one of these commits exists.
    pub lost: Option<LostCommits>,
    /// This host's registration in its fleet.
    pub registration: Option<Registration>,
    /// What this host has claimed in its fleet.
    pub claims: Vec<Held>,
    /// Other hosts' ports in security groups.
    pub members: Vec<NotedMember>,
    /// What other hosts hold of it.
    pub lent: Vec<Lent>,
    /// All networks.
    pub networks: Vec<Network>,
    /// All subnets.
    pub subnets: Vec<Subnet>,
    /// All security groups.
    pub groups: Vec<Group>,
    /// All servers.
    pub servers: Vec<Server>,
    /// All ports.
    pub ports: Vec<Port>,
    /// All trunks.
    pub trunks: Vec<Trunk>,
    /// The requests stored under idempotency keys.
    pub remembered: Vec<StoredRequest>,
    /// All jobs.
    pub jobs: Vec<Job>,
    /// What the recipients of notices were told, and are to be told.
    pub notices: Vec<StoredNotice>,
}

/// A handle of the store's thread. Clones share it.
#[derive(Clone)]
pub struct Store {
    queue: Queue<Message>,
    numbers: Arc<Numbers>,
    file: Arc<PathBuf>,
    holder: watch::Receiver<Option<Holder>>,
    /// Allows one full read of the file at a time.
    reading: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Numbers {
    commit: AtomicU64,
    flushes: AtomicU64,
    /// The transactions that were submitted and not answered yet.
    waiting: AtomicUsize,
    /// Whether the disk space reserved for detaches is available.
    room: AtomicBool,
}

/// Counts a transaction as waiting until this is dropped.
struct WaitingCount {
    numbers: Arc<Numbers>,
    /// How many waited before it.
    before: usize,
}

impl WaitingCount {
    fn new(numbers: &Arc<Numbers>) -> Self {
        Self { before: numbers.waiting.fetch_add(1, Ordering::Relaxed), numbers: Arc::clone(numbers) }
    }
}

impl Drop for WaitingCount {
    fn drop(&mut self) {
        self.numbers.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Numbers {
    /// Returns a number that was never returned before. The number of commits never reaches `u64::MAX`.
    fn next(&self) -> u64 {
        let grown = self.commit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(last.saturating_add(1)));
        grown.unwrap_or(u64::MAX).saturating_add(1)
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("numbers", &self.numbers).finish()
    }
}

impl Store {
    /// Opens the database in `dir`, creating both when missing, and starts the thread. The caller holds the directory's [`Lock`].
    ///
    /// # Errors
    /// It cannot be opened, is damaged, or is of a newer version.
    pub fn open(dir: &Path) -> Result<(Self, Loaded, JoinHandle<()>), StoreError> {
        let file = dir.join(FILE);
        let reserve = Reserve::at(dir.join("reserve"));
        let opened = || failpoints::call(("store", "open"), || schema::open(&file), StoreError::of);
        // A full disk may lack the space even for the log's index.
        let connection = opened().or_else(|error| {
            let again = matches!(error, StoreError::Full | StoreError::Failed(_));
            if again {
                reserve.release();
                return opened();
            }
            Err(error)
        })?;
        let loaded = failpoints::call(("store", "load"), || records::load(&connection), StoreError::of)?;
        let files = Files::opened(&file, loaded.store_id.to_string()).map_err(io_failed)?;
        let numbers = Arc::new(Numbers { commit: AtomicU64::new(loaded.commit), ..Numbers::default() });
        let (report, holder) = watch::channel(None);
        let writer = Writer::new(connection, files, reserve, Arc::clone(&numbers), report, &loaded)?;
        let reading = Arc::new(Semaphore::new(1));
        let store = Self { queue: Queue::new(usize::MAX), numbers, file: Arc::new(file), holder, reading };
        let queue = store.queue.clone();
        let thread = threads::start("nicd-store", move || writer.run(&queue));
        Ok((store, loaded, thread.map_err(io_failed)?))
    }

    /// The number for the next commit. Each call returns a higher number.
    pub fn next_commit(&self) -> u64 {
        self.numbers.next()
    }

    /// Makes the next commit's number higher than `commit`.
    pub fn skip_to(&self, commit: u64) {
        self.numbers.commit.fetch_max(commit, Ordering::Relaxed);
    }

    /// Whether the disk had enough space for detaches at the last flush.
    pub fn has_room(&self) -> bool {
        self.numbers.room.load(Ordering::Relaxed)
    }

    /// The last commit number returned.
    pub fn last_commit(&self) -> u64 {
        self.numbers.commit.load(Ordering::Relaxed)
    }

    /// How many flushes there have been.
    pub fn flushes(&self) -> u64 {
        self.numbers.flushes.load(Ordering::Relaxed)
    }

    /// Commits changes at once. Other waiting changes become durable in the same flush.
    ///
    /// # Errors
    /// None of the changes is in the store.
    pub async fn commit(&self, changes: Vec<Change>, purpose: Purpose) -> Result<(), StoreError> {
        let (answer, durable) = oneshot::channel();
        self.commit_and_tell(changes, purpose, answer);
        durable.await.unwrap_or(Err(StoreError::Closed))
    }

    /// The same for a caller on another thread: `answer` gets the result, or is dropped when the store's thread has ended.
    pub fn commit_and_tell(&self, changes: Vec<Change>, purpose: Purpose, answer: oneshot::Sender<Result<(), StoreError>>) {
        self.submit(changes, purpose, Some(answer), Message::Commit);
    }

    /// Commits changes together with the next commit. A failure is only logged: a start finds the same facts again on the host.
    pub fn note(&self, changes: Vec<Change>) {
        self.submit(changes, Purpose::Freeing, None, Message::Note);
    }

    fn submit(
        &self,
        changes: Vec<Change>,
        purpose: Purpose,
        answer: Option<oneshot::Sender<Result<(), StoreError>>>,
        message: impl FnOnce(Transaction) -> Message,
    ) {
        let limit = if purpose == Purpose::Growing { LIMIT } else { FREEING_LIMIT };
        let waits = WaitingCount::new(&self.numbers);
        let refused = |refused: QueueError| {
            let error = StoreError::from(refused);
            meters().committed(error.word(), Duration::ZERO);
            tracing::debug!(%error, "changes were not handed in");
            error
        };
        if waits.before >= limit {
            let error = refused(QueueError::Full);
            if let Some(answer) = answer {
                let _ = answer.send(Err(error));
            }
            return;
        }
        let submitted = Instant::now();
        let transaction = Transaction { submitted, waits_since: None, changes, purpose, answer, waits, refused: None };
        if let Err(closed) = self.queue.push(message(transaction)) {
            refused(closed);
        }
    }

    /// Reads the whole content, after the flush of all changes submitted before. Uses a connection and a thread of its own, so
    /// commits continue meanwhile; one read runs at a time.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub async fn read(&self) -> Result<Loaded, StoreError> {
        let _one = self.reading.acquire().await.map_err(|_| StoreError::Closed)?;
        self.check().await?;
        let file = Arc::clone(&self.file);
        let read = move || {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(&*file, flags).map_err(failed)?;
            connection.busy_timeout(schema::LOCK_TIMEOUT).map_err(failed)?;
            // One read transaction gives a consistent snapshot.
            let snapshot = connection.unchecked_transaction().map_err(failed)?;
            records::load(&snapshot)
        };
        tokio::task::spawn_blocking(read).await.unwrap_or(Err(StoreError::Closed))
    }

    /// Flushes the waiting changes, and checks that the files were not replaced.
    ///
    /// # Errors
    /// The flush failed, or the files were replaced.
    pub async fn check(&self) -> Result<(), StoreError> {
        let (answer, checked) = oneshot::channel();
        self.queue.push(Message::Check(answer)).map_err(StoreError::from)?;
        checked.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Another program that blocks the store, as a value to watch.
    pub fn holder(&self) -> watch::Receiver<Option<Holder>> {
        self.holder.clone()
    }

    /// How many transactions wait to become durable.
    pub fn waiting(&self) -> usize {
        self.numbers.waiting.load(Ordering::Relaxed)
    }

    /// Ends the thread after the flush of the waiting changes.
    pub fn close(&self) {
        self.queue.close();
    }
}

/// Converts an SQLite error.
fn failed(error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => StoreError::Full,
        // Another program holds the lock, and the busy timeout has passed.
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => StoreError::Busy,
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => StoreError::Damaged(error.to_string()),
        Some(rusqlite::ErrorCode::ConstraintViolation) => StoreError::Conflict(error.to_string()),
        // SQLite does not report the cause.
        Some(rusqlite::ErrorCode::CannotOpen) => no_descriptor().unwrap_or_else(|| StoreError::Failed(error.to_string())),
        _ => StoreError::Failed(error.to_string()),
    }
}

/// The error for a process without a free file descriptor, if that is the case.
fn no_descriptor() -> Option<StoreError> {
    let refused = std::fs::File::open("/").err().map(io_failed);
    refused.filter(|error| matches!(error, StoreError::NoDescriptors(_)))
}

/// Converts an I/O error.
fn io_failed(error: std::io::Error) -> StoreError {
    error.raw_os_error().map_or_else(|| StoreError::Failed(error.to_string()), |errno| StoreError::of(Errno::from_raw(errno)))
}
