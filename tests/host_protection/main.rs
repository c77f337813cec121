//! A guest cannot affect the host through a bridge that nicd made. A guest sends every kind of frame that the host's network stack
//! answers or processes (`guest.py`); the test watches the host's state, answers and sockets by `ip`, `nft`, raw sockets and UDP.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

#[path = "../common/daemon.rs"]
mod daemon;
#[path = "../common/fixture.rs"]
mod fixture;
#[path = "../common/kernel_view.rs"]
mod kernel_view;
#[path = "../common/netns.rs"]
mod netns;

use std::io::Write;
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use daemon::{Daemon, PATIENCE};
use fixture::{Fixture, interfaces, text};
use kernel_view::{Capture, link, links, sysctls, try_link};
use netns::{Guest, comes_true, in_netns, json, run};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// How soon a bridge that somebody opened is closed again.
const SOON: Duration = Duration::from_secs(1);
const HOST_V4: &str = "198.51.100.77";
const HOST_V6: &str = "2001:db8:77::77";
/// The guest's source, as in `guest.py`.
const SOURCE: [u8; 6] = [2, 0, 0, 0, 0, 0xaa];

/// A host with a management network, the settings of a router, and more trust than is good for it.
struct Host {
    sockets: Vec<UdpSocket>,
    before: Vec<Value>,
    capture: Capture,
}

impl Host {
    fn prepare() {
        run("ip link add mgmt type veth peer name wire");
        run(&format!("ip addr add {HOST_V4}/24 dev mgmt"));
        run(&format!("ip -6 addr add {HOST_V6}/64 dev mgmt nodad"));
        run("ip link set mgmt addrgenmode none up");
        run("ip link set wire addrgenmode none up");
        for (key, value) in [
            ("ipv4/ip_forward", "1"),
            ("ipv4/conf/all/arp_accept", "1"),
            ("ipv4/conf/default/rp_filter", "0"),
            ("ipv6/conf/default/accept_ra", "2"),
            ("ipv6/conf/default/addr_gen_mode", "0"),
            ("ipv6/conf/default/forwarding", "1"),
        ] {
            std::fs::write(format!("/proc/sys/net/{key}"), value).unwrap();
        }
    }

    /// From now on.
    fn watch() -> Self {
        let bind = |address: &str| {
            let socket = UdpSocket::bind(address).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        };
        let sockets = ["[::]:9999", "0.0.0.0:67", "0.0.0.0:68", "[::]:547"].map(bind).into();
        Self { sockets, before: state(), capture: Capture::start() }
    }

    /// Nothing of a guest's has come so far.
    fn is_untouched(&mut self, guests: &[&str]) {
        for socket in &self.sockets {
            let got = socket.recv_from(&mut [0; 2048]);
            assert!(got.is_err(), "{socket:?} got {got:?}");
        }
        let state = state();
        for (now, before) in state.iter().zip(&self.before) {
            assert_eq!(now, before);
        }
        // What leaves for the guest by nicd's links is what others of it sent; the rest sees no frame of a guest.
        let index = |name: &str| usize::try_from(link(name)["ifindex"].as_u64().unwrap()).unwrap();
        let elsewhere = ["mgmt", "wire"].map(index);
        let own: Vec<Vec<u8>> = guests.iter().map(|mac| octets(mac)).chain([SOURCE.to_vec()]).collect();
        while let Some((seen_on, frame)) = self.capture.next(Duration::ZERO) {
            let from = frame.get(6..12).unwrap_or_default().to_vec();
            // The host's own address there is reported up to a second after it was given; nobody forwards such a report.
            let its_own = is_membership_report(&frame) && !own.contains(&from);
            assert!(its_own || !elsewhere.contains(&seen_on), "a frame on the management network: {frame:x?}");
            let lo = index("lo");
            let is_expected = [is_membership_report, is_probe, is_told].iter().any(|is_one: &fn(&[u8]) -> bool| is_one(&frame));
            let expected = seen_on == lo || own.contains(&from) || is_expected;
            assert!(expected, "the host sends on link {seen_on}: {frame:x?}");
        }
    }
}

