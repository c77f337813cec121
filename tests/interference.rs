//! Random interference: for a while another program makes random changes to nicd's devices. Two seconds later the devices match
//! their records again, and nicd has not touched other links.
//!
//! 20 s; `NICD_DRILL=60` for longer, `NICD_SEED` for the same again.

#![allow(clippy::unwrap_used)] // helpers too: a failed one is a failed test

#[path = "common/daemon.rs"]
mod daemon;
#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/kernel_view.rs"]
mod kernel_view;
#[path = "common/netns.rs"]
mod netns;

use std::time::{Duration, Instant};

use fixture::{Fixture, foreign_bridge, text};
use kernel_view::{filtered_ports, has_flag, links, try_link};
use netns::{Guest, in_netns, run, try_run};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

/// How soon everything is as recorded.
const SOON: Duration = Duration::from_secs(2);

/// How soon a port is put back that was cut off because somebody kept changing its MAC.
const CUT_OFF: Duration = Duration::from_secs(14);

/// The operator's bridge.
const BR0: &str = "br0";

/// A port, and the guest it is of where that is a namespace.
struct Port {
    id: String,
    device: String,
    bridge: String,
    guest: Option<usize>,
}

/// What the neighbour does.
#[derive(Debug, Clone, Copy)]
enum Deed {
    OutOfItsBridge,
    IntoAnother,
    Down,
    Mac,
    Mtu,
    Alias,
    Altname,
    Learning,
    AddressGeneration,
    Rename,
    Away,
    Delete,
    BridgeDown,
    BridgeMtu,
    BridgeDeleted,
    NamespaceAnew,
    Entry,
    Ruleset,
    Set,
    Element,
}

const DEEDS: [Deed; 20] = [
    Deed::OutOfItsBridge,
    Deed::IntoAnother,
    Deed::Down,
    Deed::Mac,
    Deed::Mtu,
    Deed::Alias,
    Deed::Altname,
    Deed::Learning,
    Deed::AddressGeneration,
    Deed::Rename,
    Deed::Away,
    Deed::Delete,
    Deed::BridgeDown,
    Deed::BridgeMtu,
    Deed::BridgeDeleted,
    Deed::NamespaceAnew,
    Deed::Entry,
    Deed::Ruleset,
    Deed::Set,
    Deed::Element,
];

/// Sets of `table bridge nicd`.
const SETS: [&str; 4] = ["guarded", "macs", "hosts4", "dropped_mac"];

struct Drill {
    fixture: Fixture,
    guests: Vec<Option<Guest>>,
    ports: Vec<Port>,
    dice: StdRng,
}

impl Drill {
    fn new(seed: u64) -> Self {
        foreign_bridge(BR0, 1500);
        foreign_bridge("other", 1500);
        run("ip link add stranger type veth peer name friend");
        run("ip link set stranger master other up");
        run("ip netns add away");
        let mut fixture = Fixture::start();
        let (agents, operators) = (fixture.usual_network(), fixture.network_on(BR0));
        let (mut guests, mut ports) = (Vec::new(), Vec::new());
        for n in 0..8 {
            let network = if n % 2 == 0 { &agents } else { &operators };
            let (guest, server) = match n < 4 {
                true => {
                    let (guest, server) = fixture.guest(&format!("g{n}"));
                    guests.push(Some(guest));
                    (Some(guests.len() - 1), server)
                }
                false => (None, fixture.vm()),
            };
            let id = fixture.attach_to(&server, network);
            let details = fixture.port(&id)["binding:vif_details"].clone();
            ports.push(Port { device: text(&details["device"]), bridge: text(&details["bridge"]), id, guest });
        }
        Self { fixture, guests, ports, dice: StdRng::seed_from_u64(seed) }
    }

    /// One deed to one port. What it is done to may just be gone, as nicd mends meanwhile.
    fn strike(&mut self) -> Deed {
        let deed = DEEDS[self.dice.random_range(0..DEEDS.len())];
        let port = &self.ports[self.dice.random_range(0..self.ports.len())];
        let (mark, bridge) = (format!("nicd-{}", port.id), port.bridge.clone());
        let to = |what: &str| _ = try_run(&format!("ip link set dev {mark} {what}"));
        match deed {
            Deed::OutOfItsBridge => to("nomaster"),
            Deed::IntoAnother => to("master other"),
            Deed::Down => to("down"),
            Deed::Mac => to("address 02:00:00:00:00:77"),
            Deed::Mtu => to("mtu 1300"),
            Deed::Alias => to("alias mine"),
            Deed::Altname => _ = try_run(&format!("ip link property del dev {mark} altname {mark}")),
            Deed::AddressGeneration => to("addrgenmode eui64"),
            Deed::Rename => to(&format!("name r{:08x}", self.dice.random::<u32>())),
            // Its other end is still in the guest: who takes one end away ends the pair.
            Deed::Away => {
                to("netns away");
                _ = try_run(&format!("ip -n away link del {mark}"));
            }
            Deed::Delete => _ = try_run(&format!("ip link del {mark}")),
            Deed::Learning => {
                let name = try_link(&mark).map(|link| text(&link["ifname"])).unwrap_or_default();
                _ = try_run(&format!("bridge link set dev {name} learning on"));
            }
            Deed::Entry => {
                let mac = text(&self.fixture.port(&port.id)["mac_address"]);
                let name = try_link(&mark).map(|link| text(&link["ifname"])).unwrap_or_default();
                _ = try_run(&format!("bridge fdb del {mac} dev {name} master"));
            }
            Deed::Ruleset => _ = try_run("nft flush ruleset"),
            // The kernel refuses to delete a set that rules ask.
            Deed::Set => {
                let set = SETS[self.dice.random_range(0..SETS.len())];
                _ = try_run(&format!("nft flush table bridge nicd ; delete set bridge nicd {set}"));
            }
            Deed::Element => {
                let index = try_link(&mark).map(|link| link["ifindex"].clone()).unwrap_or_default();
                _ = try_run(&format!("nft delete element bridge nicd guarded {{ {index} }}"));
            }
            Deed::BridgeDown if bridge != BR0 => _ = try_run(&format!("ip link set dev {bridge} down")),
            Deed::BridgeMtu if bridge != BR0 => _ = try_run(&format!("ip link set dev {bridge} mtu 1400")),
            Deed::BridgeDeleted => {
                _ = try_run(&format!("ip link del {bridge}"));
                if bridge == BR0 {
                    foreign_bridge(BR0, 1500);
                }
            }
            Deed::NamespaceAnew => {
                if let Some(place) = port.guest {
                    let guest = self.guests[place].take().unwrap();
                    let name = guest.name.clone();
                    guest.end();
                    self.guests[place] = Some(Guest::new(&name));
                }
            }
            // The operator's bridge is the operator's: its settings are nobody else's business.
            Deed::BridgeDown | Deed::BridgeMtu => {}
        }
        deed
    }

