//! Links as kernels tell of them (`tests/fixtures/links`), whole and damaged: nothing panics, no dump is shorter than it was without
//! saying so, and what can be read is read.

use libc::{
    IFLA_AF_SPEC, IFLA_IFALIAS, IFLA_IFNAME, IFLA_INFO_DATA, IFLA_INFO_SLAVE_DATA, IFLA_LINK_NETNSID, IFLA_LINKINFO,
    IFLA_PROP_LIST,
};
use netlink_packet_core::{NLA_F_NESTED, NLMSG_DONE, NetlinkBuffer};
use proptest::prelude::*;
use proptest::sample::Index;

use super::message::{attributes, messages, value};
use super::seen::{IFINFO, link};
use super::socket::{Dump, Step, walk};
use crate::model::Mac;
use crate::plan::{Kind, LinkState, VxlanSeen};

/// Length of `struct nlmsghdr`.
const NLMSGHDR: usize = 16;

const KERNELS: [&str; 2] =
    [include_str!("../../tests/fixtures/links/linux-6.1.txt"), include_str!("../../tests/fixtures/links/linux-6.18.txt")];

/// The links of one kernel: their names, and the messages.
fn links(kernel: &str) -> impl Iterator<Item = (&str, Vec<u8>)> {
    kernel.lines().map(|line| {
        let (name, hex) = line.split_once(' ').expect("a name and octets");
        let octet = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
        (name, (0..hex.len()).step_by(2).map(octet).collect())
    })
}

fn body(message: &[u8]) -> &[u8] {
    &message[NLMSGHDR..]
}

fn seen(kernel: &str, name: &str) -> LinkState {
    let (_, message) = links(kernel).find(|(found, _)| *found == name).expect("such a link");
    link(body(&message)).expect("a link")
}

#[test]
fn each_kernels_links_are_read() {
    for kernel in KERNELS {
        for (name, message) in links(kernel) {
            let seen = link(body(&message)).expect(name);
            assert!(seen.name.ends_with(name) && seen.index != 0 && seen.mtu > 0, "{seen:?}");
        }
        let (tap, queues) = (seen(kernel, "tap0"), seen(kernel, "tap1"));
        assert_eq!(tap.kind, Kind::Tap);
        assert_eq!(tap.altnames, ["nicd-00000000-0000-4000-8000-000000000002", "second-name"]);
        assert_eq!(tap.alias.as_deref(), Some("nicd 00000000-0000-4000-8000-0000000000aa 6"));
        assert_eq!(tap.mac, Some(Mac([0xfe, 0x16, 0x3e, 1, 2, 3])));
        assert_eq!(tap.tap.map(|tap| (tap.persist, tap.uid, tap.gid)), Some((true, Some(1000), Some(36))));
        assert!(tap.up && tap.master.is_some() && tap.bridge_port.is_some_and(|port| port.learning && !port.altered));
        assert!(queues.kind == Kind::Tap && queues.tap.is_some_and(|tap| tap.multi_queue));
        let veth = seen(kernel, "v0");
        assert_eq!((veth.kind.clone(), veth.master), (Kind::Veth, Some(seen(kernel, "br0").index)));
        assert_eq!((veth.lower, veth.beside), (Some(seen(kernel, "v1").index), Some(seen(kernel, "v1").index)));
        let port = veth.bridge_port.expect("a port of a bridge");
        assert!(port.passes_link_local && !port.learning && !port.unicast_flood);
        assert!(veth.v6_autoconf && veth.v4_open);
        let (bridge, macvlan) = (seen(kernel, "br0"), seen(kernel, "macvlan"));
        assert_eq!((bridge.kind, bridge.up), (Kind::Bridge, true));
        let vxlan = seen(kernel, "vxlan");
        let settings = VxlanSeen { vni: 5, port: 4789, local: Some([192, 0, 2, 1].into()), learning: true, altered: false };
        assert_eq!((vxlan.kind, vxlan.vxlan), (Kind::Vxlan, Some(settings)));
        assert_eq!((macvlan.kind.clone(), macvlan.beside), (Kind::Other, Some(seen(kernel, "v1").index)));
    }
    let [old, new] = KERNELS;
    assert!(seen(old, "br0").extras.vlan_filtering && seen(old, "br0").extras.stp && !seen(new, "br0").extras.stp);
    assert!(seen(old, "v0").bridge_port.is_some_and(|port| port.altered), "it is isolated");
    assert!(seen(old, "br1").nf_call.v4 && !seen(old, "br1").nf_call.v6);
    let vlan = seen(old, "vlan");
    assert_eq!((vlan.kind.clone(), vlan.lower, vlan.beside), (Kind::Vlan, Some(seen(old, "v1").index), None));
    assert!(vlan.tag.is_some_and(|tag| tag.id > 0), "{vlan:?}");
    assert_eq!(seen(old, "away").lower, None, "its other end is elsewhere");
    assert!(seen(old, "bonded").bridge_port.is_none() && seen(old, "bonded").master.is_some());
    assert_eq!(seen(new, "tun0").kind, Kind::Other);
}

