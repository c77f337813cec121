//! Bridges and the host: an agent-made one delivers nothing to the host's stack. One that cannot be closed is refused, or
//! tolerated where the configuration says so; an operator's is left as it is, and told of when guests could use it.

use crate::inventory::Inventory;
use crate::model::NetworkId;
use crate::plan::LinkState;

use super::conditions::Problem;

/// The stable word for a bridge that cannot be closed.
pub const HOST_NOT_CLOSED: &str = "host_not_closed";

/// The stable word for an operator's bridge through which the host takes router advertisements.
pub const TAKES_RAS: &str = "bridge_takes_ras";

/// The bridges of operators through which the host takes router advertisements of guests.
pub fn taking_ras(state: &Inventory) -> impl Iterator<Item = &LinkState> {
    state.bridges.keys().filter_map(|name| state.have.named(name)).filter(|bridge| bridge.takes_ras)
}

/// What health tells of all this.
pub fn problems(state: &Inventory) -> impl Iterator<Item = Problem> {
    let open = open(state).map(|(network, why)| {
        let bridge = state.bridge_name(*network);
        problem(format!("bridge {bridge} of network {network} could not be closed to the host ({why})"))
    });
    let taking = taking_ras(state).map(|LinkState { name, .. }| Problem {
        reason: TAKES_RAS,
        detail: format!(
            "the host would take a guest's router advertisements through bridge {name}: addresses, routes and an MTU of the guest's choice"
        ),
        remedy: format!("sysctl -w net/ipv6/conf/{name}/accept_ra=0, and the same in /etc/sysctl.d"),
    });
    open.chain(taking)
}

/// The bridges that are open and are not to be, and why.
pub fn open(state: &Inventory) -> impl Iterator<Item = (&NetworkId, &String)> {
    let there = |(network, _): &(&NetworkId, &String)| state.have.own_bridge(**network).is_some();
    state.open.why.iter().filter(|_| !state.open.tolerated).filter(there)
}

/// A bridge that cannot be closed to the host, as health tells of it.
pub fn problem(detail: String) -> Problem {
    Problem {
        reason: HOST_NOT_CLOSED,
        detail,
        remedy: "load nf_tables (modprobe nf_tables) and leave table netdev nicd to nicd; or let guests' frames reach the host: \
                 links.require_host_closed = false in the configuration, and systemctl reload nicd"
            .to_owned(),
    }
}
