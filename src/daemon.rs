//! The daemon's start and stop: the order in which it opens its parts, its tasks, and how they end.
//!
//! ```text
//!  threads:  nicd-kernel  nicd-reaper  nicd-watch  nicd-store  nicd-dbus  nicd-notify  nicd-tls
//!  tasks  :  listener (one per connection) · numbers on TCP · reconciler.follow · one per action
//! ```
//!
//! All asynchronous code runs on one thread: handlers are short, and blocking work has its own threads.

mod certificates;
mod instance_lock;
mod refusing;
mod reload;
mod socket_files;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::instance_lock::InstanceLock;
use self::reload::InForce;
use crate::access::{AllowedPeers, PeerError};
use crate::api;
use crate::api::listener::{Limits, SecureListener, Server};
use crate::api::socket::{Listening, SocketError, SocketFiles, Sockets};
use crate::config::{ConfigError, Settings};
use crate::dbus::Bus;
use crate::exit::Exit;
use crate::fleet::agent::Fleet;
use crate::fleet::etcd::{self, Etcd};
use crate::fleet::member::MemberError;
use crate::kernel::linux::Linux;
use crate::kernel::{Host, Kernel, OpError, OpErrorKind, handle};
use crate::notify::{Notifier, RecipientSettings};
use crate::service::{Heartbeat, Policy, Service};
use crate::store::{Loaded, Lock, Store, StoreError};
use crate::systemd;
use crate::tls::Tls;

pub use instance_lock::AlreadyRunning;
pub use refusing::Spare;
pub use reload::Config;

/// How many notices may wait. Beyond that the watch blocks, and the kernel's socket buffer fills.
const NOTICES: usize = 8192;

/// What is under way may take so long when the daemon stops, together less than 5 s: first the requests, which end with
/// their answer or without one.
const GRACE: Duration = Duration::from_millis(2500);

/// Then work that has answered already, such as deleting devices: what is left of it is taken up at the next start.
const REST: Duration = Duration::from_millis(1000);

/// Then what the kernel's threads gave up, whose records are taken back.
const UNDO: Duration = Duration::from_millis(300);

/// Then what is not durable yet of what Nova and the webhook are told.
const SAVE: Duration = Duration::from_millis(300);

/// Then the threads, each at the end of the call it is in.
const JOIN: Duration = Duration::from_millis(1000);

/// How long a start waits for the check of the host's requirements.
const REQUIREMENTS_LIMIT: Duration = Duration::from_secs(1);

