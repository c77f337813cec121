//! Reads links (`rtnl_fill_ifinfo`, net/core/rtnetlink.c) into [`LinkState`].
//!
//! Unknown or truncated attributes are skipped: a link with an unreadable attribute is still reported, with its index.

use std::collections::BTreeSet;

use libc::{
    IFLA_ADDRESS, IFLA_AF_SPEC, IFLA_CARRIER, IFLA_GROUP, IFLA_IFALIAS, IFLA_IFNAME, IFLA_INFO_DATA, IFLA_INFO_KIND,
    IFLA_INFO_SLAVE_DATA, IFLA_INFO_SLAVE_KIND, IFLA_LINK, IFLA_LINK_NETNSID, IFLA_LINKINFO, IFLA_MASTER, IFLA_MTU,
    IFLA_PROP_LIST, IFLA_QDISC, IFLA_STATS64,
};
use netlink_packet_core::{DecodeError, NLM_F_DUMP, NlaBuffer, Parseable, ParseableParametrized, parse_u8, parse_u32};
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, BridgeMulticastRouterType, BridgePortState, BridgeStpState, In6AddrGenMode, Inet6DevConf,
    InfoBridge, InfoBridgePort, InfoKind, InfoPortKind, InfoVlan, LinkAttribute, LinkExtentMask, LinkFlags, LinkHeader, Prop,
    Stats64, VlanProtocol as WireProtocol,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{LinkMessageBuilder, LinkUnspec};

use super::addresses;
use super::answer::{Failure, Request};
use super::filter::Filters;
use super::filter::log::DropLog;
use super::forward::Forwarding;
use super::ifb::Ifbs;
use super::message::{Batch, Read, attributes, find, text, value};
use super::nft::Nft;
use super::socket::Netlink;
use super::untyped::*;
use super::vlans::{self, Filtering};
use super::{GuestMacs, LinkSelector, OpErrorKind, Traffic, fdb, qdisc, vxlan_link};
use crate::model::Mac;
use crate::plan::{BridgePort, Kind, LinkState, Overlays, TapSeen, TokenBucket, VlanProtocol, VlanTag};

/// Length of `struct ifinfomsg`.
pub(super) const IFINFO: usize = 16;

/// All of 01:80:c2:00:00:0X but 01, pause frames, which the kernel refuses here and drops (`BR_GROUPFWD_MACPAUSE`).
pub(super) const PASS_LINK_LOCAL: u16 = 0xfffd;

/// The other flags of a bridge port that affect forwarding, with their defaults (`new_nbp`, net/bridge/br_if.c).
pub(super) static PLAIN: [InfoBridgePort; 13] = [
    InfoBridgePort::HairpinMode(false),
    InfoBridgePort::Protect(false),
    InfoBridgePort::FastLeave(false),
    InfoBridgePort::ProxyARP(false),
    InfoBridgePort::ProxyARPWifi(false),
    InfoBridgePort::MulticastRouter(BridgeMulticastRouterType::TempQuery),
    InfoBridgePort::MulticastFlood(true),
    InfoBridgePort::MulticastToUnicast(false),
    InfoBridgePort::VlanTunnel(false),
    InfoBridgePort::BroadcastFlood(true),
    InfoBridgePort::NeighSupress(false),
    InfoBridgePort::Isolated(false),
    InfoBridgePort::Mab(false),
];

/// The context that reads of a link need. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct ReadContext {
    /// The MACs for which FDBs are queried.
    pub(super) guests: GuestMacs,
    /// What of networks is on other hosts.
    pub(super) overlays: Overlays,
    /// The bridges whose ports' VLANs are read.
    pub(super) filtering: Filtering,
    /// How the host's packet filter treats bridged frames.
    pub(super) forwarding: Forwarding,
    /// What ports' devices may send.
    pub(super) filters: Filters,
    /// The frames of ports' devices that were dropped.
    pub(super) drops: DropLog,
    /// The devices that hold guests to exact rates.
    pub(super) ifbs: Ifbs,
}

