//! The operator's drill: twelve broken hosts. For each, `nicctl status`, `nicctl explain PORT` or `nicctl doctor` names the cause in
//! its first line and prints a remedy; the test applies that remedy, and then the host is well or the port ACTIVE.
//!
//! What a test cannot do to this host (`modprobe`, `systemctl`) it does to what stands in its place in the test's namespaces.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

#[allow(dead_code)] // the suite of the bus uses all of it
#[path = "dbus/bus.rs"]
mod bus;
#[path = "common/daemon.rs"]
mod daemon;
#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/helper.rs"]
mod helper;
#[path = "common/netns.rs"]
mod netns;

use std::fs;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bus::{Bus, Policy};
use daemon::{Daemon, PATIENCE};
use fixture::{Fixture, foreign_bridge, interfaces};
use helper::Helper;
use netns::{Guest, in_netns, run};
use serde_json::{Value, json};

/// What a command of nicctl said.
struct Said {
    code: i32,
    out: String,
}

/// Runs `nicctl` as the operator does.
fn nicctl(fixture: &Fixture, line: &str) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nicctl"));
    command.arg("--socket").arg(fixture.daemon.socket()).args(line.split_whitespace()).stdin(Stdio::null());
    let output = command.output().unwrap();
    Said { code: output.status.code().unwrap(), out: String::from_utf8(output.stdout).unwrap() }
}

/// Fails unless the first line has all of `cause` and the whole has `remedy`.
fn names(fixture: &Fixture, line: &str, cause: &[&str], remedy: &str) {
    let said = nicctl(fixture, line);
    let first = said.out.lines().next().unwrap_or_default();
    assert!(cause.iter().all(|part| first.contains(part)), "nicctl {line}: {cause:?} in the first line: {}", said.out);
    assert!(said.out.contains(remedy), "nicctl {line}: {remedy:?} in: {}", said.out);
    // Of the three commands only explain exits with 0 when something is wrong.
    assert_eq!(said.code, i32::from(!line.starts_with("explain")), "nicctl {line}: {}", said.out);
}

fn sh(script: &str) {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Waits until `nicctl status` says ok.
fn becomes_well(fixture: &mut Fixture) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let said = nicctl(fixture, "status");
        if said.code == 0 {
            return assert!(said.out.starts_with("status   ok\n"), "{}", said.out);
        }
        assert!(Instant::now() < deadline, "{}", said.out);
        fixture.events.next(Duration::from_millis(100));
    }
}

fn degraded(fixture: &mut Fixture, reason: &str) {
    fixture.events.wait_for(reason, |event| event["event"] == "agent.degraded" && event["reason"] == reason);
}

/// A process that holds a tap open as a virtual machine does; killed when dropped.
struct Vmm(Child);

impl Vmm {
    fn start(device: &str) -> Self {
        // TUNSETIFF with IFF_TAP | IFF_NO_PI | IFF_VNET_HDR (linux/if_tun.h).
        let script = r#"sysopen(my $tun, "/dev/net/tun", 2) or die "open: $!";
            ioctl($tun, 0x400454ca, pack("a16 S x22", $ARGV[0], 0x5002)) or die "ioctl: $!"; sleep 3600"#;
        let mut command = Command::new("setpriv");
        Self(command.args(["--pdeathsig", "KILL", "perl", "-e", script, device]).spawn().unwrap())
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A virtual machine's port on a network of nicd's, and its device.
fn vm(fixture: &mut Fixture) -> (String, String) {
    let network = fixture.usual_network();
    let server = fixture.vm();
    let port = fixture.attach_to(&server, &network);
    let device = fixture.device(&port);
    (port, device)
}

/// A network on an operator's bridge.
fn on_an_operators_bridge(fixture: &mut Fixture) -> String {
    foreign_bridge("br-ops", 1500);
    let network = fixture.network(json!({"name": "ops", "nicd:bridge": "br-ops", "mtu": 1500}));
    fixture.subnet(&network, "192.0.2.0/24");
    network
}

#[test]
fn tun_closed() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        run("mount -t tmpfs none /dev/net");
        let remedy = "mkdir -p /dev/net; mknod -m 0666 /dev/net/tun c 10 200";
        names(&fixture, "status", &["degraded", "tun_unusable", "/dev/net/tun"], remedy);
        names(&fixture, "doctor", &["tun_unusable", "/dev/net/tun"], remedy);
        sh(remedy);
        becomes_well(&mut fixture);
        let (port, device) = vm(&mut fixture);
        let _vmm = Vmm::start(&device);
        fixture.wait_status(&port, "ACTIVE");
    });
}

