//! What can go wrong at the points a run has passed: every point with every fault that fits it.

#![allow(dead_code)] // each test target uses its part

use std::collections::BTreeMap;

use nicd::points::{Order, Pass, Which};
use nix::errno::Errno;

/// What a kernel's refusal may say, of whatever was asked.
const KERNEL: &[Errno] = &[
    Errno::EBUSY,
    Errno::EEXIST,
    Errno::ENODEV,
    Errno::ENOENT,
    Errno::EPERM,
    Errno::EINVAL,
    Errno::ENOBUFS,
    Errno::ENOMEM,
    Errno::EINTR,
    Errno::EAGAIN,
    Errno::ENOSPC,
    Errno::EXFULL,
    Errno::ETIMEDOUT,
    Errno::EOPNOTSUPP,
    Errno::ENOTUNIQ,
    Errno::EMFILE,
];

/// What a disk's refusal may say.
const DISK: &[Errno] = &[Errno::ENOSPC, Errno::EDQUOT, Errno::EIO, Errno::EROFS, Errno::EBUSY];

/// What a look's, or a socket's.
const LOOK: &[Errno] = &[Errno::ENOBUFS, Errno::ENOMEM, Errno::EINTR, Errno::EAGAIN, Errno::ETIMEDOUT];

/// What a point of this name may be refused with.
pub fn errnos(name: &str) -> &'static [Errno] {
    match name.split_once('.').expect("a room and a thing").0 {
        "store" => DISK,
        "netlink" | "watch" | "entries" => LOOK,
        _ => KERNEL,
    }
}

/// Every pair of a pass and a fault.
pub fn pairs(passes: &[Pass], mut errnos: impl FnMut(&str) -> Vec<Errno>) -> Vec<Order> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut orders = Vec::new();
    for Pass { kind, name } in passes {
        let n = counts.entry(name).or_default();
        *n += 1;
        let order = |fault| Order { name: name.clone(), which: Which::Only(*n), fault };
        orders.extend(kind.faults(&errnos(name)).into_iter().map(order));
    }
    orders
}

/// How many different points there are among the passes.
pub fn points(passes: &[Pass]) -> usize {
    passes.iter().collect::<std::collections::BTreeSet<_>>().len()
}
