//! What happens to the ports of all hosts, in the order in which etcd was told of it: the same at each host, by the same numbers.

use std::time::Duration;

use tokio::time::sleep;

use super::agent::Fleet;
use super::etcd::{Event, Keys, Watch, WatchEnd, Watched};
use super::member::MemberError;
use super::published::Published;
use crate::model::{NetworkId, PortId};

/// How long to wait before a watch that has ended is opened again.
const AGAIN: Duration = Duration::from_secs(1);

/// What has happened to a port.
#[derive(Debug, Clone, PartialEq)]
pub struct PortNews {
    /// Its host.
    pub host: String,
    /// Its network.
    pub network: NetworkId,
    /// The port.
    pub port: PortId,
    /// What is shown of it now; none if it is gone.
    pub view: Option<serde_json::Value>,
    /// Whether it was not there before.
    pub is_new: bool,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// This, all at one revision.
    Ports(u64, Vec<PortNews>),
    /// What came before this revision is not known any more.
    Lost(u64),
}

/// A reader of what happens to all ports.
#[derive(Debug)]
pub struct PortsWatch {
    watch: Option<Watch>,
    from: i64,
    waiting: std::collections::VecDeque<News>,
}

impl Fleet {
    /// Reads what happens from now on, or after a revision.
    ///
    /// # Errors
    /// Etcd does not answer.
    pub async fn watch_ports(&self, after: Option<u64>) -> Result<PortsWatch, MemberError> {
        let from = match after.and_then(|after| i64::try_from(after).ok()) {
            Some(after) => after.saturating_add(1),
            None => self.revision().await? + 1,
        };
        let mut reader = PortsWatch { watch: None, from, waiting: std::collections::VecDeque::new() };
        reader.watch = Some(self.watch_from(reader.from).await?);
        Ok(reader)
    }

    /// The newest revision of etcd's data.
    async fn revision(&self) -> Result<i64, MemberError> {
        Ok(self.kv.range(&Keys::One(self.names.epoch()), None, 0).await?.header.revision)
    }

    async fn watch_from(&self, from: i64) -> Result<Watch, MemberError> {
        Ok(self.kv.watch(&[Watched { prefix: self.names.all_ports(), from }]).await?)
    }

    /// What comes next. While etcd is away it waits.
    pub async fn next_news(&self, reader: &mut PortsWatch) -> News {
        loop {
            if let Some(next) = reader.waiting.pop_front() {
                return next;
            }
            let Some(watch) = &mut reader.watch else {
                match self.watch_from(reader.from).await {
                    Ok(watch) => reader.watch = Some(watch),
                    Err(_) => sleep(AGAIN).await,
                }
                continue;
            };
            match watch.next().await {
                Ok(batch) => {
                    reader.from = batch.revision + 1;
                    for event in &batch.events {
                        let revision = u64::try_from(event.mod_revision()).unwrap_or_default();
                        let Some(news) = self.news(event) else { continue };
                        match reader.waiting.back_mut() {
                            Some(News::Ports(at, ports)) if *at == revision => ports.push(news),
                            _ => reader.waiting.push_back(News::Ports(revision, vec![news])),
                        }
                    }
                }
                Err(WatchEnd::Compacted(first)) => {
                    (reader.watch, reader.from) = (None, first);
                    return News::Lost(u64::try_from(first).unwrap_or_default());
                }
                Err(WatchEnd::Lost(_) | WatchEnd::Refused(_)) => {
                    reader.watch = None;
                    sleep(AGAIN).await;
                }
            }
        }
    }

    fn news(&self, event: &Event) -> Option<PortNews> {
        let (network, host, port) = self.names.port_at(event.key())?;
        let (view, is_new) = match event {
            Event::Put(found) => (Some(Published::read(found).ok()?.view), found.create_revision == found.mod_revision),
            Event::Delete { .. } => (None, false),
        };
        Some(PortNews { host, network, port, view, is_new })
    }
}
