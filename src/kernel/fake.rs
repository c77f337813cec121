//! A host in memory, on which any op can be made to fail. `tests/kernel_contract` runs one suite on it and on Linux.
//!
//! It keeps the kernel's rules that nicd relies on: names and altnames share one space, a taken index is refused, a tap
//! that is not persistent dies with its descriptor, carrier follows the other side, a bridge has 1023 ports at most, a
//! namespace takes its links with it, the messages behind a refused one of the same send are carried out. It is part of the
//! library so that the tests can use it; the daemon does not.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ipnetwork::IpNetwork;
use nix::errno::Errno;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::failpoints;
use crate::model::names::SegmentKind;
use crate::model::{LinkName, Mac, NetnsPin, NetworkId, Owner, PortId, names};
use crate::plan::filter::{DeviceFilter, Filter, PortFilters};
use crate::plan::overlay::not_replaced;
use crate::plan::{
    Address, At, BRIDGE_PORTS, BridgeChange, BridgePort, Entry, FdbEntry, GuestSettings, IndexFilter, Kind, LinkChange,
    LinkState, Op, Overlays, PortVlan, Route, SeenEntries, SegmentChange, Strange, Switch, TapSeen, VXLAN_PORT, VlanProtocol,
    VlanTag, VxlanSeen,
};
use crate::uplink::BroadRoute;

use crate::sys::packet::PacketSocket;

use super::untyped::MAX_ALIAS;
use super::{
    Applied, Counters, Found, GuestMacs, Host, Kernel, LinkSelector, MissingRequirement, NetnsError, Notice, OpError,
    OpErrorKind, TapUse, UplinkSeen, no_descriptors,
};

/// What the kernel calls the module of packet sockets.
const PACKETS: &str = "af_packet";

/// A bridge's port as the kernel makes it.
const FRESH: BridgePort = BridgePort {
    forwarding: false,
    held: false,
    learning: true,
    unicast_flood: true,
    locked: false,
    bpdu_guard: false,
    altered: false,
    suppresses: false,
    passes_link_local: false,
};

/// The module without which the kernel filters nothing.
const NF_TABLES: &str = "nf_tables";

/// What a fault does to an op.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is carried out.
    None,
    /// It is refused and nothing happens.
    Refuse(OpErrorKind),
    /// It is carried out, and reported as refused: a lost answer, or a message that stopped half-way.
    ApplyAndRefuse(OpErrorKind),
}

/// A host in memory; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Fake {
    world: Arc<Mutex<World>>,
}

type FaultPlan = Box<dyn FnMut(&Op) -> Fault + Send>;

/// What becomes of a notice on its way to the watchers.
type Wire = Box<dyn FnMut(Notice) -> Vec<Notice> + Send>;

/// A device that the kernel does not let go: whatever is to delete it waits until this is dropped.
#[derive(Debug)]
pub struct Stall(Arc<Gate>);

#[derive(Debug, Default)]
struct Gate {
    open: Mutex<bool>,
    bell: Condvar,
}

impl Gate {
    fn pass(&self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        while !*open {
            open = self.bell.wait(open).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Stall {
    fn drop(&mut self) {
        *self.0.open.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.bell.notify_all();
    }
}

#[derive(Default)]
struct World {
    links: BTreeMap<u32, LinkState>,
    netns: BTreeMap<PathBuf, Netns>,
    /// Guest's ends of veths, by the host's end's index.
    guests: BTreeMap<u32, Guest>,
    /// Taps that a VMM holds open.
    open: BTreeSet<u32>,
    macs: GuestMacs,
    routes: Vec<BroadRoute>,
    /// The entries of VXLAN devices, and those of bridges that lead to them, by the device's index; neighbours by their bridge's.
    entries: BTreeMap<u32, BTreeSet<Entry>>,
    overlays: Overlays,
    /// Modules that the kernel does not have.
    missing: BTreeSet<&'static str>,
    /// The elements of devices, by their index.
    filters: BTreeMap<u32, (PortId, Filter)>,
    /// The VLANs of ports, by their index.
    vlans: BTreeMap<u32, PortVlan>,
    /// The VLANs for new ports, by their bridge's index.
    pvids: BTreeMap<u32, u16>,
    /// Bridges that were given an MTU: the others follow their ports.
    given_mtu: BTreeSet<u32>,
    /// Bridges that have had ports, of which none forwards.
    without_carrier: BTreeSet<u32>,
    sinks: Vec<mpsc::Sender<Notice>>,
    /// The other ends of sockets that requests are heard by.
    sockets: Vec<UnixStream>,
    faults: Option<FaultPlan>,
    wire: Option<Wire>,
    stalls: BTreeMap<PortId, Arc<Gate>>,
    log: Vec<Op>,
    next_cookie: u64,
    next_index: u32,
}

#[derive(Debug, Clone)]
struct Netns {
    cookie: u64,
    own: bool,
}

impl Netns {
    fn pin(&self) -> NetnsPin {
        NetnsPin { boot_id: Uuid::from_u128(1), cookie: self.cookie }
    }
}

/// The guest's end of a veth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// The cookie of its namespace.
    pub cookie: u64,
    /// Its name there.
    pub name: LinkName,
    /// Its index there.
    pub index: u32,
    /// Whether it is up.
    pub up: bool,
    /// Its addresses.
    pub addresses: Vec<Address>,
    /// Its routes.
    pub routes: Vec<Route>,
}

impl Guest {
    /// Gives it what is listed, and takes off what an earlier run gave. Answers with the routes that lead nowhere; an address
    /// that no NIC can have is refused.
    fn give(&mut self, settings: &GuestSettings) -> (Vec<String>, Result<(), OpError>) {
        let GuestSettings { addresses, routes, ranges, metric, .. } = settings;
        let ours = |address: &Address| ranges.iter().any(|range| range.contains(address.ip));
        self.addresses.retain(|address| !ours(address) || addresses.contains(address));
        let listed =
            |route: &Route| routes.iter().any(|listed| (listed.destination, listed.via) == (route.destination, route.via));
        self.routes.retain(|route| route.metric != *metric || listed(route));
        let mut taken = Ok(());
        for address in addresses {
            if address.ip.is_multicast() {
                taken = Err(refused(OpErrorKind::GuestRefused, format!("the guest's address {}/{}", address.ip, address.prefix)));
            } else if !self.addresses.contains(address) {
                self.addresses.push(*address);
            }
        }
        let mut without = Vec::new();
        let (direct, by_next_hop): (Vec<&Route>, Vec<&Route>) = routes.iter().partition(|route| route.via.is_unspecified());
        for route in direct.into_iter().chain(by_next_hop) {
            if !self.reaches(route) {
                without.push(format!("the guest's route to {} via {}", route.destination, route.via));
            } else if !self.routes.contains(route) {
                self.routes.push(*route);
            }
        }
        (without, taken)
    }

    /// Whether a route's next hop is on the link.
    fn reaches(&self, route: &Route) -> bool {
        let via = route.via;
        let on_link = |address: &Address| IpNetwork::new(address.ip, address.prefix).is_ok_and(|subnet| subnet.contains(via));
        let direct = |other: &Route| other.via.is_unspecified() && other.destination.contains(via);
        via.is_unspecified() || route.onlink || self.addresses.iter().any(on_link) || self.routes.iter().any(direct)
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("links", &self.links).field("guests", &self.guests).finish_non_exhaustive()
    }
}

/// One access to the host in memory.
#[derive(Debug)]
pub struct FakeHost {
    world: Arc<Mutex<World>>,
}

/// A tap's descriptor, until it is persistent.
#[derive(Debug, Default)]
pub struct FakeContext {
    tap: Option<(Arc<Mutex<World>>, u32)>,
}

impl Drop for FakeContext {
    fn drop(&mut self) {
        self.close();
    }
}

impl FakeContext {
    /// Holds a tap that is not persistent.
    fn take_in_hand(&mut self, world: &Arc<Mutex<World>>, index: u32) {
        let persist = lock(world).links.get(&index).and_then(|link| link.tap).is_some_and(|tap| tap.persist);
        if !persist {
            self.tap = Some((Arc::clone(world), index));
        }
    }

    fn close(&mut self) {
        let Some((world, index)) = self.tap.take() else { return };
        let mut world = lock(&world);
        let dies = world.links.get(&index).and_then(|link| link.tap).is_some_and(|tap| !tap.persist);
        if dies {
            world.remove(index);
        }
    }
}

impl Kernel for Fake {
    type Host = FakeHost;

    fn guests(&self) -> GuestMacs {
        self.world().macs.clone()
    }

    fn overlays(&self) -> Overlays {
        self.world().overlays.clone()
    }

    fn open(&self) -> Result<FakeHost, OpError> {
        Ok(FakeHost { world: Arc::clone(&self.world) })
    }

    fn hear_requests(&self, bridge: u32) -> io::Result<PacketSocket> {
        let mut world = self.world();
        if !world.links.contains_key(&bridge) {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        if world.missing.contains(PACKETS) {
            return Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT));
        }
        let (socket, other) = UnixStream::pair()?;
        socket.set_nonblocking(true)?;
        world.sockets.push(other);
        Ok(PacketSocket::from(OwnedFd::from(socket)))
    }

    fn hear_neighbours(&self, bridge: u32) -> io::Result<PacketSocket> {
        self.hear_requests(bridge)
    }

    fn speak(&self) -> io::Result<PacketSocket> {
        let (socket, _) = UnixDatagram::pair()?;
        Ok(PacketSocket::from(OwnedFd::from(socket)))
    }

    fn watch(&self, sink: mpsc::Sender<Notice>) -> Result<(), OpError> {
        self.world().sinks.push(sink);
        Ok(())
    }
}

/// What a test does to the host from outside, and what it asks of it as a witness.
impl Fake {
    /// An empty host.
    pub fn new() -> Self {
        Self::default()
    }

