//! A port: one NIC with its MAC, its fixed IPs, its network and at most one server.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnetwork::IpNetwork;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::dhcp::ExtraOption;
use super::ids::{GroupId, NetworkId, PortId, ServerId, SubnetId};
use super::mac::Mac;
use super::names::LinkName;
use super::server::TapMake;

/// The rates that a limit may have, in kbit/s.
pub const RATES: RangeInclusive<u32> = 64..=100_000_000;

/// The bursts that a limit may have, in kbit: the kernel counts them in bytes, in 32 bits.
pub const BURSTS: RangeInclusive<u32> = 1..=u32::MAX / 125;

/// A port's record: its desired state. The kernel has the actual state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// Its id.
    pub id: PortId,
    /// The network it is on.
    pub network_id: NetworkId,
    /// The display name; need not be unique.
    pub name: String,
    /// A description for operators.
    #[serde(default)]
    pub description: String,
    /// The project, stored and returned only.
    #[serde(default)]
    pub project_id: String,
    /// The guest's MAC.
    pub mac: Mac,
    /// The guest's addresses, each from a subnet of the network.
    pub fixed_ips: Vec<FixedIp>,
    /// The desired admin state.
    pub admin_up: bool,
    /// Whether the bridge floods frames with an unknown destination MAC to the port, for a guest with several MACs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unknown_unicast: bool,
    /// Whether the filters hold its guest to the port's MAC and addresses.
    #[serde(default = "yes", skip_serializing_if = "bool::clone")]
    pub port_security: bool,
    /// What its guest may send from beside its own MAC and addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub address_pairs: Vec<AddressPair>,
    /// The security groups that it is in; without any its connections are not restricted.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub groups: BTreeSet<GroupId>,
    /// The rates of its traffic.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
    /// Whether its guest gets only the frames that L2 needs; none for what its network says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolated: Option<bool>,
    /// What its guest is told by DHCP beside what its subnets say.
    #[serde(default, skip_serializing_if = "GuestTold::is_default")]
    pub told: GuestTold,
    /// Neutron's `device_owner` (`compute:nova`), stored and returned only.
    #[serde(default)]
    pub device_owner: String,
    /// The client's settings for the device.
    #[serde(default)]
    pub profile: Profile,
    /// Whether a detach deletes it or only unbinds it.
    pub origin: Origin,
    /// The attachment to a server, if any.
    #[serde(default)]
    pub binding: Option<Binding>,
    /// Where it is active, if that is not here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standby: Option<Standby>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// The revision number; grows with each change.
    pub revision_number: u64,
}

/// What one port's guest is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestTold {
    /// Whether its DHCP requests are answered (`nicd:dhcp`).
    #[serde(default = "yes", skip_serializing_if = "bool::clone")]
    pub dhcp: bool,
    /// Its name (`dns_name`), possibly empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub dns_name: String,
    /// Options that a client set for it (`extra_dhcp_opts`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra_options: Vec<ExtraOption>,
}

impl Default for GuestTold {
    fn default() -> Self {
        Self { dhcp: true, dns_name: String::new(), extra_options: Vec::new() }
    }
}

impl GuestTold {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// One address of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FixedIp {
    /// The subnet it is from.
    pub subnet_id: SubnetId,
    /// The address.
    pub ip_address: IpAddr,
}

/// Addresses that a guest may send from (`allowed_address_pairs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressPair {
    /// One address or a block of them, without host bits.
    pub ip: IpNetwork,
    /// The MAC they are sent from; none for the port's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
}

/// The rates of a port's traffic (`nicd:limits`); none of a direction for no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Of the frames that its guest gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_guest: Option<RateLimit>,
    /// Of the frames that its guest sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_guest: Option<RateLimit>,
}

/// The rate of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// In kbit/s, of 1000 bits each.
    pub rate_kbps: u32,
    /// How much may come at once, in kbit of 1000 bits; none for 125 ms of the rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst_kb: Option<u32>,
    /// Whether the burst is held exactly, and not with up to a second of the rate in addition.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exact: bool,
}

/// The client's settings for the device (`binding:profile`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The NIC's name inside a namespace; none for the lowest free `eth%d`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface_name: Option<LinkName>,
    /// Whether a tap carries virtio-net headers (`IFF_VNET_HDR`).
    #[serde(default = "yes")]
    pub vnet_hdr: bool,
}

impl Default for Profile {
    fn default() -> Self {
        Self { interface_name: None, vnet_hdr: true }
    }
}

