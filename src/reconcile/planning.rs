//! The plan for a port, and what the newest look says of it: the comparison of what should be with what is.

use std::collections::BTreeSet;

use crate::inventory::{self, Inventory, PortEntry};
use crate::model::{NetworkId, Port, PortId, Readiness, Standby};
use crate::plan::diff::{Bridge, Device, Segment, Trouble, drift};
use crate::plan::facts::{FactName, first_unmet};
use crate::plan::{BridgeMade, Desired, DesiredBridge, DesiredPort, DesiredSegment, Facet, MachineNic, Plan, Reason, plan};

use super::problems::Problem;
use super::{Error, Reconciler, Why};

/// The stable word for a port whose guest's kernel refused a route.
pub const ROUTE_REFUSED: &str = "route_refused";

impl Reconciler {
    /// The plan for one port and its bridge, on what is known now.
    pub(super) fn plan_port(&self, state: &Inventory, port: PortId, reason: Reason) -> Result<Plan, Error> {
        self.plan_record(state, &state.port(port)?.record, reason)
    }

    /// The same for a record that may not be one yet.
    pub(crate) fn plan_record(&self, state: &Inventory, record: &Port, reason: Reason) -> Result<Plan, Error> {
        let network = &state.network(record.network_id)?.record;
        let mut bridge = state.desired_bridge(network);
        let mut want = state.desired_port(record, self.store_id).ok_or(inventory::Error::NoSuchPort(record.id))?;
        // An ifindex is drawn for what is made, and for nothing else.
        let makes_bridge = Bridge::find(&bridge, &state.have).is_none();
        if Device::find(&want, &bridge, &state.have).is_none_or(|device| device.is_replaced()) {
            want.index = self.fresh_index();
        }
        match &mut bridge.made {
            BridgeMade::ByAgent { index, .. } if makes_bridge => *index = self.fresh_index(),
            // The way to other hosts of a bridge that is there is mended with the bridge.
            BridgeMade::ByAgent { .. } => bridge.segment = None,
            BridgeMade::Existing { .. } => {}
        }
        self.number_segment(&mut bridge, state);
        let is_tunnelled = matches!(bridge.segment, Some(DesiredSegment::Vxlan { .. }));
        let overlays = state.first_overlay(network.id).filter(|_| is_tunnelled).into_iter().collect();
        let want = Desired { bridges: vec![bridge], ports: vec![want], overlays, ..Desired::default() };
        Ok(plan(reason, &want, &state.have)?)
    }

    /// What a port that is attached wants of the kernel.
    fn wants(&self, state: &Inventory, port: PortId) -> Option<(DesiredPort, DesiredBridge)> {
        let record = &state.ports.get(&port)?.record;
        let network = &state.networks.get(&record.network_id)?.record;
        Some((state.desired_port(record, self.store_id)?, state.desired_bridge(network)))
    }

    /// The facets in which a port's device differs from what is wanted.
    pub(super) fn drift(&self, state: &Inventory, port: PortId) -> BTreeSet<Facet> {
        self.wants(state, port).map(|(want, bridge)| drift(&want, &bridge, &state.have)).unwrap_or_default()
    }

    /// What the newest look says of a port that is to be there.
    pub(crate) fn readiness(&self, state: &Inventory, port: PortId) -> (Readiness, Option<Why>) {
        let Some((want, bridge)) = self.wants(state, port) else { return (Readiness::Waiting, None) };
        if state.port(port).is_ok_and(|entry| entry.record.is_unproven()) {
            return (Readiness::Waiting, Some(unproven(state, port)));
        }
        if let Some(standby) = state.port(port).ok().and_then(|entry| entry.record.standby.as_ref()) {
            return (Readiness::Waiting, Some(silent(standby)));
        }
        if let Some(host) = state.other_host_of(port) {
            let detail =
                format!("host '{host}' of the fleet has reserved what this port has: give it another address, or another MAC");
            return (Readiness::Waiting, Some(Why { reason: "claim_lost", detail }));
        }
        match first_unmet(&want, &bridge, &state.have) {
            None => {
                let refused = state.port(port).ok().and_then(refused_routes);
                (Readiness::Ready, refused.or_else(|| declined(state, port)).or_else(|| held(state, port)))
            }
            Some(FactName::Monitor) => (Readiness::Waiting, Some(unplugged(state, port))),
            Some(FactName::Uplink) => (Readiness::Waiting, Some(off_uplink(&bridge, state))),
            Some(fact) => {
                let detail = format!("{} does not hold", fact.as_str());
                (Readiness::Waiting, Some(Why { reason: fact.reason(), detail }))
            }
        }
    }

