//! The watch: reads a link after the kernel's events about it, and sends its state as a notice.
//!
//! ```text
//!  RTNLGRP_LINK, addresses ──► events socket ──► indexes ──► query socket ──► Notice ──► sink
//!  NFNLGRP_NFTABLES ─────────► another ────────► altnames ──┘
//! ```
//!
//! The content of an event is not used, because it may be outdated: the event about the opening of a tap still says "no
//! carrier". A link that is up is read at once and by index, because this makes the kernel process a carrier change that would
//! otherwise wait for up to a second (net/core/link_watch.c). For kernels without that effect (before about 6.8) the link is
//! read a second time a little later.
//!
//! A link that is down is mostly being created or deleted, which causes about ten events within a millisecond. Each read takes
//! RTNL, the lock that the creation or deletion needs too. So these events share one read some milliseconds later, also if the
//! link comes up in between.
//!
//! A guest can cause events without end by setting its NIC down and up. So each link is read at most twenty times a second. The
//! first event after a quiet period leads to a read at once; later events share the next allowed read, which shows the last state.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use netlink_packet_core::DecodeError;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::AddressHeader;
use netlink_packet_route::link::{LinkFlags, LinkHeader};
use netlink_packet_route::tc::TcHeader;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::sync::mpsc::Sender;

use super::answer::{Failure, Request};
use super::message::{self, Message};
use super::nft::{self, Hint, Nft};
use super::seen::{IFINFO, ReadContext};
use super::socket::{Netlink, failed, netfilter, receive_once};
use super::untyped::{RTM_DELVLAN, RTM_NEWVLAN};
use super::{GuestMacs, LinkSelector, Notice, filter, forward, qdisc, seen, vlans};
use crate::failpoints;
use crate::model::{Mac, names};
use crate::plan::{LinkState, TokenBucket};
use crate::rate_limit::RateLimit;
use crate::telemetry::meters;

/// The size of the socket's receive buffer: the events of about 4000 links, while the sink is full.
const ROOM: usize = 16 << 20;
/// How often the thread checks whether the sink is closed.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long to collect events about links that are down, so that one wake-up handles several.
const BREATH: Duration = Duration::from_micros(300);
/// How long the read of a link that is down waits for further events.
const SETTLE: Duration = Duration::from_millis(2);
/// When a link is read a second time: the kernel delays a carrier change for at most a second.
const SECOND_LOOK: Duration = Duration::from_millis(1100);
/// How many reads of one link are allowed in a [`PERIOD`].
const LOOKS: usize = 8;
const PERIOD: Duration = Duration::from_millis(400);
/// How often br_netfilter's settings are read.
const SETTINGS: Duration = Duration::from_secs(1);
/// The pause after the chains were read: this multiple of the time that the read took, but at least `FORWARD_PAUSE`.
const FORWARD_REST: u32 = 19;
const FORWARD_PAUSE: Duration = Duration::from_millis(200);
/// The pause after the filters were compared: this multiple of the time that it took, but at least `FILTERS_PAUSE`.
const FILTERS_REST: u32 = 4;
const FILTERS_PAUSE: Duration = Duration::from_millis(10);
/// How long to wait before filters that could not be put back are tried again.
const FILTERS_RETRY: Duration = Duration::from_secs(1);
/// How long to wait before a failed dump is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// The sink is closed.
struct Closed;

/// The sockets and the pending reads.
#[derive(Debug)]
pub(super) struct Watch {
    events: Socket,
    /// The socket for nf_tables events; `None` if the kernel lacks nf_tables.
    closing: Option<Socket>,
    query: Netlink,
    nft: Nft,
    around: ReadContext,
    sink: Sender<Notice>,
    buffer: Box<[u8]>,
    /// The links to read later, each once.
    later: BTreeMap<u32, Later>,
    /// The rate limits of the links' reads.
    paces: HashMap<u32, RateLimit<LOOKS>>,
    /// When a dump is due, because events were lost.
    resync: Option<Instant>,
    /// Whether the last dump failed.
    blind: bool,
    /// When to read the forward chains again.
    forward: Option<Instant>,
    /// The earliest time to read the forward chains again.
    forward_rest: Instant,
    /// When the table of filters is compared with what it is to be.
    filters: Option<Instant>,
    /// The earliest time to compare it again.
    filters_rest: Instant,
    /// When br_netfilter's settings are read next.
    settings: Instant,
    /// The rates of what links send, as last read.
    buckets: HashMap<u32, TokenBucket>,
}