/// Why the daemon cannot run.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Another nicd runs in this network namespace.
    #[error(transparent)]
    AlreadyRunning(#[from] AlreadyRunning),
    /// The sockets cannot be had.
    #[error("the sockets cannot be taken")]
    Socket(#[from] SocketError),
    /// The configured groups cannot be resolved.
    #[error("groups cannot be looked up")]
    Groups(#[from] PeerError),
    /// The state cannot be had.
    #[error("the state in {dir} cannot be used")]
    Store {
        /// The state directory.
        dir: String,
        /// Why.
        source: StoreError,
    },
    /// The kernel refuses what every start needs.
    #[error("the kernel cannot be spoken to")]
    Kernel(#[from] OpError),
    /// The event loop cannot be had.
    #[error("the event loop cannot be started")]
    Runtime(#[source] io::Error),
    /// What the configuration names cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An address of the configuration cannot be had.
    #[error("{key} = {address} cannot be listened on")]
    Address {
        /// The key.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
    /// The sockets cannot be served.
    #[error("the sockets cannot be served")]
    Listener(#[source] io::Error),
    /// A socket's file is lost, and only systemd can create it again.
    #[error("no client gets to {}: its file is gone, or another is in its place; systemctl restart nicd.socket makes it anew", .0.display())]
    Unreachable(PathBuf),
    /// This host cannot be one of its fleet.
    #[error(transparent)]
    Fleet(MemberError),
    /// A permanent task has ended, which is a bug: the daemon would no longer follow the kernel or its fleet.
    #[error("a task that the daemon needs has ended by itself")]
    Ended,
}

impl DaemonError {
    /// Whether the daemon could not start, and has answered no client yet.
    pub fn is_of_the_start(&self) -> bool {
        !matches!(self, Self::Unreachable(_) | Self::Listener(_) | Self::Ended)
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Socket(error) => error.exit(),
            Self::AlreadyRunning(_) | Self::Store { source: StoreError::Held(_), .. } => Exit::Unavailable,
            Self::Store { source: StoreError::Denied(_), .. } => Exit::Permission,
            Self::Store { .. } => Exit::Store,
            Self::Kernel(error) if error.kind == OpErrorKind::Permission => Exit::Permission,
            // nicd may not make it itself.
            Self::Unreachable(_) => Exit::Permission,
            // An address family that is shut off (RestrictAddressFamilies=) is a right that is missing.
            Self::Address { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied || source.raw_os_error() == Some(libc::EAFNOSUPPORT) =>
            {
                Exit::Permission
            }
            Self::Config(_) | Self::Fleet(_) => Exit::Config,
            Self::Address { .. } => Exit::Unavailable,
            Self::Groups(_) | Self::Kernel(_) | Self::Runtime(_) | Self::Listener(_) | Self::Ended => Exit::Internal,
        }
    }
}

/// Checks what the configuration names: reads the files of TLS.
///
/// # Errors
/// A file cannot be used.
pub fn check(settings: &Settings) -> Result<Option<Tls>, ConfigError> {
    settings.fleet.as_ref().map(etcd::check_files).transpose()?;
    settings.listen.served().as_ref().map(Tls::read).transpose()
}

/// Runs the daemon on this host until SIGTERM or SIGINT, with the sockets that systemd passed, or with its own.
///
/// # Errors
/// It cannot start.
pub fn run(config: Config, passed: Option<Sockets>) -> Result<(), DaemonError> {
    let settings = &config.settings;
    let served = settings.listen.served();
    let tls = check(settings)?.map(|read| watch::Sender::new(Arc::new(read)));
    let admitted = AllowedPeers::resolve(&settings.socket)?;
    let state = State::open(settings)?;
    let Sockets { listening, held } = match passed {
        Some(sockets) => sockets,
        None => Sockets::make(&settings.socket, &admitted)?,
    };
    // After the state and the socket, so that a second daemon reports first which of them it shares.
    let instance = InstanceLock::take()?;
    let failed = |key, address| move |source| DaemonError::Address { key, address, source };
    let numbers = settings.metrics.listen.map(|at| TcpListener::bind(at).map_err(failed("metrics.listen", at))).transpose()?;
    let secure = served.map(|served| served.address).zip(tls.as_ref());
    let secure =
        secure.map(|(at, tls)| SecureListener::bind(at, tls.subscribe()).map_err(failed("listen.tls", at))).transpose()?;
    let descriptors = raise_descriptors();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(DaemonError::Runtime)?;
    let limits = Limits { grace: GRACE, ..Limits::from(settings) }.within(descriptors);
    let files = Arc::new(Mutex::new(held));
    let listeners = Listeners { listening, files: Arc::clone(&files), admitted, limits, numbers, secure, tls };
    let served = runtime.block_on(async {
        let signals = Signals::listen().map_err(DaemonError::Runtime)?;
        serve(&Linux::default(), config, state, listeners, signals).await
    });
    // A thread that is blocked by the kernel or a disk ends with the process.
    runtime.shutdown_background();
    drop(std::mem::take(&mut *files.lock().unwrap_or_else(PoisonError::into_inner)));
    drop(instance);
    served
}

/// The opened state, and the hold on its directory.
#[derive(Debug)]
pub struct State {
    store: Store,
    loaded: Loaded,
    thread: JoinHandle<()>,
    _lock: Lock,
}

impl State {
    /// Takes hold of the state directory and opens the store in it.
    ///
    /// # Errors
    /// Another nicd has it, or it cannot be read or written.
    pub fn open(settings: &Settings) -> Result<Self, DaemonError> {
        let dir = &settings.store.dir;
        let failed = |source| DaemonError::Store { dir: dir.display().to_string(), source };
        let lock = Lock::take(dir).map_err(failed)?;
        let (store, loaded, thread) = Store::open(dir).map_err(failed)?;
        Ok(Self { store, loaded, thread, _lock: lock })
    }
}

/// What the daemon is reached by.
#[derive(Debug)]
pub struct Listeners {
    /// The bound sockets.
    pub listening: Listening,
    /// Their files.
    pub files: Arc<Mutex<SocketFiles>>,
    /// Whom they are for.
    pub admitted: AllowedPeers,
    /// What clients may cost.
    pub limits: Limits,
    /// Where the numbers are served as well.
    pub numbers: Option<TcpListener>,
    /// Where clients with certificates are served.
    pub secure: Option<SecureListener>,
    /// How they are.
    pub tls: Option<watch::Sender<Arc<Tls>>>,
}

/// The signals of the daemon.
#[derive(Debug)]
pub struct Signals {
    /// To end.
    pub stop: CancellationToken,
    /// To read its configuration again.
    pub reload: Arc<Notify>,
}

/// Serves one host with opened state and sockets until a stop is requested, and notifies the service manager.
///
/// # Errors
/// It cannot start; then nothing of the host was changed.
pub async fn serve<K: Kernel + Clone>(
    kernel: &K,
    config: Config,
    state: State,
    listeners: Listeners,
    signals: Signals,
) -> Result<(), DaemonError> {
    let settings = &config.settings;
    let State { store, mut loaded, thread: store_thread, _lock } = state;
    let stored = std::mem::take(&mut loaded.notices);
    let (notices, noticed) = mpsc::channel(NOTICES);
    let guests = kernel.guests();
    loaded.ports.iter().for_each(|port| guests.insert(port.id, port.mac));
    // The watch starts before the dump, so that no change in between is missed.
    kernel.watch(notices)?;
    let at = Instant::now();
    let links = kernel.open()?.dump_links()?;
    let (handle, threads) = handle::start(kernel)?;
    let fleet = in_fleet(settings, &loaded);
    let service = Service::new(policy(settings), (store.clone(), loaded), handle.clone(), links, at);
    let failed = |source| DaemonError::Store { dir: settings.store.dir.display().to_string(), source };
    service.reconciler().begin().await.map_err(failed)?;
    tokio::spawn(Arc::clone(&service).follow_jobs());
    let mut member = fleet.map(|fleet| {
        service.enter_fleet(Arc::clone(&fleet));
        tokio::spawn(fleet.run(Arc::clone(&service), signals.stop.clone()))
    });
    let ended = CancellationToken::new();
    let pulse = Heartbeat::new(systemd::heartbeat_interval(), systemd::heartbeat());
    let mut following = tokio::spawn(Arc::clone(service.reconciler()).follow(noticed, pulse, ended.clone().cancelled_owned()));
    let recipients = RecipientSettings::new(settings);
    let notifier = Notifier { service: Arc::clone(&service), stored, recipients: recipients.recipients() };
    let (stop, told) = (signals.stop.clone(), CancellationToken::new());
    let ends = told.clone().drop_guard();
    let notifying = on_a_thread("nicd-notify", async move {
        notifier.run(stop).await;
        drop(ends);
    });
    let (ready, reload) = (service.clone(), signals.reload);
    let on_bus = on_the_bus(&service, settings, &listeners.admitted, signals.stop.clone());
    if let Some(tls) = &listeners.tls {
        tokio::spawn(certificates::monitor(tls.subscribe(), service.clone(), signals.stop.clone()));
    }
    let in_force = InForce { recipients, tls: listeners.tls };
    tokio::spawn(async move {
        tell_ready(&ready).await;
        config.follow(reload, ready, in_force).await;
    });
    if let Some(numbers) = listeners.numbers {
        let numbers = api::metrics::register(numbers).map_err(DaemonError::Runtime)?;
        tokio::spawn(api::metrics::serve(numbers, service.clone(), signals.stop.clone()));
    }
    let (renew, renewed) = mpsc::channel(2);
    let socket_files = tokio::spawn(socket_files::monitor(listeners.files, service.clone(), renew, signals.stop.clone()));
    let mut server = Server::new(listeners.listening, listeners.admitted, listeners.limits);
    let mut securing = None;
    if let Some(secure) = listeners.secure {
        let (with_tls, handshakes) = server.with_tls(secure, signals.stop.clone());
        server = with_tls;
        securing = on_a_thread("nicd-tls", handshakes);
    }
    let router = api::router(service.clone());
    tokio::spawn(api::carry_out(service.clone(), router.clone()));
    let mut served = tokio::select! {
        served = server.serve(router, renewed, signals.stop.clone()) => served.map_err(DaemonError::Listener),
        _ = &mut following => Err(DaemonError::Ended),
        error = refused_by_fleet(&mut member) => Err(error),
    };
    // Cancelled in any case, because the other tasks and threads wait for it.
    signals.stop.cancel();
    if let Ok(Some(path)) = socket_files.await {
        served = Err(DaemonError::Unreachable(path));
    }
    tracing::info!("stopping");
    if let Some(member) = member.filter(|member| !member.is_finished()) {
        let _ = member.await;
    }
    systemd::stopping();
    service.reconciler().stop(REST).await;
    ended.cancel();
    if !following.is_finished() {
        let _ = following.await;
    }
    handle.close();
    // What the threads gave up takes its record back, for which the store is needed.
    service.reconciler().wind_up(UNDO).await;
    // What it has to write needs the store too.
    let _ = timeout(SAVE, told.cancelled()).await;
    store.close();
    if timeout(JOIN, join(threads.into_iter().chain([store_thread]).chain(on_bus).chain(notifying).chain(securing)))
        .await
        .is_err()
    {
        tracing::warn!("stopping with a kernel or store call under way; what it was for is taken up again at the next start");
    }
    served
}

fn policy(settings: &Settings) -> Policy {
    Policy {
        mac_prefix: settings.links.mac_prefix,
        allowed_bridges: settings.links.allowed_bridges.clone(),
        mtu: settings.links.mtu,
        default_group: settings.filters.default_group,
        connections: settings.filters.connections,
        physical_networks: settings.physical_networks.clone(),
        vlans: settings.segments.vlan.clone(),
        vnis: settings.segments.vxlan.clone(),
        in_fleet: settings.fleet.is_some(),
        tunnel: settings.tunnel.address,
        guest: settings.guest.clone(),
        require_host_closed: settings.links.require_host_closed,
        conflict_probe: settings.links.conflict_probe,
        sweep: Duration::from_secs(settings.links.sweep_s.into()),
        nics_per_server: settings.limits.nics_per_server,
        host: host(settings),
    }
}

/// This host's name: its own, or the one that it has in its fleet.
fn host(settings: &Settings) -> String {
    let own = || nix::unistd::gethostname().map_or_else(|_| "localhost".into(), |name| name.to_string_lossy().into_owned());
    settings.fleet.as_ref().and_then(|fleet| fleet.host.clone()).unwrap_or_else(own)
}

/// This host's part in its fleet, if it is to be in one.
fn in_fleet(settings: &Settings, loaded: &Loaded) -> Option<Arc<Fleet>> {
    let fleet = settings.fleet.as_ref()?;
    let name = (fleet.name.as_str(), host(settings));
    Some(Arc::new(Fleet::new(Etcd::new(fleet), name, loaded.store_id, settings.tunnel.address, loaded.registration)))
}

/// Waits until this host cannot be one of its fleet.
async fn refused_by_fleet(member: &mut Option<tokio::task::JoinHandle<Result<(), MemberError>>>) -> DaemonError {
    match member {
        Some(member) => match member.await {
            Ok(Err(error)) => DaemonError::Fleet(error),
            // It was told to stop, as all are.
            Ok(Ok(())) => std::future::pending().await,
            Err(_) => DaemonError::Ended,
        },
        None => std::future::pending().await,
    }
}

/// Starts the thread that shows ports on the bus. Without one everything else goes on.
fn on_the_bus(
    service: &Arc<Service>,
    settings: &Settings,
    admitted: &AllowedPeers,
    stop: CancellationToken,
) -> Option<JoinHandle<()>> {
    if !settings.dbus.enabled {
        return None;
    }
    let bus = Bus { service: Arc::clone(service), settings: settings.dbus.clone(), admitted: admitted.clone() };
    on_a_thread("nicd-dbus", bus.run(stop))
}

/// Starts a thread with an event loop of its own. If it cannot be had, everything else goes on.
fn on_a_thread(name: &'static str, work: impl Future<Output = ()> + Send + 'static) -> Option<JoinHandle<()>> {
    let run = move || match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            runtime.block_on(work);
            // What still waits for others is not waited for.
            runtime.shutdown_background();
        }
        Err(error) => tracing::error!(%error, name, "no event loop for a thread"),
    };
    let started = std::thread::Builder::new().name(name.into()).spawn(run);
    started.inspect_err(|error| tracing::error!(%error, name, "a thread could not be started")).ok()
}

/// Waits for threads without holding up the event loop.
async fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    for thread in threads {
        if tokio::task::spawn_blocking(move || thread.join()).await.is_err() {
            tracing::error!("a thread ended in a panic");
        }
    }
}

/// Reports readiness once every recorded port was tried. Requests are served meanwhile.
async fn tell_ready(service: &Arc<Service>) {
    // The first status line includes missing requirements, if the kernel's thread answers in time.
    let _ = timeout(REQUIREMENTS_LIMIT, service.reconciler().check_requirements()).await;
    if service.reconciler().starting() {
        systemd::starting(&service.reconciler().summary());
        service.reconciler().reconciled().await;
    }
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "ready");
    systemd::ready(&service.reconciler().summary());
}

impl Signals {
    /// Listens for SIGTERM and SIGINT, and for SIGHUP.
    ///
    /// # Errors
    /// No handler can be had.
    fn listen() -> io::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let signals = Self { stop: CancellationToken::new(), reload: Arc::default() };
        let (stop, reload) = (signals.stop.clone(), Arc::clone(&signals.reload));
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => break,
                    _ = interrupt.recv() => break,
                    _ = hangup.recv() => reload.notify_one(),
                }
            }
            stop.cancel();
        });
        Ok(signals)
    }
}

/// One descriptor per connection, and some for netlink, taps and the store: the soft limit of old is too low for many.
/// Answers how many there may be.
fn raise_descriptors() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return u64::MAX };
    let wanted = hard.min(65_536);
    match setrlimit(Resource::RLIMIT_NOFILE, wanted, hard) {
        Ok(()) => wanted,
        Err(error) => {
            tracing::debug!(%error, "the limit of open descriptors stays as it is");
            soft
        }
    }
}
