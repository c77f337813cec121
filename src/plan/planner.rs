//! The planner: bridges, then ports, then what is removed; each sorted by id, so that the order of the input is nothing.

use std::collections::BTreeSet;
use std::fmt;

use uuid::Uuid;

use crate::model::names::{self, NAME_CHOICES, SegmentKind};
use crate::model::{LinkName, NetworkId, PortId};

use super::desired::{BridgeMade, Desired, DesiredBridge, DesiredNic, DesiredOverlay, DesiredPort, DesiredSegment, Unwanted};
use super::diff::{Bridge, Device, Property, Segment, bridge_port, home_mtu};
use super::filter::Filter;
use super::observed::{BRIDGE_PORTS, Kind, LinkState, Observed, Owner};
use super::op::{At, BridgeChange, IndexFilter, LinkChange, Op, Plan, Reason, SegmentChange, Step, Switch};
use super::overlay::{Entry, SeenEntries};
use super::removal::{removal, restore_bridge_altname, restore_segment_altname, sorted};

/// Why nothing can be planned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The operator's bridge is not there.
    #[error("bridge {0} does not exist on this host; make it, or let the network have a bridge made by nicd")]
    NoSuchBridge(String),
    /// What has that name, or our mark for that bridge, is none.
    #[error("{0} is not a bridge")]
    NotABridge(String),
    /// The guest would send frames the bridge cannot carry.
    #[error("MTU {mtu} is above the {bridge_mtu} of bridge {bridge}; lower the network's mtu or raise the bridge's")]
    MtuAboveBridge {
        /// The network's, in bytes.
        mtu: u32,
        /// The bridge's name.
        bridge: String,
        /// The bridge's, in bytes.
        bridge_mtu: u32,
    },
    /// The trunk's parent could not carry the subport's frames.
    #[error(
        "MTU {mtu} of bridge {bridge} is above the {parent_mtu} of the trunk's parent {parent}, whose NIC carries the frames; lower the \
         mtu of the subport's network or raise that of the parent's"
    )]
    MtuAboveParent {
        /// The MTU of the subport's bridge, in bytes.
        mtu: u32,
        /// That bridge's name.
        bridge: String,
        /// The parent's port.
        parent: PortId,
        /// The MTU of its device, in bytes.
        parent_mtu: u32,
    },
    /// The kernel takes no more ports into it.
    #[error("bridge {0} is full: the kernel allows {BRIDGE_PORTS} ports in a bridge; detach one, or use another network")]
    BridgeFull(String),
    /// The altname that would mark the new link is on a link that this nicd did not make.
    #[error("{0}")]
    NotOurs(NotOurs),
    /// Every name the id yields is another link's.
    #[error("every name for {0} is taken by another link on this host")]
    NoFreeName(String),
    /// The index drawn for a new link is another link's.
    #[error("ifindex {0} is taken")]
    IndexTaken(u32),
    /// A port whose network's bridge is not part of the want. A caller's slip.
    #[error("port {0} is wanted without its bridge")]
    Incomplete(PortId),
}

/// A link that has an altname of nicd's form, and that this nicd did not make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotOurs {
    /// Its name.
    pub link: String,
    /// What it is.
    pub kind: &'static str,
    /// The altname.
    pub altname: String,
    /// The store of the nicd that made it.
    pub store: Option<Uuid>,
}

impl NotOurs {
    fn of(link: &LinkState, altname: String, store: Uuid) -> Self {
        let store = match link.owner(store) {
            Owner::OtherStore(other) => Some(other),
            Owner::Us | Owner::Stranger => None,
        };
        let kind = match link.kind {
            Kind::Other => "link",
            _ => link.kind.as_str(),
        };
        Self { link: link.name.clone(), kind, altname, store }
    }
}

impl fmt::Display for NotOurs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { link, kind, altname, store } = self;
        match store {
            None => write!(
                f,
                "{kind} {link} has the altname {altname} and was not made by this nicd; it is left as it is: take the altname \
                 away (ip link property del dev {link} altname {altname}) or remove the {kind}"
            ),
            Some(store) => write!(
                f,
                "{kind} {link} has the altname {altname} and belongs to the nicd with store {store}; it is left as it is: \
                 if that nicd is gone, nicctl gc --store {store} lists what it left"
            ),
        }
    }
}