/// Reads one link. Makes the kernel process the link's pending carrier change (`rtnl_getlink`, `linkwatch_sync_dev`).
pub(super) fn get(netlink: &mut Netlink, who: LinkSelector<'_>) -> Result<Option<LinkState>, Failure> {
    look_at(netlink, who, |body| link(body).map(Some))
}

/// Reads one link with the state that is not in its own message. For every link: its addresses. For a bridge: whether it is closed to
/// the host, and how the packet filter treats its frames. For a port's device: its VLANs, the FDB entries for its guest, the
/// rate of what it sends, and why it does not forward. A bridge that is down blocks its ports too, so a port is read again after its bridge.
pub(super) fn get_full(
    netlink: &mut Netlink,
    nft: &mut Nft,
    who: LinkSelector<'_>,
    around: &ReadContext,
) -> Result<Option<LinkState>, Failure> {
    let Some(mut link) = get(netlink, who)? else { return Ok(None) };
    if link.marks().next().is_some()
        && let Some(bridge) = holder(&link)
    {
        let forwards = get(netlink, LinkSelector::Index(bridge))?.is_some_and(|bridge| bridge.up && !bridge.extras.stp);
        let Some(again) = get(netlink, LinkSelector::Index(link.index))? else { return Ok(None) };
        link = again;
        judge_held(&mut link, |_| forwards);
    }
    nft.note(std::slice::from_mut(&mut link))?;
    around.forwarding.note(nft, std::slice::from_mut(&mut link));
    around.filters.note(std::slice::from_mut(&mut link));
    around.filtering.learn(&link);
    vlans::note(netlink, link.index, std::slice::from_mut(&mut link), &around.filtering)?;
    fdb::note(netlink, std::slice::from_mut(&mut link), &around.guests)?;
    qdisc::note(netlink, std::slice::from_mut(&mut link))?;
    around.ifbs.note(netlink, std::slice::from_mut(&mut link))?;
    match addresses::note(netlink, link.index, std::slice::from_mut(&mut link)) {
        // The link was deleted in between; the next read shows that.
        Err(failure) if failure.kind == OpErrorKind::Gone => {}
        noted => noted?,
    }
    Ok(Some(link))
}

/// The index of a veth, and that of its other end in that end's namespace.
pub(super) fn ends(netlink: &mut Netlink, who: LinkSelector<'_>) -> Result<Option<(u32, u32)>, Failure> {
    look_at(netlink, who, |body| {
        let index = LinkHeader::parse(body)?.index;
        let other = find(body, IFINFO, IFLA_LINK).map(parse_u32).transpose()?;
        Ok(other.map(|other| (index, other)))
    })
}

/// The number of open descriptors of a tap with several queues, and its index. For a tap with one queue the kernel reports no
/// number.
pub(super) fn open_queues(netlink: &mut Netlink, who: LinkSelector<'_>) -> Result<Option<(u32, Option<u32>)>, Failure> {
    look_at(netlink, who, |body| {
        let data = find(body, IFINFO, IFLA_LINKINFO).and_then(|info| find(info, 0, IFLA_INFO_DATA)).unwrap_or_default();
        let number = |kind| find(data, 0, kind).and_then(|value| parse_u32(value).ok());
        let queues = number(IFLA_TUN_NUM_QUEUES)
            .map(|queues| queues.saturating_add(number(IFLA_TUN_NUM_DISABLED_QUEUES).unwrap_or_default()));
        Ok(Some((LinkHeader::parse(body)?.index, queues)))
    })
}

/// A link's index, and what came in and went out by it.
pub(super) fn traffic(netlink: &mut Netlink, who: LinkSelector<'_>) -> Result<Option<(u32, Traffic, Traffic)>, Failure> {
    look_at_with(netlink, who, asked_with_stats, |body| {
        let stats = find(body, IFINFO, IFLA_STATS64).map(Stats64::parse).transpose()?.unwrap_or_default();
        let received = Traffic { packets: stats.rx_packets, bytes: stats.rx_bytes };
        let sent = Traffic { packets: stats.tx_packets, bytes: stats.tx_bytes };
        Ok(Some((LinkHeader::parse(body)?.index, received, sent)))
    })
}

