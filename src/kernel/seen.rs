//! Links as the kernel tells of them (`rtnl_fill_ifinfo`, net/core/rtnetlink.c), read into [`LinkSeen`].
//!
//! What is unknown or too short is passed by: a link that cannot be read wholly is still there, with its index.

use std::collections::BTreeSet;

use super::addresses;
use super::answer::{Failure, Part};
use super::forward::Forwarding;
use super::nft::Nft;
use super::socket::Netlink;
use super::uapi::*;
use super::vlans::{self, Filtering};
use super::wire::{self, Batch};
use super::{GuestMacs, Trouble, Who, fdb};
use crate::model::Mac;
use crate::plan::{BridgeExtras, BridgePort, Kind, LinkSeen, NfCall, TapSeen};

/// Length of `struct ifinfomsg`.
pub(super) const IFINFO: usize = 16;

/// What looks at one link go by beside it; clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Around {
    /// The MACs for which FDBs are asked.
    pub(super) guests: GuestMacs,
    /// The bridges whose ports are asked for their VLANs.
    pub(super) filtering: Filtering,
    /// What bridged frames meet in the host's packet filter.
    pub(super) forwarding: Forwarding,
}

/// `struct ifinfomsg`.
pub(super) fn ifinfo(family: u8, index: u32, flags: u32, change: u32) -> [u8; IFINFO] {
    let mut fixed = [0; IFINFO];
    fixed[0] = family;
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..12].copy_from_slice(&flags.to_ne_bytes());
    fixed[12..16].copy_from_slice(&change.to_ne_bytes());
    fixed
}

/// Looks at one link. It also makes the kernel process the link's pending carrier change
/// (`rtnl_getlink`, `linkwatch_sync_dev`).
pub(super) fn look(netlink: &mut Netlink, who: Who<'_>) -> Result<Option<LinkSeen>, Failure> {
    look_at(netlink, who, link)
}

/// The same, with what does not show on the link alone: the addresses on it, of a bridge whether it is closed to the host, if it is
/// ours, and what frames meet on their way through it, and of a device of ours its VLAN, the FDB's entries for its guest, and who
/// keeps it from forwarding. A bridge that is down holds its ports back as well, so a port is looked at again behind its bridge.
pub(super) fn look_whole(
    netlink: &mut Netlink,
    nft: &mut Nft,
    who: Who<'_>,
    around: &Around,
) -> Result<Option<LinkSeen>, Failure> {
    let Some(mut link) = look(netlink, who)? else { return Ok(None) };
    if link.marks().next().is_some()
        && let Some(bridge) = holder(&link)
    {
        let forwards = look(netlink, Who::Index(bridge))?.is_some_and(|bridge| bridge.up && !bridge.extras.stp);
        let Some(again) = look(netlink, Who::Index(link.index))? else { return Ok(None) };
        link = again;
        judge_held(&mut link, |_| forwards);
    }
    nft.note(std::slice::from_mut(&mut link))?;
    around.forwarding.note(nft, std::slice::from_mut(&mut link));
    around.filtering.learn(&link);
    vlans::note(netlink, link.index, std::slice::from_mut(&mut link), &around.filtering)?;
    fdb::note(netlink, std::slice::from_mut(&mut link), &around.guests)?;
    match addresses::note(netlink, link.index, std::slice::from_mut(&mut link)) {
        // It went in between, which the next look shows.
        Err(failure) if failure.trouble == Trouble::Gone => {}
        noted => noted?,
    }
    Ok(Some(link))
}

/// The index of a veth, and that of its other end in that end's namespace.
pub(super) fn ends(netlink: &mut Netlink, who: Who<'_>) -> Result<Option<(u32, u32)>, Failure> {
    look_at(netlink, who, |body| {
        let (_, other) = wire::fields_behind(body, IFINFO).find(|(kind, _)| *kind == IFLA_LINK)?;
        // `ifi_index` of `struct ifinfomsg`.
        Some((wire::u32_at(body, 4)?, wire::u32_at(other, 0)?))
    })
}

