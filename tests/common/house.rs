//! The daemon without its doors: manager, kernel threads and store on a host in memory, which can be started, stopped,
//! killed at any op, and started again on what is left.
//!
//! Each house has an event loop of its own that runs while something is asked of it; a kill drops it with every task.

#![allow(dead_code)] // each test target uses its part

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nicd::config::AllowedBridges;
use nicd::events::{self, Reader};
use nicd::kernel::fake::{Fake, FakeHeld, FakeHost};
use nicd::kernel::hands::{self, Hands};
use nicd::kernel::{Applied, Host, Kernel, NetnsError, Notice, OpError, Trouble, Who};
use nicd::manager::{Context, Error, Manager, Policy, Reply};
use nicd::model::action::Action;
use nicd::model::{LinkName, MacPrefix, NetnsPin, PortId};
use nicd::plan::{HostAddress, LinkSeen, Op};
use nicd::store::{Lock, Store};
use tokio::runtime::Runtime;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

/// Longer than anything here may take, backoff included.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long to wait for an event before looking again at what sends none.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// A running daemon, but for its sockets.
pub struct House {
    /// What a client's actions go to.
    pub manager: Arc<Manager>,
    runtime: Option<Runtime>,
    hands: Arc<dyn Hands>,
    store: Store,
    threads: Vec<JoinHandle<()>>,
    ended: CancellationToken,
    following: Option<tokio::task::JoinHandle<()>>,
    reader: Reader,
    life: Arc<Life>,
    /// Numbers of the events so far.
    events: Vec<u64>,
    _lock: Lock,
}

impl House {
    /// Starts on a state directory and a host, in the order in which the daemon does.
    pub fn open(dir: &Path, fake: &Fake) -> Self {
        Self::sweeping(dir, fake, Duration::from_secs(60))
    }

