//! Ports and servers as their host tells of them.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::etcd::KeyValue;
use super::member::{MemberError, VERSION, json, read_versioned};
use crate::model::{GroupId, Mac, NetworkId, Port, ServerId, SubnetId};

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
    /// The server that has it.
    pub server: Option<ServerId>,
    /// The subnets that they are of.
    pub subnets: BTreeSet<SubnetId>,
    /// The security groups that it is in.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub groups: BTreeSet<GroupId>,
    /// The addresses that it may use one by one, if it is attached and in groups.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    usable: BTreeSet<IpAddr>,
    /// It is kept down, since another host has claimed what it has: nothing leads to it.
    #[serde(default)]
    pub is_kept_down: bool,
    /// What its host's clients are shown.
    pub view: serde_json::Value,
}

impl Published {
    /// This port, which may use these addresses one by one, and of which clients are shown this.
    pub fn new(port: &Port, usable: BTreeSet<IpAddr>, is_kept_down: bool, view: serde_json::Value) -> Self {
        Self {
            v: VERSION,
            network: port.network_id,
            mac: port.mac,
            addresses: port.held_ips().map(|ip| ip.ip_address).collect(),
            server: port.binding.as_ref().map(|binding| binding.server_id),
            subnets: port.held_ips().map(|ip| ip.subnet_id).collect(),
            usable,
            groups: port.groups.clone(),
            is_kept_down,
            view,
        }
    }

    pub(super) fn read(found: &KeyValue) -> Result<Self, MemberError> {
        read_versioned(found)
    }

    pub(super) fn value(&self) -> Vec<u8> {
        json(self)
    }
}

/// What other hosts keep of a port.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Brief {
    /// Its MAC.
    pub mac: Mac,
    /// Its addresses.
    pub addresses: Box<[IpAddr]>,
    /// Nothing leads to it.
    #[serde(default)]
    pub is_kept_down: bool,
}

impl Brief {
    pub(super) fn read(found: &KeyValue) -> Result<Self, MemberError> {
        read_versioned(found)
    }
}

/// A port or a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// A port.
    Port(Box<Published>),
    /// What is shown of a port that has a silent device here.
    Standby(serde_json::Value),
    /// What a server's host's clients are shown.
    Server(serde_json::Value),
}

/// The value of a server, or of a silent device.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct View {
    v: u32,
    view: serde_json::Value,
}

/// What is shown of the server, or of the silent device, that a key has.
pub(super) fn view(found: &KeyValue) -> Result<serde_json::Value, MemberError> {
    Ok(read_versioned::<View>(found)?.view)
}

impl Told {
    pub(super) fn value(&self) -> Vec<u8> {
        match self {
            Self::Port(port) => port.value(),
            Self::Standby(view) | Self::Server(view) => json(&View { v: VERSION, view: view.clone() }),
        }
    }

    /// A number of its value, by which a host knows what it has told.
    pub(super) fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.value().hash(&mut hasher);
        hasher.finish()
    }
}
