//! Hosts with an underlay between them, each a network namespace with a daemon of its own, and their guests.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nicd::kernel::linux::Linux;
use nicd::model::action::{Action, Attach, NewGuest, NewNetwork, NewServer, PortChange, SecondOnNetwork, WantedNic};
use nicd::model::subnet::{Gateway, NewSubnet};
use nicd::model::{AddressPair, NetworkId, NetworkKind, ServerId, SubnetId};
use nicd::plan::facts::FactName;
use nicd::plan::{Overlay, Remote};
use nicd::service::{PortView, Reply, Service};
use serde_json::Value;
use uuid::Uuid;

use crate::in_process::{InProcessDaemon, PATIENCE, policy};
use crate::netns::{Guest, json, run};
use crate::wire::Nic;

/// The network's number.
pub const VNI: u32 = 70_000;

pub fn network() -> NetworkId {
    NetworkId(Uuid::from_u128(0x3cb9_bc59_5699_4588_a4b1_b87f_9670_8bc6))
}

/// What the tunnels go over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Underlay {
    V4,
    V6,
}

impl Underlay {
    pub fn tunnel(self, host: u8) -> IpAddr {
        match self {
            Self::V4 => [192, 0, 2, host].into(),
            Self::V6 => [0x2001, 0xdb8, 0xf, 0, 0, 0, 0, u16::from(host)].into(),
        }
    }
}

type Work = Box<dyn FnOnce(&mut InProcessDaemon) + Send>;

/// A host. Its daemon runs on a thread in its namespace.
pub struct Host {
    pub number: u8,
    pub underlay: Underlay,
    /// Its namespace.
    pub space: Guest,
    /// The guest's namespace.
    pub guest: Guest,
    dir: tempfile::TempDir,
    work: Option<Sender<Work>>,
    daemon: Option<JoinHandle<()>>,
}

impl Host {
    /// Makes the host and its link to the underlay, `u`, whose other end is `v` and its number here.
    pub fn new(number: u8, underlay: Underlay) -> Self {
        let (space, guest) = (Guest::new(&format!("host{number}")), Guest::new(&format!("guest{number}")));
        run(&format!("ip link add v{number} type veth peer name u netns host{number}"));
        run(&format!("ip link set v{number} master under up"));
        space.ip("link set lo up");
        space.ip("link set u up");
        let length = if underlay == Underlay::V4 { "24" } else { "64 nodad" };
        space.ip(&format!("addr add {}/{length} dev u", underlay.tunnel(number)).replacen(
            "/64 nodad dev u",
            "/64 dev u nodad",
            1,
        ));
        let mut host = Self { number, underlay, space, guest, dir: tempfile::tempdir().unwrap(), work: None, daemon: None };
        host.start();
        host
    }

    /// Starts its daemon on what is there.
    pub fn start(&mut self) {
        let (work, works) = channel::<Work>();
        let namespace = std::fs::File::open(&self.space.path).unwrap();
        let (dir, tunnel, number) = (self.dir.path().to_owned(), self.tunnel(), self.number);
        let run = move || {
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let mut policy = policy(Duration::from_secs(60));
            (policy.tunnel, policy.host) = (Some(tunnel), format!("host{number}"));
            let mut daemon = InProcessDaemon::on(&dir, &Linux::default(), policy);
            works.into_iter().for_each(|work| work(&mut daemon));
            daemon.stop();
        };
        (self.work, self.daemon) = (Some(work), Some(std::thread::spawn(run)));
    }

    /// Stops its daemon; its guests go on.
    pub fn stop(&mut self) {
        drop(self.work.take());
        self.daemon.take().unwrap().join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }

