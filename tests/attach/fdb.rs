//! A guest's entry in the FDB of its bridge: whatever takes it from the guest, it is back soon, and frames for others do not come.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::kernel_view::{Capture, bridge_port, fdb, link};
use crate::netns::{Guest, comes_true, in_netns, run};
use crate::taps::vm_with_tap;

/// How soon a repair is done.
const SOON: Duration = Duration::from_secs(1);

/// Beyond this a test has failed.
const LIMIT: Duration = Duration::from_secs(20);

/// Whether a device's bridge has the entry that it is to have.
fn entered(device: &str, mac: &str) -> bool {
    let right = |entry: &Value| {
        let flags = entry["flags"].as_array().unwrap();
        entry["mac"] == mac && entry["state"] == "static" && flags.contains(&json!("sticky")) && entry.get("vlan").is_none()
    };
    fdb(device).iter().any(right)
}

fn wait(what: &str, limit: Duration, holds: impl FnMut() -> bool) {
    comes_true(limit, holds, || what.to_owned());
}

fn mac_of(fixture: &mut Fixture, port: &str) -> String {
    fixture.port(port)["mac_address"].as_str().unwrap().to_owned()
}

/// Sends IPv4 packets of protocol 253 from a guest's NIC and its address to a MAC, from this one.
fn send(from: &Guest, number: usize, [to, source]: [&str; 2]) {
    let nic = from.ip_json("addr show eth0")[0].clone();
    let index = nic["ifindex"].as_u64().unwrap();
    let v4 = nic["addr_info"].as_array().unwrap().iter().find(|address| address["family"] == "inet");
    let ip: Ipv4Addr = v4.map_or(Ipv4Addr::UNSPECIFIED, |address| address["local"].as_str().unwrap().parse().unwrap());
    // br_netfilter drops packets with a wrong checksum.
    let words = [0x4500, 0x002e, 0x40fd, ip.to_bits() >> 16, ip.to_bits() & 0xffff, 0xc000, 0x0263];
    let sum = words.iter().sum::<u32>();
    let checksum = !(sum + (sum >> 16)) & 0xffff;
    let header = format!("08004500002e0000000040fd{checksum:04x}{:08x}c0000263", ip.to_bits());
    let octets = |mac: &str| mac.replace(':', "");
    let frame = [to, source].map(octets).concat() + &header + &"00".repeat(26);
    let script = r#"socket(my $s, 17, 3, 0) or die "socket: $!"; my $to = pack("S n i S C C a8", 17, 0, $ARGV[1], 0, 0, 6, "");
        for (1..$ARGV[2]) { send($s, pack("H*", $ARGV[0]), 0, $to) or die "send: $!"; }"#;
    let arguments = [script.to_owned(), frame, index.to_string(), number.to_string()];
    let done = from.inside(move || Command::new("perl").arg("-e").args(arguments).status().unwrap());
    assert!(done.success());
}

/// How many of the frames that a guest got by now were for this MAC.
fn got(capture: &mut Capture, mac: &str) -> usize {
    let shown = |frame: &[u8]| {
        frame.iter().take(6).fold(String::new(), |mut text, octet| {
            let colon = if text.is_empty() { "" } else { ":" };
            write!(text, "{colon}{octet:02x}").unwrap();
            text
        })
    };
    capture.take().iter().filter(|frame| shown(frame) == mac).count()
}

#[test]
fn whatever_becomes_of_a_guests_entry_it_is_back_soon() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let mut ports = Vec::new();
        for name in ["a", "b"] {
            let (guest, server) = fixture.guest(name);
            let port = fixture.attach_to(&server, &network);
            fixture.events.wait_status(&port, "ACTIVE");
            ports.push((guest, port));
        }
        let [device, other] = [0, 1].map(|n: usize| fixture.device(&ports[n].1));
        let mac = mac_of(&mut fixture, &ports[0].1);
        let bridge = link(&device)["master"].as_str().unwrap().to_owned();
        assert!(entered(&device, &mac), "{:?}", fdb(&device));
        for change in [
            "bridge fdb del MAC dev DEV master",
            "bridge fdb flush dev BRIDGE",
            "bridge fdb replace MAC dev DEV master static",
            "bridge fdb replace MAC dev DEV master permanent",
            "bridge fdb replace MAC dev BRIDGE self permanent",
            "bridge fdb replace MAC dev OTHER master static",
            "bridge fdb replace MAC dev OTHER master static sticky",
            "bridge fdb replace MAC dev OTHER master permanent",
            "bridge fdb replace MAC dev OTHER master extern_learn",
            "ip link set DEV nomaster",
        ] {
            let [from, to] = [["DEV", &device], ["OTHER", &other]];
            let line = change.replace(from[0], from[1]).replace(to[0], to[1]).replace("MAC", &mac).replace("BRIDGE", &bridge);
            run(&line);
            wait(change, SOON, || entered(&device, &mac));
        }
        for (_, port) in &ports {
            fixture.wait_status(port, "ACTIVE");
        }
        // Neither of these takes it away.
        for change in ["ip link set DEV down", "ip link set BRIDGE down", "ip link set BRIDGE type bridge stp_state 1"] {
            run(&change.replace("DEV", &device).replace("BRIDGE", &bridge));
        }
        fixture.wait_status(&ports[0].1, "ACTIVE");
        wait("entered", SOON, || entered(&device, &mac));
    });
}

