//! Following the kernel: what the watch saw, and tries whose time has come.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use crate::config::ConflictProbe;
use crate::inventory::Inventory;
use crate::inventory::flapping::BridgeRepairs;
use crate::inventory::leftovers::leftover;
use crate::kernel::Notice;
use crate::model::names::SegmentKind;
use crate::model::{LinkName, NetworkId, Phase, PhaseEvent, PortId};
use crate::plan::{Kind, LinkState, Reason};

use super::{Context, Error, Reconciler, Work, answered};

/// The stable word for a device that a process holds open.
pub const GUEST_KEEPS_DEVICE: &str = "guest_keeps_device";

impl Reconciler {
    pub(super) fn handle_notice(self: &Arc<Self>, notice: Notice) {
        let mut state = self.lock();
        match notice {
            Notice::Seen { link, at } => self.on_link(&mut state, *link, at),
            Notice::Gone { index, at } => {
                if let Some(link) = state.gone(index, at) {
                    self.lost(&mut state, &link);
                    self.settle_lost_commits(&state);
                }
            }
            Notice::MacTaken { index, mac, .. } => {
                if let Some(guest) = self.mac_taken(&mut state, index, mac) {
                    self.evaluate(&mut state, guest, Reason::Drift);
                }
            }
            Notice::EntriesLost => {
                self.look_at_all_soon("events about FDBs were lost");
                let networks: Vec<NetworkId> = state.on_tunnels().collect();
                networks.into_iter().for_each(|network| self.compare_all_entries(&mut state, network));
            }
            Notice::EntryDisturbed { network } => self.compare_all_entries(&mut state, network),
            Notice::Resync { links, at } => {
                let known: HashMap<u32, LinkState> = state.have.iter().map(|link| (link.index, link.clone())).collect();
                state.resync(links, at);
                for link in known.values().filter(|link| state.have.link(link.index).is_none()).cloned().collect::<Vec<_>>() {
                    self.lost(&mut state, &link);
                }
                let news = state.have.iter().filter(|link| known.get(&link.index) != Some(*link)).cloned();
                for link in news.collect::<Vec<_>>() {
                    self.follow_link(&mut state, known.get(&link.index), &link);
                }
                self.settle_lost_commits(&state);
            }
        }
        self.publish_health(&state);
    }

    fn on_link(self: &Arc<Self>, state: &mut Inventory, link: LinkState, at: Instant) {
        let before = state.have.link(link.index).cloned();
        if state.seen(link.clone(), at) {
            self.follow_link(state, before.as_ref(), &link);
        }
    }

    /// Takes in what a finished plan saw. A bridge may differ in what the plan is not about, and the watch, which looks at it later,
    /// would find nothing new.
    pub(super) fn note_links(self: &Arc<Self>, state: &mut Inventory, links: Vec<LinkState>, at: Option<Instant>) {
        let at = at.unwrap_or_else(Instant::now);
        for link in links {
            match link.kind {
                Kind::Bridge => self.on_link(state, link, at),
                _ if link.segment().is_some() => self.on_link(state, link, at),
                _ => _ = state.seen(link, at),
            }
        }
    }

    /// Follows a link that was looked at, with what was known of it before.
    fn follow_link(self: &Arc<Self>, state: &mut Inventory, before: Option<&LinkState>, link: &LinkState) {
        note_orphan(state, link);
        for mark in link.marks() {
            self.follow_kept(state, PortId(mark), link);
            if state.is_cut_off(PortId(mark)) {
                self.follow_cut_off(state, PortId(mark), before, link);
            } else {
                self.evaluate(state, PortId(mark), Reason::Drift);
            }
            self.evaluate_bridge(state, NetworkId(mark));
        }
        if before != Some(link) {
            for sub_port in link.marks().flat_map(|mark| state.carried(PortId(mark))).collect::<Vec<_>>() {
                self.cause_ended(state, sub_port);
            }
        }
        self.follow_segments(state, before, Some(link));
        let Some(before) = before else { return self.follow_bridge(state, link) };
        if before.master != link.master {
            self.has_room(state, before.master);
        }
        // A mark that was taken off leaves its port without a device, or a network's ports without a bridge.
        for mark in before.marks().filter(|mark| !link.marks().any(|still| still == *mark)) {
            self.evaluate(state, PortId(mark), Reason::Drift);
            self.cause_ended(state, PortId(mark));
            self.evaluate_bridge(state, NetworkId(mark));
            self.follow_networks(state, &[NetworkId(mark)]);
        }
        if before.name != link.name {
            self.renamed(state, before, link);
        }
        // A bridge that goes down, or changes its MAC, forgets its neighbours.
        if link.kind == Kind::Bridge && (before.up, before.mac) != (link.up, link.mac) {
            link.marks().map(NetworkId).for_each(|network| self.compare_all_entries(state, network));
        }
        let closed = link.host_closed && !before.host_closed;
        let filters = before.extras.vlan_filtering != link.extras.vlan_filtering;
        if filters {
            // What its ports let pass is seen on them, and of the ports no event tells.
            self.look_at_all_soon("a bridge begins or ceases to tell VLANs apart");
        }
        if closed
            || filters
            || before.forward != link.forward
            || (&before.name, before.mtu, before.mac, &before.kind) != (&link.name, link.mtu, link.mac, &link.kind)
        {
            self.follow_bridge(state, link);
        }
    }

