//! The daemon without its doors: manager, kernel threads and store on a host in memory, which can be started, stopped,
//! killed at any point, and started again on what is left.
//!
//! Each daemon has an event loop of its own that runs while something is asked of it, and a registry of its own on which
//! its points can be made to go wrong. A kill freezes the registry: neither host nor store sees anything of it any more.

#![allow(dead_code)] // each test target uses its part

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nicd::config::AllowedBridges;
use nicd::events::{self, Reader};
use nicd::failpoints;
#[cfg(debug_assertions)]
use nicd::failpoints::Registry;
use nicd::kernel::fake::Fake;
use nicd::kernel::handle::{self, KernelHandle};
use nicd::kernel::{Host, Kernel};
use nicd::model::MacPrefix;
use nicd::model::action::Action;
use nicd::service::{Context, Error, Heartbeat, Policy, Reply, Service};
use nicd::store::{Lock, Store};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// A release has no points, so that nothing can go wrong on its registry.
#[cfg(not(debug_assertions))]
#[derive(Debug, Clone)]
pub struct Registry;

#[cfg(not(debug_assertions))]
impl Registry {
    pub fn new() -> Self {
        Self
    }

    /// As long as what it gives is there, points are this registry's.
    pub fn enter(&self) -> Self {
        Self
    }

    pub fn kill(&self) {}

    pub fn is_dead(&self) -> bool {
        false
    }
}

/// Longer than anything here may take, backoff included.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long to wait for an event before looking again at what sends none.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// A running daemon, but for its sockets.
pub struct InProcessDaemon {
    /// What a client's actions go to.
    pub manager: Arc<Service>,
    /// Where its points go wrong.
    pub registry: Registry,
    runtime: Option<Runtime>,
    handle: Arc<dyn KernelHandle>,
    store: Store,
    threads: Vec<JoinHandle<()>>,
    ended: CancellationToken,
    following: Option<tokio::task::JoinHandle<()>>,
    reader: Reader,
    /// Numbers of the events so far.
    events: Vec<u64>,
    _lock: Lock,
}

impl InProcessDaemon {
    /// Starts on a state directory and a host.
    pub fn open(dir: &Path, fake: &Fake) -> Self {
        Self::sweeping(dir, fake, Duration::from_secs(60))
    }

    /// The same, sweeping so often.
    pub fn sweeping(dir: &Path, fake: &Fake, sweep: Duration) -> Self {
        Self::begin(dir, fake, Registry::new(), sweep).expect("it starts")
    }

    /// The same on a registry on which things may go wrong, in the order in which the daemon does; why it does not start.
    pub fn start(dir: &Path, fake: &Fake, registry: Registry) -> Result<Self, String> {
        Self::begin(dir, fake, registry, Duration::from_secs(60))
    }

