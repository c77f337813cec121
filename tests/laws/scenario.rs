//! Random small hosts: devices that nicd built and another program changed, beside foreign links.

use std::path::Path;

use nicd::kernel::exec::Execution;
use nicd::kernel::fake::{Fake, FakeHost};
use nicd::kernel::{Host, Kernel};
use nicd::model::names::FIRST_INDEX;
use nicd::model::{Mac, NetnsPin, NetworkId, Owner, PortId, names};
use nicd::plan::filter::{Filter, Guard, Limit, Served};
use nicd::plan::{
    AbsentPort, Address, BridgeExtras, BridgeMade, BridgePort, Desired, DesiredBridge, DesiredNic, DesiredPort, GuestSettings,
    Kind, LinkState, Observed, Plan, Reason, TokenBucket, plan,
};
use proptest::collection::vec;
use proptest::prelude::*;
use uuid::Uuid;

/// How many ports there are at most.
const PORTS: usize = 4;

/// The mount point of the guest's namespace.
const NETNS: &str = "/run/netns/blue";

/// The operator's bridge, which the second network uses.
const BR0: &str = "br0";

/// The store id of the nicd under test.
pub const STORE: Uuid = Uuid::from_u128(0x0f0f_0f0f_0000_4000_8000_0000_0000_0001);

/// A host, and its desired state.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// The devices that nicd built before.
    built: Vec<NicSpec>,
    /// Later changes by another program.
    drifts: Vec<Drift>,
    /// Foreign links.
    strangers: Vec<Stranger>,
    /// The desired devices.
    wanted: Vec<NicSpec>,
    /// What is to go.
    absent: Vec<usize>,
    /// Whether the agent's bridge is to go when nothing is wanted on it.
    bridge_goes: bool,
}

/// A port of the small domain.
#[derive(Debug, Clone, Copy, PartialEq)]
struct NicSpec {
    port: usize,
    veth: bool,
    agents_bridge: bool,
    admin_up: bool,
    unknown_unicast: bool,
    to_guest: Option<TokenBucket>,
    /// Whether somebody keeps changing its MAC.
    cut_off: bool,
    queues: u16,
    /// Which attach it is from; another one tags it again.
    commit: u8,
}

/// What somebody did to what nicd built.
#[derive(Debug, Clone, Copy)]
enum Drift {
    OutOfBridge(usize),
    IntoBr0(usize),
    Mtu(usize),
    Mac(usize),
    Learning(usize),
    Flags(usize),
    Flood(usize),
    Unlimited(usize),
    LimitedOtherwise(usize),
    NoEntry(usize),
    LooseEntry(usize),
    Held(usize),
    Addressed(usize),
    Unmarked(usize),
    V6(usize),
    Down(usize),
    Untagged(usize),
    Renamed(usize),
    Opened(usize),
    Deleted(usize),
    BridgeMac,
    BridgeMtu,
    BridgeDown,
    BridgeV6,
    BridgeExtras,
    BridgeUnmarked,
    BridgeUntagged,
    BridgeOpen,
    LinkLocal(usize),
    Suppressing(usize),
}

/// A link that is not nicd's, however much its names look like it.
#[derive(Debug, Clone, Copy)]
enum Stranger {
    /// Has the name that a port's device would get.
    DeviceName { port: usize, choice: usize },
    /// Has the name that the agent's bridge would get.
    BridgeName { choice: usize },
    /// Has an altname that is almost a port's mark.
    AlmostMarked { port: usize, how: usize },
    /// Has a port's mark, and not nicd's tag.
    Marked { port: usize, bridge: bool, how: usize },
    /// Has the mark of the agent's network, and not nicd's tag.
    BridgeMarked { bridge: bool, how: usize },
    /// Has the mark of a port nobody asks for.
    Orphan,
    /// Is another port of the operator's bridge.
    InBr0,
}

/// Any small scenario.
pub fn scenarios() -> impl Strategy<Value = Scenario> {
    let nics = || vec(nic(), 0..=PORTS).prop_map(distinct);
    let absent = vec(0..PORTS, 0..3);
    (nics(), vec(drift(), 0..5), vec(stranger(), 0..4), nics(), absent, any::<bool>()).prop_map(
        |(built, drifts, strangers, wanted, absent, bridge_goes)| {
            let mut absent: Vec<usize> = absent.into_iter().filter(|port| wanted.iter().all(|nic| nic.port != *port)).collect();
            absent.sort_unstable();
            absent.dedup();
            Scenario { built, drifts, strangers, wanted, absent, bridge_goes }
        },
    )
}

