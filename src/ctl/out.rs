//! Standard output: in which format, with or without colours, and what is done when its reader closes it.
//!
//! Whole answers are written at once and flushed, so that a pipe sees an answer or none of it.

use std::io::{self, IsTerminal, Write};

use serde_json::Value;

use super::args::Format;
use super::failure::Failure;
use super::table::{Colour, Table};

/// Where answers go.
pub struct Out {
    format: Format,
    colour: Colour,
    sink: Box<dyn Write>,
}

impl Out {
    /// Standard output. Colours are for a terminal, unless `NO_COLOR` says otherwise (no-color.org: not if it is empty).
    pub fn stdout(format: Format) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colour = if io::stdout().is_terminal() && !refused { Colour::Ansi } else { Colour::None };
        Self { format, colour, sink: Box::new(io::stdout()) }
    }

    /// Any other sink, without colours.
    #[cfg(test)]
    pub fn to(sink: Box<dyn Write>, format: Format) -> Self {
        Self { format, colour: Colour::None, sink }
    }

    /// How to print.
    pub fn format(&self) -> Format {
        self.format
    }

    /// What the daemon said, for scripts.
    pub fn json(&mut self, said: &Value) -> Result<(), Failure> {
        // `{:#}` of a Value is its indented form, and cannot fail as serialising a foreign type might.
        self.raw(format!("{said:#}\n").as_bytes())
    }

    /// What the daemon said, on one line.
    pub fn json_line(&mut self, said: &Value) -> Result<(), Failure> {
        self.raw(format!("{said}\n").as_bytes())
    }

    /// Tables, for people, with an empty line between.
    pub fn tables(&mut self, tables: &[Table]) -> Result<(), Failure> {
        let texts: Vec<String> = tables.iter().map(|table| table.render(self.colour)).collect();
        self.raw(texts.join("\n").as_bytes())
    }

    /// A word to a person that something is done; scripts have the exit code.
    pub fn say(&mut self, text: &str) -> Result<(), Failure> {
        match self.format {
            Format::Json => Ok(()),
            Format::Table | Format::Wide => self.raw(format!("{text}\n").as_bytes()),
        }
    }

    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.sink.write_all(bytes).and_then(|()| self.sink.flush()).map_err(Failure::Output)
    }
}
