//! The reference: what a client was told there is, and what service, store and host must therefore show.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use nicd::kernel::fake::Fake;
use nicd::model::{Group, Mac, Network, Origin, Phase, Port, PortId, Server, Subnet, names};
use nicd::plan::{Kind, LinkState};
use nicd::service::{PortFilter, PortView, Service};
use nicd::store::FILE;
use rusqlite::{Connection, OpenFlags};
use serde::de::DeserializeOwned;

use crate::scene::{AGENTS, BR0, NETNS, Scene, address, group_id, network_id, server_id, subnet_id};

/// Hosts of a v4 subnet; the first is the gateway.
const V4_HOSTS: std::ops::RangeInclusive<u8> = 2..=6;

/// Hosts of a v6 subnet beside the gateway.
const V6_HOSTS: std::ops::RangeInclusive<u8> = 2..=7;

/// What there should be.
#[derive(Debug, Clone)]
pub struct Reference {
    /// The networks there are, with whether they have a v4 and a v6 subnet.
    pub networks: [Option<[bool; 2]>; 2],
    /// The MTU of the network whose bridge the agent makes.
    pub mtu: u32,
    /// The security groups there are, with whether they have a rule about the other one.
    pub groups: [Option<bool>; 2],
    /// The servers there are.
    pub servers: BTreeSet<usize>,
    /// The ports there are.
    pub ports: BTreeMap<PortId, RefPort>,
    /// Whether the namespace is away.
    pub netns_gone: bool,
    /// Whether the agent's bridge is there although no device needs it.
    pub bridge: bool,
    /// The links there were before.
    pub strangers: Vec<LinkState>,
    /// Whether the daemon may have died before it recorded what a guest calls its NIC.
    pub name_may_be_unknown: bool,
    /// Whether a commit may have failed: that the store is well again is known with the next one.
    pub store_may_be_ill: bool,
}

/// A port as the client knows it.
#[derive(Debug, Clone)]
pub struct RefPort {
    /// Its network.
    pub network: usize,
    /// Its server.
    pub server: Option<usize>,
    /// Whether a detach deletes it.
    pub origin: Origin,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Its MAC.
    pub mac: Mac,
    /// The security groups that it is in.
    pub groups: BTreeSet<usize>,
    /// Whether it shall be up.
    pub admin_up: bool,
    /// Whether a VMM holds its tap open.
    pub open: bool,
}

impl Reference {
    /// What a fresh scene has.
    pub fn of(scene: &Scene) -> Self {
        Self {
            networks: [None, None],
            mtu: 1500,
            groups: [None, None],
            servers: (0..3).collect(),
            ports: BTreeMap::new(),
            netns_gone: false,
            bridge: false,
            strangers: scene.strangers.clone(),
            name_may_be_unknown: false,
            store_may_be_ill: false,
        }
    }

