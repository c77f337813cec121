//! What a port may send, as the kernel gets it: as elements of sets, keyed by the device's index.
//!
//! The rules are the same for all ports and stand in `kernel/filter`. Here is what differs from port to port: which MACs and
//! addresses it may use, how fast it may send, and what its device's frames were dropped for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::groups::{InGroups, Profile};
use super::members::NetworkMembers;
pub use crate::model::DropReason as Reason;
use crate::model::{Mac, PortId};

impl Reason {
    /// The set whose elements count, by device, what is dropped for it.
    pub fn set(self) -> &'static str {
        match self {
            Self::Mac => "dropped_mac",
            Self::Arp => "dropped_arp",
            Self::Ip4 => "dropped_ip4",
            Self::Ip6 => "dropped_ip6",
            Self::Nd => "dropped_nd",
            Self::Ra => "dropped_ra",
            Self::DhcpServer => "dropped_dhcp_server",
            Self::Ethertype => "dropped_ethertype",
            Self::Limit => "dropped_limit",
            Self::Group => "dropped_group",
        }
    }

    /// The chain that drops for it.
    pub fn chain(self) -> &'static str {
        match self {
            Self::Mac => "drop_mac",
            Self::Arp => "drop_arp",
            Self::Ip4 => "drop_ip4",
            Self::Ip6 => "drop_ip6",
            Self::Nd => "drop_nd",
            Self::Ra => "drop_ra",
            Self::DhcpServer => "drop_dhcp_server",
            Self::Ethertype => "drop_ethertype",
            Self::Limit => "drop_limit",
            Self::Group => "drop_group",
        }
    }
}

/// What a device may send, as far as the kernel was asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceFilter {
    /// It was not asked: the link is no port's device, or the kernel has no nf_tables.
    #[default]
    Unavailable,
    /// Nothing: it has no elements.
    Closed,
    /// What its elements say.
    Set {
        /// The port that they are of.
        port: PortId,
        /// What they say.
        filter: Filter,
    },
}

impl DeviceFilter {
    /// Whether the kernel was not asked.
    pub fn is_unavailable(&self) -> bool {
        *self == Self::Unavailable
    }

    /// What its elements say, when they are this port's.
    pub fn of(&self, of: PortId) -> Option<&Filter> {
        match self {
            Self::Set { port, filter } if *port == of => Some(filter),
            _ => None,
        }
    }
}

/// A port's filter with the index of the port's device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortFilter {
    /// The port.
    pub port: PortId,
    /// Its device.
    pub index: u32,
    /// What it may send.
    pub filter: Filter,
}

/// The filters of all ports that have a device, at the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortFilters {
    /// The filters.
    pub ports: Vec<PortFilter>,
    /// What the profiles of all ports allow, by their numbers.
    pub profiles: BTreeMap<u32, Profile>,
    /// Other hosts' ports in security groups, by network.
    pub members: Vec<NetworkMembers>,
    /// How many connections a port in security groups may have; none for as many as before.
    pub connections: Option<u32>,
}

/// How many frames were dropped, by reason. A reason that is missing means 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dropped(pub BTreeMap<Reason, u64>);

impl Dropped {
    /// The frames that were dropped for a reason.
    pub fn get(&self, reason: Reason) -> u64 {
        self.0.get(&reason).copied().unwrap_or_default()
    }

    /// Raises each number to the other's, where that is larger.
    pub fn raise(&mut self, other: &Self) {
        for (reason, number) in &other.0 {
            let own = self.0.entry(*reason).or_default();
            *own = (*own).max(*number);
        }
    }
}

/// A port's filter: what its elements say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Who it may speak as; none with port security off: as any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guard: Option<Guard>,
    /// How fast it may send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
    /// Whether it is sent only what it needs to use the network.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub isolated: bool,
    /// Whether its NIC carries further ports' frames, so that one with a tag that no VLAN device has taken is dropped.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub trunk: bool,
    /// Its own MAC, which no frame from a tunnel has; of a port on a VXLAN network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnelled: Option<Mac>,
    /// Which of its requests go to the responder, and no further.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served: Option<Served>,
    /// Its security groups; none where it is in none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<InGroups>,
}

/// What nicd answers of what a guest asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    /// From which MAC: the port's own. What comes from others is as other frames.
    pub mac: Mac,
    /// DHCPv4.
    #[serde(default)]
    pub dhcp4: bool,
    /// DHCPv6.
    #[serde(default)]
    pub dhcp6: bool,
    /// Router solicitations.
    #[serde(default)]
    pub solicitations: bool,
}

impl Served {
    /// Nothing so far.
    pub fn nothing(mac: Mac) -> Self {
        Self { mac, dhcp4: false, dhcp6: false, solicitations: false }
    }
}

