//! nicd: a checklist. What each step means is in the library.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use nicd::args::{Args, Command};
use nicd::config::{LogSettings, Settings};
use nicd::daemon::Config;
use nicd::exit::{Exit, chain};
use nicd::kernel::netns::helper::{self, HelperError};
use nicd::{daemon, demo, telemetry};

fn main() -> ExitCode {
    match start() {
        Ok(()) => Exit::Ok,
        Err(exit) => exit,
    }
    .into()
}

fn start() -> Result<(), Exit> {
    let args = Args::from_command_line()?;
    if let Some(Command::Demo { role }) = args.command {
        return demo::run(role);
    }
    if args.command == Some(Command::Netns) {
        telemetry::init(&LogSettings::default()).map_err(|error| fail(&error, Exit::Internal))?;
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
        say(io::stdout(), &format!("ok\n\n{printed}"));
        return Ok(());
    }
    let log = telemetry::init(&settings.log).map_err(|error| fail(&error, Exit::Internal))?;
    daemon::run(Config { settings, read: Arc::new(read), log }).map_err(|error| fail(&error, error.exit()))
}

/// Says why, with every cause, on one line.
fn fail(error: &dyn Error, exit: Exit) -> Exit {
    say(io::stderr(), &format!("nicd: {}", chain(error)));
    exit
}

/// Prints a line. A reader that is gone is no reason to fail, or to panic as `println!` does.
fn say(mut to: impl Write, line: &str) {
    let _ = writeln!(to, "{}", line.trim_end());
}
