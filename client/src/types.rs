//! What requests and answers contain.
//!
//! Members that this version does not know are ignored, and words that it does not know are kept as [`PortStatus::Other`] and its like,
//! so that a later nicd can be talked to. MACs, ranges and times are text: `fa:16:3e:4c:2c:30`, `192.0.2.0/24`, RFC 3339.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Makes an enum of the words that an attribute can have; a word that is not among them is kept as `Other`.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$word_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(from = "String", into = "String")]
        pub enum $name {
            $($(#[$word_doc])* $variant,)*
            /// A word that this version does not know.
            Other(String),
        }

        impl $name {
            /// The word.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $word,)*
                    Self::Other(word) => word,
                }
            }
        }

        impl From<String> for $name {
            fn from(word: String) -> Self {
                match word.as_str() {
                    $($word => Self::$variant,)*
                    _ => Self::Other(word),
                }
            }
        }

        impl From<$name> for String {
            fn from(word: $name) -> Self {
                word.as_str().to_owned()
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::Other(String::new())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
pub(crate) use words;

words! {
    /// A port's status.
    PortStatus {
        /// Not built, or the guest's side is not there, or administratively down.
        Down = "DOWN",
        /// An attach or a repair is under way.
        Build = "BUILD",
        /// Traffic flows.
        Active = "ACTIVE",
        /// It cannot be built or undone as asked; nicd tries again by itself.
        Error = "ERROR",
    }
}

words! {
    /// A port's phase, which is finer than its status and decides it.
    Phase {
        /// The port has no server.
        Unbound = "unbound",
        /// An attach or a repair is under way.
        Building = "building",
        /// The device exists; the guest's side is not there, or the port is administratively down.
        Wired = "wired",
        /// Traffic flows.
        Active = "active",
        /// Traffic is cut; the kernel has not let the device go yet.
        Detaching = "detaching",
        /// It cannot be built or undone as asked.
        Error = "error",
    }
}

words! {
    /// How a port's NIC is given to its guest.
    VifType {
        /// A tap, for a virtual machine.
        Tap = "tap",
        /// A veth, for a network namespace.
        Veth = "veth",
        /// A VLAN device on another port's, of a trunk's subport.
        Vlan = "vlan",
        /// There is none: the port has no server.
        Unbound = "unbound",
    }
}

words! {
    /// How a trunk fares.
    TrunkStatus {
        /// Its parent and all its subports are ACTIVE.
        Active = "ACTIVE",
        /// The trunk is down, or its parent is.
        Down = "DOWN",
        /// One of them is being built.
        Build = "BUILD",
        /// Its parent is ACTIVE, and a subport is not.
        Degraded = "DEGRADED",
        /// Its parent cannot be built, or none of its subports.
        Error = "ERROR",
    }
}

words! {
    /// How a subport's frames are told apart.
    SegmentationType {
        /// By the tag of `segmentation_id`.
        Vlan = "vlan",
        /// By that of its network's VLAN; only in requests.
        Inherit = "inherit",
    }
}

words! {
    /// Whether the daemon has problems.
    HealthStatus {
        /// It has none.
        Ok = "ok",
        /// It has some, which are listed.
        Degraded = "degraded",
    }
}

/// A network: an L2 segment, on this host one bridge.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Network {
    /// Its id.
    pub id: Uuid,
    /// Its name; several networks may have one name.
    #[serde(default)]
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// The project; nicd only stores it.
    #[serde(default)]
    pub project_id: String,
    /// The MTU of its guests.
    pub mtu: u32,
    /// Its subnets.
    #[serde(default)]
    pub subnets: Vec<Uuid>,
    /// `local`, `flat`, `vlan` or `vxlan`.
    #[serde(rename = "provider:network_type", default)]
    pub network_type: String,
    /// The physical network of a `flat` or `vlan` one.
    #[serde(rename = "provider:physical_network", default)]
    pub physical_network: Option<String>,
    /// The VLAN of a `vlan` one, the VXLAN network identifier of a `vxlan` one.
    #[serde(rename = "provider:segmentation_id", default)]
    pub segmentation_id: Option<u32>,
    /// The link of this host that leads to its physical network; none where none does, or where `bridge` does.
    #[serde(rename = "nicd:uplink", default)]
    pub uplink: Option<String>,
    /// The existing bridge that it uses; none where nicd makes one.
    #[serde(rename = "nicd:bridge", default)]
    pub bridge: Option<String>,
    /// The name of its bridge on this host; none while there is none.
    #[serde(rename = "nicd:device", default)]
    pub device: Option<String>,
    /// Whether its new ports are filtered.
    #[serde(default)]
    pub port_security_enabled: bool,
    /// Whether its ports are sent only what is for them.
    #[serde(rename = "nicd:isolated", default)]
    pub isolated: bool,
    /// `fleet` for a network of all hosts of the fleet, `host` for one of this host alone.
    #[serde(rename = "nicd:scope", default)]
    pub scope: String,
    /// Counts its changes.
    #[serde(default)]
    pub revision_number: u64,
    /// When it was created.
    #[serde(default)]
    pub created_at: String,
    /// When it was last changed.
    #[serde(default)]
    pub updated_at: String,
}

/// A network to create. What is `None` is nicd's default.
#[derive(Debug, Clone, Default, Serialize)]
pub struct NewNetwork {
    /// Its id, for a control plane that has ids of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The project; nicd only stores it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project_id: Option<String>,
    /// The MTU of its guests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// An existing bridge to use. nicd does not change it.
    #[serde(rename = "nicd:bridge", skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// Whether its new ports are filtered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_security_enabled: Option<bool>,
    /// Whether its ports are sent only what is for them.
    #[serde(rename = "nicd:isolated", skip_serializing_if = "Option::is_none")]
    pub isolated: Option<bool>,
    /// `local`, `flat`, `vlan` or `vxlan`.
    #[serde(rename = "provider:network_type", skip_serializing_if = "Option::is_none")]
    pub network_type: Option<String>,
    /// The physical network of a `flat` or `vlan` one.
    #[serde(rename = "provider:physical_network", skip_serializing_if = "Option::is_none")]
    pub physical_network: Option<String>,
    /// The VLAN of a `vlan` one, the VXLAN network identifier of a `vxlan` one.
    #[serde(rename = "provider:segmentation_id", skip_serializing_if = "Option::is_none")]
    pub segmentation_id: Option<u32>,
    /// `fleet` for all hosts of the fleet, `host` for this one alone.
    #[serde(rename = "nicd:scope", skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
}

/// What to change of a network. What is `None` stays.
#[derive(Debug, Clone, Default, Serialize)]
pub struct NetworkChange {
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The MTU of its guests; its ports follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Whether its new ports are filtered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_security_enabled: Option<bool>,
    /// Whether its ports are sent only what is for them.
    #[serde(rename = "nicd:isolated", skip_serializing_if = "Option::is_none")]
    pub isolated: Option<bool>,
}

/// A subnet: a range of addresses on a network.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Subnet {
    /// Its id.
    pub id: Uuid,
    /// Its network.
    pub network_id: Uuid,
    /// Its range.
    pub cidr: String,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// The project; nicd only stores it.
    #[serde(default)]
    pub project_id: String,
    /// The guests' router.
    #[serde(default)]
    pub gateway_ip: Option<IpAddr>,
    /// The ranges from which addresses are chosen.
    #[serde(default)]
    pub allocation_pools: Vec<Pool>,
    /// Whether nicd answers the guests' DHCP, or sends router advertisements.
    #[serde(default)]
    pub enable_dhcp: bool,
    /// The name servers that guests are told.
    #[serde(default)]
    pub dns_nameservers: Vec<IpAddr>,
    /// The routes that guests are told.
    #[serde(default)]
    pub host_routes: Vec<Route>,
    /// How guests get IPv6 addresses.
    #[serde(default)]
    pub ipv6_address_mode: Option<String>,
    /// What router advertisements say.
    #[serde(default)]
    pub ipv6_ra_mode: Option<String>,
    /// Counts its changes.
    #[serde(default)]
    pub revision_number: u64,
    /// When it was created.
    #[serde(default)]
    pub created_at: String,
    /// When it was last changed.
    #[serde(default)]
    pub updated_at: String,
}