pub(super) fn look_at<T>(
    netlink: &mut Netlink,
    who: LinkSelector<'_>,
    read: impl Fn(&[u8]) -> Read<T>,
) -> Result<Option<T>, Failure> {
    look_at_with(netlink, who, asked, read)
}

fn look_at_with<T>(
    netlink: &mut Netlink,
    who: LinkSelector<'_>,
    ask: fn(u32) -> LinkMessageBuilder<LinkUnspec>,
    read: impl Fn(&[u8]) -> Read<T>,
) -> Result<Option<T>, Failure> {
    let (index, name) = match who {
        // Indexes are positive; the kernel rejects other values as invalid.
        LinkSelector::Index(index) if index == 0 || i32::try_from(index).is_err() => return Ok(None),
        LinkSelector::Index(index) => (index, None),
        LinkSelector::Altname(name) | LinkSelector::Name(name) => (0, Some(name)),
    };
    if name.is_some_and(|name| name.is_empty() || name.len() > MAX_ALTNAME || name.contains('\0')) {
        return Ok(None);
    }
    let mut batch = Batch::default();
    batch.add(Request::Look, 0, get_link_message(name.into_iter().fold(ask(index), by_name)));
    netlink.ask(batch, read)
}

fn asked_with_stats(index: u32) -> LinkMessageBuilder<LinkUnspec> {
    LinkUnspec::new_with_index(index)
}

/// A request for the link with this index, or for all links with 0. It excludes the statistics, which are long.
fn asked(index: u32) -> LinkMessageBuilder<LinkUnspec> {
    LinkUnspec::new_with_index(index).append_extra_attribute(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]))
}

fn get_link_message(link: LinkMessageBuilder<LinkUnspec>) -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetLink(link.build())
}

/// A complete dump of the namespace's links, with the same additional state as [`get_full`].
pub(super) fn dump(netlink: &mut Netlink, nft: &mut Nft, around: &ReadContext) -> Result<Vec<LinkState>, Failure> {
    let mut links = netlink.dump(all_links, |body| link(body).map(Some))?;
    let forwards = |link: &&LinkState| link.kind == Kind::Bridge && link.up && !link.extras.stp;
    let forwarding: BTreeSet<u32> = links.iter().filter(forwards).map(|bridge| bridge.index).collect();
    links.iter_mut().for_each(|link| judge_held(link, |bridge| forwarding.contains(&bridge)));
    addresses::note(netlink, 0, &mut links)?;
    nft.note(&mut links)?;
    around.forwarding.note_all(nft, &mut links);
    around.filters.sweep(&links);
    around.drops.sweep(&links);
    around.filters.note(&mut links);
    around.filtering.learn_all(&links);
    vlans::note(netlink, 0, &mut links, &around.filtering)?;
    fdb::note(netlink, &mut links, &around.guests)?;
    qdisc::note(netlink, &mut links)?;
    around.ifbs.sweep(netlink, &links)?;
    around.ifbs.note(netlink, &mut links)?;
    Ok(links)
}

fn all_links() -> Batch {
    let mut batch = Batch::default();
    batch.add(Request::Look, NLM_F_DUMP, get_link_message(asked(0)));
    batch
}

/// The links in a group, from a complete dump or from several interrupted ones.
pub(super) fn in_group(netlink: &mut Netlink, group: u32) -> Result<Vec<LinkState>, Failure> {
    let links = netlink.dump_all_there_is(all_links, |body| link(body).map(Some))?;
    Ok(links.into_iter().filter(|link| link.group == group).collect())
}

/// The bridge of a running link that does not forward.
fn holder(link: &LinkState) -> Option<u32> {
    link.master.filter(|_| link.bridge_port.is_some_and(|port| port.held))
}

/// Whether another program set a port's state to not forwarding, rather than its bridge.
fn judge_held(link: &mut LinkState, forwards: impl Fn(u32) -> bool) {
    if let Some(port) = &mut link.bridge_port {
        port.held &= link.master.is_some_and(forwards);
    }
}

