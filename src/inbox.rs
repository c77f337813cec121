//! A bounded queue into a thread: many push, one takes all there is.
//!
//! Taking everything at once is what lets the store share one flush among waiting commits and the reaper one RCU barrier
//! among waiting deletes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The queue is at its bound, or its thread has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// As many messages wait as may wait.
    #[error("the queue is full")]
    Full,
    /// Nobody takes from it any more.
    #[error("the queue is closed")]
    Closed,
}

/// Both ends of the queue; clones share it.
#[derive(Debug)]
pub struct Inbox<T> {
    shared: Arc<Shared<T>>,
}

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    bell: Condvar,
    limit: usize,
    /// Whether messages came since the last take; read without the lock, as a hint.
    news: AtomicBool,
}

#[derive(Debug)]
struct State<T> {
    queue: VecDeque<T>,
    /// How many were taken and wait all the same.
    held: usize,
    closed: bool,
    /// Whether the thread waits for a message.
    idle: bool,
}

impl<T> State<T> {
    fn room(&self, limit: usize) -> Result<(), Refused> {
        match self.closed {
            true => Err(Refused::Closed),
            false if self.queue.len().saturating_add(self.held) >= limit => Err(Refused::Full),
            false => Ok(()),
        }
    }
}

impl<T> Clone for Inbox<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Inbox<T> {
    /// An open queue for at most `limit` waiting messages.
    pub fn new(limit: usize) -> Self {
        let state = State { queue: VecDeque::new(), held: 0, closed: false, idle: false };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), bell: Condvar::new(), limit, news: AtomicBool::new(false) }) }
    }

    /// Appends a message.
    ///
    /// # Errors
    /// The queue is full or closed; the message is dropped.
    pub fn push(&self, message: T) -> Result<(), Refused> {
        self.append(message, self.shared.limit)?;
        self.shared.bell.notify_one();
        Ok(())
    }

    /// Whether a message may be appended now.
    ///
    /// # Errors
    /// The queue is full or closed.
    pub fn room(&self) -> Result<(), Refused> {
        self.lock().room(self.shared.limit)
    }

    /// Appends the answer to a message that was itself bounded, whatever the limit. Never blocks.
    ///
    /// # Errors
    /// The queue is closed.
    pub fn push_answer(&self, message: T) -> Result<(), Refused> {
        self.append(message, usize::MAX)?;
        self.shared.bell.notify_one();
        Ok(())
    }

    /// Appends a message that the thread need not wake up for: it is taken together with the next one.
    ///
    /// # Errors
    /// The queue is full or closed; the message is dropped.
    pub fn leave(&self, message: T) -> Result<(), Refused> {
        self.append(message, self.shared.limit)
    }

    fn append(&self, message: T, limit: usize) -> Result<(), Refused> {
        let mut state = self.lock();
        state.room(limit)?;
        state.queue.push_back(message);
        self.shared.news.store(true, Ordering::Release);
        Ok(())
    }

    /// Whether the thread has done all it was given and waits for more.
    pub fn idle(&self) -> bool {
        let state = self.lock();
        state.idle && state.queue.is_empty()
    }

    /// Waits for messages and takes all of them into `into`; false when the queue is closed and empty.
    pub fn take(&self, into: &mut VecDeque<T>) -> bool {
        let mut state = self.lock();
        while state.queue.is_empty() && !state.closed {
            state.idle = true;
            state = self.shared.bell.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.idle = false;
        self.empty(&mut state, into);
        !into.is_empty()
    }

    /// Turns round for at most `spin` until messages are there; the next take finds them. For a message that is on its way
    /// and whose taker is waited for: waking a thread whose core has gone idle costs more than most of what it is woken for.
    /// Yields all the while, so that whoever else wants the core has it.
    pub fn expect(&self, spin: Duration) {
        let until = Instant::now() + spin;
        // Not by the lock: whoever brings the message needs it.
        while !self.shared.news.load(Ordering::Acquire) && Instant::now() < until {
            std::thread::yield_now();
        }
    }

    /// Takes what is there, without waiting.
    pub fn take_now(&self, into: &mut VecDeque<T>) {
        self.empty(&mut self.lock(), into);
    }

    fn empty(&self, state: &mut State<T>, into: &mut VecDeque<T>) {
        into.append(&mut state.queue);
        self.shared.news.store(false, Ordering::Release);
    }

    /// Waits until messages are there or `until` has passed, and takes what is there.
    pub fn take_until(&self, until: Instant, into: &mut VecDeque<T>) {
        let mut state = self.lock();
        while state.queue.is_empty() && !state.closed {
            let left = until.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                break;
            }
            let (next, _) = self.shared.bell.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
            state = next;
        }
        self.empty(&mut state, into);
    }

    /// Refuses further messages; those that wait are still taken.
    pub fn close(&self) {
        self.lock().closed = true;
        self.shared.bell.notify_all();
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// So many of those that were taken are not begun yet: they count as waiting.
    pub fn hold(&self, taken: usize) {
        self.lock().held = taken;
    }

    /// How many messages wait.
    pub fn len(&self) -> usize {
        let state = self.lock();
        state.queue.len() + state.held
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // A panic elsewhere leaves a queue of whole messages: each step above is complete in itself.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_everything_in_order_and_ends_when_closed() {
        let inbox = Inbox::new(2);
        inbox.push(1).unwrap();
        inbox.push(2).unwrap();
        assert_eq!((inbox.room(), inbox.push(3)), (Err(Refused::Full), Err(Refused::Full)));
        inbox.push_answer(4).unwrap();
        let mut taken = VecDeque::new();
        assert!(inbox.take(&mut taken));
        assert_eq!(taken, [1, 2, 4]);
        inbox.close();
        taken.clear();
        assert!(!inbox.take(&mut taken));
        assert_eq!((inbox.room(), inbox.push(5)), (Err(Refused::Closed), Err(Refused::Closed)));
    }

    #[test]
    fn what_is_left_waits_for_the_next() {
        let inbox = Inbox::new(2);
        let taker = std::thread::spawn({
            let inbox = inbox.clone();
            move || {
                let mut taken = VecDeque::new();
                inbox.take(&mut taken);
                taken
            }
        });
        while !inbox.idle() {
            std::thread::yield_now();
        }
        inbox.leave(1).unwrap();
        assert!(!inbox.idle());
        std::thread::sleep(Duration::from_millis(5));
        inbox.push(2).unwrap();
        assert_eq!(taker.join().unwrap(), [1, 2]);
    }

    #[test]
    fn a_push_wakes_the_taker() {
        let inbox = Inbox::new(1);
        let taker = std::thread::spawn({
            let inbox = inbox.clone();
            move || {
                let mut taken = VecDeque::new();
                inbox.take(&mut taken);
                taken
            }
        });
        inbox.push(7).unwrap();
        assert_eq!(taker.join().unwrap(), [7]);
    }
}