/// A range of addresses to choose from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// The first address.
    pub start: IpAddr,
    /// The last address.
    pub end: IpAddr,
}

/// A route for guests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The range that it leads to.
    pub destination: String,
    /// The router.
    pub nexthop: IpAddr,
}

/// A subnet to create. What is `None` is nicd's default.
#[derive(Debug, Clone, Serialize)]
pub struct NewSubnet {
    /// Its id, for a control plane that has ids of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
    /// Its network.
    pub network_id: Uuid,
    /// Its range.
    pub cidr: String,
    /// What it shares with a change.
    #[serde(flatten)]
    pub settings: SubnetChange,
}

impl NewSubnet {
    /// A subnet with this range and nicd's defaults.
    pub fn of(network_id: Uuid, cidr: impl Into<String>) -> Self {
        Self { id: None, network_id, cidr: cidr.into(), settings: SubnetChange::default() }
    }
}

/// What to change of a subnet. What is `None` stays.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SubnetChange {
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The guests' router; `Some(None)`: there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway_ip: Option<Option<IpAddr>>,
    /// The ranges from which addresses are chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocation_pools: Option<Vec<Pool>>,
    /// Whether nicd answers the guests' DHCP, or sends router advertisements.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_dhcp: Option<bool>,
    /// The name servers that guests are told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_nameservers: Option<Vec<IpAddr>>,
    /// The routes that guests are told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_routes: Option<Vec<Route>>,
    /// How guests get IPv6 addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6_address_mode: Option<String>,
    /// What router advertisements say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6_ra_mode: Option<String>,
}

