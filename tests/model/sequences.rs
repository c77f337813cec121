//! Any sequence of operations, compared with the reference after every one of them.

use std::collections::BTreeSet;
use std::path::Path;

use nicd::failpoints::FaultRule;
use nicd::model::action::{Action, PortChange, WantedNic};
use nicd::model::{Mac, PortId, names};
use nicd::service::{Error, PortFilter, Reply};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::check::{RefPort, Reference, same};
use crate::scene::{
    AGENTS, NETNS, NETNS_PATH, Scene, address, at, attach, create_group, create_network, create_port, create_rule, create_subnet,
    detach, group_id, let_go_of_leaving, network_id, on, port_of, put_server,
};

/// NICs a server may have in these tests.
const NIC_LIMIT: usize = 4;

/// Repairs of one device in a row that are not yet slowed down.
const PATIENCE: usize = 3;

/// One operation. What it is about is picked among what there is.
#[derive(Debug, Clone)]
pub enum Step {
    CreateNetwork(usize),
    CreateSubnet(usize, bool),
    DeleteNetwork(usize),
    CreatePort(usize),
    Attach(usize, usize),
    AttachIp(usize, usize, u8),
    AttachPort(usize, usize),
    AttachNothing(usize),
    Detach(usize),
    Unbind(usize),
    DetachOfAnother(usize),
    Delete(usize),
    Admin(usize, bool),
    CreateGroup(usize),
    CreateRule(usize),
    DeleteGroup(usize),
    SetGroups(usize, [bool; 2]),
    Open(usize, bool),
    Meddle(usize, Meddling),
    MeddleBridge(Meddling),
    PutServer(usize),
    RemoveNetns,
    AddNetns,
    Stop,
    Kill,
    DetachAndKill(usize),
}

/// What somebody does to a link of nicd's.
#[derive(Debug, Clone, Copy)]
pub enum Meddling {
    OutOfBridge,
    Down,
    Mtu,
    Mac,
    V6,
    Untagged,
    Unmarked,
    Delete,
}

/// Any operation.
pub fn step() -> impl Strategy<Value = Step> {
    let pick = 0..8usize;
    let meddling = || {
        prop_oneof![
            Just(Meddling::OutOfBridge),
            Just(Meddling::Down),
            Just(Meddling::Mtu),
            Just(Meddling::Mac),
            Just(Meddling::V6),
            Just(Meddling::Untagged),
            Just(Meddling::Unmarked),
            Just(Meddling::Delete),
        ]
    };
    prop_oneof![
        3 => (0..2usize).prop_map(Step::CreateNetwork),
        4 => (0..2usize, any::<bool>()).prop_map(|(n, v6)| Step::CreateSubnet(n, v6)),
        1 => (0..2usize).prop_map(Step::DeleteNetwork),
        3 => (0..2usize).prop_map(Step::CreatePort),
        6 => (0..3usize, 0..2usize).prop_map(|(s, n)| Step::Attach(s, n)),
        2 => (0..3usize, 0..2usize, 0..10u8).prop_map(|(s, n, host)| Step::AttachIp(s, n, host)),
        5 => (0..3usize, pick.clone()).prop_map(|(s, p)| Step::AttachPort(s, p)),
        2 => (0..3usize).prop_map(Step::AttachNothing),
        3 => pick.clone().prop_map(Step::Detach),
        2 => pick.clone().prop_map(Step::Unbind),
        1 => pick.clone().prop_map(Step::DetachOfAnother),
        2 => pick.clone().prop_map(Step::Delete),
        2 => (pick.clone(), any::<bool>()).prop_map(|(p, up)| Step::Admin(p, up)),
        2 => (0..2usize).prop_map(Step::CreateGroup),
        2 => (0..2usize).prop_map(Step::CreateRule),
        1 => (0..2usize).prop_map(Step::DeleteGroup),
        3 => (pick.clone(), any::<[bool; 2]>()).prop_map(|(p, groups)| Step::SetGroups(p, groups)),
        3 => (pick.clone(), any::<bool>()).prop_map(|(p, open)| Step::Open(p, open)),
        4 => (pick.clone(), meddling()).prop_map(|(p, what)| Step::Meddle(p, what)),
        1 => meddling().prop_map(Step::MeddleBridge),
        1 => (0..3usize).prop_map(Step::PutServer),
        1 => Just(Step::RemoveNetns),
        2 => Just(Step::AddNetns),
        1 => Just(Step::Stop),
        1 => Just(Step::Kill),
        1 => pick.prop_map(Step::DetachAndKill),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]
    #[test]
    fn whatever_is_done_manager_store_and_host_agree(steps in vec(step(), 1..40)) {
        let mut run = Run::new();
        for (n, step) in steps.into_iter().enumerate() {
            _ = run.take(n, step);
        }
        run.scene.stop();
    }
}