    /// A copy of this host, on which no daemon runs.
    pub fn twin(&self) -> Self {
        let world = self.world();
        let twin = World {
            links: world.links.clone(),
            netns: world.netns.clone(),
            guests: world.guests.clone(),
            open: world.open.clone(),
            routes: world.routes.clone(),
            entries: world.entries.clone(),
            missing: world.missing.clone(),
            vlans: world.vlans.clone(),
            pvids: world.pvids.clone(),
            given_mtu: world.given_mtu.clone(),
            without_carrier: world.without_carrier.clone(),
            next_cookie: world.next_cookie,
            next_index: world.next_index,
            ..World::default()
        };
        Self { world: Arc::new(Mutex::new(twin)) }
    }

    /// Decides of each op from now on whether it fails.
    pub fn set_faults(&self, faults: impl FnMut(&Op) -> Fault + Send + 'static) {
        self.world().faults = Some(Box::new(faults));
    }

    /// The sockets that requests are heard by fail.
    pub fn break_sockets(&self) {
        self.world().sockets.clear();
    }

    /// No more faults.
    pub fn clear_faults(&self) {
        self.world().faults = None;
    }

    /// Lets each notice become what `wire` makes of it: none, several, older ones.
    pub fn set_wire(&self, wire: impl FnMut(Notice) -> Vec<Notice> + Send + 'static) {
        self.world().wire = Some(Box::new(wire));
    }

    /// Tells a complete dump, as the watch does once it has lost something; notices pass as they are from then on.
    pub fn resync(&self) {
        let mut world = self.world();
        world.wire = None;
        let links = world.links.values().cloned().collect();
        world.tell(Notice::Resync { links, at: Instant::now() });
    }

    /// Does not let a port's device go for as long as the answer lives.
    #[must_use]
    pub fn stall(&self, port: PortId) -> Stall {
        let gate = Arc::<Gate>::default();
        self.world().stalls.insert(port, Arc::clone(&gate));
        Stall(gate)
    }

    /// The ops carried out so far, also those that failed.
    pub fn log(&self) -> Vec<Op> {
        self.world().log.clone()
    }

    /// All links.
    pub fn links(&self) -> Vec<LinkState> {
        self.world().links.values().cloned().collect()
    }

    /// A port's device.
    pub fn device(&self, port: PortId) -> Option<LinkState> {
        let altname = names::port_altname(port);
        self.world().named(&altname).cloned()
    }

    /// The guest's end of a port's device.
    pub fn guest(&self, port: PortId) -> Option<Guest> {
        let index = self.device(port)?.index;
        self.world().guests.get(&index).cloned()
    }

    /// Makes a link that is not nicd's; a bridge keeps the MTU.
    pub fn add_link(&self, name: &str, kind: Kind, mtu: u32) -> u32 {
        let mut world = self.world();
        world.next_index += 1;
        let index = world.next_index;
        world.given_mtu.insert(index);
        world.put(LinkState { mtu, up: true, lower_up: true, v6_autoconf: true, ..LinkState::bare(index, name, kind) });
        index
    }

    /// Lets a bridge have the least MTU of its ports until it is given one.
    pub fn follow_mtu(&self, bridge: u32) {
        self.world().given_mtu.remove(&bridge);
    }

    /// Deletes whatever link has this name.
    pub fn delete_link(&self, name: &str) {
        let mut world = self.world();
        if let Some(index) = world.named(name).map(|link| link.index) {
            world.remove(index);
        }
    }

    /// Changes a link behind nicd's back.
    pub fn meddle(&self, name: &str, change: impl FnOnce(&mut LinkState)) {
        let mut world = self.world();
        if let Some(mut link) = world.named(name).cloned() {
            let master = link.master;
            change(&mut link);
            if link.master != master {
                link.fdb.iter_mut().for_each(Vec::clear);
            }
            world.put(link);
        }
    }

    /// The entries of a network that lead to other hosts.
    pub fn entries(&self, network: NetworkId) -> BTreeSet<Entry> {
        let host = &mut FakeHost { world: Arc::clone(&self.world) };
        host.entries(network).ok().flatten().map(|seen| seen.entries).unwrap_or_default()
    }

    /// Changes such entries behind nicd's back; the watch tells of it.
    pub fn meddle_entries(&self, network: NetworkId, put: &[Entry], removed: &[Entry]) {
        let mut world = self.world();
        let Ok(links) = world.tunnel_links(network) else { return };
        for entry in removed {
            world.entries.entry(holder(links, entry)).or_default().remove(entry);
        }
        for entry in put {
            world.entries.entry(holder(links, entry)).or_default().insert(entry.clone());
        }
        world.tell(Notice::EntryDisturbed { network });
    }

    /// Changes the guest's end of a port's device, as the guest would.
    pub fn meddle_guest(&self, port: PortId, change: impl FnOnce(&mut Guest)) {
        let mut world = self.world();
        let index = world.named(&names::port_altname(port)).map(|link| link.index);
        if let Some(guest) = index.and_then(|index| world.guests.get_mut(&index)) {
            change(guest);
        }
    }

    /// Has a bridge tell VLANs apart or not. No event tells of its ports then, as on Linux.
    pub fn set_vlan_filtering(&self, bridge: &str, filters: bool) {
        let mut world = self.world();
        let Some(mut link) = world.named(bridge).cloned() else { return };
        link.extras.vlan_filtering = filters;
        world.put(link);
    }

    /// The VLAN that a bridge's new ports are untagged in; 0 for none. Without it that is 1.
    pub fn set_default_pvid(&self, bridge: u32, pvid: u16) {
        self.world().pvids.insert(bridge, pvid);
    }

