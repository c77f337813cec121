//! Every op fails from one on, the undos too: an attach leaves no trace or an ERROR that goes away with the fault. One
//! thing at a time is the matrix's.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
#[cfg(debug_assertions)]
use std::time::{Duration, Instant};

use nicd::kernel::OpErrorKind;
use nicd::kernel::fake::{Fake, Fault};
#[cfg(debug_assertions)]
use nicd::model::action::WantedIp;
use nicd::model::action::{Action, PortChange, WantedNic};
use nicd::model::{Limits, Phase, PortId, RateLimit, ServerId};
use nicd::plan::{LinkChange, LinkState, Op, TokenBucket};
use nicd::service::{Error, PortFilter};

use crate::check::Reference;
use crate::scene::{AGENTS, NETNS, OPERATORS, Scene, VM, at, attach, create_port, detach, on, port_of};

/// What a kernel may say no with.
const TROUBLES: [OpErrorKind; 10] = [
    OpErrorKind::Taken,
    OpErrorKind::Gone,
    OpErrorKind::BridgeFull,
    OpErrorKind::NoBridge,
    OpErrorKind::Namespace,
    OpErrorKind::Hanging,
    OpErrorKind::NamespaceRefused,
    OpErrorKind::NoDescriptors,
    OpErrorKind::TimedOut,
    OpErrorKind::Other,
];

/// What is attached, and to what.
#[derive(Debug, Clone, Copy)]
enum Nic {
    /// The first tap on the agent's bridge, which is made with it.
    FirstTap,
    /// One that finds the bridge there.
    LaterTap,
    /// A veth on the operator's bridge, with both families.
    Veth,
    /// A tap for a port made beforehand.
    ReadyPort,
}

const NICS: [Nic; 4] = [Nic::FirstTap, Nic::LaterTap, Nic::Veth, Nic::ReadyPort];

#[test]
fn an_attach_that_cannot_be_taken_back_is_an_error_that_goes_away_with_the_fault() {
    for_every_step(|nic, fault, step| {
        let (mut scene, mut reference, action) = prepared(nic);
        let before = traces(&scene);
        let failed = fail_from(&scene.fake, step, fault);
        match scene.perform(action) {
            Ok(reply) => reference.adopt(&port_of(reply)),
            Err(Error::NotUndone { .. }) => {
                let shown = traces(&scene).1;
                let is_error = shown.iter().any(|(_, _, phase)| *phase == Phase::Error);
                // An undo that took effect and was refused leaves no device, and the next try, which finds that, may have ended.
                let is_gone = matches!(fault, Fault::ApplyAndRefuse(_)) && shown == before.1;
                assert!(is_error || is_gone, "{nic:?}, step {step}, {fault:?}: {shown:?}");
            }
            Err(error) => assert_eq!(traces(&scene), before, "{nic:?}, step {step}, {fault:?}: {error}"),
        }
        scene.fake.clear_faults();
        settle_with_leftover_bridge(&mut scene, &mut reference);
        scene.stop();
        failed.load(Ordering::Relaxed) > step
    });
}

/// A claim that outlived it would keep everybody else from the port.
#[test]
#[cfg(debug_assertions)]
fn an_action_that_panics_leaves_nothing_claimed() {
    let mut scene = Scene::with_networks();
    let port = scene.attach(VM, on(AGENTS)).unwrap().port.id;
    let address = |last| PortChange {
        fixed_ips: Some(vec![WantedIp { subnet_id: None, ip_address: Some([10, 0, 0, last].into()) }]),
        ..PortChange::default()
    };
    scene.daemon().registry.set_rules(vec!["event.port.status:1:panic".parse().unwrap()]);
    let failed = scene.perform(Action::UpdatePort(port, address(5)));
    assert!(matches!(failed, Err(Error::Stopping)), "{failed:?}");
    let begun = Instant::now();
    scene.perform(Action::UpdatePort(port, address(6))).unwrap();
    scene.perform(detach(VM, port)).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10), "somebody had to be waited for");
    scene.stop();
}

