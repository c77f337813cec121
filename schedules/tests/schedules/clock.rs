//! An executor of one thread with a clock of its own, which stands still while there is something to do and then moves on to the next
//! wait's end. The same seed gives the same run.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

type Running = Pin<Box<dyn Future<Output = ()>>>;

/// Tasks that can go on.
type Ready = Arc<Mutex<VecDeque<u64>>>;

#[derive(Default)]
struct Clock {
    now: Duration,
    last: u64,
    tasks: BTreeMap<u64, Option<Running>>,
    waits: BTreeMap<(Duration, u64), Waker>,
    ready: Ready,
}

thread_local! {
    static CLOCK: RefCell<Clock> = RefCell::default();
}

struct Woken {
    task: u64,
    ready: Ready,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.ready.lock().unwrap().push_back(self.task);
    }
}

/// A task that can be ended.
pub struct Task(u64);

impl Task {
    pub fn abort(self) {
        let gone = CLOCK.with_borrow_mut(|clock| clock.tasks.remove(&self.0));
        drop(gone);
    }
}

/// How long the run has taken by its clock.
pub fn now() -> Duration {
    CLOCK.with_borrow(|clock| clock.now)
}

pub fn spawn(future: impl Future<Output = ()> + 'static) -> Task {
    CLOCK.with_borrow_mut(|clock| {
        clock.last += 1;
        let task = clock.last;
        clock.tasks.insert(task, Some(Box::pin(future)));
        clock.ready.lock().unwrap().push_back(task);
        Task(task)
    })
}

/// Waits by this clock.
pub async fn sleep(time: Duration) {
    let (until, number) = CLOCK.with_borrow_mut(|clock| {
        clock.last += 1;
        (clock.now + time, clock.last)
    });
    std::future::poll_fn(|context: &mut Context<'_>| {
        CLOCK.with_borrow_mut(|clock| {
            if clock.now >= until {
                return Poll::Ready(());
            }
            clock.waits.insert((until, number), context.waker().clone());
            Poll::Pending
        })
    })
    .await;
}

/// Runs a task to its end, with all that it starts.
pub fn run(future: impl Future<Output = ()> + 'static) {
    CLOCK.set(Clock::default());
    let main = spawn(future).0;
    while CLOCK.with_borrow(|clock| clock.tasks.contains_key(&main)) {
        let ready = CLOCK.with_borrow(|clock| clock.ready.lock().unwrap().pop_front());
        match ready {
            Some(task) => poll(task),
            None => CLOCK.with_borrow_mut(|clock| {
                let ((until, _), waker) = clock.waits.pop_first().expect("something to wait for");
                clock.now = until;
                waker.wake();
            }),
        }
    }
    // What was started ends with it, outside of the clock's borrow.
    let rest = CLOCK.with_borrow_mut(|clock| std::mem::take(&mut clock.tasks));
    drop(rest);
}

fn poll(task: u64) {
    let (future, ready) = CLOCK.with_borrow_mut(|clock| (clock.tasks.get_mut(&task).and_then(Option::take), clock.ready.clone()));
    let Some(mut future) = future else { return };
    let waker = Waker::from(Arc::new(Woken { task, ready }));
    let ended = future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
    CLOCK.with_borrow_mut(|clock| match clock.tasks.get_mut(&task) {
        _ if ended => _ = clock.tasks.remove(&task),
        Some(place) => *place = Some(future),
        // It was ended meanwhile.
        None => {}
    });
}
