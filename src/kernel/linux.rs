//! The Linux implementation of the host.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use tokio::sync::mpsc::Sender;

use super::answer::{Failure, Request};
use super::bridge::{self, Bridge};
use super::fdb_watch::FdbWatch;
use super::filter::log;
use super::modules::{Asked, Known};
use super::neighbours;
use super::netns::{HostNetns, NetnsHandle};
use super::nft::Nft;
use super::seen::ReadContext;
use super::socket::{Netlink, count_writes};
use super::tap::{self, Call, Tap, TapError};
use super::veth::{GuestEnd, Veth};
use super::vlan_link::VlanLink;
use super::vxlan_link::VxlanLink;
use super::watch::Watch;
use super::{
    Applied, Counters, Found, GuestMacs, Host, Kernel, LinkSelector, MissingRequirement, NetnsError, Notice, OpError,
    OpErrorKind, TapUse, UplinkSeen, capabilities, defaults, guest, links, no_descriptors, overlay, requests, seen, segment,
    uplinks,
};
use crate::model::names::SegmentKind;
use crate::model::{LinkName, NetnsPin, NetworkId, PortId, names};
use crate::plan::filter::PortFilters;
use crate::plan::{IndexFilter, Kind, LinkState, NumberedProfile, Op, Overlays, SeenEntries, VlanProtocol, VlanTag};
use crate::sys::packet::PacketSocket;
use crate::threads;
use crate::uplink::BroadRoute;

/// The kernel of the host, in the network namespace of the thread that calls.
#[derive(Debug, Clone, Default)]
pub struct Linux {
    around: ReadContext,
    known: Known,
}

/// An access with one netlink socket of its own.
#[derive(Debug)]
pub struct LinuxHost {
    netlink: Netlink,
    nft: Nft,
    home: HostNetns,
    around: ReadContext,
    known: Known,
    asked: Asked,
}

/// The resources of one execution: taps that are not persistent yet; the guests' namespaces entered, or why they could not be
/// entered (one attempt each); the ports whose veth it created, whose NICs have no earlier configuration to remove; and the NICs that
/// it configured, with their namespaces.
#[derive(Debug, Default)]
pub struct ExecContext {
    taps: HashMap<PortId, Tap>,
    inside: HashMap<NetnsPin, Result<NetnsHandle, Failure>>,
    made: HashSet<PortId>,
    nics: HashMap<PortId, (NetnsPin, u32)>,
}

impl Kernel for Linux {
    type Host = LinuxHost;

    fn guests(&self) -> GuestMacs {
        self.around.guests.clone()
    }

    fn overlays(&self) -> Overlays {
        self.around.overlays.clone()
    }

    fn open(&self) -> Result<LinuxHost, OpError> {
        let open = || {
            if capabilities::is_missing(capabilities::NET_ADMIN) {
                let said = "CAP_NET_ADMIN is missing; start nicd by its service (systemctl start nicd), or as root";
                return Err(Failure::new(OpErrorKind::Permission, Request::Open, said));
            }
            let netlink = Netlink::open()?;
            let home = HostNetns::of(&netlink)?;
            let (around, known, asked) = (self.around.clone(), self.known.clone(), Asked::default());
            Ok(LinuxHost { netlink, nft: Nft::default(), home, around, known, asked })
        };
        open().map_err(|failure: Failure| failure.during("open the kernel"))
    }

    fn watch(&self, sink: Sender<Notice>) -> Result<(), OpError> {
        let start = || {
            let watch = Watch::subscribe(sink.clone(), self.around.clone())?;
            let entries = FdbWatch::subscribe(sink.clone(), self.around.clone())?;
            let drops = log::Reader::new(self.around.drops.clone(), sink);
            let threads = threads::start("nicd-watch", move || watch.run())
                .and_then(|_| threads::start("nicd-fdb", move || entries.run()))
                .and_then(|_| threads::start("nicd-drops", move || drops.run()));
            threads.map(drop).map_err(|error| Failure::new(OpErrorKind::Other, Request::Open, error.to_string()))
        };
        start().map_err(|failure: Failure| failure.during("watch the kernel"))
    }

