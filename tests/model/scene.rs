//! The fixture of the model tests: two networks, three servers, one namespace, and some foreign links.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nicd::failpoints::Registry;
use nicd::kernel::fake::Fake;
use nicd::model::action::{
    Action, AfterDetach, Attach, NewGuest, NewNetwork, NewNic, NewPort, NewServer, SecondOnNetwork, WantedNic,
};
use nicd::model::rule::{NewGroup, NewRule};
use nicd::model::subnet::{Gateway, NewSubnet};
use nicd::model::{
    Direction, Family, GroupId, Limits, NetworkId, NetworkKind, Owner, Phase, PortId, Profile, RuleId, ServerId, SubnetId,
};
use nicd::plan::{Kind, LinkState};
use nicd::service::{Error, PortFilter, PortView, Reply, Service};
use uuid::Uuid;

use crate::in_process::InProcessDaemon;

/// The network with an agent-made bridge.
pub const AGENTS: usize = 0;

/// The network on the operator's bridge.
pub const OPERATORS: usize = 1;

/// The server with one queue a tap.
pub const VM: usize = 0;

/// The server in a namespace.
pub const NETNS: usize = 2;

/// The mount point of its namespace.
pub const NETNS_PATH: &str = "/run/netns/blue";

/// The operator's bridge.
pub const BR0: &str = "br0";

/// The default sweep interval: longer than a test.
const SWEEP: Duration = Duration::from_secs(60);

/// A host, a state directory, and a daemon that uses both.
pub struct Scene {
    /// The host.
    pub fake: Fake,
    /// The state directory.
    pub dir: tempfile::TempDir,
    /// The foreign links.
    pub strangers: Vec<LinkState>,
    /// How often the daemon sweeps.
    pub sweep: Duration,
    pub daemon: Option<InProcessDaemon>,
    last_event: u64,
}

impl Scene {
    /// A host with a few links, three servers known, no network yet.
    pub fn new() -> Self {
        let fake = Fake::new();
        for (name, kind) in [("lo", Kind::Other), ("eth0", Kind::Other), (BR0, Kind::Bridge), ("nicd0123456789a", Kind::Tap)] {
            fake.add_link(name, kind, 1500);
        }
        fake.add_netns(Path::new(NETNS_PATH));
        let strangers = fake.links();
        let mut scene = Self { fake, dir: state_dir(), strangers, sweep: SWEEP, daemon: None, last_event: 0 };
        scene.open();
        for server in 0..3 {
            scene.perform(put_server(server)).unwrap();
        }
        scene
    }

    /// The same with both networks, each with a v4 subnet; the operator's with a v6 one too.
    pub fn with_networks() -> Self {
        let scene = Self::new();
        for action in [create_network(AGENTS), create_network(OPERATORS)] {
            scene.perform(action).unwrap();
        }
        for (network, v6) in [(AGENTS, false), (OPERATORS, false), (OPERATORS, true)] {
            scene.perform(create_subnet(network, v6)).unwrap();
        }
        scene
    }

    /// The running daemon.
    pub fn daemon(&mut self) -> &mut InProcessDaemon {
        self.daemon.as_mut().unwrap()
    }

    /// The running daemon's service.
    pub fn service(&self) -> std::sync::Arc<nicd::service::Service> {
        std::sync::Arc::clone(&self.daemon.as_ref().unwrap().service)
    }

    /// Carries an action out.
    pub fn perform(&self, action: Action) -> Result<Reply, Error> {
        self.daemon.as_ref().unwrap().perform(action)
    }

    /// Attaches, and gives back the port as the client sees it.
    pub fn attach(&self, server: usize, nic: WantedNic) -> Result<PortView, Error> {
        self.perform(attach(server, nic)).map(port_of)
    }

    /// Stops the daemon as it stops by itself.
    pub fn stop(&mut self) {
        self.note_events();
        self.daemon.take().unwrap().stop();
    }

