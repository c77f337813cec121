//! `OpenTap`: a real QEMU without privileges on the descriptors, and who else holds them.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::bus::{NAME, PORT, Policy, busctl_as, path, property, with_bus};
use crate::fixture::Fixture;
use crate::netns::{in_netns, json, run};

/// The user QEMU runs as: nobody, who may do nothing.
const NOBODY: u32 = 65534;

/// A QEMU on a port's descriptors; killed when dropped.
#[derive(Debug)]
struct Qemu(Child);

impl Qemu {
    /// Starts one that has the descriptors, and waits until it says so on its QMP. `fds` is how its tap takes them.
    fn start(port: &str, mac: &str, fds: &str, device: &str) -> Self {
        let mut command = Command::new("setpriv");
        command.args([&format!("--reuid={NOBODY}"), &format!("--regid={NOBODY}"), "--clear-groups", "--pdeathsig", "KILL", "--"]);
        command.args(["/usr/bin/python3", "-c", include_str!("vmm.py"), "/run/dbus/system_bus_socket", &path(port)]);
        command.args(["qemu-system-x86_64", "-M", "q35,accel=tcg", "-m", "64", "-S", "-nodefaults", "-display", "none"]);
        command.args(["-netdev", &format!("tap,id=n0,{fds}={{fds}}"), "-device", &format!("{device},netdev=n0,mac={mac}")]);
        command.args(["-qmp", "stdio"]).current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("setpriv");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        writeln!(child.stdin.as_mut().unwrap(), "{{\"execute\": \"qmp_capabilities\"}}\n{{\"execute\": \"query-status\"}}")
            .unwrap();
        // The greeting, and two answers from its main loop, in which the NIC is plugged.
        let said: Vec<Value> = lines.by_ref().take(3).map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
        assert_eq!(said.last().map(|said| &said["return"]["status"]), Some(&json!("prelaunch")), "{said:?}");
        Self(child)
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn vm_of_nobody(fixture: &mut Fixture, queues: u32) -> String {
    fixture.server(json!({"kind": "vm", "queues": queues, "owner": {"uid": NOBODY}}))
}

#[test]
fn qemu_without_privileges_runs_on_the_descriptors_and_its_death_is_seen() {
    in_netns(|| {
        let (_bus, mut fixture) = with_bus(Policy::Shipped, "");
        let network = fixture.usual_network();
        for (queues, fds, device) in [(1, "fd", "virtio-net-pci"), (2, "fds", "virtio-net-pci,mq=on,vectors=6")] {
            let server = vm_of_nobody(&mut fixture, queues);
            let port = fixture.attach_to(&server, &network);
            let mac = fixture.port(&port)["mac_address"].as_str().unwrap().to_owned();
            for _ in 0..2 {
                let qemu = Qemu::start(&port, &mac, fds, device);
                fixture.wait_status(&port, "ACTIVE");
                assert_eq!(property(&port, "Status"), json!("ACTIVE"));
                let taken = busctl_as(&[], &format!("call {NAME} {} {PORT} OpenTap", path(&port)));
                let said = String::from_utf8_lossy(&taken.stderr).into_owned();
                assert!(!taken.status.success() && said.contains("held open by a process already"), "{said}");
                fixture.wait_status(&port, "ACTIVE");
                // Nobody else holds it: not the bus, not nicd.
                qemu.kill();
                fixture.wait_status(&port, "DOWN");
            }
            // As in the kernel: as many queues as asked for are gone again, and the device is still there.
            let device = fixture.device(&port);
            let link = run(&format!("ip -j -d link show {device}"));
            assert!(link.contains("\"persist\":true"), "{link}");
            fixture.detach(&server, &port);
        }
    });
}

#[test]
fn what_cannot_be_opened_says_why() {
    in_netns(|| {
        let (_bus, mut fixture) = with_bus(Policy::Shipped, "");
        let network = fixture.usual_network();
        let open = |port: &str| {
            let output = busctl_as(&[], &format!("call {NAME} {} {PORT} OpenTap", path(port)));
            assert!(!output.status.success());
            String::from_utf8_lossy(&output.stderr).into_owned()
        };
        let (_guest, server) = fixture.guest("a");
        let veth = fixture.attach_to(&server, &network);
        assert!(open(&veth).contains("has no tap"), "{}", open(&veth));
        let unbound = fixture.create_port(json!({"network_id": network}));
        assert!(open(&unbound).contains("has no tap"), "{}", open(&unbound));
        let many = fixture.server(json!({"kind": "vm", "queues": 17}));
        let many = fixture.attach_to(&many, &network);
        assert!(open(&many).contains("17 queues") && open(&many).contains("16"), "{}", open(&many));
        // The refusal has not cost nicd its connection.
        assert_eq!(property(&many, "Status"), json!("DOWN"));
        let most = fixture.server(json!({"kind": "vm", "queues": 16}));
        let most = fixture.attach_to(&most, &network);
        let opened = busctl_as(&[], &format!("call {NAME} {} {PORT} OpenTap", path(&most)));
        assert!(String::from_utf8_lossy(&opened.stdout).starts_with("ah 16 "), "{opened:?}");
        fixture.wait_status(&most, "DOWN");
    });
}

#[test]
fn no_descriptor_of_a_tap_stays_with_nicd() {
    in_netns(|| {
        let (_bus, mut fixture) = with_bus(Policy::Shipped, "");
        let network = fixture.usual_network();
        let server = fixture.server(json!({"kind": "vm", "queues": 4}));
        let port = fixture.attach_to(&server, &network);
        let taps = |fixture: &Fixture| {
            let open = std::fs::read_dir(format!("/proc/{}/fd", fixture.daemon.pid())).unwrap();
            open.filter(|entry| std::fs::read_link(entry.as_ref().unwrap().path()).is_ok_and(|to| to.ends_with("net/tun")))
                .count()
        };
        for _ in 0..50 {
            let opened = busctl_as(&[], &format!("call {NAME} {} {PORT} OpenTap", path(&port)));
            assert!(opened.status.success(), "{opened:?}");
            fixture.wait_status(&port, "DOWN");
            // The caller may be done a moment before nicd is.
            let until = std::time::Instant::now() + crate::daemon::PATIENCE;
            while taps(&fixture) > 0 {
                assert!(std::time::Instant::now() < until, "{} descriptors stay", taps(&fixture));
            }
        }
    });
}

/// A tap's user that has it by name, and changes all that it may; killed when dropped.
struct LastUser(Child);

impl LastUser {
    fn of(device: &str, queues: u32) -> Self {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "python3", "-c", include_str!("last_user.py"), device, &queues.to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self(child)
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for LastUser {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Somebody who has taken a port's tap over the bus, and tells what comes.
struct Reader(Child, std::io::Lines<BufReader<std::process::ChildStdout>>);

impl Reader {
    fn start(port: &str) -> Self {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "python3", "-c", include_str!("vmm.py"), "/run/dbus/system_bus_socket"]);
        command.args([&path(port), "python3", "-c", include_str!("last_user.py"), "--read", "20", "{fds}"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("python3");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self(child, lines)
    }

    fn told(&mut self) -> Value {
        serde_json::from_str(&self.1.next().expect("a line").unwrap()).unwrap()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Who may open a tap by its name.
fn user_of(device: &str) -> Value {
    json(&format!("ip -j -d link show {device}"))[0]["linkinfo"]["info_data"]["user"].clone()
}

#[test]
fn a_tap_is_handed_over_as_a_fresh_one_whatever_its_last_user_set() {
    in_netns(|| {
        let (_bus, mut fixture) = with_bus(Policy::Shipped, "");
        let network = fixture.usual_network();
        let (guest, other) = fixture.guest("a");
        // It sends frames of an experimental type.
        let sender = fixture.attach_to(&other, &network);
        let open = json!({"port": {"port_security_enabled": false}});
        fixture.api.put(&format!("/v2.0/ports/{sender}"), &open).expect(200);
        let nic = guest.ip_json("link")[1]["ifname"].as_str().unwrap().to_owned();
        for queues in [1, 2] {
            let server = vm_of_nobody(&mut fixture, queues);
            let port = fixture.attach_to(&server, &network);
            let mac = fixture.port(&port)["mac_address"].as_str().unwrap().to_owned();
            let device = fixture.device(&port);
            LastUser::of(&device, queues).end();
            fixture.wait_status(&port, "DOWN");
            assert_eq!(user_of(&device), "lp", "the uid 7, as every Debian has it");
            let mut reader = Reader::start(&port);
            let buffers = vec![i32::MAX; queues as usize];
            let fresh = json!({
                "napi": false, "vnet_hdr": true, "header": 10, "little_endian": 0, "send_buffers": buffers,
                "checksums": 0, "segmentation": 0,
            });
            assert_eq!(reader.told(), fresh, "{queues} queues");
            assert_eq!(user_of(&device), "nobody");
            fixture.wait_status(&port, "ACTIVE");
            let (nic, sender) = (nic.clone(), include_str!("sender.py"));
            let sent = guest.inside(move || Command::new("python3").args(["-c", sender, &nic, &mac]).status().unwrap());
            assert!(sent.success());
            // The header, the frame's own header, and what an MTU allows.
            let longest = reader.told()["longest"].as_u64().unwrap();
            assert!((1000..=10 + 14 + 1500).contains(&longest), "{longest}");
            drop(reader);
            fixture.wait_status(&port, "DOWN");
            fixture.detach(&server, &port);
        }
    });
}

#[test]
fn a_tap_that_is_down_or_without_carrier_has_one_user_all_the_same() {
    in_netns(|| {
        let (_bus, mut fixture) = with_bus(Policy::Shipped, "");
        let network = fixture.usual_network();
        for queues in [1, 2, 4] {
            let server = vm_of_nobody(&mut fixture, queues);
            let port = fixture.attach_to(&server, &network);
            fixture.api.put(&format!("/v2.0/ports/{port}"), &json!({"port": {"admin_state_up": false}})).expect(200);
            let device = fixture.device(&port);
            assert_eq!(json(&format!("ip -j link show {device}"))[0]["operstate"], "DOWN");
            let busy = |what: &str| {
                let taken = busctl_as(&[], &format!("call {NAME} {} {PORT} OpenTap", path(&port)));
                let said = String::from_utf8_lossy(&taken.stderr).into_owned();
                assert!(!taken.status.success() && said.contains("held open by a process already"), "{queues} {what}: {said}");
            };
            let mut reader = Reader::start(&port);
            reader.told();
            busy("over the bus");
            drop(reader);
            let holder = LastUser::of(&device, queues);
            busy("by name, without carrier");
            holder.end();
            Reader::start(&port).told();
            fixture.detach(&server, &port);
        }
    });
}

#[test]
fn of_many_who_ask_at_once_one_gets_the_tap() {
    in_netns(|| {
        let (_bus, mut fixture) = with_bus(Policy::Shipped, "");
        let network = fixture.usual_network();
        for queues in [1, 2] {
            let server = vm_of_nobody(&mut fixture, queues);
            let port = fixture.attach_to(&server, &network);
            let mut readers: Vec<Reader> = (0..6).map(|_| Reader::start(&port)).collect();
            let with: Vec<bool> = readers.iter_mut().map(|reader| reader.1.next().is_some()).collect();
            assert_eq!(with.iter().filter(|with| **with).count(), 1, "{queues}: {with:?}");
            drop(readers);
            fixture.detach(&server, &port);
        }
    });
}
