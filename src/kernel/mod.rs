//! The only code that touches the host: it looks, and it carries out [`Op`]s.
//!
//! ```text
//!  exec ── Op ──► Host::apply ──► netlink, tap ioctls, the guest's namespace
//!  manager ◄── LinkState ── Host::get_link, Host::dump_links
//!  manager ◄── Notice ──── watch   (its own socket, its own thread)
//! ```
//!
//! [`Kernel`] is a host one can open: the running Linux (`linux`), or one in memory (`fake`) on which any op can be made to
//! fail. `tests/kernel_contract` runs one suite on both. No policy lives here: what to do was decided in `plan`.

mod addresses;
mod answer;
mod bridge;
mod capabilities;
#[cfg(test)]
mod corpus;
mod create;
mod defaults;
pub mod fake;
mod fdb;
mod fdb_watch;
mod forward;
mod guest;
pub mod handle;
mod links;
pub mod linux;
mod message;
mod modules;
pub mod netns;
mod nft;
pub mod reaper;
mod routes;
mod seen;
mod socket;
pub mod tap;
mod untyped;
mod veth;
mod vlans;
mod watch;
pub mod worker;

pub use crate::model::GuestMacs;
pub use modules::remedy as module_remedy;
pub use socket::writes;

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Instant;

use nix::errno::Errno;

use uuid::Uuid;

use crate::failpoints;
use crate::model::{LinkName, Mac, NetnsPin, Owner, PortId, names};
use crate::plan::{BroadRoute, LinkState, Op};

/// A host that can be opened more than once: for the workers, for the reaper, for the watch.
pub trait Kernel: Send + Sync + 'static {
    /// One opened access to it.
    type Host: Host;

    /// The MACs for which its looks ask FDBs, to be filled by whoever has the records; shared by all its accesses and its watch.
    fn guests(&self) -> GuestMacs;

    /// Opens an access with sockets of its own.
    ///
    /// # Errors
    /// The kernel gives no netlink socket.
    fn open(&self) -> Result<Self::Host, OpError>;

    /// Starts to watch the host's links and FDBs on threads of their own, from before the first dump a caller makes. They end
    /// when `sink` is closed.
    ///
    /// # Errors
    /// The kernel gives no netlink socket, or no thread can be had.
    fn watch(&self, sink: tokio::sync::mpsc::Sender<Notice>) -> Result<(), OpError>;
}

/// One opened access to a host. Calls block; each has a limit in time.
pub trait Host: Send + 'static {
    /// What an execution holds while it runs and that must not outlive it: a tap's descriptor until it is persistent, a
    /// socket inside the guest's namespace. Dropping it gives all of that back.
    type ExecContext: Default + Send + 'static;

    /// Carries out one op wholly, or fails and leaves of a half-made thing only what the step's undo covers.
    ///
    /// # Errors
    /// What the kernel answered. Already being as asked is no error.
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

    /// What [`Host::apply`] does on this host; nobody else calls it.
    ///
    /// # Errors
    /// As for `apply`.
    fn carry_out(&mut self, op: &Op, context: &mut Self::ExecContext) -> Result<Applied, OpError>;

    /// Does beforehand what of an op leaves no trace, as entering a guest's namespace. Failing is left to the op itself.
    fn prepare(&mut self, _op: &Op, _context: &mut Self::ExecContext) {}

    /// Looks at one link; none when there is none. Also makes the kernel process the link's pending carrier changes.
    ///
    /// # Errors
    /// The kernel could not answer.
    fn get_link(&mut self, who: LinkSelector<'_>) -> Result<Option<LinkState>, OpError>;

    /// A complete and uninterrupted dump of all links.
    ///
    /// # Errors
    /// The kernel could not give one.
    fn dump_links(&mut self) -> Result<Vec<LinkState>, OpError>;

    /// The links in a group that nobody else uses: of a complete dump, or, while links keep changing, all that
    /// several dumps have shown. A link may be seen twice.
    ///
    /// # Errors
    /// The kernel could not say.
    fn links_in_group(&mut self, group: u32) -> Result<Vec<LinkState>, OpError>;

    /// The namespace a path names.
    ///
    /// # Errors
    /// It names none that a guest may be.
    fn inspect(&mut self, path: &Path) -> Result<Found, NetnsError>;

    /// Whether a namespace still lives, as far as a process in it or a mount of it shows. Costs an entry into every
    /// namespace of the host, so it is for the rare question only.
    ///
    /// # Errors
    /// It could not be looked for everywhere: it may live.
    fn lives(&mut self, pin: NetnsPin) -> Result<bool, NetnsError>;

    /// The name a port's NIC has in its guest's namespace.
    ///
    /// # Errors
    /// The namespace or the NIC is not there, or the kernel could not answer.
    fn guest_device(&mut self, port: PortId, netns: &Path, pin: NetnsPin) -> Result<LinkName, OpError>;

    /// Opens a port's tap, which nobody holds, as a VMM would: one descriptor for each of its queues. It has carrier for as
    /// long as one of them is open anywhere.
    ///
    /// # Errors
    /// The device is not there or is no tap, somebody holds it ([`OpErrorKind::Taken`]), or the kernel refused.
    fn open_tap(&mut self, port: PortId, tap: TapUse) -> Result<Vec<OwnedFd>, OpError>;

    /// What this process is missing on the host, and attaches need. Makes nothing; the kernel may load its modules.
    fn missing_requirements(&mut self) -> Vec<MissingRequirement>;

    /// The host's routes with short prefixes, v4 and v6, in every table but the local one.
    ///
    /// # Errors
    /// The kernel could not answer.
    fn broad_routes(&mut self) -> Result<Vec<BroadRoute>, OpError>;
}

