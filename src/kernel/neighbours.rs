//! The sockets by which nicd probes for an address on a bridge, and announces a port's.

use std::io;

use crate::sys::packet::{Instruction, PacketSocket};

use super::bpf::{JUMP_IF_EQUAL, LOAD_BYTE, LOAD_HALF, PACKET_TYPE, RETURN, step};

/// So much memory of the kernel may wait: some hundreds of frames.
const ROOM: i32 = 1 << 20;

/// Opens the socket that receives ARP and neighbour discovery on a bridge, in the network namespace of the thread that calls.
///
/// # Errors
/// What the kernel answered.
pub(super) fn hear(bridge: u32) -> io::Result<PacketSocket> {
    PacketSocket::open(bridge, &PROGRAM, ROOM)
}

/// Opens a socket that sends, and hears nothing.
///
/// # Errors
/// What the kernel answered.
pub(super) fn speak() -> io::Result<PacketSocket> {
    PacketSocket::deaf()
}

/// `SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT`.
const IS_TAGGED: u32 = 0xffff_f030;
/// `PACKET_OUTGOING` (linux/if_packet.h).
const OUTGOING: u32 = 4;

/// ARP, and neighbour advertisements: of others, and without a tag.
static PROGRAM: [Instruction; 13] = [
    step(LOAD_BYTE, 0, 0, PACKET_TYPE),
    step(JUMP_IF_EQUAL, 10, 0, OUTGOING),
    step(LOAD_BYTE, 0, 0, IS_TAGGED),
    step(JUMP_IF_EQUAL, 0, 8, 0),
    step(LOAD_HALF, 0, 0, 12),
    step(JUMP_IF_EQUAL, 5, 0, 0x0806),
    step(JUMP_IF_EQUAL, 0, 5, 0x86dd),
    step(LOAD_BYTE, 0, 0, 20),
    step(JUMP_IF_EQUAL, 0, 3, 58),
    step(LOAD_BYTE, 0, 0, 54),
    step(JUMP_IF_EQUAL, 0, 1, 136),
    step(RETURN, 0, 0, 0xffff),
    step(RETURN, 0, 0, 0),
];
