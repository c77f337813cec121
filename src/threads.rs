//! Threads without which the daemon cannot go on: the store's, the kernel's. And which processors they have.
//!
//! Each owes somebody answers. One that ends in a panic would leave them owing, and nobody knowing what was done; so the
//! process ends with it, and the next start finds out. Whatever stands then is what a kill at that moment would have left.

use std::io;
use std::sync::OnceLock;
use std::thread::{Builder, JoinHandle};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

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

/// The processors of the threads that work in the kernel; unset where they share all with the others.
static IN_THE_KERNEL: OnceLock<CpuSet> = OnceLock::new();

/// Gives the threads that change links processors of their own, half of those this process may use, and the others the rest.
///
/// A change of a link holds its processor for some hundred microseconds in the kernel, which most servers' kernels do not
/// interrupt for a thread (`PREEMPT_NONE`, `PREEMPT_VOLUNTARY`). The scheduler likes to wake a thread where it is woken from;
/// a flush whose interrupts come there then takes as long as the change, and the two were to go on at the same time. Where
/// there is but one processor, or the system refuses, all share.
pub fn part_processors() {
    let this = Pid::from_raw(0);
    let Ok(usable) = sched_getaffinity(this) else { return };
    let usable: Vec<usize> = (0..CpuSet::count()).filter(|cpu| usable.is_set(*cpu) == Ok(true)).collect();
    let (kernel, rest) = usable.split_at(usable.len() / 2);
    if let (Some(kernel), Some(rest)) = (set(kernel), set(rest))
        && sched_setaffinity(this, &rest).is_ok()
    {
        let _ = IN_THE_KERNEL.set(kernel);
    }
}

/// A set of these; none of none.
fn set(cpus: &[usize]) -> Option<CpuSet> {
    let mut set = CpuSet::new();
    cpus.iter().try_for_each(|cpu| set.set(*cpu)).ok().filter(|()| !cpus.is_empty()).map(|()| set)
}

/// Starts a thread that changes links, as [`start`] does.
///
/// # Errors
/// As for [`start`].
pub fn start_in_kernel(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    start(name, move || {
        if let Some(cpus) = IN_THE_KERNEL.get() {
            // Refused, it shares the others'.
            let _ = sched_setaffinity(Pid::from_raw(0), cpus);
        }
        work();
    })
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
