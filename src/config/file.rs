//! The file as written: every key is optional, an unknown key is an error, and only types are checked.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, de};

use super::Overrides;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "sections")]
pub(super) struct File {
    pub socket: Socket,
    pub listen: Listen,
    pub store: Store,
    pub links: Links,
    pub physical_networks: BTreeMap<String, toml::Value>,
    pub segments: Segments,
    pub fleet: Fleet,
    pub tunnel: Tunnel,
    pub limits: Limits,
    pub filters: Filters,
    pub guest: Guest,
    pub log: Log,
    pub metrics: Metrics,
    pub dbus: Dbus,
    pub nova: Nova,
    pub notify: Notify,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a section")]
pub(super) struct Socket {
    pub path: Option<PathBuf>,
    pub mode: Option<toml::Value>,
    pub group: Option<String>,
    pub view_group: Option<String>,
    pub max_connections: Option<Whole>,
    pub root_reserve: Option<Whole>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a section")]
pub(super) struct Listen {
    pub tls: Option<String>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub client_ca: Option<PathBuf>,
    pub allow: Option<Vec<String>>,
    pub max_connections: Option<Whole>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a section")]
pub(super) struct Store {
    pub dir: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a section")]
pub(super) struct Links {
    pub mac_prefix: Option<String>,
    pub allowed_bridges: Option<Vec<String>>,
    pub mtu: Option<Whole>,
    pub sweep_s: Option<Whole>,
    pub require_host_closed: Option<bool>,
    pub conflict_probe: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a section")]
pub(super) struct Segments {
    pub vlan: Option<toml::Value>,
    pub vxlan: Option<toml::Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a section")]
pub(super) struct Fleet {
    pub endpoints: Option<Vec<String>>,
    pub name: Option<String>,
    pub host: Option<String>,
    pub tls: Option<FleetTls>,
    pub user: Option<String>,
    pub password_file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table such as { ca = \"/a.pem\", cert = \"/b.pem\", key = \"/b.key\" }")]
pub(super) struct FleetTls {
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a section")]
pub(super) struct Tunnel {
    pub address: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a section")]
pub(super) struct Limits {
    pub nics_per_server: Option<Whole>,
    pub requests: Option<toml::Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a section")]
pub(super) struct Filters {
    pub default_group: Option<bool>,
    pub connections: Option<Whole>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a section")]
pub(super) struct Guest {
    pub dns_nameservers: Option<Vec<String>>,
    pub domain: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a section")]
pub(super) struct Log {
    pub level: Option<String>,
    pub format: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a section")]
pub(super) struct Metrics {
    pub listen: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a section")]
pub(super) struct Dbus {
    pub enabled: Option<bool>,
    pub address: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a section")]
pub(super) struct Nova {
    pub send: Option<bool>,
    pub auth_url: Option<String>,
    pub endpoint: Option<String>,
    pub region: Option<String>,
    pub interface: Option<String>,
    pub username: Option<String>,
    pub user_domain_name: Option<String>,
    pub project_name: Option<String>,
    pub project_domain_name: Option<String>,
    pub password_file: Option<PathBuf>,
    pub application_credential_id: Option<String>,
    pub application_credential_secret_file: Option<PathBuf>,
    pub ca_file: Option<PathBuf>,
    pub unreachable_after_s: Option<Whole>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a section")]
pub(super) struct Notify {
    pub url: Option<String>,
    pub ca_file: Option<PathBuf>,
    pub token_file: Option<PathBuf>,
    pub unreachable_after_s: Option<Whole>,
}

/// A whole number. Its error message uses TOML's terms, not those of Rust's types.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whole(pub i64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Expected;
        impl Visitor<'_> for Expected {
            type Value = Whole;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Whole, E> {
                Ok(Whole(number))
            }
        }
        deserializer.deserialize_i64(Expected)
    }
}

impl File {
    /// The command line overrides the file.
    pub(super) fn lay_over(&mut self, overrides: &Overrides) {
        let Overrides { socket, state_dir, log } = overrides.clone();
        self.socket.path = socket.or(self.socket.path.take());
        self.store.dir = state_dir.or(self.store.dir.take());
        self.log.level = log.or(self.log.level.take());
    }
}
