//! Records with their indexes and reservations, and what the kernel was last seen to hold. Rules only: no I/O, no waiting.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Instant;

use ipnetwork::IpNetwork;

use crate::model::action::{WantedIp, WantedNic};
use crate::model::names;
use crate::model::pools::FreeRanges;
use crate::model::{
    Carrier, FixedIp, Guest, GuestMacs, Intent, Mac, Network, NetworkId, Origin, Phase, Port, PortId, ServerId, Status, Subnet,
    SubnetId, TapMake,
};
use crate::plan::{
    Address, BridgeMade, DesiredBridge, DesiredNic, DesiredPort, Filter, GuestSettings, LinkState, Observed, Overlays, Route,
    Speaks, TokenBucket,
};

pub mod adverts;
mod claim;
pub mod comparing;
#[cfg(debug_assertions)]
mod consistency;
mod entries;
mod error;
mod filters;
pub mod flapping;
mod grouping;
mod groups;
mod guided;
pub mod held;
mod holding;
pub mod leases;
pub mod leftovers;
mod members;
mod monitors;
pub mod neighbours;
mod noted_members;
mod open;
mod overlays;
mod profiles;
mod publishing;
pub mod retry;
mod segments;
mod shared;
pub mod speaking;
pub mod telling;
mod told;
mod trunks;
pub mod uplinks;
mod wakeups;

pub use claim::{Busy, Claim, ClaimGuard, Unclaimed};
pub use entries::{GroupEntry, Inventory, NetworkEntry, PortClaims, PortEntry, Segment, ServerEntry, SubnetEntry, TrunkRole};
pub use error::{Error, whose};
pub use filters::usable;

use comparing::OverlayWork;
use flapping::BridgeRepairs;
use leases::PortLease;
use neighbours::Neighbours;
use retry::{NAMESPACE_GONE, Retry};
use telling::Telling;

/// Addresses a port may have at most.
pub const ADDRESS_LIMIT: usize = 16;

/// Subnets a network may have at most.
pub const SUBNET_LIMIT: usize = 64;

/// How many gone links are remembered.
const TOMBSTONES: usize = 4096;

/// A guest's first NIC's routes get this metric, its next one's one more: below what a guest's own DHCP client would set,
/// above what an operator would.
const FIRST_METRIC: u32 = 100;

impl Inventory {
    /// Nothing known yet, of a store with this id on the host of this name, whose looks and watch go by these MACs and overlays.
    pub fn new(store_id: uuid::Uuid, host: String, guests: GuestMacs, overlays: Overlays) -> Self {
        Self { store_id, host, guests, overlays, have: Observed::default().seen_by(store_id), ..Self::default() }
    }

    /// Takes in a network.
    pub fn add_network(&mut self, record: Network) {
        self.enter_segment(&record);
        if let Some(bridge) = &record.bridge {
            self.bridges.entry(bridge.to_string()).or_default().insert(record.id);
        }
        let (claim, repairs) = (Claim::default(), BridgeRepairs::default());
        let segment = self.segment_for(&record);
        self.segments.entry(segment.clone()).or_default().insert(record.id);
        self.zones.insert(record.zone);
        let (subnets, ports, overlay) = (BTreeSet::new(), BTreeSet::new(), OverlayWork::default());
        let entry = NetworkEntry { subnets, ports, claim, repairs, overlay, segment, looked: None, record };
        let id = entry.record.id;
        self.networks.insert(id, entry);
        self.have.own_bridge(id).into_iter().for_each(|bridge| self.place_overlay(bridge));
    }

