//! Opens the database: directory lock, pragmas, schema versions and migrations.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use rusqlite::{Connection, OptionalExtension};

use super::{StoreError, failed, records, zones};

use Migration::{Records, Sql};

/// How long to wait for another program that holds the database's lock.
pub(super) const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// The migrations. The entry at index n migrates from version n to n + 1. A released entry is never changed.
///
/// `ports` and `addresses` have only the indexes that uniqueness needs and no foreign keys: each index would add a page to every
/// attach's flush, and each foreign key a scan to the deletion of a network. The statement that writes a port checks its
/// network and server. `ports` alone has rowids, so that new bodies are appended to one page instead of being inserted by
/// id into several pages.
const MIGRATIONS: [Migration; 10] = [
    Sql("
    CREATE TABLE meta (
        key   TEXT PRIMARY KEY,
        value ANY
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE networks (
        id   TEXT PRIMARY KEY,
        body TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE subnets (
        id         TEXT PRIMARY KEY,
        network_id TEXT NOT NULL REFERENCES networks (id),
        body       TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX subnets_by_network ON subnets (network_id);
    CREATE TABLE servers (
        id   TEXT PRIMARY KEY,
        body TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE ports (
        id         TEXT NOT NULL PRIMARY KEY,
        network_id TEXT NOT NULL,
        server_id  TEXT,
        mac        TEXT NOT NULL UNIQUE,
        body       TEXT NOT NULL
    ) STRICT;
    CREATE TABLE addresses (
        network_id TEXT NOT NULL,
        address    TEXT NOT NULL,
        port_id    TEXT NOT NULL,
        PRIMARY KEY (network_id, address)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE remembered (
        uid  INTEGER NOT NULL,
        key  TEXT NOT NULL,
        body TEXT NOT NULL,
        PRIMARY KEY (uid, key)
    ) STRICT, WITHOUT ROWID;
"),
    // Each row has the version of its body's format.
    Sql("
    ALTER TABLE networks ADD COLUMN version INTEGER NOT NULL DEFAULT 1;
    ALTER TABLE subnets ADD COLUMN version INTEGER NOT NULL DEFAULT 1;
    ALTER TABLE servers ADD COLUMN version INTEGER NOT NULL DEFAULT 1;
    ALTER TABLE ports ADD COLUMN version INTEGER NOT NULL DEFAULT 1;
    ALTER TABLE remembered ADD COLUMN version INTEGER NOT NULL DEFAULT 1;
"),
    // A group's body has its rules.
    Sql("
    CREATE TABLE security_groups (
        id      TEXT PRIMARY KEY,
        body    TEXT NOT NULL,
        version INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
"),
    // A trunk's body has its subports.
    Sql("
    CREATE TABLE trunks (
        id      TEXT PRIMARY KEY,
        port_id TEXT NOT NULL UNIQUE,
        body    TEXT NOT NULL,
        version INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
"),
    Sql("
    CREATE TABLE jobs (
        id      TEXT PRIMARY KEY,
        body    TEXT NOT NULL,
        version INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
"),
    // What Nova and the webhook were told.
    Sql("
    CREATE TABLE notices (
        recipient TEXT NOT NULL,
        about     TEXT NOT NULL,
        body      TEXT NOT NULL,
        version   INTEGER NOT NULL,
        PRIMARY KEY (recipient, about)
    ) STRICT, WITHOUT ROWID;
"),
    // Each network keeps the zone of conntrack that it had.
    Records(zones::give),
    // What this host has claimed in its fleet.
    Sql("
    CREATE TABLE claims (
        claim   TEXT PRIMARY KEY,
        body    TEXT NOT NULL,
        version INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
"),
    // Other hosts' ports in security groups.
    Sql("
    CREATE TABLE members (
        network_id TEXT NOT NULL,
        host       TEXT NOT NULL,
        port_id    TEXT NOT NULL,
        body       TEXT NOT NULL,
        version    INTEGER NOT NULL,
        PRIMARY KEY (network_id, host, port_id)
    ) STRICT, WITHOUT ROWID;
"),
    // What other hosts hold of its claims.
    Sql("
    CREATE TABLE lent (
        claim   TEXT PRIMARY KEY,
        body    TEXT NOT NULL,
        version INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
"),
];

/// A step from one version to the next.
enum Migration {
    Sql(&'static str),
    /// Changes records.
    Records(fn(&Connection) -> Result<(), StoreError>),
}

/// The format version of written rows. It grows with each attribute that an older nicd must not ignore. A nicd refuses rows
/// with a newer version, and rows with an attribute or a word it does not know.
pub(super) const ROW_VERSION: u32 = 1;

/// An exclusive lock of a state directory. The kernel releases it when the process ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Locks `dir`, creating it (mode 0700) when missing.
    ///
    /// # Errors
    /// Another process holds the lock, or the directory cannot be created or written.
    pub fn take(dir: &Path) -> Result<Self, StoreError> {
        let refused = |error: std::io::Error| match error.kind() {
            ErrorKind::PermissionDenied => StoreError::Denied(dir.display().to_string()),
            _ => StoreError::Failed(format!("{}: {error}", dir.display())),
        };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(refused)?;
        let path = dir.join("nicd.lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path).map_err(refused)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StoreError::Held(dir.display().to_string())),
            Err(TryLockError::Error(error)) => Err(refused(error)),
        }
    }
}

/// Opens the database, creating it with mode 0600 when missing, and migrates it to the current version.
pub(super) fn open(file: &Path) -> Result<Connection, StoreError> {
    if let Err(error) = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)
        && error.kind() != ErrorKind::AlreadyExists
    {
        return Err(StoreError::of(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)));
    }
    let mut connection = Connection::open(file).map_err(failed)?;
    connection.busy_timeout(LOCK_TIMEOUT).map_err(failed)?;
    connection.pragma_update(None, "journal_mode", "wal").map_err(failed)?;
    connection.pragma_update(None, "synchronous", "full").map_err(failed)?;
    connection.pragma_update(None, "foreign_keys", "on").map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(32);
    migrate(&mut connection, file)?;
    check(&connection)?;
    records::draw_store_id(&connection)?;
    Ok(connection)
}

/// Checks the consistency of pages and foreign keys.
fn check(connection: &Connection) -> Result<(), StoreError> {
    let said: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(failed)?;
    if said != "ok" {
        return Err(StoreError::Damaged(said));
    }
    let stray = connection.query_row("PRAGMA foreign_key_check", [], |row| row.get::<_, String>(0)).optional();
    match stray.map_err(failed)? {
        Some(table) => Err(StoreError::Damaged(format!("a row in table {table} refers to one that is not there"))),
        None => Ok(()),
    }
}

fn migrate(connection: &mut Connection, file: &Path) -> Result<(), StoreError> {
    let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    let known = u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX);
    if found > known {
        return Err(StoreError::Newer { file: file.display().to_string(), found, known });
    }
    for (version, step) in (found + 1..).zip(&MIGRATIONS[found as usize..]) {
        let transaction = connection.transaction().map_err(failed)?;
        match step {
            Sql(step) => transaction.execute_batch(step).map_err(failed)?,
            Records(change) => change(&transaction)?,
        }
        transaction.pragma_update(None, "user_version", version).map_err(failed)?;
        transaction.commit().map_err(failed)?;
    }
    Ok(())
}
