//! The reconciler's interface to the kernel threads (workers and reaper), independent of the host's type.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::oneshot;
use uuid::Uuid;

use crate::model::{LinkName, NetnsPin, NetworkId, PortId};
use crate::plan::filter::PortFilters;
use crate::plan::{AbsentPort, LinkState, Overlays, Plan, SeenEntries};
use crate::queue::{Queue, QueueError};
use crate::sys::packet::PacketSocket;
use crate::uplink::BroadRoute;

use super::exec::{Execution, Timing, Undone};
use super::netns;
use super::reaper::{self, Job, PendingDelete, Removed};
use super::worker::{Done, Durable, Failed, Outcome, Worker};
use super::{
    Counters, Found, GuestMacs, Host, Kernel, LinkSelector, MissingRequirement, NetnsError, Notice, OpError, TapUse, UplinkSeen,
};

/// A future answer of a kernel thread; an error when the thread has ended.
pub type Answer<T> = oneshot::Receiver<T>;

/// The requests to the kernel threads. No method blocks.
pub trait KernelHandle: std::fmt::Debug + Send + Sync {
    /// Executes a plan whose intent is durable, or that needs none.
    ///
    /// # Errors
    /// The queue is full, or the threads have ended.
    fn run(&self, plan: Plan) -> Result<Answer<Result<Done, Failed>>, QueueError>;

    /// Carries out a plan while its intent is being made durable: the steps that end with the process beside that, the others
    /// behind it. The answer comes after `durable` has ended.
    ///
    /// # Errors
    /// As for `run`.
    fn run_beside(&self, plan: Plan, timing: Timing, durable: Durable) -> Result<Answer<Outcome>, QueueError>;

    /// Takes back all steps of a plan that was carried out.
    ///
    /// # Errors
    /// As for `run`.
    fn undo(&self, plan: Plan) -> Result<Answer<Undone>, QueueError>;

    /// Deletes the device that the nicd with this store made for a port, together with others that wait; one that a process
    /// holds open only when that is forced.
    ///
    /// # Errors
    /// As for `run`.
    fn delete(&self, port: AbsentPort, store: Uuid) -> Result<Answer<Result<Removed, OpError>>, QueueError>;

    /// The namespace a path names.
    ///
    /// # Errors
    /// As for `run`.
    fn inspect(&self, path: PathBuf) -> Result<Answer<Result<Found, NetnsError>>, QueueError>;

    /// Whether a namespace still exists.
    ///
    /// # Errors
    /// As for `run`.
    fn lives(&self, pin: NetnsPin) -> Result<Answer<Result<bool, NetnsError>>, QueueError>;

    /// Checks on a separate thread whether the file system of a path answers, so that a path that blocks delays no queue. Does not
    /// check what the path names. `None` while an earlier check of the path has no answer.
    fn path_answers(&self, path: &Path) -> Option<Answer<()>> {
        netns::probe_path(path)
    }

    /// The name a port's NIC has in its guest's namespace.
    ///
    /// # Errors
    /// As for `run`.
    fn guest_device(&self, port: PortId, netns: PathBuf, pin: NetnsPin) -> Result<Answer<Result<LinkName, OpError>>, QueueError>;

    /// Opens a port's tap.
    ///
    /// # Errors
    /// As for `run`.
    fn open_tap(&self, port: PortId, tap: TapUse) -> Result<Answer<Result<Vec<OwnedFd>, OpError>>, QueueError>;

    /// Reads the link with this name, as a notice; `None` when no link has the name.
    ///
    /// # Errors
    /// As for `run`.
    fn get_link(&self, name: LinkName) -> Result<Answer<Result<Option<Notice>, OpError>>, QueueError>;

    /// A complete dump.
    ///
    /// # Errors
    /// As for `run`.
    fn dump_links(&self) -> Result<Answer<Result<Vec<LinkState>, OpError>>, QueueError>;

    /// The MACs for which reads query FDBs.
    fn guests(&self) -> GuestMacs;

    /// What of networks is on other hosts, as the watch knows it.
    fn overlays(&self) -> Overlays;

    /// The requirements of attaches that this host does not meet.
    ///
    /// # Errors
    /// As for `run`.
    fn missing_requirements(&self) -> Result<Answer<Vec<MissingRequirement>>, QueueError>;

    /// Makes the table of filters with these ports' elements, where it is not as it is to be; whether it was made.
    ///
    /// # Errors
    /// As for `run`.
    fn keep_filters(&self, wanted: PortFilters) -> Result<Answer<Result<bool, OpError>>, QueueError>;

    /// What a port's guest has sent and received, and what was dropped; none when it has no device.
    ///
    /// # Errors
    /// As for `run`.
    fn counters(&self, port: PortId) -> Result<Answer<Result<Option<Counters>, OpError>>, QueueError>;

    /// Counts in the metrics what the filters have dropped since the last time.
    ///
    /// # Errors
    /// As for `run`.
    fn count_drops(&self) -> Result<Answer<Result<(), OpError>>, QueueError>;

