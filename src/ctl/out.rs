//! Standard output: in which format, with or without colours, and what is done when its reader closes it.
//!
//! Whole answers are written at once and flushed, so that a pipe sees an answer or none of it.

use std::io::{self, IsTerminal, Write};

use serde_json::Value;

use super::args::{Format, Listing};
use super::failure::Failure;
use super::progress::Progress;
use super::table::{Colour, Table};

/// Where answers go.
pub struct Out {
    format: Format,
    listing: Listing,
    colour: Colour,
    /// Characters to a line, where that is a terminal's.
    room: Option<usize>,
    /// A line on the terminal that goes before anything is printed.
    progress: Progress,
    sink: Box<dyn Write>,
}

impl Out {
    /// Standard output. Colours are for a terminal, unless `NO_COLOR` says otherwise (no-color.org: not if it is empty).
    pub fn stdout(format: Format, listing: Listing, progress: Progress) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_terminal = io::stdout().is_terminal();
        let colour = if is_terminal && !refused { Colour::Ansi } else { Colour::None };
        let room = is_terminal.then(|| crossterm::terminal::size().ok()).flatten();
        let room = room.map(|(columns, _)| usize::from(columns)).filter(|columns| *columns > 0);
        Self { format, listing, colour, room, progress, sink: Box::new(io::stdout()) }
    }

    /// Any other sink, without colours.
    #[cfg(test)]
    pub fn to(sink: Box<dyn Write>, format: Format, listing: Listing) -> Self {
        Self { format, listing, colour: Colour::None, room: None, progress: Progress::new(), sink }
    }

    /// How to print.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Characters to a line, where that is a terminal's.
    pub fn room(&self) -> Option<usize> {
        self.room
    }

    /// What is waited for.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// How to print lists.
    pub fn listing(&self) -> &Listing {
        &self.listing
    }

    /// What the daemon said, for scripts: as YAML where that is the format, else as JSON.
    pub fn object(&mut self, said: &Value) -> Result<(), Failure> {
        if self.format == Format::Yaml {
            let text = serde_norway::to_string(said).map_err(|error| Failure::Output(io::Error::other(error)))?;
            return self.raw(text.as_bytes());
        }
        // `{:#}` of a Value is its indented form, and cannot fail as serialising a foreign type might.
        self.raw(format!("{said:#}\n").as_bytes())
    }

    /// What the daemon said, on one line.
    pub fn json_line(&mut self, said: &Value) -> Result<(), Failure> {
        self.raw(format!("{said}\n").as_bytes())
    }

    /// A list, for people cut to what a line of the terminal has room for: each of its objects has a command that shows all of it.
    pub fn list(&mut self, mut table: Table) -> Result<(), Failure> {
        if let (Format::Table, Some(room)) = (self.format, self.room) {
            table.fit(room);
        }
        self.tables(vec![table])
    }

    /// Tables, for people with an empty line between, for scripts as values.
    pub fn tables(&mut self, tables: Vec<Table>) -> Result<(), Failure> {
        let (format, colour, no_header) = (self.format, self.colour, self.listing.no_header);
        let tables = tables.into_iter().map(|table| match format {
            Format::Value => table.values(),
            _ if no_header => table.without_titles(),
            _ => table,
        });
        let texts = tables.map(|table| match format {
            Format::Csv => csv(&table),
            Format::Value => Ok(values(&table)),
            _ => Ok(table.render(colour)),
        });
        let texts = texts.collect::<Result<Vec<String>, Failure>>()?;
        self.raw(texts.join("\n").as_bytes())
    }

    /// A word to a person that something is done; scripts have the exit code.
    pub fn say(&mut self, text: &str) -> Result<(), Failure> {
        match self.format {
            Format::Table | Format::Wide => self.raw(format!("{text}\n").as_bytes()),
            _ => Ok(()),
        }
    }

    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.progress.end();
        self.sink.write_all(bytes).and_then(|()| self.sink.flush()).map_err(Failure::Output)
    }
}

/// A table as comma-separated values (RFC 4180), with the line ends of Unix.
fn csv(table: &Table) -> Result<String, Failure> {
    let mut writer = csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
    let written = table.rows().iter().try_for_each(|row| writer.write_record(row.iter().map(super::table::Cell::text)));
    let bytes = written.map_err(io::Error::from).and_then(|()| writer.into_inner().map_err(|error| error.into_error()));
    bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).map_err(Failure::Output)
}

/// A table's values with a space between, a line to each row.
fn values(table: &Table) -> String {
    let line = |row: &Vec<super::table::Cell>| row.iter().map(super::table::Cell::text).collect::<Vec<_>>().join(" ") + "\n";
    table.rows().iter().map(line).collect()
}
