//! `table bridge nicd`: what ports' devices may send, enforced by the kernel at every bridge.
//!
//! ```text
//!  Op::SetFilter ──► Filters ── one transaction ──► table bridge nicd = rules (ruleset) + elements of sets (elements)
//!  reads of links ◄─ Filters ◄── foreign change ─── events of nf_tables, heard by the watch
//! ```
//!
//! The rules are the same for all ports and are made once. Elements of the table's sets, keyed by a device's index, say what each
//! port may send. A port's change is one transaction, in which the kernel adds what is new and removes what is not wanted: no frame
//! meets half of it, and a refused one changes nothing.
//!
//! The elements of a port belong to one device. They are there before it, since nicd chooses its index, and are removed once the
//! kernel has reported its deletion. What comes by a device with an index of nicd's range and without elements is dropped.
//!
//! A device's counters are elements too. The kernel adds them itself when it drops a device's first frame, so an attach does not
//! make them. They are looked for before they are removed: Linux before 6.3 cannot remove what may be missing.
//!
//! [`Filters`] keeps in memory what the elements are to be. What another program changes is put back in one transaction. Elements of
//! devices that this process has not set are kept as they were read, as those of a nicd that ran before with another store. What security
//! groups allow is not kept where this store does not say it: those elements are of no device.

mod elements;
mod expression;
mod flows;
mod group_rules;
pub(super) mod log;
mod proof;
mod remotes;
mod ruleset;
mod shared;
mod table;
mod tracking;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use self::elements::{Bridges, Element, Set, Tagged};
use self::proof::Proof;
use self::shared::Shared;
use self::table::{Found, Table};
use self::tracking::Stale;
use super::answer::{Failure, Request};
use super::message::{Message, text};
use super::netns::NetnsAccess;
use super::nft;
use super::{Counters, OpErrorKind, Traffic};
use crate::failpoints;
use crate::model::PortId;
use crate::model::names::FIRST_INDEX;
use crate::plan::LinkState;
use crate::plan::filter::{DeviceFilter, Dropped, Filter, PortFilter, PortFilters};
use crate::telemetry::meters;
use crate::threads;

/// How long elements stay whose device is not there. They are made before it.
const PENDING: Duration = Duration::from_secs(10);

/// How long the counters of a port without a device are kept. It may get a new one.
const KEPT: Duration = Duration::from_secs(600);

/// How often a change is tried again, after a read of what there is: another program may change the table at the same time.
const TRIES: usize = 3;

/// The table and what it is to contain. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Filters {
    state: Arc<Mutex<State>>,
    /// Held while connections are looked at, so that who needs that done waits for who does it.
    cutting: Arc<Mutex<()>>,
}

#[derive(Debug, Default)]
struct State {
    table: Option<Table>,
    /// What the last read or change says of the rules; none before the first.
    rules: Option<Rules>,
    /// Whether this kernel was checked with frames, and did as the rules say.
    proven: bool,
    /// A frame that this kernel let pass against the rules.
    unproven: Option<&'static str>,
    /// Why this kernel could not be checked yet.
    unchecked: Option<String>,
    /// Whether it is being checked.
    checking: bool,
    /// Whether the rules of groups are among them.
    groups: bool,
    /// How many connections a port in groups may have, if it was said.
    connections: Option<u32>,
    /// Why the kernel refuses them.
    untracked: Option<Failure>,
    devices: BTreeMap<u32, Device>,
    ports: HashMap<PortId, u32>,
    /// What the devices that are in groups have in common.
    shared: Shared,
    /// What conntrack may have connections of that are not allowed any more.
    stale: Stale,
    /// What was counted for ports, across their devices.
    counted: HashMap<PortId, Counted>,
    /// What the table had dropped when its counters were last read.
    all_dropped: Dropped,
}

