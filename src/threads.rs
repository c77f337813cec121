//! Threads without which the daemon cannot go on: the store's, the kernel's.
//!
//! Each owes somebody answers. One that ends in a panic would leave them owing, and nobody knowing what was done; so the
//! process ends with it, and the next start finds out. Whatever stands then is what a kill at that moment would have left.

use std::io;
use std::thread::{Builder, JoinHandle};

use crate::exit::Exit;
use crate::points;

/// Ends the process when the thread that has it panics.
struct Vital;

impl Drop for Vital {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The panic itself has been reported by the hook.
            std::process::exit(Exit::Internal.code().into());
        }
    }
}

/// Starts a thread that the process does not outlive when it panics.
///
/// # Errors
/// The system gives no thread.
pub fn start(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let work = points::carry(work);
    Builder::new().name(name.to_owned()).spawn(move || {
        let _vital = Vital;
        work();
    })
}
