//! The crash matrix: every failpoint that an operation hits, with every fault that can be injected there.
//!
//! An operation runs once to list the failpoints it hits, and then once for each pair of a hit and a fault, on a copy of the
//! same state and the same host. What was answered with success must be whole, what was answered with an error absent, and
//! what was never answered one of the two; and a restart behind it must find nothing to do.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use nicd::failpoints::{FaultRule, Hit, Registry};
use nicd::kernel::fake::Fake;
use nicd::model::action::{Action, AfterDetach, NetworkChange, PortChange, WantedIp, WantedNic, WithNics};
use nicd::model::{Phase, PortId, names};
use nicd::plan::LinkState;
use nicd::service::{Error, PortFilter, Reply, Service};

use crate::check::Reference;
use crate::pairs;
use crate::scene::{
    AGENTS, NETNS, NETNS_PATH, OPERATORS, Scene, VM, address, attach, create_network, create_port, create_subnet, detach,
    let_go_of_leaving, network_id, on, port_of, put_server, server_id,
};

/// The operation during which a fault is injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    AttachFirstTap,
    AttachLaterTap,
    AttachVeth,
    AttachReadyPort,
    DetachTap,
    DetachVeth,
    DetachReadyPort,
    DetachKeeping,
    UnbindWithAddress,
    DeletePort,
    AdminDown,
    AdminUp,
    OtherAddress,
    OtherMtu,
    CreateNetwork,
    CreateSubnet,
    CreatePort,
    DeleteNetwork,
    NewServer,
    DeleteServer,
    OutOfItsBridge,
    DeviceDeleted,
    BridgeDeleted,
    NamespaceComes,
    Restart,
    Rebuild,
}

const WORKS: [Work; 26] = {
    use Work::*;
    [
        AttachFirstTap,
        AttachLaterTap,
        AttachVeth,
        AttachReadyPort,
        DetachTap,
        DetachVeth,
        DetachReadyPort,
        DetachKeeping,
        UnbindWithAddress,
        DeletePort,
        AdminDown,
        AdminUp,
        OtherAddress,
        OtherMtu,
        CreateNetwork,
        CreateSubnet,
        CreatePort,
        DeleteNetwork,
        NewServer,
        DeleteServer,
        OutOfItsBridge,
        DeviceDeleted,
        BridgeDeleted,
        NamespaceComes,
        Restart,
        Rebuild,
    ]
};

/// Another MTU than the network's.
const OTHER_MTU: u32 = 1400;

/// What is begun.
#[derive(Debug, Clone)]
enum Begin {
    /// A client's action.
    Action(Box<Action>),
    /// Something that happens to the host while the daemon runs.
    Meddle(fn(&Fake, PortId)),
    /// A start of the daemon.
    Start,
}

/// Everything up to the work itself, left by a daemon that was stopped: it is begun anew for each pair.
struct Stage {
    work: Work,
    scene: Scene,
    before: Reference,
    /// The port the work is about.
    port: PortId,
    begin: Begin,
}

/// What became of one pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// Answered with success, and whole.
    Whole,
    /// Answered with an error, and absent.
    Absent,
    /// Never answered, and whole.
    SilentWhole,
    /// Never answered, and absent.
    SilentAbsent,
}

