//! What ACTIVE promises, fact by fact, judged on one look. Status and `explain` both come from here.

use serde::{Serialize, Serializer};

use super::forward::Way;
use super::have::{Have, LinkSeen, PortVlan};
use super::want::{BridgeMade, BridgeWant, NicWant, PortWant, Speaks};

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

/// The facts, in the order in which they decide: the first that does not hold is the cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FactName {
    /// The last try to build it did not fail.
    Possible,
    /// It has a server.
    Bound,
    /// Its guest's namespace is there.
    Namespace,
    /// A device carries the port's altname.
    Device,
    /// It is in its network's bridge.
    Bridge,
    /// Its network's agent-made bridge, and it as a port of that, deliver nothing to the host's stack.
    HostClosed,
    /// Its bridge tells no VLANs apart, or the port passes untagged frames in one of them.
    Vlan,
    /// The host's packet filter lets frames pass between the ports of its bridge.
    ForwardFiltered,
    /// It is finished: sealed with the alias, and in a namespace the addresses are set.
    Built,
    /// The bridge's FDB has a static entry for the guest's MAC, which leads to the device.
    Fdb,
    /// The port is to be up, and the device is.
    Admin,
    /// The guest's side is there: the tap is open, the peer is up.
    Carrier,
    /// The bridge forwards from and to it.
    Forwarding,
}

impl FactName {
    /// The word for the fact.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Possible => "possible",
            Self::Bound => "bound",
            Self::Namespace => "namespace",
            Self::Device => "device",
            Self::Bridge => "bridge",
            Self::HostClosed => "host_closed",
            Self::Vlan => "vlan",
            Self::ForwardFiltered => "forward_filtered",
            Self::Built => "built",
            Self::Fdb => "fdb",
            Self::Admin => "admin_up",
            Self::Carrier => "carrier",
            Self::Forwarding => "forwarding",
        }
    }

    /// The stable word for "it does not hold" (`nicd:reason`).
    pub fn reason(self) -> &'static str {
        match self {
            Self::Possible => "failed",
            Self::Bound => "unbound",
            Self::Namespace => "namespace_gone",
            Self::Device => "device_missing",
            Self::Bridge => "not_in_bridge",
            Self::HostClosed => "host_not_closed",
            Self::Vlan => "vlan",
            Self::ForwardFiltered => "forward_filtered",
            Self::Built => "unfinished",
            Self::Fdb => "fdb_missing",
            Self::Admin => "admin_down",
            Self::Carrier => "no_carrier",
            Self::Forwarding => "not_forwarding",
        }
    }
}

impl Serialize for FactName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The first fact about a port that does not hold; none when ACTIVE holds. Costs no allocation.
pub fn first_unmet(port: &PortWant, bridge: &BridgeWant, have: &Have) -> Option<FactName> {
    const ORDER: [FactName; 10] = [
        FactName::Device,
        FactName::Bridge,
        FactName::HostClosed,
        FactName::Vlan,
        FactName::ForwardFiltered,
        FactName::Built,
        FactName::Fdb,
        FactName::Admin,
        FactName::Carrier,
        FactName::Forwarding,
    ];
    let device = have.device(port.id);
    ORDER.into_iter().find(|&fact| !device.is_some_and(|link| holds(fact, link, port, bridge, have)))
}

