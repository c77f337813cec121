//! The graph as an SVG drawing (SVG 1.1) that needs no other program.
//!
//! Four columns: uplinks, bridges, ports, guests. A bridge is as high as its ports are together, so its lines to them are level and do
//! not cross. A guest is as near to its ports as those before it let it be.

use std::fmt::Write;

use super::{Graph, Network, Port};

/// Height of a row, with the space below it, in pixels.
const ROW: usize = 40;

/// Height of a box of two lines.
const BOX: usize = 32;

/// Space between networks, with the heading of the next.
const GAP: usize = 36;

/// Space around the drawing.
const MARGIN: usize = 16;

/// Width of a character of the fixed-width font, at most.
const CHARACTER: usize = 7;

/// The columns: left edge and width.
const UPLINKS: (usize, usize) = (MARGIN, 130);
const BRIDGES: (usize, usize) = (MARGIN + 170, 150);
const PORTS: (usize, usize) = (MARGIN + 370, 330);
const GUESTS: (usize, usize) = (MARGIN + 800, 170);
const WIDTH: usize = GUESTS.0 + GUESTS.1 + MARGIN;

/// A rectangle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rect {
    x: usize,
    y: usize,
    width: usize,
    height: usize,
}

impl Rect {
    fn in_column((x, width): (usize, usize), y: usize, height: usize) -> Self {
        Self { x, y, width, height }
    }

    fn middle(self) -> usize {
        self.y + self.height / 2
    }

    fn right(self) -> usize {
        self.x + self.width
    }

    /// Whether two have a point in common.
    #[cfg(test)]
    pub fn overlaps(self, other: &Self) -> bool {
        self.x < other.right() && other.x < self.right() && self.y < other.y + other.height && other.y < self.y + self.height
    }
}

/// Where everything is.
struct Layout {
    networks: Vec<Place>,
    guests: Vec<Rect>,
    height: usize,
}

/// Where a network's parts are.
struct Place {
    heading: usize,
    bridge: Rect,
    uplinks: Vec<Rect>,
    ports: Vec<Rect>,
}

impl Layout {
    fn of(graph: &Graph) -> Self {
        let mut y = MARGIN;
        let networks: Vec<Place> = graph.networks.iter().map(|network| place(network, &mut y)).collect();
        let mut wanted: Vec<(usize, usize)> = Vec::new();
        for guest in 0..graph.guests.len() {
            let its = graph.networks.iter().zip(&networks).flat_map(|(network, place)| network.ports.iter().zip(&place.ports));
            let middles: Vec<usize> = its.filter(|(port, _)| port.guest == Some(guest)).map(|(_, rect)| rect.middle()).collect();
            wanted.push((middles.iter().sum::<usize>() / middles.len().max(1), guest));
        }
        wanted.sort_unstable();
        let mut guests = vec![Rect::in_column(GUESTS, 0, BOX); graph.guests.len()];
        let mut free = MARGIN + GAP;
        for (middle, guest) in wanted {
            let top = middle.saturating_sub(BOX / 2).max(free);
            free = top + ROW;
            if let Some(rect) = guests.get_mut(guest) {
                rect.y = top;
            }
        }
        Self { networks, guests, height: y.max(free) + MARGIN }
    }
}

/// Places a network at `y`, which moves below it.
fn place(network: &Network, y: &mut usize) -> Place {
    let heading = *y + GAP - 12;
    let top = *y + GAP;
    let column = |column, count: usize| (0..count).map(|row| Rect::in_column(column, top + row * ROW, BOX)).collect::<Vec<_>>();
    let rows = network.ports.len().max(network.uplinks.len()).max(1);
    *y = top + rows * ROW;
    let bridge = Rect::in_column(BRIDGES, top, rows * ROW - (ROW - BOX));
    Place { heading, bridge, uplinks: column(UPLINKS, network.uplinks.len()), ports: column(PORTS, network.ports.len()) }
}

/// All boxes of the drawing.
#[cfg(test)]
pub fn boxes(graph: &Graph) -> Vec<Rect> {
    let Layout { networks, guests, .. } = Layout::of(graph);
    let parts = networks.into_iter().flat_map(|place| place.uplinks.into_iter().chain(place.ports).chain([place.bridge]));
    parts.chain(guests).collect()
}

