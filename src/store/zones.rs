//! The migration that gives networks their zones of conntrack: those that they had while zones were no part of the record.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use rusqlite::{Connection, params};
use serde::Deserialize;

use super::records::damaged;
use super::{StoreError, failed};
use crate::model::NetworkId;

/// The first zone, and how many there are.
const FIRST: u32 = 4096;
const ZONES: u32 = 61_440;

/// What the zone was derived from.
#[derive(Deserialize)]
struct Network {
    id: NetworkId,
    bridge: Option<String>,
    created_at: Timestamp,
}

/// In the order in which they were made, each network has the zone of the networks on its bridge, or else one that is derived from
/// its id (FNV-1a, 32 bits), or the next one that is free.
pub(super) fn give(connection: &Connection) -> Result<(), StoreError> {
    let mut networks = networks(connection)?;
    networks.sort_by_key(|network| (network.created_at, network.id));
    let (mut taken, mut of_bridges) = (BTreeSet::new(), BTreeMap::new());
    let mut give = connection.prepare("UPDATE networks SET body = json_set(body, '$.zone', ?2) WHERE id = ?1").map_err(failed)?;
    for Network { id, bridge, .. } in networks {
        let derived = id.0.into_bytes().iter().fold(0x811c_9dc5, hashed).max(1);
        let mut zones = (0..ZONES).map(|step| FIRST + (derived % ZONES + step) % ZONES);
        let beside = bridge.as_ref().and_then(|bridge| of_bridges.get(bridge)).copied();
        let zone = beside.or_else(|| zones.find(|zone| !taken.contains(zone))).unwrap_or(FIRST + ZONES - 1);
        taken.insert(zone);
        bridge.into_iter().for_each(|bridge| _ = of_bridges.insert(bridge, zone));
        give.execute(params![id.to_string(), zone]).map_err(failed)?;
    }
    Ok(())
}

fn hashed(hash: u32, octet: &u8) -> u32 {
    (hash ^ u32::from(*octet)).wrapping_mul(0x0100_0193)
}

fn networks(connection: &Connection) -> Result<Vec<Network>, StoreError> {
    let mut statement = connection.prepare("SELECT id, body FROM networks").map_err(failed)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(failed)?;
    let read = |row: rusqlite::Result<(String, String)>| {
        let (id, body) = row.map_err(failed)?;
        serde_json::from_str(&body).map_err(|error| damaged("networks", &id, &error.to_string()))
    };
    rows.map(read).collect()
}
