//! Resolves a path component by component, to detect whether it goes through procfs.
//!
//! A path through procfs names a process: `/proc/PID/ns/net`, a task of it, one of its descriptors, its root. The same
//! path names another process's namespace once the number is used again. Neither the path's text nor the file it ends at
//! shows that: there are symbolic links, and procfs may be mounted elsewhere.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

/// The most symbolic links of one path, as the kernel has it (`MAXSYMLINKS`).
const LINKS: usize = 40;

/// The object a path names, opened without opening it (`O_PATH`): no FIFO blocks, no device wakes up.
#[derive(Debug)]
pub(super) struct Place {
    /// The object.
    pub(super) fd: OwnedFd,
    /// Whether procfs was on the way.
    pub(super) by_process: bool,
    /// Whether the process on the way was this one.
    pub(super) by_us: bool,
}

/// Follows an absolute path.
///
/// # Errors
/// As open(2); a relative path is ENOENT.
pub(super) fn follow(path: &Path) -> nix::Result<Place> {
    if !path.is_absolute() {
        return Err(Errno::ENOENT);
    }
    let root = || open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty());
    let mut place = Place { fd: root()?, by_process: false, by_us: false };
    let mut ahead = components(path);
    let (mut links, mut on_procfs) = (0, false);
    while let Some(name) = ahead.pop_front() {
        let next = at(&place.fd, &name, OFlag::O_NOFOLLOW)?;
        let procfs = fstatfs(&next)?.filesystem_type() == PROC_SUPER_MAGIC;
        place.by_process |= procfs;
        place.by_us |= on_procfs && names_us(&place.fd, &name);
        on_procfs = procfs;
        if SFlag::from_bits_truncate(fstat(&next)?.st_mode) & SFlag::S_IFMT != SFlag::S_IFLNK {
            place.fd = next;
            continue;
        }
        links += 1;
        if links > LINKS {
            return Err(Errno::ELOOP);
        }
        if procfs {
            // What it leads to is the kernel's to say: its text is no path.
            place.fd = at(&place.fd, &name, OFlag::empty())?;
            on_procfs = fstatfs(&place.fd)?.filesystem_type() == PROC_SUPER_MAGIC;
            continue;
        }
        let target = readlinkat(&next, "")?;
        let target = Path::new(&target);
        if target.is_absolute() {
            place.fd = root()?;
        }
        let behind = std::mem::replace(&mut ahead, components(target));
        ahead.extend(behind);
    }
    Ok(place)
}

fn at(directory: &impl AsFd, name: &OsStr, flags: OFlag) -> nix::Result<OwnedFd> {
    openat(directory, name, OFlag::O_PATH | OFlag::O_CLOEXEC | flags, Mode::empty())
}

/// Whether a name in a directory of procfs is that of this process.
fn names_us(directory: &impl AsFd, name: &OsStr) -> bool {
    name == "self" || name == "thread-self" || readlinkat(directory, "self").is_ok_and(|us| us == name)
}

fn components(path: &Path) -> VecDeque<OsString> {
    let named = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn shown(path: &str) -> (bool, bool) {
        let place = follow(Path::new(path)).unwrap_or_else(|errno| panic!("{path}: {errno}"));
        (place.by_process, place.by_us)
    }

    #[test]
    fn a_path_through_procfs_names_a_process_however_it_is_written() {
        let parent = nix::unistd::getppid();
        let directory = std::env::temp_dir().join(format!("nicd-path-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let link = |name: &str, target: &str| {
            symlink(target, directory.join(name)).unwrap();
            directory.join(name).display().to_string()
        };
        let absolute = link("a", &format!("/proc/{parent}/ns/net"));
        let relative = link("b", "./a");
        let through = link("c", &format!("/proc/{parent}"));
        for path in [
            format!("/proc/{parent}/ns/net"),
            format!("/proc/{parent}/task/{parent}/ns/net"),
            format!("//proc//{parent}/./ns/net"),
            format!("/etc/../proc/{parent}/ns/net"),
            format!("/proc/{parent}/root/etc"),
            absolute,
            relative,
            format!("{through}/ns/net"),
        ] {
            assert_eq!(shown(&path), (true, false), "{path}");
        }
        let own = std::process::id();
        for path in ["/proc/self/ns/net", "/proc/thread-self/ns/net", "/dev/fd/0", &format!("/proc/{own}/ns/net")] {
            assert_eq!(shown(path), (true, true), "{path}");
        }
        let place = link("d", "/etc");
        for path in ["/", "/etc", "/tmp/../etc/.", place.as_str()] {
            assert_eq!(shown(path), (false, false), "{path}");
        }
        symlink("loop", directory.join("loop")).unwrap();
        assert_eq!(follow(&directory.join("loop")).err(), Some(Errno::ELOOP));
        for missing in ["", "etc", "/never/there"] {
            assert_eq!(follow(Path::new(missing)).err(), Some(Errno::ENOENT), "{missing}");
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
