//! What other hosts have told of, read from etcd when it is asked for: nothing of it is kept here.

use uuid::Uuid;

use super::agent::Fleet;
use super::etcd::{Keys, Op, Txn};
use super::member::{MemberError, read_versioned};
use super::publish::{Entry, Place};
use super::published::{self, Published};
use crate::model::{NetworkId, PortId, PublishedId, ServerId};

/// How many keys one transaction reads.
const KEYS: usize = 64;

/// Which ports of other hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// All.
    All,
    /// This one.
    One(PortId),
    /// Those of a network.
    Network(NetworkId),
    /// Those of a server.
    Server(ServerId),
    /// Those of a host.
    Host(String),
}

impl Fleet {
    /// What is shown of ports of other hosts.
    ///
    /// # Errors
    /// Etcd does not answer, or a value cannot be read.
    pub async fn ports_elsewhere(&self, wanted: &Wanted) -> Result<Vec<serde_json::Value>, MemberError> {
        let prefix = match wanted {
            Wanted::All => self.names.all_ports(),
            Wanted::Network(network) => self.names.ports(*network),
            Wanted::One(port) => {
                let place = self.place_of(*port).await?.filter(|place| place.host != self.host());
                let Some(place) = place else { return Ok(Vec::new()) };
                return self.ports_at(vec![self.names.port(place.network, &place.host, *port)]).await;
            }
            Wanted::Host(host) => return self.ports_of(host, None).await,
            Wanted::Server(server) => {
                let mut all = Vec::new();
                for host in self.hosts_with(server.0).await?.iter().filter(|host| **host != self.host()) {
                    all.extend(self.ports_of(host, Some(*server)).await?);
                }
                return Ok(all);
            }
        };
        let own = self.host();
        let (_, found) = self.kv.pages(prefix).all().await?;
        let others = found.iter().filter(|entry| self.names.port_at(&entry.key).is_some_and(|(_, host, _)| host != own));
        others.map(|entry| Ok(Published::read(entry)?.view)).collect()
    }

    /// The ports in a host's list, or those of one of its servers.
    async fn ports_of(&self, host: &str, server: Option<ServerId>) -> Result<Vec<serde_json::Value>, MemberError> {
        let (_, listed) = self.kv.pages(self.names.own(host)).all().await?;
        let mut keys = Vec::new();
        for found in &listed {
            let Some(PublishedId::Port(port)) = self.names.own_entry_of(host, &found.key) else { continue };
            let entry: Entry = read_versioned(found)?;
            if let Some(network) = entry.network.filter(|_| server.is_none_or(|server| entry.server == Some(server))) {
                keys.push(self.names.port(network, host, port));
            }
        }
        self.ports_at(keys).await
    }

    async fn ports_at(&self, keys: Vec<String>) -> Result<Vec<serde_json::Value>, MemberError> {
        let mut views = Vec::with_capacity(keys.len());
        for some in keys.chunks(KEYS) {
            let reads = some.iter().map(|key| Op::read(Keys::One(key.clone()))).collect();
            let answer = self.kv.txn(&Txn::when(Vec::new(), reads)).await?;
            for found in answer.found().into_iter().flatten() {
                views.push(Published::read(found)?.view);
            }
        }
        Ok(views)
    }

    async fn place_of(&self, port: PortId) -> Result<Option<Place>, MemberError> {
        let found = self.kv.range(&Keys::One(self.names.place(port)), None, 0).await?.keys;
        found.first().map(read_versioned).transpose()
    }

    /// What is shown of servers of other hosts.
    ///
    /// # Errors
    /// Etcd does not answer, or a value cannot be read.
    pub async fn servers_elsewhere(&self) -> Result<Vec<serde_json::Value>, MemberError> {
        let own = self.host();
        let (_, found) = self.kv.pages(self.names.all_servers()).all().await?;
        found.iter().filter(|entry| self.names.last(&entry.key) != own).map(published::view).collect()
    }

    /// The hosts that have a server with this id.
    async fn hosts_with(&self, server: Uuid) -> Result<Vec<String>, MemberError> {
        let (_, found) = self.kv.pages(self.names.servers_with(server)).all().await?;
        Ok(found.iter().map(|entry| self.names.last(&entry.key).to_owned()).collect())
    }

    /// The other host that has the port or the server with this id; none if no other one has.
    ///
    /// # Errors
    /// Etcd does not answer.
    pub async fn host_of(&self, id: Uuid) -> Result<Option<String>, MemberError> {
        let own = self.host();
        let place = self.place_of(PortId(id)).await?.map(|place| place.host);
        match place.filter(|host| *host != own) {
            Some(host) => Ok(Some(host)),
            None => Ok(self.hosts_with(id).await?.into_iter().find(|host| *host != own)),
        }
    }
}
