//! The store's thread: group commit, error isolation within a batch, and checkpoints of the write-ahead log.
//!
//! For most errors (I/O, memory, full disk) SQLite rolls back the whole transaction. Only a constraint violation leaves it open.
//! So a constraint violation fails one transaction of the batch. After any other error the whole batch counts as not written,
//! and each of its transactions is tried again on its own.
//!
//! A failed commit may still be complete in the log, where the next start would find and apply it. So the writer overwrites
//! its log frames with an empty commit before it reports the failure.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{oneshot, watch};

use crate::failpoints;
use crate::queue::Queue;
use crate::telemetry::meters;
use crate::telemetry::meters::OK;

use super::files::{Files, Replaced};
use super::reserve::Reserve;
use super::{Holder, Loaded, Message, Numbers, Purpose, StoreError, Transaction, failed, io_failed, records, schema};

/// How long one attempt waits for the write lock of another program before the writer takes new messages.
const LOCK_SLICE: Duration = Duration::from_secs(1);

/// The length of the log, in pages, at which it is checkpointed.
const LOG_LONG: u32 = 1000;

/// The length of the log, in pages, above which a reader of another program is reported to block the checkpoint.
const LOG_BLOCKED: u32 = 3 * LOG_LONG;

/// How long to wait before a blocked checkpoint is tried again.
const CHECKPOINT_RETRY: Duration = Duration::from_secs(5);

/// How many attempts are made to overwrite a failed commit: an error of the disk that passes may fail several of them.
const OVERWRITE_ATTEMPTS: usize = 16;

/// After how many growing transactions the ports are counted again, while the log cannot be checkpointed.
const UNCOUNTED: u64 = 64;

/// The size of a log frame, in bytes: a page and its header.
const FRAME: u64 = 4096 + 24;

/// See the module.
pub(super) struct Writer {
    connection: Connection,
    files: Files,
    /// The replacement of the files that the last check found.
    replaced: Option<Replaced>,
    reserve: Reserve,
    numbers: Arc<Numbers>,
    /// The commit number of the last flush.
    last: u64,
    /// Whether a failed commit may still be in the log.
    unsettled: bool,
    /// The length of the log in pages, reported by SQLite at each commit.
    pages: Arc<AtomicU32>,
    /// The length of the log at the last checkpoint attempt.
    checkpointed_at: Option<u32>,
    /// When a blocked checkpoint is tried again.
    retry_at: Option<Instant>,
    holder: watch::Sender<Option<Holder>>,
    /// The number of ports when last counted, and the growing transactions since.
    ports: u64,
    uncounted: u64,
}

impl Writer {
    /// Creates the writer on an open connection.
    ///
    /// # Errors
    /// SQLite returned an error.
    pub fn new(
        connection: Connection,
        files: Files,
        reserve: Reserve,
        numbers: Arc<Numbers>,
        holder: watch::Sender<Option<Holder>>,
        loaded: &Loaded,
    ) -> Result<Self, StoreError> {
        let ports = u64::try_from(loaded.ports.len()).unwrap_or(u64::MAX);
        let mut writer = Self {
            connection,
            files,
            replaced: None,
            reserve,
            numbers,
            last: loaded.commit,
            unsettled: false,
            pages: Arc::default(),
            checkpointed_at: None,
            retry_at: None,
            holder,
            ports,
            uncounted: 0,
        };
        writer.install_wal_hook()?;
        writer.checkpoint("TRUNCATE");
        let room = writer.reserve.fill(Reserve::needed(ports, writer.log_is_blocked())).is_ok();
        writer.numbers.room.store(room, Ordering::Relaxed);
        Ok(writer)
    }

    /// Makes SQLite report the log's length instead of running a checkpoint within a commit.
    fn install_wal_hook(&mut self) -> Result<(), StoreError> {
        let pages = Arc::clone(&self.pages);
        let told = move |_: &mut rusqlite::hooks::Wal, length: i32| {
            pages.store(length.unsigned_abs(), Ordering::Relaxed);
            Ok(())
        };
        self.connection.wal_hook(Some(told)).map_err(failed)
    }