/// An attribute, taken apart where the reader takes it apart.
#[derive(Debug, Clone)]
struct Node {
    kind: u16,
    inner: Inner,
    damage: Option<Damage>,
}

#[derive(Debug, Clone)]
enum Inner {
    Value(Vec<u8>),
    Attributes(Vec<Node>),
}

/// What becomes of an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    /// Half of its value is not there.
    Cut,
    /// None of its value is there.
    Empty,
    /// It says that it is 0 octets long, and is not.
    NoLength,
    /// It says that it is 0xffff octets long, and is not.
    Endless,
}

impl Node {
    /// The attributes behind a fixed part, where `nest` says of each kind whether it is made of attributes.
    fn tree(bytes: &[u8], fixed: usize, above: &[u16]) -> Vec<Self> {
        let node = |attribute| {
            let (value, kind) = (value(&attribute), attribute.kind());
            let nested = match above {
                [] => [IFLA_LINKINFO, IFLA_AF_SPEC, IFLA_PROP_LIST].contains(&kind),
                [IFLA_LINKINFO] => [IFLA_INFO_DATA, IFLA_INFO_SLAVE_DATA].contains(&kind),
                [IFLA_AF_SPEC] => true,
                _ => false,
            };
            let inner = match nested {
                true => Inner::Attributes(Self::tree(value, 0, &[above, &[kind]].concat())),
                false => Inner::Value(value.to_vec()),
            };
            Self { kind, inner, damage: None }
        };
        attributes(bytes, fixed).map(node).collect()
    }

