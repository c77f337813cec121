//! What should be, on disk: SQLite in WAL mode with `synchronous=FULL`, one thread that writes.
//!
//! ```text
//!  manager ── Transaction ─► ┌──────────────┐
//!                            │ store thread │ ── durable, or why not ──► manager
//!                            └──────────────┘
//! ```
//!
//! Commits are grouped: everything that waits when a flush is due becomes durable with one `fdatasync`. A transaction is
//! whole or absent on its own even so. Records are the `model`'s serde types as JSON beside the columns that must be
//! unique: (network, address) and MAC. `sqlite3 nicd.db` opens it while the daemon runs.

mod files;
mod records;
mod reserve;
mod schema;
mod writer;

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
use crate::model::{LinkName, Network, NetworkId, Port, PortId, Server, ServerId, Subnet, SubnetId};
use crate::queue::{Queue, QueueError};
use crate::telemetry::meters;
use crate::threads;

use files::Files;
use reserve::Reserve;
use writer::Writer;

pub use schema::Lock;

/// The most transactions that may wait. A client sees 503 beyond.
const LIMIT: usize = 8192;

/// The database's name in the state directory.
pub const FILE: &str = "nicd.db";

/// The most that may wait of what takes something away: one for each port and for each action that there can be.
const FREEING_LIMIT: usize = 8 * LIMIT;

/// Why the store cannot do what it was asked. Cloned to everyone whose transaction shared a failed flush.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No space left, or a quota reached.
    #[error("the state directory is full")]
    Full,
    /// A record does not go with those that are there: what must be unique is taken, or what it names is missing. In-memory
    /// checks come first, so this is a second line.
    #[error("a record does not go with those that are there: {0}")]
    Conflict(String),
    /// What is in the file is not what was written.
    #[error("the store is damaged: {0}. Put a copy back; or move it away: devices stay then, and nicctl gc lists them")]
    Damaged(String),
    /// The disk or the database refused.
    #[error("the store failed: {0}")]
    Failed(String),
    /// A file could not be opened for want of a descriptor: what is in it is not known.
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
    /// This process may not write there.
    #[error("{0} may not be written by this user; start nicd by its service (systemctl start nicd), or as root")]
    Denied(String),
    /// Another nicd holds the state directory.
    #[error("another nicd holds {0}")]
    Held(String),
    /// The files that are written to are not the ones that a start would find: nothing can be made durable.
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
    /// What a file call's failure means.
    fn of(errno: Errno) -> Self {
        match errno {
            Errno::ENOSPC | Errno::EDQUOT => Self::Full,
            Errno::EBUSY => Self::Busy,
            Errno::EMFILE | Errno::ENFILE => Self::NoDescriptors(format!("{} ({errno:?})", errno.desc())),
            errno => Self::Failed(errno.desc().to_owned()),
        }
    }

    /// Its kind in a word, for what is counted.
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

/// One change of the records.
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
    /// Writes a server, new or changed.
    PutServer(Server),
    /// Removes a server.
    DeleteServer(ServerId),
    /// Writes a port with its addresses, new or changed.
    PutPort(Box<Port>),
    /// Notes the name that a port's NIC has in its guest, where the port is still attached by that commit.
    NoteGuestDevice(PortId, u64, LinkName),
    /// Removes a port with its addresses.
    DeletePort(PortId),
    /// Writes what is remembered under an idempotency key.
    Remember(Box<StoredRequest>),
    /// Forgets an idempotency key.
    ForgetKey(Key),
    /// Event numbers below this one may have been used.
    ReserveEvents(u64),
    /// Which commits were lost when an older copy was put back, or that nothing of them is left.
    NoteLost(Option<LostCommits>),
}

/// Commits that an older copy, put in the store's place, does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LostCommits {
    /// The last one that is known.
    pub after: u64,
    /// The last one that a device was seen to be sealed by.
    pub until: u64,
}

impl LostCommits {
    /// Whether a commit is among them.
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
            Self::PutServer(_) => "put_server",
            Self::DeleteServer(_) => "delete_server",
            Self::PutPort(_) => "put_port",
            Self::NoteGuestDevice(..) => "note_guest_device",
            Self::DeletePort(_) => "delete_port",
            Self::Remember(_) => "remember",
            Self::ForgetKey(_) => "forget_key",
            Self::ReserveEvents(_) => "reserve_events",
            Self::NoteLost(_) => "note_lost",
        }
    }
}

