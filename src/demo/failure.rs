//! Why the demo ends early, and how that is said.

use std::fmt::Display;
use std::io::{self, Write};

use crate::exit::Exit;

/// What ended the demo.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// This host or user cannot have it.
    #[error("{what}\n{remedy}")]
    Missing {
        /// What is missing.
        what: String,
        /// What would be right.
        remedy: String,
    },
    /// Something that the demo is to show is not so.
    #[error("this did not hold: {0}")]
    Claim(String),
    /// Something else than the claims went wrong.
    #[error("{doing}: {said}")]
    Trouble {
        /// What was tried.
        doing: String,
        /// What came of it.
        said: String,
    },
    /// What was to be shown could not be.
    #[error("the output cannot be written: {0}")]
    Output(io::Error),
    /// It was said already, by another of the demo's processes.
    #[error("the demo failed")]
    Said(Exit),
}

impl Failure {
    /// Whether nobody needs to be told: a reader who went away knows, and what was said is not said twice.
    pub(super) fn is_quiet(&self) -> bool {
        match self {
            Self::Output(error) => error.kind() == io::ErrorKind::BrokenPipe,
            Self::Said(_) => true,
            Self::Missing { .. } | Self::Claim(_) | Self::Trouble { .. } => false,
        }
    }

    /// Says it on standard error, and what the process ends with.
    pub(super) fn tell(&self) -> Exit {
        if !self.is_quiet() {
            // Nothing is left to say when the terminal is gone.
            let _ = writeln!(io::stderr(), "nicd demo: {self}");
        }
        match self {
            Self::Missing { .. } => Exit::Permission,
            Self::Said(exit) => *exit,
            Self::Claim(_) | Self::Trouble { .. } | Self::Output(_) => Exit::Internal,
        }
    }
}

/// Makes a failure of what a call answered.
pub(super) fn trouble<E: Display>(doing: impl Into<String>) -> impl FnOnce(E) -> Failure {
    let doing = doing.into();
    move |said| Failure::Trouble { doing, said: said.to_string() }
}