/// Whether a frame is an MLDv2 report (RFC 3810 section 5.2). A host that forwards IPv6 joins ff02::2 on every link that is up and
/// reports it there: `net.ipv6.conf.default.forwarding` is the cause, not a guest.
fn is_membership_report(frame: &[u8]) -> bool {
    const HOP_BY_HOP: u8 = 0;
    const REPORT: u8 = 143;
    frame.get(12..14) == Some(&[0x86, 0xdd]) && frame.get(20) == Some(&HOP_BY_HOP) && frame.get(62) == Some(&REPORT)
}

/// Whether a frame asks from no address whether somebody has one (RFC 5227; RFC 4862 5.4, with the nonce that nicd puts in): nicd
/// does, for a port that is to have it.
fn is_probe(frame: &[u8]) -> bool {
    let by_arp = frame.get(12..14) == Some(&[8, 6]) && frame.get(28..32) == Some(&[0; 4]);
    let from_nowhere = frame.get(12..14) == Some(&[0x86, 0xdd]) && frame.get(22..38) == Some(&[0; 16]);
    by_arp || from_nowhere && frame.get(54) == Some(&135) && frame.get(78..80) == Some(&[14, 1])
}

/// Whether a frame is what nicd tells a guest, by DHCP or a router advertisement: it comes from the MAC of the device's own side.
fn is_told(frame: &[u8]) -> bool {
    frame.get(6) == Some(&0xfe) && frame.get(7..12) == frame.get(1..6)
}

fn octets(mac: &str) -> Vec<u8> {
    mac.split(':').map(|octet| u8::from_str_radix(octet, 16).unwrap()).collect()
}

/// Everything of the host's that a frame can change.
fn state() -> Vec<Value> {
    let plain = |mut value: Value| {
        for entry in value.as_array_mut().unwrap() {
            let entry = entry.as_object_mut().unwrap();
            entry.retain(|key, _| !["flags", "operstate", "carrier_changes"].contains(&key.as_str()));
        }
        value
    };
    let mtus: Vec<Value> = links().iter().map(|link| json!([link["ifname"], link["mtu"], link["address"]])).collect();
    let mut all: Vec<Value> = ["addr", "-4 route show table all", "-6 route show table all", "neigh", "-6 neigh"]
        .map(|what| plain(json(&format!("ip -j {what}"))))
        .into();
    let derived = |line: &&String| !line.contains("stable_secret") && !line.contains("netfilter") && !line.contains("random");
    all.push(mtus.into());
    all.push(sysctls().iter().filter(derived).cloned().collect::<Vec<_>>().into());
    all
}

/// A guest that sends, to MACs of the host among others. It waits for its NIC.
fn sender(guest: &Guest, seconds: u32, macs: &[String]) -> Child {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/host_protection/guest.py");
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &guest.name, "python3", script, &seconds.to_string(), HOST_V4, HOST_V6]).args(macs);
    command.spawn().unwrap()
}

fn sent(mut sender: Child) {
    assert!(sender.wait().unwrap().success(), "the guest could not send");
}

/// Whether the bridge's chain is as it is to be, as `nft` lists it.
fn is_closed(network: &str) -> bool {
    let Some(bridge) = try_link(&format!("nicd-{network}")) else { return false };
    let ruleset = run("nft list ruleset netdev");
    let words: Vec<&str> = ruleset.split_whitespace().collect();
    let listed = words.join(" ");
    let name = text(&bridge["ifname"]);
    let chain = format!("chain nicd-{network} {{ type filter hook ingress device \"{name}\" priority -500; policy drop; }}");
    listed.contains(&chain) && !listed.contains("dormant")
}

fn wait_closed(network: &str, after: &str) {
    comes_true(SOON, || is_closed(network), || format!("{after}: {}", run("nft list ruleset netdev")));
}

/// Two guests of a network reach each other over v4 and v6.
fn reach_each_other(from: &Guest, to: &Guest, addresses: [&str; 2]) {
    for address in addresses {
        let at = if address.contains(':') { format!("[{address}]:7777") } else { format!("{address}:7777") };
        let bound = at.clone();
        let listening = to.inside(move || UdpSocket::bind(bound).unwrap());
        listening.set_read_timeout(Some(PATIENCE)).unwrap();
        let any = if address.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
        from.inside(move || UdpSocket::bind(any).unwrap().send_to(b"hello", at).unwrap());
        assert_eq!(listening.recv_from(&mut [0; 16]).unwrap().0, 5, "{address}");
    }
}