/// How many descriptors are open on a tap of several queues, and its index; of one with a single queue the kernel tells no
/// number.
pub(super) fn open_queues(netlink: &mut Netlink, who: Who<'_>) -> Result<Option<(u32, Option<u32>)>, Failure> {
    look_at(netlink, who, |body| {
        let info = wire::fields_behind(body, IFINFO).find(|(kind, _)| *kind == IFLA_LINKINFO).map(|(_, value)| value);
        let data = info.and_then(|info| wire::field(info, IFLA_INFO_DATA)).unwrap_or_default();
        let number = |kind| wire::field(data, kind).and_then(|value| wire::u32_at(value, 0));
        let queues = number(IFLA_TUN_NUM_QUEUES).map(|queues| queues + number(IFLA_TUN_NUM_DISABLED_QUEUES).unwrap_or_default());
        Some((wire::u32_at(body, 4)?, queues))
    })
}

fn look_at<T>(netlink: &mut Netlink, who: Who<'_>, read: impl Fn(&[u8]) -> Option<T>) -> Result<Option<T>, Failure> {
    let (index, name) = match who {
        // Indexes are positive ints; the kernel would call others invalid.
        Who::Index(index) if index == 0 || i32::try_from(index).is_err() => return Ok(None),
        Who::Index(index) => (index, None),
        Who::Altname(name) | Who::Name(name) => (0, Some(name)),
    };
    if name.is_some_and(|name| name.is_empty() || name.len() > MAX_ALTNAME || name.contains('\0')) {
        return Ok(None);
    }
    let mut batch = Batch::default();
    batch.add(Part::Look, RTM_GETLINK, 0, &ifinfo(AF_UNSPEC, index, 0, 0), |f| {
        f.u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        if let Some(name) = name {
            // The kernel looks among names and altnames alike, but IFLA_IFNAME may not be longer than a name.
            f.text(IFLA_ALT_IFNAME, name);
        }
    });
    netlink.ask(batch, read)
}

/// A complete dump of the namespace's links, with the addresses on them, whether bridges of ours are closed, the VLANs of
/// devices of ours, and the FDB's entries for guests, each asked for.
pub(super) fn observe(netlink: &mut Netlink, nft: &mut Nft, around: &Around) -> Result<Vec<LinkSeen>, Failure> {
    let mut links = netlink.dump(all_links, link)?;
    let forwards = |link: &&LinkSeen| link.kind == Kind::Bridge && link.up && !link.extras.stp;
    let forwarding: BTreeSet<u32> = links.iter().filter(forwards).map(|bridge| bridge.index).collect();
    links.iter_mut().for_each(|link| judge_held(link, |bridge| forwarding.contains(&bridge)));
    addresses::note(netlink, 0, &mut links)?;
    nft.note(&mut links)?;
    around.forwarding.note_all(nft, &mut links);
    around.filtering.learn_all(&links);
    vlans::note(netlink, 0, &mut links, &around.filtering)?;
    fdb::note(netlink, &mut links, &around.guests)?;
    Ok(links)
}

fn all_links() -> Batch {
    let mut batch = Batch::default();
    batch.add(Part::Look, RTM_GETLINK, NLM_F_DUMP, &ifinfo(AF_UNSPEC, 0, 0, 0), |f| {
        f.u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    });
    batch
}

/// The links of a group: of a complete dump, or of some that changes interrupted.
pub(super) fn in_group(netlink: &mut Netlink, group: u32) -> Result<Vec<LinkSeen>, Failure> {
    let links = netlink.dump_all_there_is(all_links, link)?;
    Ok(links.into_iter().filter(|link| link.group == group).collect())
}

/// The bridge in which a link that runs does not forward.
fn holder(link: &LinkSeen) -> Option<u32> {
    link.master.filter(|_| link.bridge_port.is_some_and(|port| port.held))
}

/// Whether a port that does not forward is held back by somebody, or by its bridge.
fn judge_held(link: &mut LinkSeen, forwards: impl Fn(u32) -> bool) {
    if let Some(port) = &mut link.bridge_port {
        port.held &= link.master.is_some_and(forwards);
    }
}

/// The link at `index`, which somebody took a moment ago.
pub(super) fn must_look(netlink: &mut Netlink, who: Who<'_>) -> Result<LinkSeen, Failure> {
    look(netlink, who)?.ok_or_else(|| Failure::new(Trouble::Gone, Part::Look, "no such link"))
}

