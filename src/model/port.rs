//! A port: one NIC with its MAC, its fixed IPs, its network and at most one server.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ids::{NetworkId, PortId, ServerId, SubnetId};
use super::mac::Mac;
use super::names::LinkName;
use super::server::TapMake;

/// A port as recorded: what should be. What is, the kernel says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// Its id.
    pub id: PortId,
    /// The network it is on.
    pub network_id: NetworkId,
    /// A person's name for it; need not be unique.
    pub name: String,
    /// A person's remark.
    #[serde(default)]
    pub description: String,
    /// The project it was made for; nicd keeps it and gives it back.
    #[serde(default)]
    pub project_id: String,
    /// The guest's MAC.
    pub mac: Mac,
    /// The guest's addresses, each from a subnet of the network.
    pub fixed_ips: Vec<FixedIp>,
    /// Whether it shall carry traffic at all.
    pub admin_up: bool,
    /// Whether frames for MACs that nobody has reach it: for a guest that has more MACs than this one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unknown_unicast: bool,
    /// Who it is for, as Neutron's clients mark it (`compute:nova`); kept and given back.
    #[serde(default)]
    pub device_owner: String,
    /// What the client asks of the device.
    #[serde(default)]
    pub profile: Profile,
    /// Whether a detach deletes it or only unbinds it.
    pub origin: Origin,
    /// Its server, when it has one.
    #[serde(default)]
    pub binding: Option<Binding>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Grows with each change.
    pub revision_number: u64,
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

/// What the client asks of the device (`binding:profile`).
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

/// Who made a port, which decides what a detach does with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// An attach by network: the detach deletes it.
    Attach,
    /// A client, beforehand: the detach unbinds it.
    Client,
}

/// A port's place at its server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// The server.
    pub server_id: ServerId,
    /// The lowest number no other NIC of the server has; orders the routes of a guest with several NICs.
    pub ordinal: u16,
    /// Whether it is to be built or taken away.
    pub intent: Intent,
    /// The number of the commit that recorded the attach; part of the device's alias.
    pub commit: u64,
    /// The NIC's name in a guest namespace, read back from the kernel.
    #[serde(default)]
    pub guest_device: Option<LinkName>,
    /// Addresses taken from the port while its guest may still have them; nobody else's until the guest is changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub releasing: Vec<FixedIp>,
    /// What its tap is made with, now and whenever it has to be made again: the server's word at the attach, whatever the
    /// server says afterwards. None for a veth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tap: Option<TapMake>,
    /// Whether its device is to go also while a process holds it open.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forced: bool,
    /// The client's tag for the device (Nova 2.49).
    #[serde(default)]
    pub tag: Option<String>,
}

/// What a binding wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Intent {
    /// The device is to be there.
    Attached,
    /// The device is to go; then the port is unbound.
    Detaching,
    /// The device is to go; then the port is deleted.
    Deleting,
}

impl Port {
    /// The server of a port that is to be attached; none when it is unbound or on its way out.
    pub fn attached_to(&self) -> Option<ServerId> {
        self.binding.as_ref().filter(|binding| binding.intent == Intent::Attached).map(|binding| binding.server_id)
    }

    /// Every address that is nobody else's because of this port.
    pub fn held_ips(&self) -> impl Iterator<Item = &FixedIp> {
        self.fixed_ips.iter().chain(self.binding.iter().flat_map(|binding| &binding.releasing))
    }

    /// Whether the device is on its way out.
    pub fn leaving(&self) -> bool {
        self.binding.as_ref().is_some_and(|binding| binding.intent != Intent::Attached)
    }
}