    fn hear_requests(&self, bridge: u32) -> io::Result<PacketSocket> {
        requests::open(bridge)
    }

    fn hear_neighbours(&self, bridge: u32) -> io::Result<PacketSocket> {
        neighbours::hear(bridge)
    }

    fn speak(&self) -> io::Result<PacketSocket> {
        neighbours::speak()
    }
}

impl Host for LinuxHost {
    type ExecContext = ExecContext;

    fn carry_out(&mut self, op: &Op, context: &mut ExecContext) -> Result<Applied, OpError> {
        self.fresh().and_then(|()| self.execute(op, context)).map_err(|failure| {
            if failure.kind == OpErrorKind::ModuleMissing {
                self.known.forget(op);
            }
            failure.during(&doing(op))
        })
    }

    fn prepare(&mut self, op: &Op, context: &mut ExecContext) {
        if let Op::CreateVeth { netns, pin, .. } | Op::ConfigureGuest { netns, pin, .. } = op {
            let _ = context.inside(self.home, netns, *pin);
        }
    }

    fn get_link(&mut self, who: LinkSelector<'_>) -> Result<Option<LinkState>, OpError> {
        self.fresh()
            .and_then(|()| seen::get_full(&mut self.netlink, &mut self.nft, who, &self.around))
            .map_err(|failure| failure.during(&format!("{who:?}")))
    }

    fn dump_links(&mut self) -> Result<Vec<LinkState>, OpError> {
        let links = self.fresh().and_then(|()| seen::dump(&mut self.netlink, &mut self.nft, &self.around));
        links.map_err(|failure| failure.during("dump links"))
    }

    fn links_in_group(&mut self, group: u32) -> Result<Vec<LinkState>, OpError> {
        self.fresh().and_then(|()| seen::in_group(&mut self.netlink, group)).map_err(|failure| failure.during("dump links"))
    }

    fn inspect(&mut self, path: &Path) -> Result<Found, NetnsError> {
        self.home.inspect(path)
    }

    fn lives(&mut self, pin: NetnsPin) -> Result<bool, NetnsError> {
        self.home.lives(pin)
    }

    fn guest_device(&mut self, port: PortId, netns: &Path, pin: NetnsPin) -> Result<LinkName, OpError> {
        let name = self.fresh().and_then(|()| {
            let mut inside = self.home.enter_pinned(netns, pin)?;
            let index = guest::find(&mut self.netlink, &mut inside, port)?;
            guest::name(&mut inside, index)
        });
        name.map_err(|failure| failure.during(&format!("read the name of port {port} in its guest")))
    }

    fn open_tap(&mut self, port: PortId, tap: TapUse) -> Result<Vec<OwnedFd>, OpError> {
        let opened = self.fresh().and_then(|()| open_tap(&mut self.netlink, port, tap));
        opened.map_err(|failure| failure.during(&format!("open the tap of port {port}")))
    }

    fn keep_filters(&mut self, wanted: PortFilters) -> Result<bool, OpError> {
        self.around.filters.keep(wanted, self.home.access()).map_err(|failure| failure.during("make table bridge nicd"))
    }

    fn counters(&mut self, port: PortId) -> Result<Option<Counters>, OpError> {
        let altname = names::port_altname(port);
        let traffic = self.fresh().and_then(|()| seen::traffic(&mut self.netlink, LinkSelector::Altname(&altname)));
        let counters = traffic.and_then(|traffic| match traffic {
            Some((index, from_guest, to_guest)) => {
                let counters = self.around.filters.counters(port, index, from_guest, to_guest)?;
                Ok(Some(Counters { last_dropped: self.around.drops.last(index), ..counters }))
            }
            None => Ok(None),
        });
        counters.map_err(|failure| failure.during(&format!("read the counters of port {port}")))
    }

    fn count_drops(&mut self) -> Result<(), OpError> {
        self.around.filters.count_drops().map_err(|failure| failure.during("read what was dropped"))
    }

