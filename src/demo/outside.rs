//! The first process: it stays on the host, checks that the demo can run, starts the inner process, and compares the host's
//! links before and after.

use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use super::page::{Context, Failure, Page, links, named};
use super::programs;
use crate::exit::Exit;
use crate::kernel::tap::NODE;

/// This very program, also when its file has been replaced since.
pub(super) const SELF: &str = "/proc/self/exe";

/// Runs all of it.
pub(super) fn run(fleet: bool) -> Result<(), Failure> {
    let began = Instant::now();
    if fleet {
        programs::check()?;
    } else {
        check_tun()?;
        check_v6()?;
    }
    let before = links()?;
    enter_pid_namespace()?;
    run_inside(fleet)?;
    let page = Page::default();
    let after = links()?;
    if after == before {
        page.held(&format!("this host has the same links as before: {}", named(&after)))?;
    } else {
        // Other programs may make links meanwhile; none of the demo's can come here.
        page.line(&format!("    this host's links changed meanwhile, by other programs: {}", named(&after)))?;
    }
    let seconds = began.elapsed().as_secs_f64();
    let next = match fleet {
        true => "Hosts of yours: [fleet] in nicd.toml, which nicd check-config --reference explains.",
        false => "The same on this host: sudo nicd, and nicctl --help.",
    };
    page.line(&format!("\nAll of it held, in {seconds:.1} s. {next}"))
}

/// Runs the inner process, the first of the pid namespace: when it ends, the kernel ends all that it started.
fn run_inside(fleet: bool) -> Result<(), Failure> {
    let doing = "the demo's inner process";
    let mut command = Command::new(SELF);
    // Nothing is written to its standard input. It closes when this process ends, which the inner process can see.
    command.arg0("nicd").args(["demo", "--role", "inside"]).args(fleet.then_some("--fleet")).stdin(Stdio::piped());
    let mut inside = command.spawn().context(doing)?;
    let _open = inside.stdin.take();
    let status = inside.wait().context(doing)?;
    match status.code() {
        Some(0) => Ok(()),
        Some(code) if code == i32::from(Exit::Permission.code()) => Err(Failure::Reported(Exit::Permission)),
        Some(_) => Err(Failure::Reported(Exit::Internal)),
        None => Err(Failure::new(doing, status)),
    }
}

/// A VM's NIC needs the tun driver.
fn check_tun() -> Result<(), Failure> {
    let Err(error) = std::fs::File::options().read(true).write(true).open(NODE) else { return Ok(()) };
    let remedy = match error.kind() {
        ErrorKind::PermissionDenied => format!("Run it as root: sudo nicd demo. Or let this user open {NODE}."),
        _ => "The tun driver gives it: modprobe tun. In a container it must be passed in: --device /dev/net/tun.".to_owned(),
    };
    Err(Failure::Missing(format!("{NODE} cannot be opened by uid {}: {error}.", geteuid()), remedy))
}

fn check_v6() -> Result<(), Failure> {
    if std::path::Path::new("/proc/net/if_inet6").exists() {
        return Ok(());
    }
    let what = "this kernel has IPv6 switched off, and the demo shows both families.".to_owned();
    Err(Failure::Missing(what, "Boot without ipv6.disable=1.".to_owned()))
}

/// A pid namespace for what is started from here on; without root, in a user namespace that makes this user its root.
fn enter_pid_namespace() -> Result<(), Failure> {
    if geteuid().is_root() {
        return unshare(CloneFlags::CLONE_NEWPID).map_err(refused);
    }
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWPID).map_err(refused)?;
    // In this order: without the first, an unprivileged gid_map is refused (user_namespaces(7)).
    for (file, text) in [("setgroups", "deny".to_owned()), ("uid_map", format!("0 {uid} 1")), ("gid_map", format!("0 {gid} 1"))] {
        std::fs::write(format!("/proc/self/{file}"), text).map_err(refused)?;
    }
    Ok(())
}

/// The system refuses a namespace.
pub(super) fn refused(error: impl std::fmt::Display) -> Failure {
    let what = format!("namespaces of its own, which the demo runs in, are refused to it: {error}.");
    let remedy = "Run it as root (sudo nicd demo); in a container, in one that may unshare (CAP_SYS_ADMIN).";
    Failure::Missing(what, remedy.to_owned())
}
