//! A network: one L2 segment, realised on this host as one bridge.

use std::ops::RangeInclusive;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ids::NetworkId;
use super::names::LinkName;

/// The smallest MTU a network may have, in bytes: IPv6's (RFC 8200 §5). Below it the kernel tears a link's IPv6 state down.
pub const MIN_MTU: u32 = 1280;

/// The largest MTU a network may have, in bytes: a tap's (`65535 - ETH_HLEN`, drivers/net/tun.c).
pub const MAX_MTU: u32 = 65521;

/// A network as recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Its id.
    pub id: NetworkId,
    /// The display name; need not be unique.
    pub name: String,
    /// A description for operators.
    #[serde(default)]
    pub description: String,
    /// The project, stored and returned only.
    #[serde(default)]
    pub project_id: String,
    /// The guests' MTU, in bytes.
    pub mtu: u32,
    /// The existing bridge it uses; none when the agent makes one.
    pub bridge: Option<LinkName>,
    /// The network type: requested, or derived from the other attributes.
    #[serde(default)]
    pub kind: NetworkKind,
    /// Its physical network, by its name in the configuration; where the operator's bridge leads to it, by the control plane's name.
    #[serde(default)]
    pub physical_network: Option<String>,
    /// The VLAN that it is on its physical network, as a VLAN network; its number (VNI) in the fleet, as a VXLAN network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segmentation_id: Option<u32>,
    /// The zone of conntrack of its connections, which it keeps. Networks on one bridge have the same.
    pub zone: u16,
    /// What its new ports' `port_security` is, unless the client says otherwise.
    #[serde(default = "yes", skip_serializing_if = "bool::clone")]
    pub port_security: bool,
    /// Whether its ports are isolated that do not say otherwise.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub isolated: bool,
    /// For which hosts it is.
    #[serde(default, skip_serializing_if = "Scope::is_host")]
    pub scope: Scope,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// The revision number; grows with each change.
    pub revision_number: u64,
}

fn yes() -> bool {
    true
}

/// Whether the network's bridge has an uplink (`provider:network_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkKind {
    /// No uplink.
    #[default]
    Local,
    /// A physical network, without a tag.
    Flat,
    /// A VLAN of a physical network.
    Vlan,
    /// Tunnels between the hosts of a fleet.
    Vxlan,
}

/// For which hosts a network is (`nicd:scope`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// For this host alone.
    #[default]
    Host,
    /// For all hosts of the fleet: what is not claimed in etcd is not given to its ports.
    Fleet,
}

impl Scope {
    /// The word of the API: `host` or `fleet`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Fleet => "fleet",
        }
    }

    pub(super) fn is_host(&self) -> bool {
        *self == Self::Host
    }
}

/// Zones that networks may have: those below are left to other programs, which count from 1.
pub const ZONES: RangeInclusive<u16> = 4096..=u16::MAX;

impl NetworkKind {
    /// The word of the API: `local`, `flat`, `vlan` or `vxlan`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Flat => "flat",
            Self::Vlan => "vlan",
            Self::Vxlan => "vxlan",
        }
    }
}

impl Network {
    /// Whether all hosts of the fleet have it.
    pub fn is_shared(&self) -> bool {
        self.scope == Scope::Fleet
    }

    /// Its VLAN, as a VLAN network.
    pub fn vlan(&self) -> Option<u16> {
        self.segmentation_id.filter(|_| self.kind == NetworkKind::Vlan).and_then(|id| u16::try_from(id).ok())
    }

    /// The VLAN of the operator's bridge that it is, 0 for the one that the operator gives ports.
    pub fn bridge_vlan(&self) -> u16 {
        self.vlan().filter(|_| self.bridge.is_some()).unwrap_or(0)
    }

    /// The explicit MAC of its agent-made bridge: locally administered, from the network's id, the same after every rebuild.
    /// It starts with `fe`, so that it differs from every guest's; with the usual prefix it differs from every host side by its second octet.
    pub fn bridge_mac(&self) -> super::mac::Mac {
        let [a, b, c, d, ..] = *self.id.0.as_bytes();
        super::mac::Mac([0xfe, 0x62, a, b, c, d])
    }
}
