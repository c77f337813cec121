//! The stage: private namespaces, the cast, and the acts in order. It ends with the process that started it.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use super::acts;
use super::daemon::Place;
use super::failure::{Failure, trouble};
use super::host::refused;

/// What the private tmpfs may lie over. Either is on every Linux.
const DIRECTORIES: [&str; 2] = ["/run", "/tmp"];

/// Shows everything.
pub(super) fn run() -> Result<(), Failure> {
    leash()?;
    let directory = seclude()?;
    let (place, ready) = Place::prepare(directory.join("nicd"))?;
    let log = |failure: Failure| {
        if !failure.is_quiet() {
            // Nothing is left to say when the terminal is gone.
            let _ = writeln!(io::stderr(), "nicd demo: the end of the daemon's log:\n{}", place.log_tail());
        }
        failure
    };
    acts::all(directory, &place, ready).map_err(log)
}

/// Ends this process when the one that started it ends, however that ends.
fn leash() -> Result<(), Failure> {
    set_pdeathsig(Signal::SIGKILL).map_err(trouble("prctl"))?;
    // It may have ended before that; then its end of this pipe is closed.
    let input = io::stdin();
    let mut parent = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
    poll(&mut parent, PollTimeout::ZERO).map_err(trouble("poll"))?;
    match parent[0].any() {
        Some(true) => Err(trouble("the demo's stage")("it is started by nicd demo, and not by hand")),
        _ => Ok(()),
    }
}

/// Gives this process a network, mounts and a directory of its own.
fn seclude() -> Result<&'static Path, Failure> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).map_err(refused)?;
    let nothing = None::<&str>;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).map_err(refused)?;
    let directory = DIRECTORIES.iter().map(Path::new).find(|path| path.is_dir()).ok_or(Errno::ENOENT).map_err(refused)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("nicd-demo"), directory, Some("tmpfs"), flags, Some("mode=0755,size=64m")).map_err(refused)?;
    Ok(directory)
}