    fn missing_requirements(&mut self) -> Vec<MissingRequirement> {
        let tun = tap::usable().err().map(|error| match error.lacks_driver() {
            true => MissingRequirement::Module { module: "tun", said: error.to_string() },
            false if no_descriptors(error.errno) => {
                MissingRequirement::Descriptors { said: format!("{error} ({:?})", error.errno) }
            }
            false => MissingRequirement::Tun { said: error.to_string(), remedy: error.remedy().to_owned() },
        });
        let modules = match self.fresh() {
            Ok(()) => self.known.missing_requirements(&mut self.netlink, &mut self.asked),
            Err(_) => Vec::new(),
        };
        let helper = self.home.access().closed().map(|said| MissingRequirement::NetnsHelper { said });
        let closing = self.nft.usable().err().filter(|failure| failure.kind != OpErrorKind::NoDescriptors);
        let closing = closing.map(|failure| MissingRequirement::HostClosing { said: failure.said });
        let filters = self.around.filters.refused().map(|said| MissingRequirement::Filters { said });
        let unproven = self.around.filters.unproven().map(|frame| MissingRequirement::FiltersUnproven { frame });
        let unchecked =
            self.around.filters.unchecked(self.home.access()).map(|said| MissingRequirement::FiltersUnchecked { said });
        let untracked = self.around.filters.untracked().map(|said| MissingRequirement::Conntrack { said });
        let filters = filters.into_iter().chain(unproven).chain(unchecked).chain(untracked);
        modules.into_iter().chain(tun).chain(helper).chain(closing).chain(filters).collect()
    }

    fn uplink(&mut self, name: &LinkName) -> Result<Option<UplinkSeen>, OpError> {
        let looked = self.fresh().and_then(|()| uplinks::look(&mut self.netlink, name));
        looked.map_err(|failure| failure.during(&format!("look at the uplink {name}")))
    }

    fn entries(&mut self, network: NetworkId) -> Result<Option<SeenEntries>, OpError> {
        let looked = self.fresh().and_then(|()| overlay::look(&mut self.netlink, network));
        looked.map_err(|failure| failure.during(&format!("look at what leads network {network} to other hosts")))
    }

    fn broad_routes(&mut self) -> Result<Vec<BroadRoute>, OpError> {
        let routes = self.fresh().and_then(|()| defaults::broad_routes(&mut self.netlink));
        routes.map_err(|failure| failure.during("dump routes"))
    }
}

/// The op and its object, for an error.
fn doing(op: &Op) -> String {
    let name = op.name();
    match op {
        Op::CreateBridge { network, name: device, .. }
        | Op::CreateVlan { network, name: device, .. }
        | Op::CreateVxlan { network, name: device, .. } => {
            format!("{name} {device} of network {network}")
        }
        Op::CloseBridge { network }
        | Op::SetBridge { network, .. }
        | Op::RestoreBridgeAltname { network, .. }
        | Op::SetEntries { network, .. }
        | Op::SetSegment { network, .. }
        | Op::RestoreSegmentAltname { network, .. }
        | Op::DeleteSegment { network, .. }
        | Op::AdoptUplink { network, .. }
        | Op::ReleaseUplink { network, .. }
        | Op::DeleteBridge { network, .. } => {
            format!("{name} of network {network}")
        }
        Op::CreateTap { port, name: device, .. }
        | Op::CreateVeth { port, name: device, .. }
        | Op::CreateVlanNic { port, name: device, .. } => {
            format!("{name} {device} of port {port}")
        }
        Op::DeleteGroup { group, .. } => format!("{name} {group}"),
        Op::SetProfiles { .. } => name.to_owned(),
        Op::SetMembers { members } => format!("{name} of network {}", members.network),
        Op::CloseTap { port }
        | Op::Configure { port, .. }
        | Op::Persist { port }
        | Op::ConfigureGuest { port, .. }
        | Op::RestoreAltname { port, .. }
        | Op::SetLink { port, .. }
        | Op::Unbind { port }
        | Op::SetGroup { port, .. }
        | Op::SetFilter { port, .. }
        | Op::PlugNic { port, .. }
        | Op::UnplugNic { port, .. }
        | Op::DeleteLink { port, .. } => format!("{name} of port {port}"),
    }
}