/// The steps that lead from what is there to what is wanted.
///
/// # Errors
/// When the kernel could not be brought there at all; nothing has been done then.
pub fn plan(reason: Reason, want: &Desired, have: &Observed) -> Result<Plan, PlanError> {
    let mut planner = Planner { have, want, named: BTreeSet::new(), steps: Vec::new() };
    for bridge in sorted(&want.bridges, |bridge| bridge.network) {
        planner.bridge(bridge)?;
    }
    for port in sorted(&want.ports, |port| port.id) {
        planner.port(port)?;
    }
    for overlay in sorted(&want.overlays, |overlay| overlay.network) {
        planner.overlay(overlay);
    }
    planner.steps.extend(removal(reason, &want.absent_ports, &want.absent_bridges, have).steps);
    Ok(Plan { reason, steps: planner.steps })
}

struct Planner<'a> {
    have: &'a Observed,
    want: &'a Desired,
    /// Names given to links this plan makes.
    named: BTreeSet<LinkName>,
    steps: Vec<Step>,
}

/// Below this MTU in bytes a link has no IPv6 (`IPV6_MIN_MTU`).
const V6_MTU: u32 = 1280;

/// The bridge a port goes into: there already, or made by an earlier step.
struct Home {
    index: u32,
    mtu: u32,
    name: String,
}

impl<'a> Planner<'a> {
    fn bridge(&mut self, bridge: &DesiredBridge) -> Result<(), PlanError> {
        let (BridgeMade::ByAgent { index, mac, mtu, alias, .. }, network) = (&bridge.made, bridge.network) else { return Ok(()) };
        if let Some(link) = self.have.in_place_of_bridge(network) {
            return Err(PlanError::NotOurs(NotOurs::of(link, names::network_altname(network), self.have.store())));
        }
        let home = match Bridge::find(bridge, self.have) {
            Some(seen) => {
                self.mend_bridge(&seen);
                seen.link.index
            }
            None => {
                self.free_index(*index)?;
                let name = self.free_name(|choice| names::network_bridge(network, choice))?;
                let op = Op::CreateBridge { network, index: *index, name, mac: *mac, mtu: *mtu, alias: alias.clone() };
                self.step(op, Some(self.delete_bridge(network)));
                if bridge.made.closes() {
                    self.step(Op::CloseBridge { network }, None);
                }
                // Not before it is closed.
                let changes = BTreeSet::from([BridgeChange::Switch(Switch::Up)]);
                self.step(Op::SetBridge { network, changes }, None);
                *index
            }
        };
        self.segment(bridge, home)
    }

    /// The way of a network to other hosts, from its bridge with this index. Without an uplink that can be used nothing is done: the ports'
    /// facts tell of that.
    fn segment(&mut self, bridge: &DesiredBridge, home: u32) -> Result<(), PlanError> {
        let Some(segment) = Segment::find(bridge, self.have) else { return Ok(()) };
        let (network, store) = (bridge.network, self.have.store());
        let in_place = |kind| self.have.in_place_of_segment(kind, network).map(|link| (kind, link));
        if let Some((kind, link)) = SegmentKind::ALL.into_iter().find_map(in_place) {
            return Err(PlanError::NotOurs(NotOurs::of(link, names::segment_altname(kind, network), store)));
        }
        let Some(uplink) = segment.usable() else { return Ok(()) };
        let Some(kind) = segment.want.kind() else {
            if matches!(segment.want, DesiredSegment::Flat { .. }) && uplink.master != Some(home) {
                let (index, bridge) = (uplink.index, home);
                let undo = Op::ReleaseUplink { network, index, bridge };
                self.step(Op::AdoptUplink { network, index, bridge }, Some(undo));
            }
            return Ok(());
        };
        if let Some(device) = segment.device.filter(|_| self.have.own_segment(kind, network).is_none()) {
            self.step(restore_segment_altname(kind, network, device, store), None);
        }
        if let Some(device) = segment.device.filter(|_| !segment.is_replaced()) {
            let changes = segment.changes(home);
            if changes.is_empty() {
                return Ok(());
            }
            let undo = |change: &SegmentChange| match change {
                SegmentChange::Mtu(_) => Some(SegmentChange::Mtu(device.mtu)),
                SegmentChange::Alias(_) => Some(SegmentChange::Alias(device.alias.clone().unwrap_or_default())),
                SegmentChange::Master(_) => Some(SegmentChange::Master(device.master.unwrap_or(0))),
                SegmentChange::Switch(_) => Some(SegmentChange::Switch(Switch::Down)),
                SegmentChange::HostIpOff
                | SegmentChange::RemoveAddress(_)
                | SegmentChange::LearningOff
                | SegmentChange::TunnelPortFlags { .. } => None,
            };
            let undo = Op::SetSegment { network, kind, changes: changes.iter().filter_map(undo).collect() };
            self.step(Op::SetSegment { network, kind, changes }, Some(undo));
            return Ok(());
        }
        if segment.device.is_some() {
            self.step(Op::DeleteSegment { network, kind, store }, None);
        }
        let (parent, mtu) = (uplink.index, segment.mtu());
        let create = match segment.want {
            DesiredSegment::Vlan { tag, index, alias, .. } => {
                let name = self.new_segment(kind, network, *index)?;
                Op::CreateVlan { network, index: *index, name, parent, tag: *tag, mtu, alias: alias.clone() }
            }
            DesiredSegment::Vxlan { vni, local: Some(local), index, alias, .. } => {
                let name = self.new_segment(kind, network, *index)?;
                Op::CreateVxlan { network, index: *index, name, vni: *vni, local: *local, mtu, alias: alias.clone() }
            }
            _ => return Ok(()),
        };
        self.step(create, Some(Op::DeleteSegment { network, kind, store }));
        self.step(Op::SetSegment { network, kind, changes: segment.first_changes(home) }, None);
        Ok(())
    }