    /// Draws an index for the device that leads a network to other hosts, where that is to be made.
    fn number_segment(&self, bridge: &mut DesiredBridge, state: &Inventory) {
        let is_made = Segment::find(bridge, &state.have).is_some_and(|way| way.device.is_none() || way.is_replaced());
        let kind = bridge.segment.as_ref().filter(|_| is_made).and_then(DesiredSegment::kind);
        if let Some((kind, index)) = kind.zip(bridge.segment.as_mut().and_then(DesiredSegment::index_mut)) {
            *index = self.fresh_segment_index(kind);
        }
    }

    /// What would set an agent-made bridge that is there back to its record; none when it is as it should be.
    pub(crate) fn plan_bridge(&self, state: &Inventory, network: NetworkId) -> Option<Plan> {
        state.have.own_bridge(network).or_else(|| state.have.unmarked_bridge(network))?;
        let mut bridge = state.desired_bridge(&state.networks.get(&network)?.record);
        let BridgeMade::ByAgent { .. } = bridge.made else { return None };
        self.number_segment(&mut bridge, state);
        let plan = plan(Reason::Drift, &Desired { bridges: vec![bridge], ..Desired::default() }, &state.have).ok()?;
        (!plan.steps.is_empty()).then_some(plan)
    }
}

/// Why a port's device is silent.
fn silent(standby: &Standby) -> Why {
    let detail = match standby {
        Standby::ActiveOn(host) => format!("the port is active on host '{host}' of the fleet"),
        Standby::HandedTo(host) => {
            format!("the port is being moved to host '{host}' of the fleet, and etcd has not told whether it is there")
        }
    };
    Why { reason: "binding_inactive", detail }
}

/// Why a port's network does not reach other hosts.
fn off_uplink(bridge: &DesiredBridge, state: &Inventory) -> Why {
    let way = Segment::find(bridge, &state.have);
    let trouble = way.as_ref().and_then(Segment::trouble);
    Why {
        reason: trouble.map_or(FactName::Uplink.reason(), Trouble::reason),
        detail: way.map_or_else(String::new, |way| way.words()),
    }
}

/// Why a port's machine does not have its NIC.
fn unplugged(state: &Inventory, port: PortId) -> Why {
    match state.have.nic(port) {
        Some(MachineNic::Missing { reason, detail }) => Why { reason, detail: detail.clone() },
        _ => Why { reason: FactName::Monitor.reason(), detail: "the machine does not hold the port's tap open".to_owned() },
    }
}

/// What an ACTIVE port says of an address that its guest found in use; none where it did not.
fn declined(state: &Inventory, port: PortId) -> Option<Why> {
    let address = state.declined_by(port).next()?;
    Some(Why {
        reason: Problem::AddressDeclined.word(),
        detail: format!("the guest found {address} in use by another machine on its network"),
    })
}

/// What an ACTIVE port says of an address that another machine has.
fn held(state: &Inventory, port: PortId) -> Option<Why> {
    state.conflicts.get(&port).map(|conflict| Why { reason: Problem::AddressInUse.word(), detail: conflict.to_string() })
}

/// Why a port is down whose addresses may be another machine's.
fn unproven(state: &Inventory, port: PortId) -> Why {
    let detail = "it is being asked whether another machine on the network has its addresses".to_owned();
    held(state, port).unwrap_or(Why { reason: ADDRESS_UNPROVEN, detail })
}

/// The stable word for a port of which it is being asked whether another machine has an address.
const ADDRESS_UNPROVEN: &str = "address_unproven";

/// What an ACTIVE port says of routes that its guest's kernel refused; none when it refused none.
fn refused_routes(entry: &PortEntry) -> Option<Why> {
    let detail = || entry.refused.join("; ");
    (!entry.refused.is_empty()).then(|| Why { reason: ROUTE_REFUSED, detail: detail() })
}
