//! A bounded queue into a thread: many push, one takes all there is.
//!
//! Taking everything at once is what lets the store share one flush among waiting commits and the reaper one RCU barrier
//! among waiting deletes.

use std::collections::VecDeque;
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
}

#[derive(Debug)]
struct State<T> {
    queue: VecDeque<T>,
    /// How many were taken and wait all the same.
    held: usize,
    closed: bool,
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
        let state = State { queue: VecDeque::new(), held: 0, closed: false };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), bell: Condvar::new(), limit }) }
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

    /// Appends the answer to a message that was itself bounded, whatever the limit. Never blocks.
    ///
    /// # Errors
    /// The queue is closed.
    pub fn push_answer(&self, message: T) -> Result<(), Refused> {
        self.append(message, usize::MAX)?;
        self.shared.bell.notify_one();
        Ok(())
    }

    fn append(&self, message: T, limit: usize) -> Result<(), Refused> {
        let mut state = self.lock();
        state.room(limit)?;
        state.queue.push_back(message);
        Ok(())
    }

    /// Waits for messages and takes all of them into `into`; false when the queue is closed and empty.
    pub fn take(&self, into: &mut VecDeque<T>) -> bool {
        let mut state = self.lock();
        while state.queue.is_empty() && !state.closed {
            state = self.shared.bell.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        into.append(&mut state.queue);
        !into.is_empty()
    }

    /// Takes what is there, without waiting.
    pub fn take_now(&self, into: &mut VecDeque<T>) {
        into.append(&mut self.lock().queue);
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
        into.append(&mut state.queue);
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
        assert_eq!(inbox.push(3), Err(Refused::Full));
        inbox.push_answer(4).unwrap();
        let mut taken = VecDeque::new();
        assert!(inbox.take(&mut taken));
        assert_eq!(taken, [1, 2, 4]);
        inbox.close();
        taken.clear();
        assert!(!inbox.take(&mut taken));
        assert_eq!(inbox.push(5), Err(Refused::Closed));
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
