//! Trunks: subports are bound, built, repaired and let go with their parent, also when the daemon dies at any point.

use std::collections::BTreeSet;

use nicd::failpoints::{FaultRule, Registry};
use nicd::kernel::OpErrorKind;
use nicd::kernel::fake::{Fake, Fault};
use nicd::model::action::{Action, WantedNic};
use nicd::model::trunk::{NewSubPort, NewTrunk, SubPortSegment, TrunkChange};
use nicd::model::{Phase, PortId, TrunkId, TrunkStatus, names};
use nicd::plan::{Kind, Op, VlanProtocol, VlanTag};
use nicd::service::{Error, PortFilter, PortTrunk, PortView, Service, TrunkView};
use uuid::Uuid;

use crate::pairs;
use crate::scene::{
    AGENTS, NETNS, OPERATORS, Scene, VM, attach, create_port, detach, let_go_of_leaving, port_of, put_server, server_id,
};

/// The trunk's id, and the VLANs of its subports.
const TRUNK: TrunkId = TrunkId(Uuid::from_u128(0xd000_0000_0000_4000_8000_0000_0000_0000));
const VLANS: [u16; 2] = [101, 4094];

/// A parent without a server, and two ports that are its subports, or are to be.
struct Parts {
    parent: PortId,
    subs: [PortId; 2],
}

fn sub(port_id: PortId, vlan: u16) -> NewSubPort {
    NewSubPort { port_id, segment: SubPortSegment::Vlan(vlan) }
}

fn make_trunk(parent: PortId, sub_ports: Vec<NewSubPort>) -> Action {
    let words = String::new;
    let id = Some(TRUNK);
    let new =
        NewTrunk { id, name: words(), description: words(), project_id: words(), port_id: parent, admin_up: true, sub_ports };
    Action::CreateTrunks(vec![new])
}

/// Networks, and three ports: the parent on the agent's network, a subport on each.
fn ports(scene: &Scene) -> Parts {
    let [parent, one, two] = [AGENTS, OPERATORS, AGENTS].map(|net| port_of(scene.perform(create_port(net)).unwrap()).port.id);
    Parts { parent, subs: [one, two] }
}

fn with_trunk() -> (Scene, Parts) {
    let scene = Scene::with_networks();
    let parts = ports(&scene);
    let subs = parts.subs.into_iter().zip(VLANS).map(|(port, vlan)| sub(port, vlan)).collect();
    scene.perform(make_trunk(parts.parent, subs)).unwrap();
    (scene, parts)
}

fn view(service: &Service, port: PortId) -> PortView {
    service.port(port).unwrap()
}

fn trunk(service: &Service) -> Option<TrunkView> {
    service.trunk(TRUNK).ok()
}

/// What is wrong with the trunk, its ports and their devices while nothing is under way.
fn wrong(service: &Service, fake: &Fake, parts: &Parts) -> Result<(), String> {
    let members: Vec<_> = trunk(service).map(|view| view.trunk.sub_ports).unwrap_or_default();
    let parent = view(service, parts.parent);
    let server = parent.binding.as_ref().map(|binding| binding.server);
    let below = fake.device(parts.parent);
    if matches!(parent.phase, Phase::Building | Phase::Detaching) || below.is_some() != server.is_some() {
        return Err(format!("the parent is {:?} with {below:?}", parent.phase));
    }
    let bridges: BTreeSet<u32> = fake.links().iter().filter(|link| link.kind == Kind::Bridge).map(|link| link.index).collect();
    for port in parts.subs {
        let sub = view(service, port);
        let member = members.iter().find(|member| member.port_id == port);
        let told = || format!("{member:?} is {:?} ({:?}) with {:?}", sub.phase, sub.reason, fake.device(port));
        let (bound, owner) = (sub.binding.as_ref().map(|binding| (binding.server, binding.carrier)), &sub.port.device_owner);
        match (member, server) {
            (Some(member), Some(server)) => {
                let carrier = nicd::model::Carrier { port: parts.parent, vlan: member.vlan };
                let tag = Some(VlanTag { id: member.vlan, protocol: VlanProtocol::Dot1q });
                let right = fake.device(port).is_some_and(|device| {
                    let place = (device.lower, device.tag) == (below.as_ref().map(|below| below.index), tag);
                    place && device.kind == Kind::Vlan && device.up && device.master.is_some_and(|at| bridges.contains(&at))
                });
                let phase = if parent.phase == Phase::Active { Phase::Active } else { Phase::Wired };
                if bound != Some((server, Some(carrier))) || !right || sub.phase != phase || owner != "trunk:subport" {
                    return Err(told());
                }
            }
            (Some(_), None) if bound.is_some() || sub.phase != Phase::Unbound || owner != "trunk:subport" => return Err(told()),
            (None, _) if bound.is_some() || sub.phase != Phase::Unbound || !owner.is_empty() => return Err(told()),
            _ if server.is_none() && fake.device(port).is_some() => return Err(told()),
            _ => {}
        }
    }
    let known: BTreeSet<String> = [parts.parent, parts.subs[0], parts.subs[1]].map(names::port_altname).into();
    let stray = fake.links().into_iter().find(|link| {
        matches!(link.kind, Kind::Tap | Kind::Veth | Kind::Vlan)
            && link.index >= names::FIRST_INDEX
            && !link.altnames.iter().any(|name| known.contains(name))
    });
    stray.map_or(Ok(()), |stray| Err(format!("{stray:?} is left")))
}

