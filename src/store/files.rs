//! Detects that the store's files were replaced, in_database or overwritten while nicd runs.
//!
//! SQLite continues to write to a file that was unlinked, in_database or overwritten, and the next start does not find these commits.
//! So each flush first compares the files at the store's paths with the opened files.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rusqlite::{Connection, OpenFlags};

use super::{StoreError, failed, records};

/// How the files at the store's paths differ from the opened files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Replaced {
    /// The database's path is gone, or names another file. The opened file may still exist under another name.
    Moved(String),
    /// The write-ahead log or the log's index is gone or was replaced; the database is in place.
    Log(String),
    /// Another program wrote into a file or truncated it, bypassing SQLite.
    Overwritten(String),
}

impl Replaced {
    /// As an error.
    pub fn error(&self) -> StoreError {
        let (Self::Moved(what) | Self::Log(what) | Self::Overwritten(what)) = self;
        StoreError::Replaced(what.clone())
    }
}

/// Device and inode.
type Identity = (u64, u64);

/// The store's files as they were opened.
#[derive(Debug)]
pub(super) struct Files {
    database: (PathBuf, Identity),
    log: (PathBuf, Identity),
    /// The log's shared-memory index.
    index: (PathBuf, Identity),
    /// The database's length and modification time after nicd's last checkpoint.
    database_state: (u64, SystemTime),
    /// The log's length.
    log_length: u64,
    store_id: String,
    /// The database file, without its log, contains at least this commit.
    in_database: u64,
}

impl Files {
    /// Records the identity of the files that were just opened.
    pub fn opened(path: &Path, store_id: String) -> io::Result<Self> {
        let name = |suffix: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        let identify = |path: PathBuf| path.metadata().map(|meta| (path, identity(&meta)));
        let mut files = Self {
            database: identify(path.to_owned())?,
            log: identify(name("-wal"))?,
            index: identify(name("-shm"))?,
            database_state: (0, SystemTime::UNIX_EPOCH),
            log_length: 0,
            store_id,
            in_database: 0,
        };
        files.checkpointed(None);
        files.flushed();
        Ok(files)
    }

    /// The database's name.
    pub fn path(&self) -> &Path {
        &self.database.0
    }

    /// Compares the files with the opened ones; `None` when nothing has changed. `last` is the number of the last commit.
    ///
    /// # Errors
    /// The files cannot be compared, because no file descriptor is free.
    pub fn changed(&mut self, last: u64) -> Result<Option<Replaced>, StoreError> {
        let (path, opened) = &self.database;
        let meta = match same(path, *opened) {
            Ok(meta) => meta,
            Err(what) => return Ok(Some(Replaced::Moved(what))),
        };
        let log = match same(&self.log.0, self.log.1) {
            Ok(meta) => meta.len(),
            Err(what) => return Ok(Some(Replaced::Log(what))),
        };
        if let Err(what) = same(&self.index.0, self.index.1) {
            return Ok(Some(Replaced::Log(what)));
        }
        let (now, cut) = (stamp(&meta), log < self.log_length);
        if now != self.database_state || cut {
            // A checkpoint by another program changes the file too; the commit number in the database tells the two apart.
            let least = if cut { last } else { self.in_database };
            match self.holds() {
                Ok((id, commit)) if id == self.store_id && (least..=last).contains(&commit) => self.in_database = commit,
                Ok((id, commit)) => {
                    let found = format!("store {id} at commit {commit} instead of {} at {least} or later", self.store_id);
                    let file = if cut { "the write-ahead log was cut: without it there is" } else { "there is" };
                    return Ok(Some(Replaced::Overwritten(format!("{file} {found} in {}", path.display()))));
                }
                Err(error @ StoreError::NoDescriptors(_)) => return Err(error),
                Err(error) => {
                    return Ok(Some(Replaced::Overwritten(format!("{} was cut or overwritten: {error}", path.display()))));
                }
            }
        }
        (self.database_state, self.log_length) = (now, log);
        Ok(None)
    }

    /// Records the log's length after a flush.
    pub fn flushed(&mut self) {
        self.log_length = self.log.0.metadata().map_or(0, |meta| meta.len());
    }

    /// Records the database's state after a checkpoint; `commit` is the commit that the database file now contains, if known.
    pub fn checkpointed(&mut self, commit: Option<u64>) {
        self.in_database = commit.unwrap_or(self.in_database);
        if let Ok(meta) = self.database.0.metadata() {
            self.database_state = stamp(&meta);
        }
        self.flushed();
    }

    /// The store's id and the last commit in the database file without its log.
    fn holds(&self) -> Result<(String, u64), StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let alone = Connection::open_with_flags(format!("file:{}?immutable=1", escaped(&self.database.0)), flags);
        let alone = alone.map_err(failed)?;
        Ok((records::store_id(&alone)?.unwrap_or_default(), records::commit(&alone)?))
    }
}

fn identity(meta: &Metadata) -> Identity {
    (meta.dev(), meta.ino())
}

fn stamp(meta: &Metadata) -> (u64, SystemTime) {
    (meta.len(), meta.modified().unwrap_or(SystemTime::UNIX_EPOCH))
}

fn same(path: &Path, opened: Identity) -> Result<Metadata, String> {
    match path.metadata() {
        Ok(meta) if identity(&meta) == opened => Ok(meta),
        Ok(_) => Err(format!("another file lies at {}", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(format!("{} is gone", path.display())),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// A path, percent-encoded for a URI.
fn escaped(path: &Path) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    let bytes = path.as_os_str().as_encoded_bytes().iter();
    bytes.map(|byte| if plain(*byte) { char::from(*byte).to_string() } else { format!("%{byte:02x}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_any_octets_is_an_uri() {
        assert_eq!(escaped(Path::new("/a b/100%?#/ä.db")), "/a%20b/100%25%3f%23/%c3%a4.db");
    }
}
