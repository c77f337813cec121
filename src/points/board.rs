//! Where passes are counted and faults are ordered: one board for a process, or one for each of several daemons in one
//! process, which tests run side by side.
//!
//! A thread works on the board it has entered, else on the process's. A daemon starts its threads with [`carry`], so
//! that they are on the board of whoever started them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, raise};

use super::{Fault, Injected, Kind, Name, Order, Pass};

/// Counts passes and lets them go wrong as ordered; clones share it.
#[derive(Clone)]
pub struct Board {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    died: Condvar,
    death: Death,
}

#[derive(Default)]
struct State {
    counts: HashMap<Name, usize>,
    orders: Vec<Order>,
    /// Only the first order that strikes counts.
    one: bool,
    passes: Option<Vec<Pass>>,
    log: Option<File>,
    /// What went wrong.
    struck: Vec<String>,
    dead: bool,
}

/// What a death is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Death {
    /// SIGKILL to this process.
    Signal,
    /// Nothing that passes a point is done any more: to the host and the store the daemon on this board is dead, while
    /// its threads can still be joined.
    Freeze,
}

/// What becomes of a pass.
enum Fate {
    Goes,
    Wrong(Fault),
    Dead,
}

thread_local! {
    static HERE: RefCell<Option<Board>> = const { RefCell::new(None) };
}

static PROCESS: LazyLock<Board> = LazyLock::new(Board::from_environment);

/// The board of the calling thread.
pub(super) fn here() -> Board {
    HERE.with_borrow(Clone::clone).unwrap_or_else(|| PROCESS.clone())
}

/// A thread's work, on the board of the thread that starts it.
pub fn carry<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let board = HERE.with_borrow(Clone::clone);
    move || {
        let _entered = board.map(|board| board.enter());
        work()
    }
}

/// A thread is on a board for as long as this lives.
#[derive(Debug)]
pub struct Entered {
    before: Option<Board>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        HERE.set(self.before.take());
    }
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Board").field("orders", &state.orders).field("dead", &state.dead).finish_non_exhaustive()
    }
}

impl Default for Board {
    fn default() -> Self {
        Self::new()
    }
}

impl Board {
    /// An empty one for a daemon among others in this process.
    pub fn new() -> Self {
        Self::of(State::default(), Death::Freeze)
    }

    fn of(state: State, death: Death) -> Self {
        Self { shared: Arc::new(Shared { state: Mutex::new(state), died: Condvar::new(), death }) }
    }

    /// The process's own. What cannot be read ends it: a test would otherwise pass without its fault.
    fn from_environment() -> Self {
        match Self::read_environment() {
            Ok(state) => Self::of(state, Death::Signal),
            Err(wrong) => {
                let _ = writeln!(std::io::stderr(), "nicd: {wrong}");
                std::process::exit(64)
            }
        }
    }

    fn read_environment() -> Result<State, String> {
        let orders = std::env::var("NICD_POINT").unwrap_or_default();
        let orders = orders.split(',').filter(|order| !order.is_empty()).map(str::parse).collect::<Result<_, _>>()?;
        let log = std::env::var_os("NICD_POINTS_LOG").map(|path| File::options().create(true).append(true).open(path));
        let log = log.transpose().map_err(|error| format!("NICD_POINTS_LOG: {error}"))?;
        Ok(State { orders, log, ..State::default() })
    }

    /// Has the calling thread work on this board.
    pub fn enter(&self) -> Entered {
        Entered { before: HERE.replace(Some(self.clone())) }
    }

    /// Puts these orders in the place of all before, and counts passes from here.
    pub fn order(&self, orders: Vec<Order>) {
        let mut state = self.lock();
        state.counts.clear();
        state.struck.clear();
        state.one = false;
        state.orders = orders;
    }

    /// The same, of which only the first to strike counts.
    pub fn order_one_of(&self, orders: Vec<Order>) {
        self.order(orders);
        self.lock().one = true;
    }

    /// Lists passes from here.
    pub fn list(&self) {
        self.lock().passes = Some(Vec::new());
    }

    /// The passes listed since, which end with this.
    pub fn listed(&self) -> Vec<Pass> {
        self.lock().passes.take().unwrap_or_default()
    }

    /// What went wrong since the last orders.
    pub fn struck(&self) -> Vec<String> {
        self.lock().struck.clone()
    }

    /// Whether the daemon on this board has died.
    pub fn is_dead(&self) -> bool {
        self.lock().dead
    }

    /// Ends the daemon on this board here and now.
    pub fn kill(&self) {
        self.lock().dead = true;
        if self.shared.death == Death::Signal {
            // Nothing to do about a signal to oneself that fails.
            let _ = raise(Signal::SIGKILL);
        }
        self.shared.died.notify_all();
    }

    /// Waits for the death, at most for so long; whether it has come.
    pub fn wait_for_death(&self, limit: Duration) -> bool {
        let alive = |state: &mut State| !state.dead;
        let waited = self.shared.died.wait_timeout_while(self.lock(), limit, alive);
        waited.map_or_else(|poisoned| poisoned.into_inner().0.dead, |(state, _)| state.dead)
    }

