//! The thread that writes: batches, what one failure means for the others in its batch, the log's length.
//!
//! SQLite takes back a whole transaction for most errors (I/O, memory, a full disk), and goes on outside of any. Only a
//! constraint's error leaves it open. So a constraint refuses one of the batch alone; after anything else nothing of the
//! batch is taken to be written, and each is tried again by itself.
//!
//! A commit that fails may stand in the log all the same, where the next start would find it: nobody is told of a failure
//! before something else has been written over it.

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

use super::files::{Change as FileChange, Files};
use super::reserve::Reserve;
use super::{Holder, Loaded, Message, Numbers, Purpose, StoreError, Transaction, failed, io_failed, records, schema};

/// How long a batch waits for another program's write lock before it looks round.
const SLICE: Duration = Duration::from_secs(1);

/// The length at which the log is moved into the database, in pages.
const LONG: u32 = 1000;

/// The length beyond which another program is said to hold the log, in pages: it was to be written over long before.
const HELD: u32 = 3 * LONG;

/// How soon a log that is held is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// How often something is written over a commit that failed.
const SETTLING: usize = 3;

/// How many transactions may have made a port before ports are counted again, while room is kept for each.
const UNCOUNTED: u64 = 64;

/// A page of the log with its head, in bytes.
const FRAME: u64 = 4096 + 24;

/// See the module.
pub(super) struct Writer {
    connection: Connection,
    files: Files,
    /// What was last found in place of the files that were opened.
    replaced: Option<FileChange>,
    reserve: Reserve,
    numbers: Arc<Numbers>,
    /// The number of the last flush; each has its own.
    last: u64,
    /// Whether a commit failed and nothing has been written over it yet.
    doubtful: bool,
    /// How many pages the log has, as SQLite says at each commit.
    pages: Arc<AtomicU32>,
    /// The log's length when it was last to be moved into the database.
    moved_at: Option<u32>,
    /// When that is tried again, as somebody was in the way.
    again: Option<Instant>,
    holder: watch::Sender<Option<Holder>>,
    /// The ports when they were last counted, and the transactions since that may have made some.
    ports: u64,
    uncounted: u64,
}

