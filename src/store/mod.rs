//! What should be, on disk: SQLite in WAL mode with `synchronous=FULL`, one thread that writes.
//!
//! ```text
//!  manager ── Transaction ─► ┌──────────────┐
//!  worker ─── flush! ──────► │ store thread │ ── report(durable) ──► worker or manager
//!                            └──────────────┘
//! ```
//!
//! Commits are grouped: everything that waits when a flush is due becomes durable with one `fdatasync`. A transaction is
//! whole or absent on its own even so. Records are the `model`'s serde types as JSON beside the columns that must be
//! unique: (network, address) and MAC. `sqlite3 nicd.db` opens it while the daemon runs.

mod log;
mod records;
mod schema;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::inbox::{Inbox, Refused};
use crate::model::memory::{Key, Remembered};
use crate::model::{Network, NetworkId, Port, PortId, Server, ServerId, Subnet, SubnetId};
use crate::points;
use crate::telemetry::meters;
use crate::telemetry::meters::OK;
use crate::threads;

pub use schema::Lock;

/// The most transactions that may wait. A client sees 503 beyond.
const LIMIT: usize = 8192;

/// The database's name in the state directory.
pub const FILE: &str = "nicd.db";

/// Room kept for detaches on a full disk, in bytes.
const RESERVE: u64 = 512 * 1024;

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
    /// This process may not write there.
    #[error("{0} may not be written by this user; start nicd by its service (systemctl start nicd), or as root")]
    Denied(String),
    /// Another nicd holds the state directory.
    #[error("another nicd holds {0}")]
    Held(String),
    /// Too many transactions wait, or another program holds the file.
    #[error("the store is busy")]
    Busy,
    /// The store's thread has ended.
    #[error("the store is closed")]
    Closed,
}

impl From<Refused> for StoreError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Full => Self::Busy,
            Refused::Closed => Self::Closed,
        }
    }
}

impl StoreError {
    /// What a file call's failure means.
    fn of(errno: Errno) -> Self {
        match errno {
            Errno::ENOSPC | Errno::EDQUOT => Self::Full,
            Errno::EBUSY => Self::Busy,
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
            Self::Denied(_) => "denied",
            Self::Newer { .. } => "newer",
            Self::Held(_) => "held",
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
    /// Removes a port with its addresses.
    DeletePort(PortId),
    /// Writes what is remembered under an idempotency key.
    Remember(Box<Remembered>),
    /// Forgets an idempotency key.
    ForgetKey(Key),
    /// Event numbers below this one may have been used.
    ReserveEvents(u64),
    /// Which commits were lost when an older copy was put back, or that nothing of them is left.
    NoteLost(Option<LostCommits>),
}

/// Commits that an older copy, put in the store's place, does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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

/// When a transaction is to be durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// At once.
    Now,
    /// With the next flush that somebody asks for.
    WithTheNext,
}

/// Told once the transaction is durable, or why it is not. Runs on the store's thread and must not block.
pub type Report = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

struct Transaction {
    handed_in: Instant,
    changes: Vec<Change>,
    purpose: Purpose,
    report: Report,
    /// Set when the transaction itself, not the disk, was refused.
    refused: Option<StoreError>,
}

enum Message {
    Commit(Transaction, When),
    Flush,
    Read(oneshot::Sender<Result<Loaded, StoreError>>),
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
    pub remembered: Vec<Remembered>,
}

/// The way to the store's thread; clones share it.
#[derive(Clone)]
pub struct Store {
    inbox: Inbox<Message>,
    numbers: Arc<Numbers>,
}

#[derive(Debug, Default)]
struct Numbers {
    commit: AtomicU64,
    flushes: AtomicU64,
    /// Whether the room that is kept for detaches is there.
    room: AtomicBool,
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
        let mut connection = points::call(("store", "open"), || schema::open(&file), StoreError::of)?;
        let loaded = points::call(("store", "load"), || records::load(&mut connection), StoreError::of)?;
        let reserve = Reserve { path: dir.join("reserve") };
        let room = AtomicBool::new(reserve.fill());
        let numbers = Arc::new(Numbers { commit: AtomicU64::new(loaded.commit), flushes: AtomicU64::new(0), room });
        let store = Self { inbox: Inbox::new(LIMIT), numbers };
        let writer = Writer { connection, reserve, numbers: Arc::clone(&store.numbers), last: loaded.commit };
        let inbox = store.inbox.clone();
        let thread = threads::start("nicd-store", move || writer.run(&inbox));
        Ok((store, loaded, thread.map_err(|error| StoreError::Failed(error.to_string()))?))
    }

