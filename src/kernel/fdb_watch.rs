//! Watches FDBs: after an event about a guest's entry it reads the guest's device. What another program does to the entries that lead
//! VXLAN networks to other hosts, it tells.
//!
//! ```text
//!  RTNLGRP_NEIGH ──► events socket ──► guests' MACs ──► query socket ──► Notice ──► sink
//! ```
//!
//! On a learning bridge every new source MAC causes an event, so a neighbour can cause any number. Therefore this watch has its own
//! thread and socket, ignores events that are not about a guest, and pauses after each run: it uses at most a tenth of a
//! processor. A complete dump replaces the events that it misses.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use libc::{RTM_DELNEIGH, RTM_NEWNEIGH, RTNLGRP_NEIGH};
use netlink_packet_core::DecodeError;
use netlink_sys::Socket;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::mpsc::Sender;

use super::answer::Failure;
use super::message::{self, Message};
use super::nft::Nft;
use super::seen::ReadContext;
use super::socket::{Netlink, receive_once};
use super::{GuestMacs, LinkSelector, Notice, seen, watch};
use super::{fdb, overlay};
use crate::failpoints;
use crate::model::{Mac, NetworkId, names};
use crate::plan::Overlays;
use crate::telemetry::meters;

/// How long it may take to notice that the sink is closed.
const PATIENCE: Duration = Duration::from_millis(500);
/// The most events read at a time.
const MOST: usize = 8192;
/// The pause after a run, as a multiple of the run's duration.
const REST: u32 = 9;
/// The maximum pause.
const LONGEST: Duration = Duration::from_millis(250);
/// How long an entry that is as nicd makes it waits for its device to be seen: the one who makes it looks as well.
const OWN: Duration = Duration::from_millis(20);
/// How often a complete look is asked for while events are lost.
const LOST: Duration = Duration::from_secs(1);

/// The sink is closed.
struct Closed;

/// Two sockets and what is still to be done.
#[derive(Debug)]
pub(super) struct FdbWatch {
    events: Socket,
    query: Netlink,
    nft: Nft,
    around: ReadContext,
    sink: Sender<Notice>,
    buffer: Box<[u8]>,
    /// The entries that nicd creates, with the condition for reading each, and the port that each leads to.
    own: BTreeMap<Mac, (Instant, u32)>,
    /// Events were lost.
    lost: bool,
    /// When a complete look was last asked for.
    told_lost: Option<Instant>,
}

/// What the events at hand said.
#[derive(Debug, Default)]
struct Hints {
    /// Guests whose entry changed.
    changed: BTreeSet<Mac>,
    /// Networks of which another program changed an entry that leads to other hosts.
    disturbed: BTreeSet<NetworkId>,
    /// Guests that have an entry as nicd makes it, and the port it leads to.
    own: BTreeMap<Mac, u32>,
}

impl FdbWatch {
    /// Subscribes to events in the calling thread's namespace. No later change is missed.
    pub(super) fn subscribe(sink: Sender<Notice>, around: ReadContext) -> Result<Self, Failure> {
        let events = watch::subscribed(&[RTNLGRP_NEIGH])?;
        let (buffer, own) = (vec![0; 64 * 1024].into_boxed_slice(), BTreeMap::new());
        let (query, nft) = (Netlink::open()?, Nft::default());
        Ok(Self { events, query, nft, around, sink, buffer, own, lost: false, told_lost: None })
    }

    /// Watches until the sink is closed.
    pub(super) fn run(mut self) {
        while !self.sink.is_closed() {
            if let Err(errno) = self.wait() {
                tracing::error!(%errno, "the events about FDBs cannot be waited for; they are subscribed to anew");
                self.begin_anew();
            }
            let began = Instant::now();
            if self.turn().is_err() {
                return;
            }
            std::thread::sleep((began.elapsed() * REST).min(LONGEST));
        }
    }