    /// The networks that have ports here.
    pub fn used_networks(&self) -> impl Iterator<Item = &NetworkEntry> + '_ {
        self.used.iter().filter_map(|id| self.networks.get(id))
    }

    /// Forgets a network.
    pub fn remove_network(&mut self, id: NetworkId) {
        self.fought_bridges.remove(&id);
        self.open.closed(id);
        self.overlays.set(id, None);
        let Some(entry) = self.networks.remove(&id) else { return };
        self.give_zone_back(&entry.record);
        self.leave_segment(&entry.record);
        if let Some(networks) = self.segments.get_mut(&entry.segment) {
            networks.remove(&id);
            if networks.is_empty() {
                self.segments.remove(&entry.segment);
            }
        }
        let Some(bridge) = entry.record.bridge else { return };
        if let Some(networks) = self.bridges.get_mut(bridge.as_str()) {
            networks.remove(&id);
            if networks.is_empty() {
                self.bridges.remove(bridge.as_str());
            }
        }
    }

    /// Takes in a subnet of a known network.
    pub fn add_subnet(&mut self, record: Subnet) {
        self.restore_subnet(SubnetEntry { free: FreeRanges::default(), users: 0, record });
    }

    /// Puts a subnet back that was removed, with the number of addresses that ports hold of it.
    pub fn restore_subnet(&mut self, entry: SubnetEntry) {
        let (id, network) = (entry.record.id, entry.record.network_id);
        self.networks.get_mut(&network).into_iter().for_each(|network| _ = network.subnets.insert(id));
        self.subnets.insert(id, entry);
        self.fill(id);
    }

    /// Forgets a subnet; what was known of it. Ports may still hold addresses of it until their guests have lost them.
    pub fn remove_subnet(&mut self, id: SubnetId) -> Option<SubnetEntry> {
        let entry = self.subnets.remove(&id)?;
        if let Some(network) = self.networks.get_mut(&entry.record.network_id) {
            network.subnets.remove(&id);
        }
        Some(entry)
    }

    /// Puts a changed record in a subnet's place; what its ports have of it stays theirs.
    pub fn replace_subnet(&mut self, record: Subnet) {
        let Some(entry) = self.subnets.get_mut(&record.id) else { return };
        let (network, before) = (record.network_id, std::mem::replace(&mut entry.record, record));
        if before.cidr.is_ipv6() {
            self.advertise_on(network);
        }
        let Some(entry) = self.subnets.get(&before.id) else { return };
        if (before.gateway_ip, &before.allocation_pools) == (entry.record.gateway_ip, &entry.record.allocation_pools) {
            return;
        }
        self.fill(before.id);
    }

    /// Refuses a new gateway whose address a port of the network has, and a gateway or next hops that its guests could not use.
    pub fn check_gateway(&self, before: &Subnet, after: &Subnet) -> Result<(), Error> {
        if before.gateway_ip != after.gateway_ip
            && let Some(gateway) = after.gateway_ip
            && let Some(port) = self.addresses.get(&(after.network_id, gateway))
        {
            return Err(Error::GatewayInUse { gateway, port: *port });
        }
        if (before.gateway_ip, &before.host_routes) == (after.gateway_ip, &after.host_routes) {
            return Ok(());
        }
        self.check_next_hops(after, &[])
    }

    /// Refuses a gateway or next hops that guests could not use on the network with its subnets, and those made beside it.
    pub fn check_next_hops(&self, subnet: &Subnet, beside: &[Subnet]) -> Result<(), Error> {
        let there = self.network(subnet.network_id)?.subnets.iter().filter_map(|id| self.subnets.get(id));
        let there = there.map(|entry| &entry.record).chain(beside.iter().filter(|one| one.network_id == subnet.network_id));
        let others = there.filter(|one| one.id != subnet.id);
        let all: Vec<&Subnet> = [subnet].into_iter().chain(others).collect();
        Ok(subnet.check_next_hops(&all)?)
    }

    /// Takes in a port, reserving its MAC and addresses.
    pub fn add_port(&mut self, record: Port, phase: Phase) {
        self.reserve(&record);
        self.follow_gateway(&record);
        if let Some(network) = self.networks.get_mut(&record.network_id) {
            network.ports.insert(record.id);
            self.used.insert(record.network_id);
        }
        if let Some(server) = record.binding.as_ref().and_then(|binding| self.servers.get_mut(&binding.server_id)) {
            server.ports.insert(record.id);
        }
        self.count_phase(record.id, phase);
        let (claim, retry) = (Claim::default(), Retry::default());
        let telling = Telling::default();
        let device = self.have.device(record.id).map(|device| device.index);
        let (refused, reaping, looks) = (Vec::new(), false, 0);
        let dhcp = PortLease::default();
        let neighbours = Neighbours { is_unasked: phase == Phase::Building, ..Neighbours::default() };
        let (reason, detail) = (None, None);
        let entry =
            PortEntry { phase, reason, detail, claim, retry, telling, refused, reaping, device, looks, dhcp, neighbours, record };
        let (network, port) = (entry.record.network_id, entry.record.id);
        self.ports.insert(port, entry);
        self.port_changed(network, port);
    }

    /// Puts another record in a port's place, moving its reservations and its server.
    pub fn replace_port(&mut self, record: Port) {
        let Some(entry) = self.ports.get(&record.id) else { return };
        let before = entry.record.clone();
        self.release(&before);
        self.reserve(&record);
        let server = |port: &Port| port.binding.as_ref().map(|binding| binding.server_id);
        if server(&before) != server(&record) {
            if let Some(left) = server(&before).and_then(|id| self.servers.get_mut(&id)) {
                left.ports.remove(&record.id);
            }
            if let Some(joined) = server(&record).and_then(|id| self.servers.get_mut(&id)) {
                joined.ports.insert(record.id);
            }
        }
        if record.attached_to().is_none() {
            self.contested.remove(&record.id);
        }
        if record.attached_to().is_none() || record.fixed_ips != before.fixed_ips {
            self.forget_lease(record.id);
        }
        self.note_addresses(&before, &record);
        let seen = |port: &Port| (port.mac, port.fixed_ips.clone(), port.attached_to().is_some());
        if seen(&before) != seen(&record) {
            self.follow_gateway(&before);
            self.follow_gateway(&record);
        }
        let (network, port) = (record.network_id, record.id);
        if let Some(entry) = self.ports.get_mut(&port) {
            entry.record = record;
        }
        self.port_changed(network, port);
    }

    /// Forgets a port and frees its MAC and addresses.
    pub fn remove_port(&mut self, id: PortId) -> Option<PortEntry> {
        let entry = self.ports.remove(&id)?;
        self.port_changed(entry.record.network_id, id);
        self.due.forget(id);
        self.untold.forget(id);
        self.kept.remove(&id);
        self.contested.remove(&id);
        self.forget_declined(id);
        self.conflicts.remove(&id);
        self.have.note_nic(id, None);
        self.responder.place(id, None);
        self.adverts.place(id, None, Instant::now);
        self.release(&entry.record);
        self.follow_gateway(&entry.record);
        if let Some(network) = self.networks.get_mut(&entry.record.network_id) {
            network.ports.remove(&id);
            if network.ports.is_empty() {
                self.used.remove(&entry.record.network_id);
            }
        }
        if let Some(server) = entry.record.binding.as_ref().and_then(|binding| self.servers.get_mut(&binding.server_id)) {
            server.ports.remove(&id);
        }
        self.phases[entry.phase as usize] -= 1;
        self.errors.remove(&id);
        Some(entry)
    }

    /// Moves a port to another phase.
    pub fn set_phase(&mut self, id: PortId, phase: Phase) {
        if let Some(entry) = self.ports.get_mut(&id) {
            self.phases[entry.phase as usize] -= 1;
            entry.phase = phase;
            let network = entry.record.network_id;
            self.count_phase(id, phase);
            self.port_changed(network, id);
        }
    }

    fn count_phase(&mut self, id: PortId, phase: Phase) {
        self.phases[phase as usize] += 1;
        match phase {
            Phase::Error => self.errors.insert(id),
            _ => self.errors.remove(&id),
        };
    }

    /// How many ports have no server.
    pub fn unattached(&self) -> usize {
        self.phases[Phase::Unbound as usize]
    }

    /// How many ports have each status.
    pub fn counts(&self) -> [(Status, usize); 4] {
        const PHASES: [Phase; 6] = [Phase::Unbound, Phase::Building, Phase::Wired, Phase::Active, Phase::Detaching, Phase::Error];
        Status::ALL.map(|status| {
            let of_it = PHASES.into_iter().filter(|phase| phase.status() == status);
            (status, of_it.map(|phase| self.phases[phase as usize]).sum())
        })
    }

    fn reserve(&mut self, port: &Port) {
        self.macs.insert(port.mac.host_side(), port.id);
        self.holding.use_mac(port.mac);
        self.guests.insert(port.id, port.mac);
        if let Some(device) = self.have.device(port.id) {
            self.guests.place(port.id, device.index);
        }
        for ip in port.held_ips() {
            self.addresses.insert((port.network_id, ip.ip_address), port.id);
            if let Some(subnet) = self.subnets.get_mut(&ip.subnet_id) {
                subnet.users += 1;
            }
            self.take(port.network_id, ip.ip_address);
        }
        self.count_pairs(port);
        self.join_groups(port);
    }

    fn release(&mut self, port: &Port) {
        self.macs.remove(&port.mac.host_side());
        self.holding.free_mac(port.mac);
        self.guests.remove(port.id);
        for ip in port.held_ips() {
            self.addresses.remove(&(port.network_id, ip.ip_address));
            if let Some(subnet) = self.subnets.get_mut(&ip.subnet_id) {
                subnet.users -= 1;
            }
            self.give_back(port.network_id, ip.ip_address);
        }
        self.discount_pairs(port);
        self.leave_groups(port);
    }

    /// A network by id.
    pub fn network(&self, id: NetworkId) -> Result<&NetworkEntry, Error> {
        self.networks.get(&id).ok_or(Error::NoSuchNetwork(id))
    }

    /// A subnet by id.
    pub fn subnet(&self, id: SubnetId) -> Result<&SubnetEntry, Error> {
        self.subnets.get(&id).ok_or(Error::NoSuchSubnet(id))
    }

    /// A server by id.
    pub fn server(&self, id: ServerId) -> Result<&ServerEntry, Error> {
        self.servers.get(&id).ok_or(Error::NoSuchServer(id))
    }

    /// A port by id.
    pub fn port(&self, id: PortId) -> Result<&PortEntry, Error> {
        self.ports.get(&id).ok_or(Error::NoSuchPort(id))
    }

    /// Takes the claim on a port.
    pub fn claim_port<E: From<Error>>(&self, id: PortId) -> Result<ClaimGuard, Unclaimed<E>> {
        Ok(self.port(id)?.claim.take()?)
    }

    /// Takes the claims on several ports, or none.
    pub fn claim_ports<E: From<Error>>(&self, ports: Vec<PortId>) -> Result<PortClaims, Unclaimed<E>> {
        ports.into_iter().map(|port| Ok((port, self.claim_port(port)?))).collect()
    }

    /// Takes the claims on a port and on all its subports, or none.
    pub fn claim_with_sub_ports<E: From<Error>>(&self, parent: PortId) -> Result<(ClaimGuard, PortClaims), Unclaimed<E>> {
        let subs = self.sub_ports(parent).iter().map(|sub| sub.port_id).collect();
        Ok((self.claim_port(parent)?, self.claim_ports(subs)?))
    }

    /// Takes the claim on a network.
    pub fn claim_network<E: From<Error>>(&self, id: NetworkId) -> Result<ClaimGuard, Unclaimed<E>> {
        Ok(self.network(id)?.claim.take()?)
    }

    /// Takes the claim on a server.
    pub fn claim_server<E: From<Error>>(&self, id: ServerId) -> Result<ClaimGuard, Unclaimed<E>> {
        Ok(self.server(id)?.claim.take()?)
    }

    /// Refuses a MAC that another port, or a link of the host's on the network's bridge, has.
    pub fn check_mac(&self, mac: Mac, network: &Network, but: Option<PortId>) -> Result<Mac, Error> {
        let mac = mac.for_guest()?;
        if let Some(port) = self.macs.get(&mac.host_side()).filter(|port| Some(**port) != but) {
            let alike = self.port(*port)?.record.mac == mac;
            let shared = if alike { String::new() } else { format!(", whose host's side has {} too", mac.host_side()) };
            return Err(Error::MacInUse { mac, by: format!("port {port}{shared}") });
        }
        let bridge = match &network.bridge {
            Some(name) => self.have.named(name.as_str()),
            None => self.have.own_bridge(network.id),
        };
        match bridge.and_then(|bridge| self.have.with_mac_on(mac, bridge.index).map(|link| (bridge, link))) {
            Some((bridge, link)) if bridge.index == link.index => {
                Err(Error::MacInUse { mac, by: format!("bridge {}", bridge.name) })
            }
            Some((bridge, link)) => {
                Err(Error::MacInUse { mac, by: format!("link {} of this host, on bridge {}", link.name, bridge.name) })
            }
            None => self.check_mac_held(network, mac),
        }
    }

    /// The addresses for a port with this MAC: as asked, with those that its guest makes anyhow, or one of each family the network has.
    pub fn choose_addresses(
        &self,
        network: NetworkId,
        mac: Mac,
        wanted: Option<&[WantedIp]>,
        but: Option<PortId>,
    ) -> Result<Vec<FixedIp>, Error> {
        let Some(wanted) = wanted else { return self.one_of_each_family(network, mac, but) };
        if wanted.len() > ADDRESS_LIMIT {
            return Err(Error::TooManyAddresses { given: wanted.len(), limit: ADDRESS_LIMIT });
        }
        let mut chosen: Vec<FixedIp> = Vec::new();
        let mut not_chosen = self.not_chosen(network);
        for ip in wanted {
            let next = match (ip.ip_address, ip.subnet_id) {
                (Some(address), subnet) => {
                    let next = self.this_address(network, address, subnet, but)?;
                    self.check_made(&next, mac, but)?
                }
                (None, Some(subnet)) => match self.made(network, subnet, mac, but)? {
                    Some(made) => made,
                    None => self.lowest_of(network, subnet, &not_chosen)?,
                },
                (None, None) => return self.one_of_each_family(network, mac, but),
            };
            if chosen.iter().any(|one| one.ip_address == next.ip_address) {
                return Err(Error::AddressKept { ip: next.ip_address, why: "asked for twice" });
            }
            not_chosen.insert(next.ip_address);
            chosen.push(next);
        }
        // A guest of which no address is asked for is to have none.
        if !wanted.is_empty() {
            let made = self.made_beside(network, mac, &chosen, but)?;
            chosen.extend(made);
        }
        if chosen.len() > ADDRESS_LIMIT {
            return Err(Error::TooManyAddresses { given: chosen.len(), limit: ADDRESS_LIMIT });
        }
        Ok(chosen)
    }

    /// The addresses that a guest makes itself in those subnets of which none was asked for, as Neutron has it (`_allocate_ips_for_port`,
    /// `_get_changed_ips_for_port`, neutron/db/ipam_pluggable_backend.py): of a port that is there those that it has.
    fn made_beside(&self, network: NetworkId, mac: Mac, chosen: &[FixedIp], but: Option<PortId>) -> Result<Vec<FixedIp>, Error> {
        let before = but.and_then(|port| self.ports.get(&port)).map(|entry| &entry.record);
        let subnets = self.in_order(network)?.into_iter().map(|entry| &entry.record);
        let mut beside = Vec::new();
        for subnet in subnets.filter(|subnet| chosen.iter().all(|ip| ip.subnet_id != subnet.id)) {
            match before {
                None => beside.extend(self.made(network, subnet.id, mac, but)?),
                Some(port) => {
                    for ip in port.fixed_ips.iter().filter(|ip| ip.subnet_id == subnet.id && subnet.made_of(mac).is_some()) {
                        let own = subnet.made_of(port.mac).is_some_and(|made| ip.ip_address == made);
                        beside.push(self.made(network, subnet.id, mac, but)?.filter(|_| own).unwrap_or(*ip));
                    }
                }
            }
        }
        Ok(beside)
    }

    /// A network's subnets as they were made.
    fn in_order(&self, network: NetworkId) -> Result<Vec<&SubnetEntry>, Error> {
        let mut subnets: Vec<&SubnetEntry> =
            self.network(network)?.subnets.iter().filter_map(|id| self.subnets.get(id)).collect();
        subnets.sort_by_key(|subnet| (subnet.record.created_at, subnet.record.id));
        Ok(subnets)
    }

    /// Neutron's choice: one v4 and one v6 address, each from the first subnet of its family that has one left, and those that the guest
    /// makes itself.
    fn one_of_each_family(&self, network: NetworkId, mac: Mac, but: Option<PortId>) -> Result<Vec<FixedIp>, Error> {
        let subnets = self.in_order(network)?;
        let not_chosen = self.not_chosen(network);
        let mut chosen = Vec::new();
        for v6 in [false, true] {
            let given = |subnet: &&&SubnetEntry| subnet.record.cidr.is_ipv6() == v6 && subnet.record.made_of(mac).is_none();
            let family: Vec<_> = subnets.iter().filter(given).collect();
            let found = family.iter().find_map(|subnet| {
                let ip_address = subnet.free.lowest_where(|ip| !not_chosen.contains(&ip))?;
                Some(FixedIp { subnet_id: subnet.record.id, ip_address })
            });
            match (found, family.last()) {
                (Some(ip), _) => chosen.push(ip),
                (None, Some(last)) => return Err(self.none_free(&last.record)),
                (None, None) => {}
            }
        }
        for subnet in subnets {
            chosen.extend(self.made(network, subnet.record.id, mac, but)?);
        }
        Ok(chosen)
    }

    /// The address of a subnet that a guest with this MAC makes itself; none where it is given one.
    fn made(&self, network: NetworkId, subnet: SubnetId, mac: Mac, but: Option<PortId>) -> Result<Option<FixedIp>, Error> {
        let made = self.subnet(subnet)?.record.made_of(mac);
        made.map(|ip| self.this_address(network, ip.into(), Some(subnet), but)).transpose()
    }

    /// The address of a subnet that the guest of a port makes itself; none where it is given one.
    pub fn made_for(&self, port: &Port, subnet: SubnetId) -> Result<Option<FixedIp>, Error> {
        self.made(port.network_id, subnet, port.mac, Some(port.id))
    }

    /// Whether a port has no address of a subnet but the one that its guest makes.
    pub fn has_made_all(&self, port: PortId, subnet: &Subnet) -> bool {
        let Some(entry) = self.ports.get(&port) else { return false };
        let made = subnet.made_of(entry.record.mac).map(IpAddr::from);
        entry.record.held_ips().filter(|ip| ip.subnet_id == subnet.id).all(|ip| Some(ip.ip_address) == made)
    }

    /// The ports that have addresses of a subnet.
    pub fn users_of(&self, subnet: SubnetId) -> Vec<PortId> {
        let network = self.subnets.get(&subnet).and_then(|entry| self.networks.get(&entry.record.network_id));
        let ports = network.into_iter().flat_map(|entry| &entry.ports).filter_map(|port| self.ports.get(port));
        let has = |entry: &&PortEntry| entry.record.held_ips().any(|ip| ip.subnet_id == subnet);
        ports.filter(has).map(|entry| entry.record.id).collect()
    }

    /// Refuses an address that the guest would not make. It may be the gateway's, which a router sets itself, and one that the port has.
    fn check_made(&self, asked: &FixedIp, mac: Mac, but: Option<PortId>) -> Result<FixedIp, Error> {
        let subnet = &self.subnet(asked.subnet_id)?.record;
        let has = but.and_then(|port| self.ports.get(&port)).is_some_and(|port| port.record.fixed_ips.contains(asked));
        match subnet.made_of(mac).map(IpAddr::from) {
            Some(made) if made != asked.ip_address && !has && subnet.gateway_ip != Some(asked.ip_address) => {
                Err(Error::AddressMade { ip: asked.ip_address, made })
            }
            _ => Ok(*asked),
        }
    }

    /// The addresses of a port whose MAC changes: its guest makes others of it.
    pub fn made_anew(&self, port: &Port, mac: Mac) -> Result<Vec<FixedIp>, Error> {
        let anew = |ip: &FixedIp| {
            let made = self.subnet(ip.subnet_id)?.record.made_of(port.mac).is_some_and(|made| ip.ip_address == made);
            match made.then(|| self.made(port.network_id, ip.subnet_id, mac, Some(port.id))).transpose()?.flatten() {
                Some(other) => Ok(other),
                None => Ok(*ip),
            }
        };
        port.fixed_ips.iter().map(anew).collect()
    }

    fn this_address(
        &self,
        network: NetworkId,
        ip: IpAddr,
        subnet: Option<SubnetId>,
        but: Option<PortId>,
    ) -> Result<FixedIp, Error> {
        let entry = self.network(network)?;
        if let Some(subnet) = subnet
            && !entry.subnets.contains(&subnet)
        {
            self.subnets.get(&subnet).ok_or(Error::NoSuchSubnet(subnet))?;
            return Err(Error::SubnetOfOther { subnet, network });
        }
        let candidates = || entry.subnets.iter().filter(|id| subnet.is_none_or(|only| only == **id));
        let holder = candidates().filter_map(|id| self.subnets.get(id)).find(|subnet| subnet.record.cidr.contains(ip));
        let Some(holder) = holder else {
            let ranges: Vec<String> =
                candidates().filter_map(|id| self.subnets.get(id)).map(|subnet| subnet.record.cidr.to_string()).collect();
            let subnets = if ranges.is_empty() { "none".to_owned() } else { ranges.join(", ") };
            return Err(Error::AddressOutside { ip, network, subnets });
        };
        if holder.record.is_edge(ip) {
            return Err(Error::AddressKept { ip, why: "the network or broadcast address" });
        }
        // A port may keep what it has, also where another port has it.
        let kept =
            but.and_then(|port| self.ports.get(&port)).is_some_and(|port| port.record.held_ips().any(|has| has.ip_address == ip));
        if !kept {
            self.check_address(network, ip, but)?;
        }
        Ok(FixedIp { subnet_id: holder.record.id, ip_address: ip })
    }

    fn lowest_of(&self, network: NetworkId, id: SubnetId, not_chosen: &BTreeSet<IpAddr>) -> Result<FixedIp, Error> {
        let subnet = self.subnets.get(&id).ok_or(Error::NoSuchSubnet(id))?;
        if subnet.record.network_id != network {
            return Err(Error::SubnetOfOther { subnet: id, network });
        }
        let ip_address =
            subnet.free.lowest_where(|ip| !not_chosen.contains(&ip)).ok_or_else(|| self.none_free(&subnet.record))?;
        Ok(FixedIp { subnet_id: id, ip_address })
    }

    /// Which network an attach is for.
    pub fn network_of(&self, nic: &WantedNic, project: &str) -> Result<NetworkId, Error> {
        match nic {
            WantedNic::Port(port) => Ok(self.port(*port)?.record.network_id),
            WantedNic::OnNetwork(network, _) => self.network(*network).map(|entry| entry.record.id),
            WantedNic::OnTheOnlyNetwork => {
                let mut networks = self.networks.keys();
                match (networks.next(), networks.next()) {
                    (Some(only), None) => Ok(*only),
                    (None, _) => Err(Error::NoNetwork(project.to_owned())),
                    (Some(_), Some(_)) => Err(Error::SeveralNetworks),
                }
            }
        }
    }

    /// The ports of a server that are to stay, but for subports of trunks, which come and go with their parent.
    pub fn nics(&self, server: &ServerEntry) -> impl Iterator<Item = &PortEntry> {
        let ports = server.ports.iter().filter_map(|id| self.ports.get(id));
        ports.filter(|port| !port.record.leaving() && port.record.carrier().is_none())
    }

    /// The lowest number no NIC of the server has.
    pub fn free_ordinal(&self, server: &ServerEntry) -> u16 {
        let bindings = server.ports.iter().filter_map(|id| self.ports.get(id)?.record.binding.as_ref());
        let taken: BTreeSet<u16> = bindings.map(|binding| binding.ordinal).collect();
        (0..u16::MAX).find(|ordinal| !taken.contains(ordinal)).unwrap_or(u16::MAX)
    }

    /// A network's bridge as the planner wants it, without an index for one that is to be made.
    pub fn desired_bridge(&self, network: &Network) -> DesiredBridge {
        let made = match &network.bridge {
            Some(name) => BridgeMade::Existing { name: name.clone() },
            None => BridgeMade::ByAgent {
                index: 0,
                mac: network.bridge_mac(),
                mtu: network.mtu,
                alias: names::bridge_tag(self.store_id, network.id),
                close: !self.open.may_stay(network.id),
            },
        };
        DesiredBridge { network: network.id, made, segment: self.desired_segment(network) }
    }

    /// The name of a network's bridge, as far as there is one.
    pub fn bridge_name(&self, network: NetworkId) -> String {
        let existing = self.networks.get(&network).and_then(|entry| entry.record.bridge.as_ref());
        match (existing, self.have.own_bridge(network)) {
            (Some(name), _) => name.to_string(),
            (None, Some(own)) => own.name.clone(),
            (None, None) => names::network_altname(network),
        }
    }

    /// An attached port as the planner wants it, without an index for a device that is to be made; none when its record does not
    /// bind it to anything known.
    pub fn desired_port(&self, port: &Port, store: uuid::Uuid) -> Option<DesiredPort> {
        let binding = port.binding.as_ref()?;
        let server = &self.servers.get(&binding.server_id)?.record;
        let network = &self.networks.get(&port.network_id)?.record;
        let nic = match (binding.carrier, &server.guest) {
            (Some(Carrier { port, vlan }), _) => DesiredNic::Vlan { parent: port, id: vlan },
            (None, Guest::Vm { .. }) => {
                let TapMake { queues, owner, .. } = binding.tap?;
                DesiredNic::Tap { queues, vnet_hdr: port.profile.vnet_hdr, owner }
            }
            (None, Guest::Netns { path }) => DesiredNic::Veth {
                netns: path.clone(),
                pin: server.pin?,
                guest: self.guest_settings(port, network, binding.ordinal),
            },
        };
        Some(DesiredPort {
            id: port.id,
            network: port.network_id,
            index: 0,
            mac: port.mac,
            mtu: network.mtu,
            admin_up: port.admin_up
                && !binding.unproven
                && port.standby.is_none()
                && self.other_host_of(port.id).is_none()
                && self.trunk_is_up(port.id),
            silent: port.standby.is_some(),
            unknown_unicast: port.unknown_unicast || filters::has_other_macs(port),
            to_guest: port.limits.to_guest.map(TokenBucket::from),
            from_guest: port.limits.from_guest.filter(|limit| limit.exact).map(TokenBucket::from),
            cut_off: self.is_cut_off(port.id),
            speaks: Speaks {
                v4: port.fixed_ips.iter().any(|ip| ip.ip_address.is_ipv4()),
                v6: port.fixed_ips.iter().any(|ip| ip.ip_address.is_ipv6()),
            },
            filter: Some(Filter {
                groups: self.in_groups(port, network),
                trunk: self.trunk_on(port.id).is_some(),
                ..filters::filter(port, network, self.served(port))
            }),
            alias: names::device_tag(store, binding.commit),
            seen: self.ports.get(&port.id).and_then(|entry| entry.device),
            monitor: self.monitor_of(port).cloned(),
            nic,
        })
    }

    /// The monitor of the machine that a port is plugged into, or is to be; none where it has none.
    pub fn monitor_of(&self, port: &Port) -> Option<&PathBuf> {
        let binding = port.binding.as_ref().filter(|binding| binding.tap.is_some_and(|tap| tap.plugged))?;
        self.servers.get(&binding.server_id)?.record.guest.qmp()
    }

    /// Whether a port asks for something that a filter does: port security, isolation, a limit of what it sends, a trunk.
    pub fn needs_filter(&self, port: &Port) -> bool {
        self.trunk_on(port.id).is_some()
            || self.networks.get(&port.network_id).is_some_and(|network| !filters::filter(port, &network.record, None).is_open())
    }

    fn guest_settings(&self, port: &Port, network: &Network, ordinal: u16) -> GuestSettings {
        let subnets: Vec<&Subnet> =
            port.fixed_ips.iter().filter_map(|ip| self.subnets.get(&ip.subnet_id)).map(|entry| &entry.record).collect();
        let mut addresses: Vec<Address> = port
            .fixed_ips
            .iter()
            .filter_map(|ip| {
                let prefix = self.subnets.get(&ip.subnet_id)?.record.cidr.prefix();
                Some(Address { ip: ip.ip_address, prefix })
            })
            .collect();
        if addresses.iter().any(|address| address.ip.is_ipv6()) {
            addresses.push(Address { ip: port.mac.link_local().into(), prefix: 64 });
        }
        let metric = FIRST_METRIC + u32::from(ordinal);
        let onlink = |via: IpAddr| !subnets.iter().any(|subnet| subnet.cidr.contains(via));
        let mut routes: Vec<Route> = Vec::new();
        let itself = |via: IpAddr| port.fixed_ips.iter().any(|ip| ip.ip_address == via);
        let mut add = |destination: IpNetwork, via: IpAddr| {
            if !itself(via) && !routes.iter().any(|route| route.destination == destination) {
                routes.push(Route { destination, via, onlink: onlink(via), metric });
            }
        };
        for subnet in &subnets {
            subnet.host_routes.iter().for_each(|route| add(route.destination, route.nexthop));
        }
        for subnet in &subnets {
            let everywhere = match subnet.cidr {
                IpNetwork::V4(_) => IpNetwork::new(std::net::Ipv4Addr::UNSPECIFIED.into(), 0),
                IpNetwork::V6(_) => IpNetwork::new(std::net::Ipv6Addr::UNSPECIFIED.into(), 0),
            };
            if let (Some(gateway), Ok(everywhere)) = (subnet.gateway_ip, everywhere) {
                add(everywhere, gateway);
            }
        }
        let siblings = self.networks.get(&network.id).map(|entry| &entry.subnets).into_iter().flatten();
        // Their subnets may be gone.
        let releasing = port.binding.iter().flat_map(|binding| &binding.releasing).map(|ip| IpNetwork::from(ip.ip_address));
        // Its link-local address goes with the last other one of IPv6.
        let link_local = IpNetwork::from(IpAddr::from(port.mac.link_local()));
        let ranges = siblings.filter_map(|id| self.subnets.get(id)).map(|entry| entry.record.cidr);
        let ranges = ranges.chain(releasing).chain([link_local]).collect();
        let name = port.profile.interface_name.clone();
        GuestSettings { name, addresses, routes, mtu: Some(network.mtu), metric, ranges }
    }

    /// Takes in what a look showed, unless a newer look is known; whether it was taken in.
    pub fn seen(&mut self, link: LinkState, at: Instant) -> bool {
        if self.looked_since(link.index, at) {
            return false;
        }
        self.looked.insert(link.index, at);
        if link.host_closed {
            link.marks().for_each(|mark| self.open.closed(NetworkId(mark)));
        }
        self.regroup(&link);
        // A stranger's link with a port's altname is not its device.
        for mark in link.marks().map(PortId).filter(|_| self.have.is_device(&link)) {
            if let Some(entry) = self.ports.get_mut(&mark) {
                entry.device = Some(link.index);
            }
        }
        link.marks().for_each(|mark| self.guests.place(PortId(mark), link.index));
        self.follow_host(&link);
        self.place_overlay(&link);
        self.have.insert(link);
        true
    }

    /// Takes in that a link is gone; what was known of it, unless a newer look is known.
    pub fn gone(&mut self, index: u32, at: Instant) -> Option<LinkState> {
        if self.looked_since(index, at) {
            return None;
        }
        self.looked.insert(index, at);
        self.tombstones.push_back(index);
        if self.tombstones.len() > TOMBSTONES
            && let Some(oldest) = self.tombstones.pop_front()
            && self.have.link(oldest).is_none()
        {
            self.looked.remove(&oldest);
        }
        self.orphans.remove(&index);
        self.overlays.displace(index);
        self.have.remove(index)
    }

    /// Puts a complete dump in place of all that was known before it began.
    pub fn resync(&mut self, links: Vec<LinkState>, at: Instant) {
        let dumped: BTreeSet<u32> = links.iter().map(|link| link.index).collect();
        let missing: Vec<u32> = self.have.iter().map(|link| link.index).filter(|index| !dumped.contains(index)).collect();
        for index in missing {
            self.gone(index, at);
        }
        for link in links {
            self.seen(link, at);
        }
    }

    /// Forgets what was counted against a port whose entry another port took: that one pays.
    pub fn pardon(&mut self, port: PortId) {
        let Some(entry) = self.ports.get_mut(&port) else { return };
        if entry.retry.facets.iter().all(|facet| *facet == crate::plan::Facet::Fdb) {
            entry.retry.forget();
            self.contested.remove(&port);
        }
    }

    /// Whether a port is kept down and out of every bridge.
    pub fn is_cut_off(&self, port: PortId) -> bool {
        self.contested.get(&port).is_some_and(|contest| contest.cut_off)
    }

    /// Notes that the MAC of a port that is cut off was changed once more.
    pub fn provoked(&mut self, port: PortId) {
        if let Some(entry) = self.ports.get_mut(&port) {
            entry.retry.last = Some(Instant::now());
        }
    }

    fn looked_since(&self, index: u32, at: Instant) -> bool {
        self.looked.get(&index).is_some_and(|last| *last > at)
    }
}

impl PortEntry {
    /// Whether it is told of as one that could not be brought to its record: a try that fails again is not worth a word.
    pub fn is_known_to_fail(&self) -> bool {
        self.phase == Phase::Error || self.waited_for().is_some()
    }

    /// The server whose namespace it waits for.
    pub fn waited_for(&self) -> Option<ServerId> {
        self.record.attached_to().filter(|_| self.reason.as_deref() == Some(NAMESPACE_GONE))
    }

    /// Whether it is not as its record says and waits for its next try.
    pub fn waits(&self) -> bool {
        let binding = self.record.binding.as_ref();
        binding.is_some_and(|binding| self.is_known_to_fail() || self.record.leaving() || !binding.releasing.is_empty())
    }

    /// Whether it is on its way out for good: no server is attached to it any more, and this id is not used again.
    pub fn never_comes_back(&self) -> bool {
        let deleting = self.record.binding.as_ref().is_some_and(|binding| binding.intent == Intent::Deleting);
        deleting && self.record.origin == Origin::Attach
    }
}

impl SubnetEntry {
    /// How many ports have an address of it.
    pub fn users(&self) -> usize {
        self.users
    }
}
