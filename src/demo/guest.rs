//! The guest that is a network namespace, as a container's is.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use super::failure::{Failure, trouble};

/// A network namespace mounted as a file, where nicd is told to find it.
#[derive(Debug)]
pub(super) struct Guest {
    /// That file.
    pub(super) path: PathBuf,
}

impl Guest {
    /// Makes one.
    pub(super) fn make(path: PathBuf) -> Result<Self, Failure> {
        let failed = || trouble::<std::io::Error>(path.display().to_string());
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(failed())?;
        }
        File::create(&path).map_err(failed())?;
        apart(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(trouble("a namespace for the guest"))?;
            bind(&path)
        })?;
        Ok(Self { path })
    }

    /// Does something inside: what is opened there stays there.
    pub(super) fn inside<T: Send>(&self, what: impl FnOnce() -> Result<T, Failure> + Send) -> Result<T, Failure> {
        apart(|| {
            let namespace = File::open(&self.path).map_err(trouble(self.path.display().to_string()))?;
            setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(trouble("entering the guest's namespace"))?;
            what()
        })
    }
}

fn bind(path: &Path) -> Result<(), Failure> {
    let nothing = None::<&str>;
    mount(Some("/proc/thread-self/ns/net"), path, nothing, MsFlags::MS_BIND, nothing)
        .map_err(trouble(format!("mounting {}", path.display())))
}

/// Does something on a thread that ends with it, as a thread's namespace does.
fn apart<T: Send>(what: impl FnOnce() -> Result<T, Failure> + Send) -> Result<T, Failure> {
    thread::scope(|scope| {
        let ended = |_| Failure::Trouble { doing: "the guest".to_owned(), said: "a thread of the demo panicked".to_owned() };
        scope.spawn(what).join().map_err(ended)?
    })
}