fn settle(scene: &mut Scene, parts: &Parts) {
    let (service, fake) = (scene.service(), scene.fake.clone());
    scene.daemon().settle(|| {
        let_go_of_leaving(&service, &fake);
        wrong(&service, &fake, parts)
    });
}

/// Waits for the trunk's status.
fn becomes(scene: &mut Scene, status: TrunkStatus) {
    let service = scene.service();
    scene.daemon().settle(|| match trunk(&service).map(|view| view.status) {
        Some(is) if is == status => Ok(()),
        is => Err(format!("{is:?} instead of {status:?}")),
    });
}

fn attach_parent(scene: &Scene, server: usize, parts: &Parts) {
    let view = scene.attach(server, WantedNic::Port(parts.parent)).unwrap();
    assert!(matches!(&view.trunk, Some(PortTrunk::Parent(id, subs)) if *id == TRUNK && subs.len() == 2), "{view:?}");
}

#[test]
fn subports_come_and_go_with_their_parent() {
    let (mut scene, parts) = with_trunk();
    becomes(&mut scene, TrunkStatus::Down);
    for server in [VM, NETNS, VM] {
        attach_parent(&scene, server, &parts);
        // What is answered is built.
        wrong(&scene.service(), &scene.fake, &parts).unwrap();
        if server == VM {
            becomes(&mut scene, TrunkStatus::Down);
            scene.fake.set_carrier(parts.parent, true);
        }
        becomes(&mut scene, TrunkStatus::Active);
        settle(&mut scene, &parts);
        // Of the server's NICs the parent is one, and its subports none.
        let nics = scene.service().ports(PortFilter { server: Some(server_id(server)), ..PortFilter::default() });
        assert_eq!(nics.iter().map(|view| view.port.id).collect::<Vec<_>>(), [parts.parent]);
        let of_trunk = PortFilter { server: Some(nicd::model::ServerId(TRUNK.0)), ..PortFilter::default() };
        assert_eq!(scene.service().ports(of_trunk).len(), 2);
        assert!(matches!(scene.perform(detach(server, parts.subs[0])), Err(Error::PortNotOnServer { .. })));
        scene.perform(detach(server, parts.parent)).unwrap();
        settle(&mut scene, &parts);
        becomes(&mut scene, TrunkStatus::Down);
    }
    scene.stop();
}

#[test]
fn a_restart_writes_nothing_and_a_reboot_builds_all_of_it() {
    let (mut scene, parts) = with_trunk();
    attach_parent(&scene, VM, &parts);
    scene.fake.set_carrier(parts.parent, true);
    becomes(&mut scene, TrunkStatus::Active);
    for end in [Scene::stop, Scene::kill] {
        let before = scene.fake.log().len();
        end(&mut scene);
        scene.open();
        // It is known at once, without an event.
        assert_eq!(trunk(&scene.service()).unwrap().status, TrunkStatus::Active);
        settle(&mut scene, &parts);
        assert_eq!(scene.fake.log()[before..], []);
    }
    scene.reboot();
    settle(&mut scene, &parts);
    becomes(&mut scene, TrunkStatus::Down);
    scene.fake.set_carrier(parts.parent, true);
    becomes(&mut scene, TrunkStatus::Active);
    scene.stop();
}