/// The drawing.
pub fn render(graph: &Graph) -> String {
    let layout = Layout::of(graph);
    let height = layout.height;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"networks, bridges, ports and guests\" font-family=\"monospace\" font-size=\"11\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    let headings = [(UPLINKS, "uplinks"), (BRIDGES, "bridges"), (PORTS, "ports"), (GUESTS, "guests")];
    for ((x, _), heading) in headings {
        text_at(&mut text, (x, MARGIN), heading, "#757575");
    }
    for (network, place) in graph.networks.iter().zip(&layout.networks) {
        text_at(&mut text, (BRIDGES.0, place.heading), &cut(&format!("network {}", network.name), PORTS), "#000000");
        for (uplink, rect) in network.uplinks.iter().zip(&place.uplinks) {
            line(&mut text, (rect.right(), rect.middle()), (place.bridge.x, rect.middle()), "#424242");
            labelled(&mut text, *rect, UPLINKS, [uplink, ""], "#424242");
        }
        labelled(&mut text, place.bridge, BRIDGES, [network.bridge_label(), ""], "#1565c0");
        for (port, rect) in network.ports.iter().zip(&place.ports) {
            let colour = port.tone().colour();
            line(&mut text, (place.bridge.right(), rect.middle()), (rect.x, rect.middle()), colour);
            if let Some(guest) = port.guest.and_then(|guest| layout.guests.get(guest)) {
                curve(&mut text, (rect.right(), rect.middle()), (guest.x, guest.middle()), colour);
            }
            let [first, second] = lines(port);
            labelled(&mut text, *rect, PORTS, [&first, &second], colour);
        }
    }
    for (guest, rect) in graph.guests.iter().zip(&layout.guests) {
        labelled(&mut text, *rect, GUESTS, [&guest.name, &guest.kind], "#424242");
    }
    text.push_str("</svg>\n");
    text
}

/// A port in two lines: what it is and how it is; where it is.
fn lines(port: &Port) -> [String; 2] {
    let condition = port.condition();
    [format!("{} {condition}", port.name), format!("{} {}", port.device, port.addresses)]
}

/// A box with up to two lines, and all of its text for who points at it.
fn labelled(text: &mut String, rect: Rect, column: (usize, usize), lines: [&str; 2], colour: &str) {
    let Rect { x, y, width, height } = rect;
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "<g><title>{}</title><rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"4\" fill=\"#fafafa\" \
         stroke=\"{colour}\" stroke-width=\"1.5\"/></g>",
        escaped(lines.join(" ").trim())
    );
    let first = if lines[1].is_empty() { rect.middle() + 4 } else { rect.middle() - 3 };
    text_at(text, (x + 8, first), &cut(lines[0], column), colour);
    if !lines[1].is_empty() {
        text_at(text, (x + 8, rect.middle() + 11), &cut(lines[1], column), "#424242");
    }
}

fn text_at(text: &mut String, (x, y): (usize, usize), words: &str, colour: &str) {
    let _ = writeln!(text, "<text x=\"{x}\" y=\"{y}\" fill=\"{colour}\">{}</text>", escaped(words));
}

fn line(text: &mut String, (x, y): (usize, usize), (to_x, to_y): (usize, usize), colour: &str) {
    let _ = writeln!(text, "<line x1=\"{x}\" y1=\"{y}\" x2=\"{to_x}\" y2=\"{to_y}\" stroke=\"{colour}\"/>");
}

fn curve(text: &mut String, (x, y): (usize, usize), (to_x, to_y): (usize, usize), colour: &str) {
    let bend = usize::midpoint(x, to_x);
    let _ = writeln!(text, "<path d=\"M{x} {y} C{bend} {y} {bend} {to_y} {to_x} {to_y}\" fill=\"none\" stroke=\"{colour}\"/>");
}

/// As much of a text as a column has room for.
fn cut(text: &str, (_, width): (usize, usize)) -> String {
    let room = (width - 16) / CHARACTER;
    match text.chars().count() > room {
        true => text.chars().take(room - 1).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

/// A text in XML, without the two characters above control characters that it may not have (XML 1.0, 2.2).
fn escaped(text: &str) -> String {
    text.replace(['\u{fffe}', '\u{ffff}'], "")
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