    /// The number the next commit will be known by; grows by one each call and never goes back.
    pub fn next_commit(&self) -> u64 {
        self.numbers.commit.fetch_add(1, Ordering::Relaxed) + 1
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

    /// Hands in a transaction; `report` is told the end of it in any case.
    pub fn submit(&self, changes: Vec<Change>, purpose: Purpose, when: When, report: Report) {
        // The report is reached through the slot when the inbox drops the message.
        let slot = Arc::new(std::sync::Mutex::new(Some(report)));
        let answer = Arc::clone(&slot);
        let tell = move |slot: &std::sync::Mutex<Option<Report>>, result| {
            let report = slot.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
            if let Some(report) = report {
                report(result);
            }
        };
        let report = Box::new(move |result| tell(&answer, result));
        let transaction = Transaction { handed_in: Instant::now(), changes, purpose, report, refused: None };
        // What frees is bounded by what there is to free.
        let pushed = match (purpose, when) {
            (Purpose::Growing, When::Now) => self.inbox.push(Message::Commit(transaction, when)),
            // The flush to come wakes the thread, once instead of twice.
            (Purpose::Growing, When::WithTheNext) => self.inbox.leave(Message::Commit(transaction, when)),
            (Purpose::Freeing, When::Now) => self.inbox.push_answer(Message::Commit(transaction, when)),
            (Purpose::Freeing, When::WithTheNext) => self.inbox.leave_answer(Message::Commit(transaction, when)),
        };
        if let Err(refused) = pushed {
            let refusal = StoreError::from(refused);
            meters().committed(refusal.word(), Duration::ZERO);
            tell(&slot, Err(refusal));
        }
    }

    /// Makes changes durable, at once.
    ///
    /// # Errors
    /// Nothing of them is in the store then.
    pub async fn commit(&self, changes: Vec<Change>, purpose: Purpose) -> Result<(), StoreError> {
        let (told, durable) = oneshot::channel();
        let report = Box::new(move |result| {
            let _ = told.send(result);
        });
        self.submit(changes, purpose, When::Now, report);
        durable.await.unwrap_or(Err(StoreError::Closed))
    }

    /// What the file holds now, once all that was handed in before is durable.
    ///
    /// # Errors
    /// It cannot be read, or is damaged.
    pub async fn read(&self) -> Result<Loaded, StoreError> {
        let (told, read) = oneshot::channel();
        self.inbox.push(Message::Read(told)).map_err(StoreError::from)?;
        read.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Makes everything handed in so far durable.
    pub fn flush(&self) {
        // A closed store has flushed everything already.
        let _ = self.inbox.push_answer(Message::Flush);
    }

    /// How many messages wait for the thread.
    pub fn waiting(&self) -> usize {
        self.inbox.len()
    }

    /// Lets the thread end after what waits has been made durable.
    pub fn close(&self) {
        self.inbox.close();
    }
}

struct Writer {
    connection: Connection,
    reserve: Reserve,
    numbers: Arc<Numbers>,
    /// The number of the last flush; each has its own.
    last: u64,
}

impl Writer {
    fn run(mut self, inbox: &Inbox<Message>) {
        let (mut taken, mut batch, mut readers, mut lengthened) = (VecDeque::new(), Vec::new(), Vec::new(), false);
        while inbox.take(&mut taken) {
            let mut due = false;
            for message in taken.drain(..) {
                match message {
                    Message::Commit(transaction, when) => {
                        due |= when == When::Now;
                        batch.push(transaction);
                    }
                    Message::Flush => due = true,
                    Message::Read(reader) => {
                        due = true;
                        readers.push(reader);
                    }
                }
            }
            if due && !batch.is_empty() {
                let flushed = self.flush(std::mem::take(&mut batch));
                // Behind the first, for which a start may be waiting.
                if flushed
                    && !std::mem::replace(&mut lengthened, true)
                    && let Err(error) = log::lengthen(&mut self.connection)
                {
                    tracing::debug!(%error, "the write-ahead log could not be lengthened; flushes take longer until it has grown");
                }
            }
            for reader in readers.drain(..) {
                let _ = reader.send(records::load(&mut self.connection));
            }
        }
        if !batch.is_empty() {
            self.flush(batch);
        }
    }

    /// Makes a batch durable, or answers it why not; whether it did.
    fn flush(&mut self, mut batch: Vec<Transaction>) -> bool {
        if !self.has_room(&batch) {
            // What is kept for detaches is not theirs to grow into.
            batch = refuse_growing(batch);
        }
        let mut result = self.write(&mut batch);
        if result == Err(StoreError::Full) {
            batch = refuse_growing(batch);
            self.numbers.room.store(false, Ordering::Relaxed);
            if !batch.is_empty() {
                self.reserve.release();
                self.shrink();
                result = self.write(&mut batch);
            }
        }
        let flushed = result.is_ok();
        answer(batch, &result);
        flushed
    }

    /// Whether what is kept for detaches is there, or can be had again when something is to grow.
    fn has_room(&self, batch: &[Transaction]) -> bool {
        let grows = || batch.iter().any(|one| one.purpose == Purpose::Growing);
        let room = self.numbers.room.load(Ordering::Relaxed) || !grows() || self.reserve.fill();
        if grows() {
            self.numbers.room.store(room, Ordering::Relaxed);
        }
        room
    }

    /// Moves the write-ahead log into the database, which is smaller: what was written twice is there once. Not possible
    /// while somebody reads; the log then simply stays as long as it is.
    fn shrink(&mut self) {
        if let Err(error) = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
            tracing::debug!(%error, "the write-ahead log could not be shortened");
        }
    }

    /// One durable commit of every transaction that is acceptable by itself.
    fn write(&mut self, batch: &mut [Transaction]) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        let number = self.next_number();
        let mut all = self.connection.transaction().map_err(failed)?;
        // Refused alone, it is taken back with the whole; a savepoint would cost a copy of every page it writes.
        let alone = batch.len() == 1;
        for one in batch {
            one.refused = None;
            if alone {
                records::apply(&all, &one.changes)?;
                continue;
            }
            let savepoint = all.savepoint().map_err(failed)?;
            match records::apply(&savepoint, &one.changes) {
                Ok(()) => savepoint.commit().map_err(failed)?,
                // Dropping the savepoint takes this one back; a disk that is full concerns the whole flush.
                Err(StoreError::Full) => return Err(StoreError::Full),
                Err(error) => one.refused = Some(error),
            }
        }
        records::set_commit(&all, number)?;
        let committed = points::call(("store", "commit"), || all.commit().map_err(failed), StoreError::of);
        // A commit that fails may be there all the same, and whoever waits is told what is so.
        if let Err(error) = committed
            && records::commit(&self.connection) != Ok(number)
        {
            return Err(error);
        }
        meters().flushed(began.elapsed());
        self.last = number;
        self.numbers.flushes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl Writer {
    /// A number no flush has had, and no smaller than any that was given out.
    fn next_number(&self) -> u64 {
        match self.numbers.commit.load(Ordering::Relaxed) {
            given if given > self.last => given,
            _ => self.numbers.commit.fetch_add(1, Ordering::Relaxed) + 1,
        }
    }
}

/// Answers what adds something, and gives back the rest.
fn refuse_growing(batch: Vec<Transaction>) -> Vec<Transaction> {
    let (freeing, growing): (Vec<_>, Vec<_>) = batch.into_iter().partition(|one| one.purpose == Purpose::Freeing);
    answer(growing, &Err(StoreError::Full));
    freeing
}

fn answer(batch: Vec<Transaction>, result: &Result<(), StoreError>) {
    for one in batch {
        let result = one.refused.map_or_else(|| result.clone(), Err);
        meters().committed(result.as_ref().map_or_else(StoreError::word, |()| OK), one.handed_in.elapsed());
        points::moment(("report", "durable"), || (one.report)(result));
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
        _ => StoreError::Failed(error.to_string()),
    }
}

/// A file whose only use is that it can be given up when the disk is full.
struct Reserve {
    path: PathBuf,
}

impl Reserve {
    /// Takes the room, unless it is taken already; whether it is there.
    fn fill(&self) -> bool {
        if std::fs::metadata(&self.path).is_ok_and(|meta| meta.len() >= RESERVE) {
            return true;
        }
        let zeros = vec![0u8; usize::try_from(RESERVE).unwrap_or(0)];
        let filled = std::fs::write(&self.path, zeros).is_ok();
        if !filled {
            self.release();
        }
        filled
    }

    fn release(&self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
