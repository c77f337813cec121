//! What is wrong with the agent itself: health lists it, and events tell when it begins and when it ends.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::clock;
use crate::events::{Event, EventKind};
use crate::inventory::{Inventory, whose};
use crate::model::{PortId, Status};
use crate::rate_limit::RateLimit;
use crate::store::{Holder, StoreError};

use super::conditions::Conditions;
use super::{Context, Reconciler, closing, crowded, flapping, passing, rollback};
use crate::inventory::leftovers::Leftover;

/// How many leftovers health names one by one.
const NAMED: usize = 16;

/// The stable word for a configuration that could not be read again.
const CONFIG_INVALID: &str = "config_invalid";

/// The stable word for a device that the kernel does not let go.
const DEVICE_KEPT: &str = "device_kept";

/// The stable word for another program that holds the store up.
const STORE_HELD: &str = "store_held";

/// The stable word for an address that a port and this host have.
pub const ADDRESS_OF_HOST: &str = "address_of_host";

/// A trouble as events tell of it: the stable word, and the port when it is one's.
pub type Trouble = (&'static str, Option<PortId>);

/// How often events tell of one trouble at most in a [`PERIOD`].
const MOST: usize = 4;

const PERIOD: Duration = Duration::from_secs(1);

/// What readers of events know of the agent's troubles.
#[derive(Debug, Default)]
pub struct Told {
    /// Those that have not ended, as far as they know.
    troubles: BTreeSet<Trouble>,
    /// Those that they were told of a moment ago, or that are withheld.
    lately: BTreeMap<Trouble, Lately>,
    /// When what is withheld is to be told.
    pub due: Option<Instant>,
}

#[derive(Debug, Default)]
struct Lately {
    pace: RateLimit<MOST>,
    withheld: bool,
}

impl Told {
    /// The events due now, given the present troubles: which have begun, and then which have ended.
    fn news(&mut self, now: &BTreeSet<Trouble>, at: Instant) -> Vec<(Trouble, bool)> {
        self.due = None;
        if self.lately.is_empty() && *now == self.troubles {
            return Vec::new();
        }
        let begun = now.difference(&self.troubles).map(|trouble| (*trouble, true));
        let ended = self.troubles.difference(now).map(|trouble| (*trouble, false));
        let mut news: Vec<(Trouble, bool)> = begun.chain(ended).collect();
        news.retain(|(trouble, _)| {
            let lately = self.lately.entry(*trouble).or_default();
            match lately.pace.next_allowed(at, PERIOD) {
                Some(due) => {
                    lately.withheld = true;
                    self.due = Some(self.due.map_or(due, |first| first.min(due)));
                    false
                }
                None => {
                    lately.pace.done(at, std::mem::take(&mut lately.withheld));
                    true
                }
            }
        });
        for (trouble, begun) in &news {
            match begun {
                true => self.troubles.insert(*trouble),
                false => self.troubles.remove(trouble),
            };
        }
        self.lately.retain(|_, lately| lately.pace.newest().is_some_and(|newest| newest + PERIOD > at));
        news
    }
}

/// How the daemon fares.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Health {
    /// `ok`, or `degraded` when there are problems.
    pub status: &'static str,
    /// The program's version.
    pub version: &'static str,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// This host's name.
    pub host: String,
    /// How many ports have each status.
    pub ports: BTreeMap<&'static str, usize>,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong with the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The stable word.
    pub reason: &'static str,
    /// What was seen.
    pub detail: String,
    /// What to do about it.
    pub remedy: String,
}

impl Reconciler {
    /// How the daemon fares.
    pub fn health(&self) -> Health {
        let state = self.lock();
        let mut conditions = self.conditions();
        crowded::note(&state, &mut conditions.nearly_full);
        let problems = store(&conditions).into_iter().chain(held(&conditions));
        let problems = problems.chain(rollback::problem(&state, conditions.lost)).chain(config(&conditions));
        let problems = problems.chain(conditions.socket_trouble.clone());
        let problems = problems.chain(conditions.lacks.iter().map(Problem::from)).chain(flapping::problems(&state));
        let problems = problems.chain(flapping::bridge_problems(&state)).chain(kept(&state));
        let problems = problems.chain(clashes(&state)).chain(closing::problems(&state));
        let problems = problems.chain(passing::problems(&state));
        let problems: Vec<Problem> =
            problems.chain(leftovers(&state)).chain(crowded::problems(&state, &conditions.nearly_full)).collect();
        Health {
            status: if problems.is_empty() { "ok" } else { "degraded" },
            version: env!("CARGO_PKG_VERSION"),
            uptime_s: Instant::now().saturating_duration_since(self.started).as_secs(),
            host: self.host.clone(),
            ports: state.counts().into_iter().map(|(status, count): (Status, usize)| (status.as_str(), count)).collect(),
            problems,
        }
    }