    /// The addresses a new port on a network gets: the lowest of each family; the word for why not.
    pub fn next_ips(&self, network: usize) -> Result<Vec<IpAddr>, &'static str> {
        let subnets = self.networks[network].ok_or("no_such_network")?;
        let families = [false, true].into_iter().filter(|v6| subnets[usize::from(*v6)]);
        families.map(|v6| self.lowest(network, v6).ok_or("pool_empty")).collect()
    }

    fn lowest(&self, network: usize, v6: bool) -> Option<IpAddr> {
        let hosts = if v6 { V6_HOSTS } else { V4_HOSTS };
        hosts.map(|host| address(network, v6, host)).find(|ip| !self.taken(*ip))
    }

    /// Whether a port has the address.
    pub fn taken(&self, ip: IpAddr) -> bool {
        self.ports.values().any(|port| port.ips.contains(&ip))
    }

    /// How many NICs a server has.
    pub fn nics(&self, server: usize) -> usize {
        self.ports.values().filter(|port| port.server == Some(server)).count()
    }

    /// Takes in a port that a client was shown.
    pub fn adopt(&mut self, view: &PortView) {
        let port = &view.port;
        let network = (0..2).find(|n| network_id(*n) == port.network_id).unwrap();
        let server = port.binding.as_ref().map(|binding| (0..4).find(|n| server_id(*n) == binding.server_id).unwrap());
        let known = RefPort {
            network,
            server,
            origin: port.origin,
            ips: port.fixed_ips.iter().map(|ip| ip.ip_address).collect(),
            mac: port.mac,
            groups: (0..2).filter(|n| port.groups.contains(&group_id(*n))).collect(),
            admin_up: port.admin_up,
            open: false,
        };
        self.ports.insert(port.id, known);
        self.note_bridge();
    }

    /// A port's server lets go of it.
    pub fn unbind(&mut self, id: PortId) {
        match self.ports.get_mut(&id) {
            Some(port) if port.origin == Origin::Client => (port.server, port.open) = (None, false),
            _ => _ = self.ports.remove(&id),
        }
    }

    /// A port's server lets go of it, and the port stays.
    pub fn keep(&mut self, id: PortId) {
        if let Some(port) = self.ports.get_mut(&id).filter(|port| port.server.is_some()) {
            (port.server, port.open, port.origin) = (None, false, Origin::Client);
        }
    }

    /// Whether a port's device is to be there.
    pub fn has_device(&self, port: &RefPort) -> bool {
        port.server.is_some_and(|server| server != NETNS || !self.netns_gone)
    }

    /// A device on the agent's network brings the bridge.
    pub fn note_bridge(&mut self) {
        self.bridge |= self.ports.values().any(|port| port.network == AGENTS && self.has_device(port));
    }

    /// The phase and reason a port is to have.
    fn phase(&self, port: &RefPort) -> (Phase, Option<&'static str>) {
        match port.server {
            None => (Phase::Unbound, None),
            Some(NETNS) if self.netns_gone => (Phase::Wired, Some("namespace_gone")),
            Some(_) if !port.admin_up => (Phase::Wired, Some("admin_down")),
            Some(NETNS) => (Phase::Active, None),
            Some(_) if port.open => (Phase::Active, None),
            Some(_) => (Phase::Wired, Some("no_carrier")),
        }
    }

    /// Compares service, host and store with what should be.
    pub fn check(&self, service: &Service, fake: &Fake, dir: &Path) -> Result<(), String> {
        self.check_manager(service)?;
        self.check_host(service, fake)?;
        check_store(service, dir)
    }

    fn check_manager(&self, service: &Service) -> Result<(), String> {
        let shown: BTreeMap<PortId, PortView> =
            service.ports(PortFilter::default()).into_iter().map(|view| (view.port.id, view)).collect();
        same("ports", shown.keys().collect::<Vec<_>>(), self.ports.keys().collect())?;
        for (id, port) in &self.ports {
            let view = &shown[id];
            same("phase", (view.phase, view.reason.as_deref()), self.phase(port))?;
            let ips: Vec<IpAddr> = view.port.fixed_ips.iter().map(|ip| ip.ip_address).collect();
            same("addresses", &ips, &port.ips)?;
            same("mac", view.port.mac, port.mac)?;
            same("security groups", &view.port.groups, &port.groups.iter().map(|n| group_id(*n)).collect())?;
            same("admin state", view.port.admin_up, port.admin_up)?;
            let server = view.port.attached_to();
            same("server", server, port.server.map(server_id))?;
            same("binding", view.port.binding.is_some(), server.is_some())?;
        }
        let macs: BTreeSet<Mac> = shown.values().map(|view| view.port.mac).collect();
        same("unique MACs", macs.len(), shown.len())?;
        let servers: Vec<_> = service.servers().into_iter().map(|view| view.server.id).collect();
        same("servers", servers, self.servers.iter().map(|n| server_id(*n)).collect())?;
        let mtu = service.networks().into_iter().find(|view| view.network.id == network_id(AGENTS)).map(|view| view.network.mtu);
        same("the network's MTU", mtu, self.networks[AGENTS].map(|_| self.mtu))?;
        for server in 0..3 {
            let filter = PortFilter { server: Some(server_id(server)), ..PortFilter::default() };
            same("NICs of a server", service.ports(filter).len(), self.nics(server))?;
        }
        let networks: Vec<_> = service.networks().into_iter().map(|view| (view.network.id, view.subnets)).collect();
        same("networks", networks, self.networks_shown())?;
        let groups: Vec<_> = service.groups().into_iter().map(|group| (group.id, group.rules.len())).collect();
        same("security groups", groups, (0..2).filter_map(|n| Some((group_id(n), 2 + usize::from(self.groups[n]?)))).collect())?;
        let health = service.health();
        let mut problems = health.problems;
        problems.retain(|problem| !(self.store_may_be_ill && problem.reason.starts_with("store_")));
        same("problems", problems, vec![])?;
        same("counted ports", health.ports.values().sum::<usize>(), self.ports.len())
    }

    fn networks_shown(&self) -> Vec<(nicd::model::NetworkId, Vec<nicd::model::SubnetId>)> {
        let subnets = |n: usize, has: [bool; 2]| {
            [false, true].into_iter().filter(move |v6| has[usize::from(*v6)]).map(move |v6| subnet_id(n, v6))
        };
        (0..2).filter_map(|n| Some((network_id(n), subnets(n, self.networks[n]?).collect()))).collect()
    }

    /// The host has the strangers as they were, the bridge, and a right device of each bound port, and nothing else.
    pub fn check_host(&self, service: &Service, fake: &Fake) -> Result<(), String> {
        let links = fake.links();
        let ours = |link: &&LinkState| link.marks().next().is_some();
        let strangers: Vec<LinkState> = links.iter().filter(|link| !ours(link)).cloned().collect();
        same("strangers", but_for_carrier(&strangers), but_for_carrier(&self.strangers))?;
        let marks: BTreeSet<String> = links.iter().filter(ours).map(|link| link.altnames.join(" ")).collect();
        let bound = || self.ports.iter().filter(|(_, port)| self.has_device(port));
        let mut wanted: BTreeSet<String> = bound().map(|(id, _)| names::port_altname(*id)).collect();
        if self.bridge {
            wanted.insert(names::network_altname(network_id(AGENTS)));
        }
        same("marks on the host", marks, wanted)?;
        if let Some(bridge) = links.iter().find(|link| link.altnames.contains(&names::network_altname(network_id(AGENTS)))) {
            same("the agent's bridge", (bridge.mtu, bridge.up, bridge.v6_autoconf), (self.mtu, true, false))?;
            let [a, b, c, d, ..] = *network_id(AGENTS).0.as_bytes();
            same("the agent's bridge's MAC", bridge.mac, Some(Mac([0xfe, 0x62, a, b, c, d])))?;
        }
        bound().try_for_each(|(id, port)| self.check_device(service, fake, *id, port))
    }

    fn check_device(&self, service: &Service, fake: &Fake, id: PortId, port: &RefPort) -> Result<(), String> {
        let links = fake.links();
        let bridge = if port.network == AGENTS { names::network_altname(network_id(AGENTS)) } else { BR0.to_owned() };
        let called = |link: &&LinkState| link.name == bridge || link.altnames.contains(&bridge);
        let bridge = links.iter().find(called).ok_or("no bridge")?;
        let seen = fake.device(id).ok_or("no device")?;
        let veth = port.server == Some(NETNS);
        same("kind", &seen.kind, if veth { &Kind::Veth } else { &Kind::Tap })?;
        same("bridge", seen.master, Some(bridge.index))?;
        same("bridge is up", bridge.up, true)?;
        let mtu = if port.network == AGENTS { self.mtu } else { 1500 };
        same("MTU", (bridge.mtu, seen.mtu), (mtu, mtu))?;
        same("host MAC", seen.mac, Some(port.mac.host_side()))?;
        same("up", seen.up, port.admin_up)?;
        same("address generation", seen.v6_autoconf, false)?;
        same("learning", seen.bridge_port.map(|seen| seen.learning), Some(false))?;
        same("persistent", seen.tap.map(|tap| tap.persist), (!veth).then_some(true))?;
        same("queues", seen.tap.map(|tap| tap.multi_queue), (!veth).then_some(port.server == Some(1)))?;
        let view = service.port(id).map_err(|error| error.to_string())?;
        let binding = view.port.binding.ok_or("no binding")?;
        let tagged = seen.alias.is_some_and(|alias| alias.ends_with(&format!(" {}", binding.commit)));
        same("tagged with the commit's number", tagged, true)?;
        if !veth {
            return Ok(());
        }
        let told = match fake.guest(id) {
            Some(guest) if self.name_may_be_unknown && binding.guest_device.is_none() => Some(guest.name),
            _ => binding.guest_device,
        };
        check_guest(fake, id, port, told)
    }
}

