//! The VLANs of bridge ports (`br_vlan_rtm_dump`, `br_vlan_fill_vids`, net/bridge/br_vlan.c).
//!
//! A bridge that filters VLANs drops untagged frames of a port without a pvid, and tags frames that leave by a port that is not
//! untagged in the VLAN. The set of such bridges is kept from earlier reads, so that a host without them needs no VLAN requests.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use netlink_packet_core::{DecodeError, NLM_F_DUMP, parse_u8, parse_u32};
use netlink_packet_route::link::{
    AfSpecBridge, BridgePortState, BridgeVlanInfo, BridgeVlanInfoFlags, LinkAttribute, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;

use super::answer::{Failure, Request};
use super::message::{Batch, Read, Untyped, attributes, find, value};
use super::socket::Netlink;
use super::untyped::{BRIDGE_VLANDB_ENTRY, BRIDGE_VLANDB_ENTRY_INFO, BRIDGE_VLANDB_ENTRY_STATE, RTM_GETVLAN};
use crate::plan::{Kind, LinkState, PortVlan};

/// Length of `struct br_vlan_msg`.
const BR_VLAN_MSG: usize = 8;

/// The indexes of the bridges that filter VLANs. Clones share the set.
#[derive(Debug, Clone, Default)]
pub(super) struct Filtering(Arc<RwLock<BTreeSet<u32>>>);

impl Filtering {
    /// Updates the set from one link.
    pub(super) fn learn(&self, link: &LinkState) {
        let filters = filters(link);
        if filters == self.has(link.index) {
            return;
        }
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match filters {
            true => known.insert(link.index),
            false => known.remove(&link.index),
        };
    }

    /// Updates the set from a complete dump.
    pub(super) fn learn_all(&self, links: &[LinkState]) {
        let filtering = links.iter().filter(|link| filters(link)).map(|link| link.index).collect();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = filtering;
    }

    fn has(&self, index: u32) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(&index)
    }

    /// Whether a link is a port's device in a bridge that filters VLANs.
    fn concerns(&self, link: &LinkState) -> bool {
        link.kind != Kind::Bridge && link.marks().next().is_some() && link.master.is_some_and(|bridge| self.has(bridge))
    }
}

fn filters(link: &LinkState) -> bool {
    link.kind == Kind::Bridge && link.extras.vlan_filtering
}

/// Notes on devices of ours what untagged frames meet there. With 0 for the index all ports are asked for at once, as soon as there
/// is one that it matters for.
pub(super) fn note(netlink: &mut Netlink, index: u32, links: &mut [LinkState], filtering: &Filtering) -> Result<(), Failure> {
    if !links.iter().any(|link| filtering.concerns(link)) {
        return Ok(());
    }
    let ask = || {
        let mut batch = Batch::default();
        batch.add(Request::Look, NLM_F_DUMP, Untyped { kind: RTM_GETVLAN, fixed: br_vlan_msg(index), attributes: Vec::new() });
        batch
    };
    let told = match netlink.dump(ask, read) {
        // It has left the bridge, or went, which the next look shows.
        Err(failure) if matches!(failure.errno, Some(Errno::ENODEV | Errno::EINVAL | Errno::EOPNOTSUPP)) => return Ok(()),
        told => told?,
    };
    let told: BTreeMap<u32, PortVlan> = told.into_iter().collect();
    for link in links.iter_mut().filter(|link| filtering.concerns(link)) {
        link.vlan = Some(told.get(&link.index).copied().unwrap_or_default());
    }
    Ok(())
}

impl Batch {
    /// Makes a bridge's port untagged in a VLAN, and takes it out of every other one. The kernel passes over VLANs that the port is not in
    /// (`br_vlan_info`, net/bridge/br_netlink.c).
    pub(super) fn only_vlan(&mut self, index: u32, pvid: u16) {
        let both = BridgeVlanInfoFlags::Pvid | BridgeVlanInfoFlags::Untagged;
        self.add(Request::Vlan, 0, RouteNetlinkMessage::SetLink(port_vlans(index, &[(both, pvid)])));
        for (first, last) in [(1, pvid.saturating_sub(1)), (pvid.saturating_add(1), LAST)] {
            let range = match first.cmp(&last) {
                Ordering::Greater => continue,
                Ordering::Equal => vec![(BridgeVlanInfoFlags::empty(), first)],
                Ordering::Less => vec![(BridgeVlanInfoFlags::RangeBegin, first), (BridgeVlanInfoFlags::RangeEnd, last)],
            };
            self.add(Request::Vlan, 0, RouteNetlinkMessage::DelLink(port_vlans(index, &range)));
        }
    }
}

/// The last VLAN there is.
const LAST: u16 = 4094;

/// A message about VLANs of the bridge's port with this index.
fn port_vlans(index: u32, vlans: &[(BridgeVlanInfoFlags, u16)]) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.interface_family = AddressFamily::Bridge;
    message.header.index = index;
    let infos = vlans.iter().map(|(flags, vid)| AfSpecBridge::VlanInfo(BridgeVlanInfo { flags: *flags, vid: *vid }));
    message.attributes = vec![LinkAttribute::AfSpecBridge(infos.collect())];
    message
}