    /// A link changed, came or went that may lead networks to other hosts: an uplink, or a VLAN or VXLAN device.
    fn follow_segments(self: &Arc<Self>, state: &mut Inventory, before: Option<&LinkState>, link: Option<&LinkState>) {
        let networks: BTreeSet<NetworkId> = [before, link].into_iter().flatten().flat_map(|link| state.led_by(link)).collect();
        if networks.is_empty() || before.zip(link).is_some_and(|(before, link)| leads_alike(before, link)) {
            return;
        }
        let networks: Vec<NetworkId> = networks.into_iter().collect();
        let devices = [before, link].into_iter().flatten().filter_map(LinkState::segment);
        let tunnelled: BTreeSet<NetworkId> =
            devices.filter(|(kind, _)| *kind == SegmentKind::Vxlan).map(|(_, network)| network).collect();
        tunnelled.into_iter().for_each(|network| self.compare_all_entries(state, network));
        networks.iter().for_each(|network| self.evaluate_bridge(state, *network));
        self.follow_networks(state, &networks);
    }

    /// Has everything looked at, for a reason.
    fn look_at_all_soon(self: &Arc<Self>, why: &'static str) {
        let reconciler = Arc::clone(self);
        self.tasks.spawn(async move {
            if let Err(error) = reconciler.look_at_everything().await {
                tracing::warn!(%error, "{why}, and the kernel could not be looked at");
            }
        });
    }

    /// A bridge is there, or is another than it was: the ports of the networks on it may be right again, or wrong.
    fn follow_bridge(self: &Arc<Self>, state: &mut Inventory, link: &LinkState) {
        if link.kind != Kind::Bridge {
            return;
        }
        let on = state.bridges.get(&link.name).into_iter().flatten().copied();
        let networks: Vec<NetworkId> = on.chain(link.marks().map(NetworkId)).collect();
        self.follow_networks(state, &networks);
    }

    pub(super) fn follow_networks(self: &Arc<Self>, state: &mut Inventory, networks: &[NetworkId]) {
        let entries = networks.iter().filter_map(|id| state.networks.get(id));
        let ports: Vec<PortId> = entries.flat_map(|entry| entry.ports.iter().copied()).collect();
        for port in ports {
            self.evaluate(state, port, Reason::Drift);
            self.cause_ended(state, port);
        }
    }

    /// A device has another name. Its identity is its altname, so that is left, and told.
    fn renamed(&self, state: &mut Inventory, before: &LinkState, link: &LinkState) {
        for port in link.marks().map(PortId) {
            let Some(entry) = state.ports.get(&port).filter(|entry| entry.record.attached_to().is_some()) else { continue };
            let known = (entry.phase, entry.reason.clone());
            tracing::debug!(%port, from = before.name, to = link.name, "a device was renamed, and is left so");
            self.publish_port(state, port, known, Some("device_renamed"), &Context::default());
        }
    }

    /// A link has left this bridge, which may have been full.
    pub(super) fn has_room(&self, state: &mut Inventory, bridge: Option<u32>) {
        let Some(bridge) = bridge.filter(|_| !state.errors.is_empty()).and_then(|index| state.have.link(index)) else { return };
        let on = state.bridges.get(&bridge.name).into_iter().flatten().copied().chain(bridge.marks().map(NetworkId));
        let ports = on.filter_map(|id| state.networks.get(&id)).flat_map(|network| network.ports.iter());
        let full = |port: &&PortId| state.ports.get(port).is_some_and(|entry| entry.reason.as_deref() == Some("bridge_full"));
        let waiting: Vec<PortId> = ports.filter(full).copied().collect();
        waiting.into_iter().for_each(|port| self.cause_ended(state, port));
    }

