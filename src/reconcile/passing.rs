//! Devices that are made and in their bridge, and that frames do not pass all the same, because of settings that are an operator's.

use std::collections::BTreeSet;

use crate::inventory::Inventory;
use crate::model::NetworkId;
use crate::plan::LinkState;

use super::conditions::Finding;

/// How many bridges are named one by one.
const NAMED: usize = 16;

/// A chain that drops frames of a protocol.
pub type Chain<'a> = (&'a str, &'static str);

/// The VLAN into which a device's untagged frames go, if there is one.
pub fn pvid(device: &LinkState) -> Option<u16> {
    device.vlan.map(|vlan| vlan.pvid).filter(|pvid| *pvid != 0)
}

/// The chains of the host's packet filter that drop frames on networks' bridges.
pub fn chains(state: &Inventory) -> impl Iterator<Item = Chain<'_>> {
    let mut known = BTreeSet::new();
    filtered(state).flat_map(closed).filter(move |chain| known.insert(*chain))
}

/// What is seen of one of them: all bridges that it is about.
pub fn finding(state: &Inventory, chain: Chain<'_>) -> Finding {
    let (said, protocol) = chain;
    let bridges: Vec<&str> =
        filtered(state).filter(|bridge| closed(bridge).any(|one| one == chain)).map(|bridge| bridge.name.as_str()).collect();
    let more = bridges.len().checked_sub(NAMED).filter(|more| *more > 0).map(|more| format!("and {more} more"));
    let named: Vec<String> = bridges.iter().take(NAMED).map(|name| (*name).to_owned()).chain(more).collect();
    let iptables = if protocol == "IPv4" { "iptables" } else { "ip6tables" };
    let place = match said.strip_prefix("chain ").and_then(|said| said.split_once(" of table ")) {
        Some((name, table)) => format!("{table} {name}"),
        None => said.to_owned(),
    };
    let bridge = if bridges.len() == 1 { bridges[0] } else { "BRIDGE" };
    let accept = |names: [&str; 2]| format!("nft insert rule {place} {} {bridge} {} {bridge} accept", names[0], names[1]);
    let remedy = match place.starts_with("bridge ") {
        true => format!("have that chain accept them: {}", accept(["meta ibrname", "meta obrname"])),
        false => format!(
            "sysctl -w net.bridge.bridge-nf-call-{iptables}=0, and the same in /etc/sysctl.d; or have that chain accept them: {}, or \
             where {iptables} made it: {iptables} -I FORWARD -m physdev --physdev-is-bridged -j ACCEPT",
            accept(["iifname", "oifname"])
        ),
    };
    Finding::new(format!("{said} drops {protocol} between guests on {}", named.join(", ")), remedy)
}

/// The networks' bridges whose frames the host's packet filter drops.
fn filtered(state: &Inventory) -> impl Iterator<Item = &LinkState> {
    let used = |bridge: &&LinkState| {
        let agents = || state.have.ours(bridge) && bridge.marks().any(|mark| state.networks.contains_key(&NetworkId(mark)));
        state.bridges.contains_key(&bridge.name) || agents()
    };
    state.have.filtered().filter(used)
}

fn closed(bridge: &LinkState) -> impl Iterator<Item = Chain<'_>> {
    let ways = [(&bridge.forward.v4, "IPv4"), (&bridge.forward.v6, "IPv6")];
    ways.into_iter().filter_map(|(way, protocol)| Some((way.closed()?, protocol)))
}