/// `struct br_vlan_msg`.
fn br_vlan_msg(index: u32) -> Vec<u8> {
    [[AddressFamily::Bridge.into(), 0, 0, 0], index.to_ne_bytes()].concat()
}

/// The link that an RTM_NEWVLAN or RTM_DELVLAN is about.
pub(super) fn link(body: &[u8]) -> Result<u32, DecodeError> {
    let index = body.get(4..BR_VLAN_MSG).ok_or_else(|| DecodeError::buffer_too_small(body.len(), BR_VLAN_MSG))?;
    parse_u32(index)
}

/// Reads an RTM_NEWVLAN about one link.
fn read(body: &[u8]) -> Read<(u32, PortVlan)> {
    let index = link(body)?;
    let entries = attributes(body, BR_VLAN_MSG).filter(|entry| entry.kind() == BRIDGE_VLANDB_ENTRY);
    // The pvid is never part of a range.
    let (mut vlan, mut others) = (PortVlan::default(), false);
    for entry in entries {
        match pvid(value(&entry)) {
            Some(pvid) => vlan = pvid,
            None => others = true,
        }
    }
    Ok(Some((index, PortVlan { others, ..vlan })))
}

fn pvid(entry: &[u8]) -> Option<PortVlan> {
    let vlan = BridgeVlanInfo::try_from(find(entry, 0, BRIDGE_VLANDB_ENTRY_INFO)?).ok()?;
    let state = find(entry, 0, BRIDGE_VLANDB_ENTRY_STATE).and_then(|state| parse_u8(state).ok()).map(BridgePortState::from);
    vlan.flags.contains(BridgeVlanInfoFlags::Pvid).then(|| PortVlan {
        pvid: vlan.vid,
        untagged: vlan.flags.contains(BridgeVlanInfoFlags::Untagged),
        blocked: state.is_some_and(|state| state != BridgePortState::Forwarding),
        others: false,
    })
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::DefaultNla;
    use proptest::prelude::*;

    use super::*;
    use crate::kernel::message::nested;
    use crate::kernel::message::tests::body;
    use crate::kernel::untyped::RTM_NEWVLAN;

    proptest! {
        #[test]
        fn arbitrary_vlans_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = read(&bytes);
        }
    }

    fn port(entries: &[(BridgeVlanInfoFlags, u16, BridgePortState)]) -> PortVlan {
        let entry = |(flags, vid, state): &(BridgeVlanInfoFlags, u16, BridgePortState)| {
            let info = <[u8; 4]>::from(&BridgeVlanInfo { flags: *flags, vid: *vid });
            let state = DefaultNla::new(BRIDGE_VLANDB_ENTRY_STATE, vec![(*state).into()]);
            nested(BRIDGE_VLANDB_ENTRY, &[DefaultNla::new(BRIDGE_VLANDB_ENTRY_INFO, info.to_vec()), state])
        };
        let message = Untyped { kind: RTM_NEWVLAN, fixed: br_vlan_msg(7), attributes: entries.iter().map(entry).collect() };
        let (index, vlan) = read(&body(message)).unwrap().unwrap();
        assert_eq!(index, 7);
        vlan
    }

    #[test]
    fn the_pvid_decides_among_the_vlans_of_a_port() {
        use BridgePortState::{Blocking, Forwarding};
        let (none, pvid, untagged) = (BridgeVlanInfoFlags::empty(), BridgeVlanInfoFlags::Pvid, BridgeVlanInfoFlags::Untagged);
        let both = pvid | untagged;
        assert_eq!(port(&[]), PortVlan::default());
        assert_eq!(port(&[(untagged, 5, Forwarding)]).pvid, 0);
        let seen = port(&[(none, 5, Forwarding), (both, 100, Forwarding)]);
        assert_eq!(seen, PortVlan { pvid: 100, untagged: true, blocked: false, others: true });
        assert!(!port(&[(pvid, 100, Forwarding)]).untagged);
        assert!(port(&[(both, 100, Blocking)]).blocked);
    }

    #[test]
    fn it_is_remembered_which_bridges_tell_vlans_apart() {
        let filtering = Filtering::default();
        let mut bridge = LinkState::bare(3, "br0", Kind::Bridge);
        let device = LinkState {
            master: Some(3),
            altnames: vec![crate::model::names::port_altname(crate::model::PortId(uuid::Uuid::from_u128(7)))],
            ..LinkState::bare(7, "nicd0", Kind::Tap)
        };
        bridge.extras.vlan_filtering = true;
        filtering.learn(&bridge);
        assert!(filtering.concerns(&device) && !filtering.concerns(&LinkState { altnames: Vec::new(), ..device.clone() }));
        bridge.extras.vlan_filtering = false;
        filtering.learn(&bridge);
        assert!(!filtering.concerns(&device));
        bridge.extras.vlan_filtering = true;
        filtering.learn_all(std::slice::from_ref(&bridge));
        assert!(filtering.concerns(&device));
        filtering.learn_all(&[]);
        assert!(!filtering.concerns(&device));
    }
}