/// What a transaction is for, which decides what a full disk means for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// It adds something, and is refused when the disk is full.
    Growing,
    /// It takes something away, and may use the room that is kept for that.
    Freeing,
}

struct Transaction {
    handed_in: Instant,
    /// Since when it is due and waits for another program's write lock.
    waits_since: Option<Instant>,
    changes: Vec<Change>,
    purpose: Purpose,
    /// Told once it is durable, or why it is not; nobody where none waits for it.
    answer: Option<oneshot::Sender<Result<(), StoreError>>>,
    /// Counts it among those that wait.
    waits: Waits,
    /// Set when the transaction itself, not the disk, was refused.
    refused: Option<StoreError>,
}

enum Message {
    /// To be made durable at once.
    Commit(Transaction),
    /// To be made durable with the next that is.
    Note(Transaction),
    /// Asks for a flush of what waits, and for a look at the files.
    Check(oneshot::Sender<Result<(), StoreError>>),
}

/// Another program that keeps the store from going on as it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// It has the write lock, and commits wait for it.
    Writer,
    /// It reads, and the write-ahead log grows for as long as it does.
    Reader {
        /// The log's length, in bytes.
        log: u64,
    },
}

/// Everything there was when the store was opened.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The store's own id, drawn when it was made; part of every device's alias.
    pub store_id: Uuid,
    /// The number of the last commit.
    pub commit: u64,
    /// No event number from here on was ever used.
    pub next_event: u64,
    /// The commits it lost when it was put back, while something of them is left.
    pub lost: Option<LostCommits>,
    /// All networks.
    pub networks: Vec<Network>,
    /// All subnets.
    pub subnets: Vec<Subnet>,
    /// All servers.
    pub servers: Vec<Server>,
    /// All ports.
    pub ports: Vec<Port>,
    /// What is remembered under idempotency keys.
    pub remembered: Vec<StoredRequest>,
}