#[test]
fn a_device_that_cannot_be_deleted_is_shown_and_keeps_its_address_until_it_is() {
    let mut scene = Scene::with_networks();
    let port = scene.attach(VM, on(AGENTS)).unwrap();
    scene.fake.set_faults(|_| Fault::Refuse(OpErrorKind::Other));
    scene.perform(detach(VM, port.port.id)).unwrap();
    let service = scene.service();
    let phase = || service.port(port.port.id).map(|view| view.phase);
    scene.daemon().settle(|| match phase() {
        Ok(Phase::Error) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let ip = port.port.fixed_ips[0].ip_address;
    assert_eq!(scene.attach(VM, at(AGENTS, ip)).unwrap_err().reason(), "address_in_use");
    scene.fake.clear_faults();
    scene.daemon().settle(|| phase().is_err().then_some(()).ok_or("the port is still there".to_owned()));
    assert_eq!(scene.attach(VM, on(AGENTS)).unwrap().port.fixed_ips[0].ip_address, ip);
    scene.stop();
}

#[test]
fn a_repair_that_fails_is_an_error_and_is_tried_again() {
    for fault in
        faults([OpErrorKind::Taken, OpErrorKind::Gone, OpErrorKind::BridgeFull, OpErrorKind::NoBridge, OpErrorKind::TimedOut])
    {
        let (mut scene, mut reference, action) = prepared(Nic::LaterTap);
        let port = port_of(scene.perform(action).unwrap());
        reference.adopt(&port);
        settle(&mut scene, &reference);
        fail_once(&scene.fake, 0, fault);
        scene.fake.meddle(&nicd::model::names::port_altname(port.port.id), |link| link.master = None);
        settle(&mut scene, &reference);
        scene.stop();
    }
}

#[test]
fn a_change_the_kernel_refuses_is_carried_out_later() {
    for nic in NICS {
        for fault in faults([OpErrorKind::TimedOut, OpErrorKind::Other]) {
            let (mut scene, mut reference, action) = prepared(nic);
            let port = port_of(scene.perform(action).unwrap());
            reference.adopt(&port);
            fail_once(&scene.fake, 0, fault);
            let down = PortChange { admin_up: Some(false), ..PortChange::default() };
            scene.perform(Action::UpdatePort(port.port.id, down)).unwrap();
            reference.ports.get_mut(&port.port.id).unwrap().admin_up = false;
            settle(&mut scene, &reference);
            scene.stop();
        }
    }
}

/// Runs `attempt` for each kind of NIC and fault, with the fault at each step until it says that there was no such step.
fn for_every_step(attempt: impl Fn(Nic, Fault, usize) -> bool) {
    for nic in NICS {
        for fault in faults(TROUBLES) {
            let steps = (0..).take_while(|step| attempt(nic, fault, *step)).count();
            // A veth on a bridge that is there takes the fewest: made, configured inside, tagged.
            assert!(steps >= 3, "{nic:?}: only {steps} steps");
        }
    }
}

fn faults(troubles: impl IntoIterator<Item = OpErrorKind>) -> Vec<Fault> {
    troubles.into_iter().flat_map(|trouble| [Fault::Refuse(trouble), Fault::ApplyAndRefuse(trouble)]).collect()
}

/// A scene in which everything but the attach itself is done.
fn prepared(nic: Nic) -> (Scene, Reference, Action) {
    let scene = Scene::with_networks();
    let mut reference = Reference::of(&scene);
    reference.networks = [Some([true, false]), Some([true, true])];
    let action = match nic {
        Nic::FirstTap => attach(VM, on(AGENTS)),
        Nic::LaterTap => {
            reference.adopt(&scene.attach(1, on(AGENTS)).unwrap());
            attach(VM, on(AGENTS))
        }
        Nic::Veth => attach(NETNS, on(OPERATORS)),
        Nic::ReadyPort => {
            let port = port_of(scene.perform(create_port(AGENTS)).unwrap());
            reference.adopt(&port);
            attach(VM, WantedNic::Port(port.port.id))
        }
    };
    (scene, reference, action)
}

/// Lets the `n`-th op from now fail; answers how many ops there have been.
fn fail_once(fake: &Fake, n: usize, fault: Fault) -> Arc<AtomicUsize> {
    fail_where(fake, fault, move |count| count == n)
}

/// Lets every op from the `n`-th from now on fail.
fn fail_from(fake: &Fake, n: usize, fault: Fault) -> Arc<AtomicUsize> {
    fail_where(fake, fault, move |count| count >= n)
}

fn fail_where(fake: &Fake, fault: Fault, fails: impl Fn(usize) -> bool + Send + 'static) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    fake.set_faults(move |_| if fails(counted.fetch_add(1, Ordering::Relaxed)) { fault } else { Fault::None });
    count
}

/// What a client is shown of a port that matters here.
type Shown = (PortId, Option<ServerId>, Phase);

/// Everything an attach could leave a trace in, but for numbers that only grow.
fn traces(scene: &Scene) -> (Vec<LinkState>, Vec<Shown>) {
    let view = |view: nicd::service::PortView| (view.port.id, view.port.attached_to(), view.phase);
    (scene.fake.links(), scene.service().ports(PortFilter::default()).into_iter().map(view).collect())
}

fn settle(scene: &mut Scene, reference: &Reference) {
    let (service, fake, dir) = (scene.service(), scene.fake.clone(), scene.dir.path().to_owned());
    let reference = reference.clone();
    scene.daemon().settle(|| reference.check(&service, &fake, &dir));
}

/// A bridge that could not be taken back is marked and has a record: it waits for the network's next port.
fn settle_with_leftover_bridge(scene: &mut Scene, reference: &mut Reference) {
    let (service, fake, dir) = (scene.service(), scene.fake.clone(), scene.dir.path().to_owned());
    let mut with_bridge = reference.clone();
    with_bridge.bridge = true;
    let without = reference.clone();
    scene.daemon().settle(|| without.check(&service, &fake, &dir).or_else(|_| with_bridge.check(&service, &fake, &dir)));
}

#[test]
fn without_a_module_an_attach_leaves_nothing_and_a_port_waits_for_it() {
    for (server, module) in [(VM, "bridge"), (VM, "tun"), (NETNS, "bridge"), (NETNS, "veth")] {
        let mut scene = Scene::with_networks();
        let before = traces(&scene);
        scene.fake.set_module(module, false);
        let error = scene.attach(server, on(AGENTS)).unwrap_err();
        assert_eq!((error.reason(), traces(&scene)), ("module_missing", before), "{module}: {error}");
        scene.fake.set_module(module, true);
        let port = scene.attach(server, on(AGENTS)).unwrap();
        // It goes while the module is away: the port is an error, and built when the module is there again.
        scene.fake.set_module(module, false);
        let device = scene.fake.device(port.port.id).unwrap();
        let bridge = scene.fake.links().into_iter().find(|link| Some(link.index) == device.master).unwrap();
        scene.fake.delete_link(&device.name);
        if module == "bridge" {
            scene.fake.delete_link(&bridge.name);
        }
        let service = scene.service();
        let phase = || service.port(port.port.id).map(|view| (view.phase, view.reason)).unwrap();
        scene.daemon().settle(|| match phase() {
            (Phase::Error, Some(reason)) if reason == "module_missing" => Ok(()),
            other => Err(format!("{module}: {other:?}")),
        });
        scene.fake.set_module(module, true);
        scene.daemon().settle(|| match phase() {
            (Phase::Wired | Phase::Active, _) => Ok(()),
            other => Err(format!("{module}: {other:?}")),
        });
        scene.stop();
    }
}

#[test]
fn without_nf_tables_a_port_with_port_security_is_refused_and_one_without_is_built() {
    let mut scene = Scene::with_networks();
    scene.fake.set_module("nf_tables", false);
    for server in [VM, NETNS] {
        let before = traces(&scene);
        let error = scene.attach(server, on(AGENTS)).unwrap_err();
        assert_eq!((error.reason(), traces(&scene)), ("filters_unavailable", before), "{error}");
        let Action::CreatePorts(mut ports) = create_port(AGENTS) else { unreachable!() };
        ports[0].port_security = Some(false);
        let port = port_of(scene.perform(Action::CreatePorts(ports)).unwrap()).port.id;
        scene.attach(server, WantedNic::Port(port)).unwrap();
        let change = PortChange { port_security: Some(true), ..PortChange::default() };
        let error = scene.perform(Action::UpdatePort(port, change)).unwrap_err();
        assert_eq!(error.reason(), "filters_unavailable");
        let service = scene.service();
        assert!(!service.port(port).unwrap().port.port_security);
        scene.daemon().settle(|| match service.port(port).map(|view| view.phase) {
            Ok(Phase::Wired | Phase::Active) => Ok(()),
            other => Err(format!("{other:?}")),
        });
        scene.perform(detach(server, port)).unwrap();
        scene.daemon().settle(|| match service.port(port).map(|view| view.phase) {
            Ok(Phase::Unbound) => Ok(()),
            other => Err(format!("{other:?}")),
        });
        scene.perform(Action::DeletePort(port)).unwrap();
    }
    scene.fake.set_module("nf_tables", true);
    scene.attach(VM, on(AGENTS)).unwrap();
    scene.stop();
}

#[test]
fn a_bridge_whose_dhcp_requests_cannot_be_heard_is_told_of_and_tried_again() {
    let mut scene = Scene::with_networks();
    scene.fake.set_module("af_packet", false);
    let port = scene.attach(VM, on(AGENTS)).unwrap().port.id;
    let service = scene.service();
    let is_told = || service.health().problems.iter().any(|problem| problem.reason == "responder_unbound");
    let is_said = || service.port(port).unwrap().reason.as_deref() == Some("responder_unbound");
    assert!(is_told() && is_said());
    scene.fake.set_module("af_packet", true);
    let is_right = || if is_told() || is_said() { Err("still unheard".to_owned()) } else { Ok(()) };
    scene.daemon().settle(is_right);
    scene.fake.break_sockets();
    scene.daemon().go_on(|| is_told() && is_said());
    scene.daemon().settle(is_right);
    scene.stop();
}

#[test]
fn a_change_of_a_limit_that_is_refused_leaves_record_and_device() {
    let limits = |rate_kbps| Limits { to_guest: Some(RateLimit { rate_kbps, burst_kb: None, exact: false }), from_guest: None };
    for kind in [
        OpErrorKind::LimitRefused,
        OpErrorKind::ModuleMissing,
        OpErrorKind::Permission,
        OpErrorKind::NoDescriptors,
        OpErrorKind::TimedOut,
        OpErrorKind::Gone,
    ] {
        let mut scene = Scene::with_networks();
        for server in [VM, NETNS] {
            let port = scene.attach(server, on(AGENTS)).unwrap().port.id;
            let change = |limits| Action::UpdatePort(port, PortChange { limits: Some(limits), ..PortChange::default() });
            scene.perform(change(limits(1000))).unwrap();
            let service = scene.service();
            scene.daemon().settle(|| match service.port(port).unwrap().phase {
                Phase::Building => Err("still building".to_owned()),
                _ => Ok(()),
            });
            let before = (service.port(port).unwrap(), scene.fake.device(port));
            let new = TokenBucket::from(limits(2000).to_guest.unwrap()).rate;
            let sets = move |change: &LinkChange| matches!(change, LinkChange::ToGuest(Some(bucket)) if bucket.rate == new);
            scene.fake.set_faults(move |op| match op {
                Op::Configure { changes, .. } if changes.iter().any(sets) => Fault::ApplyAndRefuse(kind),
                _ => Fault::None,
            });
            scene.perform(change(limits(2000))).unwrap_err();
            let after = (service.port(port).unwrap(), scene.fake.device(port));
            assert_eq!((&after.0.port, &after.1), (&before.0.port, &before.1), "{kind:?}");
            // The kernel had the new limit for a moment: the reconciler may have seen it, and the port is then building until it looks again.
            scene.daemon().settle(|| match service.port(port).unwrap() {
                now if now == before.0 => Ok(()),
                now => Err(format!("{kind:?}: {now:?}, and it was {:?}", before.0)),
            });
            scene.fake.clear_faults();
            scene.perform(change(limits(2000))).unwrap();
        }
        scene.stop();
    }
}