    /// Writes transactions until the queue is closed, and then those that remain.
    pub fn run(mut self, queue: &Queue<Message>) {
        let (mut taken, mut batch, mut checks) = (VecDeque::new(), Vec::new(), Vec::new());
        // Whether a batch waits for the lock of another program.
        let mut left = false;
        loop {
            match self.retry_at {
                _ if left => queue.take_now(&mut taken),
                Some(retry_at) => queue.take_until(retry_at, &mut taken),
                None => _ = queue.take(&mut taken),
            }
            if taken.is_empty() && !left && queue.is_closed() {
                break;
            }
            let mut due = left;
            for message in taken.drain(..) {
                match message {
                    Message::Commit(transaction) => {
                        due = true;
                        batch.push(transaction);
                    }
                    Message::Note(transaction) => batch.push(transaction),
                    Message::Check(told) => {
                        due = true;
                        checks.push(told);
                    }
                }
            }
            if due && !batch.is_empty() {
                batch = self.flush(std::mem::take(&mut batch));
            }
            left = due && !batch.is_empty();
            if !left {
                self.answer_checks(&mut checks);
                self.checkpoint_if_long();
            }
        }
        while !batch.is_empty() {
            batch = self.flush(batch);
        }
        self.close();
    }

    fn answer_checks(&mut self, checks: &mut Vec<oneshot::Sender<Result<(), StoreError>>>) {
        if !checks.is_empty() {
            let found = self.check_files();
            checks.drain(..).for_each(|told| _ = told.send(found.clone()));
        }
    }

    /// Commits a batch and answers its transactions. Returns the transactions that still wait for the lock of another program.
    fn flush(&mut self, mut batch: Vec<Transaction>) -> Vec<Transaction> {
        let now = Instant::now();
        batch.iter_mut().for_each(|one| _ = one.waits_since.get_or_insert(now));
        if let Err(error) = self.check_files() {
            answer(batch, &Err(error));
            return Vec::new();
        }
        if let Err(error) = self.make_room(&batch) {
            // Transactions that add records may not use the space reserved for detaches.
            batch = refuse_growing(batch, &error);
        }
        if batch.is_empty() {
            return batch;
        }
        match self.write(&mut batch) {
            Err(StoreError::Busy) => return self.wait_for_lock(batch),
            Err(StoreError::Full) => self.write_on_full_disk(batch),
            // Only a constraint violation belongs to one transaction; any other error may hit each of them again or not.
            Err(error) if batch.len() > 1 => self.write_each(batch, &error),
            written => {
                self.overwrite_failed_commit();
                answer(batch, &written);
            }
        }
        Vec::new()
    }

    /// Handles a full disk: fails the transactions that add records, and writes those that free records into the reserved space.
    fn write_on_full_disk(&mut self, batch: Vec<Transaction>) {
        self.numbers.room.store(false, Ordering::Relaxed);
        self.overwrite_failed_commit();
        let mut freeing = refuse_growing(batch, &StoreError::Full);
        if freeing.is_empty() {
            return;
        }
        let written = loop {
            let released = self.reserve.release_step();
            // The checkpoint frees the log's space. It fails while another program reads.
            self.checkpoint("TRUNCATE");
            let written = self.write(&mut freeing);
            if written != Err(StoreError::Full) || !released {
                break written;
            }
        };
        match written {
            Err(error) if freeing.len() > 1 => self.write_each(freeing, &error),
            written => {
                self.overwrite_failed_commit();
                answer(freeing, &written);
            }
        }
    }

    /// Writes the transactions of a failed batch one by one, for a limited time.
    fn write_each(&mut self, batch: Vec<Transaction>, together: &StoreError) {
        tracing::warn!(error = %together, transactions = batch.len(), "a flush failed; its transactions are tried one by one");
        let until = Instant::now() + schema::LOCK_TIMEOUT;
        let (mut batch, mut results) = (batch, Vec::new());
        for one in &mut batch {
            let in_time = Instant::now() < until;
            results.push(if in_time { self.write(std::slice::from_mut(one)) } else { Err(together.clone()) });
        }
        self.overwrite_failed_commit();
        batch.into_iter().zip(results).for_each(|(one, result)| answer(vec![one], &result));
    }

    /// Another program holds the write lock: fails the transactions that have waited too long, and returns the others.
    fn wait_for_lock(&mut self, batch: Vec<Transaction>) -> Vec<Transaction> {
        let now = Instant::now();
        let waited = |one: &Transaction| now.saturating_duration_since(one.waits_since.unwrap_or(now));
        if batch.iter().any(|one| waited(one) >= LOCK_SLICE) {
            self.report(Some(Holder::Writer));
        }
        let (over, waiting) = batch.into_iter().partition(|one| waited(one) >= schema::LOCK_TIMEOUT);
        answer(over, &Err(StoreError::Busy));
        waiting
    }

    /// Restores the disk space reserved for detaches before records are added.
    fn make_room(&mut self, batch: &[Transaction]) -> Result<(), StoreError> {
        let growing = batch.iter().filter(|one| one.purpose == Purpose::Growing).count();
        if growing == 0 {
            return Ok(());
        }
        self.uncounted = self.uncounted.saturating_add(u64::try_from(growing).unwrap_or(u64::MAX));
        let held = self.log_is_blocked();
        if held && self.uncounted > UNCOUNTED {
            self.ports = records::count_ports(&self.connection).unwrap_or(self.ports);
            self.uncounted = 0;
        }
        let needed = Reserve::needed(self.ports.saturating_add(self.uncounted), held);
        if self.numbers.room.load(Ordering::Relaxed) && !held {
            return Ok(());
        }
        let filled = self.reserve.fill(needed);
        self.numbers.room.store(filled.is_ok(), Ordering::Relaxed);
        filled
    }