    /// Kills the daemon where it stands.
    pub fn kill(&mut self) {
        self.note_events();
        self.daemon.take().unwrap().kill();
    }

    /// One with nobody in it: a copy of a state directory, and a host.
    pub fn left(dir: &Path, fake: Fake, strangers: Vec<LinkState>) -> Self {
        let own = state_dir();
        for file in std::fs::read_dir(dir).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), own.path().join(file.file_name())).unwrap();
        }
        Self { fake, dir: own, strangers, sweep: SWEEP, daemon: None, last_event: 0 }
    }

    /// Starts the daemon on what is there and on a registry; why it does not start.
    pub fn start(&mut self, registry: Registry) -> Result<(), String> {
        self.daemon = Some(InProcessDaemon::start(self.dir.path(), &self.fake, registry)?);
        Ok(())
    }

    /// Starts the daemon on what is there.
    pub fn open(&mut self) {
        self.daemon = Some(InProcessDaemon::sweeping(self.dir.path(), &self.fake, self.sweep));
    }

    /// Another host under the same records: the machine was started anew.
    pub fn reboot(&mut self) {
        self.kill();
        let fresh = Fake::new();
        self.strangers.iter().for_each(|link| _ = fresh.add_link(&link.name, link.kind.clone(), link.mtu));
        fresh.add_netns(Path::new(NETNS_PATH));
        self.strangers = fresh.links();
        self.fake = fresh;
        self.open();
    }

    /// Events are numbered upwards, also over restarts.
    fn note_events(&mut self) {
        for seq in self.daemon.as_ref().unwrap().events() {
            assert!(*seq > self.last_event, "event {seq} after {}", self.last_event);
            self.last_event = *seq;
        }
    }
}

/// A state directory in memory where there is one: these tests are about order, and a disk's flushes only take time.
fn state_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// The n-th network's id.
pub fn network_id(n: usize) -> NetworkId {
    NetworkId(Uuid::from_u128(0xa000_0000_0000_4000_8000_0000_0000_0000 + n as u128))
}

/// The id of a network's subnet of a family.
pub fn subnet_id(network: usize, v6: bool) -> SubnetId {
    SubnetId(Uuid::from_u128(0xb000_0000_0000_4000_8000_0000_0000_0000 + 2 * network as u128 + u128::from(v6)))
}

/// The n-th security group's id.
pub fn group_id(n: usize) -> GroupId {
    GroupId(Uuid::from_u128(0xd000_0000_0000_4000_8000_0000_0000_0000 + n as u128))
}

/// Makes the n-th security group.
pub fn create_group(n: usize) -> Action {
    Action::CreateGroups(vec![NewGroup {
        id: group_id(n),
        name: format!("group{n}"),
        description: String::new(),
        project_id: String::new(),
    }])
}

/// Lets the n-th security group's ports hear the other one's.
pub fn create_rule(n: usize) -> Action {
    Action::CreateRules(vec![NewRule {
        id: RuleId(Uuid::new_v4()),
        group_id: group_id(n),
        description: String::new(),
        project_id: None,
        direction: Direction::Ingress,
        family: Family::V4,
        protocol: Some("tcp".to_owned()),
        min: Some(80),
        max: Some(90),
        prefix: None,
        remote_group: Some(group_id(1 - n)),
    }])
}

/// The n-th server's id.
pub fn server_id(n: usize) -> ServerId {
    ServerId(Uuid::from_u128(0xc000_0000_0000_4000_8000_0000_0000_0000 + n as u128))
}

/// An address of a network's subnet: both have room for 6 or 7 hosts, of which the first is the gateway.
pub fn address(network: usize, v6: bool, host: u8) -> IpAddr {
    let n = u8::try_from(network).unwrap();
    if v6 { [0x2001, 0xdb8, u16::from(n), 0, 0, 0, 0, u16::from(host)].into() } else { [10, 0, n, host].into() }
}

