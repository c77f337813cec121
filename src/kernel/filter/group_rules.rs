//! The rules of security groups, in the same table. They come with the first port in groups and stay until the next start without one, for with them the kernel tracks the
//! connections of every bridge.
//!
//! ```text
//!  a frame ─► from_guest ─► track ─► conntrack ─► group_from ─► bridge ─► group_to ─► a guest
//!             anti-spoof    zone                  its device's             its device's
//! ```
//!
//! Profiles stand in the packet's mark and priority while it is looked up, as `nft` cannot list a key of which a part comes from a map.
//! Packets of connections that are there keep theirs.
//!
//! Who has an address on a bridge is known of this host's ports and, in a fleet, of other hosts' ([`super::remotes`]). The latter's packets
//! come by the device that leads there and are tracked as this host's members' are; what other guests say in their name is not.
//!
//! What answers an allowed packet is allowed by conntrack's entry. What begins a connection is looked up in sets of keys
//! ([`crate::plan::groups`]). Anti-spoof comes first: no group allows what it drops. What a guest needs to be found and to find
//! others is not asked of groups, nor is DHCP. The connections of a guest in no group count too where groups are in use on its bridge.

use netlink_packet_netfilter::nftables::Operator;

use super::elements::{Set, Sides};
use super::expression::{
    At, Expression, accept, bridge, compare, connections_over, counter, device, drop, goto, immediate, is, lack, load, log,
    lookup, lookup_value, mask, no_track, out_bridge, out_device, packet_mark, priority, protocol, set_packet_mark, set_priority,
    set_zone, state, status, update,
};
use super::ruleset::{
    ARP, Chain, ETHER_DESTINATION, ETHER_TYPE, ICMP6, IP4, IP4_DESTINATION, IP4_SOURCE, IP6, IP6_SOURCE, LOG_GROUP, LOGGED,
    POST_ROUTING, PRE_ROUTING, RARP, Rule, TCP, UDP, carried, nicds, not_nicds, octets, port, rule,
};
use crate::model::names::BRIDGES;
use crate::model::{Direction, Family};
use crate::plan::filter::Reason;

/// Before conntrack (`NF_IP_PRI_CONNTRACK`), after anti-spoof.
const TRACK: i32 = -250;

/// After conntrack, which has put fragments together.
const JUDGE: i32 = -150;

/// What frames to a guest are dropped in, and the prefix of what it logs.
pub(super) const DROP_TO: &str = "drop_group_to";
pub(super) const LOGGED_TO: &str = "group_to";

const IP6_DESTINATION: At = At::Network(24);

const ICMP: u8 = 1;

/// TCP, UDP, DCCP, SCTP and UDP-Lite have their destination port in the same place.
const WITH_PORTS: [u8; 5] = [TCP, UDP, 33, 132, 136];

/// `NF_CT_STATE_BIT` of states.
const INVALID: u8 = 1;
const ANSWERS: u8 = 2 | 4;
const NEW: u8 = 8;