fn check_guest(fake: &Fake, id: PortId, port: &RefPort, told: Option<nicd::model::LinkName>) -> Result<(), String> {
    let guest = fake.guest(id).ok_or("no guest's end")?;
    let mut wanted = port.ips.clone();
    if wanted.iter().any(IpAddr::is_ipv6) {
        wanted.push(port.mac.link_local().into());
    }
    same("the guest's addresses", guest.addresses.iter().map(|address| address.ip).collect(), wanted)?;
    same("the guest's end is up", guest.up, true)?;
    same("the guest's name for it", told, Some(guest.name))
}

/// The store has exactly the reconciler's records, but for what it may learn later: the name a guest gave its NIC.
fn check_store(service: &Service, dir: &Path) -> Result<(), String> {
    let store = Connection::open_with_flags(dir.join(FILE), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let forget = |mut port: Port| {
        if let Some(binding) = port.binding.as_mut() {
            binding.guest_device = None;
        }
        port
    };
    let ports: Vec<Port> = service.ports(PortFilter::default()).into_iter().map(|view| forget(view.port)).collect();
    let stored: Vec<Port> = all(&store, "ports");
    same("stored ports", stored.into_iter().map(forget).collect(), ports.clone())?;
    let networks: Vec<Network> = service.networks().into_iter().map(|view| view.network).collect();
    same("stored networks", all(&store, "networks"), networks)?;
    same("stored subnets", all::<Subnet>(&store, "subnets"), service.subnets())?;
    same("stored security groups", all::<Group>(&store, "security_groups"), service.groups())?;
    let servers: Vec<Server> = service.servers().into_iter().map(|view| view.server).collect();
    same("stored servers", all(&store, "servers"), servers)?;
    let reserved: i64 = store.query_row("SELECT count(*) FROM addresses", [], |row| row.get(0)).unwrap();
    same("stored addresses", usize::try_from(reserved).unwrap(), ports.iter().map(|port| port.fixed_ips.len()).sum())
}

fn all<T: DeserializeOwned>(store: &Connection, table: &str) -> Vec<T> {
    let mut rows = store.prepare(&format!("SELECT body FROM {table} ORDER BY id")).unwrap();
    let bodies = rows.query_map([], |row| row.get::<_, String>(0)).unwrap();
    bodies.map(|body| serde_json::from_str(&body.unwrap()).unwrap()).collect()
}

/// An error that says what differs.
pub fn same<T: PartialEq + std::fmt::Debug>(what: &str, is: T, wanted: T) -> Result<(), String> {
    if is == wanted { Ok(()) } else { Err(format!("{what}: is {is:?}, should be {wanted:?}")) }
}

/// The links without the carrier of bridges, which they have of their ports.
pub fn but_for_carrier(links: &[LinkState]) -> Vec<LinkState> {
    let carrier = |link: &LinkState| link.lower_up && link.kind != Kind::Bridge;
    links.iter().map(|link| LinkState { lower_up: carrier(link), ..link.clone() }).collect()
}
