//! Bridges and the host: an agent-made one delivers nothing to the host's stack. One that cannot be closed is refused, or
//! tolerated where the configuration says so; an operator's is left as it is, and told of when guests could use it.

use crate::inventory::Inventory;
use crate::model::NetworkId;
use crate::plan::LinkState;

/// The bridges of operators through which the host takes router advertisements of guests.
pub fn taking_ras(state: &Inventory) -> impl Iterator<Item = &LinkState> {
    state.bridges.keys().filter_map(|name| state.have.named(name)).filter(|bridge| bridge.takes_ras)
}

/// The bridges that are open and are not to be, and why.
pub fn open(state: &Inventory) -> impl Iterator<Item = (&NetworkId, &String)> {
    let there = |(network, _): &(&NetworkId, &String)| state.have.own_bridge(**network).is_some();
    state.open.why.iter().filter(|_| !state.open.tolerated).filter(there)
}
