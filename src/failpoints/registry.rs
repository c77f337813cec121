//! The registry counts hits and injects faults. A process has one registry of its own. Tests that run several daemons side by
//! side in one process make one registry per daemon.
//!
//! A thread uses the registry that it entered, otherwise the registry of the process. A daemon starts its threads with
//! [`inherit`], so that all of them use the daemon's registry.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, raise};

use super::{FailpointKind, Fault, FaultRule, Hit, Injected, Name};

/// The line that an injected fault appends to the log.
pub const INJECTED: &str = "fault injected";

/// Counts the hits of all failpoints and injects the faults of its rules. Clones share one registry.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<RegistryState>,
    died: Condvar,
    death: Death,
}

#[derive(Default)]
struct RegistryState {
    counts: HashMap<Name, usize>,
    rules: Vec<FaultRule>,
    /// The first injected fault removes all rules.
    only_first: bool,
    /// The hits recorded since [`Registry::record`], if a test asked for them.
    hits: Option<Vec<Hit>>,
    log: Option<File>,
    /// The faults injected so far, one text each.
    injected: Vec<String>,
    dead: bool,
}

/// What a kill does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Death {
    /// SIGKILL to this process.
    Signal,
    /// Every later failpoint skips its work: the daemon changes neither the host nor the store any more, while a test can
    /// still join its threads.
    Freeze,
}

/// What a failpoint does at one hit.
enum Outcome {
    Proceed,
    Inject(Fault),
    Dead,
}

thread_local! {
    static CURRENT: RefCell<Option<Registry>> = const { RefCell::new(None) };
}

static PROCESS: LazyLock<Registry> = LazyLock::new(Registry::from_environment);

/// The registry of the calling thread.
pub(super) fn current() -> Registry {
    CURRENT.with_borrow(Clone::clone).unwrap_or_else(|| PROCESS.clone())
}

/// Wraps the work of a new thread, so that the thread uses the registry of the thread that starts it.
pub fn inherit<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let registry = CURRENT.with_borrow(Clone::clone);
    move || {
        let _entered = registry.map(|registry| registry.enter());
        work()
    }
}

