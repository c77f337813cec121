//! How the daemon starts threads, and what a panic ends.
//!
//! A panic is a bug. The thread or the task that it ends owes answers, and holds what it claimed: the process would go on
//! without it, and nobody would know. So a panic ends the process, and the next start goes on from what is durable: whatever
//! stands then is what a kill at that moment would have left. Only what changes nothing may have its panics [`caught`].

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crate::exit::Exit;
use crate::failpoints;
use crate::telemetry::stderr;

/// How long the last lines of the log may take to be written.
const LAST_WORDS: Duration = Duration::from_millis(500);

thread_local! {
    /// A panic here and now is caught.
    static IS_CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Has every panic logged, and the process ended by it with [`Exit::Internal`] unless it is [`caught`]. Once per process.
pub fn end_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        log_panic(panic);
        if !IS_CAUGHT.get() {
            stderr::flush(LAST_WORDS);
            std::process::exit(Exit::Internal.code().into());
        }
    }));
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let at = panic.location().map(tracing::field::display);
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| tracing::field::display(backtrace));
    tracing::error!(thread = thread.name(), at, said = words(panic.payload()), backtrace, "a panic");
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no message)")
}

/// A panic that was caught; it has been logged.
#[derive(Debug)]
pub struct Panicked;

/// Does something whose panic costs no more than its answer: it changes nothing.
///
/// # Errors
/// It panicked.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    let before = IS_CAUGHT.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    IS_CAUGHT.set(before);
    done.map_err(|_| Panicked)
}

/// Starts a thread.
///
/// # Errors
/// The system gives no thread.
pub fn start(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let work = failpoints::inherit(work);
    Builder::new().name(name.to_owned()).spawn(work)
}