#[test]
fn bridge_deleted() {
    in_netns(|| {
        run("sysctl -qw net.ipv6.conf.default.accept_ra=0");
        let mut fixture = Fixture::start();
        let network = on_an_operators_bridge(&mut fixture);
        let (_guest, _, port) = fixture.active_guest("a", &network);
        run("ip link del br-ops");
        fixture.wait_status(&port, "ERROR");
        let make = "ip link add br-ops type bridge && ip link set br-ops up";
        names(&fixture, "status", &["port_in_error", &port, "no_such_bridge", "br-ops does not exist"], "make it");
        names(&fixture, &format!("explain {port}"), &["br-ops does not exist"], "make it");
        names(&fixture, "doctor", &["network ops", "br-ops does not exist"], make);
        sh(make);
        fixture.wait_status(&port, "ACTIVE");
        becomes_well(&mut fixture);
    });
}

#[test]
fn pool_full() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.network(json!({"name": "blue"}));
        let pool = json!([{"start": "192.0.2.2", "end": "192.0.2.3"}]);
        let subnet = fixture.subnet_with(json!({"network_id": network, "cidr": "192.0.2.0/29", "allocation_pools": pool}));
        let (_guest, server) = fixture.guest("a");
        fixture.attach_to(&server, &network);
        fixture.attach_to(&server, &network);
        let body = json!({"interfaceAttachment": {"net_id": network}});
        fixture.api.post(&interfaces(&server), &body).refused(400, "pool_empty");
        let remedy = format!("nicctl subnet set {subnet} --pool ");
        names(&fixture, "doctor", &["subnet 192.0.2.0/29", "no address of its pool is free", "2 of 2"], &remedy);
        assert_eq!(nicctl(&fixture, &format!("subnet set {subnet} --pool 192.0.2.2-192.0.2.6")).code, 0);
        let port = fixture.attach_to(&server, &network);
        fixture.wait_status(&port, "ACTIVE");
        assert_eq!(nicctl(&fixture, "doctor").code, 0);
    });
}

#[test]
fn vmm_dead() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let (port, device) = vm(&mut fixture);
        let vmm = Vmm::start(&device);
        fixture.wait_status(&port, "ACTIVE");
        drop(vmm);
        fixture.wait_status(&port, "DOWN");
        names(&fixture, &format!("explain {port}"), &["cause", "no process holds the tap open"], "start the virtual machine");
        let _vmm = Vmm::start(&device);
        fixture.wait_status(&port, "ACTIVE");
    });
}

#[test]
fn namespace_gone() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (guest, _, port) = fixture.active_guest("a", &network);
        guest.end();
        fixture.wait_until(&port, "without it", |port| port.unwrap()["nicd:reason"] == "namespace_gone");
        names(&fixture, &format!("explain {port}"), &["cause", "/run/netns/a is gone"], "make it again");
        let _guest = Guest::new("a");
        fixture.wait_status(&port, "ACTIVE");
    });
}

#[test]
fn mtu_wrong() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = on_an_operators_bridge(&mut fixture);
        run("ip link set br-ops mtu 1400");
        let (_guest, server) = fixture.guest("a");
        let body = json!({"interfaceAttachment": {"net_id": network}});
        fixture.api.post(&interfaces(&server), &body).refused(409, "mtu_above_bridge");
        let remedy = "ip link set br-ops mtu 1500";
        names(&fixture, "doctor", &["network ops", "its MTU 1500 is more than that of its bridge br-ops, 1400"], remedy);
        sh(remedy);
        let port = fixture.attach_to(&server, &network);
        fixture.wait_status(&port, "ACTIVE");
        assert_eq!(nicctl(&fixture, "doctor").code, 0);
    });
}

#[test]
fn store_full() {
    in_netns(|| {
        let mut daemon = Daemon::prepared("/run/nicd");
        let state = daemon.state();
        run(&format!("mount -t tmpfs -o size=3m tmpfs {}", state.display()));
        daemon.launch();
        let mut fixture = Fixture::of(daemon);
        let network = fixture.usual_network();
        let server = fixture.server_with(json!({"guest": {"kind": "vm"}, "nic_limit": 1000}));
        let mut ballast = fs::File::create(state.join("ballast")).unwrap();
        while ballast.write_all(&[0; 4096]).is_ok() {}
        // The store's files have some room left for further records.
        let body = json!({"interfaceAttachment": {"net_id": network}});
        while fixture.api.post(&interfaces(&server), &body).status == 200 {}
        degraded(&mut fixture, "store_full");
        names(&fixture, "status", &["degraded", "store_full"], "free space in the state directory");
        let log = fixture.daemon.log();
        let refused: Vec<&str> = log.lines().filter(|line| line.contains("refused") && line.contains("store_full")).collect();
        assert!(refused.len() == 1 && refused[0].contains("attach refused") && refused[0].contains(" WARN "), "{refused:#?}");
        drop(ballast);
        fs::remove_file(state.join("ballast")).unwrap();
        becomes_well(&mut fixture);
        let port = fixture.attach_to(&server, &network);
        let _vmm = Vmm::start(&fixture.device(&port));
        fixture.wait_status(&port, "ACTIVE");
    });
}

