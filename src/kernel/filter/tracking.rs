//! Security groups among the filters: their rules, their profiles, and the connections that these do not allow any more.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::PoisonError;
use std::time::Duration;

use super::elements::Element;
use super::{Filters, State, flows};
use crate::kernel::OpErrorKind;
use crate::kernel::answer::Failure;
use crate::plan::groups::Profile;
use crate::plan::members::NetworkMembers;
use crate::threads;

/// Connections that have to be looked at.
#[derive(Debug, Default)]
pub(super) struct Stale {
    /// Addresses of zones whose device has gone.
    gone: BTreeSet<(u16, IpAddr)>,
    /// Whether what profiles allow has changed for devices that there are.
    narrowed: bool,
    /// Whether a thread is about to look.
    waited_for: bool,
    /// Whether one does after a while.
    is_due: bool,
}

impl Filters {
    /// Executes [`Op::SetProfiles`](crate::plan::Op::SetProfiles): one transaction for all devices that have them. The connections that
    /// they do not allow any more are gone when it returns.
    pub(in crate::kernel) fn set_profiles(&self, profiles: BTreeMap<u32, Option<Profile>>) -> Result<(), Failure> {
        let (set, narrowed) = self.lock().narrowing(|state| state.set_profiles(profiles));
        let before = set?;
        self.cut_if(narrowed).inspect_err(|_| {
            // What is refused changes nothing.
            if let Err(failure) = self.lock().set_profiles(before) {
                tracing::warn!(said = failure.said, "what security groups allow could not be taken back");
            }
        })
    }

    /// Executes [`Op::SetMembers`](crate::plan::Op::SetMembers): one transaction. Connections that are not allowed any more end soon after.
    pub(in crate::kernel) fn set_members(&self, members: &NetworkMembers) -> Result<(), Failure> {
        let narrows = self.lock().set_members(members)?;
        if narrows {
            self.cut_soon();
        }
        Ok(())
    }

    /// Has all connections looked at after a while, so that a row of changes is one look.
    fn cut_soon(&self) {
        let mut state = self.lock();
        if state.stale.is_due {
            return;
        }
        let filters = self.clone();
        let cut = move || {
            std::thread::sleep(GATHERED);
            filters.lock().stale.is_due = false;
            filters.note_narrowed();
        };
        state.stale.is_due = threads::start("nicd-flows", cut).is_ok();
    }

    /// Deletes the connections that are not allowed any more.
    pub(super) fn cut(&self) -> Result<(), Failure> {
        let _turn = self.cutting.lock().unwrap_or_else(PoisonError::into_inner);
        let (narrowed, gone) = {
            let stale = &mut self.lock().stale;
            (std::mem::take(&mut stale.narrowed), std::mem::take(&mut stale.gone))
        };
        if !narrowed && gone.is_empty() {
            return Ok(());
        }
        self.cut_all(&gone).inspect_err(|_| {
            let stale = &mut self.lock().stale;
            stale.narrowed |= narrowed;
            stale.gone.extend(gone);
        })
    }

    fn cut_all(&self, gone: &BTreeSet<(u16, IpAddr)>) -> Result<(), Failure> {
        let zones = {
            let state = self.lock();
            let mut zones: BTreeSet<u16> = gone.iter().map(|(zone, _)| *zone).collect();
            for (zone, (_, has_host)) in state.shared.zones() {
                zones.insert(zone);
                zones.extend(has_host.then_some(0));
            }
            zones
        };
        let mut refused = flows::of_zones(&zones)?;
        {
            let state = self.lock();
            let zones = state.shared.zones();
            refused.retain(|flow| flows::is_refused(flow, &state.shared, &zones, gone));
        }
        flows::delete(&refused)
    }

    /// The same, if what devices that are there may do was narrowed: it is done when this returns, whichever thread does it. Else it is
    /// done later.
    pub(super) fn cut_if(&self, narrowed: bool) -> Result<(), Failure> {
        if narrowed {
            return self.cut();
        }
        self.cut_later();
        Ok(())
    }

    /// The same on a thread of its own, where nobody waits for it. It tries again until it is done.
    pub(super) fn cut_later(&self) {
        let mut state = self.lock();
        if state.stale.waited_for || !state.stale.narrowed && state.stale.gone.is_empty() {
            return;
        }
        let filters = self.clone();
        let cut = move || {
            filters.lock().stale.waited_for = false;
            let mut rest = AGAIN;
            while let Err(failure) = filters.cut() {
                tracing::warn!(said = failure.said, "connections that are not allowed any more could not be deleted yet");
                std::thread::sleep(rest);
                rest = (rest * 2).min(LONGEST);
            }
        };
        state.stale.waited_for = threads::start("nicd-flows", cut).is_ok();
    }

