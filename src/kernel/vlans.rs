//! The VLANs of bridge ports (`br_vlan_rtm_dump`, `br_vlan_fill_vids`, net/bridge/br_vlan.c).
//!
//! A bridge that tells VLANs apart drops the untagged frames of a port without a pvid, and tags what leaves by a port that is not
//! untagged in a VLAN. Which bridges do so is remembered from the looks at them, so that on a host without such a bridge nothing is
//! asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use nix::errno::Errno;

use super::answer::{Failure, Part};
use super::socket::Netlink;
use super::uapi::*;
use super::wire::{self, Batch};
use crate::plan::{Kind, LinkSeen, PortVlan};

/// Length of `struct br_vlan_msg`.
const BR_VLAN_MSG: usize = 8;

/// The indexes of the bridges that tell VLANs apart; clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Filtering(Arc<RwLock<BTreeSet<u32>>>);

impl Filtering {
    /// Takes in what a look at a link showed.
    pub(super) fn learn(&self, link: &LinkSeen) {
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

    /// Takes in what a complete dump showed.
    pub(super) fn learn_all(&self, links: &[LinkSeen]) {
        let filtering = links.iter().filter(|link| filters(link)).map(|link| link.index).collect();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = filtering;
    }

    fn has(&self, index: u32) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(&index)
    }

    /// Whether a link is a device of nicd's in a bridge that tells VLANs apart.
    fn concerns(&self, link: &LinkSeen) -> bool {
        link.kind != Kind::Bridge && link.marks().next().is_some() && link.master.is_some_and(|bridge| self.has(bridge))
    }
}

fn filters(link: &LinkSeen) -> bool {
    link.kind == Kind::Bridge && link.extras.vlan_filtering
}

/// Notes on devices of ours what untagged frames meet there. With 0 for the index all ports are asked for at once, as soon as there
/// is one that it matters for.
pub(super) fn note(netlink: &mut Netlink, index: u32, links: &mut [LinkSeen], filtering: &Filtering) -> Result<(), Failure> {
    if !links.iter().any(|link| filtering.concerns(link)) {
        return Ok(());
    }
    let ask = || {
        let mut batch = Batch::default();
        let [a, b, c, d] = index.to_ne_bytes();
        batch.add(Part::Look, RTM_GETVLAN, NLM_F_DUMP, &[AF_BRIDGE, 0, 0, 0, a, b, c, d], |_| {});
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

/// Reads an RTM_NEWVLAN about one link.
fn read(body: &[u8]) -> Option<(u32, PortVlan)> {
    let index = wire::u32_at(body, 4)?;
    let entries = wire::fields_behind(body, BR_VLAN_MSG).filter(|(kind, _)| *kind == BRIDGE_VLANDB_ENTRY);
    // The pvid is never part of a range.
    let pvid = entries.filter_map(|(_, entry)| pvid(entry)).next();
    Some((index, pvid.unwrap_or_default()))
}

fn pvid(entry: &[u8]) -> Option<PortVlan> {
    let info = wire::field(entry, BRIDGE_VLANDB_ENTRY_INFO)?;
    let (flags, vid) = (wire::u16_at(info, 0)?, wire::u16_at(info, 2)?);
    let state = wire::field(entry, BRIDGE_VLANDB_ENTRY_STATE).and_then(|state| wire::u8_at(state, 0));
    (flags & BRIDGE_VLAN_INFO_PVID != 0).then(|| PortVlan {
        pvid: vid,
        untagged: flags & BRIDGE_VLAN_INFO_UNTAGGED != 0,
        blocked: state.is_some_and(|state| state != BR_STATE_FORWARDING),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_vlans_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = read(&bytes);
        }
    }

    fn port(entries: &[(u16, u16, u8)]) -> PortVlan {
        let mut batch = Batch::default();
        batch.add(Part::Look, RTM_NEWVLAN, 0, &[AF_BRIDGE, 0, 0, 0, 7, 0, 0, 0], |f| {
            for (flags, vid, state) in entries {
                f.nest(BRIDGE_VLANDB_ENTRY, |f| {
                    let info: Vec<u8> = [flags.to_ne_bytes(), vid.to_ne_bytes()].concat();
                    f.put(BRIDGE_VLANDB_ENTRY_INFO, &info);
                    f.u8(BRIDGE_VLANDB_ENTRY_STATE, *state);
                });
            }
        });
        let (index, vlan) = read(&batch.finish(0, false).unwrap()[16..]).unwrap();
        assert_eq!(index, 7);
        vlan
    }

    #[test]
    fn the_pvid_decides_among_the_vlans_of_a_port() {
        let forwarding = BR_STATE_FORWARDING;
        let both = BRIDGE_VLAN_INFO_PVID | BRIDGE_VLAN_INFO_UNTAGGED;
        assert_eq!(port(&[]), PortVlan::default());
        assert_eq!(port(&[(BRIDGE_VLAN_INFO_UNTAGGED, 5, forwarding)]).pvid, 0);
        let seen = port(&[(0, 5, forwarding), (both, 100, forwarding)]);
        assert_eq!(seen, PortVlan { pvid: 100, untagged: true, blocked: false });
        assert!(!port(&[(BRIDGE_VLAN_INFO_PVID, 100, forwarding)]).untagged);
        assert!(port(&[(both, 100, 4)]).blocked);
    }

    #[test]
    fn it_is_remembered_which_bridges_tell_vlans_apart() {
        let filtering = Filtering::default();
        let mut bridge = LinkSeen::bare(3, "br0", Kind::Bridge);
        let device = LinkSeen {
            master: Some(3),
            altnames: vec![crate::model::names::port_altname(crate::model::PortId(uuid::Uuid::from_u128(7)))],
            ..LinkSeen::bare(7, "nicd0", Kind::Tap)
        };
        bridge.extras.vlan_filtering = true;
        filtering.learn(&bridge);
        assert!(filtering.concerns(&device) && !filtering.concerns(&LinkSeen { altnames: Vec::new(), ..device.clone() }));
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