/// Reads an RTM_NEWLINK; none when it is shorter than its fixed part.
pub(super) fn link(body: &[u8]) -> Option<LinkSeen> {
    let flags = wire::u32_at(body, 8)?;
    let mut link = LinkSeen {
        mtu: 0,
        up: flags & IFF_UP != 0,
        lower_up: flags & IFF_LOWER_UP != 0,
        ..LinkSeen::bare(wire::u32_at(body, 4)?, "", Kind::Other)
    };
    let (mut lower, mut elsewhere, mut beside, mut carrier) = (None, false, false, false);
    for (kind, value) in wire::fields_behind(body, IFINFO) {
        match kind {
            IFLA_LINK => lower = wire::u32_at(value, 0).filter(|lower| *lower != 0 && *lower != link.index),
            IFLA_LINK_NETNSID => elsewhere = true,
            IFLA_IFNAME => link.name = wire::text(value),
            IFLA_PROP_LIST => link.altnames = altnames(value),
            IFLA_IFALIAS => link.alias = Some(wire::text(value)).filter(|alias| !alias.is_empty()),
            IFLA_ADDRESS => link.mac = <[u8; 6]>::try_from(value).ok().map(Mac),
            IFLA_MTU => link.mtu = wire::u32_at(value, 0).unwrap_or_default(),
            IFLA_MASTER => link.master = wire::u32_at(value, 0).filter(|master| *master != 0),
            IFLA_GROUP => link.group = wire::u32_at(value, 0).unwrap_or_default(),
            IFLA_CARRIER => carrier = wire::u8_at(value, 0).is_some_and(|carrier| carrier != 0),
            IFLA_LINKINFO => {
                info(&mut link, value);
                beside = on_the_same_segment(value);
            }
            IFLA_AF_SPEC => {
                (link.v6_autoconf, link.v4_open, link.takes_ras) = (v6_autoconf(value), v4_open(value), takes_ras(value));
            }
            _ => {}
        }
    }
    link.lower = lower.filter(|_| !elsewhere);
    link.beside = link.lower.filter(|_| beside);
    link.takes_ras &= link.kind == Kind::Bridge && link.up;
    // Only a tap of several queues tells how many are open; carrier it has while any is, unless its holder says otherwise.
    if let Some(tap) = &mut link.tap {
        tap.held |= carrier || link.lower_up;
    }
    if let Some(port) = &mut link.bridge_port {
        port.held &= flags & IFF_RUNNING != 0;
    }
    Some(link)
}

fn altnames(list: &[u8]) -> Vec<String> {
    let mut names: Vec<_> =
        wire::fields(list).filter(|(kind, _)| *kind == IFLA_ALT_IFNAME).map(|(_, value)| wire::text(value)).collect();
    names.sort_unstable();
    names
}

/// Whether what stands in `IFLA_LINK` is on the same segment as a link of this kind.
fn on_the_same_segment(info: &[u8]) -> bool {
    let kind = wire::field(info, IFLA_INFO_KIND).map(wire::text);
    kind.is_some_and(|kind| ["veth", "macvlan", "macvtap", "ipvlan", "ipvtap"].contains(&kind.as_str()))
}

/// `IFLA_LINKINFO`: what kind of link it is, and as a port of what.
fn info(link: &mut LinkSeen, info: &[u8]) {
    let data = wire::field(info, IFLA_INFO_DATA).unwrap_or_default();
    match wire::field(info, IFLA_INFO_KIND).map(wire::text).as_deref() {
        Some("tun") => tap(link, data),
        Some("veth") => link.kind = Kind::Veth,
        Some("bridge") => {
            link.kind = Kind::Bridge;
            link.extras = extras(data);
            let set = |kind| octet(data, kind).is_some_and(|value| value != 0);
            link.nf_call = NfCall { v4: set(IFLA_BR_NF_CALL_IPTABLES), v6: set(IFLA_BR_NF_CALL_IP6TABLES) };
        }
        _ => {}
    }
    if wire::field(info, IFLA_INFO_SLAVE_KIND).map(wire::text).as_deref() == Some("bridge") {
        let port = wire::field(info, IFLA_INFO_SLAVE_DATA).unwrap_or_default();
        let state = octet(port, IFLA_BRPORT_STATE);
        link.bridge_port = Some(BridgePort {
            forwarding: state == Some(BR_STATE_FORWARDING),
            held: state.is_some_and(|state| state != BR_STATE_FORWARDING),
            learning: octet(port, IFLA_BRPORT_LEARNING).is_some_and(|value| value != 0),
            unicast_flood: octet(port, IFLA_BRPORT_UNICAST_FLOOD).is_some_and(|value| value != 0),
            passes_link_local: wire::field(port, IFLA_BRPORT_GROUP_FWD_MASK).and_then(|mask| wire::u16_at(mask, 0))
                == Some(PASS_LINK_LOCAL),
            altered: IFLA_BRPORT_PLAIN.iter().any(|(flag, plain)| octet(port, *flag).is_some_and(|value| value != *plain)),
        });
    }
}

