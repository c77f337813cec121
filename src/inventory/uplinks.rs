//! Which networks are on which physical network and which VLANs they have there, and which numbers VXLAN networks have.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::IpNetwork;

use crate::model::names::SegmentKind;
use crate::model::segment::IdRanges;
use crate::model::{LinkName, Network, NetworkId, NetworkKind, PhysicalNetwork, PhysicalNetworks, names};
use crate::plan::{DesiredSegment, DesiredUplink, HostUse, LinkState, VlanProtocol, VlanTag};

use super::entries::Inventory;

/// Why a network cannot have a VLAN of a physical network, or its untagged frames.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// The configuration has no such physical network.
    #[error("physical network '{name}' is not known; [physical_networks] of the configuration has {known}")]
    UnknownPhysical {
        /// As asked.
        name: String,
        /// Those that there are, in words.
        known: String,
    },
    /// Another network has it.
    #[error(
        "{what} of physical network {physical} is in use by {by}; choose another, or leave provider:segmentation_id out to get a free one"
    )]
    InUse {
        /// The VLAN, or the untagged frames.
        what: String,
        /// The physical network.
        physical: String,
        /// Whose it is.
        by: String,
    },
    /// None is left of those that are drawn.
    #[error(
        "no VLAN is left on physical network {physical} of those that [segments] vlan has ({ranges}); name one in provider:segmentation_id, or extend the ranges"
    )]
    NoneLeft {
        /// The physical network.
        physical: String,
        /// The ranges.
        ranges: String,
    },
    /// Another network has the number of VXLAN.
    #[error(
        "VXLAN network identifier {vni} is in use by network {by}; choose another, or leave provider:segmentation_id out to get a free one"
    )]
    VniInUse {
        /// The number.
        vni: u32,
        /// Whose it is.
        by: NetworkId,
    },
    /// None is left of those that are drawn.
    #[error(
        "no VXLAN network identifier is left of those that [segments] vxlan has ({0}); name one in provider:segmentation_id, or extend the \
         ranges"
    )]
    NoVniLeft(String),
    /// No number of VXLAN may be drawn.
    #[error(
        "[segments] vxlan of the configuration has no VXLAN network identifiers to draw one from; name one in provider:segmentation_id, or \
         set ranges there, such as \"4096-8191\""
    )]
    NoVniRanges,
    /// Tunnels lead nowhere from this host.
    #[error(
        "provider:network_type vxlan: such a network connects the hosts of a fleet, and this host has no [fleet] with a [tunnel] address; set \
         them, or make the network local, flat or vlan"
    )]
    FleetOnly,
    /// This host is in no fleet.
    #[error("nicd:scope fleet: this host has no [fleet] in its configuration; leave nicd:scope out, or let it be host")]
    NoFleet,
    /// No link has the tunnel address.
    #[error(
        "no link of this host has the tunnel address {0}, over which VXLAN networks reach other hosts; give it to the link that leads there"
    )]
    NoUnderlay(IpAddr),
    /// None may be drawn.
    #[error(
        "[segments] vlan of the configuration has no VLANs to draw one from; name one in provider:segmentation_id, or set ranges there, such as \"100-199\""
    )]
    NoRanges,
}

impl SegmentError {
    /// The stable word (`reason`).
    pub fn reason(&self) -> &'static str {
        match self {
            Self::UnknownPhysical { .. } => "unknown_physical_network",
            Self::InUse { .. } | Self::VniInUse { .. } => "segment_in_use",
            Self::NoneLeft { .. } | Self::NoRanges | Self::NoVniLeft(_) | Self::NoVniRanges => "no_free_segment",
            Self::FleetOnly | Self::NoFleet => "fleet_only",
            Self::NoUnderlay(_) => "uplink_missing",
        }
    }
}

impl Inventory {
    /// Takes other physical networks from now on. Answers with the uplinks that flat networks had and have no longer.
    pub fn set_physical(&mut self, configured: PhysicalNetworks) -> Vec<(NetworkId, LinkName)> {
        let before = std::mem::replace(&mut self.physical.configured, configured);
        let flat = self.physical.taken.iter().filter(|((_, vlan), _)| *vlan == 0);
        let left = flat.filter_map(|((physical, _), network)| match before.get(physical)? {
            PhysicalNetwork::Device { device, .. } => {
                let now = self.physical.configured.get(physical).map(PhysicalNetwork::link);
                (now != Some(device)).then(|| (*network, device.clone()))
            }
            PhysicalNetwork::Bridge { .. } => None,
        });
        left.collect()
    }

