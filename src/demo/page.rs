//! What the demo prints: chapters, notes, checks that hold or do not, and why it ends early.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::io::{self, Write};
use std::time::Duration;

use nix::net::if_::if_nameindex;

use crate::exit::Exit;

/// Why the demo ends early.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// This host or user cannot run it: what is missing, and the remedy.
    #[error("{0}\n{1}")]
    Missing(String, String),
    /// A program that the demo runs is not there: which one, and the remedy.
    #[error("{0}\n{1}")]
    NotInstalled(String, String),
    /// Something that the demo shows is not so.
    #[error("this did not hold: {0}")]
    Check(String),
    /// Something else went wrong.
    #[error("{doing}: {error}")]
    Failed { doing: String, error: String },
    /// Standard output cannot be written.
    #[error("the output cannot be written: {0}")]
    Output(io::Error),
    /// The inner process failed and has said why.
    #[error("the demo failed")]
    Reported(Exit),
}

impl Failure {
    pub(super) fn new(doing: &str, error: impl Display) -> Self {
        Self::Failed { doing: doing.to_owned(), error: error.to_string() }
    }

    /// Whether no message is needed: the reader closed the output, or it was reported already.
    pub(super) fn is_quiet(&self) -> bool {
        matches!(self, Self::Reported(_)) || matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Prints it on standard error; answers the exit code.
    pub(super) fn report(&self) -> Exit {
        if !self.is_quiet() {
            // There is no other place to say that standard error is closed.
            let _ = writeln!(io::stderr(), "nicd demo: {self}");
        }
        match self {
            Self::Missing(..) => Exit::Permission,
            Self::NotInstalled(..) => Exit::Unavailable,
            Self::Reported(exit) => *exit,
            Self::Check(_) | Self::Failed { .. } | Self::Output(_) => Exit::Internal,
        }
    }
}

/// Makes a failure of an error.
pub(super) trait Context<T> {
    /// What was being done.
    fn context(self, doing: &str) -> Result<T, Failure>;
}

impl<T, E: Display> Context<T> for Result<T, E> {
    fn context(self, doing: &str) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(doing, error))
    }
}

/// Standard output.
#[derive(Debug, Default)]
pub(super) struct Page {
    chapters: u32,
}

impl Page {
    /// A line. It is flushed, as it is read while things happen.
    pub(super) fn line(&self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        writeln!(out, "{text}").and_then(|()| out.flush()).map_err(Failure::Output)
    }

    /// The next chapter, and what is done in it or why.
    pub(super) fn chapter(&mut self, title: &str, note: &str) -> Result<(), Failure> {
        self.chapters += 1;
        self.line(&format!("\n{}. {title}\n    {note}", self.chapters))
    }

    /// Something that was measured and is as it should be.
    pub(super) fn held(&self, measured: &str) -> Result<(), Failure> {
        self.line(&format!("  ✓ {measured}"))
    }

    /// Something that was measured. If it is not as it should be, the demo ends.
    pub(super) fn check(&self, holds: bool, measured: &str) -> Result<(), Failure> {
        if holds {
            return self.held(measured);
        }
        self.line(&format!("  ✗ {measured}"))?;
        Err(Failure::Check(measured.to_owned()))
    }
}

/// A time in microseconds.
pub(super) fn micros(time: Duration) -> String {
    format!("{} µs", time.as_micros())
}

/// A time in the unit that fits it.
pub(super) fn span(time: Duration) -> String {
    match time.as_micros() {
        short @ 0..10_000 => format!("{short} µs"),
        10_000..2_000_000 => format!("{} ms", time.as_millis()),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

/// The links of the network namespace that the calling thread is in, as libc lists them.
pub(super) fn links() -> Result<BTreeSet<String>, Failure> {
    let links = if_nameindex().context("listing the links")?;
    Ok(links.iter().map(|link| link.name().to_string_lossy().into_owned()).collect())
}

/// The first few names.
pub(super) fn named(links: &BTreeSet<String>) -> String {
    const SHOWN: usize = 4;
    let mut text = links.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if links.len() > SHOWN {
        text.push_str(&format!(" and {} more", links.len() - SHOWN));
    }
    text
}