fn addresses(fixture: &mut Fixture, port: &str) -> Vec<String> {
    fixture.port(port)["fixed_ips"].as_array().unwrap().iter().map(|ip| text(&ip["ip_address"])).collect()
}

fn fact(fixture: &mut Fixture, port: &str) -> Value {
    let explained = fixture.api.get(&format!("/nicd/v1/ports/{port}/explain")).expect(200);
    explained["facts"].as_array().unwrap().iter().find(|fact| fact["fact"] == "host_closed").unwrap().clone()
}

fn problems(fixture: &mut Fixture) -> Vec<String> {
    let health = fixture.api.get("/nicd/v1/health").expect(200);
    health["problems"].as_array().unwrap().iter().map(|problem| text(&problem["reason"])).collect()
}

#[test]
fn nothing_that_a_guest_sends_reaches_the_host() {
    in_netns(|| {
        Host::prepare();
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (a, first) = fixture.guest("a");
        let (b, second) = fixture.guest("b");
        let ports = [fixture.attach_to(&first, &network), fixture.attach_to(&second, &network)];
        ports.iter().for_each(|port| _ = fixture.wait_status(port, "ACTIVE"));
        assert_eq!(fact(&mut fixture, &ports[0])["ok"], true);
        let macs = ports.each_ref().map(|port| text(&fixture.port(port)["mac_address"]));
        // The guests' kernels have said what they say by themselves.
        std::thread::sleep(Duration::from_millis(50));
        let mut host = Host::watch();
        let bridge = link(&format!("nicd-{network}"));
        let host_macs = [&bridge, &link("mgmt"), &link(&fixture.device(&ports[0]))].map(|link| text(&link["address"]));
        sent(sender(&a, 1, &host_macs));
        host.is_untouched(&[&macs[0], &macs[1]]);
        let reached = addresses(&mut fixture, &ports[1]);
        reach_each_other(&a, &b, [&reached[0], &reached[1]]);
        assert_eq!(problems(&mut fixture), Vec::<String>::new());
    });
}

#[test]
fn nothing_reaches_the_host_while_bridge_and_ports_are_made_or_nicd_is_away() {
    in_netns(|| {
        Host::prepare();
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (a, first) = fixture.guest("a");
        let (_b, second) = fixture.guest("b");
        let sockets = Host::watch();
        let flood = sender(&a, 6, &["ff:ff:ff:ff:ff:ff".to_owned()]);
        let ports = [fixture.attach_to(&first, &network), fixture.attach_to(&second, &network)];
        fixture.wait_status(&ports[0], "ACTIVE");
        let macs = ports.each_ref().map(|port| text(&fixture.port(port)["mac_address"]));
        let mut host = Host { before: state(), ..sockets };
        fixture.daemon.term();
        fixture.launch();
        fixture.daemon.kill();
        fixture.launch();
        assert!(is_closed(&network));
        sent(flood);
        host.is_untouched(&[&macs[0], &macs[1]]);
        assert!(run("ip -6 route show table all").lines().all(|line| !line.contains("proto ra")), "{}", run("ip -6 route"));
        assert!(!run("ip neigh").contains("02:00:00:00:00:aa"), "{}", run("ip neigh"));
    });
}

/// Does what opens a bridge, deed by deed, and expects it closed again each time. Few enough not to be a fight, which nicd
/// answers less and less often.
fn opened_and_closed(deeds: impl FnOnce(&str, &str) -> Vec<String> + Send + 'static) {
    in_netns(move || {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (_a, server) = fixture.guest("a");
        let port = fixture.attach_to(&server, &network);
        fixture.wait_status(&port, "ACTIVE");
        let chain = format!("nicd-{network}");
        let bridge = text(&link(&chain)["ifname"]);
        for deed in deeds(&chain, &bridge) {
            run(&deed);
            wait_closed(&network, &deed);
        }
        fixture.wait_status(&port, "ACTIVE");
        run("nft add chain netdev nicd others");
        fixture.detach(&server, &port);
        fixture.api.delete(&format!("/v2.0/networks/{network}")).expect(204);
        let left = run("nft list ruleset netdev").split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(left, "table netdev nicd { chain others { } }", "chains of others stay");
    });
}