    /// The name of a device that is to be made with this index.
    fn new_segment(&mut self, kind: SegmentKind, network: NetworkId, index: u32) -> Result<LinkName, PlanError> {
        self.free_index(index)?;
        self.free_name(|choice| names::segment_device(kind, network, choice))
    }

    /// The entries of a network that lead to other hosts. Without a VXLAN device there are none; of one that was not looked into, nothing is
    /// known to be wrong.
    fn overlay(&mut self, overlay: &DesiredOverlay) {
        let network = overlay.network;
        let is_new = self.steps.iter().any(|step| matches!(step.op, Op::CreateVxlan { network: of, .. } if of == network));
        let none = SeenEntries { device: 0, entries: BTreeSet::new(), has_v6: true };
        let Some(have) = (if is_new { Some(&none) } else { self.have.entries(network) }) else { return };
        let put: BTreeSet<Entry> =
            overlay.entries.difference(&have.entries).filter(|entry| have.can_have(entry)).cloned().collect();
        let remove: BTreeSet<Entry> = match &overlay.unwanted {
            Unwanted::Others => have.entries.difference(&overlay.entries).cloned().collect(),
            Unwanted::These(entries) => entries.intersection(&have.entries).cloned().collect(),
        };
        // Nothing takes this back: where one is refused the others are as they are to be.
        if !put.is_empty() || !remove.is_empty() {
            self.step(Op::SetEntries { network, put, remove }, None);
        }
    }

    /// What differs about an agent-made bridge that is there.
    fn mend_bridge(&mut self, bridge: &Bridge<'_>) {
        let (network, seen) = (bridge.want.network, bridge.link);
        if !bridge.marked {
            self.step(restore_bridge_altname(network, seen, self.have.store()), None);
        }
        // Before it is up, and never taken back.
        if bridge.is_open_to_the_host() {
            self.step(Op::CloseBridge { network }, None);
        }
        let mut changes = bridge.changes();
        if changes.is_empty() {
            return;
        }
        if changes.iter().any(|change| matches!(change, BridgeChange::Mtu(mtu) if v6_returns(seen.mtu, *mtu))) {
            changes.insert(BridgeChange::HostIpOff);
        }
        let undo = |change: &BridgeChange| match change {
            BridgeChange::Mac(_) => seen.mac.map(BridgeChange::Mac),
            BridgeChange::Mtu(_) => Some(BridgeChange::Mtu(seen.mtu)),
            BridgeChange::Alias(_) => Some(BridgeChange::Alias(seen.alias.clone().unwrap_or_default())),
            BridgeChange::Switch(_) => Some(BridgeChange::Switch(Switch::Down)),
            _ => None,
        };
        let undo = Op::SetBridge { network, changes: changes.iter().filter_map(undo).collect() };
        self.step(Op::SetBridge { network, changes }, Some(undo));
    }

