//! Witnesses that share no code with the daemon: /proc and the kernel's own notices for links, SQLite for the state, the
//! directory for files.

use std::collections::BTreeSet;
use std::path::Path;

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use rusqlite::{Connection, OpenFlags};

use super::failure::{Failure, trouble};

/// The links of the network namespace that the calling thread is in.
pub(super) fn links() -> Result<BTreeSet<String>, Failure> {
    let path = "/proc/thread-self/net/dev";
    let text = std::fs::read_to_string(path).map_err(trouble(path))?;
    Ok(parse(&text))
}

/// Two lines of headings, then a line for each link: `  name: figures`.
fn parse(text: &str) -> BTreeSet<String> {
    text.lines().skip(2).filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().to_owned()).collect()
}

/// Names in a row; the first of many.
pub(super) fn named(links: &BTreeSet<String>) -> String {
    const SHOWN: usize = 4;
    let mut text = links.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if links.len() > SHOWN {
        text.push_str(&format!(" and {} more", links.len() - SHOWN));
    }
    if text.is_empty() { "none".to_owned() } else { text }
}

/// Hears every change of a link, or of an address, that the kernel tells of.
#[derive(Debug)]
pub(super) struct Witness {
    socket: Socket,
}

impl Witness {
    /// Listens from now on.
    pub(super) fn listen() -> Result<Self, Failure> {
        // RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR (include/uapi/linux/rtnetlink.h).
        const GROUPS: u32 = 0x1 | 0x10 | 0x100;
        let failed = || trouble::<std::io::Error>("listening to the kernel");
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed())?;
        socket.bind(&SocketAddr::new(0, GROUPS)).map_err(failed())?;
        socket.set_non_blocking(true).map_err(failed())?;
        Ok(Self { socket })
    }

    /// How many notices there were.
    pub(super) fn heard(&self) -> usize {
        std::iter::from_fn(|| self.socket.recv_from_full().ok()).count()
    }
}

/// How many rows the database holds about anything, table by table.
pub(super) fn rows(database: &Path) -> Result<Vec<(&'static str, i64)>, Failure> {
    const TABLES: [&str; 5] = ["networks", "subnets", "servers", "ports", "addresses"];
    let failed = || trouble::<rusqlite::Error>(format!("SQLite cannot read {}", database.display()));
    let opened = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(failed())?;
    TABLES
        .into_iter()
        .map(|table| {
            let count = opened.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0));
            Ok((table, count.map_err(failed())?))
        })
        .collect()
}

/// The names of the files in a directory.
pub(super) fn files(directory: &Path) -> Result<BTreeSet<String>, Failure> {
    let failed = || trouble::<std::io::Error>(directory.display().to_string());
    let entries = std::fs::read_dir(directory).map_err(failed())?;
    entries.map(|entry| Ok(entry.map_err(failed())?.file_name().to_string_lossy().into_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_read_from_the_kernels_table() {
        let text = "Inter-|   Receive\n face |bytes\n    lo:       0       0\nnicd0123456789a: 12 1\n";
        assert_eq!(parse(text), BTreeSet::from(["lo".to_owned(), "nicd0123456789a".to_owned()]));
        assert!(links().unwrap().contains("lo"));
    }

    #[test]
    fn many_are_cut() {
        let many: BTreeSet<String> = (0..9).map(|number| format!("l{number}")).collect();
        assert_eq!(named(&many), "l0, l1, l2, l3 and 5 more");
        assert_eq!(named(&BTreeSet::new()), "none");
    }
}
