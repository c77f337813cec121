//! The kernel's room beside the kernel's floor, in the same run: the bare system calls are written here, by other hands
//! (netlink-packet-route), and each turn does one after the other. Only the ratios count. As root:
//!
//! ```text
//! cargo bench --bench kernel
//! ```

#![allow(clippy::unwrap_used)] // a benchmark that cannot go on has nothing to say

#[path = "../tests/common/netns.rs"]
mod netns;

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nicd::kernel::linux::{ExecContext, Linux, LinuxHost};
use nicd::kernel::{Host, Kernel, LinkSelector, Notice, tap};
use nicd::model::{LinkName, Mac, NetnsPin, NetworkId, Owner, PortId, names};
use nicd::plan::{Address, At, BridgeChange, GuestSettings, LinkChange, Op, Switch};
use uuid::Uuid;

use crate::netns::{Guest, in_netns};

const BRIDGE: u32 = 100_000;
const FLOOR_BRIDGE: u32 = 200_000;

/// Attaches measured in one namespace, beyond those that are there before.
const MEASURED: u32 = 50;
/// Namespaces, one after the other.
const ROUNDS: usize = 4;

fn main() {
    for ports in [10, 200, 750] {
        compare("tap", ports, |ports| taps(ports, bare_tap));
        compare("tap over a persistent, closed one", ports, |ports| taps(ports, bare_persistent_tap));
    }
    for ports in [10, 200] {
        compare("veth", ports, veths);
    }
    in_netns(dumps);
    in_netns(notices);
}

/// Times of attaches in turns with the bare calls, each first half of the times.
#[derive(Default)]
struct Turns {
    ours: Vec<Duration>,
    bare: Vec<Duration>,
}

impl Turns {
    fn turn(&mut self, number: u32, ports: u32, ours: impl FnOnce(), bare: impl FnOnce()) {
        let (ours, bare) = if number.is_multiple_of(2) {
            let ours = timed(ours);
            (ours, timed(bare))
        } else {
            let bare = timed(bare);
            (timed(ours), bare)
        };
        if number >= ports {
            self.ours.push(ours);
            self.bare.push(bare);
        }
    }
}

fn compare(what: &str, ports: u32, measure: fn(u32) -> Turns) {
    let mut all = Turns::default();
    for _ in 0..ROUNDS {
        let (sender, receiver) = std::sync::mpsc::channel();
        in_netns(move || sender.send(measure(ports)).unwrap());
        let Turns { ours, bare } = receiver.recv().unwrap();
        all.ours.extend(ours);
        all.bare.extend(bare);
        // The kernel takes the namespace apart on its own time, under the lock that attaches need.
        std::thread::sleep(Duration::from_secs(2));
    }
    report(&format!("{what}, {ports} ports in the bridge"), all.ours, all.bare);
}

/// Whole attaches of a tap over bare calls that make one.
fn taps<T>(ports: u32, bare: fn(&Socket, u32) -> T) -> Turns {
    let mut host = ready();
    let floor = Socket::new(NETLINK_ROUTE).unwrap();
    let (mut turns, mut held) = (Turns::default(), Vec::new());
    for number in 0..ports + MEASURED {
        turns.turn(number, ports, || attach_tap(&mut host, port(number), number), || held.push(bare(&floor, number)));
    }
    turns
}

fn attach_tap(host: &mut LinuxHost, port: PortId, number: u32) {
    let mut held = ExecContext::default();
    let (index, name) = (BRIDGE + 1 + number, names::port_device(port, 0));
    let link = [LinkChange::Altname, LinkChange::Mac(mac_of(port).host_side()), LinkChange::Mtu(1500), LinkChange::HostIpOff];
    let changes = link.into_iter().chain(joined(port)).collect();
    for op in [
        Op::CreateTap { port, index, name, queues: 1, vnet_hdr: true, owner: Owner::default() },
        Op::Configure { port, at: At::Index(index), changes },
        Op::Persist { port },
    ] {
        host.apply(&op, &mut held).unwrap();
    }
}

/// TUNSETIFF and one RTM_NEWLINK; the tap is held open.
fn bare_tap(socket: &Socket, number: u32) -> OwnedFd {
    let name: LinkName = format!("b{number}").parse().unwrap();
    let fd = tap::attach(&name, 1, true).unwrap();
    bare_link(socket, &name, number);
    fd
}

/// The same, but for a tap that outlives its maker: TUNSETPERSIST and close, in which the kernel waits for other CPUs.
fn bare_persistent_tap(socket: &Socket, number: u32) {
    let name: LinkName = format!("b{number}").parse().unwrap();
    let index = FLOOR_BRIDGE + 1 + number;
    let spec = tap::Spec { index, name: &name, queues: 1, vnet_hdr: true, owner: Owner::default() };
    tap::Tap::create(spec).unwrap().persist().unwrap();
    bare_link(socket, &name, number);
}