    fn port(&mut self, port: &DesiredPort) -> Result<(), PlanError> {
        if let Some(link) = self.have.in_place_of_device(port.id) {
            return Err(PlanError::NotOurs(NotOurs::of(link, names::port_altname(port.id), self.have.store())));
        }
        let bridge = self.want.bridges.iter().find(|bridge| bridge.network == port.network);
        let bridge = bridge.ok_or(PlanError::Incomplete(port.id))?;
        let device = Device::find(port, bridge, self.have);
        // Without the device that is to carry its frames there can be none; it is planned again once that one is there.
        if let DesiredNic::Vlan { parent, .. } = port.nic
            && self.have.device(parent).is_none()
        {
            return Ok(());
        }
        if !port.cut_off {
            let home = self.home(port, bridge)?;
            self.fits_parent(port, &home)?;
            if port.mtu > home.mtu {
                return Err(PlanError::MtuAboveBridge { mtu: port.mtu, bridge: home.name, bridge_mtu: home.mtu });
            }
            let joins = !port.silent && device.is_none_or(|device| device.is_away());
            if joins && self.have.members(home.index) >= BRIDGE_PORTS {
                return Err(PlanError::BridgeFull(home.name));
            }
            if let Some(device) = device.filter(|device| !device.marked) {
                self.restore_altname(&device);
            }
            match device {
                Some(device) if !device.is_replaced() => self.mend(&device),
                Some(_) => {
                    self.step(self.delete(port.id), None);
                    self.build(port, bridge, &home)?;
                }
                None => self.build(port, bridge, &home)?,
            }
            if let Some(qmp) = &port.monitor
                && device.is_none_or(|device| device.is_replaced() || device.differs(Property::Nic))
            {
                let plug = Op::PlugNic { port: port.id, qmp: qmp.clone(), mac: port.mac, mtu: port.mtu };
                self.step(plug, Some(Op::UnplugNic { port: port.id, qmp: qmp.clone() }));
            }
        } else if let Some(device) = device {
            if !device.marked {
                self.restore_altname(&device);
            }
            self.cut_off(port.id, device.link);
        }
        Ok(())
    }

    /// A port that is cut off: nothing is built for it, and its device is down and in no bridge. Down alone is not enough: a
    /// port that is down still takes the entry of a guest whose MAC it is given (`br_fdb_change_mac_address`,
    /// net/bridge/br_fdb.c). Nothing takes this back: what failed is to fail on this side.
    fn cut_off(&mut self, port: PortId, seen: &LinkState) {
        if seen.master.is_some() {
            self.step(Op::Unbind { port }, None);
        }
        if seen.up {
            self.step(Op::SetLink { port, switch: Switch::Down }, None);
        }
    }

    /// The kernel refuses a VLAN device with a larger MTU than that of the device below (`vlan_dev_change_mtu`, net/8021q/vlan_dev.c).
    fn fits_parent(&self, port: &DesiredPort, home: &Home) -> Result<(), PlanError> {
        let DesiredNic::Vlan { parent, .. } = port.nic else { return Ok(()) };
        match self.have.device(parent).map(|device| device.mtu) {
            Some(parent_mtu) if home.mtu > parent_mtu => {
                Err(PlanError::MtuAboveParent { mtu: home.mtu, bridge: home.name.clone(), parent, parent_mtu })
            }
            _ => Ok(()),
        }
    }

    /// A device that lost its altname gets it back.
    fn restore_altname(&mut self, device: &Device<'_>) {
        let (port, index, alias) = (device.want.id, device.link.index, device.want.alias.clone());
        self.step(Op::RestoreAltname { port, index, alias }, None);
    }

