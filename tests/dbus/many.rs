//! 4,000 ports, on a host in memory: what they cost on the bus.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nicd::access::AllowedPeers;
use nicd::config::DbusSettings;
use nicd::dbus::Bus as OnBus;
use nicd::kernel::fake::Fake;
use nicd::model::action::{Action, Attach, NewGuest, NewNetwork, NewNic, NewPort, NewServer, SecondOnNetwork, WantedNic};
use nicd::model::subnet::{Gateway, NewSubnet};
use nicd::model::{Limits, NetworkId, NetworkKind, Owner, Profile, ServerId, SubnetId};
use nix::sys::signal::{Signal, kill};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::bus::{ADDRESS, Bus, NAME, Policy, ROOT, ask, busctl, wait_for_name};
use crate::in_process::InProcessDaemon;
use crate::netns::in_netns;

const PORTS: usize = 4000;

/// A bridge takes 1023 ports.
const NETWORKS: usize = 4;

fn network(n: usize) -> NetworkId {
    NetworkId(Uuid::from_u128(0xa1_0000 + n as u128))
}

/// An attach looks at its server's NICs.
const NICS_A_SERVER: usize = 100;

fn server(n: usize) -> ServerId {
    ServerId(Uuid::from_u128(0xc1_0000 + n as u128))
}

/// Networks and machines with room.
fn add_objects(daemon: &InProcessDaemon) {
    let networks = (0..NETWORKS).map(|n| NewNetwork {
        id: Some(network(n)),
        name: format!("net{n}"),
        description: String::new(),
        project_id: String::new(),
        mtu: None,
        bridge: None,
        kind: NetworkKind::Local,
        physical_network: None,
        segmentation_id: None,
        port_security: true,
        isolated: false,
        scope: None,
    });
    let subnets = (0..NETWORKS).map(|n| NewSubnet {
        id: SubnetId(Uuid::from_u128(0xb1_0000 + n as u128)),
        network_id: network(n),
        name: String::new(),
        description: String::new(),
        project_id: String::new(),
        cidr: format!("10.{n}.0.0/16").parse().unwrap(),
        gateway: Gateway::FirstHost,
        allocation_pools: None,
        dns_nameservers: Vec::new(),
        host_routes: Vec::new(),
        enable_dhcp: true,
        guidance: nicd::model::Guidance::default(),
    });
    let servers = (0..PORTS / NICS_A_SERVER).map(|n| {
        let guest = NewGuest::Vm { queues: 1, owner: Owner::default(), monitor: None };
        let (name, project_id) = (String::new(), String::new());
        Action::PutServer(NewServer { id: server(n), name, project_id, guest, nic_limit: Some(1000) })
    });
    let networks = [Action::CreateNetworks(networks.collect()), Action::CreateSubnets(subnets.collect())];
    networks.into_iter().chain(servers).for_each(|action| _ = daemon.perform(action).unwrap());
}

/// Attaches so many, some at a time, to all networks in turn; answers how long they took.
fn attach(daemon: &InProcessDaemon, number: usize) -> Duration {
    let one = |n: usize| {
        let nic = WantedNic::OnNetwork(network(n % NETWORKS), NewNic::default());
        let server_id = server(n / NICS_A_SERVER);
        Action::Attach(Attach { server_id, nic, second_on_network: SecondOnNetwork::Allowed, tag: None })
    };
    let began = Instant::now();
    for first in (0..number).step_by(50) {
        let answers = daemon.perform_at_once((first..first + 50).map(one).collect());
        answers.into_iter().for_each(|answer| _ = answer.unwrap());
    }
    began.elapsed()
}

/// The thread on the bus, as the daemon starts it.
fn on_bus(daemon: &InProcessDaemon, stop: &CancellationToken) -> JoinHandle<()> {
    let settings = DbusSettings { enabled: true, address: Some(ADDRESS.to_owned()) };
    let admitted = AllowedPeers { own_uid: 0, group: None, view_group: None };
    let bus = OnBus { service: Arc::clone(&daemon.service), settings, admitted };
    let stop = stop.clone();
    thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(bus.run(stop));
    })
}

fn timed<T>(what: &str, act: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let answer = act();
    println!("{what}: {:?}", began.elapsed());
    answer
}