    /// Puts a bridge's port into a VLAN.
    pub fn set_vlan(&self, name: &str, vlan: PortVlan) {
        let mut world = self.world();
        if let Some(link) = world.named(name).cloned() {
            world.vlans.insert(link.index, vlan);
            world.put(link);
        }
    }

    /// Mounts a fresh namespace at a path, in place of what was there.
    pub fn add_netns(&self, path: &Path) {
        self.mount(path, false);
    }

    /// Mounts the host's own namespace at a path.
    pub fn add_own_netns(&self, path: &Path) {
        self.mount(path, true);
    }

    fn mount(&self, path: &Path, own: bool) {
        let mut world = self.world();
        world.next_cookie += 1;
        let cookie = world.next_cookie;
        world.netns.insert(path.to_owned(), Netns { cookie, own });
    }

    /// Ends a namespace with every link in it.
    pub fn remove_netns(&self, path: &Path) {
        let mut world = self.world();
        let Some(gone) = world.netns.remove(path) else { return };
        let dead: Vec<u32> =
            world.guests.iter().filter(|(_, guest)| guest.cookie == gone.cookie).map(|(&index, _)| index).collect();
        for index in dead {
            world.remove(index);
        }
    }

    /// A VMM opens a port's tap, or closes it.
    pub fn set_carrier(&self, port: PortId, carrier: bool) {
        let mut world = self.world();
        let Some(link) = world.named(&names::port_altname(port)).cloned() else { return };
        match carrier {
            true => world.open.insert(link.index),
            false => world.open.remove(&link.index),
        };
        world.put(link);
    }

    /// Takes a module away, without which no further link of its kind is made, or puts it back. Without `nf_tables` nothing is
    /// filtered.
    pub fn set_module(&self, module: &'static str, there: bool) {
        let mut world = self.world();
        match there {
            true => world.missing.remove(module),
            false => world.missing.insert(module),
        };
        if module == NF_TABLES {
            world.filters.clear();
            let links: Vec<LinkState> = world.links.values().cloned().collect();
            links.into_iter().for_each(|link| world.put(link));
        }
    }

    /// Lets default routes leave by these links.
    pub fn set_default_routes(&self, links: &[u32]) {
        let route = |link: &u32| BroadRoute { link: *link, table: 254, v6: false, first_octet: 0, length: 0 };
        self.world().routes = links.iter().map(route).collect();
    }

    fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.world)
    }
}

