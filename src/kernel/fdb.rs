//! Entries of a bridge's FDB (`br_fdb_add`, `br_fdb_get`, `fdb_fill_info`, net/bridge/br_fdb.c).
//!
//! A dump of an FDB goes through all its entries once for each of the bridge's ports, and leaves some out that are there when
//! others go meanwhile. So an entry is asked for by its MAC, which costs the same however many there are.

use super::GuestMacs;
use super::answer::{Failure, Part};
use super::socket::Netlink;
use super::uapi::*;
use super::wire::{self, Batch};
use crate::model::{Mac, PortId};
use crate::plan::{FdbEntry, Kind, LinkSeen};

/// Length of `struct ndmsg`.
const NDMSG: usize = 12;

/// One entry, as the kernel tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told {
    /// Its MAC.
    pub(super) mac: Mac,
    /// The VLAN it is for; 0 for none.
    pub(super) vlan: u16,
    /// The index of the port it leads to; the bridge's own for none.
    pub(super) port: u32,
    /// Its state (`NUD_…`).
    state: u16,
    sticky: bool,
}

impl Told {
    /// The same as an entry that leads somewhere and stays.
    pub(super) fn entry(self) -> Option<FdbEntry> {
        let Self { mac, vlan, sticky, .. } = self;
        (self.state & NUD_NOARP != 0).then_some(FdbEntry { mac, vlan, sticky })
    }
}

/// Reads an RTM_NEWNEIGH or RTM_DELNEIGH about a bridge's FDB; none where it is about something else, as a device's own FDB.
pub(super) fn read(body: &[u8]) -> Option<Told> {
    if wire::u8_at(body, 0)? != AF_BRIDGE {
        return None;
    }
    let mut told = Told {
        mac: Mac([0; 6]),
        vlan: 0,
        port: wire::u32_at(body, 4)?,
        state: wire::u16_at(body, 8)?,
        sticky: wire::u8_at(body, 10)? & NTF_STICKY != 0,
    };
    let (mut address, mut master) = (false, false);
    for (kind, value) in wire::fields_behind(body, NDMSG) {
        match kind {
            NDA_LLADDR => (told.mac, address) = (Mac(value.try_into().ok()?), true),
            NDA_VLAN => told.vlan = wire::u16_at(value, 0)?,
            NDA_MASTER => master = true,
            _ => {}
        }
    }
    (address && master).then_some(told)
}

/// Notes on devices of ours the entries that their bridge's FDB has for their guest, of what leads to them. None where the kernel
/// cannot say.
pub(super) fn note(netlink: &mut Netlink, links: &mut [LinkSeen], guests: &GuestMacs) -> Result<(), Failure> {
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
            Ok(told) => {
                let entry = told.filter(|told| told.port == link.index).and_then(Told::entry);
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
        let mut fixed = [0; NDMSG];
        fixed[0] = AF_BRIDGE;
        fixed[10] = NTF_MASTER;
        self.add(Part::Fdb(mac), RTM_GETNEIGH, 0, &fixed, |f| {
            f.put(NDA_LLADDR, &mac.0);
            f.u32(NDA_MASTER, bridge);
            if vlan != 0 {
                f.put(NDA_VLAN, &vlan.to_ne_bytes());
            }
        });
    }

    /// Enters a guest's MAC into the FDB of the bridge that the link with this index is a port of, in each VLAN of the port.
    /// NUD_NOARP is what `bridge` shows as static; NUD_PERMANENT would be the bridge's own address. What another entry says of
    /// the MAC is replaced, be it the bridge's own or another port's. NTF_STICKY keeps a frame that has the MAC for its source
    /// from moving the entry to where that came in.
    pub(super) fn fdb(&mut self, index: u32, mac: Mac) {
        let mut fixed = [0; NDMSG];
        fixed[0] = AF_BRIDGE;
        fixed[4..8].copy_from_slice(&index.to_ne_bytes());
        fixed[8..10].copy_from_slice(&NUD_NOARP.to_ne_bytes());
        fixed[10] = NTF_MASTER | NTF_STICKY;
        self.add(Part::Fdb(mac), RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &fixed, |f| f.put(NDA_LLADDR, &mac.0));
    }
}

#[cfg(test)]
mod tests {
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
    fn body(state: u16, flags: u8, master: bool) -> Vec<u8> {
        let mut fixed = [0; NDMSG];
        fixed[0] = AF_BRIDGE;
        fixed[4] = 7;
        fixed[8..10].copy_from_slice(&state.to_ne_bytes());
        fixed[10] = flags;
        let mut batch = Batch::default();
        batch.add(Part::Look, RTM_NEWNEIGH, 0, &fixed, |f| {
            f.put(NDA_LLADDR, &MAC.0);
            f.put(NDA_VLAN, &100_u16.to_ne_bytes());
            if master {
                f.u32(NDA_MASTER, 3);
            }
        });
        batch.finish(0, false).unwrap()[16..].to_vec()
    }

    #[test]
    fn a_static_entry_leads_to_its_port() {
        let told = read(&body(NUD_NOARP, NTF_STICKY, true)).unwrap();
        assert_eq!(told.port, 7);
        assert_eq!(told.entry(), Some(FdbEntry { mac: MAC, vlan: 100, sticky: true }));
        assert_eq!(read(&body(NUD_NOARP, 0, true)).and_then(Told::entry).map(|entry| entry.sticky), Some(false));
    }

    #[test]
    fn a_bridges_own_one_and_one_that_ages_are_none() {
        let (permanent, reachable) = (0x80, 2);
        for state in [permanent, reachable] {
            assert_eq!(read(&body(state, 0, true)).unwrap().entry(), None);
        }
        assert_eq!(read(&body(NUD_NOARP, 0, false)), None, "a device's own FDB is no bridge's");
    }
}