impl LinuxHost {
    /// Replaces the socket if an answer was lost on it.
    fn fresh(&mut self) -> Result<(), Failure> {
        if self.netlink.spent() {
            self.netlink = Netlink::open()?;
        }
        Ok(())
    }

    fn execute(&mut self, op: &Op, context: &mut ExecContext) -> Result<Applied, Failure> {
        let netlink = &mut self.netlink;
        match op {
            Op::CreateBridge { network, index, name, mac, mtu, alias } => {
                let bridge = Bridge { network: *network, index: *index, name, mac: *mac, mtu: *mtu, alias };
                bridge.create(netlink).map_err(|failure| failure.wanting("bridge"))
            }
            Op::CloseBridge { network } => self.nft.close(netlink, *network),
            Op::SetBridge { network, changes } => bridge::set(netlink, *network, changes),
            Op::RestoreBridgeAltname { network, index, alias } => bridge::restore_altname(netlink, *network, *index, alias),
            Op::DeleteBridge { network, store } => bridge::delete(netlink, &mut self.nft, *network, *store),
            Op::CreateVlan { network, index, name, parent, tag, mtu, alias } => {
                let altname = names::segment_altname(SegmentKind::Vlan, *network);
                let (altname, alias, mac) = (altname.as_str(), Some(alias.as_str()), None);
                VlanLink { index: *index, name, altname, alias, parent: *parent, tag: *tag, mac, mtu: *mtu, loose: false }
                    .create(netlink)
            }
            Op::CreateVxlan { network, index, name, vni, local, mtu, alias } => {
                let altname = names::segment_altname(SegmentKind::Vxlan, *network);
                let (index, vni, local, mtu) = (*index, *vni, *local, *mtu);
                VxlanLink { index, name, altname: &altname, alias, vni, local, mtu }.create(netlink)
            }
            Op::SetEntries { network, put, remove } => overlay::set(netlink, *network, put, remove),
            Op::SetSegment { network, kind, changes } => segment::set(netlink, (*kind, *network), changes),
            Op::RestoreSegmentAltname { network, kind, index, alias } => {
                segment::restore_altname(netlink, (*kind, *network), *index, alias)
            }
            Op::DeleteSegment { network, kind, store } => segment::delete(netlink, (*kind, *network), *store),
            Op::AdoptUplink { index, bridge, .. } => uplinks::adopt(netlink, *index, *bridge),
            Op::ReleaseUplink { index, bridge, .. } => uplinks::release(netlink, *index, *bridge),
            Op::SetFilter { port, filter, .. } => {
                self.around.filters.set(*port, filter.clone().map(|IndexFilter { index, filter }| (index, filter)))
            }
            Op::SetProfiles { profiles } => {
                let of = |one: &NumberedProfile| (one.number, one.profile.clone());
                self.around.filters.set_profiles(profiles.iter().map(of).collect())
            }
            Op::SetMembers { members } => self.around.filters.set_members(members),
            Op::CreateTap { port, index, name, queues, vnet_hdr, owner } => {
                let spec = tap::Spec { index: *index, name, queues: *queues, vnet_hdr: *vnet_hdr, owner: *owner };
                create_tap(netlink, context, *port, spec)
            }
            Op::CloseTap { port } => {
                context.taps.remove(port);
                Ok(())
            }
            Op::CreateVeth { port, index, name, netns, pin, guest_name, guest_mac, guest_mtu, mac, mtu } => {
                let guest = GuestEnd { name: guest_name.as_ref(), mac: *guest_mac, mtu: *guest_mtu };
                let veth = Veth { port: *port, index: *index, name, guest, mac: *mac, mtu: *mtu };
                let inside = context.inside(self.home, netns, *pin)?;
                let made = veth.create(netlink, inside).map_err(|failure| failure.wanting("veth"))?;
                if made {
                    context.made.insert(*port);
                }
                Ok(())
            }
            Op::CreateVlanNic { port, index, name, parent, id, mac, mtu } => {
                let below = seen::require(netlink, LinkSelector::Altname(&names::port_altname(*parent)))?;
                let altname = names::port_altname(*port);
                VlanLink {
                    index: *index,
                    name,
                    altname: &altname,
                    alias: None,
                    parent: below.index,
                    tag: VlanTag { id: *id, protocol: VlanProtocol::Dot1q },
                    mac: Some(*mac),
                    mtu: *mtu,
                    loose: true,
                }
                .create(netlink)
            }
            Op::Configure { port, at, changes } => {
                let configured = links::configure(netlink, &self.around.ifbs, *port, *at, changes);
                if configured.is_ok() {
                    context.wake(*port);
                }
                configured
            }
            Op::Persist { port } => persist(netlink, context, *port),
            Op::ConfigureGuest { port, netns, pin, settings } => {
                let made = context.made.contains(port);
                let inside = context.inside(self.home, netns, *pin)?;
                let index = guest::find(netlink, inside, *port)?;
                context.nics.insert(*port, (*pin, index));
                let inside = context.inside(self.home, netns, *pin)?;
                let stale = if made { guest::Stale::default() } else { guest::stale(inside, index, settings)? };
                let (device, refused) = guest::configure(inside, index, settings, stale)?;
                return Ok(match refused.is_empty() {
                    true => Applied::GuestDevice(device),
                    false => Applied::GuestWithout(device, refused),
                });
            }
            Op::RestoreAltname { port, index, alias } => {
                links::restore_altname(netlink, &names::port_altname(*port), *index, alias)
            }
            Op::SetLink { port, switch } => links::switch(netlink, *port, *switch),
            Op::Unbind { port } => links::unbind(netlink, *port),
            Op::SetGroup { port, group } => links::set_group(netlink, *port, *group),
            Op::DeleteGroup { group, ports, .. } => {
                // The event of the deletion comes before its answer.
                ports.iter().for_each(|port| self.around.filters.leave(*port));
                links::delete_group(netlink, *group)
            }
            Op::PlugNic { .. } | Op::UnplugNic { .. } => {
                Err(Failure::new(OpErrorKind::Other, Request::Link, "the machine's monitor carries that out".to_owned()))
            }
            Op::DeleteLink { port, store } => {
                self.around.filters.leave(*port);
                links::delete(netlink, &names::port_altname(*port), *store)
            }
        }
        .map(|()| Applied::Done)
    }
}

