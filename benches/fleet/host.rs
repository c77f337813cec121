//! A host without sockets of its own: the real service, store and part in the fleet, on a kernel in memory.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nicd::config::{AllowedBridges, ConflictProbe, FleetSettings, GuestDefaults};
use nicd::fleet::agent::Fleet;
use nicd::fleet::etcd::Etcd;
use nicd::kernel::Host as _;
use nicd::kernel::Kernel;
use nicd::kernel::fake::Fake;
use nicd::kernel::handle::{self, KernelHandle};
use nicd::model::action::{Action, AfterDetach, Attach, NewGuest, NewNic, NewServer, SecondOnNetwork, WantedNic};
use nicd::model::segment::VNIS;
use nicd::model::{IdRanges, Mac, MacPrefix, NetworkId, Owner, PhysicalNetworks, PortId, ServerId, SubnetId};
use nicd::plan::{Entry, HostAddress, HostUse, Kind};
use nicd::service::{Context, Heartbeat, Policy, Reply, Service};
use nicd::store::{Lock, Store};
use tokio::sync::mpsc;
use tokio::task::JoinHandle as Task;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// NICs of a server.
const NICS: usize = 8;

/// How long a stop waits.
const STOPS: Duration = Duration::from_secs(30);

/// What is there of a host while its nicd is off.
pub struct Machine {
    number: usize,
    dir: PathBuf,
    fake: Fake,
}

/// A host whose nicd runs.
pub struct Host {
    pub machine: Machine,
    pub service: Arc<Service>,
    handle: Arc<dyn KernelHandle>,
    store: Store,
    threads: Vec<JoinHandle<()>>,
    stop: CancellationToken,
    tasks: Vec<Task<()>>,
    _lock: Lock,
}

/// A port that was attached.
#[derive(Debug, Clone)]
pub struct Made {
    pub server: ServerId,
    pub port: PortId,
    pub network: NetworkId,
    pub mac: Mac,
}

/// The subnet of a network.
pub fn subnet(network: NetworkId) -> SubnetId {
    SubnetId(network.0)
}

fn tunnel(host: usize) -> IpAddr {
    let [_, a, b, c] = u32::try_from(host + 1).unwrap().to_be_bytes();
    Ipv4Addr::new(10, a, b, c).into()
}

fn name(host: usize) -> String {
    format!("host-{host:04}")
}

fn policy(host: usize) -> Policy {
    Policy {
        mac_prefix: MacPrefix::default(),
        allowed_bridges: AllowedBridges::default(),
        guest: GuestDefaults::default(),
        default_group: false,
        connections: 65_536,
        mtu: 1500,
        physical_networks: PhysicalNetworks::new(),
        vlans: IdRanges::default(),
        vnis: IdRanges::from_iter([nicd::model::segment::IdRange::parse("4096-8191", &VNIS).unwrap()]),
        in_fleet: true,
        tunnel: Some(tunnel(host)),
        require_host_closed: true,
        conflict_probe: ConflictProbe::Off,
        sweep: Duration::from_secs(60),
        nics_per_server: 8,
        host: name(host),
    }
}

impl Machine {
    /// A new one, with its state below a directory.
    pub fn new(number: usize, below: &Path) -> Self {
        let dir = below.join(name(number));
        std::fs::create_dir(&dir).unwrap();
        let fake = Fake::new();
        fake.add_link("eth0", Kind::Other, 1500);
        fake.meddle("eth0", |link| link.hosts = vec![HostAddress { ip: tunnel(number), of: HostUse::Own }]);
        Self { number, dir, fake }
    }

