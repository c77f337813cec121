//! Notifies the service manager (sd_notify(3)): readiness, status line, reloads, watchdog.
//!
//! Without a service manager nothing is sent.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::OnceLock;
use std::time::Duration;

use sd_notify::NotifyState;

/// The notification socket. It stays open, so that the watchdog also works while the process has no free file descriptor.
static SOCKET: OnceLock<Option<(UnixDatagram, SocketAddr)>> = OnceLock::new();

/// The heartbeat interval when the unit has no watchdog, or one with a longer limit.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// The interval of the watchdog heartbeat: half of the unit's `WatchdogSec=`, so that a late heartbeat is still in time.
pub fn heartbeat_interval() -> Duration {
    sd_notify::watchdog_enabled().map_or(HEARTBEAT, |limit| (limit / 2).min(HEARTBEAT))
}

/// Reports readiness: requests are answered, and every recorded port was tried once.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Reports a status line before readiness.
pub fn starting(status: &str) {
    // A line end would begin another assignment.
    notify(&[NotifyState::Status(&status.replace('\n', " "))]);
}

/// Reports that the configuration is being reloaded; [`ready`] ends the reload. `Type=notify-reload` requires the time.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now, NotifyState::Status("reading the configuration again")]),
        Err(error) => tracing::warn!(%error, "the clock cannot be read, so the reload is not reported"),
    }
}

/// Reports that the daemon stops.
pub fn stopping() {
    notify(&[NotifyState::Stopping, NotifyState::Status("stopping: finishing the running operations")]);
}

/// The heartbeat of the reconcile loop: sends the watchdog notification, and the status line when it has changed.
pub fn heartbeat() -> impl FnMut(&str) + Send + 'static {
    let mut sent = String::new();
    move |status| {
        if sent == status {
            return notify(&[NotifyState::Watchdog]);
        }
        sent.replace_range(.., status);
        notify(&[NotifyState::Watchdog, NotifyState::Status(status)]);
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = try_notify(states) {
        tracing::debug!(%error, "the service manager could not be notified");
    }
}

fn try_notify(states: &[NotifyState<'_>]) -> io::Result<()> {
    let opened = || open().inspect_err(|error| tracing::warn!(%error, "the service manager cannot be notified"));
    let Some((socket, to)) = SOCKET.get_or_init(|| opened().unwrap_or_default()) else { return Ok(()) };
    let lines: String = states.iter().map(|state| format!("{state}\n")).collect();
    socket.send_to_addr(lines.as_bytes(), to).map(drop)
}

/// Opens a socket and resolves the address in `NOTIFY_SOCKET`, if set: a path, or `@` and an abstract name.
fn open() -> io::Result<Option<(UnixDatagram, SocketAddr)>> {
    let Some(place) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(None) };
    let to = match place.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(&place)?,
    };
    Ok(Some((UnixDatagram::unbound()?, to)))
}