/// The link that took the index `index` since it was chosen.
pub(super) fn require(netlink: &mut Netlink, who: LinkSelector<'_>) -> Result<LinkState, Failure> {
    get(netlink, who)?.ok_or_else(|| Failure::new(OpErrorKind::Gone, Request::Look, "no such link"))
}

impl Batch {
    /// Reads a link that is being created, for the side effect: the kernel processes the link's pending carrier change
    /// (`linkwatch_sync_dev`). While the link is down this is cheap. Once it is up, a missing carrier costs an RCU grace period under
    /// RTNL (`dev_deactivate`, net/sched/sch_generic.c) at the next read or later.
    pub(super) fn settle(&mut self, index: u32) {
        self.add(Request::Look, 0, get_link_message(asked(index)));
    }
}

/// Decodes an RTM_NEWLINK. Decodes only the attributes that nicd uses, because a dump has thousands of links. An attribute that
/// cannot be decoded counts as absent; names are decoded even if they are not UTF-8.
///
/// # Errors
/// The message is shorter than its header.
pub(super) fn link(body: &[u8]) -> Result<LinkState, DecodeError> {
    let LinkHeader { index, flags, .. } = LinkHeader::parse(body)?;
    let mut link = LinkState {
        mtu: 0,
        up: flags.contains(LinkFlags::Up),
        lower_up: flags.contains(LinkFlags::LowerUp),
        ..LinkState::bare(index, "", Kind::Other)
    };
    let (mut lower, mut elsewhere, mut beside, mut carrier) = (None, false, false, false);
    for attribute in attributes(body, IFINFO) {
        let value = value(&attribute);
        match attribute.kind() {
            IFLA_LINK_NETNSID => elsewhere = true,
            IFLA_PROP_LIST => link.altnames = altnames(value),
            // Whose it is, and its rate, are noted later.
            IFLA_QDISC if text(value) == qdisc::KIND => link.to_guest = Some(TokenBucket::default()),
            IFLA_LINKINFO => beside = info(&mut link, value),
            IFLA_AF_SPEC => host_ip(&mut link, value),
            IFLA_LINK | IFLA_IFNAME | IFLA_IFALIAS | IFLA_ADDRESS | IFLA_MTU | IFLA_MASTER | IFLA_GROUP | IFLA_CARRIER => {
                match LinkAttribute::parse_with_param(&attribute, AddressFamily::Unspec) {
                    Ok(LinkAttribute::Link(index)) => lower = Some(index).filter(|lower| *lower != 0 && *lower != link.index),
                    Ok(LinkAttribute::IfName(name)) => link.name = name,
                    Ok(LinkAttribute::IfAlias(alias)) => link.alias = Some(alias),
                    Ok(LinkAttribute::Address(address)) => link.mac = address.try_into().ok().map(Mac),
                    Ok(LinkAttribute::Mtu(mtu)) => link.mtu = mtu,
                    Ok(LinkAttribute::Controller(master)) => link.master = Some(master).filter(|master| *master != 0),
                    Ok(LinkAttribute::Group(group)) => link.group = group,
                    Ok(LinkAttribute::Carrier(up)) => carrier = up != 0,
                    Err(_) if attribute.kind() == IFLA_IFNAME => link.name = text(value),
                    Err(_) if attribute.kind() == IFLA_IFALIAS => link.alias = Some(text(value)),
                    _ => {}
                }
            }
            _ => {}
        }
    }
    link.alias = link.alias.filter(|alias| !alias.is_empty());
    link.lower = lower.filter(|_| !elsewhere);
    link.beside = link.lower.filter(|_| beside);
    link.takes_ras &= link.kind == Kind::Bridge && link.up;
    // Only a tap with several queues reports open queues. A tap has carrier while a queue is open, unless its user switched it off.
    if let Some(tap) = &mut link.tap {
        tap.held |= carrier || link.lower_up;
    }
    if let Some(port) = &mut link.bridge_port {
        port.held &= flags.contains(LinkFlags::Running);
    }
    Ok(link)
}

