//! The static half of `table bridge nicd`: sets, chains and rules, which are the same whatever ports there are. What a port
//! may send is elements of the sets ([`super::elements`]).
//!
//! A device is known by its index, which nicd chooses before the device is there, and which a rename leaves. What comes by a
//! device with an index of nicd's range and without elements is dropped.

use netlink_packet_netfilter::nftables::Operator;

use super::expression::{
    At, Expression, accept, compare, counter, device, drop, fragment_offset, goto, is, is_fragment, lack, load, log, lookup,
    mark_as, mask, out_device, overwrite, protocol, update,
};
use crate::model::names::{FIRST_INDEX, FIRST_TUNNEL_INDEX};
use crate::plan::filter::Reason;

/// The group of NFLOG that some of each port's dropped frames are logged to.
pub(super) const LOG_GROUP: u16 = 0x6e69;

/// So much of a frame is logged: Ethernet, a tag, IPv6 and some of what it carries, in octets.
pub(super) const LOGGED: u32 = 96;

/// An index of nicd's range has one of these bits: it is a power of two or more (`names::FIRST_INDEX`).
const NICD: u32 = 0x7fff_ffff & !(FIRST_INDEX - 1);

/// Of these bits an index of a VXLAN device has the lowest alone: its range ends at twice its beginning.
const TUNNELS: u32 = 0x7fff_ffff & !(FIRST_TUNNEL_INDEX - 1);

/// A chain and its rules.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Chain {
    pub(super) name: &'static str,
    /// Where it is asked, where the kernel does that by itself: the hook and the priority among others there.
    pub(super) hook: Option<(u32, i32)>,
    pub(super) rules: Vec<Rule>,
}

/// What a rule does, one after the other, until one does not match.
pub(super) type Rule = Vec<Expression>;

/// `NF_BR_PRE_ROUTING`.
pub(super) const PRE_ROUTING: u32 = 0;

/// `NF_BR_LOCAL_IN`.
const LOCAL_IN: u32 = 1;

/// `NF_BR_FORWARD`.
const FORWARD: u32 = 2;

/// `NF_BR_LOCAL_OUT`.
const LOCAL_OUT: u32 = 3;

/// `NF_BR_POST_ROUTING`.
pub(super) const POST_ROUTING: u32 = 4;

/// Before everybody else's: nothing of a forged frame is to be seen by conntrack or a NAT of bridged frames.
const PRIORITY: i32 = -300;

pub(super) const IP4: [u8; 2] = [0x08, 0x00];
pub(super) const ARP: [u8; 2] = [0x08, 0x06];
pub(super) const RARP: [u8; 2] = [0x80, 0x35];
pub(super) const IP6: [u8; 2] = [0x86, 0xdd];

/// What a frame with a tag of a VLAN begins with (802.1Q, 802.1ad).
const TAGS: [[u8; 2]; 2] = [[0x81, 0x00], [0x88, 0xa8]];

/// ARP for IPv4 over Ethernet: hardware and protocol type, and their addresses' lengths.
const ARP_HEADER: [u8; 6] = [0, 1, 8, 0, 6, 4];

pub(super) const ETHER_DESTINATION: At = At::Link(0);
const ETHER_SOURCE: At = At::Link(6);
pub(super) const ETHER_TYPE: At = At::Link(12);
pub(super) const IP4_SOURCE: At = At::Network(12);
pub(super) const IP4_DESTINATION: At = At::Network(16);
pub(super) const IP6_SOURCE: At = At::Network(8);
const ARP_OPERATION: At = At::Network(6);
const ARP_SENDER_MAC: At = At::Network(8);
const ARP_SENDER: At = At::Network(14);
const ARP_TARGET_MAC: At = At::Network(18);
const ARP_TARGET: At = At::Network(24);
/// The address that a neighbour solicitation or advertisement is about (RFC 4861, 4.3 and 4.4).
const ND_TARGET: At = At::Transport(8);

