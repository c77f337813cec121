//! Two virtual machines with Debian's kernel and a busybox, and a namespace, on two networks of nicd's: all addresses and MTUs by nicd.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::debian::{Release, kernel, vmlinuz};
use crate::fixture::{Fixture, text};
use crate::guest::{Console, image};
use crate::machine::turn;
use crate::netns::{in_netns, is_root, run};

/// The networks' MTUs, in the order of each guest's NICs, with what of a ping fits into a frame, over IPv4 and over IPv6.
const NETWORKS: [(&str, [&str; 2]); 2] = [("1400", ["1372", "1352"]), ("9000", ["8972", "8952"])];

/// What pings over each.
const PINGS: [&str; 2] = ["ping", "ping6"];

/// The first process: it loads drivers, has each NIC configured, then takes lines of script from the console.
const INIT: &str = r#"#!/bin/sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
while read -r module; do insmod "/modules/$module"; done < /modules/order
stty -echo -F /dev/ttyS0
ip link set lo up
for nic in eth0 eth1; do ip link set $nic up; udhcpc -i $nic -s /lease -q -n -t 30 -T 1 -O mtu; done >/dev/null 2>&1
echo; echo READY
while read -r line; do eval "$line"; echo "<<$?>>"; done </dev/ttyS0 >/dev/ttyS0 2>&1
"#;

/// What udhcpc calls with what it was told.
const LEASE: &str = r#"#!/bin/sh
[ "$1" = bound ] || exit 0
ip link set "$interface" mtu "$mtu"
ip address add "$ip/$mask" dev "$interface"
echo "$ip/$mask $mtu $router" >"/told-$interface"
"#;

/// A virtual machine that runs, with its console; killed when dropped.
struct Vm {
    qemu: Child,
    console: Console,
    /// Its ports, in the order of the networks.
    ports: Vec<String>,
    addresses: Vec<[String; 2]>,
}