fn lock(world: &Mutex<World>) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    fn named(&self, name: &str) -> Option<&LinkState> {
        self.links.values().find(|link| link.name == name || link.altnames.iter().any(|alt| alt == name))
    }

    /// Stores a link, with what follows from its settings, and tells the watchers.
    fn put(&mut self, mut link: LinkState) {
        link.altnames.sort();
        link.lower_up = match (&link.kind, self.guests.get(&link.index)) {
            (Kind::Tap, _) => link.up && self.open.contains(&link.index),
            (Kind::Veth, Some(guest)) => link.up && guest.up,
            (Kind::Bridge, _) => link.up && !self.without_carrier.contains(&link.index),
            (Kind::Vxlan, _) => link.up,
            (Kind::Vlan, _) => link.up && link.lower.and_then(|index| self.links.get(&index)).is_none_or(|below| below.lower_up),
            (Kind::Veth | Kind::Other, _) => link.lower_up,
        };
        if let Some(tap) = &mut link.tap {
            tap.held = self.open.contains(&link.index);
        }
        if link.kind.is_device() && link.index >= names::FIRST_INDEX {
            let none = if self.missing.contains(NF_TABLES) { DeviceFilter::Unavailable } else { DeviceFilter::Closed };
            let set = |(port, filter): &(PortId, Filter)| DeviceFilter::Set { port: *port, filter: filter.clone() };
            link.filter = self.filters.get(&link.index).map_or(none, set);
        }
        let bridge_up = link.master.and_then(|index| self.links.get(&index)).is_some_and(|bridge| bridge.up);
        match link.master {
            None => link.bridge_port = None,
            Some(_) => {
                let seen = link.bridge_port.unwrap_or(FRESH);
                let runs = link.up && link.lower_up && bridge_up;
                link.bridge_port = Some(BridgePort { forwarding: runs && !seen.held, held: runs && seen.held, ..seen });
            }
        }
        match (link.master, &mut link.fdb) {
            (None, Some(entries)) => entries.clear(),
            (_, fdb @ None)
                if link.kind != Kind::Bridge && link.altnames.iter().any(|name| names::parse_altname(name).is_some()) =>
            {
                *fdb = Some(Vec::new());
            }
            _ => {}
        }
        let (index, up, mtu, bridge) = (link.index, link.up, link.mtu, link.master);
        let carrier = link.lower_up;
        if self.links.get(&index).is_none_or(|before| before.master != link.master) {
            self.vlans.remove(&index);
        }
        link.vlan = None;
        match link.master {
            None => {}
            Some(bridge) => {
                let made = self.default_vlan(bridge);
                let vlan = *self.vlans.entry(index).or_insert(made);
                link.vlan = Some(vlan).filter(|_| self.filters(bridge) && link.marks().next().is_some());
            }
        }
        let filters = link.extras.vlan_filtering;
        let own = link.master.zip(link.mac);
        let before = self.links.insert(index, link.clone());
        self.tell(Notice::Seen { link: link.into(), at: Instant::now() });
        if before.as_ref().is_some_and(|before| before.master != bridge)
            && let Some(entries) = self.entries.get_mut(&index)
        {
            entries.retain(|entry| !matches!(entry, Entry::Bridge(_) | Entry::Strange(Strange::Bridge { .. })));
        }
        // A bridge that goes down forgets its neighbours (`neigh_ifdown`, net/core/neighbour.c).
        if before.as_ref().is_some_and(|before| before.kind == Kind::Bridge && before.up && !up) {
            self.entries.remove(&index);
        }
        // Its ports show what they let pass from now on, and nothing tells of it.
        if before.as_ref().is_some_and(|before| before.extras.vlan_filtering != filters) {
            for mut port in self.ports_of(index) {
                port.vlan = self.vlans.get(&port.index).copied().filter(|_| filters && port.marks().next().is_some());
                self.links.insert(port.index, port);
            }
        }
        // A port's own MAC becomes the bridge's entry, also when another port had it (br_fdb_change_mac_address, net/bridge/br_fdb.c).
        if let Some((bridge, mac)) =
            own.filter(|own| before.as_ref().and_then(|before| before.master.zip(before.mac)) != Some(*own))
        {
            self.drop_entry(bridge, 0, mac);
            if self.macs.port(mac).is_some() {
                self.tell(Notice::MacTaken { index, mac, at: Instant::now() });
            }
        }
        // VLAN devices go down and up with the link below them, and have its carrier (`vlan_device_event`, net/8021q/vlan.c).
        if let Some(before) = before.as_ref().filter(|before| (before.up, before.lower_up) != (up, carrier)) {
            for vlan in self.vlans_on(index) {
                // Those of ports are loosely bound.
                let stays = before.up == up || vlan.marks().next().is_some();
                let up = if stays { vlan.up } else { up };
                self.put(LinkState { up, ..vlan });
            }
        }
        // Ports forward while their bridge is up (br_stp_enable_bridge, net/bridge/br_stp_if.c).
        if before.as_ref().is_some_and(|before| before.kind == Kind::Bridge && before.up != up) {
            self.ports_of(index).into_iter().for_each(|port| self.put(port));
        }
        if before.as_ref().is_some_and(|before| before.kind == Kind::Bridge && before.mtu != mtu) {
            self.given_mtu.insert(index);
        }
        let left = before.and_then(|before| before.master).filter(|left| Some(*left) != bridge);
        bridge.into_iter().chain(left).for_each(|bridge| self.follow_ports(bridge));
    }

    /// A bridge has carrier while one of its ports forwards (`br_port_state_selection`, net/bridge/br_stp.c), and the least MTU
    /// of its ports unless it was given one (`br_mtu_auto_adjust`, net/bridge/br_if.c).
    fn follow_ports(&mut self, bridge: u32) {
        let Some(mut link) = self.links.get(&bridge).cloned().filter(|link| link.kind == Kind::Bridge) else { return };
        let ports = || self.links.values().filter(move |link| link.master == Some(bridge));
        let mtu = ports().map(|port| port.mtu).min();
        match ports().any(|port| port.bridge_port.is_some_and(|port| port.forwarding)) {
            true => self.without_carrier.remove(&bridge),
            false => self.without_carrier.insert(bridge),
        };
        link.lower_up = link.up && !self.without_carrier.contains(&bridge);
        if !self.given_mtu.contains(&bridge) {
            link.mtu = mtu.unwrap_or(1500);
        }
        if self.links.get(&bridge) != Some(&link) {
            self.links.insert(bridge, link.clone());
            self.tell(Notice::Seen { link: link.into(), at: Instant::now() });
        }
    }

    fn filters(&self, bridge: u32) -> bool {
        self.links.get(&bridge).is_some_and(|bridge| bridge.extras.vlan_filtering)
    }

    /// What a new port of a bridge gets (`nbp_vlan_init`, net/bridge/br_vlan.c).
    fn default_vlan(&self, bridge: u32) -> PortVlan {
        let pvid = self.pvids.get(&bridge).copied().unwrap_or(1);
        PortVlan { pvid, untagged: pvid != 0, ..PortVlan::default() }
    }

    fn ports_of(&self, bridge: u32) -> Vec<LinkState> {
        self.links.values().filter(|link| link.master == Some(bridge)).cloned().collect()
    }

    /// The VLAN devices on a link.
    fn vlans_on(&self, index: u32) -> Vec<LinkState> {
        self.links.values().filter(|link| link.kind == Kind::Vlan && link.lower == Some(index)).cloned().collect()
    }

    fn remove(&mut self, index: u32) {
        let Some(gone) = self.links.remove(&index) else { return };
        self.vlans_on(index).into_iter().for_each(|vlan| self.remove(vlan.index));
        self.guests.remove(&index);
        self.filters.remove(&index);
        self.entries.remove(&index);
        for of_links in [&mut self.open, &mut self.given_mtu, &mut self.without_carrier] {
            of_links.remove(&index);
        }
        self.tell(Notice::Gone { index, at: Instant::now() });
        gone.master.into_iter().for_each(|bridge| self.follow_ports(bridge));
        for mut port in self.ports_of(index) {
            port.master = None;
            self.put(port);
        }
    }

    /// The device that an op has to wait for.
    fn gate(&self, op: &Op) -> Option<Arc<Gate>> {
        let port = match op {
            Op::DeleteLink { port, .. } => *port,
            Op::DeleteGroup { group, .. } => {
                let members = self.links.values().filter(|link| link.group == *group);
                members.flat_map(LinkState::marks).map(PortId).find(|port| self.stalls.contains_key(port))?
            }
            _ => return None,
        };
        self.stalls.get(&port).cloned()
    }

    fn tell(&mut self, notice: Notice) {
        let notices = match self.wire.as_mut() {
            Some(wire) => wire(notice),
            None => vec![notice],
        };
        notices.iter().for_each(|notice| self.send(notice));
    }

    fn send(&mut self, notice: &Notice) {
        self.sinks.retain(|sink| match sink.try_send(notice.clone()) {
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        });
    }

    fn create(&mut self, index: u32, name: &LinkName, kind: Kind) -> Result<(), OpError> {
        if self.links.contains_key(&index) || self.named(name.as_str()).is_some() {
            return Err(refused(OpErrorKind::Taken, format!("creating {name}")));
        }
        let link = LinkState { v6_autoconf: true, v4_open: true, ..LinkState::bare(index, name.as_str(), kind) };
        self.put(link);
        Ok(())
    }

    /// A port's elements are those of one device.
    fn set_filter(&mut self, port: PortId, filter: Option<&IndexFilter>) -> Result<(), OpError> {
        if self.missing.contains(NF_TABLES) {
            return match filter {
                Some(filter) if !filter.filter.is_open() => {
                    Err(refused(OpErrorKind::FiltersUnavailable, format!("the filter of port {port}")))
                }
                _ => Ok(()),
            };
        }
        let old = self.filters.iter().find(|(_, (of, _))| *of == port).map(|(index, _)| *index);
        old.iter().for_each(|old| _ = self.filters.remove(old));
        if let Some(IndexFilter { index, filter }) = filter {
            self.filters.insert(*index, (port, filter.clone()));
        }
        for index in old.into_iter().chain(filter.map(|filter| filter.index)) {
            if let Some(link) = self.links.get(&index).cloned() {
                self.put(link);
            }
        }
        Ok(())
    }

    fn at(&self, port: PortId, at: At) -> Result<LinkState, OpError> {
        let altname = names::port_altname(port);
        let link = match at {
            At::Index(index) => self.links.get(&index),
            At::Altname => self.named(&altname),
        };
        link.cloned().ok_or_else(|| refused(OpErrorKind::Gone, format!("looking for {altname}")))
    }

    /// Carries out what Linux sends as one message each, in its order: it goes on after one that is refused. Only a device that
    /// outlives the process is tagged in a send of its own, when all else is done (`links::configure`).
    fn configure(&mut self, port: PortId, at: At, changes: &BTreeSet<LinkChange>) -> Result<(), OpError> {
        let tag = changes.iter().find_map(|change| match change {
            LinkChange::Tag { alias, .. } => Some(alias),
            _ => None,
        });
        if let Some(alias) = tag.filter(|alias| alias.len() > MAX_ALIAS || alias.contains('\0')) {
            return Err(refused(OpErrorKind::Other, format!("tagging with '{alias}'")));
        }
        let index = self.at(port, at)?.index;
        // What is refused of the altname, of MAC, MTU and bridge, of the FDB entries, and of the flags with the tag.
        let (mut altname, mut shaped, mut entered, mut flags) = (Ok(()), Ok(()), Ok(()), Ok(()));
        for change in changes {
            match change {
                LinkChange::Altname => altname = self.mark(index, names::port_altname(port)),
                LinkChange::Mac(mac) => shaped = shaped.and_then(|()| self.set_mac(index, *mac)),
                LinkChange::Mtu(mtu) => shaped = shaped.inspect(|()| self.change(index, |link| link.mtu = *mtu)),
                LinkChange::Master(master) => shaped = shaped.and_then(|()| self.set_master(index, *master)),
                LinkChange::Pvid(_) if shaped.is_err() => {}
                LinkChange::Pvid(pvid) => self.only_vlan(index, *pvid),
                LinkChange::HostIpOff if shaped.is_err() && at != At::Altname => {}
                LinkChange::HostIpOff => self.change(index, |link| (link.v6_autoconf, link.v4_open) = (false, false)),
                LinkChange::RemoveAddress(address) => {
                    self.change(index, |link| link.foreign_addresses.retain(|other| other != address))
                }
                LinkChange::FromGuest(bucket) => self.change(index, |link| link.from_guest = *bucket),
                LinkChange::ToGuest(bucket) => self.change(index, |link| link.to_guest = *bucket),
                LinkChange::FdbEntry(mac) => entered = entered.and(self.enter(index, *mac)),
                // These have a send of their own, which is not made after a refusal.
                _ if tag.is_some() && at == At::Altname && (altname.is_err() || shaped.is_err() || entered.is_err()) => break,
                LinkChange::Learning(on) => flags = flags.and(self.change_port(index, |port| port.learning = *on)),
                LinkChange::UnicastFlood(on) => flags = flags.and(self.change_port(index, |port| port.unicast_flood = *on)),
                LinkChange::BpduGuard(on) => flags = flags.and(self.change_port(index, |port| port.bpdu_guard = *on)),
                LinkChange::Locked(on) => flags = flags.and(self.change_port(index, |port| port.locked = *on)),
                LinkChange::PassLinkLocal => flags = flags.and(self.change_port(index, |port| port.passes_link_local = true)),
                LinkChange::Forwarding => flags = flags.and(self.change_port(index, |port| port.held = false)),
                LinkChange::ResetPortFlags => {
                    flags = flags.and(self.change_port(index, |port| (port.altered, port.suppresses) = (false, false)));
                }
                LinkChange::Tag { .. } if flags.is_err() => {}
                LinkChange::Tag { alias, switch } => {
                    self.change(index, |link| (link.alias, link.up) = (Some(alias.clone()), *switch == Switch::Up));
                }
            }
        }
        altname.and(shaped).and(entered).and(flags)
    }

    /// Changes a link that is there.
    fn change(&mut self, index: u32, change: impl FnOnce(&mut LinkState)) {
        let Some(before) = self.links.get(&index) else { return };
        let mut link = before.clone();
        change(&mut link);
        if link != *before {
            self.put(link);
        }
    }

    /// Makes a bridge's port untagged in one VLAN and in no other.
    fn only_vlan(&mut self, index: u32, pvid: u16) {
        self.vlans.insert(index, PortVlan { pvid, untagged: true, ..PortVlan::default() });
        self.links.get(&index).cloned().into_iter().for_each(|link| self.put(link));
    }

    /// Makes a VLAN device; one with its tag on its link is EEXIST (`vlan_check_real_dev`, net/8021q/vlan.c).
    fn create_vlan(&mut self, op: &Op) -> Result<(), OpError> {
        let Op::CreateVlan { network, index, name, parent, tag, mtu, alias } = op else { return Ok(()) };
        let altname = names::segment_altname(SegmentKind::Vlan, *network);
        let is_made = self.named(&altname).is_some_and(|link| link.index == *index && link.kind == Kind::Vlan);
        if !is_made {
            let Some(below) = self.links.get(parent).cloned() else {
                return Err(refused(OpErrorKind::Gone, format!("creating {name}")));
            };
            if self.vlans_on(*parent).iter().any(|vlan| vlan.tag == Some(*tag)) {
                return Err(refused(OpErrorKind::Taken, format!("creating {name}")));
            }
            self.create(*index, name, Kind::Vlan)?;
            self.change(*index, |link| (link.lower, link.tag, link.mac) = (Some(*parent), Some(*tag), below.mac));
        }
        self.mark(*index, altname)?;
        self.change(*index, |link| {
            (link.v6_autoconf, link.v4_open, link.alias, link.mtu) = (false, false, Some(alias.clone()), *mtu);
        });
        Ok(())
    }

    /// The same on another port's device; its MTU is at most that device's (`vlan_dev_change_mtu`, net/8021q/vlan_dev.c).
    fn create_vlan_nic(&mut self, op: &Op) -> Result<(), OpError> {
        let Op::CreateVlanNic { port, index, name, parent, id, mac, mtu } = op else { return Ok(()) };
        let below = self.at(*parent, At::Altname)?;
        let tag = VlanTag { id: *id, protocol: VlanProtocol::Dot1q };
        if self.vlans_on(below.index).iter().any(|vlan| vlan.tag == Some(tag)) {
            return Err(refused(OpErrorKind::Taken, format!("creating {name}")));
        }
        if *mtu > below.mtu {
            return Err(refused(OpErrorKind::Other, format!("giving {name} the MTU {mtu}")));
        }
        self.create(*index, name, Kind::Vlan)?;
        self.change(*index, |link| (link.lower, link.tag) = (Some(below.index), Some(tag)));
        let made = [LinkChange::Altname, LinkChange::Mac(*mac), LinkChange::Mtu(*mtu), LinkChange::HostIpOff];
        self.configure(*port, At::Index(*index), &made.into()).inspect_err(|_| self.remove(*index))
    }

    /// Makes a VXLAN device; one with its number and port is EEXIST (`vxlan_vni_in_use`, drivers/net/vxlan/vxlan_core.c).
    fn create_vxlan(&mut self, op: &Op) -> Result<(), OpError> {
        let Op::CreateVxlan { network, index, name, vni, local, mtu, alias } = op else { return Ok(()) };
        let altname = names::segment_altname(SegmentKind::Vxlan, *network);
        let is_made = self.named(&altname).is_some_and(|link| link.index == *index && link.kind == Kind::Vxlan);
        if !is_made {
            let seen = VxlanSeen { vni: *vni, port: VXLAN_PORT, local: Some(*local), learning: false, altered: false };
            let same = |link: &LinkState| link.vxlan.is_some_and(|vxlan| (vxlan.vni, vxlan.port) == (seen.vni, seen.port));
            if self.links.values().any(same) {
                return Err(refused(OpErrorKind::Taken, format!("creating {name}")));
            }
            self.create(*index, name, Kind::Vxlan)?;
            self.change(*index, |link| link.vxlan = Some(seen));
            self.entries.insert(*index, BTreeSet::new());
        }
        self.mark(*index, altname)?;
        self.change(*index, |link| {
            (link.v6_autoconf, link.v4_open, link.alias, link.mtu) = (false, false, Some(alias.clone()), *mtu);
        });
        Ok(())
    }

    fn set_segment(
        &mut self,
        (kind, network): (SegmentKind, NetworkId),
        changes: &BTreeSet<SegmentChange>,
    ) -> Result<(), OpError> {
        let altname = names::segment_altname(kind, network);
        let index = self.index_of(&altname)?;
        for change in changes {
            match change {
                SegmentChange::Mtu(mtu) => self.change(index, |link| link.mtu = *mtu),
                SegmentChange::Alias(alias) => {
                    self.change(index, |link| link.alias = Some(alias.clone()).filter(|alias| !alias.is_empty()))
                }
                SegmentChange::LearningOff => {
                    self.change(index, |link| link.vxlan.iter_mut().for_each(|vxlan| vxlan.learning = false));
                }
                SegmentChange::Master(master) => self.set_master(index, *master)?,
                SegmentChange::HostIpOff => self.change(index, |link| (link.v6_autoconf, link.v4_open) = (false, false)),
                SegmentChange::RemoveAddress(address) => {
                    self.change(index, |link| link.foreign_addresses.retain(|other| other != address));
                }
                SegmentChange::TunnelPortFlags { suppress } => self.change_port(index, |port| {
                    *port = BridgePort {
                        learning: false,
                        unicast_flood: true,
                        suppresses: *suppress,
                        passes_link_local: true,
                        locked: false,
                        bpdu_guard: false,
                        altered: false,
                        ..*port
                    };
                })?,
                SegmentChange::Switch(Switch::Up) if kind == SegmentKind::Vlan && !self.is_below_up(index) => {
                    return Err(refused(OpErrorKind::Other, format!("setting {altname} up, whose link is down")));
                }
                SegmentChange::Switch(switch) => self.change(index, |link| link.up = *switch == Switch::Up),
            }
        }
        Ok(())
    }

    fn index_of(&self, altname: &str) -> Result<u32, OpError> {
        let found = self.named(altname).map(|link| link.index);
        found.ok_or_else(|| refused(OpErrorKind::Gone, format!("looking for {altname}")))
    }

    /// The VXLAN device of a network and its bridge.
    fn tunnel_links(&self, network: NetworkId) -> Result<[u32; 2], OpError> {
        let device = self.index_of(&names::segment_altname(SegmentKind::Vxlan, network))?;
        Ok([device, self.index_of(&names::network_altname(network))?])
    }

    fn set_entries(&mut self, network: NetworkId, put: &BTreeSet<Entry>, remove: &BTreeSet<Entry>) -> Result<(), OpError> {
        let links = self.tunnel_links(network)?;
        let is_port = self.links.get(&links[0]).is_some_and(|device| device.master.is_some());
        if !is_port && put.iter().any(|entry| matches!(entry, Entry::Bridge(_))) {
            return Err(refused(OpErrorKind::Gone, format!("entering a MAC of network {network} into its bridge")));
        }
        for entry in put.iter().filter(|entry| !matches!(entry, Entry::Strange(_))) {
            let table = self.entries.entry(holder(links, entry)).or_default();
            // It takes the place of what has its MAC or address.
            let alike = table.clone();
            let only = BTreeSet::from([entry.clone()]);
            let stays: BTreeSet<&Entry> = not_replaced(&only, &alike).into_iter().collect();
            table.retain(|other| stays.contains(other));
            table.insert(entry.clone());
        }
        for entry in not_replaced(put, remove) {
            self.entries.entry(holder(links, entry)).or_default().remove(entry);
        }
        Ok(())
    }

    fn is_below_up(&self, index: u32) -> bool {
        let below = self.links.get(&index).and_then(|link| link.lower).and_then(|index| self.links.get(&index));
        below.is_some_and(|below| below.up)
    }

    fn mark(&mut self, index: u32, altname: String) -> Result<(), OpError> {
        match self.named(&altname) {
            Some(other) if other.index != index => Err(refused(OpErrorKind::Taken, format!("marking {altname}"))),
            Some(_) => Ok(()),
            None => {
                self.change(index, |link| link.altnames.push(altname));
                Ok(())
            }
        }
    }

    fn set_mac(&mut self, index: u32, mac: Mac) -> Result<(), OpError> {
        if mac.0[0] & 1 == 1 {
            return Err(refused(OpErrorKind::Other, format!("giving a NIC the MAC {mac}")));
        }
        self.change(index, |link| link.mac = Some(mac));
        Ok(())
    }

    /// A link leaves its bridge before the other one is looked for (`do_set_master`, net/core/rtnetlink.c).
    fn set_master(&mut self, index: u32, master: u32) -> Result<(), OpError> {
        if self.links.get(&index).is_none_or(|link| link.master == Some(master)) {
            return Ok(());
        }
        let is_bridge = self.links.get(&master).is_some_and(|bridge| bridge.kind == Kind::Bridge);
        let entered = match self.ports_of(master).len() {
            _ if master == 0 => Ok(None),
            _ if !is_bridge => Err(OpErrorKind::NoBridge),
            BRIDGE_PORTS.. => Err(OpErrorKind::BridgeFull),
            _ => Ok(Some(master)),
        };
        self.change(index, |link| {
            link.master = entered.unwrap_or_default();
            link.bridge_port = link.master.map(|_| FRESH);
            link.fdb.iter_mut().for_each(Vec::clear);
        });
        entered.map(drop).map_err(|kind| refused(kind, format!("putting the link {index} into the bridge {master}")))
    }

    /// Changes a link as a bridge's port. A link in no bridge has no flags as a port.
    fn change_port(&mut self, index: u32, change: impl FnOnce(&mut BridgePort)) -> Result<(), OpError> {
        let port = self.links.get(&index).and_then(|link| link.bridge_port);
        let mut port = port.ok_or_else(|| refused(OpErrorKind::Other, format!("setting flags of {index}, which is no port")))?;
        change(&mut port);
        self.change(index, |link| link.bridge_port = Some(port));
        Ok(())
    }

    /// Makes a MAC's entry in the bridge of a link a static and sticky one that leads to it.
    fn enter(&mut self, index: u32, mac: Mac) -> Result<(), OpError> {
        let bridge = self.links.get(&index).and_then(|link| link.master);
        let bridge = bridge.ok_or_else(|| refused(OpErrorKind::Gone, format!("entering {mac}")))?;
        self.drop_entry(bridge, index, mac);
        let pvid = self.vlans.get(&index).copied().unwrap_or_else(|| self.default_vlan(bridge)).pvid;
        // One for no VLAN, and one in each VLAN of the port (`br_fdb_add`, net/bridge/br_fdb.c).
        let vlans = [0].into_iter().chain((self.filters(bridge) && pvid != 0).then_some(pvid));
        self.change(index, |link| {
            let entries = link.fdb.get_or_insert_default();
            entries.retain(|entry| entry.mac != mac);
            entries.extend(vlans.map(|vlan| FdbEntry { mac, vlan, sticky: true }));
        });
        Ok(())
    }

    /// Deletes a MAC's entry in a bridge, where it leads to another port than `index`.
    fn drop_entry(&mut self, bridge: u32, index: u32, mac: Mac) {
        let leads = |link: &&LinkState| link.master == Some(bridge) && link.index != index && link.entry(mac, 0).is_some();
        let Some(mut other) = self.links.values().find(leads).cloned() else { return };
        other.fdb.iter_mut().for_each(|entries| entries.retain(|entry| entry.mac != mac));
        self.put(other);
    }

    fn switch(&mut self, mut link: LinkState, switch: Switch) {
        link.up = switch == Switch::Up;
        self.put(link);
    }

    fn restore_altname(&mut self, altname: String, index: u32, alias: &str) -> Result<(), OpError> {
        let known = |link: &&LinkState| link.alias.as_deref() == Some(alias) || link.is_stripped();
        self.links.get(&index).filter(known).ok_or_else(|| refused(OpErrorKind::Gone, format!("looking for {alias}")))?;
        self.mark(index, altname)?;
        self.change(index, |link| link.alias = Some(alias.to_owned()));
        Ok(())
    }

    fn netns(&self, path: &Path, pin: NetnsPin) -> Result<u64, OpError> {
        match self.netns.get(path) {
            Some(netns) if pin == netns.pin() => Ok(netns.cookie),
            _ => Err(refused(OpErrorKind::Namespace, format!("entering {}", path.display()))),
        }
    }

    /// Whether the port's device is there already, from an earlier run of the op that makes it.
    fn made(&self, port: PortId, index: u32, kind: &Kind) -> bool {
        self.named(&names::port_altname(port)).is_some_and(|link| link.index == index && link.kind == *kind)
    }

    fn apply(&mut self, op: &Op) -> Result<Applied, OpError> {
        match op {
            Op::CreateTap { port, index, .. } if self.made(*port, *index, &Kind::Tap) => {}
            Op::CreateVeth { port, index, .. } if self.made(*port, *index, &Kind::Veth) => {}
            Op::CreateVlanNic { port, index, .. } if self.made(*port, *index, &Kind::Vlan) => {}
            Op::CreateBridge { network, index, name, mac, mtu, alias } => {
                let altname = names::network_altname(*network);
                match self.named(&altname) {
                    None => self.create(*index, name, Kind::Bridge)?,
                    Some(link) if link.index == *index && link.kind == Kind::Bridge => {}
                    Some(_) => return Err(refused(OpErrorKind::Taken, format!("marking {altname}"))),
                }
                self.mark(*index, altname)?;
                self.change(*index, |link| {
                    (link.v6_autoconf, link.v4_open, link.alias) = (false, false, Some(alias.clone()));
                });
                self.set_mac(*index, *mac)?;
                self.change(*index, |link| link.mtu = *mtu);
                self.given_mtu.insert(*index);
            }
            Op::CloseBridge { network } => {
                let altname = names::network_altname(*network);
                let found = self.named(&altname).cloned();
                let link = found.ok_or_else(|| refused(OpErrorKind::Gone, format!("looking for {altname}")))?;
                self.put(LinkState { host_closed: true, ..link });
            }
            Op::SetBridge { network, changes } => {
                let altname = names::network_altname(*network);
                let found = self.named(&altname).map(|link| link.index);
                let index = found.ok_or_else(|| refused(OpErrorKind::Gone, format!("looking for {altname}")))?;
                let mut shaped = Ok(());
                for change in changes {
                    match change {
                        BridgeChange::Mac(mac) => shaped = self.set_mac(index, *mac),
                        // They are in the refused message.
                        BridgeChange::Mtu(_) | BridgeChange::Alias(_) if shaped.is_err() => {}
                        other => self.change(index, |link| set_bridge(link, other)),
                    }
                }
                shaped?;
            }
            Op::DeleteBridge { network, store } => {
                let bridge = self.named(&names::network_altname(*network)).filter(|link| link.is_of(*store));
                if let Some(index) = bridge.map(|link| link.index) {
                    self.remove(index);
                }
            }
            Op::CreateVlan { .. } => self.create_vlan(op)?,
            Op::CreateVxlan { .. } => self.create_vxlan(op)?,
            Op::SetEntries { network, put, remove } => self.set_entries(*network, put, remove)?,
            Op::SetSegment { network, kind, changes } => self.set_segment((*kind, *network), changes)?,
            Op::RestoreSegmentAltname { network, kind, index, alias } => {
                self.restore_altname(names::segment_altname(*kind, *network), *index, alias)?;
            }
            Op::DeleteSegment { network, kind, store } => {
                let device = self.named(&names::segment_altname(*kind, *network)).filter(|link| link.is_of(*store));
                device.map(|link| link.index).into_iter().for_each(|index| self.remove(index));
            }
            Op::AdoptUplink { index, bridge, .. } => {
                let link =
                    self.links.get(index).ok_or_else(|| refused(OpErrorKind::Gone, format!("looking for link {index}")))?;
                if link.master.is_some_and(|master| master != *bridge) || !link.hosts.is_empty() {
                    return Err(refused(OpErrorKind::Other, format!("putting {} into a bridge", link.name)));
                }
                self.set_master(*index, *bridge)?;
            }
            Op::ReleaseUplink { index, bridge, .. } => {
                if self.links.get(index).is_some_and(|link| link.master == Some(*bridge)) {
                    self.set_master(*index, 0)?;
                }
            }
            Op::SetFilter { port, filter, .. } => self.set_filter(*port, filter.as_ref())?,
            // It has no packets that they could allow.
            Op::SetProfiles { .. } | Op::SetMembers { .. } => {}
            Op::CreateTap { index, name, queues, owner, .. } => {
                self.create(*index, name, Kind::Tap)?;
                if let Some(link) = self.links.get_mut(index) {
                    let Owner { uid, gid } = owner.of_tap();
                    link.tap = Some(TapSeen { persist: false, multi_queue: *queues > 1, held: false, uid, gid });
                }
            }
            Op::CreateVeth { port, index, name, netns, pin, guest_name, mac, mtu, .. } => {
                let cookie = self.netns(netns, *pin)?;
                let taken: BTreeSet<&str> =
                    self.guests.values().filter(|guest| guest.cookie == cookie).map(|guest| guest.name.as_str()).collect();
                let guest_name = match guest_name {
                    Some(name) if taken.contains(name.as_str()) => {
                        return Err(refused(OpErrorKind::GuestNameTaken, format!("creating {name} in {}", netns.display())));
                    }
                    Some(name) => Some(name.clone()),
                    None => (0..).map(|n| format!("eth{n}")).find(|n| !taken.contains(n.as_str())).and_then(|n| n.parse().ok()),
                };
                let Some(guest_name) = guest_name else {
                    return Err(refused(OpErrorKind::Other, "naming the guest's end".to_owned()));
                };
                self.create(*index, name, Kind::Veth)?;
                let made = [LinkChange::Altname, LinkChange::Mac(*mac), LinkChange::Mtu(*mtu), LinkChange::HostIpOff];
                self.configure(*port, At::Index(*index), &made.into()).inspect_err(|_| self.remove(*index))?;
                let there = self.guests.values().filter(|guest| guest.cookie == cookie);
                // As the kernel counts behind the loopback.
                let guest_index = there.map(|guest| guest.index).max().unwrap_or(1) + 1;
                let guest =
                    Guest { cookie, name: guest_name, index: guest_index, up: false, addresses: Vec::new(), routes: Vec::new() };
                self.guests.insert(*index, guest);
            }
            Op::CreateVlanNic { .. } => self.create_vlan_nic(op)?,
            Op::Configure { port, at, changes } => self.configure(*port, *at, changes)?,
            Op::Persist { port } => {
                let mut link = self.at(*port, At::Altname)?;
                if let Some(tap) = link.tap.as_mut() {
                    tap.persist = true;
                }
                self.put(link);
            }
            Op::ConfigureGuest { port, netns, pin, settings, .. } => {
                self.netns(netns, *pin)?;
                let link = self.at(*port, At::Altname)?;
                let guest = self.guests.get_mut(&link.index);
                let guest = guest.ok_or_else(|| refused(OpErrorKind::Gone, format!("looking for the peer of {}", link.name)))?;
                let (without, taken) = guest.give(settings);
                guest.up = true;
                let name = guest.name.clone();
                let switch = if link.up { Switch::Up } else { Switch::Down };
                self.switch(link, switch);
                taken?;
                return Ok(match without.is_empty() {
                    true => Applied::GuestDevice(name),
                    false => Applied::GuestWithout(name, without),
                });
            }
            Op::RestoreAltname { port, index, alias } => self.restore_altname(names::port_altname(*port), *index, alias)?,
            Op::RestoreBridgeAltname { network, index, alias } => {
                self.restore_altname(names::network_altname(*network), *index, alias)?;
            }
            Op::SetLink { port, switch } => {
                let link = self.at(*port, At::Altname)?;
                self.switch(link, *switch);
            }
            Op::Unbind { port } => {
                let mut link = self.at(*port, At::Altname)?;
                link.master = None;
                self.put(link);
            }
            Op::SetGroup { group: 0, .. } | Op::DeleteGroup { group: 0, .. } => {
                return Err(refused(OpErrorKind::Other, "group 0 holds the host's own links".to_owned()));
            }
            Op::SetGroup { port, group } => {
                let mut link = self.at(*port, At::Altname)?;
                link.group = *group;
                self.put(link);
            }
            Op::DeleteGroup { group, .. } => {
                let members: Vec<u32> = self.links.values().filter(|link| link.group == *group).map(|link| link.index).collect();
                for index in members {
                    self.remove(index);
                }
            }
            Op::DeleteLink { port, store } => {
                if let Some(link) = self.at(*port, At::Altname).ok().filter(|link| link.is_of(*store)) {
                    self.remove(link.index);
                }
            }
            Op::PlugNic { .. } | Op::UnplugNic { .. } => {
                return Err(refused(OpErrorKind::Other, "the machine's monitor carries that out".to_owned()));
            }
            // Its descriptor is the caller's.
            Op::CloseTap { .. } => {}
        }
        Ok(Applied::Done)
    }
}

