//! How a network reaches other hosts, by a physical network or by tunnels, beside how it is to reach them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::plan::desired::{BridgeMade, DesiredBridge, DesiredSegment, DesiredUplink};
use crate::plan::observed::{Kind, LinkState, Observed, VXLAN_PORT, VlanProtocol, VlanTag, VxlanSeen};
use crate::plan::op::{SegmentChange, Switch};

use super::Bridge;

/// The way of a network with an agent-made bridge to other hosts.
#[derive(Debug, Clone, Copy)]
pub struct Segment<'a> {
    /// What is wanted.
    pub want: &'a DesiredSegment,
    /// The bridge that is wanted.
    pub bridge: &'a DesiredBridge,
    /// What is there.
    have: &'a Observed,
    /// The bridge, where it is there.
    home: Option<&'a LinkState>,
    /// The uplink, or for tunnels the link with their address, where it is there.
    pub uplink: Option<&'a LinkState>,
    /// The network's VLAN or VXLAN device, also one that lost its altname.
    pub device: Option<&'a LinkState>,
}

/// Why a network does not reach other hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble<'a> {
    /// The configuration has no such physical network, or no tunnel address.
    Unconfigured,
    /// The uplink is not there.
    Gone,
    /// The uplink cannot be used.
    Unusable(Unusable<'a>),
    /// The uplink is set down.
    Down,
    /// The uplink has no carrier.
    NoCarrier,
    /// The way to it is not made, or not as it is to be.
    Unready,
}

/// Why an uplink cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable<'a> {
    /// It is a bridge.
    IsBridge,
    /// nicd made it.
    IsNicds,
    /// It is in this bridge or bond, or in one with an index that is not known.
    IsPort(Option<&'a LinkState>),
    /// Frames of the VLAN are this link's.
    VlanOf(&'a LinkState),
    /// The number of the network's tunnels is this VXLAN device's.
    VniOf(&'a LinkState),
    /// The configuration does not let nicd put it into a bridge.
    NotAdopted,
    /// The host has addresses on it.
    HasAddresses,
}

impl Trouble<'_> {
    /// The stable word for it (`nicd:reason`).
    pub fn reason(self) -> &'static str {
        match self {
            Self::Unconfigured | Self::Gone => "uplink_gone",
            Self::Unusable(_) => "uplink_unusable",
            Self::Down | Self::NoCarrier => "uplink_down",
            Self::Unready => "not_on_uplink",
        }
    }
}

impl<'a> Segment<'a> {
    /// The way of a network; none where it has no uplink of its own.
    pub fn find(bridge: &'a DesiredBridge, have: &'a Observed) -> Option<Self> {
        let want = bridge.segment.as_ref()?;
        let uplink = match want {
            DesiredSegment::Pvid(_) => return None,
            DesiredSegment::Flat { uplink } | DesiredSegment::Vlan { uplink, .. } => {
                uplink.device.as_ref().and_then(|device| have.named(device.as_str()))
            }
            DesiredSegment::Vxlan { local, .. } => local.and_then(|local| have.with_address(local)),
        };
        let home = Bridge::find(bridge, have).map(|bridge| bridge.link);
        let device = want
            .kind()
            .and_then(|kind| have.own_segment(kind, bridge.network).or_else(|| have.unmarked_segment(kind, bridge.network)));
        Some(Self { want, bridge, have, home, uplink, device })
    }

