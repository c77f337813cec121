//! A machine whose guest runs: Debian's kernel and a busybox. One boot for all of it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::debian::{Release, kernel, vmlinuz};
use crate::fixture::{Fixture, interfaces, text};
use crate::guest::{Console, image};
use crate::kernel_view::marked;
use crate::machine::{Machine, root_ports};
use crate::netns::{in_netns, is_root, run};
use crate::stopped::{attach, server};

/// How often a NIC is plugged and unplugged.
const ROUNDS: usize = 20;

/// The first process: it loads drivers, then takes lines of script from the console.
const INIT: &str = r#"#!/bin/sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
while read -r module; do insmod "/modules/$module"; done < /modules/order
ip link set lo up
stty -echo -F /dev/ttyS0
echo READY
while read -r line; do eval "$line"; echo "<<$?>>"; done </dev/ttyS0 >/dev/ttyS0 2>&1
"#;

/// Waits inside until the guest has this NIC, or no NIC any more.
fn nic(mac: Option<&str>) -> String {
    let there = match mac {
        Some(mac) => format!("grep -qs {mac} /sys/class/net/*/address"),
        None => "! ls -d /sys/class/net/eth* 2>/dev/null".to_owned(),
    };
    format!("n=0; until {there}; do n=$((n+1)); [ $n -lt 1000 ] || break; usleep 10000; done; {there}")
}

#[test]
fn a_guest_that_runs_gets_nics_and_lets_them_go() {
    if !is_root() {
        return;
    }
    // While there is a network to fetch from.
    let kernel = kernel(Release::Bookworm);
    in_netns(move || {
        let image = image(&kernel, &[("init", INIT)], "virtio_pci virtio_net");
        let mut more = root_ports(2);
        more.extend(["-m", "256", "-cpu", "qemu64", "-serial", "chardev:console", "-append"].map(str::to_owned));
        more.push("console=ttyS0 quiet panic=-1".to_owned());
        more.extend(["-chardev".to_owned(), "socket,id=console,path=/run/console,server=on,wait=off".to_owned()]);
        more.extend(["-kernel".to_owned(), vmlinuz(&kernel).display().to_string()]);
        more.extend(["-initrd".to_owned(), image.display().to_string()]);
        let mut machine = Machine::start("three", "q35", &more);
        let mut guest = Console::connect("/run/console");
        let mut fixture = Fixture::start();
        let network = fixture.network(json!({"name": "blue"}));
        fixture.subnet(&network, "192.0.2.0/24");
        let (_peer, _, _) = fixture.active_guest("peer", &network);
        let peer = fixture.ports().iter().find(|port| port["status"] == "ACTIVE").unwrap()["fixed_ips"][0]["ip_address"].clone();
        let vm = server(&mut fixture, &machine.qmp, 1);
        guest.until(|line| line == "READY");

        let mut took = Vec::new();
        for round in 0..ROUNDS {
            let asked = Instant::now();
            let shown = attach(&mut fixture, &vm, &network).expect(200)["interfaceAttachment"].clone();
            assert_eq!(shown["port_state"], "ACTIVE");
            let (port, mac) = (text(&shown["port_id"]), text(&shown["mac_addr"]));
            guest.run(&nic(Some(&mac)));
            took.push(asked.elapsed());
            if round == 0 {
                pings(&mut fixture, &mut guest, &port, &text(&peer));
            }
            fixture.api.delete(&format!("{}/{port}", interfaces(&vm))).expect(202);
            fixture.events.wait_deleted(&port);
            guest.run(&nic(None));
        }
        took.sort();
        eprintln!("asked → seen in the guest, {ROUNDS} rounds: median {:?}, most {:?}", took[ROUNDS / 2], took[ROUNDS - 1]);
        assert!(machine.nics().is_empty());
        let kept: Vec<String> =
            fixture.events.seen.iter().filter(|event| event["reason"] == "guest_keeps_device").map(Value::to_string).collect();
        assert!(kept.is_empty(), "each let go in time: {kept:?}");

        // It reboots with its NIC, and nothing happens to the port.
        let port = fixture.attach_to(&vm, &network);
        assert_eq!(fixture.port(&port)["status"], "ACTIVE");
        let mac = text(&fixture.port(&port)["mac_address"]);
        guest.run(&nic(Some(&mac)));
        // Its tap is deleted under it: another is made, and the guest gets a NIC on that.
        run(&format!("ip link del {}", fixture.device(&port)));
        fixture
            .events
            .wait_for("mended", |event| event["port_id"] == *port && event["old"] != "ACTIVE" && event["new"] == "ACTIVE");
        guest.run(&nic(Some(&mac)));
        pings(&mut fixture, &mut guest, &port, &text(&peer));
        assert_eq!(machine.nics().len(), 1);

        while fixture.events.next(Duration::from_millis(50)).is_some() {}
        machine.ask("system_reset", json!({}));
        guest.until(|line| line == "READY");
        guest.run(&nic(Some(&mac)));
        pings(&mut fixture, &mut guest, &port, &text(&peer));
        assert_eq!(fixture.events.next(Duration::from_millis(50)), None);

        // It is killed while its link has been quiet for long: within 50 ms, as a kernel tells it.
        let killed = Instant::now();
        machine.kill();
        fixture.events.wait_status(&port, "DOWN");
        eprintln!("killed → DOWN: {:?}", killed.elapsed());
        assert!(killed.elapsed() < Duration::from_millis(500));
        fixture.api.delete(&format!("{}/{port}", interfaces(&vm))).expect(202);
        fixture.events.wait_deleted(&port);
        assert_eq!(marked().len(), 2, "the bridge and the peer: {:?}", marked());
    });
}

/// The guest gives its NIC the port's address, and reaches another guest.
fn pings(fixture: &mut Fixture, guest: &mut Console, port: &str, peer: &str) {
    let shown = fixture.port(port);
    let (address, mac) = (text(&shown["fixed_ips"][0]["ip_address"]), text(&shown["mac_address"]));
    let nic = guest.run(&format!("basename $(dirname $(grep -l {mac} /sys/class/net/*/address))")).pop().unwrap();
    guest.run(&format!("ip link set {nic} up && ip addr add {address}/24 dev {nic} && ping -c 1 -W 5 {peer}"));
    assert_eq!(guest.run(&format!("cat /sys/class/net/{nic}/carrier /sys/class/net/{nic}/mtu")), ["1", "1500"]);
    let address = shown["binding:vif_details"]["pci_address"].clone();
    let inside = guest.run(&format!("basename $(readlink -f /sys/class/net/{nic}/device/..)"));
    // A port that has just been plugged may not have an address yet; the guest gives it one.
    assert!(address.is_null() || json!(inside[0]) == address, "{address} {inside:?}");
}