impl Host for FakeHost {
    type ExecContext = FakeContext;

    fn carry_out(&mut self, op: &Op, held: &mut FakeContext) -> Result<Applied, OpError> {
        let fault = {
            let mut world = lock(&self.world);
            world.log.push(op.clone());
            world.faults.as_mut().map_or(Fault::None, |faults| faults(op))
        };
        if let Fault::Refuse(kind) = fault {
            return Err(refused(kind, format!("{} (made to fail)", op.name())));
        }
        let gate = lock(&self.world).gate(op);
        if let Some(gate) = gate {
            gate.pass();
        }
        if let Op::CloseTap { .. } = op {
            held.close();
        }
        let in_hand = |index: &u32| held.tap.as_ref().is_some_and(|(_, held)| held == index);
        let applied = match op {
            Op::CreateTap { index, .. } if in_hand(index) => Ok(Applied::Done),
            _ if module_of(op).is_some_and(|module| lock(&self.world).missing.contains(module)) => {
                Err(refused(OpErrorKind::ModuleMissing, op.name().to_owned()))
            }
            _ => lock(&self.world).apply(op),
        };
        match op {
            Op::CreateTap { index, .. } if applied.is_ok() => held.take_in_hand(&self.world, *index),
            Op::Persist { .. } if applied.is_ok() => held.tap = None,
            _ => {}
        }
        match fault {
            Fault::ApplyAndRefuse(kind) => Err(refused(kind, format!("{} (made to fail)", op.name()))),
            _ => applied,
        }
    }

