//! The entries that lead to other hosts: those of a VXLAN device's own FDB (`vxlan_fdb_add`, `vxlan_fdb_info`,
//! drivers/net/vxlan/vxlan_core.c), those of its bridge's FDB that lead to it, and the neighbours of the bridge (`neigh_add`,
//! `neigh_fill_info`, net/core/neighbour.c), by which the bridge answers ARP and neighbour discovery (net/bridge/br_arp_nd_proxy.c).
//!
//! A dump of an FDB misses entries when others are deleted meanwhile, so an entry that is missing in one is set again, which changes nothing
//! where it is there.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, ParseableParametrized};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourHeader, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;

use super::LinkSelector;
use super::answer::{Failure, Request};
use super::fdb::NDMSG;
use super::links::first_failure;
use super::message::{Batch, Read, attributes};
use super::seen::{get, require};
use super::socket::Netlink;
use crate::model::names::{self, SegmentKind};
use crate::model::{Mac, NetworkId};
use crate::plan::overlay::not_replaced;
use crate::plan::{Entry, Overlays, SeenEntries, Strange};

/// What is there of a kernel with IPv6 alone (`if6_proc_init`, net/ipv6/addrconf.c).
const IPV6: &str = "/proc/net/if_inet6";

/// How many entries are set in one send.
const AT_ONCE: usize = 128;

/// The links of a network that have entries.
#[derive(Debug, Clone, Copy)]
struct Links {
    /// The VXLAN device.
    device: u32,
    /// The bridge.
    bridge: u32,
}

/// [`Op::SetEntries`](crate::plan::Op::SetEntries).
pub(super) fn set(
    netlink: &mut Netlink,
    network: NetworkId,
    put: &BTreeSet<Entry>,
    remove: &BTreeSet<Entry>,
) -> Result<(), Failure> {
    let device = require(netlink, LinkSelector::Altname(&names::segment_altname(SegmentKind::Vxlan, network)))?.index;
    let bridge = require(netlink, LinkSelector::Altname(&names::network_altname(network)))?.index;
    let links = Links { device, bridge };
    let put = put.iter().map(|entry| (entry, true));
    let removed = not_replaced(&put.clone().map(|(entry, _)| entry.clone()).collect(), remove);
    let all: Vec<(&Entry, bool)> = put.chain(removed.into_iter().map(|entry| (entry, false))).collect();
    // One that is refused keeps no other from being set.
    let mut done = Ok(());
    for some in all.chunks(AT_ONCE) {
        let mut batch = Batch::default();
        some.iter().for_each(|(entry, is_put)| batch.entry(links, entry, *is_put));
        let mut refusals = netlink.send(batch)?;
        // Without IPv6 there is no neighbour discovery that could be answered.
        refusals.retain(|refusal| !(refusal.request == Request::Neighbour6 && refusal.errno == Errno::EAFNOSUPPORT));
        done = done.and(first_failure(refusals));
    }
    done
}

/// The entries of a network; none where it has no VXLAN device.
pub(super) fn look(netlink: &mut Netlink, network: NetworkId) -> Result<Option<SeenEntries>, Failure> {
    let Some(device) = get(netlink, LinkSelector::Altname(&names::segment_altname(SegmentKind::Vxlan, network)))? else {
        return Ok(None);
    };
    let own = |entry: &Entry| !matches!(entry, Entry::Strange(Strange::Bridge { mac, .. }) if Some(*mac) == device.mac);
    let found = netlink.dump(
        || {
            let mut message = NeighbourMessage::default();
            (message.header.family, message.header.ifindex) = (AddressFamily::Bridge, device.index);
            dump(message)
        },
        |body| Ok(read(body)?.filter(|told| told.link == device.index).map(|told| told.entry)),
    )?;
    let mut entries: BTreeSet<Entry> = found.into_iter().filter(own).collect();
    if let Some(bridge) = get(netlink, LinkSelector::Altname(&names::network_altname(network)))? {
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let ask = || {
                let mut message = NeighbourMessage::default();
                message.header.family = family;
                message.attributes.push(NeighbourAttribute::IfIndex(bridge.index));
                dump(message)
            };
            entries.extend(
                netlink.dump(ask, |body| Ok(read(body)?.filter(|told| told.link == bridge.index).map(|told| told.entry)))?,
            );
        }
    }
    Ok(Some(SeenEntries { device: device.index, entries, has_v6: Path::new(IPV6).exists() }))
}

fn dump(message: NeighbourMessage) -> Batch {
    let mut batch = Batch::default();
    batch.add(Request::Look, NLM_F_DUMP, RouteNetlinkMessage::GetNeighbour(message));
    batch
}

