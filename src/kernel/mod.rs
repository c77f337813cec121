//! The only code that touches the host: it reads links, and executes [`Op`]s.
//!
//! ```text
//!  exec ── Op ──► Host::apply ──► netlink, tap ioctls, the guest's namespace
//!  reconciler ◄── LinkState ── Host::get_link, Host::dump_links
//!  reconciler ◄── Notice ──── watch   (its own socket, its own thread)
//! ```
//!
//! [`Kernel`] has two implementations: the running Linux (`linux`), and an in-memory host (`fake`) on which a test can make any op
//! fail. `tests/kernel_contract` runs one suite on both. This module decides nothing: `plan` chooses the ops.

mod addresses;
mod answer;
mod bpf;
mod bridge;
mod capabilities;
#[cfg(test)]
mod corpus;
mod create;
mod defaults;
pub mod exec;
pub mod fake;
mod fdb;
mod fdb_watch;
mod filter;
mod forward;
mod guest;
pub mod handle;
mod ifb;
mod links;
pub mod linux;
mod message;
mod modules;
mod neighbours;
pub mod netns;
mod nft;
mod overlay;
mod qdisc;
pub mod reaper;
mod requests;
mod routes;
mod seen;
mod segment;
mod socket;
pub mod tap;
mod untyped;
mod uplinks;
mod veth;
mod vlan_link;
mod vlans;
mod vxlan_link;
mod watch;
pub mod worker;

pub use crate::model::GuestMacs;
pub use modules::remedy as module_remedy;
pub use socket::writes;

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Instant;

use jiff::Timestamp;
use nix::errno::Errno;

use uuid::Uuid;

use crate::failpoints;
use crate::model::{DropReason, LinkName, Mac, NetnsPin, NetworkId, Owner, PortId, names};
use crate::plan::filter::{Dropped, PortFilters};
use crate::plan::{LinkState, Op, Overlays, SeenEntries};
use crate::sys::packet::PacketSocket;
use crate::uplink::BroadRoute;

/// A host. Each worker, the reaper and the watch open their own access to it.
pub trait Kernel: Send + Sync + 'static {
    /// One opened access to it.
    type Host: Host;

    /// The MACs for which reads query FDBs. The reconciler fills it from the records; all accesses and the watch share it.
    fn guests(&self) -> GuestMacs;

    /// What of networks is on other hosts, by which the watch tells what another program changed of it. Shared as `guests` is.
    fn overlays(&self) -> Overlays;

    /// Opens an access with its own sockets.
    ///
    /// # Errors
    /// The kernel gives no netlink socket.
    fn open(&self) -> Result<Self::Host, OpError>;

    /// Starts threads that watch the host's links and FDBs. Call it before the first dump, so that no change is missed. The threads
    /// end when `sink` is closed.
    ///
    /// # Errors
    /// The kernel gives no netlink socket, or a thread cannot be started.
    fn watch(&self, sink: tokio::sync::mpsc::Sender<Notice>) -> Result<(), OpError>;

    /// Opens the socket by which a bridge's DHCP requests are heard, in the network namespace of the thread that calls. Does not block.
    ///
    /// # Errors
    /// The kernel refuses it, or there is no such bridge.
    fn hear_requests(&self, bridge: u32) -> io::Result<PacketSocket>;

    /// Opens the socket that receives ARP and neighbour discovery on a bridge, as `hear_requests` does.
    ///
    /// # Errors
    /// As for `hear_requests`.
    fn hear_neighbours(&self, bridge: u32) -> io::Result<PacketSocket>;

    /// Opens a socket that sends frames out of devices.
    ///
    /// # Errors
    /// The kernel refuses it.
    fn speak(&self) -> io::Result<PacketSocket>;
}