fn altnames(list: &[u8]) -> Vec<String> {
    let name = |property: NlaBuffer<&[u8]>| match Prop::parse(&property) {
        Ok(Prop::AltIfName(name)) => Some(name),
        Ok(_) => None,
        Err(_) => Some(text(value(&property))),
    };
    let mut names: Vec<_> = attributes(list, 0).filter_map(name).collect();
    names.sort_unstable();
    names
}

/// `IFLA_LINKINFO`: what kind of link it is, and as a port of what. Gives back whether what stands in `IFLA_LINK` is on the same
/// segment as a link of this kind.
fn info(link: &mut LinkState, info: &[u8]) -> bool {
    let (mut kind, mut data, mut port_kind, mut port_data): (_, &[u8], _, &[u8]) = (None, &[], None, &[]);
    for attribute in attributes(info, 0) {
        match attribute.kind() {
            IFLA_INFO_KIND => kind = InfoKind::parse(&attribute).ok(),
            IFLA_INFO_DATA => data = value(&attribute),
            IFLA_INFO_SLAVE_KIND => port_kind = InfoPortKind::parse(&attribute).ok(),
            IFLA_INFO_SLAVE_DATA => port_data = value(&attribute),
            _ => {}
        }
    }
    match kind {
        Some(InfoKind::Tun) => tap(link, data),
        Some(InfoKind::Veth) => link.kind = Kind::Veth,
        Some(InfoKind::Bridge) => bridge(link, data),
        Some(InfoKind::Vlan) => vlan(link, data),
        Some(InfoKind::Vxlan) => (link.kind, link.vxlan) = (Kind::Vxlan, vxlan_link::read(data)),
        _ => {}
    }
    if port_kind == Some(InfoPortKind::Bridge) {
        link.bridge_port = Some(bridge_port(port_data));
    }
    use InfoKind::{IpVlan, IpVtap, MacVlan, MacVtap, Veth};
    matches!(kind, Some(Veth | MacVlan | MacVtap | IpVlan | IpVtap))
}

/// `br_port_fill_attrs`, net/bridge/br_netlink.c.
fn bridge_port(data: &[u8]) -> BridgePort {
    let mut port = BridgePort::default();
    for flag in attributes(data, 0).filter_map(|attribute| InfoBridgePort::parse(&attribute).ok()) {
        match flag {
            InfoBridgePort::State(state) => {
                port.forwarding = state == BridgePortState::Forwarding;
                port.held = !port.forwarding;
            }
            InfoBridgePort::Learning(on) => port.learning = on,
            InfoBridgePort::UnicastFlood(on) => port.unicast_flood = on,
            InfoBridgePort::Locked(on) => port.locked = on,
            InfoBridgePort::Guard(on) => port.bpdu_guard = on,
            InfoBridgePort::NeighSupress(on) => port.suppresses = on,
            InfoBridgePort::GroupFwdMask(mask) => port.passes_link_local = mask == PASS_LINK_LOCAL,
            flag => {
                let same = std::mem::discriminant(&flag);
                port.altered |= PLAIN.iter().any(|plain| std::mem::discriminant(plain) == same && *plain != flag);
            }
        }
    }
    port
}

/// `br_fill_info`, net/bridge/br_netlink.c.
fn bridge(link: &mut LinkState, data: &[u8]) {
    link.kind = Kind::Bridge;
    for setting in attributes(data, 0).filter_map(|attribute| InfoBridge::parse(&attribute).ok()) {
        match setting {
            InfoBridge::StpState(state) => link.extras.stp = state != BridgeStpState::Disabled,
            InfoBridge::MulticastSnooping(on) => link.extras.multicast_snooping = on,
            InfoBridge::VlanFiltering(on) => link.extras.vlan_filtering = on,
            InfoBridge::NfCallIpTables(on) => link.nf_call.v4 = on,
            InfoBridge::NfCallIp6Tables(on) => link.nf_call.v6 = on,
            _ => {}
        }
    }
}