fn nic() -> impl Strategy<Value = NicSpec> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), proptest::bool::weighted(0.1));
    // The lesser burst has no room for a frame.
    let bucket = prop_oneof![Just(1_000), Just(100_000)].prop_map(|burst| TokenBucket { rate: 8_000, burst });
    let parts = (0..PORTS, flags, proptest::option::of(bucket), 1..3u16, 1..3u8);
    parts.prop_map(|(port, (veth, agents_bridge, admin_up, unknown_unicast, cut_off), to_guest, queues, commit)| NicSpec {
        port,
        veth,
        agents_bridge,
        admin_up,
        unknown_unicast,
        to_guest,
        cut_off,
        queues,
        commit,
    })
}

fn drift() -> impl Strategy<Value = Drift> {
    let ports = prop_oneof![
        Just(Drift::OutOfBridge as fn(usize) -> Drift),
        Just(Drift::IntoBr0 as fn(usize) -> Drift),
        Just(Drift::Mtu as fn(usize) -> Drift),
        Just(Drift::Mac as fn(usize) -> Drift),
        Just(Drift::Learning as fn(usize) -> Drift),
        Just(Drift::Flags as fn(usize) -> Drift),
        Just(Drift::Flood as fn(usize) -> Drift),
        Just(Drift::Unlimited as fn(usize) -> Drift),
        Just(Drift::LimitedOtherwise as fn(usize) -> Drift),
        Just(Drift::NoEntry as fn(usize) -> Drift),
        Just(Drift::LooseEntry as fn(usize) -> Drift),
        Just(Drift::Held as fn(usize) -> Drift),
        Just(Drift::Addressed as fn(usize) -> Drift),
        Just(Drift::Unmarked as fn(usize) -> Drift),
        Just(Drift::V6 as fn(usize) -> Drift),
        Just(Drift::Down as fn(usize) -> Drift),
        Just(Drift::Untagged as fn(usize) -> Drift),
        Just(Drift::Renamed as fn(usize) -> Drift),
        Just(Drift::Opened as fn(usize) -> Drift),
        Just(Drift::Deleted as fn(usize) -> Drift),
        Just(Drift::LinkLocal as fn(usize) -> Drift),
        Just(Drift::Suppressing as fn(usize) -> Drift),
    ];
    let bridges = prop_oneof![
        Just(Drift::BridgeMac),
        Just(Drift::BridgeMtu),
        Just(Drift::BridgeDown),
        Just(Drift::BridgeV6),
        Just(Drift::BridgeExtras),
        Just(Drift::BridgeUnmarked),
        Just(Drift::BridgeUntagged),
        Just(Drift::BridgeOpen),
    ];
    prop_oneof![3 => (ports, 0..PORTS).prop_map(|(drift, port)| drift(port)), 1 => bridges]
}

fn stranger() -> impl Strategy<Value = Stranger> {
    prop_oneof![
        (0..PORTS, 0..3usize).prop_map(|(port, choice)| Stranger::DeviceName { port, choice }),
        (0..3usize).prop_map(|choice| Stranger::BridgeName { choice }),
        (0..PORTS, 0..4usize).prop_map(|(port, how)| Stranger::AlmostMarked { port, how }),
        (0..PORTS, any::<bool>(), 0..3usize).prop_map(|(port, bridge, how)| Stranger::Marked { port, bridge, how }),
        (any::<bool>(), 0..3usize).prop_map(|(bridge, how)| Stranger::BridgeMarked { bridge, how }),
        Just(Stranger::Orphan),
        Just(Stranger::InBr0),
    ]
}

fn distinct(mut nics: Vec<NicSpec>) -> Vec<NicSpec> {
    let mut seen = Vec::new();
    nics.retain(|nic| {
        !seen.contains(&nic.port) && {
            seen.push(nic.port);
            true
        }
    });
    nics
}