/// One access to a host. Calls block, each with a time limit.
pub trait Host: Send + 'static {
    /// The resources of one plan execution: the descriptor of a tap that is not persistent yet, a socket in the guest's
    /// namespace. Dropping it releases them.
    type ExecContext: Default + Send + 'static;

    /// Executes one op. If it fails, the step's undo removes everything that it left.
    ///
    /// # Errors
    /// The kernel's error. An op whose result exists already succeeds.
    fn apply(&mut self, op: &Op, context: &mut Self::ExecContext) -> Result<Applied, OpError> {
        let carry_out = || match op {
            Op::DeleteGroup { group, ports, forced, store } if *group != 0 => {
                only_members(&self.links_in_group(*group)?, ports, forced, *store)?;
                self.carry_out(op, context)
            }
            _ => self.carry_out(op, context),
        };
        failpoints::call(("op", op.name()), carry_out, |errno| answer::refused(op, errno))
    }

    /// Implements [`Host::apply`], which is its only caller.
    ///
    /// # Errors
    /// As for `apply`.
    fn carry_out(&mut self, op: &Op, context: &mut Self::ExecContext) -> Result<Applied, OpError>;

    /// Does the part of an op that leaves no trace, such as entering the guest's namespace. A failure is reported later by the op.
    fn prepare(&mut self, _op: &Op, _context: &mut Self::ExecContext) {}

    /// Reads one link; `None` when it does not exist. Makes the kernel process pending carrier changes of the link.
    ///
    /// # Errors
    /// The kernel could not answer.
    fn get_link(&mut self, who: LinkSelector<'_>) -> Result<Option<LinkState>, OpError>;

    /// A complete and uninterrupted dump of all links.
    ///
    /// # Errors
    /// The kernel could not give one.
    fn dump_links(&mut self) -> Result<Vec<LinkState>, OpError>;

    /// The links in a group that only nicd uses: from a complete dump, or, while links keep changing, from several incomplete dumps. A
    /// link may occur twice.
    ///
    /// # Errors
    /// The kernel could not answer.
    fn links_in_group(&mut self, group: u32) -> Result<Vec<LinkState>, OpError>;

    /// The namespace a path names.
    ///
    /// # Errors
    /// The path names no namespace that a guest may use.
    fn inspect(&mut self, path: &Path) -> Result<Found, NetnsError>;

    /// Whether a namespace still exists, that is, has a process or a mount. Enters every namespace of the host, so use it rarely.
    ///
    /// # Errors
    /// Not every namespace could be searched, so the namespace may exist.
    fn lives(&mut self, pin: NetnsPin) -> Result<bool, NetnsError>;

    /// The name a port's NIC has in its guest's namespace.
    ///
    /// # Errors
    /// The namespace or the NIC is not there, or the kernel could not answer.
    fn guest_device(&mut self, port: PortId, netns: &Path, pin: NetnsPin) -> Result<LinkName, OpError>;

    /// Opens a port's tap, which no process holds open, as a VMM does: one descriptor for each queue. The tap has carrier while any
    /// of the descriptors is open.
    ///
    /// # Errors
    /// The device does not exist or is no tap, a process holds it open ([`OpErrorKind::Taken`]), or the kernel refused.
    fn open_tap(&mut self, port: PortId, tap: TapUse) -> Result<Vec<OwnedFd>, OpError>;

    /// Makes the table of filters with these ports' elements, where it is not as it is to be; whether it was made.
    ///
    /// # Errors
    /// The kernel has no nf_tables, or refuses the table.
    fn keep_filters(&mut self, wanted: PortFilters) -> Result<bool, OpError>;

    /// What a port's guest has sent and received, and what was dropped; none when it has no device.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    fn counters(&mut self, port: PortId) -> Result<Option<Counters>, OpError>;

    /// Counts in the metrics what the filters have dropped since the last time.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    fn count_drops(&mut self) -> Result<(), OpError>;

    /// The requirements of attaches that this host does not meet. Creates nothing; the kernel may load modules.
    fn missing_requirements(&mut self) -> Vec<MissingRequirement>;

    /// The link with this name as an uplink; `None` when there is none.
    ///
    /// # Errors
    /// The kernel could not answer.
    fn uplink(&mut self, name: &LinkName) -> Result<Option<UplinkSeen>, OpError>;

    /// The entries of a network that lead to other hosts, none where it has none.
    ///
    /// # Errors
    /// The kernel could not answer.
    fn entries(&mut self, network: NetworkId) -> Result<Option<SeenEntries>, OpError>;

    /// The host's routes with short prefixes, v4 and v6, in every table but the local one.
    ///
    /// # Errors
    /// The kernel could not answer.
    fn broad_routes(&mut self) -> Result<Vec<BroadRoute>, OpError>;
}

