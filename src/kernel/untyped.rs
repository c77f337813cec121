//! Constants of the kernel's interface that neither `netlink-packet-route` nor `libc` has, with the kernel's names, and attributes
//! that the crate's types encode differently than needed.

use netlink_packet_core::DefaultNla;
use netlink_packet_route::link::{AfSpecInet, AfSpecUnspec, LinkAttribute};
use rtnetlink::LinkMessageBuilder;

use super::message::{nested, text_nla};

/// `ALTIFNAMSIZ - 1`.
pub(super) const MAX_ALTNAME: usize = 127;
/// `IFALIASZ - 1`.
pub(super) const MAX_ALIAS: usize = 255;

/// `linux/netlink.h`.
pub(super) const NLMSGERR_ATTR_MSG: u16 = 1;

/// `linux/rtnetlink.h`.
pub(super) const RTM_GETNEXTHOP: u16 = 106;
pub(super) const RTM_NEWVLAN: u16 = 112;
pub(super) const RTM_DELVLAN: u16 = 113;
pub(super) const RTM_GETVLAN: u16 = 114;
/// `linux/neighbour.h`.
pub(super) const NDA_NH_ID: u16 = 13;
/// `linux/nexthop.h`.
pub(super) const NHA_ID: u16 = 1;
pub(super) const NHA_GROUP: u16 = 2;
pub(super) const NHA_OIF: u16 = 5;
pub(super) const NHA_GATEWAY: u16 = 6;

/// `linux/if_link.h`: attributes of taps and tuns.
pub(super) const IFLA_TUN_OWNER: u16 = 1;
pub(super) const IFLA_TUN_GROUP: u16 = 2;
pub(super) const IFLA_TUN_TYPE: u16 = 3;
pub(super) const IFLA_TUN_PERSIST: u16 = 6;
pub(super) const IFLA_TUN_MULTI_QUEUE: u16 = 7;
pub(super) const IFLA_TUN_NUM_QUEUES: u16 = 8;
pub(super) const IFLA_TUN_NUM_DISABLED_QUEUES: u16 = 9;

/// `linux/if_bridge.h`.
pub(super) const BRIDGE_VLANDB_ENTRY: u16 = 1;
pub(super) const BRIDGE_VLANDB_ENTRY_INFO: u16 = 1;
pub(super) const BRIDGE_VLANDB_ENTRY_STATE: u16 = 3;

const IFLA_INET_CONF: u16 = 1;
/// `linux/ip.h`.
const IPV4_DEVCONF_FORWARDING: u16 = 1;
const IPV4_DEVCONF_RP_FILTER: u16 = 8;
pub(super) const IPV4_DEVCONF_ARP_IGNORE: u16 = 19;
/// `linux/ipv6.h`, counted from 0.
pub(super) const DEVCONF_ADDR_GEN_MODE: usize = 47;
/// `arp_ignore`: no request is answered, whatever local address it is for.
pub(super) const ARP_IGNORE_ALL: u8 = 8;