    /// Commits all transactions that violate no constraint. After an error none of them counts as written.
    fn write(&mut self, batch: &mut [Transaction]) -> Result<(), StoreError> {
        let began = Instant::now();
        let oldest = batch.iter().filter_map(|one| one.waits_since).min().unwrap_or(began);
        let left = schema::LOCK_TIMEOUT.saturating_sub(began.saturating_duration_since(oldest));
        self.connection.busy_timeout(left.min(LOCK_SLICE)).map_err(failed)?;
        if !self.connection.is_autocommit() {
            // A failed transaction was not rolled back.
            self.connection.execute_batch("ROLLBACK").map_err(failed)?;
        }
        let number = self.next_number();
        // Takes the write lock once for the whole batch.
        let mut all = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        // A single transaction is rolled back as a whole; a savepoint would copy every page it writes.
        let alone = batch.len() == 1;
        for one in batch {
            one.refused = None;
            if alone {
                records::apply(&all, &one.changes)?;
            } else {
                let savepoint = all.savepoint().map_err(failed)?;
                match records::apply(&savepoint, &one.changes) {
                    Ok(()) => savepoint.commit().map_err(failed)?,
                    Err(error @ StoreError::Conflict(_)) => {
                        savepoint.finish().map_err(failed)?;
                        one.refused = Some(error);
                    }
                    Err(error) => return Err(error),
                }
            }
            if all.is_autocommit() {
                return Err(StoreError::Failed("SQLite rolled back a transaction that was to continue".to_owned()));
            }
        }
        records::set_commit(&all, number)?;
        let committed = failpoints::call(("store", "commit"), || all.commit().map_err(failed), StoreError::of);
        // A failed commit may still be in the database; then it counts as a success.
        if let Err(error) = committed
            && !(self.connection.is_autocommit() && records::commit(&self.connection) == Ok(number))
        {
            // On a full disk the commit frame was not written, so a start ignores the transaction.
            self.unsettled = error != StoreError::Full;
            return Err(error);
        }
        self.unsettled = false;
        meters().flushed(began.elapsed());
        self.files.flushed();
        self.last = number;
        self.numbers.flushes.fetch_add(1, Ordering::Relaxed);
        if matches!(*self.holder.borrow(), Some(Holder::Writer)) {
            self.report(None);
        }
        Ok(())
    }

    /// Overwrites a failed commit in the log. If the disk refuses that too, the next start may apply the failed commit.
    fn overwrite_failed_commit(&mut self) {
        let until = Instant::now() + schema::LOCK_TIMEOUT;
        for _ in (0..OVERWRITE_ATTEMPTS).take_while(|_| Instant::now() < until) {
            if !self.unsettled || self.write(&mut []).is_ok() {
                return;
            }
        }
        tracing::error!("a failed commit could not be overwritten in the log: the next start may apply it");
    }

    /// A commit number that no flush has used, and that is no lower than any number returned before.
    fn next_number(&self) -> u64 {
        match self.numbers.commit.load(Ordering::Relaxed) {
            given if given > self.last => given,
            _ => self.numbers.next(),
        }
    }
}

/// Checkpoints of the write-ahead log.
impl Writer {
    fn log_pages(&self) -> u32 {
        self.pages.load(Ordering::Relaxed)
    }

    fn log_is_blocked(&self) -> bool {
        self.log_pages() > LOG_BLOCKED
    }

    /// Checkpoints a long log. A blocked checkpoint is tried again later, and truncates the file once the reader has ended.
    fn checkpoint_if_long(&mut self) {
        let (pages, now) = (self.log_pages(), Instant::now());
        // After a full checkpoint the next commit overwrites the log from its start, unless another program still reads it.
        self.checkpointed_at = self.checkpointed_at.filter(|then| pages >= *then);
        let grown = pages >= self.checkpointed_at.unwrap_or(0).saturating_add(LOG_LONG);
        if !grown && self.retry_at.is_none_or(|retry_at| now < retry_at) || self.replaced.is_some() {
            return;
        }
        // The file is truncated only when it is far longer than normal.
        let whole = self.checkpoint(if pages > LOG_BLOCKED { "TRUNCATE" } else { "PASSIVE" });
        let held = !whole && self.log_is_blocked();
        self.checkpointed_at = Some(pages);
        self.retry_at = (!whole).then_some(now + CHECKPOINT_RETRY);
        if held {
            self.report(Some(Holder::Reader { log: u64::from(self.log_pages()) * FRAME }));
        } else if matches!(*self.holder.borrow(), Some(Holder::Reader { .. })) {
            self.reserve.trim(Reserve::needed(self.ports, false));
            self.report(None);
        }
    }

