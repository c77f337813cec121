//! What shall be there: the store's records, resolved to what the kernel can be asked for.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::model::names::SegmentKind;
use crate::model::{LinkName, Mac, NetnsPin, NetworkId, Owner, PortId};

use super::filter::Filter;
use super::observed::{Kind, TokenBucket, VlanTag};
use super::op::GuestSettings;
use super::overlay::Entry;

/// A slice of the desired state: one port for an attach, everything after a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Desired {
    /// Bridges that networks need.
    pub bridges: Vec<DesiredBridge>,
    /// Ports to be built.
    pub ports: Vec<DesiredPort>,
    /// Ports whose device is to go.
    pub absent_ports: Vec<AbsentPort>,
    /// Networks whose agent-made bridge is to go.
    pub absent_bridges: Vec<NetworkId>,
    /// The entries that lead to other hosts, of networks with a VXLAN device.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub overlays: Vec<DesiredOverlay>,
}

/// The entries of a network that lead to other hosts, or some of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredOverlay {
    /// The network.
    pub network: NetworkId,
    /// Those that are to be there.
    pub entries: BTreeSet<Entry>,
    /// Those that are not.
    pub unwanted: Unwanted,
}

/// The entries of a network that are not to be there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unwanted {
    /// All others.
    Others,
    /// These; nothing is said of the rest.
    These(BTreeSet<Entry>),
}

/// A port whose device is to go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbsentPort {
    /// The port.
    pub id: PortId,
    /// The alias of its device, by which one that lost its altname is known again.
    pub alias: String,
    /// Its guest's MAC, by which one that lost its alias as well is known again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// The index that its device was last seen with, which tells the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<u32>,
    /// Whether its device is deleted also while a process holds it open.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// The monitor of the virtual machine that it is unplugged from before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitor: Option<PathBuf>,
}

/// A network's bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredBridge {
    /// The network.
    pub network: NetworkId,
    /// Whose bridge it is.
    pub made: BridgeMade,
    /// How it reaches the physical network; none where it does not, or where the operator sees to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment: Option<DesiredSegment>,
}

impl DesiredBridge {
    /// The VLAN of the bridge that ports are to be untagged in; none where the operator sees to it.
    pub fn pvid(&self) -> Option<u16> {
        match self.segment {
            Some(DesiredSegment::Pvid(vlan)) => Some(vlan),
            _ => None,
        }
    }
}

/// How a network's bridge reaches the physical network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DesiredSegment {
    /// By a VLAN device on an uplink, which is put into the agent-made bridge.
    Vlan {
        /// The uplink.
        uplink: DesiredUplink,
        /// The tag of the network's frames there.
        tag: VlanTag,
        /// The index for the device, should it have to be made.
        index: u32,
        /// The alias that tags it: the store's id and the network's.
        alias: String,
    },
    /// By an uplink, which itself is put into the agent-made bridge.
    Flat {
        /// The uplink.
        uplink: DesiredUplink,
    },
    /// By a VXLAN device, which is put into the agent-made bridge: tunnels to the other hosts of the fleet.
    Vxlan {
        /// The network's number (VNI).
        vni: u32,
        /// The tunnel address of this host; none where it has none.
        local: Option<IpAddr>,
        /// Whether the bridge answers ARP and neighbour discovery for ports on other hosts. It then sends no gratuitous ARP to them, and
        /// no unsolicited advertisement, by which guests tell that an address has moved.
        suppress: bool,
        /// The index for the device, should it have to be made.
        index: u32,
        /// The alias that tags it: the store's id and the network's.
        alias: String,
    },
    /// By this VLAN of the operator's bridge, which tells VLANs apart: each port is untagged in it.
    Pvid(u16),
}

impl DesiredSegment {
    /// What kind of device leads there; none where none is made.
    pub fn kind(&self) -> Option<SegmentKind> {
        match self {
            Self::Vlan { .. } => Some(SegmentKind::Vlan),
            Self::Vxlan { .. } => Some(SegmentKind::Vxlan),
            Self::Flat { .. } | Self::Pvid(_) => None,
        }
    }

    /// The alias of that device.
    pub fn alias(&self) -> Option<&str> {
        match self {
            Self::Vlan { alias, .. } | Self::Vxlan { alias, .. } => Some(alias),
            Self::Flat { .. } | Self::Pvid(_) => None,
        }
    }

    /// The index for that device, should it have to be made.
    pub fn index_mut(&mut self) -> Option<&mut u32> {
        match self {
            Self::Vlan { index, .. } | Self::Vxlan { index, .. } => Some(index),
            Self::Flat { .. } | Self::Pvid(_) => None,
        }
    }
}

