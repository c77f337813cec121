//! A real VMM without privileges: QEMU as an ordinary uid takes its tap by name, because the tap is its own.

use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::fixture::{Fixture, interfaces};
use crate::netns::in_netns;
use crate::taps::vm_with_tap;

/// Nobody in particular.
const USER: u32 = 65_534;

/// A QEMU that is stopped before its first instruction, as it has opened its tap by then; killed when dropped.
struct Qemu(Child);

impl Qemu {
    fn start(uid: u32, device: &str, queues: u16) -> Self {
        let mut command = Command::new("setpriv");
        command.args([&format!("--reuid={uid}"), &format!("--regid={uid}"), "--clear-groups", "--bounding-set=-all"]);
        command.args(["--inh-caps=-all", "--pdeathsig", "KILL", "--", "qemu-system-x86_64", "-M", "pc,accel=tcg", "-S"]);
        command.args(["-nodefaults", "-display", "none", "-monitor", "none", "-serial", "none", "-m", "32"]);
        command.args(["-netdev", &format!("tap,id=n0,ifname={device},script=no,downscript=no,queues={queues}")]);
        let many = if queues > 1 { format!(",mq=on,vectors={}", 2 * queues + 2) } else { String::new() };
        command.args(["-device", &format!("virtio-net-pci,netdev=n0,romfile={many}")]);
        Self(command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("QEMU"))
    }

    /// What it says when it cannot start.
    fn complaint(self) -> String {
        let mut child = self;
        let mut said = String::new();
        std::io::Read::read_to_string(&mut child.0.stderr.take().unwrap(), &mut said).unwrap();
        assert!(!child.0.wait().unwrap().success(), "it runs");
        said
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn qemu_as_an_ordinary_user_takes_its_tap_by_name() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let owned = json!({"kind": "vm", "owner": {"uid": USER, "gid": USER}});
        let (_, port, device) = vm_with_tap(&mut fixture, owned);
        let said = Qemu::start(1234, &device, 1).complaint();
        assert!(said.contains("could not configure /dev/net/tun") && said.contains("Operation not permitted"), "{said}");
        let qemu = Qemu::start(USER, &device, 1);
        fixture.events.wait_status(&port, "ACTIVE");
        // A second one finds it taken.
        let said = Qemu::start(USER, &device, 1).complaint();
        assert!(said.contains("Device or resource busy"), "{said}");
        drop(qemu);
        fixture.events.wait_status(&port, "DOWN");
        let _again = Qemu::start(USER, &device, 1);
        fixture.events.wait_status(&port, "ACTIVE");
    });
}

#[test]
fn qemu_opens_as_many_queues_as_the_tap_has() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let owned = |queues: u16| json!({"kind": "vm", "queues": queues, "owner": {"uid": USER}});
        let (_, port, device) = vm_with_tap(&mut fixture, owned(2));
        let qemu = Qemu::start(USER, &device, 2);
        fixture.events.wait_status(&port, "ACTIVE");
        drop(qemu);
        fixture.events.wait_status(&port, "DOWN");
        let network = fixture.network(json!({}));
        fixture.subnet(&network, "198.51.100.0/24");
        let single = fixture.server(owned(1));
        let made: Value =
            fixture.api.post(&interfaces(&single), &json!({"interfaceAttachment": {"net_id": network}})).expect(200);
        let device = fixture.device(made["interfaceAttachment"]["port_id"].as_str().unwrap());
        let said = Qemu::start(USER, &device, 2).complaint();
        assert!(said.contains("Invalid argument"), "{said}");
    });
}

impl Qemu {
    /// The processor time it has used so far, in clock ticks (proc_pid_stat(5)).
    fn ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }
}

#[test]
fn a_detach_under_a_running_qemu_leaves_it_idle_and_the_device_goes_with_it() {
    in_netns(|| {
        let mut fixture = Fixture::start();
        let (server, port, device) = vm_with_tap(&mut fixture, json!({"kind": "vm", "owner": {"uid": USER}}));
        let qemu = Qemu::start(USER, &device, 1);
        fixture.events.wait_status(&port, "ACTIVE");
        fixture.api.delete(&format!("{}/{port}", interfaces(&server))).expect(202);
        fixture.events.wait_for("why it stays", |event| event["reason"] == "guest_keeps_device");
        // What is tried: with its device deleted under it, it takes a whole processor from then on.
        let before = qemu.ticks();
        assert_eq!(fixture.events.next(std::time::Duration::from_secs(1)), None, "nothing happens to it");
        let used = qemu.ticks() - before;
        assert!(used < 30, "{used} ticks of 100 in a second");
        drop(qemu);
        fixture.events.wait_deleted(&port);
        assert!(crate::kernel_view::try_link(&device).is_none());
    });
}
