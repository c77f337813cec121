//! What is attached to what on this host, as a picture: networks with their bridges and uplinks, ports, guests.
//!
//! [`Graph::of`] makes it of the daemon's objects; each format is a function of it. Texts come from clients: each format escapes them.

mod dot;
mod mermaid;
mod svg;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::args::GraphFormat;
use super::table::harmless;
use super::views::plain;

/// Networks and guests of this host.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Graph {
    networks: Vec<Network>,
    guests: Vec<Guest>,
}

/// A network with its bridge and its ports.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Network {
    name: String,
    /// None where there is none yet.
    bridge: Option<String>,
    /// The bridge's members that are no port's.
    uplinks: Vec<String>,
    ports: Vec<Port>,
}

/// A port.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Port {
    name: String,
    device: String,
    addresses: String,
    status: String,
    reason: String,
    /// Which of the graph's guests has it.
    guest: Option<usize>,
}

/// A guest with at least one port.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Guest {
    name: String,
    kind: String,
}

/// Whether a status is good, in transition or bad; it has a colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tone {
    Good,
    Waiting,
    Bad,
}

impl Tone {
    fn colour(self) -> &'static str {
        match self {
            Self::Good => "#2e7d32",
            Self::Waiting => "#b26a00",
            Self::Bad => "#c62828",
        }
    }
}

impl Port {
    fn tone(&self) -> Tone {
        match self.status.as_str() {
            "ACTIVE" => Tone::Good,
            "ERROR" => Tone::Bad,
            _ => Tone::Waiting,
        }
    }

    /// The status in words, with its reason.
    fn condition(&self) -> String {
        if self.reason.is_empty() { self.status.clone() } else { format!("{}: {}", self.status, self.reason) }
    }
}

impl Network {
    fn bridge_label(&self) -> &str {
        self.bridge.as_deref().unwrap_or("no bridge yet")
    }
}

impl Graph {
    /// The graph of these objects; `members` says which links are ports of a bridge.
    pub fn of(networks: &[Value], ports: &[Value], servers: &[Value], members: impl Fn(&str) -> Vec<String>) -> Self {
        let by_id: BTreeMap<String, &Value> = servers.iter().map(|server| (plain(&server["id"]), server)).collect();
        let mut graph = Self::default();
        // Networks may have one bridge.
        let devices: BTreeSet<String> = ports.iter().map(|port| plain(&port["binding:vif_details"]["device"])).collect();
        let mut guests = BTreeMap::new();
        for network in networks {
            let its = ports.iter().filter(|port| port["network_id"] == network["id"]);
            let mut made = Vec::new();
            for port in its {
                let server = plain(&port["device_id"]);
                let guest = (!server.is_empty()).then(|| {
                    *guests.entry(server.clone()).or_insert_with(|| {
                        graph.guests.push(guest(&server, by_id.get(&server).copied()));
                        graph.guests.len() - 1
                    })
                });
                made.push(port_of(port, guest));
            }
            made.sort_by(|one, other| one.name.cmp(&other.name));
            // What it is called on this host, or how it was asked for where it is not there.
            let names = [&network["nicd:device"], &network["nicd:bridge"]];
            let bridge = names.map(plain).into_iter().find(|name| !name.is_empty());
            let links = bridge.as_deref().map(&members).unwrap_or_default();
            let uplinks = links.into_iter().filter(|link| !devices.contains(link)).map(|link| uplink(network, &link)).collect();
            graph.networks.push(Network {
                name: called(network),
                bridge: bridge.map(|name| harmless(&name)),
                uplinks,
                ports: made,
            });
        }
        graph
    }

    /// The picture as text.
    pub fn render(&self, format: GraphFormat) -> String {
        match format {
            GraphFormat::Dot => dot::render(self),
            GraphFormat::Svg => svg::render(self),
            GraphFormat::Mermaid => mermaid::render(self),
        }
    }
}

/// A link in a network's bridge, with what it leads to where that is a VLAN or a tunnel.
fn uplink(network: &Value, link: &str) -> String {
    let (vlan, below) = (plain(&network["provider:segmentation_id"]), plain(&network["nicd:uplink"]));
    match vlan.is_empty() || below.is_empty() || below == link {
        true => harmless(link),
        false if plain(&network["provider:network_type"]) == "vxlan" => harmless(&format!("{link}, VXLAN {vlan} on {below}")),
        false => harmless(&format!("{link}, VLAN {vlan} on {below}")),
    }
}

fn port_of(port: &Value, guest: Option<usize>) -> Port {
    let ips = port["fixed_ips"].as_array().into_iter().flatten().map(|fixed| plain(&fixed["ip_address"]));
    Port {
        name: called(port),
        device: harmless(&plain(&port["binding:vif_details"]["device"])),
        addresses: harmless(&ips.collect::<Vec<_>>().join(", ")),
        status: harmless(&plain(&port["status"])),
        reason: harmless(&plain(&port["nicd:reason"])),
        guest,
    }
}