/// The uplink of a physical network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredUplink {
    /// The physical network's name.
    pub physical: String,
    /// The uplink's name or altname; none where the configuration has no such physical network.
    pub device: Option<LinkName>,
    /// Whether the uplink itself may be put into a bridge.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopt: bool,
}

/// Whose bridge a network uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BridgeMade {
    /// Ours, made with the network's first port.
    ByAgent {
        /// The index for it, should it have to be made.
        index: u32,
        /// Its explicit MAC.
        mac: Mac,
        /// Its MTU in bytes, and that of its ports.
        mtu: u32,
        /// The alias that tags it: the store's id and the network's.
        alias: String,
        /// Whether it is to be closed to the host.
        #[serde(default = "closed")]
        close: bool,
    },
    /// An operator's, which is never changed.
    Existing {
        /// Its name.
        name: LinkName,
    },
}

impl BridgeMade {
    /// Whether it is to be closed to the host: an operator's bridge is left as it is.
    pub fn closes(&self) -> bool {
        matches!(self, Self::ByAgent { close: true, .. })
    }
}

fn closed() -> bool {
    true
}

/// A port to be built, or to stay as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredPort {
    /// The port.
    pub id: PortId,
    /// Its network; the same slice names its bridge.
    pub network: NetworkId,
    /// The index for its device, should it have to be made; for a veth the next one is the guest's end's.
    pub index: u32,
    /// The guest's MAC.
    pub mac: Mac,
    /// The guest's MTU in bytes, at most the bridge's.
    pub mtu: u32,
    /// Whether the device shall be up.
    pub admin_up: bool,
    /// Whether frames for MACs that have no entry in the FDB shall be sent to it.
    #[serde(default)]
    pub unknown_unicast: bool,
    /// The rate of what its guest gets, before the frames of its MTU are given room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_guest: Option<TokenBucket>,
    /// The exact rate of what its guest sends, before the frames of its MTU are given room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_guest: Option<TokenBucket>,
    /// Whether it is built as any other, and is down and in no bridge: it is active on another host.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub silent: bool,
    /// Whether it is to be kept down and out of every bridge: another program keeps changing its MAC on the host's side, and each
    /// change in a bridge deletes the entry of the guest whose MAC that is.
    #[serde(default)]
    pub cut_off: bool,
    /// The protocols of its guest's addresses; none where it has none.
    #[serde(default)]
    pub speaks: Speaks,
    /// What it may send; none where no filter is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Filter>,
    /// The alias of the complete device: the store's id and the commit number of the intent.
    pub alias: String,
    /// The index that its device was last seen with, by which one that lost altname and alias is known again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<u32>,
    /// The monitor of the virtual machine that it is to be plugged into; none where another program opens its tap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitor: Option<PathBuf>,
    /// What to build.
    pub nic: DesiredNic,
}

impl DesiredPort {
    /// Whether what its guest sends is filtered.
    pub fn is_guarded(&self) -> bool {
        self.filter.as_ref().is_some_and(|filter| filter.guard.is_some())
    }

    /// Whether its guest may use no MAC but its own. The bridge has an entry for that one, so the port can be locked: a second
    /// obstacle to another MAC, which a flushed ruleset does not remove.
    pub fn has_one_mac(&self) -> bool {
        let guard = self.filter.as_ref().and_then(|filter| filter.guard.as_ref());
        guard.is_some_and(|guard| guard.macs.iter().eq([&self.mac]))
    }
}

/// The protocols of a guest's addresses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Speaks {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

/// What a guest's NIC is on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DesiredNic {
    /// A tap that a VMM opens.
    Tap {
        /// 1, or up to 256 with `IFF_MULTI_QUEUE`.
        queues: u16,
        /// Whether frames carry virtio-net headers.
        vnet_hdr: bool,
        /// Who may open it.
        owner: Owner,
    },
    /// A veth pair whose other end is in a namespace.
    Veth {
        /// Where the namespace is mounted.
        netns: PathBuf,
        /// Which namespace that must be.
        pin: NetnsPin,
        /// The guest's end.
        guest: GuestSettings,
    },
    /// What of another port's frames has the tag of a VLAN, of a subport of a trunk.
    Vlan {
        /// The port on whose device it is, the trunk's parent.
        parent: PortId,
        /// The VLAN.
        id: u16,
    },
}

impl DesiredNic {
    /// What kind of link it is on the host.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Tap { .. } => Kind::Tap,
            Self::Veth { .. } => Kind::Veth,
            Self::Vlan { .. } => Kind::Vlan,
        }
    }
}
