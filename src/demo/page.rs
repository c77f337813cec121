//! What the person reads: chapters, notes, and claims that hold or do not.

use std::io::{self, IsTerminal, Write};

use super::failure::Failure;

/// Standard output as the demo writes it. Each line is flushed: it is read while things happen.
#[derive(Debug)]
pub(super) struct Page {
    paint: Paint,
    chapters: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Paint {
    Ansi,
    None,
}

/// SGR codes (ECMA-48).
#[derive(Debug, Clone, Copy)]
enum Tone {
    Bold = 1,
    Dim = 2,
    Red = 31,
    Green = 32,
}

impl Page {
    /// Standard output; coloured for a terminal, unless `NO_COLOR` says otherwise.
    pub(super) fn new() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let paint = if io::stdout().is_terminal() && !refused { Paint::Ansi } else { Paint::None };
        Self { paint, chapters: 0 }
    }

    /// A line as it is.
    pub(super) fn line(&mut self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        writeln!(out, "{text}").and_then(|()| out.flush()).map_err(Failure::Output)
    }

    /// A line that stands out.
    pub(super) fn title(&mut self, text: &str) -> Result<(), Failure> {
        self.line(&self.painted(Tone::Bold, text))
    }

    /// The next chapter.
    pub(super) fn chapter(&mut self, title: &str) -> Result<(), Failure> {
        self.chapters += 1;
        self.title(&format!("\n{}. {title}", self.chapters))
    }

    /// What is being done, or why.
    pub(super) fn note(&mut self, text: &str) -> Result<(), Failure> {
        self.line(&format!("    {text}"))
    }

    /// Something that happened.
    pub(super) fn event(&mut self, text: &str) -> Result<(), Failure> {
        self.line(&self.painted(Tone::Dim, &format!("      {text}")))
    }

    /// A claim: what was seen when it holds, what is wrong when it does not, which is the end.
    pub(super) fn claim(&mut self, seen: Result<String, String>) -> Result<(), Failure> {
        match seen {
            Ok(seen) => self.line(&format!("  {} {seen}", self.painted(Tone::Green, "✓"))),
            Err(wrong) => {
                self.line(&format!("  {} {wrong}", self.painted(Tone::Red, "✗")))?;
                Err(Failure::Claim(wrong))
            }
        }
    }

    fn painted(&self, tone: Tone, text: &str) -> String {
        match self.paint {
            Paint::Ansi => format!("\x1b[{}m{text}\x1b[0m", tone as u8),
            Paint::None => text.to_owned(),
        }
    }
}