    /// Does something with its daemon.
    pub fn with<T: Send + 'static>(&self, act: impl FnOnce(&mut InProcessDaemon) -> T + Send + 'static) -> T {
        let (answer, answered) = channel();
        let work = Box::new(move |daemon: &mut InProcessDaemon| drop(answer.send(act(daemon))));
        self.work.as_ref().unwrap().send(work).expect("the daemon lives");
        answered.recv().expect("the daemon answers")
    }

    pub fn perform(&self, action: Action) -> Reply {
        self.with(|daemon| daemon.perform(action).unwrap())
    }

    pub fn tunnel(&self) -> IpAddr {
        self.underlay.tunnel(self.number)
    }

    /// Its guest's addresses.
    pub fn addresses(&self) -> [IpAddr; 2] {
        [[10, 0, 0, 10 + self.number].into(), [0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10 + u16::from(self.number)].into()]
    }

    /// Makes the network here, and attaches the guest to it.
    pub fn attach(&self) -> PortView {
        self.perform(Action::CreateNetworks(vec![NewNetwork {
            id: Some(network()),
            name: "fleet".to_owned(),
            description: String::new(),
            project_id: String::new(),
            mtu: None,
            bridge: None,
            kind: NetworkKind::Vxlan,
            physical_network: None,
            segmentation_id: Some(VNI),
            port_security: true,
            isolated: false,
            scope: None,
        }]));
        for (n, cidr) in [(1, "10.0.0.0/24"), (2, "2001:db8::/64")] {
            self.perform(Action::CreateSubnets(vec![NewSubnet {
                id: SubnetId(Uuid::from_u128(n)),
                network_id: network(),
                name: String::new(),
                description: String::new(),
                project_id: String::new(),
                cidr: cidr.parse().unwrap(),
                gateway: Gateway::None,
                allocation_pools: None,
                dns_nameservers: Vec::new(),
                host_routes: Vec::new(),
                enable_dhcp: false,
                guidance: nicd::model::Guidance::default(),
            }]));
        }
        let server_id = ServerId(Uuid::from_u128(0x5e));
        let guest = NewGuest::Netns(PathBuf::from(&self.guest.path));
        self.perform(Action::PutServer(NewServer {
            id: server_id,
            name: String::new(),
            project_id: String::new(),
            guest,
            nic_limit: None,
        }));
        let port = self.create_port();
        self.perform(Action::Attach(Attach {
            server_id,
            nic: WantedNic::Port(port),
            second_on_network: SecondOnNetwork::Allowed,
            tag: None,
        }));
        self.is_active();
        self.port()
    }

    fn create_port(&self) -> nicd::model::PortId {
        use nicd::model::action::{NewPort, WantedIp};
        let ips = self.addresses().map(|address| WantedIp { subnet_id: None, ip_address: Some(address) });
        let made = self.perform(Action::CreatePorts(vec![NewPort {
            id: None,
            network_id: network(),
            name: String::new(),
            description: String::new(),
            project_id: String::new(),
            mac: None,
            fixed_ips: Some(ips.into()),
            admin_up: true,
            unknown_unicast: false,
            port_security: None,
            address_pairs: Vec::new(),
            groups: None,
            limits: nicd::model::Limits::default(),
            isolated: None,
            told: nicd::model::GuestTold::default(),
            device_owner: String::new(),
            profile: nicd::model::Profile::default(),
        }]));
        match made {
            Reply::Ports(ports) => ports[0].port.id,
            other => panic!("{other:?}"),
        }
    }

    /// Lets its guest use an address beside its own.
    pub fn pair(&self, ip: &str) {
        let pairs = vec![AddressPair { ip: ip.parse().unwrap(), mac: None }];
        let change = PortChange { address_pairs: Some(pairs), ..PortChange::default() };
        self.perform(Action::UpdatePort(self.port().port.id, change));
        self.until("neigh_suppress", |host| {
            host.device().is_some_and(|device| device["linkinfo"]["info_slave_data"]["neigh_suppress"] == false)
        });
    }

    /// The guest's port.
    pub fn port(&self) -> PortView {
        self.with(|daemon| daemon.service.ports(nicd::service::PortFilter::default()).remove(0))
    }

    /// Its guest's port, as other hosts are told of it.
    pub fn as_remote(&self) -> (nicd::model::Mac, Remote) {
        (self.port().port.mac, Remote { host: self.tunnel(), addresses: self.addresses().into() })
    }

    /// Tells it of the other hosts and their guests.
    pub fn tell(&self, others: &[&Self]) {
        let overlay =
            Overlay::new(others.iter().map(|other| other.tunnel()).collect(), others.iter().map(|other| other.as_remote()));
        self.fleet(move |fleet| fleet.reconciler().set_overlay(network(), overlay));
        self.has_right_entries();
    }

    /// Tells it what a fleet tells.
    pub fn fleet(&self, tell: impl FnOnce(&Service) + Send + 'static) {
        self.with(|daemon| {
            let service = std::sync::Arc::clone(&daemon.service);
            daemon.run(async { tell(&service) });
        });
    }

    /// Waits until the daemon finds nothing wrong.
    pub fn has_right_entries(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.with(|daemon| {
                daemon.drain();
                let service = std::sync::Arc::clone(&daemon.service);
                daemon.run(async move { service.verify().await.unwrap().deviations })
            });
            if found.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "host {}: {found:#?}", self.number);
        }
    }

    /// Waits until something shows on the host.
    pub fn until(&self, what: &str, shows: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !shows(self) {
            assert!(Instant::now() < deadline, "{what}: {}\n{}", self.space.ip("-d link"), self.fdb());
            self.with(InProcessDaemon::drain);
        }
    }

    /// Waits until its guest's port is ACTIVE.
    pub fn is_active(&self) {
        self.until("not ACTIVE", |host| host.port().phase == nicd::model::Phase::Active);
    }

    /// Whether its guest's port says that the network reaches other hosts, and why.
    pub fn uplink(&self) -> (bool, String, Option<String>) {
        self.with(|daemon| {
            let id = daemon.service.ports(nicd::service::PortFilter::default())[0].port.id;
            let (view, facts) = daemon.service.explain(id).unwrap();
            let fact = facts.into_iter().find(|fact| fact.fact == FactName::Uplink).unwrap();
            (fact.ok, fact.detail, view.reason)
        })
    }

    /// Its VXLAN device, as `ip` shows it.
    pub fn device(&self) -> Option<Value> {
        let links = self.space.ip_json("-d link");
        links.as_array().unwrap().iter().find(|link| link["ifname"].as_str().unwrap().starts_with("nvx")).cloned()
    }

    /// The entries of its VXLAN device and of its bridge, as `bridge` shows them.
    pub fn entries(&self) -> Vec<Value> {
        let all = json(&format!("bridge -n host{} -j fdb show", self.number));
        let is_ours = |entry: &&Value| entry["ifname"].as_str().is_some_and(|name| name.starts_with("nvx"));
        all.as_array().unwrap().iter().filter(is_ours).cloned().collect()
    }

    fn fdb(&self) -> String {
        run(&format!("bridge -n host{} fdb show", self.number))
    }

    /// What it sends to the underlay from now on.
    pub fn sent(&self) -> Sent {
        Sent { of: Nic::of(&format!("v{}", self.number)).unwrap(), underlay: self.underlay }
    }

    /// Whether its guest reaches an address.
    pub fn reaches(&self, address: IpAddr) -> bool {
        let line = format!("ip netns exec {} ping -n -q -c 1 -W 2 {address}", self.guest.name);
        crate::netns::try_run(&line).is_ok()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.work.take());
        if let Some(daemon) = self.daemon.take() {
            let joined = daemon.join();
            assert!(joined.is_ok() || std::thread::panicking(), "the daemon panicked");
        }
    }
}

/// Frames that a host has sent to the underlay.
pub struct Sent {
    of: Nic,
    underlay: Underlay,
}

/// A frame of a guest's in a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnelled {
    /// The host that it is sent to, by the last octet of its address.
    pub to: u8,
    /// The guest's frame.
    pub frame: Vec<u8>,
}

impl Sent {
    /// All tunnelled frames that came by now.
    pub fn all(&self) -> Vec<Tunnelled> {
        let (mut buffer, mut found) = ([0; 4096], Vec::new());
        while let Some(frame) = self.of.next(&mut buffer) {
            let (header, kind, protocol) = match self.underlay {
                Underlay::V4 => (20, [0x08, 0x00], 9),
                Underlay::V6 => (40, [0x86, 0xdd], 6),
            };
            let udp = 14 + header;
            if frame[12..14] == kind && frame[14 + protocol] == 17 && frame[udp + 2..udp + 4] == 4789_u16.to_be_bytes() {
                assert_eq!(frame[udp + 12..udp + 15], VNI.to_be_bytes()[1..], "its number");
                found.push(Tunnelled { to: frame[udp - 1], frame: frame[udp + 16..].to_vec() });
            }
        }
        found
    }
}
