//! Numbers of the kernel's interface that `libc` does not have, under the kernel's own names.

/// `linux/netlink.h`.
pub(super) const NLMSG_NOOP: u16 = 1;
pub(super) const NLMSG_ERROR: u16 = 2;
pub(super) const NLMSG_DONE: u16 = 3;
pub(super) const NLM_F_REQUEST: u16 = 0x1;
pub(super) const NLM_F_ACK: u16 = 0x4;
pub(super) const NLM_F_DUMP_INTR: u16 = 0x10;
pub(super) const NLM_F_CAPPED: u16 = 0x100;
pub(super) const NLM_F_DUMP: u16 = 0x300;
pub(super) const NLM_F_ACK_TLVS: u16 = 0x200;
pub(super) const NLM_F_REPLACE: u16 = 0x100;
pub(super) const NLM_F_EXCL: u16 = 0x200;
pub(super) const NLM_F_CREATE: u16 = 0x400;
pub(super) const NLM_F_APPEND: u16 = 0x800;
pub(super) const NLMSGERR_ATTR_MSG: u16 = 1;
pub(super) const NLA_F_NESTED: u16 = 0x8000;
/// A type without the flags for nested and for network byte order.
pub(super) const NLA_TYPE_MASK: u16 = 0x3fff;

/// `linux/rtnetlink.h`.
pub(super) const RTM_NEWLINK: u16 = 16;
pub(super) const RTM_DELLINK: u16 = 17;
pub(super) const RTM_GETLINK: u16 = 18;
pub(super) const RTM_SETLINK: u16 = 19;
pub(super) const RTM_NEWADDR: u16 = 20;
pub(super) const RTM_DELADDR: u16 = 21;
pub(super) const RTM_GETADDR: u16 = 22;
pub(super) const RTM_NEWROUTE: u16 = 24;
pub(super) const RTM_DELROUTE: u16 = 25;
pub(super) const RTM_GETROUTE: u16 = 26;
pub(super) const RTM_NEWNEIGH: u16 = 28;
pub(super) const RTM_DELNEIGH: u16 = 29;
pub(super) const RTM_GETNEIGH: u16 = 30;
pub(super) const RTM_GETNEXTHOP: u16 = 106;
pub(super) const RTM_NEWLINKPROP: u16 = 108;
pub(super) const RTM_DELLINKPROP: u16 = 109;
pub(super) const RTM_NEWVLAN: u16 = 112;
pub(super) const RTM_DELVLAN: u16 = 113;
pub(super) const RTM_GETVLAN: u16 = 114;
pub(super) const RTNLGRP_LINK: u32 = 1;
pub(super) const RTNLGRP_NEIGH: u32 = 3;
pub(super) const RTNLGRP_IPV4_IFADDR: u32 = 5;
pub(super) const RTNLGRP_IPV6_IFADDR: u32 = 9;
pub(super) const RTNLGRP_BRVLAN: u32 = 33;
pub(super) const RTEXT_FILTER_SKIP_STATS: u32 = 8;
pub(super) const RT_TABLE_MAIN: u8 = 254;
pub(super) const RT_TABLE_LOCAL: u8 = 255;
pub(super) const RTPROT_STATIC: u8 = 4;
pub(super) const RT_SCOPE_UNIVERSE: u8 = 0;
pub(super) const RT_SCOPE_LINK: u8 = 253;
pub(super) const RTN_UNICAST: u8 = 1;
pub(super) const RTNH_F_ONLINK: u32 = 4;
pub(super) const RTA_DST: u16 = 1;
pub(super) const RTA_OIF: u16 = 4;
pub(super) const RTA_GATEWAY: u16 = 5;
pub(super) const RTA_PRIORITY: u16 = 6;
pub(super) const RTA_MULTIPATH: u16 = 9;
pub(super) const RTA_TABLE: u16 = 15;
pub(super) const RTA_VIA: u16 = 18;
pub(super) const RTA_NH_ID: u16 = 30;