impl Scenario {
    /// The host as it is before the plan under test; the same one each time.
    pub fn host(&self) -> Fake {
        let fake = Fake::new();
        fake.add_netns(Path::new(NETNS));
        fake.add_link("lo", Kind::Other, 65536);
        let br0 = fake.add_link(BR0, Kind::Bridge, 1500);
        self.strangers.iter().enumerate().for_each(|(n, stranger)| stranger.appear(&fake, br0, n));
        let want = want(&self.built, FIRST_INDEX + 1000);
        // A past that no plan leads to, for want of a name, is an empty one.
        if let Ok(plan) = plan_on(&fake, &want) {
            run(&fake, plan).expect("the past had no faults");
        }
        // A device that no record wants any more and that lost its mark is nobody's, with all it takes up.
        let same = |port: usize| self.built.iter().find(|nic| nic.port == port).is_some_and(|nic| self.wanted.contains(nic));
        let drifts = self.drifts.iter().filter(|drift| !matches!(drift, Drift::Unmarked(port) if !same(*port)));
        drifts.for_each(|drift| drift.happen(&fake, br0));
        fake
    }

    fn absent_port(&self, port: usize) -> AbsentPort {
        let built = self.built.iter().find(|nic| nic.port == port);
        AbsentPort {
            monitor: None,
            id: port_id(port),
            mac: Some(guest_mac(port)),
            seen: None,
            force: port.is_multiple_of(2),
            alias: built.map(|nic| nic.want(0).alias).unwrap_or_default(),
        }
    }

    /// What is wanted of it.
    pub fn want(&self) -> Desired {
        let mut want = want(&self.wanted, FIRST_INDEX + 5000);
        want.absent_ports = self.absent.iter().map(|port| self.absent_port(*port)).collect();
        if self.bridge_goes && want.ports.iter().all(|port| port.network != network_id(true)) {
            want.bridges.retain(|bridge| bridge.network != network_id(true));
            want.absent_bridges.push(network_id(true));
        }
        want
    }
}

impl Stranger {
    fn appear(self, fake: &Fake, br0: u32, n: usize) {
        let free = |name: &str| !fake.links().iter().any(|link| link.name == name || link.altnames.iter().any(|alt| alt == name));
        let named = |name: &str| free(name).then(|| fake.add_link(name, Kind::Tap, 1400));
        let plain = format!("eth{n}");
        match self {
            Self::DeviceName { port, choice } => _ = named(names::port_device(port_id(port), choice).as_str()),
            Self::BridgeName { choice } => _ = named(names::network_bridge(network_id(true), choice).as_str()),
            Self::AlmostMarked { port, how } => {
                let altname = almost(&names::port_altname(port_id(port)), how);
                if free(&altname) {
                    fake.add_link(&plain, Kind::Tap, 1400);
                    fake.meddle(&plain, |link| link.altnames.push(altname));
                }
            }
            Self::Marked { port, bridge, how } => {
                marked(
                    fake,
                    &plain,
                    &names::port_altname(port_id(port)),
                    names::port_device(port_id(port), 0).as_str(),
                    bridge,
                    how,
                );
            }
            Self::BridgeMarked { bridge, how } => {
                let name = names::network_bridge(network_id(true), 0);
                marked(fake, &plain, &names::network_altname(network_id(true)), name.as_str(), bridge, how);
            }
            Self::Orphan => {
                let mark = names::port_altname(PortId(Uuid::from_u128(0xdead)));
                if free(&mark) {
                    fake.add_link(&plain, Kind::Tap, 1400);
                    fake.meddle(&plain, |link| link.altnames.push(mark));
                }
            }
            Self::InBr0 => {
                fake.add_link(&plain, Kind::Other, 1500);
                fake.meddle(&plain, |link| link.master = Some(br0));
            }
        }
    }
}

/// A link that somebody else made and that has a mark: with another alias, with another store's, or with the very name that
/// nicd would give it.
fn marked(fake: &Fake, plain: &str, mark: &str, derived: &str, bridge: bool, how: usize) {
    let free = |name: &str| !fake.links().iter().any(|link| link.name == name || link.altnames.iter().any(|alt| alt == name));
    let name = if how == 2 { derived } else { plain };
    if !free(mark) || !free(name) {
        return;
    }
    fake.add_link(name, if bridge { Kind::Bridge } else { Kind::Tap }, 1400);
    fake.meddle(name, |link| {
        link.altnames.push(mark.to_owned());
        link.alias = match how {
            0 => Some("uplink".to_owned()),
            1 => Some(names::device_tag(Uuid::from_u128(7), 10)),
            _ => None,
        };
    });
}

/// A text that a careless comparison takes for the mark.
fn almost(mark: &str, how: usize) -> String {
    match how {
        0 => mark[..mark.len() - 1].to_owned(),
        1 => mark.to_uppercase(),
        2 => format!("nicd-{}", mark["nicd-".len()..].replace('-', "")),
        _ => mark["nicd-".len()..].to_owned(),
    }
}

