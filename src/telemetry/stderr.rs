//! Writes log lines to standard error through a bounded queue and one thread, so that logging never blocks and never fails.
//!
//! Standard error may be full, or have no reader, or a stuck one. Lines that cannot be written or queued are dropped and counted
//! (`nicd_log_lost_total`); when lines can be written again, a line reports how many were lost.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::write;
use tracing_subscriber::fmt::MakeWriter;

use super::{journal, meters};

/// The queue's capacity in bytes: some seconds of a busy log.
const ROOM: usize = 1 << 20;

/// The minimum interval between reports of lost lines.
const TELL: Duration = Duration::from_secs(1);

/// The queue of the process.
static LINES: LazyLock<Lines> = LazyLock::new(Lines::start);

/// Whether standard error is the journal's.
pub(super) static IS_JOURNAL: LazyLock<bool> = LazyLock::new(journal::is_on_stderr);

/// Puts a line about an error into the queue.
pub fn write_line(line: &str) {
    let line = line.trim_end();
    let text = if *IS_JOURNAL { journal::prefixed(journal::ERROR, line) } else { format!("{line}\n").into_bytes() };
    LINES.push(Line { text, entry: None });
}

/// Puts an entry of the journal into the queue, with what is written where the journal does not take it.
pub(super) fn write_entry(text: Vec<u8>, entry: Vec<u8>) {
    LINES.push(Line { text, entry: Some(entry) });
}

/// Waits until all lines are written, for at most `limit`.
pub fn flush(limit: Duration) {
    LINES.flush(limit);
}

/// The writer that `tracing` uses; it appends to the queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Queue;

/// The text of one event while it is formatted.
#[derive(Debug, Default)]
pub(super) struct Event(Vec<u8>);

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Event;

    fn make_writer(&'a self) -> Event {
        Event::default()
    }
}

impl Write for Event {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // An entry of the journal went into the queue by itself.
        if !self.0.is_empty() {
            LINES.push(Line { text: std::mem::take(&mut self.0), entry: None });
        }
    }
}

/// What is to be written.
#[derive(Debug, Default, PartialEq)]
struct Line {
    text: Vec<u8>,
    /// The same for the journal.
    entry: Option<Vec<u8>>,
}

impl Line {
    fn len(&self) -> usize {
        self.text.len() + self.entry.as_ref().map_or(0, Vec::len)
    }
}

/// What waits, and a thread that writes it.
struct Lines {
    state: Mutex<State>,
    /// Rung when there is something to write, and when all is written.
    bell: Condvar,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Line>,
    /// The bytes in it.
    size: usize,
    /// One is being written.
    writing: bool,
    /// Lines lost that the log does not speak of yet.
    lost: u64,
    /// There is no thread to write.
    mute: bool,
}

impl State {
    /// Takes a line in; false when there is no room.
    fn push(&mut self, line: Line) -> bool {
        let fits = !self.mute && self.size + line.len() <= ROOM;
        if fits {
            self.size += line.len();
            self.queue.push_back(line);
        } else {
            self.lost += 1;
        }
        fits
    }

    /// The next line to write.
    fn next(&mut self) -> Option<Line> {
        let line = self.queue.pop_front();
        self.writing = line.is_some();
        self.size -= line.as_ref().map_or(0, Line::len);
        line
    }
}

impl Lines {
    fn start() -> Self {
        let run = || {
            // A terminal may stop a background process that writes; the write is allowed when the signal is blocked. A limit of
            // a file's size is then an error as others are.
            let mut ours = SigSet::empty();
            [Signal::SIGTTOU, Signal::SIGXFSZ].into_iter().for_each(|signal| ours.add(signal));
            let _ = ours.thread_block();
            LINES.run();
        };
        let mute = Builder::new().name("nicd-log".into()).spawn(run).is_err();
        Self { state: Mutex::new(State { mute, ..State::default() }), bell: Condvar::new() }
    }

    fn push(&self, line: Line) {
        if !self.lock().push(line) {
            meters().log_lost.inc();
        }
        self.bell.notify_all();
    }

    fn flush(&self, limit: Duration) {
        let busy = |state: &mut State| !state.mute && (state.writing || !state.queue.is_empty());
        let _ = self.bell.wait_timeout_while(self.lock(), limit, busy);
    }

    /// Writes one line after the other for as long as the process lives.
    fn run(&self) {
        let mut told = None::<Instant>;
        let socket = UnixDatagram::unbound().ok();
        let journal = |entry: &Vec<u8>| socket.as_ref().is_some_and(|socket| journal::send(socket, entry));
        loop {
            let line = {
                let mut state = self.lock();
                loop {
                    if let Some(line) = state.next() {
                        break line;
                    }
                    self.bell.notify_all();
                    state = self.bell.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            };
            let written = line.entry.as_ref().is_some_and(journal) || write_out(&line.text);
            let lost = {
                let mut state = self.lock();
                if !written {
                    state.lost += 1;
                    meters().log_lost.inc();
                }
                // Once there is room for it.
                let can = written && state.size < ROOM / 2;
                let tell = can && state.lost > 0 && told.is_none_or(|told| told.elapsed() >= TELL);
                if tell { std::mem::take(&mut state.lost) } else { 0 }
            };
            if lost > 0 {
                told = Some(Instant::now());
                tracing::warn!(lines = lost, "lines of the log were lost");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each step on it is complete in itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes to standard error; false when it cannot be. Without the standard library's lock of it, which others would wait for.
fn write_out(mut line: &[u8]) -> bool {
    let to = io::stderr();
    while !line.is_empty() {
        match write(&to, line) {
            Ok(0) => return false,
            Ok(written) => line = line.get(written..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            // Another process that shares standard error set it to non-blocking.
            Err(Errno::EAGAIN) => {
                let _ = poll(&mut [PollFd::new(to.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE);
            }
            Err(_) => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_lost_and_what_was_taken_is_given_in_order() {
        let line = |text: &[u8]| Line { text: text.to_vec(), entry: None };
        let mut state = State::default();
        assert!(state.push(Line { text: vec![b'a'; ROOM / 2], entry: Some(vec![b'a'; ROOM / 2 - 1]) }) && state.push(line(b"b")));
        assert!(!state.push(line(b"c")));
        assert_eq!((state.lost, state.next().map(|line| line.len())), (1, Some(ROOM - 1)));
        assert!(state.writing && state.push(line(b"d")), "there is room again");
        assert_eq!([state.next(), state.next(), state.next()], [Some(line(b"b")), Some(line(b"d")), None]);
        assert_eq!((state.size, state.writing), (0, false));
    }

    #[test]
    fn without_a_thread_every_line_is_lost_and_nobody_waits() {
        let mut state = State { mute: true, ..State::default() };
        assert!(!state.push(Line { text: vec![b'a'], entry: None }));
        assert_eq!((state.lost, state.queue.len()), (1, 0));
    }
}
