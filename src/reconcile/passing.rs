//! Devices that are made and in their bridge, and that frames do not pass all the same, because of settings that are an operator's.

use std::collections::BTreeMap;

use crate::inventory::Inventory;
use crate::model::NetworkId;
use crate::plan::LinkState;
use crate::plan::diff::vlan_remedy;

use super::conditions::Problem;

/// The stable word for a device that untagged frames do not pass.
pub const VLAN: &str = "vlan";

/// How many devices health names one by one.
const NAMED: usize = 16;

/// The stable word for bridges whose frames the host's packet filter drops.
pub const FORWARD_FILTERED: &str = "forward_filtered";

/// Whether there is a device that untagged frames do not pass.
pub fn is_deaf(state: &Inventory) -> bool {
    state.have.deaf().next().is_some()
}

/// The networks' bridges whose frames the host's packet filter drops.
pub fn filtered(state: &Inventory) -> impl Iterator<Item = &LinkState> {
    let used = |bridge: &&LinkState| {
        let agents = || state.have.ours(bridge) && bridge.marks().any(|mark| state.networks.contains_key(&NetworkId(mark)));
        state.bridges.contains_key(&bridge.name) || agents()
    };
    state.have.filtered().filter(used)
}

/// What health tells of all of them.
pub fn problems(state: &Inventory) -> impl Iterator<Item = Problem> {
    deaf(state).chain(dropping(state))
}

/// One problem for all bridges of one chain.
fn dropping(state: &Inventory) -> impl Iterator<Item = Problem> {
    let mut by: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for bridge in filtered(state) {
        for (protocol, way) in [("IPv4", &bridge.forward.v4), ("IPv6", &bridge.forward.v6)] {
            way.closed().into_iter().for_each(|chain| by.entry((chain, protocol)).or_default().push(&bridge.name));
        }
    }
    by.into_iter().map(|((chain, protocol), bridges)| {
        let more = bridges.len().checked_sub(NAMED).filter(|more| *more > 0).map(|more| format!("and {more} more"));
        let named: Vec<String> = bridges.iter().take(NAMED).map(|name| (*name).to_owned()).chain(more).collect();
        let iptables = if protocol == "IPv4" { "iptables" } else { "ip6tables" };
        let place = match chain.strip_prefix("chain ").and_then(|chain| chain.split_once(" of table ")) {
            Some((name, table)) => format!("{table} {name}"),
            None => chain.to_owned(),
        };
        let bridge = if bridges.len() == 1 { bridges[0] } else { "BRIDGE" };
        let accept = |names: [&str; 2]| {
            format!("nft insert rule {place} {} {bridge} {} {bridge} accept", names[0], names[1])
        };
        let remedy = match place.starts_with("bridge ") {
            true => format!("have that chain accept them: {}", accept(["meta ibrname", "meta obrname"])),
            false => format!(
                "sysctl -w net.bridge.bridge-nf-call-{iptables}=0, and the same in /etc/sysctl.d; or have that chain accept them: {}, or \
                 where {iptables} made it: {iptables} -I FORWARD -m physdev --physdev-is-bridged -j ACCEPT",
                accept(["iifname", "oifname"])
            ),
        };
        let detail = format!("{chain} drops {protocol} between guests on {}", named.join(", "));
        Problem { reason: FORWARD_FILTERED, detail, remedy }
    })
}

fn deaf(state: &Inventory) -> impl Iterator<Item = Problem> {
    let named = state.have.deaf().take(NAMED).map(|(device, bridge)| {
        let pvid = device.vlan.map(|vlan| vlan.pvid).filter(|pvid| *pvid != 0);
        let seen = match pvid {
            None => "has no pvid".to_owned(),
            Some(pvid) if device.vlan.is_some_and(|vlan| vlan.untagged) => format!("does not forward its VLAN {pvid}"),
            Some(pvid) => format!("is tagged in its VLAN {pvid}"),
        };
        (
            format!("{} {seen} on bridge {}, which tells VLANs apart: its guest's frames are dropped", device.name, bridge.name),
            vlan_remedy(&device.name, pvid),
        )
    });
    let more = state.have.deaf().skip(NAMED).count();
    let more = (more > 0).then(|| (format!("and so are those of {more} more"), vlan_remedy("DEVICE", None)));
    named.chain(more).map(|(detail, remedy)| Problem { reason: VLAN, detail, remedy })
}
