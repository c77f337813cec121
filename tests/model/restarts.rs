//! What changed while nobody looked, and what an older state does not know.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use nicd::kernel::fake::Fault;
use nicd::model::action::{Action, PortChange, WantedNic};
use nicd::model::{GroupId, Mac, NetworkId, PortId, names};
use nicd::plan::groups::number;
use nicd::plan::{Kind, Op};
use nicd::service::{Leftovers, PortView};
use uuid::Uuid;

use crate::check::Reference;
use crate::scene::{
    AGENTS, NETNS, NETNS_PATH, OPERATORS, Scene, VM, create_group, create_network, create_port, create_subnet, group_id, on,
    port_of,
};

#[test]
fn a_restart_writes_nothing_to_right_devices() {
    let (mut scene, reference, _) = three_nics();
    for end in [Scene::stop, Scene::kill] {
        let before = scene.fake.log().len();
        end(&mut scene);
        scene.open();
        settle(&mut scene, &reference);
        assert_eq!(scene.fake.log()[before..], []);
    }
    scene.stop();
}

/// Two networks for which the same zone of conntrack would be first.
#[test]
fn a_network_keeps_its_zone_when_another_one_is_deleted() {
    let mut scene = Scene::new();
    let derived = |n: u128| number(&[GroupId(Uuid::from_u128(n))].into()) % 61_440;
    let mut seen = HashMap::new();
    let alike = (1..).find_map(|n| Some([seen.insert(derived(n), n)?, n])).unwrap();
    let [first, second] = alike.map(|n| NetworkId(Uuid::from_u128(n)));
    for (n, id) in [(AGENTS, first), (AGENTS + 2, second)] {
        let (mut network, mut subnet) = (create_network(n), create_subnet(n, false));
        if let (Action::CreateNetworks(networks), Action::CreateSubnets(subnets)) = (&mut network, &mut subnet) {
            (networks[0].id, subnets[0].network_id) = (Some(id), id);
        }
        scene.perform(network).unwrap();
        scene.perform(subnet).unwrap();
    }
    scene.perform(create_group(0)).unwrap();
    let mut create = create_port(AGENTS);
    if let Action::CreatePorts(ports) = &mut create {
        (ports[0].network_id, ports[0].groups) = (second, Some([group_id(0)].into()));
    }
    let port = port_of(scene.perform(create).unwrap()).port.id;
    scene.attach(NETNS, WantedNic::Port(port)).unwrap();
    let zone = |scene: &Scene| scene.fake.device(port).unwrap().filter.of(port).unwrap().groups.as_ref().unwrap().zone;
    let before = zone(&scene);
    scene.perform(Action::DeleteNetwork(first)).unwrap();
    let log = scene.fake.log().len();
    for end in [Scene::stop, Scene::kill] {
        end(&mut scene);
        scene.open();
        scene.daemon().drain();
        assert_eq!((zone(&scene), &scene.fake.log()[log..]), (before, &[][..]));
    }
    scene.stop();
}

#[test]
fn after_a_reboot_every_record_has_its_device_again() {
    let (mut scene, mut reference, _) = three_nics();
    scene.reboot();
    reference.strangers.clone_from(&scene.strangers);
    reference.ports.values_mut().for_each(|port| port.open = false);
    settle(&mut scene, &reference);
    scene.stop();
}

#[test]
fn what_was_changed_while_the_daemon_was_away_is_set_back() {
    let (mut scene, mut reference, ports) = three_nics();
    scene.stop();
    let mark = |n: usize| names::port_altname(ports[n].port.id);
    scene.fake.meddle(&mark(0), |link| (link.master, link.mtu) = (None, 1300));
    scene.fake.meddle(&mark(1), |link| (link.alias, link.mac) = (None, Some(Mac([2, 0, 0, 0, 0, 1]))));
    scene.fake.delete_link(&mark(2));
    reference.ports.get_mut(&ports[2].port.id).unwrap().open = false;
    scene.open();
    settle(&mut scene, &reference);
    scene.stop();
}

#[test]
fn a_list_of_leftovers_shows_the_ops_that_remove_them() {
    let mut scene = Scene::new();
    scene.stop();
    let older = tempfile::tempdir().unwrap();
    copy(scene.dir.path(), older.path());
    scene.open();
    scene.perform(create_network(AGENTS)).unwrap();
    scene.perform(create_subnet(AGENTS, false)).unwrap();
    let ports: Vec<_> = (0..3).map(|n| scene.attach(VM + n % 2, on(AGENTS)).unwrap().port.id).collect();
    scene.stop();
    copy(older.path(), scene.dir.path());
    scene.fake.meddle(&names::port_altname(ports[1]), |link| link.altnames.clear());
    scene.open();
    let collect = |scene: &Scene, remove| {
        let service = scene.service();
        scene.daemon.as_ref().unwrap().run(async move { service.collect(Leftovers { remove, store: None }).await }).unwrap()
    };
    let listed = collect(&scene, false);
    assert_eq!((listed.leftovers.len(), &listed.removed[..]), (4, &[][..]));
    let shown: Vec<Op> = listed.plan.unwrap().steps.into_iter().map(|step| step.op).collect();
    let before = scene.fake.log().len();
    let removed = collect(&scene, true);
    assert_eq!((&removed.leftovers[..], removed.removed), (&[][..], listed.leftovers));
    assert_eq!(grouped_or_not(&scene.fake.log()[before..]), grouped_or_not(&shown));
    scene.stop();
}

