//! nicd: a checklist. What each step means is in the library.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use nicd::args::{Args, Command};
use nicd::config::{LogSettings, Settings};
use nicd::exit::Exit;
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
    let settings = Settings::load(args.config.as_deref(), &args.overrides()).map_err(|error| fail(&error, Exit::Config))?;
    if args.command == Some(Command::CheckConfig) {
        let printed = toml::to_string(&settings).map_err(|error| fail(&error, Exit::Internal))?;
        say(io::stdout(), &format!("ok\n\n{printed}"));
        return Ok(());
    }
    telemetry::init(&settings.log).map_err(|error| fail(&error, Exit::Internal))?;
    daemon::run(&settings).map_err(|error| fail(&error, error.exit()))
}

/// Says why, with every cause, on one line.
fn fail(error: &dyn Error, exit: Exit) -> Exit {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    say(io::stderr(), &format!("nicd: {line}"));
    exit
}

/// Prints a line. A reader that is gone is no reason to fail, or to panic as `println!` does.
fn say(mut to: impl Write, line: &str) {
    let _ = writeln!(to, "{}", line.trim_end());
}