/// A port's addresses: by DHCP, and the one that the guest's kernel makes.
fn addresses(fixture: &mut Fixture, port: &str) -> [String; 2] {
    let shown = fixture.port(port)["fixed_ips"].clone();
    [0, 1].map(|at| text(&shown[at]["ip_address"]))
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

impl Vm {
    /// Starts one with a NIC on each network.
    fn start(fixture: &mut Fixture, name: &str, networks: &[String], kernel: &Path, image: &Path) -> Self {
        let server = fixture.vm();
        let ports: Vec<String> = networks.iter().map(|network| fixture.attach_to(&server, network)).collect();
        let socket = format!("/run/console-{name}");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64", "-M", "q35,accel=tcg", "-m", "160", "-nodefaults"]);
        command.args(["-display", "none", "-monitor", "none", "-serial", "chardev:console", "-chardev"]);
        command.arg(format!("socket,id=console,path={socket},server=on,wait=off"));
        for (at, port) in ports.iter().enumerate() {
            let (device, mac) = (fixture.device(port), text(&fixture.port(port)["mac_address"]));
            command.args(["-netdev", &format!("tap,id=n{at},ifname={device},script=no,downscript=no")]);
            command.args(["-device", &format!("virtio-net-pci,netdev=n{at},mac={mac},romfile=")]);
        }
        command.args(["-append", "console=ttyS0 quiet panic=-1", "-kernel"]).arg(vmlinuz(kernel)).arg("-initrd").arg(image);
        let qemu = command.stdin(Stdio::null()).stderr(Stdio::inherit()).spawn().expect("QEMU");
        let console = Console::connect(&socket);
        let addresses = ports.iter().map(|port| addresses(fixture, port)).collect();
        Self { qemu, console, ports, addresses }
    }

    /// It has been told what its ports say.
    fn is_configured(&mut self) {
        self.console.until(|line| line == "READY");
        for (at, (mtu, _)) in NETWORKS.iter().enumerate() {
            let told = self.console.run(&format!("cat /told-eth{at} /sys/class/net/eth{at}/mtu"));
            let [address, made] = &self.addresses[at];
            assert_eq!(told, [format!("{address}/24 {mtu} 192.0.{at}.1"), (*mtu).to_owned()]);
            // Its kernel makes the other one of what it is told by a router advertisement, and probes it for a second.
            let is_there = format!("ip -6 address show dev eth{at} | grep -v tentative | grep -q {made}/64");
            let wait = format!("n=0; until {is_there}; do n=$((n+1)); [ $n -lt 1000 ] || break; usleep 10000; done; {is_there}");
            self.console.run(&wait);
            assert_eq!(self.console.run(&format!("cat /proc/sys/net/ipv6/conf/eth{at}/mtu")), [*mtu]);
        }
    }
}

#[test]
fn virtual_machines_get_their_addresses_and_mtus_and_reach_each_other() {
    if !is_root() {
        return;
    }
    // One machine at a time, and while there is a network to fetch from.
    let (_turn, kernel) = (turn(), kernel(Release::Bookworm));
    in_netns(move || {
        let image = image(&kernel, &[("init", INIT), ("lease", LEASE)], "virtio_pci virtio_net af_packet");
        let mut fixture = Fixture::start();
        let mut networks = Vec::new();
        for (at, (mtu, _)) in NETWORKS.iter().enumerate() {
            let network = fixture.network(json!({"mtu": mtu.parse::<u32>().unwrap()}));
            fixture.subnet(&network, &format!("192.0.{at}.0/24"));
            let modes = json!({"network_id": network, "cidr": format!("fd00:{at}::/64"), "gateway_ip": "fe80::1",
                "ipv6_address_mode": "slaac", "ipv6_ra_mode": "slaac"});
            fixture.subnet_with(modes);
            networks.push(network);
        }
        let begin = Instant::now();
        let mut vms = ["one", "two"].map(|name| Vm::start(&mut fixture, name, &networks, &kernel, &image));
        let (guest, server) = fixture.guest("three");
        let third: Vec<[String; 2]> = networks
            .iter()
            .map(|network| {
                let port = fixture.attach_to(&server, network);
                addresses(&mut fixture, &port)
            })
            .collect();
        vms.iter_mut().for_each(Vm::is_configured);
        eprintln!("two machines are up after {:?}", begin.elapsed());
        vms.iter().flat_map(|vm| vm.ports.clone()).for_each(|port| _ = fixture.wait_status(&port, "ACTIVE"));

        let [one, two] = &mut vms;
        for (at, (_, sizes)) in NETWORKS.iter().enumerate() {
            for (family, (ping, size)) in PINGS.iter().zip(sizes).enumerate() {
                let [first, second, third] = [&one.addresses, &two.addresses, &third].map(|all| &all[at][family]);
                for address in [second, third] {
                    one.console.run(&format!("{ping} -c 1 -W 5 -s {size} {address}"));
                }
                two.console.run(&format!("{ping} -c 1 -W 5 -s {size} {third}"));
                for address in [first, second] {
                    run(&format!("ip netns exec {} busybox {ping} -c 1 -W 5 -s {size} {address}", guest.name));
                }
            }
        }

        // It begins anew, on the same tap, and is told the same.
        one.console.say("reboot -f");
        one.is_configured();
        for (ping, address) in PINGS.iter().zip(&two.addresses[0]) {
            one.console.run(&format!("{ping} -c 1 -W 5 {address}"));
        }
        let ports = one.ports.clone();
        assert!(ports.iter().all(|port| fixture.port(port)["status"] == "ACTIVE"));

        let killed = Instant::now();
        one.qemu.kill().unwrap();
        ports.iter().for_each(|port| _ = fixture.events.wait_status(port, "DOWN"));
        eprintln!("killed → DOWN: {:?}; all took {:?}", killed.elapsed(), begin.elapsed());
        // The kernel closes its descriptors when it has freed its memory.
        assert!(killed.elapsed() < Duration::from_millis(500), "{:?}", killed.elapsed());
    });
}