/// What follows it.
const ND_OPTIONS: u32 = 24;
/// The client's MAC in DHCP for IPv4, behind UDP's header (RFC 2131, 2).
const DHCP_CLIENT: At = At::Transport(36);

/// Whether it asks or answers, and the relay that has sent it on.
const DHCP_OPERATION: At = At::Transport(8);
const DHCP_RELAY: At = At::Transport(32);

/// `PACKET_OTHERHOST` (linux/if_packet.h).
const OTHER_HOST: u8 = 3;

const IGMP: u8 = 2;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const ICMP6: u8 = 58;
/// ICMPv6's type (RFC 4861, 4.1).
pub(super) const ROUTER_SOLICITATION: u8 = 133;
const PIM: u8 = 103;

/// Where a key's parts stand: the device, the MAC, the address.
const MAC: u32 = 1;
const ADDRESS: u32 = 3;

/// All chains, those first that others go to; with those of groups where it is said how many connections a port in them may have.
pub(super) fn chains(groups: Option<u32>) -> Vec<Chain> {
    let chain = |name, rules| Chain { name, hook: None, rules };
    let mut chains: Vec<Chain> = Reason::ALL.into_iter().map(|reason| chain(reason.chain(), dropped(reason))).collect();
    chains.extend([
        chain("ip4_source", ip4_source()),
        chain("group_member", group_member()),
        chain("igmp", igmp()),
        chain("turn", turn()),
        chain("request", request()),
        chain("request6", request6()),
        chain("dhcp", dhcp()),
        chain("ip4_udp", ip4_udp()),
        chain("guard_ip4", ip4()),
        chain("arp_message", arp_message()),
        chain("guard_arp", arp()),
        chain("guard_rarp", rarp()),
        chain("ip6_source", ip6_source()),
        chain("router_solicit", router_solicit()),
        chain("solicit", solicit()),
        chain("advertise", advertise()),
        chain("icmp6", icmp6()),
        chain("ip6_transport", ip6_transport()),
        chain("guard_ip6", ip6()),
        chain("guard", guard()),
        chain("unguarded", unguarded()),
        Chain { name: "from_guest", hook: Some((PRE_ROUTING, PRIORITY)), rules: from_guest() },
        chain("isolated", isolated()),
        Chain { name: "to_guest", hook: Some((POST_ROUTING, PRIORITY)), rules: to_guest() },
        Chain { name: "to_bridge", hook: Some((LOCAL_IN, PRIORITY)), rules: to_bridge() },
        Chain { name: "to_others", hook: Some((FORWARD, PRIORITY)), rules: to_others() },
        Chain { name: "from_bridge", hook: Some((LOCAL_OUT, PRIORITY)), rules: from_bridge() },
    ]);
    chains.extend(groups.into_iter().flat_map(super::group_rules::chains));
    chains
}

/// All that comes by any bridge's port.
fn from_guest() -> Vec<Rule> {
    vec![
        vec![device(0), lookup("rates"), goto(Reason::Limit.chain())],
        vec![device(0), lookup("guarded"), goto("guard")],
        vec![device(0), lookup("open"), goto("unguarded")],
        rule([&nicds()], drop()),
        rule([&from_tunnel(), &[load(ETHER_SOURCE, 6, 0), lookup("tunnelled")]], drop()),
    ]
}

/// What a port with port security off sends, of which requests matter, and of a trunk's tags.
fn unguarded() -> Vec<Rule> {
    let tagged =
        TAGS.map(|tag| rule([&octets(ETHER_TYPE, tag), &[device(0), lookup("trunks")]], goto(Reason::Ethertype.chain())));
    tagged.into_iter().chain(requests_of_served(&goto("turn"))).chain([vec![accept()]]).collect()
}

/// The frame is from a guest of which nicd answers this, whom its device and its own MAC together name: with another MAC it may be an
/// address pair's or, with port security off, another guest's.
fn is_in(set: &str) -> [Expression; 3] {
    [device(0), load(ETHER_SOURCE, 6, MAC), lookup(set)]
}

