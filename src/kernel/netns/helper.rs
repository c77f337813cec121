//! `nicd-netns`: the only part of nicd with CAP_SYS_ADMIN. It opens sockets in network namespaces, and changes nothing in them.
//!
//! A request has a path or a cookie; the answer has a netlink socket inside that network namespace (`protocol`). Or it asks for a new
//! namespace, in which the daemon checks the filters; it ends with the descriptors that the answer has. `enter` opens only
//! network namespaces, also if the path is replaced meanwhile; never the host's, nor the helper's own empty one, which
//! `/proc/self` would name. The helper answers only the owner of its socket's file, keeps no state, and exits after some time
//! without a request; systemd owns the socket and starts the helper again.
//!
//! It must see new mounts of the host, so its unit has no private mount namespace. It does not need the host's network.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use listenfd::ListenFd;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use super::super::socket::Netlink;
use super::super::{NetnsError, no_descriptors};
use super::enter::{make, refused, socket_inside};
use super::protocol::Asked;
use super::{Entered, Fresh, protocol};
use crate::sys::{pass, socket};

/// How long it waits for a request before it exits.
const IDLE: Duration = Duration::from_secs(10);

/// The time limit for a caller to send the request, and to receive the answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long accepting rests when there is no descriptor at all for a caller, who waits in the queue.
const REST: Duration = Duration::from_millis(100);

/// What a caller is given.
#[derive(Debug)]
enum Given {
    Inside(Entered),
    Fresh(Fresh),
}

/// Why the helper cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// It was not started by systemd's socket.
    #[error("nicd-netns is started by systemd with its socket (nicd-netns.socket); none was passed")]
    NoSocket,
    /// The socket is not as its unit makes it.
    #[error("the socket that systemd passed cannot be used")]
    Socket(#[source] io::Error),
}

/// Answers requests until none comes for some time.
///
/// # Errors
/// It was not started by its socket, or that fails.
pub fn run() -> Result<(), HelperError> {
    let passed = ListenFd::from_env().take_unix_listener(0).map_err(HelperError::Socket)?;
    let listener = passed.ok_or(HelperError::NoSocket)?;
    let daemon = owner(&listener).map_err(HelperError::Socket)?;
    // Who made the socket did so in the host's namespace; this process is in one without any link.
    let host = socket::netns_cookie(&listener).map_err(|errno| HelperError::Socket(errno.into()))?;
    let here = here().map_err(HelperError::Socket)?;
    let mut spare = Some(spare().map_err(HelperError::Socket)?);
    while is_asked(&listener).map_err(HelperError::Socket)? {
        let served = match listener.accept() {
            Ok((caller, _)) => serve(caller, daemon, |request| answer(request, [host, here])),
            Err(error) if lacks_descriptors(&error) => {
                drop(spare.take());
                let told =
                    listener.accept().and_then(|(caller, _)| serve(caller, daemon, |request| Err(out_of(request, &error))));
                spare = self::spare().ok();
                told.inspect_err(|_| std::thread::sleep(REST))
            }
            Err(error) => return Err(HelperError::Socket(error)),
        };
        if let Err(error) = served {
            tracing::warn!(%error, "a caller got no answer");
        }
    }
    Ok(())
}

/// A spare descriptor. It is closed to accept a caller when no other is free, so that the caller gets an error answer.
fn spare() -> io::Result<File> {
    File::open("/dev/null")
}

fn lacks_descriptors(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|errno| no_descriptors(Errno::from_raw(errno)))
}

/// The answer to a caller when only the spare descriptor was free.
fn out_of(request: &[u8], error: &io::Error) -> NetnsError {
    let shown = protocol::read_request(request).map(|asked| asked.shown()).unwrap_or_default();
    NetnsError::of(&shown, error.raw_os_error().map_or(Errno::EMFILE, Errno::from_raw))
}

/// The namespace this process is in, by its cookie.
fn here() -> io::Result<u64> {
    let netlink = Netlink::open().map_err(|failure| io::Error::other(failure.said))?;
    Ok(socket::netns_cookie(netlink.socket())?)
}

/// Whose the socket's file is: the daemon's uid, as the unit says.
fn owner(listener: &UnixListener) -> io::Result<u32> {
    let address = listener.local_addr()?;
    let path = address.as_pathname().ok_or_else(|| io::Error::other("it has no path"))?;
    Ok(std::fs::symlink_metadata(path)?.uid())
}

/// Waits for a caller; false when none comes.
fn is_asked(listener: &UnixListener) -> io::Result<bool> {
    let wait = PollTimeout::try_from(IDLE).map_err(io::Error::other)?;
    match poll(&mut [PollFd::new(listener.as_fd(), PollFlags::POLLIN)], wait) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::EINTR) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}

/// Handles one request.
fn serve(mut caller: UnixStream, daemon: u32, answer: impl FnOnce(&[u8]) -> Result<Given, NetnsError>) -> io::Result<()> {
    caller.set_read_timeout(Some(PATIENCE))?;
    caller.set_write_timeout(Some(PATIENCE))?;
    let uid = getsockopt(&caller, PeerCredentials)?.uid();
    if uid != daemon {
        let said = format!("nicd-netns answers uid {daemon} alone, and uid {uid} has asked");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, said));
    }
    let mut request = Vec::new();
    (&mut caller).take(protocol::REQUEST as u64 + 1).read_to_end(&mut request)?;
    // A caller that only tests the connection sends no request.
    if request.is_empty() {
        return Ok(());
    }
    match answer(&request) {
        Ok(Given::Inside(Entered { netlink, by_process })) => {
            let letter = if by_process { protocol::BY_PROCESS } else { protocol::SOCKET };
            pass::send(caller.as_fd(), letter, Some(netlink.socket().as_fd()))
        }
        Ok(Given::Fresh(Fresh { netlink, netfilter, taps })) => {
            let sockets = [netlink.socket().as_fd(), netfilter.as_fd()];
            let mut descriptors = sockets.into_iter().chain(taps.iter().map(AsFd::as_fd));
            descriptors.try_for_each(|one| pass::send(caller.as_fd(), protocol::FRESH, Some(one)))
        }
        Err(error) => pass::send(caller.as_fd(), &protocol::refusal(&error), None),
    }
}

/// The operation. `own` are the namespaces that are not guests'.
fn answer(request: &[u8], own: [u64; 2]) -> Result<Given, NetnsError> {
    let asked = protocol::read_request(request).ok_or_else(|| refused("it".as_ref(), "an absolute path is expected"))?;
    let Asked::Inside(named) = asked else { return make().map(Given::Fresh) };
    let entered = socket_inside(&named)?;
    match socket::netns_cookie(entered.netlink.socket()) {
        Ok(cookie) if !own.contains(&cookie) => Ok(Given::Inside(entered)),
        Ok(_own) => Err(NetnsError::Own(named.shown().display().to_string())),
        Err(errno) => Err(NetnsError::of(&named.shown(), errno)),
    }
}
