//! Starts threads, and ends the process when one of them panics.
//!
//! A panic is a bug. The thread or task that panics would never answer its waiting requests and never release its claims,
//! while the process went on. So a panic ends the process, and the next start continues from the durable records, as after
//! a kill. Only code that changes nothing may catch its panics ([`caught`]).

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::OnceLock;
use std::sync::mpsc::{SendError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::exit::Exit;
use crate::failpoints;
use crate::telemetry::stderr;

/// How long to wait for the last lines of the log to be written.
const LAST_WORDS: Duration = Duration::from_millis(500);

thread_local! {
    /// Whether a panic on this thread is caught at present.
    static IS_CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Installs the panic hook: it logs every panic and ends the process with [`Exit::Internal`], unless the panic is [`caught`].
/// Called once per process.
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

/// A thread for calls that the kernel lets wait, one after the other, so that they cost one thread however many they are. It starts
/// with the first one, and ends with the process.
#[derive(Debug)]
pub struct Aside {
    name: &'static str,
    calls: OnceLock<Option<Sender<Call>>>,
}

type Call = Box<dyn FnOnce() + Send>;

/// Closes packet sockets: the kernel first waits until no frame can be on its way into one (`packet_release`, net/packet/af_packet.c).
pub static CLOSING: Aside = Aside::new("nicd-close");

/// Sends frames to all ports of a bridge.
pub static SPEAKING: Aside = Aside::new("nicd-speak");

/// Looks at files of a file system that may hang.
pub static LOOKING: Aside = Aside::new("nicd-files");

impl Aside {
    const fn new(name: &'static str) -> Self {
        Self { name, calls: OnceLock::new() }
    }

    /// Has a call made on the thread; what it returns. The call is made also when the answer is not awaited.
    pub fn ask<T: Send + 'static>(&self, call: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
        let (told, answer) = oneshot::channel();
        self.run(move || _ = told.send(call()));
        answer
    }

    /// Has a call made on the thread; on this one where there is none.
    pub fn run(&self, call: impl FnOnce() + Send + 'static) {
        let calls = self.calls.get_or_init(|| {
            let (calls, asked) = channel::<Call>();
            start(self.name, move || asked.iter().for_each(|call| call())).ok().map(|_| calls)
        });
        let call: Call = Box::new(failpoints::inherit(call));
        let here = match calls {
            Some(calls) => calls.send(call).err().map(|SendError(call)| call),
            None => Some(call),
        };
        here.into_iter().for_each(|call| call());
    }
}

/// A caught and logged panic.
#[derive(Debug)]
pub struct Panicked;

/// Runs work that changes no state, and catches its panic.
///
/// # Errors
/// The work panicked.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    let before = IS_CAUGHT.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    IS_CAUGHT.set(before);
    done.map_err(|_| Panicked)
}

/// Starts a thread.
///
/// # Errors
/// The system cannot start a thread.
pub fn start(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let work = failpoints::inherit(work);
    Builder::new().name(name.to_owned()).spawn(work)
}