/// A pending read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Later {
    due: Instant,
    /// Whether it is the second read after an event; no third one follows.
    second: bool,
    /// Whether the rate limit delayed it.
    put_off: bool,
}

/// The content of the events that were read together.
#[derive(Debug, Default)]
struct Hints {
    /// Links that are up.
    changed: BTreeSet<u32>,
    /// Links that are down.
    down: BTreeSet<u32>,
    gone: BTreeSet<u32>,
    /// The altnames of bridges whose chain in `table netdev nicd` changed.
    closing: BTreeSet<String>,
    /// Whether the whole table changed.
    table: bool,
    /// Whether a chain changed that bridged frames may pass.
    forward: bool,
    /// Whether another program changed the table of filters.
    filters: bool,
    /// Links that got a guest's MAC; they may have another one by now.
    taken: BTreeSet<(u32, Mac)>,
    /// What qdiscs were set. Each look at one makes the kernel tell it as well (`qdisc_get_notify`, net/sched/sch_api.c).
    buckets: BTreeMap<u32, Option<TokenBucket>>,
    lost: bool,
}

impl Watch {
    /// Subscribes to events in the calling thread's namespace. No later change is missed.
    pub(super) fn subscribe(sink: Sender<Notice>, around: ReadContext) -> Result<Self, Failure> {
        let events = subscribed(&[libc::RTNLGRP_LINK, libc::RTNLGRP_IPV4_IFADDR, libc::RTNLGRP_IPV6_IFADDR, libc::RTNLGRP_TC])?;
        if let Err(error) = events.add_membership(libc::RTNLGRP_BRVLAN) {
            tracing::debug!(%error, "VLANs of bridge ports cannot be watched");
        }
        let buffer = vec![0; 64 * 1024].into_boxed_slice();
        let closing = subscribed_to_nft().inspect_err(|error| tracing::debug!(%error, "nf_tables cannot be watched")).ok();
        let (query, nft, now) = (Netlink::open()?, Nft::default(), Instant::now());
        let (later, paces) = (BTreeMap::new(), HashMap::new());
        Ok(Self {
            events,
            closing,
            query,
            nft,
            around,
            sink,
            buffer,
            later,
            paces,
            resync: None,
            blind: false,
            forward: None,
            forward_rest: now,
            filters: None,
            filters_rest: now,
            settings: now,
            buckets: HashMap::new(),
        })
    }

    /// Watches until the sink is closed.
    pub(super) fn run(mut self) {
        while !self.sink.is_closed() {
            if let Err(errno) = self.wait() {
                tracing::error!(said = errno.desc(), "the kernel's events could not be waited for");
                // Handled like lost events, after a pause.
                self.resync = Some(Instant::now());
                std::thread::sleep(RETRY);
            }
            if self.turn().is_err() {
                return;
            }
            if self.later.values().any(|later| later.put_off) {
                // The link's events keep coming; without the pause each one would wake the thread.
                std::thread::sleep(SETTLE);
            } else if self.later.values().any(|later| !later.second) {
                // A link is being created or deleted, and its next events follow within microseconds.
                std::thread::sleep(BREATH);
            }
        }
    }