/// The way to the store's thread; clones share it.
#[derive(Clone)]
pub struct Store {
    queue: Queue<Message>,
    numbers: Arc<Numbers>,
    file: Arc<PathBuf>,
    holder: watch::Receiver<Option<Holder>>,
    /// One look at a time at everything in the file.
    reading: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Numbers {
    commit: AtomicU64,
    flushes: AtomicU64,
    /// Transactions that were handed in and not answered yet.
    waiting: AtomicUsize,
    /// Whether the room that is kept for detaches is there.
    room: AtomicBool,
}

/// A transaction's place among those that wait, until it is dropped.
struct Waits {
    numbers: Arc<Numbers>,
    /// How many waited before it.
    before: usize,
}

impl Waits {
    fn new(numbers: &Arc<Numbers>) -> Self {
        Self { before: numbers.waiting.fetch_add(1, Ordering::Relaxed), numbers: Arc::clone(numbers) }
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.numbers.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Numbers {
    /// A number that was never given out. No count of commits comes near the end of them.
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
    /// Opens the database in `dir`, making both when missing, and starts the thread. The caller holds the directory's
    /// [`Lock`].
    ///
    /// # Errors
    /// It cannot be opened, is damaged, or is of a newer version.
    pub fn open(dir: &Path) -> Result<(Self, Loaded, JoinHandle<()>), StoreError> {
        let file = dir.join(FILE);
        let reserve = Reserve::at(dir.join("reserve"));
        let opened = || failpoints::call(("store", "open"), || schema::open(&file), StoreError::of);
        // A full disk may have no room even for the log's index.
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
        let (tell, holder) = watch::channel(None);
        let writer = Writer::new(connection, files, reserve, Arc::clone(&numbers), tell, &loaded)?;
        let reading = Arc::new(Semaphore::new(1));
        let store = Self { queue: Queue::new(usize::MAX), numbers, file: Arc::new(file), holder, reading };
        let queue = store.queue.clone();
        let thread = threads::start("nicd-store", move || writer.run(&queue));
        Ok((store, loaded, thread.map_err(io_failed)?))
    }

    /// The number the next commit will be known by; grows by one each call and never goes back.
    pub fn next_commit(&self) -> u64 {
        self.numbers.next()
    }

    /// Lets the next commit's number be above this one.
    pub fn skip_to(&self, commit: u64) {
        self.numbers.commit.fetch_max(commit, Ordering::Relaxed);
    }

    /// Whether there was room on the disk at the last flush for what detaches may need.
    pub fn has_room(&self) -> bool {
        self.numbers.room.load(Ordering::Relaxed)
    }

    /// The last number given out.
    pub fn last_commit(&self) -> u64 {
        self.numbers.commit.load(Ordering::Relaxed)
    }

    /// How many flushes there have been.
    pub fn flushes(&self) -> u64 {
        self.numbers.flushes.load(Ordering::Relaxed)
    }

    /// Makes changes durable, at once. What waits meanwhile becomes durable in the same flush.
    ///
    /// # Errors
    /// Nothing of them is in the store then.
    pub async fn commit(&self, changes: Vec<Change>, purpose: Purpose) -> Result<(), StoreError> {
        let (answer, durable) = oneshot::channel();
        self.commit_and_tell(changes, purpose, answer);
        durable.await.unwrap_or(Err(StoreError::Closed))
    }

    /// The same, for a waiter elsewhere: `answer` is told, or dropped when the thread has ended.
    pub fn commit_and_tell(&self, changes: Vec<Change>, purpose: Purpose, answer: oneshot::Sender<Result<(), StoreError>>) {
        self.hand_in(changes, purpose, Some(answer), Message::Commit);
    }

    /// Has changes made durable with the next commit. What becomes of them is only logged: whatever they say is found out again
    /// at a start.
    pub fn note(&self, changes: Vec<Change>) {
        self.hand_in(changes, Purpose::Freeing, None, Message::Note);
    }

    fn hand_in(
        &self,
        changes: Vec<Change>,
        purpose: Purpose,
        answer: Option<oneshot::Sender<Result<(), StoreError>>>,
        message: impl FnOnce(Transaction) -> Message,
    ) {
        let limit = if purpose == Purpose::Growing { LIMIT } else { FREEING_LIMIT };
        let waits = Waits::new(&self.numbers);
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
        let handed_in = Instant::now();
        let transaction = Transaction { handed_in, waits_since: None, changes, purpose, answer, waits, refused: None };
        if let Err(closed) = self.queue.push(message(transaction)) {
            refused(closed);
        }
    }

    /// What the file holds now, once all that was handed in before is durable. Read on a connection and a thread of its
    /// own, one at a time: commits go on meanwhile.
    ///
    /// # Errors
    /// It cannot be read, or is damaged.
    pub async fn read(&self) -> Result<Loaded, StoreError> {
        let _one = self.reading.acquire().await.map_err(|_| StoreError::Closed)?;
        self.check().await?;
        let file = Arc::clone(&self.file);
        let read = move || {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(&*file, flags).map_err(failed)?;
            connection.busy_timeout(schema::PATIENCE).map_err(failed)?;
            // All of it as of one moment.
            let moment = connection.unchecked_transaction().map_err(failed)?;
            records::load(&moment)
        };
        tokio::task::spawn_blocking(read).await.unwrap_or(Err(StoreError::Closed))
    }

    /// Makes what waits durable, and looks whether the files are still the ones that were opened.
    ///
    /// # Errors
    /// They are not.
    pub async fn check(&self) -> Result<(), StoreError> {
        let (told, checked) = oneshot::channel();
        self.queue.push(Message::Check(told)).map_err(StoreError::from)?;
        checked.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Another program that holds the store up, as it changes.
    pub fn holder(&self) -> watch::Receiver<Option<Holder>> {
        self.holder.clone()
    }

    /// How many transactions wait to become durable.
    pub fn waiting(&self) -> usize {
        self.numbers.waiting.load(Ordering::Relaxed)
    }

    /// Lets the thread end after what waits has been made durable.
    pub fn close(&self) {
        self.queue.close();
    }
}

/// What SQLite said, as one of ours.
fn failed(error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => StoreError::Full,
        // Another program holds the file; it was waited for.
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => StoreError::Busy,
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => StoreError::Damaged(error.to_string()),
        Some(rusqlite::ErrorCode::ConstraintViolation) => StoreError::Conflict(error.to_string()),
        // SQLite does not say why.
        Some(rusqlite::ErrorCode::CannotOpen) => no_descriptor().unwrap_or_else(|| StoreError::Failed(error.to_string())),
        _ => StoreError::Failed(error.to_string()),
    }
}

/// That no file at all can be opened, if so.
fn no_descriptor() -> Option<StoreError> {
    let refused = std::fs::File::open("/").err().map(io_failed);
    refused.filter(|error| matches!(error, StoreError::NoDescriptors(_)))
}

/// What a file call said, as one of ours.
fn io_failed(error: std::io::Error) -> StoreError {
    error.raw_os_error().map_or_else(|| StoreError::Failed(error.to_string()), |errno| StoreError::of(Errno::from_raw(errno)))
}
