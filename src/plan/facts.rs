//! What ACTIVE promises, fact by fact, evaluated on one observation. Status and `explain` both come from here.

use serde::Serialize;

use super::desired::{BridgeMade, DesiredBridge, DesiredNic, DesiredPort};
use super::diff::{Device, Property, Segment, up};
use super::observed::{LinkState, Observed};

pub use super::diff::FactName;

/// One fact that ACTIVE depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fact {
    /// Which.
    pub fact: FactName,
    /// Whether it holds.
    pub ok: bool,
    /// What was seen, in words.
    pub detail: String,
}

/// The first fact about a port that does not hold; none when ACTIVE holds. Costs no allocation.
pub fn first_unmet(port: &DesiredPort, bridge: &DesiredBridge, have: &Observed) -> Option<FactName> {
    const ORDER: [FactName; 13] = [
        FactName::Bridge,
        FactName::Uplink,
        FactName::HostClosed,
        FactName::Filters,
        FactName::Vlan,
        FactName::ForwardFiltered,
        FactName::Responder,
        FactName::Built,
        FactName::Fdb,
        FactName::Admin,
        FactName::Monitor,
        FactName::Carrier,
        FactName::Forwarding,
    ];
    match Device::find(port, bridge, have).filter(|device| device.marked) {
        None if parent(port, have).is_some_and(|fact| !fact.ok) => Some(FactName::Parent),
        None => Some(FactName::Device),
        Some(device) => ORDER.into_iter().find(|fact| !holds(*fact, &device)),
    }
}

/// Every fact about a port, with what was seen.
pub fn facts(port: &DesiredPort, bridge: &DesiredBridge, have: &Observed) -> Vec<Fact> {
    let Some(device) = Device::find(port, bridge, have).filter(|device| device.marked) else {
        let detail = match have.in_place_of_device(port.id) {
            Some(link) => format!("{} carries the altname nicd-{} and was not made by this nicd", link.name, port.id),
            None => format!("no link carries the altname nicd-{}", port.id),
        };
        return parent(port, have).into_iter().chain([Fact { fact: FactName::Device, ok: false, detail }]).collect();
    };
    let link = device.link;
    let master = || match link.master.and_then(|index| have.link(index)) {
        Some(bridge) => format!("{} is in {}", link.name, bridge.name),
        None => format!("{} is in no bridge", link.name),
    };
    let closed = || match device.home {
        _ if !bridge.made.closes() => "guests' frames may reach the host: links.require_host_closed is false".to_owned(),
        Some(home) if !home.host_closed => format!("guests' frames reach the host through {}", home.name),
        _ if device.differs(Property::HostClosed) => format!("frames to 01:80:c2:00:00:0X reach the host through {}", link.name),
        _ => "no frame reaches the host".to_owned(),
    };
    let alias = link.alias.as_deref().unwrap_or("not set");
    let built = || match &port.nic {
        DesiredNic::Tap { .. } => format!("alias is {alias}"),
        DesiredNic::Veth { guest, .. } => format!("alias is {alias}; {} addresses in the guest", guest.addresses.len()),
        DesiredNic::Vlan { id, .. } => format!("alias is {alias}; it is of VLAN {id}"),
    };
    let carrier = || match (&port.nic, device.runs()) {
        (DesiredNic::Tap { .. }, true) => "a process holds the tap open".to_owned(),
        (DesiredNic::Tap { .. }, false) => "no process holds the tap open: start the virtual machine, which opens it".to_owned(),
        (DesiredNic::Veth { .. }, true) => "the guest's end is up".to_owned(),
        (DesiredNic::Veth { .. }, false) => "the guest's end is down".to_owned(),
        (DesiredNic::Vlan { parent, .. }, true) => format!("the device of port {parent} has carrier"),
        (DesiredNic::Vlan { parent, .. }, false) => {
            format!("the device of port {parent} has no carrier; nicctl explain {parent}")
        }
    };
    let forwarding = || match forwards(link) {
        true => "the bridge port forwards".to_owned(),
        false if device.home.is_some_and(|home| home.extras.stp) => format!(
            "the bridge port does not forward: the spanning tree of its bridge keeps a port so for some 30 s after it came up, and \
             disables one with BPDU guard when its guest sends a BPDU; ip link set {0} down, then up, enables it",
            link.name
        ),
        false => "the bridge port does not forward".to_owned(),
    };
    let fact = |fact, detail| Fact { fact, ok: holds(fact, &device), detail };
    let mut all = vec![
        fact(FactName::Device, format!("{} with index {}", link.name, link.index)),
        fact(FactName::Bridge, master()),
        fact(FactName::Filters, device.filtered()),
        fact(FactName::Vlan, device.tagging()),
        fact(FactName::ForwardFiltered, device.filtering()),
        fact(FactName::Built, built()),
        fact(FactName::Fdb, device.entered()),
        fact(FactName::Admin, format!("the port is to be {}, the device is {}", up(port.admin_up), up(link.up))),
        fact(FactName::Carrier, carrier()),
        fact(FactName::Forwarding, forwarding()),
    ];
    if is_answered(port) {
        let heard = || match device.home {
            _ if link.filter.is_unavailable() => {
                "DHCP requests are not heard: the kernel has no nf_tables that turns them to nicd; set \
                enable_dhcp of the subnet or nicd:dhcp of the port to false where another server answers"
                    .to_owned()
            }
            Some(home) if have.is_heard(home.index) => format!("DHCP requests are heard on {}", home.name),
            Some(home) => format!("DHCP requests are not heard on {}: no socket could be bound to it", home.name),
            None => "DHCP requests are not heard: the bridge is not there".to_owned(),
        };
        let at = all.iter().position(|fact| fact.fact == FactName::Built).unwrap_or(all.len());
        all.insert(at, fact(FactName::Responder, heard()));
    }
    if port.monitor.is_some() {
        let at = all.iter().position(|fact| fact.fact == FactName::Carrier).unwrap_or(all.len());
        all.insert(at, fact(FactName::Monitor, device.plugged()));
    }
    let segment = Segment::find(bridge, have);
    // An operator's bridge is left as it is.
    if matches!(bridge.made, BridgeMade::ByAgent { .. }) {
        all.insert(2, fact(FactName::HostClosed, closed()));
    }
    if let Some(segment) = segment {
        all.insert(2, fact(FactName::Uplink, segment.words()));
    }
    parent(port, have).into_iter().chain(all).collect()
}