/// What a guest asks and nicd answers: a whole DHCP request over IPv4, or its first fragment, a DHCPv6 request, a router solicitation.
/// What a relay sends on is from a server's port, and is none. The set comes last: it costs more than the rest, and few packets get so
/// far.
fn requests_of_served(then: &Expression) -> Vec<Rule> {
    let (ip4, ip6) = (octets(ETHER_TYPE, IP4), octets(ETHER_TYPE, IP6));
    let solicitation = octets(At::Transport(0), [ROUTER_SOLICITATION]);
    vec![
        rule([&ip4, &carried(UDP), &port(2, 67), &other_port(0, 67), &begins(), &is_in("served")], then.clone()),
        rule([&ip6, &carried(UDP), &port(2, 547), &other_port(0, 547), &is_in("served6")], then.clone()),
        rule([&ip6, &carried(ICMP6), &solicitation, &is_in("solicited")], then.clone()),
    ]
}

/// The packet is no later fragment of IPv4.
fn begins() -> [Expression; 3] {
    [load(At::Network(6), 2, 0), mask(&[0x1f, 0xff]), is(&[0; 2])]
}

fn request() -> Vec<Rule> {
    vec![rule([&is_in("served")], goto("turn")), vec![accept()]]
}

/// A request that nicd answers goes to the bridge alone, whichever MAC it is for, as another host's: the responder hears it there, and
/// the host's own stack takes no such packet. So fast and no faster each guest is heard: what it asks beyond that is dropped and delays no other guest.
fn turn() -> Vec<Rule> {
    let turn = [&overwrite(0, &[0xff; 6])[..], &mark_as(OTHER_HOST)].concat();
    vec![rule([&[device(0), lookup("requests")], &turn], accept()), vec![goto(Reason::Limit.chain())]]
}

/// The same over IPv6 of what is from no client's port, so from an address of the port's.
fn request6() -> Vec<Rule> {
    let from = |set| rule([&allowed(ETHER_SOURCE, IP6_SOURCE, 16, set)], goto("turn"));
    vec![from("hosts6"), from("nets6"), vec![goto(Reason::Ip6.chain())]]
}

/// What a guest asks that relays for itself, as load generators do: from a server's port, and the relay's address is one of its port's.
fn relayed_by_itself() -> Vec<Expression> {
    let (asks, own) = (octets(DHCP_OPERATION, [1]), allowed(ETHER_SOURCE, DHCP_RELAY, 4, "hosts4"));
    [&port(2, 67)[..], &port(0, 67), &asks, &own, &is_in("served")].concat()
}

/// What a bridge is about to send on to another port.
fn to_others() -> Vec<Rule> {
    let mut rules = requests_of_served(&drop());
    rules.push(rule([&octets(ETHER_TYPE, IP4), &carried(UDP), &begins(), &relayed_by_itself()], drop()));
    rules
}

/// What switches say to each other (IEEE 802.1D, table 7-10) and the bridge does not forward: it does not come by the other hook.
fn to_bridge() -> Vec<Rule> {
    let group = [load(ETHER_DESTINATION, 6, 0), mask(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xf0]), is(&[1, 0x80, 0xc2, 0, 0, 0])];
    vec![rule([&group, &nicds()], goto(Reason::Ethertype.chain()))]
}

/// What is sent by a bridge's own device. What nicd says there of a port's addresses is not for that port: its guest would take it for
/// another machine's that has or wants them (RFC 4862, 5.4.3; RFC 5227, 2.1.1).
fn from_bridge() -> Vec<Rule> {
    let own = [out_device(0), load(ETHER_SOURCE, 6, MAC), lookup("macs")];
    let (arp, request) = (octets(ETHER_TYPE, ARP), octets(ARP_OPERATION, [0, 1]));
    let probes = [out_device(0), load(ARP_TARGET_MAC, 6, MAC), load(ARP_TARGET, 4, ADDRESS), lookup("hosts4")];
    let (ip6, nonce) = (octets(ETHER_TYPE, IP6), octets(At::Transport(ND_OPTIONS), [14, 1]));
    let probes6 = [out_device(0), load(At::Transport(ND_OPTIONS + 2), 6, MAC), load(ND_TARGET, 16, ADDRESS), lookup("hosts6")];
    let solicitation = octets(At::Transport(0), [135]);
    vec![
        rule([&own], drop()),
        rule([&arp, &request, &octets(ARP_SENDER, [0; 4]), &probes], drop()),
        rule([&ip6, &carried(ICMP6), &solicitation, &octets(IP6_SOURCE, [0; 16]), &nonce, &probes6], drop()),
    ]
}