    /// The link with this name as an uplink; `None` when there is none.
    ///
    /// # Errors
    /// As for `run`.
    fn uplink(&self, name: LinkName) -> Result<Answer<Result<Option<UplinkSeen>, OpError>>, QueueError>;

    /// The entries of a network that lead to other hosts; none where it has none.
    ///
    /// # Errors
    /// As for `run`.
    fn entries(&self, network: NetworkId) -> Result<Answer<Result<Option<SeenEntries>, OpError>>, QueueError>;

    /// The host's broad routes, with the links they leave by.
    ///
    /// # Errors
    /// As for `run`.
    fn broad_routes(&self) -> Result<Answer<Result<Vec<BroadRoute>, OpError>>, QueueError>;

    /// Opens the socket by which a bridge's DHCP requests are heard.
    ///
    /// # Errors
    /// The kernel refuses it, or there is no such bridge.
    fn hear_requests(&self, bridge: u32) -> io::Result<PacketSocket>;

    /// Opens the socket that receives ARP and neighbour discovery on a bridge.
    ///
    /// # Errors
    /// As for `hear_requests`.
    fn hear_neighbours(&self, bridge: u32) -> io::Result<PacketSocket>;

    /// Opens a socket that sends frames out of devices.
    ///
    /// # Errors
    /// The kernel refuses it.
    fn speak(&self) -> io::Result<PacketSocket>;

    /// How many messages wait for each thread, by the thread's metric label.
    fn waiting(&self) -> [(&'static str, usize); 4];

    /// Ends the threads after they have handled the waiting messages.
    fn close(&self);
}

/// The workers and the reaper of one host.
pub struct KernelService<H: Host> {
    worker: Worker<H>,
    /// Runs the work in guests' namespaces, so that taps and bridges never wait for a namespace that opens slowly.
    guests: Worker<H>,
    /// Runs dumps of the whole host, so that no change waits for a dump.
    looks: Worker<H>,
    reaper: Queue<Job<H>>,
    /// How many plans were begun beside their commit.
    begun: Arc<AtomicU64>,
    macs: GuestMacs,
    overlays: Overlays,
    sockets: Sockets,
}

/// Opens a packet socket, on a bridge where it hears one.
type Open = Box<dyn Fn(u32) -> io::Result<PacketSocket> + Send + Sync>;

/// Opens packet sockets.
struct Sockets {
    requests: Open,
    neighbours: Open,
    speak: Box<dyn Fn() -> io::Result<PacketSocket> + Send + Sync>,
}

impl<H: Host> std::fmt::Debug for KernelService<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KernelService")
            .field("worker", &self.worker)
            .field("guests", &self.guests)
            .field("to_reap", &self.reaper.len())
            .finish()
    }
}

/// The kernel threads, to be joined at the end.
pub type Threads = Vec<JoinHandle<()>>;

/// Starts workers and reaper on `kernel`.
///
/// # Errors
/// The kernel gives no sockets, or a thread cannot be started.
pub fn start<K: Kernel + Clone>(kernel: &K) -> Result<(Arc<dyn KernelHandle>, Threads), OpError> {
    let reaper = reaper::queue();
    let begun = Arc::new(AtomicU64::new(0));
    let no_thread = |error: std::io::Error| OpError {
        kind: super::OpErrorKind::Other,
        doing: "starting a thread".to_owned(),
        said: error.to_string(),
    };
    let worker = |name| Worker::start(name, kernel.open()?, reaper.clone()).map_err(no_thread);
    let (guests, guests_thread) = worker("nicd-guests")?;
    let (looks, looks_thread) = worker("nicd-looks")?;
    let (worker, worker_thread) = worker("nicd-kernel")?;
    let reaper_thread = {
        let begun = Arc::clone(&begun);
        let mut before = 0;
        let came_since = move || {
            let now = begun.load(Ordering::Relaxed);
            std::mem::replace(&mut before, now) != now
        };
        let (first, kernel) = (kernel.open()?, kernel.clone());
        let more = move || kernel.open().inspect_err(|error| tracing::error!(%error, "no further device can be deleted")).ok();
        reaper::start((first, Box::new(more)), reaper.clone(), came_since).map_err(no_thread)?
    };
    let sockets = {
        let [first, second, third] = [kernel.clone(), kernel.clone(), kernel.clone()];
        Sockets {
            requests: Box::new(move |bridge| first.hear_requests(bridge)),
            neighbours: Box::new(move |bridge| second.hear_neighbours(bridge)),
            speak: Box::new(move || third.speak()),
        }
    };
    let workshop =
        KernelService { worker, guests, looks, reaper, begun, macs: kernel.guests(), overlays: kernel.overlays(), sockets };
    Ok((Arc::new(workshop), vec![worker_thread, guests_thread, looks_thread, reaper_thread]))
}

