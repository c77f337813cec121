//! What is waited for, on standard error: once it takes longer than a second, and only where that is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::timeout;

use super::table::harmless;

/// How long work may take before the line is shown, in seconds.
const SOON: Duration = Duration::from_secs(1);

/// How often the picture moves, in milliseconds.
const STEP: Duration = Duration::from_millis(125);

/// A line that says what is waited for. Clones are the same line.
#[derive(Debug, Clone)]
pub struct Progress(ProgressBar);

impl Progress {
    /// A line that is not shown yet.
    pub fn new() -> Self {
        let style = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_spinner()).tick_chars("|/-\\ ");
        Self(ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()).with_style(style))
    }

    /// Says what is waited for now.
    pub fn say(&self, text: &str) {
        self.0.set_message(harmless(text));
    }

    /// Takes the line away: something else is to be printed, or nothing is waited for any more.
    pub fn end(&self) {
        self.0.finish_and_clear();
    }

    /// Shows the line while this goes on.
    pub async fn beside<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        if let Ok(done) = timeout(SOON, &mut work).await {
            return done;
        }
        if !self.0.is_finished() {
            self.0.set_draw_target(ProgressDrawTarget::stderr());
            self.0.enable_steady_tick(STEP);
        }
        let done = work.await;
        self.end();
        done
    }
}