#[test]
fn a_bridge_whose_chain_somebody_removes_or_loosens_is_closed_within_a_second() {
    opened_and_closed(|chain, _| {
        vec![
            "nft flush ruleset".to_owned(),
            "nft delete table netdev nicd".to_owned(),
            format!("nft delete chain netdev nicd {chain}"),
            format!("nft add rule netdev nicd {chain} accept"),
        ]
    });
}

#[test]
fn a_bridge_that_leaves_its_chain_is_closed_within_a_second() {
    opened_and_closed(|chain, bridge| {
        vec![
            format!("nft add chain netdev nicd {chain} {{ policy accept; }}"),
            "nft add table netdev nicd { flags dormant; }".to_owned(),
            format!("ip link set dev {bridge} name renamed"),
            "ip link del renamed".to_owned(),
        ]
    });
}

/// The second layer: what holds while nicd has not closed again what somebody opened.
#[test]
fn the_hosts_ipv4_takes_nothing_while_a_bridge_is_open_or_a_device_is_out_of_it() {
    in_netns(|| {
        Host::prepare();
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (a, server) = fixture.guest("a");
        let port = fixture.attach_to(&server, &network);
        fixture.events.wait_status(&port, "ACTIVE");
        let device = fixture.device(&port);
        let macs = [format!("nicd-{network}"), "mgmt".to_owned(), device.clone()].map(|name| text(&link(&name)["address"]));
        let socket = UdpSocket::bind(format!("{HOST_V4}:9999")).unwrap();
        socket.set_nonblocking(true).unwrap();
        fixture.daemon.signal(Signal::SIGSTOP);
        for deed in ["nft flush ruleset".to_owned(), format!("ip link set {device} nomaster")] {
            run(&deed);
            let mut capture = Capture::start();
            sent(sender(&a, 1, &macs));
            let got = socket.recv_from(&mut [0; 2048]);
            assert!(got.is_err(), "after {deed}: {got:?}");
            while let Some((seen_on, frame)) = capture.next(Duration::ZERO) {
                let by_host = macs.iter().any(|mac| frame.get(6..12) == Some(&octets(mac)));
                let is_v4 = [&[8, 0][..], &[8, 6]].iter().any(|kind| frame.get(12..14) == Some(*kind));
                assert!(!(by_host && is_v4), "after {deed} the host sends on link {seen_on}: {frame:x?}");
            }
        }
        fixture.daemon.signal(Signal::SIGCONT);
        wait_closed(&network, "what was done while nicd stood still");
        fixture.wait_until(&port, "back", |port| {
            port.is_some_and(|port| port["status"] == "ACTIVE") && link(&device)["master"].is_string()
        });
        // No event tells of a setting: a dump does, as that of verify.
        let ignore = format!("/proc/sys/net/ipv4/conf/{device}/arp_ignore");
        std::fs::write(&ignore, "0").unwrap();
        fixture.api.get("/nicd/v1/verify").expect(200);
        comes_true(PATIENCE, || std::fs::read_to_string(&ignore).unwrap().trim() == "8", || "it is not set back".to_owned());
        fixture.wait_status(&port, "ACTIVE");
    });
}

#[test]
fn link_local_frames_stay_with_the_bridge() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let server = fixture.vm();
        let port = fixture.attach_to(&server, &network);
        let device = fixture.device(&port);
        let mask = || link(&device)["linkinfo"]["info_slave_data"]["group_fwd_mask"].clone();
        assert_eq!(mask(), "0xfffd");
        run(&format!("ip link set dev {device} type bridge_slave group_fwd_mask 0"));
        comes_true(SOON, || mask() == "0xfffd", || mask().to_string());
    });
}

#[test]
fn what_closed_a_bridge_goes_with_its_network_also_when_somebody_deleted_the_bridge() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let server = fixture.vm();
        let port = fixture.attach_to(&server, &network);
        fixture.detach(&server, &port);
        assert!(is_closed(&network), "as long as the bridge is there");
        run(&format!("ip link del nicd-{network}"));
        fixture.api.delete(&format!("/v2.0/networks/{network}")).expect(204);
        assert_eq!(run("nft list ruleset netdev"), "");
    });
}