/// All that leaves by any bridge's port. A trunk's guest would take a frame of its own network with a tag for a subport's, and what is
/// for a subport comes by its VLAN device.
fn to_guest() -> Vec<Rule> {
    let tagged = TAGS.map(|tag| rule([&octets(ETHER_TYPE, tag), &[out_device(0), lookup("trunks")]], drop()));
    let closed = vec![out_device(0), lookup("closed"), drop()];
    [closed].into_iter().chain(tagged).chain([vec![out_device(0), lookup("isolated"), goto("isolated")]]).collect()
}

/// What is for the guest alone, and what it needs to be found and to find others. Whether what is for one MAC is the guest's the
/// bridge's entries say.
fn isolated() -> Vec<Rule> {
    let for_one = [load(ETHER_DESTINATION, 1, 0), mask(&[1]), is(&[0])];
    let kind = |kind| octets(At::Transport(0), [kind]);
    let found =
        [load(At::Transport(0), 1, 0), compare(Operator::GreatherThanEqual, &[134]), compare(Operator::LessThanEqual, &[136])];
    vec![
        rule([&for_one], accept()),
        rule([&[load(ETHER_TYPE, 2, 0)], &[is(&ARP)]], accept()),
        rule([&carried(UDP), &port(0, 67), &port(2, 68)], accept()),
        rule([&carried(IGMP), &kind(0x11)], accept()),
        rule([&carried(ICMP6), &found], accept()),
        rule([&carried(ICMP6), &kind(130)], accept()),
        vec![drop()],
    ]
}

/// It comes by a device with an index of nicd's range.
pub(super) fn nicds() -> [Expression; 3] {
    [device(0), mask(&NICD.to_ne_bytes()), compare(Operator::NotEqual, &[0; 4])]
}

/// It comes by another device: it comes from no guest.
pub(super) fn not_nicds() -> [Expression; 3] {
    [device(0), mask(&NICD.to_ne_bytes()), is(&[0; 4])]
}

/// It comes by a VXLAN device: one with an index of that range.
fn from_tunnel() -> [Expression; 3] {
    [device(0), mask(&TUNNELS.to_ne_bytes()), is(&FIRST_TUNNEL_INDEX.to_ne_bytes())]
}

fn guard() -> Vec<Rule> {
    let carries = |kind, chain| rule([&octets(ETHER_TYPE, kind)], goto(chain));
    let [tcp, udp] = usual();
    vec![
        tcp,
        udp,
        vec![device(0), load(ETHER_SOURCE, 6, MAC), lack("macs"), goto(Reason::Mac.chain())],
        carries(IP4, "guard_ip4"),
        carries(IP6, "guard_ip6"),
        carries(ARP, "guard_arp"),
        carries(RARP, "guard_rarp"),
        // Tags of VLANs, LLC and its SNAP, BPDUs, LLDP, MACsec and what else there is.
        vec![goto(Reason::Ethertype.chain())],
    ]
}

/// Most packets: TCP and UDP over IPv4 from an address of the port's, by one lookup. The rules behind these accept them too.
fn usual() -> [Rule; 2] {
    let ip4 = octets(ETHER_TYPE, IP4);
    let own = allowed(ETHER_SOURCE, IP4_SOURCE, 4, "hosts4");
    let no_dhcp = [other_port(0, 67), other_port(2, 67), other_port(2, 68)].concat();
    [rule([&ip4, &carried(TCP), &own], accept()), rule([&ip4, &carried(UDP), &no_dhcp, &own], accept())]
}