/// One way through a guest's device.
struct Way {
    direction: Direction,
    family: Family,
    /// Where the address of the other side is.
    remote: At,
    /// Where what its packets carry goes on, by its form.
    chains: [&'static str; 3],
}

const WAYS: [Way; 4] = [
    Way {
        direction: Direction::Egress,
        family: Family::V4,
        remote: IP4_DESTINATION,
        chains: ["group_from4", "group_from4_icmp", "group_from4_port"],
    },
    Way {
        direction: Direction::Egress,
        family: Family::V6,
        remote: IP6_DESTINATION,
        chains: ["group_from6", "group_from6_icmp", "group_from6_port"],
    },
    Way {
        direction: Direction::Ingress,
        family: Family::V4,
        remote: IP4_SOURCE,
        chains: ["group_to4", "group_to4_icmp", "group_to4_port"],
    },
    Way {
        direction: Direction::Ingress,
        family: Family::V6,
        remote: IP6_SOURCE,
        chains: ["group_to6", "group_to6_icmp", "group_to6_port"],
    },
];

/// All chains, those first that others go to.
pub(super) fn chains(connections: u32) -> Vec<Chain> {
    let chain = |name, rules| Chain { name, hook: None, rules };
    let mut chains = vec![
        chain(DROP_TO, dropped_to()),
        chain(begins(Direction::Egress), within_limit(Direction::Egress, connections)),
        chain(begins(Direction::Ingress), within_limit(Direction::Ingress, connections)),
    ];
    for way in WAYS {
        let [all, icmp, ports] = way.chains;
        chains.push(chain(icmp, way.carries(|word| load(At::Transport(0), 2, word))));
        chains.push(chain(ports, way.carries(|word| load(At::Transport(2), 2, word))));
        chains.push(chain(all, way.judges()));
    }
    chains.extend([
        chain("group_egress", judged(Direction::Egress)),
        chain("group_ingress", judged(Direction::Ingress)),
        chain("zone", in_zone()),
        chain("track4_held", held(IP4_SOURCE, 4, Set::Remote4)),
        chain("track6_held", held(IP6_SOURCE, 16, Set::Remote6)),
        chain("track4", track_family(IP4_SOURCE, 4, Set::Holders4, "track4_held")),
        chain("track6", track_family(IP6_SOURCE, 16, Set::Holders6, "track6_held")),
        Chain { name: "track", hook: Some((PRE_ROUTING, TRACK)), rules: track() },
        Chain { name: "group_from", hook: Some((PRE_ROUTING, JUDGE)), rules: from_guests(connections) },
        Chain { name: "group_to", hook: Some((POST_ROUTING, JUDGE)), rules: of_members(Direction::Ingress, "group_ingress") },
    ]);
    chains
}

/// Which packets conntrack is to see, and in which zone. Frames of bridges without members are as before. The kernel can track the packet
/// behind a tag, which no rule here looks at.
fn track() -> Vec<Rule> {
    let [ip4, ip6] = [(IP4, "track4"), (IP6, "track6")].map(|(kind, chain)| rule([&octets(ETHER_TYPE, kind)], goto(chain)));
    vec![ip4, ip6, rule([&to_host()], accept()), rule([&zoned(), &[no_track()]], accept()), on_own_bridges()]
}

/// The frame is for a bridge's own device: the host tracks it as its own.
fn to_host() -> [Expression; 3] {
    [bridge(), load(ETHER_DESTINATION, 6, NAME), lookup(Set::Hosts.name())]
}

/// Its bridge has members. Loads the bridge's zone.
fn zoned() -> [Expression; 2] {
    [bridge(), lookup_value(Set::Zones.name())]
}

/// nicd's own bridges, which no other program filters, are not tracked without members.
fn on_own_bridges() -> Rule {
    rule([&nicds(), &[bridge(), is(BRIDGES.as_bytes())]], no_track())
}

/// The packet is tracked in its bridge's zone.
fn in_zone() -> Vec<Rule> {
    vec![rule([&to_host()], accept()), rule([&zoned(), &[set_zone()]], accept()), on_own_bridges()]
}

/// The same of a family's packets. What goes to many has no one answer.
fn track_family(source: At, length: u32, holders: Set, of_held: &str) -> Vec<Rule> {
    let to_many = [load(ETHER_DESTINATION, 1, 0), mask(&[1]), compare(Operator::NotEqual, &[0])];
    // Whose address a member has is known by the member's device alone: what others say in its name begins no connection of its. The
    // device's own set comes first: its keys are the shortest.
    let other = [device(0), lack(Set::Members.name())];
    let is_held = [bridge(), load(source, length, NAME), lookup_value(holders.name())];
    let mut rules = vec![rule([&to_many, &zoned(), &[no_track()]], accept()), rule([&other, &is_held], goto(of_held))];
    rules.extend(in_zone());
    rules
}

/// What comes by no member's device with an address that members have: it may come from another host's member, by the device that leads
/// there.
fn held(source: At, length: u32, remote: Set) -> Vec<Rule> {
    let is_remote = [bridge(), load(source, length, NAME), lookup(remote.name())];
    vec![rule([&not_nicds(), &is_remote], goto("zone")), rule([&[no_track()]], accept())]
}

/// What comes from, or goes to, devices of ports that are in groups. Most packets are of connections that are there, so that is asked
/// first: frames with a tag and what is not IP have none.
fn of_members(direction: Direction, chain: &str) -> Vec<Rule> {
    vec![rule([&is_any(ANSWERS)], accept()), vec![own(direction), lookup(Set::Members.name()), goto(chain)]]
}

/// The same of what comes from guests, with what comes from those in no group: they may not have too many connections either.
fn from_guests(connections: u32) -> Vec<Rule> {
    let over = [device(0), connections_over(Set::Connections.name(), connections)];
    let mut rules = of_members(Direction::Egress, "group_egress");
    rules.push(rule([&nicds(), &is_any(NEW), &begins_now(), &over], goto(drops(Direction::Egress))));
    rules
}

/// The guest's device.
fn own(direction: Direction) -> Expression {
    match direction {
        Direction::Egress => device(0),
        Direction::Ingress => out_device(0),
    }
}

fn drops(direction: Direction) -> &'static str {
    match direction {
        Direction::Egress => Reason::Group.chain(),
        Direction::Ingress => DROP_TO,
    }
}

