//! The reasons for which the filters drop a frame.

use serde::{Deserialize, Serialize};

/// Why a frame was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// It comes from a MAC that is not the port's.
    Mac,
    /// Its ARP claims, or asks for, what is not the port's.
    Arp,
    /// It comes from an IPv4 address that is not the port's, or its IPv4 header is malformed.
    Ip4,
    /// The same of IPv6.
    Ip6,
    /// Its neighbour discovery claims what is not the port's, or comes in fragments.
    Nd,
    /// It is a router's advertisement or redirect.
    Ra,
    /// It is what a DHCP server sends.
    DhcpServer,
    /// It carries neither IP nor ARP: a VLAN's tag, LLC, and anything else.
    Ethertype,
    /// It exceeds the port's limit.
    Limit,
    /// No rule of the port's security groups lets it through.
    Group,
}

impl DropReason {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Mac,
        Self::Arp,
        Self::Ip4,
        Self::Ip6,
        Self::Nd,
        Self::Ra,
        Self::DhcpServer,
        Self::Ethertype,
        Self::Limit,
        Self::Group,
    ];

    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mac => "mac",
            Self::Arp => "arp",
            Self::Ip4 => "ip4",
            Self::Ip6 => "ip6",
            Self::Nd => "nd",
            Self::Ra => "ra",
            Self::DhcpServer => "dhcp_server",
            Self::Ethertype => "ethertype",
            Self::Limit => "limit",
            Self::Group => "group",
        }
    }
}
