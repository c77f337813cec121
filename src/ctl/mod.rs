//! `nicctl`: converts command lines into requests to nicd's socket, and answers into tables or JSON.
//!
//! ```text
//! args, values ──▶ commands ──▶ names (name to id) ──▶ client (nicd-client) ──▶ nicd
//!                     │  ▲                                   │
//!                     │  └── wait ◀── the event stream ◀─────┘
//!                     └────▶ views ──▶ table ──▶ out (stdout)          failure ──▶ stderr, exit code
//! ```
//!
//! `completion` answers shells that complete a command line, `progress` says what is waited for, `top` shows a table that renews itself.
//! `graph` draws what the daemon says; `doctor` looks at this host beside what the daemon says.
//!
//! It has no state and needs no privileges. It checks a value only as far as needed to send it; the daemon decides whether the
//! value is valid. It is built on the crate `nicd-client` alone, so any other client can do the same.

mod args;
mod client;
mod commands;
mod completion;
mod doctor;
mod failure;
mod graph;
mod names;
mod out;
mod progress;
#[cfg(test)]
mod scripted;
mod table;
mod top;
mod values;
mod views;
mod wait;
mod wording;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::manual;
use args::{Cli, Command, RemoteArgs};
use client::Client;
use commands::Session;
use failure::Failure;
use nicd_client::{Credentials, Remote, RemoteError};
use out::Out;
use progress::Progress;

/// Reads the command line, does what it says and returns the exit code it ends with.
pub fn main() -> ExitCode {
    match completion::answer() {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => {}
        Err(said) => return usage(&said),
    }
    match args::parse() {
        Ok(cli) => start(cli),
        Err(said) => usage(&said),
    }
}

/// `--help` and `--version` come this way as well as mistakes; clap knows the stream and the code of each.
fn usage(said: &clap::Error) -> ExitCode {
    // If the terminal is gone, no message can be printed.
    let _ = said.print();
    ExitCode::from(u8::try_from(said.exit_code()).unwrap_or(failure::USAGE))
}

fn start(cli: Cli) -> ExitCode {
    let client = match daemon(cli.remote, cli.socket) {
        Ok(client) => client,
        Err(error) => {
            let failure = Failure::from(error);
            let _ = writeln!(io::stderr(), "error: {}", failure.sentence());
            return ExitCode::from(failure.exit_code());
        }
    };
    let mut session = Session::new(client, Out::stdout(cli.output, cli.listing, Progress::new()));
    let Err(failure) = perform(&mut session, cli.command) else { return ExitCode::SUCCESS };
    if !failure.is_quiet() {
        // If stderr is closed, the exit code alone tells.
        let _ = writeln!(io::stderr(), "error: {}", session.sentence(&failure));
    }
    ExitCode::from(failure.exit_code())
}

/// The daemon of another host, if the command line names one with its files, else the one at the socket.
fn daemon(remote: RemoteArgs, socket: PathBuf) -> Result<Client, RemoteError> {
    let RemoteArgs { host: Some(host), cert: Some(cert), key: Some(key), cacert: Some(cacert) } = remote else {
        return Ok(client::daemon(socket));
    };
    Ok(client::remote(Remote::new(&host, &Credentials { cert, key, cacert })?))
}

fn perform(session: &mut Session, command: Command) -> Result<(), Failure> {
    match command {
        Command::Manual { into } => {
            let scripts = manual::SHELLS.map(completion::script);
            manual::write(args::command(), "1", scripts, &into).map_err(Failure::Output)
        }
        Command::Completion { shell } => session.out.raw(&completion::script(shell)),
        command => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Runtime)?;
            runtime.block_on(commands::run(session, command))
        }
    }
}
