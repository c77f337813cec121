//! The two ways to enter a namespace: directly, or by the helper.

use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

use super::super::socket::Netlink;
use super::super::{NetnsError, capabilities, no_descriptors};
use super::enter::{OPENING, make, socket_inside};
use super::protocol::Asked;
use super::{Entered, Fresh, Named, TAPS, protocol};
use crate::failpoints;
use crate::sys::pass;

/// The helper's socket.
pub(in crate::kernel) const HELPER: &str = "/run/nicd/nicd-netns.sock";

/// The time limit of the helper: twice the limit of opening a namespace, because it may first serve another thread of the daemon.
const LIMIT: Duration = Duration::from_secs(2 * OPENING.as_secs());

/// Whether the last exchange with the helper failed.
static FAILED: AtomicBool = AtomicBool::new(false);

/// The error text for a helper that does not answer.
const IN_VAIN: &str = "it did not answer a recent request";

/// When the helper last failed to answer in time.
static SILENT: Mutex<Option<Instant>> = Mutex::new(None);

/// How namespaces are entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kernel) enum NetnsAccess {
    /// By this process.
    Here,
    /// By the helper.
    Helper,
}

impl NetnsAccess {
    /// What the capabilities of this process allow.
    pub(super) fn of_this_process() -> Self {
        if capabilities::is_missing(capabilities::SYS_ADMIN) { Self::Helper } else { Self::Here }
    }

    /// A netlink socket inside a namespace.
    pub(super) fn open(self, named: &Named) -> Result<Entered, NetnsError> {
        let enter = || match self {
            Self::Here => socket_inside(named),
            Self::Helper => enter_by_helper(named),
        };
        failpoints::call(("netns", "enter"), enter, |errno| NetnsError::of(&named.shown(), errno))
    }

    /// Makes a namespace that ends with what is opened in it.
    pub(in crate::kernel) fn make(self) -> Result<Fresh, NetnsError> {
        match self {
            Self::Here => make(),
            Self::Helper => make_by_helper(),
        }
    }

    /// Why namespaces cannot be entered, checked without starting the helper: its socket is missing or not accessible. After a failure
    /// of the helper, connects to the socket to test it.
    pub(in crate::kernel) fn closed(self) -> Option<String> {
        if self == Self::Here {
            return None;
        }
        if is_silent() {
            return Some(IN_VAIN.to_owned());
        }
        let there = access(HELPER, AccessFlags::W_OK).map_err(io::Error::from);
        let answers = there.and_then(|()| match FAILED.load(Ordering::Relaxed) {
            true => UnixStream::connect(HELPER).map(drop),
            false => Ok(()),
        });
        // A missing descriptor of this process says nothing about the helper.
        if answers.as_ref().is_err_and(|error| here(error).is_some()) {
            return None;
        }
        FAILED.store(answers.is_err(), Ordering::Relaxed);
        answers.err().map(|error| error.to_string())
    }
}

fn enter_by_helper(named: &Named) -> Result<Entered, NetnsError> {
    let (letter, [socket]) = ask(&Asked::Inside(named.clone()))?;
    Ok(Entered { netlink: Netlink::over(pass::netlink(socket)), by_process: letter == protocol::BY_PROCESS })
}

fn make_by_helper() -> Result<Fresh, NetnsError> {
    let (_, [netlink, netfilter, taps @ ..]) = ask::<{ 2 + TAPS }>(&Asked::Fresh)?;
    Ok(Fresh { netlink: Netlink::over(pass::netlink(netlink)), netfilter: pass::netlink(netfilter), taps })
}

/// Asks the helper; returns the answer's letter, and its descriptors.
fn ask<const N: usize>(asked: &Asked) -> Result<(Vec<u8>, [OwnedFd; N]), NetnsError> {
    let unreachable = |said: String| NetnsError::Helper { path: asked.shown().display().to_string(), said };
    let Some(request) = protocol::request(asked) else {
        return Err(NetnsError::Missing(asked.shown().display().to_string()));
    };
    // Without this check, all requests in the queue would wait for the full time limit, one after the other.
    if is_silent() {
        return Err(unreachable(IN_VAIN.to_owned()));
    }
    let exchanged = exchange(&request, N);
    if let Some(errno) = exchanged.as_ref().err().and_then(here) {
        return Err(NetnsError::of(&asked.shown(), errno));
    }
    FAILED.store(exchanged.is_err(), Ordering::Relaxed);
    *silent() = exchanged.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock).then(Instant::now);
    let (said, descriptors) = exchanged.map_err(|error| unreachable(error.to_string()))?;
    match descriptors.try_into() {
        Ok(descriptors) => Ok((said, descriptors)),
        Err(_fewer) => Err(protocol::read_refusal(&said, asked).unwrap_or_else(|| unreachable("it gave no answer".into()))),
    }
}

/// The errno, if an exchange failed because this process has no free descriptor.
fn here(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw).filter(|errno| no_descriptors(*errno))
}

/// Whether the helper recently failed to answer in time.
fn is_silent() -> bool {
    silent().is_some_and(|since| since.elapsed() < LIMIT)
}

fn silent() -> MutexGuard<'static, Option<Instant>> {
    // Either value is whole.
    SILENT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends one request and receives the answer: what is said, and up to so many descriptors. Each comes by itself, because of several
/// for which there is no room the first ones would stay open.
fn exchange(request: &[u8], most: usize) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut helper = UnixStream::connect(HELPER)?;
    helper.set_write_timeout(Some(LIMIT))?;
    helper.set_read_timeout(Some(LIMIT))?;
    helper.write_all(request)?;
    helper.shutdown(Shutdown::Write)?;
    let (mut answer, mut descriptors) = ([0; protocol::ANSWER], Vec::new());
    loop {
        let (length, descriptor) = pass::receive(helper.as_fd(), &mut answer)?;
        let is_last = descriptor.is_none() || descriptors.len() + 1 == most;
        descriptors.extend(descriptor);
        if is_last {
            return Ok((answer[..length].to_vec(), descriptors));
        }
    }
}