    /// What is not as recorded.
    fn wrong(&mut self) -> Option<String> {
        let (shown, filtered) = (self.fixture.ports(), filtered_ports());
        for port in &self.ports {
            let Some(now) = shown.iter().find(|one| one["id"] == port.id.as_str()) else {
                return Some(format!("{} is not listed", port.id));
            };
            let status = if port.guest.is_some() { "ACTIVE" } else { "DOWN" };
            let mark = format!("nicd-{}", port.id);
            let Some(device) = try_link(&mark) else { return Some(format!("{mark} is not there: {now}")) };
            let host_mac = format!("fe{}", &text(&now["mac_address"])[2..]);
            let slave = &device["linkinfo"]["info_slave_data"];
            let facts = [
                ("status", now["status"] == status),
                ("bridge", device["master"] == port.bridge.as_str()),
                ("up", has_flag(&device, "UP")),
                ("MAC", device["address"] == host_mac.as_str()),
                ("MTU", device["mtu"] == 1500),
                ("alias", device["ifalias"].as_str().is_some_and(|alias| alias.starts_with("nicd "))),
                ("learning", slave["learning"] == false),
                ("filter", filtered.contains(&port.id)),
                ("address generation", device["inet6_addr_gen_mode"] == "none"),
                ("bridge's state", try_link(&port.bridge).is_some_and(|bridge| has_flag(&bridge, "UP") && bridge["mtu"] == 1500)),
            ];
            if let Some((fact, _)) = facts.iter().find(|(_, right)| !right) {
                return Some(format!("{fact} of {} ({}): {now} {device}", port.id, port.device));
            }
            if let Some(guest) = port.guest.and_then(|place| self.guests[place].as_ref())
                && !guest.ip("-4 addr").contains(&text(&now["fixed_ips"][0]["ip_address"]))
            {
                return Some(format!("the guest {} has not its address: {}", guest.name, guest.ip("addr")));
            }
        }
        None
    }
}

/// What is nobody's of nicd, without what changes by itself.
fn strangers() -> Vec<Value> {
    let ours =
        |link: &Value| link["altnames"].as_array().is_some_and(|names| names.iter().any(|name| text(name).starts_with("nicd-")));
    let named = |link: &&Value| [Some("other"), Some("stranger"), Some("friend"), Some("lo")].contains(&link["ifname"].as_str());
    let all = links();
    assert!(all.iter().all(|link| ours(link) || named(&link) || link["ifname"] == BR0), "left over: {all:#?}");
    all.iter()
        .filter(named)
        .map(|link| json!([link["ifname"], link["ifindex"], link["address"], link["mtu"], link["master"], has_flag(link, "UP")]))
        .collect()
}

#[test]
fn two_seconds_after_a_hostile_neighbour_everything_is_as_recorded() {
    in_netns(|| {
        let given = |name: &str| std::env::var(name).ok().and_then(|number| number.parse().ok());
        let seed = given("NICD_SEED").unwrap_or_else(rand::random);
        let lasts = Duration::from_secs(given("NICD_DRILL").unwrap_or(20));
        eprintln!("NICD_SEED={seed}");
        let mut drill = Drill::new(seed);
        let before = strangers();
        let start = Instant::now();
        let mut deeds = Vec::new();
        while start.elapsed() < lasts {
            deeds.push(drill.strike());
            // A neighbour has its own pace.
            std::thread::sleep(Duration::from_millis(drill.dice.random_range(0..60)));
        }
        let last = Instant::now();
        // A port that is cut off is put back once its MAC has stood still; the rest is right by then.
        let mut settled = last;
        while let Some(wrong) = drill.wrong() {
            let cut_off = drill.fixture.ports().iter().any(|port| port["nicd:reason"] == "contested_mac");
            if cut_off {
                settled = Instant::now();
            }
            let in_time = settled.elapsed() < SOON && last.elapsed() < CUT_OFF + SOON;
            assert!(in_time, "after {} deeds, the last ones {:?}: {wrong}", deeds.len(), &deeds[deeds.len() - 5..]);
            std::thread::sleep(Duration::from_millis(20));
        }
        let verified = drill.fixture.api.get("/nicd/v1/verify").expect(200);
        assert_eq!(verified["deviations"], json!([]), "after {} deeds", deeds.len());
        eprintln!("{} deeds, right again after {:?}", deeds.len(), last.elapsed());
        assert_eq!(strangers(), before);
    });
}