    fn home(&self, port: &DesiredPort, bridge: &DesiredBridge) -> Result<Home, PlanError> {
        let seen = Bridge::find(bridge, self.have).map(|bridge| bridge.link);
        let (index, name) = match (seen, &bridge.made) {
            (Some(seen), BridgeMade::Existing { .. }) if seen.kind != Kind::Bridge => {
                return Err(PlanError::NotABridge(seen.name.clone()));
            }
            (Some(seen), _) => (seen.index, seen.name.clone()),
            (None, BridgeMade::ByAgent { index, .. }) => (*index, names::network_bridge(port.network, 0).to_string()),
            (None, BridgeMade::Existing { name }) => return Err(PlanError::NoSuchBridge(name.to_string())),
        };
        let mtu = home_mtu(bridge, seen, port.mtu, self.have).ok_or_else(|| PlanError::NoSuchBridge(name.clone()))?;
        Ok(Home { index, mtu, name })
    }

    /// Everything about a device that is not there yet. The steps up to the first that outlives the process need no
    /// durable record.
    fn build(&mut self, port: &DesiredPort, bridge: &DesiredBridge, home: &Home) -> Result<(), PlanError> {
        self.free_index(port.index)?;
        let id = port.id;
        // Before the device is there.
        if let Some(filter) = &port.filter {
            let filter = Some(IndexFilter { index: port.index, filter: filter.clone() });
            let undo = Op::SetFilter { port: id, filter: None, before_device: true };
            self.step(Op::SetFilter { port: id, filter, before_device: true }, Some(undo));
        }
        let name = self.free_name(|choice| names::port_device(id, choice))?;
        let mut bridge_port = if port.silent { Vec::new() } else { bridge_port(port, bridge, home.index) };
        bridge_port.extend(port.to_guest.map(|bucket| LinkChange::ToGuest(Some(bucket.with_room(home.mtu)))));
        match &port.nic {
            DesiredNic::Tap { queues, vnet_hdr, owner } => {
                let (queues, vnet_hdr, owner) = (*queues, *vnet_hdr, *owner);
                let create = Op::CreateTap { port: id, index: port.index, name, queues, vnet_hdr, owner };
                self.step(create, Some(Op::CloseTap { port: id }));
                // No other process can open a tap of one queue while it is held, so it goes with this process, tag and all.
                // A tap of several may be held by another process, which keeps it.
                let alone = queues == 1;
                let (mac, mtu) = (LinkChange::Mac(port.mac.host_side()), LinkChange::Mtu(home.mtu));
                let link = [LinkChange::Altname, mac, mtu, LinkChange::HostIpOff];
                let changes = link.into_iter().chain(bridge_port).chain(alone.then(|| tag_of(port))).collect();
                self.step(Op::Configure { port: id, at: At::Index(port.index), changes }, None);
                self.step(Op::Persist { port: id }, Some(self.delete(id)));
                if !alone {
                    self.tag(port);
                }
            }
            DesiredNic::Veth { netns, pin, guest } => {
                let create = Op::CreateVeth {
                    port: id,
                    index: port.index,
                    name,
                    netns: netns.clone(),
                    pin: *pin,
                    guest_name: guest.name.clone(),
                    guest_mac: port.mac,
                    guest_mtu: port.mtu,
                    mac: port.mac.host_side(),
                    mtu: home.mtu,
                };
                self.step(create, Some(self.delete(id)));
                let (netns, pin, guest) = (netns.clone(), *pin, guest.clone());
                self.step(Op::ConfigureGuest { port: id, netns, pin, settings: guest }, None);
                let changes = bridge_port.into_iter().chain([tag_of(port)]).collect();
                self.step(Op::Configure { port: id, at: At::Altname, changes }, None);
            }
            DesiredNic::Vlan { parent, id: vlan } => {
                let (parent, index, mac, mtu) = (*parent, port.index, port.mac.host_side(), home.mtu);
                self.step(Op::CreateVlanNic { port: id, index, name, parent, id: *vlan, mac, mtu }, Some(self.delete(id)));
                let changes = bridge_port.into_iter().chain([tag_of(port)]).collect();
                self.step(Op::Configure { port: id, at: At::Altname, changes }, None);
            }
        }
        // The ifb outlives the process.
        if let Some(bucket) = port.from_guest {
            let changes = BTreeSet::from([LinkChange::FromGuest(Some(bucket.with_room(home.mtu)))]);
            self.step(Op::Configure { port: id, at: At::Altname, changes }, None);
        }
        Ok(())
    }

