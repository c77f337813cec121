//! The self-check of the filters: whether this kernel drops what the rules say.
//!
//! A listing of the rules is no proof of their effect. In a network namespace of its own a bridge gets three taps: a port's device
//! with elements, one without, and a witness. The same code makes the same table there, frames are written to the first two, and
//! what the witness reads decides. The namespace ends with its descriptors.

use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use libc::{IFF_NO_PI, IFF_TAP};
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::BridgeStpState;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec};
use uuid::Uuid;

use super::elements;
use super::table::Table;
use crate::kernel::answer::{Failure, Request};
use crate::kernel::message::Batch;
use crate::kernel::netns::{Fresh, NetnsAccess};
use crate::kernel::socket::Netlink;
use crate::model::names::FIRST_INDEX;
use crate::model::{Mac, PortId};
use crate::plan::filter::{Filter, Guard, Served};
use crate::sys::tun;
use crate::threads;

/// The result of the self-check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Proof {
    /// The kernel did with every frame what the rules say.
    Holds,
    /// A frame passed that the rules drop.
    Fails {
        /// Which.
        frame: &'static str,
    },
    /// It could not be made.
    Impossible {
        /// Why.
        why: String,
    },
}

/// How long frames may take. The kernel passes them on within the call that writes them.
const LIMIT: Duration = Duration::from_millis(500);

/// The devices: a port's with elements, one without, and the witness, whose index is none of nicd's.
const GUARDED: u32 = FIRST_INDEX + 1;
const CLOSED: u32 = FIRST_INDEX + 2;
const WITNESS: u32 = 100;
const BRIDGE: u32 = 101;

const MAC: [u8; 6] = [0xfa, 0x16, 0x3e, 0, 0, 1];
const FOREIGN_MAC: [u8; 6] = [0xfa, 0x16, 0x3e, 0, 0, 2];
const V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const FOREIGN_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const FOREIGN_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

/// A frame that is sent.
struct Sent {
    what: &'static str,
    from: u32,
    passes: bool,
    frame: Vec<u8>,
}

/// Checks the kernel. Takes some milliseconds; the namespace ends by itself some time later.
pub(super) fn prove(access: NetnsAccess) -> Proof {
    let fresh = match access.make() {
        Ok(fresh) => fresh,
        Err(error) => return Proof::Impossible { why: error.to_string() },
    };
    let checked = Laboratory::make(fresh).and_then(|laboratory| {
        let proof = laboratory.run(&frames());
        // The kernel lets go of taps slowly.
        let _ = threads::start("nicd-proof", move || drop(laboratory));
        proof
    });
    checked.unwrap_or_else(|Trouble(why)| Proof::Impossible { why })
}

/// Why it could not be made.
#[derive(Debug)]
struct Trouble(String);

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self(format!("{}: {}", failure.request, failure.said))
    }
}

impl From<Errno> for Trouble {
    fn from(errno: Errno) -> Self {
        Self(format!("a tap for it: {} ({errno:?})", errno.desc()))
    }
}

/// The bridge with its taps and the table.
struct Laboratory {
    guarded: OwnedFd,
    closed: OwnedFd,
    witness: OwnedFd,
    /// It keeps the table, which its namespace has.
    _table: Table,
}

impl Laboratory {
    fn make(Fresh { mut netlink, netfilter, taps: [guarded, closed, witness] }: Fresh) -> Result<Self, Trouble> {
        let taps = [(&guarded, GUARDED, "guarded"), (&closed, CLOSED, "closed"), (&witness, WITNESS, "witness")];
        for (tap, index, name) in taps {
            tun::set_index(tap.as_fd(), index.cast_signed())?;
            tun::set_iff(tap.as_fd(), name, IFF_TAP | IFF_NO_PI)?;
        }
        let bridge = LinkMessageBuilder::<LinkBridge>::new("bridge").index(BRIDGE).up().forward_delay(0);
        let bridge = bridge.stp_state(BridgeStpState::Disabled).mcast_snooping(false).build();
        ask(&mut netlink, NLM_F_CREATE | NLM_F_EXCL, RouteNetlinkMessage::NewLink(bridge))?;
        for (_, index, _) in taps {
            let port = LinkUnspec::new_with_index(index).controller(BRIDGE).up().build();
            ask(&mut netlink, 0, RouteNetlinkMessage::SetLink(port))?;
        }
        let mut table = Table::apart(netfilter);
        table.make(&elements::of(GUARDED, PortId(Uuid::nil()), &filter()), false, None)?;
        Ok(Self { guarded, closed, witness, _table: table })
    }