/// A port: one NIC, with its MAC and addresses.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Port {
    /// Its id.
    pub id: Uuid,
    /// Its network.
    pub network_id: Uuid,
    /// Its status.
    pub status: PortStatus,
    /// Its phase.
    #[serde(rename = "nicd:phase", default)]
    pub phase: Phase,
    /// Why it has this status.
    #[serde(rename = "nicd:reason", default)]
    pub reason: Option<String>,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// The project; nicd only stores it.
    #[serde(default)]
    pub project_id: String,
    /// The guest's MAC.
    pub mac_address: String,
    /// Its addresses.
    #[serde(default)]
    pub fixed_ips: Vec<FixedIp>,
    /// The server that has it; empty where none has.
    #[serde(default)]
    pub device_id: String,
    /// Whether it is to carry traffic.
    #[serde(default)]
    pub admin_state_up: bool,
    /// Whether what its guest sends is filtered.
    #[serde(default)]
    pub port_security_enabled: bool,
    /// The security groups that it is in.
    #[serde(default)]
    pub security_groups: Vec<Uuid>,
    /// How the NIC is given to the guest.
    #[serde(rename = "binding:vif_type", default)]
    pub vif_type: VifType,
    /// The device on the host.
    #[serde(rename = "binding:vif_details", default)]
    pub device: Device,
    /// Its rate limits.
    #[serde(rename = "nicd:limits", default)]
    pub limits: Option<Limits>,
    /// Counts its changes.
    #[serde(default)]
    pub revision_number: u64,
    /// When it was created.
    #[serde(default)]
    pub created_at: String,
    /// When it was last changed.
    #[serde(default)]
    pub updated_at: String,
}

impl Port {
    /// The server that has it.
    pub fn server(&self) -> Option<Uuid> {
        self.device_id.parse().ok()
    }
}

/// An address of a port.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct FixedIp {
    /// The subnet that it is from.
    pub subnet_id: Uuid,
    /// The address.
    pub ip_address: IpAddr,
}

/// A port's device; of a port without a server everything is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Device {
    /// Its name on the host.
    pub device: Option<String>,
    /// The bridge that it is in.
    pub bridge: Option<String>,
    /// Its own MAC, which is not the guest's.
    pub host_mac: Option<String>,
    /// The guest's MTU.
    pub mtu: Option<u32>,
    /// A tap's queues.
    pub queues: Option<u16>,
    /// Whether a VMM opens the tap with `IFF_VNET_HDR`.
    pub vnet_hdr: Option<bool>,
    /// The name of a veth's end in the guest's namespace.
    pub guest_device: Option<String>,
}

/// Rate limits of a port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Of what the guest receives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_guest: Option<Rate>,
    /// Of what the guest sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_guest: Option<Rate>,
}

/// A rate limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// The rate, in kbit/s.
    pub rate_kbps: u32,
    /// How much may pass at once, in kbit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst_kb: Option<u32>,
    /// Whether the burst is held exactly, and not with up to a second of the rate in addition.
    #[serde(default, skip_serializing_if = "is_false")]
    pub exact: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// A trunk: a port whose NIC carries further ports' frames.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Trunk {
    /// Its id.
    pub id: Uuid,
    /// The parent: the port whose NIC carries the others' frames.
    pub port_id: Uuid,
    /// How it fares.
    pub status: TrunkStatus,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// The project; nicd only stores it.
    #[serde(default)]
    pub project_id: String,
    /// Whether its subports are to carry traffic.
    #[serde(default)]
    pub admin_state_up: bool,
    /// Its subports.
    #[serde(default)]
    pub sub_ports: Vec<SubPort>,
    /// Counts its changes.
    #[serde(default)]
    pub revision_number: u64,
}

/// A port whose frames a trunk's parent carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubPort {
    /// The port.
    pub port_id: Uuid,
    /// How its frames are told apart.
    pub segmentation_type: SegmentationType,
    /// The VLAN that they have the tag of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segmentation_id: Option<u16>,
}

