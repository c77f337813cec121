//! A device that the kernel does not let go, or refuses to delete: its port waits and says so, all others go on.

use std::time::{Duration, Instant};

use nicd::kernel::OpErrorKind;
use nicd::kernel::fake::Fault;
use nicd::model::{Phase, PortId};
use nicd::plan::Op;
use nicd::service::PortFilter;

use crate::scene::{AGENTS, OPERATORS, Scene, VM, detach, on};

/// Four taps at each of two servers.
fn eight() -> (Scene, Vec<(usize, PortId)>) {
    let scene = Scene::with_networks();
    let networks = [AGENTS, OPERATORS];
    let ports = (0..8).map(|n| (n / 4, scene.attach(VM + n / 4, on(networks[n / 4])).unwrap().port.id)).collect();
    (scene, ports)
}

fn left(scene: &Scene) -> Vec<PortId> {
    scene.service().ports(PortFilter::default()).into_iter().map(|view| view.port.id).collect()
}

fn wait_for(scene: &mut Scene, wanted: &[PortId]) {
    let service = scene.service();
    let mut wanted = wanted.to_vec();
    wanted.sort();
    scene.daemon().settle(|| {
        let left: Vec<PortId> = service.ports(PortFilter::default()).into_iter().map(|view| view.port.id).collect();
        if left == wanted { Ok(()) } else { Err(format!("{left:?} are left, {wanted:?} should be")) }
    });
}

#[test]
fn a_device_the_kernel_keeps_holds_no_other() {
    let (mut scene, ports) = eight();
    let stall = scene.fake.stall(ports[3].1);
    let start = Instant::now();
    for (server, port) in &ports {
        scene.perform(detach(*server, *port)).unwrap();
    }
    wait_for(&mut scene, &[ports[3].1]);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let view = scene.service().port(ports[3].1).unwrap();
    assert_eq!((view.phase, view.port.fixed_ips.is_empty()), (Phase::Detaching, false), "it holds what it had");
    // Others come and go.
    for _ in 0..3 {
        let port = scene.attach(VM, on(AGENTS)).unwrap().port;
        assert_ne!(port.fixed_ips, view.port.fixed_ips);
        scene.perform(detach(VM, port.id)).unwrap();
        wait_for(&mut scene, &[ports[3].1]);
    }
    scene.perform(detach(ports[3].0, ports[3].1)).unwrap();
    drop(stall);
    wait_for(&mut scene, &[]);
    let deletes =
        scene.fake.log().into_iter().filter(|op| matches!(op, Op::DeleteLink { port, .. } if *port == ports[3].1)).count();
    assert!(deletes <= 1, "it was deleted {deletes} times");
    scene.stop();
}

#[test]
fn seven_devices_the_kernel_keeps_hold_no_other_and_are_told() {
    let (mut scene, ports) = eight();
    let stalls: Vec<_> = ports[..7].iter().map(|(_, port)| scene.fake.stall(*port)).collect();
    for (server, port) in &ports {
        scene.perform(detach(*server, *port)).unwrap();
    }
    let kept: Vec<PortId> = ports[..7].iter().map(|(_, port)| *port).collect();
    wait_for(&mut scene, &kept);
    let service = scene.service();
    let told = |service: &nicd::service::Service| {
        service.health().problems.iter().filter(|problem| problem.reason == "device_kept").count()
    };
    scene.daemon().settle(|| if told(&service) == 7 { Ok(()) } else { Err(format!("{} are told", told(&service))) });
    drop(stalls);
    wait_for(&mut scene, &[]);
    assert_eq!(told(&service), 0);
    scene.stop();
}

#[test]
fn a_device_that_cannot_be_deleted_is_an_error_of_its_own_and_tried_again() {
    let (mut scene, ports) = eight();
    let bad = ports[2].1;
    scene.fake.set_faults(move |op| match op {
        Op::DeleteLink { port, .. } if *port == bad => Fault::Refuse(OpErrorKind::Other),
        Op::DeleteGroup { .. } => Fault::Refuse(OpErrorKind::Other),
        _ => Fault::None,
    });
    for (server, port) in &ports {
        scene.perform(detach(*server, *port)).unwrap();
    }
    wait_for(&mut scene, &[bad]);
    let service = scene.service();
    scene.daemon().settle(|| match service.port(bad).map(|view| (view.phase, view.reason)) {
        Ok((Phase::Error, Some(reason))) if reason == "kernel_refused" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(left(&scene), [bad], "its record stays, with what it holds");
    scene.fake.clear_faults();
    wait_for(&mut scene, &[]);
    scene.stop();
}