impl Drift {
    fn happen(self, fake: &Fake, br0: u32) {
        let bridge = |change: fn(&mut LinkState)| fake.meddle(&names::network_altname(network_id(true)), change);
        let device = |port: usize, change: &dyn Fn(&mut LinkState)| fake.meddle(&names::port_altname(port_id(port)), change);
        match self {
            Self::OutOfBridge(port) => device(port, &|link| link.master = None),
            Self::IntoBr0(port) => device(port, &|link| link.master = Some(br0)),
            Self::Mtu(port) => device(port, &|link| link.mtu = 1300),
            Self::Mac(port) => device(port, &|link| link.mac = Some(Mac([0xfe, 9, 9, 9, 9, 9]))),
            Self::Learning(port) => device(port, &|link| {
                link.bridge_port = link.bridge_port.map(|seen| BridgePort { learning: true, ..seen });
            }),
            Self::Flags(port) => device(port, &|link| {
                link.bridge_port = link.bridge_port.map(|seen| BridgePort { altered: true, ..seen });
            }),
            Self::Flood(port) => device(port, &|link| {
                link.bridge_port = link.bridge_port.map(|seen| BridgePort { unicast_flood: !seen.unicast_flood, ..seen });
            }),
            Self::Unlimited(port) => device(port, &|link| link.to_guest = None),
            Self::LimitedOtherwise(port) => device(port, &|link| link.to_guest = Some(TokenBucket { rate: 9_000, burst: 9_000 })),
            Self::NoEntry(port) => device(port, &|link| link.fdb.iter_mut().for_each(Vec::clear)),
            Self::LooseEntry(port) => device(port, &|link| {
                link.fdb.iter_mut().flatten().for_each(|entry| entry.sticky = false);
            }),
            Self::Held(port) => device(port, &|link| {
                link.bridge_port = link.bridge_port.map(|seen| BridgePort { held: true, ..seen });
            }),
            Self::Addressed(port) => {
                device(port, &|link| link.foreign_addresses = vec![Address { ip: [192, 0, 2, 1].into(), prefix: 24 }])
            }
            Self::Unmarked(port) => device(port, &|link| link.altnames.clear()),
            Self::V6(port) => device(port, &|link| (link.v6_autoconf, link.v4_open) = (true, true)),
            Self::Down(port) => device(port, &|link| link.up = false),
            Self::Untagged(port) => device(port, &|link| link.alias = None),
            Self::Renamed(port) => device(port, &|link| link.name = format!("was{port}")),
            Self::Opened(port) => fake.set_carrier(port_id(port), true),
            Self::Deleted(port) => fake.delete_link(&names::port_altname(port_id(port))),
            Self::BridgeOpen => bridge(|link| link.host_closed = false),
            Self::LinkLocal(port) => device(port, &|link| {
                link.bridge_port = link.bridge_port.map(|seen| BridgePort { passes_link_local: false, ..seen });
            }),
            Self::Suppressing(port) => device(port, &|link| {
                link.bridge_port = link.bridge_port.map(|seen| BridgePort { suppresses: true, ..seen });
            }),
            Self::BridgeMac => bridge(|link| link.mac = Some(Mac([2, 0, 0, 0, 0, 1]))),
            Self::BridgeMtu => bridge(|link| link.mtu = 1300),
            Self::BridgeDown => bridge(|link| link.up = false),
            Self::BridgeV6 => bridge(|link| link.v6_autoconf = true),
            Self::BridgeUnmarked => bridge(|link| link.altnames.clear()),
            Self::BridgeUntagged => bridge(|link| link.alias = None),
            Self::BridgeExtras => {
                bridge(|link| link.extras = BridgeExtras { stp: true, multicast_snooping: true, vlan_filtering: true })
            }
        }
    }
}

/// The n-th port's id, whose digits differ in each of the windows names are made of.
pub fn port_id(n: usize) -> PortId {
    PortId(Uuid::from_u128(0x1111_1111_1222_4222_8233_3333_3333_3300 + n as u128 * 0x1000_0000_0010_0000_0000_1000_0000_0001))
}

/// The MAC of a port's guest.
fn guest_mac(port: usize) -> Mac {
    Mac([0xfa, 0x16, 0x3e, 0, 0, u8::try_from(port).expect("small")])
}

