//! A bounded queue of messages into a thread: many threads push, one thread takes all messages at once.
//!
//! The store takes all waiting commits so that one flush serves them; the reaper takes all waiting deletes so that one RCU
//! barrier serves them.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Why a message was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// The queue has reached its limit.
    #[error("the queue is full")]
    Full,
    /// The thread that takes from the queue has ended.
    #[error("the queue is closed")]
    Closed,
}

/// Both ends of the queue; clones share it.
#[derive(Debug)]
pub struct Queue<T> {
    shared: Arc<Shared<T>>,
}

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<QueueState<T>>,
    not_empty: Condvar,
    limit: usize,
}

#[derive(Debug)]
struct QueueState<T> {
    messages: VecDeque<T>,
    /// How many messages were taken but not begun; they count against the limit.
    held: usize,
    closed: bool,
}

impl<T> QueueState<T> {
    fn room(&self, limit: usize) -> Result<(), QueueError> {
        match self.closed {
            true => Err(QueueError::Closed),
            false if self.messages.len().saturating_add(self.held) >= limit => Err(QueueError::Full),
            false => Ok(()),
        }
    }
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Queue<T> {
    /// An open queue for at most `limit` waiting messages.
    pub fn new(limit: usize) -> Self {
        let state = QueueState { messages: VecDeque::new(), held: 0, closed: false };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), not_empty: Condvar::new(), limit }) }
    }

    /// Appends a message.
    ///
    /// # Errors
    /// The queue is full or closed; the message is dropped.
    pub fn push(&self, message: T) -> Result<(), QueueError> {
        self.append(message, self.shared.limit)?;
        self.shared.not_empty.notify_one();
        Ok(())
    }

    /// Appends a message even when the queue is full. Only for the follow-up of an earlier message, which the limit counted.
    ///
    /// # Errors
    /// The queue is closed.
    pub fn push_answer(&self, message: T) -> Result<(), QueueError> {
        self.append(message, usize::MAX)?;
        self.shared.not_empty.notify_one();
        Ok(())
    }

    fn append(&self, message: T, limit: usize) -> Result<(), QueueError> {
        let mut state = self.lock();
        state.room(limit)?;
        state.messages.push_back(message);
        Ok(())
    }

    /// Waits for messages and moves all of them into `into`; false when the queue is closed and empty.
    pub fn take(&self, into: &mut VecDeque<T>) -> bool {
        let mut state = self.lock();
        while state.messages.is_empty() && !state.closed {
            state = self.shared.not_empty.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        into.append(&mut state.messages);
        !into.is_empty()
    }

    /// Moves the waiting messages into `into`, without waiting for more.
    pub fn take_now(&self, into: &mut VecDeque<T>) {
        into.append(&mut self.lock().messages);
    }

    /// Waits for messages until `until`, and moves those that have arrived into `into`.
    pub fn take_until(&self, until: Instant, into: &mut VecDeque<T>) {
        let mut state = self.lock();
        while state.messages.is_empty() && !state.closed {
            let left = until.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                break;
            }
            let (next, _) = self.shared.not_empty.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
            state = next;
        }
        into.append(&mut state.messages);
    }

    /// Refuses further messages. Waiting messages are still taken.
    pub fn close(&self) {
        self.lock().closed = true;
        self.shared.not_empty.notify_all();
    }

    /// Whether the queue was closed.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Sets how many taken messages the thread has not begun yet. They count as waiting.
    pub fn hold(&self, taken: usize) {
        self.lock().held = taken;
    }

    /// How many messages wait.
    pub fn len(&self) -> usize {
        let state = self.lock();
        state.messages.len() + state.held
    }

    /// Whether no message waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, QueueState<T>> {
        // A panic in another thread leaves the queue valid: each change above is complete in itself.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_everything_in_order_and_ends_when_closed() {
        let queue = Queue::new(2);
        queue.push(1).unwrap();
        queue.push(2).unwrap();
        assert_eq!(queue.push(3), Err(QueueError::Full));
        queue.push_answer(4).unwrap();
        let mut taken = VecDeque::new();
        assert!(queue.take(&mut taken));
        assert_eq!(taken, [1, 2, 4]);
        queue.close();
        taken.clear();
        assert!(!queue.take(&mut taken));
        assert_eq!(queue.push(5), Err(QueueError::Closed));
    }

    #[test]
    fn a_push_wakes_the_taker() {
        let queue = Queue::new(1);
        let taker = std::thread::spawn({
            let queue = queue.clone();
            move || {
                let mut taken = VecDeque::new();
                queue.take(&mut taken);
                taken
            }
        });
        queue.push(7).unwrap();
        assert_eq!(taker.join().unwrap(), [7]);
    }
}
