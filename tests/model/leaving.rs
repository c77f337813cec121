//! Devices on their way out that somebody holds, or takes the marks from: nothing of theirs is free before they are gone.

use nicd::kernel::fake::Fault;
use nicd::model::action::{Action, DryRun, WithNics};
use nicd::model::{Phase, PortId, names};
use nicd::plan::Op;
use nicd::service::{Context, PortFilter};

use crate::scene::{AGENTS, OPERATORS, Scene, VM, at, detach, network_id, on, server_id};

/// A tap that a VMM holds open.
fn held(scene: &mut Scene) -> PortId {
    let port = scene.attach(VM, on(AGENTS)).unwrap().port.id;
    scene.fake.set_carrier(port, true);
    let service = scene.service();
    scene.daemon().settle(|| match service.port(port).unwrap().phase {
        Phase::Active => Ok(()),
        phase => Err(format!("{phase:?}")),
    });
    port
}

/// Waits until the port is on its way out for this reason.
fn wait_for_reason(scene: &mut Scene, port: PortId, reason: &str) {
    let service = scene.service();
    scene.daemon().settle(|| match service.port(port) {
        Ok(view) if view.phase == Phase::Detaching && view.reason.as_deref() == Some(reason) => Ok(()),
        other => Err(format!("{:?}", other.map(|view| (view.phase, view.reason)))),
    });
}

fn wait_until_gone(scene: &mut Scene, port: PortId) {
    let (service, fake) = (scene.service(), scene.fake.clone());
    scene.daemon().settle(|| match (service.port(port), fake.links().iter().any(|link| link.tap.is_some())) {
        (Err(_), false) => Ok(()),
        (view, there) => Err(format!("{:?}, a tap is there: {there}", view.map(|view| (view.phase, view.reason)))),
    });
}

fn by_force(scene: &Scene, action: Action) {
    let service = scene.service();
    let forced = Context { force: true, ..Context::default() };
    scene.daemon.as_ref().unwrap().run(service.perform(action, forced)).unwrap();
}

/// The address of a leaving port is nobody else's.
fn assert_held(scene: &Scene, port: PortId) {
    let address = scene.service().port(port).unwrap().port.fixed_ips[0].ip_address;
    let again = scene.attach(VM + 1, at(AGENTS, address));
    assert_eq!(again.unwrap_err().reason(), "address_in_use");
}