impl Batch {
    fn entry(&mut self, links: Links, entry: &Entry, is_put: bool) {
        let (request, flags, message) = match entry {
            Entry::Flood(host) => {
                (Request::Fdb(Mac::NOBODY), NLM_F_CREATE | NLM_F_APPEND, tunnel(links.device, Mac::NOBODY, Some(*host)))
            }
            Entry::Forward { mac, to } => {
                let to = is_put.then_some(*to);
                (Request::Fdb(*mac), NLM_F_CREATE | NLM_F_REPLACE, tunnel(links.device, *mac, to))
            }
            Entry::Bridge(mac) if is_put => return self.fdb(links.device, *mac),
            Entry::Bridge(mac) | Entry::Strange(Strange::Bridge { mac, vlan: 0 }) => {
                (Request::Fdb(*mac), 0, bridged(links.device, *mac, 0))
            }
            Entry::Neighbour { ip, mac } => {
                let request = if ip.is_ipv6() { Request::Neighbour6 } else { Request::Fdb(*mac) };
                (request, NLM_F_CREATE | NLM_F_REPLACE, neighbour(links.bridge, *ip, *mac))
            }
            // nicd makes none.
            Entry::Strange(_) if is_put => return,
            Entry::Strange(Strange::Bridge { mac, vlan }) => (Request::Fdb(*mac), 0, bridged(links.device, *mac, *vlan)),
            Entry::Strange(Strange::Tunnel { mac, to, port, vni, via }) => {
                let mut message = tunnel(links.device, *mac, *to);
                message.attributes.extend(port.map(NeighbourAttribute::Port));
                message.attributes.extend(vni.map(NeighbourAttribute::Vni));
                message.attributes.extend(via.map(NeighbourAttribute::IfIndex));
                (Request::Fdb(*mac), 0, message)
            }
        };
        match is_put {
            true => self.add(request, flags, RouteNetlinkMessage::NewNeighbour(message)),
            false => self.add(Request::Stale, 0, RouteNetlinkMessage::DelNeighbour(message)),
        }
    }
}

/// An entry of the VXLAN device's own FDB.
fn tunnel(device: u32, mac: Mac, to: Option<IpAddr>) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    (message.header.family, message.header.ifindex) = (AddressFamily::Bridge, device);
    (message.header.state, message.header.flags) = (NeighbourState::Permanent, NeighbourFlags::Own);
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    message.attributes.extend(to.map(|to| NeighbourAttribute::Destination(to.into())));
    message
}

/// An entry of the bridge's FDB that leads to the VXLAN device.
fn bridged(device: u32, mac: Mac, vlan: u16) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    (message.header.family, message.header.ifindex) = (AddressFamily::Bridge, device);
    message.header.flags = NeighbourFlags::Controller;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    message.attributes.extend((vlan != 0).then_some(NeighbourAttribute::Vlan(vlan)));
    message
}

/// A neighbour of the bridge.
fn neighbour(bridge: u32, ip: IpAddr, mac: Mac) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    (message.header.ifindex, message.header.state) = (bridge, NeighbourState::Permanent);
    message.attributes.push(NeighbourAttribute::Destination(ip.into()));
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    message
}

/// An entry that the kernel tells of, and the link that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) link: u32,
    pub(super) entry: Entry,
    /// Whether it is an address of a bridge's port itself, which the kernel makes.
    pub(super) is_own: bool,
}

/// The network of which an event tells that another program changed an entry.
pub(super) fn disturbed(body: &[u8], is_there: bool, overlays: &Overlays) -> Read<NetworkId> {
    if !overlays.knows(NeighbourHeader::parse(body)?.ifindex) {
        return Ok(None);
    }
    let told = read(body)?.filter(|told| !told.is_own);
    Ok(told.and_then(|told| overlays.disturbed(told.link, &told.entry, is_there)))
}

