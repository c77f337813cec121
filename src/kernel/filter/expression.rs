//! Expressions of nf_tables, by the crate's types; those that it has no types for are in [`Expressions::Other`].
//!
//! A key of several parts stands in consecutive 32-bit registers, each part padded to them, as it does in a set's elements.

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, ExpressionAttribute, Expressions, Immediate, ListAttribute, Lookup, Meta, MetaKey, Operator,
    Payload, Register, Verdict, VerdictAttribute,
};

/// One expression of a rule.
pub(super) type Expression = ListAttribute<ExpressionAttribute>;

/// `linux/netfilter/nf_tables.h`.
const NFT_PAYLOAD_LL_HEADER: u32 = 0;
const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
const NFT_PAYLOAD_TRANSPORT_HEADER: u32 = 2;
const NFT_META_L4PROTO: u32 = 16;
const NFT_LOOKUP_F_INV: u32 = 1;
const NFTA_LOG_GROUP: u16 = 1;
const NFTA_LOG_PREFIX: u16 = 2;
const NFTA_LOG_SNAPLEN: u16 = 3;
pub(super) const NFTA_LIMIT_RATE: u16 = 1;
const NFTA_LIMIT_UNIT: u16 = 2;
pub(super) const NFTA_LIMIT_BURST: u16 = 3;
const NFTA_LIMIT_TYPE: u16 = 4;
const NFTA_LIMIT_FLAGS: u16 = 5;
const NFT_LIMIT_F_INV: u32 = 1;
pub(super) const NFTA_COUNTER_BYTES: u16 = 1;
pub(super) const NFTA_COUNTER_PACKETS: u16 = 2;
const NFTA_EXTHDR_DREG: u16 = 1;
const NFTA_EXTHDR_TYPE: u16 = 2;
const NFTA_EXTHDR_OFFSET: u16 = 3;
const NFTA_EXTHDR_LEN: u16 = 4;
const NFTA_EXTHDR_FLAGS: u16 = 5;
const NFT_EXTHDR_F_PRESENT: u32 = 1;
const NFTA_DYNSET_SET_NAME: u16 = 1;
const NFTA_DYNSET_OP: u16 = 3;
const NFTA_DYNSET_SREG_KEY: u16 = 4;
const NFT_DYNSET_OP_UPDATE: u32 = 1;
/// `IPPROTO_FRAGMENT`.
const FRAGMENT: u8 = 44;

/// Where a field begins in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    /// Behind the start of the Ethernet header, a VLAN tag included.
    Link(u32),
    /// Behind the start of what the Ethernet header carries.
    Network(u32),
    /// Behind the start of what IP carries; where a packet has none, be it a later fragment, the rule does not match.
    Transport(u32),
}

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Packets,
    Bytes,
}

/// The register that is `word` 32-bit words into a key.
pub(super) fn register(word: u32) -> Register {
    match word {
        // By this number the kernel shows the first one.
        0 => Register::Reg1,
        word => Register::from(u32::from(Register::Reg32_00) + word),
    }
}

fn expression(kind: Expressions) -> Expression {
    kind.into()
}

/// Loads a property of the frame.
pub(super) fn meta(key: MetaKey, word: u32) -> Expression {
    expression(Expressions::Meta(vec![Meta::Key(key), Meta::DestinationRegister(register(word))]))
}

/// Loads the index of the device that the frame came by.
pub(super) fn device(word: u32) -> Expression {
    meta(MetaKey::Iif, word)
}

/// Loads the index of the device that the frame leaves by.
pub(super) fn out_device() -> Expression {
    meta(MetaKey::Oif, 0)
}

/// Loads the protocol that IP carries, behind IPv6's extension headers; of a malformed header there is none, and the rule does
/// not match (`nft_set_pktinfo_ipv4_validate`, include/net/netfilter/nf_tables_ipv4.h).
pub(super) fn protocol() -> Expression {
    meta(MetaKey::Other(NFT_META_L4PROTO), 0)
}

/// Loads octets of the frame; where they are not there, the rule does not match.
pub(super) fn load(at: At, length: u32, word: u32) -> Expression {
    let (base, offset) = match at {
        At::Link(offset) => (NFT_PAYLOAD_LL_HEADER, offset),
        At::Network(offset) => (NFT_PAYLOAD_NETWORK_HEADER, offset),
        At::Transport(offset) => (NFT_PAYLOAD_TRANSPORT_HEADER, offset),
    };
    expression(Expressions::Payload(vec![
        Payload::DestinationRegister(register(word)),
        Payload::Base(base),
        Payload::Offset(offset),
        Payload::Len(length),
    ]))
}

/// Loads two octets of IPv6's fragment header: its offset and flags.
pub(super) fn fragment_offset() -> Expression {
    exthdr(2, 2, 0)
}

/// Loads 1 where a packet has IPv6's fragment header, else 0.
pub(super) fn is_fragment() -> Expression {
    exthdr(0, 1, NFT_EXTHDR_F_PRESENT)
}

fn exthdr(offset: u32, length: u32, flags: u32) -> Expression {
    other(
        "exthdr",
        vec![
            number(NFTA_EXTHDR_DREG, register(0).into()),
            DefaultNla::new(NFTA_EXTHDR_TYPE, vec![FRAGMENT]),
            number(NFTA_EXTHDR_OFFSET, offset),
            number(NFTA_EXTHDR_LEN, length),
            number(NFTA_EXTHDR_FLAGS, flags),
        ],
    )
}

/// Compares the first register; where it does not hold, the rule does not match.
pub(super) fn compare(operator: Operator, value: &[u8]) -> Expression {
    expression(Expressions::Cmp(vec![
        Cmp::SourceRegister(register(0)),
        Cmp::Op(operator),
        Cmp::Data(DataAttribute::Value(value.to_vec())),
    ]))
}

