//! What ports' guests are told by router advertisements, read off the records.

use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use ipnetwork::{IpNetwork, Ipv6Network};

use crate::lease::advert::{Advert, FOR_EVER, LIFETIME, Prefix, Router};
use crate::lease::v6::Told;
use crate::model::{FixedIp, Guest, Mac, Mode, NetworkId, Port, PortId, Subnet};
use crate::plan::filter::Served;
use crate::plan::{HostAddress, HostUse, Kind, LinkState};

use super::leases::Defaults;
use super::{Inventory, PortEntry, Segment};

/// So many answers at once, and one more in each `ANSWERS_EVERY`, are made for a port whose guest gets no more than a rate. They wait
/// at its device, and are charged meanwhile to the socket that answers every port of the bridge.
const ANSWERS: u32 = 40;
const ANSWERS_EVERY: Duration = Duration::from_millis(50);

impl Inventory {
    /// What of a port's requests is for the responder.
    pub fn served(&self, port: &Port) -> Option<Served> {
        let six = |how: fn(&Subnet) -> Option<Mode>| port.told.dhcp && self.guided(port, how).next().is_some();
        let (dhcp4, dhcp6, solicitations) = (self.is_served(port), six(Subnet::answered), six(Subnet::advertised));
        (dhcp4 || dhcp6 || solicitations).then_some(Served { mac: port.mac, dhcp4, dhcp6, solicitations })
    }

    /// Whether a message from this MAC in this bridge may be answered, so far as it is known whose that is.
    pub fn may_answer(&mut self, mac: Mac, bridge: u32, now: Instant) -> bool {
        let Some(port) = self.asking(mac, bridge).map(|(entry, _)| entry.record.id) else { return true };
        let Some(entry) = self.ports.get_mut(&port).filter(|entry| entry.record.limits.to_guest.is_some()) else { return true };
        let may = entry.dhcp.budget.take(now, ANSWERS, ANSWERS_EVERY);
        entry.dhcp.ignored += u64::from(!may);
        may
    }

    /// The attached port with this MAC whose device is in this bridge, with the device's index.
    pub fn asking(&self, mac: Mac, bridge: u32) -> Option<(&PortEntry, u32)> {
        let entry = self.ports.get(self.macs.get(&mac.host_side())?)?;
        let device = self.have.device(entry.record.id).filter(|device| device.master == Some(bridge))?;
        let asks = entry.record.mac == mac && entry.record.attached_to().is_some() && entry.record.told.dhcp;
        asks.then_some((entry, device.index))
    }