fn guest(id: &str, server: Option<&Value>) -> Guest {
    match server {
        Some(server) => Guest { name: called(server), kind: harmless(&plain(&server["guest"]["kind"])) },
        None => Guest { name: id.chars().take(8).collect(), kind: String::new() },
    }
}

/// Its name, or the first digits of its id.
fn called(object: &Value) -> String {
    let name = plain(&object["name"]);
    if name.is_empty() { plain(&object["id"]).chars().take(8).collect() } else { harmless(&name) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Two networks, three ports, two guests; names that a format would have to escape.
    fn graph() -> Graph {
        let networks = [
            // Asked for by an altname of br0.
            json!({"id": "n1", "name": "blue", "nicd:bridge": "lan", "nicd:device": "br0"}),
            json!({"id": "n2", "name": "<r&d> \"x\"", "nicd:bridge": null, "nicd:device": "nbr2"}),
        ];
        let port = |id: &str, network: &str, server: &str, status: &str, reason: &str| {
            json!({"id": id, "name": "", "network_id": network, "device_id": server, "status": status, "nicd:reason": reason,
                "fixed_ips": [{"ip_address": "192.0.2.7"}], "binding:vif_details": {"device": format!("nicd{id}")}})
        };
        let ports = [
            port("11111111-a", "n1", "s1", "ACTIVE", ""),
            port("22222222-b", "n1", "s2", "DOWN", "no_carrier"),
            port("33333333-c", "n2", "s1", "ERROR", "bridge_full"),
        ];
        let servers = [
            json!({"id": "s1", "name": "web", "guest": {"kind": "vm"}}),
            json!({"id": "s2", "name": "", "guest": {"kind": "netns"}}),
        ];
        Graph::of(&networks, &ports, &servers, |bridge| match bridge {
            "br0" => vec!["eth1".to_owned(), "nicd11111111-a".to_owned()],
            _ => Vec::new(),
        })
    }

    #[test]
    fn members_without_a_port_are_uplinks() {
        let graph = graph();
        let uplinks: Vec<&[String]> = graph.networks.iter().map(|network| network.uplinks.as_slice()).collect();
        assert_eq!(uplinks, [&["eth1".to_owned()][..], &[]]);
        let bridges: Vec<&str> = graph.networks.iter().map(Network::bridge_label).collect();
        assert_eq!(bridges, ["br0", "nbr2"]);
        assert_eq!(graph.networks[1].ports[0].guest, Some(0), "one guest, two NICs");
    }

    #[test]
    fn each_format_has_every_object_its_status_and_no_raw_text() {
        for format in [GraphFormat::Dot, GraphFormat::Svg, GraphFormat::Mermaid] {
            let text = graph().render(format);
            for part in ["blue", "br0", "eth1", "11111111", "192.0.2.7", "ACTIVE", "no_carrier", "bridge_full", "web"] {
                assert!(text.contains(part), "{format:?}: {part} in {text}");
            }
            // Within a string of Graphviz only quotation marks and backslashes mean anything.
            assert!(format == GraphFormat::Dot || !text.contains("<r&d>"), "{format:?}: {text}");
            assert!(!text.contains(" \"x\""), "{format:?}: {text}");
        }
    }

    #[test]
    fn a_vlan_device_is_told_with_its_uplink() {
        let network = json!({"id": "n", "nicd:device": "nbr1", "provider:segmentation_id": 101, "nicd:uplink": "eth1"});
        let graph = Graph::of(&[network], &[], &[], |_| vec!["nvl1".to_owned()]);
        assert_eq!(graph.networks[0].uplinks, ["nvl1, VLAN 101 on eth1"]);
        let network = json!({"id": "n", "nicd:device": "nbr1", "provider:network_type": "vxlan", "provider:segmentation_id": 5000,
            "nicd:uplink": "eth1"});
        let graph = Graph::of(&[network], &[], &[], |_| vec!["nvx1".to_owned()]);
        assert_eq!(graph.networks[0].uplinks, ["nvx1, VXLAN 5000 on eth1"]);
    }

    #[test]
    fn an_empty_host_is_a_picture_too() {
        for format in [GraphFormat::Dot, GraphFormat::Svg, GraphFormat::Mermaid] {
            assert!(Graph::default().render(format).lines().count() > 1, "{format:?}");
        }
    }

    #[test]
    fn rows_of_a_large_picture_do_not_overlap() {
        let networks = [json!({"id": "n", "name": "blue", "nicd:bridge": "br0"})];
        let ports: Vec<Value> = (0..200)
            .map(|number| {
                json!({"id": format!("{number:08}"), "network_id": "n", "device_id": format!("s{number:03}"), "status": "ACTIVE",
                    "fixed_ips": [{"ip_address": "192.0.2.7"}], "binding:vif_details": {"device": format!("nicd{number}")}})
            })
            .collect();
        let graph = Graph::of(&networks, &ports, &[], |_| Vec::new());
        let boxes = svg::boxes(&graph);
        assert_eq!(boxes.len(), 1 + 200 + 200);
        for (index, one) in boxes.iter().enumerate() {
            assert!(boxes[..index].iter().all(|other| !one.overlaps(other)), "{one:?}");
        }
    }
}