/// `linux/socket.h`.
pub(super) const AF_UNSPEC: u8 = 0;
pub(super) const AF_INET: u8 = 2;
pub(super) const AF_BRIDGE: u8 = 7;
pub(super) const AF_INET6: u8 = 10;

/// `linux/if.h`.
pub(super) const IFF_UP: u32 = 0x1;
/// `netif_oper_up`: what a bridge goes by.
pub(super) const IFF_RUNNING: u32 = 0x40;
pub(super) const IFF_LOWER_UP: u32 = 0x1_0000;
/// `ALTIFNAMSIZ - 1`.
pub(super) const MAX_ALTNAME: usize = 127;
/// `IFALIASZ - 1`.
pub(super) const MAX_ALIAS: usize = 255;

/// `linux/if_link.h`.
pub(super) const IFLA_ADDRESS: u16 = 1;
pub(super) const IFLA_IFNAME: u16 = 3;
pub(super) const IFLA_MTU: u16 = 4;
pub(super) const IFLA_LINK: u16 = 5;
pub(super) const IFLA_LINK_NETNSID: u16 = 37;
pub(super) const IFLA_MASTER: u16 = 10;
pub(super) const IFLA_LINKINFO: u16 = 18;
pub(super) const IFLA_IFALIAS: u16 = 20;
pub(super) const IFLA_AF_SPEC: u16 = 26;
pub(super) const IFLA_GROUP: u16 = 27;
pub(super) const IFLA_CARRIER: u16 = 33;
pub(super) const IFLA_NET_NS_FD: u16 = 28;
pub(super) const IFLA_EXT_MASK: u16 = 29;
pub(super) const IFLA_NUM_TX_QUEUES: u16 = 31;
pub(super) const IFLA_NUM_RX_QUEUES: u16 = 32;
pub(super) const IFLA_PROP_LIST: u16 = 52;
pub(super) const IFLA_ALT_IFNAME: u16 = 53;
pub(super) const IFLA_INFO_KIND: u16 = 1;
pub(super) const IFLA_INFO_DATA: u16 = 2;
pub(super) const IFLA_INFO_SLAVE_KIND: u16 = 4;
pub(super) const IFLA_INFO_SLAVE_DATA: u16 = 5;
pub(super) const IFLA_BRPORT_STATE: u16 = 1;
pub(super) const IFLA_BRPORT_LEARNING: u16 = 8;
pub(super) const IFLA_BRPORT_UNICAST_FLOOD: u16 = 9;
/// The other flags of a bridge port that decide what passes, and what a port is made with (`new_nbp`, net/bridge/br_if.c):
/// hairpin, BPDU guard, root block, fast leave, proxy ARP (10, 12), multicast router, the other floods, multicast to unicast, VLAN
/// tunnel, neighbour suppression, isolation, lock, MAB.
pub(super) const IFLA_BRPORT_PLAIN: [(u16, u8); 15] = [
    (4, 0),
    (5, 0),
    (6, 0),
    (7, 0),
    (10, 0),
    (12, 0),
    (25, 1),
    (27, 1),
    (28, 0),
    (29, 0),
    (30, 1),
    (32, 0),
    (33, 0),
    (39, 0),
    (40, 0),
];
pub(super) const IFLA_BRPORT_GROUP_FWD_MASK: u16 = 31;
/// All of 01:80:c2:00:00:0X but 01, pause frames, which the kernel refuses here and drops (`BR_GROUPFWD_MACPAUSE`).
pub(super) const PASS_LINK_LOCAL: u16 = 0xfffd;
pub(super) const IFLA_BR_FORWARD_DELAY: u16 = 1;
pub(super) const IFLA_BR_STP_STATE: u16 = 5;
pub(super) const IFLA_BR_VLAN_FILTERING: u16 = 7;
pub(super) const IFLA_BR_MCAST_SNOOPING: u16 = 23;
pub(super) const IFLA_BR_NF_CALL_IPTABLES: u16 = 36;
pub(super) const IFLA_BR_NF_CALL_IP6TABLES: u16 = 37;
pub(super) const IFLA_INET_CONF: u16 = 1;
/// `linux/ip.h`: attributes in [`IFLA_INET_CONF`] as it is set, and places from 1 on as it is read.
pub(super) const IPV4_DEVCONF_FORWARDING: u16 = 1;
pub(super) const IPV4_DEVCONF_RP_FILTER: u16 = 8;
pub(super) const IPV4_DEVCONF_ARP_IGNORE: u16 = 19;
/// `arp_ignore`: no request is answered, whatever local address it is for.
pub(super) const ARP_IGNORE_ALL: u32 = 8;
pub(super) const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
pub(super) const IFLA_INET6_CONF: u16 = 2;
/// `linux/ipv6.h`: places in [`IFLA_INET6_CONF`].
pub(super) const DEVCONF_FORWARDING: usize = 0;
pub(super) const DEVCONF_ACCEPT_RA: usize = 3;
pub(super) const DEVCONF_DISABLE_IPV6: usize = 26;
pub(super) const DEVCONF_ADDR_GEN_MODE: usize = 47;
pub(super) const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
pub(super) const IFLA_TUN_OWNER: u16 = 1;
pub(super) const IFLA_TUN_GROUP: u16 = 2;
pub(super) const IFLA_TUN_TYPE: u16 = 3;
pub(super) const IFLA_TUN_PERSIST: u16 = 6;
pub(super) const IFLA_TUN_MULTI_QUEUE: u16 = 7;
pub(super) const IFLA_TUN_NUM_QUEUES: u16 = 8;
pub(super) const IFLA_TUN_NUM_DISABLED_QUEUES: u16 = 9;
/// `linux/if_tun.h`, as in [`IFLA_TUN_TYPE`].
pub(super) const IFF_TAP: u8 = 2;
/// `linux/veth.h`.
pub(super) const VETH_INFO_PEER: u16 = 1;
/// `linux/if_bridge.h`.
pub(super) const BR_STATE_FORWARDING: u8 = 3;
pub(super) const BRIDGE_VLANDB_ENTRY: u16 = 1;
pub(super) const BRIDGE_VLANDB_ENTRY_INFO: u16 = 1;
pub(super) const BRIDGE_VLANDB_ENTRY_STATE: u16 = 3;
pub(super) const BRIDGE_VLAN_INFO_PVID: u16 = 2;
pub(super) const BRIDGE_VLAN_INFO_UNTAGGED: u16 = 4;

