//! Expressions of nf_tables, by the crate's types; those that it has no types for are in [`Expressions::Other`].
//!
//! A key of several parts stands in consecutive 32-bit registers, each part padded to them, as it does in a set's elements.

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, ExpressionAttribute, Expressions, Immediate, ListAttribute, Lookup, Meta, MetaKey, Operator,
    Payload, Register, Verdict, VerdictAttribute,
};

use crate::kernel::message::{nested, text_nla};

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
const NFTA_DYNSET_EXPR: u16 = 7;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_CT_DREG: u16 = 1;
const NFTA_CT_KEY: u16 = 2;
const NFTA_CT_SREG: u16 = 4;
const NFT_CT_STATE: u32 = 0;
const NFT_CT_STATUS: u32 = 2;
const NFT_CT_ZONE: u32 = 17;
const NFTA_CONNLIMIT_COUNT: u16 = 1;
const NFTA_CONNLIMIT_FLAGS: u16 = 2;
const NFT_CONNLIMIT_F_INV: u32 = 1;
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
    // By these numbers the kernel shows them (`nft_dump_register`, net/netfilter/nf_tables_api.c).
    match word % 4 {
        0 => Register::from(1 + word / 4),
        _ => Register::from(u32::from(Register::Reg32_00) + word),
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
pub(super) fn out_device(word: u32) -> Expression {
    meta(MetaKey::Oif, word)
}

/// Loads the name of the bridge that the frame came to.
pub(super) fn bridge() -> Expression {
    meta(MetaKey::BriIifname, 0)
}

/// Loads the name of the bridge that the frame leaves.
pub(super) fn out_bridge() -> Expression {
    meta(MetaKey::BriOifname, 0)
}

/// Loads the packet's mark.
pub(super) fn packet_mark(word: u32) -> Expression {
    meta(MetaKey::Mark, word)
}

/// Loads the packet's priority.
pub(super) fn priority(word: u32) -> Expression {
    meta(MetaKey::Priority, word)
}

/// Sets the packet's mark to the first register.
pub(super) fn set_packet_mark() -> Expression {
    set_meta(MetaKey::Mark)
}

/// The same of its priority.
pub(super) fn set_priority() -> Expression {
    set_meta(MetaKey::Priority)
}

fn set_meta(key: MetaKey) -> Expression {
    expression(Expressions::Meta(vec![Meta::Key(key), Meta::SourceRegister(register(0))]))
}

/// Loads the protocol that IP carries, behind IPv6's extension headers; of a malformed header there is none, and the rule does
/// not match (`nft_set_pktinfo_ipv4_validate`, include/net/netfilter/nf_tables_ipv4.h).
pub(super) fn protocol(word: u32) -> Expression {
    meta(MetaKey::Other(NFT_META_L4PROTO), word)
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

/// The same of a map: what it has for the key is loaded into the first register.
pub(super) fn lookup_value(map: &str) -> Expression {
    expression(Expressions::Lookup(vec![
        Lookup::Set(map.to_owned()),
        Lookup::SourceRegister(register(0)),
        Lookup::DestinationRegister(register(0)),
    ]))
}

/// The same as [`lookup`], where the set has it the rule does not match.
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
    other("dynset", update_of(set))
}

fn update_of(set: &str) -> Vec<DefaultNla> {
    vec![
        text_nla(NFTA_DYNSET_SET_NAME, set),
        number(NFTA_DYNSET_OP, NFT_DYNSET_OP_UPDATE),
        number(NFTA_DYNSET_SREG_KEY, register(0).into()),
    ]
}

/// Loads a value.
pub(super) fn immediate(value: &[u8], word: u32) -> Expression {
    expression(Expressions::Immediate(vec![
        Immediate::DestinationRegister(register(word)),
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
    [immediate(value, 0), expression(write)]
}

/// Says whose the frame is (`skb->pkt_type`).
pub(super) fn mark_as(packet_type: u8) -> [Expression; 2] {
    [immediate(&[packet_type], 0), set_meta(MetaKey::PacketType)]
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

/// Loads the state of conntrack's entry for the packet, of which each is one bit (`NF_CT_STATE_BIT`,
/// linux/netfilter/nf_conntrack_common.h).
pub(super) fn state() -> Expression {
    other("ct", vec![number(NFTA_CT_DREG, register(0).into()), number(NFTA_CT_KEY, NFT_CT_STATE)])
}

/// Loads the status of conntrack's entry for the packet; where it has none, the rule does not match.
pub(super) fn status() -> Expression {
    other("ct", vec![number(NFTA_CT_DREG, register(0).into()), number(NFTA_CT_KEY, NFT_CT_STATUS)])
}

/// Puts the packet into the zone of conntrack that the first register has.
pub(super) fn set_zone() -> Expression {
    other("ct", vec![number(NFTA_CT_KEY, NFT_CT_ZONE), number(NFTA_CT_SREG, register(0).into())])
}

/// Keeps the packet out of conntrack.
pub(super) fn no_track() -> Expression {
    other("notrack", Vec::new())
}

/// Counts the packet's connection for the key in the first register, which is added where the set lacks it. Matches what exceeds so
/// many connections. The kernel removes keys without connections.
pub(super) fn connections_over(set: &str, limit: u32) -> Expression {
    let over = [number(NFTA_CONNLIMIT_COUNT, limit), number(NFTA_CONNLIMIT_FLAGS, NFT_CONNLIMIT_F_INV)];
    let over = [text_nla(NFTA_EXPR_NAME, "connlimit"), nested(NFTA_EXPR_DATA, &over)];
    let mut dynset = update_of(set);
    dynset.push(nested(NFTA_DYNSET_EXPR, &over));
    other("dynset", dynset)
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
