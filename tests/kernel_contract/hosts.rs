//! The two hosts under test, read and changed independently of nicd's code.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nicd::kernel::fake::Fake;
use nicd::kernel::linux::Linux;
use nicd::kernel::tap;
use nicd::model::{PortId, names};
use nicd::plan::{Address, BridgeExtras, Kind};
use nix::errno::Errno;
use serde_json::Value;

use crate::host::{Change, Nic, NicChange, TestHost};
use crate::netns::{Guest, json, run, set_alias};

/// The in-memory host.
#[derive(Default)]
pub struct Memory(Fake);

impl TestHost for Memory {
    type Kernel = Fake;

    fn kernel(&self) -> Fake {
        self.0.clone()
    }

    fn add(&self, name: &str, kind: Kind, mtu: u32) -> u32 {
        let index = self.0.add_link(name, kind, mtu);
        self.0.follow_mtu(index);
        index
    }

    fn fill(&self, bridge: &str, ports: usize) {
        for number in 0..ports {
            let name = format!("p{number}");
            self.add(&name, Kind::Other, 1500);
            self.change(&name, Change::In(bridge));
        }
    }

    fn delete(&self, name: &str) {
        self.0.delete_link(name);
    }

    fn change(&self, name: &str, change: Change<'_>) {
        let bridge = match change {
            Change::In(bridge) => self.0.links().iter().find(|link| link.name == bridge).map(|link| link.index),
            _ => None,
        };
        self.0.meddle(name, |link| match change {
            Change::Name(name) => link.name = name.to_owned(),
            Change::Altname(name) => link.altnames.push(name.to_owned()),
            Change::NoAltname(name) => link.altnames.retain(|altname| altname != name),
            Change::Alias(alias) => link.alias = Some(alias.to_owned()).filter(|alias| !alias.is_empty()),
            Change::Down => link.up = false,
            Change::Mtu(mtu) => link.mtu = mtu,
            Change::Mac(mac) => link.mac = Some(mac),
            Change::In(_) | Change::OutOfBridge => link.master = bridge,
            Change::Learning => link.bridge_port.iter_mut().for_each(|port| port.learning = true),
            Change::NoQdisc => link.to_guest = None,
            Change::AddressGeneration => link.v6_autoconf = true,
            Change::Extras => {
                link.extras = BridgeExtras { stp: true, multicast_snooping: true, vlan_filtering: false };
            }
            Change::NoEntry(mac) => link.fdb.iter_mut().for_each(|fdb| fdb.retain(|entry| entry.mac != mac)),
        });
    }

    fn add_netns(&self, name: &str) -> PathBuf {
        let path = Path::new("/run/netns").join(name);
        self.0.add_netns(&path);
        path
    }

    fn end_netns(&self, path: &Path) {
        self.0.remove_netns(path);
    }

    fn nic(&self, port: PortId, _: &Path, name: &str) -> Nic {
        let guest = self.0.guest(port).expect("the guest's end");
        assert_eq!(guest.name.as_str(), name);
        let addresses = guest.addresses.iter().map(|Address { ip, prefix }| format!("{ip}/{prefix}")).collect();
        Nic { up: guest.up, addresses, routes: guest.routes.iter().map(|route| route.destination.to_string()).collect() }
    }

    fn change_nic(&self, port: PortId, _: &Path, _: &str, change: NicChange<'_>) {
        self.0.meddle_guest(port, |guest| match change {
            NicChange::Name(name) => guest.name = name.parse().unwrap(),
            NicChange::Address(address) => guest.addresses.push(crate::guests::address(address)),
        });
    }

    fn open_tap(&mut self, port: PortId) {
        self.0.set_carrier(port, true);
    }

    fn close_tap(&mut self, port: PortId) {
        self.0.set_carrier(port, false);
    }
}

/// The running Linux, in a namespace of the test's own.
#[derive(Default)]
pub struct Running {
    open: HashMap<PortId, OwnedFd>,
}

impl TestHost for Running {
    type Kernel = Linux;

    fn kernel(&self) -> Linux {
        Linux::default()
    }

    fn add(&self, name: &str, kind: Kind, mtu: u32) -> u32 {
        let kind = match kind {
            Kind::Bridge => "type bridge",
            Kind::Veth => &format!("type veth peer name {name}-peer"),
            Kind::Tap => unreachable!("a tap is made by its opener"),
            Kind::Vlan => unreachable!("a kernel without 802.1Q has none"),
            Kind::Vxlan => unreachable!("an op makes it"),
            Kind::Other => "type ifb",
        };
        run(&format!("ip link add {name} mtu {mtu} {kind}"));
        run(&format!("ip link set {name} up"));
        u32::try_from(json(&format!("ip -j link show dev {name}"))[0]["ifindex"].as_u64().unwrap()).unwrap()
    }