/// The port's MAC with this address is allowed.
fn allowed(mac: At, address: At, length: u32, set: &str) -> [Expression; 4] {
    [device(0), load(mac, 6, MAC), load(address, length, ADDRESS), lookup(set)]
}

pub(super) fn carried(carried: u8) -> [Expression; 2] {
    [protocol(0), is(&[carried])]
}

pub(super) fn octets<const N: usize>(at: At, value: [u8; N]) -> [Expression; 2] {
    [load(at, u32::try_from(N).unwrap_or_default(), 0), is(&value)]
}

pub(super) fn rule<const N: usize>(parts: [&[Expression]; N], last: Expression) -> Rule {
    parts.concat().into_iter().chain([last]).collect()
}

/// Whether the frame has an octet there.
fn reaches(at: At) -> [Expression; 2] {
    // A listing shows what is loaded by what is done with it.
    [load(at, 1, 0), compare(Operator::GreatherThanEqual, &[0])]
}

pub(super) fn port(at: u32, port: u16) -> [Expression; 2] {
    octets(At::Transport(at), port.to_be_bytes())
}

fn other_port(at: u32, port: u16) -> [Expression; 2] {
    [load(At::Transport(at), 2, 0), compare(Operator::NotEqual, &port.to_be_bytes())]
}

fn ip4() -> Vec<Rule> {
    vec![
        rule([&carried(UDP)], goto("ip4_udp")),
        rule([&carried(IGMP)], goto("igmp")),
        // A multicast router's port is sent all groups' frames.
        rule([&carried(PIM)], goto(Reason::Ip4.chain())),
        vec![goto("ip4_source")],
    ]
}

/// IPv4's flags and offset have one of these bits: of a later fragment the kernel takes data for what it carries
/// (`nft_payload_fast_eval`, net/netfilter/nf_tables_core.c).
fn is_fragment_of_ip4(bits: [u8; 2]) -> [Expression; 3] {
    [load(At::Network(6), 2, 0), mask(&bits), compare(Operator::NotEqual, &[0; 2])]
}

fn ip4_udp() -> Vec<Rule> {
    vec![
        rule([&is_fragment_of_ip4([0x1f, 0xff])], goto("ip4_source")),
        rule([&relayed_by_itself()], goto("turn")),
        rule([&port(0, 67)], goto(Reason::DhcpServer.chain())),
        rule([&port(2, 68)], goto(Reason::DhcpServer.chain())),
        rule([&port(2, 67)], goto("dhcp")),
        vec![goto("ip4_source")],
    ]
}

/// A client's request is for its own MAC: with others a guest would take all of a server's addresses. What goes to nicd alone may come
/// from any address: a guest that renews one that its port has lost is to hear that.
fn dhcp() -> Vec<Rule> {
    let own = [device(0), load(DHCP_CLIENT, 6, MAC), lookup("macs")];
    let to_all = octets(IP4_DESTINATION, [255; 4]);
    let from = |set| rule([&own, &[protocol(0)], &allowed(ETHER_SOURCE, IP4_SOURCE, 4, set)], goto("request"));
    vec![
        rule([&port(0, 68), &own, &is_in("served")], goto("turn")),
        rule([&octets(IP4_SOURCE, [0; 4]), &to_all, &port(0, 68), &own], goto("request")),
        from("hosts4"),
        from("nets4"),
        vec![goto(Reason::Ip4.chain())],
    ]
}

/// Members' reports and leaves; the port of a querier or a multicast router is sent all groups' frames.
fn igmp() -> Vec<Rule> {
    let kind = |kind| rule([&octets(At::Transport(0), [kind])], goto("group_member"));
    vec![
        rule([&is_fragment_of_ip4([0x3f, 0xff])], goto(Reason::Ip4.chain())),
        kind(0x12),
        kind(0x16),
        kind(0x17),
        kind(0x22),
        vec![goto(Reason::Ip4.chain())],
    ]
}

