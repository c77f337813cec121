//! All keys with a prefix, as they are at one revision, read in pages.

use super::error::Error;
use super::types::{Header, KeyValue, Keys, Range};
use super::{Etcd, Twice, wire};

/// How many keys a page has at most. With the longest values there are, an answer of so many is too long for one: such a page is read in
/// smaller ones.
const PAGE: u32 = 512;

/// How many keys the smallest page has: of the longest values it still fits.
const SMALLEST: u32 = 8;

/// Reads them page by page. All pages are of the revision that the first one has.
#[derive(Debug)]
pub struct Pages {
    etcd: Etcd,
    keys: Keys,
    limit: u32,
    /// The cluster and the revision of the first page.
    header: Option<Header>,
    last: Option<Vec<u8>>,
    ended: bool,
}

impl Pages {
    pub(super) fn new(etcd: Etcd, prefix: String) -> Self {
        Self { etcd, keys: Keys::Prefix(prefix), limit: PAGE, header: None, last: None, ended: false }
    }

    /// The next page, whose header has the revision of all pages; none after the last one, which may be empty.
    ///
    /// # Errors
    /// It cannot be read. With [`Error::Compacted`], the reading has taken too long, and is to begin anew.
    pub async fn next(&mut self) -> Result<Option<Range>, Error> {
        if self.ended {
            return Ok(None);
        }
        let revision = self.header.map_or(0, |header| header.revision);
        let read = loop {
            let body = wire::range(&self.keys, self.last.as_deref(), self.limit, revision);
            match self.etcd.ask("/v3/kv/range", body, Twice::May, wire::range_answer).await {
                Err(Error::TooLong(_)) if self.limit > SMALLEST => self.limit /= 8,
                read => break read?,
            }
        };
        let mut range = read.range;
        let header = *self.header.get_or_insert(range.header);
        if header.cluster_id != range.header.cluster_id {
            let (one, other) = (header.cluster_id, range.header.cluster_id);
            return Err(Error::Refused(format!("the endpoints are of two clusters, {one:x} and {other:x}")));
        }
        range.header = header;
        self.last = read.last;
        self.ended = !range.more;
        Ok(Some(range))
    }

    /// All of them, with the cluster and the revision that they are of.
    ///
    /// # Errors
    /// They cannot be read. A reading that compaction has overtaken is begun anew twice.
    pub async fn all(self) -> Result<(Header, Vec<KeyValue>), Error> {
        self.map_all(|found| found).await
    }

    /// The same, of each what `map` makes of it: only a page of them is in memory.
    ///
    /// # Errors
    /// As [`Pages::all`].
    pub async fn map_all<T>(mut self, map: impl Fn(KeyValue) -> T) -> Result<(Header, Vec<T>), Error> {
        let mut again = 2;
        let mut keys = Vec::new();
        loop {
            match self.next().await {
                Ok(Some(page)) => keys.extend(page.keys.into_iter().map(&map)),
                Ok(None) => break,
                Err(Error::Compacted(_)) if again > 0 => {
                    again -= 1;
                    keys.clear();
                    (self.header, self.last, self.ended) = (None, None, false);
                }
                Err(error) => return Err(error),
            }
        }
        let header = self.header.ok_or_else(|| Error::Refused("no page was read".to_owned()))?;
        Ok((header, keys))
    }
}