#[test]
fn what_another_program_does_to_their_devices_is_repaired() {
    let (mut scene, parts) = with_trunk();
    attach_parent(&scene, NETNS, &parts);
    settle(&mut scene, &parts);
    let [one, two] = parts.subs.map(names::port_altname);
    // The parent's device takes the others along.
    scene.fake.delete_link(&names::port_altname(parts.parent));
    settle(&mut scene, &parts);
    scene.fake.delete_link(&one);
    settle(&mut scene, &parts);
    scene.fake.meddle(&two, |link| link.master = None);
    settle(&mut scene, &parts);
    scene.fake.meddle(&one, |link| link.tag = Some(VlanTag { id: 7, protocol: VlanProtocol::Dot1q }));
    settle(&mut scene, &parts);
    scene.fake.meddle(&two, |link| link.up = false);
    settle(&mut scene, &parts);
    scene.stop();
}

#[test]
fn subports_are_added_to_and_taken_from_a_parent_that_is_attached() {
    let mut scene = Scene::with_networks();
    let parts = ports(&scene);
    scene.perform(attach(NETNS, WantedNic::Port(parts.parent))).unwrap();
    scene.perform(make_trunk(parts.parent, Vec::new())).unwrap();
    becomes(&mut scene, TrunkStatus::Active);
    for round in 0..3 {
        for (port, vlan) in parts.subs.into_iter().zip(VLANS) {
            scene.perform(Action::AddSubPorts(TRUNK, vec![sub(port, vlan + round % 2 - 1)])).unwrap();
            wrong(&scene.service(), &scene.fake, &parts).unwrap();
        }
        // What is added again at once waits until its device has gone.
        scene.perform(Action::RemoveSubPorts(TRUNK, parts.subs.to_vec())).unwrap();
    }
    settle(&mut scene, &parts);
    scene.perform(Action::AddSubPorts(TRUNK, vec![sub(parts.subs[0], 5), sub(parts.subs[1], 6)])).unwrap();
    let down = TrunkChange { admin_up: Some(false), ..TrunkChange::default() };
    scene.perform(Action::UpdateTrunk(TRUNK, down)).unwrap();
    assert!(parts.subs.iter().all(|port| !scene.fake.device(*port).unwrap().up));
    let refused = scene.perform(Action::DeleteTrunk(TRUNK)).unwrap_err();
    assert_eq!(refused.reason(), "trunk_disabled");
    scene.perform(Action::UpdateTrunk(TRUNK, TrunkChange { admin_up: Some(true), ..TrunkChange::default() })).unwrap();
    settle(&mut scene, &parts);
    scene.perform(Action::DeleteTrunk(TRUNK)).unwrap();
    settle(&mut scene, &parts);
    assert!(scene.fake.device(parts.parent).is_some());
    scene.stop();
}

#[test]
fn a_server_goes_with_what_its_nics_carry() {
    let (mut scene, parts) = with_trunk();
    attach_parent(&scene, NETNS, &parts);
    let gone = Action::DeleteServer(server_id(NETNS), nicd::model::action::WithNics::Detach);
    scene.perform(gone).unwrap();
    settle(&mut scene, &parts);
    scene.perform(put_server(NETNS)).unwrap();
    attach_parent(&scene, NETNS, &parts);
    settle(&mut scene, &parts);
    scene.stop();
}

#[test]
fn a_subport_that_cannot_be_built_is_its_own_trouble() {
    let (mut scene, parts) = with_trunk();
    let broken = parts.subs[0];
    scene.fake.set_faults(move |op| match op {
        Op::CreateVlanNic { port, .. } if *port == broken => Fault::Refuse(OpErrorKind::Other),
        _ => Fault::None,
    });
    attach_parent(&scene, NETNS, &parts);
    let service = scene.service();
    assert_eq!(parts.subs.map(|port| view(&service, port).phase), [Phase::Error, Phase::Active]);
    becomes(&mut scene, TrunkStatus::Degraded);
    scene.fake.clear_faults();
    settle(&mut scene, &parts);
    becomes(&mut scene, TrunkStatus::Active);
    scene.stop();
}

#[test]
fn a_parent_that_cannot_be_built_leaves_its_subports_unbound() {
    let (mut scene, parts) = with_trunk();
    scene.fake.set_faults(|op| match op {
        Op::CreateVeth { .. } => Fault::Refuse(OpErrorKind::Other),
        _ => Fault::None,
    });
    scene.perform(attach(NETNS, WantedNic::Port(parts.parent))).unwrap_err();
    wrong(&scene.service(), &scene.fake, &parts).unwrap();
    scene.fake.clear_faults();
    scene.stop();
    scene.open();
    settle(&mut scene, &parts);
    attach_parent(&scene, NETNS, &parts);
    settle(&mut scene, &parts);
    scene.stop();
}