#[test]
fn a_tap_that_a_process_holds_is_cut_and_goes_when_that_closes_it() {
    let mut scene = Scene::with_networks();
    let port = held(&mut scene);
    scene.perform(detach(VM, port)).unwrap();
    let device = scene.fake.device(port).unwrap();
    assert_eq!((device.up, device.master), (false, None), "as it is answered");
    wait_for_reason(&mut scene, port, "guest_keeps_device");
    assert_held(&scene, port);
    scene.perform(detach(VM, port)).unwrap();
    wait_for_reason(&mut scene, port, "guest_keeps_device");
    // Somebody puts it back.
    let bridge =
        scene.fake.links().iter().find(|link| link.altnames.contains(&names::network_altname(network_id(AGENTS)))).unwrap().index;
    scene.fake.meddle(&device.name, |link| (link.up, link.master) = (true, Some(bridge)));
    let fake = scene.fake.clone();
    scene.daemon().settle(|| match fake.device(port).map(|link| (link.up, link.master)) {
        Some((false, None)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // A daemon that is started meanwhile keeps to it.
    scene.kill();
    scene.open();
    wait_for_reason(&mut scene, port, "guest_keeps_device");
    scene.fake.set_carrier(port, false);
    wait_until_gone(&mut scene, port);
    scene.stop();
}

#[test]
fn a_dry_run_of_a_detach_shows_the_ops_that_run() {
    for open in [false, true] {
        let mut scene = Scene::with_networks();
        let port = if open { held(&mut scene) } else { scene.attach(VM, on(AGENTS)).unwrap().port.id };
        let plan = scene.service().dry_run(&DryRun::Detach(port)).unwrap();
        let shown: Vec<Op> = plan.steps.into_iter().map(|step| step.op).collect();
        assert!(!shown.is_empty());
        let before = scene.fake.log().len();
        scene.perform(detach(VM, port)).unwrap();
        match open {
            true => wait_for_reason(&mut scene, port, "guest_keeps_device"),
            false => wait_until_gone(&mut scene, port),
        }
        assert_eq!(scene.fake.log()[before..], shown);
        scene.stop();
    }
}

#[test]
fn by_force_a_held_tap_goes_at_once() {
    let mut scene = Scene::with_networks();
    for again in [false, true] {
        let port = held(&mut scene);
        if again {
            scene.perform(detach(VM, port)).unwrap();
            wait_for_reason(&mut scene, port, "guest_keeps_device");
        }
        by_force(&scene, detach(VM, port));
        wait_until_gone(&mut scene, port);
        let port = held(&mut scene);
        if again {
            scene.perform(Action::DeletePort(port)).unwrap();
            wait_for_reason(&mut scene, port, "guest_keeps_device");
        }
        by_force(&scene, Action::DeletePort(port));
        wait_until_gone(&mut scene, port);
    }
    scene.stop();
}

#[test]
fn a_server_whose_taps_are_held_is_answered_and_goes_with_the_last_of_them() {
    let mut scene = Scene::with_networks();
    let port = held(&mut scene);
    let delete = || Action::DeleteServer(server_id(VM), WithNics::Detach);
    scene.perform(delete()).unwrap();
    wait_for_reason(&mut scene, port, "guest_keeps_device");
    scene.perform(delete()).unwrap();
    by_force(&scene, delete());
    wait_until_gone(&mut scene, port);
    let service = scene.service();
    scene.daemon().settle(|| match service.servers().iter().any(|view| view.server.id == server_id(VM)) {
        true => Err("the server is still there".to_owned()),
        false => Ok(()),
    });
    scene.stop();
}

#[test]
fn a_forced_detach_is_carried_out_after_a_death() {
    let mut scene = Scene::with_networks();
    let port = held(&mut scene);
    scene.fake.set_faults(|op| match op {
        Op::DeleteLink { .. } | Op::DeleteGroup { .. } => Fault::Refuse(nicd::kernel::OpErrorKind::TimedOut),
        _ => Fault::None,
    });
    by_force(&scene, detach(VM, port));
    scene.kill();
    scene.fake.clear_faults();
    scene.open();
    wait_until_gone(&mut scene, port);
    scene.stop();
}

#[test]
fn a_device_that_lost_its_altname_is_known_again_by_its_alias() {
    for open in [false, true] {
        for nobody_sees in [false, true] {
            let mut scene = Scene::with_networks();
            let port = if open { held(&mut scene) } else { scene.attach(VM, on(AGENTS)).unwrap().port.id };
            let other = scene.attach(VM, on(OPERATORS)).unwrap().port.id;
            let name = scene.fake.device(port).unwrap().name;
            if nobody_sees {
                scene.fake.set_wire(|_| Vec::new());
            }
            // Each time it is put back it is taken off again, three times over.
            let (fake, taken, victim) = (scene.fake.clone(), name.clone(), names::port_altname(port));
            let strip = move || fake.meddle(&taken, |link| link.altnames.retain(|name| *name != victim));
            let (mut times, again) = (0, strip.clone());
            strip();
            let thief = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
            let due = std::sync::Arc::clone(&thief);
            scene.fake.set_faults(move |op| {
                if matches!(op, Op::RestoreAltname { .. }) {
                    due.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                }
                Fault::None
            });
            for one in [port, other] {
                scene.perform(detach(VM, one)).unwrap();
                let marked = thief.load(std::sync::atomic::Ordering::SeqCst);
                if marked > times && times < 3 {
                    times = marked;
                    again();
                }
            }
            if open {
                wait_for_reason(&mut scene, port, "guest_keeps_device");
                let link = scene.fake.links().into_iter().find(|link| link.name == name).unwrap();
                assert_eq!((link.up, link.master), (false, None));
                assert_held(&scene, port);
                // It is closed by its altname, which may be off once more.
                let fake = scene.fake.clone();
                scene.daemon().settle(|| fake.device(port).map(drop).ok_or_else(|| "no altname".to_owned()));
                scene.fake.set_carrier(port, false);
            }
            wait_until_gone(&mut scene, port);
            scene.stop();
        }
    }
}

#[test]
fn a_device_that_lost_both_its_marks_is_known_again_by_its_index_or_its_mac() {
    for open in [false, true] {
        for (seen, mac) in [(true, true), (true, false), (false, true), (false, false)] {
            let mut scene = Scene::with_networks();
            let port = if open { held(&mut scene) } else { scene.attach(VM, on(AGENTS)).unwrap().port.id };
            let (name, before) = (scene.fake.device(port).unwrap().name, scene.fake.links().len());
            if !seen {
                scene.fake.set_wire(|_| Vec::new());
            }
            scene.fake.meddle(&name, |link| {
                (link.altnames, link.alias) = (Vec::new(), None);
                link.mac = link.mac.filter(|_| !mac);
            });
            scene.perform(detach(VM, port)).unwrap();
            if open {
                wait_for_reason(&mut scene, port, "guest_keeps_device");
                let link = scene.fake.links().into_iter().find(|link| link.name == name).unwrap();
                assert_eq!((link.up, link.master), (false, None));
                assert_held(&scene, port);
                scene.fake.set_carrier(port, false);
            }
            wait_until_gone(&mut scene, port);
            assert_eq!(scene.fake.links().len(), before - 1, "no second device is left");
            scene.stop();
        }
    }
}

#[test]
fn a_device_that_has_another_stores_alias_is_left_and_what_it_had_stays_held() {
    let mut scene = Scene::with_networks();
    let port = scene.attach(VM, on(AGENTS)).unwrap().port.id;
    let name = scene.fake.device(port).unwrap().name;
    scene.fake.set_wire(|_| Vec::new());
    scene.fake.meddle(&name, |link| (link.altnames, link.alias) = (Vec::new(), Some(names::device_tag(uuid::Uuid::max(), 7))));
    scene.perform(detach(VM, port)).unwrap();
    wait_for_reason(&mut scene, port, "device_unmarked");
    let (_, facts) = scene.service().explain(port).unwrap();
    assert!(facts.iter().any(|fact| !fact.ok && fact.detail.contains(&format!("ip link del {name}"))), "{facts:?}");
    assert!(scene.fake.links().iter().any(|link| link.name == name), "it is not touched");
    assert_held(&scene, port);
    scene.fake.delete_link(&name);
    wait_until_gone(&mut scene, port);
    assert!(scene.service().ports(PortFilter::default()).is_empty());
    scene.stop();
}
