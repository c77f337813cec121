//! How what is there differs from what is wanted, property by property. This is the one comparison: the planner, the facts behind
//! a status, the deviations that a verification lists and the counters of drift all read it.
//!
//! A property is compared in one place, its rule in `diff/device.rs` or `diff/bridge.rs`: when it differs, in which words that is
//! told, which fact it breaks, as what its drift is counted, and what is set to bring it back. A new property is a field of
//! [`LinkState`], read by the kernel room, and a rule here.

mod bridge;
mod device;
mod segment;
mod words;

use std::fmt::Display;

use serde::{Serialize, Serializer};

pub use bridge::Bridge;
pub(super) use device::bridge_port;
pub use device::{Device, drift};
pub use segment::{Segment, Trouble, tunnel_header};
pub(super) use words::up;
pub use words::vlan_remedy;

use super::desired::{BridgeMade, DesiredBridge};
use super::observed::{LinkState, Observed};

/// Something about a device that can be right or wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Property {
    /// What kind of link it is.
    Kind,
    /// The link below it and the VLAN that it is of, as a subport's device.
    Carrier,
    /// The bridge it is in.
    Bridge,
    /// Its MAC.
    Mac,
    /// Its MTU.
    Mtu,
    /// Whether another link on its segment has its guest's MAC.
    GuestMac,
    /// Its alias, which says that it is finished.
    Alias,
    /// Whether it is administratively up.
    Up,
    /// Its IPv6 address generation.
    AddressGeneration,
    /// Whether the host's IPv4 takes packets from it.
    HostIpv4,
    /// Addresses of the host's on it.
    HostAddresses,
    /// Whether it delivers frames to the host's stack.
    HostClosed,
    /// Whether its bridge learns addresses from it.
    Learning,
    /// Whether it is sent frames for MACs without an entry.
    UnicastFlood,
    /// Whether its bridge takes frames only from MACs that it has an entry for.
    Locked,
    /// Whether a BPDU of its guest's disables it.
    BpduGuard,
    /// The rate of what it sends to its guest.
    ToGuest,
    /// The exact rate of what its guest sends.
    FromGuest,
    /// Whether its bridge is kept from forwarding by it.
    PortState,
    /// Its further flags as a bridge's port.
    PortFlags,
    /// Whether its bridge has a static entry for its guest's MAC.
    FdbEntry,
    /// Whether a frame can move that entry.
    FdbSticky,
    /// What it may send.
    Filter,
    /// Whether the kernel keeps to that.
    FilterEffect,
    /// What untagged frames meet at it.
    Vlan,
    /// The VLAN of its bridge that it is to be in alone.
    Pvid,
    /// What frames meet in the host's packet filter.
    ForwardFilter,
    /// Whether it outlives its openers.
    Persistent,
    /// Whether it has several queues.
    Queues,
    /// Who may open it.
    Owner,
    /// Whether its virtual machine has it as a NIC, and holds it open.
    Nic,
}
/// As what a difference of a device is counted when another program keeps making it: the first in this order is the cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Facet {
    /// The device itself.
    Device,
    /// Its altname.
    Altname,
    /// Its MAC.
    Mac,
    /// The bridge it is in.
    Bridge,
    /// Its MTU.
    Mtu,
    /// The entry for its guest's MAC in the bridge's FDB.
    Fdb,
    /// What it may send.
    Filter,
    /// Its flags as a bridge's port.
    PortFlags,
    /// The rate of what it sends to its guest, or of what that sends.
    ToGuest,
    /// Its IPv6 address generation.
    AddressGeneration,
    /// Addresses on the host's side.
    Addresses,
    /// Its alias.
    Alias,
    /// Whether it is up.
    Up,
    /// Whether its virtual machine has it as a NIC.
    Nic,
}

impl Facet {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Altname => "altname",
            Self::Bridge => "bridge",
            Self::Mac => "mac",
            Self::Mtu => "mtu",
            Self::Fdb => "FDB entry",
            Self::Filter => "filter",
            Self::PortFlags => "port flags",
            Self::ToGuest => "rate limit",
            Self::AddressGeneration => "address generation",
            Self::Addresses => "addresses",
            Self::Alias => "alias",
            Self::Up => "up",
            Self::Nic => "NIC in its machine",
        }
    }
}