impl Writer {
    /// On an open connection.
    ///
    /// # Errors
    /// SQLite refuses.
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
            doubtful: false,
            pages: Arc::default(),
            moved_at: None,
            again: None,
            holder,
            ports,
            uncounted: 0,
        };
        writer.listen()?;
        writer.move_log("TRUNCATE");
        let room = writer.reserve.fill(Reserve::needed(ports, writer.log_is_held())).is_ok();
        writer.numbers.room.store(room, Ordering::Relaxed);
        Ok(writer)
    }

    /// Has SQLite tell the log's length, in place of moving it by itself in the middle of a commit.
    fn listen(&mut self) -> Result<(), StoreError> {
        let pages = Arc::clone(&self.pages);
        let told = move |_: &mut rusqlite::hooks::Wal, length: i32| {
            pages.store(length.unsigned_abs(), Ordering::Relaxed);
            Ok(())
        };
        self.connection.wal_hook(Some(told)).map_err(failed)
    }

    /// Writes what comes until the queue is closed, and then the rest.
    pub fn run(mut self, queue: &Queue<Message>) {
        let (mut taken, mut batch, mut checks) = (VecDeque::new(), Vec::new(), Vec::new());
        // Something due waits for another program's lock.
        let mut left = false;
        loop {
            match self.again {
                _ if left => queue.take_now(&mut taken),
                Some(again) => queue.take_until(again, &mut taken),
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
                self.tidy();
            }
        }
        while !batch.is_empty() {
            batch = self.flush(batch);
        }
        self.leave();
    }

    fn answer_checks(&mut self, checks: &mut Vec<oneshot::Sender<Result<(), StoreError>>>) {
        if !checks.is_empty() {
            let found = self.same_files();
            checks.drain(..).for_each(|told| _ = told.send(found.clone()));
        }
    }

    /// Makes a batch durable, or answers it why not. Gives back what still waits for another program's lock.
    fn flush(&mut self, mut batch: Vec<Transaction>) -> Vec<Transaction> {
        let now = Instant::now();
        batch.iter_mut().for_each(|one| _ = one.waits_since.get_or_insert(now));
        if let Err(error) = self.same_files() {
            answer(batch, &Err(error));
            return Vec::new();
        }
        if let Err(error) = self.make_room(&batch) {
            // What is kept for detaches is not theirs to grow into.
            batch = refuse_growing(batch, &error);
        }
        if batch.is_empty() {
            return batch;
        }
        match self.write(&mut batch) {
            Err(StoreError::Busy) => return self.keep_waiting(batch),
            Err(StoreError::Full) => self.make_do(batch),
            // A constraint's error is the only one's own; another may be met again by one of them alone.
            Err(error) if batch.len() > 1 => self.write_each(batch, &error),
            written => {
                self.settle();
                answer(batch, &written);
            }
        }
        Vec::new()
    }

    /// The disk is full: what adds something is refused, and what frees gets the room that is kept for it.
    fn make_do(&mut self, batch: Vec<Transaction>) {
        self.numbers.room.store(false, Ordering::Relaxed);
        self.settle();
        let mut freeing = refuse_growing(batch, &StoreError::Full);
        if freeing.is_empty() {
            return;
        }
        let written = loop {
            let given = self.reserve.give();
            // What was written twice is there once then. Not possible while somebody reads.
            self.move_log("TRUNCATE");
            let written = self.write(&mut freeing);
            if written != Err(StoreError::Full) || !given {
                break written;
            }
        };
        match written {
            Err(error) if freeing.len() > 1 => self.write_each(freeing, &error),
            written => {
                self.settle();
                answer(freeing, &written);
            }
        }
    }

    /// Writes one after the other after they failed together, for as long as that is bearable.
    fn write_each(&mut self, batch: Vec<Transaction>, together: &StoreError) {
        tracing::warn!(error = %together, transactions = batch.len(), "a flush failed; each is tried by itself");
        let until = Instant::now() + schema::PATIENCE;
        let (mut batch, mut results) = (batch, Vec::new());
        for one in &mut batch {
            let in_time = Instant::now() < until;
            results.push(if in_time { self.write(std::slice::from_mut(one)) } else { Err(together.clone()) });
        }
        self.settle();
        batch.into_iter().zip(results).for_each(|(one, result)| answer(vec![one], &result));
    }

    /// Another program has the write lock: whoever has waited long enough is answered, the others wait on.
    fn keep_waiting(&mut self, batch: Vec<Transaction>) -> Vec<Transaction> {
        let now = Instant::now();
        let waited = |one: &Transaction| now.saturating_duration_since(one.waits_since.unwrap_or(now));
        if batch.iter().any(|one| waited(one) >= SLICE) {
            self.tell(Some(Holder::Writer));
        }
        let (over, waiting) = batch.into_iter().partition(|one| waited(one) >= schema::PATIENCE);
        answer(over, &Err(StoreError::Busy));
        waiting
    }

    /// Has what is kept for detaches again when something is to grow.
    fn make_room(&mut self, batch: &[Transaction]) -> Result<(), StoreError> {
        let growing = batch.iter().filter(|one| one.purpose == Purpose::Growing).count();
        if growing == 0 {
            return Ok(());
        }
        self.uncounted = self.uncounted.saturating_add(u64::try_from(growing).unwrap_or(u64::MAX));
        let held = self.log_is_held();
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

    /// One durable commit of every transaction that is acceptable by itself. After an error none of them is written.
    fn write(&mut self, batch: &mut [Transaction]) -> Result<(), StoreError> {
        let began = Instant::now();
        let oldest = batch.iter().filter_map(|one| one.waits_since).min().unwrap_or(began);
        let left = schema::PATIENCE.saturating_sub(began.saturating_duration_since(oldest));
        self.connection.busy_timeout(left.min(SLICE)).map_err(failed)?;
        if !self.connection.is_autocommit() {
            // One that failed was not taken back either.
            self.connection.execute_batch("ROLLBACK").map_err(failed)?;
        }
        let number = self.next_number();
        // Waits for another program's lock once, and then has it for the whole batch.
        let mut all = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        // Refused alone, it is taken back with the whole; a savepoint would cost a copy of every page it writes.
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
                return Err(StoreError::Failed("SQLite took a transaction back that it was to go on with".to_owned()));
            }
        }
        records::set_commit(&all, number)?;
        let committed = failpoints::call(("store", "commit"), || all.commit().map_err(failed), StoreError::of);
        // A commit that fails may be there all the same, and whoever waits is told what is so.
        if let Err(error) = committed
            && !(self.connection.is_autocommit() && records::commit(&self.connection) == Ok(number))
        {
            // What did not fit lacks its end, by which a start knows a commit.
            self.doubtful = error != StoreError::Full;
            return Err(error);
        }
        self.doubtful = false;
        meters().flushed(began.elapsed());
        self.files.written();
        self.last = number;
        self.numbers.flushes.fetch_add(1, Ordering::Relaxed);
        if matches!(*self.holder.borrow(), Some(Holder::Writer)) {
            self.tell(None);
        }
        Ok(())
    }

    /// Writes something else over a commit that failed. A disk that does not even take that keeps it from no start.
    fn settle(&mut self) {
        for _ in 0..SETTLING {
            if !self.doubtful || self.write(&mut []).is_ok() {
                return;
            }
        }
        tracing::error!("nothing could be written over a commit that failed: the next start may find it");
    }

    /// A number no flush has had, and no smaller than any that was given out.
    fn next_number(&self) -> u64 {
        match self.numbers.commit.load(Ordering::Relaxed) {
            given if given > self.last => given,
            _ => self.numbers.next(),
        }
    }
}

/// The log's length.
impl Writer {
    fn log_pages(&self) -> u32 {
        self.pages.load(Ordering::Relaxed)
    }

    fn log_is_held(&self) -> bool {
        self.log_pages() > HELD
    }

