//! Tables as text: columns as wide as their widest cell, two spaces between, nothing after the last.
//!
//! Names come from whoever may use the socket and are printed on a terminal, so control characters are shown
//! and not sent.

use std::fmt::Write;

/// Whether colours are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// As ANSI escapes.
    Ansi,
    /// Not at all.
    None,
}

/// The meaning of a cell's colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Nothing.
    Plain,
    /// The object works.
    Good,
    /// The object is in transition or not in use.
    Waiting,
    /// The object has failed.
    Bad,
}

impl Tone {
    /// The tone of a port's status, or of the daemon's.
    pub fn of_status(status: &str) -> Self {
        match status {
            "ACTIVE" | "ok" => Self::Good,
            "BUILD" | "DOWN" | "degraded" => Self::Waiting,
            "ERROR" => Self::Bad,
            _ => Self::Plain,
        }
    }

    fn escape(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Good => Some("\x1b[32m"),
            Self::Waiting => Some("\x1b[33m"),
            Self::Bad => Some("\x1b[31m"),
        }
    }
}

/// A cell: its text and its tone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A cell without a colour.
    pub fn new(text: &str) -> Self {
        Self { text: harmless(text), tone: Tone::Plain }
    }

    /// A status, in its colour.
    pub fn status(status: &str) -> Self {
        Self { tone: Tone::of_status(status), ..Self::new(status) }
    }

    /// The same text, meant so.
    pub fn toned(self, tone: Tone) -> Self {
        Self { tone, ..self }
    }

    /// The text, empty where there is nothing.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text in a table: an empty one is a dash, so that columns can be counted.
    fn shown(&self) -> &str {
        if self.text.is_empty() { "-" } else { &self.text }
    }

    fn width(&self) -> usize {
        self.shown().chars().count()
    }

    /// The cell in so much room: a longer text ends with an ellipsis.
    fn cut(&mut self, width: usize) {
        if self.width() > width {
            self.text = self.text.chars().take(width.saturating_sub(1)).chain(['…']).collect();
        }
    }
}

/// The least that a column is cut to.
const LEAST_WIDTH: usize = 8;

/// Rows of cells.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Table {
    rows: Vec<Vec<Cell>>,
    /// Whether the first row has the titles.
    titled: bool,
}

impl Table {
    /// A table under these titles.
    pub fn titled<'a>(titles: impl IntoIterator<Item = &'a str>) -> Self {
        Self { rows: vec![titles.into_iter().map(Cell::new).collect()], titled: true }
    }

    /// The same without its titles.
    pub fn without_titles(mut self) -> Self {
        if std::mem::take(&mut self.titled) {
            self.rows.remove(0);
        }
        self
    }

    /// The values alone: without titles, or of lines that begin with a name without that.
    pub fn values(self) -> Self {
        if self.titled {
            return self.without_titles();
        }
        let rows = self.rows.into_iter().map(|row| row.into_iter().skip(1).collect());
        Self { rows: rows.collect(), titled: false }
    }

    /// All rows, titles first.
    pub fn rows(&self) -> &[Vec<Cell>] {
        &self.rows
    }

    /// The table cut to so many characters a line: the widest columns lose what does not fit.
    pub fn fit(&mut self, room: usize) {
        let mut widths = self.widths();
        let gaps = widths.len().saturating_sub(1) * 2;
        let mut excess = (widths.iter().sum::<usize>() + gaps).saturating_sub(room);
        while excess > 0 {
            let Some(widest) = widths.iter_mut().max().filter(|width| **width > LEAST_WIDTH) else { break };
            *widest -= 1;
            excess -= 1;
        }
        for row in &mut self.rows {
            row.iter_mut().zip(&widths).for_each(|(cell, width)| cell.cut(*width));
        }
    }

    fn widths(&self) -> Vec<usize> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let cells = |column: usize| self.rows.iter().filter_map(move |row| row.get(column));
        (0..columns).map(|column| cells(column).map(Cell::width).max().unwrap_or(0)).collect()
    }

    /// Adds a row.
    pub fn push(&mut self, row: Vec<Cell>) {
        self.rows.push(row);
    }

    /// The table as text.
    pub fn render(&self, colour: Colour) -> String {
        let widths = self.widths();
        let mut text = String::new();
        for row in &self.rows {
            render_row(&mut text, row, &widths, colour);
        }
        text
    }
}

fn render_row(text: &mut String, row: &[Cell], widths: &[usize], colour: Colour) {
    for (place, (cell, width)) in row.iter().zip(widths).enumerate() {
        let escape = if colour == Colour::Ansi { cell.tone.escape() } else { None };
        // Writing to a String cannot fail. The padding is outside the colour, so that it has no background or underline.
        let _ = match escape {
            Some(escape) => write!(text, "{escape}{}\x1b[0m", cell.shown()),
            None => write!(text, "{}", cell.shown()),
        };
        if place + 1 < row.len() {
            text.extend(std::iter::repeat_n(' ', width - cell.width() + 2));
        }
    }
    text.push('\n');
}

/// `text` with its control characters written out: it cannot move the cursor, end the line or ring the bell.
pub fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() { shown.extend(character.escape_default()) } else { shown.push(character) }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::titled(["NAME", "STATUS", "REASON"]);
        table.push(vec![Cell::new("blåbær"), Cell::status("ACTIVE"), Cell::new("")]);
        table.push(vec![Cell::new("a"), Cell::status("ERROR"), Cell::new("bridge_full")]);
        table
    }

    #[test]
    fn columns_line_up_and_nothing_trails() {
        assert_eq!(
            table().render(Colour::None),
            "NAME    STATUS  REASON\n\
             blåbær  ACTIVE  -\n\
             a       ERROR   bridge_full\n"
        );
    }

    #[test]
    fn colour_does_not_count_as_width() {
        assert_eq!(
            table().render(Colour::Ansi),
            "NAME    STATUS  REASON\n\
             blåbær  \x1b[32mACTIVE\x1b[0m  -\n\
             a       \x1b[31mERROR\x1b[0m   bridge_full\n"
        );
    }

    #[test]
    fn the_widest_columns_are_cut_to_the_room_there_is() {
        let mut table = Table::titled(["A", "B", "C"]);
        table.push(["0123456789abcdef", "0123456789", "x"].map(Cell::new).into());
        table.fit(24);
        assert_eq!(table.render(Colour::None), "A           B          C\n012345678…  01234567…  x\n");
        table.fit(1);
        assert_eq!(table.clone().without_titles().render(Colour::None), "0123456…  0123456…  x\n");
    }

    #[test]
    fn no_rows_is_no_text() {
        assert_eq!(Table::default().render(Colour::None), "");
    }

    #[test]
    fn names_cannot_steer_the_terminal() {
        assert_eq!(harmless("a\x1b[2J\nb\tc\u{9b}é"), "a\\u{1b}[2J\\nb\\tc\\u{9b}é");
    }
}
