//! What any plan does on any small host: it ends the need for plans, it can be taken back at every step, it may run
//! twice, it keeps away from strangers, and nothing of it outlives the process before its intent is durable.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::atomic::{AtomicUsize, Ordering};

use nicd::kernel::exec::{Execution, Undone};
use nicd::kernel::fake::{Fake, Fault};
use nicd::kernel::{Host, OpErrorKind};
use nicd::model::names::FIRST_INDEX;
use nicd::model::names::{self, SegmentKind};
use nicd::plan::{
    AbsentPort, At, BridgeMade, BridgePort, Desired, DesiredNic, Kind, LinkChange, LinkState, Observed, Op, Plan, Reason, Step,
    Switch, plan,
};
use proptest::prelude::*;

use crate::scenario::{STORE, empty_context, observed, open, plan_on, run, scenarios};

proptest! {
    #[test]
    fn after_a_plan_all_is_as_wanted_and_nothing_is_left_to_plan(scenario in scenarios()) {
        let (fake, want) = (scenario.host(), scenario.want());
        if let Ok(plan) = plan_on(&fake, &want) {
            run(&fake, plan).expect("no faults");
            as_wanted(&fake, &want).map_err(TestCaseError::fail)?;
            let again = plan_on(&fake, &want).expect("what was planned once can be planned again");
            prop_assert_eq!(again.steps, vec![]);
        }
    }

    #[test]
    fn the_order_of_the_inputs_is_nothing(scenario in scenarios(), seed in any::<u64>()) {
        let (fake, want) = (scenario.host(), scenario.want());
        let mut links = fake.links();
        let mut shuffled = want.clone();
        shuffle(&mut links, seed);
        shuffle(&mut shuffled.bridges, seed);
        shuffle(&mut shuffled.ports, seed);
        shuffle(&mut shuffled.absent_ports, seed);
        let have = Observed::from(links).seen_by(STORE);
        prop_assert_eq!(plan(Reason::Restart, &shuffled, &have), plan_on(&fake, &want));
    }

    #[test]
    fn a_failure_at_any_step_can_be_taken_back(scenario in scenarios(), trouble in troubles()) {
        for fault in [Fault::Refuse(trouble), Fault::ApplyAndRefuse(trouble)] {
            for step in 0.. {
                let (fake, want) = (scenario.host(), scenario.want());
                let Ok(plan) = plan_on(&fake, &want) else { return Ok(()) };
                if step == plan.steps.len() {
                    break;
                }
                fail_at_step(&fake, plan, step, fault)?;
            }
        }
    }

    #[test]
    fn every_op_may_run_twice(scenario in scenarios()) {
        let (once, twice, want) = (scenario.host(), scenario.host(), scenario.want());
        if let Ok(plan) = plan_on(&once, &want) {
            let (mut host, mut held) = (open(&twice), empty_context());
            for step in &plan.steps {
                for time in ["once", "twice"] {
                    let applied = host.apply(&step.op, &mut held);
                    prop_assert!(applied.is_ok(), "{}: {:?}: {:?}", time, step.op, applied);
                }
            }
            run(&once, plan).expect("no faults");
            prop_assert_eq!(twice.links(), once.links());
        }
    }

    #[test]
    fn nothing_outlives_the_process_before_the_barrier(scenario in scenarios()) {
        let (fake, want) = (scenario.host(), scenario.want());
        let before = shown(&fake);
        if let Ok(plan) = plan_on(&fake, &want) {
            let done = fake.log().len();
            let mut execution = Execution::new(plan);
            execution.run_volatile(&mut open(&fake)).expect("no faults");
            let early: Vec<Op> = fake.log()[done..].iter().filter(|op| op.outlives_the_process()).cloned().collect();
            prop_assert_eq!(early, vec![]);
            // The process dies.
            drop(execution);
            prop_assert_eq!(shown(&fake), before);
        }
    }

    #[test]
    fn strangers_stay_as_they_are(scenario in scenarios()) {
        let (fake, want) = (scenario.host(), scenario.want());
        let strangers = |fake: &Fake| shown(fake).into_iter().filter(|link| !ours(link)).collect::<Vec<_>>();
        let before = strangers(&fake);
        if let Ok(plan) = plan_on(&fake, &want) {
            run(&fake, plan).expect("no faults");
            prop_assert_eq!(strangers(&fake), before);
        }
    }

    #[test]
    fn no_op_addresses_a_stranger(scenario in scenarios()) {
        let (fake, want) = (scenario.host(), scenario.want());
        if let Ok(plan) = plan_on(&fake, &want) {
            let have = fake.links();
            for op in plan.steps.iter().flat_map(|step| step.undo.iter().chain([&step.op])) {
                prop_assert_eq!(stranger_named_by(op, &have), None, "{:?}", op);
            }
        }
    }
}