    fn emit(&self, bytes: &mut Vec<u8>) {
        let mut value = match &self.inner {
            Inner::Value(value) => value.clone(),
            Inner::Attributes(nodes) => emitted(nodes),
        };
        match self.damage {
            Some(Damage::Cut) => value.truncate(value.len() / 2),
            Some(Damage::Empty) => value.clear(),
            Some(Damage::NoLength | Damage::Endless) | None => {}
        }
        let length = match self.damage {
            Some(Damage::NoLength) => 0,
            Some(Damage::Endless) => u16::MAX,
            _ => u16::try_from(4 + value.len()).expect("short"),
        };
        bytes.extend(length.to_ne_bytes());
        let nested = if matches!(self.inner, Inner::Attributes(_)) { NLA_F_NESTED } else { 0 };
        bytes.extend((self.kind | nested).to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
}

fn emitted(nodes: &[Node]) -> Vec<u8> {
    let mut bytes = Vec::new();
    nodes.iter().for_each(|node| node.emit(&mut bytes));
    bytes
}

/// Each tree that comes of one of `change` to one attribute, with that attribute's kinds from the outermost on.
fn changed(nodes: &[Node], change: &dyn Fn(&mut Vec<Node>, usize)) -> Vec<(Vec<u16>, Vec<Node>)> {
    let mut all = Vec::new();
    for (place, node) in nodes.iter().enumerate() {
        let mut here = nodes.to_vec();
        change(&mut here, place);
        all.push((vec![node.kind], here));
        let Inner::Attributes(inner) = &node.inner else { continue };
        for (kinds, inner) in changed(inner, change) {
            let mut here = nodes.to_vec();
            here[place].inner = Inner::Attributes(inner);
            all.push(([vec![node.kind], kinds].concat(), here));
        }
    }
    all
}

/// The same link with other attributes.
fn with(message: &[u8], nodes: &[Node]) -> Vec<u8> {
    let mut bytes = [&message[..NLMSGHDR + IFINFO], &emitted(nodes)[..]].concat();
    let length = u32::try_from(bytes.len()).expect("short");
    NetlinkBuffer::new(&mut bytes).set_length(length);
    bytes
}

/// Calls `check` with each damaged form of each link: what was damaged, the message, and those without the attribute and without
/// it and what follows it beside it.
fn each_damage(damage: Damage, check: impl Fn(&[u16], &[u8], &[u8], &[u8])) {
    for (_, message) in KERNELS.into_iter().flat_map(links) {
        let tree = Node::tree(body(&message), IFINFO, &[]);
        assert_eq!(link(body(&with(&message, &tree))).unwrap(), link(body(&message)).unwrap());
        let damaged = changed(&tree, &|nodes, place| nodes[place].damage = Some(damage));
        let without = changed(&tree, &|nodes, place| _ = nodes.remove(place));
        let before = changed(&tree, &|nodes, place| nodes.truncate(place));
        assert!(damaged.len() > 30 && damaged.len() == without.len() && damaged.len() == before.len());
        for (((kinds, damaged), (_, without)), (_, before)) in damaged.iter().zip(&without).zip(&before) {
            check(kinds, &with(&message, damaged), &with(&message, without), &with(&message, before));
        }
    }
}

#[test]
fn an_attribute_that_cannot_be_decoded_hides_no_other() {
    for damage in [Damage::Cut, Damage::Empty] {
        each_damage(damage, |kinds, damaged, without, _| {
            let (mut damaged, mut without) = (link(body(damaged)).unwrap(), link(body(without)).unwrap());
            match kinds {
                // Half of a name is a name.
                [IFLA_IFNAME] => damaged.name = without.name.clone(),
                [IFLA_IFALIAS] => damaged.alias = without.alias.clone(),
                // That it is there says that the other end is elsewhere.
                [IFLA_LINK_NETNSID] => (without.lower, without.beside) = (None, None),
                [IFLA_PROP_LIST, ..] => (damaged.altnames, without.altnames) = (Vec::new(), Vec::new()),
                // What is in half of them is read; but for that, the link is the same.
                [IFLA_LINKINFO] | [IFLA_LINKINFO, IFLA_INFO_DATA | IFLA_INFO_SLAVE_DATA] => {
                    without = LinkState {
                        kind: damaged.kind.clone(),
                        tap: damaged.tap,
                        tag: damaged.tag,
                        vxlan: damaged.vxlan,
                        bridge_port: damaged.bridge_port,
                        extras: damaged.extras,
                        nf_call: damaged.nf_call,
                        beside: damaged.beside,
                        takes_ras: damaged.takes_ras,
                        ..without
                    };
                }
                [IFLA_AF_SPEC] | [IFLA_AF_SPEC, _] => {
                    let LinkState { v6_autoconf, v4_open, takes_ras, .. } = damaged;
                    without = LinkState { v6_autoconf, v4_open, takes_ras, ..without };
                }
                _ => {}
            }
            assert_eq!(damaged, without, "{damage:?} of {kinds:?}");
        });
    }
}

#[test]
fn what_stands_before_an_attribute_without_an_end_is_read() {
    for damage in [Damage::NoLength, Damage::Endless] {
        each_damage(damage, |kinds, damaged, _, before| {
            assert_eq!(link(body(damaged)).unwrap(), link(body(before)).unwrap(), "{damage:?} of {kinds:?}");
        });
    }
}

/// Reads a datagram as a dump's; none where it says that it is not whole.
fn dumped(datagram: &[u8]) -> Option<Vec<LinkState>> {
    let mut dump = Dump::of(1);
    let ended = walk(datagram, |message| dump.take(message, &|body| link(body).map(Some))).ok()?;
    let (all, whole) = dump.end().ok()?;
    (whole && matches!(ended, Step::Last)).then_some(all)
}

/// The end of a dump.
fn done() -> Vec<u8> {
    let mut bytes = vec![0; NLMSGHDR + 4];
    let mut message = NetlinkBuffer::new(&mut bytes);
    message.set_length(20);
    message.set_message_type(NLMSG_DONE);
    message.set_sequence_number(1);
    bytes
}

#[test]
fn a_dump_is_whole_or_says_so() {
    for kernel in KERNELS {
        let all: Vec<Vec<u8>> = links(kernel).map(|(_, message)| message).chain([done()]).collect();
        let whole = dumped(&all.concat()).expect("a whole dump");
        assert_eq!(whole.len(), links(kernel).count());
        assert_eq!(messages(&all.concat()).count(), all.len());
        for place in 0..all.len() {
            let length = u32::try_from(all[place].len()).unwrap();
            for wrong in [0, 1, 15, 17, length - 4, length + 4, 0xffff, u32::MAX] {
                let mut all = all.clone();
                NetlinkBuffer::new(&mut all[place]).set_length(wrong);
                let read = dumped(&all.concat());
                assert!(read.is_none_or(|read| read.len() == whole.len()), "message {place} with a length of {wrong}");
            }
            // A link that is cut within its fixed part.
            let mut all = all.clone();
            all[place].truncate(NLMSGHDR + 8);
            NetlinkBuffer::new(&mut all[place]).set_length(24);
            assert!(dumped(&all.concat()).is_none() || place == all.len() - 1);
        }
    }
}

#[test]
fn a_dump_with_a_damaged_attribute_has_all_its_links() {
    let (_, other) = links(KERNELS[0]).next().expect("a link");
    for damage in [Damage::Cut, Damage::Empty, Damage::NoLength, Damage::Endless] {
        each_damage(damage, |kinds, damaged, _, _| {
            let all = dumped(&[damaged, &other, &done()].concat()).expect("a whole dump");
            assert_eq!(all.len(), 2, "{damage:?} of {kinds:?}");
        });
    }
}

proptest! {
    #[test]
    fn octets_that_are_others_hide_no_link(
        which in any::<Index>(),
        others in proptest::collection::vec((any::<Index>(), any::<u8>()), 1..16),
    ) {
        let all: Vec<Vec<u8>> = KERNELS.into_iter().flat_map(links).map(|(_, message)| message).collect();
        let mut damaged = which.get(&all).clone();
        let index = link(body(&damaged)).unwrap().index;
        let attributes = &mut damaged[NLMSGHDR + IFINFO..];
        for (place, octet) in others {
            *place.get_mut(attributes) = octet;
        }
        prop_assert_eq!(link(body(&damaged)).unwrap().index, index);
        prop_assert_eq!(dumped(&[damaged, done()].concat()).map(|all| all.len()), Some(1));
    }
}