/// As [`compare`] for equality.
pub(super) fn is(value: &[u8]) -> Expression {
    compare(Operator::Equal, value)
}

/// Masks the first register.
pub(super) fn mask(mask: &[u8]) -> Expression {
    let length = u32::try_from(mask.len()).unwrap_or_default();
    expression(Expressions::Bitwise(vec![
        Bitwise::SourceRegister(register(0)),
        Bitwise::DestinationRegister(register(0)),
        Bitwise::Length(length),
        Bitwise::Mask(DataAttribute::Value(mask.to_vec())),
        Bitwise::Xor(DataAttribute::Value(vec![0; mask.len()])),
    ]))
}

/// Looks the key up that begins in the first register; where the set lacks it, the rule does not match. An element's own
/// expressions are carried out.
pub(super) fn lookup(set: &str) -> Expression {
    expression(Expressions::Lookup(vec![Lookup::Set(set.to_owned()), Lookup::SourceRegister(register(0))]))
}

/// The same, where the set has it the rule does not match.
pub(super) fn lack(set: &str) -> Expression {
    expression(Expressions::Lookup(vec![
        Lookup::Set(set.to_owned()),
        Lookup::SourceRegister(register(0)),
        Lookup::Flags(NFT_LOOKUP_F_INV),
    ]))
}

/// Looks the key up that begins in the first register, and adds it where the set lacks it. The element's expressions, which are its
/// set's, are carried out. Where the set is full the rule does not match.
pub(super) fn update(set: &str) -> Expression {
    other(
        "dynset",
        vec![
            DefaultNla::new(NFTA_DYNSET_SET_NAME, [set.as_bytes(), &[0]].concat()),
            number(NFTA_DYNSET_OP, NFT_DYNSET_OP_UPDATE),
            number(NFTA_DYNSET_SREG_KEY, register(0).into()),
        ],
    )
}

fn immediate(value: &[u8]) -> Expression {
    expression(Expressions::Immediate(vec![
        Immediate::DestinationRegister(register(0)),
        Immediate::Data(DataAttribute::Value(value.to_vec())),
    ]))
}

/// Writes octets over those of the frame's Ethernet header.
pub(super) fn overwrite(offset: u32, value: &[u8]) -> [Expression; 2] {
    let length = u32::try_from(value.len()).unwrap_or_default();
    let write = Expressions::Payload(vec![
        Payload::SourceRegister(register(0)),
        Payload::Base(NFT_PAYLOAD_LL_HEADER),
        Payload::Offset(offset),
        Payload::Len(length),
    ]);
    [immediate(value), expression(write)]
}

/// Says whose the frame is (`skb->pkt_type`).
pub(super) fn mark_as(packet_type: u8) -> [Expression; 2] {
    let write = Expressions::Meta(vec![Meta::Key(MetaKey::PacketType), Meta::SourceRegister(register(0))]);
    [immediate(&[packet_type]), expression(write)]
}

fn verdict(verdict: Vec<VerdictAttribute>) -> Expression {
    expression(Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(verdict)),
    ]))
}

/// Lets the frame on.
pub(super) fn accept() -> Expression {
    verdict(vec![VerdictAttribute::Code(Verdict::Other(1))])
}

/// Ends the frame.
pub(super) fn drop() -> Expression {
    verdict(vec![VerdictAttribute::Code(Verdict::Other(0))])
}

/// Goes on in another chain, and ends there.
pub(super) fn goto(chain: &str) -> Expression {
    verdict(vec![VerdictAttribute::Code(Verdict::Goto), VerdictAttribute::Chain(chain.to_owned())])
}

/// Sends the first octets of the frame to who listens to the group (`NFLOG`).
pub(super) fn log(group: u16, prefix: &str, octets: u32) -> Expression {
    other(
        "log",
        vec![
            DefaultNla::new(NFTA_LOG_GROUP, group.to_be_bytes().to_vec()),
            DefaultNla::new(NFTA_LOG_PREFIX, [prefix.as_bytes(), &[0]].concat()),
            number(NFTA_LOG_SNAPLEN, octets),
        ],
    )
}

/// A limit, per second. `over` matches what exceeds it; else what does not matches.
pub(super) fn limit(rate: u64, burst: u32, unit: Unit, over: bool) -> Expression {
    let kind = match unit {
        Unit::Packets => 0,
        Unit::Bytes => 1,
    };
    let flags = if over { NFT_LIMIT_F_INV } else { 0 };
    other(
        "limit",
        vec![
            wide(NFTA_LIMIT_RATE, rate),
            wide(NFTA_LIMIT_UNIT, 1),
            number(NFTA_LIMIT_BURST, burst),
            number(NFTA_LIMIT_TYPE, kind),
            number(NFTA_LIMIT_FLAGS, flags),
        ],
    )
}

/// A counter that has counted so much.
pub(super) fn counter(packets: u64, octets: u64) -> Expression {
    other("counter", vec![wide(NFTA_COUNTER_BYTES, octets), wide(NFTA_COUNTER_PACKETS, packets)])
}

fn other(kind: &str, attributes: Vec<DefaultNla>) -> Expression {
    expression(Expressions::Other { expression_type: kind.to_owned(), attributes })
}

fn number(kind: u16, value: u32) -> DefaultNla {
    DefaultNla::new(kind, value.to_be_bytes().to_vec())
}

fn wide(kind: u16, value: u64) -> DefaultNla {
    DefaultNla::new(kind, value.to_be_bytes().to_vec())
}
