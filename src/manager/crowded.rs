//! Bridges that come to their end: the kernel takes so many ports into one and no more, and an operator should know before.

use crate::model::NetworkId;
use crate::plan::{BRIDGE_PORTS, LinkState, ROOM_AGAIN};

use super::state::State;
use super::view::Problem;

/// The stable word.
pub(super) const NEARLY_FULL: &str = "bridge_nearly_full";

/// Notes the bridges that are nearly full. One stays it until it has more room than one that becomes it, so that ports that come
/// and go at the edge are no news.
pub(super) fn note(state: &mut State) {
    let State { have, nearly_full, .. } = state;
    nearly_full.retain(|bridge| have.members(*bridge) > ROOM_AGAIN);
    nearly_full.extend(have.crowded().map(|bridge| bridge.index));
}

/// Networks' bridges that are nearly full.
pub(super) fn bridges(state: &State) -> impl Iterator<Item = &LinkState> {
    let noted = state.nearly_full.iter().filter_map(|bridge| state.have.link(*bridge));
    noted.filter(|bridge| is_a_networks(state, bridge))
}

/// The same as health tells of them.
pub(super) fn problems(state: &State) -> impl Iterator<Item = Problem> {
    bridges(state).map(|bridge| Problem {
        reason: NEARLY_FULL,
        detail: format!("bridge {} has {} of {BRIDGE_PORTS} ports", bridge.name, state.have.members(bridge.index)),
        remedy: "detach what is not needed, or put further NICs on another network: a full bridge takes none".to_owned(),
    })
}

fn is_a_networks(state: &State, bridge: &LinkState) -> bool {
    let by_agent = || state.have.ours(bridge) && bridge.marks().any(|mark| state.networks.contains_key(&NetworkId(mark)));
    let named = |name: &str| bridge.name == name || bridge.altnames.iter().any(|altname| altname == name);
    let existing = || state.networks.values().filter_map(|entry| entry.record.bridge.as_ref());
    by_agent() || existing().any(|name| named(name.as_str()))
}