/// The facts, in the order in which they decide: the first that does not hold is the cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FactName {
    /// The last try to build it did not fail.
    Possible,
    /// It has a server.
    Bound,
    /// Its guest's namespace is there.
    Namespace,
    /// The device whose NIC is to carry its frames is there, of a subport of a trunk.
    Parent,
    /// A device carries the port's altname.
    Device,
    /// It is in its network's bridge.
    Bridge,
    /// Its network's bridge reaches the physical network.
    Uplink,
    /// Its network's agent-made bridge, and it as a port of that, deliver nothing to the host's stack.
    HostClosed,
    /// The kernel drops what the port may not send.
    Filters,
    /// It may use its addresses: it is not to be proven first that no other machine has them.
    Addresses,
    /// Its bridge tells no VLANs apart, or the port passes untagged frames in one of them.
    Vlan,
    /// The host's packet filter lets frames pass between the ports of its bridge.
    ForwardFiltered,
    /// Its guest's DHCP requests are heard.
    Responder,
    /// It is complete: it has the alias, and in a namespace the addresses are set.
    Built,
    /// The bridge's FDB has a static entry for the guest's MAC, which leads to the device.
    Fdb,
    /// The port is to be up, and the device is.
    Admin,
    /// Its virtual machine has it as a NIC, where it is to be plugged into one.
    Monitor,
    /// The guest's side is there: the tap is open, the peer is up.
    Carrier,
    /// The bridge forwards from and to it.
    Forwarding,
}

impl FactName {
    /// The word for the fact.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Possible => "possible",
            Self::Bound => "bound",
            Self::Namespace => "namespace",
            Self::Parent => "parent",
            Self::Device => "device",
            Self::Bridge => "bridge",
            Self::Uplink => "uplink",
            Self::HostClosed => "host_closed",
            Self::Filters => "filters",
            Self::Addresses => "addresses",
            Self::Vlan => "vlan",
            Self::ForwardFiltered => "forward_filtered",
            Self::Responder => "responder",
            Self::Built => "built",
            Self::Fdb => "fdb",
            Self::Admin => "admin_up",
            Self::Monitor => "monitor",
            Self::Carrier => "carrier",
            Self::Forwarding => "forwarding",
        }
    }

    /// The stable word for "it does not hold" (`nicd:reason`).
    pub fn reason(self) -> &'static str {
        match self {
            Self::Possible => "failed",
            Self::Bound => "unbound",
            Self::Namespace => "namespace_gone",
            Self::Parent => "parent_missing",
            Self::Device => "device_missing",
            Self::Bridge => "not_in_bridge",
            Self::Uplink => "uplink_gone",
            Self::HostClosed => "host_not_closed",
            Self::Filters => "filters_missing",
            Self::Addresses => "address_unproven",
            Self::Vlan => "vlan",
            Self::ForwardFiltered => "forward_filtered",
            Self::Responder => "responder_unbound",
            Self::Built => "unfinished",
            Self::Fdb => "fdb_missing",
            Self::Admin => "admin_down",
            Self::Monitor => "nic_not_plugged",
            Self::Carrier => "no_carrier",
            Self::Forwarding => "not_forwarding",
        }
    }
}

impl Serialize for FactName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// What would be right, and what was found.
type Pair = (String, String);

/// The MTU in bytes that the ports of a bridge are to have; none where the bridge is not there and not nicd's to make.
pub(in crate::plan) fn home_mtu(bridge: &DesiredBridge, home: Option<&LinkState>, wanted: u32, have: &Observed) -> Option<u32> {
    match &bridge.made {
        BridgeMade::ByAgent { mtu, .. } => Some(*mtu),
        BridgeMade::Existing { .. } => home.map(|home| have.bridge_mtu(home, wanted)),
    }
}

fn pair(want: impl Display, have: impl Display) -> Pair {
    (want.to_string(), have.to_string())
}

fn or_none(value: Option<impl Display>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| value.to_string())
}
