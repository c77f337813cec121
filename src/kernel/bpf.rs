//! The words of the packet sockets' programs: classic BPF.

use crate::sys::packet::Instruction;

/// `linux/bpf_common.h` and `linux/filter.h`.
pub(super) const LOAD_LENGTH: u16 = 0x80;
pub(super) const LOAD_WORD: u16 = 0x20;
pub(super) const LOAD_HALF: u16 = 0x28;
pub(super) const LOAD_BYTE: u16 = 0x30;
pub(super) const LOAD_HALF_INDIRECT: u16 = 0x48;
pub(super) const LOAD_HEADER_LENGTH: u16 = 0xb1;
pub(super) const JUMP_IF_EQUAL: u16 = 0x15;
pub(super) const JUMP_IF_GREATER: u16 = 0x25;
pub(super) const JUMP_IF_SET: u16 = 0x45;
pub(super) const RETURN: u16 = 0x06;
/// `SKF_AD_OFF + SKF_AD_PKTTYPE`.
pub(super) const PACKET_TYPE: u32 = 0xffff_f004;

/// An instruction.
pub(super) const fn step(code: u16, jt: u8, jf: u8, k: u32) -> Instruction {
    Instruction { code, jt, jf, k }
}
