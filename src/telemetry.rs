//! The log: where it goes and what a line looks like. What is counted is in [`mod@meters`].
//!
//! Lines go to standard error, which journald reads when systemd started us. Messages are constants, data are fields.

pub mod meters;

pub use meters::meters;

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::{LogFormat, LogSettings};

/// Starts the log. Once per process.
///
/// # Errors
/// It was started before.
pub fn init(settings: &LogSettings) -> Result<(), TryInitError> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&settings.level))
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    // journald stamps each line itself.
    let stamped = std::env::var_os("JOURNAL_STREAM").is_none();
    match (settings.format, stamped) {
        (LogFormat::Json, _) => builder.json().finish().try_init(),
        (LogFormat::Text, true) => builder.finish().try_init(),
        (LogFormat::Text, false) => builder.without_time().finish().try_init(),
    }
}
