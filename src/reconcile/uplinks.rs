//! Why a link cannot lead a network to its physical network.

use std::fmt;

/// A link that cannot be the uplink of a physical network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UplinkError {
    /// The physical network.
    pub physical: String,
    /// The link.
    pub device: String,
    /// Why.
    pub fault: UplinkFault,
}

/// What is wrong with an uplink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UplinkFault {
    /// It is not there.
    Missing,
    /// It is the loopback device.
    IsLoopback,
    /// It is a wireless device.
    IsWireless,
    /// It carries no Ethernet frames.
    NotEthernet,
    /// It is a bridge.
    IsBridge,
    /// nicd made it.
    IsNicds,
    /// It is in a bridge or bond of this name.
    IsPort(String),
    /// The configuration does not let nicd put it into a bridge.
    NotAdopted,
    /// The host has this on it.
    Carries(String),
    /// It is a bridge that does not tell VLANs apart.
    FiltersNoVlans,
}

impl UplinkFault {
    /// The stable word for it (`reason`).
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "uplink_missing",
            Self::IsLoopback => "uplink_is_loopback",
            Self::IsWireless => "uplink_is_wireless",
            Self::NotEthernet => "uplink_not_ethernet",
            Self::IsBridge => "uplink_is_bridge",
            Self::IsNicds => "uplink_is_nicds",
            Self::IsPort(_) => "uplink_is_port",
            Self::NotAdopted => "uplink_not_adopted",
            Self::Carries(_) => "uplink_in_use",
            Self::FiltersNoVlans => "uplink_filters_no_vlans",
        }
    }
}

impl std::error::Error for UplinkError {}

impl fmt::Display for UplinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { physical, device, fault } = self;
        write!(f, "{device}, the uplink of physical network {physical}, ")?;
        match fault {
            UplinkFault::Missing => write!(f, "is not on this host; name the right link in [physical_networks]"),
            UplinkFault::IsLoopback => write!(f, "is the loopback device, which leads nowhere; name another link"),
            UplinkFault::IsWireless => {
                write!(f, "is a wireless device, which carries no frames of guests' MACs; name a wired link")
            }
            UplinkFault::NotEthernet => write!(f, "carries no Ethernet frames; name a link that does"),
            UplinkFault::IsBridge => {
                write!(f, "is a bridge; name it as {{ bridge = \"{device}\" }}, or name the link that is in it")
            }
            UplinkFault::IsNicds => write!(f, "was made by nicd; name a link that leads to other machines"),
            UplinkFault::IsPort(of) => {
                write!(f, "is in {of}; take it out, or name that as {{ bridge = \"{of}\" }} if it is a bridge")
            }
            UplinkFault::NotAdopted => write!(
                f,
                "may not be put into a bridge; allow it with {{ device = \"{device}\", adopt = true }}, or make the network a vlan one"
            ),
            UplinkFault::Carries(what) => write!(
                f,
                "carries {what} of this host, which would be cut off in a bridge; take it off the link, or put the link into a bridge of \
                 your own and name that as {{ bridge = … }}"
            ),
            UplinkFault::FiltersNoVlans => {
                write!(
                    f,
                    "does not tell VLANs apart; ip link set {device} type bridge vlan_filtering 1, or make the network a flat one"
                )
            }
        }
    }
}