impl SubPort {
    /// A port whose frames have the tag of this VLAN.
    pub fn tagged(port_id: Uuid, vlan: u16) -> Self {
        Self { port_id, segmentation_type: SegmentationType::Vlan, segmentation_id: Some(vlan) }
    }
}

/// A trunk to create.
#[derive(Debug, Clone, Serialize)]
pub struct NewTrunk {
    /// Its id, for a control plane that has ids of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
    /// The parent.
    pub port_id: Uuid,
    /// Its subports.
    pub sub_ports: Vec<SubPort>,
    /// What it shares with a change.
    #[serde(flatten)]
    pub settings: TrunkChange,
}

impl NewTrunk {
    /// A trunk on this parent, without subports.
    pub fn on(port_id: Uuid) -> Self {
        Self { id: None, port_id, sub_ports: Vec::new(), settings: TrunkChange::default() }
    }
}

/// What to change of a trunk. What is `None` stays.
#[derive(Debug, Clone, Default, Serialize)]
pub struct TrunkChange {
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether its subports are to carry traffic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_state_up: Option<bool>,
}

/// An address that a port is to have: one of a subnet, a certain one, or both.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct WantedIp {
    /// The subnet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet_id: Option<Uuid>,
    /// The address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_address: Option<IpAddr>,
}

/// A port to create without a server. What is `None` is nicd's choice.
#[derive(Debug, Clone, Serialize)]
pub struct NewPort {
    /// Its id, for a control plane that has ids of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
    /// Its network.
    pub network_id: Uuid,
    /// What it shares with a change.
    #[serde(flatten)]
    pub settings: PortChange,
}

impl NewPort {
    /// A port of this network with nicd's choices.
    pub fn of(network_id: Uuid) -> Self {
        Self { id: None, network_id, settings: PortChange::default() }
    }
}

/// What to change of a port. What is `None` stays.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PortChange {
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The guest's MAC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac_address: Option<String>,
    /// Its addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fixed_ips: Option<Vec<WantedIp>>,
    /// Whether it is to carry traffic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_state_up: Option<bool>,
    /// Whether what its guest sends is filtered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_security_enabled: Option<bool>,
    /// The security groups that it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_groups: Option<Vec<Uuid>>,
    /// Its rate limits; `Some(None)`: it has none.
    #[serde(rename = "nicd:limits", skip_serializing_if = "Option::is_none")]
    pub limits: Option<Option<Limits>>,
}

/// A NIC that an attach is to give to a server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Attachment {
    /// The network of a port that the attach makes.
    #[serde(skip_serializing_if = "Option::is_none")]
    net_id: Option<Uuid>,
    /// The port.
    #[serde(skip_serializing_if = "Option::is_none")]
    port_id: Option<Uuid>,
    /// The address of a port that the attach makes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fixed_ips: Vec<WantedIp>,
}

impl Attachment {
    /// Of a port that the attach makes, and that the detach deletes.
    pub fn to_network(network: Uuid) -> Self {
        Self { net_id: Some(network), ..Self::default() }
    }

    /// The same, with this address.
    pub fn with_address(network: Uuid, address: IpAddr) -> Self {
        let wanted = WantedIp { subnet_id: None, ip_address: Some(address) };
        Self { fixed_ips: vec![wanted], ..Self::to_network(network) }
    }

    /// Of a port that exists, and that stays after the detach.
    pub fn of_port(port: Uuid) -> Self {
        Self { port_id: Some(port), ..Self::default() }
    }
}

/// A NIC that a server has.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Interface {
    /// Its port.
    pub port_id: Uuid,
    /// Its network.
    pub net_id: Uuid,
    /// The guest's MAC.
    pub mac_addr: String,
    /// The port's status at that moment.
    pub port_state: PortStatus,
    /// Its addresses.
    #[serde(default)]
    pub fixed_ips: Vec<FixedIp>,
}

/// A server: a guest on this host.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Server {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// The project; nicd only stores it.
    #[serde(default)]
    pub project_id: String,
    /// What it is.
    pub guest: Guest,
    /// How many NICs it may have; the configuration's where there is none.
    #[serde(default)]
    pub nic_limit: Option<u32>,
    /// When it became known.
    #[serde(default)]
    pub created_at: String,
    /// When it was last changed.
    #[serde(default)]
    pub updated_at: String,
}

