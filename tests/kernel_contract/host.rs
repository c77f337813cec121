//! A host to try ops on, and what they are made of.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nicd::kernel::{Applied, Host, Kernel, LinkSelector, OpError, OpErrorKind};
use nicd::model::{Mac, NetnsPin, PortId, names};
use nicd::plan::{At, Kind, LinkChange, LinkState, Op, Switch};

pub use crate::ops::*;

/// An index that no link has.
pub const ABSENT: u32 = 4711;
/// What others than nicd do to a host, and what they see of it that the trait does not show.
pub trait TestHost {
    /// The host.
    type Kernel: Kernel;

    fn kernel(&self) -> Self::Kernel;
    /// Makes a link that is up: a bridge, one end of a pair, or something else. Gives back its index.
    fn add(&self, name: &str, kind: Kind, mtu: u32) -> u32;
    /// Makes that many ports of a bridge.
    fn fill(&self, bridge: &str, ports: usize);
    fn delete(&self, name: &str);
    fn change(&self, name: &str, change: Change<'_>);
    /// Mounts a fresh namespace.
    fn add_netns(&self, name: &str) -> PathBuf;
    /// Ends a namespace.
    fn end_netns(&self, path: &Path);
    /// The NIC with this name in a namespace.
    fn nic(&self, port: PortId, path: &Path, name: &str) -> Nic;
    fn change_nic(&self, port: PortId, path: &Path, name: &str, change: NicChange<'_>);
    /// A VMM opens a port's tap.
    fn open_tap(&mut self, port: PortId);
    /// It closes it.
    fn close_tap(&mut self, port: PortId);
}

/// What somebody changes of a link.
#[derive(Debug, Clone, Copy)]
pub enum Change<'a> {
    Name(&'a str),
    Altname(&'a str),
    NoAltname(&'a str),
    Alias(&'a str),
    Down,
    Mtu(u32),
    Mac(Mac),
    /// Into a bridge.
    In(&'a str),
    OutOfBridge,
    Learning,
    /// What is at the root of its queues goes.
    NoQdisc,
    AddressGeneration,
    /// STP and multicast snooping.
    Extras,
    /// The entry for this MAC leaves the FDB.
    NoEntry(Mac),
}

/// What a guest does to its NIC.
#[derive(Debug, Clone, Copy)]
pub enum NicChange<'a> {
    Name(&'a str),
    Address(&'a str),
}

/// A guest's NIC as the guest sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    pub up: bool,
    /// Each with its prefix length.
    pub addresses: BTreeSet<String>,
    /// Where its static routes lead.
    pub routes: BTreeSet<String>,
}

pub type ExecContext<W> = <<<W as TestHost>::Kernel as Kernel>::Host as Host>::ExecContext;

/// A host, one access to it, and what an execution holds.
pub struct Fixture<W: TestHost> {
    pub host_under_test: W,
    pub kernel: W::Kernel,
    pub host: <W::Kernel as Kernel>::Host,
    pub held: ExecContext<W>,
}

impl<W: TestHost> Fixture<W> {
    pub fn of(host_under_test: W) -> Self {
        let kernel = host_under_test.kernel();
        // FDBs are asked for the guests that are known.
        (0..32).map(port).for_each(|port| kernel.guests().insert(port, mac(port)));
        let host = kernel.open().unwrap();
        Self { host_under_test, kernel, host, held: ExecContext::<W>::default() }
    }

    pub fn try_apply(&mut self, op: &Op) -> Result<Applied, OpError> {
        self.host.apply(op, &mut self.held)
    }

    pub fn apply(&mut self, op: &Op) -> Applied {
        self.try_apply(op).unwrap_or_else(|error| panic!("{op:?}: {error}"))
    }

    /// Applies an op that is to do nothing the second time.
    pub fn twice(&mut self, op: &Op) -> Applied {
        let first = self.apply(op);
        let before = self.links();
        assert_eq!(self.apply(op), first, "{op:?} a second time");
        assert_eq!(self.links(), before, "{op:?} changed something the second time");
        first
    }

    /// The op is refused, whatever it did until then.
    pub fn fails(&mut self, op: &Op, trouble: OpErrorKind) -> OpError {
        let error = self.try_apply(op).expect_err("should be refused");
        assert_eq!(error.kind, trouble, "{op:?}: {error}");
        error
    }

    /// The op is refused, which changes nothing.
    pub fn refused(&mut self, op: &Op, trouble: OpErrorKind) -> OpError {
        let before = self.links();
        let error = self.fails(op, trouble);
        assert_eq!(self.links(), before, "{op:?} was refused and left a trace");
        error
    }

    /// The execution ends.
    pub fn let_go(&mut self) {
        self.held = ExecContext::<W>::default();
    }

    /// All links but the loopback, by index. Each is looked at, as a dump does not process pending changes of carrier; twice, as
    /// a bridge's follows its ports'.
    pub fn links(&mut self) -> Vec<LinkState> {
        let all: BTreeSet<u32> = self.host.dump_links().unwrap().iter().map(|link| link.index).collect();
        all.iter().for_each(|index| _ = self.host.get_link(LinkSelector::Index(*index)).unwrap());
        let links = all.into_iter().filter_map(|index| self.host.get_link(LinkSelector::Index(index)).unwrap());
        links.filter(|link| link.name != "lo").collect()
    }

    /// Waits until something shows. A tap that was closed is free only once no program that another test just starts has it.
    pub fn until(&mut self, what: &str, shows: impl Fn(&mut Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while !shows(self) {
            assert!(Instant::now() < deadline, "{what}: {:#?}", self.links());
            std::thread::yield_now();
        }
    }

    /// The names of all links but the loopback's.
    pub fn names(&mut self) -> BTreeSet<String> {
        self.links().into_iter().map(|link| link.name).collect()
    }

    /// A port's device.
    pub fn device(&mut self, port: PortId) -> LinkState {
        self.try_device(port).expect("the port's device")
    }

    pub fn try_device(&mut self, port: PortId) -> Option<LinkState> {
        self.host.get_link(LinkSelector::Altname(&names::port_altname(port))).unwrap()
    }

    pub fn named(&mut self, name: &str) -> LinkState {
        self.host.get_link(LinkSelector::Name(name)).unwrap().expect(name)
    }

    /// An agent-made bridge, as a plan makes one.
    pub fn bridge(&mut self, mtu: u32) {
        for op in [create_bridge(mtu), Op::CloseBridge { network: network() }, up()] {
            self.apply(&op);
        }
    }

    /// The whole of a tap's attach; 0 for no bridge.
    pub fn attach_tap(&mut self, port: PortId, index: u32, master: u32) -> String {
        self.apply(&create_tap(port, index));
        let changes = changes(port, master).into_iter().chain([tag(Switch::Up)]).collect();
        self.apply(&Op::Configure { port, at: At::Index(index), changes });
        self.apply(&Op::Persist { port });
        names::port_device(port, 0).as_str().to_owned()
    }

    /// A fresh namespace, and which it is.
    pub fn netns(&mut self, name: &str) -> (PathBuf, NetnsPin) {
        let path = self.host_under_test.add_netns(name);
        let pin = self.host.inspect(&path).unwrap().pin;
        (path, pin)
    }
}

/// The name of the bridge under test.
pub fn bridge_name() -> String {
    names::network_bridge(network(), 0).as_str().to_owned()
}

/// The alias of a device that is complete.
pub fn alias() -> String {
    names::device_tag(STORE, 7)
}

pub fn tag(switch: Switch) -> LinkChange {
    LinkChange::Tag { alias: alias(), switch }
}

/// A change of a device that is there.
pub fn configure(port: PortId, changes: impl IntoIterator<Item = LinkChange>) -> Op {
    Op::Configure { port, at: At::Altname, changes: changes.into_iter().collect() }
}