/// Every fact about a port, with what was seen.
pub fn facts(port: &PortWant, bridge: &BridgeWant, have: &Have) -> Vec<Fact> {
    let Some(link) = have.device(port.id) else {
        let detail = match have.in_place_of_device(port.id) {
            Some(link) => format!("{} carries the altname nicd-{} and was not made by this nicd", link.name, port.id),
            None => format!("no link carries the altname nicd-{}", port.id),
        };
        return vec![Fact { fact: FactName::Device, ok: false, detail }];
    };
    let master = || match link.master.and_then(|index| have.link(index)) {
        Some(bridge) => format!("{} is in {}", link.name, bridge.name),
        None => format!("{} is in no bridge", link.name),
    };
    let closed = || match (bridge_seen(bridge, have), link.bridge_port) {
        _ if !bridge.made.closes() => "guests' frames may reach the host: links.require_host_closed is false".to_owned(),
        (Some(home), _) if !home.host_closed => format!("guests' frames reach the host through {}", home.name),
        (_, Some(seen)) if !seen.passes_link_local => {
            format!("frames to 01:80:c2:00:00:0X reach the host through {}", link.name)
        }
        _ => "no frame reaches the host".to_owned(),
    };
    let built = || match &port.nic {
        NicWant::Tap { .. } => format!("alias is {}", link.alias.as_deref().unwrap_or("not set")),
        NicWant::Veth { guest, .. } => {
            format!("alias is {}; {} addresses in the guest", link.alias.as_deref().unwrap_or("not set"), guest.addresses.len())
        }
    };
    let carrier = || match (&port.nic, link.lower_up) {
        (NicWant::Tap { .. }, true) => "a process holds the tap open".to_owned(),
        (NicWant::Tap { .. }, false) => "no process holds the tap open".to_owned(),
        (NicWant::Veth { .. }, true) => "the guest's end is up".to_owned(),
        (NicWant::Veth { .. }, false) => "the guest's end is down".to_owned(),
    };
    let admin = || format!("the port is to be {}, the device is {}", up_or_down(port.admin_up), up_or_down(link.up));
    let forwarding = || match link.bridge_port {
        Some(seen) if seen.forwarding => "the bridge port forwards".to_owned(),
        _ => "the bridge port does not forward".to_owned(),
    };
    let fact = |fact, detail| Fact { fact, ok: holds(fact, link, port, bridge, have), detail };
    let mut all = vec![
        fact(FactName::Device, format!("{} with index {}", link.name, link.index)),
        fact(FactName::Bridge, master()),
        fact(FactName::Vlan, tagging(link, bridge, have)),
        fact(FactName::ForwardFiltered, filtering(port, bridge, have)),
        fact(FactName::Built, built()),
        fact(FactName::Fdb, entered(link, port)),
        fact(FactName::Admin, admin()),
        fact(FactName::Carrier, carrier()),
        fact(FactName::Forwarding, forwarding()),
    ];
    // An operator's bridge is left as it is.
    if matches!(bridge.made, BridgeMade::ByAgent { .. }) {
        all.insert(2, fact(FactName::HostClosed, closed()));
    }
    all
}

/// The bridge a want names, where the kernel has it.
pub(super) fn bridge_seen<'a>(bridge: &BridgeWant, have: &'a Have) -> Option<&'a LinkSeen> {
    match &bridge.made {
        BridgeMade::ByAgent { .. } => have.own_bridge(bridge.network),
        BridgeMade::Existing { name } => have.named(name.as_str()),
    }
}

fn holds(fact: FactName, link: &LinkSeen, port: &PortWant, bridge: &BridgeWant, have: &Have) -> bool {
    match fact {
        FactName::Possible | FactName::Bound | FactName::Namespace | FactName::Device => true,
        FactName::Bridge => link.master.is_some() && link.master == bridge_seen(bridge, have).map(|bridge| bridge.index),
        FactName::HostClosed => {
            !bridge.made.closes()
                || bridge_seen(bridge, have).is_some_and(|home| home.host_closed)
                    && link.bridge_port.is_some_and(|seen| seen.passes_link_local)
        }
        FactName::Vlan => passing(link, bridge, have).is_none_or(PortVlan::passes),
        FactName::ForwardFiltered => !ways(port, bridge, have).any(|(_, way)| way.closed().is_some()),
        FactName::Built => link.alias.as_deref() == Some(port.alias.as_str()),
        FactName::Fdb => link.fdb.is_none() || link.entry(port.mac, link.entry_vlan()).is_some(),
        FactName::Admin => port.admin_up && link.up,
        FactName::Carrier => link.lower_up,
        FactName::Forwarding => link.bridge_port.is_some_and(|seen| seen.forwarding),
    }
}

