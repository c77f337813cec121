//! The client: what a person or a script types becomes calls on nicd's socket, and its answers become tables or JSON.
//!
//! ```text
//! args, values ──▶ commands ──▶ names (who is meant) ──▶ client (HTTP over the socket) ──▶ nicd
//!                     │  ▲                                   │
//!                     │  └── wait ◀── events (the stream) ◀──┘
//!                     └────▶ views ──▶ table ──▶ out (stdout)          failure ──▶ stderr, exit code
//! ```
//!
//! It holds no state, needs no privileges of its own and decides nothing the daemon decides: a value is checked here
//! only as far as it must be understood to be sent. It shares no code with the daemon but the HTTP client, so that what it
//! can do, any client of the socket can.

mod args;
mod client;
mod commands;
mod events;
mod failure;
mod names;
mod out;
mod refusal;
#[cfg(test)]
mod scripted;
mod table;
mod uri;
mod values;
mod views;
mod wait;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Cli, Command};
use client::Client;
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
    // Nothing can be told to someone whose terminal is gone.
    let _ = said.print();
    ExitCode::from(u8::try_from(said.exit_code()).unwrap_or(failure::USAGE))
}

fn start(cli: Cli) -> Result<(), Failure> {
    let mut out = Out::stdout(cli.output);
    if let Command::Completion { shell } = cli.command {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "nicctl", &mut script);
        return out.raw(&script);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Runtime)?;
    let mut session = Session { client: Client::new(cli.socket), out };
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