/// `linux/if_addr.h`.
/// `linux/nexthop.h`.
pub(super) const NHA_ID: u16 = 1;
pub(super) const NHA_GROUP: u16 = 2;
pub(super) const NHA_OIF: u16 = 5;
pub(super) const NHA_GATEWAY: u16 = 6;

pub(super) const IFA_ADDRESS: u16 = 1;
pub(super) const IFA_LOCAL: u16 = 2;
pub(super) const IFA_BROADCAST: u16 = 4;
pub(super) const IFA_PROTO: u16 = 11;
/// The kernel made it by itself, as link-local; those below are others that it made.
pub(super) const IFAPROT_KERNEL_LL: u8 = 3;
pub(super) const IFA_F_NODAD: u8 = 2;

/// `linux/netfilter/nfnetlink.h`.
pub(super) const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
pub(super) const NFNL_MSG_BATCH_END: u16 = 0x11;
pub(super) const NFNL_SUBSYS_NFTABLES: u16 = 10;
pub(super) const NFNLGRP_NFTABLES: u32 = 7;
/// `linux/netfilter.h`.
pub(super) const NFPROTO_INET: u8 = 1;
pub(super) const NFPROTO_IPV4: u8 = 2;
pub(super) const NFPROTO_NETDEV: u8 = 5;
pub(super) const NFPROTO_BRIDGE: u8 = 7;
pub(super) const NFPROTO_IPV6: u8 = 10;
/// `NF_INET_FORWARD`, and `NF_BR_FORWARD`.
pub(super) const NF_FORWARD: u32 = 2;
pub(super) const NF_NETDEV_INGRESS: u32 = 0;
pub(super) const NF_DROP: u32 = 0;
pub(super) const NF_ACCEPT: u32 = 1;
/// `linux/netfilter/nf_tables.h`.
pub(super) const NFT_MSG_NEWTABLE: u16 = 0;
pub(super) const NFT_MSG_GETTABLE: u16 = 1;
pub(super) const NFT_MSG_DELTABLE: u16 = 2;
pub(super) const NFT_MSG_NEWCHAIN: u16 = 3;
pub(super) const NFT_MSG_GETCHAIN: u16 = 4;
pub(super) const NFT_MSG_DELCHAIN: u16 = 5;
pub(super) const NFT_MSG_NEWRULE: u16 = 6;
pub(super) const NFT_MSG_GETRULE: u16 = 7;
pub(super) const NFT_MSG_DELRULE: u16 = 8;
pub(super) const NLM_F_NONREC: u16 = 0x100;
pub(super) const NFT_TABLE_F_DORMANT: u32 = 1;
pub(super) const NFT_CHAIN_HW_OFFLOAD: u32 = 2;
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
pub(super) const NFT_REG_VERDICT: u32 = 0;
pub(super) const NFT_CMP_EQ: u32 = 0;
pub(super) const NFT_CMP_NEQ: u32 = 1;
pub(super) const NFT_META_PROTOCOL: u32 = 1;
pub(super) const NFT_META_IIF: u32 = 4;
pub(super) const NFT_META_OIF: u32 = 5;
pub(super) const NFT_META_IIFNAME: u32 = 6;
pub(super) const NFT_META_OIFNAME: u32 = 7;
pub(super) const NFT_META_NFPROTO: u32 = 15;
pub(super) const NFT_META_BRI_IIFNAME: u32 = 17;
pub(super) const NFT_META_BRI_OIFNAME: u32 = 18;
pub(super) const NFT_CT_STATE: u32 = 0;
/// `NF_CT_STATE_BIT`, linux/netfilter/nf_conntrack_common.h.
pub(super) const NF_CT_STATE_ESTABLISHED: u32 = 2;
pub(super) const NF_CT_STATE_RELATED: u32 = 4;
/// `enum nft_verdicts`, and those of netfilter.
pub(super) const NFT_VERDICT_DROP: i32 = 0;
pub(super) const NFT_VERDICT_ACCEPT: i32 = 1;
pub(super) const NFT_VERDICT_CONTINUE: i32 = -1;
pub(super) const NFT_VERDICT_BREAK: i32 = -2;
pub(super) const NFT_VERDICT_JUMP: i32 = -3;
pub(super) const NFT_VERDICT_GOTO: i32 = -4;
pub(super) const NFT_VERDICT_RETURN: i32 = -5;
pub(super) const NFTA_HOOK_HOOKNUM: u16 = 1;
pub(super) const NFTA_HOOK_PRIORITY: u16 = 2;
pub(super) const NFTA_HOOK_DEV: u16 = 3;
pub(super) const NFTA_HOOK_DEVS: u16 = 4;
pub(super) const NFTA_DEVICE_NAME: u16 = 1;

/// `linux/neighbour.h`.
pub(super) const NDA_LLADDR: u16 = 2;
pub(super) const NDA_VLAN: u16 = 5;
pub(super) const NDA_MASTER: u16 = 9;
pub(super) const NUD_NOARP: u16 = 0x40;
pub(super) const NTF_MASTER: u8 = 0x04;
pub(super) const NTF_STICKY: u8 = 0x40;