/// 64, or `PROPTEST_CASES`.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(64)
}

/// One sequence on its way.
pub struct Run {
    /// The host and the daemon.
    pub scene: Scene,
    reference: Reference,
    /// What there may be as well: the last action was never answered.
    or: Option<Reference>,
    /// One of these is to go wrong in the next step; taken when it begins.
    pub rules: Vec<FaultRule>,
    /// The steps so far.
    told: Vec<String>,
    /// Repairs each port has had since the daemon started.
    repairs: std::collections::BTreeMap<PortId, usize>,
}

impl Run {
    /// On a fresh scene.
    pub fn new() -> Self {
        let scene = Scene::new();
        let reference = Reference::of(&scene);
        Self { scene, reference, or: None, rules: Vec::new(), told: Vec::new(), repairs: Default::default() }
    }

    /// Does one step and waits until everything shows it; whether something went wrong in it.
    pub fn take(&mut self, n: usize, step: Step) -> bool {
        let rules = std::mem::take(&mut self.rules);
        self.told.push(format!("{n}: {step:?}"));
        let registry = self.scene.daemon().registry.clone();
        // Where anything may go wrong, a guest's name for its NIC may be learnt later.
        self.reference.name_may_be_unknown |= !rules.is_empty();
        self.reference.store_may_be_ill |= !rules.is_empty();
        registry.set_rules_for_one_fault(rules);
        let done = self.carry_out(step).and_then(|()| {
            self.reference.note_bridge();
            self.settle()
        });
        let injected = registry.injected();
        if let (Some(told), Some(what)) = (self.told.last_mut(), injected.first()) {
            told.push_str(&format!(" with {what}"));
        }
        if let Err(wrong) = done {
            let last = &self.told[self.told.len().saturating_sub(12)..];
            panic!("{wrong}\nthe last steps:\n  {}", last.join("\n  "));
        }
        self.scene.daemon().registry.set_rules(Vec::new());
        !injected.is_empty()
    }

    /// Waits until everything is as it should be. A daemon that dies meanwhile is started again.
    fn settle(&mut self) -> Result<(), String> {
        let dir = self.scene.dir.path().to_owned();
        loop {
            let (service, fake) = (self.scene.service(), self.scene.fake.clone());
            let registry = self.scene.daemon().registry.clone();
            let (reference, or) = (self.reference.clone(), self.or.clone());
            let other = std::cell::Cell::new(false);
            let settled = self.scene.daemon().try_settle(|| {
                if registry.is_dead() {
                    return Ok(());
                }
                let_go_of_leaving(&service, &fake);
                let wrong = match reference.check(&service, &fake, &dir) {
                    Ok(()) => return Ok(()),
                    Err(wrong) => wrong,
                };
                let or = or.as_ref().ok_or_else(|| wrong.clone())?;
                or.check(&service, &fake, &dir).map_err(|also| format!("{wrong}; or {also}"))?;
                other.set(true);
                Ok(())
            });
            if !self.scene.daemon().registry.is_dead() {
                settled?;
                if other.get() {
                    self.reference = self.or.take().unwrap_or_else(|| reference.clone());
                }
                self.or = None;
                return Ok(());
            }
            self.restart_dead();
        }
    }

    /// Starts a daemon that has died again. It may have made the network's bridge for a port that still waits for its
    /// guest's namespace: the port is listed, and the bridge stays with its network.
    fn restart_dead(&mut self) {
        self.scene.kill();
        self.repairs.clear();
        let mark = names::network_altname(network_id(AGENTS));
        let there = self.scene.fake.links().iter().any(|link| link.altnames.contains(&mark));
        let both = std::iter::once(&mut self.reference).chain(&mut self.or);
        both.filter(|reference| reference.networks[AGENTS].is_some()).for_each(|reference| reference.bridge |= there);
        self.scene.open();
    }