    /// Starts its nicd, as the daemon does.
    pub async fn start(self, settings: &FleetSettings) -> Host {
        let lock = Lock::take(&self.dir).unwrap();
        let (store, loaded, store_thread) = Store::open(&self.dir).unwrap();
        let (notices, noticed) = mpsc::channel(8192);
        loaded.ports.iter().for_each(|port| self.fake.guests().insert(port.id, port.mac));
        self.fake.watch(notices).unwrap();
        let at = Instant::now();
        let links = self.fake.open().unwrap().dump_links().unwrap();
        let (handle, mut threads) = handle::start(&self.fake).unwrap();
        threads.push(store_thread);
        let host = name(self.number);
        let fleet = Fleet::new(
            Etcd::new(settings),
            (&settings.name, host),
            loaded.store_id,
            Some(tunnel(self.number)),
            loaded.registration,
        );
        let service = Service::new(policy(self.number), (store.clone(), loaded), Arc::clone(&handle), links, at);
        service.reconciler().begin().await.unwrap();
        let stop = CancellationToken::new();
        let fleet = Arc::new(fleet);
        service.enter_fleet(Arc::clone(&fleet));
        let (member, local, stops) = (fleet, Arc::clone(&service), stop.clone());
        let in_fleet = tokio::spawn(async move { member.run(local, stops).await.unwrap() });
        let pulse = Heartbeat::new(Duration::from_secs(1), |_| ());
        let following = tokio::spawn(Arc::clone(service.reconciler()).follow(noticed, pulse, stop.clone().cancelled_owned()));
        let tasks = vec![in_fleet, following];
        Host { machine: self, service, handle, store, threads, stop, tasks, _lock: lock }
    }
}

impl Host {
    /// Stops its nicd; its devices stay.
    pub async fn stop(self) -> Machine {
        self.service.reconciler().stop(STOPS).await;
        self.stop.cancel();
        for task in self.tasks {
            task.await.unwrap();
        }
        self.handle.close();
        self.store.close();
        let threads = self.threads;
        tokio::task::spawn_blocking(|| threads.into_iter().for_each(|thread| thread.join().unwrap())).await.unwrap();
        self.machine
    }

    pub fn is_connected(&self) -> bool {
        self.service.fleet().is_some_and(|fleet| fleet.status.connected)
    }

    pub async fn perform(&self, action: Action) -> Result<Reply, nicd::service::Error> {
        self.service.perform(action, Context::default()).await
    }

    fn server(&self, nth: usize) -> ServerId {
        ServerId(Uuid::from_u128(((self.machine.number as u128) << 32) + nth as u128 + 1))
    }

    /// Registers servers with room for so many NICs.
    pub async fn register(&self, nics: usize) {
        for nth in 0..nics.div_ceil(NICS) {
            let guest = NewGuest::Vm { queues: 1, owner: Owner::default(), monitor: None };
            let server =
                NewServer { id: self.server(nth), name: String::new(), project_id: String::new(), guest, nic_limit: None };
            self.perform(Action::PutServer(server)).await.unwrap();
        }
    }

    /// Attaches its n-th NIC, to a network.
    pub async fn attach(&self, nth: usize, network: NetworkId) -> Result<Made, nicd::service::Error> {
        let server = self.server(nth / NICS);
        let nic = WantedNic::OnNetwork(network, NewNic { address: None, groups: None });
        let attach = Attach { server_id: server, nic, second_on_network: SecondOnNetwork::Allowed, tag: None };
        match self.perform(Action::Attach(attach)).await? {
            Reply::Port(view) => Ok(Made { server, port: view.port.id, network, mac: view.port.mac }),
            other => panic!("{other:?}"),
        }
    }

    pub async fn detach(&self, made: &Made) -> Result<(), nicd::service::Error> {
        self.perform(Action::Detach(made.server, made.port, AfterDetach::AsMade)).await.map(drop)
    }

    /// Whether its kernel has the entry of a port of another host.
    pub fn leads_to(&self, made: &Made, at: &Self) -> bool {
        let entry = Entry::Forward { mac: made.mac, to: tunnel(at.machine.number) };
        self.machine.fake.entries(made.network).contains(&entry)
    }

    /// How many entries its kernel has that lead to ports of other hosts of a network.
    pub fn entries(&self, network: NetworkId) -> usize {
        let entries = self.machine.fake.entries(network);
        entries.iter().filter(|entry| matches!(entry, Entry::Forward { .. })).count()
    }

    /// Whether it knows a network with its subnet.
    pub fn knows(&self, network: NetworkId) -> bool {
        self.service.subnet(subnet(network)).is_ok()
    }
}