#[test]
fn an_entry_that_is_gone_is_a_fact_and_a_deviation_until_it_is_back() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (_guest, server) = fixture.guest("a");
        let port = fixture.attach_to(&server, &network);
        fixture.events.wait_status(&port, "ACTIVE");
        let (device, mac) = (fixture.device(&port), mac_of(&mut fixture, &port));
        let explained = fixture.api.get(&format!("/nicd/v1/ports/{port}/explain")).expect(200);
        let facts = explained["facts"].as_array().unwrap();
        let fact = facts.iter().find(|fact| fact["fact"] == "fdb").unwrap();
        assert_eq!((&fact["ok"], &fact["detail"]), (&json!(true), &json!(format!("{mac} is at {device}, static and sticky"))));
        let contested = |fixture: &mut Fixture| {
            let health = fixture.api.get("/nicd/v1/health").expect(200);
            health["problems"].as_array().unwrap().iter().any(|problem| problem["reason"] == "contested_fdb")
        };
        // Again and again, so that it is seen to be missing.
        let start = Instant::now();
        let mut told = (false, false);
        while start.elapsed() < LIMIT && told != (true, true) {
            let _ = crate::netns::try_run(&format!("bridge fdb del {mac} dev {device} master"));
            let deviations = fixture.api.get("/nicd/v1/verify").expect(200)["deviations"].clone();
            told.0 |= deviations.as_array().unwrap().iter().any(|one| one["kind"] == "fdb");
            told.1 |= contested(&mut fixture);
        }
        assert_eq!(told, (true, true));
        wait("back", SOON, || entered(&device, &mac));
        fixture.wait_status(&port, "ACTIVE");
    });
}

#[test]
fn frames_for_a_mac_that_nobody_has_reach_those_who_ask_for_them_alone() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let nobody = "02:00:00:00:00:99";
        let mut ports = Vec::new();
        for name in ["a", "b"] {
            let (guest, server) = fixture.guest(name);
            let port = fixture.attach_to(&server, &network);
            fixture.events.wait_status(&port, "ACTIVE");
            ports.push((guest, port));
        }
        let (sender, own) = (&ports[0].0, mac_of(&mut fixture, &ports[0].1));
        let (other, port) = &ports[1];
        let (device, mac) = (fixture.device(port), mac_of(&mut fixture, port));
        assert_eq!(fixture.port(port)["nicd:unknown_unicast"], false);
        let mut capture = other.inside(Capture::start);
        for (wanted, expected) in [(None, 0), (Some(true), 10), (Some(false), 0)] {
            if let Some(wanted) = wanted {
                let body = json!({"port": {"nicd:unknown_unicast": wanted}});
                let shown = fixture.api.put(&format!("/v2.0/ports/{port}"), &body).expect(200);
                assert_eq!(shown["port"]["nicd:unknown_unicast"], wanted);
            }
            assert_eq!(bridge_port(&device)["flood"], wanted.unwrap_or(false));
            send(sender, 10, [nobody, &own]);
            // Frames keep their order: with this one the others would be there.
            send(sender, 1, [&mac, &own]);
            let (mut strange, mut mine) = (0, 0);
            wait("delivered", LIMIT, || {
                let frames = capture.take();
                let to = |mac: &str| {
                    let wanted = mac.replace(':', "");
                    let hex = |frame: &Vec<u8>| frame[..6].iter().fold(String::new(), |text, octet| format!("{text}{octet:02x}"));
                    frames.iter().filter(|frame| hex(frame) == wanted && frame[12..14] == [8, 0] && frame[23] == 253).count()
                };
                strange += to(nobody);
                mine += to(&mac);
                mine > 0
            });
            assert_eq!(strange, expected, "{wanted:?}");
        }
    });
}

