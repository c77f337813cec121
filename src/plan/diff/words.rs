//! What was found about a device or a bridge, in words.

use crate::plan::observed::LinkState;

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
