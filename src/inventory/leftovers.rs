//! Links that nicd built and no record wants.

use uuid::Uuid;

use crate::model::names::SegmentKind;
use crate::model::{NetworkId, PortId, names};
use crate::plan::{Kind, LinkState, Owner};

use super::entries::Inventory;

pub use super::entries::Leftover;

/// Everything that a nicd with this store left over, by index.
pub fn leftovers(state: &Inventory, store: Uuid) -> Vec<Leftover> {
    state.have.iter().filter_map(|link| leftover(state, link, store)).collect()
}

/// What a link is as a leftover of a nicd with this store; none when a record wants it, or that nicd never made it.
pub fn leftover(state: &Inventory, link: &LinkState, store: Uuid) -> Option<Leftover> {
    let by_us = store == state.store_id;
    let owner = if by_us { Owner::Us } else { Owner::OtherStore(store) };
    if link.owner(state.store_id) != owner {
        return None;
    }
    let tagged = || link.alias.as_deref().and_then(names::tagged_segment);
    if let Some(of) = link.segment().or_else(tagged) {
        return leftover_segment(state, link, of, by_us);
    }
    let mark = link.marks().next();
    let reason = match mark {
        // One that a record wants under another mark is that record's. What another store's nicd made no record here wants.
        Some(_) if !by_us || link.marks().all(|mark| stranger(state, mark)) => "device_without_record",
        None if !by_us || !wanted(state, link) => "mark_lost",
        _ => return None,
    };
    Some(Leftover {
        object: link.name.clone(),
        kind: link.kind.as_str(),
        reason,
        altname: mark.map(|mark| names::port_altname(PortId(mark))),
        alias: link.alias.clone(),
        index: link.index,
        id: mark.unwrap_or_else(|| id_of_unmarked(link, store)),
    })
}

/// The same of a device that leads a network to other hosts: one that belongs to no network.
fn leftover_segment(
    state: &Inventory,
    link: &LinkState,
    (_, network): (SegmentKind, NetworkId),
    by_us: bool,
) -> Option<Leftover> {
    if by_us && state.networks.contains_key(&network) {
        return None;
    }
    let altname = link.segment().map(|(kind, network)| names::segment_altname(kind, network));
    Some(Leftover {
        object: link.name.clone(),
        kind: link.kind.as_str(),
        reason: if altname.is_some() { "device_without_record" } else { "mark_lost" },
        altname,
        alias: link.alias.clone(),
        index: link.index,
        id: network.0,
    })
}

/// The id that a link without its mark is addressed by: a bridge's network, and for a device one that nothing else has.
fn id_of_unmarked(link: &LinkState, store: Uuid) -> Uuid {
    let network = link.alias.as_deref().filter(|_| link.kind == Kind::Bridge).and_then(names::tagged_network);
    network.map_or_else(|| Uuid::from_u128(store.as_u128() ^ u128::from(link.index)), |network| network.0)
}

/// Whether a link without its altname gets it back: it has the tag of an attach of a port that has a server or is leaving it, or
/// a network's bridge.
fn wanted(state: &Inventory, link: &LinkState) -> bool {
    if link.kind == Kind::Bridge {
        let network = link.alias.as_deref().and_then(names::tagged_network);
        return network.is_some_and(|network| state.networks.contains_key(&network));
    }
    let Some(commit) = link.alias.as_deref().and_then(|alias| names::commit_in_tag(alias, state.store_id)) else { return false };
    let mut bindings = state.ports.values().filter_map(|entry| entry.record.binding.as_ref());
    bindings.any(|binding| binding.commit == commit)
}

/// Whether no record wants a link with this mark.
fn stranger(state: &Inventory, mark: Uuid) -> bool {
    let port = state.ports.get(&PortId(mark));
    let unwanted = port.is_none_or(|entry| entry.record.binding.is_none() && !entry.claim.taken());
    unwanted && !state.networks.contains_key(&NetworkId(mark))
}
