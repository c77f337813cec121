//! nicd: a checklist. What each step means is in the library.

use std::error::Error;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use nicd::args::{Args, Command};
use nicd::config::{LogSettings, Settings};
use nicd::daemon::Config;
use nicd::exit::{Exit, chain};
use nicd::kernel::netns::helper::{self, HelperError};
use nicd::telemetry::stderr;
use nicd::{daemon, demo, telemetry, threads};

/// How long the last lines on standard error may take to be written.
const LAST_WORDS: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let exit = start().err().unwrap_or(Exit::Ok);
    stderr::flush(LAST_WORDS);
    exit.into()
}

fn start() -> Result<(), Exit> {
    let args = Args::from_command_line()?;
    if let Some(Command::Demo { role }) = args.command {
        return demo::run(role);
    }
    if args.command == Some(Command::Netns) {
        telemetry::init(&LogSettings::default()).map_err(|error| fail(&error, Exit::Internal))?;
        threads::end_on_panic();
        return helper::run().map_err(|error| match error {
            HelperError::NoSocket => fail(&error, Exit::Usage),
            error => fail(&error, Exit::Internal),
        });
    }
    let checking = args.command == Some(Command::CheckConfig);
    let read = move || Settings::load(args.config.as_deref(), &args.overrides());
    let settings = read().map_err(|error| fail(&error, Exit::Config))?;
    if checking {
        let printed = toml::to_string(&settings).map_err(|error| fail(&error, Exit::Internal))?;
        return print(&format!("ok\n\n{printed}"));
    }
    let log = telemetry::init(&settings.log).map_err(|error| fail(&error, Exit::Internal))?;
    threads::end_on_panic();
    daemon::run(Config { settings, read: Arc::new(read), log }).map_err(|error| fail(&error, error.exit()))
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
