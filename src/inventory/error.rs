//! Why a record, a MAC or an address is not to be had.

use std::net::IpAddr;

use crate::model::mac::MacError;
use crate::model::subnet::SubnetError;
use crate::model::{GroupId, Mac, Need, NetworkId, PortId, RuleId, ServerId, SubnetId, TrunkId};
use crate::plan::HostUse;

/// A refusal. The message says what was wrong, with the value, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing has that id.
    #[error("Network {0} could not be found.")]
    NoSuchNetwork(NetworkId),
    /// Nothing has that id.
    #[error("Subnet {0} could not be found.")]
    NoSuchSubnet(SubnetId),
    /// Nothing has that id.
    #[error("Instance {0} could not be found.")]
    NoSuchServer(ServerId),
    /// Nothing has that id.
    #[error("Port id {0} could not be found.")]
    NoSuchPort(PortId),
    /// Nothing has that id.
    #[error("Security group {0} does not exist")]
    NoSuchGroup(GroupId),
    /// Nothing has that id.
    #[error("Security group rule {0} does not exist")]
    NoSuchRule(RuleId),
    #[error("Trunk {0} could not be found.")]
    NoSuchTrunk(TrunkId),
    /// The port carries the frames of a trunk's subports.
    #[error("Port {port} is currently a parent port for trunk {trunk}; delete the trunk first.")]
    PortIsTrunkParent {
        /// The port.
        port: PortId,
        /// The trunk.
        trunk: TrunkId,
    },
    /// The port is a trunk's subport.
    #[error("Port {port} is currently a subport for trunk {trunk}; remove it from the trunk first.")]
    PortIsSubPort {
        /// The port.
        port: PortId,
        /// The trunk.
        trunk: TrunkId,
    },
    /// The address is another port's.
    #[error("Fixed IP {ip} is already in use by port {port} on network {network}; leave it out to get a free one.")]
    AddressInUse {
        /// The address.
        ip: IpAddr,
        /// Its network.
        network: NetworkId,
        /// Its port.
        port: PortId,
    },
    /// The address is this host's own, or a machine's that it sends to.
    #[error("Fixed IP {ip} is already in use by this host ({host}): {}; leave it out to get a free one.", whose(*of, device))]
    AddressOfHost {
        /// The address.
        ip: IpAddr,
        /// The host's name.
        host: String,
        /// The link that it is on.
        device: String,
        /// Whose it is.
        of: HostUse,
    },
    /// The address asked for as a gateway is a port's.
    #[error("gateway_ip {gateway} is already in use by port {port}; choose another, or give the port another address first")]
    GatewayInUse {
        /// The address.
        gateway: IpAddr,
        /// Its port.
        port: PortId,
    },
    /// No subnet of the network holds the address.
    #[error("Fixed IP {ip} is not in any subnet of network {network}; its subnets are {subnets}.")]
    AddressOutside {
        /// The address.
        ip: IpAddr,
        /// The network.
        network: NetworkId,
        /// Its ranges.
        subnets: String,
    },
    /// The address is the subnet's own.
    #[error("Fixed IP {ip} cannot be given to a port: it is {why}.")]
    AddressKept {
        /// The address.
        ip: IpAddr,
        /// Whose it is.
        why: &'static str,
    },
    /// The guest makes another address itself.
    #[error(
        "Fixed IP {ip} cannot be given to a port with another MAC: the guest makes {made} of its own; leave it out to get that."
    )]
    AddressMade {
        /// As asked.
        ip: IpAddr,
        /// What the guest makes.
        made: IpAddr,
    },
    /// The subnet is not of the port's network.
    #[error("Subnet {subnet} does not belong to network {network}.")]
    SubnetOfOther {
        /// The subnet.
        subnet: SubnetId,
        /// The port's network.
        network: NetworkId,
    },
    /// This host has not claimed it in its fleet.
    #[error("this host has not reserved {} in its fleet", needed(.0))]
    Unclaimed(Need),
    /// No address is left.
    #[error("No fixed IP addresses available for network: {network} ({used} of {size} addresses of {cidr} are in use)")]
    PoolEmpty {
        /// The network.
        network: NetworkId,
        /// The subnet that was asked.
        cidr: String,
        /// Addresses in its pools.
        size: u128,
        /// Of which in use.
        used: u128,
    },
    /// More addresses than a port may have.
    #[error("{given} fixed IPs are too many; a port may have {limit}")]
    TooManyAddresses {
        /// As asked.
        given: usize,
        /// The limit.
        limit: usize,
    },
    /// The MAC is another port's, or the bridge's.
    #[error("MAC address {mac} is already in use by {by}; leave it out to get a fresh one.")]
    MacInUse {
        /// The MAC.
        mac: Mac,
        /// Whose it is.
        by: String,
    },
    /// The MAC cannot be a guest's.
    #[error(transparent)]
    Mac(#[from] MacError),
    /// Nothing was named and there is no network.
    #[error("No specific network was requested and none are available for project '{0}'.")]
    NoNetwork(String),
    /// Nothing was named and there is more than one network.
    #[error("Multiple possible networks found, use a Network ID to be more specific.")]
    SeveralNetworks,
    /// Every zone of conntrack is a network's.
    #[error("this host has {limit} networks and no more, since each has a zone of conntrack of its own; delete some")]
    TooManyNetworks {
        /// The limit.
        limit: u32,
    },
    /// The subnet's parts do not fit.
    #[error(transparent)]
    Subnet(#[from] SubnetError),
}

impl Error {
    /// The stable word that tests and scripts match on (`reason`).
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoSuchNetwork(_) => "no_such_network",
            Self::NoSuchSubnet(_) => "no_such_subnet",
            Self::NoSuchServer(_) => "no_such_server",
            Self::NoSuchPort(_) => "no_such_port",
            Self::NoSuchGroup(_) => "no_such_group",
            Self::NoSuchRule(_) => "no_such_rule",
            Self::NoSuchTrunk(_) => "no_such_trunk",
            Self::PortIsTrunkParent { .. } => "port_is_trunk_parent",
            Self::PortIsSubPort { .. } => "port_is_subport",
            Self::AddressInUse { .. } | Self::AddressOfHost { .. } | Self::GatewayInUse { .. } => "address_in_use",
            Self::AddressOutside { .. } => "address_outside_subnet",
            Self::AddressKept { .. } | Self::AddressMade { .. } => "address_not_usable",
            Self::SubnetOfOther { .. } => "subnet_of_other_network",
            Self::Unclaimed(_) => "fleet_unreachable",
            Self::PoolEmpty { .. } => "pool_empty",
            Self::TooManyAddresses { .. } => "too_many_addresses",
            Self::MacInUse { .. } => "mac_in_use",
            Self::Mac(_) => "bad_mac",
            Self::NoNetwork(_) => "no_network",
            Self::SeveralNetworks => "several_networks",
            Self::TooManyNetworks { .. } => "too_many_networks",
            Self::Subnet(_) => "bad_subnet",
        }
    }
}

/// What an address is to this host, in words.
pub fn whose(of: HostUse, device: &str) -> String {
    match of {
        HostUse::Own => format!("{device} has it"),
        HostUse::Peer => format!("it is the other end of an address on {device}"),
        HostUse::NextHop => format!("it is the next hop of a route by {device}"),
    }
}

/// What is needed, in words.
fn needed(need: &Need) -> String {
    match need {
        Need::AnyAddress(network, _) => format!("a free address of network {network}"),
        Need::Address(network, ip) => format!("{ip} of network {network}"),
        Need::AnyMac(_) => "a free MAC".to_owned(),
        Need::Mac(mac) => mac.to_string(),
    }
}