#[test]
fn whatever_goes_wrong_at_any_point_is_whole_or_absent() {
    let start = Instant::now();
    let stages: Vec<(Stage, Vec<Hit>)> = in_parallel(&WORKS, |work| {
        let stage = Stage::prepare(*work);
        let hits = stage.hits();
        (stage, hits)
    });
    // `NICD_MATRIX="AttachVeth op.configure:1"` does those alone whose words contain this.
    let only = std::env::var("NICD_MATRIX").ok();
    let mut todo = Vec::new();
    for (stage, hits) in &stages {
        let rules = pairs::pairs(hits, |name| pairs::errnos(name).to_vec());
        let wanted = |rule: &FaultRule| only.as_ref().is_none_or(|only| format!("{:?} {rule}", stage.work).contains(only));
        todo.extend(rules.into_iter().filter(wanted).map(|rule| (stage, rule)));
    }
    let ends = in_parallel(&todo, |(stage, rule)| {
        let end = stage.inject(rule);
        if let Err(why) = &end {
            eprintln!("{:?} {rule}: {why}", stage.work);
        }
        end
    });
    let mut wrong = Vec::new();
    let mut counts: BTreeMap<(Work, End), usize> = BTreeMap::new();
    for ((stage, rule), end) in todo.iter().zip(ends) {
        match end {
            Ok(end) => *counts.entry((stage.work, end)).or_default() += 1,
            Err(why) => wrong.push(format!("{:?} {rule}: {why}", stage.work)),
        }
    }
    let mut told = String::new();
    for (stage, hits) in &stages {
        let of = |end| counts.get(&(stage.work, end)).copied().unwrap_or_default();
        let ends = [End::Whole, End::Absent, End::SilentWhole, End::SilentAbsent].map(of);
        told += &format!("  {:<16} {:>3} hits {ends:>5?}\n", format!("{:?}", stage.work), hits.len());
    }
    let pairs = todo.len();
    let _ = write!(
        std::io::stderr(),
        "matrix, host in memory: {pairs} pairs of a hit and a fault, {} wrong, {:.1} s\n  [success and whole, error and absent, silent and whole, silent and absent]\n{told}",
        wrong.len(),
        start.elapsed().as_secs_f64(),
    );
    assert!(wrong.is_empty(), "{} of {pairs} pairs:\n{}", wrong.len(), wrong.join("\n"));
}

