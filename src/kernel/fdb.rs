//! Entries of a bridge's FDB (`br_fdb_add`, `br_fdb_get`, `fdb_fill_info`, net/bridge/br_fdb.c).
//!
//! A dump of an FDB visits all entries once per bridge port, and misses entries when others are deleted meanwhile. So nicd reads an
//! entry by its MAC, at a constant cost.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE, ParseableParametrized};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourHeader, NeighbourMessage, NeighbourState};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::GuestMacs;
use super::answer::{Failure, Request};
use super::message::{Batch, Read, attributes};
use super::socket::Netlink;
use crate::model::{Mac, PortId};
use crate::plan::{FdbEntry, Kind, LinkState};

/// Length of `struct ndmsg`.
pub(super) const NDMSG: usize = 12;

/// One entry, as reported by the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReadEntry {
    /// Its MAC.
    pub(super) mac: Mac,
    /// The VLAN it is for; 0 for none.
    pub(super) vlan: u16,
    /// The index of the port it leads to; the bridge's own for none.
    pub(super) port: u32,
    state: NeighbourState,
    sticky: bool,
}

impl ReadEntry {
    /// The same as an entry that leads somewhere and stays.
    pub(super) fn entry(self) -> Option<FdbEntry> {
        let Self { mac, vlan, sticky, .. } = self;
        (self.state == NeighbourState::Noarp).then_some(FdbEntry { mac, vlan, sticky })
    }
}

/// Reads an RTM_NEWNEIGH or RTM_DELNEIGH about a bridge's FDB; none where it is about something else, as a device's own FDB.
pub(super) fn read(body: &[u8]) -> Read<ReadEntry> {
    let header = NeighbourHeader::parse(body)?;
    if header.family != AddressFamily::Bridge {
        return Ok(None);
    }
    let (mut mac, mut vlan, mut in_bridge) = (None, 0, false);
    for attribute in attributes(body, NDMSG) {
        match NeighbourAttribute::parse_with_param(&attribute, AddressFamily::Bridge) {
            Ok(NeighbourAttribute::LinkLayerAddress(address)) => mac = address.try_into().ok().map(Mac),
            Ok(NeighbourAttribute::Vlan(id)) => vlan = id,
            Ok(NeighbourAttribute::Controller(_)) => in_bridge = true,
            _ => {}
        }
    }
    let (port, state, sticky) = (header.ifindex, header.state, header.flags.contains(NeighbourFlags::Sticky));
    Ok(mac.filter(|_| in_bridge).map(|mac| ReadEntry { mac, vlan, port, state, sticky }))
}

/// Notes on devices of ours the entries that their bridge's FDB has for their guest, of what leads to them. None where the kernel
/// cannot say.
pub(super) fn note(netlink: &mut Netlink, links: &mut [LinkState], guests: &GuestMacs) -> Result<(), Failure> {
    let mut asked: Vec<(usize, Asked)> = Vec::new();
    for (place, link) in links.iter_mut().enumerate() {
        let mac = link.marks().find_map(|mark| guests.of(PortId(mark)));
        let Some(mac) = mac.filter(|_| link.kind != Kind::Bridge) else { continue };
        link.fdb = Some(Vec::new());
        let (Some(bridge), vlan) = (link.master, link.entry_vlan()) else { continue };
        let vlans = std::iter::once(0).chain((vlan != 0).then_some(vlan));
        asked.extend(vlans.map(|vlan| (place, Asked { bridge, mac, vlan })));
    }
    let answers = netlink.ask_all(&asked, |batch, (_, asked)| batch.ask_entry(*asked), read)?;
    for ((place, _), answer) in asked.iter().zip(answers) {
        let link = &mut links[*place];
        match answer {
            Ok(found) => {
                let entry = found.filter(|found| found.port == link.index).and_then(ReadEntry::entry);
                link.fdb.iter_mut().for_each(|fdb| fdb.extend(entry));
            }
            // It is in something that has no FDB, or whose FDB cannot be asked.
            Err(_) => link.fdb = None,
        }
    }
    Ok(())
}

/// An entry that is asked for: the one that a bridge has for a MAC in a VLAN, 0 for none.
#[derive(Debug, Clone, Copy)]
struct Asked {
    bridge: u32,
    mac: Mac,
    vlan: u16,
}

impl Batch {
    fn ask_entry(&mut self, Asked { bridge, mac, vlan }: Asked) {
        let mut message = entry(mac);
        message.header.flags = NeighbourFlags::Controller;
        message.attributes.push(NeighbourAttribute::Controller(bridge));
        message.attributes.extend((vlan != 0).then_some(NeighbourAttribute::Vlan(vlan)));
        self.add(Request::Fdb(mac), 0, RouteNetlinkMessage::GetNeighbour(message));
    }

    /// Adds a guest's MAC to the FDB of the bridge of the link with this index, in each VLAN of the port. NUD_NOARP makes the entry
    /// static; NUD_PERMANENT would make it an address of the bridge. An existing entry for the MAC is replaced. NTF_STICKY prevents
    /// that a frame with this source MAC moves the entry to another port.
    pub(super) fn fdb(&mut self, index: u32, mac: Mac) {
        let mut message = entry(mac);
        message.header.ifindex = index;
        message.header.state = NeighbourState::Noarp;
        message.header.flags = NeighbourFlags::Controller | NeighbourFlags::Sticky;
        self.add(Request::Fdb(mac), NLM_F_CREATE | NLM_F_REPLACE, RouteNetlinkMessage::NewNeighbour(message));
    }
}

/// A message about a MAC's entry in an FDB.
fn entry(mac: Mac) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.attributes = vec![NeighbourAttribute::LinkLayerAddress(mac.0.to_vec())];
    message
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable;
    use proptest::prelude::*;

    use super::*;

    const MAC: Mac = Mac([0xfa, 0x16, 0x3e, 1, 2, 3]);

    proptest! {
        #[test]
        fn arbitrary_entries_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = read(&bytes);
        }
    }

    /// A message's body, as the kernel would send it.
    fn body(state: NeighbourState, flags: NeighbourFlags, in_bridge: bool) -> Vec<u8> {
        let mut message = entry(MAC);
        message.header.ifindex = 7;
        (message.header.state, message.header.flags) = (state, flags);
        message.attributes.push(NeighbourAttribute::Vlan(100));
        message.attributes.extend(in_bridge.then_some(NeighbourAttribute::Controller(3)));
        let mut body = vec![0; message.buffer_len()];
        message.emit(&mut body);
        body
    }

    fn decode(state: NeighbourState, flags: NeighbourFlags, in_bridge: bool) -> Option<ReadEntry> {
        read(&body(state, flags, in_bridge)).unwrap()
    }

    #[test]
    fn a_static_entry_leads_to_its_port() {
        let sticky = decode(NeighbourState::Noarp, NeighbourFlags::Sticky, true).unwrap();
        assert_eq!(sticky.port, 7);
        assert_eq!(sticky.entry(), Some(FdbEntry { mac: MAC, vlan: 100, sticky: true }));
        let other = decode(NeighbourState::Noarp, NeighbourFlags::empty(), true);
        assert_eq!(other.and_then(ReadEntry::entry).map(|entry| entry.sticky), Some(false));
    }

    #[test]
    fn a_bridges_own_one_and_one_that_ages_are_none() {
        for state in [NeighbourState::Permanent, NeighbourState::Reachable] {
            assert_eq!(decode(state, NeighbourFlags::empty(), true).unwrap().entry(), None);
        }
        assert_eq!(decode(NeighbourState::Noarp, NeighbourFlags::empty(), false), None, "a device's own FDB is no bridge's");
    }
}