/// Whether the host shows what is wanted, read off without the planner.
fn as_wanted(fake: &Fake, want: &Desired) -> Result<(), String> {
    let have = observed(fake);
    for bridge in &want.bridges {
        let BridgeMade::ByAgent { mac, mtu, ref alias, .. } = bridge.made else { continue };
        let seen = have.own_bridge(bridge.network).ok_or("the agent's bridge is not there")?;
        if (seen.mac, seen.mtu, seen.up, seen.v6_autoconf) != (Some(mac), mtu, true, false)
            || !(seen.extras.is_none()
                && seen.foreign_addresses.is_empty()
                && seen.host_closed
                && seen.alias.as_ref() == Some(alias))
        {
            return Err(format!("{bridge:?}: {seen:?}"));
        }
    }
    for port in &want.ports {
        if port.cut_off {
            match have.device(port.id).filter(|seen| seen.up || seen.master.is_some()) {
                Some(seen) => return Err(format!("{port:?} is not cut off: {seen:?}")),
                None => continue,
            }
        }
        let seen = have.device(port.id).ok_or(format!("no device of {}", port.id))?;
        let bridge = have.own_bridge(port.network).or(have.named("br0")).ok_or("no bridge")?;
        let kind = if matches!(port.nic, DesiredNic::Tap { .. }) { Kind::Tap } else { Kind::Veth };
        let identity = (&seen.kind, seen.alias.as_deref()) == (&kind, Some(port.alias.as_str()));
        let link = (seen.mac, seen.mtu, seen.up) == (Some(port.mac.host_side()), bridge.mtu, port.admin_up);
        let learning = seen.bridge_port.is_none_or(|seen| seen.learning);
        let held = seen.bridge_port.is_some_and(|seen| seen.held);
        if bridge.host_closed && seen.bridge_port.is_some_and(|seen| !seen.passes_link_local) {
            return Err(format!("{port:?} gives frames to the host: {seen:?}"));
        }
        if held {
            return Err(format!("{port:?} is held: {seen:?}"));
        }
        if !seen.entry(port.mac, 0).is_some_and(|entry| entry.sticky) {
            return Err(format!("{port:?} has no entry: {seen:?}"));
        }
        if seen.bridge_port.is_some_and(|seen| seen.unicast_flood != port.unknown_unicast) {
            return Err(format!("{port:?} is flooded otherwise: {seen:?}"));
        }
        if seen.to_guest.map(|bucket| bucket.rate) != port.to_guest.map(|bucket| bucket.rate)
            || seen.to_guest.is_some_and(|bucket| bucket.burst < seen.mtu)
        {
            return Err(format!("{port:?} is limited otherwise: {seen:?}"));
        }
        if !seen.foreign_addresses.is_empty() {
            return Err(format!("{port:?} has addresses: {seen:?}"));
        }
        if !identity || !link || seen.v6_autoconf || seen.master != Some(bridge.index) || learning {
            return Err(format!("{port:?}: {seen:?}"));
        }
    }
    // One that a process holds open is kept: down and in no bridge.
    let is_left =
        |port: &&AbsentPort| have.device(port.id).is_some_and(|link| !port.is_kept(link) || link.up || link.master.is_some());
    match want.absent_ports.iter().find(is_left) {
        Some(port) => Err(format!("{} is still there: {:?}", port.id, have.device(port.id))),
        None => Ok(()),
    }
}