/// Does something to each of many on a few threads; more than processors, as most of the time is waiting.
fn in_parallel<T: Sync, R: Send>(all: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                while let Some((n, one)) = Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|n| Some((n, all.get(n)?))) {
                    let result = work(one);
                    done.lock().unwrap().push((n, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|(n, _)| *n);
    done.into_iter().map(|(_, result)| result).collect()
}

impl Stage {
    fn prepare(work: Work) -> Self {
        let mut scene = Scene::with_networks();
        let mut before = Reference::of(&scene);
        before.networks = [Some([true, false]), Some([true, true])];
        let (begin, port) = set_up(work, &scene);
        scene.service().ports(PortFilter::default()).iter().for_each(|view| before.adopt(view));
        scene
            .service()
            .networks()
            .iter()
            .find(|view| view.network.id == network_id(AGENTS))
            .inspect(|view| before.mtu = view.network.mtu);
        for (n, has) in before.networks.iter_mut().enumerate() {
            let known = scene.service().networks().into_iter().find(|view| view.network.id == network_id(n));
            match known {
                None => *has = None,
                Some(view) if n == OPERATORS && view.subnets.len() < 2 => *has = Some([true, false]),
                Some(_) => {}
            }
        }
        for port in before.ports.values_mut().filter(|port| port.server == Some(VM)) {
            port.open = true;
        }
        before.ports.iter().filter(|(_, port)| port.open).for_each(|(id, _)| scene.fake.set_carrier(*id, true));
        before.bridge |= work == Work::DeleteNetwork;
        if work == Work::NamespaceComes {
            scene.fake.remove_netns(Path::new(NETNS_PATH));
            before.netns_gone = true;
        }
        let (service, fake, dir) = (scene.service(), scene.fake.clone(), scene.dir.path().to_owned());
        let settled = before.clone();
        scene.daemon().try_settle(|| settled.check(&service, &fake, &dir)).unwrap_or_else(|wrong| panic!("{work:?}: {wrong}"));
        drop(service);
        scene.stop();
        if work == Work::Rebuild {
            scene.fake = rebooted(&scene.strangers);
            scene.strangers = scene.fake.links();
            before.strangers.clone_from(&scene.strangers);
            before.bridge = true;
        }
        if matches!(work, Work::Rebuild) {
            before.ports.values_mut().for_each(|port| port.open = false);
        }
        Self { work, scene, before, port, begin }
    }

    /// The same once more, with nobody in it.
    fn again(&self) -> Scene {
        Scene::left(self.scene.dir.path(), self.scene.fake.twin(), self.scene.strangers.clone())
    }

    /// The failpoints that the operation hits when no fault is injected.
    fn hits(&self) -> Vec<Hit> {
        let mut scene = self.again();
        let registry = Registry::new();
        if matches!(self.begin, Begin::Start) {
            registry.record();
        }
        scene.start(registry.clone()).unwrap();
        if !matches!(self.begin, Begin::Start) {
            scene.daemon().drain();
            registry.record();
        }
        let answer = self.carry_out(&mut scene);
        assert!(matches!(answer, Some(Ok(_)) | None), "{:?}: {answer:?}", self.work);
        self.settle(&mut scene, &[Side::Whole]).unwrap_or_else(|wrong| panic!("{:?}: {wrong}", self.work));
        let hits = registry.recorded();
        scene.stop();
        hits
    }

    /// Runs the operation with one injected fault.
    fn inject(&self, rule: &FaultRule) -> Result<End, String> {
        let mut scene = self.again();
        let registry = Registry::new();
        let start = matches!(self.begin, Begin::Start);
        if start {
            registry.set_rules(vec![rule.clone()]);
        }
        let answer = match scene.start(registry.clone()) {
            Ok(()) => {
                if !start {
                    registry.set_rules(vec![rule.clone()]);
                }
                self.carry_out(&mut scene)
            }
            // It ends with an exit code, and is started again.
            Err(_) if start && !registry.injected().is_empty() => {
                scene.start(Registry::new())?;
                None
            }
            Err(wrong) => return Err(wrong),
        };
        let sides: &[Side] = match &answer {
            Some(Ok(_)) => &[Side::Whole],
            Some(Err(_)) => &[Side::Absent],
            // What happened to the host is repaired, whatever happens to the daemon.
            None if matches!(self.begin, Begin::Start | Begin::Meddle(_)) => &[Side::Whole],
            None => &[Side::Whole, Side::Absent],
        };
        if registry.is_dead() {
            scene.kill();
            scene.open();
        }
        let told = |wrong: String| match &answer {
            None => format!("never answered; {wrong}"),
            Some(Ok(_)) => format!("answered with success; {wrong}"),
            Some(Err(error)) => format!("answered with {error}; {wrong}"),
        };
        let side = self.settle(&mut scene, sides).map_err(&told)?;
        let written = scene.fake.log().len();
        scene.kill();
        scene.open();
        self.settle(&mut scene, &[side]).map_err(|wrong| told(format!("after one more restart: {wrong}")))?;
        if scene.fake.log().len() > written {
            return Err(told(format!("one more restart wrote {:?}", &scene.fake.log()[written..])));
        }
        scene.stop();
        Ok(match (answer.is_some(), side) {
            (true, Side::Whole) => End::Whole,
            (true, Side::Absent) => End::Absent,
            (false, Side::Whole) => End::SilentWhole,
            (false, Side::Absent) => End::SilentAbsent,
        })
    }

    fn carry_out(&self, scene: &mut Scene) -> Option<Result<Reply, Error>> {
        let fake = scene.fake.clone();
        match &self.begin {
            Begin::Action(action) => {
                let answer = scene.daemon().ask((**action).clone());
                // What goes on behind the answer is part of the work.
                let service = scene.service();
                scene.daemon().go_on(|| {
                    let_go_of_leaving(&service, &fake);
                    at_rest(&service)
                });
                answer
            }
            Begin::Meddle(meddle) => {
                meddle(&fake, self.port);
                let (service, whole) = (scene.service(), self.side(Side::Whole, &scene.service(), &fake).ok()?);
                scene.daemon().go_on(|| whole.check_host(&service, &fake).is_ok() && at_rest(&service));
                None
            }
            Begin::Start => {
                let service = scene.service();
                let whole = self.side(Side::Whole, &service, &fake).ok()?;
                scene.daemon().go_on(|| whole.check_host(&service, &fake).is_ok() && at_rest(&service));
                None
            }
        }
    }

    /// Waits until everything is as one of `sides` says, and answers which.
    fn settle(&self, scene: &mut Scene, sides: &[Side]) -> Result<Side, String> {
        let (service, fake, dir) = (scene.service(), scene.fake.clone(), scene.dir.path().to_owned());
        let found = std::cell::Cell::new(Side::Whole);
        scene.daemon().try_settle(|| {
            let_go_of_leaving(&service, &fake);
            let mut wrong = Vec::new();
            for side in sides {
                let checked = self.side(*side, &service, &fake).and_then(|reference| reference.check(&service, &fake, &dir));
                match checked {
                    Ok(()) => {
                        found.set(*side);
                        return Ok(());
                    }
                    Err(why) => wrong.push(format!("not {side:?}: {why}")),
                }
            }
            Err(wrong.join("; "))
        })?;
        Ok(found.get())
    }

    /// What there is to be when the work is done wholly, or not at all.
    fn side(&self, side: Side, service: &Service, fake: &Fake) -> Result<Reference, String> {
        let mut after = self.before.clone();
        let mark = names::network_altname(network_id(AGENTS));
        let bridge_is_there = fake.links().iter().any(|link| link.altnames.contains(&mark));
        // Learnt at the next start.
        after.name_may_be_unknown = true;
        after.store_may_be_ill = true;
        if side == Side::Absent {
            // A network without ports has its bridge or not: the next port brings it.
            after.bridge &= self.work != Work::DeleteNetwork || bridge_is_there;
            return Ok(after);
        }
        match self.work {
            Work::AttachFirstTap | Work::AttachLaterTap | Work::AttachVeth | Work::CreatePort => adopt_new(&mut after, service)?,
            Work::AttachReadyPort => after.adopt(&service.port(self.port).map_err(|error| error.to_string())?),
            Work::DetachTap | Work::DetachVeth | Work::DetachReadyPort => after.unbind(self.port),
            Work::DetachKeeping => after.keep(self.port),
            Work::UnbindWithAddress => {
                after.keep(self.port);
                if let Some(port) = after.ports.get_mut(&self.port) {
                    port.ips = vec![address(AGENTS, false, 5)];
                }
            }
            Work::DeletePort => _ = after.ports.remove(&self.port),
            Work::AdminDown | Work::AdminUp => {
                if let Some(port) = after.ports.get_mut(&self.port) {
                    port.admin_up = self.work == Work::AdminUp;
                }
            }
            Work::OtherAddress => {
                if let Some(port) = after.ports.get_mut(&self.port) {
                    port.ips = vec![address(OPERATORS, false, 5)];
                }
            }
            Work::OtherMtu => after.mtu = OTHER_MTU,
            Work::CreateNetwork => after.networks[AGENTS] = Some([false, false]),
            Work::CreateSubnet => after.networks[OPERATORS] = Some([true, true]),
            Work::DeleteNetwork => (after.networks[AGENTS], after.bridge) = (None, false),
            Work::NewServer => _ = after.servers.insert(3),
            Work::DeleteServer => {
                after.servers.remove(&VM);
                after.ports.retain(|_, port| port.server != Some(VM));
            }
            Work::NamespaceComes => after.netns_gone = false,
            Work::DeviceDeleted => {
                if let Some(port) = after.ports.get_mut(&self.port) {
                    port.open = false;
                }
            }
            Work::OutOfItsBridge | Work::BridgeDeleted | Work::Restart | Work::Rebuild => {}
        }
        after.note_bridge();
        Ok(after)
    }
}

/// How far a work came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Whole,
    Absent,
}

