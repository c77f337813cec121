//! A port as its host tells of it.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::etcd::KeyValue;
use super::member::{MemberError, VERSION, json, read_versioned};
use crate::model::{Mac, NetworkId, Port, SubnetId};

/// A port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    v: u32,
    /// Its network.
    pub network: NetworkId,
    /// Its MAC.
    pub mac: Mac,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The subnets that they are of.
    pub subnets: BTreeSet<SubnetId>,
    /// What its host's clients are shown.
    pub view: serde_json::Value,
}

impl Published {
    /// This port, of which clients are shown this.
    pub fn new(port: &Port, view: serde_json::Value) -> Self {
        Self {
            v: VERSION,
            network: port.network_id,
            mac: port.mac,
            addresses: port.held_ips().map(|ip| ip.ip_address).collect(),
            subnets: port.held_ips().map(|ip| ip.subnet_id).collect(),
            view,
        }
    }

    pub(super) fn read(found: &KeyValue) -> Result<Self, MemberError> {
        read_versioned(found)
    }

    pub(super) fn value(&self) -> Vec<u8> {
        json(self)
    }

    /// A number of its value, by which a host knows what it has told.
    pub(super) fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.value().hash(&mut hasher);
        hasher.finish()
    }
}