    fn carry_out(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::CreateNetwork(n) => self.create_network(n),
            Step::CreateSubnet(n, v6) => self.create_subnet(n, v6),
            Step::DeleteNetwork(n) => self.delete_network(n),
            Step::CreatePort(n) => {
                let wanted = self.reference.next_ips(n);
                self.made(create_port(n), wanted)
            }
            Step::Attach(server, n) => {
                let wanted = self.new_nic(server, n);
                self.made(attach(server, on(n)), wanted)
            }
            Step::AttachIp(server, n, host) => self.attach_ip(server, n, host),
            Step::AttachPort(server, pick) => self.attach_port(server, pick),
            Step::AttachNothing(server) => self.attach_nothing(server),
            Step::Detach(pick) => self.let_go(pick, detach, Reference::unbind),
            Step::Unbind(pick) => self.unbind(pick),
            Step::DetachOfAnother(pick) => self.detach_of_another(pick),
            Step::Delete(pick) => self.delete(pick),
            Step::Admin(pick, up) => self.admin(pick, up),
            Step::CreateGroup(n) => self.create_group(n),
            Step::CreateRule(n) => self.create_rule(n),
            Step::DeleteGroup(n) => self.delete_group(n),
            Step::SetGroups(pick, groups) => self.set_groups(pick, groups),
            Step::Open(pick, open) => self.open(pick, open),
            Step::Meddle(pick, what) => self.meddle(pick, what),
            Step::MeddleBridge(what) => self.meddle_bridge(what),
            Step::PutServer(server) => self.put_server(server),
            Step::RemoveNetns => self.remove_netns(),
            Step::AddNetns => self.add_netns(),
            Step::Stop => self.restart(Scene::stop),
            Step::Kill => self.restart(Scene::kill),
            Step::DetachAndKill(pick) => {
                self.let_go(pick, detach, Reference::unbind)?;
                self.scene.kill();
                self.repairs.clear();
                self.scene.open();
                Ok(())
            }
        }
    }

    fn create_network(&mut self, n: usize) -> Result<(), String> {
        let wanted = if self.reference.networks[n].is_some() { Err("id_in_use") } else { Ok(()) };
        if self.answer(create_network(n), wanted)? {
            self.reference.networks[n].get_or_insert_default();
        }
        Ok(())
    }

    fn create_subnet(&mut self, n: usize, v6: bool) -> Result<(), String> {
        let wanted = match self.reference.networks[n] {
            None => Err("no_such_network"),
            Some(has) if has[usize::from(v6)] => Err("id_in_use"),
            Some(_) => Ok(()),
        };
        if self.answer(create_subnet(n, v6), wanted)?
            && let Some(has) = self.reference.networks[n].as_mut()
        {
            has[usize::from(v6)] = true;
        }
        Ok(())
    }

    fn delete_network(&mut self, n: usize) -> Result<(), String> {
        let used = self.reference.ports.values().any(|port| port.network == n);
        let wanted = match (self.reference.networks[n], used) {
            (None, _) => Err("no_such_network"),
            (Some(_), true) => Err("network_in_use"),
            (Some(_), false) => Ok(()),
        };
        let done = self.answer(Action::DeleteNetwork(network_id(n)), wanted)?;
        if done {
            self.reference.networks[n] = None;
            self.reference.bridge &= n != AGENTS;
        }
        if n == AGENTS && wanted.is_ok() {
            // One that was refused half-way may have lost its bridge: the next port brings it.
            let mark = names::network_altname(network_id(AGENTS));
            let there = self.scene.fake.links().iter().any(|link| link.altnames.contains(&mark));
            self.or.iter_mut().for_each(|or| or.bridge &= there);
            self.reference.bridge &= there;
        }
        Ok(())
    }

    /// What a new NIC of a server on a network gets, or why it gets none.
    fn new_nic(&self, server: usize, n: usize) -> Result<Vec<std::net::IpAddr>, &'static str> {
        let subnets = self.reference.networks[n].ok_or("no_such_network")?;
        if subnets == [false, false] {
            return self.room(server).and(Err("no_subnet"));
        }
        let ips = self.reference.next_ips(n)?;
        self.room(server).and_then(|()| self.reachable(server)).map(|()| ips)
    }

    fn room(&self, server: usize) -> Result<(), &'static str> {
        if self.reference.nics(server) >= NIC_LIMIT { Err("too_many_nics") } else { Ok(()) }
    }

    fn reachable(&self, server: usize) -> Result<(), &'static str> {
        if server == NETNS && self.reference.netns_gone { Err("namespace_gone") } else { Ok(()) }
    }

    fn attach_ip(&mut self, server: usize, n: usize, host: u8) -> Result<(), String> {
        let ip = address(n, false, host);
        let wanted = (|| {
            let subnets = self.reference.networks[n].ok_or("no_such_network")?;
            let refused = match (subnets, host) {
                ([false, false], _) => Err("no_subnet"),
                ([false, true], _) | (_, 8..) => Err("address_outside_subnet"),
                (_, 0 | 7) => Err("address_not_usable"),
                _ if self.reference.taken(ip) => return Err("address_in_use"),
                _ => Ok(()),
            };
            self.room(server).and(refused).and_then(|()| self.reachable(server)).map(|()| vec![ip])
        })();
        self.made(attach(server, at(n, ip)), wanted)
    }

    fn attach_port(&mut self, server: usize, pick: usize) -> Result<(), String> {
        let Some((id, port)) = self.pick(pick) else { return Ok(()) };
        let wanted = match port.server {
            Some(_) => Err("port_in_use"),
            None => self.room(server).and_then(|()| self.reachable(server)).map(|()| port.ips.clone()),
        };
        let admin_up = port.admin_up;
        self.made(attach(server, WantedNic::Port(id)), wanted)?;
        same("admin state kept", self.reference.ports.get(&id).map(|port| port.admin_up), Some(admin_up))
    }

    fn attach_nothing(&mut self, server: usize) -> Result<(), String> {
        let there: Vec<usize> = (0..2).filter(|n| self.reference.networks[*n].is_some()).collect();
        let wanted = match there[..] {
            [] => Err("no_network"),
            [only] => self.new_nic(server, only),
            _ => Err("several_networks"),
        };
        self.made(attach(server, WantedNic::OnTheOnlyNetwork), wanted)
    }

    /// Performs an action that shows a port, or refuses for the wanted reason.
    fn made(&mut self, action: Action, wanted: Result<Vec<std::net::IpAddr>, &'static str>) -> Result<(), String> {
        let ips = |reply: &Reply| port_of(reply.clone()).port.fixed_ips.iter().map(|ip| ip.ip_address).collect::<Vec<_>>();
        match self.ask(action) {
            Told::Answered(reply) => {
                same("answer", (*reply).as_ref().map(ips).map_err(Error::reason), wanted)?;
                if let Ok(reply) = *reply {
                    self.reference.adopt(&port_of(reply));
                }
            }
            Told::Struck => self.note_leftover_bridge(),
            Told::Nothing => {
                // Whatever is bound or listed now and was not before is what was asked for.
                for view in self.scene.service().ports(PortFilter::default()) {
                    let known = self.reference.ports.get(&view.port.id).map(|port| port.server.is_some());
                    if known.is_none() || known == Some(false) && view.port.attached_to().is_some() {
                        self.reference.adopt(&view);
                    }
                }
            }
        }
        Ok(())
    }

    /// A bridge that a failed attach made and could not take back has a record: it waits for the network's next port.
    fn note_leftover_bridge(&mut self) {
        let kept = self.scene.daemon().registry.injected().iter().any(|what| what.starts_with("op.delete_bridge"));
        if kept && self.reference.networks[AGENTS].is_some() {
            self.or = Some(Reference { bridge: true, ..self.reference.clone() });
        }
    }

    /// Performs an action that succeeds, or refuses for the wanted reason; whether it is to be taken as done.
    fn answer(&mut self, action: Action, wanted: Result<(), &'static str>) -> Result<bool, String> {
        match self.ask(action) {
            Told::Answered(reply) => {
                same("answer", reply.map(|_| ()).map_err(|error| error.reason()), wanted)?;
                Ok(wanted.is_ok())
            }
            Told::Struck => Ok(false),
            Told::Nothing => Ok(wanted.is_ok()),
        }
    }

    /// Performs an action in which something may go wrong.
    fn ask(&mut self, action: Action) -> Told {
        let registry = self.scene.daemon().registry.clone();
        match self.scene.daemon().ask(action) {
            Some(Err(_)) if !registry.injected().is_empty() => Told::Struck,
            Some(answer) => Told::Answered(Box::new(answer)),
            None => {
                self.or = Some(self.reference.clone());
                if registry.is_dead() {
                    self.restart_dead();
                }
                Told::Nothing
            }
        }
    }

    fn pick(&self, pick: usize) -> Option<(PortId, &RefPort)> {
        let count = self.reference.ports.len();
        (count > 0).then(|| self.reference.ports.iter().nth(pick % count).map(|(id, port)| (*id, port)))?
    }

    fn let_go(
        &mut self,
        pick: usize,
        action: impl Fn(usize, PortId) -> Action,
        then: impl Fn(&mut Reference, PortId),
    ) -> Result<(), String> {
        let Some((id, port)) = self.pick(pick) else { return Ok(()) };
        let Some(server) = port.server else { return Ok(()) };
        if self.answer(action(server, id), Ok(()))? {
            then(&mut self.reference, id);
        }
        Ok(())
    }

    /// Neutron's way of a detach, which keeps every port; nothing to do for one without a server.
    fn unbind(&mut self, pick: usize) -> Result<(), String> {
        let Some((id, _)) = self.pick(pick) else { return Ok(()) };
        if self.answer(Action::UpdatePort(id, PortChange { detach: true, ..PortChange::default() }), Ok(()))? {
            self.reference.keep(id);
        }
        Ok(())
    }

    fn detach_of_another(&mut self, pick: usize) -> Result<(), String> {
        let Some((id, port)) = self.pick(pick) else { return Ok(()) };
        let other = (0..3).find(|server| Some(*server) != port.server).unwrap();
        self.answer(detach(other, id), Err("port_not_on_server")).map(|_| ())
    }

    fn delete(&mut self, pick: usize) -> Result<(), String> {
        let Some((id, _)) = self.pick(pick) else { return Ok(()) };
        if self.answer(Action::DeletePort(id), Ok(()))? {
            self.reference.ports.remove(&id);
        }
        Ok(())
    }

    fn admin(&mut self, pick: usize, up: bool) -> Result<(), String> {
        let Some((id, _)) = self.pick(pick) else { return Ok(()) };
        let change = PortChange { admin_up: Some(up), ..PortChange::default() };
        if self.answer(Action::UpdatePort(id, change), Ok(()))?
            && let Some(port) = self.reference.ports.get_mut(&id)
        {
            port.admin_up = up;
        }
        Ok(())
    }

    fn create_group(&mut self, n: usize) -> Result<(), String> {
        let wanted = if self.reference.groups[n].is_some() { Err("id_in_use") } else { Ok(()) };
        if self.answer(create_group(n), wanted)? {
            self.reference.groups[n] = Some(false);
        }
        Ok(())
    }

    fn create_rule(&mut self, n: usize) -> Result<(), String> {
        let wanted = match self.reference.groups {
            [None, _] | [_, None] => Err("no_such_group"),
            groups if groups[n] == Some(true) => Err("rule_exists"),
            _ => Ok(()),
        };
        if self.answer(create_rule(n), wanted)? {
            self.reference.groups[n] = Some(true);
        }
        Ok(())
    }

    fn delete_group(&mut self, n: usize) -> Result<(), String> {
        let wanted = match self.reference.groups[n] {
            None => Err("no_such_group"),
            Some(_) if self.reference.ports.values().any(|port| port.groups.contains(&n)) => Err("group_in_use"),
            Some(_) => Ok(()),
        };
        if self.answer(Action::DeleteGroup(group_id(n)), wanted)? {
            self.reference.groups[n] = None;
            // The other one's rule about it goes with it.
            if let Some(rule) = &mut self.reference.groups[1 - n] {
                *rule = false;
            }
        }
        Ok(())
    }

    fn set_groups(&mut self, pick: usize, groups: [bool; 2]) -> Result<(), String> {
        let Some((id, _)) = self.pick(pick) else { return Ok(()) };
        let groups: BTreeSet<usize> = (0..2).filter(|n| groups[*n]).collect();
        let there = groups.iter().all(|n| self.reference.groups[*n].is_some());
        let change = PortChange { groups: Some(groups.iter().map(|n| group_id(*n)).collect()), ..PortChange::default() };
        if self.answer(Action::UpdatePort(id, change), if there { Ok(()) } else { Err("no_such_group") })?
            && let Some(port) = self.reference.ports.get_mut(&id)
        {
            port.groups = groups;
        }
        Ok(())
    }

    fn open(&mut self, pick: usize, open: bool) -> Result<(), String> {
        let Some((id, port)) = self.pick(pick) else { return Ok(()) };
        if port.server.is_some_and(|server| server != NETNS) {
            self.scene.fake.set_carrier(id, open);
            self.reference.ports.get_mut(&id).unwrap().open = open;
        }
        Ok(())
    }

    fn meddle(&mut self, pick: usize, what: Meddling) -> Result<(), String> {
        let Some((id, port)) = self.pick(pick) else { return Ok(()) };
        if !self.reference.has_device(port) || !self.bear(id) {
            return Ok(());
        }
        what.happen(&self.scene, &names::port_altname(id));
        if matches!(what, Meddling::Delete) {
            self.reference.ports.get_mut(&id).unwrap().open = false;
        }
        Ok(())
    }

    fn meddle_bridge(&mut self, what: Meddling) -> Result<(), String> {
        let on_it = |port: &RefPort| port.network == AGENTS && self.reference.has_device(port);
        let ports: Vec<PortId> = self.reference.ports.iter().filter(|(_, port)| on_it(port)).map(|(id, _)| *id).collect();
        let meaningless = matches!(what, Meddling::OutOfBridge | Meddling::Untagged | Meddling::Unmarked);
        if !self.reference.bridge || meaningless || !ports.into_iter().all(|id| self.bear(id)) {
            return Ok(());
        }
        what.happen(&self.scene, &names::network_altname(network_id(AGENTS)));
        self.reference.bridge = !matches!(what, Meddling::Delete);
        Ok(())
    }

    /// Whether a port's device may be meddled with once more before the daemon suspects a fight.
    fn bear(&mut self, id: PortId) -> bool {
        let repairs = self.repairs.entry(id).or_default();
        *repairs += 1;
        *repairs <= PATIENCE
    }

    fn put_server(&mut self, server: usize) -> Result<(), String> {
        let wanted = self.reachable(server).map_err(|_| "no_such_namespace");
        self.answer(put_server(server), wanted).map(|_| ())
    }

    fn remove_netns(&mut self) -> Result<(), String> {
        self.scene.fake.remove_netns(Path::new(NETNS_PATH));
        self.reference.netns_gone = true;
        Ok(())
    }

    fn add_netns(&mut self) -> Result<(), String> {
        if self.reference.netns_gone {
            self.scene.fake.add_netns(Path::new(NETNS_PATH));
            self.reference.netns_gone = false;
        }
        Ok(())
    }

    /// A restart writes nothing to a host that is right.
    fn restart(&mut self, end: impl Fn(&mut Scene)) -> Result<(), String> {
        end(&mut self.scene);
        self.repairs.clear();
        let before = self.scene.fake.log().len();
        self.scene.open();
        self.settle()?;
        let waits = self.reference.netns_gone && self.reference.nics(NETNS) > 0;
        let written = self.scene.fake.log()[before..].to_vec();
        if waits { Ok(()) } else { same("writes after the restart", written, vec![]) }
    }
}

/// What came of an action.
enum Told {
    Answered(Box<Result<Reply, Error>>),
    /// An error, and something went wrong.
    Struck,
    /// It was never answered.
    Nothing,
}

impl Meddling {
    fn happen(self, scene: &Scene, name: &str) {
        let fake = &scene.fake;
        match self {
            Self::OutOfBridge => fake.meddle(name, |link| link.master = None),
            Self::Down => fake.meddle(name, |link| link.up = false),
            Self::Mtu => fake.meddle(name, |link| link.mtu = 1400),
            Self::Mac => fake.meddle(name, |link| link.mac = Some(Mac([2, 0, 0, 0, 0, 9]))),
            Self::V6 => fake.meddle(name, |link| link.v6_autoconf = true),
            Self::Untagged => fake.meddle(name, |link| link.alias = None),
            Self::Unmarked => fake.meddle(name, |link| link.altnames.clear()),
            Self::Delete => fake.delete_link(name),
        }
    }
}
