//! The process dies at an op, before the kernel sees it or just after: what was answered is so, and what was not is
//! wholly there or wholly absent.

use nicd::manager::{Context, PortFilter};
use nicd::model::action::{Action, WantedNic};
use nicd::model::names;

use crate::check::Reference;
use crate::house::Death;
use crate::scene::{AGENTS, NETNS, OPERATORS, Scene, VM, attach, create_port, detach, on, port_of};

/// What the process is at when it dies.
#[derive(Debug, Clone, Copy)]
enum Work {
    AttachFirstTap,
    AttachLaterTap,
    AttachVeth,
    AttachReadyPort,
    DetachTap,
    DetachVeth,
    DetachReadyPort,
    Repair,
}

#[test]
fn an_attach_the_process_died_in_is_whole_or_absent() {
    for work in [Work::AttachFirstTap, Work::AttachLaterTap, Work::AttachVeth, Work::AttachReadyPort] {
        assert!(die_at_every_op(work) >= 4, "{work:?}");
    }
}

#[test]
fn a_detach_the_process_died_in_comes_to_its_end() {
    for work in [Work::DetachTap, Work::DetachVeth, Work::DetachReadyPort] {
        assert!(die_at_every_op(work) >= 2, "{work:?}");
    }
}

#[test]
fn a_repair_the_process_died_in_is_taken_up_again() {
    assert!(die_at_every_op(Work::Repair) >= 1);
}

#[test]
#[ignore = "known: a veth finished just before a death is right, so nothing looks into the guest for its name again"]
fn a_guests_name_for_its_nic_is_learnt_again_after_a_death() {
    let mut scene = Scene::with_networks();
    let manager = scene.manager();
    // The seal is the fourth op.
    scene.house().die_at(3, Death::After);
    _ = scene.house().run_to_death(manager.perform(attach(NETNS, on(OPERATORS)), Context::default()), || true);
    scene.kill();
    scene.open();
    let manager = scene.manager();
    scene.house().settle(|| {
        let told = manager.ports(PortFilter::default())[0].binding.as_ref().and_then(|binding| binding.guest_device.clone());
        told.map(|_| ()).ok_or("the client is not told the NIC's name".to_owned())
    });
    scene.stop();
}

/// Dies at each op of the work, on either side of it; answers how many ops there were.
fn die_at_every_op(work: Work) -> usize {
    (0..).take_while(|op| [Death::Before, Death::After].into_iter().all(|when| dies_well(work, *op, when))).count()
}

/// Whether the process died there at all. If so, the next one finds everything as it must be.
fn dies_well(work: Work, op: usize, when: Death) -> bool {
    let told = format!("{work:?}, {when:?} op {op}");
    let (mut scene, mut reference, action) = prepared(work);
    scene.house().die_at(op, when);
    let (manager, fake, dir) = (scene.manager(), scene.fake.clone(), scene.dir.path().to_owned());
    let answer = match &action {
        Some(action) => {
            let answer = scene.house().run_to_death(manager.perform(action.clone(), Context::default()), || at_rest(&manager));
            answer.map(|answer| answer.unwrap_or_else(|error| panic!("{told}: {error}")))
        }
        None => {
            let device = reference.ports.keys().next().copied().unwrap();
            fake.meddle(&names::port_altname(device), |link| link.master = None);
            let reference = reference.clone();
            _ = scene.house().run_to_death(async {}, || reference.check_host(&manager, &fake).is_ok());
            None
        }
    };
    if !scene.house().is_dying() {
        scene.stop();
        return false;
    }
    scene.kill();
    scene.open();
    let manager = scene.manager();
    let before = reference.clone();
    reference.ports.clear();
    for view in manager.ports(PortFilter::default()) {
        reference.adopt(&view);
        if view.port.leaving() {
            reference.unbind(view.port.id);
        }
    }
    reference.bridge = before.bridge;
    reference.note_bridge();
    reference.name_may_be_unknown = true;
    if let Some(answer) = answer {
        as_answered(&answer, &action, &reference, &told);
    }
    let fake = scene.fake.clone();
    scene.house().settle(|| reference.check(&manager, &fake, &dir).map_err(|wrong| format!("{told}: {wrong}")));
    scene.stop();
    true
}

/// What was answered with success is so, although the process died behind the answer.
fn as_answered(answer: &nicd::manager::Reply, action: &Option<Action>, reference: &Reference, told: &str) {
    match action {
        Some(Action::Attach(_)) => {
            let id = port_of(answer.clone()).port.id;
            assert!(reference.ports.get(&id).is_some_and(|port| port.server.is_some()), "{told}: {id} is not attached");
        }
        Some(Action::Detach(_, id, _)) => {
            assert!(reference.ports.get(id).is_none_or(|port| port.server.is_none()), "{told}: {id} is still attached");
        }
        _ => {}
    }
}

/// Whether no port is on its way.
fn at_rest(manager: &nicd::manager::Manager) -> bool {
    use nicd::model::Phase::{Active, Unbound, Wired};
    manager.ports(PortFilter::default()).iter().all(|view| matches!(view.phase, Active | Wired | Unbound))
}

/// A scene in which everything but the work itself is done; no action for a repair.
fn prepared(work: Work) -> (Scene, Reference, Option<Action>) {
    let mut scene = Scene::with_networks();
    let mut reference = Reference::of(&scene);
    reference.networks = [Some([true, false]), Some([true, true])];
    let ready = |scene: &Scene| port_of(scene.perform(create_port(AGENTS)).unwrap()).port.id;
    let action = match work {
        Work::AttachFirstTap => Some(attach(VM, on(AGENTS))),
        Work::AttachLaterTap => {
            scene.attach(1, on(AGENTS)).unwrap();
            Some(attach(VM, on(AGENTS)))
        }
        Work::AttachVeth => Some(attach(NETNS, on(OPERATORS))),
        Work::AttachReadyPort => Some(attach(VM, WantedNic::Port(ready(&scene)))),
        Work::DetachTap => Some(detach(VM, scene.attach(VM, on(AGENTS)).unwrap().port.id)),
        Work::DetachVeth => Some(detach(NETNS, scene.attach(NETNS, on(OPERATORS)).unwrap().port.id)),
        Work::DetachReadyPort => {
            let port = ready(&scene);
            scene.attach(VM, WantedNic::Port(port)).unwrap();
            Some(detach(VM, port))
        }
        Work::Repair => {
            scene.attach(VM, on(AGENTS)).unwrap();
            None
        }
    };
    scene.manager().ports(PortFilter::default()).iter().for_each(|view| reference.adopt(view));
    let (manager, fake, dir) = (scene.manager(), scene.fake.clone(), scene.dir.path().to_owned());
    let settled = reference.clone();
    scene.house().settle(|| settled.check(&manager, &fake, &dir));
    (scene, reference, action)
}
