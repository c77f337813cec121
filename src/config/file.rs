//! The file as written: every key optional, none unknown, nothing judged but its type.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;

use super::Overrides;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct File {
    pub socket: Socket,
    pub store: Store,
    pub links: Links,
    pub limits: Limits,
    pub guest: Guest,
    pub log: Log,
    pub metrics: Metrics,
    pub dbus: Dbus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Socket {
    pub path: Option<PathBuf>,
    pub mode: Option<toml::Value>,
    pub group: Option<String>,
    pub view_group: Option<String>,
    pub max_connections: Option<i64>,
    pub root_reserve: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Store {
    pub dir: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Links {
    pub mac_prefix: Option<String>,
    pub allowed_bridges: Option<Vec<String>>,
    pub mtu: Option<i64>,
    pub sweep_s: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Limits {
    pub nics_per_server: Option<i64>,
    pub requests: Option<toml::Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Guest {
    pub dns_nameservers: Option<Vec<IpAddr>>,
    pub domain: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Log {
    pub level: Option<String>,
    pub format: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Metrics {
    pub listen: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Dbus {
    pub enabled: Option<bool>,
    pub address: Option<String>,
}

impl File {
    /// What was typed wins over what the file says.
    pub(super) fn lay_over(&mut self, overrides: &Overrides) {
        let Overrides { socket, state_dir, log } = overrides.clone();
        self.socket.path = socket.or(self.socket.path.take());
        self.store.dir = state_dir.or(self.store.dir.take());
        self.log.level = log.or(self.log.level.take());
    }
}