    /// A link is gone that was there.
    pub(super) fn lost(self: &Arc<Self>, state: &mut Inventory, link: &LinkState) {
        self.has_room(state, link.master);
        self.follow_segments(state, Some(link), None);
        for mark in link.marks() {
            let port = PortId(mark);
            self.follow_responder(state, port);
            let Some(entry) = state.ports.get(&port) else { continue };
            if entry.phase == Phase::Detaching {
                // The delete that is under way goes by the altname: a port that may come back waits until it has ended.
                if !entry.never_comes_back() || state.have.device(port).is_some() {
                    continue;
                }
                self.start(Work::Gone(port));
            } else {
                self.evaluate(state, port, Reason::Drift);
                self.cause_ended(state, port);
            }
        }
    }

    /// Decides what a look means for a port and for the subports whose frames its device carries: the phase of each, or a repair when
    /// the kernel differs from the record.
    pub(crate) fn evaluate(self: &Arc<Self>, state: &mut Inventory, port: PortId, reason: Reason) {
        self.evaluate_alone(state, port, reason);
        for sub_port in state.carried(port) {
            self.evaluate_alone(state, sub_port, reason);
        }
    }

    fn evaluate_alone(self: &Arc<Self>, state: &mut Inventory, port: PortId, reason: Reason) {
        self.follow_responder(state, port);
        let Some(entry) = state.ports.get(&port) else { return };
        if entry.claim.taken() {
            return;
        }
        let network = entry.record.network_id;
        if state.suppresses_wrongly(network) {
            self.evaluate_bridge(state, network);
        }
        let Some(entry) = state.ports.get(&port) else { return };
        if entry.phase == Phase::Error {
            self.keep_exposed_down(state, port);
        }
        if !matches!(entry.phase, Phase::Wired | Phase::Active) {
            return;
        }
        if self.is_from_lost_commits(state, port, &Context::default()) {
            return;
        }
        let Some(entry) = state.ports.get(&port) else { return };
        let held = entry.record.binding.as_ref().is_some_and(|binding| !binding.releasing.is_empty());
        let waits = held || entry.record.is_unproven();
        let right = !waits && self.plan_port(state, port, reason).is_ok_and(|plan| plan.steps.is_empty());
        if right {
            let (readiness, why) = self.readiness(state, port);
            self.transition(state, port, PhaseEvent::Observed(readiness), why, &Context::default());
            self.speak_of(state, port);
        } else if let Some(due) = entry.retry.due.filter(|due| *due > Instant::now()) {
            // It waits, and is not shown as what it no longer is.
            if entry.phase == Phase::Active {
                let (readiness, why) = self.readiness(state, port);
                self.transition(state, port, PhaseEvent::Observed(readiness), why, &Context::default());
            }
            state.due.set(port, due);
            self.retries.notify_one();
            self.keep_exposed_down(state, port);
        } else {
            // Its machine may take its time to answer: what it let go is told at once.
            if entry.phase == Phase::Active && state.monitor_of(&entry.record).is_some() {
                let (readiness, why) = self.readiness(state, port);
                self.transition(state, port, PhaseEvent::Observed(readiness), why, &Context::default());
            }
            self.try_port(state, port, reason);
        }
    }

    /// Has it asked whether a port's addresses are another machine's, where it has them anew, and then told where it is, where its
    /// device was made.
    fn speak_of(self: &Arc<Self>, state: &mut Inventory, port: PortId) {
        let Some(entry) = state.ports.get_mut(&port) else { return };
        let is_active = entry.phase == Phase::Active;
        let neighbours = &mut entry.neighbours;
        if neighbours.is_unasked && !neighbours.is_asking {
            neighbours.is_unasked = false;
            neighbours.is_asking = self.policy().conflict_probe == ConflictProbe::Warn;
            if neighbours.is_asking {
                self.start(Work::Ask(port));
            }
        }
        if is_active && !neighbours.is_asking && std::mem::take(&mut neighbours.is_unannounced) {
            self.start(Work::Announce(port));
        }
    }

    /// A device that a process holds open is as it was left: down, and in no bridge.
    fn follow_kept(self: &Arc<Self>, state: &Inventory, port: PortId, link: &LinkState) {
        let kept = state.ports.get(&port).is_some_and(|entry| {
            entry.phase == Phase::Detaching && !entry.reaping && entry.reason.as_deref() == Some(GUEST_KEEPS_DEVICE)
        });
        if kept && (link.up || link.master.is_some() || !link.is_held()) {
            self.start(Work::Reap(port));
        }
    }