    fn get_link(&mut self, who: LinkSelector<'_>) -> Result<Option<LinkState>, OpError> {
        let look = || {
            let world = lock(&self.world);
            let link = match who {
                LinkSelector::Index(index) => world.links.get(&index),
                LinkSelector::Altname(name) | LinkSelector::Name(name) => world.named(name),
            };
            Ok(link.cloned())
        };
        failpoints::call(("netlink", "ask"), look, |errno| unread(errno, format!("{who:?}")))
    }

    fn dump_links(&mut self) -> Result<Vec<LinkState>, OpError> {
        let dump = || Ok(lock(&self.world).links.values().cloned().collect());
        failpoints::call(("netlink", "dump"), dump, |errno| unread(errno, "dump links".to_owned()))
    }

    fn links_in_group(&mut self, group: u32) -> Result<Vec<LinkState>, OpError> {
        Ok(self.dump_links()?.into_iter().filter(|link| link.group == group).collect())
    }

    fn inspect(&mut self, path: &Path) -> Result<Found, NetnsError> {
        let shown = || path.display().to_string();
        let enter = || match lock(&self.world).netns.get(path) {
            None => Err(NetnsError::Missing(shown())),
            Some(netns) if netns.own => Err(NetnsError::Own(shown())),
            Some(netns) => Ok(Found { pin: netns.pin(), by_process: path.starts_with("/proc") }),
        };
        failpoints::call(("netns", "enter"), enter, |errno| NetnsError::of(path, errno))
    }