/// The devices that ops delete, and the other ops: which devices wait together, and are deleted together, depends on the time.
fn grouped_or_not(ops: &[Op]) -> (BTreeSet<PortId>, Vec<Op>) {
    let deleted = ops.iter().filter_map(|op| match op {
        Op::DeleteLink { port, .. } | Op::SetGroup { port, .. } => Some(*port),
        _ => None,
    });
    let of_deletion =
        |op: &&Op| matches!(op, Op::Unbind { .. } | Op::SetGroup { .. } | Op::DeleteGroup { .. } | Op::DeleteLink { .. });
    (deleted.collect(), ops.iter().filter(|op| !of_deletion(op)).cloned().collect())
}

#[test]
fn a_marked_device_without_a_record_is_reported_and_left() {
    let mut scene = Scene::with_networks();
    scene.stop();
    let older = tempfile::tempdir().unwrap();
    copy(scene.dir.path(), older.path());
    scene.open();
    let port = scene.attach(VM, on(OPERATORS)).unwrap();
    scene.stop();
    copy(older.path(), scene.dir.path());
    let device = scene.fake.device(port.port.id).unwrap();
    let before = scene.fake.log().len();
    scene.open();
    scene.daemon().drain();
    let problems = scene.service().health().problems;
    let told: Vec<_> = problems.iter().map(|problem| (problem.reason, problem.finding.detail.contains(&device.name))).collect();
    assert_eq!(told, [("store_rolled_back", false), ("device_without_record", true)]);
    assert_eq!(scene.fake.device(port.port.id), Some(device.clone()));
    assert_eq!(scene.fake.log()[before..], []);
    // Somebody deletes it, and all is well.
    scene.fake.delete_link(&device.name);
    let service = scene.service();
    scene.daemon().settle(|| if service.health().problems.is_empty() { Ok(()) } else { Err("still reported".to_owned()) });
    scene.stop();
}

#[test]
fn a_marked_device_that_appears_is_reported_and_left() {
    let mut scene = Scene::with_networks();
    let port = scene.attach(VM, on(OPERATORS)).unwrap().port.id;
    let alias = scene.fake.device(port).unwrap().alias;
    scene.fake.add_link("stray", Kind::Tap, 1500);
    scene.fake.meddle("stray", |link| {
        link.altnames.push("nicd-00000000-0000-4000-8000-000000000bad".to_owned());
        link.alias = alias;
    });
    let service = scene.service();
    let reported = || service.health().problems.iter().any(|problem| problem.reason == "device_without_record");
    scene.daemon().settle(|| reported().then_some(()).ok_or("not reported".to_owned()));
    assert!(scene.fake.links().iter().any(|link| link.name == "stray"));
    scene.stop();
}

#[test]
fn a_network_made_anew_at_the_guests_path_gets_its_nics_again() {
    let (mut scene, mut reference, _) = three_nics();
    scene.fake.remove_netns(Path::new(NETNS_PATH));
    reference.netns_gone = true;
    settle(&mut scene, &reference);
    scene.stop();
    scene.fake.add_netns(Path::new(NETNS_PATH));
    reference.netns_gone = false;
    scene.open();
    settle(&mut scene, &reference);
    scene.stop();
}

#[test]
fn a_change_of_a_port_whose_namespace_is_gone_leaves_it_down() {
    let (mut scene, mut reference, ports) = three_nics();
    scene.fake.remove_netns(Path::new(NETNS_PATH));
    reference.netns_gone = true;
    settle(&mut scene, &reference);
    let id = ports[1].port.id;
    for admin_up in [false, true] {
        scene.perform(Action::UpdatePort(id, PortChange { admin_up: Some(admin_up), ..PortChange::default() })).unwrap();
        reference.ports.get_mut(&id).unwrap().admin_up = admin_up;
        settle(&mut scene, &reference);
    }
    scene.stop();
}

#[test]
fn what_one_restart_cannot_mend_a_later_moment_does() {
    let (mut scene, reference, ports) = three_nics();
    scene.stop();
    scene.fake.meddle(&names::port_altname(ports[0].port.id), |link| link.master = None);
    scene.fake.set_faults(|_| Fault::Refuse(nicd::kernel::OpErrorKind::Other));
    scene.open();
    let (service, id) = (scene.service(), ports[0].port.id);
    let phase = || service.port(id).unwrap().phase;
    scene.daemon().settle(|| if phase() == nicd::model::Phase::Error { Ok(()) } else { Err(format!("{:?}", phase())) });
    scene.fake.clear_faults();
    settle(&mut scene, &reference);
    scene.stop();
}

/// An open tap on the agent's bridge, a veth and a tap on the operator's, all settled.
fn three_nics() -> (Scene, Reference, [PortView; 3]) {
    let mut scene = Scene::with_networks();
    let mut reference = Reference::of(&scene);
    reference.networks = [Some([true, false]), Some([true, true])];
    let ports =
        [(VM, AGENTS), (NETNS, OPERATORS), (VM, OPERATORS)].map(|(server, network)| scene.attach(server, on(network)).unwrap());
    ports.iter().for_each(|port| reference.adopt(port));
    for open in [0, 2].map(|n: usize| ports[n].port.id) {
        scene.fake.set_carrier(open, true);
        reference.ports.get_mut(&open).unwrap().open = true;
    }
    settle(&mut scene, &reference);
    (scene, reference, ports)
}

fn settle(scene: &mut Scene, reference: &Reference) {
    let (service, fake, dir) = (scene.service(), scene.fake.clone(), scene.dir.path().to_owned());
    scene.daemon().settle(|| reference.check(&service, &fake, &dir));
}

/// Puts the files of one directory in the place of another's.
fn copy(from: &Path, to: &Path) {
    for old in std::fs::read_dir(to).unwrap() {
        std::fs::remove_file(old.unwrap().path()).unwrap();
    }
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}
