//! Concurrent requests.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use nicd::kernel::OpErrorKind;
use nicd::kernel::fake::Fault;
use nicd::model::action::{Action, AfterDetach, NewGuest, NewNetwork, NewNic, NewServer, WantedNic};
use nicd::model::subnet::{Gateway, NewSubnet};
use nicd::model::{Mac, NetworkId, NetworkKind, Owner, ServerId, SubnetId};
use nicd::plan::Op;
use nicd::service::{Context, Error};
use uuid::Uuid;

use crate::check::{Reference, but_for_carrier};
use crate::scene::{AGENTS, Scene, VM, attach, create_port, on, port_of};

/// The number of concurrent requests.
const CONCURRENT: usize = 64;

#[test]
fn as_many_attaches_at_once_get_as_many_addresses() {
    let (mut scene, network, server) = roomy();
    let flushes = scene.daemon().flushes();
    let wanted = WantedNic::OnNetwork(network, NewNic::default());
    let attach = Action::Attach(nicd::model::action::Attach {
        server_id: server,
        nic: wanted,
        second_on_network: nicd::model::action::SecondOnNetwork::Allowed,
        tag: None,
    });
    let answers = scene.daemon().perform_at_once(vec![attach; CONCURRENT]);
    let ports: Vec<_> = answers.into_iter().map(|answer| port_of(answer.unwrap()).port).collect();
    let ips: BTreeSet<IpAddr> = ports.iter().map(|port| port.fixed_ips[0].ip_address).collect();
    let macs: BTreeSet<Mac> = ports.iter().map(|port| port.mac).collect();
    assert_eq!((ips.len(), macs.len()), (CONCURRENT, CONCURRENT));
    let lowest: BTreeSet<IpAddr> = (2..2 + CONCURRENT).map(|host| [10, 9, 0, u8::try_from(host).unwrap()].into()).collect();
    assert_eq!(ips, lowest, "the lowest free are given");
    assert!(ports.iter().all(|port| scene.fake.device(port.id).is_some_and(|device| device.up && device.master.is_some())));
    // The first one makes the bridge while the others wait for it, and then they go together.
    let flushed = scene.daemon().flushes() - flushes;
    assert!(flushed < CONCURRENT as u64, "{flushed} flushes");
    scene.stop();
}

#[test]
fn of_as_many_attaches_of_one_port_one_succeeds() {
    let mut scene = Scene::with_networks();
    let port = port_of(scene.perform(create_port(AGENTS)).unwrap()).port.id;
    let answers = scene.daemon().perform_at_once(vec![attach(VM, WantedNic::Port(port)); CONCURRENT]);
    let refused = answers.iter().filter(|answer| matches!(answer, Err(Error::PortInUse(id)) if *id == port)).count();
    assert_eq!((answers.iter().filter(|answer| answer.is_ok()).count(), refused), (1, CONCURRENT - 1));
    let mut reference = Reference::of(&scene);
    reference.networks = [Some([true, false]), Some([true, true])];
    reference.adopt(&scene.service().port(port).unwrap());
    let (service, fake, dir) = (scene.service(), scene.fake.clone(), scene.dir.path().to_owned());
    scene.daemon().settle(|| reference.check(&service, &fake, &dir));
    scene.stop();
}

#[test]
fn as_many_detaches_at_once_leave_nothing() {
    let (mut scene, network, server) = roomy();
    let attach = |_| {
        Action::Attach(nicd::model::action::Attach {
            server_id: server,
            nic: WantedNic::OnNetwork(network, NewNic::default()),
            second_on_network: nicd::model::action::SecondOnNetwork::Allowed,
            tag: None,
        })
    };
    let attached = scene.daemon().perform_at_once((0..CONCURRENT).map(attach).collect());
    let ports: Vec<_> = attached.into_iter().map(|answer| port_of(answer.unwrap()).port.id).collect();
    // Every one of them twice: the second gets the same answer, or finds nothing any more.
    let twice = ports.iter().chain(&ports).map(|port| Action::Detach(server, *port, AfterDetach::AsMade)).collect();
    for answer in scene.daemon().perform_at_once(twice) {
        let gone = |error: &Error| ["no_such_port", "port_not_on_server"].contains(&error.reason());
        assert!(answer.as_ref().err().is_none_or(gone), "{answer:?}");
    }
    let (service, fake) = (scene.service(), scene.fake.clone());
    let mut strangers = scene.strangers.clone();
    scene.daemon().settle(|| {
        let left = service.ports(Default::default()).len();
        if left == 0 { Ok(()) } else { Err(format!("{left} ports")) }
    });
    scene.perform(Action::DeleteNetwork(network)).unwrap();
    strangers.sort_by_key(|link| link.index);
    assert_eq!(but_for_carrier(&fake.links()), but_for_carrier(&strangers));
    scene.stop();
}

