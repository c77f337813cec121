//! Network namespaces of the benchmark's own: a host for nicd, one for the bare calls, and guests.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

/// Leaves the machine's network and mounts for ever; before any thread is started. `/run` is empty then and has a `netns`.
pub fn leave() {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("own namespaces need root");
    let nothing = None::<&str>;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).expect("private mounts");
    mount(Some("run"), "/run", Some("tmpfs"), MsFlags::empty(), nothing).expect("a /run of its own");
    std::fs::create_dir("/run/netns").expect("/run/netns");
}

/// A namespace, mounted below `/run/netns`.
#[derive(Debug)]
pub struct Place {
    /// Where it is mounted.
    pub path: PathBuf,
    fd: File,
}

impl Place {
    /// Makes one in which IPv6 makes no addresses of its own.
    pub fn new(name: &str) -> Self {
        let path = Path::new("/run/netns").join(name);
        std::fs::write(&path, "").expect("mount point");
        let target = path.clone();
        let make = move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("unshare");
            let nothing = None::<&str>;
            mount(Some("/proc/thread-self/ns/net"), &target, nothing, MsFlags::MS_BIND, nothing).expect("bind mount");
            // Without IPv6 there is nothing to switch off.
            let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/addr_gen_mode", "1");
        };
        thread::spawn(make).join().expect("a namespace");
        Self { fd: File::open(&path).expect("the namespace"), path }
    }

    /// The namespace, to give a device into.
    pub fn fd(&self) -> &File {
        &self.fd
    }

    /// Does something inside, on this thread.
    pub fn inside<T>(&self, work: impl FnOnce() -> T) -> T {
        let here = File::open("/proc/thread-self/ns/net").expect("this thread's namespace");
        setns(&self.fd, CloneFlags::CLONE_NEWNET).expect("setns");
        let done = work();
        setns(&here, CloneFlags::CLONE_NEWNET).expect("back");
        done
    }
}
