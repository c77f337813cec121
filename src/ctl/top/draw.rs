//! A screen of `top`, drawn into whatever ratatui draws on: the terminal, text, or a test's buffer.

use jiff::Zoned;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row as Line_, Table};

use super::table::{Key, Order, Rate, Row, Rows};
use crate::ctl::table::{Tone, harmless};

/// The lines above the first row, and those below the last.
const ABOVE: u16 = 5;
const BELOW: u16 = 1;

/// What is drawn.
#[derive(Debug, Default, Clone)]
pub struct Picture {
    /// What the daemon says of itself.
    pub agent: Agent,
    /// The ports.
    pub rows: Rows,
    /// When this was read.
    pub at: Option<Zoned>,
}

/// What the daemon says of itself, or why it says nothing.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Agent {
    /// `ok` or `degraded`.
    pub status: String,
    /// Its version.
    pub version: String,
    /// The host's name.
    pub host: String,
    /// How long it has run.
    pub up: String,
    /// Its problems: the word and what was seen.
    pub problems: Vec<(String, String)>,
    /// Since when it cannot be reached, and the error.
    pub gone: Option<(String, String)>,
}

/// How it is looked at.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Look {
    /// The order of the rows.
    pub order: Order,
    /// The first row that is seen.
    pub first: usize,
    /// Whether what is seen stays.
    pub paused: bool,
}

/// A column: its title, its width, the width of the screen from which there is room for it, and its text.
struct Column {
    title: &'static str,
    width: u16,
    from: u16,
    to_the_right: bool,
    text: fn(&Row) -> String,
}

const fn left(title: &'static str, width: u16, from: u16, text: fn(&Row) -> String) -> Column {
    Column { title, width, from, to_the_right: false, text }
}

const fn right(title: &'static str, width: u16, from: u16, text: fn(&Row) -> String) -> Column {
    Column { title, width, from, to_the_right: true, text }
}

/// The columns before the last, WHY, which has the room that is left.
const COLUMNS: [Column; 13] = [
    left("PORT", 12, 0, |row| row.name.clone()),
    left("SERVER", 10, 60, |row| row.server.clone()),
    left("NETWORK", 12, 110, |row| row.network.clone()),
    left("DEVICE", 15, 150, |row| row.device.clone()),
    left("STATUS", 6, 0, |row| row.status.clone()),
    right("FROM", 5, 40, |row| rate(row, |rates| rates.from_guest, |rate| rate.bits)),
    right("PKT/S", 5, 120, |row| rate(row, |rates| rates.from_guest, |rate| rate.packets)),
    right("TO", 5, 40, |row| rate(row, |rates| rates.to_guest, |rate| rate.bits)),
    right("PKT/S", 5, 120, |row| rate(row, |rates| rates.to_guest, |rate| rate.packets)),
    right("DROP/S", 6, 50, |row| row.rates.as_ref().map_or_else(|| "-".to_owned(), |rates| short(rates.drops()))),
    right("DROPPED", 7, 120, |row| row.dropped.map_or_else(|| "-".to_owned(), |frames| short(frames as f64))),
    right("LIMIT FROM", 10, 130, |row| limit(row.limit_from_guest)),
    right("TO", 5, 130, |row| limit(row.limit_to_guest)),
];

/// Both limits in one column, where there is no room for two.
const LIMITS: Column = right("LIMITS", 11, 70, |row| match (row.limit_from_guest, row.limit_to_guest) {
    (None, None) => "-".to_owned(),
    (from, to) => format!("{}/{}", limit(from), limit(to)),
});

/// How much wider names may be on a wide screen.
const WIDE: u16 = 150;

fn columns(width: u16) -> Vec<&'static Column> {
    let mut columns: Vec<&Column> = COLUMNS.iter().filter(|column| width >= column.from).collect();
    if (LIMITS.from..130).contains(&width) {
        columns.push(&LIMITS);
    }
    columns
}

