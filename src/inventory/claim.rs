//! Claims: exclusive work on one object. A claim ends with its guard, also when the task that has it panics or is cancelled.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use super::Error;

/// Whether an operation works on an object.
#[derive(Debug, Default)]
pub struct Claim {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    taken: AtomicBool,
    ended: Arc<Notify>,
}

/// The claim on an object, until this is dropped.
#[derive(Debug)]
#[must_use]
pub struct ClaimGuard {
    shared: Arc<Shared>,
}

/// Another operation has the claim; its end wakes the waiters.
#[derive(Debug)]
pub struct Busy(pub OwnedNotified);

/// Why claims were not taken.
#[derive(Debug)]
pub enum Unclaimed<E> {
    /// One of them is another's.
    Busy(Busy),
    /// An object is not to be had.
    Refused(E),
}

impl Claim {
    /// Takes the claim.
    pub fn take(&self) -> Result<ClaimGuard, Busy> {
        // Listened for first: the claim may end between the look and the wait.
        let ended = self.ended();
        match self.shared.taken.swap(true, Ordering::AcqRel) {
            true => Err(Busy(ended)),
            false => Ok(ClaimGuard { shared: Arc::clone(&self.shared) }),
        }
    }

    /// Refuses while an operation has the claim, and takes nothing.
    pub fn check_free(&self) -> Result<(), Busy> {
        let ended = self.ended();
        if self.taken() { Err(Busy(ended)) } else { Ok(()) }
    }

    /// Whether an operation has it.
    pub fn taken(&self) -> bool {
        self.shared.taken.load(Ordering::Acquire)
    }

    /// Wakes when the claim ends, when its object is gone, and by [`Claim::wake`].
    pub fn ended(&self) -> OwnedNotified {
        Arc::clone(&self.shared.ended).notified_owned()
    }

    /// Wakes all that wait, though the claim goes on.
    pub fn wake(&self) {
        self.shared.ended.notify_waiters();
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // The object is gone; who waited finds that out.
        self.wake();
    }
}

impl Drop for ClaimGuard {
    fn drop(&mut self) {
        self.shared.taken.store(false, Ordering::Release);
        self.shared.ended.notify_waiters();
    }
}

impl<E> From<Busy> for Unclaimed<E> {
    fn from(busy: Busy) -> Self {
        Self::Busy(busy)
    }
}

impl<E: From<Error>> From<Error> for Unclaimed<E> {
    fn from(error: Error) -> Self {
        Self::Refused(error.into())
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn is_woken(waiting: OwnedNotified) -> bool {
        pin!(waiting).poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    #[test]
    fn a_claim_is_one_s_until_its_guard_is_dropped() {
        let claim = Claim::default();
        let guard = claim.take().unwrap();
        assert!(claim.taken() && claim.check_free().is_err());
        let Err(Busy(waiting)) = claim.take() else { panic!("it was taken twice") };
        drop(guard);
        assert!(is_woken(waiting));
        assert!(!claim.taken() && claim.take().is_ok());
    }

    #[test]
    fn a_panic_ends_the_claim() {
        let claim = Claim::default();
        let guard = claim.take().unwrap();
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _guard = guard;
            panic!("a bug");
        }));
        assert!(ended.is_err() && !claim.taken());
    }

    #[test]
    fn who_waits_for_an_object_that_goes_is_woken() {
        let claim = Claim::default();
        let guard = claim.take().unwrap();
        let waiting = claim.ended();
        drop(claim);
        assert!(is_woken(waiting));
        drop(guard);
    }
}