fn yes() -> bool {
    true
}

/// How a port was created; decides whether a detach deletes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// By an attach to a network: the detach deletes the port.
    Attach,
    /// By a client before the attach: the detach only unbinds the port.
    Client,
}

/// A port's attachment to a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// The server.
    pub server_id: ServerId,
    /// The lowest number that no other NIC of the server has; orders the routes of a guest with several NICs.
    pub ordinal: u16,
    /// Whether the device is to be built or removed.
    pub intent: Intent,
    /// The number of the commit that recorded the attach; part of the device's alias.
    pub commit: u64,
    /// The NIC's name in a guest namespace, read back from the kernel.
    #[serde(default)]
    pub guest_device: Option<LinkName>,
    /// Addresses removed from the port that its guest may still have. They stay reserved until the guest is reconfigured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub releasing: Vec<FixedIp>,
    /// Whether it is not known yet that no other machine has its addresses, which it is not given until then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unproven: bool,
    /// The tap's settings, taken from the server at the attach. A rebuilt tap gets the same ones, also if the server has changed since.
    /// None for a veth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tap: Option<TapMake>,
    /// Whether to delete the device even while a process holds it open.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forced: bool,
    /// The client's tag for the device (Nova 2.49).
    #[serde(default)]
    pub tag: Option<String>,
    /// The port whose NIC carries its frames, of a subport of a trunk; none of a NIC of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carrier: Option<Carrier>,
}

/// How a port that moves between hosts of a fleet stands on a host where it is not active: its device there is silent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Standby {
    /// It was active here until it was handed to this host, which etcd was not told for certain.
    HandedTo(String),
    /// It is active on this host.
    ActiveOn(String),
}

/// What carries a subport's frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Carrier {
    /// The trunk's parent.
    pub port: PortId,
    /// The VLAN that the frames have the tag of there.
    pub vlan: u16,
}

/// The desired state of a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Intent {
    /// The device shall exist.
    Attached,
    /// Delete the device, then unbind the port.
    Detaching,
    /// Delete the device, then delete the port.
    Deleting,
}

impl Limits {
    /// Whether no direction has a limit.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl RateLimit {
    /// The rate in bytes per second.
    pub fn bytes_per_second(self) -> u64 {
        u64::from(self.rate_kbps) * 1000 / 8
    }

    /// The burst in bytes. It may be smaller than a frame.
    pub fn burst_bytes(self) -> u64 {
        match self.burst_kb {
            Some(burst) => u64::from(burst) * 1000 / 8,
            None => self.bytes_per_second() / 8,
        }
    }
}

impl Port {
    /// The server, if the port shall be attached; none when it is unbound or being detached.
    pub fn attached_to(&self) -> Option<ServerId> {
        self.binding.as_ref().filter(|binding| binding.intent == Intent::Attached).map(|binding| binding.server_id)
    }

    /// What carries its frames, where it has no NIC of its own.
    pub fn carrier(&self) -> Option<Carrier> {
        self.binding.as_ref().and_then(|binding| binding.carrier)
    }

    /// Every address that this port reserves.
    pub fn held_ips(&self) -> impl Iterator<Item = &FixedIp> {
        self.fixed_ips.iter().chain(self.binding.iter().flat_map(|binding| &binding.releasing))
    }

    /// Whether it is kept from its addresses until it is known that no other machine has them.
    pub fn is_unproven(&self) -> bool {
        self.binding.as_ref().is_some_and(|binding| binding.unproven)
    }

    /// Whether it is active on another host, and this one has a silent device for it alone.
    pub fn is_elsewhere(&self) -> bool {
        matches!(self.standby, Some(Standby::ActiveOn(_)))
    }

    /// Whether the port is being detached.
    pub fn leaving(&self) -> bool {
        self.binding.as_ref().is_some_and(|binding| binding.intent != Intent::Attached)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_in_kilobits_and_its_burst_is_an_eighth_of_a_second() {
        let rate = |rate_kbps, burst_kb| {
            let limit = RateLimit { rate_kbps, burst_kb, exact: false };
            (limit.bytes_per_second(), limit.burst_bytes())
        };
        assert_eq!(rate(64, None), (8_000, 1_000));
        assert_eq!(rate(64, Some(80)), (8_000, 10_000));
        assert_eq!(rate(100_000_000, None), (12_500_000_000, 1_562_500_000));
    }
}