    pub(super) fn call<T, E>(
        &self,
        name: Name,
        work: impl FnOnce() -> Result<T, E>,
        fail: impl FnOnce(Errno) -> E,
    ) -> Result<T, E> {
        match self.pass(Kind::Call, name) {
            Fate::Goes => work(),
            Fate::Wrong(Fault::Fail(errno)) => Err(fail(errno)),
            Fate::Wrong(Fault::AppliedButFail(errno)) => work().and_then(|_| Err(fail(errno))),
            Fate::Wrong(Fault::LoseReply) => work().and_then(|_| Err(fail(Errno::ETIMEDOUT))),
            Fate::Wrong(Fault::KillAfter) => {
                let _ = work();
                self.kill();
                Err(fail(Errno::EIO))
            }
            Fate::Wrong(Fault::KillBefore) => {
                self.kill();
                Err(fail(Errno::EIO))
            }
            Fate::Wrong(Fault::Panic) | Fate::Dead => Err(fail(Errno::EIO)),
        }
    }

    pub(super) fn reply<T>(&self, name: Name, give: impl FnOnce() -> T) -> Option<T> {
        match self.pass(Kind::Reply, name) {
            Fate::Wrong(Fault::KillAfter) => {
                let given = give();
                self.kill();
                Some(given)
            }
            Fate::Wrong(Fault::KillBefore) => {
                self.kill();
                None
            }
            Fate::Goes => Some(give()),
            Fate::Wrong(_) | Fate::Dead => None,
        }
    }

    pub(super) fn moment<T>(&self, name: Name, work: impl FnOnce() -> T) -> T {
        let fate = self.pass(Kind::Moment, name);
        if let Fate::Wrong(Fault::KillBefore) = fate {
            self.kill();
        }
        let done = work();
        if let Fate::Wrong(Fault::KillAfter) = fate {
            self.kill();
        }
        done
    }

    pub(super) fn messages(&self, names: impl Iterator<Item = Name>) -> Vec<Injected> {
        let injected = |(position, name)| match self.pass(Kind::Message, name) {
            Fate::Wrong(Fault::Fail(errno)) => Some(Injected { position, errno, applied: false }),
            Fate::Wrong(Fault::AppliedButFail(errno)) => Some(Injected { position, errno, applied: true }),
            _ => None,
        };
        names.enumerate().filter_map(injected).collect()
    }

    /// Counts a pass, and says what becomes of it.
    fn pass(&self, kind: Kind, name: Name) -> Fate {
        let mut state = self.lock();
        if state.dead {
            return Fate::Dead;
        }
        let count = state.counts.entry(name).or_default();
        *count += 1;
        let n = *count;
        state.note(kind, name);
        match state.orders.iter().find(|order| order.means(name, n)).map(|order| order.fault) {
            Some(fault) => {
                let told = format!("{}.{}:{n}:{fault}", name.0, name.1);
                state.struck.push(told);
                if state.one {
                    state.orders.clear();
                }
                state.log_line("wrong here");
                drop(state);
                if fault == Fault::Panic {
                    panic!("ordered at a point");
                }
                Fate::Wrong(fault)
            }
            None => Fate::Goes,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Plain values, whole after each statement.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// One write a line, so that a kill leaves whole lines. A log that cannot be written shows in what it lacks.
    fn log_line(&mut self, line: &str) {
        if let Some(log) = self.log.as_mut() {
            let _ = log.write_all(format!("{line}\n").as_bytes());
        }
    }

    fn note(&mut self, kind: Kind, (room, what): Name) {
        if self.passes.is_none() && self.log.is_none() {
            return;
        }
        let pass = Pass { kind, name: format!("{room}.{what}") };
        self.log_line(&pass.to_string());
        if let Some(passes) = self.passes.as_mut() {
            passes.push(pass);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::points;

    const HERE_AND_NOW: Name = ("here", "now");

    fn ordered(order: &str) -> Board {
        let board = Board::new();
        board.order(vec![order.parse().unwrap()]);
        board
    }

    /// What a caller is told, and whether it was done.
    fn called() -> (Result<(), Errno>, bool) {
        let mut done = false;
        let told = points::call(
            HERE_AND_NOW,
            || {
                done = true;
                Ok(())
            },
            |errno| errno,
        );
        (told, done)
    }

    #[test]
    fn the_ordered_pass_goes_wrong_and_no_other() {
        let board = ordered("here.now:2:fail=EBUSY");
        let _entered = board.enter();
        assert_eq!([called(), called(), called()], [(Ok(()), true), (Err(Errno::EBUSY), false), (Ok(()), true)]);
        assert_eq!(board.struck(), ["here.now:2:fail=EBUSY"]);
    }

    #[test]
    fn what_was_done_can_be_reported_as_failed() {
        let board = ordered("here.now:1:applied-but-fail=EIO");
        let _entered = board.enter();
        assert_eq!(called(), (Err(Errno::EIO), true));
    }

    #[test]
    fn behind_a_death_nothing_is_done() {
        let board = ordered("here.now:1:kill-after");
        let _entered = board.enter();
        assert!(called().1);
        assert!(board.is_dead() && !called().1);
        assert_eq!(points::reply(("an", "answer"), || ()), None);
    }

    #[test]
    fn a_thread_is_on_the_board_of_whoever_started_it() {
        let board = ordered("here.now:1:kill-before");
        let _entered = board.enter();
        assert!(!std::thread::spawn(carry(called)).join().unwrap().1);
        assert!(board.wait_for_death(Duration::ZERO));
        assert!(std::thread::spawn(called).join().unwrap().1, "one that was not carried is on the process's");
    }
}