/// `linux/netfilter/nf_tables.h`.
pub(super) const NFT_TABLE_F_DORMANT: i32 = 1;
pub(super) const NFT_CHAIN_HW_OFFLOAD: i32 = 2;
pub(super) const NFTA_TABLE_NAME: u16 = 1;
pub(super) const NFTA_TABLE_FLAGS: u16 = 2;
pub(super) const NFTA_CHAIN_TABLE: u16 = 1;
pub(super) const NFTA_CHAIN_NAME: u16 = 3;
pub(super) const NFTA_CHAIN_HOOK: u16 = 4;
pub(super) const NFTA_CHAIN_POLICY: u16 = 5;
pub(super) const NFTA_CHAIN_USE: u16 = 6;
pub(super) const NFTA_CHAIN_TYPE: u16 = 7;
pub(super) const NFTA_CHAIN_FLAGS: u16 = 10;
pub(super) const NFTA_RULE_TABLE: u16 = 1;
pub(super) const NFTA_RULE_CHAIN: u16 = 2;
pub(super) const NFTA_RULE_EXPRESSIONS: u16 = 4;
pub(super) const NFTA_LIST_ELEM: u16 = 1;
pub(super) const NFTA_EXPR_NAME: u16 = 1;
pub(super) const NFTA_EXPR_DATA: u16 = 2;
pub(super) const NFTA_DATA_VALUE: u16 = 1;
pub(super) const NFTA_DATA_VERDICT: u16 = 2;
pub(super) const NFTA_VERDICT_CODE: u16 = 1;
pub(super) const NFTA_VERDICT_CHAIN: u16 = 2;
pub(super) const NFTA_META_DREG: u16 = 1;
pub(super) const NFTA_META_KEY: u16 = 2;
pub(super) const NFTA_CT_DREG: u16 = 1;
pub(super) const NFTA_CT_KEY: u16 = 2;
pub(super) const NFTA_CMP_SREG: u16 = 1;
pub(super) const NFTA_CMP_OP: u16 = 2;
pub(super) const NFTA_CMP_DATA: u16 = 3;
pub(super) const NFTA_BITWISE_SREG: u16 = 1;
pub(super) const NFTA_BITWISE_DREG: u16 = 2;
pub(super) const NFTA_BITWISE_MASK: u16 = 4;
pub(super) const NFTA_IMMEDIATE_DREG: u16 = 1;
pub(super) const NFTA_IMMEDIATE_DATA: u16 = 2;
pub(super) const NFTA_LOOKUP_DREG: u16 = 3;
/// As in `NFTA_TARGET_NAME`.
pub(super) const NFTA_MATCH_NAME: u16 = 1;
pub(super) const NFTA_MATCH_REV: u16 = 2;
pub(super) const NFTA_MATCH_INFO: u16 = 3;
pub(super) const NFTA_HOOK_HOOKNUM: u16 = 1;
pub(super) const NFTA_HOOK_PRIORITY: u16 = 2;
pub(super) const NFTA_HOOK_DEV: u16 = 3;
pub(super) const NFTA_HOOK_DEVS: u16 = 4;
pub(super) const NFTA_DEVICE_NAME: u16 = 1;
/// `NF_CT_STATE_BIT`, linux/netfilter/nf_conntrack_common.h.
pub(super) const NF_CT_STATE_ESTABLISHED: u32 = 2;
pub(super) const NF_CT_STATE_RELATED: u32 = 4;

/// Names the link that a message is for. The kernel looks among names and altnames alike; `IFLA_IFNAME`, which the crate has for
/// this, may not be longer than a name.
pub(super) fn by_name<T>(link: LinkMessageBuilder<T>, name: &str) -> LinkMessageBuilder<T> {
    link.append_extra_attribute(LinkAttribute::Other(text_nla(libc::IFLA_ALT_IFNAME, name)))
}

/// The alias of a link; an empty one takes it away. The kernel takes it with whatever octets its length says, so that it goes
/// without the NUL that the crate would send.
pub(super) fn alias(alias: &str) -> LinkAttribute {
    LinkAttribute::Other(DefaultNla::new(libc::IFLA_IFALIAS, alias.as_bytes().to_vec()))
}

/// The host's IPv4 takes nothing from the link, also while it is in no bridge or the bridge is open: a source on a link without
/// addresses is never valid (`__fib_validate_source`, net/ipv4/fib_frontend.c), and no ARP request is answered. The crate sends no
/// setting that is 0.
pub(super) fn no_v4() -> AfSpecUnspec {
    let settings = [(IPV4_DEVCONF_FORWARDING, 0), (IPV4_DEVCONF_RP_FILTER, 1), (IPV4_DEVCONF_ARP_IGNORE, ARP_IGNORE_ALL)];
    let settings = settings.map(|(kind, value)| DefaultNla::new(kind, u32::from(value).to_ne_bytes().to_vec()));
    AfSpecUnspec::Inet(vec![AfSpecInet::Other(nested(IFLA_INET_CONF, &settings))])
}
