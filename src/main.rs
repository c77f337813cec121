//! nicd: a checklist. What each step means is in the library.

use std::error::Error;
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::CommandFactory;
use nicd::api::socket::Sockets;
use nicd::args::{Args, Command};
use nicd::config::{LogSettings, Settings, page, reference};
use nicd::daemon::{Config, Spare};
use nicd::exit::{Exit, chain};
use nicd::kernel::netns::helper::{self, HelperError};
use nicd::telemetry::stderr;
use nicd::{daemon, demo, manual, telemetry, threads};

/// How long the last lines on standard error may take to be written.
const LAST_WORDS: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let exit = start().err().unwrap_or(Exit::Ok);
    stderr::flush(LAST_WORDS);
    exit.into()
}

fn start() -> Result<(), Exit> {
    let args = match Args::from_command_line() {
        Err(Exit::Usage) => {
            // The next client would have systemd start it again, with the same command line.
            refuse(passed()?.as_ref().and_then(spare), "its command line is wrong; its log says how");
            return Err(Exit::Usage);
        }
        read => read?,
    };
    match args.command.clone() {
        Some(Command::Demo { fleet, role }) => demo::run(fleet, role),
        Some(Command::Netns) => help(),
        Some(Command::Manual { into }) => write_manual(&into),
        Some(Command::CheckConfig { reference: true, .. }) => print(&reference::file()),
        Some(Command::CheckConfig { quiet, .. }) => check(&args, quiet),
        None => serve(args),
    }
}

/// Runs the daemon. One that cannot start tells the clients that wait.
fn serve(args: Args) -> Result<(), Exit> {
    // Before any thread: taking systemd's sockets edits the environment.
    let passed = passed()?;
    let spare = passed.as_ref().and_then(spare);
    let read = move || Settings::load(args.config.as_deref(), &args.overrides());
    let settings = match read() {
        Ok(settings) => settings,
        Err(error) => {
            let exit = fail(&error, Exit::Config);
            refuse(spare, &chain(&error));
            return Err(exit);
        }
    };
    let log = telemetry::init(&settings.log).map_err(|error| fail(&error, Exit::Internal))?;
    threads::end_on_panic();
    daemon::run(Config { settings, read: Arc::new(read), log }, passed).map_err(|error| {
        let exit = fail(&error, error.exit());
        if error.is_of_the_start() {
            refuse(spare, &chain(&error));
        }
        exit
    })
}

fn passed() -> Result<Option<Sockets>, Exit> {
    Sockets::passed().map_err(|error| fail(&error, error.exit()))
}

fn spare(sockets: &Sockets) -> Option<Spare> {
    Spare::of(sockets).ok()
}

fn refuse(spare: Option<Spare>, why: &str) {
    if let Some(Err(error)) = spare.map(|spare| spare.refuse(why)) {
        fail(&error, Exit::Internal);
    }
}

fn help() -> Result<(), Exit> {
    telemetry::init(&LogSettings::default()).map_err(|error| fail(&error, Exit::Internal))?;
    threads::end_on_panic();
    helper::run().map_err(|error| match error {
        HelperError::NoSocket => fail(&error, Exit::Usage),
        error => fail(&error, Exit::Internal),
    })
}

fn write_manual(into: &Path) -> Result<(), Exit> {
    let page = page::page(&manual::date());
    let completions = manual::SHELLS.map(|shell| {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Args::command(), "nicd", &mut script);
        script
    });
    manual::write(Args::command(), "8", completions, into)
        .and_then(|()| manual::put(&into.join("man"), "nicd.toml.5", page.as_bytes()))
        .map_err(|error| fail(&error, Exit::Internal))
}

fn check(args: &Args, quiet: bool) -> Result<(), Exit> {
    let settings = Settings::load(args.config.as_deref(), &args.overrides()).map_err(|error| fail(&error, Exit::Config))?;
    daemon::check(&settings).map_err(|error| fail(&error, Exit::Config))?;
    if quiet {
        return Ok(());
    }
    let file = settings.as_file().map_err(|error| fail(&error, Exit::Internal))?;
    print(&format!("# The configuration is right. With the command line it gives these settings:\n{file}"))
}

/// Says why, with every cause, on one line.
fn fail(error: &dyn Error, exit: Exit) -> Exit {
    stderr::write_line(&format!("nicd: {}", chain(error)));
    exit
}

/// Prints a text. A reader that is gone has read what it wanted.
fn print(text: &str) -> Result<(), Exit> {
    let mut out = io::stdout();
    match writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(fail(&io::Error::new(error.kind(), format!("standard output: {error}")), Exit::Internal))
        }
        _ => Ok(()),
    }
}