    /// Runs a checkpoint without waiting for readers; whether the whole log was checkpointed.
    fn checkpoint(&mut self, how: &str) -> bool {
        let moved = self.connection.busy_timeout(Duration::ZERO).and_then(|()| {
            self.connection.query_row(&format!("PRAGMA wal_checkpoint({how})"), [], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
            })
        });
        let (busy, pages, done) = match moved {
            Ok(moved) => moved,
            Err(error) => {
                tracing::debug!(%error, "the write-ahead log could not be checkpointed");
                self.files.checkpointed(None);
                return false;
            }
        };
        if let Ok(pages) = u32::try_from(pages) {
            self.pages.store(pages, Ordering::Relaxed);
        }
        let all = pages == done;
        self.files.checkpointed(all.then_some(self.last));
        all && busy == 0
    }

    fn report(&self, holder: Option<Holder>) {
        self.holder.send_if_modified(|told| {
            let kind = |one: Option<Holder>| one.map(|one| std::mem::discriminant(&one));
            let news = kind(*told) != kind(holder);
            *told = holder;
            news
        });
    }
}

/// Detection of replaced files.
impl Writer {
    /// Checks that the paths still name the opened files. If only the log was removed, the writer checkpoints the log it still has
    /// open and opens the database again.
    fn check_files(&mut self) -> Result<(), StoreError> {
        let mut found = self.files.changed(self.last)?;
        if let Some(Replaced::Log(what)) = &found {
            tracing::error!(%what, "the store's write-ahead log was removed; its content is written into the database");
            found = match self.open_again() {
                Ok(()) => self.files.changed(self.last)?,
                Err(error) => {
                    tracing::error!(%error, "the store could not be opened again");
                    found
                }
            };
        }
        match (&self.replaced, &found) {
            (None, Some(change)) => {
                tracing::error!(error = %change.error(), "no change can be made durable");
                if let Replaced::Moved(_) = change {
                    // The checkpoint makes the moved file complete, for an operator who moves it back.
                    self.checkpoint("TRUNCATE");
                }
            }
            (Some(_), None) => tracing::info!("the store's files are back"),
            _ => {}
        }
        self.replaced = found;
        self.replaced.as_ref().map_or(Ok(()), |change| Err(change.error()))
    }

    /// Checkpoints the whole log, and opens the database again.
    fn open_again(&mut self) -> Result<(), StoreError> {
        if !self.checkpoint("TRUNCATE") {
            return Err(StoreError::Busy);
        }
        let file = self.files.path().to_owned();
        let nothing = Connection::open_in_memory().map_err(failed)?;
        drop(std::mem::replace(&mut self.connection, nothing));
        self.connection = schema::open(&file)?;
        self.install_wal_hook()?;
        let store_id = records::store_id(&self.connection)?.unwrap_or_default();
        self.files = Files::opened(&file, store_id).map_err(io_failed)?;
        match records::commit(&self.connection)? {
            commit if commit == self.last => {}
            commit => return Err(StoreError::Damaged(format!("the last commit was {}, and the file has {commit}", self.last))),
        }
        self.checkpoint("TRUNCATE");
        self.unsettled = false;
        Ok(())
    }

    /// Closes the connection without a checkpoint if the files were replaced: the checkpoint would write to another program's files.
    fn close(&mut self) {
        let _ = self.check_files();
        if self.replaced.is_some()
            && let Err(error) = self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        {
            tracing::debug!(%error, "the store is closed as usual");
        }
    }
}

/// Fails the transactions that add records, and returns the others.
fn refuse_growing(batch: Vec<Transaction>, error: &StoreError) -> Vec<Transaction> {
    let (freeing, growing): (Vec<_>, Vec<_>) = batch.into_iter().partition(|one| one.purpose == Purpose::Freeing);
    answer(growing, &Err(error.clone()));
    freeing
}

fn answer(batch: Vec<Transaction>, result: &Result<(), StoreError>) {
    for one in batch {
        let result = one.refused.map_or_else(|| result.clone(), Err);
        meters().committed(result.as_ref().map_or_else(StoreError::word, |()| OK), one.submitted.elapsed());
        // The caller may submit again as soon as it has the answer, so the count goes down first.
        drop(one.waits);
        failpoints::step(("report", "durable"), || one.answer.map(|answer| answer.send(result)));
    }
}