/// Who a port may speak as.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    /// The MACs it may send from.
    pub macs: BTreeSet<Mac>,
    /// The addresses it may use with each: hosts, and networks whose every address it may use.
    pub addresses: BTreeSet<Source>,
}

/// A MAC with an address that may be used with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Source {
    /// The MAC.
    pub mac: Mac,
    /// The address, or the network.
    pub address: IpNetwork,
}

/// How fast a port may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Octets per second.
    pub rate: u64,
    /// So many octets at once.
    pub burst: u32,
}

impl Filter {
    /// Whether it lets everything pass that is not for the responder, from the guest and to it.
    pub fn is_open(&self) -> bool {
        Self { served: None, tunnelled: None, ..self.clone() } == Self::default()
    }
}

/// How many addresses of a filter are shown.
const SHOWN: usize = 8;

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.guard {
            None => f.write_str("anything")?,
            Some(Guard { macs, addresses }) => {
                let macs: Vec<String> = macs.iter().take(SHOWN).map(Mac::to_string).collect();
                let addresses: Vec<String> = addresses.iter().take(SHOWN).map(|source| source.address.to_string()).collect();
                write!(f, "frames from {} with {}", macs.join(", "), addresses.join(", "))?;
                if addresses.len() == SHOWN {
                    f.write_str(" and more")?;
                }
            }
        }
        if let Some(Limit { rate, burst }) = self.limit {
            write!(f, ", at most {rate} bytes a second and {burst} at once")?;
        }
        if self.isolated {
            f.write_str(", isolated")?;
        }
        if self.trunk {
            f.write_str(", no frames with a tag that no subport has")?;
        }
        if let Some(mac) = self.tunnelled {
            write!(f, ", no frame from {mac} out of a tunnel")?;
        }
        if self.groups.is_some() {
            f.write_str(", what its security groups allow")?;
        }
        if let Some(Served { mac, dhcp4, dhcp6, solicitations }) = self.served {
            for (is_served, what) in [(dhcp4, "DHCP"), (dhcp6, "DHCPv6"), (solicitations, "router solicitations")] {
                if is_served {
                    write!(f, ", {what} of {mac} to nicd alone")?;
                }
            }
        }
        Ok(())
    }
}

impl Guard {
    /// Lets the port use a MAC, and IPv6's link-local address of it (RFC 4291, appendix A).
    pub fn allow_mac(&mut self, mac: Mac) {
        self.macs.insert(mac);
        self.allow(mac, IpNetwork::from(IpAddr::from(mac.link_local())));
    }

    /// Lets the port use an address with a MAC. The kernel refuses networks that overlap, so of those the widest is kept.
    pub fn allow(&mut self, mac: Mac, address: IpNetwork) {
        self.macs.insert(mac);
        let source = Source { mac, address };
        if !self.addresses.iter().any(|other| other.covers(&source)) {
            self.addresses.retain(|other| !source.covers(other));
            self.addresses.insert(source);
        }
    }
}

impl Source {
    /// Whether it is a network that has the other with the same MAC.
    fn covers(&self, other: &Self) -> bool {
        let (net, within) = (self.address, other.address);
        self.mac == other.mac && !self.is_host() && net.prefix() <= within.prefix() && net.contains(within.ip())
    }

    /// Whether it is one address and no network.
    pub fn is_host(&self) -> bool {
        match self.address {
            IpNetwork::V4(net) => net.prefix() == 32,
            IpNetwork::V6(net) => net.prefix() == 128,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As CVE-2019-10876 has it, where overlapping ranges were the end of a node's filters.
    #[test]
    fn of_networks_that_overlap_the_widest_is_kept() {
        let [mac, other]: [Mac; 2] = ["fa:16:3e:00:00:01", "fa:16:3e:00:00:02"].map(|mac| mac.parse().unwrap());
        let pairs =
            [(mac, "10.1.0.0/16"), (mac, "10.0.0.0/8"), (mac, "10.128.0.0/9"), (mac, "10.0.0.1/32"), (other, "10.1.0.0/16")];
        let allowed = |order: &mut dyn Iterator<Item = &(Mac, &str)>| {
            let mut guard = Guard::default();
            order.for_each(|(mac, net)| guard.allow(*mac, net.parse().unwrap()));
            guard.addresses
        };
        let kept = [(mac, "10.0.0.0/8"), (other, "10.1.0.0/16")];
        let kept: BTreeSet<Source> = kept.map(|(mac, net)| Source { mac, address: net.parse().unwrap() }).into();
        assert_eq!(allowed(&mut pairs.iter()), kept);
        assert_eq!(allowed(&mut pairs.iter().rev()), kept);
    }
}