fn group_member() -> Vec<Rule> {
    // Before a host has an address (RFC 3376, 4.2.13).
    vec![rule([&octets(IP4_SOURCE, [0; 4])], accept()), vec![goto("ip4_source")]]
}

fn ip4_source() -> Vec<Rule> {
    let from = |set| rule([&[protocol(0)], &allowed(ETHER_SOURCE, IP4_SOURCE, 4, set)], accept());
    vec![from("hosts4"), from("nets4"), vec![goto(Reason::Ip4.chain())]]
}

fn arp() -> Vec<Rule> {
    let is_whole = [&octets(At::Network(0), ARP_HEADER)[..], &reaches(At::Network(27))].concat();
    vec![rule([&is_whole], goto("arp_message")), vec![goto(Reason::Arp.chain())]]
}

fn arp_message() -> Vec<Rule> {
    let request = octets(ARP_OPERATION, [0, 1]);
    let either =
        [load(ARP_OPERATION, 2, 0), compare(Operator::GreatherThanEqual, &[0, 1]), compare(Operator::LessThanEqual, &[0, 2])];
    let unspecified = octets(ARP_SENDER, [0; 4]);
    let speaks = |set| rule([&either, &allowed(ARP_SENDER_MAC, ARP_SENDER, 4, set)], accept());
    // RFC 5227: who asks whether an address is free that it may have. Others' would disturb them.
    let probes = |set| rule([&request, &unspecified, &allowed(ARP_SENDER_MAC, ARP_TARGET, 4, set)], accept());
    vec![speaks("hosts4"), probes("hosts4"), speaks("nets4"), probes("nets4"), vec![goto(Reason::Arp.chain())]]
}

/// What a VMM sends for a guest that has moved, so that switches learn where it is: a request for its own address.
fn rarp() -> Vec<Rule> {
    let own = |at| [device(0), load(at, 6, MAC), lookup("macs")];
    let header = octets(At::Network(0), [0, 1, 8, 0, 6, 4, 0, 3]);
    let (from, to) = (octets(ARP_SENDER, [0; 4]), octets(ARP_TARGET, [0; 4]));
    vec![rule([&header, &from, &to, &own(ARP_SENDER_MAC), &own(ARP_TARGET_MAC)], accept()), vec![goto(Reason::Arp.chain())]]
}

/// Of a later fragment only the addresses can be checked. Of every other packet what it carries must begin in it: a first
/// fragment that hides it behind extension headers could be anything once it is put together (RFC 7112).
fn ip6() -> Vec<Rule> {
    let later = [fragment_offset(), mask(&[0xff, 0xf8]), compare(Operator::NotEqual, &[0, 0])];
    vec![
        rule([&later, &[load(At::Network(0), 1, 0), mask(&[0xf0]), is(&[0x60])]], goto("ip6_source")),
        // Of three octets the kernel loads none where there is a later fragment within this one; of fewer it does.
        vec![load(At::Transport(0), 3, 0), compare(Operator::GreatherThanEqual, &[0; 3]), goto("ip6_transport")],
        vec![goto(Reason::Ip6.chain())],
    ]
}

fn ip6_transport() -> Vec<Rule> {
    vec![
        rule([&carried(ICMP6)], goto("icmp6")),
        rule([&carried(UDP), &port(0, 547)], goto(Reason::DhcpServer.chain())),
        rule([&carried(UDP), &port(2, 546)], goto(Reason::DhcpServer.chain())),
        // A link-local address need not be made of the MAC (RFC 7217), and is where nothing else has been told yet.
        rule([&carried(UDP), &port(0, 546), &port(2, 547), &is_in("served6")], goto("turn")),
        rule([&carried(UDP), &port(2, 547), &is_in("served6")], goto("request6")),
        rule([&carried(PIM)], goto(Reason::Ip6.chain())),
        vec![goto("ip6_source")],
    ]
}

