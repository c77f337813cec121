//! What ports' guests are told by DHCP, read off the records.

use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::IpNetwork;

use crate::lease::{Given, Told};
use crate::model::{Mac, Port, PortId, Subnet};

use super::Inventory;
use super::leases::{Defaults, PortLease};

/// The server identifier in a subnet without a gateway. A guest has no route to it and asks all instead, which it does at T2 anyway.
const SERVER: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 67);

impl Inventory {
    /// Whether a port's DHCP requests are for the responder.
    pub fn is_served(&self, port: &Port) -> bool {
        port.told.dhcp && self.given_by_dhcp(port).next().is_some()
    }

    /// The port behind a request, its device's index, and what it is to be told: the attached port with this MAC, whose device is in
    /// this bridge.
    pub fn told(&self, mac: Mac, bridge: u32, defaults: &Defaults) -> Option<(PortId, u32, Told)> {
        let entry = self.ports.get(self.macs.get(&mac.host_side())?)?;
        let port = &entry.record;
        let device = self.have.device(port.id).filter(|device| device.master == Some(bridge))?;
        if port.mac != mac || port.attached_to().is_none() || !port.told.dhcp {
            return None;
        }
        let addresses: Vec<Given> = self.given_by_dhcp(port).map(|(ip, subnet)| given(port, ip, subnet, defaults)).collect();
        let network = &self.networks.get(&port.network_id)?.record;
        let told = Told {
            mac,
            addresses,
            mtu: network.mtu,
            hostname: name(&port.told.dns_name),
            domain: defaults.domain.as_deref().and_then(name),
            extra: port.told.extra_options.clone(),
        };
        (!told.addresses.is_empty()).then_some((port.id, device.index, told))
    }

    fn given_by_dhcp<'a>(&'a self, port: &'a Port) -> impl Iterator<Item = (Ipv4Addr, &'a Subnet)> {
        port.fixed_ips.iter().filter_map(|ip| match ip.ip_address {
            IpAddr::V4(address) => {
                let subnet = &self.subnets.get(&ip.subnet_id)?.record;
                subnet.enable_dhcp.then_some((address, subnet))
            }
            IpAddr::V6(_) => None,
        })
    }

    /// Nothing is to be said any more of an address that a port's guest found in use; whether there was.
    pub fn end_decline(&mut self, port: PortId) -> bool {
        if let Some(entry) = self.ports.get_mut(&port) {
            entry.dhcp.followed = [None; 2];
        }
        self.forget_declined(port)
    }

    /// The addresses that a port's guest found in use.
    pub fn declined_by(&self, port: PortId) -> impl Iterator<Item = IpAddr> {
        self.declined.range((port, false)..=(port, true)).map(|(_, address)| *address)
    }

    /// Forgets them; whether there were any.
    pub(super) fn forget_declined(&mut self, port: PortId) -> bool {
        [false, true].map(|is_v6| self.declined.remove(&(port, is_v6)).is_some()).contains(&true)
    }

    /// Forgets what a port's guest asked: it has another address, or no guest.
    pub(super) fn forget_lease(&mut self, port: PortId) {
        self.forget_declined(port);
        if let Some(entry) = self.ports.get_mut(&port) {
            entry.dhcp = PortLease::default();
        }
    }
}

/// A name as DHCP tells it: without the dot that says that it is whole.
fn name(text: &str) -> Option<String> {
    Some(text.strip_suffix('.').unwrap_or(text).to_owned()).filter(|name| !name.is_empty())
}

/// An address with what its subnet says. A router VM gets no route through itself.
fn given(port: &Port, address: Ipv4Addr, subnet: &Subnet, defaults: &Defaults) -> Given {
    let v4 = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => Some(*ip),
        IpAddr::V6(_) => None,
    };
    let own = |via: Ipv4Addr| port.fixed_ips.iter().any(|ip| ip.ip_address == via);
    let gateway = subnet.gateway_ip.as_ref().and_then(v4).filter(|gateway| !own(*gateway));
    let routes = subnet.host_routes.iter().filter_map(|route| match (route.destination, route.nexthop) {
        (IpNetwork::V4(to), IpAddr::V4(via)) if !own(via) => Some((to, via)),
        _ => None,
    });
    let said = subnet.dns_nameservers.iter().filter_map(v4).collect::<Vec<Ipv4Addr>>();
    let resolvers = if said.is_empty() { defaults.resolvers.iter().filter_map(v4).collect() } else { said };
    Given {
        address,
        prefix: subnet.cidr.prefix(),
        server: gateway.unwrap_or(SERVER),
        router: gateway,
        routes: routes.collect(),
        resolvers,
    }
}