    fn run(&self, sent: &[Sent]) -> Result<Proof, Trouble> {
        let mut missing: HashSet<&[u8]> = sent.iter().filter(|one| one.passes).map(|one| &one.frame[..]).collect();
        let mut passed: HashSet<Vec<u8>> = HashSet::new();
        for Sent { from, frame, .. } in sent {
            let tap = if *from == GUARDED { &self.guarded } else { &self.closed };
            nix::unistd::write(tap, frame)?;
        }
        let deadline = Instant::now() + LIMIT;
        while !missing.is_empty() && self.waits(deadline)? {
            let mut frame = [0; 2048];
            let length = nix::unistd::read(&self.witness, &mut frame)?;
            let frame = &frame[..length];
            missing.remove(frame);
            passed.insert(frame.to_vec());
        }
        let of = |passes: bool| sent.iter().filter(move |one| one.passes == passes);
        if let Some(one) = of(false).find(|one| passed.contains(&one.frame)) {
            return Ok(Proof::Fails { frame: one.what });
        }
        match of(true).find(|one| !passed.contains(&one.frame)) {
            // A busy machine is no open one.
            Some(one) => Err(Trouble(format!("{} did not arrive within {LIMIT:?}", one.what))),
            None => Ok(Proof::Holds),
        }
    }

    /// Waits for a frame; false when none comes in time.
    fn waits(&self, deadline: Instant) -> Result<bool, Errno> {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        poll(&mut [PollFd::new(self.witness.as_fd(), PollFlags::POLLIN)], left).map(|ready| ready > 0)
    }
}

/// One change in the namespace. It is none of the host, and is not counted as one.
fn ask(netlink: &mut Netlink, flags: u16, message: RouteNetlinkMessage) -> Result<(), Failure> {
    let mut batch = Batch::default();
    batch.add(Request::Create, flags | NLM_F_ACK, message);
    netlink.answer(batch, |_| Ok(None::<()>)).map(drop)
}

fn filter() -> Filter {
    let mut guard = Guard::default();
    guard.allow_mac(Mac(MAC));
    guard.allow(Mac(MAC), ipnetwork::IpNetwork::from(std::net::IpAddr::V4(V4)));
    guard.allow(Mac(MAC), ipnetwork::IpNetwork::from(std::net::IpAddr::V6(V6)));
    let served = Served { mac: Mac(MAC), dhcp4: true, dhcp6: true, solicitations: true };
    Filter { guard: Some(guard), served: Some(served), ..Filter::default() }
}

/// What is sent. The last one passes, so that those before it have arrived or were dropped.
fn frames() -> Vec<Sent> {
    let dropped = |what, frame| Sent { what, from: GUARDED, passes: false, frame };
    let passes = |what, frame| Sent { what, from: GUARDED, passes: true, frame };
    let udp = |source: u16, destination: u16| [source.to_be_bytes(), destination.to_be_bytes(), [0, 8], [0, 0]].concat();
    let own = ip4(V4, &udp(1024, 9));
    let request = [udp(68, 67), vec![0; 28], MAC.to_vec()].concat();
    let neighbour = |kind: u8, target: Ipv6Addr| [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &target.octets()].concat();
    vec![
        passes("its own ARP", ethernet(MAC, 0x0806, &arp(MAC, V4))),
        passes("its own IPv6", ethernet(MAC, 0x86dd, &ip6(V6, 17, &udp(1024, 9)))),
        dropped("a foreign MAC", ethernet(FOREIGN_MAC, 0x0800, &own)),
        dropped("a foreign IPv4 address", ethernet(MAC, 0x0800, &ip4(FOREIGN_V4, &udp(1024, 9)))),
        dropped("ARP of a foreign address", ethernet(MAC, 0x0806, &arp(MAC, FOREIGN_V4))),
        dropped("ARP of a foreign MAC", ethernet(MAC, 0x0806, &arp(FOREIGN_MAC, V4))),
        dropped("a foreign IPv6 address", ethernet(MAC, 0x86dd, &ip6(FOREIGN_V6, 17, &udp(1024, 9)))),
        dropped(
            "a neighbour advertisement of a foreign address",
            ethernet(MAC, 0x86dd, &ip6(V6, 58, &neighbour(136, FOREIGN_V6))),
        ),
        dropped(
            "a router advertisement",
            ethernet(MAC, 0x86dd, &ip6(V6, 58, &[134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0])),
        ),
        dropped("a DHCP server's answer", ethernet(MAC, 0x0800, &ip4(V4, &udp(67, 68)))),
        dropped("a VLAN's tag", ethernet(MAC, 0x8100, &[&[0, 7, 8, 0][..], &own].concat())),
        Sent {
            what: "a device without elements",
            from: CLOSED,
            passes: false,
            frame: ethernet(MAC, 0x0800, &ip4(V4, &udp(7, 9))),
        },
        dropped("a DHCP request that nicd answers", ethernet(MAC, 0x0800, &ip4(V4, &request))),
        dropped("a DHCP request from a foreign IPv4 address", ethernet(MAC, 0x0800, &ip4(FOREIGN_V4, &request))),
        dropped("a DHCPv6 request that nicd answers", ethernet(MAC, 0x86dd, &ip6(V6, 17, &udp(546, 547)))),
        dropped("a router solicitation that nicd answers", ethernet(MAC, 0x86dd, &ip6(V6, 58, &[133, 0, 0, 0, 0, 0, 0, 0]))),
        passes("its own IPv4", ethernet(MAC, 0x0800, &own)),
    ]
}