/// What a server is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Guest {
    /// A virtual machine: its NICs are taps.
    Vm {
        /// The queues of its taps.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        queues: Option<u16>,
        /// Who may open its taps.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        owner: Option<Owner>,
        /// How NICs are plugged into it while it runs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        monitor: Option<Monitor>,
    },
    /// A network namespace: its NICs are veths.
    Netns {
        /// The file of the namespace.
        path: String,
    },
    /// A kind that this version does not know.
    #[serde(other)]
    Other,
}

impl Guest {
    /// A virtual machine with one queue, whose taps root may open.
    pub fn vm() -> Self {
        Self::Vm { queues: None, owner: None, monitor: None }
    }

    /// The network namespace at a path such as `/run/netns/web-1`.
    pub fn netns(path: impl Into<String>) -> Self {
        Self::Netns { path: path.into() }
    }
}

/// Who may open a tap; with both, the opener must be both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
}

/// A machine's monitor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Monitor {
    /// The socket on which QEMU serves QMP.
    pub qmp: String,
}

/// A server's registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NewServer {
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The project; nicd only stores it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project_id: Option<String>,
    /// What it is; `None`: what it was.
    pub guest: Option<Guest>,
    /// How many NICs it may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nic_limit: Option<u32>,
}

impl NewServer {
    /// A server of this kind, without a name.
    pub fn of(guest: Guest) -> Self {
        Self { name: None, project_id: None, guest: Some(guest), nic_limit: None }
    }
}

/// How the daemon fares.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Health {
    /// Whether it has problems.
    pub status: HealthStatus,
    /// Its version.
    pub version: String,
    /// How long it has run, in seconds.
    pub uptime_s: u64,
    /// Its host.
    pub host: String,
    /// How many ports have each status.
    #[serde(default)]
    pub ports: BTreeMap<String, u64>,
    /// Of the ports that are DOWN, how many have no server.
    #[serde(default)]
    pub unattached: u64,
    /// Its problems.
    #[serde(default)]
    pub problems: Vec<Problem>,
}

/// A problem that a person should look at.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Problem {
    /// A stable word for it.
    pub reason: String,
    /// What it is about.
    pub detail: String,
    /// What to do.
    pub remedy: String,
}

/// Why a port has the status it has.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Explanation {
    /// The port.
    pub port_id: Uuid,
    /// Its status.
    pub status: PortStatus,
    /// Its phase.
    pub phase: Phase,
    /// The facts, in the order in which they decide.
    pub facts: Vec<Fact>,
}

impl Explanation {
    /// The first fact that does not hold: the cause.
    pub fn cause(&self) -> Option<&Fact> {
        self.facts.iter().find(|fact| !fact.ok)
    }
}

/// A fact that a port's status depends on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Fact {
    /// A stable word for it.
    pub fact: String,
    /// Whether it holds.
    pub ok: bool,
    /// What was seen.
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "ce531f90-199f-48c0-816c-13e38010b442";

    #[test]
    fn members_and_words_of_a_later_version_are_accepted() {
        let port = json!({"id": ID, "network_id": ID, "status": "PAUSED", "mac_address": "fa:16:3e:4c:2c:30", "later": [1],
            "binding:vif_details": {"device": "nicdce531f90199", "later": true}});
        let port: Port = serde_json::from_value(port).unwrap();
        assert_eq!(port.status, PortStatus::Other("PAUSED".to_owned()));
        assert_eq!(port.device.device.as_deref(), Some("nicdce531f90199"));
        let server: Server = serde_json::from_value(json!({"id": ID, "guest": {"kind": "pod", "path": "/x"}})).unwrap();
        assert_eq!(server.guest, Guest::Other);
    }

    fn sent(body: &impl Serialize) -> serde_json::Value {
        serde_json::to_value(body).unwrap()
    }

    #[test]
    fn limits_are_written_as_they_were_read() {
        let limits = json!({"to_guest": {"rate_kbps": 64}, "from_guest": {"rate_kbps": 64, "burst_kb": 8, "exact": true}});
        assert_eq!(sent(&serde_json::from_value::<Limits>(limits.clone()).unwrap()), limits);
    }

    #[test]
    fn what_is_not_set_is_not_sent() {
        let id: Uuid = ID.parse().unwrap();
        assert_eq!(sent(&Attachment::to_network(id)), json!({"net_id": ID}));
        assert_eq!(sent(&NewSubnet::of(id, "192.0.2.0/24")), json!({"network_id": ID, "cidr": "192.0.2.0/24"}));
        assert_eq!(sent(&NewServer::of(Guest::vm())), json!({"guest": {"kind": "vm"}}));
        assert_eq!(sent(&SubnetChange { gateway_ip: Some(None), ..SubnetChange::default() }), json!({"gateway_ip": null}));
    }
}