/// `br_fill_info`, net/bridge/br_netlink.c.
fn extras(data: &[u8]) -> BridgeExtras {
    let set = |kind| octet(data, kind).is_some_and(|value| value != 0);
    let stp = wire::field(data, IFLA_BR_STP_STATE).and_then(|value| wire::u32_at(value, 0));
    BridgeExtras {
        stp: stp.is_some_and(|stp| stp != 0),
        multicast_snooping: set(IFLA_BR_MCAST_SNOOPING),
        vlan_filtering: set(IFLA_BR_VLAN_FILTERING),
    }
}

/// `tun_fill_info`, drivers/net/tun.c. A device of that driver in tun mode is no tap.
fn tap(link: &mut LinkSeen, data: &[u8]) {
    if octet(data, IFLA_TUN_TYPE) != Some(IFF_TAP) {
        return;
    }
    let set = |kind| octet(data, kind).is_some_and(|value| value != 0);
    let id = |kind| wire::field(data, kind).and_then(|value| wire::u32_at(value, 0));
    link.kind = Kind::Tap;
    link.tap = Some(TapSeen {
        persist: set(IFLA_TUN_PERSIST),
        multi_queue: set(IFLA_TUN_MULTI_QUEUE),
        held: [IFLA_TUN_NUM_QUEUES, IFLA_TUN_NUM_DISABLED_QUEUES]
            .into_iter()
            .any(|kind| id(kind).is_some_and(|queues| queues > 0)),
        uid: id(IFLA_TUN_OWNER),
        gid: id(IFLA_TUN_GROUP),
    });
}

/// Whether IPv6 is there and makes addresses of its own. It is not there on a link whose MTU is below 1280. The mode is
/// also among the link's settings, should a kernel count it with the statistics that are left out.
fn v6_autoconf(spec: &[u8]) -> bool {
    let v6 = wire::field(spec, u16::from(AF_INET6)).unwrap_or_default();
    let among_settings = || wire::field(v6, IFLA_INET6_CONF).and_then(|conf| wire::u32_at(conf, 4 * DEVCONF_ADDR_GEN_MODE));
    let mode = octet(v6, IFLA_INET6_ADDR_GEN_MODE).map(u32::from).or_else(among_settings);
    mode.is_some_and(|mode| mode != u32::from(IN6_ADDR_GEN_MODE_NONE))
}

/// Whether the host's IPv4 takes packets from there, or answers ARP. A source filter that is loose is enough where the link
/// has no address, and is what distributions set on each new link.
fn v4_open(spec: &[u8]) -> bool {
    let conf = wire::field(spec, u16::from(AF_INET)).and_then(|v4| wire::field(v4, IFLA_INET_CONF)).unwrap_or_default();
    let set = |kind: u16| wire::u32_at(conf, 4 * usize::from(kind - 1));
    set(IPV4_DEVCONF_RP_FILTER) == Some(0) || set(IPV4_DEVCONF_ARP_IGNORE).is_some_and(|ignore| ignore != ARP_IGNORE_ALL)
}

/// Whether the host takes router advertisements there (`ipv6_accept_ra`, include/net/ipv6.h).
fn takes_ras(spec: &[u8]) -> bool {
    let conf = wire::field(spec, u16::from(AF_INET6)).and_then(|v6| wire::field(v6, IFLA_INET6_CONF)).unwrap_or_default();
    let set = |place: usize| wire::u32_at(conf, 4 * place);
    let accepts = match set(DEVCONF_ACCEPT_RA) {
        None | Some(0) => false,
        // Unless it is a router itself.
        Some(1) => set(DEVCONF_FORWARDING) == Some(0),
        Some(_) => true,
    };
    accepts && set(DEVCONF_DISABLE_IPV6) == Some(0)
}

