//! `nicctl`: converts command lines into requests to nicd's socket, and answers into tables or JSON.
//!
//! ```text
//! args, values ──▶ commands ──▶ names (name to id) ──▶ client (nicd-client) ──▶ nicd
//!                     │  ▲                                   │
//!                     │  └── wait ◀── the event stream ◀─────┘
//!                     └────▶ views ──▶ table ──▶ out (stdout)          failure ──▶ stderr, exit code
//! ```
//!
//! `graph` draws what the daemon says; `doctor` looks at this host beside what the daemon says.
//!
//! It has no state and needs no privileges. It checks a value only as far as needed to send it; the daemon decides whether the
//! value is valid. It is built on the crate `nicd-client` alone, so any other client can do the same.

mod args;
mod client;
mod commands;
mod doctor;
mod failure;
mod graph;
mod names;
mod out;
#[cfg(test)]
mod scripted;
mod table;
mod values;
mod views;
mod wait;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::manual;
use args::{Cli, Command};
use commands::Session;
use failure::Failure;
use out::Out;

/// Reads the command line, does what it says and returns the exit code it ends with.
pub fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => end(start(cli)),
        Err(said) => usage(&said),
    }
}

/// `--help` and `--version` come this way as well as mistakes; clap knows the stream and the code of each.
fn usage(said: &clap::Error) -> ExitCode {
    // If the terminal is gone, no message can be printed.
    let _ = said.print();
    ExitCode::from(u8::try_from(said.exit_code()).unwrap_or(failure::USAGE))
}

fn start(cli: Cli) -> Result<(), Failure> {
    let mut out = Out::stdout(cli.output, cli.listing);
    if let Command::Manual { into } = &cli.command {
        return manual::write(Cli::command(), "1", into).map_err(Failure::Output);
    }
    if let Command::Completion { shell } = cli.command {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "nicctl", &mut script);
        return out.raw(&script);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Runtime)?;
    let mut session = Session { client: client::daemon(cli.socket), out };
    runtime.block_on(commands::run(&mut session, cli.command))
}

fn end(result: Result<(), Failure>) -> ExitCode {
    let Err(failure) = result else { return ExitCode::SUCCESS };
    if failure.is_quiet() {
        return ExitCode::SUCCESS;
    }
    // A closed stderr leaves the exit code to speak.
    let _ = writeln!(io::stderr(), "error: {}", failure.sentence());
    ExitCode::from(failure.exit_code())
}
