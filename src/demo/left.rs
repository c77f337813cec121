//! What is left at the end: in the API's lists, in the database and in the directory.

use rusqlite::{Connection, OpenFlags};

use super::api::Api;
use super::daemon::Place;
use super::page::{Context, Failure, Page};
use crate::store::FILE;

/// What stays in the daemon's directory: the demo's own files, the lock, and the state.
const STAYS: [&str; 5] = ["nicd.toml", "nicd.log", "notify.sock", "state", "nicd.sock.lock"];

/// How many of each kind there are.
pub(super) type Counts = Vec<(&'static str, i64)>;

/// How many entries the API's lists have.
pub(super) fn lists(api: &mut Api) -> Result<Counts, Failure> {
    let mut listed = Vec::new();
    for (name, list) in [("networks", "v2.0"), ("subnets", "v2.0"), ("ports", "v2.0"), ("servers", "nicd/v1")] {
        let body = api.get(&format!("/{list}/{name}"))?;
        let entries = body[name].as_array().ok_or_else(|| Failure::new("reading a list", &body))?;
        listed.push((name, i64::try_from(entries.len()).unwrap_or(i64::MAX)));
    }
    Ok(listed)
}

/// The files in the daemon's directory that do not stay.
pub(super) fn files(place: &Place) -> Result<Vec<String>, Failure> {
    let mut left = Vec::new();
    for entry in std::fs::read_dir(&place.directory).context("reading the directory")? {
        left.push(entry.context("reading the directory")?.file_name().to_string_lossy().into_owned());
    }
    left.retain(|file| !STAYS.contains(&file.as_str()));
    Ok(left)
}

/// How many rows the database has, table by table.
pub(super) fn rows(place: &Place) -> Result<Counts, Failure> {
    let database = place.state.join(FILE);
    let doing = format!("SQLite cannot read {}", database.display());
    let open = Connection::open_with_flags(&database, OpenFlags::SQLITE_OPEN_READ_WRITE).context(&doing)?;
    let count = |table| open.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).context(&doing);
    ["networks", "subnets", "servers", "ports", "addresses"].into_iter().map(|table| Ok((table, count(table)?))).collect()
}

/// Checks that each count is zero.
pub(super) fn check_none(page: &Page, what: &str, counts: &Counts) -> Result<(), Failure> {
    let counted: Vec<String> = counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
    page.check(counts.iter().all(|(_, count)| *count == 0), &format!("{what} {}", counted.join(", ")))
}

/// Adds the counts of several hosts.
pub(super) fn sum(all: &[Counts]) -> Counts {
    let mut sums = Counts::new();
    for (name, count) in all.iter().flatten() {
        match sums.iter_mut().find(|(known, _)| known == name) {
            Some((_, sum)) => *sum += count,
            None => sums.push((name, *count)),
        }
    }
    sums
}