#[test]
fn bus_gone() {
    in_netns(|| {
        let (bus, mut fixture) = bus::with_bus(Policy::Open, "");
        becomes_well(&mut fixture);
        bus.kill();
        degraded(&mut fixture, "bus_lost");
        names(&fixture, "status", &["degraded", "bus_lost", "not shown on the bus"], "systemctl start dbus");
        let _bus = Bus::start(Policy::Open);
        becomes_well(&mut fixture);
    });
}

#[test]
fn someone_fights() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let (port, device) = vm(&mut fixture);
        let _vmm = Vmm::start(&device);
        fixture.wait_status(&port, "ACTIVE");
        let mut fight = Command::new("setpriv");
        let script = format!("while :; do ip link set {device} nomaster; sleep 0.05; done");
        let mut fight = fight.args(["--pdeathsig", "KILL", "sh", "-c", &script]).spawn().unwrap();
        degraded(&mut fixture, "contested_bridge");
        names(&fixture, "status", &["degraded", "contested_bridge", &port, &device], "find who does");
        fight.kill().unwrap();
        fight.wait().unwrap();
        becomes_well(&mut fixture);
        fixture.wait_status(&port, "ACTIVE");
    });
}

#[test]
fn module_missing() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        // A misc device of a number that no driver has: ENODEV, as with the node of a module that cannot be loaded.
        run("mknod -m 0666 /run/without c 10 250");
        run("mount --bind /run/without /dev/net/tun");
        names(&fixture, "status", &["degraded", "module_missing", "the kernel has no module tun"], "modprobe tun");
        names(&fixture, "doctor", &["module_missing", "the kernel has no module tun"], "modprobe tun");
        run("umount /dev/net/tun");
        becomes_well(&mut fixture);
        let (port, device) = vm(&mut fixture);
        let _vmm = Vmm::start(&device);
        fixture.wait_status(&port, "ACTIVE");
    });
}

#[test]
fn older_store_put_back() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (_guest, server) = fixture.guest("a");
        fixture.daemon.term();
        sh("cp -r /run/nicd/state /run/older");
        fixture.launch();
        let port = fixture.attach_to(&server, &network);
        fixture.daemon.term();
        sh("mv /run/nicd/state /run/newest; cp -r /run/older /run/nicd/state");
        fixture.launch();
        names(&fixture, "status", &["degraded", "store_rolled_back", "an older copy of the store"], "put the newest copy back");
        fixture.daemon.term();
        sh("rm -r /run/nicd/state; mv /run/newest /run/nicd/state");
        fixture.launch();
        becomes_well(&mut fixture);
        fixture.wait_status(&port, "ACTIVE");
    });
}

#[test]
fn helper_masked() {
    in_netns(|| {
        let mut daemon = Daemon::prepared("/run/nicd");
        daemon.confine();
        let helper = Helper::start();
        daemon.launch();
        let mut fixture = Fixture::of(daemon);
        let network = fixture.usual_network();
        let (_guest, server) = fixture.guest("a");
        drop(helper);
        fs::remove_file(helper::SOCKET).unwrap();
        let remedy = "systemctl restart nicd-netns.socket";
        names(&fixture, "status", &["degraded", "netns_helper_unreachable", "nicd-netns does not answer"], remedy);
        names(&fixture, "doctor", &["netns_helper_unreachable", "nicd-netns does not answer"], remedy);
        let _helper = Helper::start();
        becomes_well(&mut fixture);
        let port = fixture.attach_to(&server, &network);
        fixture.wait_status(&port, "ACTIVE");
    });
}

/// A host on which nothing is wrong, so that the others prove something.
#[test]
fn a_host_that_is_well_is_called_so() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let network = fixture.usual_network();
        let (_guest, _, port) = fixture.active_guest("a", &network);
        becomes_well(&mut fixture);
        let said = nicctl(&fixture, "doctor");
        assert!(said.code == 0 && said.out.starts_with("cause  nothing\n"), "{}", said.out);
        let log = fixture.daemon.log();
        let plan = log.lines().find(|line| line.contains(": plan ") && line.contains(&port)).unwrap_or_else(|| panic!("{log}"));
        assert!(plan.contains("reason=\"attach\"") && plan.contains("create_veth"), "{plan}");
        let step = |line: &&str| line.contains(": step ") && line.contains(&port) && line.contains("op=\"create_veth\"");
        assert!(log.lines().find(step).unwrap_or_else(|| panic!("{log}")).contains("took="));
        let said = nicctl(&fixture, &format!("explain {port} -o json"));
        let facts: Value = serde_json::from_str(&said.out).unwrap();
        assert!(facts["facts"].as_array().unwrap().iter().all(|fact| fact["ok"] == true), "{facts}");
    });
}