    /// Tells of each trouble that is new, and of each that has ended; of one that comes and goes a few times a second, and its
    /// last state always.
    pub(super) fn publish_health(&self, state: &Inventory) {
        let news = {
            let mut conditions = self.conditions();
            crowded::note(state, &mut conditions.nearly_full);
            let now = troubles(state, &conditions);
            let news = conditions.told.news(&now, Instant::now());
            if conditions.told.due.is_some() {
                self.retries.notify_one();
            }
            news
        };
        for ((reason, port_id), begun) in news {
            let kind = if begun { EventKind::AgentDegraded } else { EventKind::AgentRecovered };
            let record = port_id.and_then(|id| state.ports.get(&id)).map(|entry| &entry.record);
            let server_id = record.and_then(|record| record.binding.as_ref()).map(|binding| binding.server_id);
            let network_id = record.map(|record| record.network_id);
            let reason = Some(reason.to_owned());
            self.emit(Event { reason, port_id, server_id, network_id, ..Event::new(kind, clock::now()) }, &Context::default());
        }
    }
}

fn troubles(state: &Inventory, conditions: &Conditions) -> BTreeSet<Trouble> {
    let store = conditions.store_trouble.as_ref().map(|error| (store_word(error), None));
    let held = conditions.store_holder.map(|_| (STORE_HELD, None));
    let lost = conditions.lost.map(|_| (rollback::REASON, None));
    let config = conditions.config_trouble.as_ref().map(|_| (CONFIG_INVALID, None));
    let sockets = conditions.socket_trouble.as_ref().map(|problem| (problem.reason, None));
    let lacks = conditions.lacks.iter().map(|lack| (Problem::from(lack).reason, None));
    let crowded = crowded::bridges(state, &conditions.nearly_full).next().map(|_| (crowded::NEARLY_FULL, None));
    let contested = state.contested.iter().map(|(port, contest)| (contest.reason, Some(*port)));
    let kept = state.kept.iter().map(|port| (DEVICE_KEPT, Some(*port)));
    let bridges = (!state.fought_bridges.is_empty()).then_some((flapping::NETWORK_BRIDGE, None));
    let clashes = state.clashes().into_iter().map(|clash| (ADDRESS_OF_HOST, Some(clash.port)));
    let open = closing::open(state).next().map(|_| (closing::HOST_NOT_CLOSED, None));
    let taking = closing::taking_ras(state).next().map(|_| (closing::TAKES_RAS, None));
    let deaf = passing::is_deaf(state).then_some((passing::VLAN, None));
    let dropping = passing::filtered(state).next().map(|_| (passing::FORWARD_FILTERED, None));
    let leftovers = (!state.orphans.is_empty()).then_some(("device_without_record", None));
    store
        .into_iter()
        .chain(held)
        .chain(lost)
        .chain(config)
        .chain(sockets)
        .chain(lacks)
        .chain(contested)
        .chain(kept)
        .chain(clashes)
        .chain(bridges)
        .chain(open)
        .chain(taking)
        .chain(deaf)
        .chain(dropping)
        .chain(leftovers)
        .chain(crowded)
        .collect()
}

fn store_word(error: &StoreError) -> &'static str {
    match error {
        StoreError::Full => "store_full",
        StoreError::Damaged(_) => "store_damaged",
        StoreError::Replaced(_) => "store_replaced",
        _ => "store_failed",
    }
}

fn store(conditions: &Conditions) -> Option<Problem> {
    conditions.store_trouble.as_ref().map(|error| Problem {
        reason: store_word(error),
        detail: error.to_string(),
        remedy: match error {
            StoreError::Full => "free space in the state directory; detaching works meanwhile",
            StoreError::Damaged(_) => "stop nicd and put a copy of the store back; devices stay as they are meanwhile",
            StoreError::Replaced(_) => {
                "put the file that nicd has open back in its place; or restart nicd, which then goes on from what lies there \
                 and leaves devices that it does not know; nothing is attached or detached meanwhile"
            }
            _ => "mend the disk of the state directory; devices stay as they are, and nicd goes on by itself",
        }
        .to_owned(),
    })
}