/// Makes the n-th network.
pub fn create_network(n: usize) -> Action {
    Action::CreateNetworks(vec![NewNetwork {
        id: Some(network_id(n)),
        name: format!("net{n}"),
        description: String::new(),
        project_id: String::new(),
        mtu: None,
        bridge: (n == OPERATORS).then(|| BR0.parse().unwrap()),
        kind: NetworkKind::Local,
        physical_network: None,
        segmentation_id: None,
        port_security: true,
        isolated: false,
        scope: None,
    }])
}

/// Makes a network's subnet of a family.
pub fn create_subnet(network: usize, v6: bool) -> Action {
    let prefix = if v6 { 125 } else { 29 };
    Action::CreateSubnets(vec![NewSubnet {
        id: subnet_id(network, v6),
        network_id: network_id(network),
        name: String::new(),
        description: String::new(),
        project_id: String::new(),
        cidr: ipnetwork::IpNetwork::new(address(network, v6, 0), prefix).unwrap(),
        gateway: Gateway::FirstHost,
        allocation_pools: None,
        dns_nameservers: Vec::new(),
        host_routes: Vec::new(),
        enable_dhcp: true,
        guidance: nicd::model::Guidance::default(),
    }])
}

/// Makes the n-th server known.
pub fn put_server(n: usize) -> Action {
    let guest = match n {
        NETNS => NewGuest::Netns(PathBuf::from(NETNS_PATH)),
        VM => NewGuest::Vm { queues: 1, owner: Owner::default(), monitor: None },
        _ => NewGuest::Vm { queues: 4, owner: Owner { uid: Some(1000), gid: None }, monitor: None },
    };
    Action::PutServer(NewServer { id: server_id(n), name: String::new(), project_id: String::new(), guest, nic_limit: None })
}

/// Makes a port on its own.
pub fn create_port(network: usize) -> Action {
    Action::CreatePorts(vec![NewPort {
        id: None,
        network_id: network_id(network),
        name: String::new(),
        description: String::new(),
        project_id: String::new(),
        mac: None,
        fixed_ips: None,
        admin_up: true,
        unknown_unicast: false,
        port_security: None,
        address_pairs: Vec::new(),
        groups: None,
        limits: Limits::default(),
        isolated: None,
        told: nicd::model::GuestTold::default(),
        device_owner: String::new(),
        profile: Profile::default(),
    }])
}

/// Gives a NIC to a server.
pub fn attach(server: usize, nic: WantedNic) -> Action {
    Action::Attach(Attach { server_id: server_id(server), nic, second_on_network: SecondOnNetwork::Allowed, tag: None })
}

/// A new port on a network.
pub fn on(network: usize) -> WantedNic {
    WantedNic::OnNetwork(network_id(network), NewNic::default())
}

/// A new port on a network, with this address.
pub fn at(network: usize, address: IpAddr) -> WantedNic {
    WantedNic::OnNetwork(network_id(network), NewNic { address: Some(address), groups: None })
}

/// Takes a port from a server.
pub fn detach(server: usize, port: PortId) -> Action {
    Action::Detach(server_id(server), port, AfterDetach::AsMade)
}

/// The port an answer shows.
/// Closes the taps that VMMs hold of ports on their way out, as they do once they are told to unplug the NIC.
pub fn let_go_of_leaving(service: &Service, fake: &Fake) {
    let leaving = service.ports(PortFilter::default()).into_iter().filter(|view| view.phase == Phase::Detaching);
    leaving
        .filter(|view| fake.device(view.port.id).is_some_and(|link| link.is_held()))
        .for_each(|view| fake.set_carrier(view.port.id, false));
}

pub fn port_of(reply: Reply) -> PortView {
    match reply {
        Reply::Port(port) => *port,
        Reply::Ports(mut ports) => ports.remove(0),
        other => panic!("{other:?} shows no port"),
    }
}
