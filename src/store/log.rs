//! Room in the write-ahead log, made before it is needed.
//!
//! A flush of a file that grows is a flush of its length and its blocks too, which go through the file system's journal: on
//! ext4 it takes about twice as long as one over blocks that are there. SQLite starts a new log at every clean start, and
//! lets it grow until the first checkpoint, from where on it is written over and over.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use rusqlite::{Connection, TransactionBehavior};

use super::{StoreError, failed, schema};

/// The length at which SQLite moves the log into the database by itself (`SQLITE_DEFAULT_WAL_AUTOCHECKPOINT`, 1000 frames of
/// a page and 24 octets), and something for the flush that goes beyond.
const LENGTH: u64 = 1024 * (4096 + 24);

/// How much is written at once, in octets.
const CHUNK: usize = 256 * 1024;

/// Fills the log up to the length it will reach, with zeros: a frame of another salt than the header's is where a reader
/// takes the log to end (<https://www.sqlite.org/fileformat2.html#the_write_ahead_log>).
///
/// # Errors
/// The file could not be written. It is as long as it was then.
pub(super) fn lengthen(connection: &mut Connection) -> Result<(), StoreError> {
    // Another program that has the log's write lock is not waited for.
    connection.busy_timeout(Duration::ZERO).map_err(failed)?;
    let filled = fill(connection);
    connection.busy_timeout(schema::PATIENCE).map_err(failed)?;
    filled
}

fn fill(connection: &mut Connection) -> Result<(), StoreError> {
    let Some(path) = connection.path().map(|path| PathBuf::from(format!("{path}-wal"))) else { return Ok(()) };
    // Holds that lock, so that nobody else appends meanwhile. Dropped, it is taken back.
    let _held = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    let zeros = || {
        let log = OpenOptions::new().write(true).open(path)?;
        let length = log.metadata()?.len();
        let zeros = vec![0; CHUNK];
        let mut at = length;
        while at < LENGTH {
            let chunk = usize::try_from(LENGTH - at).map_or(CHUNK, |left| left.min(CHUNK));
            // Half of the room would be of no use, and might be all the disk has left.
            if let Err(error) = log.write_all_at(&zeros[..chunk], at) {
                log.set_len(length)?;
                return Err(error);
            }
            at += u64::try_from(chunk).unwrap_or(0);
        }
        if at > length { log.sync_data() } else { Ok(()) }
    };
    zeros().map_err(|error: std::io::Error| StoreError::of(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)))
}