/// How long the answer takes, without a reader's own work on it.
fn managed_objects_unread(times: usize) -> Vec<Duration> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let connection = zbus::connection::Builder::address(ADDRESS).build().await.unwrap();
        let mut took = Vec::new();
        for _ in 0..times {
            let began = Instant::now();
            let service = Some("org.freedesktop.DBus.ObjectManager");
            let answer = connection.call_method(Some(NAME), ROOT, service, "GetManagedObjects", &()).await.unwrap();
            took.push(began.elapsed());
            assert!(answer.data().len() > PORTS * 100);
        }
        took
    })
}

/// A daemon with the networks and servers that the test needs, in a directory of its own.
fn furnished() -> (InProcessDaemon, tempfile::TempDir) {
    let dir = tempfile::tempdir_in("/run").unwrap();
    let daemon = InProcessDaemon::open(dir.path(), &Fake::new());
    add_objects(&daemon);
    (daemon, dir)
}

#[test]
fn four_thousand_ports_are_shown_listed_and_signalled() {
    in_netns(|| {
        let (daemon, _dir) = furnished();
        let alone = attach(&daemon, PORTS);
        println!("{PORTS} attaches without a bus: {alone:?}");
        let _bus = Bus::start(Policy::Shipped);
        let stop = CancellationToken::new();
        let thread = on_bus(&daemon, &stop);
        timed("name taken, with every port behind it (two busctl runs included)", wait_for_name);
        let managed = timed("GetManagedObjects (busctl's reading and writing included)", || {
            ask(ROOT, "org.freedesktop.DBus.ObjectManager GetManagedObjects")
        });
        assert_eq!(managed[0].as_object().unwrap().len(), PORTS);
        let mut times: Vec<Duration> = managed_objects_unread(11);
        times.sort();
        println!("GetManagedObjects, from the call to the unread answer: {:?} in the middle, {:?} at most", times[5], times[10]);
        let pages = timed("ListPorts, all pages", || {
            let page = |page: usize| ask(ROOT, &format!("org.nicd.Agent1.Manager ListPorts uu {} 1000", page * 1000));
            (0..5).map(|number| page(number)[0].as_array().unwrap().len()).collect::<Vec<_>>()
        });
        assert_eq!(pages, [1000, 1000, 1000, 1000, 0]);
        let children = timed("Introspect of the ports' parent", || {
            busctl(&format!("call {NAME} {ROOT}/port org.freedesktop.DBus.Introspectable Introspect"))
        });
        assert_eq!(children.matches("<node name=").count(), PORTS);
        stop.cancel();
        thread.join().unwrap();
        daemon.stop();

        let (daemon, _dir) = furnished();
        let stop = CancellationToken::new();
        let thread = on_bus(&daemon, &stop);
        wait_for_name();
        let shown = attach(&daemon, PORTS);
        println!("{PORTS} attaches while on the bus: {shown:?}");
        let count = || ask(ROOT, "org.freedesktop.DBus.Properties Get ss org.nicd.Agent1.Manager PortCount")[0]["data"].clone();
        assert_eq!(timed("until all of their signals are sent, and the count asked for", count), PORTS);
        // Showing has a thread of its own: on a machine with one processor to spare it costs an attach nothing.
        assert!(shown < alone * 2 + Duration::from_secs(1), "{shown:?} against {alone:?}");
        stop.cancel();
        thread.join().unwrap();
        daemon.stop();
    });
}

#[test]
fn what_a_bus_that_stood_still_has_missed_is_looked_at_anew() {
    in_netns(|| {
        let (daemon, _dir) = furnished();
        let bus = Bus::start(Policy::Shipped);
        let stop = CancellationToken::new();
        let thread = on_bus(&daemon, &stop);
        wait_for_name();
        kill(bus.pid(), Signal::SIGSTOP).unwrap();
        // More than the bus's socket takes, and than events are kept.
        let ports = nicd::events::KEPT + 2000;
        let one = |n: usize| NewPort {
            id: None,
            network_id: network(n % NETWORKS),
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
        };
        for first in (0..ports).step_by(500) {
            daemon.perform(Action::CreatePorts((first..first + 500).map(one).collect())).unwrap();
        }
        let lost = nicd::telemetry::meters().events_lost.get();
        kill(bus.pid(), Signal::SIGCONT).unwrap();
        let count = || ask(ROOT, "org.freedesktop.DBus.Properties Get ss org.nicd.Agent1.Manager PortCount")[0]["data"].clone();
        let until = Instant::now() + Duration::from_secs(20);
        while count() != ports {
            assert!(Instant::now() < until, "{} of {ports}", count());
        }
        assert!(nicd::telemetry::meters().events_lost.get() > lost, "nothing was lost, so nothing is shown");
        stop.cancel();
        thread.join().unwrap();
        daemon.stop();
    });
}
