//! What a host of a fleet has of it: its registration, and the addresses and MACs that it alone may give to ports.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ids::{NetworkId, SubnetId};
use super::mac::{Mac, MacPrefix};

/// Addresses of a block of IPv4 and of IPv6: 16, aligned.
pub const BLOCK: u8 = 16;

/// What a host claims: it alone may give it to ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Claim {
    /// 16 addresses of a network, from an aligned one on.
    Addresses {
        /// The network.
        network: NetworkId,
        /// The first of them.
        first: IpAddr,
    },
    /// The 256 MACs that begin with these octets.
    Macs([u8; 5]),
    /// One MAC that a client has asked for, and that is in no block of the host; or one of another host's block, of a port that has moved.
    Mac(Mac),
    /// One address of another host's block, of a port that has moved.
    Address(NetworkId, IpAddr),
}

impl Claim {
    /// The block of an address.
    pub fn of_address(network: NetworkId, address: IpAddr) -> Self {
        let first = match address {
            IpAddr::V4(address) => IpAddr::V4((u32::from(address) / u32::from(BLOCK) * u32::from(BLOCK)).into()),
            IpAddr::V6(address) => IpAddr::V6((u128::from(address) / u128::from(BLOCK) * u128::from(BLOCK)).into()),
        };
        Self::Addresses { network, first }
    }

    /// The block that one address or MAC is of; none of a block.
    pub fn block(&self) -> Option<Self> {
        match self {
            Self::Address(network, address) => Some(Self::of_address(*network, *address)),
            Self::Mac(mac) => Some(Self::of_mac(*mac)),
            Self::Addresses { .. } | Self::Macs(_) => None,
        }
    }

    /// The block of a MAC.
    pub fn of_mac(Mac([a, b, c, d, e, _]): Mac) -> Self {
        Self::Macs([a, b, c, d, e])
    }
}

/// What another host holds of a block of this host's: it was handed there with a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lent {
    /// One address, or one MAC.
    pub claim: Claim,
    /// The host that holds it.
    pub host: String,
    /// The revision that handed it over, as far as this host knows it; 0 otherwise.
    pub made: i64,
}

/// What a port is to have of its fleet, and this host has not claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Need {
    /// A free address of a subnet.
    AnyAddress(NetworkId, SubnetId),
    /// This address.
    Address(NetworkId, IpAddr),
    /// A free MAC that begins so.
    AnyMac(MacPrefix),
    /// This MAC.
    Mac(Mac),
}

/// A time in the life of etcd's data, in which no backup was put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Epoch {
    /// How many there were before, as far as the host knew that began it: what is of a lower one is older.
    pub number: u64,
    /// Tells it from another with this number.
    pub id: Uuid,
}

/// What a host has to note of its registration before it acts on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// The revision that made its record.
    pub created: i64,
    /// The epoch of etcd's data.
    pub epoch: Epoch,
    /// The newest revision that was seen.
    pub seen: i64,
    /// Whether all hosts have had the time to put their claims again since the epoch began.
    #[serde(default = "yes")]
    pub is_settled: bool,
}

fn yes() -> bool {
    true
}

/// A claim that a host holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Held {
    /// What it claims.
    pub claim: Claim,
    /// The revision that made the claim.
    pub made: i64,
    /// The epoch in which.
    pub epoch: Epoch,
}