/// Fails if the group contains a link that is not to be deleted.
fn only_members(links: &[LinkState], ports: &[PortId], forced: &[PortId], store: Uuid) -> Result<(), OpError> {
    let names = |ports: &[PortId]| ports.iter().map(|port| names::port_altname(*port)).collect::<BTreeSet<String>>();
    let (members, forced) = (names(ports), names(forced));
    let among = |link: &LinkState, names: &BTreeSet<String>| link.altnames.iter().any(|altname| names.contains(altname));
    let goes = |link: &LinkState| link.is_of(store) && among(link, &members) && (!link.is_held() || among(link, &forced));
    match links.iter().find(|link| !goes(link)) {
        None => Ok(()),
        Some(link) => Err(OpError {
            kind: OpErrorKind::Other,
            doing: format!("delete the devices of group {}", link.group),
            said: format!("{} is in it, and is not to be deleted", link.name),
        }),
    }
}

/// The result of a successful op.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// The op is done.
    Done,
    /// The op is done, and the NIC has this name in the guest.
    GuestDevice(LinkName),
    /// The same, but the guest's kernel refused these routes, each with its error text.
    GuestWithout(LinkName, Vec<String>),
}

/// A link that may become an uplink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UplinkSeen {
    /// The link.
    pub link: LinkState,
    /// Whether it is the loopback device.
    pub is_loopback: bool,
    /// Whether it is a wireless device, which carries no frames of other MACs.
    pub is_wireless: bool,
    /// What the host itself has on it, in words: its addresses and routes.
    pub carries: Vec<String>,
}

/// The namespace a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Which.
    pub pin: NetnsPin,
    /// Whether the path goes through procfs and so names a process. Once the kernel reuses the pid, the path names another process.
    pub by_process: bool,
}

/// How to open a tap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TapUse {
    /// The number of queues to open, if the tap has several.
    pub queues: u16,
    /// With virtio-net headers or without.
    pub vnet_hdr: bool,
    /// The owner to set: the last user may have changed it.
    pub owner: Owner,
    /// The store of the nicd that made it.
    pub store: Uuid,
}

/// A requirement of attaches that this host does not meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MissingRequirement {
    /// The device node of the tun driver is missing or not accessible, though the driver is loaded.
    Tun {
        /// The system's answer.
        said: String,
        /// What would be right.
        remedy: String,
    },
    /// A kernel module, which links of its kind need.
    Module {
        /// Its name.
        module: &'static str,
        /// The system's answer.
        said: String,
    },
    /// The nf_tables support that closes an agent-made bridge to the host.
    HostClosing {
        /// The system's answer.
        said: String,
    },
    /// The nf_tables support that drops what a port may not send.
    Filters {
        /// The system's answer.
        said: String,
    },
    /// A kernel that drops what the filters are to drop.
    FiltersUnproven {
        /// The frame of the self-check that passed against the rules.
        frame: &'static str,
    },
    /// A self-check of the filters, which could not be made.
    FiltersUnchecked {
        /// Why.
        said: String,
    },
    /// The tracking of bridges' connections, which ports need that are in security groups.
    Conntrack {
        /// The system's answer.
        said: String,
    },
    /// A free file descriptor.
    Descriptors {
        /// The system's answer.
        said: String,
    },
    /// The helper that enters guests' namespaces.
    NetnsHelper {
        /// The system's answer.
        said: String,
    },
}

