//! What this host may give to ports of a network that all hosts have, and whom a change of such a port is told: the rules that choices of
//! addresses and MACs go by.

use std::net::IpAddr;

use crate::model::claim::BLOCK;
use crate::model::pools::{Range, address, number};
use crate::model::{Claim, Held, Mac, Need, Network, NetworkId, Port, PortId, PublishedId, ServerId, Subnet};

use super::entries::{Inventory, SubnetEntry};
use super::error::Error;

impl Inventory {
    /// Whether an address is given to ports. What a guest makes of its MAC is its own as the MAC is.
    pub(super) fn is_given(&self, network: NetworkId, ip: IpAddr) -> bool {
        let subnets = self.networks.get(&network).into_iter().flat_map(|entry| &entry.subnets);
        let mut subnets = subnets.filter_map(|id| self.subnets.get(id)).map(|entry| &entry.record);
        subnets.find(|subnet| subnet.cidr.contains(ip)).is_none_or(|subnet| !subnet.is_auto() || subnet.gateway_ip == Some(ip))
    }

    /// What has to be this host's for a port on a shared network that is active here: each address that it was given, and its MAC.
    pub fn needs_of(&self, port: &Port) -> Vec<Claim> {
        let given = port.held_ips().filter(|ip| self.is_given(port.network_id, ip.ip_address));
        let addresses = given.map(|ip| Claim::Address(port.network_id, ip.ip_address));
        addresses.chain([Claim::Mac(port.mac)]).collect()
    }

    /// Refuses a port that another host has, where another port of this one has something of it.
    pub fn check_room_for(&self, port: &Port) -> Result<(), Error> {
        if let Some(other) = self.macs.get(&port.mac.host_side()) {
            return Err(Error::MacInUse { mac: port.mac, by: format!("port {other}") });
        }
        for ip in port.held_ips() {
            self.subnets.get(&ip.subnet_id).ok_or(Error::NoSuchSubnet(ip.subnet_id))?;
            if let Some(other) = self.addresses.get(&(port.network_id, ip.ip_address)) {
                return Err(Error::AddressInUse { ip: ip.ip_address, network: port.network_id, port: *other });
            }
        }
        Ok(())
    }

    /// Whether this host holds all that a port has to have claimed.
    pub fn holds_all_of(&self, port: &Port) -> bool {
        self.needs_of(port).iter().all(|one| self.holding.has_one(one))
    }

    /// The host that has what this port has, in the fleet.
    pub fn other_host_of(&self, port: PortId) -> Option<&str> {
        if self.holding.disputed.is_empty() && self.holding.lent.is_empty() {
            return None;
        }
        let port = &self.ports.get(&port)?.record;
        self.networks.get(&port.network_id).filter(|entry| entry.record.is_shared() && port.standby.is_none())?;
        self.needs_of(port).iter().find_map(|one| self.holding.other_host(one))
    }

    /// Whether an address that no port here has any more may be given to another one.
    pub(super) fn is_free_again(&self, network: NetworkId, ip: IpAddr) -> bool {
        let shared = self.networks.get(&network).is_some_and(|entry| entry.record.is_shared());
        !shared || self.holding.is_in_block(&Claim::Address(network, ip))
    }

    /// What of a shared network's addresses this host may give; none for another network: all of them.
    pub(super) fn may_give(&self, network: NetworkId) -> Option<Vec<Range>> {
        self.networks.get(&network).filter(|entry| entry.record.is_shared())?;
        let range = |held: &Held| match held.claim {
            Claim::Addresses { first, .. } => {
                let last = number(first) + u128::from(BLOCK) - 1;
                Some(Range { start: first, end: address(last, first.is_ipv6()) })
            }
            _ => None,
        };
        Some(self.holding.blocks(network).filter_map(range).collect())
    }

    /// Refuses an address of a shared network that is in no block of this host's.
    pub(super) fn check_held(&self, network: NetworkId, ip: IpAddr) -> Result<(), Error> {
        let shared = self.networks.get(&network).is_some_and(|entry| entry.record.is_shared());
        if !shared || self.holding.has_address(network, ip) || !self.is_given(network, ip) {
            return Ok(());
        }
        Err(Error::Unclaimed(Need::Address(network, ip)))
    }

    /// Refuses a MAC for a shared network that this host has not claimed.
    pub(super) fn check_mac_held(&self, network: &Network, mac: Mac) -> Result<Mac, Error> {
        match !network.is_shared() || self.holding.has_mac(mac) {
            true => Ok(mac),
            false => Err(Error::Unclaimed(Need::Mac(mac))),
        }
    }

    /// Why no address of a subnet is free.
    pub(super) fn none_free(&self, subnet: &Subnet) -> Error {
        match self.networks.get(&subnet.network_id) {
            Some(entry) if entry.record.is_shared() => Error::Unclaimed(Need::AnyAddress(subnet.network_id, subnet.id)),
            _ => self.subnets.get(&subnet.id).map_or(Error::NoSuchSubnet(subnet.id), SubnetEntry::empty),
        }
    }

    /// Notes that a port of a network has changed, if the fleet is to be told.
    pub(super) fn port_changed(&mut self, network: NetworkId, port: PortId) {
        if self.publishing.is_on && self.networks.get(&network).is_some_and(|entry| entry.record.is_shared()) {
            self.changed(PublishedId::Port(port));
        }
    }

    /// Notes that a server has changed, if the fleet is to be told.
    pub(super) fn server_changed(&mut self, server: ServerId) {
        if self.publishing.is_on {
            self.changed(PublishedId::Server(server));
        }
    }

    fn changed(&mut self, id: PublishedId) {
        self.publishing.changed.insert(id);
        self.publishing.rung.notify_one();
    }
}

impl SubnetEntry {
    fn empty(&self) -> Error {
        let usage = self.free.usage();
        Error::PoolEmpty {
            network: self.record.network_id,
            cidr: self.record.cidr.to_string(),
            size: usage.size,
            used: usage.used,
        }
    }
}