    /// The same, sweeping so often.
    pub fn sweeping(dir: &Path, fake: &Fake, sweep: Duration) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an event loop");
        let life = Arc::new(Life::default());
        let kernel = Mortal { fake: fake.clone(), life: Arc::clone(&life) };
        let lock = Lock::take(dir).expect("the state directory is free");
        let (store, loaded, store_thread) = Store::open(dir).expect("the store opens");
        let (notices, noticed) = mpsc::channel(8192);
        kernel.watch(notices).expect("watch");
        let at = Instant::now();
        let links = kernel.open().and_then(|mut host| host.observe()).expect("a dump");
        let flushing = store.clone();
        let (hands, mut threads) = hands::start(&kernel, Arc::new(move || flushing.flush())).expect("threads");
        threads.push(store_thread);
        let manager = Manager::new(policy(sweep), (store.clone(), loaded), Arc::clone(&hands), links, at);
        let reader = manager.events().read_after(None);
        let ended = CancellationToken::new();
        runtime.block_on(manager.begin()).expect("the store writes");
        let following = runtime.spawn(Arc::clone(&manager).follow(noticed, ended.clone().cancelled_owned()));
        let following = Some(following);
        Self {
            manager,
            runtime: Some(runtime),
            hands,
            store,
            threads,
            ended,
            following,
            reader,
            life,
            events: Vec::new(),
            _lock: lock,
        }
    }

    /// Carries an action out and waits for its answer.
    pub fn perform(&self, action: Action) -> Result<Reply, Error> {
        self.run(self.manager.perform(action, Context::default()))
    }

    /// Carries many out at once; the answers in the order of the actions.
    pub fn perform_at_once(&self, actions: Vec<Action>) -> Vec<Result<Reply, Error>> {
        let all = actions.into_iter().map(|action| self.manager.perform(action, Context::default()));
        self.run(futures_util::future::join_all(all))
    }

    /// Runs the event loop until `future` ends.
    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        let runtime = self.runtime.as_ref().expect("it lives");
        runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.expect("an answer in time") })
    }

    /// Waits until `check` finds nothing wrong, looking after each event; fails with what it last found.
    pub fn settle(&mut self, check: impl Fn() -> Result<(), String>) {
        let until = Instant::now() + PATIENCE;
        while let Err(wrong) = check() {
            assert!(Instant::now() < until, "not settled: {wrong}");
            self.next_event();
        }
        // What was begun meanwhile runs to its end too, and changes nothing.
        self.pass();
        check().unwrap_or_else(|wrong| panic!("settled, and then: {wrong}"));
    }

    /// Lets whatever waits in the kernel's queue and in the event loop run.
    pub fn pass(&mut self) {
        for _ in 0..2 {
            let answer = self.hands.observe().expect("the worker lives");
            let _ = self.run(answer);
            while self.next_event() {}
        }
    }

    /// Takes in the next event; false when none came at once.
    fn next_event(&mut self) -> bool {
        let runtime = self.runtime.as_ref().expect("it lives");
        let reader = &mut self.reader;
        let next = runtime.block_on(async { tokio::time::timeout(LOOK_AGAIN, reader.next()).await });
        let Ok(event) = next else { return false };
        assert_ne!(event.kind, events::Kind::Lost, "the reader kept up and still lost events");
        self.events.push(event.seq);
        true
    }

    /// The numbers of the events taken in so far.
    pub fn events(&self) -> &[u64] {
        &self.events
    }

    /// How often the store was flushed.
    pub fn flushes(&self) -> u64 {
        self.store.flushes()
    }

    /// Lets the process die when it comes to the `n`-th op from now, before it or just after.
    pub fn die_at(&self, n: usize, when: Death) {
        *self.life.fate.lock().expect("fate") = Some((n, when));
    }

    /// Waits for the death set by [`Self::die_at`]; none when `work` ends and nothing comes of it any more.
    pub fn run_to_death<T>(&mut self, work: impl Future<Output = T>, settled: impl Fn() -> bool) -> Option<T> {
        let life = Arc::clone(&self.life);
        let runtime = self.runtime.as_ref().expect("it lives");
        let answer = runtime.block_on(async {
            tokio::select! {
                biased;
                () = life.dying.notified() => None,
                answer = tokio::time::timeout(PATIENCE, work) => Some(answer.expect("an answer in time")),
            }
        });
        let until = Instant::now() + PATIENCE;
        while answer.is_some() && !settled() && !life.is_dying() {
            assert!(Instant::now() < until, "neither settled nor dead");
            self.next_event();
        }
        answer
    }

    /// Whether the death set by [`Self::die_at`] has come.
    pub fn is_dying(&self) -> bool {
        self.life.is_dying()
    }

    /// Stops as the daemon does.
    pub fn stop(mut self) {
        let runtime = self.runtime.take().expect("it lives");
        let following = self.following.take();
        runtime.block_on(async {
            self.manager.stop(PATIENCE).await;
            self.ended.cancel();
            if let Some(following) = following {
                following.await.expect("it followed to its end");
            }
        });
    }

    /// Ends at once: no task and no op goes on, what was not persistent is gone. The store may still write what it was
    /// handed, as a process might have just done.
    pub fn kill(mut self) {
        drop(self.runtime.take());
    }
}

impl Drop for House {
    fn drop(&mut self) {
        // A kill, unless it was stopped: in a stopped house nothing waits any more.
        let killed = !self.ended.is_cancelled();
        drop(self.runtime.take());
        if killed {
            self.store.close();
        }
        self.life.end();
        self.hands.close();
        self.store.close();
        for thread in self.threads.drain(..) {
            let joined = thread.join();
            assert!(joined.is_ok() || std::thread::panicking(), "a thread of the house panicked");
        }
    }
}

fn policy(sweep: Duration) -> Policy {
    Policy {
        mac_prefix: MacPrefix::default(),
        allowed_bridges: AllowedBridges::default(),
        mtu: 1500,
        sweep,
        nics_per_server: 4,
        host: "house".to_owned(),
    }
}

