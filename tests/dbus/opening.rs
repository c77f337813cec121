//! `OpenTap`: a real QEMU without privileges on the descriptors, and who else holds them.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::bench::Bench;
use crate::bus::{NAME, PORT, Policy, busctl_as, path, property, with_bus};
use crate::netns::{in_netns, run};

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

fn vm_of_nobody(bench: &mut Bench, queues: u32) -> String {
    bench.server(json!({"kind": "vm", "queues": queues, "owner": {"uid": NOBODY}}))
}

#[test]
fn qemu_without_privileges_runs_on_the_descriptors_and_its_death_is_seen() {
    in_netns(|| {
        let (_bus, mut bench) = with_bus(Policy::Shipped, "");
        let network = bench.usual_network();
        for (queues, fds, device) in [(1, "fd", "virtio-net-pci"), (2, "fds", "virtio-net-pci,mq=on,vectors=6")] {
            let server = vm_of_nobody(&mut bench, queues);
            let port = bench.attach_to(&server, &network);
            let mac = bench.port(&port)["mac_address"].as_str().unwrap().to_owned();
            for _ in 0..2 {
                let qemu = Qemu::start(&port, &mac, fds, device);
                bench.wait_status(&port, "ACTIVE");
                assert_eq!(property(&port, "Status"), json!("ACTIVE"));
                let taken = busctl_as(&[], &format!("call {NAME} {} {PORT} OpenTap", path(&port)));
                let said = String::from_utf8_lossy(&taken.stderr).into_owned();
                assert!(!taken.status.success() && said.contains("held open by a process already"), "{said}");
                bench.wait_status(&port, "ACTIVE");
                // Nobody else holds it: not the bus, not nicd.
                qemu.kill();
                bench.wait_status(&port, "DOWN");
            }
            // As in the kernel: as many queues as asked for are gone again, and the device is still there.
            let device = bench.device(&port);
            let link = run(&format!("ip -j -d link show {device}"));
            assert!(link.contains("\"persist\":true"), "{link}");
            bench.detach(&server, &port);
        }
    });
}

#[test]
fn what_cannot_be_opened_says_why() {
    in_netns(|| {
        let (_bus, mut bench) = with_bus(Policy::Shipped, "");
        let network = bench.usual_network();
        let open = |port: &str| {
            let output = busctl_as(&[], &format!("call {NAME} {} {PORT} OpenTap", path(port)));
            assert!(!output.status.success());
            String::from_utf8_lossy(&output.stderr).into_owned()
        };
        let (_guest, server) = bench.guest("a");
        let veth = bench.attach_to(&server, &network);
        assert!(open(&veth).contains("has no tap"), "{}", open(&veth));
        let unbound = bench.create_port(json!({"network_id": network}));
        assert!(open(&unbound).contains("has no tap"), "{}", open(&unbound));
        let many = bench.server(json!({"kind": "vm", "queues": 17}));
        let many = bench.attach_to(&many, &network);
        assert!(open(&many).contains("17 queues") && open(&many).contains("16"), "{}", open(&many));
        // The refusal has not cost nicd its connection.
        assert_eq!(property(&many, "Status"), json!("DOWN"));
        let most = bench.server(json!({"kind": "vm", "queues": 16}));
        let most = bench.attach_to(&most, &network);
        let opened = busctl_as(&[], &format!("call {NAME} {} {PORT} OpenTap", path(&most)));
        assert!(String::from_utf8_lossy(&opened.stdout).starts_with("ah 16 "), "{opened:?}");
        bench.wait_status(&most, "DOWN");
    });
}

#[test]
fn no_descriptor_of_a_tap_stays_with_nicd() {
    in_netns(|| {
        let (_bus, mut bench) = with_bus(Policy::Shipped, "");
        let network = bench.usual_network();
        let server = bench.server(json!({"kind": "vm", "queues": 4}));
        let port = bench.attach_to(&server, &network);
        let taps = |bench: &Bench| {
            let open = std::fs::read_dir(format!("/proc/{}/fd", bench.daemon.pid())).unwrap();
            open.filter(|entry| std::fs::read_link(entry.as_ref().unwrap().path()).is_ok_and(|to| to.ends_with("net/tun")))
                .count()
        };
        for _ in 0..50 {
            let opened = busctl_as(&[], &format!("call {NAME} {} {PORT} OpenTap", path(&port)));
            assert!(opened.status.success(), "{opened:?}");
            bench.wait_status(&port, "DOWN");
            // The caller may be done a moment before nicd is.
            let until = std::time::Instant::now() + crate::daemon::PATIENCE;
            while taps(&bench) > 0 {
                assert!(std::time::Instant::now() < until, "{} descriptors stay", taps(&bench));
            }
        }
    });
}