/// The calling thread uses the entered registry until this is dropped.
#[derive(Debug)]
pub struct Entered {
    before: Option<Registry>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.before.take());
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Registry").field("rules", &state.rules).field("dead", &state.dead).finish_non_exhaustive()
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Registry {
    /// An empty registry, for one daemon among several in this process.
    pub fn new() -> Self {
        Self::of(RegistryState::default(), Death::Freeze)
    }

    fn of(state: RegistryState, death: Death) -> Self {
        Self { shared: Arc::new(Shared { state: Mutex::new(state), died: Condvar::new(), death }) }
    }

    /// The registry of the process. A rule that cannot be read ends the process: a test would otherwise pass without its fault.
    fn from_environment() -> Self {
        match Self::read_environment() {
            Ok(state) => Self::of(state, Death::Signal),
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "nicd: {error}");
                std::process::exit(64)
            }
        }
    }

    fn read_environment() -> Result<RegistryState, String> {
        let rules = std::env::var("NICD_FAILPOINTS").unwrap_or_default();
        let rules = rules.split(',').filter(|rule| !rule.is_empty()).map(str::parse).collect::<Result<_, _>>()?;
        let log = std::env::var_os("NICD_FAILPOINTS_LOG").map(|path| File::options().create(true).append(true).open(path));
        let log = log.transpose().map_err(|error| format!("NICD_FAILPOINTS_LOG: {error}"))?;
        Ok(RegistryState { rules, log, ..RegistryState::default() })
    }

    /// Makes the calling thread use this registry.
    pub fn enter(&self) -> Entered {
        Entered { before: CURRENT.replace(Some(self.clone())) }
    }

    /// Replaces all rules, and counts hits from zero.
    pub fn set_rules(&self, rules: Vec<FaultRule>) {
        let mut state = self.lock();
        state.counts.clear();
        state.injected.clear();
        state.only_first = false;
        state.rules = rules;
    }

    /// Replaces all rules; the first fault that is injected removes the others.
    pub fn set_rules_for_one_fault(&self, rules: Vec<FaultRule>) {
        self.set_rules(rules);
        self.lock().only_first = true;
    }

    /// Starts to record hits.
    pub fn record(&self) {
        self.lock().hits = Some(Vec::new());
    }

    /// The hits since [`Registry::record`]; stops recording.
    pub fn recorded(&self) -> Vec<Hit> {
        self.lock().hits.take().unwrap_or_default()
    }

    /// The faults injected since the rules were set.
    pub fn injected(&self) -> Vec<String> {
        self.lock().injected.clone()
    }

    /// Whether the daemon was killed.
    pub fn is_dead(&self) -> bool {
        self.lock().dead
    }

    /// Kills the daemon.
    pub fn kill(&self) {
        self.lock().dead = true;
        if self.shared.death == Death::Signal {
            // A failure to signal the own process cannot be handled.
            let _ = raise(Signal::SIGKILL);
        }
        self.shared.died.notify_all();
    }

    /// Waits at most `limit` for the kill; whether the daemon was killed.
    pub fn wait_for_death(&self, limit: Duration) -> bool {
        let alive = |state: &mut RegistryState| !state.dead;
        let waited = self.shared.died.wait_timeout_while(self.lock(), limit, alive);
        waited.map_or_else(|poisoned| poisoned.into_inner().0.dead, |(state, _)| state.dead)
    }

    pub(super) fn call<T, E>(
        &self,
        name: Name,
        work: impl FnOnce() -> Result<T, E>,
        fail: impl FnOnce(Errno) -> E,
    ) -> Result<T, E> {
        match self.hit(FailpointKind::Call, name) {
            Outcome::Proceed => work(),
            Outcome::Inject(Fault::Fail(errno)) => Err(fail(errno)),
            Outcome::Inject(Fault::AppliedButFail(errno)) => work().and_then(|_| Err(fail(errno))),
            Outcome::Inject(Fault::LoseReply) => work().and_then(|_| Err(fail(Errno::ETIMEDOUT))),
            Outcome::Inject(Fault::KillAfter) => {
                let _ = work();
                self.kill();
                Err(fail(Errno::EIO))
            }
            Outcome::Inject(Fault::KillBefore) => {
                self.kill();
                Err(fail(Errno::EIO))
            }
            Outcome::Inject(Fault::Panic) | Outcome::Dead => Err(fail(Errno::EIO)),
        }
    }

    pub(super) fn reply<T>(&self, name: Name, give: impl FnOnce() -> T) -> Option<T> {
        match self.hit(FailpointKind::Reply, name) {
            Outcome::Inject(Fault::KillAfter) => {
                let given = give();
                self.kill();
                Some(given)
            }
            Outcome::Inject(Fault::KillBefore) => {
                self.kill();
                None
            }
            Outcome::Proceed => Some(give()),
            Outcome::Inject(_) | Outcome::Dead => None,
        }
    }

    pub(super) fn step<T>(&self, name: Name, work: impl FnOnce() -> T) -> T {
        let outcome = self.hit(FailpointKind::Step, name);
        if let Outcome::Inject(Fault::KillBefore) = outcome {
            self.kill();
        }
        let done = work();
        if let Outcome::Inject(Fault::KillAfter) = outcome {
            self.kill();
        }
        done
    }

    pub(super) fn messages(&self, names: impl Iterator<Item = Name>) -> Vec<Injected> {
        let injected = |(position, name)| match self.hit(FailpointKind::Message, name) {
            Outcome::Inject(Fault::Fail(errno)) => Some(Injected { position, errno, applied: false }),
            Outcome::Inject(Fault::AppliedButFail(errno)) => Some(Injected { position, errno, applied: true }),
            _ => None,
        };
        names.enumerate().filter_map(injected).collect()
    }

    /// Counts a hit, and decides what the failpoint does.
    fn hit(&self, kind: FailpointKind, name: Name) -> Outcome {
        let mut state = self.lock();
        if state.dead {
            return Outcome::Dead;
        }
        let count = state.counts.entry(name).or_default();
        *count += 1;
        let n = *count;
        state.note(kind, name);
        match state.rules.iter().find(|rule| rule.matches(name, n)).map(|rule| rule.fault) {
            Some(fault) => {
                state.injected.push(format!("{}.{}:{n}:{fault}", name.0, name.1));
                if state.only_first {
                    state.rules.clear();
                }
                state.log_line(INJECTED);
                drop(state);
                if fault == Fault::Panic {
                    panic!("injected by a failpoint");
                }
                Outcome::Inject(fault)
            }
            None => Outcome::Proceed,
        }
    }

    fn lock(&self) -> MutexGuard<'_, RegistryState> {
        // A panic in another thread leaves plain values, which are valid after each statement.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RegistryState {
    /// Writes a line in one call, so that a kill leaves whole lines. A test sees a failed write as a missing line.
    fn log_line(&mut self, line: &str) {
        if let Some(log) = self.log.as_mut() {
            let _ = log.write_all(format!("{line}\n").as_bytes());
        }
    }

    fn note(&mut self, kind: FailpointKind, (room, what): Name) {
        if self.hits.is_none() && self.log.is_none() {
            return;
        }
        let hit = Hit { kind, name: format!("{room}.{what}") };
        self.log_line(&hit.to_string());
        if let Some(hits) = self.hits.as_mut() {
            hits.push(hit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failpoints;

    const NAME: Name = ("here", "now");

    fn registry(rule: &str) -> Registry {
        let registry = Registry::new();
        registry.set_rules(vec![rule.parse().unwrap()]);
        registry
    }

    /// What the caller gets, and whether the work was done.
    fn called() -> (Result<(), Errno>, bool) {
        let mut done = false;
        let result = failpoints::call(
            NAME,
            || {
                done = true;
                Ok(())
            },
            |errno| errno,
        );
        (result, done)
    }

    #[test]
    fn a_rule_injects_its_fault_at_its_hit_alone() {
        let registry = registry("here.now:2:fail=EBUSY");
        let _entered = registry.enter();
        assert_eq!([called(), called(), called()], [(Ok(()), true), (Err(Errno::EBUSY), false), (Ok(()), true)]);
        assert_eq!(registry.injected(), ["here.now:2:fail=EBUSY"]);
    }

    #[test]
    fn a_call_can_be_applied_and_reported_as_failed() {
        let registry = registry("here.now:1:applied-but-fail=EIO");
        let _entered = registry.enter();
        assert_eq!(called(), (Err(Errno::EIO), true));
    }

    #[test]
    fn after_a_kill_no_work_is_done() {
        let registry = registry("here.now:1:kill-after");
        let _entered = registry.enter();
        assert!(called().1);
        assert!(registry.is_dead() && !called().1);
        assert_eq!(failpoints::reply(("an", "answer"), || ()), None);
    }

    #[test]
    fn a_thread_inherits_the_registry_of_the_thread_that_starts_it() {
        let registry = registry("here.now:1:kill-before");
        let _entered = registry.enter();
        assert!(!std::thread::spawn(inherit(called)).join().unwrap().1);
        assert!(registry.wait_for_death(Duration::ZERO));
        assert!(
            std::thread::spawn(called).join().unwrap().1,
            "a thread started without inherit uses the registry of the process"
        );
    }
}
