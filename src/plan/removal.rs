//! How devices and bridges are removed: what is cut at once, and what is deleted later, many devices in one group.
//!
//! One deletion costs an RCU grace period (16 ms) however many links it takes, so devices that are deleted together share it.

use std::collections::BTreeSet;

use uuid::Uuid;

use crate::model::names::SegmentKind;
use crate::model::{NetworkId, PortId, names};

use super::desired::AbsentPort;
use super::observed::{LinkState, Observed, Traces};
use super::op::{At, LinkChange, Op, Plan, Reason, Stage, Step, Switch};

/// The most devices in one group. Its deletion holds RTNL for 0.4 ms a link, and attaches wait meanwhile.
pub const GROUP_SIZE: usize = 64;

impl AbsentPort {
    /// The device, also one that lost its altname; none when there is none.
    pub fn device<'a>(&self, have: &'a Observed) -> Option<&'a LinkState> {
        let traces = Traces { alias: &self.alias, mac: self.mac, index: self.seen };
        have.device(self.id).or_else(|| have.lost_device(&traces))
    }

    /// Whether its device is kept for now: a process holds it open, which would read errors from it without end.
    pub fn is_kept(&self, device: &LinkState) -> bool {
        device.is_held() && !self.force
    }

    /// Its device is set down. One that a process holds open may stay for long, and leaves its bridge as well.
    fn cut(&self, device: &LinkState, have: &Observed, steps: &mut Vec<Step>) {
        let port = self.id;
        if have.device(port).is_none() {
            steps.push(Step::new(Op::RestoreAltname { port, index: device.index, alias: self.alias.clone() }, None));
        }
        if device.up {
            steps.push(Step::new(Op::SetLink { port, switch: Switch::Down }, Some(Op::SetLink { port, switch: Switch::Up })));
        }
        if device.is_held() && device.master.is_some() {
            let learning = device.bridge_port.map(|before| LinkChange::Learning(before.learning));
            let changes = device.master.map(LinkChange::Master).into_iter().chain(learning).collect();
            steps.push(Step::new(Op::Unbind { port }, Some(Op::Configure { port, at: At::Altname, changes })));
        }
    }
}

/// The steps that remove these ports' devices and these networks' agent-made bridges with what leads them to other hosts: traffic is cut now, devices
/// are deleted later, bridges after them, which gives an uplink back that is in one. A device that is kept is only cut.
pub fn removal(reason: Reason, ports: &[AbsentPort], bridges: &[NetworkId], have: &Observed) -> Plan {
    let (mut steps, store) = (Vec::new(), have.store());
    let ports = sorted(ports, |port| port.id).into_iter();
    let found: Vec<_> = ports.filter_map(|port| Some((port, port.device(have)?))).collect();
    found.iter().for_each(|(port, device)| port.cut(device, have, &mut steps));
    for (port, _) in &found {
        let unplug = port.monitor.clone().map(|qmp| Op::UnplugNic { port: port.id, qmp });
        steps.extend(unplug.map(|op| Step { op, undo: None, stage: Stage::Deferred }));
    }
    for (port, _) in found.iter().filter(|(port, device)| port.monitor.is_some() || !port.is_kept(device)) {
        steps.push(Step { op: Op::DeleteLink { port: port.id, store }, undo: None, stage: Stage::Deferred });
    }
    for network in sorted(bridges, |network| *network) {
        for kind in SegmentKind::ALL {
            let lost = have.unmarked_segment(kind, *network).filter(|_| have.own_segment(kind, *network).is_none());
            steps.extend(lost.map(|seen| Step::new(restore_segment_altname(kind, *network, seen, store), None)));
            if lost.is_some() || have.own_segment(kind, *network).is_some() {
                steps.push(Step::new(Op::DeleteSegment { network: *network, kind, store }, None));
            }
        }
        let lost = have.unmarked_bridge(*network).filter(|_| have.own_bridge(*network).is_none());
        steps.extend(lost.map(|seen| Step::new(restore_bridge_altname(*network, seen, store), None)));
        if lost.is_some() || have.own_bridge(*network).is_some() {
            steps.push(Step::new(Op::DeleteBridge { network: *network, store }, None));
        }
    }
    Plan { reason, steps }
}

