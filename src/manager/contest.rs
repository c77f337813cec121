//! A fight: somebody undoes what nicd does, again and again. It is noticed after a few rounds, told of with what keeps
//! changing, fought less and less often, and over when the port has stood still for a while.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::{NetworkId, PortId};
use crate::plan::Facet;

use super::retry::backoff;
use super::state::State;
use super::{Manager, Problem};

/// Repairs in a row that are tried at once; beyond, somebody undoes what nicd does, and each waits longer.
const PATIENCE: u32 = 5;

/// A port that stood still for so long is no longer fought over, in seconds.
pub(super) const QUIET: Duration = Duration::from_secs(10);

/// How long a bridge that cannot be set back waits for its next try at most, in seconds.
const LONGEST: Duration = Duration::from_secs(10);
/// The longest that a guest's entry in the FDB waits to be put back.
const ENTRY_WAIT: Duration = Duration::from_millis(500);

const CUT_OFF_REMEDY: &str = "find the program that changes the device's MAC, often the one that holds the tap, and end it; the port is put back 10 s after";

const REMEDY: &str = "find who does, such as a network manager, udev or another agent, and have it leave nicd's devices alone";

/// What is fought over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Contest {
    /// The stable word, of what was changed when the fight was noticed.
    pub reason: &'static str,
    /// All that was changed.
    pub facets: BTreeSet<Facet>,
    /// Whether the port is kept down and out of every bridge meanwhile.
    pub cut_off: bool,
}

/// How often an agent-made bridge was set back since it last stood still.
#[derive(Debug, Default)]
pub(super) struct Mends {
    count: u32,
    last: Option<Instant>,
    /// The next time is set already.
    waits: bool,
    /// Tries in a row that failed.
    failed: u32,
}

impl Mends {
    /// How long the next one is to wait; none when one waits already.
    pub fn next(&mut self) -> Option<Duration> {
        if self.waits {
            return None;
        }
        if self.last.is_none_or(|last| last.elapsed() > QUIET) {
            self.count = 0;
        }
        self.count += 1;
        (self.last, self.waits) = (Some(Instant::now()), true);
        Some(if self.contested() { rest(self.count) } else { Duration::ZERO })
    }

    /// One begins.
    pub fn begun(&mut self) {
        self.waits = false;
    }

    /// One has failed; how long the next is to wait.
    pub fn failed(&mut self) -> Duration {
        self.waits = true;
        self.failed = self.failed.saturating_add(1);
        LONGEST.min(backoff(1) * 2_u32.saturating_pow(self.failed - 1))
    }

    /// Whether the last one failed and the one before did not.
    pub fn fails_anew(&self) -> bool {
        self.failed == 1
    }

    /// One was carried out.
    pub fn done(&mut self) {
        self.failed = 0;
    }

    /// Whether somebody keeps undoing it.
    pub fn contested(&self) -> bool {
        self.count > PATIENCE && self.last.is_some_and(|last| last.elapsed() <= QUIET)
    }
}

/// How long a fight rests after so many rounds: never so long that a device stays wrong for long.
fn rest(rounds: u32) -> Duration {
    backoff(rounds.min(PATIENCE))
}

/// The word for a bridge of nicd's that somebody keeps changing.
pub(super) const NETWORK_BRIDGE: &str = "contested_network_bridge";

impl Manager {
    /// Counts a repair that was carried out, and notices a fight.
    pub(super) fn count_repair(self: &Arc<Self>, state: &mut State, port: PortId) {
        let Some(entry) = state.ports.get_mut(&port) else { return };
        entry.retry.repaired += 1;
        if entry.retry.tries > PATIENCE {
            let wait = rest(entry.retry.tries);
            // Without its entry a guest gets nothing, and putting that back costs nobody else anything.
            let only_entry = entry.retry.facets.iter().all(|facet| *facet == Facet::Fdb);
            entry.retry.due = Some(Instant::now() + if only_entry { wait.min(ENTRY_WAIT) } else { wait });
        }
        let (repaired, facets) = (entry.retry.repaired, entry.retry.facets.clone());
        let Some(first) = facets.first().filter(|_| repaired > PATIENCE) else { return };
        let reason = state.contested.get(&port).map_or(contested(*first), |contest| contest.reason);
        if state.contested.insert(port, Contest { reason, facets, cut_off: false }).is_none() {
            tracing::warn!(%port, reason, repaired, "somebody keeps undoing what nicd does; it is done less often from now on");
        }
        state.due.set(port, Instant::now() + QUIET + QUIET / 10);
        self.tell_health(state);
        self.retries.notify_one();
    }

    /// Notes whether somebody keeps changing a network's bridge.
    pub(super) fn note_bridge(&self, state: &mut State, network: NetworkId) {
        let fought = state.networks.get(&network).is_some_and(|entry| entry.mends.contested());
        let news = if fought { state.fought_bridges.insert(network) } else { state.fought_bridges.remove(&network) };
        if news {
            tracing::warn!(%network, fought, "somebody keeps undoing what nicd does to a bridge of its own, or no longer");
            self.tell_health(state);
        }
    }

    /// Ends the fight over a port that has stood still.
    pub(super) fn calm(&self, state: &mut State, port: PortId) {
        let quiet = state.ports.get(&port).is_some_and(|entry| entry.retry.last.is_none_or(|last| last.elapsed() > QUIET));
        if quiet && state.contested.remove(&port).is_some() {
            tracing::info!(%port, "nobody undoes what nicd does any more");
            self.tell_health(state);
        }
    }
}

/// The fights as health tells of them.
pub(super) fn problems(state: &State) -> impl Iterator<Item = Problem> {
    state.contested.iter().map(|(port, contest)| {
        let facets: Vec<&str> = contest.facets.iter().map(|facet| facet.as_str()).collect();
        let device = state.have.device(*port).map_or("no device", |link| link.name.as_str());
        Problem {
            reason: contest.reason,
            detail: format!("somebody keeps changing the {} of port {port} ({device})", facets.join(", ")),
            remedy: if contest.cut_off { CUT_OFF_REMEDY } else { REMEDY }.to_owned(),
        }
    })
}

/// The bridges that are fought over, as health tells of them.
pub(super) fn bridge_problems(state: &State) -> impl Iterator<Item = Problem> {
    state.fought_bridges.iter().map(|network| Problem {
        reason: NETWORK_BRIDGE,
        detail: format!("somebody keeps changing bridge {} of network {network}", state.bridge_name(*network)),
        remedy: REMEDY.to_owned(),
    })
}

pub(super) fn contested(facet: Facet) -> &'static str {
    match facet {
        Facet::Device => "contested_device",
        Facet::Altname => "contested_altname",
        Facet::Bridge => "contested_bridge",
        Facet::Mac => "contested_mac",
        Facet::Mtu => "contested_mtu",
        Facet::Fdb => "contested_fdb",
        Facet::PortFlags => "contested_port_flags",
        Facet::AddressGeneration => "contested_address_generation",
        Facet::Addresses => "contested_addresses",
        Facet::Alias => "contested_alias",
        Facet::Up => "contested_up",
    }
}