    fn lives(&mut self, pin: NetnsPin) -> Result<bool, NetnsError> {
        Ok(lock(&self.world).netns.values().any(|netns| netns.pin() == pin))
    }

    fn guest_device(&mut self, port: PortId, netns: &Path, pin: NetnsPin) -> Result<LinkName, OpError> {
        let world = lock(&self.world);
        world.netns(netns, pin)?;
        let index = world.at(port, At::Altname)?.index;
        let guest = world.guests.get(&index).map(|guest| guest.name.clone());
        guest.ok_or_else(|| refused(OpErrorKind::Gone, format!("looking for the peer of nicd-{port}")))
    }

    /// Descriptors that stand for a tap's queues; the device stays without carrier.
    fn open_tap(&mut self, port: PortId, tap: TapUse) -> Result<Vec<OwnedFd>, OpError> {
        let mut world = lock(&self.world);
        let mut link = world.at(port, At::Altname)?;
        if !link.is_of(tap.store) {
            return Err(refused(OpErrorKind::Gone, format!("opening {}", link.name)));
        }
        if link.is_held() {
            return Err(refused(OpErrorKind::Taken, format!("opening {}", link.name)));
        }
        if let Some(seen) = &mut link.tap {
            let Owner { uid, gid } = tap.owner.of_tap();
            (seen.uid, seen.gid) = (uid.or(seen.uid), gid.or(seen.gid));
            world.put(link.clone());
        }
        drop(world);
        let null = || std::fs::File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from);
        let opened: std::io::Result<Vec<OwnedFd>> = (0..tap.queues).map(|_| null()).collect();
        opened.map_err(|_| refused(OpErrorKind::Other, format!("opening {}", link.name)))
    }

    fn keep_filters(&mut self, wanted: PortFilters) -> Result<bool, OpError> {
        // Its table is always there.
        drop(wanted);
        Ok(false)
    }

    /// No frame passes here.
    fn counters(&mut self, port: PortId) -> Result<Option<Counters>, OpError> {
        Ok(lock(&self.world).at(port, At::Altname).ok().map(|_| Counters::default()))
    }

    fn count_drops(&mut self) -> Result<(), OpError> {
        Ok(())
    }

    fn missing_requirements(&mut self) -> Vec<MissingRequirement> {
        let missing = lock(&self.world).missing.clone();
        let said = || "it was taken away".to_owned();
        let lack = |module| match module {
            NF_TABLES => MissingRequirement::Filters { said: said() },
            _ => MissingRequirement::Module { module, said: said() },
        };
        missing.into_iter().map(lack).collect()
    }

    /// The loopback is called as it is on Linux; a link is wireless when its name begins with `wl`.
    fn uplink(&mut self, name: &LinkName) -> Result<Option<UplinkSeen>, OpError> {
        let world = lock(&self.world);
        let Some(link) = world.named(name.as_str()).cloned() else { return Ok(None) };
        let addresses = link.hosts.iter().map(|host| format!("the address {}", host.ip));
        let routes = world.routes.iter().filter(|route| route.link == link.index).map(|_| "the route to default".to_owned());
        let carries = addresses.chain(routes).collect();
        Ok(Some(UplinkSeen { is_loopback: link.name == "lo", is_wireless: link.name.starts_with("wl"), carries, link }))
    }

    fn entries(&mut self, network: NetworkId) -> Result<Option<SeenEntries>, OpError> {
        let world = lock(&self.world);
        let Ok(links) = world.tunnel_links(network) else { return Ok(None) };
        let found = links.iter().filter_map(|link| world.entries.get(link)).flatten().cloned();
        Ok(Some(SeenEntries { device: links[0], entries: found.collect(), has_v6: true }))
    }

    fn broad_routes(&mut self) -> Result<Vec<BroadRoute>, OpError> {
        Ok(lock(&self.world).routes.clone())
    }
}