/// Lets step `at` of a plan fail, takes everything back, and compares; then runs the whole undo once more.
fn fail_at_step(fake: &Fake, plan: Plan, at: usize, fault: Fault) -> Result<(), TestCaseError> {
    let (before, begun) = (shown(fake), plan.steps[..=at].to_vec());
    let count = AtomicUsize::new(0);
    fake.set_faults(move |_| if count.fetch_add(1, Ordering::Relaxed) == at { fault } else { Fault::None });
    let mut host = open(fake);
    let mut execution = Execution::new(plan);
    let ended = execution.run_volatile(&mut host).and_then(|()| execution.run(&mut host));
    prop_assert!(ended.is_err(), "step {} did not fail", at);
    let undone = execution.unwind(&mut host);
    prop_assert!(undone == Undone::Clean || only_for_want_of_the_removed(&undone, &begun), "step {at}, {fault:?}: {undone:?}");
    let after = shown(fake);
    as_before(&before, &after, &begun).map_err(|what| TestCaseError::fail(format!("step {at}, {fault:?}: {what}")))?;
    let mut held = empty_context();
    let again: Vec<_> = undos(&begun).filter_map(|undo| host.apply(undo, &mut held).err()).collect();
    let again = if again.is_empty() { Undone::Clean } else { Undone::Left(again) };
    prop_assert_eq!(again, undone);
    prop_assert_eq!(shown(fake), after);
    Ok(())
}

/// All links. A bridge's carrier is not compared: an empty bridge has it until its first port comes.
fn shown(fake: &Fake) -> Vec<LinkState> {
    let carrier = |link: LinkState| LinkState { lower_up: link.lower_up && link.kind != Kind::Bridge, ..link };
    fake.links().into_iter().map(carrier).collect()
}

/// The undos of steps in the order in which they run.
fn undos(steps: &[Step]) -> impl Iterator<Item = &Op> {
    steps.iter().rev().filter_map(|step| step.undo.as_ref())
}

/// What the steps delete, by its mark. That has no undo: what is gone stays gone.
fn removed(steps: &[Step]) -> BTreeSet<String> {
    let mark = |step: &Step| match step.op {
        Op::DeleteLink { port, .. } => Some(names::port_altname(port)),
        Op::DeleteBridge { network, .. } => Some(names::network_altname(network)),
        Op::DeleteSegment { network, kind, .. } => Some(names::segment_altname(kind, network)),
        _ => None,
    };
    steps.iter().filter_map(mark).collect()
}

/// Whether all that could not be undone is about what the plan itself removed.
fn only_for_want_of_the_removed(undone: &Undone, steps: &[Step]) -> bool {
    let missing = |trouble| matches!(trouble, OpErrorKind::Gone | OpErrorKind::NoBridge);
    matches!(undone, Undone::Left(left) if !removed(steps).is_empty() && left.iter().all(|error| missing(error.kind)))
}

