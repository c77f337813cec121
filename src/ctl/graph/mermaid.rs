//! The graph as a Mermaid flowchart (mermaid.js.org/syntax/flowchart.html), which trackers and wikis draw.

use std::fmt::Write;

use super::{Graph, Tone};

/// A flowchart from left to right: uplinks, bridges, ports, guests; a subgraph to each network.
pub fn render(graph: &Graph) -> String {
    let mut text = String::from("flowchart LR\n");
    for tone in [Tone::Good, Tone::Waiting, Tone::Bad] {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  classDef {} stroke:{1},color:{1}", class(tone), tone.colour());
    }
    for (at, network) in graph.networks.iter().enumerate() {
        let _ = writeln!(text, "  subgraph n{at} [{}]", quoted(&[&format!("network {}", network.name)]));
        let _ = writeln!(text, "    b{at}[{}]", quoted(&[network.bridge_label()]));
        for (number, port) in network.ports.iter().enumerate() {
            let label = quoted(&[&port.name, &port.device, &port.addresses, &port.condition()]);
            let _ = writeln!(text, "    p{at}_{number}[{label}]:::{}\n    b{at} --- p{at}_{number}", class(port.tone()));
        }
        text.push_str("  end\n");
        for (number, uplink) in network.uplinks.iter().enumerate() {
            let _ = writeln!(text, "  u{at}_{number}[/{}/] --- b{at}", quoted(&[uplink]));
        }
    }
    for (at, guest) in graph.guests.iter().enumerate() {
        let _ = writeln!(text, "  g{at}({})", quoted(&[&guest.name, &guest.kind]));
    }
    for (at, network) in graph.networks.iter().enumerate() {
        for (number, guest) in network.ports.iter().enumerate().filter_map(|(number, port)| Some((number, port.guest?))) {
            let _ = writeln!(text, "  p{at}_{number} --- g{guest}");
        }
    }
    text
}

fn class(tone: Tone) -> &'static str {
    match tone {
        Tone::Good => "good",
        Tone::Waiting => "waiting",
        Tone::Bad => "bad",
    }
}

/// A label of lines. All but letters, digits and plain punctuation are numbered entities, which the language writes with `#`.
fn quoted(lines: &[&str]) -> String {
    let escape = |line: &&&str| -> String {
        line.chars()
            .map(|character| match character {
                ' ' | '.' | ',' | ':' | '-' | '_' | '/' => character.to_string(),
                character if character.is_alphanumeric() => character.to_string(),
                character => format!("#{};", u32::from(character)),
            })
            .collect()
    };
    let lines: Vec<String> = lines.iter().filter(|line| !line.is_empty()).map(|line| escape(&line)).collect();
    format!("\"{}\"", lines.join("<br/>"))
}