    /// Has all connections looked at, if devices are in groups.
    pub(super) fn note_narrowed(&self) {
        let mut state = self.lock();
        state.stale.narrowed |= state.shared.is_used();
        drop(state);
        self.cut_later();
    }

    /// Why the kernel does not track the connections of bridges, though ports are in groups. What was refused is tried again.
    pub(in crate::kernel) fn untracked(&self) -> Option<String> {
        let mut state = self.lock();
        if state.untracked.is_some() && state.track().is_ok() {
            // Closed devices are opened.
            let _ = state.restore(&[]);
        }
        state.untracked.as_ref().map(|failure| failure.said.clone())
    }
}

/// How long what other hosts change is gathered before connections are looked at.
const GATHERED: Duration = Duration::from_millis(300);

/// How long to wait before connections are looked at again: at first, and at most.
const AGAIN: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// How many connections a port in groups may have if it was not said.
const CONNECTIONS: u32 = 65_536;

impl State {
    /// How many connections a port in groups may have.
    pub(super) fn connections(&self) -> u32 {
        self.connections.unwrap_or(CONNECTIONS)
    }

    /// Has the rules of groups in the table.
    pub(super) fn track(&mut self) -> Result<(), Failure> {
        if self.groups {
            return Ok(());
        }
        let connections = self.connections();
        // What other hosts have was told when nobody needed it.
        let remotes: Vec<Element> = self.shared.remote_elements().into_iter().collect();
        match self.transact(|table| table.make_groups(connections, &remotes)) {
            Ok(()) => {
                (self.groups, self.untracked) = (true, None);
                Ok(())
            }
            Err(failure) if super::is_stale(&failure) => {
                let failure = failure.meaning(OpErrorKind::ConntrackUnavailable);
                self.untracked = Some(failure.clone());
                Err(failure)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Makes a change; what it gave, and whether it has narrowed what devices that are there may do. What others have narrowed and
    /// could not be cut yet is no matter of this change.
    pub(super) fn narrowing<T>(&mut self, change: impl FnOnce(&mut Self) -> T) -> (T, bool) {
        let before = std::mem::take(&mut self.stale.narrowed);
        let made = change(self);
        let narrowed = self.stale.narrowed;
        self.stale.narrowed |= before;
        (made, narrowed)
    }

    /// Sets what profiles allow; what they allowed before.
    fn set_profiles(&mut self, profiles: BTreeMap<u32, Option<Profile>>) -> Result<BTreeMap<u32, Option<Profile>>, Failure> {
        self.shared.begin();
        let before = self.shared.set_profiles(profiles);
        let (gone, new) = self.shared.change();
        if (gone.is_empty() && new.is_empty()) || !self.groups {
            return Ok(before);
        }
        let changed = match self.transact(|table| table.change(&gone, &new)) {
            Err(failure) if super::is_stale(&failure) => self.restore_in_a_few_tries(&[]).map(drop),
            changed => changed,
        };
        match changed {
            Ok(()) => {
                self.stale.narrowed |= !gone.is_empty();
                Ok(before)
            }
            Err(failure) => {
                self.shared.set_profiles(before);
                Err(failure)
            }
        }
    }

    /// Takes in what other hosts have of a network; whether connections may not be allowed any more.
    fn set_members(&mut self, members: &NetworkMembers) -> Result<bool, Failure> {
        self.shared.begin();
        let (undo, narrows) = self.shared.set_members(members);
        let (gone, new) = self.shared.change();
        if (gone.is_empty() && new.is_empty()) || !self.groups {
            return Ok(false);
        }
        let changed = match self.transact(|table| table.change(&gone, &new)) {
            Err(failure) if super::is_stale(&failure) => self.restore_in_a_few_tries(&[]).map(drop),
            changed => changed,
        };
        if changed.is_err() {
            self.shared.set_members(&undo);
        }
        changed.map(|()| narrows)
    }

    /// Notes what a device's new filter means for the connections that it has.
    pub(super) fn note_stale(&mut self, before: Option<&super::Filter>, after: Option<&super::Filter>) {
        let profile = |filter: Option<&super::Filter>| filter?.groups.as_ref().map(|groups| groups.profile);
        self.stale.narrowed |= after.is_some() && profile(before) != profile(after);
        let Some(groups) = before.and_then(|filter| filter.groups.as_ref()) else { return };
        let keeps = |address: &IpAddr| after.is_some_and(|filter| super::shared::hosts(filter).any(|kept| kept == *address));
        let left = before.into_iter().flat_map(super::shared::hosts).filter(|address| !keeps(address));
        self.stale.gone.extend(left.map(|address| (groups.zone, address)));
    }
}