impl ExecContext {
    /// Reads a NIC that this execution has configured, now that the host's end may be up. The read makes the kernel process the NIC's
    /// carrier change (`linkwatch_sync_dev`), which starts its queue. Until then the kernel drops what the guest sends.
    fn wake(&mut self, port: PortId) {
        if let Some((pin, index)) = self.nics.get(&port)
            && let Some(Ok(inside)) = self.inside.get_mut(pin)
        {
            // A NIC that is gone by now needs no queue.
            let _ = seen::get(&mut inside.netlink, LinkSelector::Index(*index));
        }
    }

    /// Enters a namespace, once per execution.
    fn inside(&mut self, home: HostNetns, path: &Path, pin: NetnsPin) -> Result<&mut NetnsHandle, Failure> {
        let entered = self.inside.entry(pin).or_insert_with(|| home.enter_pinned(path, pin));
        entered.as_mut().map_err(|failure| failure.clone())
    }
}

/// Executes [`Op::CreateTap`]. Succeeds if an earlier run created the tap.
fn create_tap(netlink: &mut Netlink, context: &mut ExecContext, port: PortId, spec: tap::Spec<'_>) -> Result<(), Failure> {
    if context.taps.contains_key(&port) {
        return Ok(());
    }
    count_writes(1);
    match Tap::create(spec) {
        Ok(tap) => {
            context.taps.insert(port, tap);
            Ok(())
        }
        Err(error) if error.errno == Errno::EBUSY => {
            let altname = names::port_altname(port);
            match seen::get(netlink, LinkSelector::Index(spec.index))? {
                Some(link) if link.kind == Kind::Tap && link.altnames.contains(&altname) => Ok(()),
                _ => Err(tap_failure(Request::Create, error)),
            }
        }
        Err(error) => Err(tap_failure(Request::Create, error)),
    }
}