#[test]
fn a_frame_from_the_uplink_with_a_guests_mac_does_not_move_the_guest() {
    in_netns(|| {
        run("ip link add br0 type bridge");
        run("ip link set br0 up");
        let uplink = Guest::new("uplink");
        run(&format!("ip link add up0 type veth peer name eth0 netns {}", uplink_path(&uplink)));
        run("ip link set up0 master br0 up");
        uplink.ip("link set eth0 up");
        let mut fixture = Fixture::start();
        let network = fixture.network_on("br0");
        let (guest, server) = fixture.guest("a");
        let port = fixture.attach_to(&server, &network);
        fixture.events.wait_status(&port, "ACTIVE");
        let (device, mac) = (fixture.device(&port), mac_of(&mut fixture, &port));
        let mut capture = guest.inside(Capture::start);
        send(&uplink, 100, ["02:00:00:00:00:98", &mac]);
        assert!(entered(&device, &mac), "{:?}", fdb(&device));
        send(&uplink, 1, [&mac, "02:00:00:00:00:98"]);
        wait("delivered", LIMIT, || got(&mut capture, &mac) > 0);
    });
}

fn uplink_path(guest: &Guest) -> String {
    guest.path.display().to_string()
}

/// Opens a tap as its owner, without any capability, and gives it one MAC after the other as fast as it can for some seconds;
/// then says how many frames for the first one it got.
fn attacker(device: &str, macs: [&str; 2], seconds: u32) -> Child {
    let script = r#"use Fcntl; use Time::HiRes "time";
        sysopen(my $tun, "/dev/net/tun", O_RDWR | O_NONBLOCK) or die "open: $!";
        ioctl($tun, 0x400454ca, pack("a16 S x22", $ARGV[0], 0x5002)) or die "TUNSETIFF: $!";
        my @set = map { pack("x16 S H12 x8", 1, $_ =~ s/://gr) } @ARGV[1, 2];
        my ($end, $got, $frame) = (time + $ARGV[3], 0, "");
        while (time < $end) {
            for (@set) { my $set = $_; ioctl($tun, 0x8924, $set) or die "SIOCSIFHWADDR: $!"; }
            while (sysread($tun, $frame, 4096)) { $got++ if substr($frame, 10, 6) eq pack("H12", $ARGV[1] =~ s/://gr) }
        }
        print $got;"#;
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid=1234",
        "--regid=1234",
        "--clear-groups",
        "--bounding-set=-all",
        "--inh-caps=-all",
        "--",
        "perl",
        "-e",
    ]);
    command.arg(script).args([device, macs[0], macs[1], &seconds.to_string()]).stdout(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_taps_owner_who_takes_a_neighbours_mac_pays_himself() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let (_, bad, tap) = vm_with_tap(&mut fixture, json!({"kind": "vm", "owner": {"uid": 1234}}));
        let network = fixture.port(&bad)["network_id"].as_str().unwrap().to_owned();
        let mut ports = Vec::new();
        for name in ["a", "b"] {
            let (guest, server) = fixture.guest(name);
            let port = fixture.attach_to(&server, &network);
            fixture.events.wait_status(&port, "ACTIVE");
            ports.push((guest, port));
        }
        let (victim, port) = &ports[0];
        let (device, mac) = (fixture.device(port), mac_of(&mut fixture, port));
        let own = mac_of(&mut fixture, &ports[1].1);
        let host_mac = link(&tap)["address"].as_str().unwrap().to_owned();
        let attack = attacker(&tap, [&mac, &host_mac], 4);
        fixture.events.wait_for("the cut", |event| {
            event["port_id"] == bad.as_str() && event["new"] == "ERROR" && event["reason"] == "contested_mac"
        });
        wait("back", SOON, || entered(&device, &mac));
        let cut = link(&tap);
        assert!(cut.get("master").is_none() && !cut["flags"].as_array().unwrap().contains(&json!("UP")), "{cut}");
        // However often its MAC changes from here on, it is nobody else's business.
        let mut capture = victim.inside(Capture::start);
        for _ in 0..10 {
            // As many as a socket keeps.
            send(&ports[1].0, 100, [&mac, &own]);
            let mut delivered = 0;
            wait("delivered", LIMIT, || {
                delivered += got(&mut capture, &mac);
                delivered >= 100
            });
        }
        assert!(entered(&device, &mac));
        assert_eq!(fixture.port(port)["status"], "ACTIVE");
        let said = attack.wait_with_output().unwrap();
        assert_eq!((said.status.code(), String::from_utf8_lossy(&said.stdout).as_ref()), (Some(0), "0"));
        assert_eq!(fixture.port(&bad)["nicd:reason"], "contested_mac");
        wait("put back", LIMIT, || fixture.port(&bad)["status"] == "DOWN");
        let own = mac_of(&mut fixture, &bad);
        wait("entered", SOON, || entered(&tap, &own));
    });
}
