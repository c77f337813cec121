//! Log output. The metrics are in [`mod@meters`].
//!
//! Lines go to standard error through the queue of [`stderr`], so that logging never blocks and never fails. Where that is the
//! journal's, each line is an entry with its priority and fields. Messages are constants; data are fields.

mod family;
mod gauges;
mod journal;
pub mod meters;
pub mod stderr;

pub use meters::meters;

use std::io::{self, IsTerminal};

use tracing_subscriber::fmt::{FormatEvent, FormatFields, MakeWriter, SubscriberBuilder};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Registry};

use crate::config::{LogFormat, LogSettings};

use journal::{Entries, OfSpans};

/// The running log.
pub struct Log {
    refilter: Box<dyn Fn(EnvFilter) + Send + Sync>,
}

impl Log {
    /// Changes the level or filter of the log.
    pub fn set_level(&self, level: &str) {
        (self.refilter)(EnvFilter::new(level));
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").finish_non_exhaustive()
    }
}

/// Starts the log. Once per process.
///
/// # Errors
/// It was started before.
pub fn init(settings: &LogSettings) -> Result<Log, TryInitError> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&settings.level))
        .with_ansi(io::stderr().is_terminal())
        // Lost lines are counted, not logged.
        .log_internal_errors(false)
        .with_writer(stderr::Queue);
    // The journal has its own time and priority of each entry.
    match (settings.format, *stderr::IS_JOURNAL) {
        (LogFormat::Json, true) => start(builder.json().map_event_format(Entries)),
        (LogFormat::Json, false) => start(builder.json()),
        (LogFormat::Text, true) => start(builder.without_time().with_level(false).map_event_format(Entries)),
        (LogFormat::Text, false) => start(builder),
    }
}

fn start<N, E, W>(builder: SubscriberBuilder<N, E, EnvFilter, W>) -> Result<Log, TryInitError>
where
    N: for<'writer> FormatFields<'writer> + Send + Sync + 'static,
    E: FormatEvent<Registry, N> + Send + Sync + 'static,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let builder = builder.with_filter_reloading();
    let handle = builder.reload_handle();
    builder.finish().with(OfSpans).try_init()?;
    // It fails only when the log was dropped, but the log lives as long as the process.
    Ok(Log { refilter: Box::new(move |filter| _ = handle.reload(filter)) })
}