fn icmp6() -> Vec<Rule> {
    let kind = |kind| octets(At::Transport(0), [kind]);
    let icmp = |one, chain| rule([&kind(one)], goto(chain));
    let unspecified = octets(IP6_SOURCE, [0; 16]);
    let before = |one| rule([&unspecified, &kind(one)], accept());
    let neighbour =
        [load(At::Transport(0), 1, 0), compare(Operator::GreatherThanEqual, &[133]), compare(Operator::LessThanEqual, &[137])];
    vec![
        // A host that follows RFC 6980 takes no neighbour discovery out of fragments; an older one does.
        rule([&[is_fragment()], &[is(&[1])], &neighbour], goto(Reason::Nd.chain())),
        icmp(ROUTER_SOLICITATION, "router_solicit"),
        icmp(134, Reason::Ra.chain()),
        icmp(135, "solicit"),
        icmp(136, "advertise"),
        icmp(137, Reason::Ra.chain()),
        // The port of a querier or a multicast router (RFC 4286) is sent all groups' frames.
        icmp(130, Reason::Nd.chain()),
        icmp(151, Reason::Nd.chain()),
        before(131),
        before(132),
        before(143),
        vec![goto("ip6_source")],
    ]
}

fn ip6_source() -> Vec<Rule> {
    let from = |set| rule([&allowed(ETHER_SOURCE, IP6_SOURCE, 16, set)], accept());
    vec![from("hosts6"), from("nets6"), vec![goto(Reason::Ip6.chain())]]
}

/// Options of neighbour discovery from here on: none, or one that says which MAC has an address, if it may be used with it.
/// Of several a receiver could take another one.
fn link_layer(kind: u8, at: u32, address: At, then: &str) -> Vec<Rule> {
    let own = |set| {
        let option = octets(At::Transport(at), [kind, 1]);
        rule([&option, &allowed(At::Transport(at + 2), address, 16, set)], goto(then))
    };
    let options = |at| rule([&reaches(At::Transport(at))], goto(Reason::Nd.chain()));
    vec![options(at + 8), own("hosts6"), own("nets6"), options(at)]
}

fn router_solicit() -> Vec<Rule> {
    let unspecified = octets(IP6_SOURCE, [0; 16]);
    // From any address and with any option: nicd, which alone hears it, answers by the device and to the port's MAC.
    let mut rules = vec![rule([&is_in("solicited")], goto("turn")), rule([&unspecified], accept())];
    rules.extend(link_layer(1, 8, IP6_SOURCE, "ip6_source"));
    rules.push(vec![goto("ip6_source")]);
    rules
}

/// Who asks whether an address is free (RFC 4862, 5.4) may ask for its own alone: others' would take the address to be in use.
fn solicit() -> Vec<Rule> {
    let unspecified = octets(IP6_SOURCE, [0; 16]);
    let probes = |set| rule([&unspecified, &allowed(ETHER_SOURCE, ND_TARGET, 16, set)], accept());
    let mut rules = vec![probes("hosts6"), probes("nets6"), rule([&unspecified], goto(Reason::Nd.chain()))];
    rules.extend(link_layer(1, ND_OPTIONS, IP6_SOURCE, "ip6_source"));
    rules.push(vec![goto("ip6_source")]);
    rules
}

fn advertise() -> Vec<Rule> {
    let claims = |set| rule([&allowed(ETHER_SOURCE, ND_TARGET, 16, set)], goto("ip6_source"));
    let mut rules = link_layer(2, ND_OPTIONS, ND_TARGET, "ip6_source");
    rules.extend([claims("hosts6"), claims("nets6"), vec![goto(Reason::Nd.chain())]]);
    rules
}

/// Counts what is dropped, logs some of it, counts it by device, and drops it: also when a set is full and has no element for the
/// device.
fn dropped(reason: Reason) -> Vec<Rule> {
    vec![
        vec![counter(0, 0)],
        vec![device(0), update("logged"), log(LOG_GROUP, reason.as_str(), LOGGED)],
        vec![device(0), update(reason.set()), drop()],
        vec![drop()],
    ]
}
