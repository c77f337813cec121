//! The first process: it stays on the host, sees to it that the demo can be had, and has the last word.

use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use crate::exit::Exit;
use crate::kernel::tap::NODE;

use super::clock::Moment;
use super::failure::{Failure, trouble};
use super::page::Page;
use super::proof;

/// This very program, also when its file has been replaced since.
pub(super) const SELF: &str = "/proc/self/exe";

/// Puts the demo on and judges it.
pub(super) fn run() -> Result<(), Failure> {
    let began = Moment::now();
    check_tun()?;
    check_v6()?;
    let before = proof::links()?;
    enter()?;
    play()?;
    let mut page = Page::new();
    let after = proof::links()?;
    match after == before {
        true => page.claim(Ok(format!("this host has the same links as before: {}", proof::named(&after))))?,
        // Other programs may make links meanwhile; none of the demo's could come here.
        false => page.note(&format!("this host's links changed meanwhile, by other programs: {}", proof::named(&after)))?,
    }
    page.title(&format!("\nAll of it held, in {:.1} s. The same on this host: sudo nicd, and nicctl --help.", seconds(began)))
}

fn seconds(began: Moment) -> f64 {
    began.elapsed().duration().as_secs_f64()
}

/// The stage, as the first process of a new pid namespace: when it ends, the kernel ends all that it started.
fn play() -> Result<(), Failure> {
    let mut stage = Command::new(SELF)
        .arg0("nicd")
        .args(["demo", "--role", "stage"])
        // Never written to: it closes when this process ends, which the stage can see.
        .stdin(Stdio::piped())
        .spawn()
        .map_err(trouble("the demo's stage cannot be started"))?;
    let _leash = stage.stdin.take();
    judge(stage.wait().map_err(trouble("the demo's stage was lost"))?)
}

fn judge(status: ExitStatus) -> Result<(), Failure> {
    match status.code() {
        Some(0) => Ok(()),
        Some(code) if code == i32::from(Exit::Permission.code()) => Err(Failure::Said(Exit::Permission)),
        Some(_) => Err(Failure::Said(Exit::Internal)),
        None => Err(Failure::Trouble { doing: "the demo's stage".to_owned(), said: status.to_string() }),
    }
}

/// A VM's NIC needs it.
fn check_tun() -> Result<(), Failure> {
    let Err(error) = std::fs::File::options().read(true).write(true).open(NODE) else { return Ok(()) };
    let remedy = match error.kind() {
        ErrorKind::PermissionDenied => format!("Run it as root: sudo nicd demo. Or let this user open {NODE}."),
        _ => "The tun driver gives it: modprobe tun. In a container it must be passed in: --device /dev/net/tun.".to_owned(),
    };
    Err(Failure::Missing { what: format!("{NODE} cannot be opened by uid {}: {error}.", geteuid()), remedy })
}

fn check_v6() -> Result<(), Failure> {
    if std::path::Path::new("/proc/net/if_inet6").exists() {
        return Ok(());
    }
    let what = "this kernel has IPv6 switched off, and the demo shows both families.".to_owned();
    Err(Failure::Missing { what, remedy: "Boot without ipv6.disable=1.".to_owned() })
}

/// A pid namespace for what is started from here on; without root, in a user namespace that makes this user its root.
fn enter() -> Result<(), Failure> {
    if geteuid().is_root() {
        return unshare(CloneFlags::CLONE_NEWPID).map_err(refused);
    }
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWPID).map_err(refused)?;
    // In this order: without the first, an unprivileged gid_map is refused (user_namespaces(7)).
    for (file, text) in [("setgroups", "deny".to_owned()), ("uid_map", format!("0 {uid} 1")), ("gid_map", format!("0 {gid} 1"))] {
        std::fs::write(format!("/proc/self/{file}"), text).map_err(|error| refused_by(&error.to_string()))?;
    }
    Ok(())
}

/// No namespace can be had.
pub(super) fn refused(errno: Errno) -> Failure {
    refused_by(errno.desc())
}

fn refused_by(said: &str) -> Failure {
    Failure::Missing {
        what: format!("namespaces of its own, which the demo runs in, are refused to it: {said}."),
        remedy: "Run it as root (sudo nicd demo); in a container, in one that may unshare (CAP_SYS_ADMIN).".to_owned(),
    }
}