impl<H: Host> KernelService<H> {
    fn ask<A: Send + 'static>(&self, ask: impl FnOnce(&mut H) -> A + Send + 'static) -> Result<Answer<A>, QueueError> {
        self.worker.ask(ask)
    }

    /// The worker for plans that enter a guest's namespace, or for other plans.
    fn worker(&self, in_a_guest: bool) -> &Worker<H> {
        if in_a_guest { &self.guests } else { &self.worker }
    }
}

impl<H: Host> KernelHandle for KernelService<H> {
    fn run(&self, plan: Plan) -> Result<Answer<Result<Done, Failed>>, QueueError> {
        self.worker(plan.enters_a_guest()).run(plan)
    }

    fn run_beside(&self, plan: Plan, timing: Timing, durable: Durable) -> Result<Answer<Outcome>, QueueError> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.worker(plan.enters_a_guest()).run_beside(plan, timing, durable)
    }

    fn undo(&self, plan: Plan) -> Result<Answer<Undone>, QueueError> {
        let (answer, undone) = oneshot::channel();
        self.reaper.push_answer(Job::Undo { execution: Execution::done(plan), answer })?;
        Ok(undone)
    }

    fn delete(&self, port: AbsentPort, store: Uuid) -> Result<Answer<Result<Removed, OpError>>, QueueError> {
        let (answer, answered) = oneshot::channel();
        self.reaper.push(Job::Delete(PendingDelete { port, store, answer, single: false }))?;
        Ok(answered)
    }

    fn inspect(&self, path: PathBuf) -> Result<Answer<Result<Found, NetnsError>>, QueueError> {
        self.guests.ask(move |host| host.inspect(&path))
    }

    fn lives(&self, pin: NetnsPin) -> Result<Answer<Result<bool, NetnsError>>, QueueError> {
        self.guests.ask(move |host| host.lives(pin))
    }

    fn guest_device(&self, port: PortId, netns: PathBuf, pin: NetnsPin) -> Result<Answer<Result<LinkName, OpError>>, QueueError> {
        self.guests.ask(move |host| host.guest_device(port, &netns, pin))
    }

    fn open_tap(&self, port: PortId, tap: TapUse) -> Result<Answer<Result<Vec<OwnedFd>, OpError>>, QueueError> {
        self.ask(move |host| host.open_tap(port, tap))
    }

    fn get_link(&self, name: LinkName) -> Result<Answer<Result<Option<Notice>, OpError>>, QueueError> {
        self.ask(move |host| {
            let at = Instant::now();
            Ok(host.get_link(LinkSelector::Name(name.as_str()))?.map(|link| Notice::Seen { link: link.into(), at }))
        })
    }

    fn dump_links(&self) -> Result<Answer<Result<Vec<LinkState>, OpError>>, QueueError> {
        self.looks.ask(Host::dump_links)
    }

    fn guests(&self) -> GuestMacs {
        self.macs.clone()
    }

    fn overlays(&self) -> Overlays {
        self.overlays.clone()
    }

    fn missing_requirements(&self) -> Result<Answer<Vec<MissingRequirement>>, QueueError> {
        self.ask(Host::missing_requirements)
    }

    fn keep_filters(&self, wanted: PortFilters) -> Result<Answer<Result<bool, OpError>>, QueueError> {
        self.ask(move |host| host.keep_filters(wanted))
    }

    fn counters(&self, port: PortId) -> Result<Answer<Result<Option<Counters>, OpError>>, QueueError> {
        self.ask(move |host| host.counters(port))
    }

    fn count_drops(&self) -> Result<Answer<Result<(), OpError>>, QueueError> {
        self.ask(Host::count_drops)
    }

    fn uplink(&self, name: LinkName) -> Result<Answer<Result<Option<UplinkSeen>, OpError>>, QueueError> {
        self.ask(move |host| host.uplink(&name))
    }

    fn entries(&self, network: NetworkId) -> Result<Answer<Result<Option<SeenEntries>, OpError>>, QueueError> {
        self.looks.ask(move |host| host.entries(network))
    }

    fn broad_routes(&self) -> Result<Answer<Result<Vec<BroadRoute>, OpError>>, QueueError> {
        self.ask(Host::broad_routes)
    }

    fn hear_requests(&self, bridge: u32) -> io::Result<PacketSocket> {
        (self.sockets.requests)(bridge)
    }

    fn hear_neighbours(&self, bridge: u32) -> io::Result<PacketSocket> {
        (self.sockets.neighbours)(bridge)
    }

    fn speak(&self) -> io::Result<PacketSocket> {
        (self.sockets.speak)()
    }

    fn waiting(&self) -> [(&'static str, usize); 4] {
        let looks = ("looks", self.looks.waiting());
        [("worker", self.worker.waiting()), ("guests", self.guests.waiting()), looks, ("reaper", self.reaper.len())]
    }

    fn close(&self) {
        self.worker.close();
        self.guests.close();
        self.looks.close();
        self.reaper.close();
    }
}