/// `vlan_fill_info`, net/8021q/vlan_netlink.c.
fn vlan(link: &mut LinkState, data: &[u8]) {
    let (mut id, mut protocol) = (None, VlanProtocol::Dot1q);
    for setting in attributes(data, 0).filter_map(|attribute| InfoVlan::parse(&attribute).ok()) {
        match setting {
            InfoVlan::Id(number) => id = Some(number),
            InfoVlan::Protocol(WireProtocol::Ieee8021Ad) => protocol = VlanProtocol::Dot1ad,
            _ => {}
        }
    }
    link.kind = Kind::Vlan;
    link.tag = id.map(|id| VlanTag { id, protocol });
}

/// `tun_fill_info`, drivers/net/tun.c. A device of that driver in tun mode is no tap.
fn tap(link: &mut LinkState, data: &[u8]) {
    let octet = |kind| find(data, 0, kind).and_then(|value| parse_u8(value).ok());
    if octet(IFLA_TUN_TYPE).map(i32::from) != Some(libc::IFF_TAP) {
        return;
    }
    let set = |kind| octet(kind).is_some_and(|value| value != 0);
    let id = |kind| find(data, 0, kind).and_then(|value| parse_u32(value).ok());
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

/// `IFLA_AF_SPEC`: what the host's own IP does on the link. IPv6 is not there on one whose MTU is below 1280. The mode of its
/// addresses is also among the link's settings, as a kernel counts it with the statistics that are not asked for.
fn host_ip(link: &mut LinkState, spec: &[u8]) {
    // The crate takes settings that are not there for 0: a list without those that matter is passed by.
    let has = |attribute: &NlaBuffer<&[u8]>, settings: usize| value(attribute).len() >= 4 * settings;
    let (mut mode, mut among_settings) = (None, None);
    for family in attributes(spec, 0) {
        for attribute in attributes(value(&family), 0) {
            match i32::from(family.kind()) {
                libc::AF_INET => match AfSpecInet::parse(&attribute) {
                    Ok(AfSpecInet::DevConf(settings)) if has(&attribute, IPV4_DEVCONF_ARP_IGNORE.into()) => {
                        link.v4_open = settings.rp_filter == 0 || settings.arp_ignore != i32::from(ARP_IGNORE_ALL);
                    }
                    _ => {}
                },
                libc::AF_INET6 => match AfSpecInet6::parse(&attribute) {
                    Ok(AfSpecInet6::AddrGenMode(told)) => mode = Some(told),
                    Ok(AfSpecInet6::DevConf(settings)) if has(&attribute, DEVCONF_ADDR_GEN_MODE + 1) => {
                        among_settings = u8::try_from(settings.addr_gen_mode).ok().map(In6AddrGenMode::from);
                        link.takes_ras = takes_ras(&settings);
                    }
                    _ => {}
                },
                _ => {}
            }
        }
    }
    link.v6_autoconf = mode.or(among_settings).is_some_and(|mode| mode != In6AddrGenMode::None);
}

/// Whether the host accepts router advertisements on the link (`ipv6_accept_ra`, include/net/ipv6.h).
fn takes_ras(settings: &Inet6DevConf) -> bool {
    let accepts = match settings.accept_ra {
        0 => false,
        // Unless it is a router itself.
        1 => settings.forwarding == 0,
        _ => true,
    };
    accepts && settings.disable_ipv6 == 0
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::DefaultNla;
    use netlink_packet_route::link::{AfSpecUnspec, InfoData, InfoPortData, InfoTun};
    use proptest::prelude::*;

    use super::*;
    use crate::kernel::message::nested;
    use crate::kernel::message::tests::body;

    fn tun(settings: &[(u16, &[u8])]) -> LinkMessageBuilder<LinkUnspec> {
        let settings = settings.iter().map(|(kind, value)| InfoTun::Other(DefaultNla::new(*kind, value.to_vec()))).collect();
        LinkMessageBuilder::new_with_info_kind(InfoKind::Tun).index(7).set_info_data(InfoData::Tun(settings))
    }

    fn everything() -> Vec<u8> {
        let tap = [(IFLA_TUN_GROUP, &[36, 0, 0, 0][..]), (IFLA_TUN_TYPE, &[2]), (IFLA_TUN_PERSIST, &[1])];
        let port = vec![InfoBridgePort::State(BridgePortState::Forwarding), InfoBridgePort::Learning(false)];
        let altnames = vec![Prop::AltIfName("z".into()), Prop::AltIfName("a".into())];
        let v6 = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::Eui64)]);
        let mut link = tun(&tap)
            .append_extra_attribute(LinkAttribute::Other(DefaultNla::new(999, b"unknown".to_vec())))
            .name("nicdce531f90199")
            .mtu(1450)
            .controller(3)
            .link_group(9)
            .address(vec![0xfe, 1, 2, 3, 4, 5])
            .alias("store 5")
            .append_extra_attribute(LinkAttribute::PropList(altnames))
            .append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![v6]))
            .set_port_kind(InfoPortKind::Bridge)
            .set_port_data(InfoPortData::BridgePort(port))
            .build();
        link.header.flags = LinkFlags::Up | LinkFlags::LowerUp;
        body(RouteNetlinkMessage::NewLink(link))
    }

    proptest! {
        #[test]
        fn arbitrary_links_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = link(&bytes);
        }

        #[test]
        fn a_damaged_link_keeps_its_index(at in 16_usize..300, octet in any::<u8>(), cut in 16_usize..300) {
            let mut bytes = everything();
            if let Some(place) = bytes.get_mut(at) {
                *place = octet;
            }
            bytes.truncate(cut);
            prop_assert_eq!(link(&bytes).unwrap().index, 7);
        }
    }

    #[test]
    fn everything_a_tap_tells_is_read() {
        let expected = LinkState {
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
                locked: false,
                bpdu_guard: false,
                altered: false,
                suppresses: false,
                passes_link_local: false,
            }),
            tap: Some(TapSeen { persist: true, multi_queue: false, held: true, uid: None, gid: Some(36) }),
            ..LinkState::bare(7, "nicdce531f90199", Kind::Tap)
        };
        assert_eq!(link(&everything()).unwrap(), expected);
    }

    #[test]
    fn a_tun_is_no_tap() {
        let seen = link(&body(RouteNetlinkMessage::NewLink(tun(&[(IFLA_TUN_TYPE, &[1])]).build()))).unwrap();
        assert_eq!((seen.kind, seen.tap), (Kind::Other, None));
    }

    #[test]
    fn a_name_that_is_no_utf8_hides_no_other() {
        let names = [&b"a\xff\0"[..], b"b\0"].map(|name| DefaultNla::new(libc::IFLA_ALT_IFNAME, name.to_vec()));
        let message = LinkUnspec::new_with_index(7)
            .append_extra_attribute(LinkAttribute::Other(DefaultNla::new(IFLA_IFNAME, b"eth\xff\0".to_vec())))
            .append_extra_attribute(LinkAttribute::Other(nested(IFLA_PROP_LIST, &names)))
            .mtu(1400)
            .build();
        let seen = link(&body(RouteNetlinkMessage::NewLink(message))).unwrap();
        assert_eq!((seen.name.as_str(), seen.mtu), ("eth\u{fffd}", 1400));
        assert_eq!(seen.altnames, ["a\u{fffd}", "b"]);
    }

    #[test]
    fn a_port_is_altered_by_any_flag_that_is_not_as_ports_are_made() {
        let seen = |flag: InfoBridgePort| {
            let port = InfoPortData::BridgePort(vec![flag]);
            let message = LinkUnspec::new_with_index(7).set_port_kind(InfoPortKind::Bridge).set_port_data(port).build();
            link(&body(RouteNetlinkMessage::NewLink(message))).unwrap().bridge_port.unwrap()
        };
        assert!(PLAIN.iter().all(|plain| !seen(plain.clone()).altered));
        assert!(seen(InfoBridgePort::Isolated(true)).altered && seen(InfoBridgePort::MulticastFlood(false)).altered);
        assert!(seen(InfoBridgePort::MulticastRouter(BridgeMulticastRouterType::Disabled)).altered);
        assert!(!seen(InfoBridgePort::Learning(true)).altered && !seen(InfoBridgePort::Priority(7)).altered);
    }
}