/// Whether the device is there that is to carry a subport's frames; none of a port with a NIC of its own.
fn parent(port: &DesiredPort, have: &Observed) -> Option<Fact> {
    let DesiredNic::Vlan { parent, id } = &port.nic else { return None };
    let (ok, detail) = match have.device(*parent) {
        Some(device) => (true, format!("its frames have the tag of VLAN {id} on {}", device.name)),
        None => (false, format!("port {parent}, whose NIC is to carry its frames, has no device; nicctl explain {parent}")),
    };
    Some(Fact { fact: FactName::Parent, ok, detail })
}

/// Whether a fact about a device holds: nothing differs on which it rests, and what the guest decides is so.
fn holds(fact: FactName, device: &Device<'_>) -> bool {
    let decided = match fact {
        FactName::Uplink => Segment::find(device.bridge, device.have).is_none_or(|segment| segment.trouble().is_none()),
        FactName::HostClosed => {
            !device.bridge.made.closes() || !device.is_away() && device.home.is_some_and(|home| home.host_closed)
        }
        FactName::Responder => {
            let is_heard =
                !device.link.filter.is_unavailable() && device.home.is_some_and(|home| device.have.is_heard(home.index));
            !is_answered(device.want) || is_heard
        }
        FactName::Admin => device.want.admin_up && device.link.up,
        FactName::Carrier => device.runs(),
        FactName::Forwarding => forwards(device.link),
        _ => true,
    };
    decided && !device.breaks(fact)
}

/// Whether its guest gets its address by DHCP alone: one in a namespace has it already.
fn is_answered(port: &DesiredPort) -> bool {
    !matches!(port.nic, DesiredNic::Veth { .. }) && port.filter.as_ref().is_some_and(|filter| filter.served.is_some())
}

fn forwards(link: &LinkState) -> bool {
    link.bridge_port.is_some_and(|port| port.forwarding)
}