fn begins(direction: Direction) -> &'static str {
    match direction {
        Direction::Egress => "group_begins",
        Direction::Ingress => "group_begins_to",
    }
}

/// The packet's state is one of these.
fn is_any(states: u8) -> [Expression; 3] {
    let states = u32::from(states).to_ne_bytes();
    [state(), mask(&states), compare(Operator::NotEqual, &[0; 4])]
}

/// The frame is of another protocol. One with a tag is of the tag's.
fn is_not(kind: [u8; 2]) -> [Expression; 2] {
    [load(ETHER_TYPE, 2, 0), compare(Operator::NotEqual, &kind)]
}

fn judged(direction: Direction) -> Vec<Rule> {
    let between = |first: u8, last: u8| {
        [load(At::Transport(0), 1, 0), compare(Operator::GreatherThanEqual, &[first]), compare(Operator::LessThanEqual, &[last])]
    };
    let [dhcp4, dhcp6] = match direction {
        Direction::Egress => [(68, 67), (546, 547)],
        Direction::Ingress => [(67, 68), (547, 546)],
    };
    // Neighbour discovery without redirects (RFC 4861), and who listens to which group (RFC 2710, RFC 3810).
    let [neighbours, listeners, listeners2] = [between(133, 136), between(130, 132), between(143, 143)];
    let found = |kinds: &[Expression]| rule([&octets(ETHER_TYPE, IP6), &carried(ICMP6), kinds], accept());
    // A connection that is taken up in its midst would be a new one of the wrong side.
    let midst = [load(At::Transport(13), 1, 0), mask(&[0x17]), compare(Operator::NotEqual, &[0x02])];
    let ways = WAYS.into_iter().filter(|way| way.direction == direction);
    let mut rules = vec![
        rule([&octets(ETHER_TYPE, ARP)], accept()),
        rule([&octets(ETHER_TYPE, RARP)], accept()),
        // Tags too: a guest takes a frame with a tag of VLAN 0 for one without.
        rule([&is_not(IP4), &is_not(IP6)], goto(drops(direction))),
        found(&neighbours),
        found(&listeners),
        found(&listeners2),
        rule([&octets(ETHER_TYPE, IP4), &carried(UDP), &port(0, dhcp4.0), &port(2, dhcp4.1)], goto(begins(direction))),
        rule([&octets(ETHER_TYPE, IP6), &carried(UDP), &port(0, dhcp6.0), &port(2, dhcp6.1)], goto(begins(direction))),
        rule([&is_any(INVALID)], goto(drops(direction))),
        rule([&is_any(NEW), &carried(TCP), &midst], goto(drops(direction))),
    ];
    // The guest's profile, as the packet's mark.
    rules.push(vec![own(direction), lookup_value(Set::Grouped.name()), set_packet_mark()]);
    rules.extend(ways.map(|way| rule([&octets(ETHER_TYPE, way.ether())], goto(way.chains[0]))));
    rules.push(vec![goto(drops(direction))]);
    rules
}