    fn fill(&self, bridge: &str, ports: usize) {
        let pairs = (0..ports.div_ceil(2)).map(|n| format!("link add a{n} master {bridge} type veth peer name b{n}\n"));
        let others = (0..ports / 2).map(|n| format!("link set b{n} master {bridge}\n"));
        std::fs::write("/run/batch", pairs.chain(others).collect::<String>()).unwrap();
        run("ip -batch /run/batch");
    }

    fn delete(&self, name: &str) {
        run(&format!("ip link del {name}"));
    }

    fn change(&self, name: &str, change: Change<'_>) {
        let set = |what: &str| _ = run(&format!("ip link set {name} {what}"));
        match change {
            // The kernel renames what is up as well.
            Change::Name(other) => set(&format!("name {other}")),
            Change::Altname(altname) => _ = run(&format!("ip link property add dev {name} altname {altname}")),
            Change::NoAltname(altname) => _ = run(&format!("ip link property del dev {name} altname {altname}")),
            Change::Alias(alias) => set_alias(name, alias),
            Change::Down => set("down"),
            Change::Mtu(mtu) => set(&format!("mtu {mtu}")),
            Change::Mac(mac) => set(&format!("address {mac}")),
            Change::In(bridge) => set(&format!("master {bridge}")),
            Change::OutOfBridge => set("nomaster"),
            Change::Learning => _ = run(&format!("bridge link set dev {name} learning on")),
            Change::NoQdisc => _ = run(&format!("tc qdisc del dev {name} root")),
            Change::AddressGeneration => set("addrgenmode eui64"),
            Change::Extras => set("type bridge stp_state 1 mcast_snooping 1"),
            Change::NoEntry(mac) => _ = run(&format!("bridge fdb del {mac} dev {name} master")),
        }
    }

    fn add_netns(&self, name: &str) -> PathBuf {
        Guest::new(name).path
    }

    fn end_netns(&self, path: &Path) {
        guest(path).end();
    }

    fn nic(&self, _: PortId, path: &Path, name: &str) -> Nic {
        let guest = guest(path);
        let nic = guest.ip_json(&format!("addr show dev {name}"))[0].clone();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let address = |address: &Value| format!("{}/{}", text(&address["local"]), address["prefixlen"]);
        let routes = |family: &str| {
            let shown = guest.ip_json(&format!("{family} route show dev {name} proto static"));
            let destination = |route: &Value| match (text(&route["dst"]).as_str(), family) {
                ("default", "-4") => "0.0.0.0/0".to_owned(),
                ("default", _) => "::/0".to_owned(),
                (host, "-4") if !host.contains('/') => format!("{host}/32"),
                (shown, _) => shown.to_owned(),
            };
            shown.as_array().unwrap().iter().map(destination).collect::<BTreeSet<_>>()
        };
        let up = nic["flags"].as_array().unwrap().contains(&"UP".into());
        let addresses = nic["addr_info"].as_array().unwrap().iter().map(address).collect();
        Nic { up, addresses, routes: routes("-4").union(&routes("-6")).cloned().collect() }
    }

    fn change_nic(&self, _: PortId, path: &Path, name: &str, change: NicChange<'_>) {
        match change {
            NicChange::Name(other) => guest(path).ip(&format!("link set {name} name {other}")),
            NicChange::Address(address) => guest(path).ip(&format!("addr add {address} dev {name}")),
        };
    }

    fn open_tap(&mut self, port: PortId) {
        // What another test has just forked holds the tap open until it runs its program.
        let deadline = Instant::now() + Duration::from_secs(5);
        let opened = loop {
            match tap::attach(&names::port_device(port, 0), 1, true) {
                Err(error) if error.errno == Errno::EBUSY && Instant::now() < deadline => std::thread::yield_now(),
                other => break other.unwrap(),
            }
        };
        self.open.insert(port, opened);
    }

    fn close_tap(&mut self, port: PortId) {
        self.open.remove(&port);
    }
}

fn guest(path: &Path) -> Guest {
    Guest { name: path.file_name().unwrap().to_str().unwrap().to_owned(), path: path.to_owned() }
}