    fn wanted_uplink(&self) -> Option<&'a DesiredUplink> {
        match self.want {
            DesiredSegment::Vlan { uplink, .. } | DesiredSegment::Flat { uplink } => Some(uplink),
            DesiredSegment::Vxlan { .. } | DesiredSegment::Pvid(_) => None,
        }
    }

    /// The settings that its VXLAN device is to have; none where it has none, or the host no tunnel address.
    fn tunnels(&self) -> Option<VxlanSeen> {
        match self.want {
            DesiredSegment::Vxlan { vni, local: Some(local), .. } => {
                Some(VxlanSeen { vni: *vni, port: VXLAN_PORT, local: Some(*local), learning: false, altered: false })
            }
            _ => None,
        }
    }

    fn tag(&self) -> Option<VlanTag> {
        match self.want {
            DesiredSegment::Vlan { tag, .. } => Some(*tag),
            _ => None,
        }
    }

    /// The uplink, if it can be used.
    pub fn usable(&self) -> Option<&'a LinkState> {
        self.uplink.filter(|uplink| self.unusable(uplink).is_none())
    }

    /// Why the uplink cannot be used.
    fn unusable(&self, uplink: &'a LinkState) -> Option<Unusable<'a>> {
        if uplink.made_by_nicd() {
            return Some(Unusable::IsNicds);
        }
        if let Some(tunnels) = self.tunnels() {
            let ours = self.device.map(|device| device.index);
            let mut others = self.have.vxlans(tunnels.vni, tunnels.port).filter(|link| Some(link.index) != ours);
            return others.next().map(Unusable::VniOf);
        }
        if uplink.kind == Kind::Bridge {
            return Some(Unusable::IsBridge);
        }
        let is_own =
            |master: u32| self.have.link(master).is_some_and(|master| master.kind == Kind::Bridge && self.have.ours(master));
        match (self.tag(), uplink.master) {
            // One that nicd put into a bridge carries VLANs beside.
            (Some(_), Some(master)) if !is_own(master) => Some(Unusable::IsPort(self.have.link(master))),
            (Some(tag), _) => {
                let taken = self.have.vlan_on(uplink.index, tag)?;
                let is_ours = self.device.is_some_and(|device| device.index == taken.index);
                (!is_ours).then_some(Unusable::VlanOf(taken))
            }
            (None, Some(master)) if self.home.is_some_and(|home| home.index == master) => None,
            (None, Some(master)) => Some(Unusable::IsPort(self.have.link(master))),
            (None, None) if self.wanted_uplink().is_some_and(|uplink| !uplink.adopt) => Some(Unusable::NotAdopted),
            (None, None) => (!uplink.hosts.is_empty()).then_some(Unusable::HasAddresses),
        }
    }

    /// Whether the bridge answers ARP and neighbour discovery for what is behind its VXLAN device; none where it has none.
    fn suppress(&self) -> Option<bool> {
        match self.want {
            DesiredSegment::Vxlan { suppress, local: Some(_), .. } => Some(*suppress),
            _ => None,
        }
    }

    /// Whether the device that is there leads elsewhere than wanted: a VLAN device on another link or with another tag, a VXLAN device with
    /// another number, port or address. A new one takes its place.
    pub fn is_replaced(&self) -> bool {
        let place = self.uplink.map(|uplink| uplink.index);
        self.device.is_some_and(|device| match self.want {
            DesiredSegment::Vxlan { .. } => {
                let leads = device.vxlan.map(|seen| VxlanSeen { learning: false, ..seen });
                // One that cannot be read is left.
                self.tunnels().zip(leads).is_some_and(|(tunnels, leads)| leads != tunnels)
            }
            _ => place.is_some() && device.lower != place || device.tag != self.tag(),
        })
    }

    /// What brings the device back that is there, for a bridge with this index.
    pub(in crate::plan) fn changes(&self, home: u32) -> BTreeSet<SegmentChange> {
        let (Some(device), Some(alias)) = (self.device, self.want.alias()) else { return BTreeSet::new() };
        let mut changes = BTreeSet::new();
        let mtu = self.mtu();
        changes.extend((device.mtu != mtu).then_some(SegmentChange::Mtu(mtu)));
        changes.extend((device.alias.as_deref() != Some(alias)).then(|| SegmentChange::Alias(alias.to_owned())));
        changes.extend((device.master != Some(home)).then_some(SegmentChange::Master(home)));
        changes.extend((device.v6_autoconf || device.v4_open).then_some(SegmentChange::HostIpOff));
        changes.extend(device.foreign_addresses.iter().copied().map(SegmentChange::RemoveAddress));
        let is_tunnels = self.tunnels().is_some();
        changes.extend(device.vxlan.is_some_and(|seen| seen.learning).then_some(SegmentChange::LearningOff));
        let flags = device.bridge_port.filter(|_| device.master == Some(home));
        let wrong = self.suppress().filter(|suppress| !flags.is_some_and(|flags| flags.leads_to_tunnels(*suppress)));
        changes.extend(wrong.map(|suppress| SegmentChange::TunnelPortFlags { suppress }));
        // The kernel refuses it of a VLAN device while the uplink is down, and does it by itself when that is up.
        let is_held_down = !device.up && (is_tunnels || self.uplink.is_some_and(|uplink| uplink.up));
        changes.extend(is_held_down.then_some(SegmentChange::Switch(Switch::Up)));
        changes
    }

    /// What is set of a device that was just made, for a bridge with this index.
    pub(in crate::plan) fn first_changes(&self, home: u32) -> BTreeSet<SegmentChange> {
        let is_tunnels = self.tunnels().is_some();
        let flags = self.suppress().map(|suppress| SegmentChange::TunnelPortFlags { suppress });
        let up = (is_tunnels || self.uplink.is_some_and(|uplink| uplink.up)).then_some(SegmentChange::Switch(Switch::Up));
        [SegmentChange::Master(home)].into_iter().chain(flags).chain(up).collect()
    }

    /// The largest MTU in bytes that the uplink has room for, beside the tag of a guest's own within one of 802.1ad, or within a tunnel's
    /// packet; none while it is not there.
    pub fn most_mtu(&self) -> Option<u32> {
        let taken = match (self.tag(), self.want) {
            (Some(VlanTag { protocol: VlanProtocol::Dot1ad, .. }), _) => 4,
            (_, DesiredSegment::Vxlan { local: Some(local), .. }) => tunnel_header(*local),
            _ => 0,
        };
        // What has its address on the loopback device leaves by links that are not known here.
        let uplink = self.uplink.filter(|uplink| uplink.index != LOOPBACK);
        uplink.map(|uplink| uplink.mtu.saturating_sub(taken))
    }

    /// The MTU of the device in bytes: its bridge's, as far as the uplink of a VLAN device has room for it.
    pub fn mtu(&self) -> u32 {
        let wanted = match &self.bridge.made {
            BridgeMade::ByAgent { mtu, .. } => *mtu,
            BridgeMade::Existing { .. } => u32::MAX,
        };
        match self.want {
            DesiredSegment::Vxlan { .. } => wanted,
            _ => self.uplink.map_or(wanted, |uplink| uplink.mtu.min(wanted)),
        }
    }

    /// Why the network does not reach other hosts; none where it does.
    pub fn trouble(&self) -> Option<Trouble<'a>> {
        let is_configured = self.wanted_uplink().map_or(self.tunnels().is_some(), |uplink| uplink.device.is_some());
        if !is_configured {
            return Some(Trouble::Unconfigured);
        }
        let Some(uplink) = self.uplink else { return Some(Trouble::Gone) };
        if let Some(why) = self.unusable(uplink) {
            return Some(Trouble::Unusable(why));
        }
        if !uplink.up {
            return Some(Trouble::Down);
        }
        if !uplink.lower_up {
            return Some(Trouble::NoCarrier);
        }
        let home = self.home.map(|home| home.index);
        let is_in = |link: &LinkState| home.is_some() && link.master == home;
        let is_right = match self.want {
            DesiredSegment::Vlan { .. } | DesiredSegment::Vxlan { .. } => {
                self.device.is_some_and(|device| is_in(device) && device.up) && !self.is_replaced()
            }
            _ => is_in(uplink),
        };
        (!is_right).then_some(Trouble::Unready)
    }

    /// What was found, in words.
    pub fn words(&self) -> String {
        let Some(wanted) = self.wanted_uplink() else { return self.tunnel_words() };
        let physical = &wanted.physical;
        let device = wanted.device.as_ref().map_or("", |device| device.as_str());
        let called = |link: Option<&LinkState>| link.map_or_else(|| "another link".to_owned(), |link| link.name.clone());
        match self.trouble() {
            None => match self.tag().zip(self.device) {
                Some((tag, vlan)) => format!("{} is {tag} on {device}, the uplink of {physical}", vlan.name),
                None => format!("{device}, the uplink of {physical}, is in the network's bridge"),
            },
            Some(Trouble::Unconfigured) => format!("[physical_networks] of the configuration has no {physical}"),
            Some(Trouble::Gone) => format!("{device}, the uplink of {physical}, is not on this host"),
            Some(Trouble::Down) => format!("{device}, the uplink of {physical}, is down: ip link set {device} up"),
            Some(Trouble::NoCarrier) => format!("{device}, the uplink of {physical}, has no carrier"),
            Some(Trouble::Unusable(why)) => match why {
                Unusable::IsBridge => format!("{device}, the uplink of {physical}, is a bridge"),
                Unusable::IsNicds => format!("{device}, the uplink of {physical}, was made by nicd"),
                Unusable::IsPort(of) => format!("{device}, the uplink of {physical}, is a port of {}", called(of)),
                Unusable::VlanOf(link) => {
                    format!("the frames of this VLAN on {device}, the uplink of {physical}, are {}'s", link.name)
                }
                Unusable::VniOf(link) => link.name.clone(),
                Unusable::NotAdopted => {
                    format!(
                        "{device}, the uplink of {physical}, is not to be put into a bridge: the configuration has no adopt = true"
                    )
                }
                Unusable::HasAddresses => format!("{device}, the uplink of {physical}, has addresses of this host"),
            },
            Some(Trouble::Unready) => match self.tag() {
                Some(tag) => {
                    format!("no VLAN device in the network's bridge is up that has {tag} on {device}, the uplink of {physical}")
                }
                None => format!("{device}, the uplink of {physical}, is not in the network's bridge"),
            },
        }
    }

    /// What was found of tunnels, in words.
    fn tunnel_words(&self) -> String {
        let DesiredSegment::Vxlan { vni, local, .. } = self.want else { return String::new() };
        let Some(local) = local else { return "this host has no tunnel address".to_owned() };
        let on = self.uplink.map_or("", |uplink| uplink.name.as_str());
        match self.trouble() {
            None => {
                let device = self.device.map_or("", |device| device.name.as_str());
                format!("{device} has the number {vni}, and its tunnels begin at {local} on {on}")
            }
            Some(Trouble::Gone) => format!("no link of this host has the tunnel address {local}"),
            Some(Trouble::Down) => format!("{on}, which has the tunnel address {local}, is down: ip link set {on} up"),
            Some(Trouble::NoCarrier) => format!("{on}, which has the tunnel address {local}, has no carrier"),
            Some(Trouble::Unusable(Unusable::VniOf(other))) => {
                format!(
                    "the number {vni} on UDP port {VXLAN_PORT} is {}'s, a VXLAN device that this nicd did not make",
                    other.name
                )
            }
            Some(Trouble::Unusable(_)) => format!("{on}, which has the tunnel address {local}, was made by nicd"),
            Some(Trouble::Unconfigured | Trouble::Unready) => {
                format!("no VXLAN device in the network's bridge is up that has the number {vni} and begins at {local}")
            }
        }
    }
}

/// The index of the loopback device, which is the first link of each network namespace.
const LOOPBACK: u32 = 1;

/// How much of an underlay's packet a tunnel takes beside a guest's, in bytes: IP, UDP, VXLAN and the guest's Ethernet header (RFC 7348, 5).
pub fn tunnel_header(local: IpAddr) -> u32 {
    let ip = if local.is_ipv4() { 20 } else { 40 };
    ip + 8 + 8 + 14
}
