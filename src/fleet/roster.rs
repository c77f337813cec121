//! The hosts of the fleet: which there are, and which are alive. Each host tells of itself under a lease, and now and then without one,
//! so that it is known when a host was last there.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::etcd::{KeyValue, Keys, Op, Txn};
use super::keys::Names;
use super::kv::Kv;
use super::member::{HostRecord, MemberError, read_versioned};

/// How long a host counts as alive that is not heard of, in seconds.
pub const LIFE: u32 = 15;

/// What a host tells of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sign {
    /// The version of this format.
    pub v: u32,
    /// How many ports it has.
    pub ports: usize,
    /// When this was told.
    pub at: Timestamp,
}

/// A host as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostView {
    /// Its name.
    pub id: String,
    /// Whether it was heard of within [`LIFE`].
    pub alive: bool,
    /// The version of its nicd.
    pub version: String,
    /// Its end of tunnels.
    pub tunnel: Option<IpAddr>,
    /// How many ports it has, or had when it was last heard of.
    pub ports: usize,
    /// Since when it is one of the fleet.
    pub since: Timestamp,
    /// When it was last heard of, to the minute.
    pub last_seen: Timestamp,
}

/// All hosts, by name, or the one of this name: as they are at one revision.
///
/// # Errors
/// Etcd does not answer, or a record cannot be read.
pub async fn hosts(kv: &impl Kv, names: &Names, only: Option<&str>) -> Result<Vec<HostView>, MemberError> {
    let places = match only {
        Some(host) => [names.host(host), names.alive(host), names.last_seen(host)].map(Keys::One),
        None => [names.hosts(), names.all_alive(), names.all_last_seen()].map(Keys::Prefix),
    };
    let answer = kv.txn(Txn::when(Vec::new(), places.map(Op::read).into())).await?;
    let found = answer.found();
    let [records, alive, seen] = [0, 1, 2].map(|place| found.get(place).copied().unwrap_or_default());
    let signs = |found: &[KeyValue]| {
        let named = found.iter().map(|sign| Ok((names.last(&sign.key).to_owned(), read_versioned::<Sign>(sign)?)));
        named.collect::<Result<BTreeMap<String, Sign>, MemberError>>()
    };
    let (alive, seen) = (signs(alive)?, signs(seen)?);
    let view = |found: &KeyValue| {
        let id = names.last(&found.key).to_owned();
        let HostRecord { version, tunnel, since, .. } = read_versioned(found)?;
        let newest = [alive.get(&id), seen.get(&id)].into_iter().flatten().max_by_key(|sign| sign.at);
        let (ports, last_seen) = newest.map_or((0, since), |sign| (sign.ports, sign.at));
        Ok(HostView { alive: alive.contains_key(&id), id, version, tunnel, ports, since, last_seen })
    };
    records.iter().map(view).collect()
}
