//! Bridges that come to their end: the kernel takes so many ports into one and no more, and an operator should know before.

use std::collections::BTreeSet;

use crate::inventory::Inventory;
use crate::model::NetworkId;
use crate::plan::{LinkState, ROOM_AGAIN};

/// Notes the bridges that are nearly full. One stays it until it has more room than one that becomes it, so that ports that come
/// and go at the edge are no news.
pub fn note(state: &Inventory, nearly_full: &mut BTreeSet<u32>) {
    nearly_full.retain(|bridge| state.have.members(*bridge) > ROOM_AGAIN);
    nearly_full.extend(state.have.crowded().map(|bridge| bridge.index));
}

/// Networks' bridges that are nearly full.
pub fn bridges<'a>(state: &'a Inventory, nearly_full: &'a BTreeSet<u32>) -> impl Iterator<Item = &'a LinkState> {
    let noted = nearly_full.iter().filter_map(|bridge| state.have.link(*bridge));
    noted.filter(|bridge| is_a_networks(state, bridge))
}

fn is_a_networks(state: &Inventory, bridge: &LinkState) -> bool {
    let by_agent = || state.have.ours(bridge) && bridge.marks().any(|mark| state.networks.contains_key(&NetworkId(mark)));
    let named = |name: &str| bridge.name == name || bridge.altnames.iter().any(|altname| altname == name);
    let existing = || state.networks.values().filter_map(|entry| entry.record.bridge.as_ref());
    by_agent() || existing().any(|name| named(name.as_str()))
}