    /// Looks at the existing bridge of a network. It is others' to change: what was seen of it a moment ago may not be what a
    /// device is to fit, or what addresses are free on it. A network that is not known has none.
    pub(crate) async fn look_at_existing_bridge(self: &Arc<Self>, network: NetworkId) -> Result<(), Error> {
        let name = {
            let mut state = self.lock();
            let Some(entry) = state.networks.get_mut(&network) else { return Ok(()) };
            let Some(name) = entry.record.bridge.clone() else { return Ok(()) };
            entry.looked = Some(Instant::now());
            name
        };
        match answered(self.kernel.get_link(name.clone())?).await?.map_err(Error::Kernel)? {
            Some(notice) => self.handle_notice(notice),
            None if self.lock().have.named(name.as_str()).is_some() => self.look_at_everything().await?,
            None => {}
        }
        Ok(())
    }

    /// Puts a fresh dump in place of what is known. For all that ask while one is under way the next one is enough.
    pub(crate) async fn look_at_everything(self: &Arc<Self>) -> Result<(), Error> {
        let asked = Instant::now();
        let _one = self.dumps.acquire().await.map_err(|_| Error::Stopping)?;
        if self.conditions().dumped.is_some_and(|began| began >= asked) {
            return Ok(());
        }
        let at = Instant::now();
        let links = answered(self.kernel.dump_links()?).await?.map_err(Error::Kernel)?;
        // As from the watch, whose own notices of what the dump shows come too late to be news.
        self.handle_notice(Notice::Resync { links, at });
        self.conditions().dumped = Some(at);
        Ok(())
    }

    /// Looks at the operators' bridges that networks use: no event tells of the settings that matter here.
    pub(super) async fn look_at_operators_bridges(self: &Arc<Self>) {
        let names: Vec<LinkName> = self.lock().bridges.keys().filter_map(|name| name.parse().ok()).collect();
        for name in names {
            let Ok(asked) = self.kernel.get_link(name) else { return };
            let looked: Result<_, Error> = answered(asked).await;
            if let Ok(Ok(Some(notice))) = looked {
                self.handle_notice(notice);
            }
        }
    }

    /// Has an agent-made bridge set back that differs from its record; one that another program keeps changing, after a while.
    pub(super) fn evaluate_bridge(self: &Arc<Self>, state: &mut Inventory, network: NetworkId) {
        let differs = self.plan_bridge(state, network).is_some();
        let repairs = state.networks.get_mut(&network).filter(|_| differs).map(|entry| &mut entry.repairs);
        let wait = repairs.and_then(BridgeRepairs::next);
        self.note_bridge(state, network);
        let Some(wait) = wait else { return };
        self.start(Work::RepairBridge(network, wait));
    }

    /// Has the device of a port set down that is up and not in its bridge, until its next repair.
    fn keep_exposed_down(self: &Arc<Self>, state: &Inventory, port: PortId) {
        if is_exposed(state, port) {
            self.start(Work::SetDown(port));
        }
    }
}

/// Whether two looks at a link show the same of what matters of a way to a physical network.
fn leads_alike(before: &LinkState, link: &LinkState) -> bool {
    let shown = |link: &LinkState| {
        let place = (link.up, link.lower_up, link.mtu, link.master, link.lower, link.tag);
        let tunnels = (link.vxlan, link.bridge_port.filter(|_| link.vxlan.is_some()));
        (place, tunnels, link.v6_autoconf, link.v4_open, link.foreign_addresses.is_empty())
    };
    shown(before) == shown(link)
        && before.hosts == link.hosts
        && (&before.name, &before.altnames, &before.alias, &before.kind) == (&link.name, &link.altnames, &link.alias, &link.kind)
}

/// Notes a link of nicd's that belongs to no record, or no longer.
pub fn note_orphan(state: &mut Inventory, link: &LinkState) {
    match leftover(state, link, state.store_id) {
        Some(orphan) => state.orphans.insert(link.index, orphan),
        None => state.orphans.remove(&link.index),
    };
}

/// Whether an attached port's device is up and not in its bridge.
pub fn is_exposed(state: &Inventory, port: PortId) -> bool {
    let Some(entry) = state.ports.get(&port).filter(|entry| entry.record.attached_to().is_some()) else { return false };
    let Some(device) = state.have.device(port).filter(|device| device.up) else { return false };
    let id = entry.record.network_id;
    let bridge = match state.networks.get(&id).and_then(|network| network.record.bridge.as_ref()) {
        Some(name) => state.have.named(name.as_str()),
        None => state.have.own_bridge(id).or_else(|| state.have.unmarked_bridge(id)),
    };
    device.master.is_none_or(|master| bridge.is_some_and(|bridge| bridge.index != master))
}