#[test]
fn what_an_older_nicd_made_is_closed_at_the_start() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (a, first) = fixture.guest("a");
        let (b, second) = fixture.guest("b");
        let ports = [fixture.attach_to(&first, &network), fixture.attach_to(&second, &network)];
        let reached = addresses(&mut fixture, &ports[1]);
        fixture.daemon.term();
        run("nft flush ruleset");
        for port in &ports {
            run(&format!("ip link set dev nicd-{port} type bridge_slave group_fwd_mask 0"));
        }
        reach_each_other(&a, &b, [&reached[0], &reached[1]]);
        fixture.launch();
        wait_closed(&network, "the start");
        for port in &ports {
            fixture.wait_until(port, "closed", |_| {
                link(&format!("nicd-{port}"))["linkinfo"]["info_slave_data"]["group_fwd_mask"] == "0xfffd"
            });
        }
        reach_each_other(&a, &b, [&reached[0], &reached[1]]);
    });
}

#[test]
fn a_daemon_with_the_units_power_closes_bridges() {
    in_netns(|| {
        let mut daemon = Daemon::prepared("/run/nicd");
        daemon.confine();
        daemon.launch();
        let mut fixture = Fixture::of(daemon);
        let network = fixture.usual_network();
        let server = fixture.vm();
        fixture.attach_to(&server, &network);
        assert!(is_closed(&network));
        run("nft flush ruleset");
        wait_closed(&network, "a flush");
    });
}

#[test]
fn where_a_bridge_cannot_be_closed_the_first_port_is_refused_unless_that_is_tolerated() {
    in_netns(|| {
        // The table is another program's, which the kernel then keeps from everybody else.
        let mut owner = Command::new("nft").arg("-i").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut orders = owner.stdin.take().unwrap();
        orders.write_all(b"add table netdev nicd { flags owner; }\n").unwrap();
        comes_true(PATIENCE, || run("nft list tables").contains("nicd"), || "nft makes no table".to_owned());
        let mut fixture = Fixture::start();
        assert_eq!(problems(&mut fixture), ["host_not_closed"], "beforehand");
        let network = fixture.usual_network();
        let server = fixture.vm();
        let body = json!({"interfaceAttachment": {"net_id": network}});
        fixture.api.post(&interfaces(&server), &body).refused(503, "host_not_closed");
        assert!(kernel_view::marked().is_empty() && fixture.ports().is_empty(), "nothing is left of it");
        std::fs::write(fixture.daemon.config(), "[links]\nrequire_host_closed = false\n").unwrap();
        fixture.daemon.reload();
        let port = fixture.attach_to(&server, &network);
        assert_eq!(fact(&mut fixture, &port)["ok"], true);
        assert!(text(&fact(&mut fixture, &port)["detail"]).contains("require_host_closed"));
        assert!(!is_closed(&network));
        // It ends, the kernel removes its table, and a reload tries again.
        drop(orders);
        owner.wait().unwrap();
        std::fs::write(fixture.daemon.config(), "").unwrap();
        fixture.daemon.reload();
        comes_true(PATIENCE, || is_closed(&network), || run("nft list ruleset netdev"));
    });
}

#[test]
fn an_operators_bridge_is_left_and_named_when_it_takes_router_advertisements() {
    in_netns(|| {
        fixture::foreign_bridge("br0", 1500);
        let set = |key: &str, value: &str| std::fs::write(format!("/proc/sys/net/ipv6/conf/br0/{key}"), value).unwrap();
        let mut fixture = Fixture::start();
        fixture.network_on("br0");
        for (ra, forwarding, off, takes) in
            [("0", "0", "0", false), ("1", "0", "0", true), ("1", "1", "0", false), ("2", "1", "0", true), ("2", "1", "1", false)]
        {
            for (key, value) in [("disable_ipv6", off), ("forwarding", forwarding), ("accept_ra", ra)] {
                set(key, value);
            }
            let expected: &[&str] = if takes { &["bridge_takes_ras"] } else { &[] };
            assert_eq!(problems(&mut fixture), expected, "accept_ra {ra}, forwarding {forwarding}, disable_ipv6 {off}");
        }
        set("disable_ipv6", "0");
        run("ip link set br0 down");
        assert_eq!(problems(&mut fixture), Vec::<String>::new(), "down");
        assert_eq!(run("nft list ruleset netdev"), "");
    });
}