/// The plan that carries out the deferred deletions of a removal of `ports`, in groups of [`GROUP_SIZE`]; a device that is alone
/// is deleted by itself. A deletion cuts traffic as well, so what is deleted is not cut before.
pub fn merge_deletions(plan: Plan, ports: &[AbsentPort]) -> Plan {
    let (deferred, now): (Vec<Step>, Vec<Step>) = plan.steps.into_iter().partition(|step| step.stage == Stage::Deferred);
    let deleted = |step: &Step| match step.op {
        Op::DeleteLink { port, .. } => Some(port),
        _ => None,
    };
    let forced: BTreeSet<PortId> = ports.iter().filter(|port| port.force).map(|port| port.id).collect();
    let gone: BTreeSet<PortId> = deferred.iter().filter_map(deleted).collect();
    let cuts = |step: &Step| matches!(&step.op, Op::SetLink { port, .. } | Op::Unbind { port } if gone.contains(port));
    let of_bridges = |step: &Step| {
        matches!(
            step.op,
            Op::RestoreBridgeAltname { .. }
                | Op::DeleteBridge { .. }
                | Op::RestoreSegmentAltname { .. }
                | Op::DeleteSegment { .. }
        )
    };
    let (after, mut steps): (Vec<Step>, Vec<Step>) = now.into_iter().filter(|step| !cuts(step)).partition(of_bridges);
    for together in deferred.chunks(GROUP_SIZE) {
        match together {
            [Step { op, .. }] => steps.push(Step::new(op.clone(), None)),
            [Step { op: Op::DeleteLink { store, .. }, .. }, ..] => {
                delete_group(together.iter().filter_map(deleted).collect(), &forced, *store, &mut steps);
            }
            _ => {}
        }
    }
    steps.extend(after);
    Plan { reason: plan.reason, steps }
}

/// Moves devices into a group of their own and deletes that, one message each, so that RTNL is free in between.
fn delete_group(members: Vec<PortId>, forced: &BTreeSet<PortId>, store: Uuid, steps: &mut Vec<Step>) {
    let group = group_of(&members);
    for port in &members {
        steps.push(Step::new(Op::Unbind { port: *port }, None));
        steps.push(Step::new(Op::SetGroup { port: *port, group }, None));
    }
    let forced = members.iter().copied().filter(|port| forced.contains(port)).collect();
    steps.push(Step::new(Op::DeleteGroup { group, ports: members, forced, store }, None));
}

/// The group of these devices: other devices have another one, and a foreign link is in it only by accident (one in four billion).
fn group_of(members: &[PortId]) -> u32 {
    let mixed = members.iter().fold(0, |mixed, port| mixed ^ port.0.as_u128());
    Uuid::from_u128(mixed).as_fields().0.max(1)
}

/// A network's bridge that lost its altname gets it back.
pub(super) fn restore_bridge_altname(network: NetworkId, seen: &LinkState, store: Uuid) -> Op {
    Op::RestoreBridgeAltname { network, index: seen.index, alias: names::bridge_tag(store, network) }
}

/// The device that leads a network to other hosts, and lost its altname, gets it back.
pub(super) fn restore_segment_altname(kind: SegmentKind, network: NetworkId, seen: &LinkState, store: Uuid) -> Op {
    Op::RestoreSegmentAltname { network, kind, index: seen.index, alias: names::segment_tag(kind, store, network) }
}

pub(super) fn sorted<T, K: Ord>(items: &[T], key: impl Fn(&T) -> K) -> Vec<&T> {
    let mut items: Vec<&T> = items.iter().collect();
    items.sort_by_key(|item| key(item));
    items
}
