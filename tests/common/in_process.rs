//! The daemon without HTTP and D-Bus, in the test's process: service, kernel threads and store on the in-memory host. It can be
//! started, stopped, killed at any failpoint, and started again on the same host and state directory.
//!
//! Each daemon has its own event loop, which runs only during calls of these methods, and its own failpoint registry. A kill
//! freezes the registry: the daemon changes neither host nor store any more.

#![allow(dead_code)] // each test target uses its part

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nicd::config::{AllowedBridges, ConflictProbe};
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

/// A release build has no failpoints, so its registry does nothing.
#[cfg(not(debug_assertions))]
#[derive(Debug, Clone)]
pub struct Registry;

#[cfg(not(debug_assertions))]
impl Registry {
    pub fn new() -> Self {
        Self
    }

    /// Makes the calling thread use this registry until the returned value is dropped.
    pub fn enter(&self) -> Self {
        Self
    }

    pub fn kill(&self) {}

    pub fn is_dead(&self) -> bool {
        false
    }
}

/// How long a wait may take: more than a port that is cut off, or a bridge that could not be set back, waits for its next try (10 s).
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How long to wait for an event before a state without events is checked again.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// A running daemon without sockets.
pub struct InProcessDaemon {
    /// The reconciler, which performs actions.
    pub service: Arc<Service>,
    /// The failpoint registry.
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
    /// Starts a daemon on a state directory and a host.
    pub fn open(dir: &Path, fake: &Fake) -> Self {
        Self::sweeping(dir, fake, Duration::from_secs(60))
    }

    /// The same, with a sweep interval.
    pub fn sweeping(dir: &Path, fake: &Fake, sweep: Duration) -> Self {
        Self::begin(dir, fake, Registry::new(), policy(sweep)).expect("it starts")
    }

    /// The same with a failpoint registry, in the start order of the real daemon. Returns why the start failed.
    pub fn start(dir: &Path, fake: &Fake, registry: Registry) -> Result<Self, String> {
        Self::begin(dir, fake, registry, policy(Duration::from_secs(60)))
    }

    /// Starts a daemon on any host, with these rules.
    pub fn on<K: Kernel + Clone>(dir: &Path, kernel: &K, policy: Policy) -> Self {
        Self::begin(dir, kernel, Registry::new(), policy).expect("it starts")
    }

    fn begin<K: Kernel + Clone>(dir: &Path, fake: &K, registry: Registry, policy: Policy) -> Result<Self, String> {
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
        let service = Service::new(policy, (store.clone(), loaded), Arc::clone(&handle), links, at);
        let reader = service.events().read_after(None);
        let ended = CancellationToken::new();
        let begun = runtime.block_on(service.reconciler().begin()).map_err(|error| error.to_string());
        let pulse = runtime.block_on(async { Heartbeat::new(Duration::from_secs(1), |_| ()) });
        let follow = Arc::clone(service.reconciler()).follow(noticed, pulse, ended.clone().cancelled_owned());
        let following = begun.is_ok().then(|| runtime.spawn(follow));
        let runtime = Some(runtime);
        let events = Vec::new();
        let daemon = Self {
            service,
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

    /// Performs an action and waits for its answer.
    pub fn perform(&self, action: Action) -> Result<Reply, Error> {
        self.run(self.service.perform(action, Context::default()))
    }

    /// Performs actions concurrently; the answers have the order of the actions.
    pub fn perform_at_once(&self, actions: Vec<Action>) -> Vec<Result<Reply, Error>> {
        let all = actions.into_iter().map(|action| self.service.perform(action, Context::default()));
        self.run(futures_util::future::join_all(all))
    }

    /// Runs the event loop until `future` ends.
    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        let _on = self.registry.enter();
        let runtime = self.runtime.as_ref().expect("it lives");
        runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.expect("an answer in time") })
    }

    /// Performs an action. `None` when it gets no answer, because the daemon was killed or the answer was lost.
    pub fn ask(&self, action: Action) -> Option<Result<Reply, Error>> {
        let _on = self.registry.enter();
        let runtime = self.runtime.as_ref().expect("it lives");
        let until = Instant::now() + PATIENCE;
        let answer = runtime.block_on(async {
            let mut answer = std::pin::pin!(self.service.perform(action, Context::default()));
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

    /// Waits until `check` succeeds, running it after each event. Panics with its last error at the time limit.
    pub fn settle(&mut self, check: impl Fn() -> Result<(), String>) {
        self.try_settle(check).unwrap_or_else(|wrong| panic!("{wrong}"));
    }

    /// The same, returning the last error.
    pub fn try_settle(&mut self, check: impl Fn() -> Result<(), String>) -> Result<(), String> {
        let until = Instant::now() + PATIENCE;
        loop {
            while let Err(wrong) = check() {
                if Instant::now() >= until {
                    return Err(format!("not settled: {wrong}"));
                }
                self.next_event();
            }
            // Operations that are still running must not change the result. One that was carried out and then failed does: it is
            // undone, and tried again after a rest.
            self.drain();
            let Err(wrong) = check() else { return Ok(()) };
            if self.registry.injected().is_empty() || Instant::now() >= until {
                return Err(format!("settled, and then: {wrong}"));
            }
        }
    }

    /// Runs the daemon until `done`, or until it is killed.
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

    /// Receives the next event; false when none arrived in a short time.
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

    /// The numbers of the events received so far.
    pub fn events(&self) -> &[u64] {
        &self.events
    }

    /// How often the store was flushed.
    pub fn flushes(&self) -> u64 {
        self.store.flushes()
    }

    /// Stops the daemon in the order of the real one.
    pub fn stop(mut self) {
        let _on = self.registry.enter();
        let runtime = self.runtime.take().expect("it lives");
        let following = self.following.take();
        runtime.block_on(async {
            self.service.reconciler().stop(PATIENCE).await;
            self.ended.cancel();
            if let Some(following) = following {
                following.await.expect("it followed to its end");
            }
        });
    }

    /// Kills the daemon: it changes neither host nor store any more, and devices that are not persistent disappear.
    pub fn kill(self) {
        self.registry.kill();
    }
}

impl Drop for InProcessDaemon {
    fn drop(&mut self) {
        // Kills the daemon unless it was stopped; a stopped daemon has no waiting work.
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

/// The rules of a daemon that sweeps so often.
pub fn policy(sweep: Duration) -> Policy {
    Policy {
        mac_prefix: MacPrefix::default(),
        allowed_bridges: AllowedBridges::default(),
        guest: nicd::config::GuestDefaults::default(),
        default_group: false,
        connections: 65_536,
        mtu: 1500,
        physical_networks: nicd::model::PhysicalNetworks::new(),
        vlans: nicd::model::IdRanges::default(),
        vnis: nicd::model::IdRanges::default(),
        in_fleet: false,
        tunnel: None,
        require_host_closed: true,
        conflict_probe: ConflictProbe::Off,
        sweep,
        nics_per_server: 4,
        host: "house".to_owned(),
    }
}