fn bare_link(socket: &Socket, name: &LinkName, number: u32) {
    let mut link = LinkMessage::default();
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link.attributes = vec![
        LinkAttribute::IfName(name.to_string()),
        LinkAttribute::Address(mac(number).host_side().0.to_vec()),
        LinkAttribute::Mtu(1500),
        LinkAttribute::Controller(FLOOR_BRIDGE),
    ];
    request(socket, vec![(RouteNetlinkMessage::NewLink(link), 0)]);
}

/// Whole attaches of a veth over one RTM_NEWLINK here and one send (address, up) in the guest.
fn veths(ports: u32) -> Turns {
    let mut host = ready();
    let floor = Socket::new(NETLINK_ROUTE).unwrap();
    let (guest, other) = (Guest::new("g"), Guest::new("h"));
    let pin = host.inspect(&guest.path).unwrap().pin;
    let (namespace, inside) = entered(&other);
    let mut turns = Turns::default();
    for number in 0..ports + MEASURED {
        let ours = || attach_veth(&mut host, &guest, pin, number);
        turns.turn(number, ports, ours, || bare_veth(&floor, &inside, &namespace, number));
    }
    turns
}

fn attach_veth(host: &mut LinuxHost, guest: &Guest, pin: NetnsPin, number: u32) {
    let port = port(number);
    let mut held = ExecContext::default();
    let (index, netns) = (BRIDGE + 2 + 2 * number, guest.path.clone());
    let address = Address { ip: format!("10.0.{}.{}", number / 250, 1 + number % 250).parse().unwrap(), prefix: 16 };
    let given = GuestSettings { addresses: vec![address], ..GuestSettings::default() };
    for op in [
        Op::CreateVeth {
            port,
            index,
            name: names::port_device(port, 0),
            netns: netns.clone(),
            pin,
            // Both sides alike: the kernel looks for a free eth%d among all the links of this one guest.
            guest_name: Some(format!("p{number}").parse().unwrap()),
            guest_mac: mac(number),
            guest_mtu: 1500,
            mac: mac(number).host_side(),
            mtu: 1500,
        },
        Op::ConfigureGuest { port, netns, pin, settings: given },
        Op::Configure { port, at: At::Altname, changes: joined(port).into() },
    ] {
        host.apply(&op, &mut held).unwrap();
    }
}

fn bare_veth(socket: &Socket, inside: &Socket, namespace: &OwnedFd, number: u32) {
    let guest_index = FLOOR_BRIDGE + 2 + 2 * number;
    let mut peer = LinkMessage::default();
    peer.header.index = guest_index;
    peer.attributes = vec![
        LinkAttribute::IfName(format!("p{number}")),
        LinkAttribute::Address(mac(number).0.to_vec()),
        LinkAttribute::NetNsFd(namespace.as_raw_fd()),
    ];
    let mut link = LinkMessage::default();
    link.header.index = guest_index + 1;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link.attributes = vec![
        LinkAttribute::IfName(format!("b{number}")),
        LinkAttribute::Address(mac(number).host_side().0.to_vec()),
        LinkAttribute::Mtu(1500),
        LinkAttribute::Controller(FLOOR_BRIDGE),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer)))]),
    ];
    request(socket, vec![(RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL)]);
    let mut address = AddressMessage::default();
    address.header.family = AddressFamily::Inet;
    address.header.prefix_len = 16;
    address.header.index = guest_index;
    let ip = format!("10.1.{}.{}", number / 250, 1 + number % 250).parse().unwrap();
    address.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
    let mut up = LinkMessage::default();
    up.header.index = guest_index;
    up.header.flags = LinkFlags::Up;
    up.header.change_mask = LinkFlags::Up;
    let address = (RouteNetlinkMessage::NewAddress(address), NLM_F_CREATE | NLM_F_EXCL);
    request(inside, vec![address, (RouteNetlinkMessage::SetLink(up), 0)]);
}

/// Dumps of 1000 taps.
fn dumps() {
    let mut host = ready();
    for number in 0..1000 {
        attach_tap(&mut host, port(number), number);
    }
    // A link's first look processes its pending carrier change.
    for number in 0..1000 {
        host.get_link(LinkSelector::Index(BRIDGE + 1 + number)).unwrap();
    }
    let mut times: Vec<Duration> = (0..50).map(|_| timed(|| assert_eq!(host.dump_links().unwrap().len(), 1003))).collect();
    let mut looks: Vec<Duration> =
        (0..1000).map(|number| timed(|| drop(host.get_link(LinkSelector::Index(BRIDGE + 1 + number)).unwrap()))).collect();
    println!("{:<40} p50 {:>9.1?}", "dump of 1003 links", percentile(&mut times, 50));
    println!("{:<40} p50 {:>9.1?}  p99 {:>9.1?}", "look by index", percentile(&mut looks, 50), percentile(&mut looks, 99));
}