    /// What differs about a device that is there. A finished guest is its own business and is not looked into.
    fn mend(&mut self, device: &Device<'_>) {
        let (port, seen) = (device.want, device.link);
        let id = port.id;
        // Down before it is out of its bridge: what its guest sends would reach the host.
        if port.silent && seen.master.is_some() {
            if seen.up {
                self.step(Op::SetLink { port: id, switch: Switch::Down }, None);
            }
            self.step(Op::Unbind { port: id }, None);
        }
        if let Some(filter) = port.filter.as_ref().filter(|_| device.differs(Property::Filter)) {
            let of_device = |filter: &Filter| Some(IndexFilter { index: seen.index, filter: filter.clone() });
            let set = |filter| Op::SetFilter { port: id, filter, before_device: false };
            self.step(set(of_device(filter)), Some(set(seen.filter.of(id).and_then(of_device))));
        }
        let mut changes = device.changes();
        let v6_returns = changes.iter().any(|change| matches!(change, LinkChange::Mtu(mtu) if v6_returns(seen.mtu, *mtu)));
        if v6_returns {
            changes.insert(LinkChange::HostIpOff);
        }
        // One whose MAC was changed is cut off from its bridge until it has its own again.
        let leaves = port.silent && seen.master.is_some();
        let cut = seen.up && (leaves || v6_returns || device.differs(Property::Mac) && !device.is_away());
        if cut && !leaves {
            self.step(Op::SetLink { port: id, switch: Switch::Down }, Some(Op::SetLink { port: id, switch: Switch::Up }));
        }
        if !changes.is_empty() {
            let before: BTreeSet<_> = changes.iter().flat_map(|change| device.undo(change)).collect();
            let undo = (!before.is_empty()).then_some(Op::Configure { port: id, at: At::Altname, changes: before });
            self.step(Op::Configure { port: id, at: At::Altname, changes }, undo);
        }
        if device.differs(Property::Alias) {
            if let DesiredNic::Veth { netns, pin, guest } = &port.nic {
                let (netns, settings) = (netns.clone(), guest.clone());
                self.step(Op::ConfigureGuest { port: id, netns, pin: *pin, settings }, None);
            }
            self.tag(port);
        } else if (seen.up && !cut) != port.admin_up {
            let (to, back) = if port.admin_up { (Switch::Up, Switch::Down) } else { (Switch::Down, Switch::Up) };
            self.step(Op::SetLink { port: id, switch: to }, Some(Op::SetLink { port: id, switch: back }));
        }
    }

    /// Tags a device that is in its bridge: with its learning off, which a device in none is refused.
    fn tag(&mut self, port: &DesiredPort) {
        let learning = (!port.silent).then_some(LinkChange::Learning(false));
        let changes = learning.into_iter().chain([tag_of(port)]).collect();
        self.step(Op::Configure { port: port.id, at: At::Altname, changes }, None);
    }

    fn free_name(&mut self, name: impl Fn(usize) -> LinkName) -> Result<LinkName, PlanError> {
        let free = |name: &LinkName| self.have.named(name.as_str()).is_none() && !self.named.contains(name);
        let found = (0..NAME_CHOICES).map(&name).find(free);
        let found = found.ok_or_else(|| PlanError::NoFreeName(name(0).to_string()))?;
        self.named.insert(found.clone());
        Ok(found)
    }

    fn free_index(&self, index: u32) -> Result<(), PlanError> {
        match self.have.link(index) {
            Some(_) => Err(PlanError::IndexTaken(index)),
            None => Ok(()),
        }
    }

    fn delete(&self, port: PortId) -> Op {
        Op::DeleteLink { port, store: self.have.store() }
    }

    fn delete_bridge(&self, network: NetworkId) -> Op {
        Op::DeleteBridge { network, store: self.have.store() }
    }

    fn step(&mut self, op: Op, undo: Option<Op>) {
        self.steps.push(Step::new(op, undo));
    }
}

/// Whether IPv6 comes back with a new MTU in bytes, and gives a link that is up an address at once (`addrconf_notify`,
/// net/ipv6/addrconf.c).
fn v6_returns(before: u32, after: u32) -> bool {
    before < V6_MTU && after >= V6_MTU
}

fn tag_of(port: &DesiredPort) -> LinkChange {
    LinkChange::Tag { alias: port.alias.clone(), switch: if port.admin_up { Switch::Up } else { Switch::Down } }
}
