//! What the service manager is told (sd_notify(3)): readiness, a line of status, reloads, and signs of life.
//!
//! Without a service manager nothing is told, and nothing is missing.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::OnceLock;
use std::time::Duration;

use sd_notify::NotifyState;

/// The socket that all is told by, open from the first time on: a process without a free descriptor is alive too.
static SOCKET: OnceLock<Option<(UnixDatagram, SocketAddr)>> = OnceLock::new();

/// How often the manager's loop tells something when no watchdog asks for more.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// How long the loop may go without a sign of life, if the unit says so (`WatchdogSec=`): half of that leaves room for a
/// beat that comes late.
pub fn heartbeat_interval() -> Duration {
    sd_notify::watchdog_enabled().map_or(HEARTBEAT, |limit| (limit / 2).min(HEARTBEAT))
}

/// Requests are answered from now on, and everything was tried once that was to be there.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Not ready yet.
pub fn starting(status: &str) {
    tell(&[NotifyState::Status(status)]);
}

/// The configuration is being read again; [`ready`] ends it. With the time, as `Type=notify-reload` wants it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now, NotifyState::Status("reading the configuration again")]),
        Err(error) => tracing::warn!(%error, "the clock cannot be read, so no reload is told"),
    }
}

/// No more requests are taken.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping: what is under way ends first")]);
}

/// Tells of each beat of the loop: the sign of life, and the line when it has changed.
pub fn heartbeat() -> impl FnMut(&str) + Send + 'static {
    let mut told = String::new();
    move |status| {
        if told == status {
            return tell(&[NotifyState::Watchdog]);
        }
        told.replace_range(.., status);
        tell(&[NotifyState::Watchdog, NotifyState::Status(status)]);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = try_to_tell(states) {
        tracing::debug!(%error, "the service manager could not be told");
    }
}

fn try_to_tell(states: &[NotifyState<'_>]) -> io::Result<()> {
    let opened = || open().inspect_err(|error| tracing::warn!(%error, "the service manager cannot be told anything"));
    let Some((socket, to)) = SOCKET.get_or_init(|| opened().unwrap_or_default()) else { return Ok(()) };
    let lines: String = states.iter().map(|state| format!("{state}\n")).collect();
    socket.send_to_addr(lines.as_bytes(), to).map(drop)
}

/// A socket, and where the service manager listens, if there is one (`NOTIFY_SOCKET`): a path, or `@` and an abstract name.
fn open() -> io::Result<Option<(UnixDatagram, SocketAddr)>> {
    let Some(place) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(None) };
    let to = match place.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(&place)?,
    };
    Ok(Some((UnixDatagram::unbound()?, to)))
}
