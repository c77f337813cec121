//! Servers, and which of them have which monitor.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::model::{PortId, Server, ServerId};

use super::claim::Claim;
use super::entries::{Inventory, ServerEntry};

impl Inventory {
    /// Takes in a server.
    pub fn add_server(&mut self, record: Server) {
        self.index_monitor(&record);
        let entry = ServerEntry { ports: BTreeSet::new(), claim: Claim::default(), leaving: None, record };
        self.server_changed(entry.record.id);
        self.servers.insert(entry.record.id, entry);
    }

    /// Puts another record in a server's place; the one that was there.
    pub fn replace_server(&mut self, record: Server) -> Option<Server> {
        let before = self.servers.get(&record.id)?.record.clone();
        self.forget_monitor(&before);
        self.index_monitor(&record);
        self.server_changed(record.id);
        self.servers.get_mut(&record.id).map(|entry| std::mem::replace(&mut entry.record, record))
    }

    /// Forgets a server.
    pub fn remove_server(&mut self, id: ServerId) {
        if let Some(entry) = self.servers.remove(&id) {
            self.server_changed(id);
            self.forget_monitor(&entry.record);
        }
    }

    fn index_monitor(&mut self, record: &Server) {
        if let Some(qmp) = record.guest.qmp() {
            self.monitors.entry(qmp.clone()).or_default().insert(record.id);
        }
    }

    fn forget_monitor(&mut self, record: &Server) {
        let Some(qmp) = record.guest.qmp() else { return };
        if let Some(servers) = self.monitors.get_mut(qmp) {
            servers.remove(&record.id);
            if servers.is_empty() {
                self.monitors.remove(qmp);
            }
        }
    }

    /// The monitors of servers that have ports.
    pub fn monitors(&self) -> impl Iterator<Item = &PathBuf> {
        let has_ports = |id: &ServerId| self.servers.get(id).is_some_and(|entry| !entry.ports.is_empty());
        self.monitors.iter().filter(move |(_, servers)| servers.iter().any(has_ports)).map(|(monitor, _)| monitor)
    }

    /// The ports of the servers with a monitor.
    pub fn ports_at(&self, monitor: &Path) -> Vec<PortId> {
        let servers = self.monitors.get(monitor).into_iter().flatten().filter_map(|id| self.servers.get(id));
        servers.flat_map(|entry| entry.ports.iter().copied()).collect()
    }
}