/// What a fault comes in between.
#[derive(Debug, Clone, Copy)]
enum Work {
    Attach,
    Detach,
    Add,
    Remove,
    Create,
    Delete,
    ParentDeleted,
}

impl Work {
    /// The state before it.
    fn stage(self) -> (Scene, Parts) {
        let scene = Scene::with_networks();
        let parts = ports(&scene);
        let all = || parts.subs.into_iter().zip(VLANS).map(|(port, vlan)| sub(port, vlan)).collect::<Vec<_>>();
        match self {
            Self::Create => {}
            Self::Add => _ = scene.perform(make_trunk(parts.parent, all()[..1].to_vec())).unwrap(),
            _ => _ = scene.perform(make_trunk(parts.parent, all())).unwrap(),
        }
        if !matches!(self, Self::Attach) {
            scene.perform(attach(NETNS, WantedNic::Port(parts.parent))).unwrap();
        }
        (scene, parts)
    }

    fn begin(self, scene: &mut Scene, parts: &Parts) -> Option<Result<(), Error>> {
        let last = sub(parts.subs[1], VLANS[1]);
        let action = match self {
            Self::Attach => attach(NETNS, WantedNic::Port(parts.parent)),
            Self::Detach => detach(NETNS, parts.parent),
            Self::Add => Action::AddSubPorts(TRUNK, vec![last]),
            Self::Remove => Action::RemoveSubPorts(TRUNK, vec![parts.subs[1]]),
            Self::Create => make_trunk(parts.parent, vec![sub(parts.subs[0], VLANS[0]), last]),
            Self::Delete => Action::DeleteTrunk(TRUNK),
            Self::ParentDeleted => {
                scene.fake.delete_link(&names::port_altname(parts.parent));
                return None;
            }
        };
        scene.daemon().ask(action).map(|answer| answer.map(drop))
    }

    /// Whether it has been done, wholly.
    fn is_done(self, service: &Service, parts: &Parts) -> bool {
        let members = trunk(service).map_or(0, |view| view.trunk.sub_ports.len());
        match self {
            Self::Attach => view(service, parts.parent).binding.is_some(),
            Self::Detach => view(service, parts.parent).binding.is_none(),
            Self::Add | Self::Create => members == 2,
            Self::Remove => members == 1,
            Self::Delete => trunk(service).is_none(),
            Self::ParentDeleted => true,
        }
    }
}

#[test]
fn whatever_goes_wrong_at_any_point_leaves_a_trunk_whole() {
    let works = [Work::Attach, Work::Detach, Work::Add, Work::Remove, Work::Create, Work::Delete, Work::ParentDeleted];
    std::thread::scope(|scope| {
        for work in works {
            scope.spawn(move || goes_wrong_everywhere(work));
        }
    });
}

fn goes_wrong_everywhere(work: Work) {
    let (mut scene, parts) = work.stage();
    settle(&mut scene, &parts);
    scene.stop();
    let again = |registry: &Registry| {
        let mut again = Scene::left(scene.dir.path(), scene.fake.twin(), scene.strangers.clone());
        again.start(registry.clone()).unwrap();
        again.daemon().drain();
        again
    };
    let registry = Registry::new();
    let mut first = again(&registry);
    registry.record();
    let answer = work.begin(&mut first, &parts);
    assert!(matches!(answer, Some(Ok(())) | None), "{work:?}: {answer:?}");
    settle(&mut first, &parts);
    assert!(work.is_done(&first.service(), &parts), "{work:?}");
    let hits = registry.recorded();
    first.stop();
    let rules: Vec<FaultRule> = pairs::pairs(&hits, |name| pairs::errnos(name)[..1].to_vec());
    assert!(rules.len() > 20, "{work:?}: {}", rules.len());
    for rule in rules {
        let registry = Registry::new();
        let mut scene = again(&registry);
        registry.set_rules(vec![rule.clone()]);
        let answer = work.begin(&mut scene, &parts);
        let (service, fake) = (scene.service(), scene.fake.clone());
        let done = || wrong(&service, &fake, &parts).is_ok();
        scene.daemon().go_on(done);
        if registry.is_dead() {
            scene.kill();
            scene.open();
        }
        settle(&mut scene, &parts);
        let is_done = work.is_done(&scene.service(), &parts);
        match &answer {
            Some(Ok(())) => assert!(is_done, "{work:?} {rule}: answered with success, and not there"),
            Some(Err(error)) => assert!(!is_done, "{work:?} {rule}: answered with {error}, and there"),
            None => {}
        }
        scene.stop();
    }
}
