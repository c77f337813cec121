//! Whether the files that are written to are still the ones that a start would find.
//!
//! SQLite goes on writing to a file that was unlinked, moved or overwritten: what it then calls durable is lost at the next
//! start. So each flush first compares what lies under the store's names with what was opened.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rusqlite::{Connection, OpenFlags};

use super::{StoreError, failed, records};

/// What was found instead of the files that were opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// The database's name is gone, or names another file. What was opened may still be whole under another name.
    Moved(String),
    /// The database is there; its write-ahead log or the log's index is gone, or another file is in its place.
    Log(String),
    /// Somebody who is not SQLite wrote into a file, or cut it.
    Overwritten(String),
}

impl Change {
    /// As an error.
    pub fn error(&self) -> StoreError {
        let (Self::Moved(what) | Self::Log(what) | Self::Overwritten(what)) = self;
        StoreError::Replaced(what.clone())
    }
}

/// Which file it is.
type Identity = (u64, u64);

/// The store's files as they were opened.
#[derive(Debug)]
pub(super) struct Files {
    database: (PathBuf, Identity),
    log: (PathBuf, Identity),
    /// The log's index, which programs that have the database open share.
    index: (PathBuf, Identity),
    /// The database's length and the time of its last change, as nicd left it.
    left: (u64, SystemTime),
    /// The log's length.
    log_length: u64,
    store_id: String,
    /// The database alone, without its log, holds this commit at least.
    moved: u64,
}

impl Files {
    /// Notes which files lie there, just opened.
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
            left: (0, SystemTime::UNIX_EPOCH),
            log_length: 0,
            store_id,
            moved: 0,
        };
        files.moved_into(None);
        files.written();
        Ok(files)
    }

    /// The database's name.
    pub fn path(&self) -> &Path {
        &self.database.0
    }

    /// Compares what lies there with what was opened, `last` being the last commit; none when all is as it was left.
    ///
    /// # Errors
    /// That cannot be known for want of a descriptor.
    pub fn changed(&mut self, last: u64) -> Result<Option<Change>, StoreError> {
        let (path, opened) = &self.database;
        let meta = match same(path, *opened) {
            Ok(meta) => meta,
            Err(what) => return Ok(Some(Change::Moved(what))),
        };
        let log = match same(&self.log.0, self.log.1) {
            Ok(meta) => meta.len(),
            Err(what) => return Ok(Some(Change::Log(what))),
        };
        if let Err(what) = same(&self.index.0, self.index.1) {
            return Ok(Some(Change::Log(what)));
        }
        let (now, cut) = (stamp(&meta), log < self.log_length);
        if now != self.left || cut {
            // Another program's checkpoint does this too, and what the database then holds by itself shows that.
            let least = if cut { last } else { self.moved };
            match self.holds() {
                Ok((id, commit)) if id == self.store_id && (least..=last).contains(&commit) => self.moved = commit,
                Ok((id, commit)) => {
                    let found = format!("store {id} at commit {commit} instead of {} at {least} or later", self.store_id);
                    let file = if cut { "the write-ahead log was cut: without it there is" } else { "there is" };
                    return Ok(Some(Change::Overwritten(format!("{file} {found} in {}", path.display()))));
                }
                Err(error @ StoreError::NoDescriptors(_)) => return Err(error),
                Err(error) => {
                    return Ok(Some(Change::Overwritten(format!("{} was cut or overwritten: {error}", path.display()))));
                }
            }
        }
        (self.left, self.log_length) = (now, log);
        Ok(None)
    }

    /// Notes that a flush has written to the log.
    pub fn written(&mut self) {
        self.log_length = self.log.0.metadata().map_or(0, |meta| meta.len());
    }

    /// Notes that a checkpoint has written to the database, which holds `commit` by itself now, if that is known.
    pub fn moved_into(&mut self, commit: Option<u64>) {
        self.moved = commit.unwrap_or(self.moved);
        if let Ok(meta) = self.database.0.metadata() {
            self.left = stamp(&meta);
        }
        self.written();
    }

    /// What the database holds without its log: the store's id and the last commit.
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

/// A path as an URI has it.
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