    /// Waits for an event, or until something is due.
    fn wait(&self) -> Result<(), Errno> {
        let again = self.told_lost.filter(|_| self.lost).map(|told| told + LOST);
        let due = self.own.values().map(|(due, _)| *due).chain(again).min();
        let limit = due.map_or(PATIENCE, |due| due.saturating_duration_since(Instant::now()).min(PATIENCE));
        let limit = PollTimeout::try_from(limit + Duration::from_micros(999)).unwrap_or(PollTimeout::ZERO);
        match poll(&mut [PollFd::new(self.events.as_fd(), PollFlags::POLLIN)], limit) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Puts another socket in the place of one that failed.
    fn begin_anew(&mut self) {
        std::thread::sleep(LONGEST);
        if let Ok(events) = watch::subscribed(&[RTNLGRP_NEIGH]) {
            self.events = events;
        }
        self.lost = true;
    }

    fn turn(&mut self) -> Result<(), Closed> {
        let at = Instant::now();
        let hints = self.drain();
        if self.lost && self.told_lost.is_none_or(|told| told + LOST <= at) {
            (self.lost, self.told_lost) = (false, Some(at));
            meters().netlink_overruns.inc();
            self.tell(Notice::EntriesLost)?;
        }
        for network in hints.disturbed {
            self.tell(Notice::EntryDisturbed { network })?;
        }
        for mac in hints.changed {
            self.own.remove(&mac);
            self.look_at_guest(mac)?;
        }
        for (mac, port) in hints.own {
            self.own.insert(mac, (at + OWN, port));
        }
        let due: Vec<(Mac, u32)> =
            self.own.iter().filter(|(_, (due, _))| *due <= at).map(|(mac, (_, port))| (*mac, *port)).collect();
        for (mac, port) in due {
            self.own.remove(&mac);
            if self.around.guests.device(mac) != Some(port) {
                self.look_at_guest(mac)?;
            }
        }
        Ok(())
    }

    /// What the kernel has to say by now, or a good part of it.
    fn drain(&mut self) -> Hints {
        let mut hints = Hints::default();
        for _ in 0..MOST {
            let point = failpoints::call(("entries", "events"), || Ok(()), std::io::Error::from);
            match point.and_then(|()| receive_once(&self.events, &mut self.buffer, libc::MSG_DONTWAIT)) {
                Ok(bytes) => {
                    let taken = message::messages(bytes)
                        .try_for_each(|event| hints.take(&event?, &self.around.guests, &self.around.overlays));
                    // What cannot be read is an event that is missing.
                    self.lost |= taken.is_err();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return hints,
                // ENOBUFS: events were lost. Other errors are handled the same.
                Err(_) => {
                    self.lost = true;
                    return hints;
                }
            }
        }
        hints
    }

    /// Looks at the device of the guest that has this MAC.
    fn look_at_guest(&mut self, mac: Mac) -> Result<(), Closed> {
        match self.around.guests.port(mac) {
            Some(port) => self.look(LinkSelector::Altname(&names::port_altname(port))),
            None => Ok(()),
        }
    }

    /// Reads one link and sends a notice. The link events report a deleted link.
    fn look(&mut self, who: LinkSelector<'_>) -> Result<(), Closed> {
        let at = Instant::now();
        if self.query.spent()
            && let Ok(query) = Netlink::open()
        {
            self.query = query;
        }
        match seen::get_full(&mut self.query, &mut self.nft, who, &self.around) {
            Ok(Some(link)) => self.tell(Notice::Seen { link: link.into(), at }),
            Ok(None) => Ok(()),
            Err(failure) => {
                tracing::warn!(?who, said = failure.said, "a link could not be looked at");
                self.lost = true;
                Ok(())
            }
        }
    }

    fn tell(&self, notice: Notice) -> Result<(), Closed> {
        self.sink.blocking_send(notice).map_err(|_| Closed)
    }
}

impl Hints {
    fn take(&mut self, event: &Message<'_>, guests: &GuestMacs, overlays: &Overlays) -> Result<(), DecodeError> {
        let new = event.message_type() == RTM_NEWNEIGH;
        if !new && event.message_type() != RTM_DELNEIGH {
            return Ok(());
        }
        self.disturbed.extend(overlay::disturbed(event.payload(), new, overlays)?);
        let Some(told) = fdb::read(event.payload())?.filter(|told| guests.port(told.mac).is_some()) else { return Ok(()) };
        if new && told.entry().is_some_and(|entry| entry.sticky) && !self.changed.contains(&told.mac) {
            self.own.insert(told.mac, told.port);
        } else {
            self.own.remove(&told.mac);
            self.changed.insert(told.mac);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::NetlinkBuffer;
    use netlink_packet_route::AddressFamily;
    use netlink_packet_route::RouteNetlinkMessage::{self, DelNeighbour, NewNeighbour};
    use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};
    use uuid::Uuid;

    use super::*;
    use crate::kernel::message::tests::sent;
    use crate::model::PortId;

    const GUEST: Mac = Mac([0xfa, 0x16, 0x3e, 1, 2, 3]);

    fn event(
        hints: &mut Hints,
        kind: fn(NeighbourMessage) -> RouteNetlinkMessage,
        mac: Mac,
        state: (NeighbourState, NeighbourFlags),
    ) {
        let guests = GuestMacs::default();
        guests.insert(PortId(Uuid::from_u128(1)), GUEST);
        let mut message = NeighbourMessage::default();
        (message.header.family, message.header.ifindex) = (AddressFamily::Bridge, 7);
        (message.header.state, message.header.flags) = state;
        message.attributes = vec![NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()), NeighbourAttribute::Controller(3)];
        hints.take(&NetlinkBuffer::new(&sent(kind(message))[..]), &guests, &Overlays::default()).unwrap();
    }

    const OURS: (NeighbourState, NeighbourFlags) = (NeighbourState::Noarp, NeighbourFlags::Sticky);
    const PERMANENT: (NeighbourState, NeighbourFlags) = (NeighbourState::Permanent, NeighbourFlags::empty());

    #[test]
    fn what_is_about_no_guest_is_passed_by() {
        let mut hints = Hints::default();
        event(&mut hints, NewNeighbour, Mac([2, 0, 0, 0, 0, 1]), (NeighbourState::Reachable, NeighbourFlags::empty()));
        event(&mut hints, NewNeighbour, GUEST.host_side(), PERMANENT);
        assert!(hints.changed.is_empty() && hints.own.is_empty());
    }

    #[test]
    fn an_entry_as_nicd_makes_it_can_wait_unless_the_guest_had_another() {
        let mut hints = Hints::default();
        event(&mut hints, NewNeighbour, GUEST, OURS);
        assert!(hints.changed.is_empty() && hints.own == BTreeMap::from([(GUEST, 7)]));
        event(&mut hints, DelNeighbour, GUEST, OURS);
        event(&mut hints, NewNeighbour, GUEST, OURS);
        assert!(hints.changed.contains(&GUEST) && hints.own.is_empty());
    }

    #[test]
    fn an_entry_that_is_a_bridges_own_is_a_change() {
        let mut hints = Hints::default();
        event(&mut hints, NewNeighbour, GUEST, OURS);
        event(&mut hints, NewNeighbour, GUEST, PERMANENT);
        assert!(hints.changed.contains(&GUEST) && hints.own.is_empty());
    }
}
