//! Two virtual machines with Debian's kernel and a busybox, and a namespace, on two networks of nicd's: all addresses and MTUs by nicd.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::daemon::PATIENCE;
use crate::debian::{kernel, sh, vmlinuz};
use crate::fixture::{Fixture, text};
use crate::machine::prepared;
use crate::netns::{in_netns, is_root, run};

/// The networks' MTUs, in the order of each guest's NICs, with what of a ping fits into a frame.
const NETWORKS: [(&str, &str); 2] = [("1400", "1372"), ("9000", "8972")];

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

/// Makes the guests' first file system.
fn image(kernel: &Path) -> PathBuf {
    let root = Path::new("/run/guest");
    for folder in ["bin", "dev", "proc", "sys", "modules"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    symlink("busybox", root.join("bin/sh")).unwrap();
    for (name, script) in [("init", INIT), ("lease", LEASE)] {
        fs::write(root.join(name), script).unwrap();
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let script = format!(
        "for library in $(ldd /bin/busybox 2>/dev/null | grep -o '/[^ ]*'); do
             mkdir -p .$(dirname $library); cp -L $library .$library
         done
         version=$(ls {kernel}/lib/modules)
         for module in virtio_pci virtio_net af_packet; do
             modprobe -d {kernel} -S $version --show-depends $module | while read -r kind path rest; do
                 [ $kind = insmod ] || continue
                 grep -qx $(basename $path) modules/order 2>/dev/null && continue
                 cp $path modules/; basename $path >> modules/order
             done
         done
         find . | cpio --create --format=newc --quiet > /run/guest.cpio",
        kernel = kernel.display()
    );
    sh(root, &script);
    "/run/guest.cpio".into()
}

/// A virtual machine that runs, with its console; killed when dropped.
struct Vm {
    qemu: Child,
    console: BufReader<UnixStream>,
    /// Its ports, in the order of the networks.
    ports: Vec<String>,
    addresses: Vec<String>,
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
        let mut qemu = command.stdin(Stdio::null()).stderr(Stdio::inherit()).spawn().expect("QEMU");
        let deadline = Instant::now() + PATIENCE;
        let console = loop {
            match UnixStream::connect(&socket) {
                Ok(console) => break console,
                Err(error) => assert!(qemu.try_wait().unwrap().is_none() && Instant::now() < deadline, "{error}"),
            }
            // A process that begins to listen makes no event.
            std::thread::sleep(Duration::from_millis(2));
        };
        console.set_read_timeout(Some(PATIENCE * 4)).unwrap();
        let addresses = ports.iter().map(|port| text(&fixture.port(port)["fixed_ips"][0]["ip_address"])).collect();
        Self { qemu, console: BufReader::new(console), ports, addresses }
    }

    /// What its console says up to a line that is wanted, which is the last one.
    fn until(&mut self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = Vec::new();
            let read = self.console.read_until(b'\n', &mut line);
            assert!(read.is_ok_and(|length| length > 0), "the guest says no more: {lines:?}");
            lines.push(String::from_utf8_lossy(&line).trim().to_owned());
            if lines.last().is_some_and(|line| wanted(line)) {
                return lines;
            }
        }
    }

    /// Runs a line of script inside, which succeeds; what it says.
    fn run(&mut self, script: &str) -> Vec<String> {
        self.say(script);
        let mut said = self.until(|line| line.starts_with("<<"));
        assert_eq!(said.pop().as_deref(), Some("<<0>>"), "{script}: {said:?}");
        said
    }

    fn say(&mut self, script: &str) {
        writeln!(self.console.get_mut(), "{script}").unwrap();
    }

    /// It has been told what its ports say.
    fn is_configured(&mut self) {
        self.until(|line| line == "READY");
        for (at, (mtu, _)) in NETWORKS.iter().enumerate() {
            let told = self.run(&format!("cat /told-eth{at} /sys/class/net/eth{at}/mtu"));
            let address = &self.addresses[at];
            assert_eq!(told, [format!("{address}/24 {mtu} 192.0.{at}.1"), (*mtu).to_owned()]);
        }
    }
}

#[test]
fn virtual_machines_get_their_addresses_and_mtus_and_reach_each_other() {
    if !is_root() {
        return;
    }
    // One machine at a time, and while there is a network to fetch from.
    let ((_, _turn), kernel) = (prepared(), kernel());
    in_netns(move || {
        let image = image(&kernel);
        let mut fixture = Fixture::start();
        let mut networks = Vec::new();
        for (at, (mtu, _)) in NETWORKS.iter().enumerate() {
            let network = fixture.network(json!({"mtu": mtu.parse::<u32>().unwrap()}));
            fixture.subnet(&network, &format!("192.0.{at}.0/24"));
            networks.push(network);
        }
        let begin = Instant::now();
        let mut vms = ["one", "two"].map(|name| Vm::start(&mut fixture, name, &networks, &kernel, &image));
        let (guest, server) = fixture.guest("three");
        let third: Vec<String> = networks
            .iter()
            .map(|network| {
                let port = fixture.attach_to(&server, network);
                text(&fixture.port(&port)["fixed_ips"][0]["ip_address"])
            })
            .collect();
        vms.iter_mut().for_each(Vm::is_configured);
        eprintln!("two machines are up after {:?}", begin.elapsed());
        vms.iter().flat_map(|vm| vm.ports.clone()).for_each(|port| _ = fixture.wait_status(&port, "ACTIVE"));

        let [one, two] = &mut vms;
        for (at, (_, size)) in NETWORKS.iter().enumerate() {
            for address in [&two.addresses[at], &third[at]] {
                one.run(&format!("ping -c 1 -W 5 -s {size} {address}"));
            }
            two.run(&format!("ping -c 1 -W 5 -s {size} {}", third[at]));
            for address in [&one.addresses[at], &two.addresses[at]] {
                run(&format!("ip netns exec {} busybox ping -c 1 -W 5 -s {size} {address}", guest.name));
            }
        }

        // It begins anew, on the same tap, and is told the same.
        one.say("reboot -f");
        one.is_configured();
        one.run(&format!("ping -c 1 -W 5 {}", two.addresses[0]));
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
