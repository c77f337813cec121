//! Network namespaces: of guests, as a container's is, and of the fleet's hosts.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use super::page::{Context, Failure};

/// A network namespace mounted as a file.
#[derive(Debug)]
pub(super) struct Namespace {
    pub(super) path: PathBuf,
}

impl Namespace {
    /// Makes one in a directory.
    pub(super) fn make(directory: &Path, name: &str) -> Result<Self, Failure> {
        let path = directory.join(name);
        let doing = path.display().to_string();
        std::fs::create_dir_all(directory).context(&doing)?;
        File::create(&path).context(&doing)?;
        on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("a network namespace")?;
            let none = None::<&str>;
            mount(Some("/proc/thread-self/ns/net"), &path, none, MsFlags::MS_BIND, none).context(&doing)
        })?;
        Ok(Self { path })
    }

    /// Does something inside: a socket that is opened there, and a process that is started there, stay there.
    pub(super) fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T, Failure> + Send) -> Result<T, Failure> {
        on_thread(|| {
            let doing = format!("entering {}", self.path.display());
            setns(File::open(&self.path).context(&doing)?, CloneFlags::CLONE_NEWNET).context(&doing)?;
            work()
        })
    }
}

/// Works on a thread of its own, as a thread's namespace ends with it.
fn on_thread<T: Send>(work: impl FnOnce() -> Result<T, Failure> + Send) -> Result<T, Failure> {
    thread::scope(|scope| scope.spawn(work).join().map_err(|_| Failure::new("a namespace", "a thread panicked"))?)
}