#[test]
fn more_attaches_than_addresses_fill_the_pool_exactly() {
    let mut scene = Scene::with_networks();
    let mut actions = Vec::new();
    for server in 0..2 {
        actions.extend(vec![attach(server, on(AGENTS)); 4]);
    }
    let answers = scene.daemon().perform_at_once(actions);
    let refused: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err().map(Error::reason)).collect();
    assert_eq!(refused, ["pool_empty"; 3]);
    scene.stop();
}

#[test]
fn an_attach_does_not_build_on_a_bridge_that_another_may_still_take_back() {
    let mut scene = Scene::with_networks();
    let (made, bridge_is_made) = tokio::sync::oneshot::channel();
    let (go, gone_on) = std::sync::mpsc::channel();
    let mut made = Some(made);
    scene.fake.set_faults(move |op| match (op, made.take()) {
        (Op::Configure { .. }, Some(made)) => {
            made.send(()).unwrap();
            gone_on.recv().unwrap();
            Fault::Refuse(OpErrorKind::Other)
        }
        (_, unused) => {
            made = unused;
            Fault::None
        }
    });
    let service = scene.service();
    let (first, second) = scene.daemon().run(async {
        let begin = || {
            tokio::spawn({
                let service = Arc::clone(&service);
                async move { service.perform(attach(VM, on(AGENTS)), Context::default()).await }
            })
        };
        let first = begin();
        bridge_is_made.await.unwrap();
        pass().await;
        let second = begin();
        pass().await;
        go.send(()).unwrap();
        (first.await.unwrap(), second.await.unwrap())
    });
    assert_eq!(first.unwrap_err().reason(), "kernel_refused");
    let mut reference = Reference::of(&scene);
    reference.networks = [Some([true, false]), Some([true, true])];
    reference.adopt(&port_of(second.unwrap()));
    // Nothing is to be waited for: it was never without its bridge.
    reference.check(&service, &scene.fake, scene.dir.path()).unwrap();
    scene.stop();
}

/// Lets every other task go as far as it comes by itself.
async fn pass() {
    for _ in 0..32 {
        tokio::task::yield_now().await;
    }
}

/// A scene with a network and a server that a crowd fits into.
fn roomy() -> (Scene, NetworkId, ServerId) {
    let scene = Scene::new();
    let (network, server) = (NetworkId(Uuid::from_u128(0xf00)), ServerId(Uuid::from_u128(0xf01)));
    scene
        .perform(Action::CreateNetworks(vec![NewNetwork {
            id: Some(network),
            name: String::new(),
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
        }]))
        .unwrap();
    scene
        .perform(Action::CreateSubnets(vec![NewSubnet {
            id: SubnetId(Uuid::from_u128(0xf02)),
            network_id: network,
            name: String::new(),
            description: String::new(),
            project_id: String::new(),
            cidr: "10.9.0.0/24".parse().unwrap(),
            gateway: Gateway::FirstHost,
            allocation_pools: None,
            dns_nameservers: Vec::new(),
            host_routes: Vec::new(),
            enable_dhcp: true,
            guidance: nicd::model::Guidance::default(),
        }]))
        .unwrap();
    let guest = NewGuest::Vm { queues: 1, owner: Owner::default(), monitor: None };
    let nic_limit = Some(u32::try_from(2 * CONCURRENT).unwrap());
    scene
        .perform(Action::PutServer(NewServer { id: server, name: String::new(), project_id: String::new(), guest, nic_limit }))
        .unwrap();
    (scene, network, server)
}