/// What passed between a port's guest and its bridge since the port was attached. No number falls while it is, also when its device
/// is made anew.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// What the guest sent, what was dropped of it included.
    pub from_guest: Traffic,
    /// What the guest was sent.
    pub to_guest: Traffic,
    /// What was dropped of what it sent.
    pub dropped: Dropped,
    /// The last frames that were dropped by its present device, oldest first.
    pub last_dropped: Vec<DroppedFrame>,
}

/// A frame that was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DroppedFrame {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: DropReason,
    /// Where it said it came from.
    pub src_mac: Mac,
    /// The address it said it came from, if it was IP or ARP.
    pub src_ip: Option<IpAddr>,
    /// Its EtherType, or its length in 802.3.
    pub ethertype: u16,
}

/// Traffic in one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Frames.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl std::ops::Add for Traffic {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { packets: self.packets.saturating_add(other.packets), bytes: self.bytes.saturating_add(other.bytes) }
    }
}

/// Selects a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkSelector<'a> {
    /// The link with this index.
    Index(u32),
    /// The link with this altname or name; the kernel does not distinguish the two.
    Altname(&'a str),
    /// The link with this name.
    Name(&'a str),
}

/// A notice from the watch. `at` is the time at which the read began, so that an older read never overrides a newer one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A link was read.
    Seen {
        /// Its state.
        link: Box<LinkState>,
        /// When.
        at: Instant,
    },
    /// A link is gone.
    Gone {
        /// Its index.
        index: u32,
        /// When.
        at: Instant,
    },
    /// A link got a guest's MAC as its own, which makes the kernel delete the guest's FDB entry in the link's bridge. The link may
    /// have another MAC again by now.
    MacTaken {
        /// The link's index.
        index: u32,
        /// The guest's MAC.
        mac: Mac,
        /// When the event was read.
        at: Instant,
    },
    /// Events about FDBs were lost: only a complete dump shows what changed.
    EntriesLost,
    /// Another program changed an entry of a network that leads to other hosts.
    EntryDisturbed {
        /// The network.
        network: NetworkId,
    },
    /// Events were lost; this is a complete dump.
    Resync {
        /// All links.
        links: Vec<LinkState>,
        /// When.
        at: Instant,
    },
}

/// A failed op.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{doing}: {said}")]
pub struct OpError {
    /// The kind of failure.
    pub kind: OpErrorKind,
    /// The action that failed, with the object's name.
    pub doing: String,
    /// The text of the kernel's errno, and its extended error message if there is one.
    pub said: String,
}

/// The kind of a failed op.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpErrorKind {
    /// A name, altname or index is taken by another link (EEXIST, EBUSY).
    Taken,
    /// The name asked for is taken inside the guest's namespace (EEXIST).
    GuestNameTaken,
    /// The link is not there (ENODEV).
    Gone,
    /// A port's device has lost its altname and its ownership tag, or another program keeps removing them. nicd does not touch it.
    Unmarked,
    /// The bridge has no room for another port (EXFULL; 1023 at most).
    BridgeFull,
    /// The bridge is not there, or is no bridge.
    NoBridge,
    /// The guest's namespace is gone, or another one than the pinned.
    Namespace,
    /// The namespace cannot be entered because the helper that does it cannot be reached.
    Helper,
    /// The namespace's path does not open in time.
    Hanging,
    /// The namespace exists but cannot be entered.
    NamespaceRefused,
    /// This process, or the host, has no file descriptor left (EMFILE, ENFILE).
    NoDescriptors,
    /// IPv6 is switched off in the guest's namespace, or in the kernel.
    Ipv6Off,
    /// The guest's settings do not fit its namespace (an address or route the kernel refuses there).
    GuestRefused,
    /// The bridge cannot be closed to the host.
    HostNotClosed,
    /// The kernel refuses what says what a port may send.
    FilterRefused,
    /// The kernel filters nothing: it has no nf_tables for bridges, or refuses nicd's table.
    FiltersUnavailable,
    /// The kernel does not track the connections of bridges, which security groups need.
    ConntrackUnavailable,
    /// The kernel refuses the rate of what a port sends to its guest, or of what that sends.
    LimitRefused,
    /// The kernel does not know links of this kind, and has no module for them (EOPNOTSUPP; ENODEV of /dev/net/tun).
    ModuleMissing,
    /// A capability or a device node is missing (EPERM, EACCES, no /dev/net/tun).
    Permission,
    /// No answer in time.
    TimedOut,
    /// Anything else.
    Other,
}