/// On which side of an op the process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// The kernel never sees the op.
    Before,
    /// The kernel has done it, and nobody learns of it.
    After,
}

/// Whether a process still lives, and which op is its last.
#[derive(Debug, Default)]
struct Life {
    fate: Mutex<Option<(usize, Death)>>,
    dying: Notify,
    died: AtomicBool,
    dead: Mutex<bool>,
    buried: Condvar,
}

impl Life {
    /// Takes one op off what is left; how it ends when it is the last.
    fn spend(&self) -> Option<Death> {
        let mut fate = self.fate.lock().expect("fate");
        match fate.as_mut() {
            Some((0, death)) => {
                let death = *death;
                *fate = None;
                Some(death)
            }
            Some((left, _)) => {
                *left -= 1;
                None
            }
            None => None,
        }
    }

    /// Announces the death, and holds the thread until nothing else of the process runs.
    fn die(&self) {
        self.dying.notify_one();
        let mut dead = self.dead.lock().expect("dead");
        while !*dead {
            dead = self.buried.wait(dead).expect("dead");
        }
    }

    fn is_dying(&self) -> bool {
        self.died.load(Ordering::SeqCst)
    }

    fn is_dead(&self) -> bool {
        *self.dead.lock().expect("dead")
    }

    fn end(&self) {
        *self.dead.lock().expect("dead") = true;
        self.buried.notify_all();
    }
}

/// The host in memory as one process sees it: a dead one's ops never reach it.
struct Mortal {
    fake: Fake,
    life: Arc<Life>,
}

/// One access of a mortal.
struct MortalHost {
    host: FakeHost,
    life: Arc<Life>,
}

impl Kernel for Mortal {
    type Host = MortalHost;

    fn open(&self) -> Result<MortalHost, OpError> {
        Ok(MortalHost { host: self.fake.open()?, life: Arc::clone(&self.life) })
    }

    fn watch(&self, sink: mpsc::Sender<Notice>) -> Result<(), OpError> {
        self.fake.watch(sink)
    }
}

impl Host for MortalHost {
    type Held = FakeHeld;

    fn apply(&mut self, op: &Op, held: &mut FakeHeld) -> Result<Applied, OpError> {
        if self.life.is_dead() {
            return Err(dead());
        }
        match self.life.spend() {
            None => self.host.apply(op, held),
            Some(death) => {
                // Before the op, so that who sees what the op did knows of the death too.
                self.life.died.store(true, Ordering::SeqCst);
                if death == Death::After {
                    let _ = self.host.apply(op, held);
                }
                self.life.die();
                Err(dead())
            }
        }
    }

    fn look(&mut self, who: Who<'_>) -> Result<Option<LinkSeen>, OpError> {
        if self.life.is_dead() { Err(dead()) } else { self.host.look(who) }
    }

    fn observe(&mut self) -> Result<Vec<LinkSeen>, OpError> {
        if self.life.is_dead() { Err(dead()) } else { self.host.observe() }
    }

    fn addresses(&mut self) -> Result<Vec<HostAddress>, OpError> {
        if self.life.is_dead() { Err(dead()) } else { self.host.addresses() }
    }

    fn inspect(&mut self, path: &Path) -> Result<NetnsPin, NetnsError> {
        self.host.inspect(path)
    }

    fn lives(&mut self, pin: NetnsPin) -> bool {
        self.host.lives(pin)
    }

    fn guest_device(&mut self, port: PortId, netns: &Path, pin: NetnsPin) -> Result<LinkName, OpError> {
        if self.life.is_dead() { Err(dead()) } else { self.host.guest_device(port, netns, pin) }
    }

    fn default_route_links(&mut self) -> Result<std::collections::BTreeSet<u32>, OpError> {
        self.host.default_route_links()
    }
}

fn dead() -> OpError {
    OpError { trouble: Trouble::Other, doing: "anything".to_owned(), said: "the process is dead".to_owned() }
}