/// How many rows fit on a screen of this height.
pub fn room(height: u16) -> usize {
    usize::from(height.saturating_sub(ABOVE + BELOW))
}

/// How high a screen is that has so many rows.
pub fn height(rows: usize) -> u16 {
    u16::try_from(rows).unwrap_or(u16::MAX - ABOVE - BELOW).saturating_add(ABOVE + BELOW)
}

/// Draws a screen.
pub fn draw(frame: &mut Frame, picture: &Picture, look: &Look) {
    let [head, table, foot] =
        Layout::vertical([Constraint::Length(ABOVE - 1), Constraint::Fill(1), Constraint::Length(BELOW)]).areas(frame.area());
    frame.render_widget(Paragraph::new(header(picture, head.width)), head);
    let rows = picture.rows.sorted(look.order);
    draw_rows(frame, table, &rows, look);
    frame.render_widget(Paragraph::new(footer(rows.len(), room(frame.area().height), look)), foot);
}

fn draw_rows(frame: &mut Frame, area: Rect, rows: &[&Row], look: &Look) {
    let columns = columns(area.width);
    let aligned = |column: &Column, text: String| {
        let line = Line::from(text);
        Cell::from(if column.to_the_right { line.right_aligned() } else { line })
    };
    let titles = columns.iter().map(|column| aligned(column, column.title.to_owned()));
    let titles = Line_::new(titles.chain([Cell::from("WHY")])).style(Style::new().add_modifier(Modifier::REVERSED));
    let shown = rows.iter().skip(look.first).take(usize::from(area.height));
    let shown = shown.map(|row| {
        let cells = columns.iter().map(|column| {
            let text = harmless(&(column.text)(row));
            let cell = aligned(column, cut(text, width_of(column, area.width)));
            if column.title == "STATUS" { cell.style(colour(Tone::of_status(&row.status))) } else { cell }
        });
        let why = Cell::from(harmless(&row.why())).style(if row.drops() > 0.0 { colour(Tone::Bad) } else { Style::new() });
        Line_::new(cells.chain([why]))
    });
    let widths = columns.iter().map(|column| Constraint::Length(width_of(column, area.width)));
    let table = Table::new(shown, widths.chain([Constraint::Fill(1)])).header(titles).column_spacing(1);
    frame.render_widget(table, area);
}

fn width_of(column: &Column, screen: u16) -> u16 {
    match column.title {
        "PORT" | "SERVER" | "NETWORK" if screen >= WIDE => 20,
        _ => column.width,
    }
}

fn colour(tone: Tone) -> Style {
    match tone {
        Tone::Plain => Style::new(),
        Tone::Good => Style::new().fg(Color::Green),
        Tone::Waiting => Style::new().fg(Color::Yellow),
        Tone::Bad => Style::new().fg(Color::Red),
    }
}

fn header(picture: &Picture, width: u16) -> Vec<Line<'static>> {
    let agent = &picture.agent;
    let of = |text: &str| harmless(text);
    let mut first = vec![
        Span::raw(format!("nicd {} on {}: ", of(&agent.version), of(&agent.host))),
        Span::styled(of(&agent.status), colour(Tone::of_status(&agent.status))),
        Span::raw(format!(", up {}", of(&agent.up))),
    ];
    let clock = picture.at.as_ref().map(|at| at.strftime("%H:%M:%S").to_string()).unwrap_or_default();
    let used: usize = first.iter().map(Span::width).sum();
    let gap = usize::from(width).saturating_sub(used + clock.len()).max(1);
    first.push(Span::raw(format!("{:gap$}{clock}", "")));

    let mut ports = vec![Span::raw(format!("{} ports", picture.rows.number()))];
    for (status, number) in picture.rows.statuses() {
        ports.push(Span::raw(", "));
        ports.push(Span::styled(format!("{number} {}", of(status)), colour(Tone::of_status(status))));
    }
    let sum = picture.rows.sum();
    let rates = format!(
        "from guests {}bit/s, to guests {}bit/s, dropped {}/s",
        spaced(sum.from_guest.bits),
        spaced(sum.to_guest.bits),
        short(sum.drops())
    );
    vec![Line::from(first), Line::from(ports), Line::from(rates), news(agent)]
}