/// The name of a bridge takes so many words of a key.
const NAME: u32 = 4;

impl Way {
    fn ether(&self) -> [u8; 2] {
        match self.family {
            Family::V4 => IP4,
            Family::V6 => IP6,
        }
    }

    fn length(&self) -> u32 {
        match self.family {
            Family::V4 => 4,
            Family::V6 => 16,
        }
    }

    fn set(&self, sides: Sides) -> &'static str {
        Set::Allowed(self.direction, self.family, sides).name()
    }

    fn begins(&self) -> Expression {
        goto(begins(self.direction))
    }

    /// Notes the other side's profile as the packet's priority: 0 where it has none.
    fn notes_other(&self) -> [Rule; 2] {
        let bridge = if self.direction == Direction::Egress { bridge() } else { out_bridge() };
        let holders = if self.family == Family::V4 { Set::Holders4 } else { Set::Holders6 };
        let noted = vec![bridge, load(self.remote, self.length(), NAME), lookup_value(holders.name()), set_priority()];
        [vec![immediate(&[0; 4], 0), set_priority()], noted]
    }

    /// Whatever a packet carries first, then by what it carries.
    fn judges(&self) -> Vec<Rule> {
        let anything = [packet_mark(0), load(self.remote, self.length(), 1), lookup(self.set(Sides::Nets))];
        let of_group = [packet_mark(0), priority(1), lookup(self.set(Sides::Profiles))];
        let icmp = if self.family == Family::V4 { ICMP } else { ICMP6 };
        let [_, by_kind, by_port] = self.chains;
        let mut rules = vec![rule([&anything], self.begins())];
        rules.extend(self.notes_other());
        rules.push(rule([&of_group], self.begins()));
        rules.push(rule([&carried(icmp)], goto(by_kind)));
        rules.extend(WITH_PORTS.map(|protocol| rule([&carried(protocol)], goto(by_port))));
        rules.extend(self.carries(|word| immediate(&[0; 2], word)));
        rules
    }

    /// By the protocol and a word of the packet, which is loaded where it is told.
    fn carries(&self, word: impl Fn(u32) -> Expression) -> Vec<Rule> {
        let to_net =
            [packet_mark(0), protocol(1), word(2), load(self.remote, self.length(), 3), lookup(self.set(Sides::CarriedNets))];
        let of_group = [packet_mark(0), priority(1), protocol(2), word(3), lookup(self.set(Sides::CarriedProfiles))];
        vec![rule([&to_net], self.begins()), rule([&of_group], self.begins()), vec![goto(drops(self.direction))]]
    }
}

/// What begins a connection that its groups allow: it is let on while the guest does not have too many.
fn within_limit(direction: Direction, connections: u32) -> Vec<Rule> {
    let over = [own(direction), connections_over(Set::Connections.name(), connections)];
    vec![
        rule([&is_any(NEW), &begins_now(), &over], goto(drops(direction))),
        vec![immediate(&[0; 4], 0), set_packet_mark(), set_priority(), accept()],
    ]
}

/// Conntrack's entry is not in its table yet (`IPS_CONFIRMED`): it is the first packet of its connection.
fn begins_now() -> [Expression; 3] {
    [status(), mask(&8_u32.to_ne_bytes()), is(&[0; 4])]
}

/// As [`Reason::Group`]'s chain, of the device that the frame was about to leave by.
fn dropped_to() -> Vec<Rule> {
    vec![
        vec![counter(0, 0)],
        vec![out_device(0), update(Set::Logged.name()), log(LOG_GROUP, LOGGED_TO, LOGGED)],
        vec![out_device(0), update(Reason::Group.set()), drop()],
        vec![drop()],
    ]
}