/// Executes [`Op::Persist`]. Succeeds if the tap is persistent already.
fn persist(netlink: &mut Netlink, context: &mut ExecContext, port: PortId) -> Result<(), Failure> {
    if let Some(tap) = context.taps.remove(&port) {
        count_writes(1);
        return tap.persist().map_err(|error| tap_failure(Request::Persist, error));
    }
    let link = seen::require(netlink, LinkSelector::Altname(&names::port_altname(port)))?;
    match link.tap {
        Some(tap) if tap.persist => Ok(()),
        _ => Err(Failure::new(OpErrorKind::Gone, Request::Persist, format!("{} is no persistent tap", link.name))),
    }
}

/// Opens a tap by its name. TUNSETIFF creates a tap if none has the name, so the tap is checked again after the open: the name must
/// still belong to the same device. If not, dropping the descriptors deletes the new tap. No other process may have the tap
/// open, because all its users share its settings.
fn open_tap(netlink: &mut Netlink, port: PortId, tap: TapUse) -> Result<Vec<OwnedFd>, Failure> {
    let link = seen::require(netlink, LinkSelector::Altname(&names::port_altname(port)))?;
    if !link.is_of(tap.store) {
        return Err(Failure::new(OpErrorKind::Gone, Request::Create, format!("{} was not made by this nicd", link.name)));
    }
    let (Some(seen), Ok(name)) = (link.tap, link.name.parse::<LinkName>()) else {
        return Err(Failure::new(OpErrorKind::Gone, Request::Create, format!("{} is no tap", link.name)));
    };
    // The kernel lets several processes open a tap with several queues; they would share its frames.
    let taken = || Failure::new(OpErrorKind::Taken, Request::Create, format!("{} is held open by another process", link.name));
    if link.is_held() {
        return Err(taken());
    }
    // A tap keeps its number of queues when its server's changes.
    let (queues, kind) = if seen.multi_queue { (tap.queues, tap.queues.max(2)) } else { (1, 1) };
    let opened: Result<Vec<OwnedFd>, TapError> = (0..queues).map(|_| tap::attach(&name, kind, tap.vnet_hdr)).collect();
    let opened = opened.map_err(|error| tap_failure(Request::Create, error))?;
    let ours = u32::from(queues);
    match seen::open_queues(netlink, LinkSelector::Name(&link.name))? {
        Some((index, open)) if index == link.index => match open {
            Some(open) if open != ours => return Err(taken()),
            _ => {}
        },
        _ => return Err(Failure::new(OpErrorKind::Gone, Request::Create, format!("{} went while it was opened", link.name))),
    }
    if let Some(queue) = opened.first() {
        let owner = tap.owner.of_tap();
        let given_away = (owner.uid, owner.gid) != (seen.uid, seen.gid);
        let owned = if given_away { tap::own(queue, owner) } else { Ok(()) };
        owned.and_then(|()| tap::reset(queue)).map_err(|error| tap_failure(Request::Create, error))?;
    }
    Ok(opened)
}

fn tap_failure(request: Request, error: TapError) -> Failure {
    let TapError { call, errno } = error;
    let said = format!("{error} ({errno:?})");
    if error.lacks_driver() {
        return Failure::new(OpErrorKind::ModuleMissing, request, said).wanting("tun");
    }
    match (call, errno) {
        (_, errno) if no_descriptors(errno) => Failure::system(request, errno),
        (Call::Open, _) => Failure::new(OpErrorKind::Permission, request, format!("{said}; {}", error.remedy())),
        (_, Errno::EPERM | Errno::EACCES) => {
            Failure::new(OpErrorKind::Permission, request, format!("{said}; {}", error.remedy()))
        }
        (Call::Create, Errno::EBUSY | Errno::EEXIST) => Failure::new(OpErrorKind::Taken, request, said),
        _ => Failure::new(OpErrorKind::Other, request, said),
    }
}