/// Reads an RTM_NEWNEIGH or RTM_DELNEIGH as an entry that leads to other hosts, should its link lead there; none where it is about something
/// else, as a neighbour that is not permanent.
pub(super) fn read(body: &[u8]) -> Read<Told> {
    let header = NeighbourHeader::parse(body)?;
    let (mut mac, mut to, mut vlan, mut in_bridge) = (None, None, 0, false);
    let (mut port, mut vni, mut via, mut is_plain) = (None, None, None, true);
    for attribute in attributes(body, NDMSG) {
        match NeighbourAttribute::parse_with_param(&attribute, header.family) {
            Ok(NeighbourAttribute::LinkLayerAddress(address)) => mac = address.try_into().ok().map(Mac),
            Ok(NeighbourAttribute::Destination(address)) => to = ip(&address),
            Ok(NeighbourAttribute::Vlan(id)) => vlan = id,
            Ok(NeighbourAttribute::Controller(_)) => in_bridge = true,
            Ok(NeighbourAttribute::Port(number)) => port = Some(number),
            Ok(NeighbourAttribute::Vni(number)) => vni = Some(number),
            Ok(NeighbourAttribute::IfIndex(index)) => via = Some(index),
            // Another source's number, or a next hop (`NDA_NH_ID`).
            Ok(NeighbourAttribute::SourceVni(_)) => is_plain = false,
            Ok(NeighbourAttribute::Other(_)) if attribute.kind() == super::untyped::NDA_NH_ID => is_plain = false,
            _ => {}
        }
    }
    let (Some(mac), link) = (mac, header.ifindex) else { return Ok(None) };
    let entry = match header.family {
        AddressFamily::Bridge if in_bridge => match header.state {
            NeighbourState::Noarp if vlan == 0 => Entry::Bridge(mac),
            _ => Entry::Strange(Strange::Bridge { mac, vlan }),
        },
        AddressFamily::Bridge => {
            let is_ours = is_plain && header.state == NeighbourState::Permanent && (port, vni, via) == (None, None, None);
            match (to, mac) {
                (Some(host), Mac::NOBODY) if is_ours => Entry::Flood(host),
                (Some(to), mac) if is_ours => Entry::Forward { mac, to },
                // What is bound to a next hop is deleted as a whole.
                _ => Entry::Strange(Strange::Tunnel { mac, to: to.filter(|_| is_plain), port, vni, via }),
            }
        }
        _ => match to {
            Some(ip) if header.state == NeighbourState::Permanent => Entry::Neighbour { ip, mac },
            _ => return Ok(None),
        },
    };
    let is_own = in_bridge && header.state == NeighbourState::Permanent;
    Ok(Some(Told { link, entry, is_own }))
}

fn ip(address: &NeighbourAddress) -> Option<IpAddr> {
    match address {
        NeighbourAddress::Inet(v4) => Some((*v4).into()),
        NeighbourAddress::Inet6(v6) => Some((*v6).into()),
        NeighbourAddress::Other(octets) => match octets.len() {
            4 => octets.first_chunk().map(|octets: &[u8; 4]| IpAddr::from(*octets)),
            16 => octets.first_chunk().map(|octets: &[u8; 16]| IpAddr::from(*octets)),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable;
    use proptest::prelude::*;

    use super::*;

    const MAC: Mac = Mac([0xfa, 0x16, 0x3e, 1, 2, 3]);
    const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    proptest! {
        #[test]
        fn arbitrary_entries_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = read(&bytes);
        }
    }

    /// What is read of a message that the kernel would send.
    fn told(message: &NeighbourMessage) -> Option<Entry> {
        let mut body = vec![0; message.buffer_len()];
        message.emit(&mut body);
        let told = read(&body).unwrap()?;
        assert_eq!(told.link, 7);
        Some(told.entry)
    }

    #[test]
    fn an_entry_is_read_as_it_is_set() {
        let v6: IpAddr = "2001:db8::1".parse().unwrap();
        for to in [HOST, v6] {
            assert_eq!(told(&tunnel(7, MAC, Some(to))), Some(Entry::Forward { mac: MAC, to }));
            assert_eq!(told(&tunnel(7, Mac::NOBODY, Some(to))), Some(Entry::Flood(to)));
            assert_eq!(told(&neighbour(7, to, MAC)), Some(Entry::Neighbour { ip: to, mac: MAC }));
        }
        let mut entry = bridged(7, MAC, 0);
        entry.header.state = NeighbourState::Noarp;
        entry.attributes.push(NeighbourAttribute::Controller(3));
        assert_eq!(told(&entry), Some(Entry::Bridge(MAC)));
    }

    #[test]
    fn what_is_otherwise_is_strange() {
        let strange = |to, port, vni, via| Some(Entry::Strange(Strange::Tunnel { mac: MAC, to, port, vni, via }));
        let with = |more: &[NeighbourAttribute]| {
            let mut message = tunnel(7, MAC, Some(HOST));
            message.attributes.extend(more.iter().cloned());
            told(&message)
        };
        assert_eq!(with(&[NeighbourAttribute::Port(1)]), strange(Some(HOST), Some(1), None, None));
        assert_eq!(with(&[NeighbourAttribute::Vni(9)]), strange(Some(HOST), None, Some(9), None));
        assert_eq!(with(&[NeighbourAttribute::IfIndex(2)]), strange(Some(HOST), None, None, Some(2)));
        let mut learned = tunnel(7, MAC, Some(HOST));
        learned.header.state = NeighbourState::Reachable;
        assert_eq!(told(&learned), strange(Some(HOST), None, None, None));
        let mut other = bridged(7, MAC, 5);
        other.attributes.push(NeighbourAttribute::Controller(3));
        assert_eq!(told(&other), Some(Entry::Strange(Strange::Bridge { mac: MAC, vlan: 5 })));
        let mut seen = neighbour(7, HOST, MAC);
        seen.header.state = NeighbourState::Stale;
        assert_eq!(told(&seen), None, "a neighbour that the kernel found itself");
    }
}
