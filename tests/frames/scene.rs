//! Two guests in namespaces, a virtual machine, the host and the wire on one bridge of an operator's.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Value, json};

use crate::bytes::Mac;
use crate::classes::Host;
use crate::fixture::{Fixture, foreign_bridge, text};
use crate::netns::{Guest, json as said, run};
use crate::traffic::{Nic, Party, Traffic};

pub const BRIDGE: &str = "br-op";

/// A guest's port.
#[derive(Debug)]
pub struct Port {
    pub id: String,
    pub device: String,
    pub host: Host,
}

#[derive(Debug)]
pub struct Scene {
    pub fixture: Fixture,
    pub network: String,
    pub wire: Guest,
    pub guests: Vec<(Guest, Port)>,
    pub vm: Port,
    /// The virtual machine's end.
    tap: Nic,
}

fn octets(mac: &str) -> Mac {
    let octets: Vec<u8> = mac.split(':').map(|octet| u8::from_str_radix(octet, 16).unwrap()).collect();
    octets.try_into().unwrap()
}

/// The addresses of a port as Neutron shows it.
pub fn host_of(port: &Value) -> Host {
    let ips = port["fixed_ips"].as_array().unwrap().iter().map(|ip| text(&ip["ip_address"]).parse().unwrap());
    let (mut ip4, mut ip6) = (None, None);
    for ip in ips {
        match ip {
            IpAddr::V4(ip) => ip4 = Some(ip),
            IpAddr::V6(ip) => ip6 = Some(ip),
        }
    }
    Host { mac: octets(port["mac_address"].as_str().unwrap()), ip4: ip4.unwrap(), ip6: ip6.unwrap() }
}

impl Scene {
    pub fn start() -> Self {
        foreign_bridge(BRIDGE, 1500);
        if let Ok(vlan) = std::env::var("NICD_VLAN") {
            run(&format!("ip link set {BRIDGE} type bridge vlan_default_pvid {vlan}"));
            run(&format!("ip link set {BRIDGE} type bridge vlan_filtering 1"));
        }
        // Else what stands behind a packet is cut off.
        for layer in ["iptables", "ip6tables", "arptables"] {
            let _ = std::fs::write(format!("/proc/sys/net/bridge/bridge-nf-call-{layer}"), "0");
        }
        let wire = Guest::new("wire");
        run("ip link add up0 type veth peer eth0 netns wire");
        run(&format!("ip link set up0 master {BRIDGE} addrgenmode none up"));
        wire.ip("link set eth0 address 02:00:00:00:77:01 addrgenmode none up");
        let mut fixture = Fixture::start();
        let network = fixture.network_on(BRIDGE);
        fixture.subnet(&network, "2001:db8::/64");
        let guests = ["a", "b"].map(|name| {
            let (guest, server) = fixture.guest(name);
            let port = attach(&mut fixture, &server, &network);
            fixture.wait_status(&port.id, "ACTIVE");
            (guest, port)
        });
        let server = fixture.vm();
        let vm = attach(&mut fixture, &server, &network);
        // The bridge knows where the wire's host is.
        run("bridge fdb replace 02:00:00:00:77:01 dev up0 master static");
        let tap = Nic::of_tap(&vm.device);
        fixture.wait_status(&vm.id, "ACTIVE");
        Self { fixture, network, wire, guests: guests.into(), vm, tap }
    }

    /// Who there is: the guests, the virtual machine, the host and the wire.
    pub fn parties(&self) -> Vec<Party> {
        let host = |mac: [u8; 6], last: u8| Host {
            mac,
            ip4: [192, 0, 2, last].into(),
            ip6: format!("2001:db8::ff:{last:x}").parse().unwrap(),
        };
        vec![
            Party { name: "the first guest", host: self.guests[0].1.host },
            Party { name: "the second guest", host: self.guests[1].1.host },
            Party { name: "the virtual machine", host: self.vm.host },
            Party { name: "the host", host: host([2, 0, 0, 0, 0, 1], 241) },
            Party { name: "the wire", host: host([2, 0, 0, 0, 0x77, 1], 242) },
        ]
    }

    /// The first guest and the virtual machine send, all listen.
    pub fn traffic(&self) -> Traffic {
        self.traffic_of(&self.parties())
    }

    /// The same among others than there are.
    pub fn traffic_of(&self, parties: &[Party]) -> Traffic {
        let mut listeners = self.others();
        listeners.extend([(0, Nic::of_guest(&self.guests[0].0)), (2, self.tap.again())]);
        let senders = vec![(0, Some(Nic::of_guest(&self.guests[0].0))), (2, Some(self.tap.again()))];
        Traffic::new(parties, senders, listeners)
    }

    /// All but the first guest and the virtual machine.
    pub fn others(&self) -> Vec<(usize, Nic)> {
        vec![(1, Nic::of_guest(&self.guests[1].0)), (3, Nic::of(BRIDGE).unwrap()), (4, Nic::of_guest(&self.wire))]
    }

    /// What ports' frames were dropped for so far, all together, as `nft` lists it.
    pub fn dropped(&self) -> BTreeMap<String, u64> {
        let listed = said("nft -j list table bridge nicd");
        let sets = listed["nftables"].as_array().unwrap().iter().filter_map(|one| one.get("set"));
        let counted = sets.filter_map(|set| {
            let reason = set["name"].as_str()?.strip_prefix("dropped_")?.to_owned();
            let elements = set["elem"].as_array().into_iter().flatten();
            Some((reason, elements.map(|one| one["elem"]["counter"]["packets"].as_u64().unwrap()).sum()))
        });
        counted.filter(|(_, packets)| *packets > 0).collect()
    }

    /// Fills the sets in which the kernel counts and logs dropped frames, so that it finds no room for another device.
    pub fn fill_counters(&self) {
        let full: Vec<String> = (1..=32_768).map(|index| index.to_string()).collect();
        let full = full.join(", ");
        let listed = said("nft -j list sets bridge");
        let sets = listed["nftables"].as_array().unwrap().iter().filter_map(|one| one["set"]["name"].as_str());
        let counting = sets.filter(|name| *name == "logged" || name.starts_with("dropped_"));
        let fill = |set: &str| format!("flush set bridge nicd {set}\nadd element bridge nicd {set} {{ {full} }}\n");
        let script = std::env::temp_dir().join(format!("nicd-full-{}", std::process::id()));
        std::fs::write(&script, counting.map(fill).collect::<String>()).unwrap();
        run(&format!("nft -f {}", script.display()));
        std::fs::remove_file(script).unwrap();
    }

    /// How many elements each set has, but those that the kernel fills itself.
    pub fn elements(&self) -> BTreeMap<String, usize> {
        let listed = said("nft -j list table bridge nicd");
        let sets = listed["nftables"].as_array().unwrap().iter().filter_map(|one| one.get("set"));
        let all = sets.map(|set| (text(&set["name"]), set["elem"].as_array().map_or(0, Vec::len)));
        all.filter(|(name, _)| name != "logged" && !name.starts_with("dropped_")).collect()
    }
}

fn attach(fixture: &mut Fixture, server: &str, network: &str) -> Port {
    let id = fixture.attach(server, json!({ "net_id": network }));
    let host = host_of(&fixture.port(&id));
    Port { device: fixture.device(&id), host, id }
}