    /// Moves a long log into the database; one that is held is tried again soon, and shortened when it is let go.
    fn tidy(&mut self) {
        let (pages, now) = (self.log_pages(), Instant::now());
        // Once all of it is moved it is written over from the next commit on, unless somebody still reads it.
        self.moved_at = self.moved_at.filter(|then| pages >= *then);
        let grown = pages >= self.moved_at.unwrap_or(0).saturating_add(LONG);
        if !grown && self.again.is_none_or(|again| now < again) || self.replaced.is_some() {
            return;
        }
        // The file is cut only when it has grown far beyond what it grows to by itself.
        let whole = self.move_log(if pages > HELD { "TRUNCATE" } else { "PASSIVE" });
        let held = !whole && self.log_is_held();
        self.moved_at = Some(pages);
        self.again = (!whole).then_some(now + AGAIN);
        if held {
            self.tell(Some(Holder::Reader { log: u64::from(self.log_pages()) * FRAME }));
        } else if matches!(*self.holder.borrow(), Some(Holder::Reader { .. })) {
            self.reserve.trim(Reserve::needed(self.ports, false));
            self.tell(None);
        }
    }

    /// Moves the log into the database as far as readers let it; whether all of it was, and nobody is waited for.
    fn move_log(&mut self, how: &str) -> bool {
        let moved = self.connection.busy_timeout(Duration::ZERO).and_then(|()| {
            self.connection.query_row(&format!("PRAGMA wal_checkpoint({how})"), [], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
            })
        });
        let (busy, pages, done) = match moved {
            Ok(moved) => moved,
            Err(error) => {
                tracing::debug!(%error, "the write-ahead log could not be moved into the database");
                self.files.moved_into(None);
                return false;
            }
        };
        if let Ok(pages) = u32::try_from(pages) {
            self.pages.store(pages, Ordering::Relaxed);
        }
        let all = pages == done;
        self.files.moved_into(all.then_some(self.last));
        all && busy == 0
    }

    fn tell(&self, holder: Option<Holder>) {
        self.holder.send_if_modified(|told| {
            let kind = |one: Option<Holder>| one.map(|one| std::mem::discriminant(&one));
            let news = kind(*told) != kind(holder);
            *told = holder;
            news
        });
    }
}

/// Files that somebody replaced.
impl Writer {
    /// Looks whether the files are the ones that were opened. Where the log alone was taken away, it is made anew: what it
    /// held is still there for whoever has it open.
    fn same_files(&mut self) -> Result<(), StoreError> {
        let mut found = self.files.changed(self.last)?;
        if let Some(FileChange::Log(what)) = &found {
            tracing::error!(%what, "the store's log was taken away; what it held is written into the database");
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
                tracing::error!(error = %change.error(), "nothing can be made durable");
                if let FileChange::Moved(_) = change {
                    // Whoever puts it back finds all of it in it.
                    self.move_log("TRUNCATE");
                }
            }
            (Some(_), None) => tracing::info!("the store's files are back"),
            _ => {}
        }
        self.replaced = found;
        self.replaced.as_ref().map_or(Ok(()), |change| Err(change.error()))
    }

    /// Moves all of the log into the database, and opens that anew.
    fn open_again(&mut self) -> Result<(), StoreError> {
        if !self.move_log("TRUNCATE") {
            return Err(StoreError::Busy);
        }
        let file = self.files.path().to_owned();
        let nothing = Connection::open_in_memory().map_err(failed)?;
        drop(std::mem::replace(&mut self.connection, nothing));
        self.connection = schema::open(&file)?;
        self.listen()?;
        let store_id = records::store_id(&self.connection)?.unwrap_or_default();
        self.files = Files::opened(&file, store_id).map_err(io_failed)?;
        match records::commit(&self.connection)? {
            commit if commit == self.last => {}
            commit => return Err(StoreError::Damaged(format!("the last commit was {}, and the file has {commit}", self.last))),
        }
        self.move_log("TRUNCATE");
        self.doubtful = false;
        Ok(())
    }

    /// Before the connection is closed: what it would do to files of that name is not for files of others.
    fn leave(&mut self) {
        let _ = self.same_files();
        if self.replaced.is_some()
            && let Err(error) = self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        {
            tracing::debug!(%error, "the store is closed as usual");
        }
    }
}

/// Answers what adds something with this error, and gives back the rest.
fn refuse_growing(batch: Vec<Transaction>, error: &StoreError) -> Vec<Transaction> {
    let (freeing, growing): (Vec<_>, Vec<_>) = batch.into_iter().partition(|one| one.purpose == Purpose::Freeing);
    answer(growing, &Err(error.clone()));
    freeing
}

fn answer(batch: Vec<Transaction>, result: &Result<(), StoreError>) {
    for one in batch {
        let result = one.refused.map_or_else(|| result.clone(), Err);
        meters().committed(result.as_ref().map_or_else(StoreError::word, |()| OK), one.handed_in.elapsed());
        // Its place is free before its answer is known.
        drop(one.waits);
        failpoints::step(("report", "durable"), || one.answer.map(|answer| answer.send(result)));
    }
}