/// What was counted for a port.
#[derive(Debug, Default)]
struct Counted {
    /// The device that was read last, and what it had passed.
    device: u32,
    last: [Traffic; 2],
    /// What earlier devices had passed.
    before: [Traffic; 2],
    dropped: Dropped,
    /// Since when it has had no device.
    gone: Option<Instant>,
}

/// The state of the table's rules.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Rules {
    /// They are as nicd makes them.
    Whole,
    /// They are not.
    Damaged,
    /// The kernel has no nf_tables, or refuses the table.
    Refused(Failure),
}

/// How a device's elements came to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// They were read: another process set them, and they are as they are read each time.
    Found,
    /// This process set them.
    Set,
    /// This process set them, and deletes the device: the port's counters end with it.
    Deleted,
}

/// What a device's elements are to be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Device {
    port: PortId,
    filter: Filter,
    /// The drops that were read last. A restored table counts on from here.
    dropped: Dropped,
    origin: Origin,
    /// Since when its link has been missing.
    absent: Option<Instant>,
}

impl Device {
    /// What says what it may send. Where no connections are tracked, a device of a port in groups may send nothing, and is sent nothing.
    fn filter(&self, index: u32, tracked: bool) -> Vec<Element> {
        match self.filter.groups.is_some() && !tracked {
            true => vec![elements::of_device(index, Set::Closed, elements::Does::Nothing)],
            false => elements::of(index, self.port, &self.filter),
        }
    }

    /// The same, with the counters that it has.
    fn elements(&self, index: u32, tracked: bool) -> Vec<Element> {
        let counters = elements::counters(index, &self.dropped);
        self.filter(index, tracked).into_iter().chain(counters).collect()
    }
}