fn octet(body: &[u8], kind: u16) -> Option<u8> {
    wire::field(body, kind).and_then(|value| wire::u8_at(value, 0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A message's body, as the kernel would send it.
    fn body(fill: impl FnOnce(&mut wire::Fields<'_>)) -> Vec<u8> {
        let mut batch = Batch::default();
        batch.add(Part::Look, RTM_NEWLINK, 0, &ifinfo(AF_UNSPEC, 7, IFF_UP | IFF_LOWER_UP, 0), fill);
        batch.finish(0, false).unwrap()[16..].to_vec()
    }

    proptest! {
        #[test]
        fn arbitrary_links_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = link(&bytes);
        }

        #[test]
        fn a_damaged_link_keeps_its_index(at in 16_usize..200, octet in any::<u8>(), cut in 16_usize..200) {
            let mut bytes = body(everything);
            if let Some(place) = bytes.get_mut(at) {
                *place = octet;
            }
            bytes.truncate(cut);
            prop_assert_eq!(link(&bytes).map(|link| link.index), Some(7));
        }
    }

    fn everything(f: &mut wire::Fields<'_>) {
        f.put(999, b"unknown");
        f.text(IFLA_IFNAME, "nicdce531f90199");
        f.u32(IFLA_MTU, 1450);
        f.u32(IFLA_MASTER, 3);
        f.u32(IFLA_GROUP, 9);
        f.put(IFLA_ADDRESS, &[0xfe, 1, 2, 3, 4, 5]);
        f.text(IFLA_IFALIAS, "store 5");
        f.nest(IFLA_PROP_LIST | 0x8000, |f| {
            f.text(IFLA_ALT_IFNAME, "z");
            f.text(IFLA_ALT_IFNAME, "a");
        });
        f.nest(IFLA_LINKINFO, |f| {
            f.put(IFLA_INFO_KIND, b"tun");
            f.nest(IFLA_INFO_DATA, |f| {
                f.u32(IFLA_TUN_GROUP, 36);
                f.u8(IFLA_TUN_TYPE, IFF_TAP);
                f.u8(IFLA_TUN_PERSIST, 1);
            });
            f.text(IFLA_INFO_SLAVE_KIND, "bridge");
            f.nest(IFLA_INFO_SLAVE_DATA, |f| {
                f.u8(IFLA_BRPORT_STATE, BR_STATE_FORWARDING);
                f.u8(IFLA_BRPORT_LEARNING, 0);
            });
        });
        f.nest(IFLA_AF_SPEC, |f| f.nest(u16::from(AF_INET6), |f| f.u8(IFLA_INET6_ADDR_GEN_MODE, 0)));
    }

    #[test]
    fn everything_a_tap_tells_is_read() {
        let expected = LinkSeen {
            altnames: vec!["a".into(), "z".into()],
            alias: Some("store 5".into()),
            mac: Some(Mac([0xfe, 1, 2, 3, 4, 5])),
            mtu: 1450,
            up: true,
            lower_up: true,
            master: Some(3),
            group: 9,
            v6_autoconf: true,
            bridge_port: Some(BridgePort {
                forwarding: true,
                held: false,
                learning: false,
                unicast_flood: false,
                altered: false,
                passes_link_local: false,
            }),
            tap: Some(TapSeen { persist: true, multi_queue: false, held: true, uid: None, gid: Some(36) }),
            ..LinkSeen::bare(7, "nicdce531f90199", Kind::Tap)
        };
        assert_eq!(link(&body(everything)), Some(expected));
    }

    #[test]
    fn a_tun_is_no_tap() {
        let seen = link(&body(|f| {
            f.nest(IFLA_LINKINFO, |f| {
                f.text(IFLA_INFO_KIND, "tun");
                f.nest(IFLA_INFO_DATA, |f| f.u8(IFLA_TUN_TYPE, 1));
            });
        }))
        .unwrap();
        assert_eq!((seen.kind, seen.tap), (Kind::Other, None));
    }
}