/// From the start of a VMM's opening to the notice that the tap has carrier, on the same reader's clock as the kernel's
/// own event.
fn notices() {
    let mut host = ready();
    attach_tap(&mut host, port(0), 0);
    let name: LinkName = names::port_device(port(0), 0);
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1024);
    Linux::default().watch(sender).unwrap();
    let (mut opened, mut told) = (Vec::new(), Vec::new());
    for _ in 0..200 {
        let start = Instant::now();
        let vmm = tap::attach(&name, 1, true).unwrap();
        opened.push(start.elapsed());
        wait(&mut receiver, true);
        told.push(start.elapsed());
        drop(vmm);
        wait(&mut receiver, false);
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("{:<40} p50 {:>9.1?}  p99 {:>9.1?}", "tap opened", percentile(&mut opened, 50), percentile(&mut opened, 99));
    println!("{:<40} p50 {:>9.1?}  p99 {:>9.1?}", "tap opened and told", percentile(&mut told, 50), percentile(&mut told, 99));
}

fn wait(receiver: &mut tokio::sync::mpsc::Receiver<Notice>, carrier: bool) {
    loop {
        match receiver.blocking_recv().unwrap() {
            Notice::Seen { link, .. } if link.index == BRIDGE + 1 && link.lower_up == carrier => return,
            _ => {}
        }
    }
}

/// Two bridges of the same kind, one for each.
fn ready() -> LinuxHost {
    let mut host = Linux::default().open().unwrap();
    for (number, index) in [(1, BRIDGE), (2, FLOOR_BRIDGE)] {
        let network = NetworkId(Uuid::from_u128((number << 84) + 1));
        let name = names::network_bridge(network, 0);
        let mac = Mac([0xfa, 0x16, 0x3e, 0xff, 0, u8::try_from(number).unwrap()]);
        for op in [
            Op::CreateBridge { network, index, name, mac, mtu: 1500, alias: String::new() },
            Op::CloseBridge { network },
            Op::SetBridge { network, changes: [BridgeChange::Switch(Switch::Up)].into() },
        ] {
            host.apply(&op, &mut ExecContext::default()).unwrap();
        }
    }
    host
}

/// What makes a device a complete port of the bridge.
fn joined(port: PortId) -> [LinkChange; 5] {
    [
        LinkChange::Master(BRIDGE),
        LinkChange::FdbEntry(mac_of(port)),
        LinkChange::Learning(false),
        LinkChange::UnicastFlood(false),
        LinkChange::Tag { alias: "0f0f0f0f 4711".into(), switch: Switch::Up },
    ]
}

fn mac_of(port: PortId) -> Mac {
    Mac([0xfa, 0x16, 0x3e, port.0.as_bytes()[3], port.0.as_bytes()[4], port.0.as_bytes()[5]])
}

fn port(number: u32) -> PortId {
    PortId(Uuid::from_u128(u128::from(number) << 84))
}

fn mac(number: u32) -> Mac {
    let [_, a, b, c] = number.to_be_bytes();
    Mac([0xfa, 0x16, 0x3f, a, b, c])
}

/// A socket inside, and the namespace.
fn entered(guest: &Guest) -> (OwnedFd, Socket) {
    let path = guest.path.clone();
    let enter = move || {
        let namespace: OwnedFd = std::fs::File::open(path).unwrap().into();
        nix::sched::setns(&namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        (namespace, Socket::new(NETLINK_ROUTE).unwrap())
    };
    std::thread::spawn(enter).join().unwrap()
}

/// One send, acknowledged at its end.
fn request(socket: &Socket, messages: Vec<(RouteNetlinkMessage, u16)>) {
    let mut bytes = Vec::new();
    let last = messages.len() - 1;
    for (number, (message, flags)) in messages.into_iter().enumerate() {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags | if number == last { NLM_F_ACK } else { 0 };
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let start = bytes.len();
        bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut bytes[start..]);
    }
    socket.send_to(&bytes, &SocketAddr::new(0, 0), 0).unwrap();
    let mut room = [0; 4096];
    let mut answer: &mut [u8] = &mut room;
    socket.recv(&mut answer, 0).unwrap();
    assert_eq!(room[16..20], [0; 4], "refused");
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() - 1) * percent / 100]
}

fn report(what: &str, mut ours: Vec<Duration>, mut bare: Vec<Duration>) {
    let (p50, floor) = (percentile(&mut ours, 50), percentile(&mut bare, 50));
    let ratio = p50.as_secs_f64() / floor.as_secs_f64();
    let p99 = percentile(&mut ours, 99);
    println!("{what:<40} p50 {p50:>9.1?}  p99 {p99:>9.1?}  floor p50 {floor:>9.1?}  ratio {ratio:.2}");
}