/// Compares a host with what it was before `steps` were begun and taken back. Some things only go forwards: what was
/// removed stays so, a device that was being finished may be finished, a mark that was put back stays, what was closed to the
/// host stays closed, and what somebody set of address generation and port flags stays undone.
fn as_before(before: &[LinkState], after: &[LinkState], steps: &[Step]) -> Result<(), String> {
    let removed = removed(steps);
    let marked_again: BTreeMap<u32, String> = steps.iter().filter_map(|step| restores_altname(&step.op)).collect();
    let has = |link: &LinkState, marks: &BTreeSet<String>| {
        link.altnames.iter().chain(marked_again.get(&link.index)).any(|name| marks.contains(name))
    };
    let finished: BTreeSet<String> = steps.iter().filter_map(|step| finishes(&step.op)).collect();
    let bridges: BTreeSet<u32> = before.iter().filter(|link| has(link, &removed)).map(|link| link.index).collect();
    for link in before {
        let Some(mut now) = after.iter().find(|now| now.index == link.index).cloned() else {
            if has(link, &removed) {
                continue;
            }
            return Err(format!("{} is gone", link.name));
        };
        now.v6_autoconf |= ours(link) && link.v6_autoconf;
        now.v4_open |= ours(link) && link.v4_open;
        if ours(link) && link.marks().next().is_none() {
            now.altnames.clone_from(&link.altnames);
        }
        // A MAC that somebody gave it is not given back, and neither is a lost entry; one that was made goes with the bridge.
        if ours(link) {
            (now.mac, now.fdb) = (link.mac, link.fdb.clone());
        }
        // What is cut off stays so.
        if steps.iter().any(|step| matches!(step.op, Op::Unbind { port } if link.altnames.contains(&names::port_altname(port))))
            || cut(link, steps)
        {
            continue;
        }
        if let (Some(now), Some(before)) = (now.bridge_port.as_mut(), link.bridge_port) {
            (now.altered, now.suppresses) = (now.altered || before.altered, now.suppresses || before.suppresses);
            now.passes_link_local &= before.passes_link_local;
            if before.held {
                (now.held, now.forwarding) = (true, false);
            }
        }
        if ours(link) {
            // What a bridge's ports let pass goes with it.
            (now.extras, now.vlan) = (link.extras, link.vlan);
            now.host_closed = link.host_closed;
            now.foreign_addresses.clone_from(&link.foreign_addresses);
        }
        if has(link, &finished) {
            now = LinkState { alias: link.alias.clone(), up: link.up, lower_up: link.lower_up, ..now };
            now.bridge_port = now
                .bridge_port
                .map(|port| BridgePort { forwarding: link.bridge_port.is_some_and(|before| before.forwarding), ..port });
        }
        // It cannot go back into a bridge that is gone.
        let stranded = link.master.is_some_and(|master| bridges.contains(&master)) && ours(link);
        if stranded {
            continue;
        }
        if now != *link && !has(link, &removed) {
            return Err(format!("{link:#?} became {now:#?}"));
        }
    }
    match after.iter().find(|now| before.iter().all(|link| link.index != now.index)) {
        Some(new) => Err(format!("{new:#?} is left")),
        None => Ok(()),
    }
}

/// The index of the link that an op gives its mark back, and the mark.
fn restores_altname(op: &Op) -> Option<(u32, String)> {
    match op {
        Op::RestoreAltname { port, index, .. } => Some((*index, names::port_altname(*port))),
        Op::RestoreBridgeAltname { network, index, .. } => Some((*index, names::network_altname(*network))),
        Op::RestoreSegmentAltname { network, kind, index, .. } => Some((*index, names::segment_altname(*kind, *network))),
        _ => None,
    }
}

/// Whether steps set a link down for good.
fn cut(link: &LinkState, steps: &[Step]) -> bool {
    let down = |step: &Step| matches!(step.op, Op::SetLink { port, switch: Switch::Down } if link.altnames.contains(&names::port_altname(port)));
    steps.iter().any(|step| down(step) && step.undo.is_none())
}

/// The mark of the device that an op finishes.
fn finishes(op: &Op) -> Option<String> {
    match op {
        Op::Configure { port, changes, .. } if changes.iter().any(|change| matches!(change, LinkChange::Tag { .. })) => {
            Some(names::port_altname(*port))
        }
        Op::ConfigureGuest { port, .. } => Some(names::port_altname(*port)),
        _ => None,
    }
}