/// The remedy for an unreachable helper: it restarts the socket whether it was stopped, has failed, or lost its file.
pub const HELPER_REMEDY: &str = "systemctl reset-failed 'nicd-netns.*'; systemctl restart nicd-netns.socket";

/// The remedy for missing file descriptors.
pub const DESCRIPTORS_REMEDY: &str =
    "close idle connections, or give nicd more descriptors (LimitNOFILE= in its unit), or the host (sysctl fs.file-max)";

/// Whether a call failed because the process (EMFILE) or the host (ENFILE) has no free file descriptor. Such a failure says
/// nothing about the object that was to be opened.
pub fn no_descriptors(errno: Errno) -> bool {
    matches!(errno, Errno::EMFILE | Errno::ENFILE)
}

/// Why a path cannot be used as a guest's namespace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetnsError {
    /// Nothing is there.
    #[error("{0} does not exist; a mounted network namespace such as /run/netns/NAME is expected")]
    Missing(String),
    /// A file, a directory, or a namespace of another kind.
    #[error("{0} is not a network namespace; a mounted one such as /run/netns/NAME is expected")]
    NotNetns(String),
    /// The daemon's own: a guest's NIC there would be the host's.
    #[error("{0} is nicd's own network namespace, the host's; a guest's is expected")]
    Own(String),
    /// The path goes through a directory of nicd's own process in procfs.
    #[error(
        "{0} names nicd's own process, which sees what another does not; a mounted network namespace such as /run/netns/NAME is expected"
    )]
    OwnProcess(String),
    /// The path does not open in time, for example on a file server that does not answer, or too many paths do not.
    #[error(
        "{0} does not open: an earlier attempt to open it, or many others, still wait for an answer; it works once its file system answers"
    )]
    Hanging(String),
    /// No file descriptor is free, so it is unknown whether the namespace exists.
    #[error("{path} cannot be entered: {said}; {DESCRIPTORS_REMEDY}")]
    NoDescriptors {
        /// The path.
        path: String,
        /// The system's answer.
        said: String,
    },
    /// It cannot be entered or read.
    #[error("{path} cannot be entered: {said}")]
    Refused {
        /// The path.
        path: String,
        /// The system's answer.
        said: String,
    },
    /// The helper that would enter it cannot be reached.
    #[error("{path} cannot be entered: nicd-netns does not answer ({said}); {HELPER_REMEDY}, or run nicd with CAP_SYS_ADMIN")]
    Helper {
        /// The path.
        path: String,
        /// The system's answer.
        said: String,
    },
}

impl NetnsError {
    /// The error for a failed system call while entering a namespace.
    pub(crate) fn of(path: &Path, errno: Errno) -> Self {
        let (path, said) = (path.display().to_string(), format!("{} ({errno:?})", errno.desc()));
        match no_descriptors(errno) {
            true => Self::NoDescriptors { path, said },
            false => Self::Refused { path, said },
        }
    }

    /// The kind of failure for an op that needs the namespace.
    pub(crate) fn kind(&self) -> OpErrorKind {
        match self {
            Self::Missing(_) | Self::NotNetns(_) | Self::Own(_) | Self::OwnProcess(_) => OpErrorKind::Namespace,
            Self::Hanging(_) => OpErrorKind::Hanging,
            Self::NoDescriptors { .. } => OpErrorKind::NoDescriptors,
            Self::Refused { .. } => OpErrorKind::NamespaceRefused,
            Self::Helper { .. } => OpErrorKind::Helper,
        }
    }
}