/// The line below the counts: that the daemon is gone, or its first problem.
fn news(agent: &Agent) -> Line<'static> {
    let bad = |text: String| Line::styled(harmless(&text), colour(Tone::Bad));
    match (&agent.gone, agent.problems.as_slice()) {
        (Some((since, error)), _) => bad(format!("nicd is not there since {since}, what is shown is from before: {error}")),
        (None, []) => Line::default(),
        (None, [(reason, detail)]) => bad(format!("{reason}: {detail}")),
        (None, [(reason, detail), more @ ..]) => bad(format!("{reason} and {} more (nicctl status): {detail}", more.len())),
    }
}

fn footer(rows: usize, room: usize, look: &Look) -> Line<'static> {
    let last = (look.first + room).min(rows);
    let shown = if rows == 0 { "no port is attached".to_owned() } else { format!("{}-{last} of {rows}", look.first + 1) };
    let reversed = if look.order.reversed { " (reversed)" } else { "" };
    let mut spans = vec![Span::raw(format!(
        "{shown}, by {}{reversed}   q quit  s sort  r reverse  space pause  arrows scroll",
        look.order.key.as_str()
    ))];
    if look.paused {
        spans.insert(0, Span::styled("PAUSED ", Style::new().add_modifier(Modifier::REVERSED)));
    }
    Line::from(spans)
}

fn rate(row: &Row, direction: fn(&super::table::Rates) -> Rate, unit: fn(&Rate) -> f64) -> String {
    row.rates.as_ref().map_or_else(|| "-".to_owned(), |rates| short(unit(&direction(rates))))
}

fn limit(kbps: Option<u64>) -> String {
    kbps.map_or_else(|| "-".to_owned(), |kbps| short(kbps as f64 * 1000.0))
}

/// A number in at most five characters, with the first letter of its thousands.
pub fn short(number: f64) -> String {
    let (digits, unit) = scaled(number);
    format!("{digits}{unit}")
}

/// The same with a space before the unit, which another follows.
fn spaced(number: f64) -> String {
    let (digits, unit) = scaled(number);
    format!("{digits} {unit}")
}

fn scaled(number: f64) -> (String, &'static str) {
    let mut scaled = number;
    for unit in ["", "k", "M", "G", "T"] {
        // What would be rounded up to 1000 is of the next unit.
        if scaled < 999.5 || unit == "T" {
            let decimals = if unit.is_empty() || scaled >= 99.95 { 0 } else { usize::from(scaled < 9.995) + 1 };
            // So that a rate below one does not read 0.
            let decimals = if unit.is_empty() && scaled > 0.0 && scaled < 9.95 && scaled.fract() != 0.0 { 1 } else { decimals };
            return (format!("{scaled:.decimals$}"), unit);
        }
        scaled /= 1000.0;
    }
    (String::new(), "")
}

/// The first characters of a text that is too long, with an ellipsis.
fn cut(text: String, width: u16) -> String {
    let width = usize::from(width);
    if text.chars().count() <= width { text } else { text.chars().take(width.saturating_sub(1)).chain(['…']).collect() }
}

impl Look {
    /// Scrolls by so many rows, of so many, in such room.
    pub fn scroll(&mut self, by: isize, rows: usize, room: usize) {
        self.first = self.first.saturating_add_signed(by).min(rows.saturating_sub(room));
    }

    /// Sorts by the next key, from its beginning.
    pub fn sort_next(&mut self) {
        self.order = Order { key: Key::next(self.order.key), ..self.order };
        self.first = 0;
    }
}