/// Takes in the one port that was not there before.
fn adopt_new(after: &mut Reference, service: &Service) -> Result<(), String> {
    let fresh: Vec<_> =
        service.ports(PortFilter::default()).into_iter().filter(|view| !after.ports.contains_key(&view.port.id)).collect();
    match &fresh[..] {
        [view] => {
            after.adopt(view);
            Ok(())
        }
        views => Err(format!("{} new ports instead of one", views.len())),
    }
}

/// Does what there is to be before the work; what the work is then, and the port it is about.
fn set_up(work: Work, scene: &Scene) -> (Begin, PortId) {
    let ready = || port_of(scene.perform(create_port(AGENTS)).unwrap()).port.id;
    let tap = || scene.attach(VM, on(AGENTS)).unwrap().port.id;
    let veth = || scene.attach(NETNS, on(OPERATORS)).unwrap().port.id;
    let none = PortId(uuid::Uuid::nil());
    let action = |action| Begin::Action(Box::new(action));
    let change = |id, change| action(Action::UpdatePort(id, change));
    match work {
        Work::AttachFirstTap => (action(attach(VM, on(AGENTS))), none),
        Work::AttachLaterTap => {
            scene.attach(1, on(AGENTS)).unwrap();
            (action(attach(VM, on(AGENTS))), none)
        }
        Work::AttachVeth => (action(attach(NETNS, on(OPERATORS))), none),
        Work::AttachReadyPort => {
            let port = ready();
            (action(attach(VM, WantedNic::Port(port))), port)
        }
        Work::DetachTap => with(tap(), |port| action(detach(VM, port))),
        Work::DetachVeth => with(veth(), |port| action(detach(NETNS, port))),
        Work::DetachReadyPort => {
            let port = ready();
            scene.attach(VM, WantedNic::Port(port)).unwrap();
            (action(detach(VM, port)), port)
        }
        Work::DetachKeeping => with(tap(), |port| action(Action::Detach(server_id(VM), port, AfterDetach::Keep))),
        Work::UnbindWithAddress => with(tap(), |port| {
            let wanted = WantedIp { subnet_id: None, ip_address: Some(address(AGENTS, false, 5)) };
            change(port, PortChange { detach: true, fixed_ips: Some(vec![wanted]), ..PortChange::default() })
        }),
        Work::DeletePort => with(tap(), |port| action(Action::DeletePort(port))),
        Work::AdminDown => with(tap(), |port| change(port, PortChange { admin_up: Some(false), ..PortChange::default() })),
        Work::AdminUp => {
            let port = veth();
            let down = PortChange { admin_up: Some(false), ..PortChange::default() };
            scene.perform(Action::UpdatePort(port, down)).unwrap();
            (change(port, PortChange { admin_up: Some(true), ..PortChange::default() }), port)
        }
        Work::OtherAddress => with(veth(), |port| {
            let wanted = WantedIp { subnet_id: None, ip_address: Some(address(OPERATORS, false, 5)) };
            change(port, PortChange { fixed_ips: Some(vec![wanted]), ..PortChange::default() })
        }),
        Work::OtherMtu => {
            let port = tap();
            scene.attach(NETNS, on(AGENTS)).unwrap();
            let other = NetworkChange { mtu: Some(OTHER_MTU), ..NetworkChange::default() };
            (action(Action::UpdateNetwork(network_id(AGENTS), other)), port)
        }
        Work::CreateNetwork => {
            scene.perform(Action::DeleteNetwork(network_id(AGENTS))).unwrap();
            (action(create_network(AGENTS)), none)
        }
        Work::CreateSubnet => {
            scene.perform(Action::DeleteSubnet(crate::scene::subnet_id(OPERATORS, true))).unwrap();
            (action(create_subnet(OPERATORS, true)), none)
        }
        Work::CreatePort => (action(create_port(OPERATORS)), none),
        Work::DeleteNetwork => {
            let port = tap();
            scene.perform(Action::DeleteServer(server_id(VM), WithNics::Detach)).unwrap();
            scene.perform(put_server(VM)).unwrap();
            (action(Action::DeleteNetwork(network_id(AGENTS))), port)
        }
        Work::NewServer => (action(put_server(3)), none),
        Work::DeleteServer => with(tap(), |_| action(Action::DeleteServer(server_id(VM), WithNics::Detach))),
        Work::OutOfItsBridge => {
            with(tap(), |_| Begin::Meddle(|fake, port| fake.meddle(&names::port_altname(port), |link| link.master = None)))
        }
        Work::DeviceDeleted => with(tap(), |_| Begin::Meddle(|fake, port| fake.delete_link(&names::port_altname(port)))),
        Work::BridgeDeleted => {
            with(tap(), |_| Begin::Meddle(|fake, _| fake.delete_link(&names::network_altname(network_id(AGENTS)))))
        }
        Work::NamespaceComes => with(veth(), |_| Begin::Meddle(|fake, _| fake.add_netns(Path::new(NETNS_PATH)))),
        Work::Restart | Work::Rebuild => {
            veth();
            scene.attach(1, on(AGENTS)).unwrap();
            (Begin::Start, tap())
        }
    }
}

fn with(port: PortId, begin: impl FnOnce(PortId) -> Begin) -> (Begin, PortId) {
    (begin(port), port)
}

/// Another host in the place of the one that had these links.
fn rebooted(strangers: &[LinkState]) -> Fake {
    let fresh = Fake::new();
    strangers.iter().for_each(|link| _ = fresh.add_link(&link.name, link.kind.clone(), link.mtu));
    fresh.add_netns(Path::new(NETNS_PATH));
    fresh
}

/// Whether no port and no server is on its way.
fn at_rest(service: &Service) -> bool {
    use Phase::{Active, Unbound, Wired};
    let ports = service.ports(PortFilter::default()).iter().all(|view| matches!(view.phase, Active | Wired | Unbound));
    ports && !service.servers().iter().any(|view| view.server.leaving)
}