/// A frame to everybody. It is not filled up to the least length of a wire, which br_netfilter cuts off again.
fn ethernet(source: [u8; 6], kind: u16, packet: &[u8]) -> Vec<u8> {
    [&[0xff; 6][..], &source, &kind.to_be_bytes(), packet].concat()
}

/// A request for the neighbour with the address .254.
fn arp(mac: [u8; 6], ip: Ipv4Addr) -> Vec<u8> {
    [&[0, 1, 8, 0, 6, 4, 0, 1][..], &mac, &ip.octets(), &[0; 6], &[192, 0, 2, 254]].concat()
}

/// With a right checksum: br_netfilter drops others (`br_validate_ipv4`).
fn ip4(source: Ipv4Addr, datagram: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + datagram.len()).unwrap_or_default();
    let mut header = [&[0x45, 0][..], &length.to_be_bytes(), &[0, 0, 0x40, 0, 64, 17, 0, 0]].concat();
    header.extend(source.octets().into_iter().chain([192, 0, 2, 255]));
    let words = header.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum = words.sum::<u32>();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or_default();
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    [header, datagram.to_vec()].concat()
}

fn ip6(source: Ipv6Addr, next: u8, packet: &[u8]) -> Vec<u8> {
    let length = u16::try_from(packet.len()).unwrap_or_default();
    let everybody = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let header = [&[0x60, 0, 0, 0][..], &length.to_be_bytes(), &[next, 255]].concat();
    [&header[..], &source.octets(), &everybody.octets(), packet].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs where a namespace can be made: as root.
    fn laboratory() -> Option<Laboratory> {
        if !nix::unistd::geteuid().is_root() {
            assert!(std::env::var_os("NICD_TEST_FULL").is_none(), "this test needs root");
            return None;
        }
        Some(Laboratory::make(NetnsAccess::Here.make().unwrap()).unwrap())
    }

    #[test]
    fn this_kernel_drops_what_the_rules_say() {
        let Some(laboratory) = laboratory() else { return };
        let began = Instant::now();
        assert_eq!(laboratory.run(&frames()).unwrap(), Proof::Holds);
        assert!(began.elapsed() < LIMIT);
    }

    #[test]
    fn a_frame_that_passes_or_is_dropped_against_the_rules_is_named() {
        // As if the rules said the contrary of it.
        for (wrong, passes) in [(0, true), (2, false), (11, false)] {
            let Some(laboratory) = laboratory() else { return };
            let mut frames = frames();
            frames[wrong].passes = !frames[wrong].passes;
            let what = frames[wrong].what;
            match laboratory.run(&frames) {
                Ok(proof) => assert!(passes && proof == Proof::Fails { frame: what }, "{proof:?}"),
                Err(Trouble(why)) => assert!(!passes && why.starts_with(what), "{why}"),
            }
        }
    }
}
