//! How a network reaches its physical network, beside how it is to reach it.

use std::collections::BTreeSet;

use crate::plan::desired::{BridgeMade, DesiredBridge, DesiredSegment, DesiredUplink};
use crate::plan::observed::{Kind, LinkState, Observed, VlanProtocol, VlanTag};
use crate::plan::op::{Switch, VlanChange};

use super::Bridge;

/// The way of a network with an agent-made bridge to its physical network.
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
    /// The uplink, where it is there.
    pub uplink: Option<&'a LinkState>,
    /// The network's VLAN device, also one that lost its altname.
    pub vlan: Option<&'a LinkState>,
}

/// Why a network does not reach its physical network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble<'a> {
    /// The configuration has no such physical network.
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
        let (uplink, vlan) = match want {
            DesiredSegment::Pvid(_) => return None,
            DesiredSegment::Flat { uplink } => (uplink, None),
            DesiredSegment::Vlan { uplink, .. } => {
                (uplink, have.own_vlan(bridge.network).or_else(|| have.unmarked_vlan(bridge.network)))
            }
        };
        let home = Bridge::find(bridge, have).map(|bridge| bridge.link);
        let uplink = uplink.device.as_ref().and_then(|device| have.named(device.as_str()));
        Some(Self { want, bridge, have, home, uplink, vlan })
    }

    fn wanted_uplink(&self) -> Option<&'a DesiredUplink> {
        match self.want {
            DesiredSegment::Vlan { uplink, .. } | DesiredSegment::Flat { uplink } => Some(uplink),
            DesiredSegment::Pvid(_) => None,
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
                let is_ours = self.vlan.is_some_and(|vlan| vlan.index == taken.index);
                (!is_ours).then_some(Unusable::VlanOf(taken))
            }
            (None, Some(master)) if self.home.is_some_and(|home| home.index == master) => None,
            (None, Some(master)) => Some(Unusable::IsPort(self.have.link(master))),
            (None, None) if self.wanted_uplink().is_some_and(|uplink| !uplink.adopt) => Some(Unusable::NotAdopted),
            (None, None) => (!uplink.hosts.is_empty()).then_some(Unusable::HasAddresses),
        }
    }

    /// Whether the VLAN device that is there is on another link than wanted, or has another tag: a new one takes its place.
    pub fn is_replaced(&self) -> bool {
        let place = self.uplink.map(|uplink| uplink.index);
        self.vlan.is_some_and(|vlan| place.is_some() && vlan.lower != place || vlan.tag != self.tag())
    }

    /// What brings the VLAN device back that is there, for a bridge with this index.
    pub(in crate::plan) fn changes(&self, home: u32) -> BTreeSet<VlanChange> {
        let (Some(vlan), DesiredSegment::Vlan { alias, .. }) = (self.vlan, self.want) else { return BTreeSet::new() };
        let mut changes = BTreeSet::new();
        let mtu = self.mtu();
        changes.extend((vlan.mtu != mtu).then_some(VlanChange::Mtu(mtu)));
        changes.extend((vlan.alias.as_ref() != Some(alias)).then(|| VlanChange::Alias(alias.clone())));
        changes.extend((vlan.master != Some(home)).then_some(VlanChange::Master(home)));
        changes.extend((vlan.v6_autoconf || vlan.v4_open).then_some(VlanChange::HostIpOff));
        changes.extend(vlan.foreign_addresses.iter().copied().map(VlanChange::RemoveAddress));
        // The kernel refuses it while the uplink is down, and does it by itself when that is up.
        let is_held_down = !vlan.up && self.uplink.is_some_and(|uplink| uplink.up);
        changes.extend(is_held_down.then_some(VlanChange::Switch(Switch::Up)));
        changes
    }

    /// The largest MTU in bytes that the uplink has room for, beside the tag of a guest's own within one of 802.1ad; none while it is not
    /// there.
    pub fn most_mtu(&self) -> Option<u32> {
        let inner = match self.tag() {
            Some(VlanTag { protocol: VlanProtocol::Dot1ad, .. }) => 4,
            _ => 0,
        };
        self.uplink.map(|uplink| uplink.mtu.saturating_sub(inner))
    }

    /// The MTU of the VLAN device in bytes: its bridge's, as far as the uplink has room for it.
    pub fn mtu(&self) -> u32 {
        let wanted = match &self.bridge.made {
            BridgeMade::ByAgent { mtu, .. } => *mtu,
            BridgeMade::Existing { .. } => u32::MAX,
        };
        self.uplink.map_or(wanted, |uplink| uplink.mtu.min(wanted))
    }

    /// Why the network does not reach its physical network; none where it does.
    pub fn trouble(&self) -> Option<Trouble<'a>> {
        if self.wanted_uplink()?.device.is_none() {
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
            DesiredSegment::Vlan { .. } => self.vlan.is_some_and(|vlan| is_in(vlan) && vlan.up) && !self.is_replaced(),
            _ => is_in(uplink),
        };
        (!is_right).then_some(Trouble::Unready)
    }

    /// What was found, in words.
    pub fn words(&self) -> String {
        let Some(wanted) = self.wanted_uplink() else { return String::new() };
        let physical = &wanted.physical;
        let device = wanted.device.as_ref().map_or("", |device| device.as_str());
        let called = |link: Option<&LinkState>| link.map_or_else(|| "another link".to_owned(), |link| link.name.clone());
        match self.trouble() {
            None => match self.tag().zip(self.vlan) {
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
}