    /// Waits for an event, or until something is due.
    fn wait(&self) -> Result<(), Errno> {
        let due = self.later.values().map(|later| &later.due).chain(&self.resync).chain(&self.forward).chain(&self.filters).min();
        let limit = due.map_or(PATIENCE, |due| due.saturating_duration_since(Instant::now()).min(PATIENCE));
        // Rounded up; otherwise the loop would spin for the rest of the millisecond.
        let limit = PollTimeout::try_from(limit + Duration::from_micros(999)).unwrap_or(PollTimeout::ZERO);
        let sockets = std::iter::once(&self.events).chain(&self.closing);
        let mut sockets: Vec<PollFd<'_>> = sockets.map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)).collect();
        match poll(&mut sockets, limit) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    fn turn(&mut self) -> Result<(), Closed> {
        let at = Instant::now();
        let mut hints = self.drain();
        if hints.lost {
            meters().netlink_overruns.inc();
            self.resync = Some(at);
        }
        if hints.table {
            self.resync.get_or_insert(at);
        }
        self.around.filters.forget(hints.gone.iter().copied());
        self.around.drops.forget(hints.gone.iter().copied());
        // What happens to an ifb happens to its device.
        let touched = hints.gone.iter().chain(&hints.changed).chain(&hints.down);
        let devices: Vec<u32> = touched.filter_map(|index| self.around.ifbs.device_of(*index)).collect();
        hints.changed.extend(devices);
        self.reopen();
        self.around.ifbs.forget(&mut self.query, hints.gone.iter().copied());
        self.follow_filters(hints.filters || hints.lost);
        if self.resync.is_some_and(|due| due <= Instant::now()) {
            return self.dump();
        }
        self.follow_forwarding(hints.forward)?;
        for altname in hints.closing {
            // If the bridge is gone, the link events report it.
            self.look(LinkSelector::Altname(&altname))?;
        }
        for index in hints.gone {
            self.later.remove(&index);
            self.paces.remove(&index);
            self.buckets.remove(&index);
            self.tell(Notice::Gone { index, at })?;
        }
        let soon = at + SETTLE;
        for index in hints.down {
            self.look_later(index, soon);
        }
        let others = hints.buckets.iter().filter(|(index, bucket)| self.buckets.get(index) != bucket.as_ref());
        hints.changed.extend(others.flat_map(|(index, _)| [Some(*index), self.around.ifbs.device_of(*index)]).flatten());
        for (index, mac) in std::mem::take(&mut hints.taken) {
            // If the rate limit delays the read, the pending read shows whether the link still has the MAC.
            if self.put_off(index, at).is_none() {
                hints.changed.remove(&index);
                self.look_first(index)?;
                self.tell(Notice::MacTaken { index, mac, at })?;
            }
        }
        for index in hints.changed {
            // The link was down some milliseconds ago, so it is being created, and its read is pending.
            if self.later.get(&index).is_some_and(|later| !later.second && later.due <= soon) {
                continue;
            }
            match self.put_off(index, at) {
                Some(due) => self.look_later(index, due),
                None => self.look_first(index)?,
            }
        }
        let now = Instant::now();
        let due: Vec<(u32, Later)> = self.later.iter().filter(|(_, later)| later.due <= now).map(|(&i, &l)| (i, l)).collect();
        for (index, later) in due {
            self.later.remove(&index);
            self.paces.entry(index).or_default().done(now, later.put_off);
            let link = self.look(LinkSelector::Index(index))?;
            if let Some(link) = link.filter(|_| !later.second) {
                self.plan_second_look(&link);
            }
        }
        Ok(())
    }

    /// Puts back what another program changed in the table of filters, at once after a quiet period, and using at most a fifth of a
    /// processor.
    fn follow_filters(&mut self, changed: bool) {
        let now = Instant::now();
        if changed {
            self.filters.get_or_insert(now.max(self.filters_rest));
        }
        if self.filters.is_none_or(|due| due > now) {
            return;
        }
        self.filters = None;
        match self.around.filters.follow() {
            Ok(false) => {}
            Ok(true) => _ = self.resync.get_or_insert(now),
            Err(failure) => {
                tracing::error!(said = failure.said, "table bridge nicd was changed and cannot be put back");
                self.resync.get_or_insert(now);
                self.filters = Some(Instant::now() + FILTERS_RETRY);
            }
        }
        self.filters_rest = Instant::now() + (now.elapsed() * FILTERS_REST).max(FILTERS_PAUSE);
    }

    /// Reads the forward chains after a change, using at most a twentieth of a processor, and then reads the affected bridges.
    fn follow_forwarding(&mut self, changed: bool) -> Result<(), Closed> {
        let now = Instant::now();
        let stale = now >= self.settings && {
            self.settings = now + SETTINGS;
            self.around.forwarding.is_stale()
        };
        if changed || stale {
            self.forward.get_or_insert((now + SETTLE).max(self.forward_rest));
        }
        if self.forward.is_none_or(|due| due > now) {
            return Ok(());
        }
        self.forward = None;
        let others = self.around.forwarding.refresh(&mut self.nft);
        self.forward_rest = Instant::now() + (now.elapsed() * FORWARD_REST).max(FORWARD_PAUSE);
        others.into_iter().try_for_each(|index| self.look(LinkSelector::Index(index)).map(drop))
    }

    /// Reads a link, and schedules a second read if needed.
    fn look_first(&mut self, index: u32) -> Result<(), Closed> {
        self.paces.entry(index).or_default().done(Instant::now(), false);
        if let Some(link) = self.look(LinkSelector::Index(index))? {
            self.plan_second_look(&link);
        }
        Ok(())
    }

    /// When the rate limit allows the next read of a link; `None` means now.
    fn put_off(&self, index: u32, now: Instant) -> Option<Instant> {
        self.paces.get(&index).and_then(|pace| pace.next_allowed(now, PERIOD))
    }

    /// Schedules a read of a link at the earliest allowed time. Replaces a pending second read.
    fn look_later(&mut self, index: u32, soon: Instant) {
        let paced = self.put_off(index, soon);
        let due = paced.unwrap_or(soon);
        let later = self.later.entry(index).or_insert(Later { due, second: false, put_off: paced.is_some() });
        *later = Later { due: later.due.min(due), second: false, put_off: paced.is_some() };
    }

    /// Reads all waiting events.
    fn drain(&mut self) -> Hints {
        let mut hints = Hints::default();
        loop {
            let point = failpoints::call(("watch", "events"), || Ok(()), std::io::Error::from);
            match point.and_then(|()| receive_once(&self.events, &mut self.buffer, libc::MSG_DONTWAIT)) {
                Ok(bytes) => {
                    let taken = message::messages(bytes).try_for_each(|event| hints.take(&event?, &self.around.guests));
                    // An unreadable event counts as a lost event.
                    hints.lost |= taken.is_err();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // ENOBUFS: events were lost. Other errors are handled the same. The events still in the queue are older than the coming dump.
                Err(_) if hints.lost => break,
                Err(_) => hints.lost = true,
            }
        }
        let Some(closing) = &self.closing else { return hints };
        loop {
            match receive_once(closing, &mut self.buffer, libc::MSG_DONTWAIT) {
                Ok(bytes) => {
                    for event in message::messages(bytes) {
                        let Ok(event) = event else {
                            hints.lost = true;
                            break;
                        };
                        hints.forward |= forward::concerns(&event);
                        hints.filters |= filter::concerns(&event) && !self.around.filters.is_own(event.port_number());
                        nft::hint(&event).into_iter().for_each(|hint| hints.hear(hint));
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return hints,
                Err(_) if hints.lost => return hints,
                Err(_) => hints.lost = true,
            }
        }
    }

    /// Reads one link and sends a notice.
    fn look(&mut self, who: LinkSelector<'_>) -> Result<Option<LinkState>, Closed> {
        let at = Instant::now();
        self.reopen();
        match seen::get_full(&mut self.query, &mut self.nft, who, &self.around) {
            Ok(Some(link)) => {
                match link.to_guest {
                    Some(bucket) => _ = self.buckets.insert(link.index, bucket),
                    None => _ = self.buckets.remove(&link.index),
                }
                if let Some(bucket) = link.from_guest {
                    self.buckets.insert(names::ifb_index(link.index), bucket);
                }
                self.tell(Notice::Seen { link: link.clone().into(), at })?;
                Ok(Some(link))
            }
            Ok(None) => {
                if let LinkSelector::Index(index) = who {
                    self.tell(Notice::Gone { index, at })?;
                }
                Ok(None)
            }
            Err(failure) => {
                tracing::warn!(?who, said = failure.said, "a link could not be looked at");
                self.resync = Some(Instant::now() + RETRY);
                Ok(None)
            }
        }
    }

    /// Schedules a second read of a port's device that is up and has no carrier.
    fn plan_second_look(&mut self, link: &LinkState) {
        let waits = link.up && !link.lower_up && link.marks().next().is_some();
        if waits {
            let second = || Later { due: Instant::now() + SECOND_LOOK, second: true, put_off: false };
            self.later.entry(link.index).or_insert_with(second);
        } else {
            self.later.remove(&link.index);
        }
    }

    fn dump(&mut self) -> Result<(), Closed> {
        let at = Instant::now();
        self.reopen();
        match seen::dump(&mut self.query, &mut self.nft, &self.around) {
            Ok(links) => {
                meters().resyncs.inc();
                (self.resync, self.blind) = (None, false);
                self.later.clear();
                self.paces.clear();
                self.buckets = links.iter().filter_map(|link| Some((link.index, link.to_guest?))).collect();
                self.closing = self.closing.take().or_else(|| subscribed_to_nft().ok());
                links.iter().for_each(|link| self.plan_second_look(link));
                self.tell(Notice::Resync { links, at })
            }
            Err(failure) => {
                // Logged once for repeated failures.
                if std::mem::replace(&mut self.blind, true) {
                    tracing::debug!(said = failure.said, "links could not be dumped, as before");
                } else {
                    tracing::warn!(said = failure.said, "links could not be dumped after events were lost");
                }
                self.resync = Some(Instant::now() + RETRY);
                Ok(())
            }
        }
    }

    fn tell(&self, notice: Notice) -> Result<(), Closed> {
        self.sink.blocking_send(notice).map_err(|_| Closed)
    }

    fn reopen(&mut self) {
        if self.query.spent()
            && let Ok(query) = Netlink::open()
        {
            self.query = query;
        }
    }
}

impl Hints {
    /// A change of the whole table affects all bridges, so one dump reads them.
    fn hear(&mut self, hint: Hint) {
        match hint {
            Hint::Chain(name) if nft::altname(&name) => _ = self.closing.insert(name),
            Hint::Chain(_) => {}
            Hint::Table => self.table = true,
        }
    }

    /// The kernel also sends events about a link as a bridge port (AF_BRIDGE). They are hints too, but their deletion event means that
    /// the link left its bridge.
    fn take(&mut self, event: &Message<'_>, guests: &GuestMacs) -> Result<(), DecodeError> {
        let (kind, body) = (event.message_type(), event.payload());
        let index = match kind {
            libc::RTM_NEWADDR | libc::RTM_DELADDR => AddressHeader::parse(body)?.index,
            RTM_NEWVLAN | RTM_DELVLAN => vlans::link(body)?,
            libc::RTM_NEWQDISC => {
                let (index, bucket) = qdisc::read(body)?;
                _ = self.buckets.insert(index, bucket);
                return Ok(());
            }
            libc::RTM_DELQDISC => qdisc::read(body)?.0,
            libc::RTM_NEWTFILTER | libc::RTM_DELTFILTER => TcHeader::parse(body)?.index.cast_unsigned(),
            libc::RTM_NEWLINK | libc::RTM_DELLINK => return self.take_link(kind, body, guests),
            _ => return Ok(()),
        };
        self.down.remove(&index);
        self.changed.insert(index);
        Ok(())
    }

    fn take_link(&mut self, kind: u16, body: &[u8], guests: &GuestMacs) -> Result<(), DecodeError> {
        let LinkHeader { interface_family, index, flags, .. } = LinkHeader::parse(body)?;
        let own = interface_family == AddressFamily::Unspec;
        if own && kind == libc::RTM_DELLINK {
            self.changed.remove(&index);
            self.down.remove(&index);
            self.gone.insert(index);
            return Ok(());
        }
        if own {
            let mac = message::find(body, IFINFO, libc::IFLA_ADDRESS).and_then(|address| address.try_into().ok()).map(Mac);
            self.taken.extend(mac.filter(|mac| guests.port(*mac).is_some()).map(|mac| (index, mac)));
        }
        if flags.contains(LinkFlags::Up) {
            self.down.remove(&index);
            self.changed.insert(index);
        } else if !self.changed.contains(&index) {
            self.down.insert(index);
        }
        Ok(())
    }
}

/// Sets the receive buffer's size, beyond the system's limit if CAP_NET_ADMIN allows it.
fn roomy(socket: &Socket) -> nix::Result<()> {
    setsockopt(socket, sockopt::RcvBufForce, &ROOM).or_else(|_| setsockopt(socket, sockopt::RcvBuf, &ROOM))
}

fn subscribed_to_nft() -> std::io::Result<Socket> {
    let socket = netfilter()?;
    roomy(&socket)?;
    socket.add_membership(libc::NFNLGRP_NFTABLES.unsigned_abs())?;
    Ok(socket)
}

/// Opens a socket subscribed to these groups.
pub(super) fn subscribed(groups: &[u32]) -> Result<Socket, Failure> {
    try_subscribed(groups).map_err(|error| failed(Request::Open, &error))
}

fn try_subscribed(groups: &[u32]) -> std::io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    roomy(&socket)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    groups.iter().try_for_each(|group| socket.add_membership(*group))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{NetlinkBuffer, NetlinkSerializable};
    use netlink_packet_route::RouteNetlinkMessage::{self, DelAddress, DelLink, NewLink};
    use netlink_packet_route::address::AddressMessage;
    use netlink_packet_route::link::LinkMessage;
    use rtnetlink::{LinkMessageBuilder, LinkUnspec};

    use super::*;
    use crate::kernel::message::Untyped;
    use crate::kernel::message::tests::sent;
    use crate::model::PortId;

    fn take(hints: &mut Hints, request: impl NetlinkSerializable, guests: &GuestMacs) -> Result<(), DecodeError> {
        hints.take(&NetlinkBuffer::new(&sent(request)[..]), guests)
    }

    fn link(family: AddressFamily, index: u32) -> LinkMessageBuilder<LinkUnspec> {
        LinkUnspec::new_with_index(index).interface_family(family)
    }

    fn event(kind: fn(LinkMessage) -> RouteNetlinkMessage, family: AddressFamily, index: u32, hints: &mut Hints) {
        take(hints, kind(link(family, index).up().build()), &GuestMacs::default()).unwrap();
    }

    #[test]
    fn a_link_that_is_down_can_wait_unless_it_comes_up() {
        let down = |hints: &mut Hints| {
            take(hints, NewLink(link(AddressFamily::Unspec, 7).build()), &GuestMacs::default()).unwrap();
        };
        let mut hints = Hints::default();
        down(&mut hints);
        assert!(hints.changed.is_empty() && hints.down.contains(&7));
        event(NewLink, AddressFamily::Unspec, 7, &mut hints);
        down(&mut hints);
        assert!(hints.changed.contains(&7) && hints.down.is_empty());
    }

    #[test]
    fn a_link_that_left_its_bridge_is_not_gone() {
        let mut hints = Hints::default();
        event(DelLink, AddressFamily::Bridge, 7, &mut hints);
        assert!(hints.changed.contains(&7) && hints.gone.is_empty());
    }

    #[test]
    fn what_came_before_an_end_is_not_looked_at_and_what_came_after_is() {
        let mut hints = Hints::default();
        event(NewLink, AddressFamily::Unspec, 7, &mut hints);
        event(DelLink, AddressFamily::Unspec, 7, &mut hints);
        assert!(hints.changed.is_empty() && hints.gone.contains(&7));
        event(NewLink, AddressFamily::Unspec, 7, &mut hints);
        assert!(hints.changed.contains(&7) && hints.gone.contains(&7));
    }

    #[test]
    fn a_message_of_another_kind_is_no_hint_and_one_that_is_too_short_is_lost() {
        let mut hints = Hints::default();
        let short = |kind| Untyped { kind, fixed: vec![0; 5], attributes: Vec::new() };
        for kind in [libc::RTM_NEWLINK, libc::RTM_DELLINK, libc::RTM_NEWADDR, RTM_DELVLAN] {
            assert!(take(&mut hints, short(kind), &GuestMacs::default()).is_err());
        }
        take(&mut hints, short(libc::RTM_NEWROUTE), &GuestMacs::default()).unwrap();
        assert!(hints.changed.is_empty() && hints.gone.is_empty());
        let mut address = AddressMessage::default();
        address.header.index = 7;
        take(&mut hints, DelAddress(address), &GuestMacs::default()).unwrap();
        assert!(hints.changed.len() == 1, "an address that comes or goes is one");
    }

    #[test]
    fn a_link_that_is_given_a_guests_mac_is_told_though_it_has_another_by_now() {
        let (guests, mac) = (GuestMacs::default(), Mac([0xfa, 0x16, 0x3e, 1, 2, 3]));
        guests.insert(PortId(uuid::Uuid::from_u128(1)), mac);
        let mut hints = Hints::default();
        for address in [mac, mac.host_side()] {
            let link = link(AddressFamily::Unspec, 7).up().address(address.0.to_vec());
            take(&mut hints, NewLink(link.build()), &guests).unwrap();
        }
        assert_eq!(hints.taken, BTreeSet::from([(7, mac)]));
    }
}