/// Refuses a group that holds more than what is to be deleted.
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

/// What a successful op has to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// It is as asked.
    Done,
    /// It is as asked, and the NIC has this name in the guest.
    GuestDevice(LinkName),
    /// The same, but that the guest's kernel refused these routes, each with its words.
    GuestWithout(LinkName, Vec<String>),
}

/// The namespace a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Which.
    pub pin: NetnsPin,
    /// Whether the path goes through procfs, and so names a process: the same path may be another's tomorrow.
    pub by_process: bool,
}

/// How a tap is used by who opens it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TapUse {
    /// With so many queues, where the tap was made for several.
    pub queues: u16,
    /// With virtio-net headers or without.
    pub vnet_hdr: bool,
    /// Whose it is: its last user may have given it to another.
    pub owner: Owner,
    /// The store of the nicd that made it.
    pub store: Uuid,
}

/// Something that attaches need and this process cannot have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MissingRequirement {
    /// The tun driver's node, the driver itself being there: no tap can be made.
    Tun {
        /// The system's answer.
        said: String,
        /// What would be right.
        remedy: String,
    },
    /// A module of the kernel's, without which no link of its kind can be made.
    Module {
        /// Its name.
        module: &'static str,
        /// The system's answer.
        said: String,
    },
    /// What closes an agent-made bridge to the host.
    HostClosing {
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

/// Whom to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkSelector<'a> {
    /// The link with this index.
    Index(u32),
    /// The link with this altname (or, as the kernel does not tell them apart, name).
    Altname(&'a str),
    /// The link with this name.
    Name(&'a str),
}

/// What the watch has to tell. `at` is when the look began, so that an older look never overrides a newer one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A link was looked at.
    Seen {
        /// What was there.
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
    /// A link was given a guest's MAC for its own, which deletes the guest's entry in the FDB of the bridge it is in; it may
    /// have been given another one since.
    MacTaken {
        /// The link's index.
        index: u32,
        /// The guest's MAC.
        mac: Mac,
        /// When that was read.
        at: Instant,
    },
    /// Events about FDBs were lost: only a complete look shows what changed.
    EntriesLost,
    /// Events were lost; this is a complete dump in their place.
    Resync {
        /// Everything that was there.
        links: Vec<LinkState>,
        /// When.
        at: Instant,
    },
}

/// An op the kernel refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{doing}: {said}")]
pub struct OpError {
    /// What it means for the caller.
    pub kind: OpErrorKind,
    /// What was being done, with the object's name.
    pub doing: String,
    /// The kernel's errno in words, and its extended answer where it gave one.
    pub said: String,
}

/// What a refusal means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpErrorKind {
    /// A name, altname or index is taken by another link (EEXIST, EBUSY).
    Taken,
    /// The name asked for is taken inside the guest's namespace (EEXIST).
    GuestNameTaken,
    /// The link is not there (ENODEV).
    Gone,
    /// A device of ours has neither its altname nor its alias, or somebody keeps taking them off: it is not touched.
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
    /// The namespace cannot be entered, for another reason than that it is gone.
    NamespaceRefused,
    /// This process, or the host, has no file descriptor left (EMFILE, ENFILE).
    NoDescriptors,
    /// IPv6 is switched off in the guest's namespace, or in the kernel.
    Ipv6Off,
    /// The guest's settings do not fit its namespace (an address or route the kernel refuses there).
    GuestRefused,
    /// The bridge cannot be closed to the host.
    HostNotClosed,
    /// The kernel does not know links of this kind, and has no module for them (EOPNOTSUPP; ENODEV of /dev/net/tun).
    ModuleMissing,
    /// A capability or a device node is missing (EPERM, EACCES, no /dev/net/tun).
    Permission,
    /// No answer in time.
    TimedOut,
    /// Anything else.
    Other,
}

/// What brings the helper's socket back, whether it is stopped, given up, or without its file.
pub const HELPER_REMEDY: &str = "systemctl reset-failed 'nicd-netns.*'; systemctl restart nicd-netns.socket";

/// What brings file descriptors back.
pub const DESCRIPTORS_REMEDY: &str =
    "close idle connections, or give nicd more descriptors (LimitNOFILE= in its unit), or the host (sysctl fs.file-max)";

/// Whether a call failed because this process (EMFILE) or the host (ENFILE) has no file descriptor left, which says nothing
/// about what was to be opened.
pub fn no_descriptors(errno: Errno) -> bool {
    matches!(errno, Errno::EMFILE | Errno::ENFILE)
}

/// Why a path is no namespace for a guest.
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
    /// It does not open in time, as on a file server that does not answer, or too many paths do not.
    #[error(
        "{0} does not open: an earlier attempt to open it, or many others, still wait for an answer; it works once its file system answers"
    )]
    Hanging(String),
    /// There is no file descriptor to enter it by: it may be there or not.
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
    /// What a system call's failure means for a namespace that was to be entered.
    pub(crate) fn of(path: &Path, errno: Errno) -> Self {
        let (path, said) = (path.display().to_string(), format!("{} ({errno:?})", errno.desc()));
        match no_descriptors(errno) {
            true => Self::NoDescriptors { path, said },
            false => Self::Refused { path, said },
        }
    }

    /// What it means for an op that was to enter the namespace.
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