impl Filters {
    /// Makes the table with these ports' elements, unless its rules are as they are to be. Whether links have to be read again.
    ///
    /// A table that does not say that this kernel was checked is preceded by the check. A restart finds one that does.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub(super) fn keep(&self, wanted: PortFilters, access: NetnsAccess) -> Result<bool, Failure> {
        let kept = self.keep_table(wanted, access);
        // The process before may have ended between a change and the end of the connections that it does not allow.
        self.note_narrowed();
        kept
    }

    fn keep_table(&self, wanted: PortFilters, access: NetnsAccess) -> Result<bool, Failure> {
        let PortFilters { ports: wanted, profiles, members, connections } = wanted;
        {
            let mut state = self.lock();
            if connections.is_some() && connections != state.connections {
                // The rules are compared with this number.
                (state.connections, state.rules) = (connections, None);
            }
            state.shared.set_profiles(profiles.into_iter().map(|(number, profile)| (number, Some(profile))).collect());
            members.iter().for_each(|members| _ = state.shared.set_members(members));
            if state.rules.is_none() {
                state.read()?;
            }
            // What a process that died left behind: nothing is being made yet.
            let gone: Vec<u32> = state.devices.iter().filter(|(_, one)| one.absent.is_some()).map(|(index, _)| *index).collect();
            state.remove(&gone);
            if state.rules == Some(Rules::Whole) {
                for PortFilter { port, index, filter } in &wanted {
                    let right = |device: &&mut Device| (device.port, &device.filter) == (*port, filter);
                    if let Some(device) = state.devices.get_mut(index).filter(right) {
                        device.origin = Origin::Set;
                    }
                }
                if state.proven {
                    // What profiles allow may have changed in the store alone, and no device may be in groups any more.
                    return match (state.groups, state.shared.is_used()) {
                        (false, false) => Ok(false),
                        (true, false) => state.make().map(|()| false),
                        _ => state.restore_in_a_few_tries(&[]).map(|changes| changes > 0),
                    };
                }
            }
        }
        self.prove(access);
        let mut state = self.lock();
        if state.rules == Some(Rules::Whole) && !state.proven {
            return Ok(state.unproven.is_some());
        }
        for PortFilter { port, index, filter } in wanted {
            state.put(port, index, filter);
        }
        state.make().map(|()| true)
    }

    /// Executes [`Op::SetFilter`](crate::plan::Op::SetFilter).
    pub(super) fn set(&self, port: PortId, filter: Option<(u32, Filter)>) -> Result<(), Failure> {
        let mut state = self.lock();
        let needed = filter.as_ref().is_some_and(|(_, filter)| !filter.is_open());
        let known = matches!(state.rules, Some(Rules::Whole | Rules::Damaged));
        let read = if known { Ok(()) } else { state.read() };
        let has_read = read.is_ok();
        let (set, narrowed) = match read {
            Ok(()) => state.narrowing(|state| state.set(port, filter)),
            Err(failure) => (Err(failure), false),
        };
        match set {
            // What needs no filter goes on without one.
            Err(_) if !needed && (!has_read || state.filters_nothing()) => return Ok(()),
            Err(failure) if is_stale(&failure) && state.filters_nothing() => {
                return Err(failure.meaning(OpErrorKind::FiltersUnavailable));
            }
            set => set?,
        }
        drop(state);
        self.cut_if(narrowed)
    }

    /// Notes on ports' devices what they may send.
    pub(super) fn note(&self, links: &mut [LinkState]) {
        let mut devices = links.iter_mut().filter(|link| is_device(link)).peekable();
        if devices.peek().is_none() {
            return;
        }
        let mut state = self.lock();
        if state.rules.is_none() {
            // What fails is kept as a refusal.
            let _ = state.read();
        }
        for link in devices {
            let untracked = |device: &Device| device.filter.groups.is_some() && !state.groups;
            link.filter = match (&state.rules, state.devices.get(&link.index)) {
                (Some(Rules::Whole), Some(device)) if untracked(device) => DeviceFilter::Closed,
                (Some(Rules::Whole), Some(device)) => DeviceFilter::Set { port: device.port, filter: device.filter.clone() },
                (Some(Rules::Whole | Rules::Damaged), _) => DeviceFilter::Closed,
                (Some(Rules::Refused(_)) | None, _) => DeviceFilter::Unavailable,
            };
            link.unproven = state.unproven.is_some();
        }
    }

    /// Checks with frames whether this kernel does what the rules say.
    fn prove(&self, access: NetnsAccess) {
        let proof = proof::prove(access);
        let mut state = self.lock();
        let before = state.unchecked.take();
        match proof {
            Proof::Holds => {
                tracing::info!("this kernel drops what the filters are to drop: checked with frames");
                state.proven = true;
            }
            Proof::Fails { frame } => {
                tracing::error!(frame, "this kernel does not do what the filters say: no port with port security becomes ACTIVE");
                state.unproven = Some(frame);
            }
            Proof::Impossible { why } => {
                if before.as_ref() != Some(&why) {
                    tracing::warn!(why, "the filters could not be checked with frames yet");
                }
                state.unchecked = Some(why);
            }
        }
    }

    /// Why this kernel could not be checked with frames, though it has the table. It is tried again meanwhile, on a thread of its own,
    /// since the helper may be silent.
    pub(super) fn unchecked(&self, access: NetnsAccess) -> Option<String> {
        let mut state = self.lock();
        if state.rules != Some(Rules::Whole) || state.proven || state.unproven.is_some() {
            return None;
        }
        if !state.checking {
            let filters = self.clone();
            let check = move || {
                filters.prove(access);
                let mut state = filters.lock();
                state.checking = false;
                // The table is to say so, for the next start. What is refused is tried again as health asks.
                let _ = if state.proven { state.make() } else { Ok(()) };
            };
            state.checking = threads::start("nicd-proof", check).is_ok();
        }
        state.unchecked.clone()
    }

    /// A frame that this kernel let pass against the rules.
    pub(super) fn unproven(&self) -> Option<&'static str> {
        self.lock().unproven
    }

    /// Removes the elements of devices that were deleted, also of those that have none but what their frames have made. A port that
    /// did not give up its device may get another: its counters are kept.
    pub(super) fn forget(&self, indexes: impl IntoIterator<Item = u32>) {
        let gone: Vec<u32> = indexes.into_iter().filter(|index| *index >= FIRST_INDEX).collect();
        self.lock().remove(&gone);
        self.cut_later();
    }

    /// Notes that nicd deletes a port's device: its counters end with it.
    pub(super) fn leave(&self, port: PortId) {
        let mut state = self.lock();
        state.counted.remove(&port);
        let device = state.ports.get(&port).copied().and_then(|index| state.devices.get_mut(&index));
        if let Some(device) = device.filter(|device| device.origin == Origin::Set) {
            device.origin = Origin::Deleted;
        }
    }

    /// Removes the elements of devices that are not among all links. One that is being made is not there yet.
    pub(super) fn sweep(&self, links: &[LinkState]) {
        let mut state = self.lock();
        if state.rules.is_none() {
            // What fails is kept as a refusal.
            let _ = state.read();
        }
        let now = Instant::now();
        let there: HashSet<u32> = links.iter().map(|link| link.index).collect();
        let State { counted, ports, .. } = &mut *state;
        counted.retain(|port, counted| ports.contains_key(port) || now.duration_since(*counted.gone.get_or_insert(now)) < KEPT);
        let mut gone = Vec::new();
        for (index, device) in &mut state.devices {
            if there.contains(index) {
                device.absent = None;
            } else if now.duration_since(*device.absent.get_or_insert(now)) >= PENDING {
                gone.push(*index);
            }
        }
        state.remove(&gone);
        drop(state);
        self.cut_later();
    }

    /// Whether an event came from this process's own change.
    pub(super) fn is_own(&self, port_number: u32) -> bool {
        self.lock().table.as_ref().is_some_and(|table| table.port_number() == port_number)
    }

    /// Follows a change by another program: what it changed is put back. Whether links have to be read again.
    ///
    /// # Errors
    /// It is not as it was, and has to be tried again soon. Not where the kernel refuses the table.
    pub(super) fn follow(&self) -> Result<bool, Failure> {
        let mut state = self.lock();
        let before = (state.rules.clone(), state.devices.clone());
        let mut changed = false;
        match state.restore_in_a_few_tries(&[]) {
            Ok(0) => {}
            Ok(changes) => {
                changed = true;
                meters().filter_restores.inc();
                tracing::warn!(changes, "another program changed table bridge nicd; it is as before again");
            }
            // Health reports it, and tries again.
            Err(_) if state.filters_nothing() => {}
            Err(failure) => return Err(failure),
        }
        let differs = before != (state.rules.clone(), state.devices.clone());
        drop(state);
        if changed {
            // What began meanwhile was not judged.
            self.note_narrowed();
        }
        Ok(differs)
    }

    /// A port's counters, with what its device has received from the guest and sent to it.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub(super) fn counters(&self, port: PortId, index: u32, from: Traffic, to: Traffic) -> Result<Counters, Failure> {
        let mut state = self.lock();
        state.count(&[index])?;
        let dropped = state.devices.get(&index).filter(|device| device.port == port).map(|device| device.dropped.clone());
        let counted = state.counted.entry(port).or_default();
        if counted.device != index {
            counted.before = std::array::from_fn(|way| counted.before[way] + counted.last[way]);
        }
        (counted.device, counted.last, counted.gone) = (index, [from, to], None);
        counted.dropped.raise(&dropped.unwrap_or_default());
        let [from_guest, to_guest] = std::array::from_fn(|way| counted.before[way] + counted.last[way]);
        Ok(Counters { from_guest, to_guest, dropped: counted.dropped.clone(), last_dropped: Vec::new() })
    }

    /// Counts in the metrics what was dropped since the last time, of all devices.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub(super) fn count_drops(&self) -> Result<(), Failure> {
        let mut state = self.lock();
        if state.rules != Some(Rules::Whole) {
            return Ok(());
        }
        let dropped = state.table()?.all_dropped()?;
        for (reason, frames) in &dropped.0 {
            // Another program may have set it back.
            let new = frames.checked_sub(state.all_dropped.get(*reason)).unwrap_or(*frames);
            meters().frames_dropped(reason.as_str(), new);
        }
        state.all_dropped = dropped;
        Ok(())
    }

    /// Why the kernel filters nothing; none where it does. What was refused is tried again.
    pub(super) fn refused(&self) -> Option<String> {
        let mut state = self.lock();
        if !matches!(state.rules, Some(Rules::Whole)) {
            let _ = state.restore(&[]);
        }
        match &state.rules {
            Some(Rules::Refused(failure)) => Some(failure.said.clone()),
            _ => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic leaves nothing half changed that the next read does not put right.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Reads the table. Elements that this process has not set become as they were read.
    fn read(&mut self) -> Result<(), Failure> {
        let found = self.found();
        match found {
            Ok(found) => {
                self.rules = Some(if found.is_whole { Rules::Whole } else { Rules::Damaged });
                self.proven |= found.is_whole && found.is_proven;
                self.groups = found.is_whole && found.has_groups;
                self.adopt(&found, &[]);
                Ok(())
            }
            Err(failure) => self.failed(failure),
        }
    }

    fn found(&mut self) -> Result<Found, Failure> {
        let connections = self.connections();
        self.table().and_then(|table| table.read(connections))
    }

    /// Takes over what was read of others' devices, and what was counted. Elements of devices that are being removed are no others'.
    fn adopt(&mut self, found: &Found, removed: &[u32]) {
        let others = self.devices.iter().filter(|(_, device)| device.origin == Origin::Found);
        let others: HashMap<u32, Option<Instant>> = others.map(|(index, device)| (*index, device.absent)).collect();
        others.keys().for_each(|index| self.drop_device(*index));
        let bridges = Bridges::of(&found.shared);
        for (index, elements) in &found.devices {
            let dropped = elements::counted(elements);
            if let Some(device) = self.devices.get_mut(index) {
                device.dropped.raise(&dropped);
            } else if (!found.has_groups || found.is_whole)
                && !removed.contains(index)
                && let Some(Tagged { port, filter }) = elements::read_back(*index, elements, &bridges)
                && !self.ports.contains_key(&port)
            {
                let absent = others.get(index).copied().flatten();
                self.put_device(*index, Device { port, filter, dropped, origin: Origin::Found, absent });
            }
        }
    }

    /// Whether the kernel was seen to filter nothing.
    fn filters_nothing(&self) -> bool {
        matches!(self.rules, Some(Rules::Refused(_)))
    }

    fn failed<T>(&mut self, failure: Failure) -> Result<T, Failure> {
        // EINVAL is the answer of an nfnetlink without nf_tables (`nfnetlink_rcv_msg`, net/netfilter/nfnetlink.c).
        const ABSENT: [Errno; 5] = [Errno::EPROTONOSUPPORT, Errno::EAFNOSUPPORT, Errno::EOPNOTSUPP, Errno::EINVAL, Errno::EPERM];
        if failure.errno.is_some_and(|errno| ABSENT.contains(&errno)) {
            self.rules = Some(Rules::Refused(failure.clone()));
        }
        Err(failure)
    }

    /// Makes the table anew, with all elements, in one transaction. Where the kernel tracks no connections, devices of ports in groups
    /// are closed.
    fn make(&mut self) -> Result<(), Failure> {
        let groups = self.shared.is_used();
        let mut made = self.make_with(groups);
        if groups && made.as_ref().is_err_and(is_stale) {
            made = self.make_with(false);
            if made.is_ok() {
                // What is refused is noted for health.
                return self.track().and_then(|()| self.restore(&[]).map(drop)).or(Ok(()));
            }
        }
        made
    }

    fn make_with(&mut self, groups: bool) -> Result<(), Failure> {
        let (elements, proven) = (self.elements(groups), self.proven);
        let groups_of = groups.then(|| self.connections());
        let made = self.transact(|table| table.make(&elements, proven, groups_of));
        match made {
            Ok(()) => {
                (self.rules, self.groups) = (Some(Rules::Whole), groups);
                self.all_dropped = Dropped::default();
                Ok(())
            }
            Err(failure) => {
                self.rules = Some(Rules::Refused(failure.clone()));
                Err(failure)
            }
        }
    }

    /// All elements that there are to be.
    fn elements(&self, tracked: bool) -> Vec<Element> {
        let shared = self.shared.elements().into_iter().filter(|_| tracked);
        self.devices.iter().flat_map(|(index, device)| device.elements(*index, tracked)).chain(shared).collect()
    }

    /// Restores what differs from the desired table; how many elements, or 1 for the table. Of devices that are being removed nothing is
    /// left.
    fn restore(&mut self, removed: &[u32]) -> Result<usize, Failure> {
        let found = match self.found() {
            Ok(found) => found,
            Err(failure) => return self.failed(failure),
        };
        self.adopt(&found, removed);
        if !found.is_whole {
            self.rules = Some(Rules::Damaged);
            return self.make().map(|()| 1);
        }
        (self.rules, self.groups) = (Some(Rules::Whole), found.has_groups);
        if self.shared.is_used() && self.track().is_ok() && !found.has_groups {
            return self.restore(removed);
        }
        let wanted = self.elements(self.groups);
        let there = found.devices.into_values().flatten().chain(found.shared);
        let there = there.filter(|element| element.set != Set::Logged).collect();
        let (gone, new) = elements::difference(there, wanted);
        if !gone.is_empty() || !new.is_empty() {
            self.transact(|table| table.change(&gone, &new))?;
        }
        // What frames made of a device that is none of a port's is no other program's change.
        Ok(new.len() + gone.iter().filter(|element| !element.set.is_made_by_frames()).count())
    }

    /// The same, also while another program changes the table.
    fn restore_in_a_few_tries(&mut self, removed: &[u32]) -> Result<usize, Failure> {
        let mut restored = self.restore(removed);
        for _ in 1..TRIES {
            if restored.as_ref().is_err_and(is_stale) {
                restored = self.restore(removed);
            }
        }
        restored
    }

    fn set(&mut self, port: PortId, filter: Option<(u32, Filter)>) -> Result<(), Failure> {
        if filter.as_ref().is_some_and(|(_, filter)| filter.groups.is_some()) {
            if self.rules != Some(Rules::Whole) {
                self.restore_in_a_few_tries(&[])?;
            }
            self.track()?;
        }
        let tracked = self.groups;
        let old = self.ports.get(&port).copied();
        let index = filter.as_ref().map(|(index, _)| *index);
        let taken = index.filter(|index| Some(*index) != old);
        let left = [old.filter(|old| Some(*old) != index), taken.filter(|taken| self.devices.contains_key(taken))];
        let left: Vec<u32> = left.into_iter().flatten().collect();
        // A port's counters go along with it.
        let counters = self.count(&left)?;
        let dropped = self.dropped(port);
        let wanted = filter.map(|(index, filter)| (index, Device { port, filter, dropped, origin: Origin::Set, absent: None }));
        let replaced: Vec<(u32, Device)> =
            old.into_iter().chain(taken).filter_map(|index| Some((index, self.devices.get(&index)?.clone()))).collect();
        let before = replaced.iter().flat_map(|(index, device)| device.filter(*index, tracked)).collect();
        let after = wanted.as_ref().map(|(index, device)| device.filter(*index, tracked)).unwrap_or_default();
        let (mut gone, mut new) = elements::difference(before, after);
        gone.extend(counters);
        new.extend(
            wanted.iter().filter(|_| taken.is_some()).flat_map(|(index, device)| elements::counters(*index, &device.dropped)),
        );
        self.shared.begin();
        replaced.iter().for_each(|(index, _)| self.drop_device(*index));
        wanted.clone().into_iter().for_each(|(index, device)| self.put_device(index, device));
        let (shared_gone, shared_new) = self.shared.change();
        if tracked {
            gone.extend(shared_gone);
            new.extend(shared_new);
        }
        let changed = match self.rules {
            Some(Rules::Whole) if gone.is_empty() && new.is_empty() => Ok(()),
            Some(Rules::Whole) => self.transact(|table| table.change(&gone, &new)),
            // It is made below.
            _ => Err(Failure::system(Request::Filter, Errno::ENOENT)),
        };
        let changed = match changed {
            // Another program has changed the table, or a change was made whose answer was lost: it is compared as a whole.
            Err(failure) if is_stale(&failure) => self.restore_in_a_few_tries(&left).map(drop),
            changed => changed,
        };
        let needs_groups = wanted.as_ref().is_some_and(|(_, device)| device.filter.groups.is_some());
        let changed = match &self.untracked {
            Some(failure) if changed.is_ok() && needs_groups => Err(failure.clone()),
            _ => changed,
        };
        if changed.is_err() {
            wanted.iter().for_each(|(index, _)| self.drop_device(*index));
            replaced.into_iter().for_each(|(index, device)| self.put_device(index, device));
            // The table was made anew without tracking, with this device closed.
            if needs_groups
                && self.untracked.is_some()
                && let Err(failure) = self.restore_in_a_few_tries(index.as_slice())
            {
                tracing::warn!(said = failure.said, "the filter's elements of a refused device are still there");
            }
            return changed;
        }
        let after = wanted.as_ref().map(|(_, device)| &device.filter);
        replaced.iter().for_each(|(_, device)| self.note_stale(Some(&device.filter), after));
        Ok(())
    }

    fn remove(&mut self, indexes: &[u32]) {
        let counters = self.count(indexes);
        let devices: Vec<(u32, Device)> =
            indexes.iter().filter_map(|index| Some((*index, self.devices.get(index)?.clone()))).collect();
        let tracked = self.groups;
        let mut gone: Vec<Element> = devices.iter().flat_map(|(index, device)| device.filter(*index, tracked)).collect();
        if gone.is_empty() && counters.as_ref().is_ok_and(Vec::is_empty) {
            return;
        }
        self.shared.begin();
        for index in indexes {
            self.keep_counters(*index);
            self.drop_device(*index);
        }
        let (shared, wider) = self.shared.change();
        devices.iter().for_each(|(_, device)| self.note_stale(Some(&device.filter), None));
        gone.extend(shared.into_iter().filter(|_| tracked));
        let removed = match self.rules {
            Some(Rules::Whole) => counters.and_then(|counters| {
                gone.extend(counters);
                self.transact(|table| table.change(&gone, if tracked { &wider } else { &[] }))
            }),
            _ => Ok(()),
        };
        if let Err(failure) = removed
            && let Err(failure) = if is_stale(&failure) { self.restore_in_a_few_tries(indexes).map(drop) } else { Err(failure) }
        {
            tracing::warn!(said = failure.said, "the filter's elements of deleted devices are still there");
            // A later look at all links, or the next start, removes them.
            for (index, device) in devices {
                if !self.ports.contains_key(&device.port) {
                    self.put_device(index, Device { absent: Some(Instant::now()), ..device });
                }
            }
        }
    }

    /// Reads how many frames of devices were dropped; the elements that the kernel has made of those frames. Every dropped frame is
    /// looked up in one set first: of a device that is not in it nothing was dropped.
    fn count(&mut self, indexes: &[u32]) -> Result<Vec<Element>, Failure> {
        if indexes.is_empty() || self.rules != Some(Rules::Whole) {
            return Ok(Vec::new());
        }
        let counts = |index: &u32| self.devices.get(index).is_some_and(|device| !device.dropped.0.is_empty());
        let (mut known, others): (Vec<u32>, Vec<u32>) = indexes.iter().partition(|index| counts(index));
        let table = self.table()?;
        let logged = table.of_devices(&others, &[Set::Logged])?;
        known.extend(logged.iter().filter_map(|element| elements::device(&element.key)));
        let made = table.of_devices(&known, &elements::made_by_frames().collect::<Vec<_>>())?;
        for element in &made {
            if let Some(device) = elements::device(&element.key).and_then(|index| self.devices.get_mut(&index)) {
                device.dropped.raise(&elements::counted([element]));
            }
        }
        Ok(made)
    }

    /// What was counted of a port's drops so far.
    fn dropped(&self, port: PortId) -> Dropped {
        let device = self.ports.get(&port).and_then(|index| self.devices.get(index)).map(|device| &device.dropped);
        device.or_else(|| Some(&self.counted.get(&port)?.dropped)).cloned().unwrap_or_default()
    }

    /// Keeps what was counted of a device that is gone.
    fn keep_counters(&mut self, index: u32) {
        if let Some(device) = self.devices.get(&index).filter(|device| device.origin == Origin::Set) {
            let counted = self.counted.entry(device.port).or_default();
            counted.dropped.raise(&device.dropped);
            counted.gone = Some(Instant::now());
        }
    }

    fn transact(&mut self, change: impl FnOnce(&mut Table) -> Result<(), Failure>) -> Result<(), Failure> {
        let table = self.table()?;
        failpoints::call(("filter", "commit"), || change(table), |errno| Failure::system(Request::Filter, errno))
    }

    fn table(&mut self) -> Result<&mut Table, Failure> {
        if self.table.as_ref().is_none_or(Table::is_spent) {
            self.table = Some(Table::open()?);
        }
        self.table.as_mut().ok_or_else(|| Failure::system(Request::Filter, Errno::EPROTONOSUPPORT))
    }

    fn put(&mut self, port: PortId, index: u32, filter: Filter) {
        let old = self.ports.get(&port).copied();
        let dropped = self.dropped(port);
        old.iter().for_each(|old| self.drop_device(*old));
        self.put_device(index, Device { port, filter, dropped, origin: Origin::Set, absent: None });
    }

    fn put_device(&mut self, index: u32, device: Device) {
        self.drop_device(index);
        self.shared.insert(index, &device.filter);
        self.ports.insert(device.port, index);
        self.devices.insert(index, device);
    }

    fn drop_device(&mut self, index: u32) {
        if let Some(device) = self.devices.remove(&index) {
            self.shared.remove(index, &device.filter);
            self.ports.remove(&device.port);
        }
    }
}

/// Whether a change may have met another state of the table than the one that is known.
fn is_stale(failure: &Failure) -> bool {
    !matches!(failure.kind, OpErrorKind::NoDescriptors | OpErrorKind::TimedOut | OpErrorKind::Permission)
}

/// Whether a link can be a port's device.
fn is_device(link: &LinkState) -> bool {
    link.index >= FIRST_INDEX && link.kind.is_device()
}

/// Whether an event of nf_tables is about the table, or may be.
pub(super) fn concerns(message: &Message<'_>) -> bool {
    let body = message.payload();
    let about = nft::event(message).is_some() && nft::family(body) == Some(libc::NFPROTO_BRIDGE);
    // In events about all kinds of objects the first attribute is the table's name.
    about && nft::behind(body, TABLE_NAME).map(text).as_deref() == Some(table::TABLE)
}

/// `NFTA_TABLE_NAME`, `NFTA_SET_TABLE`, `NFTA_CHAIN_TABLE`, `NFTA_RULE_TABLE` and `NFTA_SET_ELEM_LIST_TABLE`
/// (linux/netfilter/nf_tables.h).
const TABLE_NAME: u16 = 1;