    /// What leads to a physical network.
    pub fn physical_network(&self, name: &str) -> Result<&PhysicalNetwork, SegmentError> {
        self.physical.configured.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.physical.configured.keys().map(String::as_str).collect();
            let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            SegmentError::UnknownPhysical { name: name.to_owned(), known }
        })
    }

    /// All networks that have a physical network.
    pub fn on_physical(&self) -> BTreeSet<NetworkId> {
        self.physical.on.values().flatten().copied().collect()
    }

    /// Gives a network that is to be made its VLAN, or its number of VXLAN: the one that it asks for, or the lowest free one of these. Refuses
    /// one that is in use.
    pub fn give_segment(&self, network: &mut Network, vlans: &IdRanges, vnis: &IdRanges) -> Result<(), SegmentError> {
        if network.kind == NetworkKind::Vxlan {
            return self.give_vni(network, vnis);
        }
        let ranges = vlans;
        let Some(physical) = network.physical_network.clone() else { return Ok(()) };
        if network.kind == NetworkKind::Vlan && network.segmentation_id.is_none() {
            if ranges.is_empty() {
                return Err(SegmentError::NoRanges);
            }
            let is_free = |id: &u32| u16::try_from(*id).is_ok_and(|vlan| self.user(&physical, vlan).is_none());
            let free = ranges.ids().find(is_free);
            let none = || SegmentError::NoneLeft { physical: physical.clone(), ranges: ranges.to_string() };
            network.segmentation_id = Some(free.ok_or_else(none)?);
            return Ok(());
        }
        let Some((_, vlan)) = place(network) else { return Ok(()) };
        match self.user(&physical, vlan) {
            None => Ok(()),
            Some(by) => {
                let what = if vlan == 0 { "the untagged side".to_owned() } else { format!("VLAN {vlan}") };
                Err(SegmentError::InUse { what, physical, by })
            }
        }
    }

    fn give_vni(&self, network: &mut Network, ranges: &IdRanges) -> Result<(), SegmentError> {
        let vni = match network.segmentation_id {
            Some(vni) => vni,
            None if ranges.is_empty() => return Err(SegmentError::NoVniRanges),
            None => {
                let free = ranges.ids().find(|vni| !self.vxlans.contains_key(vni));
                free.ok_or_else(|| SegmentError::NoVniLeft(ranges.to_string()))?
            }
        };
        if let Some(by) = self.vxlans.get(&vni) {
            return Err(SegmentError::VniInUse { vni, by: *by });
        }
        network.segmentation_id = Some(vni);
        Ok(())
    }

    /// Whose a VLAN of a physical network is, in words; none where it is free.
    fn user(&self, physical: &str, vlan: u16) -> Option<String> {
        if let Some(network) = self.physical.taken.get(&(physical.to_owned(), vlan)) {
            return Some(format!("network {network}"));
        }
        let PhysicalNetwork::Device { device, qinq, .. } = self.physical.configured.get(physical)? else { return None };
        let uplink = self.have.named(device.as_str())?;
        let taken = self.have.vlan_on(uplink.index, tag(vlan, *qinq))?;
        Some(format!("link {} of this host", taken.name))
    }

    /// How a network is to reach other hosts, without an index for a device that is to be made.
    pub fn desired_segment(&self, network: &Network) -> Option<DesiredSegment> {
        if let (NetworkKind::Vxlan, Some(vni), None) = (network.kind, network.segmentation_id, &network.bridge) {
            let alias = names::segment_tag(SegmentKind::Vxlan, self.store_id, network.id);
            let suppress = !self.has_pairs(network.id);
            return Some(DesiredSegment::Vxlan { vni, local: self.tunnel, suppress, index: 0, alias });
        }
        let physical = network.physical_network.clone()?;
        let vlan = network.vlan();
        match (vlan, &network.bridge) {
            (Some(vlan), Some(_)) => return Some(DesiredSegment::Pvid(vlan)),
            (None, Some(_)) => return None,
            _ => {}
        }
        let (device, adopt, qinq) = match self.physical.configured.get(&physical) {
            Some(PhysicalNetwork::Device { device, adopt, qinq }) => (Some(device.clone()), *adopt, *qinq),
            _ => (None, false, false),
        };
        let uplink = DesiredUplink { physical, device, adopt: adopt && vlan.is_none() };
        Some(match vlan {
            None => DesiredSegment::Flat { uplink },
            Some(vlan) => {
                let alias = names::segment_tag(SegmentKind::Vlan, self.store_id, network.id);
                DesiredSegment::Vlan { uplink, tag: tag(vlan, qinq), index: 0, alias }
            }
        })
    }

    /// Whether a port here may use an address beside its fixed IPs, which it may take over from another one (VRRP).
    fn has_pairs(&self, network: NetworkId) -> bool {
        let first = IpNetwork::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        first.is_ok_and(|first| self.pairs.range((network, first)..).next().is_some_and(|((of, _), _)| *of == network))
    }

    /// Whether the bridge of a VXLAN network answers ARP and neighbour discovery, and is not to, or the other way round.
    pub fn suppresses_wrongly(&self, network: NetworkId) -> bool {
        let port = self.have.own_segment(SegmentKind::Vxlan, network).and_then(|device| device.bridge_port);
        port.is_some_and(|port| port.suppresses == self.has_pairs(network))
    }

    /// The networks that a link leads to other hosts: as their VLAN or VXLAN device, as their uplink, or with the address of their tunnels.
    pub fn led_by(&self, link: &LinkState) -> BTreeSet<NetworkId> {
        let tagged = link.alias.as_deref().and_then(names::tagged_segment);
        let is_called = |name: &LinkName| link.name == name.as_str() || link.altnames.iter().any(|other| other == name.as_str());
        let physical = self.physical.configured.iter().filter(|(_, physical)| is_called(physical.link()));
        let uplink = physical.filter_map(|(name, _)| self.physical.on.get(name)).flatten().copied();
        let devices = link.segment().into_iter().chain(tagged).map(|(_, network)| network);
        let has_tunnel = link.hosts.iter().any(|host| host.of == HostUse::Own && Some(host.ip) == self.tunnel);
        let tunnels = has_tunnel.then(|| self.on_tunnels()).into_iter().flatten();
        // One that another program made with the number of a network.
        let alike = link.vxlan.and_then(|vxlan| self.vxlans.get(&vxlan.vni)).copied();
        let networks = devices.chain(uplink).chain(tunnels).chain(alike);
        networks.filter(|network| self.networks.contains_key(network)).collect()
    }

    /// Notes where a network is that is taken in.
    pub(super) fn enter_segment(&mut self, network: &Network) {
        self.vxlans.extend(vni(network).map(|vni| (vni, network.id)));
        let Some(physical) = network.physical_network.clone() else { return };
        self.physical.on.entry(physical).or_default().insert(network.id);
        self.physical.taken.extend(place(network).map(|place| (place, network.id)));
    }

    /// Forgets where a network was.
    pub(super) fn leave_segment(&mut self, network: &Network) {
        if let Some(vni) = vni(network).filter(|vni| self.vxlans.get(vni) == Some(&network.id)) {
            self.vxlans.remove(&vni);
        }
        let Some(physical) = &network.physical_network else { return };
        if let Some(networks) = self.physical.on.get_mut(physical) {
            networks.remove(&network.id);
            if networks.is_empty() {
                self.physical.on.remove(physical);
            }
        }
        if let Some(place) = place(network).filter(|place| self.physical.taken.get(place) == Some(&network.id)) {
            self.physical.taken.remove(&place);
        }
    }
}

/// The number of a VXLAN network.
fn vni(network: &Network) -> Option<u32> {
    network.segmentation_id.filter(|_| network.kind == NetworkKind::Vxlan)
}

/// What a network has of its physical network alone: a VLAN, or with 0 the untagged frames. On an operator's bridge several networks may
/// share those.
fn place(network: &Network) -> Option<(String, u16)> {
    let physical = network.physical_network.clone()?;
    match (network.kind, network.vlan()) {
        (NetworkKind::Vlan, Some(vlan)) => Some((physical, vlan)),
        (NetworkKind::Flat, _) if network.bridge.is_none() => Some((physical, 0)),
        _ => None,
    }
}

fn tag(id: u16, qinq: bool) -> VlanTag {
    VlanTag { id, protocol: if qinq { VlanProtocol::Dot1ad } else { VlanProtocol::Dot1q } }
}
