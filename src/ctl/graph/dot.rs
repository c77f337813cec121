//! The graph in Graphviz's language (graphviz.org/doc/info/lang.html).

use std::fmt::Write;

use super::Graph;

/// A digraph from left to right: uplinks, bridges, ports, guests; a cluster to each network.
pub fn render(graph: &Graph) -> String {
    let mut text = String::from("digraph nicd {\n  rankdir=LR;\n  node [shape=box, fontname=\"sans-serif\", fontsize=10];\n");
    for (at, network) in graph.networks.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  subgraph \"cluster_{at}\" {{\n    label={};", quoted(&format!("network {}", network.name)));
        let _ = writeln!(text, "    bridge{at} [label={}, shape=box3d];", quoted(network.bridge_label()));
        for (number, port) in network.ports.iter().enumerate() {
            let label =
                quoted(&[&port.name, &port.device, &port.addresses, &port.condition()].map(|line| line.as_str()).join("\n"));
            let colour = port.tone().colour();
            let _ = writeln!(text, "    port{at}_{number} [label={label}, color=\"{colour}\", fontcolor=\"{colour}\"];");
            let _ = writeln!(text, "    bridge{at} -> port{at}_{number} [dir=none];");
        }
        text.push_str("  }\n");
        for (number, uplink) in network.uplinks.iter().enumerate() {
            let _ = writeln!(text, "  uplink{at}_{number} [label={}, shape=cds];", quoted(uplink));
            let _ = writeln!(text, "  uplink{at}_{number} -> bridge{at} [dir=none];");
        }
    }
    for (at, guest) in graph.guests.iter().enumerate() {
        let label = quoted(&format!("{}\n{}", guest.name, guest.kind));
        let _ = writeln!(text, "  guest{at} [label={label}, style=rounded];");
    }
    for (at, network) in graph.networks.iter().enumerate() {
        for (number, guest) in network.ports.iter().enumerate().filter_map(|(number, port)| Some((number, port.guest?))) {
            let _ = writeln!(text, "  port{at}_{number} -> guest{guest} [dir=none];");
        }
    }
    text.push_str("}\n");
    text
}

/// A string of the language.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}
