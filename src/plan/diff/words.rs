//! What was found about a device or a bridge, in words.

use crate::plan::forward::Way;
use crate::plan::observed::{LinkState, PortVlan};

use super::Device;

impl Device<'_> {
    /// What untagged frames meet at it.
    pub fn tagging(&self) -> String {
        let home = self.home.map_or("the bridge", |home| home.name.as_str());
        let device = &self.link.name;
        match self.untagged() {
            None => format!("{home} does not tell VLANs apart"),
            Some(PortVlan { pvid: 0, .. }) => {
                format!(
                    "{home} tells VLANs apart and {device} has no pvid: the guest's frames are dropped; {}",
                    vlan_remedy(device, None)
                )
            }
            Some(PortVlan { pvid, untagged: false, .. }) => {
                let remedy = vlan_remedy(device, Some(pvid));
                format!("frames of VLAN {pvid} of {home} leave by {device} tagged, and the guest takes untagged ones; {remedy}")
            }
            Some(PortVlan { pvid, blocked: true, .. }) => format!("{home} does not forward VLAN {pvid} at {device}"),
            Some(PortVlan { pvid, .. }) => format!("{device} is untagged in VLAN {pvid} of {home}"),
        }
    }

    /// What its guest's frames meet in the host's packet filter.
    pub fn filtering(&self) -> String {
        let told = self.ways().filter_map(|(protocol, way)| match way {
            Way::Open => None,
            Way::Unsure(chain) => {
                Some(format!("{chain} decides about {protocol} between guests by rules that are not known to nicd"))
            }
            Way::Closed(chain) => Some(format!("{chain} drops {protocol} between guests")),
        });
        match told.collect::<Vec<_>>() {
            told if told.is_empty() => "the host's packet filter lets frames between guests pass".to_owned(),
            told => told.join("; "),
        }
    }

    /// What the FDB has for its guest.
    pub fn entered(&self) -> String {
        let (mac, link, vlan) = (self.want.mac, self.link, self.link.entry_vlan());
        let within = if vlan == 0 { String::new() } else { format!(" in VLAN {vlan}") };
        match (&link.fdb, link.entry(mac, vlan)) {
            (None, _) => format!("the FDB was not asked for {mac}"),
            (_, None) => format!("no static entry for {mac}{within} leads to {}", link.name),
            (_, Some(entry)) => {
                let sticky = if entry.sticky { " and sticky" } else { "" };
                format!("{mac}{within} is at {}, static{sticky}", link.name)
            }
        }
    }
}

/// What lets untagged frames pass a device: in the VLAN that it has, or in one of the operator's choice.
pub fn vlan_remedy(device: &str, pvid: Option<u16>) -> String {
    let vid = pvid.map_or_else(|| "VLAN".to_owned(), |pvid| pvid.to_string());
    format!("bridge vlan add dev {device} vid {vid} pvid untagged")
}

pub(in crate::plan) fn up(up: bool) -> &'static str {
    if up { "up" } else { "down" }
}

pub(super) fn closed(closed: bool) -> &'static str {
    if closed { "closed" } else { "open" }
}

pub(super) fn off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

pub(super) fn several(several: bool) -> &'static str {
    if several { "several" } else { "one" }
}

pub(super) fn owned(uid: Option<u32>, gid: Option<u32>) -> String {
    let id = |id: Option<u32>| id.map_or_else(|| "any".to_owned(), |id| id.to_string());
    format!("uid {}, gid {}", id(uid), id(gid))
}

pub(super) fn addresses(link: &LinkState) -> String {
    link.foreign_addresses.iter().map(|address| address.ip.to_string()).collect::<Vec<_>>().join(", ")
}