fn ours(link: &LinkState) -> bool {
    // Of all links of these scenarios only what a plan made has an index that was chosen for it.
    link.index >= FIRST_INDEX
}

/// The link of somebody else's that an op's name, index or mark would hit.
fn stranger_named_by(op: &Op, have: &[LinkState]) -> Option<LinkState> {
    let (mark, index, name) = match op {
        Op::CreateBridge { network, index, name, .. } => (names::network_altname(*network), Some(*index), Some(name)),
        Op::CloseBridge { network } | Op::SetBridge { network, .. } | Op::DeleteBridge { network, .. } => {
            (names::network_altname(*network), None, None)
        }
        Op::CreateTap { port, index, name, .. }
        | Op::CreateVeth { port, index, name, .. }
        | Op::CreateVlanNic { port, index, name, .. } => (names::port_altname(*port), Some(*index), Some(name)),
        Op::RestoreBridgeAltname { network, index, .. } => (names::network_altname(*network), Some(*index), None),
        Op::CreateVlan { network, index, name, .. } => {
            (names::segment_altname(SegmentKind::Vlan, *network), Some(*index), Some(name))
        }
        Op::CreateVxlan { network, index, name, .. } => {
            (names::segment_altname(SegmentKind::Vxlan, *network), Some(*index), Some(name))
        }
        Op::SetEntries { network, .. } => (names::segment_altname(SegmentKind::Vxlan, *network), None, None),
        Op::RestoreSegmentAltname { network, kind, index, .. } => (names::segment_altname(*kind, *network), Some(*index), None),
        Op::SetSegment { network, kind, .. } | Op::DeleteSegment { network, kind, .. } => {
            (names::segment_altname(*kind, *network), None, None)
        }
        // The uplink is the operator's.
        Op::AdoptUplink { network, .. } | Op::ReleaseUplink { network, .. } => (names::network_altname(*network), None, None),
        Op::Configure { port, at: At::Index(index), .. } | Op::RestoreAltname { port, index, .. } => {
            (names::port_altname(*port), Some(*index), None)
        }
        Op::CloseTap { port }
        | Op::SetFilter { port, .. }
        | Op::Configure { port, .. }
        | Op::Persist { port }
        | Op::ConfigureGuest { port, .. }
        | Op::SetLink { port, .. }
        | Op::Unbind { port }
        | Op::SetGroup { port, .. }
        | Op::PlugNic { port, .. }
        | Op::UnplugNic { port, .. }
        | Op::DeleteLink { port, .. } => (names::port_altname(*port), None, None),
        Op::SetProfiles { .. } | Op::SetMembers { .. } => return None,
        Op::DeleteGroup { .. } => panic!("deletions are merged only when a removal is carried out"),
    };
    let hit = |link: &&LinkState| {
        let called = |name: &str| link.name == name || link.altnames.iter().any(|alt| alt == name);
        called(&mark) || index == Some(link.index) || name.is_some_and(|name| called(name.as_str()))
    };
    have.iter().filter(|link| !ours(link)).find(hit).cloned()
}

/// What a kernel may say no with.
fn troubles() -> impl Strategy<Value = OpErrorKind> {
    prop_oneof![
        Just(OpErrorKind::Taken),
        Just(OpErrorKind::Gone),
        Just(OpErrorKind::BridgeFull),
        Just(OpErrorKind::TimedOut),
        Just(OpErrorKind::Other)
    ]
}

/// Brings items into an order that depends on nothing but `seed`.
fn shuffle<T>(items: &mut Vec<T>, seed: u64) {
    let hash = BuildHasherDefault::<DefaultHasher>::new();
    let mut numbered: Vec<(u64, T)> =
        std::mem::take(items).into_iter().zip(0u64..).map(|(item, n)| (hash.hash_one((seed, n)), item)).collect();
    numbered.sort_by_key(|(key, _)| *key);
    items.extend(numbered.into_iter().map(|(_, item)| item));
}
