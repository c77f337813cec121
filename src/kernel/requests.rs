//! The sockets by which DHCP requests are heard: one on each bridge, which gets what `table bridge nicd` has turned to it.
//!
//! The rules (`filter/ruleset`) turn a port's request to everybody on the bridge and mark it as another host's, and then drop it on its
//! way to other ports. So it reaches the bridge's device alone, also where it was for one MAC, as a renewal is; the host's stack takes
//! no other host's packet. From the wire no frame comes like that: what is for everybody is marked so. The socket therefore hears what
//! ports have sent, and only after the rules have passed it.

use std::io;

use crate::sys::packet::{Instruction, PacketSocket};

use super::bpf::{
    JUMP_IF_EQUAL, JUMP_IF_GREATER, JUMP_IF_SET, LOAD_BYTE, LOAD_HALF, LOAD_HALF_INDIRECT, LOAD_HEADER_LENGTH, LOAD_LENGTH,
    LOAD_WORD, PACKET_TYPE, RETURN, step,
};

/// So much memory of the kernel may wait: some 3,000 requests, and as many answers.
const ROOM: i32 = 4 << 20;

/// Opens a bridge's socket, in the network namespace of the thread that calls.
///
/// # Errors
/// What the kernel answered.
pub(super) fn open(bridge: u32) -> io::Result<PacketSocket> {
    PacketSocket::open(bridge, &PROGRAM, ROOM)
}

/// `PACKET_OTHERHOST` (linux/if_packet.h).
const OTHER_HOST: u32 = 3;

/// How many steps there are.
const STEPS: usize = 27;

/// The longest frame with a request that is heard, in octets. No client sends one as long; a tap takes 64 KiB whatever its MTU.
const LONGEST: u32 = 2_048;

/// Goes on where it is equal, else to the last step, which drops; `at` is its own place.
const fn only(at: usize, value: u32) -> Instruction {
    #[expect(clippy::cast_possible_truncation, reason = "fewer than 256 steps")]
    step(JUMP_IF_EQUAL, 0, (STEPS - 2 - at) as u8, value)
}

/// What is sent to all, by another host: UDP of IPv4 to a DHCP server, whole, or of IPv6, or a router solicitation; of IPv6 without
/// further headers.
static PROGRAM: [Instruction; STEPS] = [
    step(LOAD_LENGTH, 0, 0, 0),
    step(JUMP_IF_GREATER, 24, 0, LONGEST),
    step(LOAD_BYTE, 0, 0, PACKET_TYPE),
    only(3, OTHER_HOST),
    step(LOAD_WORD, 0, 0, 0),
    only(5, 0xffff_ffff),
    step(LOAD_HALF, 0, 0, 4),
    only(7, 0xffff),
    step(LOAD_HALF, 0, 0, 12),
    // To IPv6's.
    step(JUMP_IF_EQUAL, 0, 7, 0x0800),
    step(LOAD_BYTE, 0, 0, 23),
    only(11, 17),
    step(LOAD_HALF, 0, 0, 20),
    // More fragments, or an offset.
    step(JUMP_IF_SET, 12, 0, 0x3fff),
    step(LOAD_HEADER_LENGTH, 0, 0, 14),
    step(LOAD_HALF_INDIRECT, 0, 0, 16),
    step(JUMP_IF_EQUAL, 8, 9, 67),
    only(17, 0x86dd),
    step(LOAD_BYTE, 0, 0, 20),
    step(JUMP_IF_EQUAL, 3, 0, 17),
    only(20, 58),
    step(LOAD_BYTE, 0, 0, 54),
    step(JUMP_IF_EQUAL, 2, 3, 133),
    step(LOAD_HALF, 0, 0, 56),
    only(24, 547),
    step(RETURN, 0, 0, 0xffff),
    step(RETURN, 0, 0, 0),
];