    fn begin(dir: &Path, fake: &Fake, registry: Registry, sweep: Duration) -> Result<Self, String> {
        let _on = registry.enter();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an event loop");
        let lock = Lock::take(dir).map_err(|error| error.to_string())?;
        let (store, loaded, store_thread) = Store::open(dir).map_err(|error| error.to_string())?;
        let (notices, noticed) = mpsc::channel(8192);
        loaded.ports.iter().for_each(|port| fake.guests().insert(port.id, port.mac));
        fake.watch(notices).map_err(|error| error.to_string())?;
        let at = Instant::now();
        let links = match fake.open().and_then(|mut host| host.dump_links()) {
            Ok(links) => links,
            Err(error) => {
                store.close();
                store_thread.join().expect("the store's end");
                return Err(error.to_string());
            }
        };
        let (handle, mut threads) = handle::start(fake).expect("threads");
        threads.push(store_thread);
        let manager = Service::new(policy(sweep), (store.clone(), loaded), Arc::clone(&handle), links, at);
        let reader = manager.events().read_after(None);
        let ended = CancellationToken::new();
        let begun = runtime.block_on(manager.reconciler().begin()).map_err(|error| error.to_string());
        let pulse = runtime.block_on(async { Heartbeat::new(Duration::from_secs(1), |_| ()) });
        let follow = Arc::clone(manager.reconciler()).follow(noticed, pulse, ended.clone().cancelled_owned());
        let following = begun.is_ok().then(|| runtime.spawn(follow));
        let runtime = Some(runtime);
        let events = Vec::new();
        let daemon = Self {
            manager,
            registry: registry.clone(),
            runtime,
            handle,
            store,
            threads,
            ended,
            following,
            reader,
            events,
            _lock: lock,
        };
        begun.map(|()| daemon)
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
        let _on = self.registry.enter();
        let runtime = self.runtime.as_ref().expect("it lives");
        runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.expect("an answer in time") })
    }

    /// Carries an action out; none when it is never answered, because the daemon dies or the answer is lost.
    pub fn ask(&self, action: Action) -> Option<Result<Reply, Error>> {
        let _on = self.registry.enter();
        let runtime = self.runtime.as_ref().expect("it lives");
        let until = Instant::now() + PATIENCE;
        let answer = runtime.block_on(async {
            let mut answer = std::pin::pin!(self.manager.perform(action, Context::default()));
            loop {
                match tokio::time::timeout(LOOK_AGAIN, answer.as_mut()).await {
                    Ok(answer) => return Some(answer),
                    Err(_) if self.registry.is_dead() => return None,
                    Err(_) => assert!(Instant::now() < until, "an answer in time"),
                }
            }
        });
        answer.and_then(|answer| failpoints::reply(("reply", "http"), || answer))
    }

    /// Waits until `check` finds nothing wrong, looking after each event; fails with what it last found.
    pub fn settle(&mut self, check: impl Fn() -> Result<(), String>) {
        self.try_settle(check).unwrap_or_else(|wrong| panic!("{wrong}"));
    }

    /// The same; what was last found wrong is the error.
    pub fn try_settle(&mut self, check: impl Fn() -> Result<(), String>) -> Result<(), String> {
        let until = Instant::now() + PATIENCE;
        while let Err(wrong) = check() {
            if Instant::now() >= until {
                return Err(format!("not settled: {wrong}"));
            }
            self.next_event();
        }
        // What was begun meanwhile runs to its end too, and changes nothing.
        self.drain();
        check().map_err(|wrong| format!("settled, and then: {wrong}"))
    }

    /// Lets the daemon go on until `done`, or until it dies.
    pub fn go_on(&mut self, done: impl Fn() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !self.registry.is_dead() && !done() {
            assert!(Instant::now() < until, "neither done nor dead");
            self.next_event();
        }
    }

    /// Runs everything that waits in the queue of the kernel worker and in the event loop.
    pub fn drain(&mut self) {
        for _ in 0..2 {
            let answer = self.handle.dump_links().expect("the worker lives");
            let _ = self.run(answer);
            while self.next_event() {}
        }
    }

    /// Takes in the next event; false when none came at once.
    fn next_event(&mut self) -> bool {
        let _on = self.registry.enter();
        let runtime = self.runtime.as_ref().expect("it lives");
        let reader = &mut self.reader;
        let next = runtime.block_on(async { tokio::time::timeout(LOOK_AGAIN, reader.next()).await });
        let Ok(event) = next else { return false };
        assert_ne!(event.kind, events::EventKind::Lost, "the reader kept up and still lost events");
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

    /// Stops as the daemon does.
    pub fn stop(mut self) {
        let _on = self.registry.enter();
        let runtime = self.runtime.take().expect("it lives");
        let following = self.following.take();
        runtime.block_on(async {
            self.manager.reconciler().stop(PATIENCE).await;
            self.ended.cancel();
            if let Some(following) = following {
                following.await.expect("it followed to its end");
            }
        });
    }

    /// Ends at once: nothing of it reaches host or store any more, and what was not persistent is gone.
    pub fn kill(self) {
        self.registry.kill();
    }
}

impl Drop for InProcessDaemon {
    fn drop(&mut self) {
        // A kill, unless it was stopped: in a stopped daemon no work waits.
        if !self.ended.is_cancelled() {
            self.registry.kill();
        }
        drop(self.runtime.take());
        self.handle.close();
        self.store.close();
        for thread in self.threads.drain(..) {
            let joined = thread.join();
            assert!(joined.is_ok() || std::thread::panicking(), "a thread of the daemon panicked");
        }
    }
}

fn policy(sweep: Duration) -> Policy {
    Policy {
        mac_prefix: MacPrefix::default(),
        allowed_bridges: AllowedBridges::default(),
        mtu: 1500,
        require_host_closed: true,
        sweep,
        nics_per_server: 4,
        host: "house".to_owned(),
    }
}