/// Which of a network's VXLAN device and bridge has an entry.
fn holder([device, bridge]: [u32; 2], entry: &Entry) -> u32 {
    if matches!(entry, Entry::Neighbour { .. }) { bridge } else { device }
}

/// Makes a change of a bridge that the kernel has taken.
fn set_bridge(link: &mut LinkState, change: &BridgeChange) {
    match change {
        BridgeChange::Mac(mac) => link.mac = Some(*mac),
        BridgeChange::Mtu(mtu) => link.mtu = *mtu,
        BridgeChange::Alias(alias) => link.alias = Some(alias.clone()).filter(|alias| !alias.is_empty()),
        BridgeChange::HostIpOff => (link.v6_autoconf, link.v4_open) = (false, false),
        BridgeChange::RemoveAddress(address) => link.foreign_addresses.retain(|other| other != address),
        BridgeChange::StpOff => link.extras.stp = false,
        BridgeChange::VlanFilteringOff => link.extras.vlan_filtering = false,
        BridgeChange::MulticastSnoopingOff => link.extras.multicast_snooping = false,
        BridgeChange::Switch(switch) => link.up = *switch == Switch::Up,
    }
}

/// The module that makes the link of an op.
fn module_of(op: &Op) -> Option<&'static str> {
    match op {
        Op::CreateBridge { .. } => Some("bridge"),
        Op::CreateTap { .. } => Some("tun"),
        Op::CreateVeth { .. } => Some("veth"),
        Op::CreateVlan { .. } | Op::CreateVlanNic { .. } => Some("8021q"),
        Op::CreateVxlan { .. } => Some("vxlan"),
        _ => None,
    }
}

/// A look that failed.
fn unread(errno: Errno, doing: String) -> OpError {
    let kind = if no_descriptors(errno) { OpErrorKind::NoDescriptors } else { OpErrorKind::Other };
    OpError { kind, doing, said: errno.desc().to_owned() }
}

fn refused(kind: OpErrorKind, doing: String) -> OpError {
    OpError { kind, doing, said: format!("{kind:?}") }
}