/// What untagged frames meet at a device; none where its bridge tells no VLANs apart, or it was not asked.
pub(super) fn passing(link: &LinkSeen, bridge: &BridgeWant, have: &Have) -> Option<PortVlan> {
    link.vlan.filter(|_| bridge_seen(bridge, have).is_some_and(|home| home.extras.vlan_filtering))
}

/// The same in words.
pub(super) fn tagging(link: &LinkSeen, bridge: &BridgeWant, have: &Have) -> String {
    let home = bridge_seen(bridge, have).map_or("the bridge", |home| home.name.as_str());
    let device = &link.name;
    match passing(link, bridge, have) {
        None => format!("{home} does not tell VLANs apart"),
        Some(PortVlan { pvid: 0, .. }) => {
            format!(
                "{home} tells VLANs apart and {device} has no pvid: the guest's frames are dropped; {}",
                vlan_remedy(device, None)
            )
        }
        Some(PortVlan { pvid, untagged: false, .. }) => {
            let remedy = vlan_remedy(device, Some(pvid));
            format!("frames of VLAN {pvid} of {home} leave by {device} tagged, and the guest takes untagged ones; {remedy}")
        }
        Some(PortVlan { pvid, blocked: true, .. }) => format!("{home} does not forward VLAN {pvid} at {device}"),
        Some(PortVlan { pvid, .. }) => format!("{device} is untagged in VLAN {pvid} of {home}"),
    }
}

/// What lets untagged frames pass a device: in the VLAN that it has, or in one of the operator's choice.
pub fn vlan_remedy(device: &str, pvid: Option<u16>) -> String {
    let vid = pvid.map_or_else(|| "VLAN".to_owned(), |pvid| pvid.to_string());
    format!("bridge vlan add dev {device} vid {vid} pvid untagged")
}

/// What frames of a guest's protocols meet in the host's packet filter: of both, where it has no address.
pub(super) fn ways<'a>(
    port: &PortWant,
    bridge: &BridgeWant,
    have: &'a Have,
) -> impl Iterator<Item = (&'static str, &'a Way)> + use<'a> {
    let Speaks { v4, v6 } = port.speaks;
    let forward = bridge_seen(bridge, have).map(|home| &home.forward);
    let both = forward.into_iter().flat_map(move |forward| [("IPv4", v4, &forward.v4), ("IPv6", v6, &forward.v6)]);
    both.filter(move |(_, speaks, _)| *speaks || v4 == v6).map(|(protocol, _, way)| (protocol, way))
}

/// The same in words.
pub(super) fn filtering(port: &PortWant, bridge: &BridgeWant, have: &Have) -> String {
    let told = ways(port, bridge, have).filter_map(|(protocol, way)| match way {
        Way::Open => None,
        Way::Unsure(chain) => {
            Some(format!("{chain} decides about {protocol} between guests by rules that are not known to nicd"))
        }
        Way::Closed(chain) => Some(format!("{chain} drops {protocol} between guests")),
    });
    match told.collect::<Vec<_>>() {
        told if told.is_empty() => "the host's packet filter lets frames between guests pass".to_owned(),
        told => told.join("; "),
    }
}

/// What the FDB has for a port's guest, in words.
pub(super) fn entered(link: &LinkSeen, port: &PortWant) -> String {
    let vlan = match link.entry_vlan() {
        0 => String::new(),
        vlan => format!(" in VLAN {vlan}"),
    };
    match (&link.fdb, link.entry(port.mac, link.entry_vlan())) {
        (None, _) => format!("the FDB was not asked for {}", port.mac),
        (_, None) => format!("no static entry for {}{vlan} leads to {}", port.mac, link.name),
        (_, Some(entry)) => {
            let sticky = if entry.sticky { " and sticky" } else { "" };
            format!("{}{vlan} is at {}, static{sticky}", port.mac, link.name)
        }
    }
}

fn up_or_down(up: bool) -> &'static str {
    if up { "up" } else { "down" }
}