    /// A port's IPv6 addresses for whose subnets nicd does this, with how.
    fn guided<'a>(
        &'a self,
        port: &'a Port,
        how: fn(&Subnet) -> Option<Mode>,
    ) -> impl Iterator<Item = (Ipv6Addr, &'a Subnet, Mode)> {
        port.fixed_ips.iter().filter_map(move |ip| {
            let IpAddr::V6(address) = ip.ip_address else { return None };
            let subnet = &self.subnets.get(&ip.subnet_id)?.record;
            how(subnet).map(|mode| (address, subnet, mode))
        })
    }

    /// What a port's guest is told by router advertisements; none where it is told nothing.
    pub fn advert(&self, port: &Port, defaults: &Defaults) -> Option<Advert> {
        let mut advert = Advert { domain: defaults.domain.clone(), ..Advert::default() };
        advert.mtu = self.networks.get(&port.network_id)?.record.mtu;
        for (_, subnet, mode) in self.guided(port, Subnet::advertised).filter(|_| port.told.dhcp) {
            let IpNetwork::V6(net) = subnet.cidr else { continue };
            advert.managed |= mode == Mode::Dhcpv6Stateful;
            advert.other |= mode != Mode::Slaac;
            let prefix = Prefix { net, auto: mode.is_auto() };
            if !advert.prefixes.contains(&prefix) {
                advert.prefixes.push(prefix);
            }
            self.routes(port, subnet, &mut advert.routers);
        }
        if advert.prefixes.is_empty() {
            return None;
        }
        advert.resolvers = self.resolvers(port, Subnet::advertised, defaults);
        if advert.routers.is_empty() {
            let (source, mac) = (port.mac.host_side().link_local(), Some(port.mac.host_side()));
            advert.routers.push(Router { source, mac, is_default: false, routes: Vec::new() });
        }
        // A namespace's guest has its addresses for good, which its kernel would hold only as long as it is told here.
        let server = port.attached_to().and_then(|id| self.servers.get(&id));
        let has_nic = port.carrier().is_none();
        let is_netns = server.is_some_and(|server| has_nic && matches!(server.record.guest, Guest::Netns { .. }));
        advert.lifetime = if is_netns { FOR_EVER } else { LIFETIME };
        Some(advert)
    }

    /// What a port's guest is told by DHCPv6; none where it is told nothing.
    pub fn told6(&self, port: &Port, defaults: &Defaults) -> Option<Told> {
        let given = self.guided(port, Subnet::answered).filter(|_| port.told.dhcp).collect::<Vec<_>>();
        let stateful = given.iter().filter(|(.., mode)| *mode == Mode::Dhcpv6Stateful);
        let told = Told {
            server: self.store_id,
            addresses: stateful.map(|(address, ..)| *address).collect(),
            links: self.links(port),
            mtu: self.networks.get(&port.network_id)?.record.mtu,
            resolvers: self.resolvers(port, Subnet::answered, defaults),
            hostname: Some(port.told.dns_name.clone()).filter(|name| !name.is_empty()),
            domain: defaults.domain.clone(),
            extra: port.told.extra_options.clone(),
        };
        (!given.is_empty()).then_some(told)
    }

    /// The IPv6 subnets that a port has addresses of.
    fn links(&self, port: &Port) -> Vec<Ipv6Network> {
        let subnets = port.fixed_ips.iter().filter_map(|ip| self.subnets.get(&ip.subnet_id));
        let cidrs = subnets.filter_map(|entry| if let IpNetwork::V6(net) = entry.record.cidr { Some(net) } else { None });
        cidrs.collect()
    }

    /// The first address of a port for which DHCPv6 says something.
    pub fn guided_address(&self, port: PortId) -> Option<Ipv6Addr> {
        let record = &self.ports.get(&port)?.record;
        self.guided(record, Subnet::answered).next().map(|(address, ..)| address)
    }

    /// The DNS servers of a port's subnets for which nicd does this, or of all.
    fn resolvers(&self, port: &Port, how: fn(&Subnet) -> Option<Mode>, defaults: &Defaults) -> Vec<Ipv6Addr> {
        let v6 = |ip: &IpAddr| if let IpAddr::V6(ip) = ip { Some(*ip) } else { None };
        let mut resolvers: Vec<Ipv6Addr> = Vec::new();
        for resolver in self.guided(port, how).flat_map(|(_, subnet, _)| &subnet.dns_nameservers).filter_map(v6) {
            if !resolvers.contains(&resolver) {
                resolvers.push(resolver);
            }
        }
        if resolvers.is_empty() { defaults.resolvers.iter().filter_map(v6).collect() } else { resolvers }
    }

    /// Adds a subnet's routers, as far as they have link-local addresses that are known: a guest takes others for none. A router VM gets
    /// no route through itself.
    fn routes(&self, port: &Port, subnet: &Subnet, routers: &mut Vec<Router>) {
        let routes = subnet.host_routes.iter().map(|route| (route.destination, route.nexthop));
        let everywhere = Ipv6Network::new(Ipv6Addr::UNSPECIFIED, 0).map(IpNetwork::V6).ok();
        let has_default = subnet.host_routes.iter().any(|route| Some(route.destination) == everywhere);
        let default = everywhere.zip(subnet.gateway_ip).filter(|_| !has_default);
        for (destination, via) in default.into_iter().chain(routes) {
            let (IpNetwork::V6(destination), IpAddr::V6(via)) = (destination, via) else { continue };
            let Some((source, mac)) = self.named(port.network_id, via) else { continue };
            if port.fixed_ips.iter().any(|ip| ip.ip_address == via) || source == port.mac.link_local() {
                continue;
            }
            let at = routers.iter().position(|router| router.source == source).unwrap_or_else(|| {
                routers.push(Router { source, mac, is_default: false, routes: Vec::new() });
                routers.len() - 1
            });
            match destination.prefix() {
                0 => routers[at].is_default = true,
                _ => routers[at].routes.push(destination),
            }
        }
    }

    /// A router's link-local address, and its MAC where it is known: its own, that of the port which has its address, or this host's.
    fn named(&self, network: NetworkId, router: Ipv6Addr) -> Option<(Ipv6Addr, Option<Mac>)> {
        if router.is_unicast_link_local() {
            return Some((router, None));
        }
        let holder = self.addresses.get(&(network, router.into())).and_then(|port| self.ports.get(port));
        if let Some(port) = holder.filter(|port| port.record.attached_to().is_some()) {
            return Some((port.record.mac.link_local(), Some(port.record.mac)));
        }
        let has_it = |host: &HostAddress| host.of == HostUse::Own && host.ip == IpAddr::from(router);
        let (link, _) = self.hosts_beside(network).find(|(_, host)| has_it(host))?;
        let local = link.hosts.iter().find_map(|host| match host.ip {
            IpAddr::V6(ip) if ip.is_unicast_link_local() => Some(ip),
            _ => None,
        });
        local.map(|ip| (ip, None))
    }

    /// Has guests told soon by which router they go, when the host's addresses on a link have changed: it may be one.
    pub(super) fn follow_host(&mut self, link: &LinkState) {
        let of = |link: &LinkState| link.hosts.iter().filter(|host| host.ip.is_ipv6()).copied().collect::<Vec<_>>();
        if self.have.link(link.index).map(of).unwrap_or_default() == of(link) {
            return;
        }
        let bridge = if link.kind == Kind::Bridge { Some(link.index) } else { link.master };
        let segment = bridge.map(|bridge| Segment::Bridge(bridge, 0));
        let networks: Vec<NetworkId> = self.on_segment(segment.as_ref()).map(|entry| entry.record.id).collect();
        networks.into_iter().for_each(|network| self.advertise_on(network));
    }

    /// Has a port's guest told soon what has changed for it.
    pub fn advertise_soon(&mut self, port: PortId) {
        self.adverts.set(port, Instant::now());
    }

    /// The same of all of a network's ports.
    pub(super) fn advertise_on(&mut self, network: NetworkId) {
        let Some(entry) = self.networks.get(&network) else { return };
        let now = Instant::now();
        entry.ports.iter().for_each(|port| self.adverts.set(*port, now));
    }

    /// The same when a port gets or loses the address of a subnet's gateway: by its MAC guests know the router.
    pub(super) fn follow_gateway(&mut self, port: &Port) {
        let is_gateway =
            |ip: &FixedIp| self.subnets.get(&ip.subnet_id).and_then(|one| one.record.gateway_ip) == Some(ip.ip_address);
        if port.fixed_ips.iter().any(|ip| ip.ip_address.is_ipv6() && is_gateway(ip)) {
            self.advertise_on(port.network_id);
        }
    }
}
