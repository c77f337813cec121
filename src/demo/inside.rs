//! The inner process: it makes its private namespaces and runs the steps. It ends with the process that started it.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use super::daemon::Place;
use super::fleet::{self, Lab};
use super::outside::refused;
use super::page::{Context, Failure};
use super::process::log_tail;
use super::steps;

/// What the private tmpfs may lie over. Either is on every Linux.
const DIRECTORIES: [&str; 2] = ["/run", "/tmp"];

/// The most memory that files take.
const SIZE: &str = "64m";

/// The same with etcd, which lays out 64 MB for each of its logs.
const FLEET_SIZE: &str = "512m";

/// Makes the namespaces and runs every step in them.
pub(super) fn run(fleet: bool) -> Result<(), Failure> {
    end_with_parent()?;
    let directory = make_namespaces(if fleet { FLEET_SIZE } else { SIZE })?;
    if fleet {
        let lab = Lab::make(directory)?;
        return fleet::run(&lab).inspect_err(|failure| show(failure, &lab.logs()));
    }
    let place = Place::prepare(directory.join("nicd"), "")?;
    steps::run(directory, &place).inspect_err(|failure| show(failure, &[("the daemon", &place.log)]))
}

/// Shows the ends of the logs, and whose each is.
fn show(failure: &Failure, logs: &[(&str, &Path)]) {
    if !failure.is_quiet() {
        for (whose, log) in logs {
            // There is no other place to say that standard error is closed.
            let _ = writeln!(io::stderr(), "nicd demo: the end of the log of {whose}:\n{}", log_tail(log));
        }
    }
}

/// Ends this process when the one that started it ends, however that ends.
fn end_with_parent() -> Result<(), Failure> {
    set_pdeathsig(Signal::SIGKILL).context("prctl")?;
    // It may have ended before that; then its end of this pipe is closed.
    let input = io::stdin();
    let mut parent = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
    poll(&mut parent, PollTimeout::ZERO).context("poll")?;
    match parent[0].any() {
        Some(true) => Err(Failure::new("the demo's inner process", "it is started by nicd demo, and not by hand")),
        _ => Ok(()),
    }
}

/// Gives this process a network, mounts and a directory of its own.
fn make_namespaces(size: &str) -> Result<&'static Path, Failure> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).map_err(refused)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(refused)?;
    let directory = DIRECTORIES.iter().map(Path::new).find(|path| path.is_dir()).ok_or(Errno::ENOENT).map_err(refused)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("nicd-demo"), directory, Some("tmpfs"), flags, Some(&*format!("mode=0755,size={size}"))).map_err(refused)?;
    Ok(directory)
}