fn held(conditions: &Conditions) -> Option<Problem> {
    let detail = match conditions.store_holder? {
        Holder::Writer => {
            "another program has the write lock of nicd.db; attaches and detaches wait for it, at most 5 s".to_owned()
        }
        Holder::Reader { log } => format!(
            "another program reads nicd.db and does not end its transaction: nicd.db-wal has {} MiB and grows with each change",
            log >> 20
        ),
    };
    let remedy = "end that program, or its transaction: fuser -v nicd.db in the state directory names it".to_owned();
    Some(Problem { reason: STORE_HELD, detail, remedy })
}

fn config(conditions: &Conditions) -> Option<Problem> {
    conditions.config_trouble.as_ref().map(|why| Problem {
        reason: CONFIG_INVALID,
        detail: format!("the configuration was to be read again, and cannot be used: {why}"),
        remedy: "mend it and send SIGHUP once more; nicd goes on with the one it had".to_owned(),
    })
}

fn kept(state: &Inventory) -> impl Iterator<Item = Problem> {
    state.kept.iter().map(|port| {
        let device = state.have.device(*port).map_or("its device", |link| link.name.as_str());
        Problem {
            reason: DEVICE_KEPT,
            detail: format!("the kernel does not let go of {device} of port {port}, which holds its addresses until then"),
            remedy:
                "the kernel's log says what holds it, such as \"unregister_netdevice: waiting for …\"; nicd goes on by itself"
                    .to_owned(),
        }
    })
}

fn clashes(state: &Inventory) -> impl Iterator<Item = Problem> {
    state.clashes().into_iter().map(|clash| Problem {
        reason: ADDRESS_OF_HOST,
        detail: format!(
            "port {} has {}, and so has this host: {}",
            clash.port,
            clash.host.ip,
            whose(clash.host.of, &clash.device)
        ),
        remedy: "give the port another address (PUT its fixed_ips), or take it off the host".to_owned(),
    })
}

fn leftovers(state: &Inventory) -> impl Iterator<Item = Problem> {
    let more = state.orphans.len().checked_sub(NAMED).filter(|more| *more > 0).map(|more| format!("{more} more such links"));
    state.orphans.values().take(NAMED).map(described).chain(more).map(|detail| Problem {
        reason: "device_without_record",
        detail,
        remedy: "if no older state is to be put back, remove it: nicctl gc lists it, nicctl gc --apply removes it".to_owned(),
    })
}

fn described(orphan: &Leftover) -> String {
    let Leftover { object, kind, altname, alias, .. } = orphan;
    let sealed = alias.as_ref().map_or_else(|| "without a seal".to_owned(), |alias| format!("sealed '{alias}'"));
    match altname {
        Some(altname) => format!("{kind} {object}, {sealed}, carries the mark {altname}, and no record wants it"),
        None => format!("{kind} {object}, {sealed}, has lost its mark, and no record wants it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAPS: Trouble = ("store_failed", None);
    const OTHER: Trouble = ("config_invalid", None);

    #[test]
    fn a_trouble_that_comes_and_goes_is_told_four_times_a_second_and_its_last_state_always() {
        for last in [998, 999] {
            let (mut told, begin) = (Told::default(), Instant::now());
            let at = |ms: u64| begin + Duration::from_millis(ms);
            let mut news = Vec::new();
            for ms in 0..=last {
                let now = if ms % 2 == 0 { BTreeSet::from([FLAPS]) } else { BTreeSet::new() };
                news.extend(told.news(&now, at(ms)));
            }
            assert!(news.len() <= MOST, "{}", news.len());
            assert_eq!(news[0], (FLAPS, true), "at once");
            let is = if last % 2 == 0 { BTreeSet::from([FLAPS]) } else { BTreeSet::new() };
            while let Some(due) = told.due {
                assert!(due <= at(last) + PERIOD);
                news.extend(told.news(&is, due));
            }
            assert_eq!(told.troubles, is);
            assert!(news.windows(2).all(|pair| pair[0].1 != pair[1].1), "each is another than the one before: {news:?}");
            // What is over is forgotten.
            told.news(&is, at(last) + 3 * PERIOD);
            assert!(told.lately.is_empty());
        }
    }

    #[test]
    fn one_trouble_does_not_hold_another_back() {
        let (mut told, now) = (Told::default(), Instant::now());
        for turn in 0..20 {
            told.news(&if turn % 2 == 0 { BTreeSet::from([FLAPS]) } else { BTreeSet::new() }, now);
        }
        assert!(told.due.is_none(), "readers know that it has ended");
        assert_eq!(told.news(&BTreeSet::from([FLAPS, OTHER]), now), [(OTHER, true)]);
        assert!(told.due.is_some());
    }
}