/// The agent's network, or that on the operator's bridge.
pub fn network_id(agents: bool) -> NetworkId {
    NetworkId(Uuid::from_u128(0xaaaa_aaaa_aaaa_4bbb_8bbb_bbbb_cccc_cc00 + u128::from(!agents)))
}

fn want(nics: &[NicSpec], index: u32) -> Desired {
    let made = BridgeMade::ByAgent {
        index,
        mac: Mac([0xfe, 0x62, 0, 0, 0, 1]),
        mtu: 1450,
        alias: names::bridge_tag(STORE, network_id(true)),
        close: true,
    };
    let bridges = vec![
        DesiredBridge { network: network_id(true), made, segment: None },
        DesiredBridge {
            network: network_id(false),
            made: BridgeMade::Existing { name: BR0.parse().expect("a name") },
            segment: None,
        },
    ];
    let ports = nics.iter().map(|nic| nic.want(index + 2 + 2 * u32::try_from(nic.port).expect("small"))).collect();
    Desired { bridges, ports, ..Desired::default() }
}

impl NicSpec {
    /// Every second port has port security off; an admin down one is limited as well.
    fn filter(self) -> Filter {
        let guard = self.port.is_multiple_of(2).then(|| {
            let mut guard = Guard::default();
            guard.allow_mac(guest_mac(self.port));
            guard
        });
        let limit = (!self.admin_up).then_some(Limit { rate: 125_000, burst: 16_000 });
        let served = Served {
            dhcp4: self.admin_up,
            dhcp6: self.unknown_unicast,
            solicitations: self.admin_up,
            ..Served::nothing(guest_mac(self.port))
        };
        let served = self.admin_up.then_some(served);
        let tunnelled = self.unknown_unicast.then(|| guest_mac(self.port));
        Filter {
            guard,
            limit,
            isolated: self.unknown_unicast,
            trunk: self.port.is_multiple_of(3),
            tunnelled,
            served,
            groups: None,
        }
    }

    fn want(self, index: u32) -> DesiredPort {
        let n = u8::try_from(self.port).expect("small");
        let nic = if self.veth {
            let guest = GuestSettings {
                name: (n % 2 == 0).then(|| format!("lan{n}").parse().expect("a name")),
                addresses: vec![Address { ip: [192, 0, 2, 10 + n].into(), prefix: 24 }],
                routes: Vec::new(),
                ..GuestSettings::default()
            };
            let pin = NetnsPin { boot_id: Uuid::from_u128(1), cookie: 1 };
            DesiredNic::Veth { netns: NETNS.into(), pin, guest }
        } else {
            DesiredNic::Tap { queues: self.queues, vnet_hdr: true, owner: Owner { uid: Some(1000), gid: None } }
        };
        DesiredPort {
            monitor: None,
            id: port_id(self.port),
            network: network_id(self.agents_bridge),
            index,
            mac: guest_mac(self.port),
            mtu: 1450,
            admin_up: self.admin_up,
            unknown_unicast: self.unknown_unicast,
            to_guest: self.to_guest,
            from_guest: self.to_guest,
            silent: false,
            cut_off: self.cut_off,
            speaks: nicd::plan::Speaks::default(),
            filter: Some(self.filter()),
            // No two attaches share a commit.
            alias: names::device_tag(STORE, u64::from(self.commit) * 10 + u64::from(n)),
            seen: None,
            nic,
        }
    }
}

/// What a complete dump of the host shows.
pub fn observed(fake: &Fake) -> Observed {
    Observed::from(fake.links()).seen_by(STORE)
}

/// The plan for `want` on what a complete dump shows.
pub fn plan_on(fake: &Fake, want: &Desired) -> Result<Plan, nicd::plan::PlanError> {
    plan(Reason::Restart, want, &observed(fake))
}

/// An access to the host.
pub fn open(fake: &Fake) -> FakeHost {
    fake.open().expect("the host in memory always opens")
}

/// Carries a plan out wholly.
pub fn run(fake: &Fake, plan: Plan) -> Result<(), nicd::kernel::OpError> {
    let mut host = open(fake);
    let mut execution: Execution<FakeHost> = Execution::new(plan);
    execution.run_volatile(&mut host)?;
    execution.run(&mut host)
}

/// An empty hand, as an execution begins with.
pub fn empty_context() -> <FakeHost as Host>::ExecContext {
    Default::default()
}
